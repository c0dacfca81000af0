/* ops_split.h: inner header of the tensor layer: how the drivers cut their outputs (rows, columns or runs of elements:
 * never one output's chain) into jobs. */
#ifndef ATOLL_TENSOR_OPS_SPLIT_H
#define ATOLL_TENSOR_OPS_SPLIT_H

#include "tensor/exec.h"

/* Several jobs for a thread, so that one that is held up does not hold up all; few elements are not worth waking
 * anybody. */
#define JOBS_PER_THREAD  4
#define JOB_ELEMENTS_MIN 8192
#define RUN_ELEMENTS     64 /* runs of elements and columns start at multiples of this: no cache line has two writers */

/* `count` units of work (rows, or runs of elements), cut into jobs. */
struct split {
    long count;
    int jobs;
};

static inline struct split split_units(const struct at_exec *ex, long count, long elements)
{
    long jobs = ex->par->threads == 1 ? 1 : (long)ex->par->threads * JOBS_PER_THREAD;
    if (jobs > elements / JOB_ELEMENTS_MIN) jobs = elements / JOB_ELEMENTS_MIN;
    if (jobs > count) jobs = count;
    return (struct split){count, jobs < 1 ? 1 : (int)jobs};
}

/* Units [*ret_from, *ret_to) of a job; shares differ by at most one. */
static inline void share(const struct split *s, int job, long *ret_from, long *ret_to)
{
    long each = s->count / s->jobs, extra = s->count % s->jobs;
    *ret_from = job * each + (job < extra ? job : extra);
    *ret_to = *ret_from + each + (job < extra);
}

static inline struct split split_elements(const struct at_exec *ex, long n)
{
    return split_units(ex, (n + RUN_ELEMENTS - 1) / RUN_ELEMENTS, n);
}

static inline void share_elements(const struct split *s, int job, long n, long *ret_from, long *ret_n)
{
    long from, to;
    share(s, job, &from, &to);
    *ret_from = from * RUN_ELEMENTS;
    *ret_n = (to * RUN_ELEMENTS < n ? to * RUN_ELEMENTS : n) - *ret_from;
}

#endif
