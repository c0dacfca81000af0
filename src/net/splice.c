/* Meetings that this node arranges: the sockets and the clock of wire/arrange's machine.
 *
 * A LEG is an accepted connection that began with a prelude. A punch's is read only to see its end. A relay's is not
 * read beyond what came with the prelude until its meeting is complete; then two are spliced: what one says is written
 * to the other, and it is not read again until the other has taken it and there is credit. So at most one read's worth
 * of bytes is held for each direction, and a slow reader slows its writer down through TCP itself. What they say is
 * ciphertext between two others: nothing here looks into it. */
#include "net/link.h"

#include <string.h>

#define SLICE_MS 20 /* of the relays' byte budget */
/* What the kernel may keep of a relay for each direction, on either side: a budget that is small would otherwise fill
 * megabytes there, seconds of them, behind which every control message waits. */
#define LEG_KERNEL_BYTES (256 << 10)

/* ---- before TLS: is it a prelude? ---- */
static void leg_begin(struct link *l, const struct at_meet_token *token)
{
    struct at_arrange_event ev = {.kind = AT_ARRANGE_TOKEN, .connection = l->id.v, .seen = l->remote};
    ev.token[0] = *token;
    int room = LEG_KERNEL_BYTES;
    (void)uv_recv_buffer_size((uv_handle_t *)&l->tcp, &room);
    (void)uv_send_buffer_size((uv_handle_t *)&l->tcp, &room);
    at_tls_release(&l->tls);
    at_buf_clear(&l->out);
    l->state = LINK_LEG;
    l->leg.began = true;
    if (l->reading) uv_read_stop((uv_stream_t *)&l->tcp);
    l->reading = false;
    at_arranger_step(l->net, &ev);
}

bool at_leg_sniff(struct link *l, struct at_span *bytes)
{
    struct at_meet_token token;
    size_t used = 0;
    if (at_buf_append(&l->in, bytes->p, bytes->n) != AT_OK) {
        at_link_fail(l, AT_E_NOMEM, "out of memory");
        return true;
    }
    if (at_meet_prelude_parse(at_buf_span(&l->in), &token, &used) != AT_OK) { /* TLS, or nonsense, which TLS refuses */
        l->sniffed = true;
        if (l->in.n > bytes->n && at_tls_feed(&l->tls, at_span(l->in.p, l->in.n - bytes->n)) != AT_OK) {
            at_link_fail(l, AT_E_NOMEM, "out of memory");
            return true;
        }
        at_buf_clear(&l->in);
        return false;
    }
    if (used == 0) return true;
    l->sniffed = true;
    at_buf_consume(&l->in, used);
    leg_begin(l, &token);
    return true;
}

/* ---- two legs ---- */
/* Both directions of a splice draw on one credit; the older leg keeps it. */
static int64_t *credit_of(const struct link *l)
{
    struct link *other = l->leg.other;
    return &(l->id.v < other->id.v ? other->leg.other : other)->leg.credit;
}

bool at_leg_may_read(const struct link *l)
{
    const struct link *other = l->leg.other;
    if (l->leg.held) return true;
    return other && !l->leg.eof && !other->write_busy && *credit_of(l) > 0;
}

static void end_both(struct link *l, const char *why)
{
    struct link *other = l->leg.other;
    at_link_fail(l, AT_E_PEER, "%s", why);
    at_link_fail(other, AT_E_PEER, "%s", why);
}

static void on_shut(uv_shutdown_t *req, int status) {}

/* What the other side of `l` has ended is ended here too, once everything has gone out. */
static void pass_end(struct link *l)
{
    struct link *from = l->leg.other;
    if (!from || !from->leg.eof || l->leg.shut || l->write_busy) return;
    l->leg.shut = true;
    if (from->leg.shut) { /* both directions are over */
        at_link_fail(l, AT_OK, "both sides are done");
        at_link_fail(from, AT_OK, "both sides are done");
        return;
    }
    (void)uv_shutdown(&l->shutdown, (uv_stream_t *)&l->tcp, on_shut);
}

