/* A model in shards against the whole: tensor ranks are threads, stages come one after the other, every microbatch of a
 * step is in flight. Logits, losses and every gradient block are the whole model's, bit for bit. */
#include "model/tp_test_util.h"
#include "tensor/gemm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { SEQUENCES = 4, STAGES_MAX = 3 };

/* Enough rows that sums travel in several pieces. */
static const struct at_model_config long_rows = TEST_SHAPE(2, 16, 8, 8, 24, 140, 83, false);

/* What the whole model makes of one step. */
struct whole {
    struct at_model m;
    real *theta, *grad, *logits, *loss;
    int32_t *token, *target;
    double sum;
    real inv;
    long T, V, N; /* N: rows of the step */
};

static void whole_init(struct whole *w, const struct at_model_config *c, const struct at_exec *ex)
{
    struct at_passing pass;
    struct at_activations act;
    assert_int_equal(at_model_init(&w->m, c, NULL), AT_OK);
    assert_int_equal(at_passing_init(&pass, &w->m, SEQUENCES, false), AT_OK);
    assert_int_equal(at_activations_init(&act, &w->m, &pass), AT_OK);
    w->T = c->seq_len;
    w->V = w->m.params.vocab_padded;
    w->N = SEQUENCES * w->T;
    w->inv = (real)(1.0 / (double)w->N);
    w->theta = malloc(w->m.params.count * sizeof(real));
    w->grad = calloc(at_model_grad_count(&w->m), sizeof(real));
    w->logits = malloc((size_t)(w->N * w->V) * sizeof(real));
    w->loss = malloc((size_t)w->N * sizeof(real));
    w->token = malloc((size_t)w->N * sizeof(int32_t));
    w->target = malloc((size_t)w->N * sizeof(int32_t));
    test_weights(&w->m.params, 11, w->theta);
    test_tokens(w->token, w->N, c->vocab, 1);
    test_tokens(w->target, w->N, c->vocab, 2);
    w->target[1] = -1; /* takes no part */
    w->sum = 0;
    at_model_forward(ex, &w->m, &act, w->theta, w->token, SEQUENCES);
    memcpy(w->logits, pass.logits, (size_t)(w->N * w->V) * sizeof(real));
    at_model_backward(ex, &w->m, &act, w->theta, w->token, w->target, SEQUENCES, w->inv, w->grad, &w->sum);
    memcpy(w->loss, pass.loss, (size_t)w->N * sizeof(real));
    at_model_grad_finish(ex, &w->m, w->grad);
    at_activations_release(&act);
    at_passing_release(&pass);
}

static void whole_release(struct whole *w)
{
    free(w->theta);
    free(w->grad);
    free(w->logits);
    free(w->loss);
    free(w->token);
    free(w->target);
    at_model_release(&w->m);
}

/* One stage of one tensor rank. */
struct stage {
    struct at_model m;
    struct at_passing pass;
    struct at_activations act[SEQUENCES]; /* of each microbatch */
    real *theta, *grad;
};

/* One tensor rank: all its stages. */
struct rank {
    const struct whole *w;
    struct at_exec ex;
    struct test_member member;
    struct at_tp tp;
    struct stage stage[STAGES_MAX];
    int stages, wrong;
    long micro; /* sequences of a microbatch */
    real *x;    /* (N,d): what travels between stages, of the whole step */
    double sum;
};

static void stage_init(struct stage *s, const struct at_exec *ex, const struct whole *w, const struct at_shard *shard,
                       long micro, bool recompute)
{
    assert_int_equal(at_model_init_shard(&s->m, &w->m.params.config, shard, NULL), AT_OK);
    assert_int_equal(at_passing_init(&s->pass, &s->m, micro, recompute), AT_OK);
    for (int i = 0; i < SEQUENCES / micro; i++)
        assert_int_equal(at_activations_init(&s->act[i], &s->m, &s->pass), AT_OK);
    s->theta = malloc(s->m.params.count * sizeof(real));
    size_t grad_bytes = at_model_grad_count(&s->m) * sizeof(real);
    s->grad = malloc(grad_bytes);
    memset(s->grad, 0xff, grad_bytes); /* the whole model's starts as zeros: both ways to begin must agree */
    at_model_grad_begin(ex, &s->m, &s->pass, s->grad);
    test_cut(&w->m.params, w->theta, &s->m.params, s->theta);
}

