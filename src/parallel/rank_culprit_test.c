/* A step that is not finite, somewhere in some replica: every rank of every cut tells the tensor, layer, replica, round and
 * step that one process tells, whichever replica is the fastest. */
#include "base/sanitized.h"
#include "parallel/rank_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static struct test_net net;
static const struct at_model_config model = TEST_SHAPE(4, 16, 8, 8, 24, 8, 256, false),
                                    wide =
                                        TEST_SHAPE(4, 16, 8, 8, 512, 8, 256, false); /* rows lie apart: at_gemm_row */
enum { RARE = 'Z', STEPS = 6, SEEDS = 10, SLOW = 300000 };

/* EMBEDDING: the row of one rare byte becomes NaN: it depends on a replica's samples when that is met. Otherwise every
 * value of the tensor becomes huge. */
struct spoiled {
    enum at_role role;
    int layer;
    int round; /* before which it is spoiled, from 0 */
    int slow;  /* the replica that takes its time after each step */
};

static void spoil_row(const struct at_params *p, real *theta)
{
    long each = p->vocab_padded / p->slots;
    int tensor = at_params_find(p, AT_ROLE_EMBEDDING, 0);
    if (!at_params_holds(p, tensor, RARE / (int)each)) return;
    const struct at_block *b = at_params_block(p, tensor, RARE / (int)each);
    theta[b->offset + (size_t)(RARE % each * b->cols) + 3] = (real)NAN;
}

static void spoil(const struct spoiled *x, const struct at_params *p, real *theta)
{
    if (x->role == AT_ROLE_EMBEDDING) {
        spoil_row(p, theta);
        return;
    }
    int tensor = at_params_find(p, x->role, x->layer);
    for (int i = 0; i < p->blocks; i++)
        for (size_t k = 0; p->block[i].tensor == tensor && k < at_block_count(&p->block[i]); k++)
            theta[p->block[i].offset + k] = REAL(2e38);
}

static void start(struct test_run *run, const struct at_model_config *c, uint64_t seed)
{
    assert_true(test_run_init(run, c));
    for (size_t i = 100; i < sizeof run->text; i += 700) run->text[i] = RARE;
    assert_int_equal(
        at_data_init(&run->data, at_span(run->text, sizeof run->text), (long)c->seq_len, seed, 0.05, 32768, NULL),
        AT_OK);
    run->config.steps = STEPS;
}

static void tell_alone(const struct test_run *run, const struct at_outer_config *outer, const struct spoiled *x,
                       struct at_diag *ret_diag)
{
    struct at_local l;
    struct at_local_options o = {.replicas = 3, .outer = outer};
    double loss;
    at_err_t err = AT_OK;
    assert_int_equal(at_local_init_options(&l, &run->m, &run->data, &run->config, &o, NULL), AT_OK);
    for (int t = 0; err == AT_OK && t < 2; t++) {
        if (t == x->round) spoil(x, &run->m.params, l.state.theta);
        err = at_local_round(&l, &run->ex, NULL, NULL, ret_diag, &loss);
    }
    assert_int_equal(err, AT_E_NONFINITE);
    at_local_release(&l);
}

static bool dawdle(void *arg, const struct at_unit_progress *p)
{
    volatile uint64_t n = 0;
    for (int i = 0; i < *(int *)arg; i++) n += p->step;
    return n != UINT64_MAX;
}

static void spoiled_rounds(struct split_job *j, struct at_rank *r, int rank)
{
    const struct spoiled *x = j->arg;
    struct at_round round;
    at_err_t err = AT_OK;
    int pause = at_plan_place(&j->plan, rank).replica == x->slow ? SLOW : 0;
    for (int t = 0; err == AT_OK && t < 2; t++) {
        if (t == x->round) spoil(x, at_rank_state(r)->params, at_rank_state(r)->theta);
        round = at_outer_round(&j->outer, &j->run->config, t == 0 ? NULL : &round);
        err = at_rank_round(r, &round, dawdle, &pause, &j->diag[rank], &j->report[rank]);
        if (err == AT_OK && t + 1 == x->round) err = at_rank_join(r, &j->diag[rank], &j->report[rank]);
    }
    j->err[rank] = err;
}

