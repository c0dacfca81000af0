#include "parallel/plan_chain.h"

#include <stdlib.h>
#include <string.h>

/* No step at all; finite, so that comparisons and subtractions stay defined. */
static const double never_s = 1e30;

at_err at_chain_world_init(struct at_chain_world *w, const struct at_plan_nodes *nodes, struct at_diag *diag)
{
    int n = nodes->count;
    *w = (struct at_chain_world){.nodes = nodes, .work_per_gflop = at_cost_work_per_gflop()};
    w->out_s_per_byte = calloc((size_t)n, sizeof *w->out_s_per_byte);
    w->out_rtt_s = calloc((size_t)n, sizeof *w->out_rtt_s);
    if (w->out_s_per_byte == NULL || w->out_rtt_s == NULL) {
        at_chain_world_release(w);
        return at_fail(diag, AT_E_NOMEM, "planner", "no memory for %d nodes", n);
    }
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            if (j == i) continue;
            struct at_link l = at_plan_link_worse(nodes, i, j);
            w->out_s_per_byte[i] += 8e-6 / l.mbit_s / (n - 1);
            w->out_rtt_s[i] += 1e-3 * l.rtt_ms / (n - 1);
        }
    return AT_OK;
}

void at_chain_world_release(struct at_chain_world *w)
{
    free(w->out_s_per_byte);
    free(w->out_rtt_s);
    *w = (struct at_chain_world){0};
}

bool at_chain_near(const struct at_plan_nodes *n, int a, int b)
{
    return at_plan_link_worse(n, a, b).rtt_ms <= 1.0;
}

void at_chain_copy(struct at_chain *to, const struct at_chain *from)
{
    struct at_chain_stage *stage = to->stage;
    int stages_max = to->stages_max;
    AT_ASSERT(from->stages <= stages_max);
    *to = *from;
    to->stage = stage;
    to->stages_max = stages_max;
    memcpy(stage, from->stage, (size_t)from->stages * sizeof *stage);
}

/* ---- what a stage takes, as straight lines in its layers ---- */

struct line {
    double forward_s, backward_s;             /* per layer */
    double first_forward_s, first_backward_s; /* besides */
    double tensor_s;                          /* all-reduces of one layer, both directions, within the above */
    int room;
};

static double slowest_work_per_s(const struct at_chain_world *w, const struct at_chain_stage *t)
{
    double slowest = w->nodes->node[t->node[0]].gflops;
    for (int i = 1; i < t->tp; i++)
        if (w->nodes->node[t->node[i]].gflops < slowest) slowest = w->nodes->node[t->node[i]].gflops;
    return slowest * w->work_per_gflop;
}

/* Recursive doubling: at every level the slowest pair counts. */
static void tensor_link(const struct at_chain_world *w, const struct at_chain_stage *t, double *ret_latency_s,
                        double *ret_s_per_byte, double *ret_busy_s_per_byte)
{
    *ret_latency_s = *ret_s_per_byte = *ret_busy_s_per_byte = 0;
    for (int level = 1; level < t->tp; level *= 2) {
        double rtt_ms = 0, s_per_byte = 0;
        for (int i = 0; i < t->tp; i++) {
            if ((i & level) != 0) continue;
            struct at_link l = at_plan_link_worse(w->nodes, t->node[i], t->node[i + level]);
            if (l.rtt_ms > rtt_ms) rtt_ms = l.rtt_ms;
            if (8e-6 / l.mbit_s > s_per_byte) s_per_byte = 8e-6 / l.mbit_s;
        }
        *ret_latency_s += rtt_ms * 0.5e-3 + AT_COST_MESSAGE_S * AT_COST_PIECES;
        *ret_s_per_byte += s_per_byte;
        *ret_busy_s_per_byte += 2 * AT_COST_BYTE_S;
    }
}

/* Two all-reduces, of which the products that make them (product_s together) hide what they can. */
static double two_reduces_s(double latency_s, double transfer_s, double product_s)
{
    double most = (AT_COST_PIECES - 1.0) / AT_COST_PIECES;
    double travels_s = 2 * transfer_s, hidden_s = most * (travels_s < product_s ? travels_s : product_s);
    return 2 * latency_s + travels_s - hidden_s;
}

