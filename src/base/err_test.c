/* Codes, their exit codes, and words for people that may hold a stranger's bytes. */
#include "base/err.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void test_codes(void **state)
{
    assert_int_equal(at_err_exit_code(AT_OK), 0);
    assert_int_equal(at_err_exit_code(AT_E_USAGE), 2);
    assert_int_equal(at_err_exit_code(AT_E_NONFINITE), 3);
    assert_int_equal(at_err_exit_code(AT_E_SIGNATURE), 4);
    assert_int_equal(at_err_exit_code(AT_E_DISK), 5);
    assert_int_equal(at_err_exit_code(AT_E_INVITE), 6);
    assert_int_equal(at_err_exit_code(AT_E_INTERRUPTED), 130);
    assert_int_equal(at_err_exit_code(-1000), 1);
    assert_string_equal(at_err_text(AT_E_NOMEM), "out of memory");
    assert_string_equal(at_err_text(7), "unknown error");
}

static void test_the_first_cause_stays(void **state)
{
    struct at_diag diag = {0};
    assert_int_equal(at_fail(&diag, AT_E_DATA, "file", "byte %d", 7), AT_E_DATA);
    assert_int_equal(at_fail(&diag, AT_E_DISK, "other", "later"), AT_E_DISK);
    assert_int_equal(at_fail(NULL, AT_E_DISK, NULL, "nobody listens"), AT_E_DISK);
    assert_int_equal(diag.err, AT_E_DATA);
    assert_string_equal(diag.where, "file");
    assert_string_equal(diag.text, "byte 7");
}

static void test_no_control_characters_from_strangers(void **state)
{
    struct at_diag diag = {0};
    assert_int_equal(at_fail(&diag, AT_E_DATA, "a\033[2Jb", "%s", "x\r\n\t\177y \xC3\xA9"), AT_E_DATA);
    assert_string_equal(diag.where, "a?[2Jb");
    assert_string_equal(diag.text, "x????y \xC3\xA9"); /* UTF-8 stays */
}

static void test_long_words_are_cut(void **state)
{
    struct at_diag diag = {0};
    char text[2000];
    memset(text, 'w', sizeof text);
    text[sizeof text - 1] = '\0';
    assert_int_equal(at_fail(&diag, AT_E_DATA, text, "%s", text), AT_E_DATA);
    assert_int_equal(strlen(diag.where), sizeof diag.where - 1);
    assert_int_equal(strlen(diag.text), sizeof diag.text - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codes),
        cmocka_unit_test(test_the_first_cause_stays),
        cmocka_unit_test(test_no_control_characters_from_strangers),
        cmocka_unit_test(test_long_words_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
