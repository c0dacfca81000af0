/* plain_model.h: the gradient of one sequence as the arithmetic contract words it, a second time and as plainly as
 * possible: unsharded row-major tensors in the order and shapes of the Hugging Face file, no blocking, no threads, no
 * packed layouts. It shares with the tree only the elementary functions (tested on their own). The bits must be those
 * of the real thing. For training_test.c only. */
#ifndef ATOLL_PLAIN_MODEL_H
#define ATOLL_PLAIN_MODEL_H

#include "base/err.h"
#include "model/config.h"
#include "tensor/emath.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct plain_tensor {
    long rows, cols; /* rows of padding included */
    int slots;
    bool gain, by_cols;
    float *theta, *w, *g, *m, *v; /* public state; this replica's weights, gradient, moments */
    float *stats, *made;          /* [slot][rows means, column means] or v: public, and this replica's */
    float *sum_d, *sum_s;         /* the outer step's sums over the replicas */
};

struct plain {
    const struct at_model_config *c;
    struct plain_tensor *t; /* embedding; norm1 q k v o norm2 gate up down of each layer; norm; head */
    int tensors, S;
    long T, d, H, KV, hd, F, V, vocab;
    float *head_g; /* tied: the head's own accumulator */
};

/* ---- rules 2, 3, 4 ---- */

static float tree_sum(const float *x, int n)
{
    return n == 1 ? x[0] : tree_sum(x, n / 2) + tree_sum(x + n / 2, n / 2);
}

static double tree_sum64(const double *x, int n)
{
    return n == 1 ? x[0] : tree_sum64(x, n / 2) + tree_sum64(x + n / 2, n / 2);
}

static float join16(float *l)
{
    for (int h = 8; h > 0; h /= 2)
        for (int i = 0; i < h; i++) l[i] += l[i + h];
    return l[0];
}

static float dot16(const float *a, const float *b, long n)
{
    float l[16] = {0};
    for (long i = 0; i < n; i++) l[i % 16] = fmaf(a[i], b[i], l[i % 16]);
    return join16(l);
}

static double join16_wide(double *l)
{
    for (int h = 8; h > 0; h /= 2)
        for (int i = 0; i < h; i++) l[i] += l[i + h];
    return l[0];
}

static float *floats(long n)
{
    float *x = calloc((size_t)n, sizeof *x);
    AT_ASSERT(x != NULL);
    return x;
}

/* y(T,rows) = x(T,cols) . W^T; the columns in `slots` slots. */
static void linear(float *y, const float *x, const struct plain_tensor *w, long T, int slots)
{
    for (long t = 0; t < T; t++)
        for (long r = 0; r < w->rows; r++) {
            float part[8];
            long n = w->cols / slots;
            for (int s = 0; s < slots; s++) {
                float acc = 0;
                for (long k = s * n; k < (s + 1) * n; k++) acc = fmaf(x[t * w->cols + k], w->w[r * w->cols + k], acc);
                part[s] = acc + 0.0f;
            }
            y[t * w->rows + r] = tree_sum(part, slots);
        }
}

/* dx(T,cols): within each slot of rows one chain through all `n` tensors in turn; then the tree. */
static void linear_back(float *dx, float *const *dy, const struct plain_tensor *w, int n, long T, int slots)
{
    for (long t = 0; t < T; t++)
        for (long c = 0; c < w->cols; c++) {
            float part[8];
            for (int s = 0; s < slots; s++) {
                float acc = 0;
                for (int i = 0; i < n; i++)
                    for (long each = w[i].rows / slots, r = s * each; r < (s + 1) * each; r++)
                        acc = fmaf(dy[i][t * w[i].rows + r], w[i].w[r * w->cols + c], acc);
                part[s] = acc + 0.0f;
            }
            dx[t * w->cols + c] = tree_sum(part, slots);
        }
}

/* Rule 8: grains of 256 positions. */
static void linear_grad(float *g, const float *dy, const float *x, long rows, long cols, long T)
{
    for (long r = 0; r < rows; r++)
        for (long c = 0; c < cols; c++)
            for (long t0 = 0; t0 < T; t0 += 256) {
                float acc = 0;
                for (long t = t0; t < T && t < t0 + 256; t++) acc = fmaf(dy[t * rows + r], x[t * cols + c], acc);
                g[r * cols + c] += acc + 0.0f;
            }
}

