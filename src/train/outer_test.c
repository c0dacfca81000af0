/* The outer step against fma written out. */
#include "train/gather.h"
#include "train/train_test_util.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { R = 3 };

struct rig {
    struct at_params p;
    struct at_state s;
    struct at_exec ex;
    struct at_buf blob[R];
    struct at_update u[R];
    float *theta[R], *stats[R];
    size_t n, k;
};

static void rig_init(struct rig *r, int config)
{
    *r = (struct rig){0};
    assert_int_equal(at_params_init(&r->p, &run_configs[config]), AT_OK);
    assert_int_equal(at_state_init(&r->s, &r->p), AT_OK);
    assert_int_equal(at_exec_init(&r->ex, at_kern_available()[0], &at_par_serial), AT_OK);
    r->n = r->p.count;
    r->k = at_stats_count(&r->p);
    test_state(&r->s, 4);
    for (int i = 0; i < R; i++) {
        r->theta[i] = malloc(r->n * sizeof(float));
        r->stats[i] = malloc(r->k * sizeof(float));
        test_weights(&r->p, 50 + (uint64_t)i, r->theta[i]);
        for (size_t j = 0; j < r->k; j++) r->stats[i][j] = r->s.stats[j] * (float)(i + 1);
        uint32_t steps = 1 + (uint32_t)i;
        struct at_update_info info = {
            .round = 4, .samples = 4 * steps, .steps = steps, .tokens = 4ull * steps * r->p.config.seq_len};
        assert_int_equal(
            at_update_write(&at_codec_plain, &r->p, &info, r->s.theta, r->theta[i], r->stats[i], &r->blob[i]), AT_OK);
        assert_true(r->blob[i].n <= at_update_bytes_max(&r->p));
        assert_int_equal(at_update_parse(&r->p, at_buf_span(&r->blob[i]), NULL, &r->u[i]), AT_OK);
        assert_int_equal(r->u[i].info.tokens, info.tokens);
    }
}

static void rig_release(struct rig *r)
{
    for (int i = 0; i < R; i++) {
        free(r->theta[i]);
        free(r->stats[i]);
        at_buf_release(&r->blob[i]);
        at_update_release(&r->u[i]);
    }
    at_exec_release(&r->ex);
    at_state_release(&r->s);
    at_params_release(&r->p);
}

static void test_weighted_mean(void **state)
{
    for (int c = 0; c < RUN_CONFIGS; c++) {
        struct rig r;
        rig_init(&r, c);
        static const int tokens[R] = {1, 2, 3};
        float *want = malloc(r.n * sizeof *want), *want_stats = malloc(r.k * sizeof *want_stats);
        for (size_t i = 0; i < r.n; i++) {
            float a = 0;
            for (int j = 0; j < R; j++) a = fmaf((float)(tokens[j] / 6.0), r.s.theta[i] - r.theta[j][i], a);
            want[i] = fmaf(-1, a, r.s.theta[i]);
        }
        for (size_t i = 0; i < r.k; i++) {
            float a = 0;
            for (int j = 0; j < R; j++) a = fmaf((float)(tokens[j] / 6.0), r.stats[j][i], a);
            want_stats[i] = a;
        }
        uint64_t count = 0;
        struct at_par par = test_par_shuffled(3, &count);
        r.ex.par = &par;
        struct at_round round = at_round_mean(4, 9, 0);
        assert_int_equal(at_outer_step(&r.ex, &r.s, r.u, R, &round, NULL, NULL), AT_OK);
        assert_int_equal(r.s.round, 5);
        assert_memory_equal(r.s.theta, want, r.n * sizeof *want);
        assert_memory_equal(r.s.stats, want_stats, r.k * sizeof *want_stats);
        assert_true(at_params_padding_is_zero(&r.p, r.s.theta));
        free(want);
        free(want_stats);
        rig_release(&r);
    }
}

