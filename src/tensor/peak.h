/* peak.h: the machine's attainable arithmetic speed, as benchmarks state it: fused multiply-adds on registers alone. */
#ifndef ATOLL_TENSOR_PEAK_H
#define ATOLL_TENSOR_PEAK_H

#include "tensor/exec.h"

/* `iterations` rounds of at least 10 independent vector FMAs on each of par->threads threads, with the instructions of
 * `kern`; returns the FLOPs done by all of them. The caller takes the time. */
double at_peak_flops_run(const struct at_kern *kern, const struct at_par *par, long iterations);

#endif
