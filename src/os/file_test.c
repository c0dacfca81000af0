#define _DEFAULT_SOURCE /* syscall */

#include "os/file.h"
#include "os/sys.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];

static const char *in_dir(const char *name)
{
    static char path[4][AT_PATH_BYTES];
    static int turn;
    char *p = path[turn++ % 4];
    assert_int_equal(at_path_join(dir, name, NULL, p), AT_OK);
    return p;
}

static int make_dir(void **state)
{
    strcpy(dir, "/tmp/at_file_test.XXXXXX");
    at_sys_process_init();
    return mkdtemp(dir) ? 0 : -1;
}

static at_err_t remove_entry(void *user, const char *name)
{
    if (unlink(in_dir(name)) != 0 && rmdir(in_dir(name)) != 0) return AT_E_DISK;
    return AT_OK;
}
static int remove_dir(void **state)
{
    if (at_dir_list(dir, NULL, remove_entry, NULL)) return -1;
    return rmdir(dir);
}

static at_err_t put(const char *path, const char *text, struct at_diag *diag)
{
    struct at_span parts[2] = {at_span(text, strlen(text) / 2),
                               at_span(text + strlen(text) / 2, strlen(text) - strlen(text) / 2)};
    return at_file_write_atomic(path, parts, 2, 0600, diag);
}

static void assert_holds(const char *path, const char *text)
{
    struct at_buf buf = {0};
    assert_int_equal(at_file_read(path, 1 << 20, NULL, &buf), AT_OK);
    assert_int_equal(buf.n, strlen(text));
    assert_memory_equal(buf.p, text, buf.n);
    at_buf_release(&buf);
}

