/* outer.h: the outer step: how the replicas' updates become the next public state (model/rounds.h: by which rule).
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

#include "model/rounds.h"
#include "tensor/exec.h"
#include "train/update.h"

#define AT_OUTER_REPLICAS_MAX 1024

/* AT_E_DATA for a round that cannot be (foreign bytes). */
at_err at_round_check(const struct at_round *r, struct at_diag *diag);

struct at_gather; /* gather.h */

/* updates[n], complete, of round state->round and by round->codec, k; 1 <= n <= AT_OUTER_REPLICAS_MAX. In place; two
 * passes, so that on AT_E_NONFINITE (or AT_E_DATA for an update of another round or codec) the state is unchanged. A
 * state has momentum, or round->momentum is 0. gather: over the ranks of a replica, for the norms of clipped rounds
 * and so that all refuse alike, naming the first tensor by id; NULL: alone. All ranks then call it alike. No update: see
 * at_outer_skip. Takes a kilobyte for each update and thread meanwhile: AT_E_NOMEM, the state unchanged. Sparse updates stay
 * unpacked (at_update_unpack), the first ones, as many as that takes no more than a quarter of the weights' bytes for. */
at_err at_outer_step(const struct at_exec *ex, struct at_state *state, struct at_update *updates, int n,
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
