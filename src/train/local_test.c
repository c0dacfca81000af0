/* A run in one process: it learns, its ranges never overlap, and it is made of the public pieces. */
#include "train/train_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

struct counts {
    int calls, replica_max;
    int stop_at;
};

static bool count(void *arg, int replica, const struct at_unit_progress *p)
{
    struct counts *c = arg;
    if (replica > c->replica_max) c->replica_max = replica;
    return ++c->calls != c->stop_at;
}

static void test_it_learns(void **state)
{
    struct test_run r;
    struct at_local l;
    struct at_hash root[2];
    assert_true(test_run_init(&r, &run_configs[0]));
    r.config.rounds = 8;
    r.config.lr_peak = 3e-2;
    for (int again = 0; again < 2; again++) {
        struct counts c = {0};
        assert_int_equal(at_local_init(&l, &r.m, &r.data, &r.config, 3, again + 1, NULL), AT_OK);
        double before = at_heldout_loss(&l.trainer, &r.ex, &r.data, l.state.theta), loss;
        assert_true(fabs(before - log(256)) < 0.1);
        for (uint32_t t = 0; t < 8; t++) assert_int_equal(at_local_round(&l, &r.ex, count, &c, NULL, &loss), AT_OK);
        double after = at_heldout_loss(&l.trainer, &r.ex, &r.data, l.state.theta);
        assert_true(after < 3 && loss < 3); /* 2.62 and 2.66, on every machine */
        assert_int_equal(c.calls, 8 * 3 * 3);
        assert_int_equal(c.replica_max, 2);
        assert_int_equal(l.tokens, 8 * 3 * 3 * 4 * 8);
        assert_int_equal(l.state.round, 8);
        assert_int_equal(at_state_root(&l.state, NULL, &root[again]), AT_OK);
        at_local_release(&l);
    }
    assert_true(at_hash_eq(root[0], root[1])); /* two microbatch sizes */
    test_run_release(&r);
}

/* The same round by hand, the replicas in another order: what a swarm does. */
static void test_round_is_units_and_an_outer_step(void **state)
{
    struct test_run r;
    struct at_local l;
    struct at_trainer t;
    struct at_state s;
    struct at_buf blob[2] = {{0}, {0}};
    struct at_update u[2] = {{.blocks = 0}, {.blocks = 0}};
    double loss;
    assert_true(test_run_init(&r, &run_configs[1]));
    assert_int_equal(at_local_init(&l, &r.m, &r.data, &r.config, 2, 0, NULL), AT_OK);
    assert_int_equal(at_trainer_init(&t, &r.m, &r.config, 3, NULL), AT_OK);
    assert_int_equal(at_state_init(&s, &r.m.params), AT_OK);
    at_state_genesis(&s, r.config.seed);
    for (uint32_t round = 0; round < 2; round++) {
        assert_int_equal(at_local_round(&l, &r.ex, NULL, NULL, NULL, &loss), AT_OK);
        for (int i = 1; i >= 0; i--) {
            struct at_unit unit = {
                .start = (round * 2 + (uint64_t)i) * 12, .samples = 12, .step_first = round * (uint64_t)3};
            struct at_unit_report report;
            at_buf_clear(&blob[i]);
            assert_int_equal(at_unit_run(&t, &r.ex, &r.data, &s, &unit, NULL, NULL, NULL, &blob[i], &report), AT_OK);
            assert_int_equal(at_update_parse(&r.m.params, at_buf_span(&blob[i]), NULL, &u[i]), AT_OK);
        }
        struct at_round mean = at_round_mean(round, r.config.steps, 0);
        assert_int_equal(at_outer_step(&r.ex, &s, u, 2, &mean, NULL, NULL), AT_OK);
        struct at_hash a, b;
        assert_int_equal(at_state_root(&s, NULL, &a), AT_OK);
        assert_int_equal(at_state_root(&l.state, NULL, &b), AT_OK);
        assert_true(at_hash_eq(a, b));
    }
    for (int i = 0; i < 2; i++) at_buf_release(&blob[i]);
    for (int i = 0; i < 2; i++) at_update_release(&u[i]);
    at_state_release(&s);
    at_trainer_release(&t);
    at_local_release(&l);
    test_run_release(&r);
}

struct news {
    struct at_state *seen;
    const struct at_state *newest;
};

static at_err_t hear(void *arg, struct at_diag *diag)
{
    struct news *n = arg;
    at_state_copy(n->seen, n->newest);
    return AT_OK;
}