static void norm(float *y, float *rstd, const float *x, const float *gain, const struct plain *p)
{
    for (long t = 0; t < p->T; t++) {
        const float *u = x + t * p->d;
        rstd[t] = 1.0f / sqrtf(dot16(u, u, p->d) / (float)p->d + (float)p->c->norm_eps);
        for (long j = 0; j < p->d; j++) y[t * p->d + j] = (u[j] * rstd[t]) * gain[j];
    }
}

static void norm_back(float *dx, struct plain_tensor *gain, const float *dy, const float *rstd, const float *x,
                      const struct plain *p)
{
    float *xhat = floats(p->T * p->d), w[512];
    for (long t = 0; t < p->T; t++) {
        float *h = xhat + t * p->d;
        for (long j = 0; j < p->d; j++) {
            h[j] = x[t * p->d + j] * rstd[t];
            w[j] = dy[t * p->d + j] * gain->w[j];
        }
        float c = dot16(w, h, p->d) / (float)p->d;
        for (long j = 0; j < p->d; j++) dx[t * p->d + j] += rstd[t] * (w[j] - h[j] * c);
    }
    for (long j = 0; j < p->d; j++)
        for (long t0 = 0; t0 < p->T; t0 += 256) {
            float acc = 0;
            for (long t = t0; t < p->T && t < t0 + 256; t++) acc = fmaf(dy[t * p->d + j], xhat[t * p->d + j], acc);
            gain->g[j] += acc + 0.0f;
        }
    free(xhat);
}

static void rotate(float *x, long heads, const struct plain *p, float sign)
{
    long half = p->hd / 2;
    for (long t = 0; t < p->T; t++)
        for (long h = 0; h < heads; h++)
            for (long i = 0; i < half; i++) {
                double f = at_exp64((double)(-2 * i) / (double)p->hd * at_log64(p->c->rope_theta));
                float c = (float)at_cos64((double)t * f), s = sign * (float)at_sin64((double)t * f);
                float *a = x + (t * heads + h) * p->hd + i, *b = a + half, u = *a, v = *b;
                float uc = u * c, vs = v * s, vc = v * c, us = u * s;
                *a = uc - vs;
                *b = vc + us;
            }
}

/* ---- rule 5 ---- */

static float chain_dot(const float *a, const float *b, long n)
{
    float acc = 0;
    for (long i = 0; i < n; i++) acc = fmaf(a[i], b[i], acc);
    return acc + 0.0f;
}

struct attention {
    float *q, *k, *v, *o, *max, *sum; /* (T,H*hd), (T,KV*hd) twice, (T,H*hd), (T,H) twice */
};

/* Scores of one query, their maximum; p = exp(s - m) and l. */
static void softmax_of(const struct plain *p, const struct attention *a, long t, long h, float *w, float *max,
                       float *sum)
{
    float scale = (float)(1.0 / sqrt((double)p->hd)), l[16] = {0};
    *max = -INFINITY;
    for (long j = 0; j <= t; j++) {
        w[j] = chain_dot(a->q + (t * p->H + h) * p->hd, a->k + (j * p->KV + h / (p->H / p->KV)) * p->hd, p->hd) * scale;
        if (w[j] > *max) *max = w[j];
    }
    *max += 0.0f;
    for (long j = 0; j <= t; j++) {
        w[j] = at_exp(w[j] - *max);
        l[j % 16] += w[j];
    }
    *sum = join16(l);
}

static void attention_forward(const struct plain *p, struct attention *a)
{
    float *w = floats(p->T);
    for (long t = 0; t < p->T; t++)
        for (long h = 0; h < p->H; h++) {
            long kv = h / (p->H / p->KV);
            softmax_of(p, a, t, h, w, &a->max[t * p->H + h], &a->sum[t * p->H + h]);
            for (long i = 0; i < p->hd; i++) {
                float acc = 0;
                for (long j = 0; j <= t; j++) acc = fmaf(w[j], a->v[(j * p->KV + kv) * p->hd + i], acc);
                a->o[(t * p->H + h) * p->hd + i] = (acc + 0.0f) * (1.0f / a->sum[t * p->H + h]);
            }
        }
    free(w);
}