static void test_refusals_leave_the_state_alone(void **state)
{
    struct rig r;
    struct at_diag diag = {0};
    rig_init(&r, 0);
    struct at_state kept;
    assert_int_equal(at_state_init(&kept, &r.p), AT_OK);
    struct at_round round = at_round_mean(5, 9, 0);
    r.s.round = 5; /* an update of another round */
    assert_int_equal(at_outer_step(&r.ex, &r.s, r.u, R, &round, NULL, NULL), AT_E_DATA);
    r.s.round = round.round = 4;
    round.codec = AT_CODEC_INT4; /* of another codec */
    assert_int_equal(at_outer_step(&r.ex, &r.s, r.u, R, &round, NULL, NULL), AT_E_DATA);
    round.codec = AT_CODEC_PLAIN;
    /* Finite updates that overflow together. */
    r.s.theta[7] = -3e38f;
    at_state_copy(&kept, &r.s);
    at_store_le32((uint8_t *)(uintptr_t)r.u[2].payload[0].p + 4 * 7, 0x7F7FFFFFu);
    assert_int_equal(at_update_parse(&r.p, at_buf_span(&r.blob[2]), NULL, &r.u[2]), AT_OK);
    assert_int_equal(at_outer_step(&r.ex, &r.s, r.u, R, &round, NULL, &diag), AT_E_NONFINITE);
    assert_string_equal(diag.where, "model.embed_tokens.weight");
    assert_memory_equal(kept.theta, r.s.theta, r.n * sizeof(float));
    assert_memory_equal(kept.stats, r.s.stats, r.k * sizeof(float));
    assert_int_equal(r.s.round, 4);
    at_outer_skip(&r.s);
    assert_int_equal(r.s.round, 5);
    at_state_release(&kept);
    rig_release(&r);
}

/* Nesterov by its definition, over two steps so that the momentum counts; in one piece and in fragments. */
static void test_momentum(void **state)
{
    struct rig r;
    rig_init(&r, 2);
    static const int tokens[R] = {1, 2, 3};
    struct at_state parts;
    struct at_round round = {.codec = AT_CODEC_PLAIN, .alpha = 0.7f, .momentum = 0.9f};
    assert_int_equal(at_state_init(&parts, &r.p), AT_OK);
    assert_int_equal(at_state_add_momentum(&parts), AT_OK);
    assert_int_equal(at_state_add_momentum(&r.s), AT_OK);
    at_state_copy(&parts, &r.s);
    float *theta = malloc(r.n * sizeof *theta), *m = calloc(r.n, sizeof *m);
    memcpy(theta, r.s.theta, r.n * sizeof *theta);
    for (size_t i = 0; i < r.n; i++) {
        float a = 0;
        for (int j = 0; j < R; j++) a = fmaf((float)(tokens[j] / 6.0), theta[i] - r.theta[j][i], a);
        for (int step = 0; step < 2; step++) {
            m[i] = fmaf(0.9f, m[i], a);
            theta[i] = fmaf(-0.7f, fmaf(0.9f, m[i], a), theta[i]);
        }
    }
    for (uint32_t step = 0; step < 2; step++) {
        r.s.round = parts.round = round.round = 4; /* the same updates again */
        assert_int_equal(at_outer_step(&r.ex, &r.s, r.u, R, &round, NULL, NULL), AT_OK);
        for (int b = 0; b < r.p.blocks; b += 5)
            assert_int_equal(
                at_outer_blocks(&r.ex, &parts, r.u, R, &round, b, r.p.blocks - b < 5 ? r.p.blocks - b : 5, NULL),
                AT_OK);
        at_outer_skip(&parts);
    }
    assert_int_equal(parts.round, 5);
    assert_memory_equal(r.s.theta, theta, r.n * sizeof *theta);
    assert_memory_equal(r.s.momentum, m, r.n * sizeof *m);
    assert_memory_equal(parts.theta, theta, r.n * sizeof *theta);
    assert_memory_equal(parts.momentum, m, r.n * sizeof *m);
    assert_memory_equal(parts.stats, r.s.stats, r.k * sizeof *m);
    at_state_release(&parts);
    free(theta);
    free(m);
    rig_release(&r);
}

