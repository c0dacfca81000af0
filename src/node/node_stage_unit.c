#include "node/node_stage_unit.h"

#include "parallel/rank.h"

static void set_cut(struct at_plan *plan, const struct at_stage_cut *cut)
{
    int before = 0;
    AT_ASSERT(cut->stages == plan->stages);
    for (int s = 0; s < plan->stages; s++) {
        plan->stage[s].layer_first = before;
        plan->stage[s].layers = cut->layers[s];
        before += cut->layers[s];
    }
}

static at_err plan_for(struct at_plan *plan, const struct at_genesis *g, int stages, struct at_diag *diag)
{
    return at_plan_uniform(plan, &g->model, 1, stages, 1, at_stage_microbatches(g->train.batch, stages), g->train.batch,
                           diag);
}

size_t at_stage_unit_bytes(const struct at_genesis *g, int stage)
{
    struct at_plan plan = {0};
    struct at_rank_options options = {.plan = &plan, .model = &g->model, .train = &g->train, .outer = &g->outer};
    size_t bytes = plan_for(&plan, g, (int)g->stages, NULL) == AT_OK ? at_rank_bytes(&options, stage) : 0;
    at_plan_release(&plan);
    return bytes;
}

size_t at_stage_unit_bytes_max(const struct at_genesis *g)
{
    size_t largest = 0;
    for (int s = 0; s < (int)g->stages; s++) {
        size_t bytes = at_stage_unit_bytes(g, s);
        if (bytes > largest) largest = bytes;
    }
    return largest;
}

at_err_t at_stage_unit_run(const struct at_comm *comm, const struct at_stage_cut *cut, const struct at_genesis *g,
                           const struct at_exec *ex, const struct at_data *data, const struct at_memory *paged,
                           const struct at_state *state, const struct at_unit *unit, struct at_stage_watch *watch,
                           struct at_diag *diag, struct at_buf *out, struct at_unit_report *ret_report)
{
    struct at_plan plan = {0};
    struct at_rank *rank = NULL;
    at_err_t err = plan_for(&plan, g, comm->ranks, diag);
    struct at_rank_options options = {
        .plan = &plan, .model = &g->model, .train = &g->train, .outer = &g->outer, .data = data};
    if (!err) set_cut(&plan, cut);
    if (!err && at_rank_bytes(&options, comm->rank) > at_stage_unit_bytes_max(g)) options.memory = paged;
    if (!err) err = at_rank_init(&rank, comm, ex, &options, diag);
    if (!err) err = at_rank_share(rank, state, watch->share, watch->share_goes, watch->arg, diag, &watch->ret_heldout);
    if (!err) watch->begins(watch->arg);
    if (!err) err = at_rank_unit(rank, state, unit, watch->progress, watch->arg, diag, out, ret_report);
    at_rank_release(rank);
    at_plan_release(&plan);
    return err;
}
