/* Live lines: what fits, what a pipe sees (no escapes), and the small texts. */
#include "cli/progress.h"

#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_fit(void **state)
{
    assert_int_equal(at_line_fit("abc", 2), 2);
    assert_int_equal(at_line_fit("abc", 9), 3);
    assert_int_equal(at_line_fit("\x1b[32mab\x1b[0mc", 2), 11); /* the reset after the last column belongs to it */
    assert_int_equal(at_line_fit("é█x", 2), 5);
    assert_int_equal(at_line_fit("\x1b[", 5), 2); /* cut short: no reading past the end */
    assert_int_equal(at_line_fit("\x1b", 5), 1);
}

static void test_pipe_gets_plain_lines(void **state)
{
    FILE *f = tmpfile();
    assert_non_null(f);
    struct at_screen screen;
    setenv("TERM", "xterm", 1);
    at_screen_init(&screen, f);
    assert_true(!screen.live && !screen.colour);
    at_screen_draw(&screen, (const char *const[]){"live"}, 1);
    at_screen_say(&screen, "%sround %d", at_style(&screen, AT_STYLE_GREEN), 3);
    at_screen_clear(&screen);
    rewind(f);
    char got[64] = "";
    assert_non_null(fgets(got, sizeof got, f));
    assert_string_equal(got, "round 3\n");
    assert_null(fgets(got, sizeof got, f));
    fclose(f);
}

static void test_live_block_is_redrawn_in_place(void **state)
{
    FILE *f = tmpfile();
    assert_non_null(f);
    struct at_screen screen = {.out = f, .live = true};
    at_screen_draw(&screen, (const char *const[]){"a", "b"}, 2);
    at_screen_draw(&screen, (const char *const[]){"c"}, 1);
    at_screen_say(&screen, "x");
    rewind(f);
    char got[128] = "";
    size_t n = fread(got, 1, sizeof got - 1, f);
    assert_string_equal(got, "a\x1b[K\nb\x1b[K\n\x1b[J\r\x1b[2A"
                             "c\x1b[K\n\x1b[J\r\x1b[1A\x1b[Jx\n");
    assert_int_equal(n, strlen(got));
    fclose(f);
}

static void test_texts(void **state)
{
    struct at_screen ascii = {0}, utf8 = {.utf8 = true};
    assert_string_equal(at_bar(&ascii, 0.5, 4).s, "##..");
    assert_string_equal(at_bar(&ascii, 7, 4).s, "####");
    assert_string_equal(at_bar(&ascii, -1, 4).s, "....");
    assert_string_equal(at_bar(&utf8, 0.375, 4).s, "█▌  ");
    assert_int_equal(strlen(at_bar(&utf8, 1, 40).s), 120);
    assert_string_equal(at_duration(7.2).s, "0:07");
    assert_string_equal(at_duration(760).s, "12:40");
    assert_string_equal(at_duration(11100).s, "3:05:00");
    assert_string_equal(at_count(512).s, "512");
    assert_string_equal(at_count(12345).s, "12.3 k");
    assert_string_equal(at_count(983040).s, "983 k");
    assert_string_equal(at_count(1228800).s, "1.23 M");
    assert_string_equal(at_bytes(12000000).s, "12.0 MB");
    assert_string_equal(at_points(1234567891).s, "1,234.567");
    assert_string_equal(at_points(0).s, "0.000");
    assert_string_equal(at_points(24000000000000u).s, "24,000,000.000");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fit),
        cmocka_unit_test(test_pipe_gets_plain_lines),
        cmocka_unit_test(test_live_block_is_redrawn_in_place),
        cmocka_unit_test(test_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
