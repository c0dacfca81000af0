#include "parallel/plan_search_inner.h"

#include <stdlib.h>
#include <string.h>

#define WORK        6e7 /* of a search with many nodes: some tenths of a second */
#define WORK_STARTS 5e7 /* of its starts */

static double left_of(long i, long proposals, uint64_t work_left, uint64_t work)
{
    double a = (double)(proposals - i) / (double)proposals, b = (double)work_left / (double)work;
    return a < b ? a : b;
}

/* Threshold accepting: a proposal may be worse by a share that falls to nothing. Ends after so many proposals or so
 * much work. */
void at_search_anneal(struct search *s, long proposals, uint64_t work, double tolerance)
{
    uint64_t end = s->work + work;
    for (long i = 0; i < proposals && s->work < end; i++) {
        double value, share = tolerance * left_of(i, proposals, end - s->work, work);
        int shortage;
        if (!at_search_propose(s) || !at_search_evaluate(s, &value, &shortage) || shortage > s->now.shortage) continue;
        if (shortage == s->now.shortage && value < s->now.tokens_per_s * (1 - share * share)) continue;
        at_search_accept(s, value, shortage);
    }
}

/* ---- the end: nobody without work who could have some ---- */

/* Offers a leftover node to a replica at every place; takes the best one if the run does not suffer. */
static bool offer(struct search *s, int node, int replica)
{
    double best = s->now.tokens_per_s * (1 - 1e-12), value;
    int best_at = -1, shortage, stages = s->now.chain[replica].stages;
    struct at_chain_stage t = at_chain_single(node);
    for (int at = 0; at < 2 * stages + 1; at++) { /* between stages, then beside them */
        s->ia = replica;
        s->ib = -1;
        at_search_load(s, &s->a, replica);
        int p = at <= stages ? at : at - stages - 1;
        if (!at_chain_insert(&s->a, p, &t)) return false;
        if (at > stages && !at_search_join(s, &s->a, p, p + 1)) continue;
        if (!at_search_evaluate(s, &value, &shortage) || shortage > s->now.shortage || value < best) continue;
        best = value;
        best_at = at;
    }
    if (best_at < 0) return false;
    at_search_load(s, &s->a, replica);
    int p = best_at <= stages ? best_at : best_at - stages - 1;
    if (!at_chain_insert(&s->a, p, &t) || (best_at > stages && !at_search_join(s, &s->a, p, p + 1))) return false;
    if (!at_search_evaluate(s, &value, &shortage)) return false;
    at_search_accept(s, value, shortage);
    return true;
}

/* With many nodes not everybody can be tried everywhere: ends after so much work. */
static void use_leftovers(struct search *s, uint64_t work)
{
    uint64_t end = s->work + work;
    for (int i = 0; i < s->nodes && s->work < end; i++) {
        if (s->now.where[i] >= 0) continue;
        bool placed = false;
        for (int k = 0; k < s->now.replicas && k < 16 && !placed; k++) {
            int near = s->now.replicas <= 16 ? -1 : s->now.where[at_search_draw_node(s, i)];
            placed = offer(s, i, near >= 0 ? near : k);
        }
        if (placed || s->wanted != 0 || s->now.replicas == s->room) continue;
        double value;
        int shortage;
        struct at_chain_stage t = at_chain_single(i);
        s->ia = s->now.replicas;
        s->ib = -1;
        s->a.stages = 0;
        if (!at_chain_insert(&s->a, 0, &t) || !at_search_evaluate(s, &value, &shortage) || shortage > s->now.shortage)
            continue;
        if (value >= s->now.tokens_per_s) at_search_accept(s, value, shortage);
    }
}

static void polish(struct search *s)
{
    for (int r = 0; r < s->now.replicas; r++) {
        at_chain_polish(s->w, &s->now.chain[r]);
        s->now.value[r] = at_search_chain_value(&s->now.chain[r]);
    }
    at_search_weigh(s);
}

/* ---- running ---- */

static void search_release(struct search *s)
{
    free(s->group);
    free(s->order);
    free(s->speed);
    free(s->row);
    free(s->room_of);
    free(s->member);
    free(s->member_first);
    free(s->a.stage);
    free(s->b.stage);
    at_search_state_release(&s->now);
    at_search_state_release(&s->best);
}

