#include "parallel/planner.h"

#include "parallel/plan_explain.h"
#include "parallel/plan_search.h"

#include <stdlib.h>
#include <string.h>

void at_planner_options_default(struct at_planner_options *o, const char *name, const struct at_model_config *model,
                                const struct at_train_config *train)
{
    *o = (struct at_planner_options){
        .name = name,
        .model = model,
        .train = train,
        .exchange = {.bytes_per_param = 4.03,
                     .memory_per_param = 20,
                     .blob_per_param = 4.03,
                     .fragments = true,
                     .steps_max = train->steps,
                     .steps_min = train->steps},
        .recompute = -1,
        .effort = 1,
    };
}

void at_planner_report_release(struct at_planner_report *r)
{
    free(r->rank);
    free(r->replica);
    free(r->spare);
    free(r->spare_why);
    free(r->why);
    *r = (struct at_planner_report){0};
}

/* ---- numbers ---- */

static at_err report_alloc(struct at_planner_report *r, const struct at_plan *plan, int nodes, struct at_diag *diag)
{
    *r = (struct at_planner_report){0};
    r->rank = calloc((size_t)plan->ranks, sizeof *r->rank);
    r->replica = calloc((size_t)plan->replicas, sizeof *r->replica);
    r->spare = calloc((size_t)nodes, sizeof *r->spare);
    r->spare_why = calloc((size_t)nodes, sizeof *r->spare_why);
    r->why = calloc(AT_EXPLAIN_LINES, sizeof *r->why);
    if (r->rank != NULL && r->replica != NULL && r->spare != NULL && r->spare_why != NULL && r->why != NULL)
        return AT_OK;
    at_planner_report_release(r);
    return at_fail(diag, AT_E_NOMEM, "planner", "no memory for a report of %d ranks", plan->ranks);
}

static void find_spares(struct at_planner_report *r, const struct at_plan *plan, int nodes)
{
    r->spares = 0;
    for (int i = 0; i < nodes; i++) {
        bool used = false;
        for (int rank = 0; rank < plan->ranks && !used; rank++) used = plan->node[rank] == i;
        if (!used) r->spare[r->spares++] = i;
    }
}

static void report_numbers(struct at_explain *x)
{
    struct at_planner_report *r = x->report;
    const struct at_cost *cost = &x->world->cost;
    struct at_search_value v = at_search_value_of(cost, x->chain, x->replicas);
    r->recompute = cost->recompute;
    r->tokens_per_s = v.tokens_per_s;
    r->round_s = v.round_s;
    r->exchange_s = v.exchange_s;
    r->update_bytes = cost->exchange.bytes_per_param * at_cost_params(cost, cost->layers, 1, true, true);
    for (int i = 0; i < x->world->nodes->count; i++) r->have_bytes += (double)x->world->nodes->node[i].memory_bytes;
    for (int i = 0, rank = 0; i < x->replicas; i++) {
        const struct at_chain *c = &x->chain[i];
        double steps = c->step_s > 0 ? v.round_s / c->step_s : 0;
        r->replica[i] = (struct at_planner_replica){
            .step_s = c->step_s,
            .steps = steps < cost->exchange.steps_max ? steps : cost->exchange.steps_max,
            .tokens_per_s = cost->step_tokens / c->step_s,
        };
        for (int s = 0; s < c->stages; s++) {
            const struct at_chain_stage *t = &c->stage[s];
            double busy_s = cost->microbatches * (t->forward_s + t->backward_s - t->tensor_s) + c->optimizer_s;
            for (int j = 0; j < t->tp; j++, rank++)
                r->rank[rank] = (struct at_planner_rank){.bytes = t->bytes,
                                                         .busy = busy_s / c->step_s,
                                                         .link_s = t->tensor_s,
                                                         .microbatch_s = t->forward_s + t->backward_s};
            r->need_bytes += t->tp * t->bytes;
        }
    }
    find_spares(r, x->plan, x->world->nodes->count);
}

static at_err report_make(struct at_explain *x, struct at_diag *diag, struct at_planner_report *ret_report)
{
    struct at_planner_report report;
    at_err_t err = report_alloc(&report, x->plan, x->world->nodes->count, diag);
    if (err != AT_OK) return err;
    x->report = &report;
    report_numbers(x);
    err = at_explain_limits(x, diag);
    if (err == AT_OK) err = at_explain_all(x, diag);
    if (err != AT_OK) {
        at_planner_report_release(&report);
        return err;
    }
    *ret_report = report;
    return AT_OK;
}

