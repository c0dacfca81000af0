/* culprit.h: where a step that is not finite went wrong (contract, rule 13): found in one process and in a split replica
 * alike, and told in the same words.
 *
 * Places have one order, that in which one process computes: the weights (tensors by id, slots); the forward pass,
 * sequence by sequence, layer by layer; the loss; then, when all of forward is finite, the gradients from the last tensor
 * to the first, as backward makes them. The first place that has or makes a value that is not finite is the culprit. A
 * value is looked at only when all that it is made from is finite, so the name is the same whatever the kernels, threads,
 * microbatches and cut into ranks. Exact: yes.
 *
 * Between replicas: the earliest inner step of the round counts, of several with that step the lowest replica.
 *
 * Only the steps of units: what an outer step names is in outer.h. There ranks agree on the tensor if updates are applied
 * whole; in fragments, of several bad ones any may be named. */
#ifndef ATOLL_TRAIN_CULPRIT_H
#define ATOLL_TRAIN_CULPRIT_H

#include "train/unit.h"

enum at_culprit_what {                  /* fewer than 16 */
                       AT_CULPRIT_NORM, /* only the gradient's norm: no tensor */
                       AT_CULPRIT_WEIGHT,
                       AT_CULPRIT_NORMED, /* what a gain makes */
                       AT_CULPRIT_PRODUCT,
                       AT_CULPRIT_ATTENTION,
                       AT_CULPRIT_SUM,
                       AT_CULPRIT_GATED,
                       AT_CULPRIT_LOSS,
                       AT_CULPRIT_GRADIENT,
                       AT_CULPRIT_MADE_WEIGHT, /* by the last step of a unit */
                       AT_CULPRIT_MADE_STATISTIC,
};

/* For a step whose loss or gradient is not finite, t->input, target, theta and grad still being those that it was made
 * from: runs its forward passes again, slowly, and sets tensor and what. Collective in a split replica; the same on all
 * its ranks. Uses t->step. Always an error: AT_E_NONFINITE once it is found, or what the other ranks report. */
at_err_t at_culprit_find(struct at_trainer *t, const struct at_exec *ex, struct at_diag *diag,
                         struct at_culprit *ret_culprit);

/* AT_E_NONFINITE with the words for it: tensor, layer, what, replica (-1: not told), round and step. Foreign values that
 * cannot be are told as an unknown place. */
at_err_t at_culprit_tell(const struct at_params *p, const struct at_culprit *culprit, int replica,
                         struct at_diag *diag);

#endif
