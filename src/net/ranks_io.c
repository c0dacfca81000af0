/* ranks_io.c: the I/O thread: sockets, TLS, heartbeats. Each turn: what the rank's thread asked for, what is due, then
 * poll, then whatever can be read and written. */
#include "net/ranks_inner.h"
#include "os/sys.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
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

/* ---- addresses ---------------------------------------------------------------------------------------------------- */

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static bool parse_address(const char *host, uint16_t port, union address *ret, socklen_t *ret_bytes)
{
    memset(ret, 0, sizeof *ret);
    if (inet_pton(AF_INET, host, &ret->v4.sin_addr) == 1) {
        ret->v4.sin_family = AF_INET;
        ret->v4.sin_port = htons(port);
        *ret_bytes = sizeof ret->v4;
        return true;
    }
    if (inet_pton(AF_INET6, host, &ret->v6.sin6_addr) != 1) return false;
    ret->v6.sin6_family = AF_INET6;
    ret->v6.sin6_port = htons(port);
    *ret_bytes = sizeof ret->v6;
    return true;
}

static void print_address(const union address *a, char ret_host[AT_NOTE_HOST_BYTES])
{
    const void *raw = a->any.sa_family == AF_INET6 ? (const void *)&a->v6.sin6_addr : (const void *)&a->v4.sin_addr;
    if (inet_ntop(a->any.sa_family, raw, ret_host, AT_NOTE_HOST_BYTES) == NULL) snprintf(ret_host, 2, "?");
}

at_err_t at_ranks_address(const char *text, struct at_diag *diag, char ret_host[64], uint16_t *ret_port)
{
    const char *colon = strrchr(text, ':'), *digits = colon != NULL ? colon + 1 : text;
    char host[64] = "127.0.0.1", *end;
    union address a;
    socklen_t bytes;
    long port = strtol(digits, &end, 10);
    size_t n = colon != NULL ? (size_t)(colon - text) : 0;
    bool braces = n >= 2 && text[0] == '[' && text[n - 1] == ']';
    if (n > 0 && n < sizeof host)
        snprintf(host, sizeof host, "%.*s", (int)(braces ? n - 2 : n), text + (braces ? 1 : 0));
    if (digits[0] < '0' || digits[0] > '9' || *end != 0 || port > UINT16_MAX || n >= sizeof host ||
        (colon != NULL && n == 0) || !parse_address(host, (uint16_t)port, &a, &bytes))
        return at_fail(diag, AT_E_USAGE, text, "must be HOST:PORT with a numeric host, such as 192.168.1.5:4242");
    memcpy(ret_host, host, sizeof host);
    *ret_port = (uint16_t)port;
    return AT_OK;
}

static void prepare_socket(int fd)
{
    int on = 1;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

at_err_t at_ranks_listen(const char *host, uint16_t port, struct at_diag *diag, int *ret_fd, uint16_t *ret_port)
{
    union address a;
    socklen_t bytes;
    int on = 1;
    if (!parse_address(host, port, &a, &bytes)) return at_fail(diag, AT_E_USAGE, host, "is no numeric address");
    int fd = socket(a.any.sa_family, SOCK_STREAM, 0);
    if (fd < 0) return at_fail(diag, AT_E_ENV, host, "no socket: %s", strerror(errno));
    prepare_socket(fd);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, &a.any, bytes) != 0 || listen(fd, 128) != 0 || getsockname(fd, &a.any, &bytes) != 0) {
        char where[80];
        snprintf(where, sizeof where, "%s:%u", host, (unsigned)port);
        at_err_t err = at_fail(diag, AT_E_PORT, where, "cannot be listened at: %s", strerror(errno));
        close(fd);
        return err;
    }
    *ret_port = ntohs(a.any.sa_family == AF_INET6 ? a.v6.sin6_port : a.v4.sin_port);
    *ret_fd = fd;
    return AT_OK;
}

/* ---- connections -------------------------------------------------------------------------------------------------- */

static void free_conn(struct conn *c)
{
    if (c->fd >= 0) close(c->fd);
    at_tls_release(&c->tls);
    at_box_release(&c->box);
    free(c);
}

void at_ranks_close(struct at_ranks_tls *w, struct conn *c)
{
    if (c->state == CONN_CLOSED) return;
    c->state = CONN_CLOSED;
    at_tls_release(&c->tls);
    close(c->fd);
    c->fd = -1;
}

static struct conn *add_conn(struct at_ranks_tls *w, int fd)
{
    struct conn *c = w->conns < w->conns_max ? calloc(1, sizeof *c) : NULL;
    if (c == NULL) {
        close(fd);
        return NULL;
    }
    prepare_socket(fd);
    c->fd = fd;
    c->rank = -1;
    c->born_awake_ms = c->heard_awake_ms = w->awake_ms;
    c->beat_ms = at_clock_mono_ms();
    w->conn[w->conns++] = c;
    return c;
}

