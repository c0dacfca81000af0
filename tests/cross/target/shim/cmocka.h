/* cmocka.h: as much of cmocka as the tests of the pure layers use, for programs that run under emulation, where cmocka
 * is not installed. The first failure ends the program with exit code 1. */
#ifndef ATOLL_CROSS_CMOCKA_H
#define ATOLL_CROSS_CMOCKA_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
    int (*setup)(void **state), (*teardown)(void **state);
};
#define cmocka_unit_test(f)                                                                                            \
    {                                                                                                                  \
#f, f, NULL, NULL                                                                                              \
    }
#define cmocka_unit_test_setup_teardown(f, setup, teardown)                                                            \
    {                                                                                                                  \
#f, f, setup, teardown                                                                                         \
    }
#define cmocka_run_group_tests(tests, setup, teardown)                                                                 \
    at_cross_run_group(tests, sizeof(tests) / sizeof(tests)[0], setup, teardown)

__attribute__((noreturn, format(printf, 3, 4))) static inline void at_cross_fail(const char *file, int line,
                                                                                 const char *text, ...)
{
    va_list args;
    va_start(args, text);
    fflush(stdout);
    fprintf(stderr, "%s:%d: ", file, line);
    vfprintf(stderr, text, args);
    fprintf(stderr, "\n");
    va_end(args);
    exit(1);
}

static inline int at_cross_run_group(const struct CMUnitTest *test, size_t n, int (*setup)(void **),
                                     int (*teardown)(void **))
{
    void *state = NULL;
    if (setup && setup(&state) != 0) at_cross_fail(__FILE__, __LINE__, "the setup failed");
    for (size_t i = 0; i < n; i++) {
        printf("[ RUN      ] %s\n", test[i].name);
        fflush(stdout);
        void *own = state;
        if (test[i].setup && test[i].setup(&own) != 0) at_cross_fail(__FILE__, __LINE__, "its setup failed");
        test[i].run(&own);
        if (test[i].teardown) test[i].teardown(&own);
    }
    if (teardown) teardown(&state);
    printf("[  PASSED  ] %zu test(s).\n", n);
    return 0;
}

#define print_error(...)   fprintf(stderr, __VA_ARGS__)
#define print_message(...) printf(__VA_ARGS__)
#define fail_msg(...)      at_cross_fail(__FILE__, __LINE__, __VA_ARGS__)
#define fail()             fail_msg("failed")

#define AT_CROSS_INT(x) ((unsigned long long)(x))
#define AT_CROSS_CHECK(ok, text)                                                                                       \
    do {                                                                                                               \
        if (!(ok)) fail_msg("%s", text);                                                                               \
    } while (0)
#define AT_CROSS_ORDER(a, op, b)                                                                                       \
    do {                                                                                                               \
        unsigned long long at_a = AT_CROSS_INT(a), at_b = AT_CROSS_INT(b);                                             \
        if (!(at_a op at_b)) fail_msg("%s %s %s: %#llx, %#llx", #a, #op, #b, at_a, at_b);                              \
    } while (0)

#define assert_true(x)             AT_CROSS_CHECK(x, "false: " #x)
#define assert_false(x)            AT_CROSS_CHECK(!(x), "true: " #x)
#define assert_int_equal(a, b)     AT_CROSS_ORDER(a, ==, b)
#define assert_int_not_equal(a, b) AT_CROSS_ORDER(a, !=, b)
#define assert_in_range(x, low, high)                                                                                  \
    AT_CROSS_CHECK(AT_CROSS_INT(x) - AT_CROSS_INT(low) <= AT_CROSS_INT(high) - AT_CROSS_INT(low), "out of range: " #x)
#define assert_null(p)                   AT_CROSS_CHECK((p) == NULL, "not NULL: " #p)
#define assert_non_null(p)               AT_CROSS_CHECK((p) != NULL, "NULL: " #p)
#define assert_ptr_equal(a, b)           AT_CROSS_CHECK((const void *)(a) == (const void *)(b), "other pointers: " #a ", " #b)
#define assert_string_equal(a, b)        AT_CROSS_CHECK(strcmp(a, b) == 0, "other strings: " #a ", " #b)
#define assert_memory_equal(a, b, n)     AT_CROSS_CHECK(memcmp(a, b, n) == 0, "other bytes: " #a ", " #b)
#define assert_memory_not_equal(a, b, n) AT_CROSS_CHECK(memcmp(a, b, n) != 0, "equal bytes: " #a ", " #b)

#endif
