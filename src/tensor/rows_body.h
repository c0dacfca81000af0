/* rows_body.h: the vector row kernels, written over the sixteen lanes of vec16_*.h: lane i of a v16 is lane i of
 * rule 4. Included once by each of rows_avx2.c, rows_avx512.c and rows_neon.c, after vec16_*.h and with AT_ROWS_TABLE,
 * the table's name. The bits are those of rows_ref_body.h. Tails run through masked loads; a reduction keeps its masked-off lanes
 * as they were, for adding +0 to them could turn a -0. */

#include "tensor/emath_coef.h"
#include "tensor/ops.h"
#include "tensor/rows_kern.h"

#include <math.h>

/* The first `left` lanes of 16, or all when there are more. The branch is nearly free; a masked store is not, on some
 * AVX2 machines. */
AT_V16 v16 v16_load_upto(const float *p, long left)
{
    return left >= 16 ? v16_load(p) : v16_load_part(v16_first(left), p);
}
AT_V16 void v16_store_upto(float *p, v16 x, long left)
{
    if (left >= 16)
        v16_store(p, x);
    else
        v16_store_part(v16_first(left), p, x);
}

/* exp(x) = (p + lo) * 2^n, where the caller wants it: q, r with p = fma(q, r, 1), and t whose low bits are n. */
AT_V16 v16 v16_exp_core(v16 x, v16 *ret_q, v16 *ret_r, v16 *ret_t)
{
    v16 t = v16_fma(x, v16_set(EM_LOG2E), v16_set(EM_MAGIC));
    v16 n = v16_sub(t, v16_set(EM_MAGIC));
    v16 r = v16_fma(n, v16_set(-EM_LN2_HI), x);
    r = v16_fma(n, v16_set(-EM_LN2_LO), r);
    v16 q = v16_fma(v16_set(EM_E6), r, v16_set(EM_E5));
    q = v16_fma(q, r, v16_set(EM_E4));
    q = v16_fma(q, r, v16_set(EM_E3));
    q = v16_fma(q, r, v16_set(EM_E2));
    q = v16_fma(q, r, v16_set(1.0f));
    *ret_q = q;
    *ret_r = r;
    *ret_t = t;
    return v16_fma(q, r, v16_set(1.0f));
}

AT_V16 v16 v16_exp(v16 x)
{
    v16 q, r, t, p = v16_exp_core(x, &q, &r, &t);
    p = v16_zero_below(x, v16_set(EM_EXP_LO), v16_scale(p, t));
    return v16_inf_above(x, v16_set(EM_EXP_HI), p);
}

AT_V16 v16 v16_sigmoid(v16 x)
{
    v16 one = v16_set(1.0f), q, r, t;
    v16 p = v16_exp_core(v16_max(v16_set(EM_SIGMOID_LO), v16_neg(x)), &q, &r, &t); /* max in this order keeps a NaN */
    v16 lo = v16_fma(q, r, v16_sub(one, p)), power = v16_scale(one, t);
    v16 e = v16_mul(p, power), e_lo = v16_mul(lo, power);
    v16 d = v16_add(one, e), part = v16_sub(d, one);
    v16 lost = v16_add(v16_add(v16_sub(one, v16_sub(d, part)), v16_sub(e, part)), e_lo);
    v16 y = v16_div(one, d);
    v16 rest = v16_fnma(y, lost, v16_fnma(y, d, one));
    return v16_zero_below(x, v16_set(EM_EXP_LO), v16_fma(y, rest, y));
}

static float row_max(const float *x, long n)
{
    v16 m = v16_set(-INFINITY);
    long i = 0;
    for (; i + 16 <= n; i += 16) m = v16_max(v16_load(x + i), m);
    if (i < n) {
        v16_mask k = v16_first(n - i);
        m = v16_max(v16_pick(k, v16_load_part(k, x + i), m), m);
    }
    return v16_join_max(m) + 0.0f;
}

static float softmax_row(float *p, const float *s, long n, float max)
{
    v16 l = v16_set(0.0f), m = v16_set(max);
    long i = 0;
    for (; i + 16 <= n; i += 16) {
        v16 e = v16_exp(v16_sub(v16_load(s + i), m));
        v16_store(p + i, e);
        l = v16_add(l, e);
    }
    if (i < n) {
        v16_mask k = v16_first(n - i);
        v16 e = v16_exp(v16_sub(v16_load_part(k, s + i), m));
        v16_store_part(k, p + i, e);
        l = v16_pick(k, v16_add(l, e), l);
    }
    return v16_join(l);
}

static float exp_sum_row(const float *s, long n, float max)
{
    v16 l = v16_set(0.0f), m = v16_set(max);
    long i = 0;
    for (; i + 16 <= n; i += 16) l = v16_add(l, v16_exp(v16_sub(v16_load(s + i), m)));
    if (i < n) {
        v16_mask k = v16_first(n - i);
        l = v16_pick(k, v16_add(l, v16_exp(v16_sub(v16_load_part(k, s + i), m))), l);
    }
    return v16_join(l);
}

