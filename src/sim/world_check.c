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
    for (size_t i = 0; i < d->written; i++) {
        struct at_record rec;
        if (at_record_decode(at_signed_record_body(&d->records[i]), NULL, &rec) || rec.kind != AT_RECORD_RECEIPT ||
            rec.receipt.round != close->round || !at_replicas_has(&close->included, rec.receipt.replica))
            continue;
        const struct at_world_blob *b = at_world_blob_find(d, AT_BLOB_UPDATE, rec.receipt.update);
        if (!b || !b->complete) at_world_violate(w, "CLOSE %u counts an update that the steward lacks", close->round);
    }
}

void at_world_check_persist(struct at_world *w, int node, const struct at_node_op *op)
{
    struct at_world_disk *d = &w->nodes[node].disk;
    if (op->persist.from != d->written || d->written + op->persist.count > AT_WORLD_LOG_MAX) {
        at_world_violate(w, "node %d stores records from %llu behind %zu", node, (unsigned long long)op->persist.from,
                         d->written);
        return;
    }
    for (size_t i = 0; i < op->persist.count; i++) {
        struct at_record rec;
        struct at_hash leaf = at_signed_record_leaf(&op->persist.records[i]);
        size_t idx = (size_t)op->persist.from + i;
        if (at_record_decode(at_signed_record_body(&op->persist.records[i]), NULL, &rec)) {
            at_world_violate(w, "node %d stores what is no record", node);
            return;
        }
        if (node == 0 && rec.kind == AT_RECORD_CLOSE) check_close(w, node, &rec.close);
        /* What a member stores was told to it as final: from then on no other record may stand there, anywhere. */
        if (w->log_seen[idx] && !at_hash_eq(w->log[idx], leaf))
            at_world_violate(w, "two different records at index %zu, the second at node %d", idx, node);
        if (node != 0 && !w->log_seen[idx]) {
            w->log[idx] = leaf;
            w->log_seen[idx] = true;
        }
    }
}

void at_world_check_save(struct at_world *w, int node, uint32_t round, struct at_hash root)
{
    struct at_world_node *n = &w->nodes[node];
    if (!n->has_state || n->state_round != round || !at_hash_eq(at_world_state_root(w, n->h), root)) {
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

void at_world_check_end(struct at_world *w, int node, const struct at_node_op *op)
{
    w->nodes[node].ended = true;
    if (node == 0) at_world_mark_left_behind(w);
    w->nodes[node].end_err = op->end.err;
    /* A newcomer that never got in may say so: the run was over, or its steward not there. */
    const struct at_node_status *status = at_node_machine_status(w->nodes[node].machine);
    if (op->end.err == AT_E_PEER && node != 0 && !status->joined) return;
    if (op->end.err) at_world_violate(w, "node %d ends with \"%s\"", node, op->reason);
}

/* ---- the end ---- */
struct source {
    const struct at_world_disk *disk;
    size_t record, checkpoint;
};

static at_err_t next_record(void *ctx, struct at_diag *diag, struct at_log_row *ret_row)
{
    struct source *s = ctx;
    (void)diag;
    if (s->record == s->disk->durable) return AT_E_NOT_FOUND;
    const struct at_signed_record *rec = &s->disk->records[s->record];
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
    while (s->checkpoint < s->disk->durable && s->disk->checkpoints[s->checkpoint].size == 0) s->checkpoint++;
    if (s->checkpoint == s->disk->durable) return AT_E_NOT_FOUND;
    const struct at_log_checkpoint *c = &s->disk->checkpoints[s->checkpoint++];
    ret_row->size = c->size;
    ret_row->root = at_span(c->root.b, sizeof c->root.b);
    ret_row->steward = at_span(c->steward.b, sizeof c->steward.b);
    ret_row->sig = at_span(c->sig.b, sizeof c->sig.b);
    return AT_OK;
}

/* Every sample consumed at most once; and none lost: consumed and free ones fill everything below `next`. */
static void check_samples(struct at_world *w, const struct at_ledger *l, const struct at_range *used, size_t count)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += used[i].samples;
        for (size_t k = 0; k < i; k++)
            if (used[i].start < used[k].start + used[k].samples && used[k].start < used[i].start + used[i].samples)
                at_world_violate(w, "samples from %llu were used twice", (unsigned long long)used[i].start);
    }
    for (size_t i = 0; i < l->samples.whole.count; i++) sum += l->samples.whole.r[i].samples;
    for (size_t i = 0; i < l->samples.part.count; i++) sum += l->samples.part.r[i].samples;
    if (sum != l->samples.next) at_world_violate(w, "samples were lost");
}

struct recount { /* what the log says, recounted without the fold */
    struct at_hash h;
    struct at_receipt receipts[AT_WORLD_NODES_MAX];
    bool received[AT_WORLD_NODES_MAX];
    struct at_range used[AT_WORLD_LOG_MAX];
    size_t used_count;
    uint64_t points;
};

