/* world_line.c: how long a message takes. Without lines: a latency between the options' bounds. With lines: it waits for
 * its sender's way out and its receiver's way in, each a queue at its rate, control before bulk (as net/ sends them),
 * goes through both at once, and is late when a packet of it was lost:
 *
 *   one loss costs a small message a retransmission timeout, doubled each time; a stream is no faster than
 *   1.2 · MSS / (RTT · sqrt p)  (Mathis et al. 1997, "The macroscopic behavior of the TCP congestion avoidance algorithm")
 */
#include "sim/world_internal.h"

#include <math.h>

enum { MSS = 1400, RTO_MIN_MS = 200, RTO_TIMES_MAX = 5, FRAME_BYTES = 60 /* TLS record, TCP and IP headers */ };

static uint64_t site_ms(const struct at_world *w, int a, int b)
{
    bool apart = a >= 0 && b >= 0 && w->nodes[a].knob[AT_WORLD_SITE] != w->nodes[b].knob[AT_WORLD_SITE];
    return apart ? w->options.site_ms : 0;
}

uint64_t at_world_latency_ms(struct at_world *w, int a, int b)
{
    const struct at_world_options *o = &w->options;
    uint64_t ms = 0;
    if (!o->lines || a < 0 || b < 0)
        return o->latency_ms_min + at_world_draw(w, (uint64_t)o->latency_ms_max - o->latency_ms_min + 1) +
               site_ms(w, a, b);
    for (int i = 0; i < 2; i++) {
        const struct at_world_node *n = &w->nodes[i ? b : a];
        ms += n->line.latency_ms + n->knob[AT_WORLD_LATENCY_MS];
        if (n->line.jitter_ms > 0) ms += at_world_draw(w, (uint64_t)n->line.jitter_ms + 1);
    }
    return ms + site_ms(w, a, b);
}

enum at_message_kind at_world_kind_of(struct at_span bytes)
{
    uint32_t tag = bytes.n ? bytes.p[0] & 0x7f : 0; /* a Message's first bytes: its body's field number and wire type */
    if (bytes.n > 1 && bytes.p[0] & 0x80) tag |= (uint32_t)(bytes.p[1] & 0x7f) << 7;
    return tag >> 3 < AT_MSG_KIND_COUNT ? (enum at_message_kind)(tag >> 3) : AT_MSG_NONE;
}

uint64_t at_world_wire_bytes(struct at_world *w, struct at_span bytes)
{
    struct at_message msg;
    uint64_t own = (uint64_t)bytes.n + FRAME_BYTES;
    if (!w->options.lines || w->options.bulk_weight <= 1) return own;
    if (at_world_kind_of(bytes) == AT_MSG_BUNDLE) return (uint64_t)bytes.n * w->options.bulk_weight;
    if (at_world_kind_of(bytes) != AT_MSG_PIECE) return own;
    if (at_message_decode(bytes, &w->mem, NULL, &msg)) return own;
    bool stands_in = msg.piece.kind == AT_BLOB_UPDATE || msg.piece.kind == AT_BLOB_TILE;
    return stands_in ? (uint64_t)bytes.n * w->options.bulk_weight : own;
}

static double loss(const struct at_world *w, int from, int to)
{
    double ppm = 0;
    for (int i = 0; i < 2; i++) {
        const struct at_world_node *n = &w->nodes[i ? to : from];
        ppm += (double)n->line.loss_ppm + (double)n->knob[AT_WORLD_LOSS_PPM];
    }
    return ppm < 500000 ? ppm / 1e6 : 0.5;
}

static double rate(const struct at_world *w, int node, bool up) /* bytes per microsecond */
{
    const struct at_world_node *n = &w->nodes[node];
    double kbit = up ? n->line.up_kbit : n->line.down_kbit;
    kbit *= (double)n->knob[AT_WORLD_RATE_PERMILLE] / 1000;
    return (kbit < 1 ? 1 : kbit) / 8000;
}

double at_world_bytes_per_us(const struct at_world *w, int from, int to)
{
    double up = rate(w, from, true), down = rate(w, to, false);
    return up < down ? up : down;
}

/* What lost packets add to a message's way. */
static uint64_t retransmit_ms(struct at_world *w, uint64_t bytes, double p, uint64_t rtt_ms)
{
    uint64_t late = 0, rto = RTO_MIN_MS + rtt_ms;
    if (p <= 0) return 0;
    uint64_t packets = (bytes + MSS - 1) / MSS;
    double fine = 1;
    if (packets >= 50) return rtt_ms; /* a stream: its rate tells of the rest */
    for (uint64_t i = 0; i < packets; i++) fine *= 1 - p;
    for (int i = 0; i < RTO_TIMES_MAX; i++) {
        if ((double)at_world_draw(w, 1000000) < fine * 1e6) break;
        late += rto;
        rto *= 2;
        fine = 1 - p;
    }
    return late;
}

/* `free_us` is when a queue has done what is in it; what comes now is through after `us` more. */
static uint64_t queue(uint64_t *free_us, uint64_t now_us, double us)
{
    uint64_t begins = now_us > *free_us ? now_us : *free_us;
    *free_us = begins + (uint64_t)us + 1;
    return begins;
}

uint64_t at_world_arrival_ms(struct at_world *w, struct at_world_link *l, int to, uint64_t wire_bytes, bool bulk)
{
    int a = l->end[1 - to], b = l->end[to];
    uint64_t latency_ms = at_world_latency_ms(w, a, b), now = 1000 * w->now_ms;
    if (!w->options.lines || a < 0 || b < 0) return w->now_ms + latency_ms;
    struct at_world_node *from = &w->nodes[a], *dest = &w->nodes[b];
    double wire = (double)wire_bytes, up = rate(w, a, true), down = rate(w, b, false);
    double p = loss(w, a, b), rtt_ms = 2 * (double)latency_ms;
    uint64_t begins = queue(bulk ? &from->up_free_us : &from->control_free_us, now, wire / up);
    if (!bulk) (void)queue(&from->up_free_us, now, wire / up);
    uint64_t out = begins + (uint64_t)(wire / up) + 1;
    if (bulk && p > 0) { /* this link's own pace; the way out is free for others meanwhile */
        (void)queue(&l->paced_us[to], begins, wire * 1000 * (rtt_ms + 1) * sqrt(p) / (1.2 * MSS));
        if (out < l->paced_us[to]) out = l->paced_us[to];
    }
    uint64_t first = begins + 1000 * latency_ms, last = out + 1000 * latency_ms, in = first + (uint64_t)(wire / down);
    if (bulk) {
        first = queue(&dest->down_free_us, first, wire / down);
        in = dest->down_free_us;
    }
    if (in < last) in = last;
    if (bulk && w->options.roles) at_line_rate_take(&l->rate[to], wire_bytes, in - first);
    return (in + 999) / 1000 + retransmit_ms(w, (uint64_t)wire, p, (uint64_t)rtt_ms);
}