/* Query heads of a group ascending, then queries ascending: the order in which dk and dv grow. */
static void attention_backward(const struct plain *p, const struct attention *a, const float *d_o, float *dq, float *dk,
                               float *dv)
{
    float *P = floats(p->T), *dS = floats(p->T), scale = (float)(1.0 / sqrt((double)p->hd)), max, sum;
    for (long h = 0; h < p->H; h++)
        for (long t = 0; t < p->T; t++) {
            long at = (t * p->H + h) * p->hd, kv = h / (p->H / p->KV);
            float D = dot16(d_o + at, a->o + at, p->hd);
            softmax_of(p, a, t, h, P, &max, &sum);
            for (long j = 0; j <= t; j++) {
                P[j] = P[j] * (1.0f / sum);
                float dP = chain_dot(d_o + at, a->v + (j * p->KV + kv) * p->hd, p->hd);
                dS[j] = (P[j] * (dP - D)) * scale;
            }
            for (long i = 0; i < p->hd; i++) {
                float acc = 0;
                for (long j = 0; j <= t; j++) {
                    long key = (j * p->KV + kv) * p->hd + i;
                    acc = fmaf(dS[j], a->k[key], acc);
                    dk[key] = fmaf(dS[j], a->q[at + i], dk[key]);
                    dv[key] = fmaf(P[j], d_o[at + i], dv[key]);
                }
                dq[at + i] = acc + 0.0f;
            }
        }
    for (long i = 0; i < p->T * p->KV * p->hd; i++) {
        dk[i] += 0.0f;
        dv[i] += 0.0f;
    }
    free(P);
    free(dS);
}

/* ---- one layer; what it keeps ---- */

struct plain_layer {
    float *x, *rstd1, *n1, *mid, *rstd2, *n2, *gate, *up, *h;
    struct attention a;
};

static struct plain_layer layer_alloc(const struct plain *p)
{
    long T = p->T, q = T * p->H * p->hd, kv = T * p->KV * p->hd;
    return (struct plain_layer){
        floats(T * p->d), floats(T),
        floats(T * p->d), floats(T * p->d),
        floats(T),        floats(T * p->d),
        floats(T * p->F), floats(T * p->F),
        floats(T * p->F), {floats(q), floats(kv), floats(kv), floats(q), floats(T * p->H), floats(T * p->H)}};
}

static void layer_free(struct plain_layer *l)
{
    float *all[] = {l->x, l->rstd1, l->n1,  l->mid, l->rstd2, l->n2,    l->gate, l->up,
                    l->h, l->a.q,   l->a.k, l->a.v, l->a.o,   l->a.max, l->a.sum};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
}

/* w: norm1 q k v o norm2 gate up down */
static void layer_forward(const struct plain *p, struct plain_layer *l, const struct plain_tensor *w, float *out)
{
    long n = p->T * p->d;
    norm(l->n1, l->rstd1, l->x, w[0].w, p);
    linear(l->a.q, l->n1, &w[1], p->T, 1);
    linear(l->a.k, l->n1, &w[2], p->T, 1);
    linear(l->a.v, l->n1, &w[3], p->T, 1);
    rotate(l->a.q, p->H, p, 1);
    rotate(l->a.k, p->KV, p, 1);
    attention_forward(p, &l->a);
    linear(l->mid, l->a.o, &w[4], p->T, p->S);
    for (long i = 0; i < n; i++) l->mid[i] = l->x[i] + l->mid[i];
    norm(l->n2, l->rstd2, l->mid, w[5].w, p);
    linear(l->gate, l->n2, &w[6], p->T, 1);
    linear(l->up, l->n2, &w[7], p->T, 1);
    for (long i = 0; i < p->T * p->F; i++) l->h[i] = (l->gate[i] * at_sigmoid(l->gate[i])) * l->up[i];
    linear(out, l->h, &w[8], p->T, p->S);
    for (long i = 0; i < n; i++) out[i] = l->mid[i] + out[i];
}

