/* The pool: objects do not move, numbers find them, what is given back comes first. */
#include "base/slots.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void objects_stay(void **state)
{
    (void)state;
    enum { N = 200 };
    struct at_slots s;
    uint64_t *p[N], number[N];
    at_slots_init(&s, 3 * sizeof(uint64_t));
    for (uint64_t i = 0; i < N; i++) {
        p[i] = at_slots_take(&s, &number[i]);
        assert_non_null(p[i]);
        assert_int_equal(number[i], i + 1);
        assert_int_equal((uintptr_t)p[i] % _Alignof(max_align_t), 0);
        assert_int_equal(p[i][0] | p[i][2], 0);
        p[i][0] = p[i][2] = i;
    }
    for (uint64_t i = 0; i < N; i++) {
        assert_ptr_equal(at_slots_at(&s, number[i]), p[i]);
        assert_true(p[i][0] == i && p[i][2] == i);
    }
    at_slots_release(&s);
}

static void given_back_comes_first(void **state)
{
    (void)state;
    struct at_slots s;
    uint64_t a, b, c;
    at_slots_init(&s, 1);
    void *first = at_slots_take(&s, &a), *second = at_slots_take(&s, &b);
    at_slots_give(&s, a);
    assert_ptr_equal(at_slots_take(&s, &c), first);
    assert_int_equal(c, a);
    assert_ptr_equal(at_slots_at(&s, b), second);
    at_slots_release(&s);
}

static void it_has_an_end(void **state)
{
    (void)state;
    struct at_slots s;
    uint64_t number;
    at_slots_init(&s, 1);
    for (int i = 0; i < AT_SLOTS_MAX; i++) assert_non_null(at_slots_take(&s, &number));
    assert_null(at_slots_take(&s, &number));
    at_slots_give(&s, 12345);
    assert_non_null(at_slots_take(&s, &number));
    assert_int_equal(number, 12345);
    at_slots_release(&s);
    at_slots_release(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_stay),
        cmocka_unit_test(given_back_comes_first),
        cmocka_unit_test(it_has_an_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
