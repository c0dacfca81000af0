#include "parallel/plan_explain.h"

#include "parallel/plan_search.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct at_plan_size at_plan_size_of(double bytes)
{
    static const char *const unit[] = {"bytes", "kB", "MB", "GB", "TB", "PB"};
    struct at_plan_size t;
    int u = 0;
    for (; bytes >= 999.5 && u < 5; u++) bytes /= 1000;
    snprintf(t.s, sizeof t.s, bytes < 9.95 && u > 0 ? "%.1f %s" : "%.0f %s", bytes, unit[u]);
    return t;
}

static const char *node_name(const struct at_explain *x, int node)
{
    return x->world->nodes->node[node].name;
}

/* ---- what a step waits for ---- */

/* The step with the links between stages `from` and `to` (all when from < 0) taking no time. */
static double step_without_links(const struct at_explain *x, const struct at_chain *c, int from,
                                 struct at_chain_stage *saved)
{
    struct at_chain copy = *c;
    memcpy(saved, c->stage, (size_t)c->stages * sizeof *saved);
    copy.stage = saved;
    for (int s = 0; s < c->stages; s++)
        if (from < 0 || s == from) saved[s].next_s = saved[s].back_s = 0;
    return at_chain_play(&x->world->cost, &copy);
}

static void limit_of(struct at_explain *x, const struct at_chain *c, int first_rank, struct at_chain_stage *room,
                     struct at_planner_replica *ret)
{
    int slowest = 0, rank = first_rank, link_rank = first_rank, M = x->world->cost.microbatches;
    double stage_s = 0, all_s = at_chain_play(&x->world->cost, c), link_gain_s = 0;
    for (int s = 0, r = first_rank; s < c->stages; r += c->stage[s].tp, s++) {
        double t = c->stage[s].forward_s + c->stage[s].backward_s;
        if (t > stage_s) {
            stage_s = t;
            slowest = s;
            rank = r;
        }
        double gain_s = all_s - step_without_links(x, c, s, room);
        if (s + 1 < c->stages && gain_s > link_gain_s) {
            link_gain_s = gain_s;
            link_rank = r;
        }
    }
    double no_links_s = step_without_links(x, c, -1, room);
    double links = (all_s - no_links_s) / all_s, bubble = (no_links_s - M * stage_s) / all_s;
    double tensor = M * c->stage[slowest].tensor_s / all_s;
    ret->limit = AT_LIMIT_COMPUTE;
    ret->limit_rank = rank;
    double most = 0.25;
    if (bubble > most) ret->limit = AT_LIMIT_BUBBLE, most = bubble;
    if (tensor > most) ret->limit = AT_LIMIT_TENSOR_LINK, most = tensor;
    if (links > most) ret->limit = AT_LIMIT_STAGE_LINK, ret->limit_rank = link_rank;
}

at_err at_explain_limits(struct at_explain *x, struct at_diag *diag)
{
    struct at_chain_stage *room = calloc((size_t)x->world->cost.layers, sizeof *room);
    if (room == NULL) return at_fail(diag, AT_E_NOMEM, "planner", "no memory for the explanation");
    for (int r = 0, rank = 0; r < x->replicas; r++) {
        limit_of(x, &x->chain[r], rank, room, &x->report->replica[r]);
        for (int s = 0; s < x->chain[r].stages; s++) rank += x->chain[r].stage[s].tp;
    }
    free(room);
    return AT_OK;
}

/* ---- sentences ---- */

static void say(struct at_explain *x, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct at_explain *x, const char *fmt, ...)
{
    if (x->report->whys == AT_EXPLAIN_LINES) return;
    va_list args;
    va_start(args, fmt);
    vsnprintf(x->report->why[x->report->whys++].s, sizeof x->report->why[0].s, fmt, args);
    va_end(args);
}

static int slowest_replica(const struct at_explain *x)
{
    int slow = 0;
    for (int r = 1; r < x->replicas; r++)
        if (x->chain[r].step_s > x->chain[slow].step_s) slow = r;
    return slow;
}

