/* simplex.c: events, time, and what is sent. The table is in simplex.h; its rows are the calls in `progress`. */
#include "consensus/simplex_internal.h"

#include <stdlib.h>
#include <string.h>

#define SENDS_MAX   160 /* ops of one step that may be left out when there are too many */
#define STRETCH_MAX 24
#define OTHERS_MAX  96 /* ops that may not, besides two for each view: a finalise vote, a final block */

/* ---- ops ---- */
struct at_simplex_op *at_simplex_op(struct at_simplex *x, enum at_simplex_op_kind kind)
{
    AT_ASSERT(x->update.op_count < x->ops_max);
    struct at_simplex_op *op = &x->ops[x->update.op_count++];
    memset(op, 0, sizeof *op);
    op->kind = kind;
    if (kind <= AT_SIMPLEX_FINAL && x->update.persist == 0) x->update.persist = ++x->seq;
    return op;
}

static bool is_full(const struct at_simplex *x)
{
    return x->update.op_count + 2 * x->options.views_max + OTHERS_MAX >= x->ops_max;
}

bool at_simplex_tell_evidence(struct at_simplex *x, const struct at_vote *a, const struct at_vote *b)
{
    if (is_full(x)) return false;
    struct at_simplex_op *op = at_simplex_op(x, AT_SIMPLEX_EVIDENCE);
    op->votes[0] = *a;
    op->votes[1] = *b;
    return true;
}

struct at_agree *at_simplex_send(struct at_simplex *x, uint32_t to, enum at_agree_kind kind)
{
    to &= at_simplex_all(x) & ~AT_BIT(x->me);
    if (to == 0 || is_full(x)) return NULL;
    struct at_simplex_op *op = at_simplex_op(x, AT_SIMPLEX_SEND);
    op->to = to;
    op->message.term = x->options.term;
    op->message.kind = kind;
    return &op->message;
}

/* ---- what leaves ---- */

/* The leader's block vote is its proposal. Its bytes are at hand only in the life that made them; later the vote is
 * enough: whoever lacks the block asks for it. */
static void send_vote(struct at_simplex *x, uint32_t to, const struct at_simplex_view *v, enum at_vote_kind kind,
                      bool with_block)
{
    const struct at_simplex_ballot *b = &v->ballot[x->me];
    const struct at_simplex_block *block = at_simplex_block(x, v->view, &b->hash[kind]);
    bool leads = kind == AT_VOTE_BLOCK && at_view_leader(v->view, x->options.seat_count) == x->me;
    if (leads && with_block && x->out_view == v->view && block != NULL) {
        struct at_agree *m = at_simplex_send(x, to, AT_AGREE_PROPOSAL);
        if (m == NULL) return;
        x->out_lent = true;
        m->proposal.block = at_span(x->out, x->out_n);
        m->proposal.is_signed = true;
        m->proposal.sig = b->sig[kind];
        m->proposal.certificate_count = at_simplex_certificates(x, block, m->proposal.certificates);
        return;
    }
    struct at_agree *m = at_simplex_send(x, to, AT_AGREE_VOTE);
    if (m == NULL) return;
    m->vote =
        (struct at_vote){.view = v->view, .kind = kind, .hash = b->hash[kind], .seat = x->me, .sig = b->sig[kind]};
}

static bool vote_durable(const struct at_simplex *x, const struct at_simplex_view *v, int kind)
{
    return v->own_seq[kind] <= x->durable || at_simplex_canary(x, AT_SIMPLEX_CANARY_EARLY_SEND);
}

/* Own votes that have become durable, and the certificate that moved us. */
static void flush(struct at_simplex *x)
{
    for (uint64_t h = x->tip.view + 1; h <= x->view; h++) {
        struct at_simplex_view *v = at_simplex_view(x, h);
        for (int k = AT_VOTE_BLOCK; v != NULL && k < AT_VOTE_KIND_COUNT; k++) {
            if ((v->ballot[x->me].has & ~v->own_sent & AT_BIT(k)) == 0 || !vote_durable(x, v, k)) continue;
            v->own_sent |= AT_BIT(k);
            send_vote(x, at_simplex_all(x), v, (enum at_vote_kind)k, true);
        }
    }
    if (x->relay_view == 0 || !at_simplex_durable(x, x->relay_view)) return;
    const struct at_certificate *certificate = at_simplex_certificate(x, x->relay_view);
    uint32_t to = 0;
    for (uint32_t i = 0; i < x->options.seat_count; i++)
        if (x->peer[i].view <= x->relay_view) to |= AT_BIT(i);
    x->relay_view = 0;
    struct at_agree *m = certificate == NULL ? NULL : at_simplex_send(x, to, AT_AGREE_CERTIFICATE);
    if (m != NULL) m->certificate = certificate;
}

