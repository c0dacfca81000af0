/* Children: what they print, how they end, what is told of it. */
#include "cli/child.h"

#include "os/sys.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/atoll-child-test.XXXXXX", path[128];

static int make_folder(void **state)
{
    if (mkdtemp(dir) == NULL) return -1;
    snprintf(path, sizeof path, "%s/log", dir);
    return 0;
}
static int remove_folder(void **state)
{
    unlink(path);
    return rmdir(dir);
}

static at_err_t shell(const char *script, struct at_diag *diag, struct at_buf *out)
{
    const char *argv[] = {"/bin/sh", "-c", script, NULL};
    unlink(path);
    memset(diag, 0, sizeof *diag);
    at_buf_clear(out);
    return at_child_run(argv, path, diag, out);
}

static void test_output_and_exit_codes(void **state)
{
    struct at_diag diag;
    struct at_buf out = {0};
    assert_int_equal(shell("echo hello; echo aside >&2", &diag, &out), AT_OK);
    assert_int_equal(out.n, 6);
    assert_memory_equal(out.p, "hello\n", 6);
    static const int codes[] = {1, 2, 3, 4, 5, 6, 130};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        char script[64];
        snprintf(script, sizeof script, "echo first >&2; echo 'atoll: the reason' >&2; exit %d", codes[i]);
        assert_int_equal(at_err_exit_code(shell(script, &diag, &out)), codes[i]);
        assert_string_equal(diag.text, "the reason");
    }
    assert_int_equal(shell("kill -9 $$", &diag, &out), AT_E_INTERNAL);
    assert_string_equal(diag.text, "ended without a word");
    assert_int_equal(shell("head -c 200000 /dev/zero", &diag, &out), AT_OK); /* more than a pipe holds */
    assert_int_equal(out.n, 200000);
    at_buf_release(&out);
}

static void test_end_is_gentle_then_not(void **state)
{
    struct at_child child = {0};
    const char *polite[] = {"/bin/sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done", NULL};
    const char *stubborn[] = {"/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.01; done", NULL};
    char tail[16] = "";
    for (int i = 0; i < 2; i++) {
        unlink(path);
        assert_int_equal(at_child_start(&child, i == 0 ? polite : stubborn, path, NULL), AT_OK);
        do at_file_tail(path, 1, tail, sizeof tail);
        while (strcmp(tail, "up") != 0);
        at_child_poll(&child);
        assert_true(child.running);
        at_child_end(&child, i == 0 ? 20000 : 100);
        assert_false(child.running);
        assert_int_equal(child.exit_code, i == 0 ? 7 : 0);
        assert_int_equal(child.exit_signal, i == 0 ? 0 : SIGKILL);
        at_child_end(&child, 100); /* once more is nothing */
    }
    assert_int_equal(at_child_start(&child, (const char *const[]){"/nonexistent/x", NULL}, path, NULL), AT_OK);
    while (child.running) at_child_poll(&child);
    assert_int_equal(child.exit_code, 127);
}

static void test_tail(void **state)
{
    char text[64];
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("one\ntwo\n\x1b[31mthree\n\n", f);
    fclose(f);
    at_file_tail(path, 1, text, sizeof text);
    assert_string_equal(text, "[31mthree");
    at_file_tail(path, 2, text, sizeof text);
    assert_string_equal(text, "two\n[31mthree");
    at_file_tail(path, 9, text, sizeof text);
    assert_string_equal(text, "one\ntwo\n[31mthree");
    at_file_tail(path, 9, text, 6);
    assert_string_equal(text, "three");
    at_file_tail("/nonexistent/x", 1, text, sizeof text);
    assert_string_equal(text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_output_and_exit_codes),
        cmocka_unit_test(test_end_is_gentle_then_not),
        cmocka_unit_test(test_tail),
    };
    at_sys_process_init();
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
