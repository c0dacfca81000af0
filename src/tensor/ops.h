/* ops.h: the operations of a Llama-style transformer, forward and backward, under contract F32-1.
 * Exact: yes for all of them: same bits for every kernel table and thread count. None allocates.
 *
 * Shapes: B sequences of T positions; C channels (d_model); N = B*T rows, row r = b*T + t. `real` is binary32.
 * S slots (rule 3). "row reduction" (rule 4): 16 lanes, element i goes to lane i mod 16 by fma or add, ascending, then
 * l_i += l_{i+8}, +4, +2, +1. exp, log, sigmoid: emath.h.
 *
 * Slot-major activations: a row of qkv is [S][q_s | k_s | v_s] (whole heads), a row of gate-up is
 * [S][gate_s | up_s]. */
#ifndef ATOLL_TENSOR_OPS_H
#define ATOLL_TENSOR_OPS_H

#include "tensor/exec.h"

#include <stdbool.h>
#include <stdint.h>

/* x(N,C) = table[token[r]](C) + (+0). Tokens must be < the table's rows (checked by the caller). */
void at_embedding_forward(const struct at_exec *ex, real *x, const int32_t *token, const real *table, long N, long C);
/* d_table[token[r]] += dx[r], rows ascending (rule 8). */
void at_embedding_backward(const struct at_exec *ex, real *d_table, const int32_t *token, const real *dx, long N,
                           long C);
/* The same for a table that is the rows [first, first + rows) of the whole one: x of another token is +0, its gradient
 * is passed over. The sum over all parts is the whole. */
void at_embedding_part_forward(const struct at_exec *ex, real *x, const int32_t *token, const real *table, long first,
                               long rows, long N, long C);
void at_embedding_part_backward(const struct at_exec *ex, real *d_table, const int32_t *token, const real *dx,
                                long first, long rows, long N, long C);

/* ss = row reduction of fma(x,x,.); rstd = 1 / sqrt(ss / C + eps); y = (x * rstd) * gain. rstd(N) is kept for
 * backward. */
void at_rmsnorm_forward(const struct at_exec *ex, real *y, real *rstd, const real *x, const real *gain, long N, long C,
                        real eps);
/* xhat = x * rstd; w = dy * gain; c = (row reduction of fma(w,xhat,.)) / C;
 * d_x = d_x + rstd * (w - xhat * c)  (the residual gradient is already in d_x);
 * d_gain[j]: grains of <= 256 positions of one sequence (length T), chain of fma(dy, xhat, .) ascending, each added to
 * d_gain ascending (rule 8). */
void at_rmsnorm_backward(const struct at_exec *ex, real *d_x, real *d_gain, const real *dy, const real *x,
                         const real *rstd, const real *gain, long N, long T, long C);

/* Where heads lie in a row of qkv. heads = S * heads per slot; kv_heads = S * kv heads per slot;
 * group = heads / kv_heads. */
struct at_heads {
    int heads, kv_heads, head_size, slots;
};
static inline long at_heads_row(const struct at_heads *h)
{
    return (long)(h->heads + 2 * h->kv_heads) * h->head_size;
}
static inline long at_heads_slot(const struct at_heads *h)
{
    return at_heads_row(h) / h->slots;
}
/* Offsets within one row of qkv. */
static inline long at_heads_q(const struct at_heads *h, int head)
{
    int per = h->heads / h->slots;
    return head / per * at_heads_slot(h) + (long)(head % per) * h->head_size;
}
static inline long at_heads_k(const struct at_heads *h, int kv_head)
{
    int per = h->kv_heads / h->slots;
    return kv_head / per * at_heads_slot(h) + (long)(h->heads / h->slots + kv_head % per) * h->head_size;
}
static inline long at_heads_v(const struct at_heads *h, int kv_head)
{
    return at_heads_k(h, kv_head) + (long)(h->kv_heads / h->slots) * h->head_size;
}

/* Rotary positions, half-split as in Hugging Face, in place on q and k of every row of qkv(N, row):
 * a = x[i], b = x[i+hd/2]: x[i] = a*cos - b*sin; x[i+hd/2] = b*cos + a*sin  (mul, mul, then sub/add).
 * cos,sin(positions, hd/2); row r has position pos0 + r % T. inverse: the transposed rotation (backward). */
void at_rotary(const struct at_exec *ex, real *qkv, const struct at_heads *h, const real *cos, const real *sin, long N,
               long T, long pos0, bool inverse);

/* Causal attention (rule 5). q rows: qkv(N, row), query r of sequence b at position pos0 + t attends to keys 0..pos0+t
 * of sequence b. Keys and values: k_t = kv + b*kv_seq_stride + t*row, same row layout (only the k and v parts are
 * read). For training kv = qkv, kv_seq_stride = T*row, pos0 = 0; for decoding kv is the cache.
 *   score = chain(q.k over head_size) * scale; m = true maximum; p = exp(score - m);
 *   l = row reduction of p over keys (lane = key mod 16); o = chain(p.v over keys ascending) * (1/l).
 * o(N, heads*hd) in head order; row_max, row_sum (N, heads) kept for backward (both NULL when not training). */
