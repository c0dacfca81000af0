#include "wire/log_checkpoint.h"
#include "wire/record.h"
#include "wire/wire_fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* The part of a record that its kind uses. */
static size_t used_bytes(enum at_record_kind kind)
{
    static const size_t part[AT_RECORD_KIND_COUNT] = {0,
                                                      sizeof(struct at_join),
                                                      0,
                                                      sizeof(struct at_open),
                                                      sizeof(struct at_receipt),
                                                      sizeof(struct at_close),
                                                      sizeof(struct at_epoch),
                                                      sizeof(struct at_end)};
    return offsetof(struct at_record, join) + part[kind];
}

static void every_kind_there_and_back(void **state)
{
    for (int kind = AT_RECORD_JOIN; kind < AT_RECORD_KIND_COUNT; kind++) {
        struct at_record rec = wire_fixture_record((enum at_record_kind)kind), again;
        uint8_t body[AT_RECORD_BYTES_MAX], body_again[AT_RECORD_BYTES_MAX];
        uint16_t n, n_again;
        assert_int_equal(at_record_encode(&rec, NULL, body, &n), AT_OK);
        assert_int_equal(at_record_decode(at_span(body, n), NULL, &again), AT_OK);
        assert_memory_equal(&rec, &again, used_bytes((enum at_record_kind)kind));
        assert_int_equal(at_record_encode(&again, NULL, body_again, &n_again), AT_OK);
        assert_true(at_span_eq(at_span(body, n), at_span(body_again, n_again)));
    }
}

/* The largest values everywhere still fit into 1 KiB. */
static void the_largest_fit(void **state)
{
    struct at_record rec = wire_fixture_record(AT_RECORD_OPEN), again;
    uint8_t body[AT_RECORD_BYTES_MAX];
    uint16_t n;
    rec.time_ms = UINT64_MAX;
    rec.open.round = UINT32_MAX;
    memset(&rec.open.replicas, 0xff, sizeof rec.open.replicas);
    assert_int_equal(at_record_encode(&rec, NULL, body, &n), AT_OK);
    assert_true(n < 700);
    assert_int_equal(at_record_decode(at_span(body, n), NULL, &again), AT_OK);
    assert_int_equal(at_replicas_count(&again.open.replicas), AT_MEMBERS_MAX);
    static uint8_t big[AT_RECORD_BYTES_MAX + 1];
    assert_int_equal(at_record_decode(at_span(big, sizeof big), NULL, &again), AT_E_TOO_BIG);
    assert_int_equal(at_record_decode(at_span(big, 0), NULL, &again), AT_E_DATA);
}