static double room_alone(const struct at_chain_world *w, int node, int in_flight)
{
    double best = 0, memory = (double)w->nodes->node[node].memory_bytes;
    for (int tp = 1; tp <= w->cost.slots; tp *= 2) {
        double layers = at_cost_layers_in(&w->cost, memory, tp, false, false, in_flight);
        if (layers >= 1 && layers / tp > best) best = layers / tp;
    }
    return best < w->cost.layers ? best : w->cost.layers;
}

static at_err search_init(struct search *s, const struct at_chain_world *w, int replicas, int most,
                          struct at_diag *diag)
{
    size_t n = (size_t)w->nodes->count;
    *s = (struct search){.w = w, .nodes = (int)n, .wanted = replicas, .random = 1};
    s->stages_max = (int)n < w->cost.layers ? (int)n : w->cost.layers;
    s->room = (int)n < SEARCH_REPLICAS_MAX ? (int)n : SEARCH_REPLICAS_MAX;
    if (s->room > most) s->room = most;
    s->group = calloc(n, sizeof *s->group);
    s->order = calloc(n, sizeof *s->order);
    s->speed = calloc(n, sizeof *s->speed);
    s->row = calloc(n, sizeof *s->row);
    s->room_of = calloc(n * SEARCH_FLIGHTS, sizeof *s->room_of);
    s->member = calloc(n, sizeof *s->member);
    s->member_first = calloc(n + 1, sizeof *s->member_first);
    s->a.stage = calloc((size_t)s->stages_max, sizeof *s->a.stage);
    s->b.stage = calloc((size_t)s->stages_max, sizeof *s->b.stage);
    s->a.stages_max = s->b.stages_max = s->stages_max;
    bool ok = s->group && s->order && s->speed && s->row && s->room_of && s->member && s->member_first && s->a.stage &&
              s->b.stage;
    ok = ok && at_search_state_alloc(&s->now, (int)n, s->room, s->stages_max);
    ok = ok && at_search_state_alloc(&s->best, (int)n, s->room, s->stages_max);
    if (!ok) return at_fail(diag, AT_E_NOMEM, "planner", "no memory to plan for %d nodes", (int)n);
    s->groups = at_row_sites(w->nodes, s->group);
    for (int g = 0, at = 0; g < s->groups; g++) {
        for (int i = 0; i < s->nodes; i++)
            if (s->group[i] == g) s->member[at++] = i;
        s->member_first[g + 1] = at;
    }
    at_row_by_speed(w->nodes, s->speed);
    for (int i = 0; i < s->nodes; i++)
        for (int f = 0; f < SEARCH_FLIGHTS; f++) s->room_of[i * SEARCH_FLIGHTS + f] = room_alone(w, i, 1 << f);
    return at_row_order(w, s->group, s->groups, diag, s->order);
}

/* The result takes the best state's memory. */
static void hand_over(struct search *s, struct at_search_result *ret_result)
{
    *ret_result = (struct at_search_result){.replicas = s->best.replicas,
                                            .chain = s->best.chain,
                                            .stage = s->best.stage,
                                            .tokens_per_s = s->best.tokens_per_s,
                                            .shortage = s->best.shortage,
                                            .evaluations = s->evaluations};
    s->best.chain = NULL;
    s->best.stage = NULL;
}

at_err at_search_run(const struct at_chain_world *w, int replicas, int most, double effort, struct at_diag *diag,
                     struct at_search_result *ret_result)
{
    struct search s;
    at_err_t err = search_init(&s, w, replicas, most, diag);
    if (err == AT_OK) {
        s.work_end = s.nodes <= SEARCH_FEW ? UINT64_MAX : (uint64_t)(effort * WORK_STARTS);
        at_search_start(&s, effort);
        long proposals = (long)(effort * (s.nodes <= SEARCH_FEW ? 4000 : 200 * s.nodes));
        uint64_t work = (uint64_t)(effort * WORK);
        for (int again = 0; again < (s.nodes <= SEARCH_FEW ? 3 : 1); again++) {
            at_search_copy(&s, &s.now, &s.best);
            at_search_anneal(&s, proposals, work, s.nodes > SEARCH_FEW ? 0.1 : again == 0 ? 0.5 : 0.25);
            at_search_copy(&s, &s.now, &s.best);
            use_leftovers(&s, s.nodes <= SEARCH_FEW ? UINT64_MAX / 2 : work / 2);
            polish(&s);
        }
        hand_over(&s, ret_result);
    }
    search_release(&s);
    return err;
}

void at_search_release(struct at_search_result *r)
{
    free(r->chain);
    free(r->stage);
    *r = (struct at_search_result){0};
}
