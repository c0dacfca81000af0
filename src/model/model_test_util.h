/* model_test_util.h: the small models that the tests of the model and train layers share. For *_test.c only. */
#ifndef ATOLL_MODEL_MODEL_TEST_UTIL_H
#define ATOLL_MODEL_MODEL_TEST_UTIL_H

#include "model/transformer.h"
#include "tensor/tensor_test_util.h"

#define TEST_SHAPE(L, D, H, KV, F, T, V, TIED)                                                                         \
    {                                                                                                                  \
        .layers = L, .d_model = D, .heads = H, .kv_heads = KV, .head_size = (D) / (H), .d_ff = F, .seq_len = T,        \
        .vocab = V, .tied = TIED, .rope_theta = 10000.0, .norm_eps = 1e-5                                              \
    }

/* S = 8, 2 and 1; padded vocabularies (a whole slot of padding in the third); grouped queries; tied. */
static const struct at_model_config test_configs[] = {
    TEST_SHAPE(2, 32, 8, 8, 40, 12, 40, false), /* eight heads */
    TEST_SHAPE(2, 24, 6, 2, 20, 9, 29, false),  /* grouped queries */
    TEST_SHAPE(1, 16, 8, 8, 24, 7, 3, true),    /* tied */
    TEST_SHAPE(1, 12, 3, 1, 9, 5, 11, true),    /* one slot */
    TEST_SHAPE(3, 24, 4, 4, 20, 6, 11, true),   /* tied, three layers; one slot is all padding */
};
enum { TEST_CONFIGS = sizeof test_configs / sizeof test_configs[0] };

static inline void test_tokens(int32_t *token, long n, uint32_t vocab, uint32_t sub)
{
    for (long i = 0; i < n; i++) token[i] = (int32_t)(at_philox(5, AT_RNG_TEST, sub, (uint64_t)i).v[0] % vocab);
}

/* Initial weights, moved so that gains are not all one and no gradient is tiny. */
static inline void test_weights(const struct at_params *p, uint64_t seed, real *theta)
{
    at_params_fill(p, seed, theta);
    for (int i = 0; i < p->blocks; i++) {
        const struct at_block *b = &p->block[i];
        size_t used = (size_t)(at_block_rows_used(p, b) * b->cols);
        for (size_t e = 0; e < used; e++) {
            struct at_philox r = at_philox(seed, AT_RNG_TEST, 99, b->offset + e);
            theta[b->offset + e] += (real)(0.4 * at_rng_unit(r.v[0], r.v[1]) - 0.2);
        }
    }
}

#endif
