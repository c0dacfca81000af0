#include "net/net.h"

#include "net/link.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define TICK_MS    250
#define SLOTS_BITS 16 /* id = number << SLOTS_BITS | slot */

static struct link *find(const struct at_net *net, struct at_link_id id)
{
    uint32_t slot = (uint32_t)(id.v & ((1u << SLOTS_BITS) - 1));
    struct link *l = slot < net->opt.links_max ? net->link[slot] : NULL;
    return l && l->id.v == id.v ? l : NULL;
}

static struct link *new_link(struct at_net *net, bool dialed)
{
    struct link *l = NULL;
    uint32_t slot = 0;
    while (slot < net->opt.links_max && net->link[slot]) slot++;
    if (slot == net->opt.links_max || !(l = calloc(1, sizeof *l))) return NULL;
    l->net = net;
    l->id.v = ++net->next_id << SLOTS_BITS | slot;
    l->dialed = dialed;
    l->state = LINK_CONNECT;
    l->born_ms = l->heard_ms = l->pinged_ms = uv_now(net->loop);
    l->deadline_ms = l->born_ms + net->opt.handshake_ms;
    l->in.bytes_max = (size_t)4 << 20;
    l->out.bytes_max = (size_t)8 << 20;
    if (uv_tcp_init(net->loop, &l->tcp)) {
        free(l);
        return NULL;
    }
    l->tcp.data = l;
    l->handle_open = true;
    net->link[slot] = l;
    net->link_count++;
    return l;
}

static void set_address(struct link *l, const struct sockaddr *sa)
{
    int port = 0;
    if (sa->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)sa;
        uv_ip6_name(in6, l->host, sizeof l->host);
        port = ntohs(in6->sin6_port);
        snprintf(l->address, sizeof l->address, "[%s]:%d", l->host, port);
    } else {
        const struct sockaddr_in *in4 = (const struct sockaddr_in *)(const void *)sa;
        uv_ip4_name(in4, l->host, sizeof l->host);
        port = ntohs(in4->sin_port);
        snprintf(l->address, sizeof l->address, "%s:%d", l->host, port);
    }
}

/* ---- accepting ---- */
/* Room for an accepted link: among the half-open ones the oldest gives way (a peer that means it needs milliseconds, so
 * the oldest is the likeliest idler); proven ones stay, up to a number per address. */
static void make_room(struct at_net *net, struct link *fresh)
{
    struct link *oldest = NULL, *oldest_here = NULL;
    uint32_t half_open = 0, half_open_here = 0, here = 0;
    for (uint32_t i = 0; i < net->opt.links_max; i++) {
        struct link *l = net->link[i];
        if (!l || l == fresh || l->dialed || l->state == LINK_DEAD) continue;
        bool same = strcmp(l->host, fresh->host) == 0;
        here += same;
        if (!at_link_half_open(l)) continue;
        half_open++;
        half_open_here += same;
        if (!oldest || l->id.v >> SLOTS_BITS < oldest->id.v >> SLOTS_BITS) oldest = l;
        if (same && (!oldest_here || l->id.v >> SLOTS_BITS < oldest_here->id.v >> SLOTS_BITS)) oldest_here = l;
    }
    if (half_open_here >= net->opt.half_open_per_address)
        at_link_fail(oldest_here, AT_E_PEER, "too many half-open links from %s", fresh->host);
    else if (half_open >= net->opt.half_open_max)
        at_link_fail(oldest, AT_E_PEER, "too many half-open links");
    else if (here >= net->opt.links_per_address)
        at_link_fail(fresh, AT_E_PEER, "too many links from %s", fresh->host);
}

static void free_handle(uv_handle_t *handle)
{
    free(handle);
}

/* No slot is free: take the connection only to end it, else it would be offered again and again. */
static void turn_away(struct at_net *net, uv_stream_t *listener)
{
    uv_tcp_t *tcp = malloc(sizeof *tcp);
    if (!tcp) return;
    if (uv_tcp_init(net->loop, tcp)) {
        free(tcp);
        return;
    }
    (void)uv_accept(listener, (uv_stream_t *)tcp);
    uv_close((uv_handle_t *)tcp, free_handle);
    net->stats.refused++;
    snprintf(net->stats.refused_reason, sizeof net->stats.refused_reason, "all %u links are taken", net->opt.links_max);
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct at_net *net = listener->data;
    struct sockaddr_storage sa;
    int sa_bytes = sizeof sa;
    if (status < 0) return;
    struct link *l = new_link(net, false);
    if (!l) {
        turn_away(net, listener);
        return;
    }
    int rc = uv_accept(listener, (uv_stream_t *)&l->tcp);
    if (!rc) rc = uv_tcp_getpeername(&l->tcp, (struct sockaddr *)&sa, &sa_bytes);
    if (rc) {
        at_link_fail(l, AT_E_PEER, "cannot accept: %s", uv_strerror(rc));
        return;
    }
    set_address(l, (struct sockaddr *)&sa);
    make_room(net, l);
    if (l->state != LINK_DEAD && at_link_start_tls(l) != AT_OK) at_link_fail(l, AT_E_NOMEM, "out of memory");
}

