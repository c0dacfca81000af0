/* world_check.c: the judges. They stand outside the nodes and believe nothing but bytes on disks and the arithmetic of
 * the fake state. */
#include "sim/world_internal.h"

#include "ledger/verify.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void at_world_violate(struct at_world *w, const char *fmt, ...)
{
    va_list args;
    if (w->violated) return;
    w->violated = true;
    int n = snprintf(w->violation, sizeof w->violation, "seed %llu, %llu ms: ", (unsigned long long)w->options.seed,
                     (unsigned long long)w->now_ms);
    va_start(args, fmt);
    vsnprintf(w->violation + n, sizeof w->violation - (size_t)n, fmt, args);
    va_end(args);
}

const char *at_world_violation(const struct at_world *w)
{
    return w->violated ? w->violation : NULL;
}

/* Before CLOSE may be told to anybody, what it counts must be where it can be fetched from. */
static void check_close(struct at_world *w, int node, const struct at_close *close)
{
    struct at_world_disk *d = &w->nodes[node].disk;
    for (size_t i = d->written; i-- > 0;) {
        struct at_record rec;
        if (at_record_decode(at_signed_record_body(&w->log.records[i]), NULL, &rec)) continue;
        if (rec.kind == AT_RECORD_OPEN && rec.open.round == close->round) return;
        if (rec.kind != AT_RECORD_RECEIPT || !at_replicas_has(&close->included, rec.receipt.replica)) continue;
        const struct at_world_blob *b = at_world_blob_find(d, AT_BLOB_UPDATE, rec.receipt.update);
        if (!b || !b->complete) at_world_violate(w, "CLOSE %u counts an update that the steward lacks", close->round);
    }
}

static bool is_same(const struct at_signed_record *a, const struct at_signed_record *b)
{
    return a->body_bytes == b->body_bytes && at_node_id_eq(&a->author, &b->author) &&
           memcmp(a->sig.b, b->sig.b, sizeof a->sig.b) == 0 && memcmp(a->body, b->body, a->body_bytes) == 0;
}

void at_world_check_persist(struct at_world *w, int node, const struct at_node_op *op)
{
    struct at_world_disk *d = &w->nodes[node].disk;
    if (op->persist.from != d->written) {
        at_world_violate(w, "node %d stores records from %llu behind %zu", node, (unsigned long long)op->persist.from,
                         d->written);
        return;
    }
    bool several = false; /* it is ordered by several stewards: whoever stores it first has it from a quorum */
    for (size_t i = 0; i < op->persist.count; i++) {
        struct at_record rec;
        size_t idx = (size_t)op->persist.from + i;
        bool known = idx < w->log.count && w->log.told[idx] && is_same(&w->log.records[idx], &op->persist.records[i]);
        several = several || idx >= w->several_from;
        if (known && node != 0) continue; /* it was looked at when the first of them stored it */
        struct at_hash leaf = at_signed_record_leaf(&op->persist.records[i]);
        if (at_record_decode(at_signed_record_body(&op->persist.records[i]), NULL, &rec)) {
            at_world_violate(w, "node %d stores what is no record", node);
            return;
        }
        if (node == 0 && rec.kind == AT_RECORD_CLOSE && idx < w->several_from) check_close(w, node, &rec.close);
        /* What a member stores was told to it as final: from then on no other record may stand there, anywhere. */
        several = several || idx >= w->several_from || at_signed_record_is_unsigned(&op->persist.records[i]);
        bool stands = idx < w->log.count && (node != 0 || w->log.told[idx]);
        if (stands && !at_hash_eq(at_signed_record_leaf(&w->log.records[idx]), leaf))
            at_world_violate(w, "two different records at index %zu, the second at node %d", idx, node);
        if (!stands && node != 0 && !several)
            at_world_violate(w, "node %d was told a record at index %zu that was never ordered", node, idx);
    }
}

void at_world_check_save(struct at_world *w, int node, uint32_t round, struct at_hash root)
{
    struct at_world_node *n = &w->nodes[node];
    if (!n->has_state || n->state_round != round || !at_hash_eq(n->root, root)) {
        at_world_violate(w, "node %d saves a state that it does not hold", node);
        return;
    }
    if (round > w->options.rounds) {
        at_world_violate(w, "node %d saves a state of round %u of %u", node, round, w->options.rounds);
        return;
    }
    if (w->round_seen[round] && !at_hash_eq(w->round_root[round], root))
        at_world_violate(w, "two roots of round %u, the second at node %d", round, node);
    w->round_root[round] = root;
    w->round_seen[round] = true;
}

