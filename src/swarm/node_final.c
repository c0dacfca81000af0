/* node_final.c: final blocks into the log, and the log's checkpoints.
 *
 *   event                                     does
 *   a block is final                          BLOCK record, then each of its records through the fold; what the fold
 *                                             refuses is dropped, and its submitter told when it has a link here; of
 *                                             another term, or known by its view: dropped whole
 *   a block is folded                         (size, root) signed with the seat's key of the term that ordered it: Cosign
 *                                             to the stewards of that term
 *   Cosign, a checkpoint is made by it        once the own log is as long: persisted, pushed to those who follow
 *   ... and its root is not ours              ends, loudly: a quorum signed another log
 * At a hand-over the old term's cosignatures are kept, and said again on new links, until the size at which it ended has
 * its checkpoint: without it nobody could follow from one term into the next. */
#include "swarm/node_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- the fold ---- */
static void note_end(struct at_node_machine *m, uint64_t size)
{
    struct at_node_agree *a = &m->agree;
    uint32_t last = (a->end_next + AT_NODE_SIZES_KEPT - 1) % AT_NODE_SIZES_KEPT;
    if (a->ends[last].size == size) return;
    a->ends[a->end_next].size = size;
    a->ends[a->end_next].root = at_merkle_root(&m->ledger.tree);
    a->end_next = (a->end_next + 1) % AT_NODE_SIZES_KEPT;
}

/* Before a record goes into the fold: one that begins a block ends the one before it. */
void at_node_fold_before(struct at_node_machine *m, const struct at_signed_record *record)
{
    if (at_signed_record_is_unsigned(record) && m->ledger.tree.size > 0) note_end(m, m->ledger.tree.size);
}

/* After it. A term may have begun. */
void at_node_fold_after(struct at_node_machine *m, const struct at_signed_record *record)
{
    struct at_node_agree *a = &m->agree;
    const struct at_seats *seats = &m->ledger.seats;
    if (seats->term == (a->fold_term ? a->fold_term : 1)) return;
    a->fold_term = seats->term;
    a->begin_ms = m->ledger.block_ms;
    a->begin_beacon = m->ledger.beacon;
    a->begin_leaf = at_signed_record_leaf(record);
    at_node_ring_stale(m);
    at_node_seats_changed(m);
    at_node_follow_seats(m, seats);
}

void at_node_follow_seats(struct at_node_machine *m, const struct at_seats *seats)
{
    struct at_node_id keys[AT_SEATS_MAX];
    for (uint32_t s = 0; s < seats->count; s++) keys[s] = seats->seat[s].key;
    at_follower_seats(&m->follower, seats->term, keys, seats->count);
}

bool at_node_root_at(const struct at_node_machine *m, uint64_t size, struct at_hash *ret_root)
{
    const struct at_node_agree *a = &m->agree;
    if (size == m->ledger.tree.size) {
        *ret_root = at_merkle_root(&m->ledger.tree);
        return true;
    }
    for (size_t i = 0; i < AT_NODE_SIZES_KEPT; i++)
        if (a->ends[i].size == size && size > 0) {
            *ret_root = a->ends[i].root;
            return true;
        }
    return false;
}

static bool record_room(struct at_node_machine *m)
{
    struct at_node_agree *a = &m->agree;
    if (a->record_count < a->record_cap) return true;
    size_t cap = a->record_cap ? 2 * a->record_cap : 128;
    struct at_signed_record *records = realloc(a->records, cap * sizeof *records);
    if (!records) {
        at_node_end(m, AT_E_NOMEM, "no memory for a block");
        return false;
    }
    a->records = records;
    a->record_cap = cap;
    return true;
}

static void fresh_add(struct at_node_agree *a, const struct at_signed_record *record)
{
    if (a->fresh_count < AT_NODE_FRESH_MAX) a->fresh[a->fresh_count] = *record;
    a->fresh_count++; /* more than there is room for: the disk is asked */
}

static void accepted(struct at_node_machine *m, const struct at_signed_record *record)
{
    m->agree.records[m->agree.record_count++] = *record;
    fresh_add(&m->agree, record);
}

static void take(struct at_node_machine *m, const struct at_signed_record *record)
{
    struct at_node_agree *a = &m->agree;
    struct at_diag diag = {0};
    if (!record_room(m)) return;
    struct at_hash leaf = at_signed_record_leaf(record);
    if (a->word_pending && at_hash_eq(a->word_leaf, leaf)) a->word_pending = false;
    at_err_t err = at_node_take(m, record, leaf, &diag);
    if (!err)
        accepted(m, record);
    else if (err == AT_E_NOMEM)
        at_node_end(m, err, "no memory for a record");
    else
        at_node_refused_late(m, leaf, diag.text);
}