static void exp_scale_row(float *p, const float *s, long n, float sub, float mul)
{
    v16 m = v16_set(sub), f = v16_set(mul);
    for (long i = 0; i < n; i += 16) {
        v16 e = v16_exp(v16_sub(v16_load_upto(s + i, n - i), m));
        v16_store_upto(p + i, v16_mul(e, f), n - i);
    }
}

static float dot_row(const float *a, const float *b, long n)
{
    v16 l = v16_set(0.0f);
    long i = 0;
    for (; i + 16 <= n; i += 16) l = v16_fma(v16_load(a + i), v16_load(b + i), l);
    if (i < n) {
        v16_mask k = v16_first(n - i);
        l = v16_pick(k, v16_fma(v16_load_part(k, a + i), v16_load_part(k, b + i), l), l);
    }
    return v16_join(l);
}

static void add(float *y, const float *a, const float *b, long n)
{
    for (long i = 0; i < n; i += 16) {
        v16 sum = v16_add(v16_load_upto(a + i, n - i), v16_load_upto(b + i, n - i));
        v16_store_upto(y + i, sum, n - i);
    }
}

static void copy(float *y, const float *a, long n)
{
    for (long i = 0; i < n; i += 16) v16_store_upto(y + i, v16_add(v16_load_upto(a + i, n - i), v16_set(0.0f)), n - i);
}

static float rmsnorm_row(float *y, const float *x, const float *gain, long n, float eps)
{
    float rstd = 1.0f / sqrtf(dot_row(x, x, n) / (float)n + eps);
    v16 s = v16_set(rstd);
    for (long i = 0; i < n; i += 16) {
        v16 xhat = v16_mul(v16_load_upto(x + i, n - i), s);
        v16_store_upto(y + i, v16_mul(xhat, v16_load_upto(gain + i, n - i)), n - i);
    }
    return rstd;
}

static void rmsnorm_back_row(float *d_x, const float *dy, const float *x, const float *gain, float rstd, long n)
{
    v16 l = v16_set(0.0f), s = v16_set(rstd);
    for (long i = 0; i < n; i += 16) {
        long left = n - i;
        v16 w = v16_mul(v16_load_upto(dy + i, left), v16_load_upto(gain + i, left));
        v16 sum = v16_fma(w, v16_mul(v16_load_upto(x + i, left), s), l);
        l = left >= 16 ? sum : v16_pick(v16_first(left), sum, l);
    }
    v16 c = v16_set(v16_join(l) / (float)n);
    for (long i = 0; i < n; i += 16) {
        long left = n - i;
        v16 w = v16_mul(v16_load_upto(dy + i, left), v16_load_upto(gain + i, left));
        v16 xhat = v16_mul(v16_load_upto(x + i, left), s);
        v16 step = v16_mul(s, v16_sub(w, v16_mul(xhat, c)));
        v16_store_upto(d_x + i, v16_add(v16_load_upto(d_x + i, left), step), left);
    }
}

static void rmsnorm_gain(float *d_gain, const float *dy, const float *x, const float *rstd, long rows, long cols,
                         long ld)
{
    v16 zero = v16_set(0.0f);
    long j = 0;
    for (; j + 64 <= cols; j += 64) { /* four chains side by side hide the latency */
        v16 a0 = zero, a1 = zero, a2 = zero, a3 = zero;
        for (long r = 0; r < rows; r++) {
            const float *g = dy + r * ld + j, *z = x + r * ld + j;
            v16 s = v16_set(rstd[r]);
            a0 = v16_fma(v16_load(g), v16_mul(v16_load(z), s), a0);
            a1 = v16_fma(v16_load(g + 16), v16_mul(v16_load(z + 16), s), a1);
            a2 = v16_fma(v16_load(g + 32), v16_mul(v16_load(z + 32), s), a2);
            a3 = v16_fma(v16_load(g + 48), v16_mul(v16_load(z + 48), s), a3);
        }
        v16_store(d_gain + j, v16_add(v16_load(d_gain + j), v16_add(a0, zero)));
        v16_store(d_gain + j + 16, v16_add(v16_load(d_gain + j + 16), v16_add(a1, zero)));
        v16_store(d_gain + j + 32, v16_add(v16_load(d_gain + j + 32), v16_add(a2, zero)));
        v16_store(d_gain + j + 48, v16_add(v16_load(d_gain + j + 48), v16_add(a3, zero)));
    }
    for (; j < cols; j += 16) {
        v16_mask k = v16_first(cols - j < 16 ? cols - j : 16);
        v16 a = zero;
        for (long r = 0; r < rows; r++) {
            v16 xhat = v16_mul(v16_load_part(k, x + r * ld + j), v16_set(rstd[r]));
            a = v16_fma(v16_load_part(k, dy + r * ld + j), xhat, a);
        }
        v16_store_part(k, d_gain + j, v16_add(v16_load_part(k, d_gain + j), v16_add(a, zero)));
    }
}

