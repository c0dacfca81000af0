#include "net/net.h"

#include "net/address.h"
#include "net/link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define TICK_MS         250
#define SILENCE_TRIPS   23 /* round trips of silence more than on a LAN: 12 s at 300 ms */
#define SILENCE_MORE_MS 7000

struct link *at_link_find(const struct at_net *net, struct at_link_id id)
{
    uint32_t slot = (uint32_t)(id.v & ((1u << LINK_SLOTS_BITS) - 1));
    struct link *l = slot < net->opt.links_max ? net->link[slot] : NULL;
    return l && l->id.v == id.v ? l : NULL;
}

struct link *at_link_new(struct at_net *net, bool dialed)
{
    struct link *l = NULL;
    uint32_t slot = 0;
    while (slot < net->opt.links_max && net->link[slot]) slot++;
    if (slot == net->opt.links_max || !(l = calloc(1, sizeof *l))) return NULL;
    l->net = net;
    l->id.v = ++net->next_id << LINK_SLOTS_BITS | slot;
    l->dialed = l->pinned = dialed;
    l->state = LINK_CONNECT;
    l->born_ms = l->heard_ms = l->pinged_ms = uv_now(net->loop);
    at_link_wait(l, net->opt.handshake_ms);
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

/* ---- accepting ---- */
/* Room for an accepted link: among the half-open ones the oldest gives way (a peer that means it needs milliseconds, so
 * the oldest is the likeliest idler); proven ones stay, up to a number per address. */
static void make_room(struct at_net *net, struct link *fresh)
{
    struct link *oldest = NULL, *oldest_here = NULL;
    uint32_t half_open = 0, half_open_here = 0, here = 0;
    for (uint32_t i = 0; i < net->opt.links_max; i++) {
        struct link *l = net->link[i];
        if (!l || l == fresh || l->dialed || l->meet.how || l->state == LINK_DEAD) continue;
        bool same = at_endpoint_same_origin(&l->remote, &fresh->remote);
        here += same;
        if (!at_link_half_open(l)) continue;
        half_open++;
        half_open_here += same;
        if (!oldest || l->id.v >> LINK_SLOTS_BITS < oldest->id.v >> LINK_SLOTS_BITS) oldest = l;
        if (same && (!oldest_here || l->id.v >> LINK_SLOTS_BITS < oldest_here->id.v >> LINK_SLOTS_BITS))
            oldest_here = l;
    }
    char host[48];
    at_address_host(&fresh->remote, host);
    if (half_open_here >= net->opt.half_open_per_address)
        at_link_fail(oldest_here, AT_E_PEER, "too many half-open links from %s", host);
    else if (half_open >= net->opt.half_open_max)
        at_link_fail(oldest, AT_E_PEER, "too many half-open links");
    else if (here >= net->opt.links_per_address)
        at_link_fail(fresh, AT_E_PEER, "too many links from %s", host);
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
    struct link *l = at_link_new(net, false);
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
    at_link_set_address(l, (struct sockaddr *)&sa);
    make_room(net, l);
    if (l->state != LINK_DEAD && at_link_start_tls(l) != AT_OK) at_link_fail(l, AT_E_NOMEM, "out of memory");
}

at_err_t at_net_listen(struct at_net *net, const char *host, uint16_t port, struct at_diag *diag, uint16_t *ret_port)
{
    struct sockaddr_storage sa;
    char where[300];
    int sa_bytes = sizeof sa;
    snprintf(where, sizeof where, "%s:%u", host, port);
    AT_ASSERT(!net->listening);
    if (!at_address_numeric(host, port, &sa))
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
    *ret_port = net->port = at_address_of((struct sockaddr *)&sa).port;
    return AT_OK;
}

/* ---- the user's calls ---- */
at_err_t at_net_send(struct at_net *net, struct at_link_id link, enum at_frame_class frame_class,
                     struct at_span payload)
{
    struct link *l = at_link_find(net, link);
    if (!l || l->state != LINK_UP) return AT_E_NOT_FOUND;
    if (payload.n > (frame_class == AT_FRAME_CONTROL ? AT_NET_FRAME_BYTES_MAX : AT_NET_BULK_BYTES_MAX))
        return AT_E_TOO_BIG;
    return at_link_queue(l, frame_class, payload);
}

void at_net_close(struct at_net *net, struct at_link_id link, const char *reason)
{
    struct link *l = at_link_find(net, link);
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
    const struct link *l = at_link_find(net, link);
    return l ? l->rtt_us : 0;
}

uint64_t at_net_rtt_least_us(const struct at_net *net, struct at_link_id link)
{
    const struct link *l = at_link_find(net, link);
    return l ? l->rtt_least_us : 0;
}

uint32_t at_net_rate_kbit(const struct at_net *net, struct at_link_id link)
{
    const struct link *l = at_link_find(net, link);
    return l ? at_line_rate_kbit(&l->rate) : 0;
}

at_err_t at_net_seen(const struct at_net *net, struct at_link_id link, struct at_endpoint *ret_endpoint)
{
    const struct link *l = at_link_find(net, link);
    if (!l || l->seen.ip_bytes == 0) return AT_E_NOT_FOUND;
    *ret_endpoint = l->seen;
    return AT_OK;
}

struct at_net_stats at_net_stats(const struct at_net *net)
{
    struct at_net_stats s = net->stats;
    for (uint32_t i = 0; i < net->opt.links_max; i++) {
        s.links += net->link[i] != NULL && net->link[i]->state != LINK_DEAD;
        s.half_open += net->link[i] != NULL && at_link_half_open(net->link[i]);
        s.relays += net->link[i] != NULL && net->link[i]->leg.asks && net->link[i]->leg.other != NULL;
    }
    s.meets = at_arrange_count(net->arrange);
    return s;
}

/* ---- the turn: what is queued goes out, what is over is told ---- */
static void tell_drain(struct link *l, enum at_frame_class cls)
{
    if (!l->refused[cls] || l->state != LINK_UP || l->queue[cls].bytes > l->net->opt.bulk_bytes_max / 2) return;
    l->refused[cls] = false;
    struct at_net_event ev = {.kind = AT_NET_DRAIN, .link = l->id, .address = l->address, .dialed = l->dialed};
    ev.peer = l->tls.peer;
    ev.way = l->way;
    ev.frame_class = cls;
    l->net->on_event(l->net->user, &ev);
}

static void tell_down(struct link *l)
{
    struct at_net *net = l->net;
    l->told_down = true;
    if (l->leg.began) {
        at_arranger_step(net, &(struct at_arrange_event){.kind = AT_ARRANGE_LOST, .connection = l->id.v});
        return;
    }
    if (l->told_up && l->way == AT_NET_DIRECT) {
        at_introduce_down(net, l->id);
        at_arranger_step(net, &(struct at_arrange_event){.kind = AT_ARRANGE_DOWN, .link = l->id.v});
    }
    if (!l->told_up && !l->dialed) {
        net->stats.refused++;
        snprintf(net->stats.refused_reason, sizeof net->stats.refused_reason, "%.100s", l->down_reason);
        return;
    }
    struct at_net_event ev = {.kind = AT_NET_DOWN, .link = l->id, .address = l->address, .dialed = l->dialed};
    ev.peer = l->told_up ? l->tls.peer : l->expected;
    ev.way = l->way;
    ev.err = l->down_err;
    ev.wrong_key = l->tls.wrong_key;
    ev.reason = l->down_reason;
    net->on_event(net->user, &ev);
}

static void bury(struct at_net *net, uint32_t slot)
{
    struct link *l = net->link[slot];
    if (at_link_busy(l)) return;
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
        tell_drain(l, AT_FRAME_ACTIVATION);
        tell_drain(l, AT_FRAME_BULK);
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
    net->earlier_us = net->poll_us;
    net->poll_us = uv_hrtime() / 1000;
    for (uint32_t i = 0; i < net->opt.links_max; i++)
        if (net->link[i]) at_link_resume(net->link[i]);
}

static void on_after_poll(uv_check_t *handle)
{
    run_turn(handle->data);
}

/* TCP says nothing while it sends a lost segment again, after one retransmission time-out, two more, four more: each lasts
 * as long as the way there and back and some. So the longer the way, the more silence is borne. The least of all round
 * trips counts: a machine that was busy for a moment is not far away. */
static uint32_t silence_borne_ms(const struct link *l)
{
    uint64_t more = l->rtt_least_us * SILENCE_TRIPS / 1000;
    return l->net->opt.silence_ms + (uint32_t)(more < SILENCE_MORE_MS ? more : SILENCE_MORE_MS);
}

static void tick_link(struct link *l, uint64_t now)
{
    const struct at_net_options *o = &l->net->opt;
    if (l->state < LINK_UP && now >= l->deadline_ms) {
        at_link_fail(l, AT_E_PEER, l->state == LINK_HANDSHAKE ? "no handshake within %u ms" : "no answer within %u ms",
                     l->patience_ms);
    } else if (l->state == LINK_CLOSING && now >= l->deadline_ms) {
        at_link_fail(l, AT_OK, "closed");
    } else if (l->state == LINK_UP && now - l->heard_ms >= silence_borne_ms(l)) {
        at_link_fail(l, AT_E_PEER, "silent for %u ms", silence_borne_ms(l));
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
    at_arranger_tick(net);
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
    DEFAULT(meets_per_node, 8);
    DEFAULT(meet_ms, 5000);
    DEFAULT(punch_ms, 2500);
    DEFAULT(relay_bytes_per_s, (uint64_t)64 << 20);
    DEFAULT(relay_idle_ms, 30000);
    DEFAULT(relay_life_ms, 3600000);
    DEFAULT(relay_bytes_max, (uint64_t)8 << 30);
#undef DEFAULT
    AT_ASSERT(o->links_max <= 1u << LINK_SLOTS_BITS);
}

static void start_handles(struct at_net *net)
{
    AT_ASSERT(uv_tcp_init(net->loop, &net->listener) == 0 && uv_prepare_init(net->loop, &net->before_poll) == 0);
    AT_ASSERT(uv_check_init(net->loop, &net->after_poll) == 0 && uv_timer_init(net->loop, &net->tick) == 0);
    AT_ASSERT(uv_timer_init(net->loop, &net->relay_tick) == 0);
    net->listener.data = net->before_poll.data = net->after_poll.data = net->tick.data = net->relay_tick.data = net;
    net->open_handles = 5;
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
    if (options && options->meets_max && !options->allow)
        return at_fail(diag, AT_E_USAGE, "net", "meets_max without `allow`: who may meet whom must be said");
    struct at_net *net = calloc(1, sizeof *net);
    if (!net) return at_fail(diag, err, "net", "out of memory");
    if (options) net->opt = *options;
    fill_defaults(&net->opt);
    net->loop = loop;
    net->self = key->id;
    net->on_event = on_event;
    net->user = user;
    net->link = calloc(net->opt.links_max, sizeof *net->link);
    net->read_buf = malloc(LINK_READ_BYTES);
    struct at_arrange_options arrange = {.meets_max = net->opt.meets_max,
                                         .relays_max = net->opt.relays_max,
                                         .per_node = net->opt.meets_per_node,
                                         .wait_ms = net->opt.meet_ms,
                                         .relay_ms = net->opt.relay_life_ms};
    if (net->link && net->read_buf && at_arrange_init(&arrange, &net->arrange) == AT_OK)
        err = at_tls_ctx_init(key, diag, &net->tls);
    else
        err = at_fail(diag, err, "net", "out of memory");
    if (!err) {
        start_handles(net);
        *ret_net = net;
        return AT_OK;
    }
    at_arrange_free(net->arrange);
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
    at_message_mem_release(&net->own_mem);
    at_arrange_free(net->arrange);
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
        busy |= l && at_link_busy(l);
    }
    if (!busy && net->open_handles == 1) uv_close((uv_handle_t *)handle, on_handle_closed);
}

void at_net_release(struct at_net *net)
{
    if (!net) return;
    net->releasing = true;
    for (uint32_t i = 0; i < net->opt.links_max; i++)
        if (net->link[i]) {
            at_link_fail(net->link[i], AT_OK, "this node ends");
            at_punch_close(net->link[i]);
        }
    uv_close((uv_handle_t *)&net->listener, on_handle_closed);
    uv_close((uv_handle_t *)&net->before_poll, on_handle_closed);
    uv_close((uv_handle_t *)&net->after_poll, on_handle_closed);
    uv_close((uv_handle_t *)&net->relay_tick, on_handle_closed);
    uv_timer_stop(&net->tick);
    uv_timer_start(&net->tick, on_releasing, 1, 2);
}
