/* emath.h: elementary functions of the contract (rule 7): one documented polynomial each, in fma steps, never libm.
 * Exact: yes (same bits in every backend). binary32 results within 1.5 ulp of a 100-bit reference. */
#ifndef ATOLL_TENSOR_EMATH_H
#define ATOLL_TENSOR_EMATH_H

#include "tensor/real.h"

/* Scalar definitions that every vector version must match bit for bit; the steps are in emath_coef.h (in the binary64
 * build: accurate binary64). exp underflows to +0 below -87.3; exp(+inf) = +inf, NaN stays NaN. log of a positive
 * finite; log(+-0) = -inf, log of a negative number is NaN. sigmoid(x) = 1 / (1 + exp(-x)) with the roundings of exp,
 * sum and quotient made good by a few more steps, for plainly it is 2.3 ulp off; +0 below -87.3. */
real at_exp(real x);
real at_log(real x);
real at_sigmoid(real x);
real at_fma(real a, real b, real c); /* correctly rounded; hardware where the CPU has it, else the exact emulation */

/* binary64, for tables and schedules that are rounded once to binary32: within 2 ulp (of the smallest subnormal at
 * least). sin, cos: own reduction for |x| <= 2^20, NaN beyond: never wrong digits. */
double at_exp64(double x);
double at_log64(double x);
double at_sin64(double x);
double at_cos64(double x);

/* Rotary tables: cos,sin(positions, head_size/2): angle = position * theta^(-2i/head_size) in binary64,
 * rounded once. */
void at_rotary_table(real *cos, real *sin, long positions, int head_size, double theta);

#endif
