#include "wire/meet.h"

#include "wire/message.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct at_endpoint v4(uint8_t a, uint8_t b, uint8_t c, uint8_t d, uint16_t port)
{
    return (struct at_endpoint){.ip = {a, b, c, d}, .ip_bytes = 4, .port = port};
}
static struct at_endpoint v6(uint8_t first, uint8_t second, uint8_t last, uint16_t port)
{
    return (struct at_endpoint){.ip = {[0] = first, [1] = second, [15] = last}, .ip_bytes = 16, .port = port};
}

/* Every field of the kind away from its default. */
static struct at_message example(enum at_meet_kind kind)
{
    struct at_message m;
    memset(&m, 0, sizeof m);
    m.kind = AT_MSG_MEET;
    struct at_meet *e = &m.meet;
    e->kind = kind;
    if (kind < AT_MEET_SEEN) e->number = UINT64_MAX;
    if (kind == AT_MEET_ASK || kind == AT_MEET_INVITE) {
        e->how = AT_MEET_HOW_PUNCH;
        memset(&e->node, 7, sizeof e->node);
    }
    if (kind == AT_MEET_INVITE || kind == AT_MEET_GO) memset(&e->token, 9, sizeof e->token);
    if (kind == AT_MEET_PUNCH || kind == AT_MEET_SEEN) e->endpoint = v6(0x20, 0x01, 5, UINT16_MAX);
    if (kind == AT_MEET_PUNCH) e->wait_ms = AT_MEET_WAIT_MS_MAX;
    if (kind == AT_MEET_PUNCH || kind == AT_MEET_REFUSE) e->yours = true;
    if (kind == AT_MEET_REFUSE) memset(e->reason, 'r', AT_REASON_BYTES_MAX);
    return m;
}

