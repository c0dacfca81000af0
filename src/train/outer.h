/* outer.h: the outer step: theta_{t+1} = theta_t - sum_r w_r d_r, the statistics averaged with the same weights.
 * Pure; memory from the stack only; blocks are spread over the threads. Exact: yes.
 *
 * w_r = (real)((double)tokens_r / (double)(sum of tokens)). Replicas in the order given (ascending index). Weights:
 * at_axpy, that is alpha = 1. Statistics: a = +0; for r ascending a = fma(w_r, stat_r, a). state.round += 1. */
#ifndef ATOLL_TRAIN_OUTER_H
#define ATOLL_TRAIN_OUTER_H

#include "tensor/exec.h"
#include "train/update.h"

#define AT_OUTER_REPLICAS_MAX 1024

/* updates[n], parsed, of round state->round; 1 <= n <= AT_OUTER_REPLICAS_MAX. In place; two passes, so that on
 * AT_E_NONFINITE (or AT_E_DATA for an update of another round) the state is unchanged. No update: see at_outer_skip. */
at_err at_outer_step(const struct at_exec *ex, struct at_state *state, const struct at_update *updates, int n,
                     struct at_diag *diag);
/* A round that nobody finished: only the round number moves. */
void at_outer_skip(struct at_state *state);

#endif