static void send_certificate(struct at_simplex *x, uint32_t to, uint64_t view)
{
    const struct at_certificate *certificate = at_simplex_certificate(x, view);
    if (certificate == NULL || !at_simplex_durable(x, view)) return;
    struct at_agree *m = at_simplex_send(x, to, AT_AGREE_CERTIFICATE);
    if (m != NULL) m->certificate = certificate;
}

static void send_view(struct at_simplex *x, uint32_t to)
{
    const struct at_simplex_view *now = at_simplex_view(x, x->view), *before = at_simplex_view(x, x->view - 1);
    for (int k = AT_VOTE_BLOCK; now != NULL && k < AT_VOTE_KIND_COUNT; k++)
        if ((now->ballot[x->me].has & AT_BIT(k)) != 0 && vote_durable(x, now, k))
            send_vote(x, to, now, (enum at_vote_kind)k, false);
    send_certificate(x, to, x->view); /* there is one only where the window ends */
    if (before == NULL) return;       /* final: a status tells */
    if ((before->ballot[x->me].has & AT_BIT(AT_VOTE_FINAL)) != 0 && vote_durable(x, before, AT_VOTE_FINAL))
        send_vote(x, to, before, AT_VOTE_FINAL, false);
    send_certificate(x, to, x->view - 1);
}

/* One of the older views with a notarised block that is not final, in turn: a finalise vote that was lost with a link may
 * be the one that is missing. */
static void resend_older(struct at_simplex *x)
{
    uint64_t h = x->older != 0 && x->older < x->view - 1 ? x->older : x->view - 2;
    for (x->older = 0; x->view >= 2 && h > x->tip.view; h--) {
        const struct at_simplex_view *v = at_simplex_view(x, h);
        if (v == NULL || v->certificate[AT_VOTE_BLOCK].seats == 0) continue;
        send_certificate(x, at_simplex_all(x), h);
        if ((v->ballot[x->me].has & AT_BIT(AT_VOTE_FINAL)) != 0 && vote_durable(x, v, AT_VOTE_FINAL))
            send_vote(x, at_simplex_all(x), v, AT_VOTE_FINAL, false);
        x->older = h - 1;
        return;
    }
}

static void resend(struct at_simplex *x)
{
    send_view(x, at_simplex_all(x));
    resend_older(x);
    at_simplex_send_status(x, at_simplex_all(x), !at_simplex_voting(x));
    at_simplex_queue_age(x);
    /* The leader has voted, and its block has not come. */
    const uint32_t leader = at_view_leader(x->view, x->options.seat_count);
    const struct at_simplex_view *now = at_simplex_view(x, x->view);
    if (now != NULL && (now->ballot[leader].has & AT_BIT(AT_VOTE_BLOCK)) != 0 &&
        at_simplex_block(x, x->view, &now->ballot[leader].hash[AT_VOTE_BLOCK]) == NULL)
        at_simplex_want_block(x, x->view, &now->ballot[leader].hash[AT_VOTE_BLOCK]);
}

/* ---- time ---- */
static bool something_waits(const struct at_simplex *x)
{
    return x->fast || (x->slow && x->now_ms >= x->entered_ms + x->delta_ms);
}

/* Doublings of the timer in the second half of the window. 2f+1 dummy votes need f+1 honest timers, so the time that the
 * seats spend before its end grows with 2^24: no asynchrony lasts as long. What it lasts is made good in a fraction. */
static uint32_t timer_stretch(const struct at_simplex *x)
{
    const uint64_t past = x->view - x->tip.view, half = x->options.views_max / 2;
    const uint64_t step = x->options.views_max < 64 ? 1 : x->options.views_max / 64;
    const uint64_t doublings = past > half ? (past - half + step - 1) / step : 0;
    return doublings < STRETCH_MAX ? (uint32_t)doublings : STRETCH_MAX;
}

static void run_timer(struct at_simplex *x)
{
    const struct at_simplex_view *v = at_simplex_view_take(x, x->view);
    /* In the last view of the window only its leader can still help, or finality of an earlier view: whoever gave it up
     * would be stuck for good. */
    bool last = x->view - x->tip.view >= x->options.views_max;
    bool gave_up = (v->ballot[x->me].has & AT_BIT(AT_VOTE_DUMMY)) != 0;
    bool disk_behind = x->vote_seq > x->durable; /* the delay is our own: no vote could leave anyway */
    if (!something_waits(x) || !at_simplex_voting(x) || last || gave_up || disk_behind) {
        x->timer_ms = 0;
        return;
    }
    const uint32_t stretch = timer_stretch(x);
    if (x->timer_ms == 0 || stretch < x->timer_stretch) { /* less: the tip has moved */
        x->timer_ms = x->now_ms + (3 * (uint64_t)x->delta_ms << stretch);
        x->timer_stretch = stretch;
    }
    if (x->now_ms < x->timer_ms) return;
    x->timer_ms = 0;
    (void)at_simplex_cast(x, x->view, AT_VOTE_DUMMY, (struct at_hash){0});
}