static void on_leg_written(uv_write_t *req, int status)
{
    struct link *l = req->data;
    l->write_busy = false;
    at_buf_clear(&l->out);
    if (l->state != LINK_LEG) return;
    if (status < 0)
        at_link_fail(l, AT_E_PEER, "leg broken: %s", uv_strerror(status));
    else
        pass_end(l); /* and the turn reads the other side again */
}

static void leg_write(struct link *l, struct at_span bytes)
{
    uv_buf_t buf = uv_buf_init((char *)(uintptr_t)bytes.p, (unsigned)bytes.n);
    int put = uv_try_write((uv_stream_t *)&l->tcp, &buf, 1);
    if (put == UV_EAGAIN) put = 0;
    int rc = put < 0 ? put : 0;
    if (!rc && (size_t)put < bytes.n) {
        if (at_buf_append(&l->out, bytes.p + put, bytes.n - (size_t)put) != AT_OK) {
            at_link_fail(l, AT_E_NOMEM, "out of memory");
            return;
        }
        buf = uv_buf_init((char *)l->out.p, (unsigned)l->out.n);
        l->write.data = l;
        rc = uv_write(&l->write, (uv_stream_t *)&l->tcp, &buf, 1, on_leg_written);
        l->write_busy = rc == 0;
    }
    if (rc) at_link_fail(l, AT_E_PEER, "leg broken: %s", uv_strerror(rc));
}

void at_leg_take(struct link *l, struct at_span bytes)
{
    struct link *other = l->leg.other;
    if (l->leg.held) at_link_fail(l, AT_E_PEER, "talks on a connection that only shows where it comes from");
    if (!other) return;
    if ((l->leg.moved += bytes.n) + other->leg.moved > l->net->opt.relay_bytes_max) {
        end_both(l, "a relay's bytes are used up");
        return;
    }
    *credit_of(l) -= (int64_t)bytes.n;
    l->heard_ms = uv_now(l->net->loop);
    l->net->stats.relayed_bytes += bytes.n;
    leg_write(other, bytes);
    if (l->state != LINK_LEG || at_leg_may_read(l)) return;
    uv_read_stop((uv_stream_t *)&l->tcp);
    l->reading = false;
}

void at_leg_end_of_file(struct link *l)
{
    if (l->leg.held) {
        at_link_fail(l, AT_OK, "has shown where it comes from");
        return;
    }
    l->leg.eof = true;
    uv_read_stop((uv_stream_t *)&l->tcp);
    l->reading = false;
    if (l->leg.other) pass_end(l->leg.other);
}

void at_leg_part(struct link *l)
{
    if (l->leg.other) l->leg.other->leg.other = NULL;
    l->leg.other = NULL;
}

/* ---- the budget ---- */
static uint32_t spliced_count(const struct at_net *net)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < net->opt.links_max; i++)
        n += net->link[i] && net->link[i]->state == LINK_LEG && net->link[i]->leg.other;
    return n;
}

int64_t at_relay_credit(int64_t credit, uint64_t bytes_per_s, uint64_t past_ms, uint32_t pairs)
{
    int64_t share = (int64_t)(bytes_per_s * past_ms / 1000 / pairs), most = (int64_t)(bytes_per_s / 8 / pairs) + 1;
    credit += share > 0 ? share : 1;
    return credit < most ? credit : most;
}

