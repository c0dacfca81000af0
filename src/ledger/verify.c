#include "ledger/verify.h"
#include "wire/log_checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Rows are read in chunks; their signatures, independent of each other, are checked side by side; then the fold goes
 * through them one by one. What is wrong with a row alone (its size, its signature) is remembered and reported when the
 * fold gets there, so that the first wrong record is named and not the first one noticed. */
enum { CHUNK = 1024 };

struct record_slot {
    uint64_t idx;
    struct at_signed_record rec;
    at_err_t err; /* what the row alone shows: AT_E_DATA with `fault`, AT_E_SIGNATURE */
    char fault[160];
};
struct checkpoint_slot {
    struct at_log_checkpoint c;
    bool sound; /* sizes and signature hold */
};
struct job {
    struct at_ledger *ledger;
    const struct at_log_source *source;
    const struct at_par *par;
    struct at_diag *diag;
    struct at_ledger_report report;
    struct record_slot *rows;
    struct checkpoint_slot *checkpoints;
    size_t row_count, checkpoint_count, checkpoint_at;
    bool rows_done, checkpoints_done;
    uint64_t covered;                /* records under a checkpoint that held */
    struct at_log_checkpoint newest; /* the last that held of the size that is looked at, ... */
    uint32_t cosigned;               /* ... and how many did; 0: none of this size yet */
};

static at_err_t wrong(struct job *j, uint64_t record, const char *reason)
{
    j->report.record = record;
    snprintf(j->report.reason, sizeof j->report.reason, "%s", reason);
    return AT_E_VERIFY;
}

static at_err_t read_rows(struct job *j)
{
    for (j->row_count = 0; j->row_count < CHUNK && !j->rows_done;) {
        struct at_log_row row;
        at_err_t err = j->source->next_record(j->source->ctx, j->diag, &row);
        if (err == AT_E_NOT_FOUND) {
            j->rows_done = true;
            break;
        }
        if (err) return err;
        struct record_slot *slot = &j->rows[j->row_count++];
        struct at_diag diag = {.err = AT_OK};
        slot->idx = row.idx;
        slot->err = at_signed_record_from(row.body, row.author, row.sig, &diag, &slot->rec);
        snprintf(slot->fault, sizeof slot->fault, "%.150s", diag.text);
    }
    return AT_OK;
}

static bool take_bytes(struct at_span from, uint8_t *to, size_t n)
{
    if (from.n != n) return false;
    memcpy(to, from.p, n);
    return true;
}

static at_err_t read_checkpoints(struct job *j)
{
    j->checkpoint_count = j->checkpoint_at = 0;
    while (j->checkpoint_count < CHUNK && !j->checkpoints_done) {
        struct at_log_checkpoint_row row;
        at_err_t err = j->source->next_checkpoint(j->source->ctx, j->diag, &row);
        if (err == AT_E_NOT_FOUND) {
            j->checkpoints_done = true;
            break;
        }
        if (err) return err;
        struct checkpoint_slot *slot = &j->checkpoints[j->checkpoint_count++];
        slot->c.size = row.size;
        slot->sound = take_bytes(row.root, slot->c.root.b, AT_HASH_BYTES) &&
                      take_bytes(row.steward, slot->c.steward.b, AT_KEY_BYTES) &&
                      take_bytes(row.sig, slot->c.sig.b, AT_SIG_BYTES);
    }
    return AT_OK;
}

static void verify_record_signature(void *arg, int i)
{
    struct job *j = arg;
    struct record_slot *slot = &j->rows[i];
    /* What nobody has signed may be a block's beginning: the fold refuses anything else. */
    if (slot->err == AT_OK && !at_signed_record_is_unsigned(&slot->rec))
        slot->err = at_signed_record_verify_by(&slot->rec, j->source->verifier);
}

static void verify_checkpoint_signature(void *arg, int i)
{
    struct job *j = arg;
    struct checkpoint_slot *slot = &j->checkpoints[i];
    if (slot->sound) slot->sound = at_log_checkpoint_verify_by(&slot->c, j->ledger->run, j->source->verifier) == AT_OK;
}

static at_err_t refill_checkpoints(struct job *j)
{
    if (j->checkpoint_at < j->checkpoint_count || j->checkpoints_done) return AT_OK;
    at_err_t err = read_checkpoints(j);
    if (!err && j->checkpoint_count != 0) at_par_run(j->par, (int)j->checkpoint_count, verify_checkpoint_signature, j);
    return err;
}

static bool is_signer(const struct at_seats *seats, const struct at_node_id *key)
{
    for (uint32_t i = 0; i < seats->count; i++)
        if (at_node_id_eq(&seats->seat[i].key, key)) return true;
    return false;
}

/* One cosignature of the fold's present size, by the seats that have ordered its last record. */
static at_err_t judge_checkpoint(struct job *j, const struct checkpoint_slot *slot)
{
    const struct at_seats *signers = &j->ledger->signers;
    uint64_t last = slot->c.size - 1;
    bool one = signers->count == 1;
    if (!slot->sound) return wrong(j, last, "the checkpoint after this record is damaged or not signed by the steward");
    if (!is_signer(signers, &slot->c.steward))
        return wrong(j, last,
                     one ? "the checkpoint after this record is damaged or not signed by the steward"
                         : "a checkpoint after this record is signed by nobody who held a seat when it was ordered");
    if (j->cosigned != 0 && at_log_checkpoint_cmp(&j->newest, &slot->c) >= 0)
        return wrong(j, last, "the checkpoints after this record are not in order");
    if (!at_hash_eq(slot->c.root, at_ledger_root(j->ledger)))
        return wrong(j, j->covered,
                     last == j->covered ? "not the record that the steward signed for this place"
                                        : "this record or one after it is not what the steward signed for its place");
    j->newest = slot->c;
    j->cosigned++;
    return AT_OK;
}