struct fake_gather {
    double *sum; /* what the other rank has, of the norms */
    size_t n;
    size_t numbers, named; /* and the block whose result it refuses, from 1; 0: none */
};

static at_err_t add_other(void *arg, double *x, size_t n, struct at_diag *diag)
{
    struct fake_gather *g = arg;
    if (n == g->numbers) {
        if (g->named != 0) x[g->named - 1] = 1;
        return AT_OK;
    }
    assert_int_equal(n, g->n);
    for (size_t i = 0; i < n; i++) {
        assert_true(x[i] == 0 || g->sum[i] == 0);
        x[i] += g->sum[i];
    }
    return AT_OK;
}

/* Contributions larger than the lower median are scaled to it; a gather that adds to one replica's norm counts. */
static void test_clipping(void **state)
{
    static const int tokens[R] = {1, 2, 3};
    for (int far = 0; far < 2; far++) {
        struct rig r;
        rig_init(&r, 0);
        for (size_t i = 0; i < r.n; i++) { /* norms in the ratio of about 1 : 4 : 2; the median is the third */
            float d = r.s.theta[i] - r.theta[0][i];
            for (int j = 1; j < R; j++) r.theta[j][i] = r.s.theta[i] - (j == 1 ? 4.0f : 2.0f) * d;
        }
        double norm[R], w[R];
        for (int j = 0; j < R; j++) {
            struct at_update_info info = r.u[j].info;
            at_buf_clear(&r.blob[j]);
            assert_int_equal(
                at_update_write(&at_codec_plain, &r.p, &info, r.s.theta, r.theta[j], r.stats[j], &r.blob[j]), AT_OK);
            assert_int_equal(at_update_parse(&r.p, at_buf_span(&r.blob[j]), NULL, &r.u[j]), AT_OK);
            double sum = 0; /* sums of few values: any order is within 1e-12 */
            for (size_t i = 0; i < r.n; i++) sum += pow((double)(r.s.theta[i] - r.theta[j][i]), 2);
            norm[j] = sqrt(sum);
        }
        double *other = calloc((size_t)(R * r.p.numbers), sizeof *other);
        struct fake_gather fake = {other, (size_t)(R * r.p.numbers), (size_t)r.p.numbers, 0};
        struct at_gather gather = {add_other, &fake};
        struct at_params more = r.p; /* a gain, which another tensor rank answers for */
        if (far) {
            more.shard.slot_first = 4;
            for (int j = 0; j < R; j++) r.u[j].params = &more;
            r.s.params = &more;
            for (int b = 0; b < r.p.blocks; b++) {
                if (!at_role_is_gain(r.p.tensor[r.p.block[b].tensor].role)) continue;
                for (int j = 0; j < R; j++) {
                    double *sum = &other[j * r.p.numbers + at_block_number(&r.p, &r.p.block[b])];
                    for (size_t i = 0; i < at_block_count(&r.p.block[b]); i++) {
                        size_t at = r.p.block[b].offset + i;
                        double d = (double)(r.s.theta[at] - r.theta[j][at]);
                        *sum += d * d;
                    }
                }
            }
        }
        float *want = malloc(r.n * sizeof *want);
        for (int j = 0; j < R; j++) w[j] = tokens[j] / 6.0 * (norm[j] > norm[2] ? norm[2] / norm[j] : 1);
        for (size_t i = 0; i < r.n; i++) {
            float a = 0;
            for (int j = 0; j < R; j++) a = fmaf((float)w[j], r.s.theta[i] - r.theta[j][i], a);
            want[i] = fmaf(-0.9f, a, r.s.theta[i]);
        }
        struct at_round round = {.round = 4, .codec = AT_CODEC_PLAIN, .alpha = 0.9f, .clip = 1};
        assert_int_equal(at_outer_step(&r.ex, &r.s, r.u, R, &round, far ? &gather : NULL, NULL), AT_OK);
        for (size_t i = 0; i < r.n; i++) assert_true(fabsf(want[i] - r.s.theta[i]) <= 1e-6f * fabsf(want[i]) + 1e-7f);
        free(other);
        free(want);
        r.s.params = &r.p;
        rig_release(&r);
    }
}

