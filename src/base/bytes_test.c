#include "base/bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void hex_there_and_back(void **state)
{
    uint8_t all[256], again[256];
    char text[513];
    for (int i = 0; i < 256; i++) all[i] = (uint8_t)i;
    at_hex_encode(all, sizeof all, text);
    assert_int_equal(strlen(text), 512);
    assert_memory_equal(text, "000102", 6);
    assert_string_equal(text + 508, "feff");
    assert_int_equal(at_hex_decode(text, 512, again, sizeof again), AT_OK);
    assert_memory_equal(all, again, sizeof all);
    assert_int_equal(at_hex_decode("aBcD", 4, again, 2), AT_OK);
    assert_int_equal(again[0], 0xab);
    assert_int_equal(again[1], 0xcd);
}

/* Every character that is no digit is refused, in either place, and the output stays as it was. */
static void hex_refuses(void **state)
{
    for (int c = 0; c < 256; c++) {
        bool digit = c != 0 && strchr("0123456789abcdefABCDEF", c) != NULL;
        char first[2] = {(char)c, '0'}, second[2] = {'0', (char)c};
        uint8_t out = 0x5a;
        assert_int_equal(at_hex_decode(first, 2, &out, 1), digit ? AT_OK : AT_E_DATA);
        if (!digit) assert_int_equal(out, 0x5a);
        assert_int_equal(at_hex_decode(second, 2, &out, 1), digit ? AT_OK : AT_E_DATA);
    }
    uint8_t out[2];
    assert_int_equal(at_hex_decode("abc", 3, out, 2), AT_E_DATA);
    assert_int_equal(at_hex_decode("abcdef", 6, out, 2), AT_E_DATA);
    assert_int_equal(at_hex_decode("", 0, out, 0), AT_OK);
}

static void buf_keeps_its_limit(void **state)
{
    struct at_buf buf = {.bytes_max = 100};
    uint8_t bytes[101], *room;
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)i;
    assert_int_equal(at_buf_append(&buf, bytes, 101), AT_E_TOO_BIG);
    assert_int_equal(buf.n, 0);
    assert_int_equal(at_buf_append(&buf, bytes, 60), AT_OK);
    assert_int_equal(at_buf_append(&buf, bytes + 60, 41), AT_E_TOO_BIG);
    assert_int_equal(at_buf_append(&buf, bytes + 60, 40), AT_OK);
    assert_int_equal(at_buf_append(&buf, bytes, 0), AT_OK);
    assert_int_equal(at_buf_append(&buf, bytes, 1), AT_E_TOO_BIG);
    assert_int_equal(at_buf_reserve(&buf, SIZE_MAX, &room), AT_E_TOO_BIG);
    assert_int_equal(buf.n, 100);
    assert_memory_equal(buf.p, bytes, 100);
    at_buf_consume(&buf, 30);
    assert_int_equal(buf.n, 70);
    assert_memory_equal(buf.p, bytes + 30, 70);
    at_buf_consume(&buf, 70);
    assert_int_equal(buf.n, 0);
    at_buf_release(&buf);
    at_buf_release(&buf);
}

static void buf_zeroed_is_empty(void **state)
{
    struct at_buf buf = {0};
    at_buf_consume(&buf, 0);
    at_buf_clear(&buf);
    assert_int_equal(at_buf_append(&buf, NULL, 0), AT_OK);
    assert_true(at_span_eq(at_buf_span(&buf), at_span(NULL, 0)));
    at_buf_release(&buf);
}

static void little_endian(void **state)
{
    uint8_t p[8];
    at_store_le64(p, UINT64_C(0x0123456789abcdef));
    assert_memory_equal(p, "\xef\xcd\xab\x89\x67\x45\x23\x01", 8);
    assert_true(at_load_le64(p) == UINT64_C(0x0123456789abcdef));
    assert_int_equal(at_load_le32(p), 0x89abcdef);
    at_store_le32(p, UINT32_C(0xfffefdfc));
    assert_memory_equal(p, "\xfc\xfd\xfe\xff", 4);
}

static void sizes_are_checked(void **state)
{
    size_t r;
    assert_true(at_mul_size(SIZE_MAX, 1, &r) && r == SIZE_MAX);
    assert_false(at_mul_size(SIZE_MAX / 2 + 1, 2, &r));
    assert_true(at_add_size(SIZE_MAX - 1, 1, &r) && r == SIZE_MAX);
    assert_false(at_add_size(SIZE_MAX, 1, &r));
}

/* The first cause is the one a person should read; every code has its text and its exit code. */
static void diag_keeps_the_first(void **state)
{
    struct at_diag diag = {.err = AT_OK};
    assert_int_equal(at_fail(&diag, AT_E_DISK, "a", "first %d", 1), AT_E_DISK);
    assert_int_equal(at_fail(&diag, AT_E_DATA, "b", "second"), AT_E_DATA);
    assert_int_equal(diag.err, AT_E_DISK);
    assert_string_equal(diag.where, "a");
    assert_string_equal(diag.text, "first 1");
    assert_int_equal(at_fail(NULL, AT_E_DATA, NULL, "no one listens"), AT_E_DATA);
    assert_int_equal(at_err_exit_code(AT_OK), 0);
    assert_int_equal(at_err_exit_code(AT_E_VERIFY), 4);
    assert_int_equal(at_err_exit_code(AT_E_INTERRUPTED), 130);
    assert_int_equal(at_err_exit_code(-1000), 1);
    assert_string_equal(at_err_text(AT_E_INVITE), "bad invite");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(hex_there_and_back),  cmocka_unit_test(hex_refuses),
                                       cmocka_unit_test(buf_keeps_its_limit), cmocka_unit_test(buf_zeroed_is_empty),
                                       cmocka_unit_test(little_endian),       cmocka_unit_test(sizes_are_checked),
                                       cmocka_unit_test(diag_keeps_the_first)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
