/* world_roles.c: of a run of stages whose members measure themselves: what they measure, and what a step takes that
 * several do together: each its part of the layers, the bubble, and the way between neighbours (ledger/roles.h has the same
 * shape; a world that took exactly as long as is planned would prove nothing, so jitter and what is below are its own). */
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
        if (other >= 0) n->rtts[count++] = (struct at_node_rtt){id, rtt_us(w, node, other)};
    }
    ev->e.kind = AT_NODE_EV_MEASURED;
    ev->e.measured.mflops = (uint64_t)(speed * step_flops(w) / (1000.0 * w->options.step_ms) + 0.5);
    ev->e.measured.memory_mib = n->knob[AT_WORLD_MEMORY_MIB] ? n->knob[AT_WORLD_MEMORY_MIB] : 1 << 20;
    ev->e.measured.list = n->rtts;
    ev->e.measured.count = count;
}

/* Of its stage, where a step of the whole model takes it `whole_ms`. */
double at_world_stage_ms(struct at_world *w, const struct at_world_node *n, double whole_ms)
{
    const struct at_node_team *t = &n->unit.team;
    int before = -1, ranks = (int)t->ranks, m = at_stage_microbatches(w->g.train.batch, ranks);
    double links = 0;
    if (ranks < 2) return whole_ms;
    for (int k = 0; k < ranks; k++) {
        int node = -1;
        for (int i = 0; i < w->options.nodes && node < 0; i++)
            if (at_node_id_eq(&w->nodes[i].key.id, &t->peer[k].id)) node = i;
        if (before >= 0 && node >= 0) links += (double)rtt_us(w, before, node) / 1000;
        before = node;
    }
    double part =
        (double)at_stage_cut_flops(&w->g.model, &t->cut, (int)t->rank) / (double)at_model_flops_per_token(&w->g.model);
    return whole_ms * part * (m + ranks - 1) / m + links * (m > ranks ? (double)m / ranks : 1);
}
