/* What a rank does besides undisturbed rounds: ends early, fails, hands its state out and takes one in. */
#include "parallel/rank.h"

#include "parallel/rank_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static struct test_net net;
static const struct at_model_config shape = TEST_SHAPE(4, 16, 8, 8, 24, 8, 257, true);

static void start(struct test_run *run, struct split_job *j, const char *const *cut, int replicas)
{
    assert_true(test_run_init(run, &shape));
    *j = (struct split_job){.run = run, .rounds = 1};
    assert_true(split_plan(&j->plan, cut, replicas, 2));
    at_outer_config_default(&j->outer, AT_OUTER_MEAN);
}

static void run_clean(struct split_job *j)
{
    const char *misuse = split_run(&net, j);
    if (misuse != NULL) print_error("%s\n", misuse);
    assert_null(misuse);
}

static void stop(struct test_run *run, struct split_job *j)
{
    at_plan_release(&j->plan);
    test_run_release(run);
}

/* ---- units that end early ---- */

struct stopper {
    uint32_t after; /* steps, in the first round; 0: never */
    bool always;    /* in every round */
    int rounds;     /* seen */
};

static bool stop_after(void *arg, const struct at_unit_progress *p)
{
    struct stopper *s = arg;
    if (p->step == 1) s->rounds++;
    return s->after == 0 || (s->rounds > 1 && !s->always) || p->step < s->after;
}

/* arg: struct stopper[ranks]. */
static void stopped_round(struct split_job *j, struct at_rank *r, int rank)
{
    struct stopper *s = j->arg;
    struct at_round round = {0};
    for (int t = 0; j->err[rank] == AT_OK && t < j->rounds; t++) {
        round = at_outer_round(&j->outer, &j->run->config, t == 0 ? NULL : &round);
        j->err[rank] = at_rank_round(r, &round, stop_after, &s[rank], &j->diag[rank], &j->report[rank]);
        if (j->outer.tau == 0) round.steps = j->report[rank].steps;
    }
    if (j->err[rank] == AT_OK) j->err[rank] = split_join(j, r, rank);
    if (j->err[rank] == AT_OK) j->err[rank] = at_rank_root(r, &j->diag[rank], &j->root[rank]);
}

/* Three steps, then two, two, two. */
static struct at_round shrinking_round(const struct test_run *run, uint32_t t)
{
    return at_round_mean(t, t == 0 ? run->config.steps : 2, t == 0 ? 0 : run->config.steps + 2 * (t - 1));
}

static void shrinking_rounds(struct split_job *j, struct at_rank *r, int rank)
{
    struct stopper *s = j->arg;
    for (int t = 0; j->err[rank] == AT_OK && t < j->rounds; t++) {
        struct at_round round = shrinking_round(j->run, (uint32_t)t);
        j->err[rank] = at_rank_round(r, &round, stop_after, &s[rank], &j->diag[rank], &j->report[rank]);
    }
    if (j->err[rank] == AT_OK) j->err[rank] = at_rank_root(r, &j->diag[rank], &j->root[rank]);
}

struct local_stopper {
    struct at_local *l;
    bool over;
};

static bool end_replica_1(void *arg, int replica, const struct at_unit_progress *p)
{
    struct local_stopper *s = arg;
    if (replica == 1 && !s->over) s->l->end_unit = s->over = true;
    return true;
}

/* The leader of replica 1 (rank 2) wants one step only, once; what others answer does not count. What its unit left
 * over is trained on in the next round, as in one process. */
