#include "parallel/plan_search_inner.h"

/* ---- starts ---- */

static void clear(struct search *s)
{
    s->now.replicas = s->now.shortage = 0;
    for (int i = 0; i < s->nodes; i++) s->now.where[i] = -1;
}

static bool row_chain(struct search *s, int first, int n, struct at_chain *c)
{
    uint64_t tried = 0;
    bool fits = at_row_chain(s->w, s->group, s->row + first, n, c, &s->a, &tried);
    for (; tried > 0; tried--) at_search_count(s, c);
    return fits;
}

static bool add_run(struct search *s, int first, int n, bool always)
{
    struct at_chain *c = &s->now.chain[s->now.replicas];
    if (s->now.replicas == s->room || n < 1) return false;
    bool fits = row_chain(s, first, n, c);
    if (!fits && !always) return false;
    s->now.value[s->now.replicas] = at_search_chain_value(c);
    s->now.shortage += c->shortage;
    at_search_mark(&s->now, c, s->now.replicas++);
    return fits;
}

/* Puts the `count` fastest nodes into the row, in their order. */
static void use_fastest(struct search *s, int count)
{
    const struct at_plan_node *node = s->w->nodes->node;
    double low = node[s->speed[count - 1]].gflops;
    int same = 0; /* of those as fast as the slowest, only so many */
    for (int i = count - 1; i >= 0 && node[s->speed[i]].gflops <= low; i--) same++;
    s->row_count = 0;
    for (int i = 0; i < s->nodes; i++) {
        double g = node[s->order[i]].gflops;
        if (g > low || (g >= low && same-- > 0)) s->row[s->row_count++] = s->order[i];
    }
}

/* The row cut into `replicas` runs of equal weight: the share of the speed and that of the memory. */
static void start_evenly(struct search *s, int replicas)
{
    const struct at_plan_node *node = s->w->nodes->node;
    double speed = 0, memory = 0, sum = 0;
    clear(s);
    for (int i = 0; i < s->row_count; i++) {
        speed += node[s->row[i]].gflops;
        memory += (double)node[s->row[i]].memory_bytes;
    }
    for (int r = 0, at = 0; r < replicas; r++) {
        int first = at;
        while (at < s->row_count - (replicas - 1 - r)) {
            const struct at_plan_node *x = &node[s->row[at]];
            double share = (x->gflops / speed + (double)x->memory_bytes / memory) / 2;
            if (at > first && sum + share / 2 > (double)(r + 1) / replicas) break;
            sum += share;
            at++;
        }
        add_run(s, first, at - first, s->wanted != 0 || replicas == 1);
    }
    at_search_weigh(s);
}

/* Layers that a node does within bound_s per microbatch, if `flight` microbatches are kept there. */
static int layers_within(const struct search *s, int node, double bound_s, int flight)
{
    const struct at_cost *k = &s->w->cost;
    double each_s = at_cost_layer_work(k, 1) / (s->w->nodes->node[node].gflops * s->w->work_per_gflop);
    int f = 0;
    while (f + 1 < SEARCH_FLIGHTS && 1 << f < flight) f++;
    double room = s->room_of[node * SEARCH_FLIGHTS + f], most = bound_s / each_s;
    if (room < most) most = room;
    return most < k->layers ? (int)most : k->layers;
}

/* Walks the nodes without work and gathers chains whose stages all keep the bound, too slow ones left out; `alone`: only
 * nodes that hold the whole model. At most `most`
 * replicas; returns how many were added. */
static int gather_chains(struct search *s, double bound_s, int most, bool alone)
{
    int *run = s->row, n = 0, layers = 0, made = 0, misses = 0, M = s->w->cost.microbatches;
    for (int i = 0; i < s->nodes; i++) {
        int node = s->order[i];
        if (s->now.replicas == most || s->work >= s->work_end) break;
        int flight = s->expect / 2 + 1 < M ? s->expect / 2 + 1 : M;
        int here = s->now.where[node] >= 0 ? 0 : layers_within(s, node, bound_s, flight);
        if (here == 0 || (alone && here < s->w->cost.layers)) continue;
        run[n++] = node;
        layers += here;
        if (layers < s->w->cost.layers) continue;
        if (add_run(s, 0, n, false)) {
            struct at_chain *c = &s->now.chain[s->now.replicas - 1];
            s->expect = c->stages;
            made++;
            if (c->step_s > 1.5 * bound_s * (M + c->stages - 1)) { /* the way between them is too long */
                at_search_mark(&s->now, c, -1);
                s->now.replicas--;
                made--;
            }
        } else if (++misses < 4) {
            continue; /* the estimate was too good: one node more */
        }
        n = layers = misses = 0;
    }
    return made;
}

/* Chains with this bound; where rounds are bounded by time, then slower ones of what is left. */
static int start_by_bound(struct search *s, double bound_s, int most, bool alone)
{
    const struct at_cost_exchange *x = &s->w->cost.exchange;
    clear(s);
    s->expect = 1;
    for (double factor = 1; factor * x->steps_min <= x->steps_max; factor *= 1.6)
        if (gather_chains(s, bound_s * factor, most, alone) == 0 && factor > 1) break;
    at_search_weigh(s);
    return s->now.replicas;
}

/* Bounds from one layer on the fastest node up to the whole model on a slow one. */
static void start_by_bounds(struct search *s, double step)
{
    const struct at_cost *k = &s->w->cost;
    double fast_s = at_cost_layer_work(k, 1) / (s->w->nodes->node[s->speed[0]].gflops * s->w->work_per_gflop);
    double slow_s =
        at_cost_layer_work(k, 1) / (s->w->nodes->node[s->speed[s->nodes - 1]].gflops * s->w->work_per_gflop);
    for (double b = 1.2 * fast_s; b < 2 * slow_s * k->layers && s->work < s->work_end; b *= step) {
        int most = s->wanted != 0 ? s->wanted : s->room;
        int made = start_by_bound(s, b, most, false);
        start_by_bound(s, b, most, true);
        if (s->wanted != 0) continue;
        for (most = made * 3 / 4; most > 8; most = most * 3 / 4)
            start_by_bound(s, b, most, false); /* fewer exchange less */
    }
}

/* The row in 1, 2, 3 .. parts, each start followed a little way. */
static void start_from_row(struct search *s, long proposals)
{
    int most = s->wanted != 0 ? s->wanted : s->row_count < s->room ? s->row_count : s->room;
    for (int r = s->wanted != 0 ? s->wanted : 1; r <= most; r++) {
        start_evenly(s, r);
        if (s->now.replicas != 0 && (s->wanted == 0 || s->now.replicas == s->wanted))
            at_search_anneal(s, proposals, UINT64_MAX / 2, 0.5);
    }
}

void at_search_start(struct search *s, double effort)
{
    int least = s->wanted != 0 ? s->wanted : 1;
    if (s->nodes <= SEARCH_FEW) {
        for (int count = s->nodes; count >= least; count--) {
            use_fastest(s, count);
            start_from_row(s, (long)(effort * SEARCH_FOLLOW));
        }
        return;
    }
    use_fastest(s, s->nodes); /* one replica, or as many as are asked for: whatever else fails, a start */
    start_evenly(s, least);
    start_by_bounds(s, 1.3);
}
