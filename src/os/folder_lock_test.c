/* The folder itself is the lock: for another process as for another open of it, until it is released or the process ends. */
#include "os/folder_lock.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];

static int make_dir(void **state)
{
    strcpy(dir, "/tmp/at_folder_lock_test.XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    return rmdir(dir); /* nothing was put into it */
}

static void test_one_at_a_time(void **state)
{
    struct at_lock lock = {0}, second = {0};
    struct at_diag diag = {0};
    assert_int_equal(at_folder_lock_take(&lock, dir, NULL), AT_OK);
    assert_int_equal(at_folder_lock_take(&second, dir, &diag), AT_E_ENV);
    assert_non_null(strstr(diag.text, dir));
    assert_non_null(strstr(diag.text, "choose another folder"));
    at_lock_release(&second); /* holds nothing */
    at_lock_release(&lock);
    assert_int_equal(at_folder_lock_take(&second, dir, NULL), AT_OK);
    at_lock_release(&second);
}

static void test_ends_with_its_process(void **state)
{
    int ready[2], status = -1;
    char byte = 0;
    struct at_lock lock = {0};
    assert_int_equal(pipe(ready), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        if (at_folder_lock_take(&lock, dir, NULL) != AT_OK || write(ready[1], "x", 1) != 1) _exit(1);
        for (;;) pause();
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    at_err_t err = at_folder_lock_take(&lock, dir, NULL);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(err, AT_E_ENV);
    assert_int_equal(at_folder_lock_take(&lock, dir, NULL), AT_OK);
    at_lock_release(&lock);
}

static void test_no_folder(void **state)
{
    struct at_lock lock = {0};
    struct at_diag diag = {0};
    assert_int_equal(at_folder_lock_take(&lock, "/proc/no/such/folder", &diag), AT_E_ENV);
    assert_non_null(strstr(diag.text, "/proc/no/such/folder"));
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {
        CASE(test_one_at_a_time),
        CASE(test_ends_with_its_process),
        CASE(test_no_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
