/* What replicas keep for themselves goes from any cut to any other, one process among them: the run ends as one that was
 * never stopped. */
#include "parallel/rank.h"
#include "parallel/rank_test_util.h"
#include "train/checkpoint_replica.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { REPLICAS = 2, ROUNDS = 4 };

static struct test_net net;
static const struct at_model_config shape = TEST_SHAPE(4, 16, 8, 8, 24, 8, 257, true);

static const struct kind {
    enum at_outer_kind kind;
    uint32_t tau;
} kinds[] = {{AT_OUTER_DILOCO, 0}, {AT_OUTER_MEAN, 1}, {AT_OUTER_SPARSE, 1}};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static const char *const cut[][REPLICAS] = {{"2x1 1x3", "1x4"}, {"1x2 4x2", "2x2 2x2"}, {"1x4", "4x4"}};
enum { CUTS = sizeof cut / sizeof cut[0] };

/* A run in one process is the shelf on which rank 0 lays everything, and from which it takes it. */
struct shelf {
    struct at_local *l;
    bool load;
    int rounds;  /* to do, before everything is laid down, or after it was taken */
    bool forget; /* nothing of what replicas keep is taken */
};

static real *public_at(struct at_local *l, int part, const struct at_block *b)
{
    const struct at_params *p = &l->model->params;
    if (part == AT_PART_STATS) return l->state.stats + at_block_stats_offset(p, (int)(b - p->block));
    return (part == AT_PART_WEIGHTS ? l->state.theta : l->state.momentum) + b->offset;
}

static at_err move_public(struct shelf *s, struct at_rank *r, int rank, struct at_diag *diag)
{
    const struct at_params *p = &s->l->model->params;
    at_err_t err = AT_OK;
    for (int part = 0; part < (s->l->state.momentum != NULL ? AT_PARTS : AT_PART_MOMENTUM); part++)
        for (int b = 0; b < p->blocks && err == AT_OK; b++) {
            int tensor = p->block[b].tensor, slot = p->block[b].slot;
            real *at = rank == 0 ? public_at(s->l, part, &p->block[b]) : NULL;
            err = s->load ? at_rank_store(r, part, tensor, slot, at, diag)
                          : at_rank_fetch(r, part, tensor, slot, at, diag);
        }
    return err;
}

static at_err move_own(struct shelf *s, struct at_rank *r, int rank, struct at_diag *diag)
{
    const struct at_params *p = &s->l->model->params;
    bool has[AT_OWN_PARTS] = {s->l->replica[0].feedback != NULL, s->l->stats_before != NULL,
                              s->l->stats_before != NULL};
    at_err_t err = AT_OK;
    for (int i = 0; i < REPLICAS; i++)
        for (int part = 0; part < AT_OWN_PARTS; part++)
            for (int b = 0; has[part] && b < p->blocks && err == AT_OK; b++) {
                int tensor = p->block[b].tensor, slot = p->block[b].slot;
                real *at = rank == 0 ? at_local_own(s->l, i, part, tensor, slot) : NULL;
                err = s->load ? at_rank_store_own(r, i, part, tensor, slot, at, diag)
                              : at_rank_fetch_own(r, i, part, tensor, slot, at, diag);
            }
    if (s->load && has[AT_OWN_WEIGHTS] && err == AT_OK) at_rank_set_started(r);
    return err;
}

static at_err do_rounds(struct split_job *j, struct at_rank *r, int rank, uint32_t first, uint32_t n)
{
    struct at_round round = {0};
    at_err_t err = AT_OK;
    for (uint32_t t = 0; t < first + n && err == AT_OK; t++) {
        round = at_outer_round(&j->outer, &j->run->config, t == 0 ? NULL : &round);
        if (t >= first) err = at_rank_round(r, &round, NULL, NULL, &j->diag[rank], &j->report[rank]);
    }
    return err == AT_OK ? at_rank_join(r, &j->diag[rank], &j->report[rank]) : err;
}

static void body(struct split_job *j, struct at_rank *r, int rank)
{
    struct shelf *s = j->arg;
    uint32_t first = s->load ? s->l->state.round : 0;
    at_err_t err = AT_OK;
    if (s->load) {
        err = move_public(s, r, rank, &j->diag[rank]);
        if (err == AT_OK && !s->forget) err = move_own(s, r, rank, &j->diag[rank]);
        at_rank_set_round(r, first);
    }
    if (err == AT_OK) err = do_rounds(j, r, rank, first, (uint32_t)s->rounds);
    if (!s->load && err == AT_OK) err = move_public(s, r, rank, &j->diag[rank]);
    if (!s->load && err == AT_OK) err = move_own(s, r, rank, &j->diag[rank]);
    if (err == AT_OK) err = at_rank_root(r, &j->diag[rank], &j->root[rank]);
    j->err[rank] = err;
}

