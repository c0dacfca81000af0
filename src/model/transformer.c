#include "model/transformer.h"

#include "model/model_inner.h"

bool at_model_is_whole(const struct at_model *m)
{
    return m->params.shard.slots == m->params.slots && m->params.shard.layers == (int)m->params.config.layers;
}

static struct at_layer_pass pass_of(const struct at_layer_kept *k, const struct at_dims *z, long B)
{
    return (struct at_layer_pass){.x = k->x,
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
                                  .kv = k->qkv,
                                  .kv_stride = z->T * z->row,
                                  .B = B,
                                  .T = z->T};
}

static struct at_mat head_of(const struct at_model *m, const real *theta)
{
    return at_mat(at_weights_of(m, theta, AT_ROLE_HEAD, 0), (long)m->params.config.d_model);
}

/* ---- embedding ---- */

at_err at_model_embed(const struct at_exec *ex, const struct at_model *m, const struct at_tp *tp, const real *theta,
                      const int32_t *token, long N, real *ret_x)
{
    struct at_dims z = at_dims(m, N);
    at_embedding_part_forward(ex, ret_x, token, at_weights_of(m, theta, AT_ROLE_EMBEDDING, 0),
                              at_shard_vocab_first(&m->params), z.V, N, z.d);
    if (tp->ranks == 1) return AT_OK;
    int err = tp->begin(tp->group, ret_x, (size_t)(N * z.d));
    return err == AT_OK ? tp->finish(tp->group) : err;
}

void at_model_embed_grad(const struct at_exec *ex, const struct at_model *m, real *grad, const int32_t *token,
                         const real *d_x, long N)
{
    struct at_dims z = at_dims(m, N);
    at_embedding_part_backward(ex, at_weights_of(m, grad, AT_ROLE_EMBEDDING, 0), token, d_x,
                               at_shard_vocab_first(&m->params), z.V, N, z.d);
}

/* ---- forward ---- */

at_err at_stage_forward(const struct at_exec *ex, const struct at_model *m, const struct at_tp *tp,
                        struct at_activations *a, const real *theta, long B)
{
    struct at_passing *pass = a->pass;
    const struct at_shard *shard = &m->params.shard;
    struct at_dims z = at_dims(m, B * (long)m->params.config.seq_len);
    AT_ASSERT(B >= 1 && B <= pass->sequences);
    for (int l = 0; l < shard->layers; l++) {
        struct at_layer_weights w = at_layer_weights(m, theta, shard->layer_first + l);
        struct at_layer_pass p = pass_of(&a->layer[l], &z, B);
        p.sum = pass->sum;
        p.x_out = l + 1 < shard->layers ? a->layer[l + 1].x : a->x_last;
        int err = at_layer_forward(ex, m, tp, &w, &p);
        if (err != AT_OK) return err;
        pass->again_of = &a->layer[l];
    }
    if (!at_shard_is_last(&m->params)) return AT_OK;
    at_rmsnorm_forward(ex, pass->norm_last, pass->rstd_last, a->x_last, at_weights_of(m, theta, AT_ROLE_NORM_FINAL, 0),
                       z.N, z.d, z.eps);
    at_product(ex, AT_GEMM_NT,
               &(struct at_product){pass->logits, pass->norm_last, head_of(m, theta), z.N, z.V, z.d, 0, 0, 0});
    return AT_OK;
}

/* What lies between x, x_mid and the products that are joined over the ranks (x_mid and the next x hold their sums). */
const struct at_layer_kept *at_stage_kept(const struct at_exec *ex, const struct at_model *m, struct at_activations *a,
                                          const real *theta, int l, long B)
{
    const struct at_layer_kept *k = &a->layer[l];
    if (!a->pass->recompute || a->pass->again_of == k) return k;
    struct at_dims z = at_dims(m, B * (long)m->params.config.seq_len);
    struct at_layer_weights w = at_layer_weights(m, theta, m->params.shard.layer_first + l);
    struct at_layer_pass p = pass_of(k, &z, B);
    at_layer_attention(ex, m, &w, &p);
    at_layer_hidden(ex, m, &w, &p);
    a->pass->again_of = k;
    return k;
}

