/* transformer.h: the model: forward, loss, backward, and decoding with a key/value cache; whole, or one rank's part of it.
 * Exact: yes, for every kernel table, thread count, microbatch size, and every cut into stages and tensor ranks. Nothing
 * here allocates except the *_init functions.
 *
 * Shapes: B sequences of T = seq_len positions, N = B*T rows, d = d_model, S slots, V = vocab_padded.
 *   x0 = embedding[token]
 *   per layer:  x' = x + o(attention(rotary(qkv(norm1(x)))));  x'' = x' + down(swiglu(gateup(norm2(x'))))
 *   logits = head(norm_final(x))
 * Loss: softmax cross-entropy in nats per token. `theta` and `grad` are flat arrays laid out by params.h.
 *
 * One rank of a split run has the model of its shard (at_model_init_shard): widths that are cut in slots (heads, ff,
 * vocabulary) are then the shard's, and a *stage* is its run of layers. The tensor ranks of a stage call the at_stage_*
 * functions together, with the same arguments but their own shards; `tp` joins what each has of a sum. What passes
 * between stages, (N,d) forward and backward, is the same on all tensor ranks of a stage. */
#ifndef ATOLL_MODEL_TRANSFORMER_H
#define ATOLL_MODEL_TRANSFORMER_H

#include "base/memory.h"
#include "model/params.h"
#include "tensor/exec.h"
#include "tensor/ops.h"

/* Immutable after init; may be shared between threads. */
struct at_model {
    struct at_params params;
    struct at_heads heads;     /* of the shard */
    real *rope_cos, *rope_sin; /* (seq_len, head_size/2) */
};
at_err at_model_init(struct at_model *m, const struct at_model_config *config,
                     struct at_diag *diag); /* AT_E_DATA, NOMEM */
/* The shard must lie within the model (params.h). */
at_err at_model_init_shard(struct at_model *m, const struct at_model_config *config, const struct at_shard *shard,
                           struct at_diag *diag);
void at_model_release(struct at_model *m);
bool at_model_is_whole(const struct at_model *m); /* not a shard of several */

/* Joins what the tensor ranks of a stage have of a sum or a maximum. Rank i holds the i-th run of slots; the sum goes
 * along the slot tree, which is recursive doubling: ((x0+x1)+(x2+x3))+... */
struct at_tp {
    int ranks; /* 1: alone, and the functions are not used */
    /* Starts an all-reduce (sum) of x(n) in place; x is not to be touched before finish. Several may be under way. */
    at_err_t (*begin)(void *group, real *x, size_t n);
    at_err_t (*finish)(void *group);                 /* waits for all that were begun */
    at_err_t (*max)(void *group, real *x, size_t n); /* all-reduce (maximum) in place; nothing else is under way */
    void *group;
};
extern const struct at_tp at_tp_alone;

/* What one layer keeps for the backward pass. Pointers into the block of the activations or of `passing`. */
struct at_layer_kept {
    real *x, *rstd1, *norm1;       /* (N,d) residual stream in, (N), (N,d) */
    real *qkv, *row_max, *row_sum; /* (N,row) after rotary, (N,heads) twice */
    real *attention;               /* (N,heads*hd) */
    real *x_mid, *rstd2, *norm2;   /* (N,d), (N), (N,d) */
    real *gate_up, *hidden; /* (N,2ff), (N,ff), rows at_gemm_row apart; gate_up holds its gradient after backward */
};

/* Values that only pass by: one set for all activations of a rank, whatever the number of microbatches in flight. */
struct at_passing {
    long sequences;           /* at most */
    bool recompute;           /* activations keep only x and x_mid of a layer; the rest is computed again in backward */
    real *sum, *d_x, *d_wide; /* (N,d), (N,d), (N, max(row, ff)) */
    real *rstd_last, *norm_last, *logits, *loss; /* last stage: (N), (N,d), (N,V), (N) */
    real *joined;                                /* last stage: (3,N): maximum, target's score, sum of exponentials */
    struct at_layer_kept again;                  /* recompute: everything but x and x_mid, for one layer */
    const struct at_layer_kept *again_of;        /* whose values lie there; NULL: nobody's */
    bool grad_fresh;                             /* the next backward pass is the first since at_model_grad_begin */
    struct at_memory memory;                     /* where it and its activations are from */
    void *block;
    size_t bytes;
};
/* Memory of a forward and backward pass of one microbatch of at most `sequences` sequences: one block and pointers. */
struct at_activations {
    struct at_passing *pass;     /* borrowed */
    struct at_layer_kept *layer; /* [shard's layers]; layer[0].x is the input of the stage */
    real *x_last;                /* (N,d): the output of the stage's layers */
    void *block;
    size_t bytes;
};
/* Bytes of the blocks, before allocating them; 0 when they would not fit a size_t. */
size_t at_passing_bytes(const struct at_model_config *config, const struct at_shard *shard, long sequences,
                        bool recompute);