static struct line stage_line(const struct at_chain_world *w, const struct at_chain *c, int s)
{
    const struct at_cost *k = &w->cost;
    const struct at_chain_stage *t = &c->stage[s];
    double rate = slowest_work_per_s(w, t), latency_s, s_per_byte, busy_s_per_byte;
    double work_s = at_cost_layer_work(k, t->tp) / rate;
    struct line l = {.forward_s = work_s / 3, .backward_s = work_s * 2 / 3 + (k->recompute ? work_s / 3 : 0)};
    double extra_s =
        ((s == 0 ? at_cost_first_work(k, t->tp) : 0) + (s == c->stages - 1 ? at_cost_last_work(k, t->tp) : 0)) / rate;
    l.first_forward_s = extra_s / 3;
    l.first_backward_s = extra_s * 2 / 3;
    double bytes = at_cost_boundary_bytes(k), neighbours = (s > 0) + (s < c->stages - 1);
    l.first_forward_s += neighbours * bytes * AT_COST_BYTE_S;
    l.first_backward_s += neighbours * bytes * AT_COST_BYTE_S;
    if (t->tp > 1) {
        tensor_link(w, t, &latency_s, &s_per_byte, &busy_s_per_byte);
        double transfer_s = bytes * s_per_byte, d = k->model.d_model, ff = k->model.d_ff;
        double q = (double)k->model.heads * k->model.head_size, row = q + 2.0 * k->model.kv_heads * k->model.head_size;
        double forward_s = two_reduces_s(latency_s, transfer_s, 2 * k->tokens * d * (q + ff) / t->tp / rate);
        double backward_s = two_reduces_s(latency_s, transfer_s, 2 * k->tokens * d * (row + 2 * ff) / t->tp / rate);
        forward_s += 2 * bytes * busy_s_per_byte;
        backward_s += 2 * bytes * busy_s_per_byte;
        l.tensor_s = forward_s + backward_s;
        l.forward_s += forward_s;
        l.backward_s += backward_s;
        if (s == 0) l.first_forward_s += latency_s + transfer_s;              /* the embedding's rows */
        if (s == c->stages - 1) l.first_forward_s += 2 * latency_s;           /* softmax: maximum, sum */
        if (s == c->stages - 1) l.first_backward_s += latency_s + transfer_s; /* the head's input gradient */
    }
    l.room = at_chain_room(w, c, s);
    return l;
}

int at_chain_room(const struct at_chain_world *w, const struct at_chain *c, int s)
{
    const struct at_cost *k = &w->cost;
    const struct at_chain_stage *t = &c->stage[s];
    bool first = s == 0, last = s == c->stages - 1;
    int flight = c->stages - s < k->microbatches ? c->stages - s : k->microbatches;
    double memory = (double)w->nodes->node[t->node[0]].memory_bytes;
    for (int i = 1; i < t->tp; i++)
        if ((double)w->nodes->node[t->node[i]].memory_bytes < memory)
            memory = (double)w->nodes->node[t->node[i]].memory_bytes;
    double room = at_cost_layers_in(k, memory, t->tp, first, last, flight);
    return room < k->layers ? (int)room : k->layers;
}

/* Rank i of a stage of a ranks feeds ranks i*b/a .. of the next one of b ranks; one that feeds several sends to them in
 * turn. The slowest pair counts. */
static double boundary_s(const struct at_chain_world *w, const struct at_chain_stage *from,
                         const struct at_chain_stage *to)
{
    double slowest = 0, bytes = at_cost_boundary_bytes(&w->cost);
    int turns = to->tp > from->tp ? to->tp / from->tp : 1;
    for (int i = 0; i < to->tp; i++) {
        struct at_link l = at_plan_link_of(w->nodes, from->node[i * from->tp / to->tp], to->node[i]);
        double s = l.rtt_ms * 0.5e-3 + turns * (bytes * 8e-6 / l.mbit_s + AT_COST_MESSAGE_S);
        if (s > slowest) slowest = s;
    }
    return slowest;
}

/* ---- a step, turn by turn ---- */

/* Stage s takes the turns F(j), B(j - after), after = stages - 1 - s, for j ascending; so F(j) of the stage before and
 * B(j - after) of the stage after are already known when the turns are taken j by j, stage by stage. */
double at_chain_play(const struct at_cost *cost, const struct at_chain *c)
{
    int M = cost->microbatches, P = c->stages;
    double forward[256], backward[256], busy[256]; /* when each stage's newest turn of the kind ended; its last turn */
    AT_ASSERT(P <= 256);
    memset(busy, 0, (size_t)P * sizeof *busy);
    memset(backward, 0, (size_t)P * sizeof *backward);
    for (int j = 0; j < M + P - 1; j++)
        for (int s = 0; s < P; s++) {
            const struct at_chain_stage *t = &c->stage[s];
            if (j < M) {
                double ready = s == 0 ? 0 : forward[s - 1] + t[-1].next_s;
                forward[s] = busy[s] = (ready > busy[s] ? ready : busy[s]) + t->forward_s;
            }
            int b = j - (P - 1 - s);
            if (b < 0 || b >= M) continue;
            double ready = s == P - 1 ? 0 : backward[s + 1] + t->back_s;
            backward[s] = busy[s] = (ready > busy[s] ? ready : busy[s]) + t->backward_s;
        }
    double end = 0;
    for (int s = 0; s < P; s++)
        if (busy[s] > end) end = busy[s];
    return end;
}