void at_node_final(struct at_node_machine *m, const struct at_simplex_op *o)
{
    struct at_node_agree *a = &m->agree;
    const struct at_node_cached *c = at_node_block_find(m, o->view, &o->hash);
    struct at_diag diag = {0};
    AT_ASSERT(c); /* Simplex tells of no block whose bytes it did not hand out, or get from the rows */
    at_err_t err = at_block_decode(at_buf_span(&c->bytes), &diag, a->room);
    AT_ASSERT(!err);
    const struct at_block *b = &a->room->block;
    bool known = b->term != m->ledger.seats.term || b->view <= m->ledger.view;
    if (!known && record_room(m)) {
        struct at_block_head head = {.term = b->term, .view = b->view, .time_ms = b->time_ms, .reveal = b->reveal};
        struct at_signed_record rec;
        note_end(m, m->ledger.tree.size);
        err = at_ledger_begin_block(&m->ledger, &head, &diag, &rec);
        if (!err) {
            at_node_fold_after(m, &rec);
            accepted(m, &rec);
            for (uint32_t i = 0; i < b->record_count && !m->ended; i++) take(m, &b->records[i]);
            m->follower.log = m->ledger.tree;
            note_end(m, m->ledger.tree.size);
            at_node_cosign_now(m);
        } else if (err != AT_E_VERIFY) {
            at_node_end(m, err, "a final block cannot be folded: %s", diag.text);
        }
    }
    at_node_blocks_drop(m, o->view);
}

/* ---- cosignatures ---- */
void at_node_cosign_term(struct at_node_machine *m, struct at_node_term *t, const struct at_seats *seats,
                         const struct at_keypair *key)
{
    struct at_node_id keys[AT_SEATS_MAX];
    memset(t, 0, sizeof *t);
    t->seats = *seats;
    t->seat = at_seats_find(seats, &m->options.key.id);
    t->key = *key;
    for (uint32_t s = 0; s < seats->count; s++) keys[s] = seats->seat[s].key;
    at_cosign_init(&t->cosign, m->options.run, keys, seats->count, 0, m->options.verifier);
}

/* The log has passed into another term; whoever ordered its last block signs its size still. */
void at_node_cosign_before(struct at_node_machine *m)
{
    struct at_node_agree *a = &m->agree;
    const struct at_seats *signers = &m->ledger.signers;
    struct at_keypair key;
    int seat = at_seats_find(signers, &m->options.key.id);
    bool wanted = signers->count > 1 && signers->term != m->ledger.seats.term && seat >= 0;
    bool kept = a->now && a->now->seats.term == signers->term;
    free(a->before);
    a->before = NULL;
    if (wanted && kept) {
        a->before = a->now;
        a->now = NULL;
    } else if (wanted && at_node_seat_key(m, &signers->seat[seat].key, &key, NULL)) {
        a->before = malloc(sizeof *a->before);
        if (a->before) at_node_cosign_term(m, a->before, signers, &key);
    }
}

static int by_key(const void *a, const void *b)
{
    return at_log_checkpoint_cmp(a, b);
}

/* To those who follow, the records between two checkpoints. */
static void tell(struct at_node_machine *m, uint64_t from, uint64_t to, const struct at_node_term *t)
{
    struct at_node_agree *a = &m->agree;
    size_t skip = from >= a->fresh_from ? (size_t)(from - a->fresh_from) : SIZE_MAX, count = (size_t)(to - from);
    bool here = skip != SIZE_MAX && skip + count <= a->fresh_count && a->fresh_count <= AT_NODE_FRESH_MAX &&
                count <= AT_LOG_PART_MAX && at_ledger_term_end(&m->ledger, from) >= to;
    if (here)
        at_node_log_push(m, from, a->fresh + skip, count, t->ready, t->ready_count);
    else
        at_node_log_push_read(m);
    if (to == m->ledger.tree.size) {
        a->fresh_from = to;
        a->fresh_count = 0;
    } else if (here) {
        memmove(a->fresh, a->fresh + skip + count, (a->fresh_count - skip - count) * sizeof *a->fresh);
        a->fresh_count -= skip + count;
        a->fresh_from = to;
    }
}

/* To be persisted with this step's records, behind them. */
static bool keep(struct at_node_machine *m, const struct at_log_checkpoint *list, size_t count)
{
    struct at_node_agree *a = &m->agree;
    if (a->cosigned_count + count > a->cosigned_cap) {
        size_t cap = 2 * (a->cosigned_cap + count);
        struct at_log_checkpoint *p = realloc(a->cosigned, cap * sizeof *p);
        if (!p) {
            at_node_end(m, AT_E_NOMEM, "no memory for a checkpoint");
            return false;
        }
        a->cosigned = p;
        a->cosigned_cap = cap;
    }
    memcpy(a->cosigned + a->cosigned_count, list, count * sizeof *list);
    a->cosigned_count += count;
    return true;
}

