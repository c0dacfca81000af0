/* world_judge.c: what the log says, recounted record by record without the ledger's fold, as it becomes durable at the
 * steward: every OPEN and EPOCH names the state that the counted updates give, every counted update is what its unit
 * gives, no sample is used twice, and the points issued are those of the rounds that counted anything. */
#include "sim/world_internal.h"

#include <stdlib.h>
#include <string.h>

at_err_t at_world_judge_init(struct at_world *w)
{
    struct at_world_judge *j = &w->judge;
    j->h = at_world_h0(w);
    j->receipts = calloc(AT_MEMBERS_MAX, sizeof *j->receipts);
    j->received = calloc(AT_MEMBERS_MAX, sizeof *j->received);
    j->node_of = calloc(AT_MEMBERS_MAX, sizeof *j->node_of);
    j->groups = calloc(AT_MEMBERS_MAX, sizeof *j->groups);
    j->measured = calloc(AT_MEMBERS_MAX, sizeof *j->measured);
    j->room.work = calloc(AT_MEMBERS_MAX, sizeof *j->room.work);
    j->room.row = calloc(AT_MEMBERS_MAX, sizeof *j->room.row);
    if (!j->measured || !j->room.work || !j->room.row) return AT_E_NOMEM;
    if (!j->receipts || !j->received || !j->node_of || !j->groups) return AT_E_NOMEM;
    if (!at_world_several(w)) return AT_OK;
    at_err_t err = at_ledger_init(&j->fold, &w->g, NULL);
    j->fold.verifier = w->verifier;
    return err;
}

void at_world_judge_release(struct at_world *w)
{
    free(w->judge.receipts);
    free(w->judge.received);
    free(w->judge.node_of);
    free(w->judge.groups);
    free(w->judge.measured);
    free(w->judge.room.work);
    free(w->judge.room.row);
    free(w->judge.used.r);
    if (w->judge.fold.seats.count) at_ledger_release(&w->judge.fold);
}

/* A range into those that were used, unless it overlaps one. */
static void use(struct at_world *w, uint64_t start, uint64_t samples)
{
    struct at_range_list *used = &w->judge.used;
    size_t i = used->count;
    while (i > 0 && used->r[i - 1].start > start) i--;
    bool twice = (i > 0 && used->r[i - 1].start + used->r[i - 1].samples > start) ||
                 (i < used->count && start + samples > used->r[i].start);
    if (twice) {
        at_world_violate(w, "samples from %llu were used twice", (unsigned long long)start);
        return;
    }
    w->judge.used_samples += samples;
    bool joins = i > 0 && used->r[i - 1].start + used->r[i - 1].samples == start;
    if (joins) {
        used->r[i - 1].samples += samples;
    } else {
        if (at_range_reserve(used, 1)) {
            at_world_violate(w, "out of memory");
            return;
        }
        memmove(&used->r[i + 1], &used->r[i], (used->count++ - i) * sizeof used->r[0]);
        used->r[i++] = (struct at_range){start, samples};
    }
    if (i < used->count && used->r[i - 1].start + used->r[i - 1].samples == used->r[i].start) {
        used->r[i - 1].samples += used->r[i].samples;
        memmove(&used->r[i], &used->r[i + 1], (--used->count - i) * sizeof used->r[0]);
    }
}

static void joined(struct at_world *w, const struct at_node_id *author)
{
    struct at_world_judge *j = &w->judge;
    int node = at_world_node_of(w, author);
    w->counts.joins++;
    for (uint32_t r = 0; r < j->members; r++)
        if (node >= 0 && j->node_of[r] == node) return; /* again */
    if (j->members < AT_MEMBERS_MAX) j->node_of[j->members++] = node;
}

static struct at_roles roles(const struct at_world *w)
{
    return (struct at_roles){.model = &w->g.model,
                             .batch = w->g.train.batch,
                             .stages = at_genesis_stages(&w->g),
                             .measured = w->judge.measured,
                             .members = w->judge.members};
}

