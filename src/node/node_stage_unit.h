/* node_stage_unit.h: one stage of a unit that several members compute together: the arithmetic of parallel/rank.h for a
 * replica whose ranks are members. Takes memory for the stage (its weights, gradient, moments, activations) and gives it
 * back. One thread. Exact: yes: the blocks of the update that one member alone would make. */
#ifndef ATOLL_NODE_NODE_STAGE_UNIT_H
#define ATOLL_NODE_NODE_STAGE_UNIT_H

#include "base/comm.h"
#include "model/stages.h"
#include "train/unit.h"
#include "wire/genesis.h"

/* Memory of one of the stages into which a group of g->stages members cuts the model; 0: beyond size_t. */
size_t at_stage_unit_bytes(const struct at_genesis *g, int stage);

/* Of the largest of them: what members of this run are asked to have memory for. */
size_t at_stage_unit_bytes_max(const struct at_genesis *g);

struct at_stage_watch {
    struct at_heldout_share share; /* of the held-out windows: their loss under `state` is computed first, */
    uint32_t ret_heldout;          /* its code, on the last stage; 0 on the others, and where there is none */
    at_heldout_go_fn *share_goes;  /* unless one of the group says no */
    void (*begins)(void *arg);     /* the steps begin */
    at_unit_progress_fn *progress;
    void *arg;
};
/* cut: in comm->ranks stages. paged: of a stage larger than any of those g->stages (smaller groups, uneven cuts): see
 * file_map.h. state: the whole public state. out: the update's blocks of stage comm->rank of comm->ranks are appended.
 * AT_E_NOMEM; what at_unit_train fails with; what the links fail with. */
at_err at_stage_unit_run(const struct at_comm *comm, const struct at_stage_cut *cut, const struct at_genesis *g,
                         const struct at_exec *ex, const struct at_data *data, const struct at_memory *paged,
                         const struct at_state *state, const struct at_unit *unit, struct at_stage_watch *watch,
                         struct at_diag *diag, struct at_buf *out, struct at_unit_report *ret_report);

#endif