static void exchange(const struct at_chain_world *w, struct at_chain *c)
{
    c->exchange_s = c->exchange_rtt_s = 0;
    for (int s = 0; s < c->stages; s++) {
        const struct at_chain_stage *t = &c->stage[s];
        double bytes =
            at_cost_params(&w->cost, t->layers, t->tp, s == 0, s == c->stages - 1) * w->cost.exchange.bytes_per_param;
        for (int i = 0; i < t->tp; i++) {
            if (bytes * w->out_s_per_byte[t->node[i]] > c->exchange_s)
                c->exchange_s = bytes * w->out_s_per_byte[t->node[i]];
            if (w->out_rtt_s[t->node[i]] > c->exchange_rtt_s) c->exchange_rtt_s = w->out_rtt_s[t->node[i]];
        }
    }
}

static void set_stage(const struct at_chain_world *w, struct at_chain *c, int s, const struct line *l)
{
    struct at_chain_stage *t = &c->stage[s];
    int flight = c->stages - s < w->cost.microbatches ? c->stages - s : w->cost.microbatches;
    t->forward_s = t->layers * l->forward_s + l->first_forward_s;
    t->backward_s = t->layers * l->backward_s + l->first_backward_s;
    t->tensor_s = t->layers * l->tensor_s;
    t->bytes = at_cost_bytes(&w->cost, t->layers, t->tp, s == 0, s == c->stages - 1, flight);
}

static void set_links(const struct at_chain_world *w, struct at_chain *c)
{
    c->sync_s = 0;
    for (int s = 0; s + 1 < c->stages; s++) {
        struct at_chain_stage *t = &c->stage[s];
        t->next_s = boundary_s(w, t, t + 1);
        t->back_s = boundary_s(w, t + 1, t);
        double rtt_s = at_plan_link_worse(w->nodes, t->node[0], t[1].node[0]).rtt_ms * 1e-3;
        if (rtt_s > c->sync_s) c->sync_s = rtt_s;
    }
}

/* With links and per-layer lines known. Whether everything fits has been checked. */
static void finish_step(const struct at_chain_world *w, struct at_chain *c, const struct line *line)
{
    c->optimizer_s = 0;
    for (int s = 0; s < c->stages; s++) {
        struct at_chain_stage *t = &c->stage[s];
        set_stage(w, c, s, &line[s]);
        double opt_s = at_cost_params(&w->cost, t->layers, t->tp, s == 0, s == c->stages - 1) * AT_COST_OPTIMIZER /
                       slowest_work_per_s(w, t);
        if (opt_s > c->optimizer_s) c->optimizer_s = opt_s;
    }
    c->step_s = at_chain_play(&w->cost, c) + c->sync_s + c->optimizer_s;
}

static void set_lines(const struct at_chain_world *w, struct at_chain *c, struct line *ret_line)
{
    AT_ASSERT(c->stages >= 1 && c->stages <= w->cost.layers);
    for (int s = 0; s < c->stages; s++) ret_line[s] = stage_line(w, c, s);
    set_links(w, c);
}

void at_chain_step(const struct at_chain_world *w, struct at_chain *c)
{
    struct line line[256];
    set_lines(w, c, line);
    c->shortage = 0;
    for (int s = 0; s < c->stages; s++)
        if (c->stage[s].layers > line[s].room) c->shortage += c->stage[s].layers - line[s].room;
    finish_step(w, c, line);
    exchange(w, c);
    if (c->shortage != 0) c->step_s = never_s;
}

/* ---- the best cut ---- */

/* The least bound on forward + backward under which all layers find a place: one by one where the stage is then the
 * least slow. Leaves that cut in the stages. False when memory is too small. */
static bool cut_evenly(const struct at_chain_world *w, struct at_chain *c, const struct line *line, double *ret_slowest)
{
    double cost[256], each[256];
    int left = w->cost.layers - c->stages;
    c->shortage = 0;
    for (int s = 0; s < c->stages; s++) {
        each[s] = line[s].forward_s + line[s].backward_s;
        cost[s] = each[s] + line[s].first_forward_s + line[s].first_backward_s;
        c->stage[s].layers = 1;
        if (line[s].room < 1) c->shortage++;
    }
    for (; left > 0; left--) {
        int best = -1;
        for (int s = 0; s < c->stages; s++)
            if (c->stage[s].layers < line[s].room && (best < 0 || cost[s] + each[s] < cost[best] + each[best]))
                best = s;
        if (best < 0) break;
        c->stage[best].layers++;
        cost[best] += each[best];
    }
    c->shortage += left;
    *ret_slowest = 0;
    for (int s = 0; s < c->stages; s++)
        if (cost[s] > *ret_slowest) *ret_slowest = cost[s];
    return c->shortage == 0;
}

