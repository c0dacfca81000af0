/* net_meet_util.h: three nodes on loops of their own in one thread, for net_meet*_test.c only: A and B have a link to Y each,
 * and what is told about other links is kept. A test drives all of them by step(); a wait has a minute. */
#ifndef ATOLL_NET_NET_MEET_UTIL_H
#define ATOLL_NET_NET_MEET_UTIL_H

#include "net/address.h"
#include "net/net.h"
#include "os/sys.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* A and B have a link to Y each. What is told about other links is kept here. */
struct side {
    uv_loop_t loop;
    struct at_keypair key;
    struct at_net *net;
    struct at_net_options opt;
    uint16_t port;
    bool stands_still;
    struct at_link_id to_y; /* A, B */
    int ups, downs, frames, drains;
    struct at_link_id link; /* the last that came up, and how */
    struct at_node_id peer;
    enum at_net_way way;
    bool dialed;
    uint64_t bulk_bytes;
    bool in_order;
    char address[64], reason[300], last[128];
    const char *veto;
    struct at_node_id arranger; /* as `allow` was told last */
    bool alone, no_loopback;    /* without `allow`; strict about addresses */
};
static struct side a, b, y;

static const char *allow(void *user, const struct at_node_id *asker, const struct at_node_id *target,
                         const struct at_node_id *arranger)
{
    struct side *s = user;
    s->arranger = *arranger;
    return s->veto;
}

static void on_event(void *user, const struct at_net_event *ev)
{
    struct side *s = user;
    if (ev->kind == AT_NET_UP) {
        s->ups++;
        s->link = ev->link;
        s->peer = ev->peer;
        s->way = ev->way;
        s->dialed = ev->dialed;
        snprintf(s->address, sizeof s->address, "%s", ev->address);
    } else if (ev->kind == AT_NET_FRAME && ev->frame_class == AT_FRAME_BULK) {
        s->in_order &= at_load_le64(ev->payload.p) == s->bulk_bytes;
        s->bulk_bytes += ev->payload.n;
    } else if (ev->kind == AT_NET_FRAME) {
        s->frames++;
        snprintf(s->last, sizeof s->last, "%.*s", (int)ev->payload.n, (const char *)ev->payload.p);
    } else if (ev->kind == AT_NET_DRAIN) {
        s->drains++;
    } else if (ev->kind == AT_NET_DOWN) {
        s->downs++;
        snprintf(s->reason, sizeof s->reason, "%s", ev->reason);
    }
}

static void side_init(struct side *s, const char *host)
{
    struct side given = *s;
    memset(s, 0, sizeof *s);
    s->opt = given.opt;
    s->in_order = true;
    s->opt.allow = given.alone ? NULL : allow;
    s->opt.may_be_invited = !given.alone;
    s->opt.meet_loopback = !given.no_loopback;
    s->opt.ping_ms = 200;
    s->opt.silence_ms = 60000; /* tests let nodes stand still */
    assert_int_equal(uv_loop_init(&s->loop), 0);
    assert_int_equal(at_keypair_generate(&s->key), AT_OK);
    assert_int_equal(at_net_init(&s->loop, &s->key, &s->opt, on_event, s, NULL, &s->net), AT_OK);
    if (host) assert_int_equal(at_net_listen(s->net, host, 0, NULL, &s->port), AT_OK);
}

static void side_release(struct side *s)
{
    if (!s->net) return;
    at_net_release(s->net);
    s->net = NULL;
    assert_int_equal(uv_run(&s->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&s->loop), 0);
}

/* Between a dialer and Y: the first connection is passed on, and what comes after it is the test's. */
static struct {
    int listener, in, out; /* -1: none */
    uint16_t port;
    uint64_t pause_ms, next_ms; /* it passes on so seldom; 0: always */
} bridge = {-1, -1, -1, 0, 0, 0};

