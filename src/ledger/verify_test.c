/* Every attack on a stored log that we can think of, on every record of it: the verifier must name that record. */
#include "ledger/log_fixture.h"
#include "ledger/verify.h"
#include "os/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

enum { ROWS = FIXTURE_RECORDS_MAX };

struct row {
    uint64_t idx;
    uint8_t body[AT_RECORD_BYTES_MAX + 8], author[AT_KEY_BYTES], sig[AT_SIG_BYTES];
    size_t body_bytes, author_bytes, sig_bytes;
};
struct mem_log { /* a store in memory, to be damaged */
    struct row row[ROWS];
    struct at_log_checkpoint checkpoint[ROWS];
    size_t count, checkpoint_count, at, checkpoint_at, fail_at;
};

static struct log_fixture fixture;
static struct mem_log honest, damaged;

static at_err_t next_record(void *ctx, struct at_diag *diag, struct at_log_row *ret)
{
    struct mem_log *log = ctx;
    if (log->fail_at != 0 && log->at == log->fail_at) return at_fail(diag, AT_E_DISK, "mem", "disk");
    if (log->at == log->count) return AT_E_NOT_FOUND;
    const struct row *r = &log->row[log->at++];
    *ret = (struct at_log_row){.idx = r->idx,
                               .body = at_span(r->body, r->body_bytes),
                               .author = at_span(r->author, r->author_bytes),
                               .sig = at_span(r->sig, r->sig_bytes)};
    return AT_OK;
}

static at_err_t next_checkpoint(void *ctx, struct at_diag *diag, struct at_log_checkpoint_row *ret)
{
    struct mem_log *log = ctx;
    (void)diag;
    if (log->checkpoint_at == log->checkpoint_count) return AT_E_NOT_FOUND;
    const struct at_log_checkpoint *c = &log->checkpoint[log->checkpoint_at++];
    *ret = (struct at_log_checkpoint_row){.size = c->size,
                                          .root = at_span(c->root.b, sizeof c->root.b),
                                          .steward = at_span(c->steward.b, sizeof c->steward.b),
                                          .sig = at_span(c->sig.b, sizeof c->sig.b)};
    return AT_OK;
}

static void set_row(struct row *row, uint64_t idx, const struct at_signed_record *rec)
{
    row->idx = idx;
    row->body_bytes = rec->body_bytes;
    row->author_bytes = AT_KEY_BYTES;
    row->sig_bytes = AT_SIG_BYTES;
    memcpy(row->body, rec->body, rec->body_bytes);
    memcpy(row->author, rec->author.b, AT_KEY_BYTES);
    memcpy(row->sig, rec->sig.b, AT_SIG_BYTES);
}

static int setup(void **state)
{
    fixture_init(&fixture);
    fixture_story(&fixture);
    memset(&honest, 0, sizeof honest);
    honest.count = honest.checkpoint_count = fixture.count;
    for (uint32_t i = 0; i < fixture.count; i++) {
        set_row(&honest.row[i], i, &fixture.record[i]);
        honest.checkpoint[i] = fixture.checkpoint[i];
    }
    return 0;
}

static int teardown(void **state)
{
    fixture_release(&fixture);
    return 0;
}

static at_err_t verify(struct mem_log *log, struct at_ledger_report *ret_report)
{
    struct at_ledger ledger;
    struct at_diag diag = {.err = AT_OK};
    struct at_log_source source = {.ctx = log, .next_record = next_record, .next_checkpoint = next_checkpoint};
    log->at = log->checkpoint_at = 0;
    assert_int_equal(at_ledger_init(&ledger, &fixture.genesis, NULL), AT_OK);
    at_err_t err = at_ledger_verify(&ledger, &source, &at_par_serial, &diag, ret_report);
    at_ledger_release(&ledger);
    return err;
}

/* The damaged log must be refused at exactly this record. */
static void expect_named(const char *attack, size_t i, uint64_t record)
{
    struct at_ledger_report report;
    if (verify(&damaged, &report) != AT_E_VERIFY) fail_msg("%s at %zu: not noticed", attack, i);
    if (report.record != record || report.ok || report.reason[0] == '\0')
        fail_msg("%s at %zu: named %llu instead of %llu (%s)", attack, i, (unsigned long long)report.record,
                 (unsigned long long)record, report.reason);
}

static void an_honest_log_is_ok(void **state)
{
    struct at_ledger_report report;
    damaged = honest;
    assert_int_equal(verify(&damaged, &report), AT_OK);
    assert_true(report.ok && report.records == fixture.count);
    assert_true(at_hash_eq(report.head, fixture.checkpoint[fixture.count - 1].root));
    damaged.count = damaged.checkpoint_count = 0;
    assert_int_equal(verify(&damaged, &report), AT_OK);
    assert_int_equal(report.records, 0);
}

