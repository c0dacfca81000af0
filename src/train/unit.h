/* unit.h: a unit of work: H local optimizer steps on a range of samples, as a pure function of
 * (public state at the round's start, range, run configuration). Exact: yes, whoever computes it, with whatever
 * microbatch, recomputation, and cut into ranks: one rank of a split replica runs the same functions on its shard and is
 * handed the others (struct at_replica).
 *
 * Every unit starts from public state only:
 *   m = 0.  Round 0: v = 0, and inner step k (from 1) divides m and v by (1 - beta^k).
 *   Later rounds: no bias correction; a gain's v is its statistic; a matrix block's v is
 *     mean = (binary64 sum of its row means, ascending) / rows;  r_i = (real)(row_i / mean)  (0 when mean is 0);
 *     v[i,j] = r_i * col_j
 * Overlap: a unit may begin before the state it belongs to is known. It starts from the weights s that the unit before it
 *   left, m = 0, and v from the statistics of the state before; after tau steps the new state is joined, per element:
 *     theta = theta + (state.theta - s)
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

#include "model/heldout.h"
#include "model/transformer.h"
#include "train/data.h"
#include "train/gather.h"
#include "train/update.h"

/* g: inner steps of the run before this one. g < warmup: peak * (g+1) / warmup; then a cosine from peak to
 * peak * final_fraction over the remaining rounds * steps - warmup steps, constant afterwards. binary64, rounded once. */
real at_lr(const struct at_train_config *c, uint64_t g);

struct at_trainer;

/* Where a unit stopped being finite (culprit.h): plain values, so that ranks of one build can tell each other. */
struct at_culprit {
    uint32_t round;
    uint32_t
        step; /* the inner step of the unit, from 1, that was refused; what the last one made: its steps + 1; 0: none */
    uint32_t tensor, what; /* tensor id; enum at_culprit_what */
};

/* The other ranks of this trainer's replica, made by parallel/. All ranks of a replica run the same units, step by step
 * together; errors are the same on all. */
struct at_replica {
    struct at_tp tp; /* of this rank's stage */
    void *arg;
    /* Forward and backward of the whole batch in t->input, t->target into t->grad, at_model_grad_finish included.
     * ret_sum: the sum of the losses on one rank of the last stage, 0 on all others. */
    at_err_t (*gradient)(void *arg, struct at_trainer *t, const struct at_exec *ex, const real *theta, double *ret_sum,
                         struct at_diag *diag);
    /* The forward passes of that batch once more, a sequence at a time: every rank looks at what it has of each, in
     * order, before anything else is computed. ret_sum as above. For at_culprit_find. */
    at_err_t (*forward)(void *arg, struct at_trainer *t, const struct at_exec *ex, const real *theta,
                        void (*look)(void *look_arg, long sequence, struct at_activations *a), void *look_arg,
                        double *ret_sum, struct at_diag *diag);
    struct at_gather gather; /* over the ranks of the replica */
    bool leader;             /* its progress function may end the unit early: one rank of the replica, or several */
};

/* All memory that a rank needs besides the state: weights, gradient, m, v of its shard, activations. */
struct at_trainer {
    const struct at_model *model;     /* borrowed */
    const struct at_replica *replica; /* borrowed, set by whoever makes it; NULL: alone, the model is whole */
    struct at_train_config config;
    long microbatch; /* sequences of one forward pass */
    int in_flight;
    struct at_memory memory;       /* where the large arrays are from, */
    size_t flat_bytes, grad_bytes; /* and their lengths: of grad; of each of the others */
    real *theta, *grad, *m, *v, *stats;
    real *theta_start;       /* overlap: what the unit started from; else NULL */
    double *step;            /* [at_step_values] what the ranks of a replica gather each step */
    int32_t *input, *target; /* (batch, T) */
    struct at_passing *pass;
    struct at_activations *act; /* [in_flight] */
    struct at_culprit culprit;  /* of a unit that ended with AT_E_NONFINITE */
};
struct at_trainer_options {
    long microbatch;   /* sequences per forward pass, at most config->batch; 0: see trainer.c, by memory */
    int in_flight;     /* microbatches whose activations are kept at a time; 0 = 1, which is enough when alone */
    bool recompute;    /* transformer.h: less memory, more work, the same bits */
    bool overlap;      /* units may have a join */
    bool forward_only; /* for held-out loss alone: theta, grad, m, v, stats and step are not there */
    const struct at_memory *memory; /* of the arrays and activations; its arg is borrowed; NULL: the process' own */
};
/* Sequences of a forward pass under these options. */
long at_trainer_microbatch(const struct at_model_config *model, const struct at_shard *shard,
                           const struct at_train_config *train, const struct at_trainer_options *options);
/* Bytes that at_trainer_init_options will allocate, to be shown before it is called. 0: beyond size_t. */
size_t at_trainer_bytes_options(const struct at_model_config *model, const struct at_shard *shard,
                                const struct at_train_config *train, const struct at_trainer_options *options);
