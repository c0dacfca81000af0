/* rows_kern.h: the kernels below ops.c: one row, or one run of elements, at a time. One constant table for each
 * instruction set; the drivers (ops.c, attention.c) cut the work for the threads.
 * Exact: yes, all tables give the same bits. (Where a result is NaN it is NaN in all of them; payloads are not
 * promised.)
 *
 * No alignment is asked of any pointer; n >= 0; nothing is read or written past n elements. "Row reduction" is rule 4:
 * 16 lanes from +0, element i to lane i mod 16, then l_i += l_{i+8}, +4, +2, +1. */
#ifndef ATOLL_TENSOR_ROWS_KERN_H
#define ATOLL_TENSOR_ROWS_KERN_H

#include "tensor/real.h"

#include <stdbool.h>

struct at_adamw; /* ops.h */

struct at_rows_kern {
    /* The maximum of x(n), + (+0) so that it is never -0; NaNs are passed over (exp finds them); -inf when n = 0. */
    real (*row_max)(const real *x, long n);
    /* p[i] = exp(s[i] - max); returns the row reduction of p. p may be s. */
    real (*softmax_row)(real *p, const real *s, long n, real max);
    /* The same sum without writing p. */
    real (*exp_sum_row)(const real *s, long n, real max);
    /* p[i] = exp(s[i] - sub) * mul. p may be s. */
    void (*exp_scale_row)(real *p, const real *s, long n, real sub, real mul);
    /* Row reduction of l = fma(a[i], b[i], l). */
    real (*dot_row)(const real *a, const real *b, long n);
    /* y[i] = a[i] + b[i]; y may be a or b. */
    void (*add)(real *y, const real *a, const real *b, long n);
    /* y[i] = a[i] + (+0). */
    void (*copy)(real *y, const real *a, long n);

    /* ops.h, at_rmsnorm_forward: one row; returns rstd. */
    real (*rmsnorm_row)(real *y, const real *x, const real *gain, long n, real eps);
    /* at_rmsnorm_backward: d_x of one row. */
    void (*rmsnorm_back_row)(real *d_x, const real *dy, const real *x, const real *gain, real rstd, long n);
    /* d_gain[j] += chain over `rows` rows of fma(dy, x * rstd[row], .), for `cols` columns of arrays with row stride
     * ld. */
    void (*rmsnorm_gain)(real *d_gain, const real *dy, const real *x, const real *rstd, long rows, long cols, long ld);
    /* a(half), b(half) = the halves of one head: a' = a*cos - b*sin, b' = b*cos + a*sin; inverse: sin negated. */
    void (*rotary_head)(real *a, real *b, const real *cos, const real *sin, long half, bool inverse);
    void (*swiglu_row)(real *h, const real *gate, const real *up, long n);
    /* d_gate may be gate and d_up may be up. */
    void (*swiglu_back_row)(real *d_gate, real *d_up, const real *dh, const real *gate, const real *up, long n);
    void (*adamw)(real *theta, real *m, real *v, const real *g, long n, const struct at_adamw *opt);
    /* 16 binary64 lanes of fma((double)x, (double)x, l), joined as a row reduction. */
    double (*sum_squares_row)(const real *x, long n);
    void (*axpy)(real *y, real w, const real *x, long n); /* y = fma(w, x, y) */
    bool (*all_finite)(const real *x, long n);
};

extern const struct at_rows_kern at_rows_kern_ref; /* plain C; fma by exact emulation unless the build has it */
#if defined(__x86_64__)
extern const struct at_rows_kern at_rows_kern_ref_fma; /* the same source for CPUs that have the instruction */
#ifndef AT_REAL64
extern const struct at_rows_kern at_rows_kern_avx2;
extern const struct at_rows_kern at_rows_kern_avx512;
#endif
#endif
#if defined(__aarch64__) && !defined(AT_REAL64)
extern const struct at_rows_kern at_rows_kern_neon;
#endif

#endif
