/* gemm_tile.c: the blocked matrix product over an instruction set's tile (after Goto & van de Geijn, "Anatomy of
 * high-performance matrix multiplication", ACM TOMS 34(3), 2008).
 *
 * K is walked in pieces. A piece packs a block of B (whole panels of 2*lanes columns) and, for each block of A (whole
 * panels of mr rows, sized for the second-level cache), runs all tiles. What the joins need:
 *  - chain: a later piece loads the accumulators from C and goes on;
 *  - grains: a piece holds whole grains; a tile runs one grain after the other, each added to C;
 *  - slots: one piece holds all of K; a tile runs the slots in order and joins them as a tree, at most 3 partial tiles
 *    pending, all in the first-level cache. A K too long for that goes slot by slot over
 *    blocks of C. */
#include "tensor/gemm_tile.h"

#ifndef AT_REAL64

#include <string.h>

#define A_FLOATS  (96 * 1024L)  /* block of A: 384 KiB */
#define B_FLOATS  (512 * 1024L) /* block of B: 2 MiB */
#define K_PIECE   512L
#define K_SLOTS   2048L /* longest K that a SLOTS piece holds */
#define LONG_ROWS 96L   /* block of C in slots_long */
#define LONG_COLS 256L
#define TILE      (AT_TILE_ROWS_MAX * AT_TILE_COLS_MAX)
#define SLACK     64

/* Scratch of one part. */
struct block {
    float a[A_FLOATS + SLACK];
    float b[B_FLOATS + SLACK];
    float edge[TILE];
    float slot[2][TILE];
    float slots_long[5][LONG_ROWS * LONG_COLS];
};

_Static_assert(A_FLOATS >= K_SLOTS * AT_TILE_ROWS_MAX, "one panel of A fits");
_Static_assert(B_FLOATS >= K_SLOTS * AT_TILE_COLS_MAX, "one panel of B fits");
_Static_assert(K_PIECE >= AT_GRAIN_POSITIONS, "a grain fits");

struct walk {
    const struct at_tile_kern *kern;
    const struct at_gemm *g;
    struct block *s;
    enum at_gemm_join join;
    long k_from, k_to; /* what is summed */
    long k0, k1;       /* the piece of it */
    struct at_mat c;   /* C, or a block of it that starts at (c_i, c_j) */
    long c_i, c_j;
    bool b_direct; /* B is read where it lies */
};

size_t at_gemm_tiled_bytes(void)
{
    return sizeof(struct block);
}

static long min_long(long a, long b)
{
    return a < b ? a : b;
}

/* Address of element (i,j), and how many columns from j on lie in one block. */
static float *mat_at(const struct at_mat *x, long i, long j, long n, long *ret_run)
{
    if (x->block_cols == 0) {
        *ret_run = n;
        return x->p + i * x->ld + j;
    }
    const long in = j % x->block_cols;
    *ret_run = min_long(n, x->block_cols - in);
    return x->p + j / x->block_cols * x->block_stride + i * x->ld + in;
}

/* One panel: steps k0..k1, `n` of `width` columns from `from` on. by_rows: the matrix has k along its
 * rows' elements. */
static void pack_panel(const struct at_tile_kern *kern, float *dst, long width, const struct at_mat *x, bool by_rows,
                       long from, long n, long k0, long k1)
{
    long run;
    if (by_rows) {
        for (long k = k0; k < k1; k += run) {
            const float *src = mat_at(x, from, k, k1 - k, &run);
            kern->pack_transpose(dst + (k - k0) * width, width, src, x->ld, run, n);
        }
        return;
    }
    if (n < width) memset(dst, 0, sizeof(float) * (size_t)(width * (k1 - k0)));
    for (long j = 0; j < n; j += run) {
        const float *src = mat_at(x, k0, from + j, n - j, &run);
        kern->pack_copy(dst + j, width, src, x->ld, k1 - k0, run);
    }
}

static long grain_end(long seq_len, long k)
{
    const long pos = k % seq_len;
    return k - pos + min_long((pos / AT_GRAIN_POSITIONS + 1) * AT_GRAIN_POSITIONS, seq_len);
}

/* Where the piece that starts at k0 ends. */
static long piece_end(const struct walk *w, long k0)
{
    const struct at_gemm *g = w->g;
    if (w->join == AT_JOIN_SLOTS) return w->k_to;
    if (w->join == AT_JOIN_CHAIN) {
        const long left = w->k_to - k0, pieces = (left + K_PIECE - 1) / K_PIECE;
        return k0 + (left + pieces - 1) / pieces;
    }
    long end = grain_end(g->seq_len, k0);
    while (end < w->k_to && grain_end(g->seq_len, end) - k0 <= K_PIECE) end = grain_end(g->seq_len, end);
    return end;
}

