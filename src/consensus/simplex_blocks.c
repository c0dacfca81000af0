/* simplex_blocks.c: blocks: which are kept, what a leader proposes, which get a vote, and the chain that is final. */
#include "consensus/simplex_internal.h"

#include <string.h>

struct at_simplex_block *at_simplex_block(const struct at_simplex *x, uint64_t view, const struct at_hash *hash)
{
    struct at_simplex_view *v = at_simplex_view(x, view);
    for (int i = 0; v != NULL && i < 2; i++)
        if (v->block[i].have && at_hash_eq(v->block[i].hash, *hash)) return &v->block[i];
    return NULL;
}

/* ---- the chain from a block back to the tip ---- */
enum chain { CHAIN_OK, CHAIN_MISSING, CHAIN_BROKEN };

/* Fills x->path with the blocks from (view, hash) down to the tip, the tip not included. CHAIN_MISSING: asks for the
 * one that is not here. CHAIN_BROKEN: it does not lead to the tip. */
static enum chain chain_walk(struct at_simplex *x, uint64_t view, struct at_hash hash, size_t *ret_n)
{
    size_t n = 0;
    while (view > x->tip.view) {
        struct at_simplex_block *b = at_simplex_block(x, view, &hash);
        if (b == NULL) {
            at_simplex_want_block(x, view, &hash);
            return CHAIN_MISSING;
        }
        x->path[n++] = b;
        view = b->parent_view;
        hash = b->parent;
    }
    *ret_n = n;
    return view == x->tip.view && at_hash_eq(hash, x->tip.hash) ? CHAIN_OK : CHAIN_BROKEN;
}

/* The state after (view, hash), or NULL: something of its chain is missing. */
static const struct at_simplex_state *state_after(struct at_simplex *x, uint64_t view, struct at_hash hash)
{
    size_t n = 0;
    if (chain_walk(x, view, hash, &n) != CHAIN_OK) return NULL;
    const struct at_simplex_state *state = &x->tip.state;
    while (n-- != 0) {
        struct at_simplex_block *b = x->path[n];
        if (!b->ready) {
            b->state.beacon = state->beacon;
            if (x->f != 0) at_beacon_take(&b->state.beacon, at_view_leader(b->view, x->options.seat_count), b->reveal);
            b->state.time_ms = b->time_ms;
            b->ready = true;
        }
        state = &b->state;
    }
    return state;
}

/* ---- which blocks are kept ---- */

/* Does a final block's chain lead through this one? */
static bool final_needs(const struct at_simplex *x, uint64_t view, const struct at_hash *hash)
{
    if (x->final_top <= view) return false;
    uint64_t at = x->final_top;
    struct at_hash h = at_simplex_view(x, at)->certificate[AT_VOTE_FINAL].hash;
    while (at > view) {
        const struct at_simplex_block *b = at_simplex_block(x, at, &h);
        if (b == NULL) return false;
        at = b->parent_view;
        h = b->parent;
    }
    return at == view && at_hash_eq(h, *hash);
}

static bool records_ok(struct at_simplex *x, const struct at_block *block)
{
    for (uint32_t i = 0; i < block->record_count; i++)
        if (x->options.check(x->options.user, &block->records[i], NULL) != AT_OK) return false;
    return true;
}

static void outline(const struct at_block *from, struct at_hash hash, struct at_simplex_block *to)
{
    to->have = true;
    to->ready = false;
    to->hash = hash;
    to->parent = from->parent;
    to->reveal = from->reveal;
    to->view = from->view;
    to->parent_view = from->parent_view;
    to->time_ms = from->time_ms;
    to->record_count = from->record_count;
    for (uint32_t i = 0; i < from->record_count; i++) to->leaf[i] = at_signed_record_leaf(&from->records[i]);
}

static bool is_ours(const struct at_simplex *x, const struct at_block *b)
{
    return at_hash_eq(b->run, x->options.run) && b->term == x->options.term;
}