static void test_write_then_read(void **state)
{
    struct stat st;
    assert_int_equal(put(in_dir("a"), "first", NULL), AT_OK);
    assert_holds(in_dir("a"), "first");
    assert_int_equal(put(in_dir("a"), "the second one", NULL), AT_OK);
    assert_holds(in_dir("a"), "the second one");
    assert_int_equal(stat(in_dir("a"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    uint64_t bytes = 0;
    assert_int_equal(at_file_size(in_dir("a"), NULL, &bytes), AT_OK);
    assert_int_equal(bytes, 14);
}

static void expect_read(const char *path, size_t max, at_err_t err, const char *says)
{
    struct at_buf buf = {0};
    struct at_diag diag = {0};
    assert_int_equal(at_file_read(path, max, &diag, &buf), err);
    assert_non_null(strstr(diag.text, path));
    assert_non_null(strstr(diag.text, says));
    at_buf_release(&buf);
}

static void test_read_errors_name_the_file(void **state)
{
    assert_int_equal(put(in_dir("ten"), "0123456789", NULL), AT_OK);
    assert_int_equal(put(in_dir("none"), "", NULL), AT_OK);
    assert_int_equal(mkfifo(in_dir("pipe"), 0600), 0);
    expect_read(in_dir("missing"), 100, AT_E_NOT_FOUND, "no such file");
    expect_read(dir, 100, AT_E_DATA, "folder");
    expect_read(in_dir("ten/below"), 100, AT_E_DATA, "no folder");
    expect_read(in_dir("ten"), 9, AT_E_TOO_BIG, "limit of 9");
    expect_read(in_dir("none"), 9, AT_E_DATA, "is empty");
    expect_read(in_dir("pipe"), 9, AT_E_DATA, "no regular file");
    if (geteuid() != 0) {
        assert_int_equal(chmod(in_dir("ten"), 0), 0);
        expect_read(in_dir("ten"), 100, AT_E_ENV, "no permission");
    }
    struct at_buf buf = {0};
    assert_int_equal(at_file_read_any(in_dir("none"), 9, NULL, &buf), AT_OK);
    assert_int_equal(buf.n, 0);
}

static at_err_t fail_on_tmp(void *user, const char *name)
{
    return strstr(name, ".tmp") ? AT_E_INTERNAL : AT_OK;
}

/* RLIMIT_FSIZE stands for a full disk: the error is AT_E_DISK, the old file is whole, no neighbour is left. */
static void test_full_disk_keeps_the_old_file(void **state)
{
    static char big[100000];
    memset(big, 'x', sizeof big - 1);
    assert_int_equal(put(in_dir("keep"), "old", NULL), AT_OK);
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 60000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    struct at_diag diag = {0};
    at_err_t err = put(in_dir("keep"), big, &diag);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(err, AT_E_DISK);
    assert_non_null(strstr(diag.text, "keep"));
    assert_holds(in_dir("keep"), "old");
    assert_int_equal(at_dir_list(dir, NULL, fail_on_tmp, NULL), AT_OK);
    assert_int_equal(at_err_exit_code(err), 5);
}

static void test_folders(void **state)
{
    bool empty = false;
    struct at_diag diag = {0};
    assert_int_equal(at_dir_is_empty(in_dir("new"), NULL, &empty), AT_OK);
    assert_true(empty); /* missing */
    assert_int_equal(at_dir_make(in_dir("new/deep/er"), 0700, NULL), AT_OK);
    assert_int_equal(at_dir_make(in_dir("new/deep/er"), 0700, NULL), AT_OK);
    assert_int_equal(at_dir_is_empty(in_dir("new"), NULL, &empty), AT_OK);
    assert_false(empty);
    assert_int_equal(at_dir_is_empty(in_dir("new/deep/er"), NULL, &empty), AT_OK);
    assert_true(empty);
    assert_int_equal(put(in_dir("file"), "x", NULL), AT_OK);
    assert_int_equal(at_dir_make(in_dir("file/sub"), 0700, &diag), AT_E_DATA);
    assert_non_null(strstr(diag.text, "file"));
    assert_int_equal(put(in_dir("new"), "x", NULL), AT_E_DATA); /* a folder stands there */
    assert_int_equal(at_file_rename(in_dir("file"), in_dir("new/deep/er/file"), NULL), AT_OK);
    assert_int_equal(at_file_remove(in_dir("new/deep/er/file"), NULL), AT_OK);
    assert_int_equal(at_file_remove(in_dir("new/deep/er/file"), NULL), AT_OK);
    uint64_t free_bytes = 0;
    assert_int_equal(at_disk_free(dir, NULL, &free_bytes), AT_OK);
    assert_true(free_bytes > 0);
    rmdir(in_dir("new/deep/er"));
    rmdir(in_dir("new/deep"));
}

/* Stands before libc's: whatever is synced is synced, and noted. */
static struct {
    dev_t dev;
    ino_t ino;
} synced[16];
static int synced_count;

int fsync(int fd)
{
    struct stat st;
    if (synced_count < 16 && fstat(fd, &st) == 0) {
        synced[synced_count].dev = st.st_dev;
        synced[synced_count++].ino = st.st_ino;
    }
    return (int)syscall(SYS_fsync, fd);
}

static bool was_synced(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    for (int i = 0; i < synced_count; i++)
        if (synced[i].dev == st.st_dev && synced[i].ino == st.st_ino) return true;
    return false;
}

/* Each new folder's name is durable in the one above it; one that was there costs nothing. */
static void test_new_folders_are_durable(void **state)
{
    synced_count = 0;
    assert_int_equal(at_dir_make(in_dir("one/two/"), 0700, NULL), AT_OK);
    assert_true(was_synced(dir));
    assert_true(was_synced(in_dir("one")));
    assert_int_equal(synced_count, 2);
    assert_int_equal(at_dir_make(in_dir("one/two"), 0700, NULL), AT_OK);
    assert_int_equal(synced_count, 2);
    rmdir(in_dir("one/two"));
}

/* A second name keeps what the first one held: it must be gone there too. */
static void test_a_secret_is_gone_for_good(void **state)
{
    struct at_buf left = {0};
    char other[AT_PATH_BYTES];
    (void)state;
    assert_int_equal(put(in_dir("secret"), "a secret of twenty-six bytes", NULL), AT_OK);
    snprintf(other, sizeof other, "%s", in_dir("other"));
    assert_int_equal(link(in_dir("secret"), other), 0);
    assert_int_equal(at_file_erase(in_dir("secret"), NULL), AT_OK);
    assert_false(at_file_exists(in_dir("secret")));
    assert_int_equal(at_file_read(other, 100, NULL, &left), AT_OK);
    assert_true(left.n > 0);
    for (size_t i = 0; i < left.n; i++) assert_int_equal(left.p[i], 0);
    at_buf_release(&left);
    assert_int_equal(at_file_erase(in_dir("secret"), NULL), AT_OK);
    assert_int_equal(at_file_remove(other, NULL), AT_OK);
    assert_int_equal(at_dir_make(in_dir("folder"), 0700, NULL), AT_OK);
    struct at_diag diag = {0};
    assert_int_equal(at_file_erase(in_dir("folder"), &diag), AT_E_DATA);
    assert_non_null(strstr(diag.text, "folder"));
    rmdir(in_dir("folder"));
}

static void test_one_process_per_folder(void **state)
{
    struct at_lock lock = {0};
    assert_int_equal(at_lock_take(&lock, dir, NULL), AT_OK);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        struct at_lock second = {0};
        struct at_diag diag = {0};
        char says[64];
        snprintf(says, sizeof says, "pid %ld", (long)getppid());
        at_err_t err = at_lock_take(&second, dir, &diag);
        _exit(err == AT_E_ENV && strstr(diag.text, says) && strstr(diag.text, dir) ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    at_lock_release(&lock);
    struct at_lock again = {0};
    assert_int_equal(at_lock_take(&again, dir, NULL), AT_OK);
    at_lock_release(&again);
    at_lock_release(&again);
}

static void test_machine_questions(void **state)
{
    assert_true(at_sys_cpu_count() >= 1);
    assert_true(at_sys_memory_available() > 1 << 20);
    uint64_t now = at_clock_mono_ns(), start = at_sys_process_start_ns();
    assert_true(start <= now && now - start < 600000000000u);
    assert_true(at_clock_unix_ms() > 1600000000000u);
    assert_false(at_sys_is_terminal(-1));
    assert_true(at_sys_terminal_columns(-1) >= 20);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {
        CASE(test_write_then_read),
        CASE(test_read_errors_name_the_file),
        CASE(test_full_disk_keeps_the_old_file),
        CASE(test_folders),
        CASE(test_new_folders_are_durable),
        CASE(test_one_process_per_folder),
        cmocka_unit_test(test_machine_questions),
        CASE(test_a_secret_is_gone_for_good),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