/* ---- loss ---- */

/* Each rank of the stage has a part of the vocabulary. */
static at_err cross_entropy_parts(const struct at_exec *ex, const struct at_model *m, const struct at_tp *tp,
                                  struct at_passing *pass, real *d_logits, const int32_t *target, long N, real inv)
{
    long width = at_shard_vocab(&m->params), first = at_shard_vocab_first(&m->params);
    long used = (long)m->params.config.vocab - first;
    struct at_vocab_part part = {.first = first,
                                 .width = width,
                                 .used = used < 0       ? 0
                                         : used > width ? width
                                                        : used,
                                 .slots = m->params.shard.slots};
    real *max = pass->joined, *score = max + N, *sum = score + N;
    at_cross_entropy_max(ex, max, score, pass->logits, target, N, &part);
    int err = tp->max(tp->group, max, 2 * (size_t)N);
    if (err != AT_OK) return err;
    at_cross_entropy_sum(ex, sum, max, pass->logits, target, N, &part);
    err = tp->begin(tp->group, sum, (size_t)N);
    if (err == AT_OK) err = tp->finish(tp->group);
    if (err != AT_OK) return err;
    at_cross_entropy_finish(ex, pass->loss, d_logits, pass->logits, max, score, sum, target, N, &part, inv);
    return AT_OK;
}

static at_err cross_entropy(const struct at_exec *ex, const struct at_model *m, const struct at_tp *tp,
                            struct at_passing *pass, real *d_logits, const int32_t *target, long N, real inv,
                            double *io_sum)
{
    int err = AT_OK;
    if (tp->ranks > 1)
        err = cross_entropy_parts(ex, m, tp, pass, d_logits, target, N, inv);
    else
        at_cross_entropy(ex, pass->loss, d_logits, pass->logits, target, N, (long)m->params.config.vocab,
                         m->params.vocab_padded, m->params.slots, inv);
    for (long i = 0; err == AT_OK && i < N; i++) *io_sum += (double)pass->loss[i];
    return err;
}

at_err at_stage_loss(const struct at_exec *ex, const struct at_model *m, const struct at_tp *tp,
                     struct at_activations *a, const int32_t *target, long B, double *io_sum)
{
    return cross_entropy(ex, m, tp, a->pass, NULL, target, B * (long)m->params.config.seq_len, 0, io_sum);
}

/* ---- backward ---- */

/* One layer's gradients: its weights and theirs, what it kept, the values that pass by. */
struct layer_back {
    const struct at_exec *ex;
    const struct at_model *m;
    const struct at_tp *tp;
    struct at_passing *pass;
    const struct at_layer_kept *k;
    struct at_layer_weights w, g;
    struct at_dims z;
    long B;
};

/* pass->sum = gradient of the norm's output; while it travels, the gradients of the weights that `grads` makes. */
static at_err input_gradient(const struct layer_back *b, const struct at_product *p,
                             void (*grads)(const struct layer_back *b))
{
    int err = at_product_begin(b->ex, b->tp, AT_GEMM_NN, p);
    if (err != AT_OK) return err;
    grads(b);
    return at_product_finish(b->tp);
}

static void hidden_grads(const struct layer_back *b)
{
    const struct at_dims *z = &b->z;
    at_project_grad(b->ex, b->g.down, at_mat(b->pass->d_x, z->d), at_mat(b->k->hidden, z->ff_row), z->N, z->T, z->d,
                    z->ff, b->pass->grad_fresh);
    at_project_grad(b->ex, b->g.gate_up, at_mat(b->k->gate_up, z->gu_row), at_mat(b->k->norm2, z->d), z->N, z->T,
                    2 * z->ff, z->d, b->pass->grad_fresh);
}

