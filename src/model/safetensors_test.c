/* safetensors: what is written is read, and a file that lies is refused. */
#include "model/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A file of this header (its length put before it) and `data` zero bytes, in a buffer of exactly its size. */
static at_err_t parse(const char *json, size_t data, struct at_st_file *ret)
{
    size_t n = strlen(json), all = 8 + n + data;
    uint8_t *file = calloc(1, all);
    at_store_le64(file, n);
    memcpy(file + 8, json, n);
    struct at_st_file f = {0};
    struct at_diag diag = {0};
    int err = at_st_parse(at_span(file, all), "x.safetensors", &diag, &f);
    if (err != AT_OK) assert_string_equal(diag.where, "x.safetensors");
    if (err == AT_OK && ret != NULL)
        *ret = f;
    else
        at_st_release(&f);
    free(file);
    return err;
}

#define T(dtype, shape, offsets) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void test_accepts(void **state)
{
    struct at_st_file f;
    assert_int_equal(parse("{}", 0, NULL), AT_OK);
    assert_int_equal(parse("{\"a\":" T("F32", "[]", "[0,4]") "}   ", 4, NULL), AT_OK);
    assert_int_equal(parse("{\"e\":" T("F32", "[0,7]", "[0,0]") "}", 0, NULL), AT_OK);
    /* Order of the header is free; other types are listed. */
    assert_int_equal(parse("{\"b\":" T("BF16", "[3]", "[8,14]") ",\"__metadata__\":{\"format\":\"pt\"},\"a\":" T(
                               "F32", "[2,1]", "[0,8]") "}",
                           14, &f),
                     AT_OK);
    assert_int_equal(f.tensors, 2);
    assert_string_equal(f.tensor[0].name, "a");
    assert_true(f.tensor[0].f32 && f.tensor[0].dims == 2 && f.tensor[0].shape[0] == 2);
    assert_false(at_st_find(&f, "b")->f32);
    assert_null(at_st_find(&f, "c"));
    assert_string_equal(at_st_meta(&f, "format"), "pt");
    assert_null(at_st_meta(&f, "round"));
    at_st_release(&f);
}

static void test_refuses(void **state)
{
    static const struct {
        const char *json;
        size_t data;
        at_err_t want;
    } cases[] = {
        {"", 0, AT_E_DATA},
        {"[]", 0, AT_E_DATA},
        {"{\"a\":1}", 0, AT_E_DATA},
        {"{} x", 0, AT_E_DATA},
        {"{\"a\":" T("F32", "[1]", "[0,4]"), 4, AT_E_DATA},
        {"{\"a\":" T("F32", "[1]", "[0,4]") ",\"a\":" T("F32", "[1]", "[4,8]") "}", 8, AT_E_DATA}, /* twice */
        {"{\"a\":" T("F32", "[1]", "[0,4]") "}", 3, AT_E_TRUNCATED},
        {"{\"a\":" T("F32", "[1]", "[0,4]") "}", 5, AT_E_DATA},                                    /* left over */
        {"{\"a\":" T("F32", "[1]", "[4,8]") "}", 8, AT_E_DATA},                                    /* gap */
        {"{\"a\":" T("F32", "[2]", "[0,8]") ",\"b\":" T("F32", "[1]", "[4,8]") "}", 8, AT_E_DATA}, /* overlap */
        {"{\"a\":" T("F32", "[1]", "[0,4]") ",\"b\":" T("F32", "[1]", "[0,4]") "}", 4, AT_E_DATA}, /* shared */
        {"{\"a\":" T("F32", "[2]", "[0,4]") "}", 4, AT_E_DATA},                                    /* shape */
        {"{\"a\":" T("F32", "[1]", "[4,0]") "}", 4, AT_E_DATA},                                    /* backwards */
        {"{\"a\":" T("F32", "[1]", "[-4,0]") "}", 4, AT_E_DATA},
        {"{\"a\":" T("F32", "[1]", "[0,4,8]") "}", 4, AT_E_DATA},
        {"{\"a\":" T("F32", "[1]", "[0]") "}", 4, AT_E_DATA},
        {"{\"a\":" T("F32", "[1]", "[0.0,4.0]") "}", 4, AT_E_DATA},
        {"{\"a\":" T("F32", "[-1]", "[0,4]") "}", 4, AT_E_DATA},
        {"{\"a\":" T("F32", "[1,1,1,1,1]", "[0,4]") "}", 4, AT_E_DATA}, /* five dimensions */
        {"{\"a\":" T("F32", "1", "[0,4]") "}", 4, AT_E_DATA},
        {"{\"a\":" T("F32", "[\"1\"]", "[0,4]") "}", 4, AT_E_DATA},
        /* 2^62 x 4 x 4: every product overflows to something small */
        {"{\"a\":" T("F32", "[4611686018427387904,4]", "[0,0]") "}", 0, AT_E_DATA},
        {"{\"a\":" T("F32", "[4611686018427387904]", "[0,0]") "}", 0, AT_E_DATA},
        {"{\"a\":" T("F32", "[99999999999999999999]", "[0,0]") "}", 0, AT_E_DATA},
        {"{\"a\":" T("F32", "[2305843009213693953]", "[0,9223372036854775807]") "}", 4, AT_E_DATA},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, AT_E_DATA},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4, AT_E_DATA},
        {"{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, AT_E_DATA},
        {"{\"__metadata__\":[]}", 0, AT_E_DATA},
        {"{\"__metadata__\":{\"round\":3}}", 0, AT_E_DATA},
        {"{\"__metadata__\":{\"a\":\"x\\u0000y\"}}", 0, AT_E_DATA},
        {"{\"\xFF\":1}", 0, AT_E_DATA},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (parse(cases[i].json, cases[i].data, NULL) != cases[i].want) fail_msg("case %zu: %s", i, cases[i].json);
}