/* Another rank of the replica refuses: so does this one, in the same words, and its state stays as it was. */
static void test_all_ranks_refuse_alike(void **state)
{
    struct rig r;
    rig_init(&r, 0);
    struct at_state kept;
    assert_int_equal(at_state_init(&kept, &r.p), AT_OK);
    at_state_copy(&kept, &r.s);
    struct at_round round = at_round_mean(4, 9, 0);
    struct fake_gather fake = {.numbers = (size_t)r.p.numbers};
    struct at_gather gather = {add_other, &fake};
    for (int own = 0; own < 2; own++) /* own: its own is refused, too, which is behind the other's */
        for (int tensor = 0; tensor < r.p.tensors - 1; tensor++) {
            struct at_diag diag = {0};
            const struct at_block *last = &r.p.block[r.p.blocks - 1];
            r.s.theta[last->offset] = kept.theta[last->offset] = own ? (float)INFINITY : 1;
            fake.named = (size_t)r.p.tensor[tensor].number + 1;
            assert_int_equal(at_outer_step(&r.ex, &r.s, r.u, R, &round, &gather, &diag), AT_E_NONFINITE);
            assert_string_equal(diag.where, at_tensor_name(&r.p, tensor).s);
            assert_non_null(strstr(diag.text, "the outer step of round 5"));
            assert_memory_equal(kept.theta, r.s.theta, r.n * sizeof(float));
            assert_int_equal(r.s.round, 4);
        }
    at_state_release(&kept);
    rig_release(&r);
}

struct errand {
    struct rig *r;
    const struct at_round *round;
    at_err_t err;
};

static void *run_errand(void *arg)
{
    struct errand *e = arg;
    e->err = at_outer_step(&e->r->ex, &e->r->s, e->r->u, R, e->round, NULL, NULL);
    return NULL;
}