static void stage_release(struct stage *s)
{
    for (int i = 0; i < SEQUENCES; i++) at_activations_release(&s->act[i]);
    at_passing_release(&s->pass);
    at_model_release(&s->m);
    free(s->theta);
    free(s->grad);
}

static void check(struct rank *r, bool right)
{
    r->wrong += !right;
}

/* The logits that this rank has are columns of the whole's. */
static void check_logits(struct rank *r, const struct stage *s, int i)
{
    const struct whole *w = r->w;
    long rows = r->micro * w->T, V = at_shard_vocab(&s->m.params), first = at_shard_vocab_first(&s->m.params);
    for (long row = 0; row < rows; row++)
        check(r, memcmp(s->pass.logits + row * V, w->logits + (i * rows + row) * w->V + first,
                        (size_t)V * sizeof(real)) == 0);
}

static void last_stage(struct rank *r, struct stage *s, int i)
{
    const struct whole *w = r->w;
    long rows = r->micro * w->T;
    double sum = 0;
    const int32_t *target = w->target + i * rows;
    check_logits(r, s, i);
    check(r, at_stage_loss(&r->ex, &s->m, &r->tp, &s->act[i], target, r->micro, &sum) == AT_OK);
    check(r, memcmp(s->pass.loss, w->loss + i * rows, (size_t)rows * sizeof(real)) == 0);
    check(r, at_stage_backward(&r->ex, &s->m, &r->tp, &s->act[i], s->theta, target, r->micro, w->inv, s->grad,
                               &r->sum) == AT_OK);
}

/* All microbatches forward through one stage; the last stage goes backward at once. */
static void forward(struct rank *r, int stage)
{
    struct stage *s = &r->stage[stage];
    long d = s->m.params.config.d_model, rows = r->micro * r->w->T;
    size_t bytes = (size_t)(rows * d) * sizeof(real);
    for (int i = 0; i < SEQUENCES / r->micro; i++) {
        real *x = r->x + i * rows * d;
        memcpy(s->act[i].layer[0].x, x, bytes);
        check(r, at_stage_forward(&r->ex, &s->m, &r->tp, &s->act[i], s->theta, r->micro) == AT_OK);
        if (stage + 1 == r->stages) last_stage(r, s, i);
        memcpy(x, stage + 1 == r->stages ? s->pass.d_x : s->act[i].x_last, bytes);
    }
}

static void backward(struct rank *r, int stage)
{
    struct stage *s = &r->stage[stage];
    long d = s->m.params.config.d_model, rows = r->micro * r->w->T;
    size_t bytes = (size_t)(rows * d) * sizeof(real);
    for (int i = 0; i < SEQUENCES / r->micro; i++) {
        real *d_x = r->x + i * rows * d;
        memcpy(s->pass.d_x, d_x, bytes);
        check(r, at_stage_backward(&r->ex, &s->m, &r->tp, &s->act[i], s->theta, NULL, r->micro, 0, s->grad, NULL) ==
                     AT_OK);
        memcpy(d_x, s->pass.d_x, bytes);
    }
}

static void *run_rank(void *arg)
{
    struct rank *r = arg;
    const struct whole *w = r->w;
    struct stage *s = &r->stage[w->m.params.config.tied ? r->stages - 1 : 0]; /* has the embedding */
    long d = w->m.params.config.d_model, rows = r->micro * w->T;
    check(r, at_model_embed(&r->ex, &s->m, &r->tp, s->theta, w->token, w->N, r->x) == AT_OK);
    for (int p = 0; p < r->stages; p++) forward(r, p);
    for (int p = r->stages - 2; p >= 0; p--) backward(r, p);
    for (long row = 0; row < w->N; row += rows)
        at_model_embed_grad(&r->ex, &s->m, s->grad, w->token + row, r->x + row * d, rows);
    for (int p = 0; p < r->stages; p++) at_model_grad_finish(&r->ex, &r->stage[p].m, r->stage[p].grad);
    return NULL;
}

static void check_gradients(const struct rank *r)
{
    for (int p = 0; p < r->stages; p++) {
        const struct at_params *q = &r->stage[p].m.params;
        for (int i = 0; i < q->blocks; i++) {
            const struct at_block *b = &q->block[i], *whole = at_params_block(&r->w->m.params, b->tensor, b->slot);
            if (memcmp(r->stage[p].grad + b->offset, r->w->grad + whole->offset, at_block_count(b) * sizeof(real)) != 0)
                fail_msg("%s slot %d of %d stages: another gradient", at_tensor_name(q, b->tensor).s, b->slot,
                         r->stages);
        }
    }
}