/* Under the bound: as many layers as may be on the fastest stages (`order`: fastest first). */
static bool cut_under(const struct at_chain_world *w, struct at_chain *c, const struct line *line, const int *order,
                      double bound_s)
{
    int left = w->cost.layers - c->stages;
    for (int i = 0; i < c->stages; i++) {
        const struct line *l = &line[order[i]];
        double each = l->forward_s + l->backward_s, first = l->first_forward_s + l->first_backward_s;
        double most = (bound_s - first) / each * (1 + 1e-12);
        int n = most < l->room ? (int)most : l->room;
        n = n < 1 ? 1 : n > left + 1 ? left + 1 : n;
        c->stage[order[i]].layers = n;
        left -= n - 1;
    }
    return left == 0;
}

static void try_bound(const struct at_chain_world *w, struct at_chain *c, const struct line *line, const int *order,
                      double bound_s, double *io_best_s, int *ret_layers)
{
    if (!cut_under(w, c, line, order, bound_s)) return;
    bool same = true; /* as the best so far: most bounds give no new cut */
    for (int s = 0; s < c->stages && same; s++) same = ret_layers[s] == c->stage[s].layers;
    if (same) return;
    finish_step(w, c, line);
    if (c->step_s >= *io_best_s) return;
    *io_best_s = c->step_s;
    for (int s = 0; s < c->stages; s++) ret_layers[s] = c->stage[s].layers;
}

static void order_by_speed(const struct at_chain *c, const struct line *line, int *ret_order)
{
    for (int s = 0; s < c->stages; s++) {
        int i = s;
        double each = line[s].forward_s + line[s].backward_s;
        for (; i > 0; i--) {
            const struct line *l = &line[ret_order[i - 1]];
            if (l->forward_s + l->backward_s <= each) break;
            ret_order[i] = ret_order[i - 1];
        }
        ret_order[i] = s;
    }
}

void at_chain_cut(const struct at_chain_world *w, struct at_chain *c)
{
    static const double looser[] = {1, 1.08, 1.2, 1.4, 1.8, 3, 1e9};
    struct line line[256];
    int order[256], layers[256];
    double slowest_s, best_s;
    set_lines(w, c, line);
    if (!cut_evenly(w, c, line, &slowest_s)) {
        finish_step(w, c, line);
        c->step_s = never_s;
        return;
    }
    for (int s = 0; s < c->stages; s++) layers[s] = c->stage[s].layers;
    finish_step(w, c, line);
    best_s = c->step_s;
    if (c->stages > 1) {
        order_by_speed(c, line, order);
        if (c->stages * w->cost.layers <= 64) { /* every bound that matters */
            for (int s = 0; s < c->stages; s++)
                for (int n = 1; n <= w->cost.layers; n++) {
                    const struct line *l = &line[s];
                    double bound_s = n * (l->forward_s + l->backward_s) + l->first_forward_s + l->first_backward_s;
                    if (bound_s >= slowest_s) try_bound(w, c, line, order, bound_s, &best_s, layers);
                }
        } else {
            for (size_t i = 0; i < sizeof looser / sizeof looser[0]; i++)
                try_bound(w, c, line, order, slowest_s * looser[i], &best_s, layers);
        }
        for (int s = 0; s < c->stages; s++) c->stage[s].layers = layers[s];
        finish_step(w, c, line);
    }
    exchange(w, c);
}

static int slowest_stage(const struct at_chain *c)
{
    int slow = 0;
    for (int s = 1; s < c->stages; s++)
        if (c->stage[s].forward_s + c->stage[s].backward_s > c->stage[slow].forward_s + c->stage[slow].backward_s)
            slow = s;
    return slow;
}

void at_chain_polish(const struct at_chain_world *w, struct at_chain *c)
{
    struct line line[256];
    if (c->shortage != 0) return;
    set_lines(w, c, line);
    for (bool better = true; better;) {
        double best_s = c->step_s * (1 - 1e-9);
        int from = -1, to = -1, slow = slowest_stage(c);
        for (int a = 0; a < c->stages; a++)
            for (int b = 0; b < c->stages; b++) {
                if (a == b || (c->stages > 8 && a != slow) || c->stage[a].layers == 1 ||
                    c->stage[b].layers >= line[b].room)
                    continue;
                c->stage[a].layers--;
                c->stage[b].layers++;
                finish_step(w, c, line);
                if (c->step_s < best_s) {
                    best_s = c->step_s;
                    from = a;
                    to = b;
                }
                c->stage[a].layers++;
                c->stage[b].layers--;
            }
        better = from >= 0;
        if (better) {
            c->stage[from].layers--;
            c->stage[to].layers++;
        }
        finish_step(w, c, line);
    }
    exchange(w, c);
}
