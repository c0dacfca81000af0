/* log_fixture.h: for tests: a small run whose log is written record by record through the real ledger. Asserts instead
 * of reporting. Keys are fixed, so that every run of a test sees the same bytes. */
#ifndef ATOLL_LEDGER_LOG_FIXTURE_H
#define ATOLL_LEDGER_LOG_FIXTURE_H

#include "ledger/ledger.h"
#include "wire/log_checkpoint.h"

#include <string.h>

enum { FIXTURE_KEYS = 8, FIXTURE_RECORDS_MAX = 256 };

struct log_fixture { /* key 0 is the steward's */
    struct at_genesis genesis;
    struct at_keypair key[FIXTURE_KEYS];
    struct at_ledger ledger;
    struct at_signed_record record[FIXTURE_RECORDS_MAX];
    struct at_log_checkpoint checkpoint[FIXTURE_RECORDS_MAX]; /* [i]: of the first i + 1 records */
    uint32_t count;
    uint64_t now_ms;
};

static inline struct at_genesis fixture_genesis(const struct at_node_id *steward)
{
    const struct at_preset *tiny;
    AT_ASSERT(at_preset_find("tiny", NULL, &tiny) == AT_OK);
    struct at_genesis g = {.profile = "F32-1",
                           .tokenizer = "bytes",
                           .preset = "tiny",
                           .model = tiny->model,
                           .train = tiny->train,
                           .shard_count = 1,
                           .heldout_fraction = 0.05,
                           .heldout_bytes = 32768,
                           .min_members = 3,
                           .issuance = 1000000000,
                           .round_ms_max = 60000,
                           .steward = *steward,
                           .created_ms = 1700000000000};
    at_outer_config_default(&g.outer, AT_OUTER_MEAN);
    g.shards[0] =
        (struct at_text_shard){.hash = at_sha256("text", 4), .bytes = 4, .name = "text.txt", .licence = "CC0-1.0"};
    return g;
}

static inline void fixture_init(struct log_fixture *f)
{
    memset(f, 0, sizeof *f);
    for (int i = 0; i < FIXTURE_KEYS; i++) {
        uint8_t seed[AT_KEY_BYTES] = {(uint8_t)(i + 1)};
        AT_ASSERT(at_keypair_from_seed(seed, &f->key[i]) == AT_OK);
    }
    f->genesis = fixture_genesis(&f->key[0].id);
    f->genesis.train.rounds = 40;
    AT_ASSERT(at_ledger_init(&f->ledger, &f->genesis, NULL) == AT_OK);
    f->now_ms = 1700000001000;
}

static inline void fixture_release(struct log_fixture *f)
{
    at_ledger_release(&f->ledger);
}

static inline struct at_record fixture_record(struct log_fixture *f, enum at_record_kind kind)
{
    struct at_record rec;
    memset(&rec, 0, sizeof rec);
    rec.run = f->ledger.run;
    rec.time_ms = ++f->now_ms;
    rec.kind = kind;
    return rec;
}

static inline struct at_signed_record fixture_sign(const struct log_fixture *f, int key, const struct at_record *rec)
{
    struct at_signed_record s;
    AT_ASSERT(at_record_sign(rec, &f->key[key], NULL, &s) == AT_OK);
    return s;
}

/* Signs, checks, applies, keeps. Returns what at_ledger_check said; only an accepted record is kept. */
static inline at_err_t fixture_write(struct log_fixture *f, int key, const struct at_record *rec, struct at_diag *diag)
{
    struct at_signed_record s = fixture_sign(f, key, rec);
    at_err_t err = at_ledger_check(&f->ledger, &s, diag);
    if (err) return err;
    AT_ASSERT(f->count < FIXTURE_RECORDS_MAX);
    AT_ASSERT(at_ledger_apply(&f->ledger, &s, diag, NULL) == AT_OK);
    f->record[f->count++] = s;
    f->checkpoint[f->count - 1] =
        at_log_checkpoint_sign(&f->key[0], f->ledger.run, f->count, at_ledger_root(&f->ledger));
    return AT_OK;
}

static inline at_err_t fixture_join(struct log_fixture *f, int key)
{
    struct at_record rec = fixture_record(f, AT_RECORD_JOIN);
    rec.join.name[0] = (char)('a' + key);
    return fixture_write(f, key, &rec, NULL);
}

static inline at_err_t fixture_leave(struct log_fixture *f, int key)
{
    struct at_record rec = fixture_record(f, AT_RECORD_LEAVE);
    return fixture_write(f, key, &rec, NULL);
}

