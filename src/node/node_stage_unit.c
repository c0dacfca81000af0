#include "node/node_stage_unit.h"

#include "parallel/rank.h"

/* Twice as many microbatches as stages keep most of them busy (a bubble of a third); more messages would be smaller. */
static int microbatches(const struct at_genesis *g, int stages)
{
    return (uint32_t)(2 * stages) < g->train.batch ? 2 * stages : (int)g->train.batch;
}

static at_err plan_for(struct at_plan *plan, const struct at_genesis *g, int stages, struct at_diag *diag)
{
    return at_plan_uniform(plan, &g->model, 1, stages, 1, microbatches(g, stages), g->train.batch, diag);
}

size_t at_stage_unit_bytes(const struct at_genesis *g, int stage)
{
    struct at_plan plan = {0};
    struct at_rank_options options = {.plan = &plan, .model = &g->model, .train = &g->train, .outer = &g->outer};
    size_t bytes = plan_for(&plan, g, (int)g->stages, NULL) == AT_OK ? at_rank_bytes(&options, stage) : 0;
    at_plan_release(&plan);
    return bytes;
}

at_err_t at_stage_unit_run(const struct at_comm *comm, const struct at_genesis *g, const struct at_exec *ex,
                           const struct at_data *data, const struct at_memory *paged, const struct at_state *state,
                           const struct at_unit *unit, at_unit_progress_fn *progress, void *arg, struct at_diag *diag,
                           struct at_buf *out, struct at_unit_report *ret_report)
{
    struct at_plan plan = {0};
    struct at_rank *rank = NULL;
    at_err_t err = plan_for(&plan, g, comm->ranks, diag);
    struct at_rank_options options = {.plan = &plan,
                                      .model = &g->model,
                                      .train = &g->train,
                                      .outer = &g->outer,
                                      .data = data,
                                      .memory = (uint32_t)comm->ranks < g->stages ? paged : NULL};
    if (!err) err = at_rank_init(&rank, comm, ex, &options, diag);
    if (!err) err = at_rank_unit(rank, state, unit, progress, arg, diag, out, ret_report);
    at_rank_release(rank);
    at_plan_release(&plan);
    return err;
}
