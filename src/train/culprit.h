/* culprit.h: inner header of the train layer: where a step that is not finite went wrong (contract, rule 13). */
#ifndef ATOLL_TRAIN_CULPRIT_H
#define ATOLL_TRAIN_CULPRIT_H

#include "train/unit.h"

/* For a step whose loss or gradient is not finite, t->input, target and theta still being those that it was made from.
 * Runs its forward passes again and names in `diag` the first tensor, in the order of computing, that has or makes a
 * value that is not finite; when all of forward is finite, the gradient that backward met first. Always returns
 * AT_E_NONFINITE. In a split replica no rank has all of it: then the first tensor in canonical order whose gathered sum
 * of squares is not finite is named, or the loss; the same on all ranks. Exact: yes, the same name whatever the kernels,
 * threads and microbatch: a value is looked at only when all that it is made from is finite. */
at_err_t at_trainer_name_culprit(struct at_trainer *t, const struct at_exec *ex, struct at_diag *diag);

#endif
