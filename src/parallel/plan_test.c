/* Plans: the uniform cut against every cut there is, what is refused and in which words, and where each rank stands. */
#include "parallel/plan.h"

#include "parallel/plan_cost.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const struct at_preset *preset(const char *name)
{
    const struct at_preset *p;
    assert_int_equal(at_preset_find(name, NULL, &p), AT_OK);
    return p;
}

static double stage_flops(const struct at_model_config *c, int layers, bool first, bool last)
{
    return layers * at_cost_layer_flops(c) + (first ? at_cost_first_flops(c) : 0) + (last ? at_cost_last_flops(c) : 0);
}

/* The least slowest stage over all ways to give `layers` layers to the stages from `s` on. */
static double best_cut(const struct at_model_config *c, int s, int pp, int layers)
{
    double best = 1e300;
    if (s == pp - 1) return stage_flops(c, layers, s == 0, true);
    for (int n = 1; n <= layers - (pp - 1 - s); n++) {
        double here = stage_flops(c, n, s == 0, false), rest = best_cut(c, s + 1, pp, layers - n);
        double slowest = here > rest ? here : rest;
        if (slowest < best) best = slowest;
    }
    return best;
}

static void test_uniform_is_balanced(void **state)
{
    static const char *const name[] = {"tiny", "nano", "10m", "124m"};
    for (int i = 0; i < 4; i++) {
        const struct at_model_config *c = &preset(name[i])->model;
        for (int pp = 1; pp <= (int)c->layers; pp++) {
            struct at_plan plan;
            assert_int_equal(at_plan_uniform(&plan, c, 1, pp, 1, 1, 1, NULL), AT_OK);
            assert_int_equal(at_plan_check(&plan, c, 1, NULL), AT_OK);
            double slowest = 0, all = 0;
            for (int s = 0; s < pp; s++) {
                double f = stage_flops(c, plan.stage[s].layers, s == 0, s == pp - 1);
                slowest = f > slowest ? f : slowest;
                all += f;
            }
            assert_true(slowest <= best_cut(c, 0, pp, (int)c->layers) * (1 + 1e-12));
            assert_true(all == (double)at_model_flops_per_token(c) + 2.0 * c->d_model);
            at_plan_release(&plan);
        }
    }
}

static void test_places(void **state)
{
    const struct at_model_config *c = &preset("10m")->model;
    struct at_plan plan;
    assert_int_equal(at_plan_uniform(&plan, c, 3, 2, 4, 2, 8, NULL), AT_OK);
    assert_int_equal(plan.ranks, 24);
    assert_int_equal(plan.stages, 6);
    int rank = 0;
    for (int r = 0; r < 3; r++)
        for (int s = 0; s < 2; s++)
            for (int t = 0; t < 4; t++, rank++) {
                struct at_place p = at_plan_place(&plan, rank);
                struct at_shard shard = at_plan_shard(&plan, c, rank);
                assert_true(p.replica == r && p.stage == s && p.tp_rank == t);
                assert_true(p.first == (s == 0) && p.last == (s == 1));
                assert_true(shard.slots == 2 && shard.slot_first == 2 * t);
                assert_true(shard.layers == 3 && shard.layer_first == 3 * s);
                assert_int_equal(plan.node[rank], -1);
            }
    assert_string_equal(at_plan_place_name(&plan, 13).s, "rank 13 (replica 1, stage 1, tensor rank 1)");
    at_plan_release(&plan);
    at_plan_release(&plan);
}

