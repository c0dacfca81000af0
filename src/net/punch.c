#define _DEFAULT_SOURCE /* SO_ATTACH_FILTER */
/* TCP hole punching by simultaneous open (RFC 793 3.4, RFC 5128 3.4).
 *
 * A connection of its own, the probe, shows the arranger from where this node's packets come: its local port is taken
 * fresh, and the same port then connects to the peer, for a NAT that maps a port the same way whoever it talks to lets
 * exactly that through. The probe stays open, so that the mapping does, and closes when the punch's time is over whatever
 * came of it: an arranger must not see which of the addresses that it names answer, and how. A first packet that
 * comes too early may be answered with a reset, by a NAT or (on one machine) by the kernel: a filter on the socket throws
 * resets away while it connects, so that the peer's own first packet finds it still waiting. Where there is no such filter, and
 * for the other errors, it tries again, at most TRIES_MAX times and for punch_ms. */
#include "net/address.h"
#include "net/link.h"

#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <linux/filter.h>
#endif

#define RETRY_MS  100
#define TRIES_MAX 16

struct punch {
    uv_tcp_t probe;
    uv_connect_t connect;
    uv_write_t write;
    uv_timer_t timer, end;
    uint32_t open_handles; /* of probe, timer, end */
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

static void close_now(struct punch *p)
{
    if (!uv_is_closing((uv_handle_t *)&p->probe)) uv_close((uv_handle_t *)&p->probe, on_closed);
    if (!uv_is_closing((uv_handle_t *)&p->timer)) uv_close((uv_handle_t *)&p->timer, on_closed);
    if (!uv_is_closing((uv_handle_t *)&p->end)) uv_close((uv_handle_t *)&p->end, on_closed);
}

void at_punch_close(struct link *l)
{
    if (l->punch && (!l->punch->going || l->net->releasing)) close_now(l->punch);
}

static void on_end(uv_timer_t *timer)
{
    close_now(((struct link *)timer->data)->punch);
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
    p->probe.data = p->timer.data = p->end.data = p->connect.data = l;
    at_meet_prelude(&l->meet.token, p->prelude);
    at_address_to(&any, &sa);                                   /* port 0: a fresh one */
    int rc = uv_tcp_bind(&p->probe, (struct sockaddr *)&sa, 0); /* libuv sets SO_REUSEADDR */
    if (!rc) rc = uv_tcp_connect(&p->connect, &p->probe, (const struct sockaddr *)arranger, on_probe);
    if (rc) at_link_fail(l, AT_E_ENV, "cannot reach the arranger at %s: %s", l->address, uv_strerror(rc));
}

/* ---- punching ---- */
static void ignore_resets(uv_tcp_t *tcp, bool ignore)
{
#ifdef __linux__
    /* The filter sees the segment from its TCP header on; byte 13 holds the flags, bit 2 of it is RST. */
    struct sock_filter code[] = {BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 4, 0, 1),
                                 BPF_STMT(BPF_RET | BPF_K, 0), BPF_STMT(BPF_RET | BPF_K, UINT32_MAX)};
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
    uv_os_fd_t fd;
    if (uv_fileno((uv_handle_t *)tcp, &fd) != 0) return;
    if (ignore)
        (void)setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
    else
        (void)setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &program, sizeof program);
#endif
}

static void on_retry(uv_timer_t *timer);

static void on_punched(uv_connect_t *req, int status)
{
    struct link *l = req->data;
    if (l->state != LINK_CONNECT) return;
    if (status >= 0) {
        ignore_resets(&l->tcp, false);
        if (at_link_start_tls(l) != AT_OK) at_link_fail(l, AT_E_NOMEM, "out of memory");
    } else if (l->punch->tries >= TRIES_MAX) {
        at_link_fail(l, AT_E_PEER, "cannot punch through to %s: %s", l->address, uv_strerror(status));
    } else {
        uv_timer_start(&l->punch->timer, on_retry, RETRY_MS, 0);
    }
}

static void punch_once(struct link *l)
{
    struct punch *p = l->punch;
    p->tries++;
    l->connect.data = l;
    int rc = uv_tcp_bind(&l->tcp, (struct sockaddr *)&p->local, 0);
    if (!rc) {
        ignore_resets(&l->tcp, true);
        rc = uv_tcp_connect(&l->connect, &l->tcp, (struct sockaddr *)&p->peer, on_punched);
    }
    if (rc) at_link_fail(l, AT_E_ENV, "cannot punch through to %s: %s", l->address, uv_strerror(rc));
}

static void on_old_closed(uv_handle_t *handle)
{
    struct link *l = handle->data;
    l->handle_open = false;
    if (l->state != LINK_CONNECT) return;
    AT_ASSERT(uv_tcp_init(l->net->loop, &l->tcp) == 0);
    l->tcp.data = l;
    l->handle_open = true;
    punch_once(l);
}

static void on_retry(uv_timer_t *timer)
{
    struct link *l = timer->data;
    if (l->state == LINK_CONNECT) uv_close((uv_handle_t *)&l->tcp, on_old_closed);
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
}