static void run_resend(struct at_simplex *x)
{
    bool busy = x->fast || x->slow || x->want_block.set || x->want_certificates.set ||
                (x->started && !x->abstaining && !at_simplex_voting(x));
    if (!busy || x->f == 0) {
        x->resend_ms = 0;
        return;
    }
    if (x->resend_ms != 0 && x->now_ms >= x->resend_ms) {
        x->resend_ms = 0;
        resend(x);
    }
    if (x->resend_ms == 0) x->resend_ms = x->now_ms + x->delta_ms;
}

/* The view after the newest one that ended, or the last one of the window after `from`. */
static uint64_t next_view(const struct at_simplex *x, uint64_t from)
{
    const uint64_t last = from + x->options.views_max;
    return x->top < last ? x->top + 1 : last;
}

uint64_t at_simplex_deadline(const struct at_simplex *x)
{
    uint64_t at = AT_SIMPLEX_NO_DEADLINE;
    if (x->broken || !x->started) return at;
    if (next_view(x, x->tip.view) > x->view) return x->now_ms; /* the tip moved: the window does with the next step */
    if (x->timer_ms != 0 && x->timer_ms < at) at = x->timer_ms;
    if (x->resend_ms != 0 && x->resend_ms < at) at = x->resend_ms;
    uint64_t patience = x->entered_ms + x->delta_ms;
    if (x->slow && x->now_ms < patience && patience < at) at = patience;
    return at;
}

/* ---- progress ---- */
static bool advance(struct at_simplex *x)
{
    const uint64_t next = next_view(x, x->window);
    if (next <= x->view) return false;
    const struct at_certificate *by = at_simplex_certificate(x, x->top);
    const struct at_simplex_view *left = at_simplex_view(x, x->view);
    /* An own dummy vote counts as well: else f seats that do not finalise could keep Δ too short for ever. */
    bool gave_up = left != NULL && (left->ballot[x->me].has & AT_BIT(AT_VOTE_DUMMY)) != 0;
    if (gave_up || (by != NULL && by->kind == AT_VOTE_DUMMY)) {
        uint64_t more = (uint64_t)x->delta_ms * 2;
        x->delta_ms = more < x->options.delta_max_ms ? (uint32_t)more : x->options.delta_max_ms;
    }
    x->relay_view = x->top;
    x->view = next;
    x->entered_ms = x->now_ms;
    x->timer_ms = x->resend_ms = 0;
    return true;
}

static void progress(struct at_simplex *x)
{
    x->want_block.set = x->want_certificates.set = false;
    bool again = true;
    while (again && !x->broken) {
        again = advance(x);
        at_simplex_finalise(x);
        flush(x);
        again |= at_simplex_tell_final(x);
        if (x->view <= x->tip.view) return; /* the last view of the window is final: the next step moves on */
        if (again) continue;
        at_simplex_queue_weigh(x);
        const size_t before = x->update.op_count;
        at_simplex_propose(x);
        at_simplex_vote(x);
        run_timer(x);
        again = x->update.op_count != before; /* a vote was cast */
    }
    flush(x);
    run_resend(x);
    at_simplex_ask(x);
}

static at_err_t take_message(struct at_simplex *x, const struct at_agree *m)
{
    if (m->term != x->options.term) return AT_OK;
    at_err_t err = AT_OK;
    switch (m->kind) {
    case AT_AGREE_VOTE:
        return at_simplex_take_vote(x, &m->vote);
    case AT_AGREE_CERTIFICATE:
        return at_simplex_take_certificate(x, m->certificate);
    case AT_AGREE_PROPOSAL: /* up to the first lie: so much may be wasted on a message, and no more */
        for (uint32_t i = 0; i < m->proposal.certificate_count && err == AT_OK; i++)
            err = at_simplex_take_certificate(x, m->proposal.certificates[i]);
        if (err) return err;
        return at_simplex_take_block(x, m->proposal.block, m->proposal.is_signed ? &m->proposal.sig : NULL);
    case AT_AGREE_PENDING:
        err = at_simplex_queue_add(x, x->from, m->pending);
        return err == AT_OK || err == AT_E_TOO_BIG ? AT_OK : AT_E_PEER; /* full: its origin keeps it */
    default:
        return at_simplex_take_sync(x, m);
    }
}

