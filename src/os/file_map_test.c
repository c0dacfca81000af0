#include "os/file_map.h"

#include "os/file.h"
#include "os/sys.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64], path[AT_PATH_BYTES];

static int make_dir(void **state)
{
    strcpy(dir, "/tmp/atoll-map.XXXXXX");
    return mkdtemp(dir) != NULL && at_path_join(dir, "f", NULL, path) == AT_OK ? 0 : -1;
}

static int remove_dir(void **state)
{
    at_err_t err = at_file_remove(path, NULL);
    return err != AT_OK || rmdir(dir) != 0; /* nothing else is left there */
}

static void put_file(const char *text)
{
    struct at_span part = at_span(text, strlen(text));
    assert_int_equal(at_file_write_atomic(path, &part, 1, 0644, NULL), AT_OK);
}

static void expect_zeros_then_kept(struct at_file_map *m, size_t bytes)
{
    assert_int_equal(m->n, bytes);
    assert_int_equal((uintptr_t)m->p % 64, 0);
    for (size_t i = 0; i < bytes; i++) assert_int_equal(m->p[i], 0);
    memset(m->p, 0x5a, bytes);
    assert_int_equal(m->p[bytes - 1], 0x5a);
    at_file_map_release(m);
    assert_null(m->p);
    at_file_map_release(m);
}

static void scratch_is_zero_and_leaves_nothing(void **state)
{
    struct at_file_map m;
    bool empty = false;
    assert_int_equal(at_file_map_scratch(&m, dir, 100001, NULL), AT_OK);
    assert_int_equal(at_dir_is_empty(dir, NULL, &empty), AT_OK);
    assert_true(empty);
    expect_zeros_then_kept(&m, 100001);
    assert_int_equal(at_file_map_scratch(&m, NULL, 5000, NULL), AT_OK);
    expect_zeros_then_kept(&m, 5000);
    struct at_memory memory = at_file_map_memory(dir);
    for (int i = 0; i < 2; i++) {
        uint8_t *p = at_memory_take(i ? &memory : NULL, 777);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        memset(p, 1, 777);
        at_memory_give(i ? &memory : NULL, p, 777);
        at_memory_give(i ? &memory : NULL, NULL, 777);
    }
}

static void a_whole_file_is_read(void **state)
{
    struct at_file_map m;
    struct at_diag diag = {0};
    put_file("hello");
    assert_int_equal(at_file_map_open(&m, path, 5, NULL), AT_OK);
    assert_int_equal(m.n, 5);
    assert_memory_equal(m.p, "hello", 5);
    at_file_map_release(&m);
    assert_int_equal(at_file_map_open(&m, path, 4, NULL), AT_E_TOO_BIG);
    assert_int_equal(at_file_map_open(&m, dir, 4, NULL), AT_E_DATA);
    put_file("");
    assert_int_equal(at_file_map_open(&m, path, 4, NULL), AT_E_DATA);
    assert_int_equal(at_file_remove(path, NULL), AT_OK);
    assert_int_equal(at_file_map_open(&m, path, 4, &diag), AT_E_NOT_FOUND);
    assert_non_null(strstr(diag.text, path));
    at_file_map_release(&m);
    assert_int_equal(at_file_map_scratch(&m, "/nowhere/at/all", 10, NULL), AT_E_NOT_FOUND);
}

/* RLIMIT_FSIZE stands for a full disk: it is noticed before a byte is written. */
static void a_full_disk_is_told_at_once(void **state)
{
    struct at_file_map m;
    struct at_diag diag = {0};
    struct rlimit old;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    struct rlimit small = {4096, old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    at_err_t err = at_file_map_scratch(&m, dir, 1 << 20, &diag);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(err, AT_E_DISK);
    assert_null(m.p);
    assert_non_null(strstr(diag.text, dir));
}

/* A page that is not there any more ends the process with a word, and with the code of a failing disk. */
static void a_lost_page_is_told(void **state)
{
    char text[1024] = "";
    int out[2], status = 0;
    put_file("hello");
    assert_int_equal(pipe(out), 0);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct at_file_map other, m;
        if (dup2(out[1], 2) != 2 || at_file_map_scratch(&other, dir, 5000, NULL) != AT_OK ||
            at_file_map_open(&m, path, 5, NULL) != AT_OK || truncate(path, 0) != 0)
            _exit(1);
        _exit(*(volatile uint8_t *)m.p == 'h' ? 2 : 3);
    }
    close(out[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    ssize_t n = read(out[0], text, sizeof text - 1);
    close(out[0]);
    assert_true(n > 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 5);
    assert_non_null(strstr(text, path));
    assert_int_equal(at_file_remove(path, NULL), AT_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lost_page_is_told), /* first: cmocka takes the signal back before each further test */
        cmocka_unit_test(scratch_is_zero_and_leaves_nothing),
        cmocka_unit_test(a_whole_file_is_read),
        cmocka_unit_test(a_full_disk_is_told_at_once),
    };
    at_sys_process_init();
    return cmocka_run_group_tests_name("file_map", tests, make_dir, remove_dir);
}
