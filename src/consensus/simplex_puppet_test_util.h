/* simplex_puppet_test_util.h: for tests: one machine, seat 0 of 4, to which the test plays the other three. */
#ifndef ATOLL_CONSENSUS_SIMPLEX_PUPPET_TEST_UTIL_H
#define ATOLL_CONSENSUS_SIMPLEX_PUPPET_TEST_UTIL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "consensus/simplex_hostile_test_util.h"

struct puppet {
    struct net *w;
    struct net_actor *a; /* seat 0 of 4 */
    struct at_simplex *x;
    struct at_beacon beacon; /* of the chain that `block` makes */
    uint8_t bytes[AT_BLOCK_BYTES_MAX];
};

static inline void settle(struct puppet *p)
{
    net_run_until(p->w, p->w->now_ms); /* what is to be persisted, is */
}

static inline void hear(struct puppet *p, uint32_t from, const struct at_agree *m)
{
    net_step(p->w, p->a, (struct at_simplex_event){.kind = AT_SIMPLEX_MESSAGE, .from = from, .message = m});
    settle(p);
}

static inline void hear_vote(struct puppet *p, uint32_t from, uint64_t view, enum at_vote_kind kind,
                             struct at_hash hash)
{
    struct at_agree m = {.term = NET_TERM, .kind = AT_AGREE_VOTE};
    m.vote = (struct at_vote){.view = view, .kind = kind, .seat = from};
    if (kind != AT_VOTE_DUMMY) m.vote.hash = hash;
    net_sign_as(p->w, &m.vote);
    hear(p, from, &m);
}

static inline struct puppet *puppet_make(uint32_t views_max)
{
    struct puppet *p = calloc(1, sizeof *p);
    assert_non_null(p);
    struct net_options o = net_calm(4);
    if (views_max != 0) o.views_max = views_max;
    for (int i = 1; i < 4; i++) o.hostile[i] = HOSTILE_SILENT;
    p->w = net_make(&o);
    p->a = &p->w->actors[0];
    p->x = p->a->x;
    p->beacon = p->x->tip.state.beacon;
    for (uint32_t from = 1; from < 3; from++) {
        assert_false(at_simplex_status(p->x).voting);
        struct at_agree m = {.term = NET_TERM, .kind = AT_AGREE_NEWEST, .newest = {.nonce = p->x->options.nonce}};
        hear(p, from, &m);
    }
    assert_true(at_simplex_status(p->x).voting);
    return p;
}

static inline void puppet_free(struct puppet *p)
{
    net_finish(p->w);
    free(p);
}

static inline uint32_t has_sent(const struct puppet *p, uint64_t view)
{
    return p->w->cast[0][view].has;
}

/* A block of `view` by its leader, on the given parent, with one record. `bend` may spoil it. Returns its hash. */
static inline struct at_hash block(struct puppet *p, uint64_t view, uint64_t parent_view, struct at_hash parent,
                                   void (*bend)(struct puppet *p, struct at_block *b))
{
    struct at_block *b = &p->w->room.block;
    uint32_t leader = at_view_leader(view, 4);
    memset(b, 0, sizeof *b);
    b->run = p->w->run;
    b->term = NET_TERM;
    b->view = view;
    b->parent_view = parent_view;
    b->parent = parent;
    b->time_ms = NET_EPOCH_MS + p->w->now_ms + view;
    assert_true(at_beacon_chain_next(&p->w->chains[leader], p->beacon.used[leader], &b->reveal));
    b->record_count = 1;
    b->records[0] = net_record(0, view);
    if (bend != NULL) bend(p, b);
    struct at_agree m = {.term = NET_TERM, .kind = AT_AGREE_PROPOSAL};
    m.proposal.block = at_span(p->bytes, at_block_encode(b, p->bytes));
    m.proposal.is_signed = true;
    struct at_vote vote = {
        .view = view, .kind = AT_VOTE_BLOCK, .hash = at_sha256(p->bytes, m.proposal.block.n), .seat = leader};
    net_sign_as(p->w, &vote);
    m.proposal.sig = vote.sig;
    hear(p, leader, &m);
    return vote.hash;
}

static inline struct at_hash tip(const struct puppet *p)
{
    return p->x->tip.hash;
}

static inline void tick_to(struct puppet *p, uint64_t ms)
{
    net_run_until(p->w, p->w->now_ms + ms);
}

#endif
