/* A stored log of three terms: a single steward's, of four, and of four others; and what somebody may do to it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ledger/stewards_fixture.h"
#include "ledger/verify.h"

#include <stdlib.h>

enum { ROWS = 600 };

struct log {
    struct at_signed_record record[ROWS];
    struct at_log_checkpoint checkpoint[ROWS];
    size_t count, checkpoint_count, at, checkpoint_at;
};

static struct stewards_fixture r;
static struct log honest, damaged;
static size_t alone, third; /* records of the first term; of the first two */
static struct at_seats four, others;

/* ---- writing it ---- */
static void keep(const struct at_signed_record *rec)
{
    assert_true(honest.count < ROWS);
    honest.record[honest.count++] = *rec;
}

static void put(int key, const struct at_record *rec)
{
    struct at_diag diag = {0};
    struct at_signed_record s = fixture_sign(&r.f, key, rec);
    if (at_ledger_check(&r.f.ledger, &s, &diag) != AT_OK) fail_msg("%s", diag.text);
    assert_int_equal(at_ledger_apply(&r.f.ledger, &s, NULL, NULL), AT_OK);
    keep(&s);
}

static void begin_block(uint64_t view)
{
    struct at_block_head head = stewards_head(&r, view, 0);
    struct at_signed_record rec;
    r.revealed[stewards_leader(&r, view)]++;
    assert_int_equal(at_ledger_begin_block(&r.f.ledger, &head, NULL, &rec), AT_OK);
    keep(&rec);
}

/* The key of a seat: each member has had one seat key only. */
static const struct at_keypair *key_of(const struct at_node_id *id)
{
    for (int k = 0; k < FIXTURE_KEYS; k++) {
        if (at_node_id_eq(&r.seat_key[k].id, id)) return &r.seat_key[k];
        if (at_node_id_eq(&r.f.key[k].id, id)) return &r.f.key[k];
    }
    fail();
    return NULL;
}

static int by_key(const void *a, const void *b)
{
    return at_log_checkpoint_cmp(a, b);
}

/* Cosignatures of the present size by those of `seats` in `who`. */
static void cosign(const struct at_seats *seats, unsigned who)
{
    size_t first = honest.checkpoint_count;
    for (uint32_t i = 0; i < seats->count; i++)
        if (who >> i & 1)
            honest.checkpoint[honest.checkpoint_count++] = at_log_checkpoint_sign(
                key_of(&seats->seat[i].key), r.f.ledger.run, honest.count, at_ledger_root(&r.f.ledger));
    qsort(honest.checkpoint + first, honest.checkpoint_count - first, sizeof *honest.checkpoint, by_key);
}

/* A round in which nobody works, in one block. */
static void idle_round(uint64_t view)
{
    begin_block(view);
    struct at_record rec = fixture_open_record(&r.f, 0x10);
    for (int k = 1; k < 4; k++) put(k, &rec);
    rec = fixture_close_record(&r.f, 0);
    for (int k = 1; k < 4; k++) put(k, &rec);
    rec = fixture_epoch_record(&r.f);
    for (int k = 1; k < 3; k++) put(k, &rec);
    cosign(&four, (unsigned)(view % 4 == 0 ? 0xf : 0xf ^ 1u << view % 4)); /* one is away mostly */
}

