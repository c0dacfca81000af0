/* Softmax cross-entropy, whole or in the three steps of a split vocabulary. */
#include "tensor/emath.h"
#include "tensor/gemm.h"
#include "tensor/ops.h"
#include "tensor/ops_split.h"
#include "tensor/rows_kern.h"

#include <math.h>

struct cross_entropy {
    const struct at_rows_kern *kern;
    struct split split;
    struct at_vocab_part part;
    const real *logits;
    const int32_t *target;
    real *loss, *d_logits;
    real *max, *score, *sum; /* what the ranks of a stage join; NULL when alone */
    real inv;
};

/* l: within each slot, then the slot tree. */
static real slotted_exp_sum(const struct at_rows_kern *kern, const struct at_vocab_part *v, const real *z, real m)
{
    real sum[AT_SLOTS_MAX];
    long width = v->width / v->slots;
    for (int s = 0; s < v->slots; s++) {
        long n = v->used - s * width;
        n = n < 0 ? 0 : n > width ? width : n;
        sum[s] = kern->exp_sum_row(z + s * width, n, m);
    }
    for (int step = 1; step < v->slots; step *= 2)
        for (int s = 0; s + step < v->slots; s += 2 * step) sum[s] = sum[s] + sum[s + step];
    return sum[0];
}

/* The target's column in this part, or -1. */
static long target_column(const struct at_vocab_part *v, int32_t target)
{
    long j = target - v->first;
    return target >= 0 && j >= 0 && j < v->used ? j : -1;
}

/* Loss and gradient of one row once the maximum, the sum and the target's score are known. */
static void cross_entropy_end(const struct cross_entropy *a, long r, real m, real sum, real z_target)
{
    const struct at_vocab_part *v = &a->part;
    const real *z = a->logits + r * v->width;
    real *d = a->d_logits ? a->d_logits + r * v->width : NULL;
    long column = target_column(v, a->target[r]);
    real lse = m + at_log(sum);
    a->loss[r] = lse - z_target;
    if (!d) return;
    a->kern->exp_scale_row(d, z, v->used, lse, a->inv); /* (p - 0) * inv has the bits of p * inv */
    if (column >= 0) d[column] = (at_exp(z_target - lse) - REAL(1.0)) * a->inv;
    for (long j = v->used; j < v->width; j++) d[j] = 0;
}

static void no_target(const struct cross_entropy *a, long r)
{
    a->loss[r] = 0;
    for (long j = 0; a->d_logits && j < a->part.width; j++) a->d_logits[r * a->part.width + j] = 0;
}

static void cross_entropy_row(const struct cross_entropy *a, long r)
{
    const real *z = a->logits + r * a->part.width;
    int32_t target = a->target[r];
    if (target < 0) {
        no_target(a, r);
        return;
    }
    AT_ASSERT(target < a->part.used);
    real m = a->kern->row_max(z, a->part.used);
    cross_entropy_end(a, r, m, slotted_exp_sum(a->kern, &a->part, z, m), z[target]);
}

static void max_row(const struct cross_entropy *a, long r)
{
    const real *z = a->logits + r * a->part.width;
    long column = target_column(&a->part, a->target[r]);
    a->max[r] = a->kern->row_max(z, a->part.used);
    a->score[r] = column >= 0 ? z[column] : -(real)INFINITY;
}

static void sum_row(const struct cross_entropy *a, long r)
{
    a->sum[r] = a->target[r] < 0 ? 0 : slotted_exp_sum(a->kern, &a->part, a->logits + r * a->part.width, a->max[r]);
}

static void finish_row(const struct cross_entropy *a, long r)
{
    if (a->target[r] < 0)
        no_target(a, r);
    else
        cross_entropy_end(a, r, a->max[r], a->sum[r], a->score[r]);
}

struct row_work {
    const struct cross_entropy *a;
    void (*row)(const struct cross_entropy *a, long r);
};

static void cross_entropy_job(void *arg, int job)
{
    const struct row_work *w = arg;
    long from, to;
    share(&w->a->split, job, &from, &to);
    for (long r = from; r < to; r++) w->row(w->a, r);
}

static void run_rows(const struct at_exec *ex, struct cross_entropy *a, long N,
                     void (*row)(const struct cross_entropy *, long))
{
    const struct at_vocab_part *v = &a->part;
    AT_ASSERT(v->slots >= 1 && v->slots <= AT_SLOTS_MAX && (v->slots & (v->slots - 1)) == 0);
    AT_ASSERT(v->width % v->slots == 0 && v->used >= 0 && v->used <= v->width);
    struct row_work w = {a, row};
    a->kern = ex->kern->rows;
    a->split = split_units(ex, N, N * v->width);
    at_par_run(ex->par, a->split.jobs, cross_entropy_job, &w);
}

void at_cross_entropy(const struct at_exec *ex, real *loss, real *d_logits, const real *logits, const int32_t *target,
                      long N, long vocab, long vocab_padded, int slots, real inv)
{
    struct cross_entropy a = {.part = {.width = vocab_padded, .used = vocab, .slots = slots},
                              .logits = logits,
                              .target = target,
                              .loss = loss,
                              .d_logits = d_logits,
                              .inv = inv};
    run_rows(ex, &a, N, cross_entropy_row);
}

void at_cross_entropy_max(const struct at_exec *ex, real *max, real *score, const real *logits, const int32_t *target,
                          long N, const struct at_vocab_part *part)
{
    struct cross_entropy a = {.part = *part, .logits = logits, .target = target, .max = max, .score = score};
    run_rows(ex, &a, N, max_row);
}

void at_cross_entropy_sum(const struct at_exec *ex, real *sum, const real *max, const real *logits,
                          const int32_t *target, long N, const struct at_vocab_part *part)
{
    struct cross_entropy a = {.part = *part, .logits = logits, .target = target, .max = (real *)max, .sum = sum};
    run_rows(ex, &a, N, sum_row);
}

void at_cross_entropy_finish(const struct at_exec *ex, real *loss, real *d_logits, const real *logits, const real *max,
                             const real *score, const real *sum, const int32_t *target, long N,
                             const struct at_vocab_part *part, real inv)
{
    struct cross_entropy a = {.part = *part,
                              .logits = logits,
                              .target = target,
                              .loss = loss,
                              .d_logits = d_logits,
                              .max = (real *)max,
                              .score = (real *)score,
                              .sum = (real *)sum,
                              .inv = inv};
    run_rows(ex, &a, N, finish_row);
}