/* A block is taken when the leader's first vote names it and its records hold, or when a quorum has vouched for it. */
at_err_t at_simplex_take_block(struct at_simplex *x, struct at_span bytes, const struct at_sig *sig)
{
    struct at_hash hash = at_sha256(bytes.p, bytes.n);
    if (at_block_decode(bytes, NULL, x->room) != AT_OK) return AT_E_PEER;
    const struct at_block *b = &x->room->block;
    if (!is_ours(x, b)) return AT_E_PEER;
    const uint32_t leads = at_view_leader(b->view, x->options.seat_count);
    if (sig != NULL) {
        const struct at_vote vote = {.view = b->view, .kind = AT_VOTE_BLOCK, .hash = hash, .seat = leads, .sig = *sig};
        at_err_t err = at_simplex_take_vote(x, &vote);
        if (err) return err;
    }
    if (x->restoring && b->view <= x->tip.view)
        for (uint32_t i = 0; i < b->record_count; i++)
            at_simplex_queue_recent(x, at_signed_record_leaf(&b->records[i]));
    struct at_simplex_view *v = at_simplex_view_take(x, b->view);
    if (v == NULL || at_simplex_block(x, b->view, &hash) != NULL) return AT_OK;
    struct at_simplex_block *to;
    if (x->restoring) {
        to = &v->block[v->block[0].have];
    } else if (at_simplex_notarised(x, b->view, &hash) || final_needs(x, b->view, &hash)) {
        to = &v->block[v->block[0].have];
    } else {
        const struct at_simplex_ballot *leader = &v->ballot[leads];
        bool named = (leader->has & AT_BIT(AT_VOTE_BLOCK)) != 0 && at_hash_eq(leader->hash[AT_VOTE_BLOCK], hash);
        if (!named || v->block[0].have || !records_ok(x, b)) return AT_OK;
        to = &v->block[0];
    }
    outline(b, hash, to);
    at_simplex_queue_seen(x, to);
    if (x->restoring) return AT_OK;
    struct at_simplex_op *op = at_simplex_op(x, AT_SIMPLEX_PERSIST_BLOCK);
    op->view = b->view;
    op->hash = hash;
    op->bytes = bytes;
    return AT_OK;
}

/* ---- parents ---- */

/* The dummies of every view between a parent and its child; asks for those that are not here. */
static bool dummies_between(struct at_simplex *x, uint64_t parent_view, uint64_t view)
{
    if (at_simplex_canary(x, AT_SIMPLEX_CANARY_NO_DUMMIES)) return true;
    for (uint64_t h = parent_view + 1; h < view; h++) {
        if (at_simplex_dummy(x, h) != NULL) continue;
        at_simplex_want_certificates(x, h, view - 1);
        return false;
    }
    return true;
}

/* The newest notarised block with a dummy in every view since: what this view's leader builds on. */
static bool parent_find(struct at_simplex *x, uint64_t *ret_view, struct at_hash *ret_hash)
{
    uint64_t h = x->view - 1;
    if (at_simplex_canary(x, AT_SIMPLEX_CANARY_NO_DUMMIES)) h = x->tip.view;
    for (; h > x->tip.view; h--) {
        const struct at_simplex_view *v = at_simplex_view(x, h);
        const struct at_certificate *block = v == NULL ? NULL : &v->certificate[AT_VOTE_BLOCK];
        if (v != NULL && block->seats == 0) block = &v->certificate[AT_VOTE_FINAL];
        if (block != NULL && block->seats != 0) {
            *ret_view = h;
            *ret_hash = block->hash;
            return true;
        }
        if (at_simplex_dummy(x, h) == NULL) {
            at_simplex_want_certificates(x, h, x->view - 1);
            return false;
        }
    }
    *ret_view = x->tip.view;
    *ret_hash = x->tip.hash;
    return true;
}

uint32_t at_simplex_certificates(const struct at_simplex *x, const struct at_simplex_block *block,
                                 const struct at_certificate *ret[AT_PROPOSAL_CERTIFICATES_MAX])
{
    uint32_t n = 0;
    const struct at_certificate *parent = at_simplex_certificate(x, block->parent_view);
    if (parent != NULL) ret[n++] = parent;
    for (uint64_t h = block->view - 1; h > block->parent_view && n < AT_PROPOSAL_CERTIFICATES_MAX; h--) {
        const struct at_certificate *dummy = at_simplex_dummy(x, h);
        if (dummy != NULL) ret[n++] = dummy;
    }
    return n;
}

