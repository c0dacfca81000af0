/* model_inner.h: inner header of the model layer: a layer's matrices as the matrix products see them. */
#ifndef ATOLL_MODEL_MODEL_INNER_H
#define ATOLL_MODEL_MODEL_INNER_H

#include "model/transformer.h"
#include "tensor/gemm.h"

/* Weights of one layer inside a flat array (theta or grad). */
struct at_layer_weights {
    real *norm1, *norm2;
    struct at_mat qkv, o, gate_up, down; /* (row,d), (d, heads*hd) in column blocks, (2ff,d), (d,ff) in column blocks */
};
struct at_layer_weights at_layer_weights(const struct at_model *m, const real *flat, int layer);
real *at_weights_of(const struct at_model *m, const real *flat, enum at_role role, int layer); /* slot 0 */

struct at_dims {                 /* of the shard */
    long d, row, q, ff, V, T, N; /* q = heads * head_size; N = rows in this pass */
    long ff_row, gu_row;         /* row strides of hidden (N,ff) and gate_up (N,2ff): at_gemm_row */
    int S;
    real eps, scale; /* of the norms; of the attention scores: 1/sqrt(head_size), rounded once */
};
struct at_dims at_dims(const struct at_model *m, long N);

/* y(N,outs) = x(N,ins) times w. AT_GEMM_NT: forward, w(outs,ins); AT_GEMM_NN: gradient of the input, w(ins,outs).
 * slots = 0: one chain. */
struct at_product {
    real *y;
    const real *x;
    struct at_mat w;
    long N, outs, ins;
    int slots;
    long y_row, x_row; /* row strides; 0: outs, ins */
};
void at_product(const struct at_exec *ex, enum at_gemm_op op, const struct at_product *p);
/* The same, and the sum over the tensor ranks; forward piece by piece, so that one travels while the next is computed.
 * y is whole after at_product_finish. */
at_err at_product_begin(const struct at_exec *ex, const struct at_tp *tp, enum at_gemm_op op,
                        const struct at_product *p);
at_err at_product_finish(const struct at_tp *tp);
/* Gradient of the weights, added: W(n,k) += dY(N,n)^T . A(N,k), in grains of sequences of length T. fresh: W holds
 * nothing yet. */
void at_project_grad(const struct at_exec *ex, struct at_mat w, struct at_mat dy, struct at_mat a, long N, long T,
                     long n, long k, bool fresh);

/* One layer forward. Rows' queries, keys and values are written to qkv; attention reads keys from kv (see ops.h). */
struct at_layer_pass {
    real *x, *rstd1, *norm1, *qkv, *row_max, *row_sum, *attention, *x_mid, *rstd2, *norm2, *gate_up, *hidden, *x_out;
    real *sum; /* (N,d), scratch */
    const real *kv;
    long kv_stride, B, T, pos0;
};
void at_layer_attention(const struct at_exec *ex, const struct at_model *m, const struct at_layer_weights *w,
                        const struct at_layer_pass *p); /* x to attention */
void at_layer_hidden(const struct at_exec *ex, const struct at_model *m, const struct at_layer_weights *w,
                     const struct at_layer_pass *p); /* x_mid to hidden */
at_err at_layer_forward(const struct at_exec *ex, const struct at_model *m, const struct at_tp *tp,
                        const struct at_layer_weights *w, const struct at_layer_pass *p);

#endif
