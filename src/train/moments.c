#include "train/moments.h"

#include <string.h>

struct moments {
    const struct at_params *p;
    real *v, *stats;
};

static void expand_block(void *arg, int block)
{
    const struct moments *x = arg;
    const struct at_block *b = &x->p->block[block];
    const real *row = x->stats + at_block_stats_offset(x->p, block), *col = row + b->rows;
    real *v = x->v + b->offset;
    if (at_role_is_gain(x->p->tensor[b->tensor].role)) {
        memcpy(v, row, (size_t)b->cols * sizeof *v);
        return;
    }
    double sum = 0;
    for (long i = 0; i < b->rows; i++) sum += (double)row[i];
    double mean = sum / (double)b->rows;
    for (long i = 0; i < b->rows; i++) {
        real r = mean > 0 ? (real)((double)row[i] / mean) : 0;
        for (long j = 0; j < b->cols; j++) v[i * b->cols + j] = r * col[j];
    }
}

static double row_sum(const real *x, long n)
{
    double lane[16] = {0};
    long i = 0;
    for (; i + 16 <= n; i += 16)
        for (int k = 0; k < 16; k++) lane[k] += (double)x[i + k];
    for (int k = 0; i + k < n; k++) lane[k] += (double)x[i + k];
    for (int w = 8; w >= 1; w /= 2)
        for (int k = 0; k < w; k++) lane[k] += lane[k + w];
    return lane[0];
}

/* Columns [from, from + n), n <= 64, rows ascending. */
static void column_means(real *ret_mean, const real *v, const struct at_block *b, long from, long n)
{
    double sum[64] = {0};
    for (long i = 0; i < b->rows; i++)
        for (long j = 0; j < n; j++) sum[j] += (double)v[i * b->cols + from + j];
    for (long j = 0; j < n; j++) ret_mean[from + j] = (real)(sum[j] / (double)b->rows);
}

static void reduce_block(void *arg, int block)
{
    const struct moments *x = arg;
    const struct at_block *b = &x->p->block[block];
    real *row = x->stats + at_block_stats_offset(x->p, block), *col = row + b->rows;
    const real *v = x->v + b->offset;
    if (at_role_is_gain(x->p->tensor[b->tensor].role)) {
        memcpy(row, v, (size_t)b->cols * sizeof *v);
        return;
    }
    for (long i = 0; i < b->rows; i++) row[i] = (real)(row_sum(v + i * b->cols, b->cols) / (double)b->cols);
    for (long j = 0; j < b->cols; j += 64) column_means(col, v, b, j, b->cols - j < 64 ? b->cols - j : 64);
}

void at_moments_expand(const struct at_exec *ex, const struct at_params *p, const real *stats, real *ret_v)
{
    struct moments x = {.p = p, .v = ret_v, .stats = (real *)stats};
    at_par_run(ex->par, p->blocks, expand_block, &x);
}

void at_moments_reduce(const struct at_exec *ex, const struct at_params *p, const real *v, real *ret_stats)
{
    struct moments x = {.p = p, .v = (real *)v, .stats = ret_stats};
    at_par_run(ex->par, p->blocks, reduce_block, &x);
}