/* One meaning, one spelling: a flipped bit gives a refusal or exactly another record's own bytes. */
static void only_canonical_bytes_pass(void **state)
{
    for (int kind = AT_RECORD_JOIN; kind < AT_RECORD_KIND_COUNT; kind++) {
        struct at_record rec = wire_fixture_record((enum at_record_kind)kind), out;
        uint8_t body[AT_RECORD_BYTES_MAX], again[AT_RECORD_BYTES_MAX];
        uint16_t n, n_again;
        assert_int_equal(at_record_encode(&rec, NULL, body, &n), AT_OK);
        for (size_t bit = 0; bit < 8u * n; bit++) {
            body[bit / 8] ^= (uint8_t)(1u << bit % 8);
            if (at_record_decode(at_span(body, n), NULL, &out) == AT_OK) {
                assert_int_equal(at_record_encode(&out, NULL, again, &n_again), AT_OK);
                assert_true(at_span_eq(at_span(body, n), at_span(again, n_again)));
            }
            body[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        for (size_t cut = 0; cut < n; cut++) assert_true(at_record_decode(at_span(body, cut), NULL, &out) != AT_OK);
        /* An unknown field at the end; version 1 said again; two bodies (a second END or LEAVE). */
        static const struct {
            const char *bytes;
            size_t n;
        } tail[] = {{"\x98\x06\x01", 3}, {"\x08\x01", 2}, {"\x5a\x00", 2}, {"\x82\x01\x02\x08\x05", 5}};
        for (size_t i = 0; i < 4; i++) {
            memcpy(body + n, tail[i].bytes, tail[i].n);
            assert_int_equal(at_record_decode(at_span(body, n + tail[i].n), NULL, &out), AT_E_DATA);
        }
    }
}

/* An unknown field inside the body's own message is kept and re-packed by the generated code; still refused. */
static void unknown_fields_inside_are_refused(void **state)
{
    struct at_record rec = wire_fixture_record(AT_RECORD_LEAVE), out;
    uint8_t body[AT_RECORD_BYTES_MAX];
    uint16_t n;
    assert_int_equal(at_record_encode(&rec, NULL, body, &n), AT_OK);
    assert_memory_equal(body + n - 2, "\x5a\x00", 2);
    memcpy(body + n - 1, "\x02\x08\x01", 3); /* LEAVE { field 1 = 1 } */
    assert_int_equal(at_record_decode(at_span(body, n + 2u), NULL, &out), AT_E_DATA);
}

static void bad_shapes_are_refused(void **state)
{
    uint8_t body[AT_RECORD_BYTES_MAX];
    uint16_t n;
    struct at_record rec = wire_fixture_record(AT_RECORD_JOIN);
    static const char *const names[] = {"a\nb",          "\x1b[31m", "\x7f",         "\xc2\x85",
                                        "\xff",          "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                        "\xe2\x80\xae!", "\xc3"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        strcpy(rec.join.name, names[i]);
        assert_int_equal(at_record_encode(&rec, NULL, body, &n), AT_E_DATA);
    }
    memset(rec.join.name, 'x', sizeof rec.join.name);
    assert_int_equal(at_record_encode(&rec, NULL, body, &n), AT_E_DATA);
    rec = wire_fixture_record(AT_RECORD_EPOCH);
    static const double losses[] = {(double)NAN, (double)INFINITY, -1.0, -0.0};
    for (size_t i = 0; i < 4; i++) {
        rec.epoch.heldout_loss = losses[i];
        assert_int_equal(at_record_encode(&rec, NULL, body, &n), AT_E_DATA);
    }
    rec.kind = AT_RECORD_NONE;
    assert_int_equal(at_record_encode(&rec, NULL, body, &n), AT_E_DATA);
}

/* A NaN that only exists on the wire (we would never encode it). */
static void a_nan_from_outside(void **state)
{
    struct at_record rec = wire_fixture_record(AT_RECORD_EPOCH), out;
    uint8_t body[AT_RECORD_BYTES_MAX], nan_bytes[8] = {1, 0, 0, 0, 0, 0, 0xf8, 0x7f}, loss[8];
    uint16_t n;
    assert_int_equal(at_record_encode(&rec, NULL, body, &n), AT_OK);
    memcpy(loss, &rec.epoch.heldout_loss, 8);
    size_t at = 0;
    while (at + 8 <= n && memcmp(body + at, loss, 8) != 0) at++;
    assert_true(at + 8 <= n);
    memcpy(body + at, nan_bytes, 8);
    assert_int_equal(at_record_decode(at_span(body, n), NULL, &out), AT_E_DATA);
}

static void signatures_and_leaves(void **state)
{
    uint8_t seed[32] = {1};
    struct at_keypair key;
    struct at_signed_record s, copy;
    assert_int_equal(at_keypair_from_seed(seed, &key), AT_OK);
    struct at_record rec = wire_fixture_record(AT_RECORD_RECEIPT);
    assert_int_equal(at_record_sign(&rec, &key, NULL, &s), AT_OK);
    assert_int_equal(at_signed_record_verify(&s), AT_OK);
    /* The signed text is "atoll record 1" with its NUL, then the body: never the body alone. */
    assert_int_equal(at_verify(&s.author, at_signed_record_body(&s), &s.sig), AT_E_SIGNATURE);
    uint8_t text[15 + AT_RECORD_BYTES_MAX];
    memcpy(text, "atoll record 1", 15);
    memcpy(text + 15, s.body, s.body_bytes);
    assert_int_equal(at_verify(&s.author, at_span(text, 15u + s.body_bytes), &s.sig), AT_OK);
    /* The leaf: RFC 6962 over author ‖ sig ‖ body. */
    uint8_t leaf[32 + 64 + AT_RECORD_BYTES_MAX];
    memcpy(leaf, s.author.b, 32);
    memcpy(leaf + 32, s.sig.b, 64);
    memcpy(leaf + 96, s.body, s.body_bytes);
    assert_true(at_hash_eq(at_signed_record_leaf(&s), at_merkle_leaf(at_span(leaf, 96u + s.body_bytes))));
    struct at_span body = at_signed_record_body(&s), author = at_span(s.author.b, 32), sig = at_span(s.sig.b, 64);
    assert_int_equal(at_signed_record_from(body, author, sig, NULL, &copy), AT_OK);
    assert_int_equal(at_signed_record_verify(&copy), AT_OK);
    assert_int_equal(at_signed_record_from(at_span(NULL, 0), author, sig, NULL, &copy), AT_E_DATA);
    assert_int_equal(at_signed_record_from(body, at_span(s.author.b, 31), sig, NULL, &copy), AT_E_DATA);
    assert_int_equal(at_signed_record_from(body, author, at_span(s.sig.b, 63), NULL, &copy), AT_E_DATA);
    copy.body[20] ^= 1;
    assert_int_equal(at_signed_record_verify(&copy), AT_E_SIGNATURE);
}

static void checkpoints_bind_run_size_and_root(void **state)
{
    uint8_t seed[32] = {2};
    struct at_keypair key;
    assert_int_equal(at_keypair_from_seed(seed, &key), AT_OK);
    const struct at_log_checkpoint good = at_log_checkpoint_sign(&key, fixture_hash(1), 42, fixture_hash(2));
    assert_int_equal(at_log_checkpoint_verify(&good, fixture_hash(1)), AT_OK);
    assert_int_equal(at_log_checkpoint_verify(&good, fixture_hash(3)), AT_E_SIGNATURE);
    struct at_log_checkpoint c = good;
    c.size++;
    assert_int_equal(at_log_checkpoint_verify(&c, fixture_hash(1)), AT_E_SIGNATURE);
    c = good;
    c.root = fixture_hash(3);
    assert_int_equal(at_log_checkpoint_verify(&c, fixture_hash(1)), AT_E_SIGNATURE);
}

/* The zero key is a point of order four: a zero signature of its fits one text in four. */
static void nobody_signs(void **state)
{
    (void)state;
    struct at_signed_record rec;
    memset(&rec, 0, sizeof rec);
    rec.body_bytes = 4;
    assert_true(at_signed_record_is_unsigned(&rec));
    for (int i = 0; i < 64; i++) {
        rec.body[0] = (uint8_t)i;
        assert_int_equal(at_signed_record_verify(&rec), AT_E_SIGNATURE);
    }
    rec.sig.b[63] = 1;
    assert_false(at_signed_record_is_unsigned(&rec));
    rec.sig.b[63] = 0;
    rec.author.b[0] = 1;
    assert_false(at_signed_record_is_unsigned(&rec));
}

static void sets_of_replicas(void **state)
{
    struct at_replicas set = {{0}};
    static const uint32_t members[] = {0, 7, 8, 63, 64, 1000, 4095};
    for (size_t i = 0; i < 7; i++) at_replicas_add(&set, members[i]);
    assert_int_equal(at_replicas_count(&set), 7);
    size_t seen = 0;
    for (uint32_t r = at_replicas_next(&set, 0); r < AT_MEMBERS_MAX; r = at_replicas_next(&set, r + 1))
        assert_int_equal(r, members[seen++]);
    assert_int_equal(seen, 7);
    for (uint32_t r = 0; r < AT_MEMBERS_MAX; r++) { /* next against has, from everywhere */
        uint32_t next = at_replicas_next(&set, r);
        for (uint32_t k = r; k < next && k < AT_MEMBERS_MAX; k++) assert_false(at_replicas_has(&set, k));
        assert_true(next == AT_MEMBERS_MAX || at_replicas_has(&set, next));
    }
    assert_false(at_replicas_has(&set, AT_MEMBERS_MAX));
    assert_int_equal(at_replicas_next(&set, UINT32_MAX), AT_MEMBERS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_there_and_back), cmocka_unit_test(the_largest_fit),
        cmocka_unit_test(only_canonical_bytes_pass), cmocka_unit_test(unknown_fields_inside_are_refused),
        cmocka_unit_test(bad_shapes_are_refused),    cmocka_unit_test(a_nan_from_outside),
        cmocka_unit_test(signatures_and_leaves),     cmocka_unit_test(checkpoints_bind_run_size_and_root),
        cmocka_unit_test(sets_of_replicas),          cmocka_unit_test(nobody_signs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