static struct at_hash split(const struct test_run *run, const struct kind *k, int c, struct shelf *shelf)
{
    struct split_job j = {.run = run, .body = body, .arg = shelf};
    at_outer_config_default(&j.outer, k->kind);
    j.outer.tau = k->tau;
    assert_true(split_plan(&j.plan, cut[c], REPLICAS, 2));
    const char *misuse = split_run(&net, &j);
    assert_null(misuse);
    for (int i = 0; i < j.plan.ranks; i++) assert_int_equal(j.err[i], AT_OK);
    at_plan_release(&j.plan);
    return j.root[0];
}

static void start(struct test_run *run, const struct kind *k, struct at_local *l)
{
    struct at_outer_config outer;
    at_outer_config_default(&outer, k->kind);
    outer.tau = k->tau;
    struct at_local_options o = {.replicas = REPLICAS, .outer = &outer};
    assert_int_equal(at_local_init_options(l, &run->m, &run->data, &run->config, &o, NULL), AT_OK);
}

static void rounds(struct test_run *run, struct at_local *l, int n)
{
    double loss;
    for (int i = 0; i < n; i++) assert_int_equal(at_local_round(l, &run->ex, NULL, NULL, NULL, &loss), AT_OK);
}

static struct at_hash root_of(const struct at_local *l)
{
    struct at_hash root;
    assert_int_equal(at_state_root(&l->state, NULL, &root), AT_OK);
    return root;
}

/* Two rounds under one cut, then two under each of the others, and in one process. */
static void moves_from(struct test_run *run, const struct kind *kind, int c, struct at_hash want)
{
    struct at_local l;
    start(run, kind, &l);
    at_local_start(&l);
    struct shelf s = {.l = &l, .rounds = 2};
    (void)split(run, kind, c, &s);
    l.state.round = 2;
    s.load = true;
    for (int to = 0; to < CUTS; to++) {
        if (to == c) continue;
        struct at_hash got = split(run, kind, to, &s);
        assert_memory_equal(&got, &want, sizeof want);
    }
    s.forget = true; /* without it, it is another run */
    struct at_hash other = split(run, kind, c, &s);
    assert_memory_not_equal(&other, &want, sizeof want);
    struct at_round last = at_outer_round(&l.outer, &run->config, NULL);
    last = at_outer_round(&l.outer, &run->config, &last);
    l.samples.next = 2 * REPLICAS * (uint64_t)run->config.steps * run->config.batch;
    assert_int_equal(at_local_resume(&l, &last, last.steps, &l.samples, 0), AT_OK);
    rounds(run, &l, ROUNDS - 2);
    struct at_hash alone = root_of(&l);
    assert_memory_equal(&alone, &want, sizeof want);
    at_local_release(&l);
}

static void from_any_cut_to_any_other(void **state)
{
    struct test_run run;
    assert_true(test_run_init(&run, &shape));
    for (int k = 0; k < KINDS; k++) {
        struct at_local whole;
        start(&run, &kinds[k], &whole);
        rounds(&run, &whole, ROUNDS);
        moves_from(&run, &kinds[k], k % CUTS, root_of(&whole));
        at_local_release(&whole);
    }
    test_run_release(&run);
}

/* Before the first round: the state's weights, which change nothing. */
static void at_the_first_round_own_weights_are_the_states(void **state)
{
    struct test_run run;
    struct at_local l;
    assert_true(test_run_init(&run, &shape));
    start(&run, &kinds[2], &l);
    struct shelf s = {.l = &l, .rounds = 0};
    at_local_start(&l);
    (void)split(&run, &kinds[2], 1, &s);
    assert_memory_equal(l.replica[1].theta, l.state.theta, run.m.params.count * sizeof(real));
    assert_memory_equal(l.stats_before, l.state.stats, at_stats_count(&run.m.params) * sizeof(real));
    at_local_release(&l);
    test_run_release(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(from_any_cut_to_any_other),
        cmocka_unit_test(at_the_first_round_own_weights_are_the_states),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