/* All slots of one tile. t: operands at the start of K. The tree: slot 2i+1 is added to slot 2i by the tile itself;
 * pairs join upwards as in a binary counter; level 0 of the stack is C. */
static void tile_slots(const struct walk *w, int rows, int vecs, struct at_tile t)
{
    const int slots = w->g->slots;
    float *const c = t.c;
    const long ldc = t.ldc;
    int depth = 0;
    t.k = w->g->k / slots;
    for (int s = 0; s < slots; s++) {
        if (s % 2 == 0) depth++;
        t.c = depth == 1 ? c : w->s->slot[depth - 2];
        t.ldc = depth == 1 ? ldc : AT_TILE_COLS_MAX;
        t.mode = s % 2 ? AT_TILE_ADD : AT_TILE_STORE;
        w->kern->tile(rows, vecs, &t);
        t.a += t.k * t.lda;
        t.b += t.k * t.ldb;
        for (int pair = s / 2; s % 2 && pair % 2; pair /= 2, depth--) {
            float *into = depth == 2 ? c : w->s->slot[depth - 3];
            w->kern->add(into, depth == 2 ? ldc : AT_TILE_COLS_MAX, w->s->slot[depth - 2], AT_TILE_COLS_MAX, rows,
                         vecs);
        }
    }
}

static void tile_segments(const struct walk *w, int rows, int vecs, struct at_tile t)
{
    const struct at_gemm *g = w->g;
    if (w->join == AT_JOIN_SLOTS) {
        tile_slots(w, rows, vecs, t);
    } else if (w->join == AT_JOIN_CHAIN) {
        t.k = w->k1 - w->k0;
        t.mode = w->k0 > w->k_from ? AT_TILE_LOAD : AT_TILE_STORE;
        w->kern->tile(rows, vecs, &t);
    } else {
        t.mode = AT_TILE_ADD;
        for (long k = w->k0; k < w->k1; k += t.k) {
            t.k = grain_end(g->seq_len, k) - k;
            w->kern->tile(rows, vecs, &t);
            t.a += t.k * t.lda;
            t.b += t.k * t.ldb;
        }
    }
}

/* Copies a tile between C and a buffer (row stride ld), where C's columns end early or lie in several blocks. */
static void edge_copy(const struct at_mat *c, long i0, long j0, int rows, long cols, float *edge, long ld, bool to_c)
{
    for (int i = 0; i < rows; i++) {
        long run;
        for (long j = 0; j < cols; j += run) {
            float *at = mat_at(c, i0 + i, j0 + j, cols - j, &run);
            float *e = edge + i * ld + j;
            memcpy(to_c ? at : e, to_c ? e : at, sizeof(float) * (size_t)run);
        }
    }
}

/* One tile of C at (i,j), rows x cols, from a panel of A and a panel of B of vecs*lanes columns. */
static void one_tile(const struct walk *w, long i, long j, int rows, long cols, const float *a, const float *b,
                     long ldb)
{
    const int vecs = cols > w->kern->lanes ? 2 : 1;
    struct at_tile t = {.a = a, .b = b, .lda = w->kern->mr, .ldb = ldb, .ldc = w->c.ld};
    long run;
    i -= w->c_i;
    j -= w->c_j;
    t.c = mat_at(&w->c, i, j, cols, &run);
    if (run == (long)vecs * w->kern->lanes) {
        tile_segments(w, rows, vecs, t);
        return;
    }
    t.c = w->s->edge;
    t.ldc = AT_TILE_COLS_MAX;
    if (w->join == AT_JOIN_GRAINS || w->k0 > w->k_from) edge_copy(&w->c, i, j, rows, cols, t.c, t.ldc, false);
    tile_segments(w, rows, vecs, t);
    edge_copy(&w->c, i, j, rows, cols, t.c, t.ldc, true);
}

/* A panel of B as wide as its tile: the last one may be a single vector. */
static long panel_width(const struct at_tile_kern *kern, long cols)
{
    return cols > kern->lanes ? 2L * kern->lanes : kern->lanes;
}

static bool b_lies_right(const struct walk *w, long j, long cols)
{
    long run;
    if (!w->b_direct || panel_width(w->kern, cols) != cols) return false;
    mat_at(&w->g->b, 0, j, cols, &run);
    return run == cols;
}

