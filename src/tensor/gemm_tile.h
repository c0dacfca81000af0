/* gemm_tile.h: what an instruction set gives to the blocked drivers gemm_tile.c and attention_tile.c: the innermost
 * tile of outer products, packing, and one row operation of attention. binary32 only.
 *
 * A tile is up to `mr` rows by 1 or 2 vectors of `lanes` columns, all accumulators in registers. Operands are "k-major
 * panels": step p of A is a[p*lda + 0..rows), step p of B is b[p*ldb + 0..vecs*lanes). */
#ifndef ATOLL_TENSOR_GEMM_TILE_H
#define ATOLL_TENSOR_GEMM_TILE_H

#include "tensor/gemm_kern.h"

#ifndef AT_REAL64

#define AT_TILE_ROWS_MAX 16
#define AT_TILE_COLS_MAX 32
#define AT_PACK_STEPS    16 /* rows of a matrix that are packed side by side, so that each is read along its length */

enum at_tile_mode {
    AT_TILE_STORE = 0, /* C = chain from +0, then + (+0) */
    AT_TILE_LOAD = 1,  /* the chain goes on from C; then + (+0), which in the middle of a chain changes no later bit but
                        * zeros' signs, and those the last + (+0) settles */
    AT_TILE_ADD = 2,   /* C = C + (chain from +0, + (+0)) */
    AT_TILE_SCALE = 3, /* C = (chain from +0, + (+0)) * alpha */
};

/* Floats that will be wanted soon, and be asked for in vain at worst: a tile may fetch their lines. */
struct at_ahead {
    const float *p;
    long floats;
};

struct at_tile {
    long k;
    const float *a, *b;
    long lda, ldb;
    bool a_rows; /* A lies row by row instead: step p of row i is a[i*lda + p] */
    float *keep; /* NULL, or where the tile leaves A as a panel: step p of row i at keep[p*mr + i]. Only for tiles of mr
                  * rows and 2 vectors whose ldb is 2*lanes; does not overlap C */
    float *c;
    long ldc;
    enum at_tile_mode mode;
    float alpha;
    struct at_ahead ahead[2]; /* the first one first */
};

struct at_tile_kern {
    int mr, lanes;
    void (*tile)(int rows, int vecs, const struct at_tile *t);
    /* The slots of a tile joined as a tree; t->k is one slot's, t->mode is ignored. part: three buffers
     * of a tile. NULL: the driver calls tile and add. */
    void (*tile_slots)(int rows, int vecs, const struct at_tile *t, int count,
                       float (*part)[AT_TILE_ROWS_MAX * AT_TILE_COLS_MAX]);
    /* Panels of `width` columns: dst[p*width + j] = src[p*ld + j], j < n <= width; columns >= n stay as they are. */
    void (*pack_copy)(float *dst, long width, const float *src, long ld, long k, long n);
    /* dst[p*width + j] = src[j*ld + p], j < n <= width; columns >= n become 0. Panels are packed in ascending order:
     * up to `lanes` floats after the last step may be overwritten. */
    void (*pack_transpose)(float *dst, long width, const float *src, long ld, long k, long n);
    /* x += y for rows of vecs*lanes floats. */
    void (*add)(float *x, long ldx, const float *y, long ldy, int rows, int vecs);
    /* y[j] = x[j] * factor */
    void (*scale)(float *y, const float *x, long n, float factor);
    /* ds[j] = (p[j] * (ds[j] - big_d)) * scale */
    void (*softmax_back)(float *ds, const float *p, long n, float big_d, float scale);
};

/* The drivers: at_gemm_kern's functions for a tile kernel. */
void at_gemm_tiled(const struct at_tile_kern *kern, const struct at_gemm *g, struct at_gemm_part part, void *scratch);
size_t at_gemm_tiled_bytes(void);
void at_attention_tiled_forward(const struct at_tile_kern *kern, const struct at_attention *a, long b, int head,
                                void *scratch);
void at_attention_tiled_backward(const struct at_tile_kern *kern, const struct at_attention *a, long b, int kv_head,
                                 void *scratch);
size_t at_attention_tiled_bytes(void);

#endif
#endif