/* ---- plans from chains, and back ---- */

static at_err plan_from(const struct at_chain *chain, int replicas, int microbatches, struct at_diag *diag,
                        struct at_plan *ret_plan)
{
    struct at_plan plan;
    int stages = 0, ranks = 0;
    for (int r = 0; r < replicas; r++) {
        stages += chain[r].stages;
        for (int s = 0; s < chain[r].stages; s++) ranks += chain[r].stage[s].tp;
    }
    at_err_t err = at_plan_alloc(&plan, replicas, stages, ranks, diag);
    if (err != AT_OK) return err;
    plan.microbatches = microbatches;
    for (int r = 0, stage = 0, rank = 0; r < replicas; r++) {
        plan.replica[r] = (struct at_plan_replica){.stage_first = stage, .stages = chain[r].stages};
        for (int s = 0, layer = 0; s < chain[r].stages; s++, stage++) {
            const struct at_chain_stage *t = &chain[r].stage[s];
            plan.stage[stage] =
                (struct at_plan_stage){.layer_first = layer, .layers = t->layers, .tp = t->tp, .rank_first = rank};
            for (int i = 0; i < t->tp; i++) plan.node[rank++] = t->node[i];
            layer += t->layers;
        }
    }
    *ret_plan = plan;
    return AT_OK;
}

/* chain[plan->replicas], stage[plan->stages]: the caller's. */
static at_err chains_from(const struct at_plan *plan, const struct at_plan_nodes *nodes, struct at_diag *diag,
                          struct at_chain *chain, struct at_chain_stage *stage)
{
    for (int rank = 0; rank < plan->ranks; rank++) {
        int node = plan->node[rank];
        if (node < 0 || node >= nodes->count)
            return at_fail(diag, AT_E_DATA, at_plan_place_name(plan, rank).s, "is on no node");
        for (int other = 0; other < rank; other++)
            if (plan->node[other] == node)
                return at_fail(diag, AT_E_DATA, nodes->node[node].name, "runs rank %d and rank %d; a node has one rank",
                               other, rank);
    }
    for (int r = 0; r < plan->replicas; r++) {
        const struct at_plan_replica *rep = &plan->replica[r];
        chain[r] =
            (struct at_chain){.stages = rep->stages, .stages_max = rep->stages, .stage = stage + rep->stage_first};
        for (int s = 0; s < rep->stages; s++) {
            const struct at_plan_stage *from = &plan->stage[rep->stage_first + s];
            struct at_chain_stage *to = &chain[r].stage[s];
            *to = (struct at_chain_stage){.tp = from->tp, .layers = from->layers};
            for (int i = 0; i < from->tp; i++) to->node[i] = plan->node[from->rank_first + i];
        }
    }
    return AT_OK;
}

static at_err check_room(const struct at_plan_nodes *nodes, const struct at_chain *c, struct at_diag *diag)
{
    for (int s = 0; s < c->stages && c->shortage != 0; s++)
        for (int i = 0; i < c->stage[s].tp; i++) {
            const struct at_plan_node *n = &nodes->node[c->stage[s].node[i]];
            if (c->stage[s].bytes > (double)n->memory_bytes)
                return at_fail(diag, AT_E_USAGE, n->name, "%d layers take %s there; it has %s", c->stage[s].layers,
                               at_plan_size_of(c->stage[s].bytes).s, at_plan_size_of((double)n->memory_bytes).s);
        }
    return AT_OK;
}

at_err at_planner_predict(const struct at_planner_options *options, const struct at_plan_nodes *nodes,
                          const struct at_plan *plan, struct at_diag *diag, struct at_planner_report *ret_report)
{
    struct at_chain_world world;
    at_err_t err = at_chain_world_init(&world, nodes, diag);
    if (err != AT_OK) return err;
    struct at_chain *chain = calloc((size_t)plan->replicas, sizeof *chain);
    struct at_chain_stage *stage = calloc((size_t)plan->stages, sizeof *stage);
    struct at_explain x = {
        .options = options, .world = &world, .chain = chain, .replicas = plan->replicas, .plan = plan};
    at_cost_init(&world.cost, options->model, options->train->batch, plan->microbatches, &options->exchange,
                 options->recompute == 1);
    world.cost.replicas = plan->replicas;
    if (chain == NULL || stage == NULL) {
        err = at_fail(diag, AT_E_NOMEM, "planner", "no memory for %d stages", plan->stages);
        goto out;
    }
    if ((err = chains_from(plan, nodes, diag, chain, stage)) != AT_OK) goto out;
    for (int r = 0; r < plan->replicas; r++) {
        at_chain_step(&world, &chain[r]);
        if ((err = check_room(nodes, &chain[r], diag)) != AT_OK) goto out;
    }
    err = report_make(&x, diag, ret_report);
out:
    free(chain);
    free(stage);
    at_chain_world_release(&world);
    return err;
}