/* Rows [i0,i1) x columns [j0,j1), A packed for these rows, B packed for these columns (or read where it lies). */
static void block_tiles(const struct walk *w, long i0, long i1, long j0, long j1)
{
    const long kn = w->k1 - w->k0, mr = w->kern->mr, nr = 2L * w->kern->lanes;
    for (long j = j0; j < j1; j += nr) {
        const long cols = min_long(nr, j1 - j);
        const float *b = w->s->b + (j - j0) * kn;
        long ldb = panel_width(w->kern, cols), run;
        if (b_lies_right(w, j, cols)) {
            b = mat_at(&w->g->b, w->k0, j, cols, &run);
            ldb = w->g->b.ld;
        }
        for (long i = i0; i < i1; i += mr)
            one_tile(w, i, j, (int)min_long(mr, i1 - i), cols, w->s->a + (i - i0) * kn, b, ldb);
    }
}

static void pack_b(const struct walk *w, long j0, long j1)
{
    const long nr = 2L * w->kern->lanes;
    for (long j = j0; j < j1; j += nr) {
        const long cols = min_long(nr, j1 - j);
        if (b_lies_right(w, j, cols)) continue;
        pack_panel(w->kern, w->s->b + (j - j0) * (w->k1 - w->k0), panel_width(w->kern, cols), &w->g->b,
                   w->g->op == AT_GEMM_NT, j, cols, w->k0, w->k1);
    }
}

static void pack_a(const struct walk *w, long i0, long i1)
{
    const long mr = w->kern->mr;
    for (long i = i0; i < i1; i += mr)
        pack_panel(w->kern, w->s->a + (i - i0) * (w->k1 - w->k0), mr, &w->g->a, w->g->op != AT_GEMM_TN, i,
                   min_long(mr, i1 - i), w->k0, w->k1);
}

/* With one panel of A, B's panels are used once: pack one at a time into the near cache, or not at all. */
static void piece(struct walk *w, struct at_gemm_part p)
{
    const long kn = w->k1 - w->k0, mr = w->kern->mr, nr = 2L * w->kern->lanes, m = p.m1 - p.m0;
    const long m_step = min_long(A_FLOATS / kn / mr * mr, (m + mr - 1) / mr * mr);
    const long n_step = m <= mr ? nr : B_FLOATS / kn / nr * nr;
    w->b_direct = m <= mr && w->g->op != AT_GEMM_NT;
    const bool a_once = m <= m_step;
    if (a_once) pack_a(w, p.m0, p.m1);
    for (long j = p.n0; j < p.n1; j += n_step) {
        const long j1 = min_long(p.n1, j + n_step);
        pack_b(w, j, j1);
        for (long i = p.m0; i < p.m1; i += m_step) {
            const long i1 = min_long(p.m1, i + m_step);
            if (!a_once) pack_a(w, i, i1);
            block_tiles(w, i, i1, j, j1);
        }
    }
}

static void all_pieces(struct walk *w, struct at_gemm_part p)
{
    for (w->k0 = w->k_from; w->k0 < w->k_to; w->k0 = w->k1) {
        w->k1 = piece_end(w, w->k0);
        piece(w, p);
    }
}

/* C(block) = the slots' tree for a K too long for one piece: each slot a chain into a buffer of its own. */
static void slots_long_block(struct walk w, struct at_gemm_part p)
{
    const struct at_gemm *g = w.g;
    const long width = g->k / g->slots;
    int depth = 0;
    w.join = AT_JOIN_CHAIN;
    w.c_i = p.m0;
    w.c_j = p.n0;
    for (int s = 0; s < g->slots; s++) {
        w.c = at_mat(w.s->slots_long[depth++], LONG_COLS);
        w.k_from = s * width;
        w.k_to = w.k_from + width;
        all_pieces(&w, p);
        for (int merge = s; merge % 2; merge /= 2, depth--)
            w.kern->add(w.s->slots_long[depth - 2], LONG_COLS, w.s->slots_long[depth - 1], LONG_COLS,
                        (int)(p.m1 - p.m0), (int)(LONG_COLS / w.kern->lanes));
    }
    edge_copy(&g->c, p.m0, p.n0, (int)(p.m1 - p.m0), p.n1 - p.n0, w.s->slots_long[0], LONG_COLS, true);
}

void at_gemm_tiled(const struct at_tile_kern *kern, const struct at_gemm *g, struct at_gemm_part part, void *scratch)
{
    struct walk w = {.kern = kern, .g = g, .s = scratch, .join = g->join, .k_to = g->k, .c = g->c};
    if (g->join != AT_JOIN_SLOTS || g->k <= K_SLOTS) {
        all_pieces(&w, part);
        return;
    }
    for (long i = part.m0; i < part.m1; i += LONG_ROWS)
        for (long j = part.n0; j < part.n1; j += LONG_COLS)
            slots_long_block(
                w, (struct at_gemm_part){i, min_long(i + LONG_ROWS, part.m1), j, min_long(j + LONG_COLS, part.n1)});
}

#endif
