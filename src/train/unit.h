/* unit.h: a unit of work: H local optimizer steps on a range of samples, as a pure function of
 * (public state at the round's start, range, run configuration). Exact: yes, whoever computes it, with whatever
 * microbatch.
 *
 * Every unit starts from public state only:
 *   m = 0.  Round 0: v = 0, and inner step k (from 1) divides m and v by (1 - beta^k).
 *   Later rounds: no bias correction; a gain's v is its statistic; a matrix block's v is
 *     mean = (binary64 sum of its row means, ascending) / rows;  r_i = (real)(row_i / mean)  (0 when mean is 0);
 *     v[i,j] = r_i * col_j
 * Inner step:
 *   gradient of the mean loss of `batch` consecutive samples; norm = sqrt of the global sum of squares (rule 8);
 *   clip = norm > clip_norm ? (real)(clip_norm / norm) : 1;
 *   AdamW (ops.h) with weight decay on matrices only (embedding and head included), learning rate at_lr;
 *   bias corrections: beta^k by repeated binary64 multiplication, 1 / (1 - beta^k) rounded once.
 * Statistics handed over, of v after the last step:
 *   row mean = (real)(s / cols), s = 16 binary64 lanes joined as a row reduction;
 *   column mean = (real)(binary64 sum over rows ascending / rows); a gain whole. */
#ifndef ATOLL_TRAIN_UNIT_H
#define ATOLL_TRAIN_UNIT_H

#include "model/transformer.h"
#include "train/data.h"
#include "train/update.h"

/* g = round * steps + step: g < warmup: peak * (g+1) / warmup; then a cosine from peak to peak * final_fraction over
 * the remaining rounds * steps - warmup steps, constant afterwards. binary64, rounded once. */
real at_lr(const struct at_train_config *c, uint32_t round, uint32_t step);

/* All memory a replica needs besides the state: weights, gradient, m, v, activations of one microbatch. */
struct at_trainer {
    const struct at_model *model; /* borrowed */
    struct at_train_config config;
    long microbatch;
    real *theta, *grad, *m, *v, *stats;
    int32_t *input, *target;
    struct at_activations act;
};
/* Bytes that at_trainer_init will allocate, to be shown before it is called, and those of one at_state. 0: beyond
 * size_t. */
size_t at_trainer_bytes(const struct at_model_config *model, const struct at_train_config *train, long microbatch);
size_t at_state_bytes(const struct at_model_config *model);
/* microbatch: sequences per forward pass, at most config->batch; 0 = choose (activations up to about 96 MiB). */
at_err at_trainer_init(struct at_trainer *t, const struct at_model *m, const struct at_train_config *config,
                       long microbatch, struct at_diag *diag);
void at_trainer_release(struct at_trainer *t);

struct at_unit {
    uint64_t start;   /* first sample of the endless sequence */
    uint32_t samples; /* a multiple of batch; samples / batch inner steps */
};

/* Told after every inner step; returning false ends the unit there: the consumed prefix counts. */
struct at_unit_progress {
    uint32_t step; /* steps done */
    uint64_t tokens;
    double loss; /* mean of this step, nats per token */
};
typedef bool at_unit_progress_fn(void *arg, const struct at_unit_progress *progress);

struct at_unit_report {
    struct at_update_info info;
    double loss_mean; /* over all tokens of the unit */
};

/* Runs the unit from `state` (unchanged) and appends the update's blob. progress may be NULL. At least one step is
 * done. AT_E_NONFINITE naming tensor and layer; AT_E_NOMEM, AT_E_TOO_BIG for the blob. */
at_err at_unit_run(struct at_trainer *t, const struct at_exec *ex, const struct at_data *data,
                   const struct at_state *state, const struct at_unit *unit, at_unit_progress_fn *progress, void *arg,
                   struct at_diag *diag, struct at_buf *out, struct at_unit_report *ret_report);

/* One step's gradient: tokens(batch,T) already in t->input, t->target; into t->grad; returns the sum of losses. For
 * tests and benchmarks; at_unit_run is made of it. */
double at_trainer_gradient(struct at_trainer *t, const struct at_exec *ex, const real *theta);
/* One optimizer step on t->theta, m, v from t->grad: k = inner step from 1. AT_E_NONFINITE. */
at_err at_trainer_step(struct at_trainer *t, const struct at_exec *ex, uint32_t round, uint32_t k,
                       struct at_diag *diag);

/* Mean loss over the held-out windows, nats per token, binary64 sum in order. Uses the activations of `t`. */
double at_heldout_loss(struct at_trainer *t, const struct at_exec *ex, const struct at_data *data, const real *theta);

#endif