/* Of several stewards: nobody is left who could tell of the END. */
static void mark_left_behind(struct at_world *w)
{
    size_t longest = w->nodes[at_world_longest(w)].disk.written;
    for (int i = 0; i < w->options.nodes; i++) {
        const struct at_world_node *n = &w->nodes[i];
        if (n->machine && !n->ended && n->disk.written == longest) return;
    }
    for (int i = 0; i < w->options.nodes; i++) w->nodes[i].left_behind = w->nodes[i].left_behind || !w->nodes[i].ended;
}

void at_world_check_end(struct at_world *w, int node, const struct at_node_op *op)
{
    w->nodes[node].ended = w->ends_changed = true;
    if (node == 0 && !at_world_several(w)) at_world_mark_left_behind(w);
    w->nodes[node].end_err = op->end.err;
    const struct at_node_status *status = at_node_machine_status(w->nodes[node].machine);
    w->nodes[node].run_ended = op->end.run_ended && status->joined;
    if (at_world_several(w) && w->nodes[node].run_ended) mark_left_behind(w);
    if (op->end.err == AT_OK || !at_world_is_honest(w, node)) return;
    /* A newcomer that never got in may say so: the run was over, or its steward not there. */
    if (op->end.err == AT_E_PEER && (node != 0 || at_world_several(w)) && (!status->joined || w->options.peers_give_up))
        w->counts.refused_ends++;
    else
        at_world_violate(w, "node %d ends with \"%s\"", node, op->reason);
}

/* ---- the end ---- */
struct source {
    const struct at_world *w;
    size_t durable, record, checkpoint, part; /* part: of the checkpoint's cosignatures */
};

static at_err_t next_record(void *ctx, struct at_diag *diag, struct at_log_row *ret_row)
{
    struct source *s = ctx;
    (void)diag;
    if (s->record == s->durable) return AT_E_NOT_FOUND;
    const struct at_signed_record *rec = &s->w->log.records[s->record];
    ret_row->idx = s->record++;
    ret_row->body = at_signed_record_body(rec);
    ret_row->author = at_span(rec->author.b, sizeof rec->author.b);
    ret_row->sig = at_span(rec->sig.b, sizeof rec->sig.b);
    return AT_OK;
}

static at_err_t next_checkpoint(void *ctx, struct at_diag *diag, struct at_log_checkpoint_row *ret_row)
{
    struct source *s = ctx;
    (void)diag;
    const struct at_log_checkpoint *c = NULL;
    size_t count = 0;
    while (s->checkpoint < s->durable) {
        c = at_world_log_checkpoints(s->w, s->checkpoint + 1, &count);
        if (s->part < count) break;
        s->part = 0;
        s->checkpoint++;
    }
    if (s->checkpoint == s->durable) return AT_E_NOT_FOUND;
    c += s->part++;
    ret_row->size = c->size;
    ret_row->root = at_span(c->root.b, sizeof c->root.b);
    ret_row->steward = at_span(c->steward.b, sizeof c->steward.b);
    ret_row->sig = at_span(c->sig.b, sizeof c->sig.b);
    return AT_OK;
}

/* No sample is lost: consumed and free ones fill everything below `next`, once the last round is closed. */
static void check_samples(struct at_world *w, const struct at_ledger *l)
{
    uint64_t sum = w->judge.used_samples;
    for (size_t i = 0; i < l->samples.whole.count; i++) sum += l->samples.whole.r[i].samples;
    for (size_t i = 0; i < l->samples.part.count; i++) sum += l->samples.part.r[i].samples;
    if (sum != l->samples.next && l->phase != AT_LEDGER_TRAINING) at_world_violate(w, "samples were lost");
}