static int setup(void **state)
{
    (void)state;
    stewards_init(&r);
    for (int k = 0; k < 4; k++) {
        struct at_record rec = stewards_stand_record(&r, k);
        assert_int_equal(fixture_write(&r.f, k, &rec, NULL), AT_OK);
    }
    fixture_round(&r.f, 0xff, 0xff, 1);
    for (size_t i = 0; i < r.f.count; i++) keep(&r.f.record[i]);
    memcpy(honest.checkpoint, r.f.checkpoint, r.f.count * sizeof *honest.checkpoint);
    alone = honest.checkpoint_count = r.f.count;
    four = r.f.ledger.seats;
    begin_block(1);
    for (int k = 1; k < 6; k++) { /* not the founder */
        struct at_record rec = stewards_stand_record(&r, k);
        put(k, &rec);
    }
    cosign(&four, 0xe);
    uint64_t view = 2;
    for (int i = 0; i < AT_TERM_ROUNDS; i++) idle_round(view++);
    for (; r.f.ledger.seats.term == 2; view++) {
        begin_block(view);
        struct at_record rec = fixture_record(&r.f, AT_RECORD_LEAVE);
        if (r.f.ledger.seats.term == 3) put(7, &rec); /* in the old seats' last block */
        cosign(&four, 0x7);
    }
    third = honest.count;
    others = r.f.ledger.seats;
    for (view = 1; view < 4; view++) {
        begin_block(view);
        cosign(&others, 0xe);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_release(&r.f);
    return 0;
}

/* ---- reading it ---- */
static at_err_t next_record(void *ctx, struct at_diag *diag, struct at_log_row *ret)
{
    struct log *log = ctx;
    (void)diag;
    if (log->at == log->count) return AT_E_NOT_FOUND;
    const struct at_signed_record *rec = &log->record[log->at];
    *ret = (struct at_log_row){.idx = log->at++,
                               .body = at_signed_record_body(rec),
                               .author = at_span(rec->author.b, sizeof rec->author.b),
                               .sig = at_span(rec->sig.b, sizeof rec->sig.b)};
    return AT_OK;
}

static at_err_t next_checkpoint(void *ctx, struct at_diag *diag, struct at_log_checkpoint_row *ret)
{
    struct log *log = ctx;
    (void)diag;
    if (log->checkpoint_at == log->checkpoint_count) return AT_E_NOT_FOUND;
    const struct at_log_checkpoint *c = &log->checkpoint[log->checkpoint_at++];
    *ret = (struct at_log_checkpoint_row){.size = c->size,
                                          .root = at_span(c->root.b, sizeof c->root.b),
                                          .steward = at_span(c->steward.b, sizeof c->steward.b),
                                          .sig = at_span(c->sig.b, sizeof c->sig.b)};
    return AT_OK;
}

static at_err_t verify(struct at_ledger_report *ret_report)
{
    struct at_ledger ledger;
    struct at_diag diag = {0};
    struct at_log_source source = {.ctx = &damaged, .next_record = next_record, .next_checkpoint = next_checkpoint};
    damaged.at = damaged.checkpoint_at = 0;
    assert_int_equal(at_ledger_init(&ledger, &r.f.genesis, NULL), AT_OK);
    at_err_t err = at_ledger_verify(&ledger, &source, &at_par_serial, &diag, ret_report);
    at_ledger_release(&ledger);
    return err;
}

static void is_named(size_t record, const char *why)
{
    struct at_ledger_report report;
    if (verify(&report) != AT_E_VERIFY) fail_msg("not noticed; should be: %s", why);
    if (report.record != record || strstr(report.reason, why) == NULL)
        fail_msg("named %zu instead of %zu: '%s' instead of '%s'", (size_t)report.record, record, report.reason, why);
}

/* The first checkpoint of at least `size`: its place. */
static size_t checkpoint_at(size_t size)
{
    size_t i = 0;
    while (damaged.checkpoint[i].size < size) i++;
    return i;
}

static void drop_checkpoints(size_t from, size_t n)
{
    memmove(damaged.checkpoint + from, damaged.checkpoint + from + n,
            (damaged.checkpoint_count - from - n) * sizeof *damaged.checkpoint);
    damaged.checkpoint_count -= n;
}

static void three_terms_are_ok(void **state)
{
    (void)state;
    struct at_ledger_report report;
    damaged = honest;
    if (verify(&report) != AT_OK) fail_msg("record %zu: %s", (size_t)report.record, report.reason);
    assert_int_equal(report.records, honest.count);
    assert_int_equal(report.uncovered, 0);
    assert_true(at_hash_eq(report.head, at_ledger_root(&r.f.ledger)));
    assert_int_equal(at_ledger_term_end(&r.f.ledger, 0), alone);
    assert_int_equal(at_ledger_term_end(&r.f.ledger, alone), third);
    drop_checkpoints(damaged.checkpoint_count - 6, 6); /* final, not cosigned yet */
    assert_int_equal(verify(&report), AT_OK);
    assert_int_equal(report.uncovered, 2);
}

static void too_few_or_wrong_seats_vouch_for_nothing(void **state)
{
    (void)state;
    damaged = honest;
    size_t c = checkpoint_at(alone + 20), size = (size_t)damaged.checkpoint[c].size;
    drop_checkpoints(c, damaged.checkpoint[c + 3].size == size ? 2 : 1);
    is_named(size - 1, "2 of the 3 stewards");
    damaged = honest;
    damaged.checkpoint[c] = damaged.checkpoint[c + 1]; /* one twice */
    is_named(size - 1, "not in order");
    damaged = honest;
    damaged.checkpoint[c].sig.b[7] ^= 1;
    is_named(size - 1, "damaged");
    damaged = honest; /* the founder as the single steward it was */
    damaged.checkpoint[c] = at_log_checkpoint_sign(&r.f.key[0], r.f.ledger.run, size, damaged.checkpoint[c].root);
    is_named(size - 1, "nobody who held a seat");
    damaged = honest; /* a seat that it lost, after the hand-over */
    c = checkpoint_at(third + 1);
    assert_int_equal(at_seats_find(&others, &r.f.key[0].id), -1);
    damaged.checkpoint[c] =
        at_log_checkpoint_sign(&r.seat_key[0], r.f.ledger.run, third + 1, damaged.checkpoint[c].root);
    is_named(third, "nobody who held a seat");
    damaged = honest; /* the last block of the old seats, signed by a new one */
    c = checkpoint_at(third);
    int k = 4 + (at_seats_find(&others, &r.f.key[5].id) >= 0);
    damaged.checkpoint[c] = at_log_checkpoint_sign(&r.seat_key[k], r.f.ledger.run, third, damaged.checkpoint[c].root);
    is_named(third - 1, "nobody who held a seat");
    damaged = honest; /* all that several have signed */
    damaged.checkpoint_count = alone;
    is_named(alone, "the stewards signed no checkpoint");
    damaged = honest;
    damaged.checkpoint_count = alone;
    damaged.count = alone + 256; /* as many as a part has */
    struct at_ledger_report report;
    assert_int_equal(verify(&report), AT_OK);
    assert_int_equal(report.uncovered, 256);
}

static void blocks_cannot_be_bent(void **state)
{
    (void)state;
    damaged = honest;
    damaged.record[alone].body[damaged.record[alone].body_bytes - 1] ^= 1; /* its reveal */
    is_named(alone, "BLOCK refused");
    damaged = honest;
    damaged.record[alone].sig.b[0] = 1;
    is_named(alone, "signature");
    damaged = honest; /* a record of the round that nobody wrote */
    memset(&damaged.record[alone + 2].author, 0, AT_KEY_BYTES);
    memset(&damaged.record[alone + 2].sig, 0, AT_SIG_BYTES);
    is_named(alone + 2, "no author");
    damaged = honest; /* a block among the single steward's records */
    damaged.record[3] = honest.record[alone];
    is_named(3, "single steward makes no blocks");
    damaged = honest; /* without its beginning */
    memmove(damaged.record + alone, damaged.record + alone + 1, (ROWS - alone - 1) * sizeof *damaged.record);
    damaged.count--;
    is_named(alone, "in no block");
    damaged = honest; /* two records of one block in another order: each is right, the block is not what was signed */
    damaged.record[alone + 1] = honest.record[alone + 2];
    damaged.record[alone + 2] = honest.record[alone + 1];
    is_named(alone, "not what the steward signed");
    damaged = honest; /* an old block again, by the new seats */
    damaged.record[third] = honest.record[alone];
    is_named(third, "another term");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(three_terms_are_ok),
                                       cmocka_unit_test(too_few_or_wrong_seats_vouch_for_nothing),
                                       cmocka_unit_test(blocks_cannot_be_bent)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