static void say_bottleneck(struct at_explain *x)
{
    const struct at_planner_report *p = x->report;
    int r = slowest_replica(x);
    const struct at_planner_replica *rep = &p->replica[r];
    struct at_place place = at_plan_place(x->plan, rep->limit_rank);
    const struct at_chain_stage *t = &x->chain[r].stage[place.stage];
    const char *name = node_name(x, t->node[0]);
    char who[48] = "The replica";
    if (x->replicas > 1) snprintf(who, sizeof who, "The slowest replica, %d,", r);
    switch (rep->limit) {
    case AT_LIMIT_COMPUTE:
        say(x, "Bottleneck: computing. %s takes %.3g s a step and waits for stage %d: %s%s, %d layer%s%s.", who,
            rep->step_s, place.stage, t->tp > 1 ? "the ranks at " : "", name, t->layers, t->layers == 1 ? "" : "s",
            place.last ? " and the head" : "");
        break;
    case AT_LIMIT_TENSOR_LINK:
        say(x, "Bottleneck: the link between the %d tensor ranks at %s: %.0f %% of stage %d's time is all-reduces.",
            t->tp, name, 100 * t->tensor_s / (t->forward_s + t->backward_s), place.stage);
        break;
    case AT_LIMIT_STAGE_LINK:
        say(x, "Bottleneck: the link from %s to %s: %s of activations take %.3g s each way, every microbatch.", name,
            node_name(x, t[1].node[0]), at_plan_size_of(at_cost_boundary_bytes(&x->world->cost)).s, t->next_s);
        break;
    case AT_LIMIT_BUBBLE:
        say(x,
            "Bottleneck: filling and draining the pipeline of %d stages with %d microbatch%s; a larger batch would "
            "help.",
            x->chain[r].stages, x->plan->microbatches, x->plan->microbatches == 1 ? "" : "es");
        break;
    }
}

static void say_exchange(struct at_explain *x)
{
    const struct at_planner_report *p = x->report;
    if (x->replicas < 2) return;
    double share = p->exchange_s / (p->round_s + p->exchange_s);
    say(x, "Replicas exchange %s each after %u steps: %.3g s of waiting after %.3g s of computing, %.1f %%%s.",
        at_plan_size_of(p->update_bytes).s, x->options->exchange.steps_max, p->exchange_s, p->round_s, 100 * share,
        share > 0.05 && x->options->exchange.bytes_per_param > 0.1 ? "; a sparser codec or more steps would help" : "");
}

static void say_replicas(struct at_explain *x)
{
    const struct at_cost_exchange *e = &x->options->exchange;
    double fast = x->chain[0].step_s, slow = fast;
    for (int r = 1; r < x->replicas; r++) {
        if (x->chain[r].step_s < fast) fast = x->chain[r].step_s;
        if (x->chain[r].step_s > slow) slow = x->chain[r].step_s;
    }
    if (x->replicas == 1 && x->options->replicas == 1) {
        say(x, "One replica, as asked for.");
    } else if (x->replicas == 1) {
        double way_s = x->report->update_bytes * x->world->out_s_per_byte[x->plan->node[0]];
        say(x,
            "One replica: a second one would take its nodes from it, and both would exchange %s every %u steps (%.3g "
            "s).",
            at_plan_size_of(x->report->update_bytes).s, e->steps_max, way_s);
    }
    if (x->replicas == 1) return;
    if (e->steps_min == e->steps_max)
        say(x, "%d replicas%s, balanced, since all do %u steps a round: %.3g to %.3g s a step.", x->replicas,
            x->options->replicas != 0 ? " as asked for" : "", e->steps_max, fast, slow);
    else
        say(x, "%d replicas%s do as many steps as fit into a round, %u to %u: %.3g to %.3g s a step.", x->replicas,
            x->options->replicas != 0 ? " as asked for" : "", e->steps_min, e->steps_max, fast, slow);
}

