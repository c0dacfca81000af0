/* gemm_tile.c: the blocked matrix product over an instruction set's tile (after Goto & van de Geijn, "Anatomy of
 * high-performance matrix multiplication", ACM TOMS 34(3), 2008).
 *
 * K is walked in pieces. For each block of A (whole panels of mr rows, sized for the second-level cache; read where
 * it lies, or packed by the first tiles that use it) all tiles of a block of B run, whose panels of 2*lanes columns are packed with the first of them. What
 * the joins need:
 *  - chain: a later piece loads the accumulators from C and goes on;
 *  - grains: a piece holds whole grains; a tile runs one grain after the other, each added to C;
 *  - slots: one piece holds all of K; a tile runs the slots in order and joins them as a tree, at most 3 partial tiles
 *    pending, all in the first-level cache. A K too long for that goes slot by slot over blocks of C. */
#include "tensor/gemm_tile.h"

#ifndef AT_REAL64

#include <string.h>

#define A_FLOATS    (64 * 1024L)   /* block of A: 256 KiB */
#define B_FLOATS    (1024 * 1024L) /* block of B: 4 MiB */
#define K_PIECE     1024L
#define K_GRAINS    1024L         /* C is read and written again for every piece */
#define K_SLOTS     4096L         /* longest K that a SLOTS piece holds */
#define LONG_FLOATS (256 * 1024L) /* block of C in slots_long */
#define LONG_COLS   1024L
#define LONG_DEPTH  4 /* of the tree over 8 slots */
#define TILE        (AT_TILE_ROWS_MAX * AT_TILE_COLS_MAX)
#define SLACK       64

/* Scratch of one part. */
struct block {
    float a[A_FLOATS + SLACK];
    float b[B_FLOATS + SLACK];
    float edge[TILE];
    float slot[3][TILE];
    float slots_long[LONG_DEPTH][LONG_FLOATS];
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
    bool a_direct, b_direct; /* the operand is read where it lies */
    struct at_tile t;        /* the tile at work; written field by field: a copy of it would wait for C's stores */
};

size_t at_gemm_tiled_bytes(void)
{
    return sizeof(struct block);
}

static long min_long(long a, long b)
{
    return a < b ? a : b;
}

static long round_up(long n, long step)
{
    return (n + step - 1) / step * step;
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
    while (end < w->k_to && grain_end(g->seq_len, end) - k0 <= K_GRAINS) end = grain_end(g->seq_len, end);
    return end;
}

