/* local.h: a whole run in one process (`atoll train`): R replicas one after the other, round by round, through the same
 * functions as the swarm, so it ends in the same state root. Replica i of round t takes the samples
 * [(t*R + i) * steps * batch, + steps * batch). */
#ifndef ATOLL_TRAIN_LOCAL_H
#define ATOLL_TRAIN_LOCAL_H

#include "train/outer.h"
#include "train/unit.h"

struct at_local {
    const struct at_model *model; /* borrowed, as is data */
    const struct at_data *data;
    struct at_train_config config;
    int replicas;
    struct at_state state;
    struct at_trainer trainer;
    struct at_buf *blob; /* [replicas] */
    struct at_update *update; /* [replicas] */
    uint64_t tokens; /* trained on so far */
};
/* State at genesis (config->seed). AT_E_NOMEM, AT_E_DATA. microbatch as in at_trainer_init. */
at_err at_local_init(struct at_local *l, const struct at_model *m, const struct at_data *data,
                     const struct at_train_config *config, int replicas, long microbatch, struct at_diag *diag);
void at_local_release(struct at_local *l);
/* Bytes that at_local_init and the rounds allocate. */
size_t at_local_bytes(const struct at_model_config *model, const struct at_train_config *train, int replicas,
                      long microbatch);

/* Told after every inner step of every replica; false stops the run: the round is thrown away (AT_E_INTERRUPTED). */
typedef bool at_local_progress_fn(void *arg, int replica, const struct at_unit_progress *progress);
/* One round: all replicas, then the outer step. loss: mean training loss of the round. */
at_err at_local_round(struct at_local *l, const struct at_exec *ex, at_local_progress_fn *progress, void *arg,
                      struct at_diag *diag, double *ret_loss);

#endif