enum { BRIDGE_BYTES = 4096 };
static void pass_on(int from, int to)
{
    char buf[BRIDGE_BYTES];
    ssize_t n = recv(from, buf, sizeof buf, MSG_DONTWAIT);
    if (n > 0) assert_int_equal(send(to, buf, (size_t)n, MSG_NOSIGNAL), n); /* little: it fits in the kernel */
}
static void bridge_step(void)
{
    if (bridge.in >= 0 && at_clock_mono_ms() < bridge.next_ms) return;
    if (bridge.in >= 0) {
        bridge.next_ms = at_clock_mono_ms() + bridge.pause_ms;
        pass_on(bridge.in, bridge.out);
        pass_on(bridge.out, bridge.in);
    } else if (bridge.listener >= 0 && (bridge.in = accept(bridge.listener, NULL, NULL)) >= 0) {
        struct sockaddr_storage sa;
        assert_true(at_address_numeric("127.0.0.1", y.port, &sa));
        bridge.out = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(connect(bridge.out, (struct sockaddr *)&sa, sizeof(struct sockaddr_in)), 0);
    }
}

static void step(void)
{
    bridge_step();
    struct side *s[3] = {&a, &b, &y};
    for (int i = 0; i < 3; i++)
        if (s[i]->net && !s[i]->stands_still) uv_run(&s[i]->loop, UV_RUN_NOWAIT);
}
#define RUN_UNTIL(cond)                                                                                                \
    for (uint64_t end_ = at_clock_mono_ms() + 60000; !(cond); step())                                                  \
        if (at_clock_mono_ms() > end_)                                                                                 \
    fail_msg("did not come true: %s (A: %s | B: %s | Y: %s)", #cond, a.reason, b.reason,                               \
             at_net_stats(y.net).refused_reason)

/* Links of A and B to Y, and round trips measured. */
static void world(const struct at_net_options *of_y, const char *host)
{
    if (of_y) y.opt = *of_y;
    if (!y.opt.meets_max) y.opt.meets_max = 8;
    y.opt.relays_max = y.opt.meets_max;
    if (!y.opt.meet_ms) y.opt.meet_ms = 30000; /* patient where a test does not look at it: the machine may be slow */
    if (!y.opt.handshake_ms) y.opt.handshake_ms = 30000;
    a.opt.punch_ms = b.opt.punch_ms = a.opt.meet_ms = b.opt.meet_ms = 30000;
    a.opt.handshake_ms = b.opt.handshake_ms = 30000;
    side_init(&y, host);
    side_init(&a, NULL);
    side_init(&b, NULL);
    assert_int_equal(at_net_dial(a.net, host, y.port, &y.key.id, &a.to_y), AT_OK);
    assert_int_equal(at_net_dial(b.net, host, y.port, &y.key.id, &b.to_y), AT_OK);
    RUN_UNTIL(a.ups == 1 && b.ups == 1 && y.ups == 2);
    RUN_UNTIL(at_net_rtt_us(a.net, a.to_y) && at_net_rtt_us(b.net, b.to_y));
}
static void bridge_close(int *fd)
{
    if (*fd >= 0) close(*fd);
    *fd = -1;
}
static int teardown(void **state)
{
    struct side *s[3] = {&a, &b, &y};
    for (int i = 0; i < 3; i++) {
        side_release(s[i]);
        memset(s[i], 0, sizeof *s[i]);
    }
    bridge_close(&bridge.listener);
    bridge_close(&bridge.in);
    bridge_close(&bridge.out);
    bridge.pause_ms = bridge.next_ms = 0;
    return 0;
}

/* A listener of the test's own; its port in *ret_port. */
static int raw_listen(uint16_t *ret_port)
{
    struct sockaddr_storage sa;
    socklen_t bytes = sizeof(struct sockaddr_in);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0 && at_address_numeric("127.0.0.1", 0, &sa));
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, bytes), 0);
    assert_int_equal(listen(fd, 4), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &bytes), 0);
    *ret_port = at_address_of((struct sockaddr *)&sa).port;
    return fd;
}

/* A second link of B's to Y, through the bridge; Y's end of it is y.link. */
static void link_by_bridge(void)
{
    struct at_link_id l;
    bridge.listener = raw_listen(&bridge.port);
    assert_int_equal(at_net_dial(b.net, "127.0.0.1", bridge.port, &y.key.id, &l), AT_OK);
    RUN_UNTIL(b.ups == 2 && y.ups == 3);
}

#endif