static void a_byte_changed(void **state)
{
    for (size_t i = 0; i < honest.count; i++) {
        const struct row *r = &honest.row[i];
        for (size_t b = 0; b < r->body_bytes; b += 97) {
            damaged = honest;
            damaged.row[i].body[b] ^= 0x10;
            expect_named("body byte", i, i);
        }
        for (size_t b = 0; b < AT_KEY_BYTES; b += 31) {
            damaged = honest;
            damaged.row[i].author[b] ^= 1;
            expect_named("author byte", i, i);
        }
        for (size_t b = 0; b < AT_SIG_BYTES; b += 63) {
            damaged = honest;
            damaged.row[i].sig[b] ^= 0x80;
            expect_named("sig byte", i, i);
        }
    }
}

static void a_column_cut_or_grown(void **state)
{
    for (size_t i = 0; i < honest.count; i++) {
        damaged = honest;
        damaged.row[i].body_bytes = i % 3 == 0   ? 0
                                    : i % 3 == 1 ? damaged.row[i].body_bytes - 1
                                                 : AT_RECORD_BYTES_MAX + 1;
        expect_named("body size", i, i);
        damaged = honest;
        damaged.row[i].author_bytes = i % 2 == 0 ? 0 : 31;
        expect_named("author size", i, i);
        damaged = honest;
        damaged.row[i].sig_bytes = i % 2 == 0 ? 63 : 0;
        expect_named("sig size", i, i);
    }
}

static void drop(size_t i, bool renumber)
{
    damaged = honest;
    for (size_t k = i; k + 1 < damaged.count; k++) {
        damaged.row[k] = honest.row[k + 1];
        if (renumber) damaged.row[k].idx = k;
    }
    damaged.count--;
}

static void a_record_dropped(void **state)
{
    for (size_t i = 0; i < honest.count; i++) {
        drop(i, false);
        expect_named("drop", i, i);
        drop(i, true);
        expect_named("drop and renumber", i, i);
    }
}

static void two_records_swapped(void **state)
{
    for (size_t i = 0; i < honest.count; i++)
        for (size_t k = i + 1; k < honest.count; k += k == i + 1 ? 4 : 17) {
            damaged = honest;
            damaged.row[i] = honest.row[k];
            damaged.row[k] = honest.row[i];
            damaged.row[i].idx = i;
            damaged.row[k].idx = k;
            expect_named("swap", i, i);
        }
}

static void a_record_repeated(void **state)
{
    for (size_t i = 0; i < honest.count; i++) {
        damaged = honest;
        damaged.row[damaged.count] = honest.row[i];
        damaged.row[damaged.count].idx = damaged.count;
        damaged.count++;
        expect_named("repeat at the end", i, honest.count);
        damaged = honest;
        for (size_t k = damaged.count; k > i; k--) {
            damaged.row[k] = honest.row[k - 1];
            damaged.row[k].idx = k;
        }
        damaged.count++;
        expect_named("repeat in place", i, i + 1);
    }
}

/* A record that is right in itself and signed, but was never in this log. */
static void a_record_slipped_in(void **state)
{
    struct at_record rec = fixture_record(&fixture, AT_RECORD_JOIN);
    struct at_signed_record slip = fixture_sign(&fixture, 6, &rec);
    for (size_t i = 0; i + 1 < honest.count; i++) { /* not after END, where the rule itself says no */
        damaged = honest;
        for (size_t k = damaged.count; k > i; k--) {
            damaged.row[k] = honest.row[k - 1];
            damaged.row[k].idx = k;
        }
        set_row(&damaged.row[i], i, &slip);
        damaged.count++;
        expect_named("slip", i, i);
    }
}

static void a_checkpoint_changed(void **state)
{
    for (size_t i = 0; i < honest.checkpoint_count; i++) {
        damaged = honest;
        damaged.checkpoint[i].root.b[3] ^= 1;
        expect_named("checkpoint root", i, i);
        damaged = honest;
        damaged.checkpoint[i].sig.b[3] ^= 1;
        expect_named("checkpoint sig", i, i);
        damaged = honest; /* a real signature, of a member that is not the steward */
        damaged.checkpoint[i] =
            at_log_checkpoint_sign(&fixture.key[1], fixture.ledger.run, i + 1, honest.checkpoint[i].root);
        expect_named("checkpoint steward", i, i);
        damaged = honest; /* of another run */
        damaged.checkpoint[i] =
            at_log_checkpoint_sign(&fixture.key[0], at_sha256("x", 1), i + 1, honest.checkpoint[i].root);
        expect_named("checkpoint run", i, i);
    }
    size_t last = honest.checkpoint_count - 1;
    damaged = honest;
    damaged.checkpoint[last].size += 5;
    expect_named("checkpoint size", last, last);
    damaged = honest;
    damaged.checkpoint[0].size = 0;
    expect_named("checkpoint size 0", 0, 0);
    damaged = honest;
    damaged.checkpoint_count--;
    expect_named("checkpoint dropped at the end", last, last);
    damaged = honest;
    damaged.checkpoint_count = 0;
    expect_named("all checkpoints dropped", 0, 0);
    damaged.count = 0;
    damaged.checkpoint[0].size = UINT64_MAX;
    damaged.checkpoint_count = 1;
    expect_named("a mad checkpoint alone", 0, 0);
}

