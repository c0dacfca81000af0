/* Memory of a forward and backward pass: blocks, each cut by one function that serves for measuring and for placing. */
#include "model/transformer.h"

#include "base/bytes.h"
#include "tensor/gemm.h"

#include <stdlib.h>

/* Cuts 64-byte aligned runs off a block; with base NULL it only measures. */
struct cutter {
    char *base;
    size_t used;
    bool overflow;
};

static real *cut(struct cutter *c, size_t rows, size_t cols)
{
    size_t n;
    if (!at_mul_size(rows, cols, &n) || !at_mul_size(n, sizeof(real), &n) || !at_add_size(n, 63, &n))
        c->overflow = true;
    if (c->overflow) return NULL;
    real *p = c->base != NULL ? (real *)(void *)(c->base + c->used) : NULL;
    if (!at_add_size(c->used, n / 64 * 64, &c->used)) c->overflow = true;
    return p;
}

/* Sizes of a shard. */
struct sizes {
    size_t N, d, row, heads, q, ff_row, gu_row, V, layers;
    bool last, recompute;
};

static bool sizes_of(const struct at_model_config *m, const struct at_shard *shard, long sequences, bool recompute,
                     struct sizes *ret)
{
    size_t S = (size_t)at_model_slots(m), slots = (size_t)shard->slots;
    struct sizes z = {.d = m->d_model,
                      .row = (m->heads + 2 * (size_t)m->kv_heads) / S * slots * m->head_size,
                      .heads = m->heads / S * slots,
                      .ff_row = (size_t)at_gemm_row((long)(m->d_ff / S * slots)),
                      .gu_row = (size_t)at_gemm_row((long)(2 * (m->d_ff / S * slots))),
                      .V = at_model_vocab_padded(m) / S * slots,
                      .layers = (size_t)shard->layers,
                      .last = shard->layer_first + shard->layers == (int)m->layers,
                      .recompute = recompute};
    z.q = z.heads * m->head_size;
    *ret = z;
    return sequences >= 1 && at_mul_size((size_t)sequences, m->seq_len, &ret->N);
}

/* What can be computed again from x and x_mid. */
static void cut_between(struct cutter *c, const struct sizes *z, struct at_layer_kept *k)
{
    k->rstd1 = cut(c, z->N, 1);
    k->norm1 = cut(c, z->N, z->d);
    k->qkv = cut(c, z->N, z->row);
    k->row_max = cut(c, z->N, z->heads);
    k->row_sum = cut(c, z->N, z->heads);
    k->attention = cut(c, z->N, z->q);
    k->rstd2 = cut(c, z->N, 1);
    k->norm2 = cut(c, z->N, z->d);
    k->gate_up = cut(c, z->N, z->gu_row);
    k->hidden = cut(c, z->N, z->ff_row);
}

static void cut_passing(struct cutter *c, const struct sizes *z, struct at_passing *p)
{
    p->sum = cut(c, z->N, z->d);
    p->d_x = cut(c, z->N, z->d);
    p->d_wide = cut(c, z->N, z->row > z->ff_row ? z->row : z->ff_row);
    if (z->last) {
        p->rstd_last = cut(c, z->N, 1);
        p->norm_last = cut(c, z->N, z->d);
        p->logits = cut(c, z->N, z->V);
        p->loss = cut(c, z->N, 1);
        p->joined = cut(c, z->N, 3);
    }
    if (z->recompute) cut_between(c, z, &p->again);
}

/* layer may be NULL when it only measures. */
static void cut_activations(struct cutter *c, const struct sizes *z, const struct at_layer_kept *again,
                            struct at_layer_kept *layer, struct at_activations *a)
{
    for (size_t l = 0; l < z->layers; l++) {
        struct at_layer_kept measured, *k = layer != NULL ? &layer[l] : &measured;
        if (again != NULL) *k = *again;
        k->x = cut(c, z->N, z->d);
        k->x_mid = cut(c, z->N, z->d);
        if (!z->recompute) cut_between(c, z, k);
    }
    a->x_last = cut(c, z->N, z->d);
}

size_t at_passing_bytes(const struct at_model_config *config, const struct at_shard *shard, long sequences,
                        bool recompute)
{
    struct sizes z;
    struct at_passing measured;
    struct cutter c = {0};
    if (!sizes_of(config, shard, sequences, recompute, &z)) return 0;
    cut_passing(&c, &z, &measured);
    return c.overflow ? 0 : c.used;
}

size_t at_activations_bytes(const struct at_model_config *config, const struct at_shard *shard, long sequences,
                            bool recompute)
{
    struct sizes z;
    struct at_activations measured;
    struct cutter c = {0};
    if (!sizes_of(config, shard, sequences, recompute, &z)) return 0;
    cut_activations(&c, &z, NULL, NULL, &measured);
    return c.overflow ? 0 : c.used;
}

at_err at_passing_init(struct at_passing *pass, const struct at_model *m, long sequences, bool recompute)
{
    return at_passing_init_in(pass, m, sequences, recompute, &(struct at_memory){0});
}

at_err at_passing_init_in(struct at_passing *pass, const struct at_model *m, long sequences, bool recompute,
                          const struct at_memory *memory)
{
    const struct at_params *p = &m->params;
    struct at_passing n = {.sequences = sequences,
                           .recompute = recompute,
                           .memory = *memory,
                           .bytes = at_passing_bytes(&p->config, &p->shard, sequences, recompute)};
    if (n.bytes == 0) return AT_E_NOMEM;
    n.block = at_memory_take(memory, n.bytes);
    if (n.block == NULL) return AT_E_NOMEM;
    struct sizes z;
    struct cutter c = {.base = n.block};
    AT_ASSERT(sizes_of(&p->config, &p->shard, sequences, recompute, &z));
    cut_passing(&c, &z, &n);
    AT_ASSERT(c.used == n.bytes);
    *pass = n;
    return AT_OK;
}

at_err at_activations_init(struct at_activations *a, const struct at_model *m, struct at_passing *pass)
{
    const struct at_params *p = &m->params;
    struct at_activations n = {.pass = pass,
                               .bytes = at_activations_bytes(&p->config, &p->shard, pass->sequences, pass->recompute)};
    if (n.bytes == 0) return AT_E_NOMEM;
    n.layer = calloc((size_t)p->shard.layers, sizeof *n.layer);
    n.block = at_memory_take(&pass->memory, n.bytes);
    if (n.layer == NULL || n.block == NULL) {
        at_activations_release(&n);
        return AT_E_NOMEM;
    }
    struct sizes z;
    struct cutter c = {.base = n.block};
    AT_ASSERT(sizes_of(&p->config, &p->shard, pass->sequences, pass->recompute, &z));
    cut_activations(&c, &z, &pass->again, n.layer, &n);
    AT_ASSERT(c.used == n.bytes);
    *a = n;
    return AT_OK;
}

void at_passing_release(struct at_passing *pass)
{
    at_memory_give(&pass->memory, pass->block, pass->bytes);
    *pass = (struct at_passing){0};
}

void at_activations_release(struct at_activations *a)
{
    free(a->layer);
    if (a->block != NULL) at_memory_give(&a->pass->memory, a->block, a->bytes);
    *a = (struct at_activations){0};
}