static void opened(struct at_world *w, const struct at_open *open)
{
    struct at_world_judge *j = &w->judge;
    struct at_roles x = roles(w);
    memset(j->received, 0, AT_MEMBERS_MAX * sizeof *j->received);
    if (x.stages > 1) {
        at_roles_form(&x, j->groups, &open->replicas, &j->room);
        at_roles_rest(j->groups, j->members, j->measured);
    } else {
        at_groups_form(j->groups, j->members, &open->replicas, 1);
    }
    if (!at_hash_eq(open->state_root, at_world_root(w)))
        at_world_violate(w, "OPEN %u names another state", open->round);
}

static void measured(struct at_world *w, const struct at_node_id *author, const struct at_record *rec)
{
    struct at_world_judge *j = &w->judge;
    for (uint32_t r = 0; r < j->members; r++)
        if (j->node_of[r] >= 0 && at_node_id_eq(&w->nodes[j->node_of[r]].key.id, author))
            at_roles_take(&j->measured[r], &rec->measure, w->counts.rounds, rec->time_ms);
}

/* The parts of a group's unit that CLOSE counts, stage after stage: all of one set of its members, or none. */
static void closed_unit(struct at_world *w, const struct at_close *close, uint32_t lead, struct at_hash root,
                        struct at_node_contribution *list, uint32_t *n)
{
    struct at_world_judge *j = &w->judge;
    uint32_t group = 0, places = 0, steps = 0, took_ms = 0;
    uint64_t start = 0;
    for (uint32_t r = lead; r != AT_GROUP_END; r = j->groups[r].next) {
        const struct at_receipt *x = &j->receipts[r];
        uint32_t place = j->groups[r].place;
        struct at_buf blob = {0};
        if (!at_replicas_has(&close->included, r)) continue;
        bool alone = x->group == 0;
        if (places && (x->group != group || x->start != start)) {
            at_world_violate(w, "round %u counts parts of a unit that do not belong together", close->round);
            return;
        }
        struct at_hash expect =
            at_world_update_of(w, root, x->start, x->samples, alone ? 0 : (uint32_t)at_group_stage(x->group, place),
                               alone ? 1 : (uint32_t)at_group_stages(x->group), &blob);
        at_buf_release(&blob);
        if (!j->received[r] || !at_hash_eq(expect, x->update))
            at_world_violate(w, "round %u counts an update that its unit does not give", close->round);
        if (places == 0) use(w, x->start, x->samples);
        list[(*n)++] = (struct at_node_contribution){.replica = r, .tokens = x->tokens, .update = x->update};
        if (r < j->members && j->node_of[r] >= 0) {
            w->nodes[j->node_of[r]].tokens += x->tokens;
            at_world_count_close(w, j->node_of[r]);
        }
        group = x->group;
        start = x->start;
        steps = x->steps;
        if (x->took_ms > took_ms) took_ms = x->took_ms;
        places |= UINT32_C(1) << place;
    }
    if (places != 0 && group != 0 && places != group)
        at_world_violate(w, "round %u counts a unit without all of its parts", close->round);
    struct at_roles known = roles(w);
    if (group != 0) at_roles_seen(&known, j->groups, lead, group, steps, took_ms, j->measured);
    if (places == 0) at_roles_idle(j->groups, lead, close->round, j->measured);
}

/* The mean of what the counted receipts tell; each of them must tell its own share's. */
static void told_loss(struct at_world *w, const struct at_close *close)
{
    struct at_world_judge *j = &w->judge;
    uint64_t sum = 0;
    uint32_t shares = 0;
    for (uint32_t r = 0; r < j->members; r++) {
        uint32_t told = j->receipts[r].heldout;
        if (!at_replicas_has(&close->included, r) || told == 0) continue;
        if (told != at_world_share_loss(close->round, r))
            at_world_violate(w, "a receipt of round %u tells another loss than its share has", close->round);
        sum += told;
        shares++;
    }
    j->loss = shares > 0 ? at_heldout_join(sum, shares) : 0;
}

