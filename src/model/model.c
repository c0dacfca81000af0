/* The parts that training and decoding share: the model's constants, its matrices, one layer forward. */
#include "model/model_inner.h"
#include "tensor/emath.h"

#include <math.h>
#include <stdlib.h>

at_err at_model_init(struct at_model *m, const struct at_model_config *config, struct at_diag *diag)
{
    int err = at_model_config_check(config, diag);
    if (err != AT_OK) return err;
    struct at_model n = {0};
    err = at_params_init(&n.params, config);
    size_t half = config->head_size / 2, elements = config->seq_len * half;
    n.heads =
        (struct at_heads){(int)config->heads, (int)config->kv_heads, (int)config->head_size, at_model_slots(config)};
    n.rope_cos = malloc(elements * sizeof(real));
    n.rope_sin = malloc(elements * sizeof(real));
    if (err != AT_OK || n.rope_cos == NULL || n.rope_sin == NULL) {
        at_model_release(&n);
        return at_fail(diag, AT_E_NOMEM, "model", "no memory for the model's tables");
    }
    at_rotary_table(n.rope_cos, n.rope_sin, (long)config->seq_len, (int)config->head_size, config->rope_theta);
    *m = n;
    return AT_OK;
}

void at_model_release(struct at_model *m)
{
    at_params_release(&m->params);
    free(m->rope_cos);
    free(m->rope_sin);
    *m = (struct at_model){0};
}

real *at_weights_of(const struct at_model *m, const real *flat, enum at_role role, int layer)
{
    const struct at_params *p = &m->params;
    return (real *)flat + at_params_block(p, at_params_find(p, role, layer), 0)->offset;
}

struct at_layer_weights at_layer_weights(const struct at_model *m, const real *flat, int layer)
{
    struct at_dims z = at_dims(m, 0);
    long o_cols = z.q / z.S, down_cols = z.ff / z.S;
    return (struct at_layer_weights){
        .norm1 = at_weights_of(m, flat, AT_ROLE_NORM1, layer),
        .norm2 = at_weights_of(m, flat, AT_ROLE_NORM2, layer),
        .qkv = at_mat(at_weights_of(m, flat, AT_ROLE_Q, layer), z.d),
        .o = {at_weights_of(m, flat, AT_ROLE_O, layer), o_cols, o_cols, z.d * o_cols},
        .gate_up = at_mat(at_weights_of(m, flat, AT_ROLE_GATE, layer), z.d),
        .down = {at_weights_of(m, flat, AT_ROLE_DOWN, layer), down_cols, down_cols, z.d * down_cols},
    };
}

struct at_dims at_dims(const struct at_model *m, long N)
{
    const struct at_model_config *c = &m->params.config;
    return (struct at_dims){.d = c->d_model,
                            .row = at_heads_row(&m->heads),
                            .q = (long)c->heads * c->head_size,
                            .ff = c->d_ff,
                            .V = m->params.vocab_padded,
                            .T = c->seq_len,
                            .N = N,
                            .S = m->params.slots,
                            .eps = (real)c->norm_eps,
                            .scale = (real)(1.0 / sqrt((double)c->head_size))};
}

void at_project(const struct at_exec *ex, real *c, const real *a, struct at_mat w, long N, long n, long k, int slots)
{
    at_gemm(ex, &(struct at_gemm){.op = AT_GEMM_NT,
                                  .join = slots != 0 ? AT_JOIN_SLOTS : AT_JOIN_CHAIN,
                                  .slots = slots,
                                  .m = N,
                                  .n = n,
                                  .k = k,
                                  .a = at_mat(a, k),
                                  .b = w,
                                  .c = at_mat(c, n)});
}

void at_project_back(const struct at_exec *ex, real *c, const real *dy, struct at_mat w, long N, long n, long k,
                     int slots)
{
    at_gemm(ex, &(struct at_gemm){.op = AT_GEMM_NN,
                                  .join = slots != 0 ? AT_JOIN_SLOTS : AT_JOIN_CHAIN,
                                  .slots = slots,
                                  .m = N,
                                  .n = k,
                                  .k = n,
                                  .a = at_mat(dy, n),
                                  .b = w,
                                  .c = at_mat(c, k)});
}

void at_project_grad(const struct at_exec *ex, struct at_mat w, const real *dy, const real *a, long N, long T, long n,
                     long k)
{
    at_gemm(ex, &(struct at_gemm){.op = AT_GEMM_TN,
                                  .join = AT_JOIN_GRAINS,
                                  .seq_len = T,
                                  .m = n,
                                  .n = k,
                                  .k = N,
                                  .a = at_mat(dy, n),
                                  .b = at_mat(a, k),
                                  .c = w});
}

void at_layer_forward(const struct at_exec *ex, const struct at_model *m, const struct at_layer_weights *w,
                      const struct at_layer_pass *p)
{
    struct at_dims z = at_dims(m, p->B * p->T);
    at_rmsnorm_forward(ex, p->norm1, p->rstd1, p->x, w->norm1, z.N, z.d, z.eps);
    at_project(ex, p->qkv, p->norm1, w->qkv, z.N, z.row, z.d, 0);
    at_rotary(ex, p->qkv, &m->heads, m->rope_cos, m->rope_sin, z.N, p->T, p->pos0, false);
    at_attention_forward(ex, p->attention, p->row_max, p->row_sum, p->qkv, p->kv, p->kv_stride, &m->heads, p->B, p->T,
                         p->pos0, z.scale);
    at_project(ex, p->sum, p->attention, w->o, z.N, z.d, z.q, z.S);
    at_add(ex, p->x_mid, p->x, p->sum, z.N * z.d);

    at_rmsnorm_forward(ex, p->norm2, p->rstd2, p->x_mid, w->norm2, z.N, z.d, z.eps);
    at_project(ex, p->gate_up, p->norm2, w->gate_up, z.N, 2 * z.ff, z.d, 0);
    at_swiglu_forward(ex, p->hidden, p->gate_up, z.N, z.ff, z.S);
    at_project(ex, p->sum, p->hidden, w->down, z.N, z.d, z.ff, z.S);
    at_add(ex, p->x_out, p->x_mid, p->sum, z.N * z.d);
}
