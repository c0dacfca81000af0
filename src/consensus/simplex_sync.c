/* simplex_sync.c: laggards and restarts: what a seat tells of itself, what it asks for and what it answers, the restore
 * of what the store has, and the refusal to vote with an old one. */
#include "consensus/simplex_internal.h"

#include <string.h>

#define SERVE_VIEWS 16
#define SPEND_MAX   64 /* blocks' worth of answers to one peer in Δ: 5 MB at most */

void at_simplex_abstain(struct at_simplex *x)
{
    if (x->abstaining) return;
    x->abstaining = true;
    (void)at_simplex_op(x, AT_SIMPLEX_PERSIST_ABSTAIN);
}

void at_simplex_send_status(struct at_simplex *x, uint32_t to, bool asks)
{
    struct at_agree *m = at_simplex_send(x, to, AT_AGREE_STATUS);
    if (m != NULL)
        m->status =
            (struct at_agree_status){.view = x->view, .tip_view = x->tip.view, .asks = asks, .nonce = x->options.nonce};
}

/* At most one ask in Δ to each peer, unless the last one moved the tip. */
void at_simplex_catch_up(struct at_simplex *x, uint32_t from)
{
    if (from >= x->options.seat_count || from == x->me) return;
    struct at_simplex_peer *p = &x->peer[from];
    if (p->asked && p->asked_tip == x->tip.view && x->now_ms < p->asked_ms + x->delta_ms) return;
    p->asked = true;
    p->asked_tip = x->tip.view;
    p->asked_ms = x->now_ms;
    at_simplex_send_status(x, AT_BIT(from), true);
}

/* Whether the peer may have this much of us, in blocks' worth. It asks again, others, when it may not. */
static bool afford(struct at_simplex *x, uint32_t blocks)
{
    struct at_simplex_peer *p = &x->peer[x->from];
    if (x->now_ms >= p->spent_ms + x->delta_ms) {
        p->spent_ms = x->now_ms;
        p->spent = 0;
    }
    if (p->spent + blocks > SPEND_MAX) return false;
    p->spent += blocks;
    return true;
}

/* Once in Δ to each peer, unless it got through with what it was served. */
static void serve(struct at_simplex *x, const struct at_agree_status *status)
{
    struct at_simplex_peer *p = &x->peer[x->from];
    if (status->tip_view >= x->tip.view) return;
    if (p->served && status->tip_view < p->served_last && x->now_ms < p->served_ms + x->delta_ms) return;
    if (!afford(x, SERVE_VIEWS)) return;
    uint64_t last = status->tip_view + SERVE_VIEWS;
    if (last > x->tip.view) last = x->tip.view;
    p->served = true;
    p->served_last = last;
    p->served_ms = x->now_ms;
    struct at_simplex_op *op = at_simplex_op(x, AT_SIMPLEX_SERVE);
    op->view = status->tip_view;
    op->last = last;
    op->to = AT_BIT(x->from);
}

static void send_certificate(struct at_simplex *x, const struct at_certificate *certificate)
{
    if (certificate == NULL || !at_simplex_durable(x, certificate->view)) return;
    struct at_agree *m = at_simplex_send(x, AT_BIT(x->from), AT_AGREE_CERTIFICATE);
    if (m != NULL) m->certificate = certificate;
}

static void take_status(struct at_simplex *x, const struct at_agree_status *status)
{
    struct at_simplex_peer *p = &x->peer[x->from];
    p->view = status->view;
    if (status->asks) {
        struct at_agree *m = at_simplex_send(x, AT_BIT(x->from), AT_AGREE_NEWEST);
        if (m != NULL) {
            m->newest.nonce = status->nonce;
            m->newest.count = p->newest_count;
            memcpy(m->newest.votes, p->newest, sizeof p->newest);
        }
    }
    serve(x, status);
    for (uint64_t h = x->view - 1; h <= x->view; h++) /* the present view has one only where the window ends */
        if (status->view <= h && h > x->tip.view) send_certificate(x, at_simplex_certificate(x, h));
    if (status->asks) at_simplex_send_status(x, AT_BIT(x->from), false);
    if (status->tip_view > x->tip.view || status->view > x->view) at_simplex_catch_up(x, x->from);
}

static at_err_t take_newest(struct at_simplex *x, const struct at_agree_newest *newest)
{
    if (newest->nonce != x->options.nonce) return AT_OK;
    for (uint32_t i = 0; i < newest->count; i++)
        if (newest->votes[i].seat != x->me || at_simplex_take_vote(x, &newest->votes[i]) != AT_OK) return AT_E_PEER;
    x->answered |= AT_BIT(x->from);
    return AT_OK;
}

