/* transformer.h: the model: forward, loss, backward, and decoding with a key/value cache.
 * Exact: yes, for every kernel table, thread count and microbatch size. Nothing here allocates except the *_init
 * functions.
 *
 * Shapes: B sequences of T = seq_len positions, N = B*T rows, d = d_model, S slots, V = vocab_padded.
 *   x0 = embedding[token]
 *   per layer:  x' = x + o(attention(rotary(qkv(norm1(x)))));  x'' = x' + down(swiglu(gateup(norm2(x'))))
 *   logits = head(norm_final(x))
 * Loss: softmax cross-entropy in nats per token. `theta` and `grad` are flat arrays laid out by params.h. */
#ifndef ATOLL_MODEL_TRANSFORMER_H
#define ATOLL_MODEL_TRANSFORMER_H

#include "model/params.h"
#include "tensor/exec.h"
#include "tensor/ops.h"

/* Immutable after init; may be shared between threads. */
struct at_model {
    struct at_params params;
    struct at_heads heads;
    real *rope_cos, *rope_sin; /* (seq_len, head_size/2) */
};
at_err at_model_init(struct at_model *m, const struct at_model_config *config,
                     struct at_diag *diag); /* AT_E_DATA, NOMEM */
void at_model_release(struct at_model *m);

/* What one layer keeps for the backward pass. Pointers into the activations' block. */
struct at_layer_kept {
    real *x, *rstd1, *norm1;       /* (N,d) residual stream in, (N), (N,d) */
    real *qkv, *row_max, *row_sum; /* (N,row) after rotary, (N,heads) twice */
    real *attention;               /* (N,heads*hd) */
    real *x_mid, *rstd2, *norm2;   /* (N,d), (N), (N,d) */
    real *gate_up, *hidden;        /* (N,2ff), (N,ff); gate_up holds its gradient after backward */
};

/* All memory of a forward and backward pass over at most `sequences` sequences: one block plus pointers into it. */
struct at_activations {
    long sequences;
    struct at_layer_kept *layer;
    real *x_last, *rstd_last, *norm_last; /* (N,d), (N), (N,d) */
    real *logits, *loss;                  /* (N,V), (N) */
    real *sum, *d_x, *d_wide;             /* (N,d), (N,d), (N, max(row, heads*hd, ff)): passing values */
    void *block;
    size_t bytes;
};
/* Bytes of the block, before allocating it; 0 when it would not fit a size_t. */
size_t at_activations_bytes(const struct at_model_config *config, long sequences);
at_err at_activations_init(struct at_activations *a, const struct at_model *m, long sequences);
void at_activations_release(struct at_activations *a);

/* Fills the activations for tokens(B,T); a->logits(B*T,V). 1 <= B <= a->sequences; 0 <= token < vocab. */
void at_model_forward(const struct at_exec *ex, const struct at_model *m, struct at_activations *a, const real *theta,
                      const int32_t *token, long B);
/* Loss of each target after a forward pass: a->loss(B*T), each added to *io_sum in token order, in binary64. */
void at_model_loss(const struct at_exec *ex, const struct at_model *m, struct at_activations *a, const int32_t *target,
                   long B, double *io_sum);
/* The same loss, then the gradient of (sum of losses * inv), added to grad (zero it before the first microbatch of a
 * step). inv = 1 / (loss tokens of the whole step). Consumes the activations. Cutting a step's sequences into
 * microbatches in order never changes bits. */
void at_model_backward(const struct at_exec *ex, const struct at_model *m, struct at_activations *a, const real *theta,
                       const int32_t *token, const int32_t *target, long B, real inv, real *grad, double *io_sum);
/* Elements of grad: params.count, and for tied weights a separate accumulator for the head behind them. */
size_t at_model_grad_count(const struct at_model *m);
/* Once, after the step's last microbatch: tied weights: embedding gradient + head gradient (rule 8). */
void at_model_grad_finish(const struct at_exec *ex, const struct at_model *m, real *grad);

/* Decoding: one sequence, keys and values of all past positions kept in binary32. The logits have the bits of a full
 * forward pass, however the tokens are cut into calls. */
struct at_decoder {
    const struct at_model *model; /* borrowed */
    long positions, chunk_max;    /* capacity = seq_len; tokens per call at most */
    long used;                    /* positions filled */
    real *cache;                  /* (layers, positions, row) */
    real *x, *norm, *attention, *gate_up, *hidden, *rstd, *logits;
    void *block;
};
at_err at_decoder_init(struct at_decoder *d, const struct at_model *m, long chunk_max); /* 1 <= chunk_max <= seq_len */
void at_decoder_release(struct at_decoder *d);
static inline void at_decoder_clear(struct at_decoder *d)
{
    d->used = 0;
}
/* Appends n tokens (1 <= n <= chunk_max, used + n <= positions) and returns logits(n,V), valid until the next call. */
const real *at_decoder_append(const struct at_exec *ex, struct at_decoder *d, const real *theta, const int32_t *token,
                              long n);

#endif