static void every_kind_there_and_back(void **state)
{
    struct at_message_mem mem = {.block = NULL};
    for (int kind = AT_MEET_ASK; kind < AT_MEET_KIND_COUNT; kind++) {
        struct at_message m = example((enum at_meet_kind)kind), back;
        struct at_buf bytes = {0};
        assert_int_equal(at_message_encode(&m, &bytes), AT_OK);
        assert_true(bytes.n <= 256); /* what a link takes for a message about meetings */
        assert_int_equal(at_message_decode(at_buf_span(&bytes), &mem, NULL, &back), AT_OK);
        assert_memory_equal(&m.meet, &back.meet, sizeof m.meet);
        for (size_t bit = 0; bit < 8 * bytes.n; bit++) { /* refused, or another message's own bytes: never the same */
            bytes.p[bit / 8] ^= (uint8_t)(1u << bit % 8);
            if (at_message_decode(at_buf_span(&bytes), &mem, NULL, &back) == AT_OK)
                assert_true(back.kind != AT_MSG_MEET || memcmp(&m.meet, &back.meet, sizeof m.meet) != 0);
            bytes.p[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        for (size_t n = 0; n < bytes.n; n++)
            assert_int_not_equal(at_message_decode(at_span(bytes.p, n), &mem, NULL, &back), AT_OK);
        at_buf_release(&bytes);
    }
    at_message_mem_release(&mem);
}

static void limits_hold_for_what_we_send(void **state)
{
    struct at_message m;
    struct at_buf bytes = {0};
#define WITH(of, change)                                                                                               \
    m = example(of);                                                                                                   \
    m.meet.change;                                                                                                     \
    assert_int_equal(at_message_encode(&m, &bytes), AT_E_DATA)
    WITH(AT_MEET_ASK, kind = AT_MEET_NONE);
    WITH(AT_MEET_ASK, how = AT_MEET_HOW_NONE);
    WITH(AT_MEET_INVITE, how = AT_MEET_HOW_COUNT);
    WITH(AT_MEET_PUNCH, wait_ms = AT_MEET_WAIT_MS_MAX + 1);
    WITH(AT_MEET_PUNCH, endpoint.port = 0);
    WITH(AT_MEET_PUNCH, endpoint = v4(224, 0, 0, 1, 5));
    WITH(AT_MEET_SEEN, endpoint.ip_bytes = 5);
    WITH(AT_MEET_SEEN, endpoint = v4(0, 0, 0, 0, 5));
    WITH(AT_MEET_SEEN, endpoint = v4(239, 0, 0, 1, 5));
    WITH(AT_MEET_REFUSE, reason[3] = '\x1b');
    WITH(AT_MEET_REFUSE, reason[AT_REASON_BYTES_MAX] = 'x');
#undef WITH
    at_buf_release(&bytes);
}

static void which_addresses_may_be_named(void **state)
{
    const struct at_endpoint good[] = {v4(10, 0, 0, 1, 1),   v4(203, 0, 113, 9, 65535), v4(127, 0, 0, 1, 80),
                                       v6(0x20, 0x01, 1, 9), v6(0xfd, 0, 1, 9),         v6(0, 0, 1, 9)};
    const struct at_endpoint bad[] = {
        v4(0, 0, 0, 0, 1),          v4(224, 1, 1, 1, 1),
        v4(255, 255, 255, 255, 1),  v4(169, 254, 169, 254, 1),
        v4(10, 0, 0, 1, 0),         v6(0xff, 2, 1, 9),
        v6(0xfe, 0x80, 1, 9),       v6(0, 0, 0, 9),
        {.ip_bytes = 0, .port = 1}, {.ip = {[10] = 0xff, [11] = 0xff, [12] = 10}, .ip_bytes = 16, .port = 1}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) assert_true(at_endpoint_ok(&good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_false(at_endpoint_ok(&bad[i]));
    assert_true(at_endpoint_loopback(&good[2]) && at_endpoint_loopback(&good[5]));
    assert_false(at_endpoint_loopback(&good[0]) || at_endpoint_loopback(&good[3]));
    assert_true(at_endpoint_private(&good[0]) && at_endpoint_private(&good[4]));
    const struct at_endpoint inner[] = {v6(0xfe, 0xc0, 1, 9),
                                        v6(0xfe, 0x80, 1, 9),
                                        v6(0, 0, 1, 9),
                                        v6(0, 0, 7, 9),
                                        bad[9],
                                        {.ip = {0, 0x64, 0xff, 0x9b, [12] = 10}, .ip_bytes = 16, .port = 9}};
    for (size_t i = 0; i < sizeof inner / sizeof inner[0]; i++) assert_true(at_endpoint_private(&inner[i]));
    assert_false(at_endpoint_private(&good[1]) || at_endpoint_private(&good[3]));
    struct at_endpoint a = v6(0x20, 0x01, 1, 9), b = v6(0x20, 0x01, 2, 10), c = a;
    assert_true(at_endpoint_same_origin(&a, &b) && !at_endpoint_eq(&a, &b));
    c.ip[7] = 1;
    assert_false(at_endpoint_same_origin(&a, &c));
}

/* Nobody scans a node's own net by naming its addresses. */
static void where_a_punch_goes(void **state)
{
    const struct at_endpoint far = v4(198, 51, 100, 2, 7000), near = v4(192, 168, 1, 1, 7000), none = {.ip_bytes = 0};
    const struct at_endpoint own = v4(192, 168, 1, 5, 40000), seen = v4(203, 0, 113, 6, 40000);
    struct at_endpoint e = v4(203, 0, 113, 9, 1024), lo = v4(127, 0, 0, 1, 5000);
    assert_null(at_meet_no_target(&e, &far, &own, &seen, false));
    assert_null(at_meet_no_target(&e, &far, &own, &none, false));
    e.port = 1023;
    assert_non_null(strstr(at_meet_no_target(&e, &far, &own, &seen, true), "system"));
    const struct at_endpoint inner[] = {v4(10, 0, 0, 1, 6379),   v4(192, 168, 1, 1, 8080), v4(172, 16, 0, 1, 8080),
                                        v4(100, 64, 0, 1, 8080), v6(0xfd, 0, 1, 8080),     v6(0xfe, 0xc0, 1, 8080),
                                        v6(0, 0, 7, 8080)};
    for (size_t i = 0; i < sizeof inner / sizeof inner[0]; i++) {
        const char *why = at_meet_no_target(&inner[i], &far, &own, &seen, true);
        assert_true(why && strstr(why, "private"));
        assert_null(at_meet_no_target(&inner[i], &near, &own, &seen, false)); /* an arranger in that net may */
    }
    const struct at_endpoint self[] = {v4(192, 168, 1, 5, 9000), v4(203, 0, 113, 6, 9000)};
    for (size_t i = 0; i < 2; i++)
        assert_non_null(strstr(at_meet_no_target(&self[i], &near, &own, &seen, true), "own"));
    assert_non_null(strstr(at_meet_no_target(&lo, &lo, &own, &seen, false), "this machine"));
    assert_null(at_meet_no_target(&lo, &lo, &own, &seen, true));
    assert_non_null(strstr(at_meet_no_target(&lo, &lo, &lo, &seen, true), "own"));
    assert_non_null(at_meet_no_target(&none, &far, &own, &seen, true));
}

static void preludes(void **state)
{
    struct at_meet_token token, back;
    uint8_t prelude[AT_MEET_PRELUDE_BYTES + 1];
    size_t used = 99;
    for (size_t i = 0; i < sizeof token.b; i++) token.b[i] = (uint8_t)(200 + i);
    at_meet_prelude(&token, prelude);
    for (size_t n = 0; n < AT_MEET_PRELUDE_BYTES; n++) {
        assert_int_equal(at_meet_prelude_parse(at_span(prelude, n), &back, &used), AT_OK);
        assert_int_equal(used, 0);
    }
    for (size_t n = AT_MEET_PRELUDE_BYTES; n <= sizeof prelude; n++) {
        assert_int_equal(at_meet_prelude_parse(at_span(prelude, n), &back, &used), AT_OK);
        assert_int_equal(used, AT_MEET_PRELUDE_BYTES);
        assert_true(at_meet_token_eq(&back, &token));
    }
    back.b[15] ^= 1;
    assert_false(at_meet_token_eq(&back, &token));
    for (size_t i = 0; i < 8; i++) { /* none from the first wrong byte on */
        prelude[i] ^= 0x20;
        assert_int_equal(at_meet_prelude_parse(at_span(prelude, i + 1), &back, &used), AT_E_PEER);
        prelude[i] ^= 0x20;
    }
    for (size_t i = 0; i < sizeof token.b; i++) token.b[i] = 0xab;
    at_meet_prelude(&token, prelude);
    for (size_t i = 8; i < AT_MEET_PRELUDE_BYTES;
         i++) { /* lower-case hex and nothing else: no byte is free to choose */
        for (int c = 0; c < 256; c++) {
            uint8_t was = prelude[i];
            prelude[i] = (uint8_t)c;
            bool hex = c != 0 && strchr("0123456789abcdef", c);
            assert_int_equal(at_meet_prelude_parse(at_span(prelude, i + 1), &back, &used), hex ? AT_OK : AT_E_PEER);
            prelude[i] = was;
        }
    }
    assert_int_equal(at_meet_prelude_parse(at_span("\x16", 1), &back, &used), AT_E_PEER); /* TLS */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_kind_there_and_back),
                                       cmocka_unit_test(limits_hold_for_what_we_send),
                                       cmocka_unit_test(which_addresses_may_be_named),
                                       cmocka_unit_test(where_a_punch_goes), cmocka_unit_test(preludes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