static void take_ask(struct at_simplex *x, const struct at_agree_ask *ask)
{
    if (!afford(x, 1)) return; /* the certificates below are about as much as a block */
    if (ask->of_block) {
        struct at_simplex_op *op = at_simplex_op(x, AT_SIMPLEX_SEND_BLOCK);
        op->view = ask->first;
        op->hash = ask->hash;
        op->to = AT_BIT(x->from);
        return;
    }
    uint64_t h = ask->first > x->tip.view ? ask->first : x->tip.view + 1;
    for (uint32_t n = 0; h <= ask->last && h <= x->view && n < AT_PROPOSAL_CERTIFICATES_MAX / 2; h++, n++) {
        const struct at_simplex_view *v = at_simplex_view(x, h);
        if (v == NULL) continue;
        for (int k = AT_VOTE_BLOCK; k <= AT_VOTE_DUMMY; k++)
            if (v->certificate[k].seats != 0) send_certificate(x, &v->certificate[k]);
    }
}

at_err_t at_simplex_take_sync(struct at_simplex *x, const struct at_agree *message)
{
    switch (message->kind) {
    case AT_AGREE_STATUS:
        take_status(x, &message->status);
        break;
    case AT_AGREE_NEWEST:
        return take_newest(x, &message->newest);
    case AT_AGREE_ASK:
        take_ask(x, &message->ask);
        break;
    default:
        break;
    }
    return AT_OK;
}

/* ---- what is missing ---- */

/* The first want of a step is the most urgent one. */
static void want(struct at_simplex_want *w, const struct at_agree_ask *ask)
{
    if (w->set) return;
    bool same = w->asked_ms != 0 && w->ask.first == ask->first && w->ask.of_block == ask->of_block &&
                at_hash_eq(w->ask.hash, ask->hash);
    if (!same) w->asked_ms = 0;
    w->ask = *ask;
    w->set = true;
}

void at_simplex_want_block(struct at_simplex *x, uint64_t view, const struct at_hash *hash)
{
    want(&x->want_block, &(struct at_agree_ask){.of_block = true, .first = view, .last = view, .hash = *hash});
}

void at_simplex_want_certificates(struct at_simplex *x, uint64_t first, uint64_t last)
{
    want(&x->want_certificates, &(struct at_agree_ask){.first = first, .last = last});
}

/* The peer that made us notice is asked first, then, every Δ, the next seat. */
static void ask_one(struct at_simplex *x, struct at_simplex_want *w)
{
    if (!w->set || x->f == 0) return;
    if (w->asked_ms != 0 && x->now_ms < w->asked_ms + x->delta_ms) return;
    uint32_t to =
        w->asked_ms == 0 && x->from < x->options.seat_count ? x->from : (w->asked + 1) % x->options.seat_count;
    if (to == x->me) to = (to + 1) % x->options.seat_count;
    w->asked = to;
    w->asked_ms = x->now_ms == 0 ? 1 : x->now_ms;
    struct at_agree *m = at_simplex_send(x, AT_BIT(to), AT_AGREE_ASK);
    if (m != NULL) m->ask = w->ask;
}

void at_simplex_ask(struct at_simplex *x)
{
    ask_one(x, &x->want_block);
    ask_one(x, &x->want_certificates);
}

/* ---- what the store has ---- */
at_err at_simplex_restore(struct at_simplex *x, const struct at_agree *stored)
{
    AT_ASSERT(!x->started);
    at_err_t err = AT_OK;
    x->restoring = true;
    x->from = AT_SEATS_MAX;
    switch (stored->kind) {
    case AT_AGREE_VOTE:
        if (stored->vote.seat != x->me) err = AT_E_DATA;
        if (err == AT_OK) err = x->options.verify(x->options.user, &stored->vote) == AT_OK ? AT_OK : AT_E_DATA;
        if (err) break;
        at_simplex_note_own(x, &stored->vote);
        break;
    case AT_AGREE_CERTIFICATE:
        err = at_simplex_take_certificate(x, stored->certificate);
        break;
    case AT_AGREE_PROPOSAL:
        err = at_simplex_take_block(x, stored->proposal.block, NULL);
        break;
    default:
        err = AT_E_DATA;
        break;
    }
    x->restoring = false;
    return err ? AT_E_DATA : AT_OK;
}
