/* moments.h: inner header of the train layer: second moments v <-> the shared statistics (see unit.h for the exact
 * order). Exact: yes; blocks are spread over the threads. */
#ifndef ATOLL_TRAIN_MOMENTS_H
#define ATOLL_TRAIN_MOMENTS_H

#include "tensor/exec.h"
#include "train/state.h"

/* v(params.count) from stats: rows (r_i) times columns. */
void at_moments_expand(const struct at_exec *ex, const struct at_params *p, const real *stats, real *ret_v);
/* stats from v: means of rows and of columns. */
void at_moments_reduce(const struct at_exec *ex, const struct at_params *p, const real *v, real *ret_stats);

#endif
