#define _DEFAULT_SOURCE /* SO_REUSEPORT */
/* TCP hole punching by simultaneous open (RFC 793 3.4), with an ear at the same port (RFC 5128 3.4).
 *
 * A connection of its own, the probe, shows the arranger from where this node's packets come: its local port is taken
 * fresh, and the same port then connects to the peer, for a NAT that maps a port the same way whoever it talks to lets
 * exactly that through. The probe stays open, so that the mapping does, and closes when the punch's time is over whatever
 * came of it: an arranger must not see which of the addresses that it names answer, and how. A first packet that
 * comes too early may be answered with a reset, by a NAT or (on one machine) by the kernel, and that attempt is over. So
 * the port listens too: when the peer's packet comes while no attempt of ours runs, the connection is made all the same. Who
 * comes from elsewhere is closed at once. Attempts are repeated, at most TRIES_MAX of them: each opens the NAT again, and
 * two that cross on the way meet. (A filter on the socket that drops resets would do as well, but some kernels let only
 * administrators attach one.) */
#include "net/address.h"
#include "net/link.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RETRY_MS    100
#define TRIES_MAX   16
#define BACKLOG     8
#define ACCEPTS_MAX 8 /* at a time: strangers must not hold up the loop */

struct punch {
    uv_tcp_t probe;
    uv_connect_t connect;
    uv_write_t write;
    uv_timer_t timer, end;
    uv_poll_t door;
    uint32_t open_handles; /* of probe, timer, end, door */
    int door_fd;           /* listens at `local`; -1: not */
    int came;              /* the peer's connection by the door, until the link has it; -1: none */
    bool going;            /* the peer's address is here; the probe closes by `end` */
    bool shown;            /* the probe is connected: `local` holds */
    uint32_t tries;
    struct sockaddr_storage local, peer;
    uint8_t prelude[AT_MEET_PRELUDE_BYTES];
};

bool at_punch_open(const struct link *l)
{
    return l->punch && l->punch->open_handles > 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct link *l = handle->data;
    l->punch->open_handles--;
}

bool at_punch_going(const struct link *l)
{
    return l->punch && l->punch->going;
}

struct at_endpoint at_punch_local(const struct link *l)
{
    return at_address_of((const struct sockaddr *)&l->punch->local);
}

static void close_door(struct punch *p)
{
    if (p->door_fd < 0) return;
    uv_close((uv_handle_t *)&p->door, on_closed);
    close(p->door_fd);
    p->door_fd = -1;
}

static void close_now(struct punch *p)
{
    close_door(p);
    if (!uv_is_closing((uv_handle_t *)&p->probe)) uv_close((uv_handle_t *)&p->probe, on_closed);
    if (!uv_is_closing((uv_handle_t *)&p->timer)) uv_close((uv_handle_t *)&p->timer, on_closed);
    if (!uv_is_closing((uv_handle_t *)&p->end)) uv_close((uv_handle_t *)&p->end, on_closed);
}

void at_punch_close(struct link *l)
{
    if (!l->punch) return;
    close_door(l->punch);
    if (!l->punch->going || l->net->releasing) close_now(l->punch);
}

static void on_end(uv_timer_t *timer)
{
    close_now(((struct link *)timer->data)->punch);
}

static bool set_flags(int fd)
{
    return fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 && fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0;
}

/* A socket at that address beside others there: the probe, the door and each attempt have one port. Negative: the error. */
static int socket_at(const struct sockaddr_storage *sa)
{
    socklen_t bytes = sa->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    int on = 1, fd = socket(sa->ss_family, SOCK_STREAM, 0);
    if (fd >= 0 && set_flags(fd) && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0 &&
        bind(fd, (const struct sockaddr *)sa, bytes) == 0)
        return fd;
    int e = errno;
    if (fd >= 0) close(fd);
    return uv_translate_sys_error(e);
}

static int open_at(uv_tcp_t *tcp, const struct sockaddr_storage *sa)
{
    int fd = socket_at(sa), rc = fd < 0 ? fd : uv_tcp_open(tcp, fd);
    if (fd >= 0 && rc) close(fd);
    return rc;
}

