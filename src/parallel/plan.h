/* plan.h: who computes what: replica x stage x tensor rank. Pure. Exact: a plan never changes bits: for a fixed number of
 * replicas every plan gives the same state root.
 *
 * Words: a *replica* is one copy of the model that trains on its own data; its *stages* are runs of consecutive layers
 * (pipeline parallelism); the `tp` *ranks* of a stage split every layer by slots (tensor parallelism). Ranks are
 * numbered replica by replica, stage by stage, tensor rank by tensor rank. Stages of a replica may have different tp;
 * replicas may be cut differently. The first stage holds the embedding and the last one the final norm and the head; of
 * a tied model the last stage holds the one matrix, looks tokens up in it and sends the rows to the first stage. */
#ifndef ATOLL_PARALLEL_PLAN_H
#define ATOLL_PARALLEL_PLAN_H

#include "model/config.h"
#include "model/params.h"

#define AT_PLAN_RANKS_MAX 4096

struct at_plan_stage {
    int layer_first, layers;
    int tp, rank_first; /* ranks rank_first .. rank_first + tp - 1, slots ascending */
};
struct at_plan_replica {
    int stage_first, stages; /* into at_plan.stage */
};
struct at_plan {
    int replicas, stages, ranks; /* in all */
    int microbatches;            /* a step's sequences are cut into so many */
    struct at_plan_replica *replica;
    struct at_plan_stage *stage;
    int *node; /* [ranks] which of the planner's nodes runs a rank; -1: not said */
};

/* The same cut for all replicas, layers balanced by FLOPs, embedding and head counted. AT_E_USAGE with a sentence that
 * names the option and what is possible: tp must divide the slots (heads, feed-forward, vocabulary), pp <= layers,
 * microbatches <= batch. AT_E_NOMEM. */
at_err at_plan_uniform(struct at_plan *plan, const struct at_model_config *config, int replicas, int pp, int tp,
                       int microbatches, uint32_t batch, struct at_diag *diag);
/* An empty plan of this size, every rank's node -1, to be filled by its maker. AT_E_NOMEM. */
at_err at_plan_alloc(struct at_plan *plan, int replicas, int stages, int ranks, struct at_diag *diag);
void at_plan_release(struct at_plan *plan);
/* AT_E_DATA when a plan (foreign input: a file) does not fit the model: stages that leave out or repeat a layer, a tp
 * that does not divide the slots, ranks not numbered as above. */
at_err at_plan_check(const struct at_plan *plan, const struct at_model_config *config, uint32_t batch,
                     struct at_diag *diag);

/* Where a rank stands. */
struct at_place {
    int replica, stage, tp_rank; /* stage counts from 0 within its replica */
    const struct at_plan_stage *at;
    bool first, last; /* stage of its replica */
};
struct at_place at_plan_place(const struct at_plan *plan, int rank);
struct at_shard at_plan_shard(const struct at_plan *plan, const struct at_model_config *config, int rank);
/* "rank 3 (replica 0, stage 1, tensor rank 1)": what messages call it. */
struct at_place_name {
    char s[80];
};
struct at_place_name at_plan_place_name(const struct at_plan *plan, int rank);

#endif