/* ---- leading ---- */
void at_simplex_propose(struct at_simplex *x)
{
    const struct at_simplex_view *now = at_simplex_view_take(x, x->view);
    if (now == NULL || !at_simplex_voting(x) || at_view_leader(x->view, x->options.seat_count) != x->me) return;
    if ((now->ballot[x->me].has & (AT_BIT(AT_VOTE_BLOCK) | AT_BIT(AT_VOTE_DUMMY))) != 0 || x->out_lent) return;
    if (!x->fast && !(x->slow && x->now_ms >= x->entered_ms + x->delta_ms)) return;
    uint64_t parent_view;
    struct at_hash parent;
    /* One block at a time is on its way to the disk; meanwhile the queue gathers the next. */
    if (!parent_find(x, &parent_view, &parent) || !at_simplex_durable(x, parent_view)) return;
    const struct at_simplex_state *state = state_after(x, parent_view, parent);
    if (state == NULL) return;
    struct at_block *b = &x->room->block;
    b->run = x->options.run;
    b->term = x->options.term;
    b->view = x->view;
    b->parent_view = parent_view;
    b->parent = parent;
    b->time_ms = x->clock_ms > state->time_ms ? x->clock_ms : state->time_ms + 1;
    if (b->time_ms > x->clock_ms + AT_SIMPLEX_FUTURE_MS) return;
    memset(&b->reveal, 0, sizeof b->reveal);
    if (x->f != 0 && !at_beacon_chain_next(x->options.chain, state->beacon.used[x->me], &b->reveal)) return;
    b->record_count = at_simplex_queue_pick(x, parent_view, &parent, b->records, AT_BLOCK_RECORDS_MAX);
    x->out_n = at_block_encode(b, x->out);
    x->out_view = x->view;
    x->out_lent = true;
    struct at_hash hash = at_sha256(x->out, x->out_n);
    struct at_simplex_view *v = at_simplex_view_take(x, x->view);
    struct at_simplex_block *to = &v->block[v->block[0].have];
    outline(b, hash, to);
    at_simplex_queue_seen(x, to);
    struct at_simplex_op *op = at_simplex_op(x, AT_SIMPLEX_PERSIST_BLOCK);
    op->view = x->view;
    op->hash = hash;
    op->bytes = at_span(x->out, x->out_n);
    bool cast = at_simplex_cast(x, x->view, AT_VOTE_BLOCK, hash);
    AT_ASSERT(cast); /* nothing stands in its way: looked at above */
}

/* ---- following ---- */
void at_simplex_vote(struct at_simplex *x)
{
    const uint32_t leader = at_view_leader(x->view, x->options.seat_count);
    const struct at_simplex_view *v = at_simplex_view(x, x->view);
    if (v == NULL || leader == x->me || !at_simplex_voting(x)) return;
    if ((v->ballot[x->me].has & (AT_BIT(AT_VOTE_BLOCK) | AT_BIT(AT_VOTE_DUMMY))) != 0) return;
    if ((v->ballot[leader].has & AT_BIT(AT_VOTE_BLOCK)) == 0) return;
    const struct at_hash hash = v->ballot[leader].hash[AT_VOTE_BLOCK];
    const struct at_simplex_block *b = at_simplex_block(x, x->view, &hash);
    if (b == NULL) return;
    if (!at_simplex_notarised(x, b->parent_view, &b->parent)) {
        if (b->parent_view > x->tip.view) at_simplex_want_certificates(x, b->parent_view, x->view - 1);
        return;
    }
    if (!dummies_between(x, b->parent_view, x->view)) return;
    const struct at_simplex_state *state = state_after(x, b->parent_view, b->parent);
    if (state == NULL || b->time_ms <= state->time_ms || b->time_ms > x->clock_ms + AT_SIMPLEX_FUTURE_MS) return;
    if (!at_beacon_fits(&state->beacon, leader, b->reveal)) return;
    (void)at_simplex_cast(x, x->view, AT_VOTE_BLOCK, hash);
}

/* ---- finality ---- */
bool at_simplex_tell_final(struct at_simplex *x)
{
    const uint64_t t = x->final_top;
    if (t <= x->tip.view || !at_simplex_durable(x, t)) return false;
    const struct at_certificate *certificate = &at_simplex_view(x, t)->certificate[AT_VOTE_FINAL];
    size_t n = 0;
    enum chain chain = chain_walk(x, t, certificate->hash, &n);
    if (chain == CHAIN_BROKEN) x->broken = true;
    if (chain != CHAIN_OK) return false;
    const struct at_simplex_state *state = state_after(x, t, certificate->hash);
    AT_ASSERT(state != NULL);
    for (size_t i = n; i-- != 0;) {
        const struct at_simplex_block *b = x->path[i];
        struct at_simplex_op *op = at_simplex_op(x, AT_SIMPLEX_FINAL);
        op->view = b->view;
        op->hash = b->hash;
        op->time_ms = b->time_ms;
        if (i == 0) op->tip = &x->tip; /* as it will be after this step */
        if (i == 0) op->certificate = certificate;
        at_simplex_queue_final(x, b);
    }
    x->tip.view = t;
    x->tip.hash = certificate->hash;
    x->tip.state = *state;
    x->tip.certificate = *certificate;
    uint64_t less = (uint64_t)x->delta_ms * 7 / 10;
    x->delta_ms = less > x->options.delta_ms ? (uint32_t)less : x->options.delta_ms;
    return true;
}
