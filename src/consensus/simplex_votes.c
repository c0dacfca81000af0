/* simplex_votes.c: views, votes and certificates. The one place where a vote is cast, with the rules of what excludes
 * what; the one place where votes are counted. */
#include "consensus/simplex_internal.h"

#include <string.h>

static bool in_window(const struct at_simplex *x, uint64_t view)
{
    return view > x->tip.view && view - x->window <= x->options.views_max;
}

static struct at_simplex_view *slot(const struct at_simplex *x, uint64_t view)
{
    struct at_simplex_view *v = &x->views[view % x->options.views_max];
    return v->view == view ? v : NULL;
}

struct at_simplex_view *at_simplex_view(const struct at_simplex *x, uint64_t view)
{
    return in_window(x, view) ? slot(x, view) : NULL;
}

struct at_simplex_view *at_simplex_view_take(struct at_simplex *x, uint64_t view)
{
    if (!in_window(x, view)) return NULL;
    struct at_simplex_view *v = &x->views[view % x->options.views_max];
    if (v->view != view) { /* what stood here was final before this step */
        memset(v, 0, sizeof *v);
        v->view = view;
    }
    return v;
}

bool at_simplex_notarised(const struct at_simplex *x, uint64_t view, const struct at_hash *hash)
{
    if (view == x->tip.view) return at_hash_eq(x->tip.hash, *hash);
    const struct at_simplex_view *v = at_simplex_view(x, view);
    if (v == NULL) return false;
    /* f+1 honest seats saw the notarisation before they voted finalise, so a finalisation proves as much. */
    const struct at_certificate *block = &v->certificate[AT_VOTE_BLOCK], *final = &v->certificate[AT_VOTE_FINAL];
    return (block->seats != 0 && at_hash_eq(block->hash, *hash)) ||
           (final->seats != 0 && at_hash_eq(final->hash, *hash));
}

const struct at_certificate *at_simplex_dummy(const struct at_simplex *x, uint64_t view)
{
    const struct at_simplex_view *v = at_simplex_view(x, view);
    return v != NULL && v->certificate[AT_VOTE_DUMMY].seats != 0 ? &v->certificate[AT_VOTE_DUMMY] : NULL;
}

const struct at_certificate *at_simplex_certificate(const struct at_simplex *x, uint64_t view)
{
    if (view < x->tip.view) return NULL;
    if (view == x->window) return x->window_certificate.seats != 0 ? &x->window_certificate : NULL;
    const struct at_simplex_view *v = view == x->tip.view ? slot(x, view) : at_simplex_view(x, view);
    static const enum at_vote_kind best_first[] = {AT_VOTE_FINAL, AT_VOTE_BLOCK, AT_VOTE_DUMMY};
    for (size_t i = 0; v != NULL && i < 3; i++)
        if (v->certificate[best_first[i]].seats != 0) return &v->certificate[best_first[i]];
    return NULL;
}

bool at_simplex_durable(const struct at_simplex *x, uint64_t view)
{
    const struct at_simplex_view *v = at_simplex_view(x, view);
    if (v == NULL || at_simplex_canary(x, AT_SIMPLEX_CANARY_EARLY_SEND)) return true;
    for (int k = 0; k < AT_VOTE_KIND_COUNT; k++)
        if (v->own_seq[k] > x->durable) return false;
    return true;
}

uint32_t at_simplex_vote_count(const struct at_simplex *x, uint64_t view, enum at_vote_kind kind)
{
    const struct at_simplex_view *v = at_simplex_view(x, view);
    uint32_t n = 0;
    for (uint32_t i = 0; v != NULL && i < x->options.seat_count; i++) n += (v->ballot[i].has & AT_BIT(kind)) != 0;
    return n;
}

static struct at_vote ballot_vote(const struct at_simplex_view *v, uint32_t seat, enum at_vote_kind kind)
{
    const struct at_simplex_ballot *b = &v->ballot[seat];
    return (struct at_vote){.view = v->view, .kind = kind, .hash = b->hash[kind], .seat = seat, .sig = b->sig[kind]};
}

/* ---- certificates ---- */
static void adopt(struct at_simplex *x, struct at_simplex_view *v, const struct at_certificate *certificate)
{
    struct at_certificate *mine = &v->certificate[certificate->kind];
    *mine = *certificate;
    if (v->view > x->top) x->top = v->view;
    if (certificate->kind == AT_VOTE_FINAL) {
        if (v->view > x->final_top) x->final_top = v->view;
    } else if (!x->restoring) {
        at_simplex_op(x, AT_SIMPLEX_PERSIST_CERTIFICATE)->certificate = mine;
    }
}