static void say_tensor(struct at_explain *x)
{
    int widest = 1, stages = 0, r = 0, s = 0;
    for (int i = 0; i < x->replicas; i++)
        for (int j = 0; j < x->chain[i].stages; j++) {
            int tp = x->chain[i].stage[j].tp;
            if (tp > 1) stages++;
            if (tp > widest) {
                widest = tp;
                r = i;
                s = j;
            }
        }
    if (stages != 0) {
        const struct at_chain_stage *t = &x->chain[r].stage[s];
        struct at_link l = at_plan_link_worse(x->world->nodes, t->node[0], t->node[1]);
        say(x, "Tensor ranks only within 1 ms: %d stage%s, up to %d wide, as %s and %s (%.2g ms, %.0f Mbit/s).", stages,
            stages == 1 ? "" : "s", widest, node_name(x, t->node[0]), node_name(x, t->node[1]), l.rtt_ms, l.mbit_s);
        return;
    }
    bool near = false;
    int n = x->world->nodes->count < 256 ? x->world->nodes->count : 256;
    for (int i = 0; i < n && !near; i++)
        for (int j = 0; j < i && !near; j++) near = at_chain_near(x->world->nodes, i, j);
    if (near && x->world->cost.slots > 1)
        say(x, "No tensor ranks: four all-reduces of %s a layer and microbatch would cost more than they save.",
            at_plan_size_of(at_cost_boundary_bytes(&x->world->cost)).s);
    else if (x->plan->ranks > x->replicas)
        say(x, "No tensor ranks: no two nodes are within 1 ms of each other, so layers go to different nodes instead.");
}

static void say_pipeline(struct at_explain *x)
{
    int longest = 0;
    for (int r = 1; r < x->replicas; r++)
        if (x->chain[r].stages > x->chain[longest].stages) longest = r;
    const struct at_chain *c = &x->chain[longest];
    if (c->stages < 2) return;
    int least = 0, most = 0;
    for (int s = 1; s < c->stages; s++) {
        if (c->stage[s].layers < c->stage[least].layers) least = s;
        if (c->stage[s].layers > c->stage[most].layers) most = s;
    }
    if (c->stage[least].layers == c->stage[most].layers)
        say(x, "Stages of %d layer%s each; %d microbatch%s through up to %d stages.", c->stage[most].layers,
            c->stage[most].layers == 1 ? "" : "s", x->plan->microbatches, x->plan->microbatches == 1 ? "" : "es",
            c->stages);
    else
        say(x, "Layers by speed and memory: %s has %d, %s has %d; %d microbatch%s through up to %d stages.",
            node_name(x, c->stage[most].node[0]), c->stage[most].layers, node_name(x, c->stage[least].node[0]),
            c->stage[least].layers, x->plan->microbatches, x->plan->microbatches == 1 ? "" : "es", c->stages);
}

/* By bisection: half of the nodes are not faster. */
static double median_gflops(const struct at_plan_nodes *n)
{
    double low = 0, high = 0;
    for (int i = 0; i < n->count; i++)
        if (n->node[i].gflops > high) high = n->node[i].gflops;
    for (int step = 0; step < 50; step++) {
        double middle = (low + high) / 2;
        int count = 0;
        for (int i = 0; i < n->count; i++) count += n->node[i].gflops <= middle;
        if (2 * count < n->count)
            low = middle;
        else
            high = middle;
    }
    return high;
}

static void say_weak(struct at_explain *x)
{
    double median = median_gflops(x->world->nodes);
    int weak = -1, count = 0, layers = 0;
    for (int rank = 0; rank < x->plan->ranks; rank++) {
        int node = x->plan->node[rank];
        if (x->world->nodes->node[node].gflops > median / 2) continue;
        count++;
        if (weak < 0 || x->world->nodes->node[node].gflops < x->world->nodes->node[weak].gflops) {
            weak = node;
            layers = at_plan_place(x->plan, rank).at->layers;
        }
    }
    if (count == 1)
        say(x, "%s is weak (%.3g GFLOP/s; the median is %.3g) and works all the same: %d layer%s.", node_name(x, weak),
            x->world->nodes->node[weak].gflops, median, layers, layers == 1 ? "" : "s");
    else if (count > 1)
        say(x, "%d weak nodes work all the same; the weakest, %s (%.3g GFLOP/s; the median is %.3g), has %d layer%s.",
            count, node_name(x, weak), x->world->nodes->node[weak].gflops, median, layers, layers == 1 ? "" : "s");
}

