/* fma.h: the correctly rounded fused multiply-add for CPUs without the instruction, as an inline function.
 * Exact: yes, all inputs, subnormals and overflow included (NaN payloads apart).
 *
 * Boldo & Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd" (IEEE TC
 * 57(4), 2008): the binary64 product of two binary32 numbers is exact; two-sum gives the addition's error; when that is
 * not zero the sum is rounded to odd, whose 53 bits then round to 24 as if the exact sum had been rounded once. */
#ifndef ATOLL_TENSOR_FMA_H
#define ATOLL_TENSOR_FMA_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline float at_fma_soft32(float a, float b, float c)
{
    double p = (double)a * (double)b, z = (double)c;
    double s = p + z;
    double t = s - p;
    double e = (p - (s - t)) + (z - t);
    uint64_t bits, ebits;
    memcpy(&bits, &s, sizeof bits);
    memcpy(&ebits, &e, sizeof ebits);
    /* Inexact and even: step to the odd neighbour on the side of the error. An infinite or NaN s makes e NaN: left
     * alone (e > 0 and e < 0 are both false), as is an exact sum. */
    int inexact = (e > 0.0) | (e < 0.0);
    uint64_t outward = (ebits ^ bits) >> 63; /* 1: the error points to zero */
    uint64_t step = (uint64_t)inexact & ~bits & 1u;
    bits += step * (1 - 2 * outward);
    memcpy(&s, &bits, sizeof s);
    return (float)s;
}

#endif