/* ---- showing the port ---- */
static void on_shown(uv_write_t *req, int status) {} /* if it failed, the arranger's word does not come */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct link *l = handle->data;
    *buf = uv_buf_init((char *)l->net->read_buf, LINK_READ_BYTES);
}

/* The arranger says nothing here; that it closes before it named the peer means that the token is not known there. */
static void on_probe_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct link *l = stream->data;
    if (n == 0) return;
    uv_read_stop(stream);
    if (l->state == LINK_MEET && !l->punch->going)
        at_link_fail(l, AT_E_PEER, "the arranger at %s ended the meeting", l->address);
}

static void on_probe(uv_connect_t *req, int status)
{
    struct link *l = req->data;
    struct punch *p = l->punch;
    int n = sizeof p->local;
    if (l->state != LINK_MEET) return;
    uv_buf_t buf = uv_buf_init((char *)p->prelude, sizeof p->prelude);
    int rc = status;
    if (rc >= 0) rc = uv_tcp_getsockname(&p->probe, (struct sockaddr *)&p->local, &n);
    if (rc >= 0) rc = uv_write(&p->write, (uv_stream_t *)&p->probe, &buf, 1, on_shown);
    if (rc >= 0) rc = uv_read_start((uv_stream_t *)&p->probe, on_alloc, on_probe_read);
    if (rc < 0)
        at_link_fail(l, AT_E_PEER, "cannot reach the arranger at %s: %s", l->address, uv_strerror(rc));
    else
        p->shown = true;
}

void at_punch_begin(struct link *l, const struct sockaddr_storage *arranger)
{
    struct punch *p = l->punch = calloc(1, sizeof *p);
    struct at_endpoint any = {.ip_bytes = arranger->ss_family == AF_INET6 ? 16 : 4};
    struct sockaddr_storage sa;
    if (!p) {
        at_link_fail(l, AT_E_NOMEM, "out of memory");
        return;
    }
    AT_ASSERT(uv_tcp_init(l->net->loop, &p->probe) == 0 && uv_timer_init(l->net->loop, &p->timer) == 0);
    AT_ASSERT(uv_timer_init(l->net->loop, &p->end) == 0);
    p->open_handles = 3;
    p->door_fd = p->came = -1;
    p->probe.data = p->timer.data = p->end.data = p->connect.data = l;
    at_meet_prelude(&l->meet.token, p->prelude);
    at_address_to(&any, &sa); /* port 0: a fresh one */
    int rc = open_at(&p->probe, &sa);
    if (!rc) rc = uv_tcp_connect(&p->connect, &p->probe, (const struct sockaddr *)arranger, on_probe);
    if (rc) at_link_fail(l, AT_E_ENV, "cannot reach the arranger at %s: %s", l->address, uv_strerror(rc));
}

/* ---- punching ---- */
static void on_retry(uv_timer_t *timer);

static void connected(struct link *l)
{
    close_door(l->punch);
    uv_timer_stop(&l->punch->timer);
    if (at_link_start_tls(l) != AT_OK) at_link_fail(l, AT_E_NOMEM, "out of memory");
}

/* After the last attempt the peer may still come, until the link's time is over. */
static void attempt_failed(struct link *l)
{
    if (l->punch->tries < TRIES_MAX) uv_timer_start(&l->punch->timer, on_retry, RETRY_MS, 0);
}

static void on_punched(uv_connect_t *req, int status)
{
    struct link *l = req->data;
    if (l->state != LINK_CONNECT || l->punch->came >= 0) return;
    if (status >= 0)
        connected(l);
    else
        attempt_failed(l);
}

/* That the address is in use, by connect, means that the peer's connection is just coming in by the door. */
static void punch_once(struct link *l)
{
    struct punch *p = l->punch;
    p->tries++;
    l->connect.data = l;
    int rc = open_at(&l->tcp, &p->local);
    if (!rc) rc = uv_tcp_connect(&l->connect, &l->tcp, (struct sockaddr *)&p->peer, on_punched);
    if (rc) attempt_failed(l);
}

