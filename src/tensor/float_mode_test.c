/* A thread whose arithmetic is set to another mode is refused, in words, and computes again once the mode is back. */
#include "tensor/exec.h"
#include "tensor/float_mode.h"

#include <fenv.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

static at_err_t try_exec(void)
{
    struct at_exec ex;
    at_err_t err = at_exec_init(&ex, at_kern_available()[0], &at_par_serial);
    if (err == AT_OK) at_exec_release(&ex);
    return err;
}

static void test_the_usual_mode(void **state)
{
    struct at_diag diag = {0};
    assert_int_equal(at_float_mode_check(&diag), AT_OK);
    assert_string_equal(diag.text, "");
    assert_int_equal(try_exec(), AT_OK);
}

static void test_other_rounding(void **state)
{
    static const int modes[] = {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        struct at_diag diag = {0};
        assert_int_equal(fesetround(modes[i]), 0);
        at_err_t err = at_float_mode_check(&diag), exec = try_exec();
        assert_int_equal(fesetround(FE_TONEAREST), 0);
        assert_int_equal(err, AT_E_ENV);
        assert_int_equal(exec, AT_E_ENV);
        assert_non_null(strstr(diag.text, "round"));
    }
    test_the_usual_mode(state);
}

/* Flush to zero and denormals are zero, each alone: FPCR.FZ on ARM does both. */
static void test_flushed_subnormals(void **state)
{
#if defined(__x86_64__)
    static const unsigned bits[] = {0x8000, 0x0040};
    unsigned before = _mm_getcsr();
#define SET_MODE(x) _mm_setcsr((unsigned)(x))
#elif defined(__aarch64__)
    static const uint64_t bits[] = {1u << 24};
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
#define SET_MODE(x) __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)(x)))
#else
    skip();
#endif
#if defined(SET_MODE)
    for (size_t i = 0; i < sizeof bits / sizeof bits[0]; i++) {
        struct at_diag diag = {0};
        SET_MODE(before | bits[i]);
        at_err_t err = at_float_mode_check(&diag), exec = try_exec();
        SET_MODE(before);
        assert_int_equal(err, AT_E_ENV);
        assert_int_equal(exec, AT_E_ENV);
        assert_non_null(strstr(diag.text, "subnormal"));
    }
    test_the_usual_mode(state);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_usual_mode),
        cmocka_unit_test(test_other_rounding),
        cmocka_unit_test(test_flushed_subnormals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