static void rotary_head(float *a, float *b, const float *cos, const float *sin, long half, bool inverse)
{
    for (long i = 0; i < half; i += 16) {
        long left = half - i;
        v16 c = v16_load_upto(cos + i, left), s = v16_load_upto(sin + i, left);
        v16 x = v16_load_upto(a + i, left), y = v16_load_upto(b + i, left);
        if (inverse) s = v16_neg(s);
        v16_store_upto(a + i, v16_sub(v16_mul(x, c), v16_mul(y, s)), left);
        v16_store_upto(b + i, v16_add(v16_mul(y, c), v16_mul(x, s)), left);
    }
}

static void swiglu_row(float *h, const float *gate, const float *up, long n)
{
    for (long i = 0; i < n; i += 16) {
        v16 g = v16_load_upto(gate + i, n - i), u = v16_load_upto(up + i, n - i);
        v16_store_upto(h + i, v16_mul(v16_mul(g, v16_sigmoid(g)), u), n - i);
    }
}

static void swiglu_back_row(float *d_gate, float *d_up, const float *dh, const float *gate, const float *up, long n)
{
    v16 one = v16_set(1.0f);
    for (long i = 0; i < n; i += 16) {
        long left = n - i;
        v16 g = v16_load_upto(gate + i, left), u = v16_load_upto(up + i, left), d = v16_load_upto(dh + i, left);
        v16 s = v16_sigmoid(g);
        v16_store_upto(d_up + i, v16_mul(d, v16_mul(g, s)), left);
        v16_store_upto(d_gate + i, v16_mul(v16_mul(v16_mul(d, u), s), v16_fma(g, v16_sub(one, s), one)), left);
    }
}

static void adamw(float *theta, float *m, float *v, const float *g, long n, const struct at_adamw *opt)
{
    const v16 clip = v16_set(opt->clip), beta1 = v16_set(opt->beta1), beta2 = v16_set(opt->beta2);
    const v16 rest1 = v16_set(opt->one_minus_beta1), rest2 = v16_set(opt->one_minus_beta2);
    const v16 bias1 = v16_set(opt->inv_bias1), bias2 = v16_set(opt->inv_bias2), eps = v16_set(opt->eps);
    const v16 decay = v16_set(opt->weight_decay), lr = v16_set(opt->lr);
    for (long i = 0; i < n; i += 16) {
        long left = n - i;
        v16 grad = v16_mul(v16_load_upto(g + i, left), clip), th = v16_load_upto(theta + i, left);
        v16 m1 = v16_fma(beta1, v16_load_upto(m + i, left), v16_mul(rest1, grad));
        v16 v1 = v16_fma(beta2, v16_load_upto(v + i, left), v16_mul(v16_mul(rest2, grad), grad));
        v16 u = v16_div(v16_mul(m1, bias1), v16_add(v16_sqrt(v16_mul(v1, bias2)), eps));
        u = v16_fma(decay, th, u);
        v16_store_upto(m + i, m1, left);
        v16_store_upto(v + i, v1, left);
        v16_store_upto(theta + i, v16_fnma(lr, u, th), left);
    }
}

static double sum_squares_row(const float *x, long n)
{
    v16d l = v16d_zero();
    long i = 0;
    for (; i + 16 <= n; i += 16) l = v16d_add_square(l, v16_load(x + i));
    if (i < n) l = v16d_add_square(l, v16_load_part(v16_first(n - i), x + i)); /* a square is never -0 */
    return v16d_join(l);
}

static void axpy(float *y, float w, const float *x, long n)
{
    v16 scale = v16_set(w);
    for (long i = 0; i < n; i += 16)
        v16_store_upto(y + i, v16_fma(scale, v16_load_upto(x + i, n - i), v16_load_upto(y + i, n - i)), n - i);
}

static bool all_finite(const float *x, long n)
{
    long i = 0;
    for (; i + 16 <= n; i += 16)
        if (!v16_all_finite(v16_load(x + i))) return false;
    return i == n || v16_all_finite(v16_load_part(v16_first(n - i), x + i));
}

const struct at_rows_kern AT_ROWS_TABLE = {
    .row_max = row_max,
    .softmax_row = softmax_row,
    .exp_sum_row = exp_sum_row,
    .exp_scale_row = exp_scale_row,
    .dot_row = dot_row,
    .add = add,
    .copy = copy,
    .rmsnorm_row = rmsnorm_row,
    .rmsnorm_back_row = rmsnorm_back_row,
    .rmsnorm_gain = rmsnorm_gain,
    .rotary_head = rotary_head,
    .swiglu_row = swiglu_row,
    .swiglu_back_row = swiglu_back_row,
    .adamw = adamw,
    .sum_squares_row = sum_squares_row,
    .axpy = axpy,
    .all_finite = all_finite,
};