/* pass->d_x: from the gradient of the layer's output to that of x_mid. */
static at_err hidden_backward(const struct layer_back *b)
{
    const struct at_layer_kept *k = b->k;
    const struct at_dims *z = &b->z;
    real *d_x = b->pass->d_x, *sum = b->pass->sum, *d_hidden = b->pass->d_wide;
    at_product(b->ex, AT_GEMM_NN,
               &(struct at_product){d_hidden, d_x, b->w.down, z->N, z->ff, z->d, 0, .y_row = z->ff_row});
    at_swiglu_backward(b->ex, k->gate_up, d_hidden, z->ff_row, k->gate_up, z->gu_row, z->N, z->ff, z->S);
    int err = input_gradient(
        b, &(struct at_product){sum, k->gate_up, b->w.gate_up, z->N, z->d, 2 * z->ff, z->S, .x_row = z->gu_row},
        hidden_grads);
    if (err != AT_OK) return err;
    at_rmsnorm_backward(b->ex, d_x, b->g.norm2, sum, k->x_mid, k->rstd2, b->w.norm2, z->N, z->T, z->d);
    return AT_OK;
}

static void attention_grads(const struct layer_back *b)
{
    const struct at_dims *z = &b->z;
    at_project_grad(b->ex, b->g.o, at_mat(b->pass->d_x, z->d), at_mat(b->k->attention, z->q), z->N, z->T, z->d, z->q,
                    b->pass->grad_fresh);
    at_project_grad(b->ex, b->g.qkv, at_mat(b->pass->d_wide, z->row), at_mat(b->k->norm1, z->d), z->N, z->T, z->row,
                    z->d, b->pass->grad_fresh);
}

/* pass->d_x: from the gradient of x_mid to that of the layer's input. */
static at_err attention_backward(const struct layer_back *b)
{
    const struct at_layer_kept *k = b->k;
    const struct at_dims *z = &b->z;
    /* norm2 is done with: d_attention (N, heads*hd <= d) fits where it was. */
    real *d_x = b->pass->d_x, *sum = b->pass->sum, *d_attention = k->norm2, *d_qkv = b->pass->d_wide;
    at_product(b->ex, AT_GEMM_NN, &(struct at_product){d_attention, d_x, b->w.o, z->N, z->q, z->d, 0, 0, 0});
    at_attention_backward(b->ex, d_qkv, d_attention, k->attention, k->qkv, k->row_max, k->row_sum, &b->m->heads, b->B,
                          z->T, z->scale);
    at_rotary(b->ex, d_qkv, &b->m->heads, b->m->rope_cos, b->m->rope_sin, z->N, z->T, 0, true);
    int err =
        input_gradient(b, &(struct at_product){sum, d_qkv, b->w.qkv, z->N, z->d, z->row, z->S, 0, 0}, attention_grads);
    if (err != AT_OK) return err;
    at_rmsnorm_backward(b->ex, d_x, b->g.norm1, sum, k->x, k->rstd1, b->w.norm1, z->N, z->T, z->d);
    return AT_OK;
}

/* Tied: the head's accumulator lies behind the flat array. */
static real *head_grad(const struct at_model *m, real *grad)
{
    return m->params.config.tied ? grad + m->params.count : at_weights_of(m, grad, AT_ROLE_HEAD, 0);
}

/* pass->d_x = gradient of x_last. */
static at_err head_backward(const struct at_exec *ex, const struct at_model *m, const struct at_tp *tp,
                            struct at_activations *a, const real *theta, real *grad, const struct at_dims *z)
{
    struct at_passing *pass = a->pass;
    struct at_product back = {pass->sum, pass->logits, head_of(m, theta), z->N, z->d, z->V, z->S, 0, 0};
    int err = at_product_begin(ex, tp, AT_GEMM_NN, &back);
    if (err != AT_OK) return err;
    at_project_grad(ex, at_mat(head_grad(m, grad), z->d), at_mat(pass->logits, z->V), at_mat(pass->norm_last, z->d),
                    z->N, z->T, z->V, z->d, pass->grad_fresh);
    err = at_product_finish(tp);
    if (err != AT_OK) return err;
    at_zero(ex, pass->d_x, z->N * z->d);
    at_rmsnorm_backward(ex, pass->d_x, at_weights_of(m, grad, AT_ROLE_NORM_FINAL, 0), pass->sum, a->x_last,
                        pass->rstd_last, at_weights_of(m, theta, AT_ROLE_NORM_FINAL, 0), z->N, z->T, z->d);
    return AT_OK;
}