static void test_limits(void **state)
{
    uint8_t head[16] = {0};
    struct at_st_file f;
    for (size_t n = 0; n < 8; n++) assert_int_equal(at_st_parse(at_span(head, n), "x", NULL, &f), AT_E_TRUNCATED);
    at_store_le64(head, 9);
    assert_int_equal(at_st_parse(at_span(head, 16), "x", NULL, &f), AT_E_TRUNCATED);
    at_store_le64(head, UINT64_MAX);
    assert_int_equal(at_st_parse(at_span(head, 16), "x", NULL, &f), AT_E_TOO_BIG);
    at_store_le64(head, UINT64_MAX - 7); /* 8 + n wraps to 0 */
    assert_int_equal(at_st_parse(at_span(head, 16), "x", NULL, &f), AT_E_TOO_BIG);
    /* A name one too long, brackets 100,000 deep. */
    char json[512] = "{\"";
    memset(json + 2, 'n', AT_ST_NAME_MAX + 1);
    strcat(json, "\":" T("F32", "[1]", "[0,4]") "}");
    assert_int_equal(parse(json, 4, NULL), AT_E_DATA);
    char *deep = malloc(200001);
    memset(deep, '[', 200000);
    deep[200000] = '\0';
    assert_int_equal(parse(deep, 0, NULL), AT_E_DATA);
    free(deep);
}

static void test_round_trip(void **state)
{
    struct at_st_tensor t[2] = {{.name = "a \"quoted\" \\ name", .f32 = true, .dims = 2, .shape = {2, 3}},
                                {.name = "b", .f32 = true, .dims = 1, .shape = {1}}};
    const struct at_st_meta meta[] = {{"format", "pt"}, {"weird \x01\xC3\xA9", "line\nbreak"}};
    const float x[7] = {1, -2.5f, 1e-40f, -0.0f, 3e38f, 0, 0.1f};
    float y[7];
    struct at_buf out = {0};
    struct at_st_file f;
    assert_int_equal(at_st_write_header(&out, meta, 2, t, 2), AT_OK);
    assert_int_equal(out.n % 8, 0);
    assert_int_equal(at_f32_append(&out, x, 7), AT_OK);
    assert_int_equal(at_st_parse(at_buf_span(&out), "x", NULL, &f), AT_OK);
    assert_int_equal(f.tensors, 2);
    assert_string_equal(f.tensor[0].name, t[0].name);
    assert_true(f.tensor[0].end == 24 && f.tensor[1].begin == 24 && f.tensor[1].end == 28);
    assert_string_equal(at_st_meta(&f, meta[1].key), meta[1].value);
    at_f32_read(f.data.p, y, 7);
    assert_memory_equal(x, y, sizeof x);
    at_st_release(&f);
    at_buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepts),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