/* Numeric hosts only; "localhost" is the one name that needs no lookup. */
static bool parse_host(const char *host, uint16_t port, struct sockaddr_storage *ret_sa)
{
    memset(ret_sa, 0, sizeof *ret_sa);
    if (strcmp(host, "localhost") == 0) host = "127.0.0.1";
    return uv_ip4_addr(host, port, (struct sockaddr_in *)ret_sa) == 0 ||
           uv_ip6_addr(host, port, (struct sockaddr_in6 *)ret_sa) == 0;
}

at_err_t at_net_listen(struct at_net *net, const char *host, uint16_t port, struct at_diag *diag, uint16_t *ret_port)
{
    struct sockaddr_storage sa;
    char where[300];
    int sa_bytes = sizeof sa;
    snprintf(where, sizeof where, "%s:%u", host, port);
    AT_ASSERT(!net->listening);
    if (!parse_host(host, port, &sa))
        return at_fail(diag, AT_E_USAGE, where,
                       "cannot listen on %s: the host must be a numeric address of this machine", where);
    int rc = uv_tcp_bind(&net->listener, (struct sockaddr *)&sa, 0);
    if (!rc) rc = uv_listen((uv_stream_t *)&net->listener, 128, on_connection);
    if (!rc) rc = uv_tcp_getsockname(&net->listener, (struct sockaddr *)&sa, &sa_bytes);
    if (rc == UV_EADDRINUSE)
        return at_fail(diag, AT_E_PORT, where,
                       "port %u on %s is in use by another program; end it, or choose another with --listen %s:PORT",
                       port, host, host);
    if (rc) return at_fail(diag, AT_E_PORT, where, "cannot listen on %s: %s", where, uv_strerror(rc));
    net->listening = true;
    *ret_port = ntohs(sa.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&sa)->sin6_port
                                               : ((struct sockaddr_in *)&sa)->sin_port);
    return AT_OK;
}

/* ---- dialing ---- */
static void on_connected(uv_connect_t *req, int status)
{
    struct link *l = req->data;
    if (l->state == LINK_DEAD) return;
    if (status < 0)
        at_link_fail(l, AT_E_PEER, "cannot reach %s: %s", l->address, uv_strerror(status));
    else if (at_link_start_tls(l) != AT_OK)
        at_link_fail(l, AT_E_NOMEM, "out of memory");
}

static void connect_to(struct link *l, const struct sockaddr *sa)
{
    set_address(l, sa);
    l->state = LINK_CONNECT;
    l->connect.data = l;
    int rc = uv_tcp_connect(&l->connect, &l->tcp, sa, on_connected);
    if (rc) at_link_fail(l, AT_E_PEER, "cannot reach %s: %s", l->address, uv_strerror(rc));
}

static void on_looked_up(uv_getaddrinfo_t *req, int status, struct addrinfo *res)
{
    struct link *l = req->data;
    l->lookup_busy = false;
    if (l->state != LINK_DEAD) {
        if (status < 0 || !res)
            at_link_fail(l, AT_E_PEER, "cannot find %s: %s", l->address,
                         status < 0 ? uv_strerror(status) : "no address");
        else
            connect_to(l, res->ai_addr);
    }
    uv_freeaddrinfo(res);
}

at_err_t at_net_dial(struct at_net *net, const char *host, uint16_t port, const struct at_node_id *expected,
                     struct at_link_id *ret_link)
{
    struct sockaddr_storage sa;
    struct link *l = new_link(net, true);
    if (!l) return AT_E_TOO_BIG;
    l->expected = *expected;
    snprintf(l->address, sizeof l->address, "%.50s:%u", host, port);
    *ret_link = l->id;
    if (parse_host(host, port, &sa)) {
        connect_to(l, (struct sockaddr *)&sa);
        return AT_OK;
    }
    char service[8];
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    snprintf(service, sizeof service, "%u", port);
    l->state = LINK_LOOKUP;
    l->lookup.data = l;
    int rc = uv_getaddrinfo(net->loop, &l->lookup, on_looked_up, host, service, &hints);
    l->lookup_busy = rc == 0;
    if (rc) at_link_fail(l, AT_E_PEER, "cannot find %s: %s", l->address, uv_strerror(rc));
    return AT_OK;
}