at_err at_stage_backward(const struct at_exec *ex, const struct at_model *m, const struct at_tp *tp,
                         struct at_activations *a, const real *theta, const int32_t *target, long B, real inv,
                         real *grad, double *io_sum)
{
    struct at_dims z = at_dims(m, B * (long)m->params.config.seq_len);
    int err = AT_OK;
    AT_ASSERT(B >= 1 && B <= a->pass->sequences);
    if (at_shard_is_last(&m->params)) {
        err = cross_entropy(ex, m, tp, a->pass, a->pass->logits, target, z.N, inv, io_sum);
        if (err == AT_OK) err = head_backward(ex, m, tp, a, theta, grad, &z);
    }
    for (int l = m->params.shard.layers - 1; err == AT_OK && l >= 0; l--) {
        int layer = m->params.shard.layer_first + l;
        struct layer_back b = {.ex = ex,
                               .m = m,
                               .tp = tp,
                               .pass = a->pass,
                               .k = at_stage_kept(ex, m, a, theta, l, B),
                               .w = at_layer_weights(m, theta, layer),
                               .g = at_layer_weights(m, grad, layer),
                               .z = z,
                               .B = B};
        a->pass->again_of = NULL; /* backward consumes what was kept */
        err = hidden_backward(&b);
        if (err == AT_OK) err = attention_backward(&b);
    }
    a->pass->grad_fresh = false;
    return err;
}

/* ---- the whole model: alone nothing can fail ---- */

void at_model_forward(const struct at_exec *ex, const struct at_model *m, struct at_activations *a, const real *theta,
                      const int32_t *token, long B)
{
    long N = B * (long)m->params.config.seq_len;
    AT_ASSERT(at_model_is_whole(m) && B >= 1 && B <= a->pass->sequences);
    int err = at_model_embed(ex, m, &at_tp_alone, theta, token, N, a->layer[0].x);
    if (err == AT_OK) err = at_stage_forward(ex, m, &at_tp_alone, a, theta, B);
    AT_ASSERT(err == AT_OK);
}

void at_model_loss(const struct at_exec *ex, const struct at_model *m, struct at_activations *a, const int32_t *target,
                   long B, double *io_sum)
{
    int err = at_stage_loss(ex, m, &at_tp_alone, a, target, B, io_sum);
    AT_ASSERT(err == AT_OK);
}

void at_model_backward(const struct at_exec *ex, const struct at_model *m, struct at_activations *a, const real *theta,
                       const int32_t *token, const int32_t *target, long B, real inv, real *grad, double *io_sum)
{
    int err = at_stage_backward(ex, m, &at_tp_alone, a, theta, target, B, inv, grad, io_sum);
    AT_ASSERT(err == AT_OK);
    at_model_embed_grad(ex, m, grad, token, a->pass->d_x, B * (long)m->params.config.seq_len);
}

/* ---- the gradient's array ---- */

/* Elements of the tied head's own accumulator. */
static size_t head_count(const struct at_model *m)
{
    bool here = m->params.config.tied && at_shard_is_last(&m->params);
    return here ? (size_t)at_shard_vocab(&m->params) * m->params.config.d_model : 0;
}

size_t at_model_grad_count(const struct at_model *m)
{
    return m->params.count + head_count(m);
}

void at_model_grad_begin(const struct at_exec *ex, const struct at_model *m, struct at_passing *pass, real *grad)
{
    const struct at_params *p = &m->params;
    for (int i = 0; i < p->blocks; i++) {
        enum at_role role = p->tensor[p->block[i].tensor].role;
        if (role == AT_ROLE_EMBEDDING || at_role_is_gain(role))
            at_zero(ex, grad + p->block[i].offset, (long)at_block_count(&p->block[i]));
    }
    pass->grad_fresh = true;
}

void at_model_grad_finish(const struct at_exec *ex, const struct at_model *m, real *grad)
{
    if (head_count(m) == 0) return;
    real *embedding = at_weights_of(m, grad, AT_ROLE_EMBEDDING, 0);
    at_add(ex, embedding, embedding, head_grad(m, grad), (long)head_count(m));
}
