#include "os/file_part.h"

#include "os/file_temp.h"

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

/* An end at once, in the middle of a file: only the old one is there. */
static void what_is_unfinished_can_be_removed(void **state)
{
    struct at_file_part f;
    struct at_buf whole = {0};
    char path[AT_PATH_BYTES];
    assert_int_equal(at_path_join(dir, "f", NULL, path), AT_OK);
    assert_int_equal(at_file_write_atomic(path, &(struct at_span){(const uint8_t *)"old", 3}, 1, 0644, NULL), AT_OK);
    assert_int_equal(at_file_part_create(&f, path, 0644, NULL), AT_OK);
    assert_int_equal(at_file_part_put(&f, 0, at_span("new", 3), NULL), AT_OK);
    assert_true(at_file_exists(f.temp));
    at_file_temp_remove_all();
    assert_false(at_file_exists(f.temp));
    assert_int_not_equal(at_file_part_commit(&f, NULL), AT_OK);
    assert_int_equal(at_file_read(path, 100, NULL, &whole), AT_OK);
    assert_int_equal(whole.n, 3);
    assert_memory_equal(whole.p, "old", 3);
    at_buf_release(&whole);

    /* What was finished or dropped is remembered no more: there is room for as many as ever. */
    int note[20], kept = 0;
    for (int i = 0; i < 20; i++) kept += (note[i] = at_file_temp_note(path)) >= 0;
    assert_int_equal(kept, 16);
    for (int i = 0; i < 20; i++) at_file_temp_forget(note[i]);
    at_file_temp_remove_all();
    assert_true(at_file_exists(path));
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
        cmocka_unit_test(what_is_unfinished_can_be_removed),
        cmocka_unit_test(trouble_is_named),
    };
    return cmocka_run_group_tests_name("file_part", tests, make_dir, remove_dir);
}
