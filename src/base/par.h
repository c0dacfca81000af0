/* par.h: how the pure layers are handed a thread pool. The pool itself belongs to os/.
 *
 * run() calls job(arg, i) once for every i in [0, jobs) on some thread and returns when all are done. Jobs write
 * disjoint outputs, so results do not depend on how they are spread (arithmetic contract, rule 12). */
#ifndef ATOLL_BASE_PAR_H
#define ATOLL_BASE_PAR_H

typedef void at_job_fn(void *arg, int job);

struct at_par {
    int threads; /* how many jobs run side by side at most; >= 1 */
    void (*run)(void *pool, int jobs, at_job_fn *job, void *arg);
    void *pool;
};

/* The calling thread alone. */
extern const struct at_par at_par_serial;

static inline void at_par_run(const struct at_par *par, int jobs, at_job_fn *job, void *arg)
{
    par->run(par->pool, jobs, job, arg);
}

#endif