/* ---- the user's calls ---- */
at_err_t at_net_send(struct at_net *net, struct at_link_id link, enum at_frame_class frame_class,
                     struct at_span payload)
{
    struct link *l = find(net, link);
    if (!l || l->state != LINK_UP) return AT_E_NOT_FOUND;
    if (payload.n > (frame_class == AT_FRAME_BULK ? AT_NET_BULK_BYTES_MAX : AT_NET_FRAME_BYTES_MAX))
        return AT_E_TOO_BIG;
    return at_link_queue(l, frame_class, payload);
}

void at_net_close(struct at_net *net, struct at_link_id link, const char *reason)
{
    struct link *l = find(net, link);
    if (!l || l->state >= LINK_CLOSING) return;
    if (l->state != LINK_UP) {
        at_link_fail(l, AT_OK, "%s", reason);
        return;
    }
    snprintf(l->down_reason, sizeof l->down_reason, "%s", reason);
    l->state = LINK_CLOSING;
    l->deadline_ms = uv_now(net->loop) + LINK_CLOSE_MS;
}

uint64_t at_net_rtt_us(const struct at_net *net, struct at_link_id link)
{
    const struct link *l = find(net, link);
    return l ? l->rtt_us : 0;
}

struct at_net_stats at_net_stats(const struct at_net *net)
{
    struct at_net_stats s = net->stats;
    for (uint32_t i = 0; i < net->opt.links_max; i++) {
        s.links += net->link[i] != NULL && net->link[i]->state != LINK_DEAD;
        s.half_open += net->link[i] != NULL && at_link_half_open(net->link[i]);
    }
    return s;
}

/* ---- the turn: what is queued goes out, what is over is told ---- */
static void tell_drain(struct link *l)
{
    if (!l->bulk_refused || l->state != LINK_UP || l->queue[AT_FRAME_BULK].bytes > l->net->opt.bulk_bytes_max / 2)
        return;
    l->bulk_refused = false;
    struct at_net_event ev = {.kind = AT_NET_DRAIN, .link = l->id, .address = l->address, .dialed = l->dialed};
    ev.peer = l->tls.peer;
    l->net->on_event(l->net->user, &ev);
}

static void tell_down(struct link *l)
{
    struct at_net *net = l->net;
    l->told_down = true;
    if (!l->told_up && !l->dialed) {
        net->stats.refused++;
        snprintf(net->stats.refused_reason, sizeof net->stats.refused_reason, "%.100s", l->down_reason);
        return;
    }
    struct at_net_event ev = {.kind = AT_NET_DOWN, .link = l->id, .address = l->address, .dialed = l->dialed};
    ev.peer = l->told_up ? l->tls.peer : l->expected;
    ev.err = l->down_err;
    ev.wrong_key = l->tls.wrong_key;
    ev.reason = l->down_reason;
    net->on_event(net->user, &ev);
}

static void bury(struct at_net *net, uint32_t slot)
{
    struct link *l = net->link[slot];
    if (l->handle_open || l->lookup_busy || l->write_busy) return; /* libuv still holds a part of it */
    net->link[slot] = NULL;
    net->link_count--;
    at_link_free(l);
}

static void run_turn(struct at_net *net)
{
    for (uint32_t i = 0; i < net->opt.links_max && !net->releasing; i++) {
        struct link *l = net->link[i];
        if (!l) continue;
        at_link_pump(l);
        tell_drain(l);
        if (l->state != LINK_DEAD) continue;
        if (!l->told_down) tell_down(l);
        bury(net, i);
    }
}

/* Two turns per round of the loop: answers leave right after what they answer came in, and nothing waits through a
 * poll. */
static void on_before_poll(uv_prepare_t *handle)
{
    struct at_net *net = handle->data;
    run_turn(net);
    net->turn++;
    for (uint32_t i = 0; i < net->opt.links_max; i++)
        if (net->link[i]) at_link_resume(net->link[i]);
}

static void on_after_poll(uv_check_t *handle)
{
    run_turn(handle->data);
}

static void tick_link(struct link *l, uint64_t now)
{
    const struct at_net_options *o = &l->net->opt;
    if (l->state < LINK_UP && now >= l->deadline_ms) {
        at_link_fail(l, AT_E_PEER, l->state == LINK_HANDSHAKE ? "no handshake within %u ms" : "no answer within %u ms",
                     o->handshake_ms);
    } else if (l->state == LINK_CLOSING && now >= l->deadline_ms) {
        at_link_fail(l, AT_OK, "closed");
    } else if (l->state == LINK_UP && now - l->heard_ms >= o->silence_ms) {
        at_link_fail(l, AT_E_PEER, "silent for %u ms", o->silence_ms);
    } else if (l->state == LINK_UP && now - l->pinged_ms + TICK_MS / 2 >= o->ping_ms) {
        at_link_ping(l);
    }
}

/* When this process itself stood still (stopped, suspended), the links' silence in that time says nothing about the
 * peers: the tick before the first read after it must not close them. */
