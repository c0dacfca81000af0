/* rows_ref_body.h: the reference row kernels as a template over fma (see emath_ref.h for what must be defined; also
 * AT_REF_TABLE, the exported table's name). Plain scalar code that follows the contract's words: the oracle of the
 * vector kernels, which share nothing with it but the polynomials' constants. */

#include "tensor/emath_ref.h"

#define REF AT_REF_TARGET static

/* Rule 4's joining of the lanes. */
REF real AT_REF(join_lanes)(real lane[16])
{
    for (int half = 8; half >= 1; half /= 2)
        for (int i = 0; i < half; i++) lane[i] = lane[i] + lane[i + half];
    return lane[0];
}

REF real AT_REF(row_max)(const real *x, long n)
{
    real m = -(real)INFINITY;
    for (long i = 0; i < n; i++)
        if (x[i] > m) m = x[i];
    return m + REAL(0.0);
}

REF real AT_REF(softmax_row)(real *p, const real *s, long n, real max)
{
    real lane[16] = {0};
    for (long i = 0; i < n; i++) {
        p[i] = AT_REF(ref_exp)(s[i] - max);
        lane[i % 16] = lane[i % 16] + p[i];
    }
    return AT_REF(join_lanes)(lane);
}

REF real AT_REF(exp_sum_row)(const real *s, long n, real max)
{
    real lane[16] = {0};
    for (long i = 0; i < n; i++) lane[i % 16] = lane[i % 16] + AT_REF(ref_exp)(s[i] - max);
    return AT_REF(join_lanes)(lane);
}

REF void AT_REF(exp_scale_row)(real *p, const real *s, long n, real sub, real mul)
{
    for (long i = 0; i < n; i++) p[i] = AT_REF(ref_exp)(s[i] - sub) * mul;
}

REF real AT_REF(dot_row)(const real *a, const real *b, long n)
{
    real lane[16] = {0};
    for (long i = 0; i < n; i++) lane[i % 16] = AT_REF_FMA(a[i], b[i], lane[i % 16]);
    return AT_REF(join_lanes)(lane);
}

REF void AT_REF(add)(real *y, const real *a, const real *b, long n)
{
    for (long i = 0; i < n; i++) y[i] = a[i] + b[i];
}

REF void AT_REF(copy)(real *y, const real *a, long n)
{
    for (long i = 0; i < n; i++) y[i] = a[i] + REAL(0.0);
}

REF real AT_REF(rmsnorm_row)(real *y, const real *x, const real *gain, long n, real eps)
{
    real ss = AT_REF(dot_row)(x, x, n);
    real rstd = REAL(1.0) / REAL_SQRT(ss / (real)n + eps);
    for (long i = 0; i < n; i++) y[i] = (x[i] * rstd) * gain[i];
    return rstd;
}

REF void AT_REF(rmsnorm_back_row)(real *d_x, const real *dy, const real *x, const real *gain, real rstd, long n)
{
    real lane[16] = {0};
    for (long i = 0; i < n; i++) {
        real xhat = x[i] * rstd, w = dy[i] * gain[i];
        lane[i % 16] = AT_REF_FMA(w, xhat, lane[i % 16]);
    }
    real c = AT_REF(join_lanes)(lane) / (real)n;
    for (long i = 0; i < n; i++) {
        real xhat = x[i] * rstd, w = dy[i] * gain[i];
        d_x[i] = d_x[i] + rstd * (w - xhat * c);
    }
}

REF void AT_REF(rmsnorm_gain)(real *d_gain, const real *dy, const real *x, const real *rstd, long rows, long cols,
                              long ld)
{
    for (long j = 0; j < cols; j++) {
        real acc = 0;
        for (long r = 0; r < rows; r++) acc = AT_REF_FMA(dy[r * ld + j], x[r * ld + j] * rstd[r], acc);
        d_gain[j] = d_gain[j] + (acc + REAL(0.0));
    }
}

REF void AT_REF(rotary_head)(real *a, real *b, const real *cos, const real *sin, long half, bool inverse)
{
    for (long i = 0; i < half; i++) {
        real c = cos[i], s = inverse ? -sin[i] : sin[i], a0 = a[i], b0 = b[i];
        a[i] = a0 * c - b0 * s;
        b[i] = b0 * c + a0 * s;
    }
}

REF void AT_REF(swiglu_row)(real *h, const real *gate, const real *up, long n)
{
    for (long i = 0; i < n; i++) h[i] = (gate[i] * AT_REF(ref_sigmoid)(gate[i])) * up[i];
}

REF void AT_REF(swiglu_back_row)(real *d_gate, real *d_up, const real *dh, const real *gate, const real *up, long n)
{
    for (long i = 0; i < n; i++) {
        real g = gate[i], u = up[i], s = AT_REF(ref_sigmoid)(g);
        d_up[i] = dh[i] * (g * s);
        d_gate[i] = ((dh[i] * u) * s) * AT_REF_FMA(g, REAL(1.0) - s, REAL(1.0));
    }
}

REF void AT_REF(adamw)(real *theta, real *m, real *v, const real *g, long n, const struct at_adamw *opt)
{
    for (long i = 0; i < n; i++) {
        real grad = g[i] * opt->clip;
        m[i] = AT_REF_FMA(opt->beta1, m[i], opt->one_minus_beta1 * grad);
        v[i] = AT_REF_FMA(opt->beta2, v[i], (opt->one_minus_beta2 * grad) * grad);
        real mh = m[i] * opt->inv_bias1, vh = v[i] * opt->inv_bias2;
        real u = mh / (REAL_SQRT(vh) + opt->eps);
        u = AT_REF_FMA(opt->weight_decay, theta[i], u);
        theta[i] = AT_REF_FMA(-opt->lr, u, theta[i]);
    }
}

REF double AT_REF(sum_squares_row)(const real *x, long n)
{
    double lane[16] = {0};
    for (long i = 0; i < n; i++) {
        double wide = (double)x[i];
        lane[i % 16] = AT_REF_SQUARE_ADD(wide, lane[i % 16]);
    }
    for (int half = 8; half >= 1; half /= 2)
        for (int i = 0; i < half; i++) lane[i] = lane[i] + lane[i + half];
    return lane[0];
}

REF void AT_REF(axpy)(real *y, real w, const real *x, long n)
{
    for (long i = 0; i < n; i++) y[i] = AT_REF_FMA(w, x[i], y[i]);
}

REF bool AT_REF(all_finite)(const real *x, long n)
{
    for (long i = 0; i < n; i++)
        if (!isfinite(x[i])) return false;
    return true;
}

const struct at_rows_kern AT_REF_TABLE = {
    .row_max = AT_REF(row_max),
    .softmax_row = AT_REF(softmax_row),
    .exp_sum_row = AT_REF(exp_sum_row),
    .exp_scale_row = AT_REF(exp_scale_row),
    .dot_row = AT_REF(dot_row),
    .add = AT_REF(add),
    .copy = AT_REF(copy),
    .rmsnorm_row = AT_REF(rmsnorm_row),
    .rmsnorm_back_row = AT_REF(rmsnorm_back_row),
    .rmsnorm_gain = AT_REF(rmsnorm_gain),
    .rotary_head = AT_REF(rotary_head),
    .swiglu_row = AT_REF(swiglu_row),
    .swiglu_back_row = AT_REF(swiglu_back_row),
    .adamw = AT_REF(adamw),
    .sum_squares_row = AT_REF(sum_squares_row),
    .axpy = AT_REF(axpy),
    .all_finite = AT_REF(all_finite),
};

#undef REF
