#include "node/node_team.h"

#include "base/bytes.h"
#include "base/slots.h"
#include "net/ranks_box.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD_BYTES 8

struct peer {
    struct at_node_id id;
    uint32_t session; /* 0: not known yet */
    uint64_t link;
    struct at_box box;
};

struct at_team {
    int refs; /* of the loop's thread */
    uint32_t session;
    int rank, ranks;
    void (*notify)(void *user);
    void *user;
    uint8_t *frame; /* [AT_NET_BULK_BYTES_MAX] of the loop's thread */
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    /* under mutex */
    struct peer peer[AT_STAGES_MAX];
    bool joined;
    bool over; /* every buffer is let go; `verdict` says why */
    struct at_diag verdict;
    struct at_slots posts; /* of struct at_post */
    uint64_t bytes_sent;
};

struct at_team *at_team_new(const struct at_node_team *team, void (*notify)(void *user), void *user)
{
    struct at_team *t = calloc(1, sizeof *t);
    uint8_t *frame = malloc(AT_NET_BULK_BYTES_MAX);
    if (!t || !frame) {
        free(t);
        free(frame);
        return NULL;
    }
    t->refs = 1;
    t->session = team->session;
    t->rank = (int)team->rank;
    t->ranks = (int)team->ranks;
    t->notify = notify;
    t->user = user;
    at_slots_init(&t->posts, sizeof(struct at_post));
    t->frame = frame;
    for (int i = 0; i < t->ranks; i++) t->peer[i].id = team->peer[i].id;
    pthread_mutex_init(&t->mutex, NULL);
    pthread_cond_init(&t->wake, NULL);
    return t;
}

void at_team_keep(struct at_team *t)
{
    t->refs++;
}

void at_team_put(struct at_team *t)
{
    if (!t || --t->refs > 0) return;
    for (int i = 0; i < t->ranks; i++) at_box_release(&t->peer[i].box);
    at_slots_release(&t->posts);
    pthread_cond_destroy(&t->wake);
    pthread_mutex_destroy(&t->mutex);
    free(t->frame);
    free(t);
}

uint32_t at_team_session(const struct at_team *t)
{
    return t->session;
}

/* The first reason wins. Under the mutex. */
static void finish(struct at_team *t, at_err_t err, const char *where, const char *text)
{
    if (t->over) return;
    t->over = true;
    t->verdict = (struct at_diag){0};
    (void)at_fail(&t->verdict, err, where, "%s", text);
    for (int i = 0; i < t->ranks; i++) {
        at_err_t known = at_box_let_go(&t->peer[i].box); /* no memory: for a stream that nobody goes on with */
        (void)known;
    }
    pthread_cond_broadcast(&t->wake);
}

void at_team_join(struct at_team *t, const struct at_node_team *team)
{
    pthread_mutex_lock(&t->mutex);
    for (int i = 0; i < t->ranks; i++) {
        t->peer[i].session = team->peer[i].session;
        t->peer[i].link = team->peer[i].link;
    }
    t->joined = true;
    pthread_mutex_unlock(&t->mutex);
}

/* ---- the computing thread ---- */
/* {UINT64_MAX}: of a team that is over. */
static struct at_transfer post(struct at_team *t, bool is_send, int other, uint32_t tag, void *bytes, size_t n)
{
    struct at_diag diag = {0};
    struct at_transfer x = {UINT64_MAX};
    AT_ASSERT(other >= 0 && other < t->ranks && other != t->rank && n >= 1);
    pthread_mutex_lock(&t->mutex);
    struct at_post *s = t->over ? NULL : at_slots_take(&t->posts, &x.v);
    if (s) {
        *s = (struct at_post){.tag = tag, .bytes = bytes, .n = n};
        if (is_send) {
            t->bytes_sent += n;
            at_box_send(&t->peer[other].box, s);
        } else if (at_box_recv(&t->peer[other].box, s, &diag) != AT_OK) {
            finish(t, diag.err, diag.where, diag.text);
        }
    } else if (!t->over) {
        finish(t, AT_E_NOMEM, "stages", "no memory for one more transfer");
    }
    pthread_mutex_unlock(&t->mutex);
    t->notify(t->user); /* also for a receive: it may grant or give back */
    return x;
}

static struct at_transfer send_op(void *link, int to, uint32_t tag, const void *bytes, size_t n)
{
    return post(link, true, to, tag, (void *)(uintptr_t)bytes, n);
}

static struct at_transfer recv_op(void *link, int from, uint32_t tag, void *bytes, size_t n)
{
    return post(link, false, from, tag, bytes, n);
}

static at_err_t wait_op(void *link, struct at_transfer x, struct at_diag *diag)
{
    struct at_team *t = link;
    if (x.v == 0) return AT_OK;
    pthread_mutex_lock(&t->mutex);
    struct at_post *s = x.v == UINT64_MAX ? NULL : at_slots_at(&t->posts, x.v);
    while (s && !s->done && !t->over) pthread_cond_wait(&t->wake, &t->mutex);
    at_err_t err = AT_OK;
    if (!s || !s->done) err = at_fail(diag, t->verdict.err, t->verdict.where, "%s", t->verdict.text);
    if (s) at_slots_give(&t->posts, x.v);
    pthread_mutex_unlock(&t->mutex);
    return err;
}

