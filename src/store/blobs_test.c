#include "os/sys.h"
#include "store/blobs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];

static int setup(void **state)
{
    strcpy(dir, "/tmp/atoll-blobs-XXXXXX");
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static struct at_blobs open_blobs(uint64_t bytes_max)
{
    struct at_blobs b;
    struct at_diag diag = {.err = AT_OK};
    if (at_blobs_open(&b, dir, bytes_max, &diag) != AT_OK) fail_msg("%s", diag.text);
    return b;
}

static int teardown(void **state)
{
    struct at_blobs b = open_blobs(0);
    if (at_blobs_prune(&b, NULL, 0, NULL) != AT_OK) return -1;
    at_blobs_release(&b);
    return rmdir(dir); /* fails when anything but blobs was left */
}

static void file_of(struct at_hash h, const char *suffix, char ret[160])
{
    snprintf(ret, 160, "%s/%s%s", dir, at_hash_hex(h).s, suffix);
}

static void there_and_back(void **state)
{
    struct at_blobs b = open_blobs(0);
    static const size_t sizes[] = {0, 1, 100, 70000};
    static uint8_t bytes[70000];
    struct at_hash h;
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * i);
    for (size_t k = 0; k < 4; k++) {
        struct at_buf out = {0};
        uint64_t size;
        assert_int_equal(at_blobs_put(&b, at_span(bytes, sizes[k]), NULL, &h), AT_OK);
        assert_true(at_hash_eq(h, at_sha256(bytes, sizes[k])) && at_blobs_has(&b, h));
        assert_int_equal(at_blobs_put(&b, at_span(bytes, sizes[k]), NULL, &h), AT_OK); /* twice is once */
        assert_int_equal(at_blobs_size(&b, h, &size), AT_OK);
        assert_int_equal(size, sizes[k]);
        assert_int_equal(at_blobs_get(&b, h, NULL, &out), AT_OK);
        assert_true(at_span_eq(at_buf_span(&out), at_span(bytes, sizes[k])));
        at_buf_release(&out);
    }
    assert_int_equal(b.bytes, 70101);
    uint8_t part[10];
    assert_int_equal(at_blobs_read(&b, h, 69990, part, 10, NULL), AT_OK);
    assert_memory_equal(part, bytes + 69990, 10);
    assert_int_equal(at_blobs_read(&b, h, 69991, part, 10, NULL), AT_E_DATA);
    assert_int_equal(at_blobs_read(&b, h, UINT64_MAX, part, 10, NULL), AT_E_DATA);
    struct at_hash missing = at_sha256("missing", 7);
    struct at_buf out = {0};
    assert_false(at_blobs_has(&b, missing));
    assert_int_equal(at_blobs_get(&b, missing, NULL, &out), AT_E_NOT_FOUND);
    assert_int_equal(at_blobs_read(&b, missing, 0, part, 1, NULL), AT_E_NOT_FOUND);
    at_blobs_release(&b);
    b = open_blobs(0);
    assert_int_equal(b.bytes, 70101); /* counted again */
    at_blobs_release(&b);
    at_blobs_release(&b);
}

