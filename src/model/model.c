/* The parts that training and decoding share: the model's constants, its matrices, one layer forward. */
#include "model/model_inner.h"
#include "tensor/emath.h"

#include <math.h>
#include <stdlib.h>

at_err at_model_init_shard(struct at_model *m, const struct at_model_config *config, const struct at_shard *shard,
                           struct at_diag *diag)
{
    int err = at_model_config_check(config, diag);
    if (err != AT_OK) return err;
    struct at_model n = {0};
    err = at_params_init_shard(&n.params, config, shard);
    size_t half = config->head_size / 2, elements = config->seq_len * half;
    int S = at_model_slots(config);
    n.heads = (struct at_heads){.heads = (int)config->heads / S * shard->slots,
                                .kv_heads = (int)config->kv_heads / S * shard->slots,
                                .head_size = (int)config->head_size,
                                .slots = shard->slots};
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

at_err at_model_init(struct at_model *m, const struct at_model_config *config, struct at_diag *diag)
{
    int err = at_model_config_check(config, diag);
    if (err != AT_OK) return err;
    struct at_shard whole = at_shard_whole(config);
    return at_model_init_shard(m, config, &whole, diag);
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
    int tensor = at_params_find(p, role, layer), slot = p->tensor[tensor].slots > 1 ? p->shard.slot_first : 0;
    return (real *)flat + at_params_block(p, tensor, slot)->offset;
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
    long ff = (long)c->d_ff / m->params.slots * m->params.shard.slots;
    return (struct at_dims){.d = c->d_model,
                            .row = at_heads_row(&m->heads),
                            .q = (long)m->heads.heads * m->heads.head_size,
                            .ff = ff,
                            .ff_row = at_gemm_row(ff),
                            .gu_row = at_gemm_row(2 * ff),
                            .V = at_shard_vocab(&m->params),
                            .T = c->seq_len,
                            .N = N,
                            .S = m->params.shard.slots,
                            .eps = (real)c->norm_eps,
                            .scale = (real)(1.0 / sqrt((double)c->head_size))};
}

static long x_row(const struct at_product *p)
{
    return p->x_row != 0 ? p->x_row : p->ins;
}

static long y_row(const struct at_product *p)
{
    return p->y_row != 0 ? p->y_row : p->outs;
}

void at_product(const struct at_exec *ex, enum at_gemm_op op, const struct at_product *p)
{
    at_gemm(ex, &(struct at_gemm){.op = op,
                                  .join = p->slots != 0 ? AT_JOIN_SLOTS : AT_JOIN_CHAIN,
                                  .slots = p->slots,
                                  .m = p->N,
                                  .n = p->outs,
                                  .k = p->ins,
                                  .a = at_mat(p->x, x_row(p)),
                                  .b = p->w,
                                  .c = at_mat(p->y, y_row(p))});
}

const struct at_tp at_tp_alone = {.ranks = 1};

/* Rows of a piece. Forward, nothing else can be computed while a sum travels, so it goes in a few pieces; small ones
 * would slow the product down (512 rows of 1,024: 3 %, 256: 9 %). Backward, the weights' gradients fill the time. */
static long piece_rows(const struct at_tp *tp, enum at_gemm_op op, long N)
{
    enum { PIECES = 4, ROWS_MIN = 512 };
    if (tp->ranks == 1 || op != AT_GEMM_NT) return N;
    long rows = (N + PIECES - 1) / PIECES;
    return rows < ROWS_MIN ? ROWS_MIN : rows;
}

at_err at_product_begin(const struct at_exec *ex, const struct at_tp *tp, enum at_gemm_op op,
                        const struct at_product *p)
{
    long rows = piece_rows(tp, op, p->N);
    AT_ASSERT(tp->ranks == 1 || y_row(p) == p->outs); /* what travels lies dense */
    for (long r = 0; r < p->N; r += rows) {
        struct at_product piece = *p;
        piece.N = p->N - r < rows ? p->N - r : rows;
        piece.x = p->x + r * x_row(p);
        piece.y = p->y + r * y_row(p);
        at_product(ex, op, &piece);
        if (tp->ranks == 1) continue;
        int err = tp->begin(tp->group, piece.y, (size_t)(piece.N * piece.outs));
        if (err != AT_OK) return err;
    }
    return AT_OK;
}

at_err at_product_finish(const struct at_tp *tp)
{
    return tp->ranks == 1 ? AT_OK : tp->finish(tp->group);
}

void at_project_grad(const struct at_exec *ex, struct at_mat w, struct at_mat dy, struct at_mat a, long N, long T,
                     long n, long k, bool fresh)
{
    at_gemm(ex, &(struct at_gemm){.op = AT_GEMM_TN,
                                  .join = AT_JOIN_GRAINS,
                                  .seq_len = T,
                                  .fresh = fresh,
                                  .m = n,
                                  .n = k,
                                  .k = N,
                                  .a = dy,
                                  .b = a,
                                  .c = w});
}

void at_layer_attention(const struct at_exec *ex, const struct at_model *m, const struct at_layer_weights *w,
                        const struct at_layer_pass *p)
{
    struct at_dims z = at_dims(m, p->B * p->T);
    at_rmsnorm_forward(ex, p->norm1, p->rstd1, p->x, w->norm1, z.N, z.d, z.eps);
    at_product(ex, AT_GEMM_NT, &(struct at_product){p->qkv, p->norm1, w->qkv, z.N, z.row, z.d, 0, 0, 0});
    at_rotary(ex, p->qkv, &m->heads, m->rope_cos, m->rope_sin, z.N, p->T, p->pos0, false);
    at_attention_forward(ex, p->attention, p->row_max, p->row_sum, p->qkv, p->kv, p->kv_stride, &m->heads, p->B, p->T,
                         p->pos0, z.scale);
}

void at_layer_hidden(const struct at_exec *ex, const struct at_model *m, const struct at_layer_weights *w,
                     const struct at_layer_pass *p)
{
    struct at_dims z = at_dims(m, p->B * p->T);
    at_rmsnorm_forward(ex, p->norm2, p->rstd2, p->x_mid, w->norm2, z.N, z.d, z.eps);
    at_product(ex, AT_GEMM_NT,
               &(struct at_product){p->gate_up, p->norm2, w->gate_up, z.N, 2 * z.ff, z.d, 0, .y_row = z.gu_row});
    at_swiglu_forward(ex, p->hidden, z.ff_row, p->gate_up, z.gu_row, z.N, z.ff, z.S);
}

/* x_out = x_in + the product, summed over the tensor ranks. */
static at_err add_product(const struct at_exec *ex, const struct at_tp *tp, const struct at_product *p, real *x_out,
                          const real *x_in)
{
    int err = at_product_begin(ex, tp, AT_GEMM_NT, p);
    if (err == AT_OK) err = at_product_finish(tp);
    if (err == AT_OK) at_add(ex, x_out, x_in, p->y, p->N * p->outs);
    return err;
}

at_err at_layer_forward(const struct at_exec *ex, const struct at_model *m, const struct at_tp *tp,
                        const struct at_layer_weights *w, const struct at_layer_pass *p)
{
    struct at_dims z = at_dims(m, p->B * p->T);
    at_layer_attention(ex, m, w, p);
    int err =
        add_product(ex, tp, &(struct at_product){p->sum, p->attention, w->o, z.N, z.d, z.q, z.S, 0, 0}, p->x_mid, p->x);
    if (err != AT_OK) return err;
    at_layer_hidden(ex, m, w, p);
    return add_product(ex, tp, &(struct at_product){p->sum, p->hidden, w->down, z.N, z.d, z.ff, z.S, .x_row = z.ff_row},
                       p->x_out, p->x_mid);
}