/* Where an attempt was, there is the connection that came, or another attempt. */
static void on_old_closed(uv_handle_t *handle)
{
    struct link *l = handle->data;
    struct punch *p = l->punch;
    int fd = p->came;
    p->came = -1;
    l->handle_open = false;
    if (l->state == LINK_CONNECT) {
        AT_ASSERT(uv_tcp_init(l->net->loop, &l->tcp) == 0);
        l->tcp.data = l;
        l->handle_open = true;
        if (fd < 0) {
            punch_once(l);
        } else if (uv_tcp_open(&l->tcp, fd) == 0) {
            connected(l);
            return;
        } else {
            at_link_fail(l, AT_E_ENV, "cannot take the connection from %s", l->address);
        }
    }
    if (fd >= 0) close(fd);
}

static void replace_socket(struct link *l)
{
    if (!uv_is_closing((uv_handle_t *)&l->tcp)) uv_close((uv_handle_t *)&l->tcp, on_old_closed);
}

static void on_retry(uv_timer_t *timer)
{
    struct link *l = timer->data;
    if (l->state == LINK_CONNECT) replace_socket(l);
}

static void on_door(uv_poll_t *door, int status, int events)
{
    struct link *l = door->data;
    struct punch *p = l->punch;
    struct at_endpoint peer = at_address_of((const struct sockaddr *)&p->peer);
    for (int i = 0; i < ACCEPTS_MAX; i++) {
        struct sockaddr_storage from;
        socklen_t bytes = sizeof from;
        int fd = accept(p->door_fd, (struct sockaddr *)&from, &bytes);
        if (fd < 0) return;
        struct at_endpoint who = at_address_of((const struct sockaddr *)&from);
        if ((l->state != LINK_MEET && l->state != LINK_CONNECT) || !at_endpoint_eq(&who, &peer) || !set_flags(fd)) {
            close(fd);
            continue;
        }
        l->state = LINK_CONNECT;
        p->came = fd;
        close_door(p);
        uv_timer_stop(&p->timer);
        replace_socket(l);
        return;
    }
}

static int open_door(struct link *l)
{
    struct punch *p = l->punch;
    int fd = socket_at(&p->local), rc = fd < 0 ? fd : 0;
    if (!rc && listen(fd, BACKLOG) != 0) rc = uv_translate_sys_error(errno);
    if (!rc) rc = uv_poll_init(l->net->loop, &p->door, fd);
    if (rc) {
        if (fd >= 0) close(fd);
        return rc;
    }
    p->door.data = l;
    p->door_fd = fd;
    p->open_handles++;
    return uv_poll_start(&p->door, UV_READABLE, on_door);
}

static void on_moment(uv_timer_t *timer)
{
    struct link *l = timer->data;
    if (l->state != LINK_MEET) return;
    l->state = LINK_CONNECT;
    at_link_wait(l, l->net->opt.punch_ms);
    punch_once(l);
}

void at_punch_go(struct link *l, const struct at_endpoint *peer, uint32_t wait_ms)
{
    struct punch *p = l->punch;
    if (!p || !p->shown || p->going) return; /* too early, or said twice */
    at_address_to(peer, &p->peer);
    if (p->peer.ss_family != p->local.ss_family) {
        at_link_fail(l, AT_E_PEER, "the arranger names an address of another family");
        return;
    }
    at_link_set_address(l, (struct sockaddr *)&p->peer);
    at_link_wait(l, wait_ms + l->net->opt.punch_ms);
    p->going = true;
    uv_timer_start(&p->timer, on_moment, wait_ms, 0);
    uv_timer_start(&p->end, on_end, (uint64_t)wait_ms + l->net->opt.punch_ms, 0);
    int rc = open_door(l);
    if (rc) at_link_fail(l, AT_E_ENV, "cannot listen for %s: %s", l->address, uv_strerror(rc));
}
