/* The drivers of ops.h: each cuts its outputs into jobs (rows, columns or runs of elements: never one output's chain)
 * and lets the table's row kernels do the arithmetic. */
#include "tensor/ops.h"

#include "tensor/emath.h"
#include "tensor/gemm.h"
#include "tensor/ops_scratch.h"
#include "tensor/rows_kern.h"

#include <stdint.h>

/* Several jobs for a thread, so that one that is held up does not hold up all; few elements are not worth waking
 * anybody. */
#define JOBS_PER_THREAD  4
#define JOB_ELEMENTS_MIN 8192
#define RUN_ELEMENTS     64 /* runs of elements and columns start at multiples of this: no cache line has two writers */
#define SUM_ROWS         2048

size_t at_ops_scratch_bytes(int threads)
{
    size_t flags = (size_t)threads * JOBS_PER_THREAD, sums = SUM_ROWS * sizeof(double);
    return flags > sums ? flags : sums;
}

/* `count` units of work (rows, or runs of elements), cut into jobs. */
struct split {
    long count;
    int jobs;
};

static struct split split_units(const struct at_exec *ex, long count, long elements)
{
    long jobs = ex->par->threads == 1 ? 1 : (long)ex->par->threads * JOBS_PER_THREAD;
    if (jobs > elements / JOB_ELEMENTS_MIN) jobs = elements / JOB_ELEMENTS_MIN;
    if (jobs > count) jobs = count;
    return (struct split){count, jobs < 1 ? 1 : (int)jobs};
}

/* Units [*ret_from, *ret_to) of a job; shares differ by at most one. */
static void share(const struct split *s, int job, long *ret_from, long *ret_to)
{
    long each = s->count / s->jobs, extra = s->count % s->jobs;
    *ret_from = job * each + (job < extra ? job : extra);
    *ret_to = *ret_from + each + (job < extra);
}

static struct split split_elements(const struct at_exec *ex, long n)
{
    return split_units(ex, (n + RUN_ELEMENTS - 1) / RUN_ELEMENTS, n);
}

static void share_elements(const struct split *s, int job, long n, long *ret_from, long *ret_n)
{
    long from, to;
    share(s, job, &from, &to);
    *ret_from = from * RUN_ELEMENTS;
    *ret_n = (to * RUN_ELEMENTS < n ? to * RUN_ELEMENTS : n) - *ret_from;
}

/* ---- embedding ---- */

struct embedding {
    const struct at_rows_kern *kern;
    struct split split;
    real *out;
    const int32_t *token;
    const real *in;
    long N, C;
};

static void embedding_forward_job(void *arg, int job)
{
    const struct embedding *a = arg;
    long from, to;
    share(&a->split, job, &from, &to);
    for (long r = from; r < to; r++) a->kern->copy(a->out + r * a->C, a->in + a->token[r] * a->C, a->C);
}

void at_embedding_forward(const struct at_exec *ex, real *x, const int32_t *token, const real *table, long N, long C)
{
    struct embedding a = {ex->kern->rows, split_units(ex, N, N * C), x, token, table, N, C};
    at_par_run(ex->par, a.split.jobs, embedding_forward_job, &a);
}

/* Columns are split: the same token may stand in any row. */
static void embedding_backward_job(void *arg, int job)
{
    const struct embedding *a = arg;
    long from, n;
    share_elements(&a->split, job, a->C, &from, &n);
    for (long r = 0; r < a->N; r++) {
        real *d = a->out + a->token[r] * a->C + from;
        a->kern->add(d, d, a->in + r * a->C + from, n);
    }
}

void at_embedding_backward(const struct at_exec *ex, real *d_table, const int32_t *token, const real *dx, long N,
                           long C)
{
    struct split split = split_units(ex, (C + RUN_ELEMENTS - 1) / RUN_ELEMENTS, N * C);
    struct embedding a = {ex->kern->rows, split, d_table, token, dx, N, C};
    at_par_run(ex->par, a.split.jobs, embedding_backward_job, &a);
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
    long F;
    int slots;
};

static void swiglu_forward_job(void *arg, int job)
{
    const struct swiglu *a = arg;
    long from, to, width = a->F / a->slots;
    share(&a->split, job, &from, &to);
    for (long r = from; r < to; r++) {
        for (int s = 0; s < a->slots; s++) {
            const real *gate = a->gu + r * 2 * a->F + s * 2 * width;
            a->kern->swiglu_row(a->out + r * a->F + s * width, gate, gate + width, width);
        }
    }
}