static void a_leader_ends_its_unit(void **state)
{
    static const char *const cut[] = {"1x1 1x3", "2x1 1x3"};
    struct test_run run;
    struct split_job j;
    struct at_local l;
    struct local_stopper end = {&l, false};
    struct at_hash want;
    double loss;
    start(&run, &j, cut, 2);
    j.rounds = 4;
    assert_int_equal(at_local_init(&l, &run.m, &run.data, &run.config, 2, 0, NULL), AT_OK);
    for (int t = 0; t < j.rounds; t++) {
        struct at_round round = shrinking_round(&run, (uint32_t)t);
        assert_int_equal(at_local_do(&l, &run.ex, &round, end_replica_1, &end, NULL, &loss), AT_OK);
        if (t == 1) assert_int_equal(l.replica[0].info.start, 16); /* the rest of [12, 24) */
    }
    assert_int_equal(at_state_root(&l.state, NULL, &want), AT_OK);
    struct stopper s[5] = {{.after = 0}, {.after = 2}, {.after = 1}};
    j.body = shrinking_rounds;
    j.arg = s;
    run_clean(&j);
    for (int i = 0; i < j.plan.ranks; i++) {
        assert_int_equal(j.err[i], AT_OK);
        assert_memory_equal(&j.root[i], &want, sizeof want);
        assert_memory_equal(&j.report[i].loss_mean, &loss, sizeof loss);
    }
    at_local_release(&l);
    stop(&run, &j);
}

/* Rank 0 wants to end: its own replica does after that step, the others when the word reaches them; with overlap in the
 * second round, too, whose first steps run while the first round's word may still be under way. */
static void rank_0_ends_the_round(void **state)
{
    static const char *const cut[] = {"2x4", "1x4", "1x2 1x2"};
    for (uint32_t tau = 0; tau <= 2; tau++) {
        struct test_run run;
        struct split_job j;
        start(&run, &j, cut, 3);
        run.config.steps = 60;
        j.outer.tau = tau;
        j.rounds = 2;
        struct stopper s[5] = {{.after = 1, .always = true}};
        j.body = stopped_round;
        j.arg = s;
        run_clean(&j);
        for (int i = 0; i < j.plan.ranks; i++) {
            assert_int_equal(j.err[i], AT_OK);
            assert_memory_equal(&j.root[i], &j.root[0], sizeof j.root[0]);
            assert_true(j.report[i].tokens < 3 * 60 * run.config.batch * shape.seq_len);
        }
        stop(&run, &j);
    }
}

/* ---- failure ---- */

struct poison {
    int rank;
    real value;
};

/* One weight of one rank becomes `value` before the second round. */
static void poisoned_round(struct split_job *j, struct at_rank *r, int rank)
{
    const struct poison *p = j->arg;
    struct at_round round = at_outer_round(&j->outer, &j->run->config, NULL);
    j->err[rank] = at_rank_round(r, &round, NULL, NULL, &j->diag[rank], &j->report[rank]);
    if (j->err[rank] != AT_OK) return;
    const struct at_state *s = at_rank_state(r);
    if (rank == p->rank) s->theta[s->params->count / 2] = p->value;
    round = at_outer_round(&j->outer, &j->run->config, &round);
    j->err[rank] = at_rank_round(r, &round, NULL, NULL, &j->diag[rank], &j->report[rank]);
    struct at_hash root; /* the run has ended: everything says so, in the same words */
    struct at_diag again = {0};
    double loss;
    if (at_rank_root(r, &again, &root) != j->err[rank] || strcmp(again.text, j->diag[rank].text) != 0 ||
        at_rank_heldout(r, NULL, &loss) != j->err[rank] || at_rank_broadcast(r, &root, 32, NULL) != j->err[rank])
        j->err[rank] = AT_E_INTERNAL;
}

static void not_finite_anywhere_is_told_everywhere(void **state)
{
    static const char *const cuts[][2] = {
        {"2x2 1x2", NULL}, {"1x1 1x1 1x2", NULL}, {"4x4", NULL}, {"1x2 1x2", "2x4"}, {"1x4", "1x4"}};
    for (size_t c = 0; c < sizeof cuts / sizeof cuts[0]; c++)
        for (int rank = 0; rank < 4; rank++) {
            struct test_run run;
            struct split_job j;
            start(&run, &j, cuts[c], cuts[c][1] != NULL ? 2 : 1);
            struct poison p = {rank % j.plan.ranks, rank % 2 == 0 ? (real)NAN : (real)INFINITY};
            j.body = poisoned_round;
            j.arg = &p;
            run_clean(&j);
            for (int i = 0; i < j.plan.ranks; i++) {
                assert_int_equal(j.err[i], AT_E_NONFINITE);
                assert_int_equal(j.diag[i].err, AT_E_NONFINITE);
                assert_string_equal(j.diag[i].where, j.diag[0].where);
                assert_string_equal(j.diag[i].text, j.diag[0].text);
                assert_true(j.diag[i].text[0] != '\0');
            }
            stop(&run, &j);
        }
}