at_err at_trainer_init_options(struct at_trainer *t, const struct at_model *m, const struct at_train_config *config,
                               const struct at_trainer_options *options, struct at_diag *diag);
void at_trainer_release(struct at_trainer *t);
/* The same for the whole model and the plainest options; and the bytes of one at_state. */
size_t at_trainer_bytes(const struct at_model_config *model, const struct at_train_config *train, long microbatch);
at_err at_trainer_init(struct at_trainer *t, const struct at_model *m, const struct at_train_config *config,
                       long microbatch, struct at_diag *diag);
size_t at_state_bytes(const struct at_model_config *model);

struct at_unit {
    uint64_t start;      /* first sample of the endless sequence */
    uint32_t samples;    /* a multiple of batch; samples / batch inner steps */
    uint64_t step_first; /* inner steps of the run before this round: the learning rate's clock */
    /* Overlap (NULL: none): makes *state, until then the one before, the state that this unit belongs to (state.round + 1).
     * Called once, after `tau` steps or at the end of a shorter unit. t->theta must be what the unit before left. */
    at_err_t (*join)(void *arg, struct at_diag *diag);
    void *join_arg;
    uint32_t tau;
};

/* Told after every inner step; returning false ends the unit there: the consumed prefix counts. In a split replica all
 * ranks are told and a leader's answer counts (it travels with the next step's values: that step's gradient is thrown
 * away). */
struct at_unit_progress {
    uint32_t step; /* steps done */
    uint64_t tokens;
    double loss; /* mean of this step, nats per token; the same on all ranks */
};
typedef bool at_unit_progress_fn(void *arg, const struct at_unit_progress *progress);

struct at_unit_report {
    struct at_update_info info;
    double loss_mean; /* over all tokens of the unit */
};

/* Runs the unit from `state` (of the trainer's model, unchanged but by join). Leaves the weights in t->theta and their
 * statistics in t->stats: the update is d = state->theta - t->theta. progress may be NULL. At least one step is done.
 * AT_E_NONFINITE naming tensor, layer, round and step (also in t->culprit); AT_E_DATA; in a split replica what the other
 * ranks report. */
at_err at_unit_train(struct at_trainer *t, const struct at_exec *ex, const struct at_data *data,
                     const struct at_state *state, const struct at_unit *unit, at_unit_progress_fn *progress, void *arg,
                     struct at_diag *diag, struct at_unit_report *ret_report);
/* The same, and appends the update's blob in the plain codec. Also AT_E_NOMEM, AT_E_TOO_BIG for the blob. */
at_err at_unit_run(struct at_trainer *t, const struct at_exec *ex, const struct at_data *data,
                   const struct at_state *state, const struct at_unit *unit, at_unit_progress_fn *progress, void *arg,
                   struct at_diag *diag, struct at_buf *out, struct at_unit_report *ret_report);

/* One step's gradient, alone: tokens(batch,T) already in t->input, t->target; into t->grad; returns the sum of losses.
 * at_unit_train is made of it, and benchmarks are. */
double at_trainer_gradient(struct at_trainer *t, const struct at_exec *ex, const real *theta);
/* One optimizer step, alone, on t->theta, m, v from t->grad: k = inner step from 1, of rounds of config.steps steps.
 * AT_E_NONFINITE. */
at_err at_trainer_step(struct at_trainer *t, const struct at_exec *ex, uint32_t round, uint32_t k,
                       struct at_diag *diag);

/* ---- held-out loss ---- */

/* Mean loss over the held-out windows, nats per token. Uses the activations of `t`. */
double at_heldout_loss(struct at_trainer *t, const struct at_exec *ex, const struct at_data *data, const real *theta);
/* The same of a share of them, as its code (model/heldout.h). go (NULL: it does) is asked after each forward pass whether it
 * goes on: false ends it there, and the code is 0. */
typedef bool at_heldout_go_fn(void *arg);
uint32_t at_heldout_of_share(struct at_trainer *t, const struct at_exec *ex, const struct at_data *data,
                             const real *theta, struct at_heldout_share share, at_heldout_go_fn *go, void *arg);
long at_heldout_windows(const struct at_data *data, struct at_heldout_share share); /* how many the share has */
/* Its parts: windows first, first + step, ..., n <= batch of them, into t->input and t->target; of [first, first + n) the
 * loss of each token, ret_loss(n,T), alone; and the mean of the losses of all windows, loss(windows,T): a binary64 sum in
 * order. */
void at_heldout_load(struct at_trainer *t, const struct at_data *data, long first, long step, long n);
void at_heldout_losses(struct at_trainer *t, const struct at_exec *ex, const struct at_data *data, const real *theta,
                       long first, long n, real *ret_loss);
double at_heldout_mean(const real *loss, long windows, long seq_len);

#endif