/* Checkpoints that have come without records. */
void at_node_cosign_persist(struct at_node_machine *m)
{
    struct at_node_agree *a = &m->agree;
    if (a->cosigned_count == a->cosigned_done || m->ended) return;
    struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_PERSIST);
    op->persist.from = m->ledger.tree.size;
    at_node_cosign_attach(m, op);
}

void at_node_cosign_attach(struct at_node_machine *m, struct at_node_op *op)
{
    struct at_node_agree *a = &m->agree;
    size_t from = a->cosigned_done, count = a->cosigned_count - from;
    if (count == 0) return;
    qsort(a->cosigned + from, count, sizeof a->cosigned[0], by_key);
    m->scratch->cosigned_at[op - m->scratch->ops] = from;
    op->persist.checkpoint_count = count;
    a->cosigned_done = a->cosigned_count;
}

/* The checkpoint that this term's seats have made, if the log is as long by now. */
static void checkpoint(struct at_node_machine *m, struct at_node_term *t)
{
    struct at_node_agree *a = &m->agree;
    uint64_t size = t->ready_count ? t->ready[0].size : 0, told = a->told;
    struct at_hash root;
    if (size == 0 || size > m->ledger.tree.size) return;
    if (at_node_root_at(m, size, &root) && !at_hash_eq(root, t->ready[0].root)) {
        at_node_end(m, AT_E_VERIFY, "a quorum of the stewards has signed another log of %llu records than this one",
                    (unsigned long long)size);
        return;
    }
    if (!keep(m, t->ready, t->ready_count)) return;
    if (size > told) {
        a->told = size;
        tell(m, told, size, t);
    }
    t->ready_count = 0;
}

static void ready(struct at_node_term *t, const struct at_cosign_update *update)
{
    t->ready_count = 0;
    for (uint32_t s = 0; s < t->seats.count; s++)
        if (update->signers >> s & 1) t->ready[t->ready_count++] = update->by[s];
    qsort(t->ready, t->ready_count, sizeof t->ready[0], by_key);
}

static at_err_t cosign_take(struct at_node_machine *m, struct at_node_term *t, const struct at_log_checkpoint *c)
{
    struct at_cosign_update update;
    at_err_t err = at_cosign_take(&t->cosign, c, &update);
    if (err) return err;
    if (update.has_evidence) at_node_accuse(m, &update.evidence);
    if (update.signers) ready(t, &update);
    checkpoint(m, t);
    return AT_OK;
}

static void cosign_send(struct at_node_machine *m, const struct at_node_term *t, uint32_t to)
{
    struct at_message msg = {.kind = AT_MSG_COSIGN};
    msg.cosign.cosignature = t->own;
    if (t->own.size) at_node_to_seats(m, &t->seats, to, &msg);
}

/* The log's present size, by whoever ordered its last block. */
void at_node_cosign_now(struct at_node_machine *m)
{
    struct at_node_agree *a = &m->agree;
    struct at_node_term *all[] = {a->now, a->before};
    for (int i = 0; i < 2; i++) {
        struct at_node_term *t = all[i];
        if (!t || t->seats.term != m->ledger.signers.term || t->own.size == m->ledger.tree.size) continue;
        t->own = at_log_checkpoint_sign(&t->key, m->options.run, m->ledger.tree.size, at_merkle_root(&m->ledger.tree));
        cosign_send(m, t, UINT32_MAX);
        struct at_log_checkpoint own = t->own;
        (void)cosign_take(m, t, &own);
    }
}

void at_node_cosign_again(struct at_node_machine *m, const struct at_node_link *link)
{
    struct at_node_term *all[] = {m->agree.now, m->agree.before};
    for (int i = 0; i < 2; i++) {
        int seat = all[i] ? at_seats_find(&all[i]->seats, &link->node) : -1;
        if (seat >= 0) cosign_send(m, all[i], UINT32_C(1) << seat);
    }
}

void at_node_cosign(struct at_node_machine *m, struct at_node_link *link, const struct at_log_checkpoint *c)
{
    struct at_node_term *all[] = {m->agree.now, m->agree.before};
    if (c->size > link->head) link->head = c->size;
    for (int i = 0; i < 2; i++) {
        if (!all[i]) continue;
        for (uint32_t s = 0; s < all[i]->seats.count; s++) {
            if (!at_node_id_eq(&all[i]->seats.seat[s].key, &c->steward)) continue;
            if (cosign_take(m, all[i], c) == AT_E_SIGNATURE) {
                at_node_link_refuse(m, link, "a cosignature that its steward has not signed");
                return;
            }
        }
    }
    at_node_cosign_persist(m);
}

bool at_node_cosign_before_done(const struct at_node_machine *m)
{
    const struct at_node_term *t = m->agree.before;
    if (!t) return true;
    return t->own.size > 0 && t->cosign.size >= t->own.size && t->ready_count == 0;
}