/* A replica whose weights are other bits than those of the others: no root. */
static void split_brain(struct split_job *j, struct at_rank *r, int rank)
{
    const struct at_state *s = at_rank_state(r);
    if (rank == 2) s->theta[3] += 1;
    j->err[rank] = at_rank_root(r, &j->diag[rank], &j->root[rank]);
}

static void replicas_that_differ_have_no_root(void **state)
{
    static const char *const cut[] = {"1x4", "2x4"};
    struct test_run run;
    struct split_job j;
    start(&run, &j, cut, 2);
    j.body = split_brain;
    run_clean(&j);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(j.err[i], AT_E_VERIFY);
        assert_non_null(strstr(j.diag[i].text, "replica 1"));
    }
    stop(&run, &j);
}

/* ---- checkpoints ---- */

struct shelf { /* one value per element of the parts of a whole state */
    struct at_state state;
    bool store;
};

static void move_blocks(struct split_job *j, struct at_rank *r, int rank)
{
    struct shelf *shelf = j->arg;
    const struct at_params *p = &j->run->m.params;
    struct at_round round = {0};
    at_err_t err = AT_OK;
    if (!shelf->store) split_rounds(j, r, rank), err = j->err[rank];
    for (int part = 0; part < (shelf->state.momentum != NULL ? 3 : 2); part++)
        for (int b = 0; err == AT_OK && b < p->blocks; b++) {
            int tensor = p->block[b].tensor, slot = p->block[b].slot;
            real *at = part == 0   ? shelf->state.theta + p->block[b].offset
                       : part == 1 ? shelf->state.stats + at_block_stats_offset(p, b)
                                   : shelf->state.momentum + p->block[b].offset;
            if (shelf->store)
                err = at_rank_store(r, part, tensor, slot, rank == 0 ? at : NULL, &j->diag[rank]);
            else
                err = at_rank_fetch(r, part, tensor, slot, rank == 0 ? at : NULL, &j->diag[rank]);
        }
    if (shelf->store && err == AT_OK) {
        at_rank_set_round(r, shelf->state.round);
        err = at_rank_root(r, &j->diag[rank], &j->root[rank]);
        round = at_outer_round(&j->outer, &j->run->config, NULL);
        for (uint32_t t = 0; t < shelf->state.round; t++) round = at_outer_round(&j->outer, &j->run->config, &round);
        if (err == AT_OK && round.round != shelf->state.round) err = AT_E_INTERNAL;
        if (err == AT_OK) err = at_rank_round(r, &round, NULL, NULL, &j->diag[rank], &j->report[rank]);
        if (err == AT_OK) err = at_rank_heldout(r, &j->diag[rank], &j->heldout[rank]);
    }
    j->err[rank] = err;
}

/* Two rounds under one cut, the state moved over, the third under another: the same as three under one. */
static void a_state_moves_between_cuts(void **state)
{
    static const char *const cut[][2] = {{"2x1 1x3", "1x4"}, {"1x2 4x2", "2x2 2x2"}};
    for (int momentum = 0; momentum < 2; momentum++) {
        struct test_run run;
        struct split_job a, b, whole;
        struct shelf shelf = {.store = false};
        start(&run, &a, cut[0], 2);
        a.outer.momentum = 0.5 * momentum;
        a.rounds = 2;
        a.body = move_blocks;
        a.arg = &shelf;
        assert_int_equal(at_state_init(&shelf.state, &run.m.params), AT_OK);
        if (at_outer_config_momentum(&a.outer)) assert_int_equal(at_state_add_momentum(&shelf.state), AT_OK);
        run_clean(&a);
        for (int i = 0; i < a.plan.ranks; i++) assert_int_equal(a.err[i], AT_OK);
        shelf.state.round = 2;
        struct at_hash root;
        assert_int_equal(at_state_root(&shelf.state, NULL, &root), AT_OK);
        assert_memory_equal(&root, &a.root[0], sizeof root);

        shelf.store = true;
        b = a;
        assert_true(split_plan(&b.plan, cut[1], 2, 1));
        run_clean(&b);
        whole = a;
        whole.rounds = 3;
        whole.body = split_rounds;
        run_clean(&whole);
        for (int i = 0; i < b.plan.ranks; i++) {
            assert_int_equal(b.err[i], AT_OK);
            assert_memory_equal(&b.root[i], &root, sizeof root);
            assert_memory_equal(&b.heldout[i], &whole.heldout[0], sizeof b.heldout[0]);
        }
        at_state_release(&shelf.state);
        at_plan_release(&b.plan);
        stop(&run, &a);
    }
}

