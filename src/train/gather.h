/* gather.h: how the train layer is handed the other ranks of its replica, as par.h hands it threads. Pure. */
#ifndef ATOLL_TRAIN_GATHER_H
#define ATOLL_TRAIN_GATHER_H

#include "base/err.h"

#include <stddef.h>

/* Collective over the ranks of a replica: each element of x(n) is +0 on all ranks but at most one; afterwards all ranks
 * have its bits (a NaN stays some NaN). run NULL: alone, and nothing is to be done. */
struct at_gather {
    at_err_t (*run)(void *arg, double *x, size_t n, struct at_diag *diag);
    void *arg;
};

/* g may be NULL: alone. */
static inline at_err at_gather_run(const struct at_gather *g, double *x, size_t n, struct at_diag *diag)
{
    return g == NULL || g->run == NULL ? AT_OK : g->run(g->arg, x, n, diag);
}

#endif