static void on_tick(uv_timer_t *handle)
{
    struct at_net *net = handle->data;
    uint64_t now = uv_now(net->loop), late = now - net->tick_ms > 4 * TICK_MS ? now - net->tick_ms : 0;
    net->tick_ms = now;
    for (uint32_t i = 0; i < net->opt.links_max; i++) {
        struct link *l = net->link[i];
        if (!l) continue;
        l->heard_ms = l->heard_ms + late < now ? l->heard_ms + late : now;
        if (l->state < LINK_CLOSING) l->deadline_ms += late;
        tick_link(l, now);
    }
}

/* ---- life ---- */
static void fill_defaults(struct at_net_options *o)
{
#define DEFAULT(field, value)                                                                                          \
    if (!o->field) o->field = (value)
    DEFAULT(links_max, 256);
    DEFAULT(half_open_max, 64);
    DEFAULT(half_open_per_address, 16);
    DEFAULT(links_per_address, 64);
    DEFAULT(control_bytes_max, (size_t)16 << 20);
    DEFAULT(bulk_bytes_max, (size_t)4 << 20);
    DEFAULT(read_bytes_per_turn, (size_t)1 << 20);
    DEFAULT(handshake_ms, 5000);
    DEFAULT(ping_ms, 1000);
    DEFAULT(silence_ms, 5000);
#undef DEFAULT
    AT_ASSERT(o->links_max <= 1u << SLOTS_BITS);
}

static void start_handles(struct at_net *net)
{
    AT_ASSERT(uv_tcp_init(net->loop, &net->listener) == 0 && uv_prepare_init(net->loop, &net->before_poll) == 0);
    AT_ASSERT(uv_check_init(net->loop, &net->after_poll) == 0 && uv_timer_init(net->loop, &net->tick) == 0);
    net->listener.data = net->before_poll.data = net->after_poll.data = net->tick.data = net;
    net->open_handles = 4;
    uv_update_time(net->loop);
    net->tick_ms = uv_now(net->loop);
    uv_prepare_start(&net->before_poll, on_before_poll);
    uv_check_start(&net->after_poll, on_after_poll);
    uv_timer_start(&net->tick, on_tick, TICK_MS, TICK_MS);
}

at_err_t at_net_init(uv_loop_t *loop, const struct at_keypair *key, const struct at_net_options *options,
                     at_net_event_fn *on_event, void *user, struct at_diag *diag, struct at_net **ret_net)
{
    at_err_t err = AT_E_NOMEM;
    struct at_net *net = calloc(1, sizeof *net);
    if (!net) return at_fail(diag, err, "net", "out of memory");
    if (options) net->opt = *options;
    fill_defaults(&net->opt);
    net->loop = loop;
    net->self = key->id;
    net->on_event = on_event;
    net->user = user;
    net->link = calloc(net->opt.links_max, sizeof *net->link);
    net->read_buf = malloc((size_t)64 << 10);
    if (net->link && net->read_buf)
        err = at_tls_ctx_init(key, diag, &net->tls);
    else
        err = at_fail(diag, err, "net", "out of memory");
    if (!err) {
        start_handles(net);
        *ret_net = net;
        return AT_OK;
    }
    free(net->read_buf);
    free(net->link);
    free(net);
    return err;
}

static void free_when_all_closed(struct at_net *net)
{
    for (uint32_t i = 0; i < net->opt.links_max; i++)
        if (net->link[i]) bury(net, i);
    if (net->open_handles) return;
    AT_ASSERT(net->link_count == 0);
    at_tls_ctx_release(net->tls);
    at_message_mem_release(&net->ping_mem);
    free(net->read_buf);
    free(net->link);
    free(net);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct at_net *net = handle->data;
    net->open_handles--;
    free_when_all_closed(net);
}

/* The timer closes last: until then it keeps the loop turning and looks whether libuv has let go of every link. */
static void on_releasing(uv_timer_t *handle)
{
    struct at_net *net = handle->data;
    bool busy = false;
    for (uint32_t i = 0; i < net->opt.links_max; i++) {
        const struct link *l = net->link[i];
        busy |= l && (l->handle_open || l->lookup_busy || l->write_busy);
    }
    if (!busy && net->open_handles == 1) uv_close((uv_handle_t *)handle, on_handle_closed);
}

void at_net_release(struct at_net *net)
{
    if (!net) return;
    net->releasing = true;
    for (uint32_t i = 0; i < net->opt.links_max; i++)
        if (net->link[i]) at_link_fail(net->link[i], AT_OK, "this node ends");
    uv_close((uv_handle_t *)&net->listener, on_handle_closed);
    uv_close((uv_handle_t *)&net->before_poll, on_handle_closed);
    uv_close((uv_handle_t *)&net->after_poll, on_handle_closed);
    uv_timer_stop(&net->tick);
    uv_timer_start(&net->tick, on_releasing, 1, 2);
}