/* Released while a round is under way, with overlap: nobody is left waiting, and nothing is left behind. */
static void left_without_join(struct split_job *j, struct at_rank *r, int rank)
{
    struct at_round round = at_outer_round(&j->outer, &j->run->config, NULL);
    j->err[rank] = at_rank_round(r, &round, NULL, NULL, &j->diag[rank], &j->report[rank]);
    if (j->err[rank] == AT_OK && j->report[rank].applied) j->err[rank] = AT_E_INTERNAL;
}

static void release_waits_for_what_is_under_way(void **state)
{
    static const char *const cut[] = {"1x4", "1x2 2x2"};
    struct test_run run;
    struct split_job j;
    start(&run, &j, cut, 2);
    j.outer.tau = 1;
    j.body = left_without_join;
    run_clean(&j);
    for (int i = 0; i < j.plan.ranks; i++) assert_int_equal(j.err[i], AT_OK);
    stop(&run, &j);
}

/* Clipping needs whole updates: what goes in fragments has no norm before its end. And there is room for the k of the
 * run's settings only. */
static void impossible_round(struct split_job *j, struct at_rank *r, int rank)
{
    struct at_round round = at_outer_round(&j->outer, &j->run->config, NULL);
    if (round.k != 0)
        round.k++;
    else
        round.clip = 1;
    j->err[rank] = at_rank_round(r, &round, NULL, NULL, &j->diag[rank], &j->report[rank]);
}

static void rounds_that_there_is_no_room_for(void **state)
{
    static const char *const cut[] = {"1x4", "1x2 2x2"};
    for (int sparse = 0; sparse < 2; sparse++) {
        struct test_run run;
        struct split_job j;
        start(&run, &j, cut, 2);
        if (sparse) at_outer_config_default(&j.outer, AT_OUTER_SPARSE);
        if (sparse) j.outer.dense_fraction = 0;
        j.body = impossible_round;
        run_clean(&j);
        for (int i = 0; i < j.plan.ranks; i++) {
            assert_int_equal(j.err[i], AT_E_DATA);
            assert_non_null(strstr(j.diag[i].text, sparse ? "in this run at most 60" : "clipping needs whole updates"));
        }
        stop(&run, &j);
    }
}

/* With overlap a report is of the round before, while losses of the next one arrive. */
enum { LATE_ROUNDS = 4 };

static void late_rounds(struct split_job *j, struct at_rank *r, int rank)
{
    const double *want = j->arg;
    struct at_round round;
    for (int t = 0; j->err[rank] == AT_OK && t < LATE_ROUNDS; t++) {
        round = at_outer_round(&j->outer, &j->run->config, t == 0 ? NULL : &round);
        j->err[rank] = at_rank_round(r, &round, NULL, NULL, &j->diag[rank], &j->report[rank]);
        const struct at_rank_report *said = &j->report[rank];
        if (j->err[rank] == AT_OK && said->applied != (t > 0)) j->err[rank] = AT_E_INTERNAL;
        if (j->err[rank] == AT_OK && t > 0 && (said->round != (uint32_t)t - 1 || said->loss_mean != want[t - 1]))
            j->err[rank] = AT_E_INTERNAL;
    }
    if (j->err[rank] == AT_OK) j->err[rank] = at_rank_join(r, &j->diag[rank], &j->report[rank]);
    if (j->err[rank] == AT_OK && j->report[rank].loss_mean != want[LATE_ROUNDS - 1]) j->err[rank] = AT_E_INTERNAL;
}