static bool done_op(void *link, struct at_transfer x)
{
    struct at_team *t = link;
    pthread_mutex_lock(&t->mutex);
    bool done = x.v == 0 || t->over || ((struct at_post *)at_slots_at(&t->posts, x.v))->done;
    pthread_mutex_unlock(&t->mutex);
    return done;
}

/* The others hear of it by this member's next attempt, or by its link. */
static void fail_op(void *link, at_err_t err, const char *where, const char *text)
{
    struct at_team *t = link;
    pthread_mutex_lock(&t->mutex);
    finish(t, err, where, text);
    pthread_mutex_unlock(&t->mutex);
}

static uint64_t bytes_sent_op(void *link)
{
    struct at_team *t = link;
    pthread_mutex_lock(&t->mutex);
    uint64_t n = t->bytes_sent;
    pthread_mutex_unlock(&t->mutex);
    return n;
}

static const struct at_comm_ops ops = {send_op, recv_op, wait_op, done_op, fail_op, bytes_sent_op};

struct at_comm at_team_comm(struct at_team *t)
{
    return (struct at_comm){.rank = t->rank, .ranks = t->ranks, .ops = &ops, .link = t};
}

/* ---- the loop ---- */
static void pump_peer(struct at_team *t, struct peer *p, struct at_net *net)
{
    struct at_span next;
    at_err_t err = AT_OK;
    while (!t->over && (err = at_box_out_next(&p->box, &next)) == AT_OK && next.n > 0) {
        size_t n = next.n < AT_BOX_PIECE_BYTES ? next.n : AT_BOX_PIECE_BYTES;
        at_store_le32(t->frame, p->session);
        at_store_le32(t->frame + 4, t->session);
        memcpy(t->frame + HEAD_BYTES, next.p, n);
        err = at_net_send(net, (struct at_link_id){p->link}, AT_FRAME_ACTIVATION, at_span(t->frame, HEAD_BYTES + n));
        if (err == AT_E_TOO_BIG) return; /* DRAIN will come */
        if (err) break;
        at_box_out_took(&p->box, n);
    }
    if (err) finish(t, err == AT_E_NOMEM ? err : AT_E_PEER, "stages", "the link to another stage is over");
    if (p->box.finished) pthread_cond_broadcast(&t->wake);
    p->box.finished = false;
}

void at_team_pump(struct at_team *t, struct at_net *net)
{
    pthread_mutex_lock(&t->mutex);
    for (int i = 0; i < t->ranks && t->joined; i++)
        if (i != t->rank) pump_peer(t, &t->peer[i], net);
    pthread_mutex_unlock(&t->mutex);
}

static at_err_t feed(struct at_box *b, const uint8_t *from, size_t left, struct at_diag *diag)
{
    at_err_t err = AT_OK;
    while (left > 0 && !err) {
        uint8_t *to;
        size_t n;
        enum at_box_kind note = 0;
        at_box_in_next(b, &to, &n);
        if (n > left) n = left;
        memcpy(to, from, n);
        from += n;
        left -= n;
        err = at_box_in_took(b, n, diag, &note);
        if (!err && note != 0) err = at_fail(diag, AT_E_PEER, "stages", "a note between stages");
    }
    return err;
}

at_err_t at_team_frame(struct at_team *t, const struct at_node_id *from, struct at_span payload, struct at_diag *diag)
{
    if (payload.n <= HEAD_BYTES) return at_fail(diag, AT_E_PEER, "stages", "a frame between stages is too short");
    uint32_t to = at_load_le32(payload.p), by = at_load_le32(payload.p + 4);
    at_err_t err = AT_OK;
    pthread_mutex_lock(&t->mutex);
    for (int i = 0; i < t->ranks && !t->over && to == t->session; i++) {
        struct peer *p = &t->peer[i];
        if (i == t->rank || !at_node_id_eq(&p->id, from)) continue;
        if (p->session == 0) p->session = by;
        if (p->session != by) break;
        err = feed(&p->box, payload.p + HEAD_BYTES, payload.n - HEAD_BYTES, diag);
        if (p->box.finished) pthread_cond_broadcast(&t->wake);
        p->box.finished = false;
        if (err) finish(t, err, "stages", "another stage broke the protocol");
    }
    pthread_mutex_unlock(&t->mutex);
    t->notify(t->user); /* it may have granted, or given back */
    return err;
}

void at_team_link_down(struct at_team *t, uint64_t link, const char *reason)
{
    char text[200];
    snprintf(text, sizeof text, "the link to another stage is gone: %s", reason ? reason : "");
    pthread_mutex_lock(&t->mutex);
    for (int i = 0; i < t->ranks; i++)
        if (i != t->rank && t->peer[i].link == link) finish(t, AT_E_PEER, "stages", text);
    pthread_mutex_unlock(&t->mutex);
}

void at_team_end(struct at_team *t)
{
    pthread_mutex_lock(&t->mutex);
    finish(t, AT_E_INTERRUPTED, "stages", "not wanted any more");
    pthread_mutex_unlock(&t->mutex);
}
