/* Text, its split, and the order of samples. */
#include "train/data.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static at_err_t check(const char *s, size_t n, struct at_diag *diag)
{
    *diag = (struct at_diag){0};
    return at_text_check(at_span(s, n), "book.txt", diag);
}

static void test_text(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *text; /* NULL: good */
    } cases[] = {
        {"Call me Ishmael.", 16, NULL},
        {"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x90\x8B", 9, NULL},
        {"\xEF\xBF\xBF\xF4\x8F\xBF\xBF\xED\x9F\xBF\xEE\x80\x80", 13, NULL},
        {"", 0, "empty"},
        {"ab\0c", 4, "NUL at byte 2"},
        {"abc\xC3", 4, "UTF-8 at byte 3"},
        {"\x80", 1, "UTF-8 at byte 0"},
        {"a\xC0\xAF", 3, "UTF-8 at byte 1"},        /* overlong */
        {"a\xE0\x80\xAF", 4, "UTF-8 at byte 1"},    /* overlong */
        {"\xED\xA0\x80", 3, "UTF-8 at byte 0"},     /* surrogate */
        {"\xF4\x90\x80\x80", 4, "UTF-8 at byte 0"}, /* beyond U+10FFFF */
        {"\xF0\x8F\xBF\xBF", 4, "UTF-8 at byte 0"}, /* overlong */
        {"x\xE2\x82x", 4, "UTF-8 at byte 1"},
        {"\xFF\xFE", 2, "UTF-8 at byte 0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct at_diag diag;
        /* An exact copy, so that the address sanitizer sees a read past the end. */
        char *copy = malloc(cases[i].n + 1);
        memcpy(copy, cases[i].bytes, cases[i].n);
        copy = realloc(copy, cases[i].n != 0 ? cases[i].n : 1);
        at_err_t err = check(copy, cases[i].n, &diag);
        free(copy);
        assert_int_equal(err, cases[i].text == NULL ? AT_OK : AT_E_DATA);
        if (cases[i].text != NULL) {
            assert_non_null(strstr(diag.text, cases[i].text));
            assert_string_equal(diag.where, "book.txt");
        }
    }
}

static void test_permutation_is_a_bijection(void **state)
{
    static const uint64_t sizes[] = {1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000, 4097};
    uint8_t *seen = malloc(5000);
    for (int k = 0; k < 12; k++)
        for (uint32_t pass = 0; pass < 3; pass++) {
            memset(seen, 0, 5000);
            for (uint64_t i = 0; i < sizes[k]; i++) {
                uint64_t j = at_data_permute(77, pass, sizes[k], i);
                assert_true(j < sizes[k]);
                assert_int_equal(seen[j]++, 0);
            }
        }
    free(seen);
}

/* Key and pass matter, and neighbours are torn apart: the mean distance of a random order is a third of n. */
static void test_permutation_mixes(void **state)
{
    enum { N = 3000 };
    int same_pass = 0, same_seed = 0;
    double distance = 0;
    for (uint64_t i = 0; i + 1 < N; i++) {
        uint64_t a = at_data_permute(1, 0, N, i), b = at_data_permute(1, 0, N, i + 1);
        distance += a > b ? (double)(a - b) : (double)(b - a);
        same_pass += a == at_data_permute(1, 1, N, i);
        same_seed += a == at_data_permute(2, 0, N, i);
    }
    distance /= N - 1;
    assert_true(distance > 0.30 * N && distance < 0.37 * N);
    assert_true(same_pass < 10 && same_seed < 10);
}

static void test_split_and_samples(void **state)
{
    enum { N = 1000, T = 16 };
    uint8_t text[N];
    for (int i = 0; i < N; i++) text[i] = (uint8_t)(1 + i % 120);
    struct at_data d;
    assert_int_equal(at_data_init(&d, at_span(text, N), T, 3, 0.05, 32768, NULL), AT_OK);
    assert_int_equal(d.train.n, 950);
    assert_int_equal(d.heldout.n, 50);
    assert_ptr_equal(d.heldout.p, text + 950);
    assert_int_equal(d.samples, 59); /* (950 - 1) / 16 */
    assert_int_equal(d.windows, 3);  /* (50 - 1) / 16 */
    int32_t in[T], out[T];
    for (uint64_t j = 0; j < 2 * d.samples; j++) { /* second pass: every sample again, another order */
        at_data_sample(&d, j, in, out);
        size_t at = T * (size_t)at_data_permute(3, (uint32_t)(j / d.samples), d.samples, j % d.samples);
        for (int i = 0; i < T; i++) {
            assert_int_equal(in[i], text[at + (size_t)i]);
            assert_int_equal(out[i], text[at + (size_t)i + 1]);
        }
    }
    at_data_window(&d, 2, in, out);
    assert_int_equal(in[0], text[950 + 2 * T]);
    assert_int_equal(out[T - 1], text[950 + 3 * T]);
    assert_int_equal(at_data_init(&d, at_span(text, N), T, 3, 0.05, 33, NULL), AT_OK);
    assert_int_equal(d.windows, 2);
}

static void test_too_small_says_how_much(void **state)
{
    uint8_t text[4000] = {0};
    struct at_diag diag = {0};
    struct at_data d;
    size_t need = at_data_bytes_min(128, 0.05);
    assert_int_equal(need, 2580); /* 5 % of it is 129 = a window and its last target */
    assert_int_equal(at_data_init(&d, at_span(text, need - 1), 128, 3, 0.05, 32768, &diag), AT_E_DATA);
    assert_non_null(strstr(diag.text, "2580 are needed"));
    assert_int_equal(at_data_init(&d, at_span(text, need), 128, 3, 0.05, 32768, NULL), AT_OK);
    assert_int_equal(d.windows, 1);
    assert_int_equal(at_data_init(&d, at_span(text, need), 128, 3, 0.0, 32768, NULL), AT_E_DATA);
    assert_int_equal(at_data_init(&d, at_span(text, need), 128, 3, 0.05, 128, NULL), AT_E_DATA);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_permutation_is_a_bijection),
        cmocka_unit_test(test_permutation_mixes),
        cmocka_unit_test(test_split_and_samples),
        cmocka_unit_test(test_too_small_says_how_much),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
