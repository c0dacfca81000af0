/* world_roles.c: of a run of stages whose members measure themselves: what they measure, and what a step takes that several
 * do together: each its part of the layers, the bubble, and the way between neighbours, whose lines carry what is passed on
 * (ledger/roles.h has the same shape; a world that took exactly as long as is planned would prove nothing, so jitter and
 * what is below are its own). */
#include "sim/world_internal.h"

#include <stdlib.h>

static uint64_t rtt_us(struct at_world *w, int a, int b)
{
    const struct at_world_node *x = &w->nodes[a], *y = &w->nodes[b];
    uint64_t ms = w->options.latency_ms_max;
    if (w->options.lines)
        ms = x->line.latency_ms + x->knob[AT_WORLD_LATENCY_MS] + y->line.latency_ms + y->knob[AT_WORLD_LATENCY_MS];
    ms += x->knob[AT_WORLD_SITE] != y->knob[AT_WORLD_SITE] ? w->options.site_ms : 0;
    return 2000 * ms + 200;
}

static double step_flops(const struct at_world *w)
{
    return (double)at_model_flops_per_token(&w->g.model) * w->g.train.batch * w->g.model.seq_len;
}

void at_world_measure(struct at_world *w, int node, double speed)
{
    struct at_world_node *n = &w->nodes[node];
    struct at_world_event *ev = at_world_push(w, AT_WORLD_DELIVER, node, speed > 0 ? 500 : 1);
    size_t count = 0;
    free(n->rtts);
    n->rtts = calloc(w->live_count + 1, sizeof *n->rtts);
    for (size_t i = 0; n->rtts && i < w->live_count; i++) {
        const struct at_world_link *l = &w->links[w->live[i]];
        int other = l->end[0] == node ? l->end[1] : l->end[1] == node ? l->end[0] : -1;
        uint64_t id = 2 * (uint64_t)w->live[i] + 1 + (l->end[1] == node); /* world_internal.h */
        if (other < 0) continue;
        n->rtts[count++] = (struct at_node_rtt){
            .link = id, .us = rtt_us(w, node, other), .kbit = at_line_rate_kbit(&l->rate[l->end[1] == node])};
    }
    ev->e.kind = AT_NODE_EV_MEASURED;
    ev->e.measured.mflops = (uint64_t)(speed * step_flops(w) / (1000.0 * w->options.step_ms) + 0.5);
    ev->e.measured.memory_mib = n->knob[AT_WORLD_MEMORY_MIB] ? n->knob[AT_WORLD_MEMORY_MIB] : 1 << 20;
    ev->e.measured.list = n->rtts;
    ev->e.measured.count = count;
}

/* A microbatch's activations come to `to`, or their gradients: its end of the link tells how fast. */
static void note_rate(struct at_world *w, int from, int to, double bytes, double us)
{
    for (size_t i = 0; i < w->live_count; i++) {
        struct at_world_link *l = &w->links[w->live[i]];
        for (int end = 0; end < 2; end++)
            if (l->end[end] == to && l->end[1 - end] == from)
                at_line_rate_take(&l->rate[end], (uint64_t)bytes, (uint64_t)us);
    }
}

/* Of activations between neighbours, with m microbatches: as long as the slower direction takes, for both go on at once. */
static double line_ms(struct at_world *w, int a, int b, int m)
{
    double bytes = (double)w->g.train.batch * w->g.model.seq_len * w->g.model.d_model * 4, slowest = 0;
    for (int i = 0; i < 2 && w->options.lines; i++) {
        int from = i ? a : b, to = i ? b : a;
        double us = bytes / at_world_bytes_per_us(w, from, to);
        note_rate(w, from, to, bytes / m, us / m);
        if (us > slowest) slowest = us;
    }
    return slowest / 1000;
}

/* Of its stage, where a step of the whole model takes it `whole_ms`. */
double at_world_stage_ms(struct at_world *w, const struct at_world_node *n, double whole_ms)
{
    const struct at_node_team *t = &n->unit.team;
    int before = -1, ranks = (int)t->ranks, m = at_stage_microbatches(w->g.train.batch, ranks);
    double links = 0;
    if (ranks < 2) return whole_ms;
    for (int k = 0; k < ranks; k++) {
        int node = at_world_node_of(w, &t->peer[k].id);
        if (before >= 0 && node >= 0)
            links += (double)rtt_us(w, before, node) / 1000 * (m > ranks ? (double)m / ranks : 1) +
                     line_ms(w, before, node, m);
        before = node;
    }
    double part =
        (double)at_stage_cut_flops(&w->g.model, &t->cut, (int)t->rank) / (double)at_model_flops_per_token(&w->g.model);
    return whole_ms * part * (m + ranks - 1) / m + links;
}
