/* Texts broken at 80 columns: where breaks go, which of the text's own stay. */
#include "cli/cli_wrap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void expect(int column, int indent, const char *text, const char *wrapped)
{
    char *got = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&got, &n);
    assert_non_null(out);
    at_wrap(out, column, indent, text);
    fclose(out);
    assert_string_equal(got, wrapped);
    free(got);
}

static const char fifty[] = "fifty-letters-fifty-letters-fifty-letters-fifty-le";

static void breaks_at_spaces(void **state)
{
    (void)state;
    char text[200], want[200];
    expect(0, 0, "short", "short\n");
    expect(0, 0, "", "\n");
    snprintf(text, sizeof text, "%s 29-letters-29-letters-29-let b", fifty); /* 50 + 1 + 29 fit exactly */
    snprintf(want, sizeof want, "%s 29-letters-29-letters-29-let\nb\n", fifty);
    expect(0, 0, text, want);
    snprintf(text, sizeof text, "%s 30-letters-30-letters-30-lette", fifty);
    snprintf(want, sizeof want, "%s\n    30-letters-30-letters-30-lette\n", fifty);
    expect(0, 4, text, want);
    snprintf(text, sizeof text, "a %s %s", fifty, fifty);
    snprintf(want, sizeof want, "a\n  %s\n  %s\n", fifty, fifty);
    expect(70, 2, text, want);
}

static void own_breaks_stay_after_a_sentence(void **state)
{
    (void)state;
    expect(0, 0, "one\ntwo.\nthree:\nfour", "one two.\nthree:\nfour\n");
    expect(0, 0, "one\n\ntwo", "one\n\ntwo\n");
    expect(0, 0, "one\n  two", "one\n  two\n");
    expect(0, 0, "one  two", "one  two\n");
}

static void no_line_is_longer(void **state)
{
    (void)state;
    char text[4000] = "", *got = NULL;
    size_t n = 0;
    for (int i = 0; i < 300; i++) snprintf(text + strlen(text), 14, "%.*s ", 1 + i * 7 % 12, "abcdefghijkl");
    FILE *out = open_memstream(&got, &n);
    assert_non_null(out);
    at_wrap(out, 25, 25, text);
    fclose(out);
    size_t letters = 0, wanted = 0;
    for (const char *c = text; *c != '\0'; c++) wanted += *c != ' ';
    for (char *line = strtok(got, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        assert_true(strlen(line) <= (letters == 0 ? AT_COLUMNS - 25 : AT_COLUMNS));
        for (const char *c = line; *c != '\0'; c++) letters += *c != ' ';
    }
    assert_int_equal(letters, wanted);
    free(got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(breaks_at_spaces),
        cmocka_unit_test(own_breaks_stay_after_a_sentence),
        cmocka_unit_test(no_line_is_longer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