static void say_memory(struct at_explain *x)
{
    if (x->report->recompute)
        say(x, "Activations are computed again in the backward pass%s: a third more work there, but they fit.",
            x->options->recompute == 1 ? " as asked for" : "");
    int tight = -1;
    double share = 0.85;
    for (int rank = 0; rank < x->plan->ranks; rank++) {
        double s = x->report->rank[rank].bytes / (double)x->world->nodes->node[x->plan->node[rank]].memory_bytes;
        if (s > share) {
            share = s;
            tight = rank;
        }
    }
    if (tight >= 0)
        say(x, "Memory is tight: %s will use %s of its %s.", node_name(x, x->plan->node[tight]),
            at_plan_size_of(x->report->rank[tight].bytes).s,
            at_plan_size_of((double)x->world->nodes->node[x->plan->node[tight]].memory_bytes).s);
}

/* ---- spares ---- */

struct trial {
    double tokens_per_s, microbatch_s, slowest_s;
    bool room;
};

/* The best that can be had by giving the spare a stage of its own in this replica. */
static void try_spare(struct at_explain *x, int node, int replica, struct at_chain *t, struct trial *io)
{
    struct at_chain kept = x->chain[replica];
    if (kept.stages == t->stages_max) return;
    for (int at = 0; at <= kept.stages; at++) {
        memcpy(t->stage, kept.stage, (size_t)at * sizeof *t->stage);
        t->stage[at] = (struct at_chain_stage){.tp = 1, .node = {node}};
        memcpy(&t->stage[at + 1], &kept.stage[at], (size_t)(kept.stages - at) * sizeof *t->stage);
        t->stages = kept.stages + 1;
        at_chain_cut(x->world, t);
        if (t->shortage != 0) continue;
        io->room = true;
        x->chain[replica] = *t;
        double v = at_search_value_of(&x->world->cost, x->chain, x->replicas).tokens_per_s;
        x->chain[replica] = kept;
        if (v <= io->tokens_per_s) continue;
        io->tokens_per_s = v;
        io->microbatch_s = t->stage[at].forward_s + t->stage[at].backward_s;
        io->slowest_s = 0;
        for (int s = 0; s < t->stages; s++) {
            double stage_s = t->stage[s].forward_s + t->stage[s].backward_s;
            if (s != at && stage_s > io->slowest_s) io->slowest_s = stage_s;
        }
    }
}

static void explain_spare(struct at_explain *x, int i, struct at_chain *t)
{
    char *why = x->report->spare_why[i].s;
    size_t n = sizeof x->report->spare_why[i].s;
    const struct at_plan_node *node = &x->world->nodes->node[x->report->spare[i]];
    const struct at_cost *cost = &x->world->cost;
    struct trial trial = {0};
    double layer = at_cost_bytes(cost, 1, 1, false, false, 1);
    for (int r = 0; r < x->replicas && r < 16 && i < 32; r++) try_spare(x, x->report->spare[i], r, t, &trial);
    if ((double)node->memory_bytes < layer)
        snprintf(why, n, "its %s hold no layer, which takes %s; it can keep and pass on updates",
                 at_plan_size_of((double)node->memory_bytes).s, at_plan_size_of(layer).s);
    else if (i >= 32)
        snprintf(why, n, "no replica gains from it; ready to take over for another node");
    else if (!trial.room)
        snprintf(why, n, "every replica has as many stages as layers already; ready to take over for another node");
    else if (trial.tokens_per_s >
             x->report->tokens_per_s) /* a search would have taken it; a given split has no place */
        snprintf(why, n,
                 "with a stage of its own the run would rise from %.4g to %.4g tokens/s, but the split was given: "
                 "without --tp and --pp the plan would be another",
                 x->report->tokens_per_s, trial.tokens_per_s);
    else if (trial.microbatch_s > trial.slowest_s)
        snprintf(why, n,
                 "one layer would take it %.3g s a microbatch, other stages need %.3g s: the run would fall from %.4g "
                 "to %.4g tokens/s; ready to take over",
                 trial.microbatch_s, trial.slowest_s, x->report->tokens_per_s, trial.tokens_per_s);
    else
        snprintf(why, n,
                 "one more stage costs more on the way than it takes off the others: the run would fall from %.4g to "
                 "%.4g tokens/s; ready to take over",
                 x->report->tokens_per_s, trial.tokens_per_s);
}