static void count(struct at_simplex *x, struct at_simplex_view *v, const struct at_vote *vote)
{
    if (v->certificate[vote->kind].seats != 0) return;
    struct at_certificate c = {.view = v->view, .kind = vote->kind, .hash = vote->hash};
    uint32_t n = 0;
    for (uint32_t i = 0; i < x->options.seat_count && n < 2 * x->f + 1; i++) {
        const struct at_simplex_ballot *b = &v->ballot[i];
        if ((b->has & AT_BIT(vote->kind)) == 0 || !at_hash_eq(b->hash[vote->kind], vote->hash)) continue;
        c.seats |= AT_BIT(i);
        c.sig[n++] = b->sig[vote->kind];
    }
    if (n == 2 * x->f + 1) adopt(x, v, &c);
}

/* ---- votes ---- */

/* Does it add to what is known of its seat's newest view? */
static bool is_newest(const struct at_simplex *x, const struct at_vote *vote)
{
    const struct at_simplex_peer *p = &x->peer[vote->seat];
    if (p->newest_count == 0 || vote->view > p->newest[0].view) return true;
    if (p->newest_count == AT_NEWEST_MAX || vote->view < p->newest[0].view) return false;
    return p->newest[0].kind != vote->kind;
}

static void note_newest(struct at_simplex *x, const struct at_vote *vote)
{
    struct at_simplex_peer *p = &x->peer[vote->seat];
    if (!is_newest(x, vote)) return;
    if (p->newest_count != 0 && vote->view > p->newest[0].view) p->newest_count = 0;
    p->newest[p->newest_count++] = *vote;
}

void at_simplex_note(struct at_simplex *x, const struct at_vote *vote)
{
    struct at_simplex_view *v = at_simplex_view_take(x, vote->view);
    if (v == NULL) return;
    struct at_simplex_ballot *b = &v->ballot[vote->seat];
    for (int k = AT_VOTE_BLOCK; k < AT_VOTE_KIND_COUNT; k++) {
        if ((b->has & AT_BIT(k)) == 0) continue;
        struct at_vote before = ballot_vote(v, vote->seat, (enum at_vote_kind)k);
        if (at_votes_exclude(&before, vote)) {
            if (!b->told && vote->seat != x->me) b->told = at_simplex_tell_evidence(x, &before, vote);
            return;
        }
    }
    if ((b->has & AT_BIT(vote->kind)) != 0) return;
    b->has |= AT_BIT(vote->kind);
    b->hash[vote->kind] = vote->hash;
    b->sig[vote->kind] = vote->sig;
    note_newest(x, vote);
    struct at_simplex_peer *p = &x->peer[vote->seat];
    uint64_t reached = vote->view + (vote->kind == AT_VOTE_FINAL);
    if (reached > p->view) p->view = reached;
    count(x, v, vote);
}

static bool known(const struct at_simplex *x, const struct at_vote *vote)
{
    const struct at_simplex_view *v = at_simplex_view(x, vote->view);
    if (v == NULL || (v->ballot[vote->seat].has & AT_BIT(vote->kind)) == 0) return false;
    return at_hash_eq(v->ballot[vote->seat].hash[vote->kind], vote->hash);
}

/* The very signature was checked before. */
static bool verified(const struct at_simplex *x, const struct at_vote *vote)
{
    return known(x, vote) &&
           memcmp(at_simplex_view(x, vote->view)->ballot[vote->seat].sig[vote->kind].b, vote->sig.b, AT_SIG_BYTES) == 0;
}

/* Our own signature under a vote that our store lacks: it is a store of the past. */
static bool from_our_future(const struct at_simplex *x, const struct at_vote *vote)
{
    if (vote->seat != x->me) return false;
    if (vote->view > x->own_newest || (vote->view > x->tip.view && !known(x, vote))) return true;
    return vote->view == x->own_newest && (x->own_newest_has & AT_BIT(vote->kind)) == 0;
}

at_err_t at_simplex_take_vote(struct at_simplex *x, const struct at_vote *vote)
{
    if (vote->seat >= x->options.seat_count) return AT_E_PEER;
    if (known(x, vote)) return AT_OK;
    bool own = vote->seat == x->me;
    if (!own && vote->view <= x->tip.view) {
        /* Too late to count, but the seat may have to be told of it. */
        if (!is_newest(x, vote)) return AT_OK;
        if (x->options.verify(x->options.user, vote) != AT_OK) return AT_E_PEER;
        note_newest(x, vote);
        return AT_OK;
    }
    if (x->options.verify(x->options.user, vote) != AT_OK) return AT_E_PEER;
    if (own) {
        if (from_our_future(x, vote)) at_simplex_abstain(x);
        return AT_OK;
    }
    if (in_window(x, vote->view))
        at_simplex_note(x, vote);
    else
        at_simplex_catch_up(x, x->from);
    return AT_OK;
}