/* All cosignatures of the fold's present size have been seen. */
static at_err_t close_checkpoint(struct job *j)
{
    uint32_t need = 2 * at_seats_faults(j->ledger->signers.count) + 1, have = j->cosigned;
    if (have == 0) return AT_OK;
    j->cosigned = 0;
    if (have < need) {
        char reason[100];
        snprintf(reason, sizeof reason, "%u of the %u stewards that it takes signed the checkpoint after this record",
                 have, need);
        return wrong(j, j->newest.size - 1, reason);
    }
    j->covered = j->newest.size;
    return AT_OK;
}

/* All checkpoints whose size the fold has reached. */
static at_err_t settle_checkpoints(struct job *j)
{
    for (;;) {
        at_err_t err = refill_checkpoints(j);
        if (err) return err;
        bool none = j->checkpoint_at == j->checkpoint_count;
        const struct checkpoint_slot *slot = none ? NULL : &j->checkpoints[j->checkpoint_at];
        if (none || slot->c.size > j->report.records) return close_checkpoint(j);
        if (slot->c.size == 0) return wrong(j, 0, "a checkpoint of no records is stored");
        err = judge_checkpoint(j, slot);
        if (err) return err;
        j->checkpoint_at++;
    }
}

static at_err_t take_row(struct job *j, const struct record_slot *slot)
{
    uint64_t at = j->report.records;
    struct at_diag diag = {.err = AT_OK};
    if (slot->idx > at) return wrong(j, at, "the record is missing");
    if (slot->idx < at) return wrong(j, at, "the rows are not in order");
    if (slot->err == AT_E_SIGNATURE)
        return wrong(j, at, "the signature does not verify: body, author or signature was changed");
    if (slot->err) return wrong(j, at, slot->fault);
    at_err_t err = at_ledger_apply(j->ledger, &slot->rec, &diag, NULL);
    if (err == AT_E_NOMEM) return at_fail(j->diag, err, "ledger", "out of memory");
    if (err) return wrong(j, at, diag.text);
    j->report.records++;
    return AT_OK;
}

/* What only shows once the rows are used up. */
static at_err_t judge_end(struct job *j)
{
    at_err_t err = settle_checkpoints(j);
    if (err) return err;
    uint64_t records = j->report.records;
    if (j->checkpoint_at < j->checkpoint_count) {
        const struct checkpoint_slot *slot = &j->checkpoints[j->checkpoint_at];
        if (slot->sound && is_signer(&j->ledger->signers, &slot->c.steward))
            return wrong(j, records, "the record is missing: the steward signed a longer log");
        return wrong(j, j->covered < records || records == 0 ? j->covered : records - 1,
                     "a checkpoint beyond the last record is damaged or not signed by the steward");
    }
    /* What several stewards have made final may wait for its cosignatures still, but not for long. */
    j->report.uncovered = records - j->covered;
    uint64_t may_wait = j->ledger->signers.count == 1 ? 0 : AT_LEDGER_UNCOVERED_MAX;
    if (j->report.uncovered > may_wait)
        return wrong(j, j->covered,
                     may_wait == 0 ? "the steward signed no checkpoint that covers this record"
                                   : "the stewards signed no checkpoint that covers this record");
    return AT_OK;
}

static at_err_t run(struct job *j)
{
    while (!j->rows_done) {
        at_err_t err = read_rows(j);
        if (err) return err;
        if (j->row_count != 0) at_par_run(j->par, (int)j->row_count, verify_record_signature, j);
        for (size_t i = 0; i < j->row_count; i++) {
            err = take_row(j, &j->rows[i]);
            if (!err) err = settle_checkpoints(j);
            if (err) return err;
        }
    }
    return judge_end(j);
}

at_err at_ledger_verify(struct at_ledger *ledger, const struct at_log_source *source, const struct at_par *par,
                        struct at_diag *diag, struct at_ledger_report *ret_report)
{
    AT_ASSERT(ledger->tree.size == 0);
    ledger->verifier = source->verifier;
    struct job j = {.ledger = ledger, .source = source, .par = par, .diag = diag};
    j.rows = calloc(CHUNK, sizeof *j.rows);
    j.checkpoints = calloc(CHUNK, sizeof *j.checkpoints);
    at_err_t err =
        j.rows != NULL && j.checkpoints != NULL ? run(&j) : at_fail(diag, AT_E_NOMEM, "ledger", "out of memory");
    free(j.rows);
    free(j.checkpoints);
    if (err != AT_OK && err != AT_E_VERIFY) return err;
    j.report.ok = err == AT_OK;
    j.report.head = at_ledger_root(ledger);
    if (err)
        (void)at_fail(diag, AT_E_VERIFY, "ledger", "record %llu: %s", (unsigned long long)j.report.record,
                      j.report.reason);
    *ret_report = j.report;
    return err;
}