at_err at_explain_all(struct at_explain *x, struct at_diag *diag)
{
    struct at_chain t = {.stages_max = x->world->cost.layers};
    t.stage = calloc((size_t)t.stages_max, sizeof *t.stage);
    if (t.stage == NULL) return at_fail(diag, AT_E_NOMEM, "planner", "no memory for the explanation");
    say_bottleneck(x);
    say_replicas(x);
    say_exchange(x);
    say_pipeline(x);
    say_tensor(x);
    say_weak(x);
    say_memory(x);
    for (int i = 0; i < x->report->spares; i++) explain_spare(x, i, &t);
    free(t.stage);
    return AT_OK;
}

/* ---- what does not fit ---- */

/* The least that one replica takes, in one rank, one sequence at a time. */
static double replica_bytes(const struct at_planner_options *o, const struct at_model_config *model, uint32_t batch)
{
    struct at_cost cost;
    at_cost_init(&cost, model, batch, (int)(batch < 4096 ? batch : 4096), &o->exchange, o->recompute != 0);
    if (o->replicas > 1) cost.replicas = o->replicas;
    return at_cost_bytes(&cost, cost.layers, 1, true, true, 1);
}

/* Whether some plan exists for this model, with a few microbatch counts. Uses w->cost. */
static bool fits(const struct at_planner_options *o, struct at_chain_world *w, const struct at_model_config *model,
                 const struct at_train_config *train)
{
    int count[AT_PLANNER_COUNTS] = {o->microbatches};
    int counts = o->microbatches != 0 ? 1 : at_planner_counts(train->batch, 4, count);
    bool ok = false;
    for (int i = counts - 1; i >= 0 && !ok; i--) {
        struct at_search_result r;
        if ((uint32_t)count[i] > train->batch) count[i] = (int)train->batch;
        at_cost_init(&w->cost, model, train->batch, count[i], &o->exchange, o->recompute != 0);
        if (o->replicas > 1) w->cost.replicas = o->replicas;
        if (at_search_run(w, o->replicas, o->replicas > 1 ? o->replicas : 1, 0.1, NULL, &r) != AT_OK) return false;
        ok = r.shortage == 0;
        at_search_release(&r);
    }
    return ok;
}

/* The largest preset with fewer parameters that these nodes can hold. */
static const struct at_preset *smaller(const struct at_planner_options *o, const struct at_chain_world *world)
{
    int count;
    const struct at_preset *list = at_preset_list(&count), *best = NULL;
    uint64_t below = at_model_params(o->model);
    for (int tries = 0; tries < count; tries++) {
        best = NULL;
        for (int i = 0; i < count; i++) {
            uint64_t size = at_model_params(&list[i].model);
            if (size < below && (best == NULL || size > at_model_params(&best->model))) best = &list[i];
        }
        struct at_chain_world w = *world;
        if (best == NULL || fits(o, &w, &best->model, &best->train)) return best;
        below = at_model_params(&best->model);
    }
    return NULL;
}

