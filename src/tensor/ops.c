/* The drivers of ops.h: each cuts its outputs into jobs (rows, columns or runs of elements: never one output's chain)
 * and lets the table's row kernels do the arithmetic. */
#include "tensor/ops.h"

#include "tensor/emath.h"
#include "tensor/gemm.h"
#include "tensor/ops_scratch.h"
#include "tensor/ops_split.h"
#include "tensor/rows_kern.h"

#include <stdint.h>
#include <string.h>

#define SUM_ROWS 2048

size_t at_ops_scratch_bytes(int threads)
{
    size_t flags = (size_t)threads * JOBS_PER_THREAD, sums = SUM_ROWS * sizeof(double);
    return flags > sums ? flags : sums;
}

/* ---- embedding ---- */

struct embedding {
    const struct at_rows_kern *kern;
    struct split split;
    real *out;
    const int32_t *token;
    const real *in;
    long first, rows, N, C; /* the table is rows [first, first + rows) of the whole one */
};

/* The table's row of a token, or -1. */
static long table_row(const struct embedding *a, int32_t token)
{
    long row = token - a->first;
    return row >= 0 && row < a->rows ? row : -1;
}

static void embedding_forward_job(void *arg, int job)
{
    const struct embedding *a = arg;
    long from, to;
    share(&a->split, job, &from, &to);
    for (long r = from; r < to; r++) {
        long row = table_row(a, a->token[r]);
        if (row >= 0)
            a->kern->copy(a->out + r * a->C, a->in + row * a->C, a->C);
        else
            for (long j = 0; j < a->C; j++) a->out[r * a->C + j] = 0;
    }
}

void at_embedding_part_forward(const struct at_exec *ex, real *x, const int32_t *token, const real *table, long first,
                               long rows, long N, long C)
{
    struct embedding a = {ex->kern->rows, split_units(ex, N, N * C), x, token, table, first, rows, N, C};
    at_par_run(ex->par, a.split.jobs, embedding_forward_job, &a);
}

void at_embedding_forward(const struct at_exec *ex, real *x, const int32_t *token, const real *table, long N, long C)
{
    at_embedding_part_forward(ex, x, token, table, 0, INT32_MAX, N, C);
}

/* Columns are split: the same token may stand in any row. */
static void embedding_backward_job(void *arg, int job)
{
    const struct embedding *a = arg;
    long from, n;
    share_elements(&a->split, job, a->C, &from, &n);
    for (long r = 0; r < a->N; r++) {
        long row = table_row(a, a->token[r]);
        if (row < 0) continue;
        real *d = a->out + row * a->C + from;
        a->kern->add(d, d, a->in + r * a->C + from, n);
    }
}

void at_embedding_part_backward(const struct at_exec *ex, real *d_table, const int32_t *token, const real *dx,
                                long first, long rows, long N, long C)
{
    struct split split = split_units(ex, (C + RUN_ELEMENTS - 1) / RUN_ELEMENTS, N * C);
    struct embedding a = {ex->kern->rows, split, d_table, token, dx, first, rows, N, C};
    at_par_run(ex->par, a.split.jobs, embedding_backward_job, &a);
}

void at_embedding_backward(const struct at_exec *ex, real *d_table, const int32_t *token, const real *dx, long N,
                           long C)
{
    at_embedding_part_backward(ex, d_table, token, dx, 0, INT32_MAX, N, C);
}

/* ---- RMSNorm ---- */

struct rmsnorm {
    const struct at_rows_kern *kern;
    struct split split, gain_split;
    real *y, *rstd_out; /* forward */
    real *d_x, *d_gain; /* backward */
    const real *dy, *rstd;
    const real *x, *gain;
    long N, T, C;
    real eps;
};

static void rmsnorm_forward_job(void *arg, int job)
{
    const struct rmsnorm *a = arg;
    long from, to;
    share(&a->split, job, &from, &to);
    for (long r = from; r < to; r++)
        a->rstd_out[r] = a->kern->rmsnorm_row(a->y + r * a->C, a->x + r * a->C, a->gain, a->C, a->eps);
}

void at_rmsnorm_forward(const struct at_exec *ex, real *y, real *rstd, const real *x, const real *gain, long N, long C,
                        real eps)
{
    struct rmsnorm a = {.kern = ex->kern->rows,
                        .split = split_units(ex, N, N * C),
                        .y = y,
                        .rstd_out = rstd,
                        .x = x,
                        .gain = gain,
                        .N = N,
                        .C = C,
                        .eps = eps};
    at_par_run(ex->par, a.split.jobs, rmsnorm_forward_job, &a);
}

static void rmsnorm_d_x_job(void *arg, int job)
{
    const struct rmsnorm *a = arg;
    long from, to;
    share(&a->split, job, &from, &to);
    for (long r = from; r < to; r++) {
        long at = r * a->C;
        a->kern->rmsnorm_back_row(a->d_x + at, a->dy + at, a->x + at, a->gain, a->rstd[r], a->C);
    }
}

