/* ranks_io.c: the I/O thread: bytes, TLS, heartbeats. Each turn: what the rank's thread asked for, what is due, then
 * poll, then whatever can be read and written. */
#include "net/ranks_inner.h"
#include "os/sys.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Per link, turn and direction: no link starves another, and a turn of a rank that has little of a processor still ends
 * soon enough for the heartbeats. */
#define TURN_BYTES ((size_t)256 << 10)
#define TURN_MS    100
#define AWAKE_MS   250  /* what a turn counts for at most: a busy machine is late by as much, a stopped one by more */
#define GOODBYE_MS 2000 /* for the last bytes to leave after release */
#define PARTING_MS 1500 /* the same after a verdict; whoever is hung is not waited for: its link is closed */
#define LATE_MS    2000 /* rank 0 after a verdict before all had come: whoever comes late is told, too */

/* ---- bytes -------------------------------------------------------------------------------------------------------- */

void at_ranks_note(struct at_ranks_tls *w, struct conn *c, enum at_box_kind kind, struct at_span payload)
{
    pthread_mutex_lock(&w->mutex);
    at_err_t err = at_box_note(&c->box, kind, payload);
    pthread_mutex_unlock(&w->mutex);
    if (err != AT_OK) at_ranks_lost(w, c, "no memory for what it is told");
}

/* Under the mutex. */
static void tell_finished(struct at_ranks_tls *w, struct conn *c)
{
    if (c->box.finished) pthread_cond_broadcast(&w->wake);
    c->box.finished = false;
}

static void notice_broken(struct at_ranks_tls *w, struct conn *c, at_err_t err, const struct at_diag *how)
{
    struct at_diag what = {0};
    char where[24];
    snprintf(where, sizeof where, "rank %d", c->rank);
    at_fail(&what, err, where, "%s %s", at_ranks_text(w, c->rank).s,
            how->err != AT_OK   ? how->text
            : err == AT_E_NOMEM ? "sends more than fits this machine's memory"
                                : "fails");
    c->deaf = true; /* nothing it says makes sense any more, but it is to hear the verdict */
    at_ranks_notice(w, &what);
}

/* A heartbeat that is due soon goes now: it then carries the acknowledgement that this one costs in any case. */
static void answer_beat(struct at_ranks_tls *w, struct conn *c)
{
    uint64_t now_ms = at_clock_mono_ms();
    if (w->release_ms != 0 || now_ms - c->beat_ms < w->opt.heartbeat_ms / 2) return;
    c->beat_ms = now_ms;
    at_ranks_note(w, c, AT_BOX_BEAT, (struct at_span){0});
}

static void read_some(struct at_ranks_tls *w, struct conn *c)
{
    c->more = false;
    uint8_t scratch[4096];
    for (size_t sum = 0; c->state == CONN_UP;) {
        if (sum >= TURN_BYTES) {
            c->more = true;
            return;
        }
        uint8_t *p = scratch;
        size_t n = sizeof scratch, got = 0;
        bool closed = false;
        struct at_diag how = {0};
        enum at_box_kind kind = 0;
        if (!c->deaf) {
            pthread_mutex_lock(&w->mutex);
            at_box_in_next(&c->box, &p, &n);
            pthread_mutex_unlock(&w->mutex);
        }
        at_err_t err = at_tls_read(&c->tls, p, n, &got, &closed);
        if (err != AT_OK) {
            at_ranks_lost(w, c, closed ? "connection closed" : c->tls.reason);
            return;
        }
        if (got == 0) return;
        sum += got;
        if (c->deaf) continue;
        pthread_mutex_lock(&w->mutex);
        err = at_box_in_took(&c->box, got, &how, &kind);
        tell_finished(w, c);
        bool beat = c->box.beat;
        c->box.beat = false;
        pthread_mutex_unlock(&w->mutex);
        if (beat) answer_beat(w, c);
        if (err != AT_OK) {
            notice_broken(w, c, err, &how);
            return;
        }
        if (kind != 0) at_ranks_on_note(w, c, kind, at_buf_span(&c->box.note));
    }
}

