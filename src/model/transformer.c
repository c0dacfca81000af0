#include "model/transformer.h"

#include "model/model_inner.h"

#include <string.h>

void at_model_forward(const struct at_exec *ex, const struct at_model *m, struct at_activations *a, const real *theta,
                      const int32_t *token, long B)
{
    AT_ASSERT(B >= 1 && B <= a->sequences);
    int layers = (int)m->params.config.layers;
    struct at_dims z = at_dims(m, B * (long)m->params.config.seq_len);
    at_embedding_forward(ex, a->layer[0].x, token, at_weights_of(m, theta, AT_ROLE_EMBEDDING, 0), z.N, z.d);
    for (int l = 0; l < layers; l++) {
        struct at_layer_weights w = at_layer_weights(m, theta, l);
        struct at_layer_kept *k = &a->layer[l];
        at_layer_forward(ex, m, &w,
                         &(struct at_layer_pass){.x = k->x,
                                                 .rstd1 = k->rstd1,
                                                 .norm1 = k->norm1,
                                                 .qkv = k->qkv,
                                                 .row_max = k->row_max,
                                                 .row_sum = k->row_sum,
                                                 .attention = k->attention,
                                                 .x_mid = k->x_mid,
                                                 .rstd2 = k->rstd2,
                                                 .norm2 = k->norm2,
                                                 .gate_up = k->gate_up,
                                                 .hidden = k->hidden,
                                                 .x_out = l + 1 < layers ? a->layer[l + 1].x : a->x_last,
                                                 .sum = a->sum,
                                                 .kv = k->qkv,
                                                 .kv_stride = z.T * z.row,
                                                 .B = B,
                                                 .T = z.T});
    }
    at_rmsnorm_forward(ex, a->norm_last, a->rstd_last, a->x_last, at_weights_of(m, theta, AT_ROLE_NORM_FINAL, 0), z.N,
                       z.d, z.eps);
    at_project(ex, a->logits, a->norm_last, at_mat(at_weights_of(m, theta, AT_ROLE_HEAD, 0), z.d), z.N, z.V, z.d, 0);
}

static void cross_entropy(const struct at_exec *ex, const struct at_model *m, struct at_activations *a, real *d_logits,
                          const int32_t *target, long N, real inv, double *io_sum)
{
    at_cross_entropy(ex, a->loss, d_logits, a->logits, target, N, (long)m->params.config.vocab, m->params.vocab_padded,
                     m->params.slots, inv);
    for (long i = 0; i < N; i++) *io_sum += (double)a->loss[i];
}

void at_model_loss(const struct at_exec *ex, const struct at_model *m, struct at_activations *a, const int32_t *target,
                   long B, double *io_sum)
{
    cross_entropy(ex, m, a, NULL, target, B * (long)m->params.config.seq_len, 0, io_sum);
}

/* a->d_x holds the gradient of the layer's output when this starts, and of its input when it ends. */
static void layer_backward(const struct at_exec *ex, const struct at_model *m, struct at_activations *a,
                           const real *theta, real *grad, int layer, long B)
{
    struct at_dims z = at_dims(m, B * (long)m->params.config.seq_len);
    struct at_layer_weights w = at_layer_weights(m, theta, layer), g = at_layer_weights(m, grad, layer);
    struct at_layer_kept *k = &a->layer[layer];

    at_project_grad(ex, g.down, a->d_x, k->hidden, z.N, z.T, z.d, z.ff);
    real *d_hidden = a->d_wide;
    at_project_back(ex, d_hidden, a->d_x, w.down, z.N, z.d, z.ff, 0);
    at_swiglu_backward(ex, k->gate_up, d_hidden, k->gate_up, z.N, z.ff, z.S);
    at_project_grad(ex, g.gate_up, k->gate_up, k->norm2, z.N, z.T, 2 * z.ff, z.d);
    at_project_back(ex, a->sum, k->gate_up, w.gate_up, z.N, 2 * z.ff, z.d, z.S);
    at_rmsnorm_backward(ex, a->d_x, g.norm2, a->sum, k->x_mid, k->rstd2, w.norm2, z.N, z.T, z.d);

    at_project_grad(ex, g.o, a->d_x, k->attention, z.N, z.T, z.d, z.q);
    /* norm2 and hidden are done with: d_attention (N, heads*hd = d) fits where norm2 was. */
    real *d_attention = k->norm2, *d_qkv = a->d_wide;
    at_project_back(ex, d_attention, a->d_x, w.o, z.N, z.d, z.q, 0);
    at_attention_backward(ex, d_qkv, d_attention, k->attention, k->qkv, k->row_max, k->row_sum, &m->heads, B, z.T,
                          z.scale);
    at_rotary(ex, d_qkv, &m->heads, m->rope_cos, m->rope_sin, z.N, z.T, 0, true);
    at_project_grad(ex, g.qkv, d_qkv, k->norm1, z.N, z.T, z.row, z.d);
    at_project_back(ex, a->sum, d_qkv, w.qkv, z.N, z.row, z.d, z.S);
    at_rmsnorm_backward(ex, a->d_x, g.norm1, a->sum, k->x, k->rstd1, w.norm1, z.N, z.T, z.d);
}

/* Tied: the head's accumulator lies behind the flat array. */
static real *head_grad(const struct at_model *m, real *grad)
{
    return m->params.config.tied ? grad + m->params.count : at_weights_of(m, grad, AT_ROLE_HEAD, 0);
}

void at_model_backward(const struct at_exec *ex, const struct at_model *m, struct at_activations *a, const real *theta,
                       const int32_t *token, const int32_t *target, long B, real inv, real *grad, double *io_sum)
{
    AT_ASSERT(B >= 1 && B <= a->sequences);
    struct at_dims z = at_dims(m, B * (long)m->params.config.seq_len);
    cross_entropy(ex, m, a, a->logits, target, z.N, inv, io_sum);
    at_project_grad(ex, at_mat(head_grad(m, grad), z.d), a->logits, a->norm_last, z.N, z.T, z.V, z.d);
    at_project_back(ex, a->sum, a->logits, at_mat(at_weights_of(m, theta, AT_ROLE_HEAD, 0), z.d), z.N, z.V, z.d, z.S);
    memset(a->d_x, 0, (size_t)(z.N * z.d) * sizeof *a->d_x);
    at_rmsnorm_backward(ex, a->d_x, at_weights_of(m, grad, AT_ROLE_NORM_FINAL, 0), a->sum, a->x_last, a->rstd_last,
                        at_weights_of(m, theta, AT_ROLE_NORM_FINAL, 0), z.N, z.T, z.d);
    for (int l = (int)m->params.config.layers - 1; l >= 0; l--) layer_backward(ex, m, a, theta, grad, l, B);
    at_embedding_backward(ex, at_weights_of(m, grad, AT_ROLE_EMBEDDING, 0), token, a->d_x, z.N, z.d);
}

static size_t head_count(const struct at_model *m)
{
    return (size_t)m->params.vocab_padded * m->params.config.d_model;
}

size_t at_model_grad_count(const struct at_model *m)
{
    return m->params.count + (m->params.config.tied ? head_count(m) : 0);
}

void at_model_grad_finish(const struct at_exec *ex, const struct at_model *m, real *grad)
{
    if (m->params.config.tied) at_add(ex, grad, grad, head_grad(m, grad), (long)head_count(m));
}
