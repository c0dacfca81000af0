/* attention_ref.h: the plain loops of attention (rule 5), one query at a time; included by gemm_ref.c and
 * gemm_ref_fma.c. The oracle of attention_tile.c. */
#ifndef ATOLL_TENSOR_ATTENTION_REF_H
#define ATOLL_TENSOR_ATTENTION_REF_H

#include "tensor/gemm_ref.h"

#define REF_KEYS 8 /* chains side by side, so that a CPU has something to overlap */

/* s[j] = chain(q . x_j) over `size` elements, for n rows x_j = x + j*row. */
static void ref_dots(real *s, const real *q, const real *x, long row, long n, int size)
{
    for (long j0 = 0; j0 < n; j0 += REF_KEYS) {
        long jn = n - j0 < REF_KEYS ? n - j0 : REF_KEYS;
        real acc[REF_KEYS] = {0};
        for (int d = 0; d < size; d++)
            for (long j = 0; j < jn; j++) acc[j] = AT_FMA_PLAIN(q[d], x[(j0 + j) * row + d], acc[j]);
        for (long j = 0; j < jn; j++) s[j0 + j] = acc[j] + (real)0;
    }
}

/* y[d] = chain over rows j of w[j] * x_j[d]. */
static void ref_weighted(real *y, const real *w, const real *x, long row, long n, int size)
{
    real acc[AT_HEAD_SIZE_MAX] = {0};
    for (long j = 0; j < n; j++)
        for (int d = 0; d < size; d++) acc[d] = AT_FMA_PLAIN(w[j], x[j * row + d], acc[d]);
    for (int d = 0; d < size; d++) y[d] = acc[d] + (real)0;
}

static void ref_attention_forward(const struct at_attention *a, long b, int head, void *scratch)
{
    const struct at_heads *h = &a->h;
    const int hd = h->head_size, kv_head = head / (h->heads / h->kv_heads);
    const long row = at_heads_row(h);
    const real *k = a->kv + b * a->kv_seq_stride + at_heads_k(h, kv_head);
    const real *v = a->kv + b * a->kv_seq_stride + at_heads_v(h, kv_head);
    real *s = scratch;
    for (long t = 0; t < a->T; t++) {
        const long r = b * a->T + t, n = a->pos0 + t + 1;
        real *o = a->o + (r * h->heads + head) * hd;
        ref_dots(s, a->qkv + r * row + at_heads_q(h, head), k, row, n, hd);
        for (long j = 0; j < n; j++) s[j] *= a->scale;
        const real max = a->rows->row_max(s, n);
        const real sum = a->rows->softmax_row(s, s, n, max);
        const real inv = 1 / sum;
        ref_weighted(o, s, v, row, n, hd);
        for (int d = 0; d < hd; d++) o[d] *= inv;
        if (a->row_max) a->row_max[r * h->heads + head] = max;
        if (a->row_sum) a->row_sum[r * h->heads + head] = sum;
    }
}

/* One query's share of the gradients of its keys and values: raw chains, finished by the caller. */
static void ref_query_backward(const struct at_attention *a, long b, long t, int head, int kv_head, real *p, real *ds)
{
    const struct at_heads *h = &a->h;
    const int hd = h->head_size;
    const long row = at_heads_row(h), r = b * a->T + t, n = t + 1, rh = r * h->heads + head;
    const real *q = a->qkv + r * row + at_heads_q(h, head), *d_o = a->d_o + rh * hd;
    const real *k = a->qkv + b * a->T * row + at_heads_k(h, kv_head),
               *v = k - at_heads_k(h, kv_head) + at_heads_v(h, kv_head);
    real *dk = a->d_qkv + (k - a->qkv), *dv = a->d_qkv + (v - a->qkv);
    const real big_d = a->rows->dot_row(d_o, a->o_kept + rh * hd, hd);
    ref_dots(p, q, k, row, n, hd);
    for (long j = 0; j < n; j++) p[j] *= a->scale;
    a->rows->exp_scale_row(p, p, n, a->max_kept[rh], 1 / a->sum_kept[rh]);
    ref_dots(ds, d_o, v, row, n, hd);
    for (long j = 0; j < n; j++) ds[j] = (p[j] * (ds[j] - big_d)) * a->scale;
    ref_weighted(a->d_qkv + r * row + at_heads_q(h, head), ds, k, row, n, hd);
    for (long j = 0; j < n; j++)
        for (int d = 0; d < hd; d++) {
            dk[j * row + d] = AT_FMA_PLAIN(ds[j], q[d], dk[j * row + d]);
            dv[j * row + d] = AT_FMA_PLAIN(p[j], d_o[d], dv[j * row + d]);
        }
}

static void ref_attention_backward(const struct at_attention *a, long b, int kv_head, void *scratch)
{
    const struct at_heads *h = &a->h;
    const int hd = h->head_size, group = h->heads / h->kv_heads;
    const long row = at_heads_row(h);
    real *dk = a->d_qkv + b * a->T * row + at_heads_k(h, kv_head);
    real *dv = a->d_qkv + b * a->T * row + at_heads_v(h, kv_head);
    real *p = scratch, *ds = p + AT_ATTENTION_KEYS_MAX;
    for (long j = 0; j < a->T; j++)
        for (int d = 0; d < hd; d++) dk[j * row + d] = dv[j * row + d] = 0;
    for (int g = 0; g < group; g++)
        for (long t = 0; t < a->T; t++) ref_query_backward(a, b, t, kv_head * group + g, kv_head, p, ds);
    for (long j = 0; j < a->T; j++)
        for (int d = 0; d < hd; d++) {
            dk[j * row + d] += (real)0;
            dv[j * row + d] += (real)0;
        }
}

#endif