static void write_some(struct at_ranks_tls *w, struct conn *c)
{
    c->wants_write = false;
    for (size_t sum = 0; c->state == CONN_UP && sum < TURN_BYTES;) {
        struct at_span bytes;
        size_t n = 0;
        pthread_mutex_lock(&w->mutex);
        at_err_t err = at_box_out_next(&c->box, &bytes);
        pthread_mutex_unlock(&w->mutex);
        if (err != AT_OK) {
            at_ranks_lost(w, c, "no memory for what it is sent");
            return;
        }
        if (bytes.n == 0) return;
        if (at_tls_write_some(&c->tls, bytes, &n) != AT_OK) {
            /* What it said before it closed is still to be read: that comes first, and brings the end of file. */
            c->more = true;
            return;
        }
        if (n == 0) {
            c->wants_write = true;
            return;
        }
        pthread_mutex_lock(&w->mutex);
        at_box_out_took(&c->box, n);
        tell_finished(w, c);
        pthread_mutex_unlock(&w->mutex);
        sum += n;
        c->beat_ms = at_clock_mono_ms(); /* whatever was sent is a sign of life */
    }
}

static void shake_hands(struct at_ranks_tls *w, struct conn *c)
{
    bool done = false;
    if (at_tls_handshake(&c->tls, &done) != AT_OK) {
        at_ranks_lost(w, c, c->tls.reason);
        return;
    }
    c->wants_write = at_tls_wants_write(&c->tls);
    if (!done) return;
    c->state = CONN_UP;
    c->heard_awake_ms = w->awake_ms;
    at_ranks_proven(w, c);
}

static void drive(struct at_ranks_tls *w, struct conn *c, int events)
{
    if (c->state == CONN_CONNECT && (events & (POLLOUT | POLLERR | POLLHUP))) at_ranks_connected(w, c);
    if (c->state == CONN_HANDSHAKE && events != 0) shake_hands(w, c);
    /* A slow path takes seconds for one TLS record, of which nothing can be read before its end. */
    if (c->state == CONN_UP && (events & POLLIN)) c->heard_awake_ms = w->awake_ms;
    if (c->state == CONN_UP && (events != 0 || c->more)) read_some(w, c);
    if (c->state == CONN_UP && (!c->wants_write || (events & POLLOUT))) write_some(w, c);
}

/* ---- the loop ----------------------------------------------------------------------------------------------------- */

/* A turn that came late, because others had the processor, because this process was stopped or the machine asleep, says
 * nothing about the peers: only as much of it counts as a turn takes when all is well. */
static void keep_time(struct at_ranks_tls *w, uint64_t now_ms)
{
    uint64_t since_ms = w->turns++ > 0 ? now_ms - w->turn_ms : 0;
    w->awake_ms += since_ms < AWAKE_MS ? since_ms : AWAKE_MS;
    w->turn_ms = now_ms;
}

static void beat(struct at_ranks_tls *w, struct conn *c, uint64_t now_ms)
{
    if (c->state == CONN_HANDSHAKE || c->state == CONN_CONNECT) {
        uint64_t limit_ms = c->dialed && c->rank > 0 ? AT_RANKS_GREETING_MS : AT_RANKS_HANDSHAKE_MS;
        if (w->awake_ms - c->born_awake_ms > limit_ms) at_ranks_lost(w, c, "no answer");
        return;
    }
    if (c->state != CONN_UP || w->release_ms != 0) return;
    if (now_ms - c->beat_ms >= w->opt.heartbeat_ms) {
        c->beat_ms = now_ms;
        at_ranks_note(w, c, AT_BOX_BEAT, (struct at_span){0});
    }
    uint32_t patience_ms = w->opt.silence_ms * (w->rank == 0 || c->rank == 0 ? 1 : 3);
    if (w->awake_ms - c->heard_awake_ms > patience_ms && !c->bye) {
        char why[40];
        snprintf(why, sizeof why, "silent for %g s", patience_ms / 1000.0);
        at_ranks_notice_gone(w, c->rank, why); /* the link stays: should it wake up, it reads the verdict */
    }
}