static void layer_backward(const struct plain *p, struct plain_layer *l, struct plain_tensor *w, float *dx)
{
    long T = p->T, q = p->H * p->hd, kv = p->KV * p->hd;
    float *dh = floats(T * p->F), *dn = floats(T * p->d), *d_o = floats(T * q);
    float *d2[2] = {floats(T * p->F), floats(T * p->F)}, *d3[3] = {floats(T * q), floats(T * kv), floats(T * kv)};
    linear_grad(w[8].g, dx, l->h, p->d, p->F, T);
    linear_back(dh, &dx, &w[8], 1, T, 1);
    for (long i = 0; i < T * p->F; i++) {
        float g = l->gate[i], s = at_sigmoid(g);
        d2[1][i] = dh[i] * (g * s);
        d2[0][i] = ((dh[i] * l->up[i]) * s) * fmaf(g, 1.0f - s, 1.0f);
    }
    linear_grad(w[6].g, d2[0], l->n2, p->F, p->d, T);
    linear_grad(w[7].g, d2[1], l->n2, p->F, p->d, T);
    linear_back(dn, d2, &w[6], 2, T, p->S);
    norm_back(dx, &w[5], dn, l->rstd2, l->mid, p);
    linear_grad(w[4].g, dx, l->a.o, p->d, q, T);
    linear_back(d_o, &dx, &w[4], 1, T, 1);
    attention_backward(p, &l->a, d_o, d3[0], d3[1], d3[2]);
    rotate(d3[0], p->H, p, -1);
    rotate(d3[1], p->KV, p, -1);
    linear_grad(w[1].g, d3[0], l->n1, q, p->d, T);
    linear_grad(w[2].g, d3[1], l->n1, kv, p->d, T);
    linear_grad(w[3].g, d3[2], l->n1, kv, p->d, T);
    linear_back(dn, d3, &w[1], 3, T, p->S);
    norm_back(dx, &w[0], dn, l->rstd1, l->x, p);
    float *all[] = {dh, dn, d_o, d2[0], d2[1], d3[0], d3[1], d3[2]};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
}

/* ---- rule 6 ---- */

static void loss_gradient(const struct plain *p, float *z, int32_t target, float inv, double *io_loss)
{
    float m = -INFINITY, part[8];
    for (long j = 0; j < p->vocab; j++)
        if (z[j] > m) m = z[j];
    m += 0.0f;
    for (int s = 0; s < p->S; s++) {
        float l[16] = {0};
        long n = p->V / p->S;
        for (long j = s * n; j < (s + 1) * n && j < p->vocab; j++) l[(j - s * n) % 16] += at_exp(z[j] - m);
        part[s] = join16(l);
    }
    float lse = m + at_log(tree_sum(part, p->S));
    *io_loss += (double)(lse - z[target]);
    for (long j = 0; j < p->V; j++)
        z[j] = j < p->vocab ? (at_exp(z[j] - lse) - (j == target ? 1.0f : 0.0f)) * inv : 0.0f;
}

/* Adds one sequence's gradient. */
static void sequence_gradient(struct plain *p, const int32_t *token, const int32_t *target, float inv, double *io_loss)
{
    long T = p->T, d = p->d;
    int L = (int)p->c->layers;
    struct plain_tensor *w = p->t, *final = &w[1 + 9 * L], *head = p->c->tied ? &w[0] : &w[2 + 9 * L];
    struct plain_layer *l = calloc((size_t)L, sizeof *l);
    AT_ASSERT(l != NULL);
    float *x = floats(T * d), *last = floats(T * d), *rstd = floats(T), *z = floats(T * p->V), *dn = floats(T * d);
    float *dx = floats(T * d);
    for (int i = 0; i < L; i++) l[i] = layer_alloc(p);
    for (long i = 0; i < T * d; i++) l[0].x[i] = w[0].w[token[i / d] * d + i % d] + 0.0f;
    for (int i = 0; i < L; i++) layer_forward(p, &l[i], &w[1 + 9 * i], i + 1 < L ? l[i + 1].x : x);
    norm(last, rstd, x, final->w, p);
    linear(z, last, head, T, 1);
    for (long t = 0; t < T; t++) loss_gradient(p, z + t * p->V, target[t], inv, io_loss);
    linear_grad(p->c->tied ? p->head_g : head->g, z, last, p->V, d, T);
    linear_back(dn, &z, head, 1, T, p->S);
    norm_back(dx, final, dn, rstd, x, p);
    for (int i = L - 1; i >= 0; i--) layer_backward(p, &l[i], &w[1 + 9 * i], dx);
    for (long i = 0; i < T * d; i++) w[0].g[token[i / d] * d + i % d] += dx[i];
    for (int i = 0; i < L; i++) layer_free(&l[i]);
    float *all[] = {x, last, rstd, z, dn, dx};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
    free(l);
}

#endif