static void rmsnorm_d_gain_job(void *arg, int job)
{
    const struct rmsnorm *a = arg;
    long from, n;
    share_elements(&a->gain_split, job, a->C, &from, &n);
    for (long start = 0; start < a->N; start += a->T) { /* one sequence */
        for (long t = 0; t < a->T; t += AT_GRAIN_POSITIONS) {
            long rows = a->T - t < AT_GRAIN_POSITIONS ? a->T - t : AT_GRAIN_POSITIONS, r = start + t;
            long at = r * a->C + from;
            a->kern->rmsnorm_gain(a->d_gain + from, a->dy + at, a->x + at, a->rstd + r, rows, n, a->C);
        }
    }
}

void at_rmsnorm_backward(const struct at_exec *ex, real *d_x, real *d_gain, const real *dy, const real *x,
                         const real *rstd, const real *gain, long N, long T, long C)
{
    AT_ASSERT(T >= 1 && N % T == 0);
    struct rmsnorm a = {.kern = ex->kern->rows,
                        .split = split_units(ex, N, N * C),
                        .d_x = d_x,
                        .d_gain = d_gain,
                        .dy = dy,
                        .rstd = rstd,
                        .x = x,
                        .gain = gain,
                        .N = N,
                        .T = T,
                        .C = C};
    a.gain_split = split_units(ex, (C + RUN_ELEMENTS - 1) / RUN_ELEMENTS, N * C);
    at_par_run(ex->par, a.gain_split.jobs, rmsnorm_d_gain_job, &a);
    at_par_run(ex->par, a.split.jobs, rmsnorm_d_x_job, &a);
}

/* ---- rotary positions ---- */

struct rotary {
    const struct at_rows_kern *kern;
    struct split split;
    real *qkv;
    const struct at_heads *h;
    const real *cos, *sin;
    long T, pos0;
    bool inverse;
};

static void rotary_job(void *arg, int job)
{
    const struct rotary *a = arg;
    long from, to, half = a->h->head_size / 2, row = at_heads_row(a->h);
    share(&a->split, job, &from, &to);
    for (long r = from; r < to; r++) {
        long position = a->pos0 + r % a->T;
        const real *cos = a->cos + position * half, *sin = a->sin + position * half;
        for (int i = 0; i < a->h->heads; i++) {
            real *q = a->qkv + r * row + at_heads_q(a->h, i);
            a->kern->rotary_head(q, q + half, cos, sin, half, a->inverse);
        }
        for (int i = 0; i < a->h->kv_heads; i++) {
            real *k = a->qkv + r * row + at_heads_k(a->h, i);
            a->kern->rotary_head(k, k + half, cos, sin, half, a->inverse);
        }
    }
}

void at_rotary(const struct at_exec *ex, real *qkv, const struct at_heads *h, const real *cos, const real *sin, long N,
               long T, long pos0, bool inverse)
{
    AT_ASSERT(h->head_size % 2 == 0 && T >= 1);
    struct split split = split_units(ex, N, N * at_heads_row(h));
    struct rotary a = {ex->kern->rows, split, qkv, h, cos, sin, T, pos0, inverse};
    at_par_run(ex->par, a.split.jobs, rotary_job, &a);
}

/* ---- SwiGLU ---- */

struct swiglu {
    const struct at_rows_kern *kern;
    struct split split;
    real *out;
    const real *dh, *gu;
    long F, ldh, ldgu;
    int slots;
};

static void swiglu_forward_job(void *arg, int job)
{
    const struct swiglu *a = arg;
    long from, to, width = a->F / a->slots;
    share(&a->split, job, &from, &to);
    for (long r = from; r < to; r++) {
        for (int s = 0; s < a->slots; s++) {
            const real *gate = a->gu + r * a->ldgu + s * 2 * width;
            a->kern->swiglu_row(a->out + r * a->ldh + s * width, gate, gate + width, width);
        }
    }
}

void at_swiglu_forward(const struct at_exec *ex, real *h, long ldh, const real *gu, long ldgu, long N, long F,
                       int slots)
{
    AT_ASSERT(slots >= 1 && F % slots == 0 && ldh >= F && ldgu >= 2 * F);
    struct swiglu a = {ex->kern->rows, split_units(ex, N, N * F), h, NULL, gu, F, ldh, ldgu, slots};
    at_par_run(ex->par, a.split.jobs, swiglu_forward_job, &a);
}

static void swiglu_backward_job(void *arg, int job)
{
    const struct swiglu *a = arg;
    long from, to, width = a->F / a->slots;
    share(&a->split, job, &from, &to);
    for (long r = from; r < to; r++) {
        for (int s = 0; s < a->slots; s++) {
            long at = r * a->ldgu + s * 2 * width;
            a->kern->swiglu_back_row(a->out + at, a->out + at + width, a->dh + r * a->ldh + s * width, a->gu + at,
                                     a->gu + at + width, width);
        }
    }
}