size_t at_activations_bytes(const struct at_model_config *config, const struct at_shard *shard, long sequences,
                            bool recompute);
at_err at_passing_init(struct at_passing *pass, const struct at_model *m, long sequences, bool recompute);
/* From there, and the activations of it; memory->arg: borrowed. */
at_err at_passing_init_in(struct at_passing *pass, const struct at_model *m, long sequences, bool recompute,
                          const struct at_memory *memory);
at_err at_activations_init(struct at_activations *a, const struct at_model *m, struct at_passing *pass);
void at_passing_release(struct at_passing *pass);
void at_activations_release(struct at_activations *a);

/* ---- one rank's part. Errors are those of `tp`; alone they cannot fail. ---- */

/* Rows of the embedding for token(N), joined over the tensor ranks: x(N,d). On the stage that holds the embedding; of
 * a tied model that is the last one, which sends x to the first. 0 <= token < vocab. */
at_err at_model_embed(const struct at_exec *ex, const struct at_model *m, const struct at_tp *tp, const real *theta,
                      const int32_t *token, long N, real *ret_x);
/* Adds d_x(N,d), the gradient of those rows, to the shard's gradient, microbatches ascending. */
void at_model_embed_grad(const struct at_exec *ex, const struct at_model *m, real *grad, const int32_t *token,
                         const real *d_x, long N);
/* Input in a->layer[0].x(B*T,d), output in a->x_last; on the last stage also pass->logits(B*T, V of the shard). */
at_err at_stage_forward(const struct at_exec *ex, const struct at_model *m, const struct at_tp *tp,
                        struct at_activations *a, const real *theta, long B);
/* Last stage, after forward: pass->loss(B*T), each added to *io_sum in token order, in binary64. */
at_err at_stage_loss(const struct at_exec *ex, const struct at_model *m, const struct at_tp *tp,
                     struct at_activations *a, const int32_t *target, long B, double *io_sum);
/* Gradients of the stage's weights, added to grad; of its input: pass->d_x. The last stage starts from the loss (and
 * adds it as at_stage_loss does), after the forward pass of these activations with no other between: logits pass by;
 * others from the gradient of their output, which the caller has put in pass->d_x. Consumes the activations. */
at_err at_stage_backward(const struct at_exec *ex, const struct at_model *m, const struct at_tp *tp,
                         struct at_activations *a, const real *theta, const int32_t *target, long B, real inv,
                         real *grad, double *io_sum);

/* What layer l (of the stage, from 0) keeps, after a forward pass; computed again if only its inputs were kept. Valid
 * until another layer is computed. */
const struct at_layer_kept *at_stage_kept(const struct at_exec *ex, const struct at_model *m, struct at_activations *a,
                                          const real *theta, int l, long B);

/* ---- the whole model ---- */

/* Fills the activations for tokens(B,T); a->pass->logits(B*T,V). 1 <= B <= sequences; 0 <= token < vocab. */
void at_model_forward(const struct at_exec *ex, const struct at_model *m, struct at_activations *a, const real *theta,
                      const int32_t *token, long B);
/* Loss of each target after a forward pass: a->pass->loss(B*T), each added to *io_sum in token order, in binary64. */
void at_model_loss(const struct at_exec *ex, const struct at_model *m, struct at_activations *a, const int32_t *target,
                   long B, double *io_sum);
/* The same loss, then the gradient of (sum of losses * inv), added to grad (at_model_grad_begin before the first
 * microbatch of a step, or zeros). inv = 1 / (loss tokens of the whole step). Consumes the activations. Cutting a step's sequences into
 * microbatches in order never changes bits. */
void at_model_backward(const struct at_exec *ex, const struct at_model *m, struct at_activations *a, const real *theta,
                       const int32_t *token, const int32_t *target, long B, real inv, real *grad, double *io_sum);

/* Elements of grad: params.count, and for tied weights a separate accumulator for the head behind them. Of shards, too. */
size_t at_model_grad_count(const struct at_model *m);
/* Before a step's first backward pass with `pass`, instead of zeros in all of grad: matrices' gradients are then stored by
 * that pass, which saves writing and reading them once more; only what is added to in other ways is cleared. */
void at_model_grad_begin(const struct at_exec *ex, const struct at_model *m, struct at_passing *pass, real *grad);
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
