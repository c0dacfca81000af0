/* Decoding with a key/value cache: a layer's queries, keys and values are projected straight into their cache rows. */
#include "model/model_inner.h"

#include "base/bytes.h"

#include <stdlib.h>

at_err at_decoder_init(struct at_decoder *d, const struct at_model *m, long chunk_max)
{
    struct at_dims z = at_dims(m, 0);
    AT_ASSERT(chunk_max >= 1 && chunk_max <= z.T && at_model_is_whole(m));
    size_t n = (size_t)chunk_max, cache, total = 0;
    if (!at_mul_size(m->params.config.layers, (size_t)(z.T * z.row), &cache)) return AT_E_NOMEM;
    const size_t part[] = {
        cache, n * (size_t)z.d, n * (size_t)z.d, n * (size_t)z.q, n * (size_t)z.gu_row, n * (size_t)z.ff_row,
        n,     n * (size_t)z.V};
    enum { PARTS = sizeof part / sizeof part[0] };
    for (int i = 0; i < PARTS; i++)
        if (!at_add_size(total, part[i], &total)) return AT_E_NOMEM;
    size_t bytes;
    if (!at_mul_size(total, sizeof(real), &bytes)) return AT_E_NOMEM;
    real *at = malloc(bytes);
    if (at == NULL) return AT_E_NOMEM;
    *d = (struct at_decoder){.model = m, .positions = z.T, .chunk_max = chunk_max, .block = at};
    real **const to[PARTS] = {&d->cache, &d->x, &d->norm, &d->attention, &d->gate_up, &d->hidden, &d->rstd, &d->logits};
    for (int i = 0; i < PARTS; i++) {
        *to[i] = at;
        at += part[i];
    }
    return AT_OK;
}

void at_decoder_release(struct at_decoder *d)
{
    free(d->block);
    *d = (struct at_decoder){0};
}

const real *at_decoder_append(const struct at_exec *ex, struct at_decoder *d, const real *theta, const int32_t *token,
                              long n)
{
    const struct at_model *m = d->model;
    AT_ASSERT(n >= 1 && n <= d->chunk_max && n <= d->positions - d->used);
    struct at_dims z = at_dims(m, n);
    at_embedding_forward(ex, d->x, token, at_weights_of(m, theta, AT_ROLE_EMBEDDING, 0), n, z.d);
    for (int l = 0; l < (int)m->params.config.layers; l++) {
        struct at_layer_weights w = at_layer_weights(m, theta, l);
        real *kv = d->cache + (size_t)l * (size_t)(d->positions * z.row);
        /* Norm, sum and both residual streams may share memory: nothing is kept for a backward pass. */
        int err = at_layer_forward(ex, m, &at_tp_alone, &w,
                                   &(struct at_layer_pass){.x = d->x,
                                                           .rstd1 = d->rstd,
                                                           .norm1 = d->norm,
                                                           .qkv = kv + d->used * z.row,
                                                           .attention = d->attention,
                                                           .x_mid = d->x,
                                                           .rstd2 = d->rstd,
                                                           .norm2 = d->norm,
                                                           .gate_up = d->gate_up,
                                                           .hidden = d->hidden,
                                                           .x_out = d->x,
                                                           .sum = d->norm,
                                                           .kv = kv,
                                                           .kv_stride = d->positions * z.row,
                                                           .B = 1,
                                                           .T = n,
                                                           .pos0 = d->used});
        AT_ASSERT(err == AT_OK); /* alone it cannot fail */
    }
    at_rmsnorm_forward(ex, d->norm, d->rstd, d->x, at_weights_of(m, theta, AT_ROLE_NORM_FINAL, 0), n, z.d, z.eps);
    struct at_mat head = at_mat(at_weights_of(m, theta, AT_ROLE_HEAD, 0), z.d);
    at_product(ex, AT_GEMM_NT, &(struct at_product){d->logits, d->norm, head, n, z.V, z.d, 0, 0, 0});
    d->used += n;
    return d->logits;
}