static void closed(struct at_world *w, const struct at_close *close)
{
    struct at_world_judge *j = &w->judge;
    uint32_t count = at_replicas_count(&close->included), n = 0;
    struct at_node_contribution *list = calloc(count + 1, sizeof *list);
    struct at_hash root = at_world_root(w);
    for (uint32_t r = 0; list && r < j->members; r++)
        if (j->groups[r].size > 0 && j->groups[r].place == 0) closed_unit(w, close, r, root, list, &n);
    if (list && n != count) at_world_violate(w, "round %u counts who takes no part", close->round);
    if (count) j->points += w->g.issuance;
    w->counts.contributions += count;
    told_loss(w, close);
    if (list) j->h = at_world_h_next(w, j->h, list, n);
    j->round++;
    free(list);
}

/* Of several stewards: at least one honest node has what they count. */
static void check_kept(struct at_world *w, const struct at_close *close)
{
    for (uint32_t r = at_replicas_next(&close->included, 0); r < AT_MEMBERS_MAX;
         r = at_replicas_next(&close->included, r + 1)) {
        bool kept = false;
        for (int i = 0; i < w->options.nodes && !kept; i++) {
            const struct at_world_blob *b =
                at_world_blob_find(&w->nodes[i].disk, AT_BLOB_UPDATE, w->judge.receipts[r].update);
            kept = b && b->complete && at_world_is_honest(w, i);
        }
        if (!kept) at_world_violate(w, "CLOSE %u counts an update that no honest node has", close->round);
    }
}

static void judge(struct at_world *w, const struct at_signed_record *signed_rec, const struct at_record *rec)
{
    struct at_world_judge *j = &w->judge;
    if (rec->kind == AT_RECORD_JOIN) {
        joined(w, &signed_rec->author);
    } else if (rec->kind == AT_RECORD_LEAVE) {
        w->counts.leaves++;
    } else if (rec->kind == AT_RECORD_OPEN) {
        opened(w, &rec->open);
    } else if (rec->kind == AT_RECORD_MEASURE) {
        measured(w, &signed_rec->author, rec);
    } else if (rec->kind == AT_RECORD_RECEIPT && rec->receipt.replica < AT_MEMBERS_MAX) {
        j->receipts[rec->receipt.replica] = rec->receipt;
        j->received[rec->receipt.replica] = true;
    } else if (rec->kind == AT_RECORD_CLOSE) {
        closed(w, &rec->close);
    } else if (rec->kind == AT_RECORD_EPOCH) {
        w->counts.rounds++;
        if (rec->epoch.round + 1 < at_genesis_rounds(&w->g) && rec->epoch.heldout_loss != j->loss)
            at_world_violate(w, "EPOCH %u tells another loss than its receipts", rec->epoch.round);
        if (!at_hash_eq(rec->epoch.state_root, at_world_root(w)))
            at_world_violate(w, "EPOCH %u names a root that its updates do not give", rec->epoch.round);
    }
}

void at_world_judge_deed(struct at_world *w, const struct at_signed_record *signed_rec, const struct at_record *rec)
{
    if (rec->kind == AT_RECORD_CLOSE) check_kept(w, &rec->close);
    judge(w, signed_rec, rec);
}

void at_world_judge_records(struct at_world *w)
{
    size_t durable = w->nodes[at_world_longest(w)].disk.durable;
    for (; w->judge.judged < durable && !w->violated; w->judge.judged++) {
        const struct at_signed_record *signed_rec = &w->log.records[w->judge.judged];
        struct at_record rec;
        w->counts.records++;
        if (at_record_decode(at_signed_record_body(signed_rec), NULL, &rec)) continue;
        bool word = rec.kind == AT_RECORD_OPEN || rec.kind == AT_RECORD_CLOSE || rec.kind == AT_RECORD_EPOCH;
        if (!at_world_several(w) || !word) judge(w, signed_rec, &rec);
        if (at_world_several(w)) at_world_judge_words(w, signed_rec, &rec);
    }
}
