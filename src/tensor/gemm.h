/* gemm.h: matrix products under contract F32-1 (rules 2, 3, 8). Exact: yes, for every kernel table and thread count.
 *
 * Every output element is one or more *chains*: acc = +0; for k ascending acc = fma(a_k, b_k, acc); at the end
 * acc + (+0). K is cut in segments, each a chain of its own, and `join` says how they meet:
 *   AT_JOIN_CHAIN   one segment; C = chain(K)
 *   AT_JOIN_SLOTS   `slots` equal segments, joined by the binary tree ((s0+s1)+(s2+s3))+...; C = tree
 *   AT_JOIN_GRAINS  K is positions of sequences of length seq_len; segments of at most 256 consecutive positions of one
 *                   sequence; C = (((C + g0) + g1) + ...), ascending; where C is `fresh`, from +0
 * Cache blocks over K continue a chain (reload the accumulator), so block sizes are free. */
#ifndef ATOLL_TENSOR_GEMM_H
#define ATOLL_TENSOR_GEMM_H

#include "tensor/exec.h"

#include <stdbool.h>

enum at_gemm_op {
    AT_GEMM_NN, /* C(m,n) = A(m,k) . B(k,n) */
    AT_GEMM_NT, /* C(m,n) = A(m,k) . B(n,k)^T */
    AT_GEMM_TN, /* C(m,n) = A(k,m)^T . B(k,n) */
};

enum at_gemm_join { AT_JOIN_CHAIN, AT_JOIN_SLOTS, AT_JOIN_GRAINS };

#define AT_GRAIN_POSITIONS 256
#define AT_SLOTS_MAX       8

/* A row-major matrix whose columns may come in blocks (slots) that lie apart:
 *   element (i,j) at p[(j / block_cols) * block_stride + i * ld + j % block_cols]; block_cols = 0: one block.
 * This is how a row-parallel weight, stored slot by slot, is used as one matrix. */
struct at_mat {
    real *p;
    long ld;
    long block_cols, block_stride;
};
static inline struct at_mat at_mat(const real *p, long ld)
{
    return (struct at_mat){(real *)p, ld, 0, 0};
}

/* The row stride to give a matrix of `cols` columns that products will read: where a row's length is a multiple of 2 KiB,
 * rows push each other out of the first-level cache, and a line more between them helps. */
static inline long at_gemm_row(long cols)
{
    return cols % 512 == 0 ? cols + 16 : cols;
}

struct at_gemm {
    enum at_gemm_op op;
    enum at_gemm_join join;
    int slots;             /* AT_JOIN_SLOTS: 1, 2, 4 or 8; divides k */
    long seq_len;          /* AT_JOIN_GRAINS: divides k */
    bool fresh;            /* AT_JOIN_GRAINS: C holds nothing yet; the bits are those of a C of +0, which is not read */
    long m, n, k;          /* any sizes >= 1 */
    struct at_mat a, b, c; /* a and b are only read; c must not overlap them */
};

/* Threads split outputs only. */
void at_gemm(const struct at_exec *ex, const struct at_gemm *g);

#endif
