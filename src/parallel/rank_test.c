#include "parallel/rank.h"

#include "parallel/rank_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static struct test_net net;

/* Eight slots; two of grouped queries, an odd vocabulary; tied, with slots that are all padding. */
static const struct at_model_config models[] = {
    TEST_SHAPE(4, 16, 8, 8, 24, 8, 256, false),
    TEST_SHAPE(4, 24, 4, 2, 20, 6, 301, false),
    TEST_SHAPE(4, 16, 8, 8, 16, 7, 257, true),
};
enum { MODELS = sizeof models / sizeof models[0], ROUNDS = 2 };

/* What one process computes. */
struct reference {
    struct at_hash root;
    double loss, heldout;
};

static void reference_of(const struct test_run *run, const struct at_outer_config *outer, int replicas, int rounds,
                         struct reference *ret)
{
    struct at_local l;
    struct at_local_options o = {.replicas = replicas, .outer = outer};
    assert_int_equal(at_local_init_options(&l, &run->m, &run->data, &run->config, &o, NULL), AT_OK);
    for (int t = 0; t < rounds; t++)
        assert_int_equal(at_local_round(&l, &run->ex, NULL, NULL, NULL, &ret->loss), AT_OK);
    assert_int_equal(at_state_root(&l.state, NULL, &ret->root), AT_OK);
    ret->heldout = at_heldout_loss(&l.trainer, &run->ex, &run->data, l.state.theta);
    at_local_release(&l);
}

static void compare(struct split_job *j, const struct reference *want, const char *what)
{
    const char *misuse = split_run(&net, j);
    if (misuse != NULL) print_error("%s: %s\n", what, misuse);
    assert_null(misuse);
    for (int i = 0; i < j->plan.ranks; i++) {
        if (j->err[i] != AT_OK) print_error("%s, rank %d: %s: %s\n", what, i, j->diag[i].where, j->diag[i].text);
        assert_int_equal(j->err[i], AT_OK);
        if (memcmp(&j->root[i], &want->root, sizeof want->root) != 0) print_error("%s: another root\n", what);
        assert_memory_equal(&j->root[i], &want->root, sizeof want->root);
        assert_memory_equal(&j->heldout[i], &want->heldout, sizeof want->heldout);
        assert_memory_equal(&j->report[i].loss_mean, &want->loss, sizeof want->loss);
    }
}

/* A job over a plan that is made, run, compared and thrown away. */
static void one_plan(const struct test_run *run, struct at_plan plan, const struct reference *want, bool recompute,
                     const char *what)
{
    struct split_job j = {.run = run, .plan = plan, .rounds = ROUNDS, .body = split_rounds, .recompute = recompute};
    j.mixed_kernels = true;
    at_outer_config_default(&j.outer, AT_OUTER_MEAN);
    compare(&j, want, what);
    at_plan_release(&j.plan);
}

/* Every (tp, pp) with tp * pp <= 8; the number of microbatches goes round (all of them: tests/conformance). */
static void one_root_for_uniform_plans(void **state)
{
    for (int m = 0; m < MODELS; m++) {
        struct test_run run;
        struct reference want;
        assert_true(test_run_init(&run, &models[m]));
        reference_of(&run, NULL, 1, ROUNDS, &want);
        for (int pp = 1; pp <= 4; pp++)
            for (int tp = 1; tp <= run.m.params.slots && tp * pp <= 8; tp *= 2) {
                char what[64];
                struct at_plan plan;
                int M = 1 << (tp + pp + m) % 3;
                snprintf(what, sizeof what, "model %d, tp %d, pp %d, M %d", m, tp, pp, M);
                assert_int_equal(at_plan_uniform(&plan, &models[m], 1, pp, tp, M, run.config.batch, NULL), AT_OK);
                one_plan(&run, plan, &want, (tp + pp + M) % 2 == 0, what);
            }
        test_run_release(&run);
    }
}

/* Stages of different width, replicas that are cut differently: with twins, without, in part. */
static void one_root_for_uneven_plans(void **state)
{
    static const char *const cuts[][3] = {
        {"1x1 2x2 1x1", NULL},
        {"2x3 1x1", NULL},
        {"1x2 2x2", NULL},
        {"1x4", "1x4", NULL},
        {"2x4", "1x4", NULL},
        {"2x2 2x2", "1x1 2x3", NULL},
        {"1x1 1x3", "1x2 1x2", NULL},
        {"2x1 2x3", "2x1 1x3", NULL},
        {"1x4", "2x4", "1x1 1x3"},
        {"2x4", "2x4", "2x4"},
        {"1x4", "1x4", "2x2 1x2"},
    };
    for (int m = 0; m < MODELS; m++) {
        struct test_run run;
        struct reference want[4];
        assert_true(test_run_init(&run, &models[m]));
        for (int r = 1; r <= 3; r++) reference_of(&run, NULL, r, ROUNDS, &want[r]);
        for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
            struct at_plan plan;
            char what[64];
            if (m != 2 && (int)(i % 2) != m) continue; /* the tied model takes them all */
            int replicas = cuts[i][1] == NULL ? 1 : cuts[i][2] == NULL ? 2 : 3;
            assert_true(split_plan(&plan, cuts[i], replicas, 1 + (int)(i % 3)));
            assert_int_equal(at_plan_check(&plan, &models[m], run.config.batch, NULL), AT_OK);
            snprintf(what, sizeof what, "model %d, cut %zu", m, i);
            one_plan(&run, plan, &want[replicas], i % 2 == 0, what);
        }
        test_run_release(&run);
    }
}

/* Every outer step, with and without overlap, over plans with twins and without. */
static void one_root_for_every_outer_step(void **state)
{
    static const char *const cuts[][2] = {{"2x2 1x2", "2x2 1x2"}, {"1x4", "4x1 1x3"}, {"1x1 2x3", "1x4"}};
    enum { MANY = 4 };
    struct test_run run;
    assert_true(test_run_init(&run, &models[2]));
    run.config.rounds = MANY;
    for (int kind = AT_OUTER_MEAN; kind <= AT_OUTER_SPARSE; kind++)
        for (uint32_t tau = 0; tau <= 2; tau++) {
            struct split_job j = {.run = &run, .rounds = MANY, .body = split_rounds};
            struct reference want;
            char what[64];
            at_outer_config_default(&j.outer, (enum at_outer_kind)kind);
            j.outer.tau = tau;
            reference_of(&run, &j.outer, 2, MANY, &want);
            for (int c = 0; c < 3; c++) {
                snprintf(what, sizeof what, "%s, tau %u, cut %d", at_outer_kind_name(j.outer.kind), tau, c);
                assert_true(split_plan(&j.plan, cuts[c], 2, 2));
                j.join_between = c == 1;
                compare(&j, &want, what);
                at_plan_release(&j.plan);
            }
        }
    test_run_release(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_root_for_uniform_plans),
        cmocka_unit_test(one_root_for_uneven_plans),
        cmocka_unit_test(one_root_for_every_outer_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