/* A pool's threads may have small stacks: 256 KiB are enough, for the codec whose readers are the largest, too. */
static void test_small_stack(void **state)
{
    struct rig r;
    rig_init(&r, 0);
    real *e = calloc(r.n, sizeof *e);
    struct at_round round = {.round = 4, .codec = AT_CODEC_SPARSE, .k = 64, .alpha = 0.9f, .clip = 1};
    for (int i = 0; i < R; i++) {
        struct at_update_info info = r.u[i].info;
        struct at_update_source source = {.params = &r.p,
                                          .theta_start = r.s.theta,
                                          .theta = r.theta[i],
                                          .feedback = e,
                                          .stats = r.stats[i],
                                          .stats_public = r.s.stats};
        for (size_t j = 0; j < r.n; j++) e[j] = r.s.theta[j] - r.theta[i][j];
        at_buf_clear(&r.blob[i]);
        assert_int_equal(at_update_encode(&at_codec_sparse, round.k, &info, &source, NULL, NULL, &r.blob[i]), AT_OK);
        assert_int_equal(at_update_parse(&r.p, at_buf_span(&r.blob[i]), NULL, &r.u[i]), AT_OK);
    }
    struct errand errand = {.r = &r, .round = &round, .err = AT_E_USAGE};
    pthread_attr_t attr;
    pthread_t thread;
    assert_int_equal(pthread_attr_init(&attr), 0);
    assert_int_equal(pthread_attr_setstacksize(&attr, (size_t)256 << 10), 0);
    assert_int_equal(pthread_create(&thread, &attr, run_errand, &errand), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(errand.err, AT_OK);
    assert_int_equal(r.s.round, 5);
    (void)pthread_attr_destroy(&attr);
    free(e);
    rig_release(&r);
}

static void test_rounds_of_fixed_settings(void **state)
{
    struct at_train_config train = test_train_config(); /* 4 x 3 steps */
    struct at_outer_config c;
    struct at_diag diag = {0};
    enum at_outer_kind kind;
    for (int i = AT_OUTER_MEAN; i <= AT_OUTER_AUTO; i++) {
        assert_int_equal(at_outer_kind_find(at_outer_kind_name((enum at_outer_kind)i), NULL, &kind), AT_OK);
        assert_int_equal(kind, i);
        at_outer_config_default(&c, kind);
        assert_int_equal(at_outer_config_check(&c, &train, NULL), AT_OK);
    }
    assert_int_equal(at_outer_kind_find("median", &diag, &kind), AT_E_USAGE);
    at_outer_config_default(&c, AT_OUTER_MEAN);
    struct at_round r = at_outer_round(&c, &train, NULL);
    for (uint32_t t = 0; t < 4; t++, r = at_outer_round(&c, &train, &r))
        assert_true(r.round == t && r.steps == 3 && r.step_first == 3 * t && r.codec == AT_CODEC_PLAIN &&
                    r.alpha == 1 && r.momentum == 0 && r.clip == 0 && r.tau == 0);
    assert_int_equal(r.steps, 0); /* over */
    c.steps_max = 5;              /* 5, 5, 2; cut short by time to 5, 4, 3 */
    r = at_outer_round(&c, &train, NULL);
    r = at_outer_round(&c, &train, &r);
    assert_true(r.steps == 5 && r.step_first == 5);
    r.steps = 4;
    r = at_outer_round(&c, &train, &r);
    assert_true(r.steps == 3 && r.step_first == 9);
    c.tau = 3;
    assert_int_equal(at_outer_config_check(&c, &train, NULL), AT_E_USAGE);
    c.tau = 2;
    c.k = 64;
    assert_int_equal(at_outer_config_check(&c, &train, NULL), AT_E_USAGE);
    at_outer_config_default(&c, AT_OUTER_SPARSE);
    c.alpha_first = (double)NAN;
    assert_int_equal(at_outer_config_check(&c, &train, NULL), AT_E_USAGE);
}

/* A start of short rounds, and what momentum makes good for. 12 steps: 2, 2, 2 | 3, 3 by the settings below. */
static void test_young_rounds(void **state)
{
    struct at_train_config train = test_train_config();
    static const uint32_t want[] = {2, 2, 2, 3, 3, 0};
    for (int kind = AT_OUTER_DILOCO; kind <= AT_OUTER_SPARSE; kind++) {
        struct at_outer_config c;
        struct at_round r, *previous = NULL;
        at_outer_config_default(&c, (enum at_outer_kind)kind);
        c.dense_fraction = 0.5;
        c.steps_young = 2;
        for (size_t t = 0; t < sizeof want / sizeof want[0]; t++, previous = &r) {
            r = at_outer_round(&c, &train, previous);
            assert_int_equal(r.steps, want[t]);
            if (r.steps == 0) break;
            bool dense = kind == AT_OUTER_DILOCO || t < 3;
            assert_int_equal(r.codec, dense ? AT_CODEC_INT4 : AT_CODEC_SPARSE);
            assert_true(r.clip == !dense && r.alpha == 1 && at_round_check(&r, NULL) == AT_OK);
            assert_true(r.momentum == (real)(!dense ? 0.4 : r.steps == 2 ? 0.9 * 0.9 : 0.9 * 0.9 * 0.9));
        }
        struct at_train_config adapted = train;
        at_outer_adapt(&c, &adapted);
        assert_true(adapted.weight_decay == 0.3 * train.weight_decay);
        adapted.weight_decay = train.weight_decay;
        assert_memory_equal(&adapted, &train, sizeof train);
        c.carry = 1;
        assert_int_equal(at_outer_config_check(&c, &train, NULL), AT_E_USAGE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weighted_mean),
        cmocka_unit_test(test_refusals_leave_the_state_alone),
        cmocka_unit_test(test_momentum),
        cmocka_unit_test(test_clipping),
        cmocka_unit_test(test_all_ranks_refuse_alike),
        cmocka_unit_test(test_small_stack),
        cmocka_unit_test(test_rounds_of_fixed_settings),
        cmocka_unit_test(test_young_rounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
