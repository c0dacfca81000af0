/* ranks_door.c: the I/O thread's sockets: addresses, who listens and where, dialling, accepting. */
#include "net/ranks_inner.h"
#include "os/sys.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

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

void at_ranks_free(struct conn *c)
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

/* Those that never were a rank's leave no trace. */
void at_ranks_sweep(struct at_ranks_tls *w)
{
    int kept = 0;
    for (int i = 0; i < w->conns; i++) {
        struct conn *c = w->conn[i];
        if (c->state == CONN_CLOSED && !c->greeted)
            at_ranks_free(c);
        else
            w->conn[kept++] = c;
    }
    w->conns = kept;
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

static void notice_shortage(struct at_ranks_tls *w, int why)
{
    struct at_diag what = {0};
    at_fail(&what, AT_E_ENV, "links", "%s can open no further link: %s%s", at_ranks_text(w, w->rank).s, strerror(why),
            why == EMFILE ? "; allow more open files (ulimit -n)" : "");
    at_ranks_notice(w, &what);
}

void at_ranks_dial(struct at_ranks_tls *w, int rank, const char *host, uint16_t port)
{
    union address a;
    socklen_t bytes;
    int fd = parse_address(host, port, &a, &bytes) ? socket(a.any.sa_family, SOCK_STREAM, 0) : (errno = EINVAL, -1);
    int why = fd < 0 ? errno : ENOMEM;
    struct conn *c = fd >= 0 ? add_conn(w, fd) : NULL;
    if (c == NULL) {
        notice_shortage(w, why);
        return;
    }
    c->rank = rank;
    c->dialed = true;
    c->state = CONN_CONNECT;
    snprintf(c->host, sizeof c->host, "%s", host);
    if (connect(fd, &a.any, bytes) != 0 && errno != EINPROGRESS) at_ranks_lost(w, c, strerror(errno));
}

/* The nth of the accepted connections whose key is not proven yet, in the order they came; *ret_count: of all. */
static struct conn *unproven(const struct at_ranks_tls *w, int nth, int *ret_count)
{
    struct conn *found = NULL;
    int n = 0;
    for (int i = 0; i < w->conns; i++) {
        struct conn *c = w->conn[i];
        if (c->dialed || c->state != CONN_HANDSHAKE) continue;
        if (n++ == nth) found = c;
    }
    *ret_count = n;
    return found;
}

/* When there are too many: the older half keeps its places, so that nobody can be pushed out by those who come later; of
 * the younger half a random one goes, so that whoever was there first cannot keep everybody out. A rank that this hits
 * dials again. */
static void make_room(struct at_ranks_tls *w)
{
    enum { KEPT = AT_RANKS_UNPROVEN_MAX / 2 };
    int count;
    at_ranks_sweep(w);
    w->lot = w->lot * 6364136223846793005u + at_clock_mono_ns(); /* nobody outside sees it; it need not be secret */
    struct conn *c = unproven(w, KEPT + (int)((w->lot >> 33) % (AT_RANKS_UNPROVEN_MAX - KEPT)), &count);
    if (count < AT_RANKS_UNPROVEN_MAX) return;
    at_ranks_close(w, c);
    at_ranks_sweep(w);
}

/* The next poll would come back at once, so there is none for a moment. What strangers hold they give back in time; when
 * they hold nothing, this rank will not be linked. */
static void shut_door(struct at_ranks_tls *w, int why)
{
    int count;
    unproven(w, 0, &count);
    w->shut_ms = at_clock_mono_ms() + AT_RANKS_SHUT_MS;
    if (count == 0 && !w->go) notice_shortage(w, why);
}

void at_ranks_accept(struct at_ranks_tls *w)
{
    for (int i = 0; i < 16; i++) {
        union address a;
        socklen_t bytes = sizeof a;
        int fd = accept(w->listen_fd, &a.any, &bytes);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)) shut_door(w, errno);
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

void at_ranks_connected(struct at_ranks_tls *w, struct conn *c)
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