/* ---- making ---- */

static at_err check(const struct at_planner_options *o, const struct at_plan_nodes *nodes, struct at_diag *diag)
{
    if (o->replicas < 0 || o->replicas > nodes->count)
        return at_fail(diag, AT_E_USAGE, "--replicas", "%d replicas need a node each, and there are %d", o->replicas,
                       nodes->count);
    if (o->microbatches < 0 || (uint32_t)o->microbatches > o->train->batch)
        return at_fail(diag, AT_E_USAGE, "--microbatches",
                       "%d: a step has %u sequences and a microbatch at least one, so 1 to %u", o->microbatches,
                       o->train->batch, o->train->batch);
    return AT_OK;
}

struct attempt {
    struct at_search_result result;
    int microbatches;
    bool recompute;
};

static const double SHORT = 0.2; /* effort of the searches that only compare, with many nodes */

/* What a search is asked for: up to `most` replicas, memory counted for `memory` of them. */
struct question {
    int microbatches, wanted, most, memory;
    bool recompute;
    double effort;
};

static at_err try_one(const struct at_planner_options *o, struct at_chain_world *w, const struct question *q,
                      struct at_diag *diag, uint64_t *io_evaluations, struct attempt *io_best, double *ret_value)
{
    struct at_search_result r;
    at_cost_init(&w->cost, o->model, o->train->batch, q->microbatches, &o->exchange, q->recompute);
    w->cost.replicas = q->memory;
    at_err_t err = at_search_run(w, q->wanted, q->most, q->effort * o->effort, diag, &r);
    if (err != AT_OK) return err;
    *io_evaluations += r.evaluations;
    *ret_value = r.shortage != 0 ? 0 : r.tokens_per_s;
    const struct at_search_result *best = &io_best->result;
    bool better = best->replicas == 0 || r.shortage < best->shortage ||
                  (r.shortage == best->shortage && r.tokens_per_s > best->tokens_per_s * (1 + 1e-9));
    if (better) {
        at_search_release(&io_best->result);
        *io_best = (struct attempt){.result = r, .microbatches = q->microbatches, .recompute = q->recompute};
    } else {
        at_search_release(&r);
    }
    return AT_OK;
}

int at_planner_counts(uint32_t batch, int factor, int ret_count[AT_PLANNER_COUNTS])
{
    int n = 0, m = batch < 64 ? (int)batch : 64;
    for (; n < AT_PLANNER_COUNTS - 1 && m > 1; m = m > factor ? m / factor : 1) ret_count[n++] = m;
    ret_count[n++] = 1;
    for (int i = 0; i < n / 2; i++) {
        int t = ret_count[i];
        ret_count[i] = ret_count[n - 1 - i];
        ret_count[n - 1 - i] = t;
    }
    return n;
}

/* With few nodes: every replica count, each with memory for just so many. */
static at_err try_replicas(const struct at_planner_options *o, struct at_chain_world *w, struct question q,
                           struct at_diag *diag, uint64_t *io_evaluations, struct attempt *io_best)
{
    int first = o->replicas != 0 ? o->replicas : 1, last = o->replicas != 0 ? o->replicas : w->nodes->count;
    at_err_t err = AT_OK;
    double value;
    for (int r = first; r <= last && err == AT_OK; r++) {
        q.wanted = q.most = q.memory = r;
        err = try_one(o, w, &q, diag, io_evaluations, io_best, &value);
    }
    return err;
}

/* With many: as many as are best if memory were counted for two, then with memory for so many, and fewer and fewer as
 * long as that helps. */