static void check_log(struct at_world *w, const struct at_world_disk *d)
{
    struct at_ledger ledger = {0};
    struct at_ledger_report report = {0};
    struct source rows = {.w = w, .durable = d->durable};
    struct at_log_source source = {
        .ctx = &rows, .verifier = w->verifier, .next_record = next_record, .next_checkpoint = next_checkpoint};
    if (at_ledger_init(&ledger, &w->g, NULL)) {
        at_world_violate(w, "out of memory");
        return;
    }
    if (at_ledger_verify(&ledger, &source, &at_par_serial, NULL, &report) || !report.ok)
        at_world_violate(w, "the ledger is wrong at record %llu: %s", (unsigned long long)report.record, report.reason);
    check_samples(w, &ledger);
    uint64_t sum = 0;
    for (uint32_t r = 0; r < ledger.member_count; r++) sum += ledger.members[r].confirmed;
    if (ledger.confirmed != w->judge.points || sum != ledger.confirmed) at_world_violate(w, "points are not conserved");
    at_ledger_release(&ledger);
}

bool at_world_check(struct at_world *w)
{
    const struct at_world_disk *d = &w->nodes[at_world_longest(w)].disk;
    if (w->violated) return false;
    check_log(w, d);
    struct at_hash root = at_world_root(w);
    for (int i = 0; i < w->options.nodes && !w->violated; i++) {
        const struct at_world_node *n = &w->nodes[i];
        if (n->disk.durable > d->durable) at_world_violate(w, "node %d's log is longer than the steward's", i);
        if (n->run_ended && !n->end_err &&
            (!n->disk.saved || !at_hash_eq(at_world_state_root(w, n->disk.saved_round, n->disk.saved_h), root)))
            at_world_violate(w, "node %d ended without the final state", i);
    }
    return !w->violated;
}

/* After the end: who should have ended with the run, and has not. A node that never became a member, or whose owner let
 * it leave, is none of them. */
const char *at_world_unfinished(struct at_world *w)
{
    bool over = w->nodes[0].ended && !w->nodes[0].end_err;
    for (int i = 1; i < w->options.nodes && at_world_several(w); i++) over = over || w->nodes[i].run_ended;
    if (!over) {
        snprintf(w->unfinished, sizeof w->unfinished, "the steward has not ended the run");
        return w->unfinished;
    }
    for (int i = 1; i < w->options.nodes; i++) {
        struct at_world_node *n = &w->nodes[i];
        const struct at_node_status *s = n->machine ? at_node_machine_status(n->machine) : NULL;
        if (!at_world_is_honest(w, i) || !s || !s->joined) continue;
        if (n->left_behind && at_world_several(w)) continue;
        snprintf(w->unfinished, sizeof w->unfinished, "node %d has not ended with the run: it is %s", i,
                 at_node_phase_text(s->phase));
        return w->unfinished;
    }
    return NULL;
}

size_t at_world_durable(const struct at_world *w)
{
    return w->nodes[at_world_longest(w)].disk.durable;
}

const char *at_world_behind(struct at_world *w, size_t records, uint32_t round)
{
    for (int i = 0; i < w->options.nodes; i++) {
        const struct at_world_node *n = &w->nodes[i];
        const struct at_node_status *s = n->machine ? at_node_machine_status(n->machine) : NULL;
        if (!at_world_is_honest(w, i) || !s || !s->joined) continue;
        if (n->disk.durable >= records && s->state_round >= round) continue;
        snprintf(w->unfinished, sizeof w->unfinished,
                 "node %d has %zu of %zu records and the state of round %u, not %u: it is %s", i, n->disk.durable,
                 records, s->state_round, round, at_node_phase_text(s->phase));
        return w->unfinished;
    }
    return NULL;
}

uint32_t at_world_log_count(struct at_world *w, enum at_record_kind kind)
{
    const struct at_world_disk *d = &w->nodes[at_world_longest(w)].disk;
    uint32_t count = 0;
    for (size_t i = 0; i < d->durable; i++) {
        struct at_record rec;
        count += at_record_decode(at_signed_record_body(&w->log.records[i]), NULL, &rec) == AT_OK && rec.kind == kind;
    }
    return count;
}

uint64_t at_world_tokens(const struct at_world *w, int node)
{
    return w->nodes[node].tokens;
}

uint32_t at_world_included(struct at_world *w, uint32_t round)
{
    const struct at_world_disk *d = &w->nodes[at_world_longest(w)].disk;
    for (size_t i = 0; i < d->durable; i++) {
        struct at_record rec;
        if (at_record_decode(at_signed_record_body(&w->log.records[i]), NULL, &rec) == AT_OK &&
            rec.kind == AT_RECORD_CLOSE && rec.close.round == round)
            return at_replicas_count(&rec.close.included);
    }
    return UINT32_MAX;
}