/* After release: say good-bye, let what was sent leave, wait until the others have closed too. */
static bool is_over(struct at_ranks_tls *w, uint64_t now_ms)
{
    bool failed = w->verdict.err != AT_OK, over = true;
    if (w->release_ms == 0) {
        w->release_ms = now_ms;
        for (int i = 0; i < w->conns && !failed && !w->reported; i++)
            if (w->conn[i]->state == CONN_UP) at_ranks_note(w, w->conn[i], AT_BOX_BYE, (struct at_span){0});
        over = w->conns == 0 && w->verdict_ms == 0;
    } else {
        for (int i = 0; i < w->conns; i++) {
            struct conn *c = w->conn[i];
            if (c->state != CONN_UP) continue;
            /* Another rank may have noticed first that this one is hung: that is no reason to wait for it. */
            if (failed && w->awake_ms > c->heard_awake_ms + w->opt.heartbeat_ms + 500) continue;
            over = false;
            pthread_mutex_lock(&w->mutex);
            bool pending = at_box_out_pending(&c->box);
            pthread_mutex_unlock(&w->mutex);
            if (!pending) shutdown(c->fd, SHUT_WR);
        }
    }
    uint64_t limit_ms = failed ? PARTING_MS : GOODBYE_MS;
    if (failed && w->rank == 0 && !w->tabled) {
        over = over && w->told >= w->ranks - 1;
        limit_ms = LATE_MS;
    }
    return over || now_ms - w->release_ms > limit_ms;
}

static bool turn(struct at_ranks_tls *w)
{
    uint64_t now_ms = at_clock_mono_ms();
    keep_time(w, now_ms);
    pthread_mutex_lock(&w->mutex);
    struct at_diag own = w->own;
    bool releasing = w->releasing;
    pthread_mutex_unlock(&w->mutex);
    if (own.err != AT_OK) at_ranks_notice(w, &own);
    at_ranks_meet(w, now_ms);
    for (int i = 0; i < w->conns; i++) beat(w, w->conn[i], now_ms);
    if (w->verdict_ms != 0 && !releasing && !w->told_overdue && w->turns > w->verdict_turn + 1 &&
        now_ms - w->verdict_ms > w->opt.overdue_ms) {
        w->told_overdue = true;
        if (w->opt.overdue != NULL) w->opt.overdue(w->opt.arg, &w->verdict);
    }
    at_ranks_sweep(w);
    return !releasing || !is_over(w, now_ms);
}

static int poll_events(const struct conn *c)
{
    if (c->state == CONN_CONNECT) return POLLOUT;
    return c->wants_write ? POLLIN | POLLOUT : POLLIN;
}

static void wait_and_drive(struct at_ranks_tls *w)
{
    struct pollfd *set = w->poll_set;
    int timeout_ms = TURN_MS, count = w->conns;
    set[0] = (struct pollfd){.fd = w->wake_fd[0], .events = POLLIN};
    int door = at_clock_mono_ms() >= w->shut_ms ? w->listen_fd : -1; /* -1 is passed over */
    set[1] = (struct pollfd){.fd = door, .events = POLLIN};
    pthread_mutex_lock(&w->mutex);
    for (int i = 0; i < count; i++) {
        struct conn *c = w->conn[i];
        set[i + 2] = (struct pollfd){.fd = c->fd, .events = (short)poll_events(c)};
        if (c->state == CONN_UP && (c->more || (!c->wants_write && at_box_out_pending(&c->box)))) timeout_ms = 0;
    }
    w->asleep = timeout_ms > 0;
    pthread_mutex_unlock(&w->mutex);
    int ready = poll(set, (nfds_t)count + 2, timeout_ms);
    pthread_mutex_lock(&w->mutex);
    w->asleep = false;
    pthread_mutex_unlock(&w->mutex);
    if (ready < 0) ready = 0, memset(set, 0, ((size_t)count + 2) * sizeof *set);
    if (set[0].revents != 0) {
        char drop[64];
        while (read(w->wake_fd[0], drop, sizeof drop) == (ssize_t)sizeof drop) {
        }
    }
    for (int i = 0; i < count; i++) drive(w, w->conn[i], set[i + 2].revents);
    if (set[1].revents != 0) at_ranks_accept(w);
}

void *at_ranks_io_main(void *world)
{
    struct at_ranks_tls *w = world;
    while (turn(w)) wait_and_drive(w);
    pthread_mutex_lock(&w->mutex); /* the rank's thread is in release: nobody else looks any more */
    for (int i = 0; i < w->conns; i++) at_ranks_free(w->conn[i]);
    w->conns = 0;
    pthread_mutex_unlock(&w->mutex);
    if (w->listen_fd >= 0) close(w->listen_fd);
    return NULL;
}
