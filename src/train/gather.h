/* gather.h: how a replica's ranks tell each other numbers. Handed down, as par.h hands down threads; parallel/ makes one
 * from links (collective.h). Exact: yes. */
#ifndef ATOLL_TRAIN_GATHER_H
#define ATOLL_TRAIN_GATHER_H

#include "base/err.h"

#include <stddef.h>

/* Each element of x(n) is +0 on all ranks but at most one; afterwards all ranks have it, to the bit. All ranks call it
 * alike. run NULL: alone. */
struct at_gather {
    at_err_t (*run)(void *arg, double *x, size_t n, struct at_diag *diag);
    void *arg;
};

#endif