static void test_refused_options(void **state)
{
    const struct at_model_config *c = &preset("nano")->model;
    static const struct {
        int replicas, pp, tp, microbatches;
        const char *where, *says;
    } bad[] = {
        {1, 1, 8, 1, "--tp", "1, 2, 4 tensor ranks"},
        {1, 1, 3, 1, "--tp", "3: "},
        {1, 1, 0, 1, "--tp", "0: "},
        {1, 5, 1, 1, "--pp", "4 layers"},
        {1, 0, 1, 1, "--pp", "1 to 4"},
        {1, 1, 1, 5, "--microbatches", "1 to 4"},
        {1, 1, 1, 0, "--microbatches", "4 sequences"},
        {0, 1, 1, 1, "--replicas", "1 to 4096"},
        {257, 4, 4, 1, "--replicas", "a replica has 16"},
        {2147483647, 4, 4, 1, "--replicas", "1 to 256"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct at_plan plan = {.ranks = -7};
        struct at_diag diag = {0};
        assert_int_equal(
            at_plan_uniform(&plan, c, bad[i].replicas, bad[i].pp, bad[i].tp, bad[i].microbatches, 4, &diag),
            AT_E_USAGE);
        assert_string_equal(diag.where, bad[i].where);
        assert_non_null(strstr(diag.text, bad[i].says));
        assert_int_equal(plan.ranks, -7);
    }
}

static void test_uneven_plan(void **state)
{
    const struct at_model_config *c = &preset("nano")->model;
    struct at_plan plan;
    assert_int_equal(at_plan_alloc(&plan, 2, 3, 7, NULL), AT_OK);
    plan.replica[0] = (struct at_plan_replica){.stage_first = 0, .stages = 2};
    plan.replica[1] = (struct at_plan_replica){.stage_first = 2, .stages = 1};
    plan.stage[0] = (struct at_plan_stage){.layer_first = 0, .layers = 3, .tp = 4, .rank_first = 0};
    plan.stage[1] = (struct at_plan_stage){.layer_first = 3, .layers = 1, .tp = 1, .rank_first = 4};
    plan.stage[2] = (struct at_plan_stage){.layer_first = 0, .layers = 4, .tp = 2, .rank_first = 5};
    assert_int_equal(at_plan_check(&plan, c, 4, NULL), AT_OK);
    struct at_place p = at_plan_place(&plan, 6);
    assert_true(p.replica == 1 && p.stage == 0 && p.tp_rank == 1 && p.first && p.last);
    assert_int_equal(at_plan_shard(&plan, c, 6).slot_first, 2);
    assert_int_equal(at_plan_shard(&plan, c, 4).slots, 4);
    at_plan_release(&plan);
}

/* A plan from a file: one number bent at a time. */
static void test_check_refuses(void **state)
{
    const struct at_model_config *c = &preset("nano")->model;
    for (int field = 0; field < 14; field++) {
        struct at_plan plan;
        struct at_diag diag = {0};
        assert_int_equal(at_plan_uniform(&plan, c, 2, 2, 2, 2, 4, NULL), AT_OK);
        int *const number[14] = {
            &plan.replicas,
            &plan.stages,
            &plan.ranks,
            &plan.microbatches,
            &plan.replica[1].stage_first,
            &plan.replica[1].stages,
            &plan.replica[0].stages,
            &plan.stage[1].layer_first,
            &plan.stage[1].layers,
            &plan.stage[3].layers,
            &plan.stage[2].tp,
            &plan.stage[2].rank_first,
            &plan.stage[3].tp,
            &plan.node[5],
        };
        int right = *number[field];
        static const int wrong[] = {-2147483647, -2, 0, 3, 5, 4097, 2147483647};
        for (int i = 0; i < 7; i++) {
            if (wrong[i] == right || (number[field] == &plan.node[5] && wrong[i] >= -1)) continue;
            if (number[field] == &plan.microbatches && wrong[i] == 3) continue;
            *number[field] = wrong[i];
            diag = (struct at_diag){0};
            /* reading beyond the arrays would be the only way to believe a larger count: the parser's counts are of
             * what it allocated, so only smaller ones are tried */
            bool count =
                number[field] == &plan.replicas || number[field] == &plan.stages || number[field] == &plan.ranks;
            if (count && wrong[i] > right && wrong[i] <= AT_PLAN_RANKS_MAX) continue;
            if (number[field] == &plan.replicas && wrong[i] > right) continue;
            assert_int_equal(at_plan_check(&plan, c, 4, &diag), AT_E_DATA);
            assert_true(diag.where[0] != '\0' && diag.text[0] != '\0');
        }
        *number[field] = right;
        assert_int_equal(at_plan_check(&plan, c, 4, NULL), AT_OK);
        assert_int_equal(at_plan_check(&plan, c, 1, NULL), AT_E_DATA); /* two microbatches of one sequence */
        assert_int_equal(at_plan_check(&plan, &preset("10m")->model, 4, NULL), AT_E_DATA);
        at_plan_release(&plan);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uniform_is_balanced), cmocka_unit_test(test_places),
        cmocka_unit_test(test_refused_options),     cmocka_unit_test(test_uneven_plan),
        cmocka_unit_test(test_check_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
