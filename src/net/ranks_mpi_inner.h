/* ranks_mpi_inner.h: the watch over ranks that mpirun started: TLS links between rank 0 and each other rank, beside MPI,
 * for heartbeats and the verdict. Only in builds with MPI. */
#ifndef ATOLL_NET_RANKS_MPI_INNER_H
#define ATOLL_NET_RANKS_MPI_INNER_H

#include "net/ranks.h"

#define OMPI_SKIP_MPICXX 1
#include <mpi.h>

struct at_mpi_watch;

/* Collective, before any other thread calls MPI. Copies MPI_COMM_WORLD (errors are returned; owned by the caller) and
 * hands the run's secret and rank 0's addresses out over it; compares the facts. run and its texts are borrowed. AT_E_PEER
 * with the verdict, AT_E_ENV. A verdict ends this process (ranks.h) from its return on, and may do so before: as soon as
 * the links are being made. The last words are then said all the same: by whoever ends it, once. */
at_err at_mpi_watch_start(const struct at_ranks_run *run, void (*last_words)(void *arg, const struct at_diag *verdict),
                          void *arg, struct at_diag *diag, MPI_Comm *ret_comm, struct at_mpi_watch **ret_watch);
/* This rank cannot go on: the verdict follows within moments, in another thread. Any thread. */
void at_mpi_watch_fail(struct at_mpi_watch *w, const struct at_diag *what);
/* Says the last words, unless they are said; returns when they are. Any thread. */
void at_mpi_watch_last_words(struct at_mpi_watch *w, const struct at_diag *verdict);
void at_mpi_watch_release(struct at_mpi_watch *w); /* NULL is fine */

#endif