/* Whether the model fits when `more` nodes like `like`, far from all others, are added. */
static bool fits_with(const struct at_planner_options *o, const struct at_chain_world *world,
                      const struct at_plan_node *like, long more)
{
    const struct at_plan_nodes *old = world->nodes;
    struct at_plan_nodes n = {0};
    struct at_chain_world w = {0};
    bool ok = old->count + more <= AT_PLAN_NODES_MAX &&
              at_plan_nodes_alloc(&n, old->count + (int)more, old->links, NULL) == AT_OK;
    if (ok) {
        n.within_site = old->within_site;
        n.elsewhere = old->elsewhere;
        n.links = old->links;
        memcpy(n.node, old->node, (size_t)old->count * sizeof *n.node);
        memcpy(n.link, old->link, old->links * sizeof *n.link);
        for (int i = old->count; i < n.count; i++) {
            n.node[i] = *like;
            n.node[i].site[0] = '\0';
        }
        ok = at_plan_nodes_index(&n, NULL) == AT_OK && at_chain_world_init(&w, &n, NULL) == AT_OK;
    }
    ok = ok && fits(o, &w, o->model, o->train);
    at_chain_world_release(&w);
    at_plan_nodes_release(&n);
    return ok;
}

/* How many more nodes like the largest would do: an estimate first, tried and raised until the planner finds a plan.
 * 0: no number of them, or not so soon. */
static long more_nodes(const struct at_planner_options *o, const struct at_chain_world *world, double missing,
                       const struct at_plan_node **ret_like)
{
    const struct at_plan_nodes *n = world->nodes;
    const struct at_cost *cost = &world->cost;
    const struct at_plan_node *like = &n->node[0];
    for (int i = 1; i < n->count; i++)
        if (n->node[i].memory_bytes > like->memory_bytes) like = &n->node[i];
    *ret_like = like;
    int flight = cost->microbatches < 4 ? cost->microbatches : 4;
    double layers = at_cost_layers_in(cost, (double)like->memory_bytes, 1, false, false, flight);
    if (layers < 1) return 0;
    double none = at_cost_bytes(cost, 0, 1, false, false, flight);
    double useful = (double)(long)layers * (at_cost_bytes(cost, 1, 1, false, false, flight) - none);
    long more = (long)(missing / useful) + 1;
    for (int tries = 0; tries < 12; tries++, more += 1 + more / 6)
        if (fits_with(o, world, like, more)) return more;
    return 0;
}

at_err_t at_explain_infeasible(const struct at_planner_options *o, const struct at_chain_world *world, int shortage,
                               struct at_diag *diag)
{
    const struct at_plan_nodes *n = world->nodes;
    int copies = o->replicas == 0 ? 1 : o->replicas;
    double need = copies * replica_bytes(o, o->model, o->train->batch), have = 0;
    char many[32] = "", add[160] = "", take[64] = "";
    for (int i = 0; i < n->count; i++) have += (double)n->node[i].memory_bytes;
    const struct at_plan_node *like;
    double layer = world->cost.layer_params * o->exchange.memory_per_param;
    double missing = need > have ? need - have : shortage * layer;
    long more = more_nodes(o, world, missing < shortage * layer ? shortage * layer : missing, &like);
    if (more > 0)
        snprintf(add, sizeof add, "add about %ld more like %s (%s)", more, like->name,
                 at_plan_size_of((double)like->memory_bytes).s);
    else
        snprintf(add, sizeof add, "one layer takes %s and the largest node has %s, so add larger ones",
                 at_plan_size_of(at_cost_bytes(&world->cost, 1, 1, false, false, 1)).s,
                 at_plan_size_of((double)like->memory_bytes).s);
    const struct at_preset *p = smaller(o, world);
    if (p != NULL) snprintf(take, sizeof take, ", or take %s", p->name);
    if (copies > 1) snprintf(many, sizeof many, "%d replicas of ", copies);
    if (need > have)
        return at_fail(diag, AT_E_USAGE, o->name, "%s%s needs %s of memory; these nodes offer %s: %s%s", many, o->name,
                       at_plan_size_of(need).s, at_plan_size_of(have).s, add, take);
    return at_fail(
        diag, AT_E_USAGE, o->name,
        "%s%s needs %s of memory and these nodes offer %s, but in pieces too small: %d of its %d layers found no "
        "room; %s%s",
        many, o->name, at_plan_size_of(need).s, at_plan_size_of(have).s, shortage, copies * world->cost.layers, add,
        take);
}