static at_err narrow_replicas(const struct at_planner_options *o, struct at_chain_world *w, struct question q,
                              struct at_diag *diag, uint64_t *io_evaluations, const struct attempt *guess,
                              struct attempt *io_best)
{
    int best_most = 1, worse = 0;
    double best_value = -1, value;
    at_err_t err = AT_OK;
    q.microbatches = guess->microbatches;
    q.recompute = guess->recompute;
    for (int most = guess->result.replicas; most >= 1 && worse < 2 && err == AT_OK; most = most * 2 / 3) {
        q.most = q.memory = most;
        err = try_one(o, w, &q, diag, io_evaluations, io_best, &value);
        worse = value > best_value ? 0 : worse + 1;
        if (value > best_value) {
            best_value = value;
            best_most = most;
        }
        if (most == 1) break;
    }
    q.most = q.memory = best_most;
    q.effort = 1;
    return err == AT_OK ? try_one(o, w, &q, diag, io_evaluations, io_best, &value) : err;
}

/* Every microbatch count, with and without recomputing. */
static at_err search_all(const struct at_planner_options *o, struct at_chain_world *w, struct at_diag *diag,
                         uint64_t *io_evaluations, struct attempt *io_best)
{
    bool many = w->nodes->count > 16, free = many && o->replicas == 0;
    int count[AT_PLANNER_COUNTS] = {o->microbatches};
    int counts = o->microbatches != 0 ? 1 : at_planner_counts(o->train->batch, many ? 4 : 2, count);
    struct attempt guess = {0}, *best = free ? &guess : io_best;
    struct question q = {.wanted = o->replicas, .most = o->replicas, .memory = o->replicas, .effort = many ? SHORT : 1};
    at_err_t err = AT_OK;
    double value;
    if (free) q.most = AT_PLAN_NODES_MAX, q.memory = 2;
    for (int recompute = 0; recompute <= 1; recompute++) {
        if (o->recompute >= 0 && o->recompute != recompute) continue;
        q.recompute = recompute;
        for (int i = 0; i < counts && err == AT_OK; i++) {
            q.microbatches = count[i];
            if (!many) {
                err = try_replicas(o, w, q, diag, io_evaluations, best);
            } else {
                err = try_one(o, w, &q, diag, io_evaluations, best, &value);
            }
        }
    }
    q.microbatches = best->microbatches;
    q.recompute = best->recompute;
    q.effort = 1;
    if (many && !free && err == AT_OK) err = try_one(o, w, &q, diag, io_evaluations, io_best, &value);
    q.effort = SHORT;
    if (free && err == AT_OK) err = narrow_replicas(o, w, q, diag, io_evaluations, &guess, io_best);
    if (free) at_search_release(&guess.result);
    return err;
}

at_err at_planner_make(const struct at_planner_options *options, const struct at_plan_nodes *nodes,
                       struct at_diag *diag, struct at_plan *ret_plan, struct at_planner_report *ret_report)
{
    struct at_chain_world world = {0};
    struct attempt best = {0};
    struct at_plan plan = {0};
    struct at_planner_report report;
    uint64_t evaluations = 0;
    at_err_t err = check(options, nodes, diag);
    if (err == AT_OK) err = at_chain_world_init(&world, nodes, diag);
    if (err == AT_OK) err = search_all(options, &world, diag, &evaluations, &best);
    if (err != AT_OK) goto out;
    at_cost_init(&world.cost, options->model, options->train->batch, best.microbatches, &options->exchange,
                 best.recompute);
    world.cost.replicas = options->replicas > 1 ? options->replicas : 1;
    if (best.result.shortage != 0) {
        err = at_explain_infeasible(options, &world, best.result.shortage, diag);
        goto out;
    }
    world.cost.replicas = best.result.replicas;
    for (int r = 0; r < best.result.replicas; r++) at_chain_step(&world, &best.result.chain[r]);
    err = plan_from(best.result.chain, best.result.replicas, best.microbatches, diag, &plan);
    if (err != AT_OK) goto out;
    struct at_explain x = {.options = options,
                           .world = &world,
                           .chain = best.result.chain,
                           .replicas = best.result.replicas,
                           .plan = &plan};
    if ((err = report_make(&x, diag, &report)) != AT_OK) goto out;
    report.evaluations = evaluations;
    *ret_plan = plan;
    *ret_report = report;
    plan = (struct at_plan){0};
out:
    at_plan_release(&plan);
    at_search_release(&best.result);
    at_chain_world_release(&world);
    return err;
}
