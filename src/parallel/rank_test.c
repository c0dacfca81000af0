#include "parallel/rank.h"

#include "base/sanitized.h"
#include "parallel/rank_test_util.h"
#include "train/auto.h"

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

static void reference_end(struct at_local *l, const struct test_run *run, struct reference *ret)
{
    assert_int_equal(at_state_root(&l->state, NULL, &ret->root), AT_OK);
    ret->heldout = at_heldout_loss(&l->trainer, &run->ex, &run->data, l->state.theta);
    at_local_release(l);
}

static void reference_of(const struct test_run *run, const struct at_outer_config *outer, int replicas, int rounds,
                         struct reference *ret)
{
    struct at_local l;
    struct at_local_options o = {.replicas = replicas, .outer = outer};
    assert_int_equal(at_local_init_options(&l, &run->m, &run->data, &run->config, &o, NULL), AT_OK);
    for (int t = 0; t < rounds; t++)
        assert_int_equal(at_local_round(&l, &run->ex, NULL, NULL, NULL, &ret->loss), AT_OK);
    reference_end(&l, run, ret);
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
                     size_t fragment_bytes, const char *what)
{
    struct split_job j = {.run = run, .plan = plan, .rounds = ROUNDS, .body = split_rounds, .recompute = recompute};
    j.fragment_bytes = fragment_bytes;
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
                one_plan(&run, plan, &want, (tp + pp + M) % 2 == 0, 0, what);
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
    static const size_t fragments[] = {1, 4000, 0}; /* bytes: one block each, a few blocks, whole */
    for (int m = 0; m < MODELS; m++) {
        struct test_run run;
        struct reference want[4];
        assert_true(test_run_init(&run, &models[m]));
        for (int r = 1; r <= 3; r++) reference_of(&run, NULL, r, ROUNDS, &want[r]);
        for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
            struct at_plan plan;
            char what[64];
            if (AT_SANITIZED ? (int)(i % 3) != m : m != 2 && (int)(i % 2) != m) continue; /* the tied model: all */
            int replicas = cuts[i][1] == NULL ? 1 : cuts[i][2] == NULL ? 2 : 3;
            assert_true(split_plan(&plan, cuts[i], replicas, 1 + (int)(i % 3)));
            assert_int_equal(at_plan_check(&plan, &models[m], run.config.batch, NULL), AT_OK);
            snprintf(what, sizeof what, "model %d, cut %zu", m, i);
            one_plan(&run, plan, &want[replicas], i % 2 == 0, fragments[i % 3], what);
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
                if (AT_SANITIZED && c != (kind + (int)tau) % 3) continue;
                snprintf(what, sizeof what, "%s, tau %u, cut %d", at_outer_kind_name(j.outer.kind), tau, c);
                assert_true(split_plan(&j.plan, cuts[c], 2, 2));
                j.join_between = c == 1;
                j.fragment_bytes = c == 2 ? 0 : 3000;
                compare(&j, &want, what);
                at_plan_release(&j.plan);
            }
        }
    test_run_release(&run);
}

/* What auto chooses for links that change from round to round, as rank 0 would broadcast it: plain, int4 and sparse, short
 * rounds and long ones, one outer momentum for all of them. */
enum { CHOSEN_MAX = 16 };
struct chosen {
    struct at_round round[CHOSEN_MAX];
    int count;
};

static void choose_rounds(struct chosen *ret, const struct at_outer_config *outer, const struct test_run *run)
{
    struct at_auto_run size = {2, run->m.params.count, at_stats_count(&run->m.params)};
    double plain = at_auto_update_bytes(AT_CODEC_PLAIN, 0, &size), int4 = at_auto_update_bytes(AT_CODEC_INT4, 0, &size);
    const double bytes[] = {plain, plain, int4, plain, int4, int4};
    const double seconds[] = {0.01, 0.15, 0.2, 0.01, 0.1, 0.25}; /* that these take, beyond what overlap hides */
    struct at_auto_measured m = {.step_seconds = 1};
    bool seen[AT_CODEC_SPARSE + 1] = {0};
    *ret = (struct chosen){.count = 0};
    for (int t = 0; t < CHOSEN_MAX; t++) {
        m.bytes_per_second = bytes[t % 6] / (seconds[t % 6] + outer->tau);
        struct at_round r = at_auto_round(outer, &run->config, &size, t == 0 ? NULL : &ret->round[t - 1], &m);
        if (r.steps == 0) break;
        seen[r.codec] = true;
        ret->round[ret->count++] = r;
    }
    assert_true(seen[AT_CODEC_PLAIN] && seen[AT_CODEC_INT4] && seen[AT_CODEC_SPARSE]);
    assert_true(ret->round[0].steps < ret->round[ret->count - 2].steps && ret->count < CHOSEN_MAX);
}

static void split_chosen(struct split_job *j, struct at_rank *r, int rank)
{
    const struct chosen *c = j->arg;
    at_err_t err = AT_OK;
    for (int t = 0; err == AT_OK && t < c->count; t++)
        err = at_rank_round(r, &c->round[t], NULL, NULL, &j->diag[rank], &j->report[rank]);
    split_end(j, r, rank, err);
}

static void one_root_for_what_auto_chooses(void **state)
{
    static const char *const cuts[][2] = {{"2x2 1x2", "2x2 1x2"}, {"1x4", "4x1 1x3"}};
    struct test_run run;
    assert_true(test_run_init(&run, &models[2]));
    run.config.rounds = 6;
    run.config.steps = 4;
    for (uint32_t tau = 0; tau <= 1; tau++) {
        struct split_job j = {.run = &run, .body = split_chosen};
        struct chosen chosen;
        struct reference want;
        struct at_local l;
        at_outer_config_default(&j.outer, AT_OUTER_AUTO);
        j.outer.dense_steps = 12;
        j.outer.tau = tau;
        choose_rounds(&chosen, &j.outer, &run);
        j.arg = &chosen;
        struct at_local_options o = {.replicas = 2, .outer = &j.outer};
        assert_int_equal(at_local_init_options(&l, &run.m, &run.data, &run.config, &o, NULL), AT_OK);
        for (int t = 0; t < chosen.count; t++)
            assert_int_equal(at_local_do(&l, &run.ex, &chosen.round[t], NULL, NULL, NULL, &want.loss), AT_OK);
        reference_end(&l, &run, &want);
        assert_true(split_plan(&j.plan, cuts[tau], 2, 2));
        compare(&j, &want, tau == 0 ? "auto" : "auto, tau 1");
        at_plan_release(&j.plan);
    }
    test_run_release(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_root_for_uniform_plans),
        cmocka_unit_test(one_root_for_uneven_plans),
        cmocka_unit_test(one_root_for_every_outer_step),
        cmocka_unit_test(one_root_for_what_auto_chooses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