void at_simplex_step(struct at_simplex *x, const struct at_simplex_event *event, struct at_simplex_update *ret_update)
{
    memset(&x->update, 0, sizeof x->update);
    x->update.ops = x->ops;
    x->from = AT_SEATS_MAX;
    x->out_lent = false;
    if (x->window != x->tip.view) {
        x->window = x->tip.view;
        x->window_certificate = x->tip.certificate;
    }
    if (event->now_ms > x->now_ms) x->now_ms = event->now_ms;
    x->clock_ms = event->clock_ms;
    if (!x->broken) {
        switch (event->kind) {
        case AT_SIMPLEX_START:
            x->started = true;
            at_simplex_send_status(x, at_simplex_all(x), true);
            break;
        case AT_SIMPLEX_TICK:
            break;
        case AT_SIMPLEX_PERSISTED:
            if (event->persisted > x->durable) x->durable = event->persisted;
            break;
        case AT_SIMPLEX_SUBMIT:
            x->update.err = at_simplex_queue_add(x, x->me, event->record);
            break;
        case AT_SIMPLEX_MESSAGE:
            AT_ASSERT(event->from < x->options.seat_count && event->from != x->me);
            x->from = event->from;
            x->update.err = take_message(x, event->message);
            break;
        case AT_SIMPLEX_LINK:
            AT_ASSERT(event->from < x->options.seat_count && event->from != x->me);
            x->peer[event->from].view = 0;
            at_simplex_send_status(x, AT_BIT(event->from), !at_simplex_voting(x));
            send_view(x, AT_BIT(event->from));
            break;
        }
        if (x->started) progress(x);
    }
    if (x->broken) x->update.err = AT_E_VERIFY;
    *ret_update = x->update;
}

/* ---- life ---- */
static bool options_ok(const struct at_simplex_options *o)
{
    return o->seat_count >= 1 && o->seat_count <= AT_SEATS_MAX && o->seat_count % 3 == 1 && o->seat < o->seat_count &&
           (o->views_max == 0 || (o->views_max >= AT_SIMPLEX_VIEWS_MIN && o->views_max <= AT_SIMPLEX_WINDOW)) &&
           o->delta_ms >= 1 && o->delta_ms <= o->delta_max_ms && o->delta_max_ms <= 1u << 30 &&
           (o->chain != NULL || o->seat_count == 1) && o->sign != NULL && o->verify != NULL && o->check != NULL;
}

at_err at_simplex_init(const struct at_simplex_options *options, struct at_simplex **ret_simplex)
{
    if (!options_ok(options)) return AT_E_USAGE;
    struct at_simplex *x = calloc(1, sizeof *x);
    if (x == NULL) return AT_E_NOMEM;
    x->options = *options;
    if (options->views_max == 0) x->options.views_max = AT_SIMPLEX_WINDOW;
    const uint32_t views = x->options.views_max;
    x->ops_max = SENDS_MAX + OTHERS_MAX + 2 * (size_t)views;
    x->ops = calloc(x->ops_max, sizeof *x->ops);
    x->views = calloc(views, sizeof *x->views);
    x->path = calloc(views, sizeof *x->path);
    x->queue = calloc(AT_SIMPLEX_QUEUE_MAX, sizeof *x->queue);
    x->out = malloc(AT_BLOCK_BYTES_MAX);
    x->room = malloc(sizeof *x->room);
    if (!x->ops || !x->views || !x->path || !x->queue || !x->out || !x->room) {
        at_simplex_release(x);
        return AT_E_NOMEM;
    }
    x->f = (options->seat_count - 1) / 3;
    x->me = options->seat;
    x->tip = options->tip;
    x->window = x->tip.view;
    x->window_certificate = x->tip.certificate;
    x->view = x->tip.view + 1;
    x->delta_ms = options->delta_ms;
    x->abstaining = options->abstain;
    at_simplex_queue_init(x);
    *ret_simplex = x;
    return AT_OK;
}

void at_simplex_release(struct at_simplex *x)
{
    if (x == NULL) return;
    free(x->ops);
    free(x->views);
    free(x->path);
    free(x->queue);
    free(x->out);
    free(x->room);
    free(x);
}

struct at_simplex_status at_simplex_status(const struct at_simplex *x)
{
    return (struct at_simplex_status){.view = x->view,
                                      .tip_view = x->tip.view,
                                      .pending = x->queue_count,
                                      .delta_ms = x->delta_ms,
                                      .voting = at_simplex_voting(x),
                                      .abstaining = x->abstaining};
}
