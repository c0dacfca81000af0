/* gemm_ref.h: the plain loops of gemm.h, included by gemm_ref.c and gemm_ref_fma.c: one source, compiled for CPUs
 * without and with the fma instruction. This is the oracle: a tile of outputs, its segments one after the other, k
 * ascending. */
#ifndef ATOLL_TENSOR_GEMM_REF_H
#define ATOLL_TENSOR_GEMM_REF_H

#include "tensor/gemm_kern.h"
#include "tensor/ref_fma.h"

#include <math.h>
#include <string.h>

#define REF_ROWS 32
#define REF_COLS 32
#define REF_K    256

/* Scratch of one part. */
struct ref_tile {
    real a[REF_ROWS][REF_K], b[REF_K][REF_COLS];
    real slot[AT_SLOTS_MAX][REF_ROWS][REF_COLS];
};

static real *ref_at(const struct at_mat *x, long i, long j)
{
    if (x->block_cols == 0) return x->p + i * x->ld + j;
    return x->p + j / x->block_cols * x->block_stride + i * x->ld + j % x->block_cols;
}

/* Copies the tile's operands for k0 <= k < k0+kn; missing rows and columns are zeros. */
static void ref_load(const struct at_gemm *g, struct ref_tile *t, long i0, long j0, long k0, long kn)
{
    for (long i = 0; i < REF_ROWS; i++)
        for (long k = 0; k < kn; k++)
            t->a[i][k] = i0 + i >= g->m        ? 0
                         : g->op == AT_GEMM_TN ? *ref_at(&g->a, k0 + k, i0 + i)
                                               : *ref_at(&g->a, i0 + i, k0 + k);
    for (long k = 0; k < kn; k++)
        for (long j = 0; j < REF_COLS; j++)
            t->b[k][j] = j0 + j >= g->n        ? 0
                         : g->op == AT_GEMM_NT ? *ref_at(&g->b, j0 + j, k0 + k)
                                               : *ref_at(&g->b, k0 + k, j0 + j);
}

/* acc = one chain over segment [k0,k1). */
static void ref_segment(const struct at_gemm *g, struct ref_tile *t, long i0, long j0, long k0, long k1,
                        real acc[REF_ROWS][REF_COLS])
{
    memset(acc, 0, sizeof(real) * REF_ROWS * REF_COLS);
    for (long k = k0; k < k1; k += REF_K) {
        long kn = k1 - k < REF_K ? k1 - k : REF_K;
        ref_load(g, t, i0, j0, k, kn);
        for (int i = 0; i < REF_ROWS && i0 + i < g->m; i++)
            for (long q = 0; q < kn; q++)
                for (int j = 0; j < REF_COLS; j++) acc[i][j] = AT_FMA_PLAIN(t->a[i][q], t->b[q][j], acc[i][j]);
    }
    for (int i = 0; i < REF_ROWS; i++)
        for (int j = 0; j < REF_COLS; j++) acc[i][j] += (real)0;
}

/* C = acc, or C = C + acc. */
static void ref_store(const struct at_gemm *g, struct at_gemm_part part, long i0, long j0, real acc[REF_ROWS][REF_COLS],
                      int add)
{
    for (long i = i0; i < part.m1 && i < i0 + REF_ROWS; i++)
        for (long j = j0; j < part.n1 && j < j0 + REF_COLS; j++) {
            real *c = ref_at(&g->c, i, j);
            *c = add ? *c + acc[i - i0][j - j0] : acc[i - i0][j - j0];
        }
}

static long ref_grain_end(const struct at_gemm *g, long k)
{
    long pos = k % g->seq_len, end = (pos / AT_GRAIN_POSITIONS + 1) * AT_GRAIN_POSITIONS;
    return k - pos + (end < g->seq_len ? end : g->seq_len);
}

static void ref_one_tile(const struct at_gemm *g, struct at_gemm_part part, struct ref_tile *t, long i0, long j0)
{
    if (g->join == AT_JOIN_GRAINS) {
        for (long k = 0; k < g->k; k = ref_grain_end(g, k)) {
            ref_segment(g, t, i0, j0, k, ref_grain_end(g, k), t->slot[0]);
            ref_store(g, part, i0, j0, t->slot[0], !g->fresh || k > 0);
        }
        return;
    }
    int slots = g->join == AT_JOIN_SLOTS ? g->slots : 1;
    long width = g->k / slots;
    for (int s = 0; s < slots; s++) ref_segment(g, t, i0, j0, s * width, (s + 1) * width, t->slot[s]);
    for (int step = 1; step < slots; step *= 2)
        for (int s = 0; s < slots; s += 2 * step)
            for (int i = 0; i < REF_ROWS; i++)
                for (int j = 0; j < REF_COLS; j++) t->slot[s][i][j] += t->slot[s + step][i][j];
    ref_store(g, part, i0, j0, t->slot[0], 0);
}

static void ref_gemm(const struct at_gemm *g, struct at_gemm_part part, void *scratch)
{
    struct ref_tile *t = scratch;
    for (long i = part.m0; i < part.m1; i += REF_ROWS)
        for (long j = part.n0; j < part.n1; j += REF_COLS) ref_one_tile(g, part, t, i, j);
}

/* 12 independent chains of 8 lanes. */
static double ref_peak(long iterations)
{
    real acc[12][8], x[8], y[8];
    for (int j = 0; j < 8; j++) {
        x[j] = REAL(0.5);
        y[j] = REAL(1.0);
        for (int i = 0; i < 12; i++) acc[i][j] = (real)i;
    }
    for (long it = 0; it < iterations; it++)
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++)
#pragma GCC unroll 8
            for (int j = 0; j < 8; j++) acc[i][j] = AT_FMA_PLAIN(acc[i][j], x[j], y[j]);
    volatile real sink = 0; /* the loop must not be optimised away */
    for (int i = 0; i < 12; i++)
        for (int j = 0; j < 8; j++) sink = sink + acc[i][j];
    return (double)iterations * 12 * 8 * 2;
}

#endif