static void damage_is_noticed_and_cleared(void **state)
{
    struct at_blobs b = open_blobs(0);
    struct at_hash h;
    struct at_buf out = {0};
    char file[160];
    assert_int_equal(at_buf_append(&out, "kept", 4), AT_OK);
    assert_int_equal(at_blobs_put(&b, at_span("hello, world", 12), NULL, &h), AT_OK);
    file_of(h, "", file);
    FILE *f = fopen(file, "r+b");
    assert_non_null(f);
    fputc('J', f);
    fclose(f);
    assert_int_equal(at_blobs_get(&b, h, NULL, &out), AT_E_VERIFY);
    assert_true(at_span_eq(at_buf_span(&out), at_span("kept", 4)));
    assert_false(at_blobs_has(&b, h));
    assert_int_equal(b.bytes, 0);
    assert_int_equal(at_blobs_put(&b, at_span("hello, world", 12), NULL, &h), AT_OK);
    assert_int_equal(at_blobs_get(&b, h, NULL, &out), AT_OK);
    assert_true(at_span_eq(at_buf_span(&out), at_span("kepthello, world", 16)));
    at_buf_release(&out);
    struct at_file_map map = {0};
    assert_int_equal(at_blobs_map(&b, h, 11, NULL, &map), AT_E_TOO_BIG);
    assert_int_equal(at_blobs_map(&b, h, 12, NULL, &map), AT_OK);
    assert_true(at_span_eq(at_span(map.p, map.n), at_span("hello, world", 12)));
    at_file_map_release(&map);
    assert_non_null(f = fopen(file, "r+b"));
    fputc('J', f);
    fclose(f);
    assert_int_equal(at_blobs_map(&b, h, 12, NULL, &map), AT_E_VERIFY);
    assert_null(map.p);
    assert_false(at_blobs_has(&b, h));
    assert_int_equal(at_blobs_map(&b, h, 12, NULL, &map), AT_E_NOT_FOUND);
    assert_int_equal(at_blobs_put(&b, at_span("hello, world", 12), NULL, &h), AT_OK);
    out.bytes_max = 11; /* the size check */
    assert_int_equal(at_blobs_get(&b, h, NULL, &out), AT_E_TOO_BIG);
    at_buf_release(&out);
    at_blobs_release(&b);
}

static void caps_hold(void **state)
{
    struct at_blobs b = open_blobs(10);
    struct at_hash h;
    assert_int_equal(at_blobs_put(&b, at_span("12345678901", 11), NULL, &h), AT_E_TOO_BIG);
    assert_int_equal(at_blobs_put(&b, at_span("1234567", 7), NULL, &h), AT_OK);
    assert_int_equal(at_blobs_put(&b, at_span("abcd", 4), NULL, &h), AT_E_TOO_BIG);
    assert_int_equal(at_blobs_put(&b, at_span("abc", 3), NULL, &h), AT_OK);
    assert_int_equal(at_blobs_prune(&b, &h, 1, NULL), AT_OK);
    assert_int_equal(b.bytes, 3);
    assert_true(at_blobs_has(&b, h));
    assert_int_equal(at_blobs_put(&b, at_span("1234567", 7), NULL, &h), AT_OK);
    at_blobs_release(&b);
}

/* A crash leaves temporary files, people leave others: the first go, the second stay. */
static void only_what_is_ours_is_touched(void **state)
{
    struct at_blobs b = open_blobs(0);
    struct at_hash h;
    char temp[160], note[160];
    assert_int_equal(at_blobs_put(&b, at_span("x", 1), NULL, &h), AT_OK);
    at_blobs_release(&b);
    file_of(h, ".4711.tmp", temp);
    snprintf(note, sizeof note, "%s/README", dir);
    fclose(fopen(temp, "wb"));
    fclose(fopen(note, "wb"));
    b = open_blobs(0);
    assert_int_not_equal(access(temp, F_OK), 0);
    assert_int_equal(at_blobs_prune(&b, NULL, 0, NULL), AT_OK);
    assert_int_equal(access(note, F_OK), 0);
    assert_false(at_blobs_has(&b, h));
    at_blobs_release(&b);
    assert_int_equal(unlink(note), 0);
}

static void a_full_disk_leaves_nothing_behind(void **state)
{
    at_sys_process_init();
    struct at_blobs b = open_blobs(0);
    struct at_hash h;
    static uint8_t bytes[100000];
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = (struct rlimit){.rlim_cur = 50000, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    struct at_diag diag = {.err = AT_OK};
    at_err_t err = at_blobs_put(&b, at_span(bytes, sizeof bytes), &diag, &h);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(err, AT_E_DISK);
    assert_int_equal(b.bytes, 0);
    assert_int_equal(at_blobs_put(&b, at_span(bytes, sizeof bytes), NULL, &h), AT_OK);
    at_blobs_release(&b);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {T(there_and_back), T(damage_is_noticed_and_cleared), T(caps_hold),
                                       T(only_what_is_ours_is_touched), T(a_full_disk_leaves_nothing_behind)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
