/* Memory of a forward and backward pass: one block, cut by one function that serves for measuring and for placing. */
#include "model/transformer.h"

#include "base/bytes.h"

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

static void cut_layer(struct cutter *c, const struct at_model_config *m, size_t N, struct at_layer_kept *k)
{
    size_t d = m->d_model, hd = m->head_size, row = (m->heads + 2 * (size_t)m->kv_heads) * hd, ff = m->d_ff;
    k->x = cut(c, N, d);
    k->rstd1 = cut(c, N, 1);
    k->norm1 = cut(c, N, d);
    k->qkv = cut(c, N, row);
    k->row_max = cut(c, N, m->heads);
    k->row_sum = cut(c, N, m->heads);
    k->attention = cut(c, N, m->heads * hd);
    k->x_mid = cut(c, N, d);
    k->rstd2 = cut(c, N, 1);
    k->norm2 = cut(c, N, d);
    k->gate_up = cut(c, N, 2 * ff);
    k->hidden = cut(c, N, ff);
}

static void cut_all(struct cutter *c, const struct at_model_config *m, size_t N, struct at_layer_kept *layers,
                    struct at_activations *a)
{
    size_t d = m->d_model, row = (m->heads + 2 * (size_t)m->kv_heads) * m->head_size, V = at_model_vocab_padded(m);
    for (uint32_t l = 0; l < m->layers; l++) {
        struct at_layer_kept measured;
        cut_layer(c, m, N, layers != NULL ? &layers[l] : &measured);
    }
    a->x_last = cut(c, N, d);
    a->rstd_last = cut(c, N, 1);
    a->norm_last = cut(c, N, d);
    a->logits = cut(c, N, V);
    a->loss = cut(c, N, 1);
    a->sum = cut(c, N, d);
    a->d_x = cut(c, N, d);
    a->d_wide = cut(c, N, row > m->d_ff ? row : m->d_ff);
}

size_t at_activations_bytes(const struct at_model_config *config, long sequences)
{
    size_t N;
    if (sequences < 1 || !at_mul_size((size_t)sequences, config->seq_len, &N)) return 0;
    struct at_activations measured;
    struct cutter c = {0};
    cut_all(&c, config, N, NULL, &measured);
    return c.overflow ? 0 : c.used;
}

at_err at_activations_init(struct at_activations *a, const struct at_model *m, long sequences)
{
    const struct at_model_config *config = &m->params.config;
    struct at_activations n = {.sequences = sequences, .bytes = at_activations_bytes(config, sequences)};
    if (n.bytes == 0) return AT_E_NOMEM;
    n.layer = calloc(config->layers, sizeof *n.layer);
    n.block = aligned_alloc(64, n.bytes);
    if (n.layer == NULL || n.block == NULL) {
        at_activations_release(&n);
        return AT_E_NOMEM;
    }
    struct cutter c = {.base = n.block};
    cut_all(&c, config, (size_t)sequences * config->seq_len, n.layer, &n);
    AT_ASSERT(c.used == n.bytes);
    *a = n;
    return AT_OK;
}

void at_activations_release(struct at_activations *a)
{
    free(a->layer);
    free(a->block);
    *a = (struct at_activations){0};
}