/* All segments of the tile w->t, whose operands stand at the start of the piece. */
static void tile_segments(struct walk *w, int rows, int vecs)
{
    const struct at_gemm *g = w->g;
    struct at_tile *t = &w->t;
    if (w->join == AT_JOIN_SLOTS) {
        t->k = g->k / g->slots;
        w->kern->tile_slots(rows, vecs, t, g->slots, w->s->slot);
    } else if (w->join == AT_JOIN_CHAIN) {
        t->k = w->k1 - w->k0;
        t->mode = w->k0 > w->k_from ? AT_TILE_LOAD : AT_TILE_STORE;
        w->kern->tile(rows, vecs, t);
    } else {
        for (long k = w->k0; k < w->k1; k += t->k) {
            t->k = grain_end(g->seq_len, k) - k;
            t->mode = g->fresh && k == 0 ? AT_TILE_STORE : AT_TILE_ADD; /* +0 + g0 is g0, which is never -0 */
            w->kern->tile(rows, vecs, t);
            t->a += t->a_rows ? t->k : t->k * t->lda;
            t->b += t->k * t->ldb;
            if (t->keep != NULL) t->keep += t->k * w->kern->mr;
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

/* One tile of C at (i,j), rows x cols, from a panel of A and a panel of B of vecs*lanes columns, both in w->t. */
static void one_tile(struct walk *w, long i, long j, int rows, long cols)
{
    const int vecs = cols > w->kern->lanes ? 2 : 1;
    struct at_tile *t = &w->t;
    long run;
    i -= w->c_i;
    j -= w->c_j;
    t->c = mat_at(&w->c, i, j, cols, &run);
    t->ldc = w->c.ld;
    if (run == (long)vecs * w->kern->lanes) {
        tile_segments(w, rows, vecs);
        return;
    }
    t->c = w->s->edge;
    t->ldc = AT_TILE_COLS_MAX;
    if (w->k0 > w->k_from || (w->join == AT_JOIN_GRAINS && !w->g->fresh))
        edge_copy(&w->c, i, j, rows, cols, t->c, t->ldc, false);
    tile_segments(w, rows, vecs);
    edge_copy(&w->c, i, j, rows, cols, t->c, t->ldc, true);
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

/* Panels of `step` columns of an operand, columns [from,to); the last panel may be narrower (panel_width, for B). */
static void pack(const struct walk *w, float *dst, const struct at_mat *x, bool by_rows, bool is_b, long from, long to)
{
    const long kn = w->k1 - w->k0, step = is_b ? 2L * w->kern->lanes : w->kern->mr,
               k_step = by_rows ? kn : AT_PACK_STEPS;
    for (long k = w->k0; k < w->k1; k += k_step) {
        const long k_end = min_long(k + k_step, w->k1);
        for (long j = from; j < to; j += step) {
            const long n = min_long(step, to - j), width = is_b ? panel_width(w->kern, n) : step;
            pack_panel(w->kern, dst + (j - from) * kn + (k - w->k0) * width, width, x, by_rows, j, n, k, k_end);
        }
    }
}

/* The blocks that a piece is walked in: A rows [i0,i1) are packed, B columns [j0,j1) get packed with the first of
 * them. */
struct blocks {
    struct at_gemm_part p;
    long i0, i1, j0, j1;
    long m_step, n_step;
};

static bool b_by_rows(const struct walk *w)
{
    return w->g->op == AT_GEMM_NT;
}

static bool a_by_rows(const struct walk *w)
{
    return w->g->op != AT_GEMM_TN;
}

/* The panel of B at column j, and where it is to be read from now on. */
static const float *b_panel(struct walk *w, const struct blocks *x, long j, long cols)
{
    const long kn = w->k1 - w->k0;
    float *b = w->s->b + (j - x->j0) * kn;
    w->t.ldb = panel_width(w->kern, cols);
    if (b_lies_right(w, j, cols)) {
        long run;
        w->t.ldb = w->g->b.ld;
        return mat_at(&w->g->b, w->k0, j, cols, &run);
    }
    if (x->i0 == x->p.m0 && b_by_rows(w)) pack(w, b, &w->g->b, true, true, j, j + cols);
    if (x->i0 == x->p.m0 && !b_by_rows(w) && j == x->j0) pack(w, b, &w->g->b, false, true, j, x->j1);
    return b;
}

/* What the tile at (i, j) of a block may fetch ahead, number `run` of the block's tiles: its share of the next panel of B,
 * and run number `run` of the next block of A's source. */
static void look_ahead(struct walk *w, const struct blocks *x, const float *b, long i, long j, long run)
{
    const bool by_rows = a_by_rows(w);
    const long kn = w->k1 - w->k0, nr = 2L * w->kern->lanes, mr = w->kern->mr;
    const long i1 = min_long(x->i1 + x->m_step, x->p.m1), runs = by_rows ? i1 - x->i1 : kn;
    const bool packed_b = x->i0 > x->p.m0 && b == w->s->b + (j - x->j0) * kn;
    const long share = round_up(kn * nr / ((x->i1 - x->i0 + mr - 1) / mr), 16);
    w->t.ahead[0].floats = w->t.ahead[1].floats = 0;
    if (packed_b && j + nr < x->j1) w->t.ahead[0] = (struct at_ahead){b + kn * nr + (i - x->i0) / mr * share, share};
    if (x->i1 >= x->p.m1 || run >= runs) return;
    struct at_ahead *next = &w->t.ahead[1];
    next->p = by_rows ? mat_at(&w->g->a, x->i1 + run, w->k0, kn, &next->floats)
                      : mat_at(&w->g->a, w->k0 + run, x->i1, i1 - x->i1, &next->floats);
}

/* A row-major A serves a tile as it is, unless its rows would push each other out of the first-level cache. */
static bool a_lies_right(const struct at_gemm *g)
{
    return g->op != AT_GEMM_TN && g->a.block_cols == 0 && g->a.ld % 512 != 0;
}

/* The panel of A at row i for the tile w->t, whose B is there. fresh: it is to be packed now; a full tile does that
 * itself while it computes. */
static void a_panel(struct walk *w, const struct blocks *x, long i, int rows, long cols, bool fresh)
{
    const struct at_mat *a = &w->g->a;
    const long kn = w->k1 - w->k0, mr = w->kern->mr;
    float *packed = w->s->a + (i - x->i0) * kn;
    const bool as_it_lies = rows == mr && cols == 2L * w->kern->lanes && w->t.ldb == cols && a->block_cols == 0;
    w->t.keep = fresh && as_it_lies ? packed : NULL;
    if (w->a_direct || w->t.keep != NULL) {
        w->t.a_rows = a_by_rows(w);
        w->t.lda = a->ld;
        w->t.a = w->t.a_rows ? a->p + i * a->ld + w->k0 : a->p + w->k0 * a->ld + i;
        return;
    }
    if (fresh) pack(w, packed, a, a_by_rows(w), false, i, i + rows);
    w->t.a_rows = false;
    w->t.lda = mr;
    w->t.a = packed;
}

/* fresh: this block of A is not packed yet. */
static void block_tiles(struct walk *w, const struct blocks *x, bool fresh)
{
    long tiles = 0;
    const long mr = w->kern->mr, nr = 2L * w->kern->lanes;
    for (long j = x->j0; j < x->j1; j += nr) {
        const long cols = min_long(nr, x->j1 - j);
        const float *b = b_panel(w, x, j, cols);
        for (long i = x->i0; i < x->i1; i += mr) {
            const int rows = (int)min_long(mr, x->i1 - i);
            a_panel(w, x, i, rows, cols, fresh && j == x->j0);
            w->t.b = b;
            look_ahead(w, x, b, i, j, tiles++);
            one_tile(w, i, j, rows, cols);
        }
    }
}

/* With one block of A, B's panels are used once: pack one at a time into the near cache, or, for a single row of tiles,
 * not at all. */
static void piece(struct walk *w, struct at_gemm_part p)
{
    const long kn = w->k1 - w->k0, mr = w->kern->mr, nr = 2L * w->kern->lanes, m = p.m1 - p.m0;
    struct blocks x = {.p = p, .m_step = A_FLOATS / kn / mr * mr};
    const bool a_once = m <= x.m_step;
    x.n_step = a_once ? (b_by_rows(w) || m <= mr ? nr : 4 * nr) : B_FLOATS / kn / nr * nr;
    w->a_direct = a_lies_right(w->g);
    w->b_direct = m <= mr && w->g->op != AT_GEMM_NT;
    for (x.j0 = p.n0; x.j0 < p.n1; x.j0 = x.j1) {
        x.j1 = min_long(p.n1, x.j0 + x.n_step);
        for (x.i0 = p.m0; x.i0 < p.m1; x.i0 = x.i1) {
            x.i1 = min_long(p.m1, x.i0 + x.m_step);
            block_tiles(w, &x, !w->a_direct && (!a_once || x.j0 == p.n0));
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
static void slots_long_block(struct walk *w, struct at_gemm_part p)
{
    const struct at_gemm *g = w->g;
    const long width = g->k / g->slots, lanes = w->kern->lanes;
    const int rows = (int)(p.m1 - p.m0), vecs = (int)((p.n1 - p.n0 + lanes - 1) / lanes);
    int depth = 0;
    w->c_i = p.m0;
    w->c_j = p.n0;
    for (int s = 0; s < g->slots; s++) {
        w->c = at_mat(w->s->slots_long[depth++], vecs * lanes);
        w->k_from = s * width;
        w->k_to = w->k_from + width;
        all_pieces(w, p);
        for (int merge = s; merge % 2; merge /= 2, depth--)
            w->kern->add(w->s->slots_long[depth - 2], vecs * lanes, w->s->slots_long[depth - 1], vecs * lanes, rows,
                         vecs);
    }
    edge_copy(&g->c, p.m0, p.n0, rows, p.n1 - p.n0, w->s->slots_long[0], vecs * lanes, true);
}

static void slots_long(struct walk *w, struct at_gemm_part part)
{
    const long mr = w->kern->mr, cols = min_long(LONG_COLS, part.n1 - part.n0);
    const long rows = LONG_FLOATS / (cols + AT_TILE_COLS_MAX) / mr * mr;
    w->join = AT_JOIN_CHAIN;
    for (long i = part.m0; i < part.m1; i += rows)
        for (long j = part.n0; j < part.n1; j += cols)
            slots_long_block(w, (struct at_gemm_part){i, min_long(i + rows, part.m1), j, min_long(j + cols, part.n1)});
}

void at_gemm_tiled(const struct at_tile_kern *kern, const struct at_gemm *g, struct at_gemm_part part, void *scratch)
{
    struct walk w = {.kern = kern, .g = g, .s = scratch, .join = g->join, .k_to = g->k, .c = g->c};
    if (g->join == AT_JOIN_SLOTS && g->k > K_SLOTS) {
        slots_long(&w, part);
    } else {
        all_pieces(&w, part);
    }
}

#endif