static void check_split(const struct whole *w, int tp, int pp, long micro, bool recompute)
{
    static struct rank rank[TEST_TP_MAX];
    pthread_t thread[TEST_TP_MAX];
    struct test_group group;
    const struct at_model_config *c = &w->m.params.config;
    test_group_init(&group, tp);
    for (int i = 0; i < tp; i++) {
        struct rank *r = &rank[i];
        memset(r, 0, sizeof *r);
        *r = (struct rank){.w = w, .stages = pp, .micro = micro};
        assert_int_equal(at_exec_init(&r->ex, at_kern_available()[0], &at_par_serial), AT_OK);
        r->tp = tp == 1 ? at_tp_alone : test_tp(&group, &r->member, i);
        r->x = malloc((size_t)(w->N * (long)c->d_model) * sizeof(real));
        for (int p = 0; p < pp; p++) {
            struct at_shard shard = test_shard(c, tp, pp, i, p);
            stage_init(&r->stage[p], &r->ex, w, &shard, micro, recompute);
        }
    }
    for (int i = 0; i < tp; i++) assert_int_equal(pthread_create(&thread[i], NULL, run_rank, &rank[i]), 0);
    for (int i = 0; i < tp; i++) pthread_join(thread[i], NULL);
    for (int i = 0; i < tp; i++) {
        struct rank *r = &rank[i];
        assert_int_equal(r->wrong, 0);
        assert_true(r->sum == w->sum);
        assert_int_equal(r->member.begun_most > 1, tp > 1 && micro * w->T > 512); /* pieces, where rows are many */
        check_gradients(r);
        for (int p = 0; p < pp; p++) stage_release(&r->stage[p]);
        free(r->x);
        at_exec_release(&r->ex);
    }
    test_group_release(&group);
}

static void check_config(const struct at_model_config *c, long micro_min)
{
    struct at_exec ex;
    struct whole w;
    int count = 0; /* every other split recomputes */
    assert_int_equal(at_exec_init(&ex, at_kern_available()[0], &at_par_serial), AT_OK);
    whole_init(&w, c, &ex);
    for (int tp = 1; tp <= w.m.params.slots; tp *= 2)
        for (int pp = 1; pp <= STAGES_MAX && pp <= (int)c->layers; pp++)
            for (long micro = micro_min; micro <= SEQUENCES; micro *= 2)
                check_split(&w, tp, pp, micro, count++ % 2 != 0);
    whole_release(&w);
    at_exec_release(&ex);
}

static void test_every_split_has_the_bits_of_the_whole(void **state)
{
    for (int c = 0; c < TEST_CONFIGS; c++) check_config(&test_configs[c], 1);
}

static void test_sums_in_pieces(void **state)
{
    check_config(&long_rows, SEQUENCES);
}

/* Recomputation keeps two streams of a layer, and one layer's rest for all: by the sizes that transformer.h states. */
static void test_recomputation_shrinks(void **state)
{
    struct at_model_config c = TEST_SHAPE(6, 64, 4, 4, 256, 32, 64, false);
    long N = 3 * 32, d = 64, row = 3 * 64, ff = 256, heads = 4;
    size_t rest =
               sizeof(real) * (size_t)(N * (2 * d + row + 2 * heads + d + at_gemm_row(2 * ff) + at_gemm_row(ff) + 2)),
           pair = sizeof(real) * (size_t)(2 * N * d);
    for (int stage = 0; stage < 2; stage++) {
        struct at_shard s = test_shard(&c, 1, 2, 0, stage); /* three layers */
        size_t kept = at_activations_bytes(&c, &s, 3, false), less = at_activations_bytes(&c, &s, 3, true);
        assert_int_equal(less, 3 * pair + pair / 2);
        assert_int_equal(kept, less + 3 * rest);
        assert_int_equal(at_passing_bytes(&c, &s, 3, true), at_passing_bytes(&c, &s, 3, false) + rest);
    }
    struct at_shard half = test_shard(&c, 2, 1, 0, 0), whole = at_shard_whole(&c);
    assert_true(at_activations_bytes(&c, &half, 3, false) < at_activations_bytes(&c, &whole, 3, false) * 2 / 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_split_has_the_bits_of_the_whole),
        cmocka_unit_test(test_sums_in_pieces),
        cmocka_unit_test(test_recomputation_shrinks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