void at_swiglu_backward(const struct at_exec *ex, real *d_gu, const real *dh, long ldh, const real *gu, long ldgu,
                        long N, long F, int slots)
{
    AT_ASSERT(slots >= 1 && F % slots == 0 && ldh >= F && ldgu >= 2 * F);
    struct swiglu a = {ex->kern->rows, split_units(ex, N, N * F), d_gu, dh, gu, F, ldh, ldgu, slots};
    at_par_run(ex->par, a.split.jobs, swiglu_backward_job, &a);
}

/* ---- element by element ---- */

struct elements {
    const struct at_rows_kern *kern;
    struct split split;
    long n;
    real *y, *m, *v;
    const real *a, *b;
    const struct at_adamw *opt;
    real w;
    uint8_t *finite; /* one flag for each job */
};

static void zero_job(void *arg, int job)
{
    const struct elements *e = arg;
    long from, n;
    share_elements(&e->split, job, e->n, &from, &n);
    memset(e->y + from, 0, (size_t)n * sizeof *e->y);
}

void at_zero(const struct at_exec *ex, real *y, long n)
{
    struct elements e = {.split = split_elements(ex, n), .n = n, .y = y};
    at_par_run(ex->par, e.split.jobs, zero_job, &e);
}

static void add_job(void *arg, int job)
{
    const struct elements *e = arg;
    long from, n;
    share_elements(&e->split, job, e->n, &from, &n);
    e->kern->add(e->y + from, e->a + from, e->b + from, n);
}

void at_add(const struct at_exec *ex, real *y, const real *a, const real *b, long n)
{
    struct elements e = {.kern = ex->kern->rows, .split = split_elements(ex, n), .n = n, .y = y, .a = a, .b = b};
    at_par_run(ex->par, e.split.jobs, add_job, &e);
}

static void adamw_job(void *arg, int job)
{
    const struct elements *e = arg;
    long from, n;
    share_elements(&e->split, job, e->n, &from, &n);
    e->kern->adamw(e->y + from, e->m + from, e->v + from, e->a + from, n, e->opt);
}

void at_adamw(const struct at_exec *ex, real *theta, real *m, real *v, const real *g, long n,
              const struct at_adamw *opt)
{
    struct elements e = {
        .kern = ex->kern->rows, .split = split_elements(ex, n), .n = n, .y = theta, .m = m, .v = v, .a = g, .opt = opt};
    at_par_run(ex->par, e.split.jobs, adamw_job, &e);
}

static void axpy_job(void *arg, int job)
{
    const struct elements *e = arg;
    long from, n;
    share_elements(&e->split, job, e->n, &from, &n);
    e->kern->axpy(e->y + from, e->w, e->a + from, n);
}

void at_axpy(const struct at_exec *ex, real *y, real w, const real *x, long n)
{
    struct elements e = {.kern = ex->kern->rows, .split = split_elements(ex, n), .n = n, .y = y, .a = x, .w = w};
    at_par_run(ex->par, e.split.jobs, axpy_job, &e);
}

static void all_finite_job(void *arg, int job)
{
    const struct elements *e = arg;
    long from, n;
    share_elements(&e->split, job, e->n, &from, &n);
    e->finite[job] = e->kern->all_finite(e->a + from, n);
}

bool at_all_finite(const struct at_exec *ex, const real *x, long n)
{
    struct elements e = {.kern = ex->kern->rows, .split = split_elements(ex, n), .n = n, .a = x, .finite = ex->scratch};
    at_par_run(ex->par, e.split.jobs, all_finite_job, &e);
    bool finite = true;
    for (int i = 0; i < e.split.jobs; i++) finite = finite && e.finite[i];
    return finite;
}

/* ---- sum of squares ---- */

struct sum_squares {
    const struct at_rows_kern *kern;
    struct split split;
    const real *x;
    long cols;
    double *sum; /* one for each row of the batch */
};

static void sum_squares_job(void *arg, int job)
{
    const struct sum_squares *a = arg;
    long from, to;
    share(&a->split, job, &from, &to);
    for (long r = from; r < to; r++) a->sum[r] = a->kern->sum_squares_row(a->x + r * a->cols, a->cols);
}

double at_sum_squares(const struct at_exec *ex, const real *x, long rows, long cols)
{
    double total = 0.0;
    for (long start = 0; start < rows; start += SUM_ROWS) { /* the scratch does not grow with the shapes */
        long n = rows - start < SUM_ROWS ? rows - start : SUM_ROWS;
        struct sum_squares a = {ex->kern->rows, split_units(ex, n, n * cols), x + start * cols, cols, ex->scratch};
        at_par_run(ex->par, a.split.jobs, sum_squares_job, &a);
        for (long r = 0; r < n; r++) total += a.sum[r];
    }
    return total;
}
