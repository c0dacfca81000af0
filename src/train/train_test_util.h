/* train_test_util.h: a small run that the train layer's tests share. For *_test.c only. */
#ifndef ATOLL_TRAIN_TRAIN_TEST_UTIL_H
#define ATOLL_TRAIN_TRAIN_TEST_UTIL_H

#include "model/model_test_util.h"
#include "train/local.h"

#include <stdlib.h>

/* Models of bytes: S = 8, grouped queries with S = 2, tied with padding (257 classes). */
static const struct at_model_config run_configs[] = {
    TEST_SHAPE(1, 16, 8, 8, 24, 8, 256, false),
    TEST_SHAPE(2, 24, 4, 2, 20, 10, 256, false),
    TEST_SHAPE(1, 16, 2, 2, 16, 8, 257, true),
};
enum { RUN_CONFIGS = sizeof run_configs / sizeof run_configs[0], TEST_TEXT_BYTES = 6000 };

static inline struct at_train_config test_train_config(void)
{
    return (struct at_train_config){.rounds = 4,
                                    .steps = 3,
                                    .batch = 4,
                                    .warmup_steps = 2,
                                    .lr_peak = 1e-2,
                                    .lr_final_fraction = 0.1,
                                    .beta1 = 0.9,
                                    .beta2 = 0.95,
                                    .adam_eps = 1e-8,
                                    .weight_decay = 0.1,
                                    .clip_norm = 1,
                                    .seed = 7};
}

/* Words by seed: enough order to be learned. */
static inline void test_text(uint8_t *text)
{
    static const char *const words[] = {"whale ", "sea ", "the ", "ship ", "of ", "a ", "sailed\n", "white "};
    size_t n = 0;
    for (uint64_t i = 0; n < TEST_TEXT_BYTES; i++)
        for (const char *w = words[at_philox(1, AT_RNG_TEST, 0, i).v[0] % 8]; *w != '\0' && n < TEST_TEXT_BYTES; w++)
            text[n++] = (uint8_t)*w;
}

struct test_run {
    struct at_model m;
    struct at_data data;
    struct at_exec ex;
    struct at_train_config config;
    uint8_t text[TEST_TEXT_BYTES];
};

static inline bool test_run_init(struct test_run *r, const struct at_model_config *c)
{
    r->config = test_train_config();
    test_text(r->text);
    return at_model_init(&r->m, c, NULL) == AT_OK &&
           at_exec_init(&r->ex, at_kern_available()[0], &at_par_serial) == AT_OK &&
           at_data_init(&r->data, at_span(r->text, sizeof r->text), (long)c->seq_len, 7, 0.05, 32768, NULL) == AT_OK;
}

static inline void test_run_release(struct test_run *r)
{
    at_exec_release(&r->ex);
    at_model_release(&r->m);
}

/* A state in the middle of a run: every value non-trivial, statistics positive. */
static inline void test_state(struct at_state *s, uint32_t round)
{
    test_weights(s->params, 31, s->theta);
    size_t n = at_stats_count(s->params);
    for (size_t i = 0; i < n; i++) {
        struct at_philox x = at_philox(32, AT_RNG_TEST, 7, i);
        s->stats[i] = (real)(1e-4 * at_rng_unit(x.v[0], x.v[1]));
    }
    s->round = round;
}

#endif
