#include "tensor/peak.h"

#include "tensor/gemm_kern.h"

#define JOBS_MAX 256

struct peak {
    const struct at_kern *kern;
    long iterations;
    double flops[JOBS_MAX];
};

static void run_one(void *arg, int job)
{
    struct peak *p = arg;
    p->flops[job] = p->kern->gemm->peak(p->iterations);
}

double at_peak_flops_run(const struct at_kern *kern, const struct at_par *par, long iterations)
{
    struct peak p = {kern, iterations, {0}};
    double sum = 0;
    AT_ASSERT(par->threads <= JOBS_MAX);
    at_par_run(par, par->threads, run_one, &p);
    for (int i = 0; i < par->threads; i++) sum += p.flops[i];
    return sum;
}