static void a_late_report_has_its_own_rounds_loss(void **state)
{
    static const char *const cut[] = {"1x4", "1x2 2x2"};
    struct test_run run;
    struct split_job j;
    struct at_local l;
    double want[LATE_ROUNDS];
    start(&run, &j, cut, 2);
    j.outer.tau = 1;
    struct at_local_options o = {.replicas = 2, .outer = &j.outer};
    assert_int_equal(at_local_init_options(&l, &run.m, &run.data, &run.config, &o, NULL), AT_OK);
    for (int t = 0; t < LATE_ROUNDS; t++)
        assert_int_equal(at_local_round(&l, &run.ex, NULL, NULL, NULL, &want[t]), AT_OK);
    j.body = late_rounds;
    j.arg = want;
    run_clean(&j);
    for (int i = 0; i < j.plan.ranks; i++) assert_int_equal(j.err[i], AT_OK);
    at_local_release(&l);
    stop(&run, &j);
}

/* ---- data ---- */

static void shifted_round(struct split_job *j, struct at_rank *r, int rank)
{
    uint64_t start[2] = {100, 4};
    struct at_round round = at_outer_round(&j->outer, &j->run->config, NULL);
    at_rank_set_starts(r, start);
    j->err[rank] = at_rank_round(r, &round, NULL, NULL, &j->diag[rank], &j->report[rank]);
    for (int i = 0; i < 2; i++) {
        const struct at_update_info *info = at_rank_consumed(r, i);
        if (info->start != start[i] || info->steps != j->run->config.steps ||
            info->samples != info->steps * j->run->config.batch || info->round != 0)
            j->err[rank] = AT_E_INTERNAL;
    }
}

static void ranges_are_the_callers(void **state)
{
    static const char *const cut[] = {"1x4", "1x2 2x2"};
    struct test_run run;
    struct split_job j;
    start(&run, &j, cut, 2);
    j.body = shifted_round;
    run_clean(&j);
    for (int i = 0; i < j.plan.ranks; i++) assert_int_equal(j.err[i], AT_OK);
    stop(&run, &j);
}

/* The ranks of replica 1 take other samples than rank 0 says, in every round or in the second. */
static void greedy_rounds(struct split_job *j, struct at_rank *r, int rank)
{
    const uint32_t *from = j->arg;
    struct at_round round;
    for (uint32_t t = 0; j->err[rank] == AT_OK && t < 2; t++) {
        uint64_t start[2] = {100 + 50 * t, 200 + 50 * t};
        if (rank > 0 && t >= *from) start[1] += j->run->config.batch;
        round = at_outer_round(&j->outer, &j->run->config, t == 0 ? NULL : &round);
        at_rank_set_starts(r, start);
        j->err[rank] = at_rank_round(r, &round, NULL, NULL, &j->diag[rank], &j->report[rank]);
    }
    if (j->err[rank] == AT_OK) j->err[rank] = split_join(j, r, rank);
    if (j->err[rank] == AT_OK)
        j->err[rank] = at_rank_root(r, &j->diag[rank], &j->root[rank]); /* who lied sees it here */
}

static void a_unit_of_other_samples_is_refused(void **state)
{
    static const char *const cut[] = {"1x4", "1x2 2x2"};
    for (uint32_t i = 0; i < 4; i++) {
        struct test_run run;
        struct split_job j;
        uint32_t from = i % 2;
        start(&run, &j, cut, 2);
        j.outer.tau = i / 2; /* with overlap another round has begun when it is seen */
        j.body = greedy_rounds;
        j.arg = &from;
        run_clean(&j);
        for (int k = 0; k < j.plan.ranks; k++) {
            assert_int_equal(j.err[k], AT_E_PEER);
            assert_non_null(strstr(j.diag[k].text, "other samples"));
        }
        stop(&run, &j);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_leader_ends_its_unit),
        cmocka_unit_test(rank_0_ends_the_round),
        cmocka_unit_test(not_finite_anywhere_is_told_everywhere),
        cmocka_unit_test(replicas_that_differ_have_no_root),
        cmocka_unit_test(a_state_moves_between_cuts),
        cmocka_unit_test(release_waits_for_what_is_under_way),
        cmocka_unit_test(rounds_that_there_is_no_room_for),
        cmocka_unit_test(a_late_report_has_its_own_rounds_loss),
        cmocka_unit_test(ranges_are_the_callers),
        cmocka_unit_test(a_unit_of_other_samples_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