/* Overlap, momentum and error feedback by hand: every replica with a trainer, a view and an e of its own. */
static void test_overlap_is_late_news(void **state)
{
    enum { R = 2, ROUNDS = 4 };
    struct test_run r;
    struct at_local l;
    struct at_trainer t[R];
    struct at_state newest, seen[R];
    struct at_buf blob = {0};
    struct at_update u[R] = {{.blocks = 0}, {.blocks = 0}};
    struct at_outer_config outer;
    struct at_hash root[2][ROUNDS];
    real *e[R];
    assert_true(test_run_init(&r, &run_configs[1]));
    at_outer_config_default(&outer, AT_OUTER_DILOCO);
    outer.tau = 1;
    outer.momentum = 0.5;
    struct at_local_options options = {.replicas = R, .outer = &outer};
    assert_int_equal(at_local_init_options(&l, &r.m, &r.data, &r.config, &options, NULL), AT_OK);
    for (int i = 0; i < ROUNDS; i++) {
        double loss;
        assert_int_equal(at_local_round(&l, &r.ex, NULL, NULL, NULL, &loss), AT_OK);
        assert_int_equal(at_state_root(&l.state, NULL, &root[0][i]), AT_OK);
    }
    at_local_release(&l);
    struct at_trainer_options trainer = {.overlap = true};
    assert_int_equal(at_state_init(&newest, &r.m.params), AT_OK);
    assert_int_equal(at_state_add_momentum(&newest), AT_OK);
    at_state_genesis(&newest, r.config.seed);
    for (int i = 0; i < R; i++) {
        assert_int_equal(at_trainer_init_options(&t[i], &r.m, &r.config, &trainer, NULL), AT_OK);
        assert_int_equal(at_state_init(&seen[i], &r.m.params), AT_OK);
        assert_int_equal(at_state_add_momentum(&seen[i]), AT_OK);
        at_state_copy(&seen[i], &newest);
        e[i] = calloc(r.m.params.count, sizeof *e[i]);
    }
    struct at_round round = at_outer_round(&outer, &r.config, NULL);
    for (uint32_t n = 0; n < ROUNDS; n++, round = at_outer_round(&outer, &r.config, &round)) {
        assert_int_equal(round.codec, AT_CODEC_INT4);
        for (int i = R - 1; i >= 0; i--) {
            struct news news = {&seen[i], &newest};
            struct at_unit unit = {.start = (n * R + (uint64_t)i) * 12,
                                   .samples = 12,
                                   .step_first = 3 * n,
                                   .join = n > 0 ? hear : NULL,
                                   .join_arg = &news,
                                   .tau = 1};
            struct at_unit_report report;
            assert_int_equal(at_unit_train(&t[i], &r.ex, &r.data, &seen[i], &unit, NULL, NULL, NULL, &report), AT_OK);
            struct at_update_source source = {.params = &r.m.params,
                                              .theta_start = newest.theta,
                                              .theta = t[i].theta,
                                              .feedback = e[i],
                                              .stats = t[i].stats,
                                              .stats_public = newest.stats};
            at_feedback_add(&r.ex, &at_codec_int4, &r.m.params, newest.theta, t[i].theta, e[i]);
            struct at_buf own = {0};
            assert_int_equal(at_update_encode(&at_codec_int4, 0, &report.info, &source, NULL, NULL, &own), AT_OK);
            assert_int_equal(at_update_parse(&r.m.params, at_buf_span(&own), NULL, &u[i]), AT_OK);
            at_update_confirm(&u[i], r.ex.par, e[i]);
            if (i == 1) blob = own;
            if (i == 0) {
                assert_int_equal(at_outer_step(&r.ex, &newest, u, R, &round, NULL, NULL), AT_OK);
                at_buf_release(&own);
                at_buf_release(&blob);
            }
        }
        assert_int_equal(at_state_root(&newest, NULL, &root[1][n]), AT_OK);
        assert_true(at_hash_eq(root[0][n], root[1][n]));
    }
    for (int i = 0; i < R; i++) {
        at_trainer_release(&t[i]);
        at_state_release(&seen[i]);
        at_update_release(&u[i]);
        free(e[i]);
    }
    at_state_release(&newest);
    test_run_release(&r);
}

static void test_stopping_throws_the_round_away(void **state)
{
    struct test_run r;
    struct at_local l;
    struct at_hash before, after;
    double loss;
    struct counts c = {.stop_at = 4};
    assert_true(test_run_init(&r, &run_configs[0]));
    assert_int_equal(at_local_init(&l, &r.m, &r.data, &r.config, 2, 0, NULL), AT_OK);
    assert_int_equal(at_state_root(&l.state, NULL, &before), AT_OK);
    assert_int_equal(at_local_round(&l, &r.ex, count, &c, NULL, &loss), AT_E_INTERRUPTED);
    assert_int_equal(at_state_root(&l.state, NULL, &after), AT_OK);
    assert_true(at_hash_eq(before, after));
    at_local_release(&l);
    assert_int_equal(at_local_init(&l, &r.m, &r.data, &r.config, 0, 0, NULL), AT_E_USAGE);
    r.config.batch = 0;
    assert_int_equal(at_local_init(&l, &r.m, &r.data, &r.config, 1, 0, NULL), AT_E_DATA);
    test_run_release(&r);
}

/* The estimate shown before allocation is what the parts add up to. */
static void test_memory_estimate(void **state)
{
    struct test_run r;
    struct at_trainer t;
    assert_true(test_run_init(&r, &run_configs[2]));
    assert_int_equal(at_trainer_init(&t, &r.m, &r.config, 2, NULL), AT_OK);
    size_t flat = r.m.params.count, sum = 4 * (3 * flat + at_model_grad_count(&r.m) + at_stats_count(&r.m.params));
    sum += t.act->bytes + t.pass->bytes + 2 * 4 * (size_t)r.config.batch * r.m.params.config.seq_len;
    sum += sizeof(double) * ((size_t)r.m.params.numbers + 2);
    assert_int_equal(at_trainer_bytes(&run_configs[2], &r.config, 2), sum);
    assert_int_equal(at_local_bytes(&run_configs[2], &r.config, 3, 2), sum + 4 * at_state_bytes(&run_configs[2]));
    at_trainer_release(&t);
    test_run_release(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_learns),
        cmocka_unit_test(test_round_is_units_and_an_outer_step),
        cmocka_unit_test(test_overlap_is_late_news),
        cmocka_unit_test(test_stopping_throws_the_round_away),
        cmocka_unit_test(test_memory_estimate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