/* replica_bits: bit i = replica i takes part. */
static inline struct at_record fixture_open_record(struct log_fixture *f, unsigned replica_bits)
{
    struct at_record rec = fixture_record(f, AT_RECORD_OPEN);
    rec.open.round = f->ledger.round;
    rec.open.state_root = f->ledger.round == 0 ? at_sha256("theta0", 6) : f->ledger.state_root;
    rec.open.replicas.b[0] = (uint8_t)replica_bits;
    return rec;
}

/* What an honest member writes after `steps` inner steps. */
static inline struct at_record fixture_receipt_record(struct log_fixture *f, int replica, uint32_t steps)
{
    struct at_record rec = fixture_record(f, AT_RECORD_RECEIPT);
    struct at_receipt *r = &rec.receipt;
    r->round = f->ledger.round;
    r->replica = (uint32_t)replica;
    r->state_in = f->ledger.state_root;
    const struct at_allotment *unit = at_ledger_allotment(&f->ledger, r->replica);
    r->start = unit != NULL ? unit->range.start : 0;
    r->steps = steps;
    r->samples = steps * f->genesis.train.batch;
    r->tokens = (uint64_t)r->samples * f->genesis.model.seq_len;
    r->flops = r->tokens * at_model_flops_per_token(&f->genesis.model);
    r->update = at_sha256(&rec.time_ms, sizeof rec.time_ms);
    r->update_bytes = 1000;
    r->heldout = at_heldout_code(5.5 / (1 + f->ledger.round), 1) + (uint32_t)replica;
    return rec;
}

static inline struct at_record fixture_close_record(struct log_fixture *f, unsigned included_bits)
{
    struct at_record rec = fixture_record(f, AT_RECORD_CLOSE);
    rec.close.round = f->ledger.round;
    rec.close.included.b[0] = (uint8_t)included_bits;
    return rec;
}

static inline struct at_record fixture_epoch_record(struct log_fixture *f)
{
    struct at_record rec = fixture_record(f, AT_RECORD_EPOCH);
    rec.epoch.round = f->ledger.round;
    rec.epoch.state_root =
        at_sha256(&rec.epoch.round, sizeof rec.epoch.round); /* as a real one, never the same twice */
    rec.epoch.heldout_loss = at_ledger_heldout(&f->ledger);
    rec.epoch.balances = at_ledger_balances(&f->ledger);
    return rec;
}

static inline struct at_record fixture_end_record(struct log_fixture *f)
{
    struct at_record rec = fixture_record(f, AT_RECORD_END);
    rec.end.rounds = f->ledger.round;
    return rec;
}

/* A whole round: `in` take part, those of them in `done` finish `steps` steps and are included. Replica i has key i. */
static inline void fixture_round(struct log_fixture *f, unsigned in, unsigned done, uint32_t steps)
{
    struct at_record rec = fixture_open_record(f, in);
    AT_ASSERT(fixture_write(f, 0, &rec, NULL) == AT_OK);
    for (int r = 0; r < FIXTURE_KEYS; r++) {
        if ((done >> r & 1) == 0) continue;
        rec = fixture_receipt_record(f, r, steps);
        AT_ASSERT(fixture_write(f, r, &rec, NULL) == AT_OK);
    }
    rec = fixture_close_record(f, done);
    AT_ASSERT(fixture_write(f, 0, &rec, NULL) == AT_OK);
    rec = fixture_epoch_record(f);
    AT_ASSERT(fixture_write(f, 0, &rec, NULL) == AT_OK);
}

/* Joins, four rounds with deaths, partial work, a leave and a return, END: every kind of record. */
static inline void fixture_story(struct log_fixture *f)
{
    for (int k = 0; k < 4; k++) AT_ASSERT(fixture_join(f, k) == AT_OK);
    fixture_round(f, 0xf, 0xf, 4);
    fixture_round(f, 0xf, 0xb, 4); /* replica 2 dies */
    AT_ASSERT(fixture_join(f, 4) == AT_OK);
    AT_ASSERT(fixture_leave(f, 2) == AT_OK);
    fixture_round(f, 0x1b, 0x1b, 3);
    AT_ASSERT(fixture_join(f, 2) == AT_OK);
    fixture_round(f, 0x1f, 0x0, 4); /* nobody finishes */
    struct at_record end = fixture_end_record(f);
    AT_ASSERT(fixture_write(f, 0, &end, NULL) == AT_OK);
}

#endif
