#include "os/file_part.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/atoll-part.XXXXXX";

static int make_dir(void **state)
{
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int remove_dir(void **state)
{
    char path[AT_PATH_BYTES];
    at_err_t err = at_path_join(dir, "f", NULL, path);
    if (err == AT_OK) err = at_file_remove(path, NULL);
    return err != AT_OK || rmdir(dir) != 0; /* nothing else is left there */
}

static void pieces_in_any_order_appear_whole(void **state)
{
    struct at_file_part f;
    struct at_diag diag = {0};
    char path[AT_PATH_BYTES];
    uint8_t got[9];
    assert_int_equal(at_path_join(dir, "f", NULL, path), AT_OK);
    assert_int_equal(at_file_part_create(&f, path, 0644, NULL), AT_OK);
    assert_int_equal(at_file_part_put(&f, 6, at_span("789", 3), NULL), AT_OK);
    assert_false(at_file_exists(path));
    assert_int_equal(at_file_part_put(&f, 0, at_span("123456", 6), NULL), AT_OK);
    assert_int_equal(at_file_part_commit(&f, NULL), AT_OK);
    assert_int_equal(at_file_part_open(&f, path, NULL), AT_OK);
    assert_int_equal(f.bytes, 9);
    assert_int_equal(at_file_part_get(&f, 0, got, 9, NULL), AT_OK);
    assert_memory_equal(got, "123456789", 9);
    assert_int_equal(at_file_part_get(&f, 7, got, 2, NULL), AT_OK);
    assert_memory_equal(got, "89", 2);
    assert_int_equal(at_file_part_get(&f, 7, got, 3, &diag), AT_E_TRUNCATED);
    at_file_part_drop(&f);

    /* Dropped: the old file stays as it was. */
    assert_int_equal(at_file_part_create(&f, path, 0644, NULL), AT_OK);
    assert_int_equal(at_file_part_put(&f, 0, at_span("x", 1), NULL), AT_OK);
    at_file_part_drop(&f);
    at_file_part_drop(&f);
    struct at_buf whole = {0};
    assert_int_equal(at_file_read(path, 100, NULL, &whole), AT_OK);
    assert_int_equal(whole.n, 9);
    at_buf_release(&whole);
}

static void trouble_is_named(void **state)
{
    struct at_file_part f;
    struct at_diag diag = {0};
    assert_int_equal(at_file_part_open(&f, "/nowhere/at/all", &diag), AT_E_NOT_FOUND);
    assert_non_null(strstr(diag.text, "/nowhere/at/all"));
    assert_int_equal(at_file_part_open(&f, dir, NULL), AT_E_DATA);
    assert_int_equal(at_file_part_create(&f, "/nowhere/at/all", 0644, NULL), AT_E_NOT_FOUND);
    at_file_part_drop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_in_any_order_appear_whole),
        cmocka_unit_test(trouble_is_named),
    };
    return cmocka_run_group_tests_name("file_part", tests, make_dir, remove_dir);
}
