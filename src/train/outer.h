/* outer.h: the outer step: how the replicas' updates become the next public state, and what kinds of it there are.
 * Pure; blocks are spread over the threads. Exact: yes.
 *
 * Weights: w_r = tokens_r / sum of tokens, binary64. Clipped rounds: norm_r = sqrt of the sum of squares of what was
 * decoded of replica r (binary64; per (tensor, slot) elements ascending; slot tree; tensors by id); limit = the lower
 * median of the norms; w_r *= limit / norm_r where norm_r > limit. Rounded to binary32 once.
 * Then per element, with x_r decoded from replica r, replicas in the order given (ascending index):
 *   a = +0;  a = fma(w_r, x_r, a) for every r
 *   with momentum in the state:   m = fma(mu, m, a);  a = fma(mu, m, a)        (Nesterov)
 *   theta = fma(-alpha, a, theta)
 * Statistics: w_r as above but never clipped;  a = +0;  a = fma(w_r, stat_r, a).  state.round += 1. */
#ifndef ATOLL_TRAIN_OUTER_H
#define ATOLL_TRAIN_OUTER_H

#include "model/config.h"
#include "tensor/exec.h"
#include "train/update.h"

#define AT_OUTER_REPLICAS_MAX 1024

enum at_outer_kind { AT_OUTER_MEAN = 1, AT_OUTER_DILOCO, AT_OUTER_SPARSE, AT_OUTER_AUTO };

/* What OPEN says of a round: plain values, so that one node's bytes can be broadcast to the others of the same build. */
struct at_round {
    uint32_t round, steps; /* inner steps of every replica, at most */
    uint64_t step_first;   /* inner steps of the run before this round: the learning rate's clock */
    uint32_t codec, k;     /* codec id and its parameter (0: none) */
    uint32_t tau;          /* inner steps before the last round's result is joined */
    uint32_t clip;         /* 1: contributions are clipped to the lower median of their norms */
    real alpha, momentum;  /* outer learning rate; mu */
    double seconds;        /* a unit ends after the step that reaches this time; 0: never */
};

/* The settings of a run. */
struct at_outer_config {
    enum at_outer_kind kind;
    uint32_t k;                     /* sparse: kept of 4096, 1 to AT_SPARSE_K_MAX */
    uint32_t tau;                   /* <= 2, and less than steps_min */
    uint32_t steps_min, steps_max;  /* H; 0: the train config's steps. Fixed kinds take steps_max */
    double alpha_first, alpha_last; /* outer learning rate, straight from the one to the other over the run's steps */
    double momentum;                /* mu of the kinds with momentum, else 0 */
    double carry; /* dense rounds but the mean's: mu is at least carry^steps: what beta1 would have kept of m */
    double dense_fraction; /* of the run's steps: its start. sparse: dense there, by int4; auto: auto.h */
    uint32_t dense_steps;  /* auto: the start is at least so many steps */
    uint32_t steps_young;  /* diloco, sparse: H at most this in the start; 0: as later. auto: the shortest H there */
    double decay_share;    /* of the weight decay, see at_outer_adapt; 1: all */
    double round_seconds;  /* at_round.seconds */
};
#define AT_SPARSE_K_MAX  1024
#define AT_OUTER_TAU_MAX 2

/* mean | diloco | sparse | auto. AT_E_USAGE lists them. */
at_err at_outer_kind_find(const char *name, struct at_diag *diag, enum at_outer_kind *ret_kind);
const char *at_outer_kind_name(enum at_outer_kind kind);
void at_outer_config_default(struct at_outer_config *c, enum at_outer_kind kind);
/* AT_E_USAGE naming the field. */
at_err at_outer_config_check(const struct at_outer_config *c, const struct at_train_config *train,
                             struct at_diag *diag);
/* The training settings for such rounds. With m = 0 at a round's start the gradient's part of H inner steps is only
 * sum over k of (1 - beta1^k), of H; outer momentum makes good for it, but multiplies the weight decay as well. */
void at_outer_adapt(const struct at_outer_config *c, struct at_train_config *io_train);
/* Whether states of such a run have an outer momentum. */
bool at_outer_config_momentum(const struct at_outer_config *c);

/* A round of the plain mean: codec plain, alpha 1. */
struct at_round at_round_mean(uint32_t round, uint32_t steps, uint64_t step_first);
/* mu of a dense round of so many steps, of a run that has outer momentum. */
real at_outer_dense_momentum(const struct at_outer_config *c, uint64_t steps);
/* The round that a run with fixed settings does after `previous` (NULL: the first); auto: plain and of the usual length,
 * auto.h is asked where there are links. previous->steps: what was done (the most of any replica), if rounds are bounded
 * by time. steps are cut where the run's rounds x steps end; 0: they have ended. */
struct at_round at_outer_round(const struct at_outer_config *c, const struct at_train_config *train,
                               const struct at_round *previous);
/* AT_E_DATA for a round that cannot be (foreign bytes). */
at_err at_round_check(const struct at_round *r, struct at_diag *diag);

struct at_gather; /* gather.h */

/* updates[n], complete, of round state->round and by round->codec, k; 1 <= n <= AT_OUTER_REPLICAS_MAX. In place; two
 * passes, so that on AT_E_NONFINITE (or AT_E_DATA for an update of another round or codec) the state is unchanged. A
 * state has momentum, or round->momentum is 0. gather: over the ranks of a replica, for the norms of clipped rounds
 * and so that all refuse alike, naming the first tensor by id; NULL: alone. All ranks then call it alike. No update: see
 * at_outer_skip. Takes a kilobyte for each update and thread meanwhile: AT_E_NOMEM, the state unchanged. */
at_err at_outer_step(const struct at_exec *ex, struct at_state *state, const struct at_update *updates, int n,
                     const struct at_round *round, const struct at_gather *gather, struct at_diag *diag);
/* The same in fragments, for rounds without clipping: params->block[first .. first + blocks), which are there in all
 * updates; then, after the last one, at_outer_skip. An error leaves the fragments before it applied. AT_E_NONFINITE names
 * the first bad tensor of this fragment that this rank holds: a rank does not know of later fragments, nor of what other
 * ranks hold. So if several tensors turn out not to be finite, which of them a run names depends on how it is cut, and on
 * which rank speaks first. That it ends does not. */
at_err at_outer_blocks(const struct at_exec *ex, struct at_state *state, const struct at_update *updates, int n,
                       const struct at_round *round, int first, int blocks, struct at_diag *diag);
/* Only the round number moves: a round that nobody finished, or the end of one in fragments. */
void at_outer_skip(struct at_state *state);

#endif