void at_attention_forward(const struct at_exec *ex, real *o, real *row_max, real *row_sum, const real *qkv,
                          const real *kv, long kv_seq_stride, const struct at_heads *h, long B, long T, long pos0,
                          real scale);
/* D = row reduction of dO*O over head_size; P = exp(score - m) * (1/l); dP = chain(dO.v); dS = (P*(dP - D))*scale;
 *   dq: chain over keys ascending of dS*k;
 *   dk: one chain over the group's query heads ascending, then queries ascending, of dS*q; dv: the same of P*dO.
 * Writes d_qkv(N,row) whole. */
void at_attention_backward(const struct at_exec *ex, real *d_qkv, const real *d_o, const real *o, const real *qkv,
                           const real *row_max, const real *row_sum, const struct at_heads *h, long B, long T,
                           real scale);

/* h(N,F) from gu(N, [S][gate_s | up_s]), F columns split in S slots: h = (gate * sigmoid(gate)) * up. */
void at_swiglu_forward(const struct at_exec *ex, real *h, long ldh, const real *gu, long ldgu, long N, long F,
                       int slots);
/* s = sigmoid(g); d_up = dh * (g*s); d_gate = ((dh*up)*s) * fma(g, 1-s, 1). d_gu may be gu itself (in place). */
void at_swiglu_backward(const struct at_exec *ex, real *d_gu, const real *dh, long ldh, const real *gu, long ldgu,
                        long N, long F, int slots);

/* Softmax cross-entropy over vocab classes of logits(N, vocab_padded), padded columns ignored (rules 4, 6):
 *   m = maximum; p = exp(z - m);
 *   l: per slot of vocab_padded/slots columns l_s = row reduction of p (lane = column within the slot mod 16), then the
 *   tree over slots;
 *   loss[r] = (m + log(l)) - z[target];
 *   when d_logits is set (may be logits itself): lse = m + log(l), d = (exp(z - lse) - onehot) * inv, padded
 *   columns +0.
 * A target < 0 takes no part: loss 0, gradient +0. */
void at_cross_entropy(const struct at_exec *ex, real *loss, real *d_logits, const real *logits, const int32_t *target,
                      long N, long vocab, long vocab_padded, int slots, real inv);

/* The columns that a tensor rank has of the vocabulary. */
struct at_vocab_part {
    long first, width; /* columns [first, first + width) of the padded vocabulary */
    long used;         /* columns of them that exist: the first 0..width */
    int slots;
};
/* at_cross_entropy cut in three, for ranks that each hold logits(N, width) of a part; the same bits.
 *   1  max(N): of the part's columns, -inf when none exist; score(N): z[target], -inf when the target is elsewhere.
 *      Their maximum over the ranks comes next.
 *   2  sum(N): the part's node of the slot tree of l. Their sum over the ranks, along the tree, comes next.
 *   3  loss(N) on every rank; the part's d_logits, which may be logits, or NULL for none. */
void at_cross_entropy_max(const struct at_exec *ex, real *max, real *score, const real *logits, const int32_t *target,
                          long N, const struct at_vocab_part *part);
void at_cross_entropy_sum(const struct at_exec *ex, real *sum, const real *max, const real *logits,
                          const int32_t *target, long N, const struct at_vocab_part *part);
void at_cross_entropy_finish(const struct at_exec *ex, real *loss, real *d_logits, const real *logits, const real *max,
                             const real *score, const real *sum, const int32_t *target, long N,
                             const struct at_vocab_part *part, real inv);

/* y = +0, n elements. */
void at_zero(const struct at_exec *ex, real *y, long n);
/* y = a + b, n elements; y may be a. */
void at_add(const struct at_exec *ex, real *y, const real *a, const real *b, long n);

/* AdamW (Loshchilov & Hutter), one pass, in this exact order per element (g is scaled first by the clip factor):
 *   g = g * clip
 *   m = fma(beta1, m, (1-beta1) * g)
 *   v = fma(beta2, v, ((1-beta2) * g) * g)
 *   mh = m * inv_bias1;  vh = v * inv_bias2
 *   u = mh / (sqrt(vh) + eps)
 *   u = fma(weight_decay, theta, u)
 *   theta = fma(-lr, u, theta)
 * 1-beta and the inv_bias are given by the caller, rounded once to binary32. */
struct at_adamw {
    real lr, beta1, beta2, one_minus_beta1, one_minus_beta2, inv_bias1, inv_bias2, eps, weight_decay, clip;
};
void at_adamw(const struct at_exec *ex, real *theta, real *m, real *v, const real *g, long n,
              const struct at_adamw *opt);

/* Sum of squares for the global norm (rule 8): per row of x(rows, cols), 16 binary64 lanes (fma of the widened values),
 * joined as in a row reduction; rows added ascending from +0. Non-finite input gives a non-finite result. */
double at_sum_squares(const struct at_exec *ex, const real *x, long rows, long cols);

/* y = fma(w, x, y), n elements. The outer step (rule 11) is made of it: a = +0; for replicas r ascending
 * a = fma(w_r, d_r, a); then theta = fma(-alpha, a, theta). */
void at_axpy(const struct at_exec *ex, real *y, real w, const real *x, long n);

/* True when every element is finite. */
bool at_all_finite(const struct at_exec *ex, const real *x, long n);

#endif