static void recount_record(struct at_world *w, struct recount *c, const struct at_record *rec)
{
    struct at_node_contribution list[AT_WORLD_NODES_MAX];
    size_t count = 0;
    if (rec->kind == AT_RECORD_OPEN) {
        memset(c->received, 0, sizeof c->received);
        if (!at_hash_eq(rec->open.state_root, at_world_state_root(w, c->h)))
            at_world_violate(w, "OPEN %u names another state", rec->open.round);
    } else if (rec->kind == AT_RECORD_RECEIPT && rec->receipt.replica < AT_WORLD_NODES_MAX) {
        c->receipts[rec->receipt.replica] = rec->receipt;
        c->received[rec->receipt.replica] = true;
    } else if (rec->kind == AT_RECORD_CLOSE) {
        for (uint32_t r = 0; r < AT_WORLD_NODES_MAX; r++) {
            const struct at_receipt *x = &c->receipts[r];
            if (!at_replicas_has(&rec->close.included, r)) continue;
            struct at_buf blob = {0};
            struct at_hash expect = at_world_update_of(w, at_world_state_root(w, c->h), x->start, x->samples, &blob);
            at_buf_release(&blob);
            if (!c->received[r] || !at_hash_eq(expect, x->update))
                at_world_violate(w, "round %u counts an update that its unit does not give", rec->close.round);
            list[count++] = (struct at_node_contribution){.replica = r, .tokens = x->tokens, .update = x->update};
            c->used[c->used_count++] = (struct at_range){x->start, x->samples};
        }
        if (count) c->points += w->g.issuance;
        c->h = at_world_h_next(c->h, list, count);
    } else if (rec->kind == AT_RECORD_EPOCH) {
        if (!at_hash_eq(rec->epoch.state_root, at_world_state_root(w, c->h)))
            at_world_violate(w, "EPOCH %u names a root that its updates do not give", rec->epoch.round);
    }
}

static void check_log(struct at_world *w, const struct at_world_disk *d, struct at_hash *ret_root)
{
    struct recount *c = calloc(1, sizeof *c);
    struct at_ledger ledger = {0};
    struct at_ledger_report report = {0};
    struct source rows = {.disk = d};
    struct at_log_source source = {.ctx = &rows, .next_record = next_record, .next_checkpoint = next_checkpoint};
    if (!c || at_ledger_init(&ledger, &w->g, NULL)) {
        at_world_violate(w, "out of memory");
        free(c);
        return;
    }
    if (at_ledger_verify(&ledger, &source, &at_par_serial, NULL, &report) || !report.ok)
        at_world_violate(w, "the ledger is wrong at record %llu: %s", (unsigned long long)report.record, report.reason);
    c->h = at_world_h0(w);
    for (size_t i = 0; i < d->durable && !w->violated; i++) {
        struct at_record rec;
        if (at_record_decode(at_signed_record_body(&d->records[i]), NULL, &rec) == AT_OK) recount_record(w, c, &rec);
    }
    check_samples(w, &ledger, c->used, c->used_count);
    if (ledger.confirmed != c->points) at_world_violate(w, "points are not conserved");
    *ret_root = at_world_state_root(w, c->h);
    at_ledger_release(&ledger);
    free(c);
}

bool at_world_check(struct at_world *w)
{
    const struct at_world_disk *d = &w->nodes[0].disk;
    struct at_hash root = {0};
    if (w->violated) return false;
    check_log(w, d, &root);
    for (int i = 0; i < w->options.nodes && !w->violated; i++) {
        const struct at_world_node *n = &w->nodes[i];
        for (size_t k = 0; k < n->disk.durable; k++)
            if (k >= d->durable ||
                !at_hash_eq(at_signed_record_leaf(&n->disk.records[k]), at_signed_record_leaf(&d->records[k])))
                at_world_violate(w, "node %d's log is not the steward's", i);
        bool left = at_world_log_count(w, AT_RECORD_LEAVE) > 0;
        if (n->ended && !n->end_err && !left &&
            (!n->disk.saved || !at_hash_eq(at_world_state_root(w, n->disk.saved_h), root)))
            at_world_violate(w, "node %d ended without the final state", i);
    }
    return !w->violated;
}

uint32_t at_world_log_count(struct at_world *w, enum at_record_kind kind)
{
    const struct at_world_disk *d = &w->nodes[0].disk;
    uint32_t count = 0;
    for (size_t i = 0; i < d->durable; i++) {
        struct at_record rec;
        count += at_record_decode(at_signed_record_body(&d->records[i]), NULL, &rec) == AT_OK && rec.kind == kind;
    }
    return count;
}

uint32_t at_world_included(struct at_world *w, uint32_t round)
{
    const struct at_world_disk *d = &w->nodes[0].disk;
    for (size_t i = 0; i < d->durable; i++) {
        struct at_record rec;
        if (at_record_decode(at_signed_record_body(&d->records[i]), NULL, &rec) == AT_OK &&
            rec.kind == AT_RECORD_CLOSE && rec.close.round == round)
            return at_replicas_count(&rec.close.included);
    }
    return UINT32_MAX;
}