static void on_relay_tick(uv_timer_t *timer)
{
    struct at_net *net = timer->data;
    uint64_t now = uv_now(net->loop), past = now - net->relay_tick_ms;
    uint32_t pairs = spliced_count(net) / 2;
    net->relay_tick_ms = now;
    if (pairs == 0) {
        uv_timer_stop(timer);
        return;
    }
    uint64_t stood_still = past > 250 ? past : 0; /* this process: nobody's silence counts in that time */
    if (stood_still) past = 250;                  /* nor does what could have passed then */
    for (uint32_t i = 0; i < net->opt.links_max; i++) {
        struct link *l = net->link[i];
        if (!l || l->state != LINK_LEG || !l->leg.other || &l->leg.credit != credit_of(l)) continue;
        l->leg.credit = at_relay_credit(l->leg.credit, net->opt.relay_bytes_per_s, past, pairs);
        struct link *other = l->leg.other;
        uint64_t heard = (l->heard_ms > other->heard_ms ? l->heard_ms : other->heard_ms) + stood_still;
        l->heard_ms = heard < now ? heard : now;
        if (now - l->heard_ms < net->opt.relay_idle_ms) continue;
        end_both(l, "nothing passed for too long");
    }
}

/* ---- the machine's wishes ---- */
static void splice(struct link *a, struct link *b, const struct at_arrange_op *op)
{
    struct at_net *net = a->net;
    a->leg.asks = true;
    a->leg.node = op->node[0];
    b->leg.node = op->node[1];
    if (!uv_is_active((uv_handle_t *)&net->relay_tick)) {
        net->relay_tick_ms = uv_now(net->loop);
        uv_timer_start(&net->relay_tick, on_relay_tick, SLICE_MS, SLICE_MS);
    }
    a->leg.other = b;
    b->leg.other = a;
    *credit_of(a) = (int64_t)LINK_READ_BYTES; /* a handshake does not wait for the first slice */
    a->heard_ms = b->heard_ms = uv_now(net->loop);
    struct link *pair[2] = {a, b};
    for (int i = 0; i < 2; i++) { /* what was said along with the prelude; the turn then begins to read */
        struct link *from = pair[i];
        if (from->leg.other && from->in.n) at_leg_take(from, at_buf_span(&from->in));
        at_buf_release(&from->in);
    }
}

static struct link *find_leg(const struct at_net *net, uint64_t id)
{
    struct link *l = at_link_find(net, (struct at_link_id){id});
    return l && l->state == LINK_LEG ? l : NULL;
}

void at_arranger_step(struct at_net *net, struct at_arrange_event *ev)
{
    struct at_arrange_update up;
    ev->now_ms = uv_now(net->loop);
    at_arrange_step(net->arrange, ev, &up);
    for (uint32_t i = 0; i < up.op_count && !net->releasing; i++) {
        const struct at_arrange_op *op = &up.ops[i];
        struct link *l = op->kind == AT_ARRANGE_SEND ? at_link_find(net, (struct at_link_id){op->link})
                                                     : find_leg(net, op->connection);
        struct link *other = op->kind == AT_ARRANGE_JOIN ? find_leg(net, op->other) : NULL;
        if (!l) continue; /* it ended in this turn: the machine hears of that next */
        if (op->kind == AT_ARRANGE_SEND && l->state == LINK_UP)
            at_link_send_meet(l, &op->message);
        else if (op->kind == AT_ARRANGE_HOLD)
            l->leg.held = true; /* the turn begins to read it */
        else if (op->kind == AT_ARRANGE_JOIN && other)
            splice(l, other, op);
        else if (op->kind == AT_ARRANGE_DROP)
            at_link_fail(l, AT_E_PEER, "%s", op->reason);
    }
}

void at_arranger_tick(struct at_net *net)
{
    struct at_arrange_event ev = {.kind = AT_ARRANGE_TICK};
    if (uv_now(net->loop) >= at_arrange_deadline(net->arrange)) at_arranger_step(net, &ev);
    for (uint32_t i = 0; i < net->opt.links_max; i++) { /* who might meet once may have lost that since */
        struct link *l = net->link[i];
        if (!l || l->state != LINK_LEG || !l->leg.other || !l->leg.asks) continue;
        const char *why = net->opt.allow(net->user, &l->leg.node, &l->leg.other->leg.node, &net->self);
        if (why) end_both(l, why);
    }
}