/* Nothing dropped, only the numbers moved: record i is not where it should be. */
static void rows_renumbered(void **state)
{
    for (size_t i = 0; i < honest.count; i++) {
        damaged = honest;
        for (size_t k = i; k < damaged.count; k++) damaged.row[k].idx++;
        expect_named("gap", i, i);
        if (i == 0) continue;
        damaged = honest;
        for (size_t k = i; k < damaged.count; k++) damaged.row[k].idx--;
        expect_named("one number twice", i, i);
    }
}

/* With checkpoints for batches only: what is wrong in itself is named, else the batch's first record. */
static void batches(void **state)
{
    struct at_ledger_report report;
    damaged = honest;
    damaged.checkpoint_count = 0;
    for (size_t i = 0; i < honest.count; i++)
        if (i % 5 == 4 || i + 1 == honest.count) damaged.checkpoint[damaged.checkpoint_count++] = honest.checkpoint[i];
    static struct mem_log batched;
    batched = damaged;
    assert_int_equal(verify(&damaged, &report), AT_OK);
    for (size_t i = 0; i < honest.count; i++) {
        damaged = batched;
        damaged.row[i].sig[1] ^= 1;
        expect_named("sig byte in a batch", i, i);
    }
    for (size_t i = 0; i + 1 < honest.count; i++) {
        damaged = batched;
        damaged.row[i] = batched.row[i + 1];
        damaged.row[i + 1] = batched.row[i];
        damaged.row[i].idx = i;
        damaged.row[i + 1].idx = i + 1;
        assert_int_equal(verify(&damaged, &report), AT_E_VERIFY);
        assert_true(report.record >= i / 5 * 5 && report.record <= i + 1);
    }
}

static void a_failing_store_gives_no_verdict(void **state)
{
    struct at_ledger_report report = {.records = 12345};
    damaged = honest;
    damaged.fail_at = 3;
    assert_int_equal(verify(&damaged, &report), AT_E_DISK);
    assert_int_equal(report.records, 12345);
}

/* A log of another genesis is wrong from its first record on. */
static void another_genesis(void **state)
{
    damaged = honest;
    fixture.genesis.issuance++;
    expect_named("another genesis", 0, 0);
    fixture.genesis.issuance--;
}

/* Signatures spread over threads: the same verdicts. */
static void on_several_threads(void **state)
{
    struct at_pool pool = {.impl = NULL};
    assert_int_equal(at_pool_init(&pool, 3, NULL), AT_OK);
    for (int bad = 0; bad < 2; bad++) {
        struct at_ledger ledger;
        struct at_ledger_report report;
        damaged = honest;
        if (bad) damaged.row[11].sig[5] ^= 1;
        struct at_log_source source = {.ctx = &damaged, .next_record = next_record, .next_checkpoint = next_checkpoint};
        damaged.at = damaged.checkpoint_at = 0;
        assert_int_equal(at_ledger_init(&ledger, &fixture.genesis, NULL), AT_OK);
        assert_int_equal(at_ledger_verify(&ledger, &source, &pool.par, NULL, &report), bad ? AT_E_VERIFY : AT_OK);
        assert_int_equal(bad ? report.record : report.records, bad ? 11 : honest.count);
        at_ledger_release(&ledger);
    }
    at_pool_release(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_honest_log_is_ok),
        cmocka_unit_test(a_byte_changed),
        cmocka_unit_test(a_column_cut_or_grown),
        cmocka_unit_test(a_record_dropped),
        cmocka_unit_test(two_records_swapped),
        cmocka_unit_test(a_record_repeated),
        cmocka_unit_test(a_record_slipped_in),
        cmocka_unit_test(a_checkpoint_changed),
        cmocka_unit_test(rows_renumbered),
        cmocka_unit_test(batches),
        cmocka_unit_test(a_failing_store_gives_no_verdict),
        cmocka_unit_test(another_genesis),
        cmocka_unit_test(on_several_threads),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
