/* Making, checking and reading plans. The planner (planner.h) makes better ones from measurements. */
#include "parallel/plan.h"

#include "model/stages.h"

#include <stdio.h>
#include <stdlib.h>

at_err at_plan_alloc(struct at_plan *plan, int replicas, int stages, int ranks, struct at_diag *diag)
{
    struct at_plan n = {.replicas = replicas, .stages = stages, .ranks = ranks, .microbatches = 1};
    AT_ASSERT(replicas >= 1 && stages >= replicas && ranks >= stages && ranks <= AT_PLAN_RANKS_MAX);
    n.replica = calloc((size_t)replicas, sizeof *n.replica);
    n.stage = calloc((size_t)stages, sizeof *n.stage);
    n.node = calloc((size_t)ranks, sizeof *n.node);
    if (n.replica == NULL || n.stage == NULL || n.node == NULL) {
        at_plan_release(&n);
        return at_fail(diag, AT_E_NOMEM, "plan", "no memory for a plan of %d ranks", ranks);
    }
    for (int i = 0; i < ranks; i++) n.node[i] = -1;
    *plan = n;
    return AT_OK;
}

void at_plan_release(struct at_plan *plan)
{
    free(plan->replica);
    free(plan->stage);
    free(plan->node);
    *plan = (struct at_plan){0};
}

/* ---- the uniform plan ---- */

static at_err check_options(const struct at_model_config *c, int replicas, int pp, int tp, int microbatches,
                            uint32_t batch, struct at_diag *diag)
{
    int slots = at_model_slots(c);
    if (tp < 1 || tp > slots || slots % tp != 0) {
        char ways[32] = "1";
        for (int s = 2, n = 1; s <= slots; s *= 2) n += snprintf(ways + n, sizeof ways - (size_t)n, ", %d", s);
        return at_fail(diag, AT_E_USAGE, "--tp",
                       "%d: this model can be split into %s tensor ranks (a power of two up to 8 that divides its %u "
                       "key/value heads, its feed-forward width %u and its vocabulary %u)",
                       tp, ways, c->kv_heads, c->d_ff, at_model_vocab_padded(c));
    }
    if (pp < 1 || pp > (int)c->layers)
        return at_fail(diag, AT_E_USAGE, "--pp", "%d: this model has %u layers, so it takes 1 to %u stages", pp,
                       c->layers, c->layers);
    if (microbatches < 1 || (uint32_t)microbatches > batch)
        return at_fail(diag, AT_E_USAGE, "--microbatches",
                       "%d: a step has %u sequences and a microbatch at least one, so 1 to %u", microbatches, batch,
                       batch);
    if (replicas < 1 || (int64_t)replicas * pp * tp > AT_PLAN_RANKS_MAX)
        return at_fail(diag, AT_E_USAGE, "--replicas", "%d: 1 to %d (at most %d ranks, and a replica has %d)", replicas,
                       AT_PLAN_RANKS_MAX / (pp * tp), AT_PLAN_RANKS_MAX, pp * tp);
    return AT_OK;
}

at_err at_plan_uniform(struct at_plan *plan, const struct at_model_config *config, int replicas, int pp, int tp,
                       int microbatches, uint32_t batch, struct at_diag *diag)
{
    struct at_plan n = {0};
    int layers[256];
    at_err_t err = check_options(config, replicas, pp, tp, microbatches, batch, diag);
    if (err == AT_OK) err = at_plan_alloc(&n, replicas, replicas * pp, replicas * pp * tp, diag);
    if (err != AT_OK) return err;
    at_stages_cut(config, pp, layers);
    n.microbatches = microbatches;
    for (int r = 0, rank = 0; r < replicas; r++) {
        n.replica[r] = (struct at_plan_replica){.stage_first = r * pp, .stages = pp};
        for (int s = 0, first = 0; s < pp; s++) {
            n.stage[r * pp + s] =
                (struct at_plan_stage){.layer_first = first, .layers = layers[s], .tp = tp, .rank_first = rank};
            first += layers[s];
            rank += tp;
        }
    }
    *plan = n;
    return AT_OK;
}

/* ---- checking ---- */

