#include "base/line_rate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void bytes_over_time(void **state)
{
    struct at_line_rate r = {0};
    (void)state;
    assert_int_equal(at_line_rate_kbit(&r), 0);
    at_line_rate_take(&r, AT_LINE_BYTES - 1, 1); /* too little to tell */
    assert_int_equal(at_line_rate_kbit(&r), 0);
    at_line_rate_take(&r, 125000, 1000000);
    assert_int_equal(at_line_rate_kbit(&r), 1000); /* a megabit in a second */
    at_line_rate_take(&r, 250000, 1000000);
    assert_int_equal(at_line_rate_kbit(&r), 2000); /* at least: the best counts */
    at_line_rate_take(&r, 125000, 1000000);
    assert_int_equal(at_line_rate_kbit(&r), 2000);
}

static void a_line_that_has_become_slower_shows(void **state)
{
    struct at_line_rate r = {0};
    (void)state;
    at_line_rate_take(&r, 1250000, 1000000);
    int n = 0;
    for (; at_line_rate_kbit(&r) == 10000 && n < 3 * AT_LINE_SAMPLES; n++) at_line_rate_take(&r, 125000, 1000000);
    assert_int_equal(at_line_rate_kbit(&r), 1000);
    assert_int_equal(n, 2 * AT_LINE_SAMPLES);
    at_line_rate_take(&r, 2500000, 1000000); /* that it has become faster, at once */
    assert_int_equal(at_line_rate_kbit(&r), 20000);
}

static void the_ends_of_the_scale(void **state)
{
    struct at_line_rate r = {0};
    (void)state;
    at_line_rate_take(&r, AT_LINE_BYTES, UINT64_MAX);
    assert_int_equal(at_line_rate_kbit(&r), 1);
    at_line_rate_take(&r, UINT64_MAX, 0);
    assert_int_equal(at_line_rate_kbit(&r), UINT32_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bytes_over_time),
                                       cmocka_unit_test(a_line_that_has_become_slower_shows),
                                       cmocka_unit_test(the_ends_of_the_scale)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
