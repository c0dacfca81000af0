#include "wire/frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* Frames of many sizes, cut at every place: the parser waits, then gives exactly what was put in. */
static void there_and_back_byte_by_byte(void **state)
{
    static const size_t sizes[] = {0, 1, 2, 255, 256, 1000};
    struct at_buf stream = {0};
    uint8_t payload[1000];
    for (size_t i = 0; i < sizeof payload; i++) payload[i] = (uint8_t)(i * 7);
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(at_frame_append(&stream, (enum at_frame_class)(i % 3), at_span(payload, sizes[i]), 1000),
                         AT_OK);
    size_t from = 0, seen = 0;
    for (size_t have = 0; have <= stream.n; have++) {
        struct at_frame frame;
        size_t used;
        assert_int_equal(at_frame_parse(at_span(stream.p + from, have - from), 1000, &frame, &used), AT_OK);
        if (used == 0) continue;
        assert_int_equal(used, AT_FRAME_HEAD_BYTES + sizes[seen]);
        assert_int_equal(used, have - from); /* as soon as its last byte is there */
        assert_int_equal(frame.cls, seen % 3);
        assert_true(at_span_eq(frame.payload, at_span(payload, sizes[seen])));
        from += used;
        seen++;
    }
    assert_int_equal(seen, 6);
    at_buf_release(&stream);
}

static void expect(const char *bytes, size_t n, at_err_t want)
{
    struct at_frame frame;
    size_t used = 99;
    assert_int_equal(at_frame_parse(at_span(bytes, n), 100, &frame, &used), want);
    assert_int_equal(used, 0);
}

static void foreign_bytes_are_refused_early(void **state)
{
    expect("", 0, AT_OK);
    expect("\xff\xff\xff", 3, AT_OK);
    expect("\0\0\0\0", 4, AT_E_PEER);   /* not even a class */
    expect("\x66\0\0\0", 4, AT_E_PEER); /* 101 bytes of payload: one past the cap */
    expect("\x65\0\0\0", 4, AT_OK);     /* 100: wait for them */
    expect("\xff\xff\xff\xff", 4, AT_E_PEER);
    expect("\x02\0\0\0\x03", 5, AT_E_PEER); /* no such class */
    expect("GET / HTTP/1.1\r\n", 16, AT_E_PEER);
    expect("\x16\x03\x01\x02\x00", 5, AT_E_PEER); /* a TLS hello */
}

static void too_much_is_not_sent(void **state)
{
    struct at_buf out = {.bytes_max = 50};
    uint8_t payload[101] = {0};
    assert_int_equal(at_frame_append(&out, AT_FRAME_CONTROL, at_span(payload, 101), 100), AT_E_TOO_BIG);
    assert_int_equal(at_frame_append(&out, AT_FRAME_CONTROL, at_span(payload, 100), 100), AT_E_TOO_BIG);
    assert_int_equal(out.n, 0);
    assert_int_equal(at_frame_append(&out, AT_FRAME_CONTROL, at_span(payload, 45), 100), AT_OK);
    at_buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(there_and_back_byte_by_byte),
                                       cmocka_unit_test(foreign_bytes_are_refused_early),
                                       cmocka_unit_test(too_much_is_not_sent)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