static at_err check_stage(const struct at_plan *p, const struct at_model_config *c, int replica, int s, int *io_layer,
                          int *io_rank, struct at_diag *diag)
{
    const struct at_plan_stage *t = &p->stage[p->replica[replica].stage_first + s];
    char where[64];
    int slots = at_model_slots(c);
    snprintf(where, sizeof where, "replica %d, stage %d", replica, s);
    if (t->layers < 1 || t->layers > (int)c->layers)
        return at_fail(diag, AT_E_DATA, where, "has %d layers; a stage has 1 to %u", t->layers, c->layers);
    if (t->layer_first != *io_layer)
        return at_fail(diag, AT_E_DATA, where, "starts at layer %d; the stages before it end at %d", t->layer_first,
                       *io_layer);
    if (t->tp < 1 || t->tp > slots || slots % t->tp != 0)
        return at_fail(diag, AT_E_DATA, where, "tp %d does not divide the %d slots of this model", t->tp, slots);
    if (t->rank_first != *io_rank)
        return at_fail(diag, AT_E_DATA, where, "its first rank is %d; counting on it is %d", t->rank_first, *io_rank);
    *io_layer += t->layers; /* neither can overflow: 256 stages of 256 layers a replica, ranks checked below */
    *io_rank += t->tp;
    if (*io_rank > p->ranks) return at_fail(diag, AT_E_DATA, where, "has ranks beyond the plan's %d", p->ranks);
    return AT_OK;
}

at_err at_plan_check(const struct at_plan *plan, const struct at_model_config *config, uint32_t batch,
                     struct at_diag *diag)
{
    int stage = 0, rank = 0;
    if (plan->replicas < 1 || plan->stages < plan->replicas || plan->ranks < plan->stages ||
        plan->ranks > AT_PLAN_RANKS_MAX)
        return at_fail(diag, AT_E_DATA, "plan",
                       "%d replicas, %d stages, %d ranks: must be 1 <= replicas <= stages "
                       "<= ranks <= %d",
                       plan->replicas, plan->stages, plan->ranks, AT_PLAN_RANKS_MAX);
    if (plan->microbatches < 1 || (uint32_t)plan->microbatches > batch)
        return at_fail(diag, AT_E_DATA, "microbatches", "%d: a step has %u sequences", plan->microbatches, batch);
    for (int r = 0; r < plan->replicas; r++) {
        const struct at_plan_replica *rep = &plan->replica[r];
        char where[32];
        int layer = 0;
        snprintf(where, sizeof where, "replica %d", r);
        if (rep->stage_first != stage || rep->stages < 1 || rep->stages > (int)config->layers ||
            rep->stages > plan->stages - stage)
            return at_fail(diag, AT_E_DATA, where, "stages %d to %d: must go on at %d, be 1 to %u of the plan's %d",
                           rep->stage_first, rep->stages, stage, config->layers, plan->stages);
        for (int s = 0; s < rep->stages; s++) {
            at_err_t err = check_stage(plan, config, r, s, &layer, &rank, diag);
            if (err != AT_OK) return err;
        }
        if (layer != (int)config->layers)
            return at_fail(diag, AT_E_DATA, where, "its stages hold %d layers; the model has %u", layer,
                           config->layers);
        stage += rep->stages;
    }
    if (stage != plan->stages || rank != plan->ranks)
        return at_fail(diag, AT_E_DATA, "plan", "names %d stages and %d ranks, and its replicas have %d and %d",
                       plan->stages, plan->ranks, stage, rank);
    for (int i = 0; i < plan->ranks; i++)
        if (plan->node[i] < -1) return at_fail(diag, AT_E_DATA, "node", "rank %d lies on node %d", i, plan->node[i]);
    return AT_OK;
}

/* ---- reading ---- */

struct at_place at_plan_place(const struct at_plan *plan, int rank)
{
    AT_ASSERT(rank >= 0 && rank < plan->ranks);
    int lo = 0, hi = plan->stages; /* the last stage whose first rank is <= rank */
    while (hi - lo > 1) {
        int mid = lo + (hi - lo) / 2;
        if (plan->stage[mid].rank_first <= rank)
            lo = mid;
        else
            hi = mid;
    }
    int r = 0, end = plan->replicas;
    while (end - r > 1) {
        int mid = r + (end - r) / 2;
        if (plan->replica[mid].stage_first <= lo)
            r = mid;
        else
            end = mid;
    }
    const struct at_plan_stage *at = &plan->stage[lo];
    int stage = lo - plan->replica[r].stage_first;
    return (struct at_place){.replica = r,
                             .stage = stage,
                             .tp_rank = rank - at->rank_first,
                             .at = at,
                             .first = stage == 0,
                             .last = stage == plan->replica[r].stages - 1};
}

struct at_shard at_plan_shard(const struct at_plan *plan, const struct at_model_config *config, int rank)
{
    struct at_place p = at_plan_place(plan, rank);
    int slots = at_model_slots(config) / p.at->tp;
    return (struct at_shard){
        .slot_first = p.tp_rank * slots, .slots = slots, .layer_first = p.at->layer_first, .layers = p.at->layers};
}

struct at_place_name at_plan_place_name(const struct at_plan *plan, int rank)
{
    struct at_place p = at_plan_place(plan, rank);
    struct at_place_name n;
    snprintf(n.s, sizeof n.s, "rank %d (replica %d, stage %d, tensor rank %d)", rank, p.replica, p.stage, p.tp_rank);
    return n;
}
