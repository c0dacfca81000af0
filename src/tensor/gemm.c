/* gemm.c: cuts the outputs of a matrix product among the threads and hands each part to the kernel table. */
#include "tensor/gemm.h"

#include "tensor/gemm_kern.h"
#include "tensor/gemm_tile.h"

#define SMALL_FLOPS (64 * 1024.0) /* below this a second thread costs more than it brings */
#define PART_ROWS   14 /* parts start at multiples of these: whole tiles of the largest table; the others' lose */
#define PART_COLS   32 /* part of one tile */
#define COST_A      2  /* multiply-adds that a value of an operand takes the time of before products can use it: A is */
#define COST_B      16 /* read where it lies, or packed by tiles that compute as well; B is copied or transposed first */

static size_t scratch_one(void)
{
    size_t n = at_gemm_ref_bytes();
#ifndef AT_REAL64
    if (at_gemm_tiled_bytes() > n) n = at_gemm_tiled_bytes();
#endif
    return (n + 63) / 64 * 64;
}

size_t at_gemm_scratch_bytes(int threads)
{
    return scratch_one() * (size_t)threads;
}

struct cut {
    const struct at_exec *ex;
    const struct at_gemm *g;
    int rows, cols; /* parts along m and n */
};

/* Part i of `parts` of n elements, in whole steps. */
static long edge_of(long n, int parts, int i, long step)
{
    const long steps = (n + step - 1) / step, at = steps * i / parts * step;
    return at < n ? at : n;
}

static void run_part(void *arg, int job)
{
    const struct cut *c = arg;
    const int i = job / c->cols, j = job % c->cols;
    const struct at_gemm_part p = {edge_of(c->g->m, c->rows, i, PART_ROWS), edge_of(c->g->m, c->rows, i + 1, PART_ROWS),
                                   edge_of(c->g->n, c->cols, j, PART_COLS),
                                   edge_of(c->g->n, c->cols, j + 1, PART_COLS)};
    if (p.m0 < p.m1 && p.n0 < p.n1)
        c->ex->kern->gemm->gemm(c->g, p, (char *)c->ex->scratch + scratch_one() * (size_t)job);
}

static long largest_part(long n, int parts, long step)
{
    long most = 0;
    for (int i = 0; i < parts; i++) {
        const long size = edge_of(n, parts, i + 1, step) - edge_of(n, parts, i, step);
        if (size > most) most = size;
    }
    return most;
}

/* The grid of at most `threads` parts whose most expensive part is cheapest: its tiles and its operands. Parts that share
 * columns each pack the same of B, so that columns are split first: 3 % of the products' time in a step of 10m and 124m
 * on two threads. */
static void choose_grid(struct cut *c, int threads)
{
    double best = 0;
    for (int rows = 1; rows <= threads; rows++) {
        const int cols = threads / rows;
        const double m = (double)largest_part(c->g->m, rows, PART_ROWS);
        const double n = (double)largest_part(c->g->n, cols, PART_COLS);
        const double cost = m * n + COST_A * m + COST_B * n;
        if (rows == 1 || cost < best) {
            best = cost;
            c->rows = rows;
            c->cols = cols;
        }
    }
}

static void check(const struct at_exec *ex, const struct at_gemm *g)
{
    AT_ASSERT(g->m >= 1 && g->n >= 1 && g->k >= 1);
    AT_ASSERT(ex->scratch_bytes >= at_gemm_scratch_bytes(ex->par->threads));
    AT_ASSERT(!g->fresh || g->join == AT_JOIN_GRAINS);
    if (g->join == AT_JOIN_GRAINS) AT_ASSERT(g->seq_len >= 1 && g->k % g->seq_len == 0);
    if (g->join == AT_JOIN_SLOTS)
        AT_ASSERT((g->slots == 1 || g->slots == 2 || g->slots == 4 || g->slots == 8) && g->k % g->slots == 0);
}

void at_gemm(const struct at_exec *ex, const struct at_gemm *g)
{
    struct cut c = {ex, g, 1, 1};
    check(ex, g);
    if (2.0 * (double)g->m * (double)g->n * (double)g->k >= SMALL_FLOPS) choose_grid(&c, ex->par->threads);
    if (c.rows * c.cols == 1) {
        run_part(&c, 0);
    } else {
        at_par_run(ex->par, c.rows * c.cols, run_part, &c);
    }
}