static void compare(const struct test_run *run, const struct at_outer_config *outer, const char *const *cut,
                    struct spoiled x, const struct at_diag *want)
{
    struct split_job j = {.run = run, .outer = *outer, .body = spoiled_rounds, .arg = &x, .mixed_kernels = true};
    assert_true(split_plan(&j.plan, cut, 3, 2));
    const char *misuse = split_run(&net, &j);
    if (misuse != NULL) print_error("%s\n", misuse);
    assert_null(misuse);
    for (int i = 0; i < j.plan.ranks; i++) {
        assert_int_equal(j.err[i], AT_E_NONFINITE);
        if (strcmp(j.diag[i].where, want->where) != 0 || strcmp(j.diag[i].text, want->text) != 0)
            print_error("%s, rank %d: %s: %s\nnot %s: %s\n", cut[0], i, j.diag[i].where, j.diag[i].text, want->where,
                        want->text);
        assert_string_equal(j.diag[i].where, want->where);
        assert_string_equal(j.diag[i].text, want->text);
    }
    at_plan_release(&j.plan);
}

static const char *const cuts[][3] = {{"1x4", "1x4", "1x4"}, {"2x4", "1x2 1x2", "1x4"}, {"2x1 1x3", "4x4", "2x4"}};

static void replica_and_step_are_those_of_one_process(void **state)
{
    int later = 0, others = 0, after = 0, second = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct test_run run;
        struct at_outer_config outer;
        struct at_diag want = {0};
        start(&run, &model, seed);
        at_outer_config_default(&outer, AT_OUTER_MEAN);
        outer.tau = seed % 3 == 0 ? 2 : 0;
        struct spoiled x = {.round = (int)(seed % 2)};
        tell_alone(&run, &outer, &x, &want);
        second += strstr(want.text, "round 2") != NULL;
        later += strstr(want.text, "step 1)") == NULL;
        others += strstr(want.text, "replica 0") == NULL;
        after += strstr(want.text, "after step 6") != NULL;
        assert_string_equal(want.where, "model.embed_tokens.weight");
        for (int c = 0; c < 3; c++) {
            if (AT_SANITIZED && c != (int)(seed / 2 % 3)) continue;
            x.slow = (int)(seed + (uint64_t)c) % 4; /* 3: none */
            compare(&run, &outer, cuts[c], x, &want);
        }
        test_run_release(&run);
    }
    assert_true(later >= 3 && others >= 3 && after >= 1 &&
                second >= 3); /* the samples are such that all of it happened */
}

static void check_tensor(const struct at_model_config *c, struct spoiled x, const char *name)
{
    struct test_run run;
    struct at_outer_config outer;
    struct at_diag want = {0};
    start(&run, c, 1);
    at_outer_config_default(&outer, AT_OUTER_MEAN);
    tell_alone(&run, &outer, &x, &want);
    assert_string_equal(want.where, name);
    for (int i = 0; i < 3; i++) {
        if (AT_SANITIZED && i != x.layer % 3) continue;
        x.slow = i;
        compare(&run, &outer, cuts[i], x, &want);
    }
    test_run_release(&run);
}

static void the_tensor_is_that_of_one_process(void **state)
{
    static const struct {
        struct spoiled x;
        const char *name;
    } cases[] = {
        {{.role = AT_ROLE_NORM1, .layer = 1}, "model.layers.1.input_layernorm.weight"},
        {{.role = AT_ROLE_Q, .layer = 0}, "model.layers.0.self_attn.q_proj.weight"},
        {{.role = AT_ROLE_K, .layer = 3}, "model.layers.3.self_attn.k_proj.weight"},
        {{.role = AT_ROLE_V, .layer = 2}, "model.layers.2.self_attn.v_proj.weight"},
        {{.role = AT_ROLE_O, .layer = 2}, "model.layers.2.self_attn.o_proj.weight"},
        {{.role = AT_ROLE_GATE, .layer = 1}, "model.layers.1.mlp.gate_proj.weight"},
        {{.role = AT_ROLE_UP, .layer = 3}, "model.layers.3.mlp.up_proj.weight"},
        {{.role = AT_ROLE_DOWN, .layer = 0}, "model.layers.0.mlp.down_proj.weight"},
        {{.role = AT_ROLE_HEAD, .layer = 0}, "lm_head.weight"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct spoiled x = cases[i].x;
        x.round = (int)(i % 2);
        check_tensor(&model, x, cases[i].name);
    }
    check_tensor(&wide, (struct spoiled){.role = AT_ROLE_GATE, .layer = 2}, "model.layers.2.mlp.gate_proj.weight");
    check_tensor(&wide, (struct spoiled){.role = AT_ROLE_UP, .layer = 2}, "model.layers.2.mlp.up_proj.weight");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replica_and_step_are_those_of_one_process),
        cmocka_unit_test(the_tensor_is_that_of_one_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
