/* local.h: a whole run in one process (`atoll train`): R replicas one after the other, round by round, through the same
 * functions as the swarm, so it ends in the same state root. It is what every split run must equal.
 *
 * Samples (base/samples.h): replica i takes the unit's `steps * batch` samples that are allotted next, replicas
 * ascending; what a unit that ended early did not consume is allotted again. Without early ends replica i of a round takes
 * [(step_first * R + i * steps) * batch, + steps * batch).
 *
 * Overlap (round.tau > 0): each replica goes on from its own weights; after tau steps the newest state is joined
 * (unit.h). In the first round of a run there is nothing to join: it starts from the state. The outer step itself is
 * done at the end of each round here: l->state is always the newest. */
#ifndef ATOLL_TRAIN_LOCAL_H
#define ATOLL_TRAIN_LOCAL_H

#include "base/samples.h"
#include "train/outer.h"
#include "train/unit.h"

struct at_local_replica {
    struct at_buf blob;
    struct at_update_info info; /* of its last unit */
    double loss_mean;
    real *theta;    /* with overlap: its own weights */
    real *feedback; /* with a lossy codec: error feedback */
};

struct at_local {
    const struct at_model *model; /* borrowed, as is data */
    const struct at_data *data;
    struct at_train_config config;
    struct at_outer_config outer;
    int replicas;
    struct at_state state;
    real *stats_before; /* with overlap: the statistics of the state before */
    struct at_trainer trainer;
    struct at_local_replica *replica; /* [replicas] */
    struct at_update *update;         /* [replicas] of the last round */
    struct at_samples samples;
    struct at_round round; /* the last one done */
    uint32_t steps_done;   /* in it, the most of any replica; 0: there was none */
    bool started;          /* it was done by this process, or its replicas' own values are loaded */
    bool torn;       /* a round failed halfway: what replicas keep for themselves is no longer that of the state */
    bool end_unit;   /* set by the progress function: this unit ends after this step, and counts */
    uint64_t tokens; /* trained on so far */
};

struct at_local_options { /* zero is the plainest */
    int replicas;
    long microbatch; /* as in at_trainer_options */
    bool recompute;
    const struct at_outer_config *outer; /* NULL: plain mean */
};
/* State at genesis (config->seed). AT_E_NOMEM, AT_E_DATA, AT_E_USAGE. */
at_err at_local_init_options(struct at_local *l, const struct at_model *m, const struct at_data *data,
                             const struct at_train_config *config, const struct at_local_options *options,
                             struct at_diag *diag);
at_err at_local_init(struct at_local *l, const struct at_model *m, const struct at_data *data,
                     const struct at_train_config *config, int replicas, long microbatch, struct at_diag *diag);
void at_local_release(struct at_local *l);
/* Bytes that at_local_init_options and the rounds allocate (samples aside). 0: beyond size_t. */
size_t at_local_bytes_options(const struct at_model_config *model, const struct at_train_config *train,
                              const struct at_local_options *options);
size_t at_local_bytes(const struct at_model_config *model, const struct at_train_config *train, int replicas,
                      long microbatch);

/* Goes on where an earlier process stopped: the caller has put the checkpoint of that round into l->state; `round`,
 * `steps_done` and `samples` (copied; its count of lists is small) are what the journal says of the last round before it
 * (journal.h). Unless at_local_own is filled as well, error feedback starts at zero, and the first round has nothing to
 * join. AT_E_NOMEM. */
at_err at_local_resume(struct at_local *l, const struct at_round *round, uint32_t steps_done,
                       const struct at_samples *samples, uint64_t tokens);

/* What replica `replica` keeps for itself: where one block of a part (AT_OWN_..., checkpoint_replica.h; a part that this
 * run has) lies. Valid between rounds, and not once one was torn. */
real *at_local_own(struct at_local *l, int replica, int part, int tensor, int slot);
/* Before own weights are filled in from a checkpoint: the next round then joins, as in the run that was never stopped. */
void at_local_start(struct at_local *l);

/* Told after every inner step of every replica; false stops the run: the round is thrown away (AT_E_INTERRUPTED), and
 * with a lossy codec or overlap the run is over, since its replicas are in the middle of it. */
typedef bool at_local_progress_fn(void *arg, int replica, const struct at_unit_progress *progress);
/* The round that comes next under the run's settings (auto: there is no link in one process, so the plain mean). steps 0:
 * the run is over. */
struct at_round at_local_next(const struct at_local *l);
/* One round: all replicas, then the outer step. loss: mean training loss of the round. AT_E_NONFINITE names tensor, layer,
 * replica, round and step, those that a split run names, too (culprit.h): the run is over. round->round is that of the
 * state; round->tau > 0 only when the settings have overlap, a lossy codec only when the kind has one (AT_E_USAGE). */
at_err at_local_do(struct at_local *l, const struct at_exec *ex, const struct at_round *round,
                   at_local_progress_fn *progress, void *arg, struct at_diag *diag, double *ret_loss);
/* at_local_do of at_local_next. */
at_err at_local_round(struct at_local *l, const struct at_exec *ex, at_local_progress_fn *progress, void *arg,
                      struct at_diag *diag, double *ret_loss);

#endif