/* Of a view beyond the window: a reason to ask the peer, who answers at most once in Δ, so its signatures need no check;
 * but for our own, which may tell of a vote that we do not know of. */
static at_err_t take_beyond(struct at_simplex *x, const struct at_certificate *certificate, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        struct at_vote vote = at_certificate_vote(certificate, i);
        if (!from_our_future(x, &vote)) continue;
        if (x->options.verify(x->options.user, &vote) != AT_OK) return AT_E_PEER;
        at_simplex_abstain(x);
    }
    at_simplex_catch_up(x, x->from);
    return AT_OK;
}

at_err_t at_simplex_take_certificate(struct at_simplex *x, const struct at_certificate *certificate)
{
    uint32_t n = (uint32_t)__builtin_popcount(certificate->seats);
    if (n < 2 * x->f + 1 || certificate->seats > at_simplex_all(x)) return AT_E_PEER;
    if (certificate->view <= x->tip.view) return AT_OK;
    if (!in_window(x, certificate->view)) return take_beyond(x, certificate, n);
    const struct at_simplex_view *have = at_simplex_view(x, certificate->view);
    if (have == NULL || have->certificate[certificate->kind].seats == 0) {
        for (uint32_t i = 0; i < n; i++) {
            struct at_vote vote = at_certificate_vote(certificate, i);
            if (!verified(x, &vote) && x->options.verify(x->options.user, &vote) != AT_OK) return AT_E_PEER;
        }
        struct at_simplex_view *v = at_simplex_view_take(x, certificate->view);
        for (uint32_t i = 0; i < n; i++) {
            struct at_vote vote = at_certificate_vote(certificate, i);
            if (from_our_future(x, &vote)) at_simplex_abstain(x);
            if (vote.seat != x->me) at_simplex_note(x, &vote);
        }
        /* Seats that signed more than one thing may be counted elsewhere here: the certificate stands all the same. */
        if (v->certificate[certificate->kind].seats == 0) adopt(x, v, certificate);
    }
    if (x->from < x->options.seat_count && x->peer[x->from].view <= certificate->view)
        x->peer[x->from].view = certificate->view + 1;
    return AT_OK;
}

void at_simplex_note_own(struct at_simplex *x, const struct at_vote *vote)
{
    if (vote->view > x->own_newest) x->own_newest_has = 0;
    if (vote->view >= x->own_newest) {
        x->own_newest = vote->view;
        x->own_newest_has |= AT_BIT(vote->kind);
    }
    at_simplex_note(x, vote);
}

static bool may_cast(const struct at_simplex *x, const struct at_simplex_view *v, enum at_vote_kind kind)
{
    uint32_t has = v->ballot[x->me].has;
    switch (kind) {
    case AT_VOTE_BLOCK:
        return v->view == x->view && (has & (AT_BIT(AT_VOTE_BLOCK) | AT_BIT(AT_VOTE_DUMMY))) == 0;
    case AT_VOTE_DUMMY:
        if (at_simplex_canary(x, AT_SIMPLEX_CANARY_TIMER_FORBIDS) && (has & AT_BIT(AT_VOTE_BLOCK)) != 0) return false;
        return v->view == x->view && (has & (AT_BIT(AT_VOTE_DUMMY) | AT_BIT(AT_VOTE_FINAL))) == 0;
    case AT_VOTE_FINAL:
        return (has & (AT_BIT(AT_VOTE_DUMMY) | AT_BIT(AT_VOTE_FINAL))) == 0;
    default:
        return false;
    }
}

bool at_simplex_cast(struct at_simplex *x, uint64_t view, enum at_vote_kind kind, struct at_hash hash)
{
    struct at_simplex_view *v = at_simplex_view_take(x, view);
    if (v == NULL || !at_simplex_voting(x) || !may_cast(x, v, kind)) return false;
    struct at_vote vote = {.view = view, .kind = kind, .hash = hash, .seat = x->me};
    x->options.sign(x->options.user, &vote);
    at_simplex_op(x, AT_SIMPLEX_PERSIST_VOTE)->votes[0] = vote;
    v->own_seq[kind] = x->vote_seq = x->seq;
    at_simplex_note_own(x, &vote);
    return true;
}

void at_simplex_finalise(struct at_simplex *x)
{
    for (uint64_t h = x->tip.view + 1; h <= x->view; h++) { /* the present one: only where the window ends */
        const struct at_simplex_view *v = at_simplex_view(x, h);
        if (v == NULL || v->certificate[AT_VOTE_BLOCK].seats == 0 || v->certificate[AT_VOTE_FINAL].seats != 0) continue;
        (void)at_simplex_cast(x, h, AT_VOTE_FINAL, v->certificate[AT_VOTE_BLOCK].hash);
    }
}
