/* What is read is canonical: every other spelling of it ends the reading. */
#include "wire/canon.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define CANON(bytes) at_canon(at_span(bytes, sizeof(bytes) - 1))

static void numbers_have_one_spelling(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        uint64_t value; /* 0: refused */
    } some[] = {
        {"\x08\x01", 2, 1},
        {"\x08\x7f", 2, 127},
        {"\x08\x80\x01", 3, 128},
        {"\x08\xff\xff\xff\xff\x0f", 6, UINT32_MAX},
        {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, UINT64_MAX},
        {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11, 0},     /* 65 bits */
        {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x81\x00", 12, 0}, /* eleven bytes */
        {"\x08\x81\x00", 3, 0},                                      /* padded */
        {"\x08\x80\x80\x00", 4, 0},
        {"\x08\x00", 2, 0}, /* the default */
        {"\x08\x80", 2, 0}, /* cut */
        {"\x08", 1, 0},
        {"\x0a\x01", 2, 0},     /* bytes */
        {"\x88\x00\x01", 3, 0}, /* a padded tag */
        {"\x10\x01", 2, 0},     /* another field */
        {"\x08\x01\x08\x01", 4, 0},
    };
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        struct at_canon c = at_canon(at_span(some[i].bytes, some[i].n));
        uint64_t v = at_canon_u64(&c, 1);
        assert_int_equal(at_canon_end(&c), some[i].value != 0);
        if (at_canon_end(&c)) assert_true(v == some[i].value);
    }
}

static void ranges_hold(void **state)
{
    (void)state;
    struct at_canon c = CANON("\x08\xff\xff\xff\xff\x0f\x10\x80\x80\x80\x80\x10");
    assert_int_equal(at_canon_u32(&c, 1), UINT32_MAX);
    assert_int_equal(at_canon_u32(&c, 2), 0);
    assert_false(at_canon_end(&c));
    c = CANON("\x08\x02");
    assert_int_equal(at_canon_up_to(&c, 1, 1), 0);
    assert_false(at_canon_end(&c));
}

static void fields_ascend(void **state)
{
    (void)state;
    struct at_canon c = CANON("\x10\x02\x80\x01\x03");
    assert_int_equal(at_canon_u32(&c, 1), 0);
    assert_int_equal(at_canon_u32(&c, 2), 2);
    assert_false(at_canon_end(&c));
    assert_int_equal(at_canon_u32(&c, 16), 3);
    assert_true(at_canon_end(&c));
    c = CANON("\x10\x02\x08\x01");
    at_canon_u32(&c, 1);
    at_canon_u32(&c, 2);
    assert_false(at_canon_end(&c));
}

static void bytes_have_their_length(void **state)
{
    (void)state;
    uint8_t two[2] = {0};
    struct at_canon c = CANON("\x0a\x02xy");
    at_canon_fixed(&c, 1, two, 2);
    assert_true(at_canon_end(&c));
    assert_memory_equal(two, "xy", 2);
    c = CANON("\x0a\x03xyz");
    at_canon_fixed(&c, 1, two, 2);
    assert_false(at_canon_end(&c));
    c = CANON("\x0a\x03xy"); /* more than there are */
    assert_int_equal(at_canon_bytes(&c, 1).n, 0);
    assert_false(at_canon_end(&c));
    c = CANON("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    assert_int_equal(at_canon_bytes(&c, 1).n, 0);
    assert_false(at_canon_end(&c));
    c = CANON("\x0a\x00"); /* the default */
    at_canon_bytes(&c, 1);
    assert_false(at_canon_end(&c));
    c = CANON("");
    at_canon_fixed(&c, 1, two, 2);
    assert_false(at_canon_end(&c));
}

static void a_list_may_have_empty_parts(void **state)
{
    (void)state;
    struct at_span item;
    struct at_canon c = CANON("\x12\x00\x12\x01x\x18\x01");
    assert_int_equal(at_canon_count(c, 2), 2);
    assert_true(at_canon_next(&c, 2, &item) && item.n == 0);
    assert_true(at_canon_next(&c, 2, &item) && item.n == 1);
    assert_false(at_canon_next(&c, 2, &item));
    assert_int_equal(at_canon_u32(&c, 3), 1);
    assert_true(at_canon_end(&c));
    c = CANON("\x12\x00\x12\x02x");
    assert_int_equal(at_canon_count(c, 2), 1);
    assert_true(at_canon_next(&c, 2, &item));
    assert_false(at_canon_next(&c, 2, &item));
    assert_false(at_canon_end(&c));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(numbers_have_one_spelling), cmocka_unit_test(ranges_hold),
                                       cmocka_unit_test(fields_ascend), cmocka_unit_test(bytes_have_their_length),
                                       cmocka_unit_test(a_list_may_have_empty_parts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