void at_swiglu_forward(const struct at_exec *ex, real *h, const real *gu, long N, long F, int slots)
{
    AT_ASSERT(slots >= 1 && F % slots == 0);
    struct swiglu a = {ex->kern->rows, split_units(ex, N, N * F), h, NULL, gu, F, slots};
    at_par_run(ex->par, a.split.jobs, swiglu_forward_job, &a);
}

static void swiglu_backward_job(void *arg, int job)
{
    const struct swiglu *a = arg;
    long from, to, width = a->F / a->slots;
    share(&a->split, job, &from, &to);
    for (long r = from; r < to; r++) {
        for (int s = 0; s < a->slots; s++) {
            long at = r * 2 * a->F + s * 2 * width;
            a->kern->swiglu_back_row(a->out + at, a->out + at + width, a->dh + r * a->F + s * width, a->gu + at,
                                     a->gu + at + width, width);
        }
    }
}

void at_swiglu_backward(const struct at_exec *ex, real *d_gu, const real *dh, const real *gu, long N, long F, int slots)
{
    AT_ASSERT(slots >= 1 && F % slots == 0);
    struct swiglu a = {ex->kern->rows, split_units(ex, N, N * F), d_gu, dh, gu, F, slots};
    at_par_run(ex->par, a.split.jobs, swiglu_backward_job, &a);
}

/* ---- cross-entropy ---- */

struct cross_entropy {
    const struct at_rows_kern *kern;
    struct split split;
    real *loss, *d_logits;
    const real *logits;
    const int32_t *target;
    long vocab, padded;
    int slots;
    real inv;
};

/* Sum of exp(z - m) over the vocabulary: a row reduction in each slot, then the slot tree. */
static real slotted_exp_sum(const struct cross_entropy *a, const real *z, real m)
{
    real sum[AT_SLOTS_MAX];
    long width = a->padded / a->slots;
    for (int s = 0; s < a->slots; s++) {
        long n = a->vocab - s * width;
        n = n < 0 ? 0 : n > width ? width : n;
        sum[s] = a->kern->exp_sum_row(z + s * width, n, m);
    }
    for (int step = 1; step < a->slots; step *= 2)
        for (int s = 0; s + step < a->slots; s += 2 * step) sum[s] = sum[s] + sum[s + step];
    return sum[0];
}

static void cross_entropy_row(const struct cross_entropy *a, long r)
{
    const real *z = a->logits + r * a->padded;
    real *d = a->d_logits ? a->d_logits + r * a->padded : NULL;
    int32_t target = a->target[r];
    if (target < 0) {
        a->loss[r] = 0;
        for (long j = 0; d && j < a->padded; j++) d[j] = 0;
        return;
    }
    AT_ASSERT(target < a->vocab);
    real m = a->kern->row_max(z, a->vocab), z_target = z[target];
    real lse = m + at_log(slotted_exp_sum(a, z, m));
    a->loss[r] = lse - z_target;
    if (!d) return;
    a->kern->exp_scale_row(d, z, a->vocab, lse, a->inv); /* (p - 0) * inv has the bits of p * inv */
    d[target] = (at_exp(z_target - lse) - REAL(1.0)) * a->inv;
    for (long j = a->vocab; j < a->padded; j++) d[j] = 0;
}

static void cross_entropy_job(void *arg, int job)
{
    const struct cross_entropy *a = arg;
    long from, to;
    share(&a->split, job, &from, &to);
    for (long r = from; r < to; r++) cross_entropy_row(a, r);
}

void at_cross_entropy(const struct at_exec *ex, real *loss, real *d_logits, const real *logits, const int32_t *target,
                      long N, long vocab, long vocab_padded, int slots, real inv)
{
    AT_ASSERT(slots >= 1 && slots <= AT_SLOTS_MAX && (slots & (slots - 1)) == 0 && vocab_padded % slots == 0);
    AT_ASSERT(vocab >= 1 && vocab <= vocab_padded);
    struct cross_entropy a = {ex->kern->rows, split_units(ex, N, N * vocab_padded),
                              loss,           d_logits,
                              logits,         target,
                              vocab,          vocab_padded,
                              slots,          inv};
    at_par_run(ex->par, a.split.jobs, cross_entropy_job, &a);
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
