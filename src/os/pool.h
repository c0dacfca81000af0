/* pool.h: a persistent thread pool behind struct at_par (base/par.h).
 *
 * A call of run() cuts [0, jobs) into `threads` equal contiguous parts; the calling thread works on the first part and
 * the pool's own threads on the others. The partition depends on nothing but (jobs, threads). Nothing is allocated in
 * run(). Waiting threads spin for a few microseconds and then sleep on a futex-backed condition, so an idle pool costs
 * nothing.
 *
 * One run() at a time: a job must not call run() on its own pool, and two threads must not share a pool. Both are our
 * own mistakes and are asserted. */
#ifndef ATOLL_OS_POOL_H
#define ATOLL_OS_POOL_H

#include "base/err.h"
#include "base/par.h"

#define AT_POOL_THREADS_MAX 64

struct at_pool_impl;
struct at_pool {
    struct at_par par; /* hand out &pool->par; the pool must not move while it is in use */
    struct at_pool_impl *impl;
};

/* `threads` in 1..64 (AT_E_USAGE otherwise), the caller included. AT_E_ENV when the system gives no thread. */
at_err at_pool_init(struct at_pool *pool, int threads, struct at_diag *diag);
void at_pool_release(struct at_pool *pool); /* joins its threads; safe on a zeroed pool */

#endif