static bool start_tls(struct at_ranks_tls *w, struct conn *c)
{
    c->state = CONN_HANDSHAKE;
    return at_tls_init_socket(&c->tls, w->tls, c->dialed, c->dialed ? &w->id[c->rank] : NULL, c->fd) == AT_OK;
}

struct conn *at_ranks_dial(struct at_ranks_tls *w, int rank, const char *host, uint16_t port)
{
    union address a;
    socklen_t bytes;
    if (!parse_address(host, port, &a, &bytes)) return NULL;
    int fd = socket(a.any.sa_family, SOCK_STREAM, 0);
    struct conn *c = fd >= 0 ? add_conn(w, fd) : NULL;
    if (c == NULL) return NULL;
    c->rank = rank;
    c->dialed = true;
    c->state = CONN_CONNECT;
    snprintf(c->host, sizeof c->host, "%s", host);
    if (connect(fd, &a.any, bytes) != 0 && errno != EINPROGRESS) at_ranks_lost(w, c, strerror(errno));
    return c;
}

/* The oldest connection that has not shown its key gives way. */
static void make_room(struct at_ranks_tls *w)
{
    struct conn *oldest = NULL;
    int unproven = 0;
    for (int i = 0; i < w->conns; i++) {
        struct conn *c = w->conn[i];
        if (c->dialed || c->state != CONN_HANDSHAKE) continue;
        unproven++;
        if (oldest == NULL || c->born_awake_ms < oldest->born_awake_ms) oldest = c;
    }
    if (unproven >= AT_RANKS_UNPROVEN_MAX - 1) at_ranks_close(w, oldest);
}

static void accept_all(struct at_ranks_tls *w)
{
    for (int i = 0; i < 16; i++) {
        union address a;
        socklen_t bytes = sizeof a;
        int fd = accept(w->listen_fd, &a.any, &bytes);
        if (fd < 0) return;
        make_room(w);
        struct conn *c = add_conn(w, fd);
        if (c == NULL) return;
        print_address(&a, c->host);
        if (!start_tls(w, c)) at_ranks_close(w, c);
    }
}

/* The others listen where they reached rank 0 from; only then is it known which of their addresses that is. */
static void listen_beside(struct at_ranks_tls *w, struct conn *c)
{
    union address a;
    socklen_t bytes = sizeof a;
    char host[AT_NOTE_HOST_BYTES];
    uint16_t port = 0;
    if (w->opt.star || w->listen_fd >= 0 || getsockname(c->fd, &a.any, &bytes) != 0) return;
    print_address(&a, host);
    struct at_diag diag = {0};
    if (at_ranks_listen(host, 0, &diag, &w->listen_fd, &port) != AT_OK) {
        at_ranks_notice(w, &diag);
        return;
    }
    pthread_mutex_lock(&w->mutex);
    w->entry[w->rank].port = port;
    memcpy(w->entry[w->rank].host, host, sizeof host);
    pthread_mutex_unlock(&w->mutex);
}

static void finish_connect(struct at_ranks_tls *w, struct conn *c)
{
    int why = 0;
    socklen_t bytes = sizeof why;
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &why, &bytes) != 0) why = errno;
    if (why != 0) {
        at_ranks_lost(w, c, strerror(why));
        return;
    }
    if (c->rank == 0) listen_beside(w, c);
    if (c->state == CONN_CONNECT && !start_tls(w, c)) at_ranks_lost(w, c, "no memory");
}

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
    if (c->state == CONN_CONNECT && (events & (POLLOUT | POLLERR | POLLHUP))) finish_connect(w, c);
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

/* Those that never were a rank's leave no trace. */
static void sweep(struct at_ranks_tls *w)
{
    int kept = 0;
    for (int i = 0; i < w->conns; i++) {
        struct conn *c = w->conn[i];
        if (c->state == CONN_CLOSED && !c->greeted)
            free_conn(c);
        else
            w->conn[kept++] = c;
    }
    w->conns = kept;
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
    sweep(w);
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
    set[1] = (struct pollfd){.fd = w->listen_fd, .events = POLLIN}; /* -1 is passed over */
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
    if (set[1].revents != 0) accept_all(w);
}

void *at_ranks_io_main(void *world)
{
    struct at_ranks_tls *w = world;
    while (turn(w)) wait_and_drive(w);
    pthread_mutex_lock(&w->mutex); /* the rank's thread is in release: nobody else looks any more */
    for (int i = 0; i < w->conns; i++) free_conn(w->conn[i]);
    w->conns = 0;
    pthread_mutex_unlock(&w->mutex);
    if (w->listen_fd >= 0) close(w->listen_fd);
    return NULL;
}
