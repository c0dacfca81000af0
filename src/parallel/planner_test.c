/* The planner against every plan there is, on small random networks; what it says when a model does not fit; a thousand
 * nodes; and its model of a step against an independent one. */
#include "parallel/planner.h"

#include "base/rng.h"
#include "parallel/plan_brute.h"
#include "parallel/plan_explain.h"
#include "parallel/rank.h"
#include "parallel/schedule.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ATOLL_PLAN_CASES=200 tries all of the set; the unit test must also end soon under the sanitizers. */
static int cases_wanted(void)
{
    const char *text = getenv("ATOLL_PLAN_CASES");
    int n = text != NULL ? atoi(text) : 0;
    return n >= 1 && n <= 100000 ? n : 32;
}

struct dice {
    uint64_t seed, at;
};
static double unit(struct dice *d)
{
    struct at_philox p = at_philox(d->seed, AT_RNG_TEST, 0, d->at++);
    return at_rng_unit(p.v[0], p.v[1]);
}
static int pick(struct dice *d, int n)
{
    return (int)(unit(d) * n);
}

static const struct at_preset *preset(const char *name)
{
    const struct at_preset *p;
    assert_int_equal(at_preset_find(name, NULL, &p), AT_OK);
    return p;
}

struct problem {
    struct at_model_config model;
    struct at_train_config train;
    struct at_plan_nodes nodes;
    struct at_planner_options options;
};

static void random_model(struct dice *d, struct problem *p)
{
    static const uint32_t width[] = {256, 512, 1024}, kv[] = {8, 4, 2};
    p->model =
        (struct at_model_config){.layers = 2 + (uint32_t)pick(d, 5), .heads = 8, .rope_theta = 1e4, .norm_eps = 1e-5};
    p->model.d_model = width[pick(d, 3)];
    p->model.kv_heads = kv[pick(d, 3)];
    p->model.seq_len = pick(d, 2) != 0 ? 128 : 256;
    p->model.vocab = pick(d, 2) != 0 ? 256 : 16384;
    p->model.tied = pick(d, 2) != 0;
    p->model.head_size = p->model.d_model / 8;
    p->model.d_ff = p->model.d_model * 3;
    assert_int_equal(at_model_config_check(&p->model, NULL), AT_OK);
    p->train = preset("10m")->train;
    p->train.batch = 1u << pick(d, 4);
    p->train.steps = 10 + (uint32_t)pick(d, 40);
}

/* Up to three sites; speeds a factor of thirty apart; half of the networks are short of memory. */
static void random_nodes(struct dice *d, struct problem *p)
{
    int n = 2 + pick(d, BRUTE_NODES - 1), sites = 1 + pick(d, 3);
    double need = (double)at_model_params(&p->model) * 31 + 60e6;
    bool tight = pick(d, 2) != 0;
    assert_int_equal(at_plan_nodes_alloc(&p->nodes, n, (size_t)(n * n), NULL), AT_OK);
    for (int i = 0; i < n; i++) {
        struct at_plan_node *x = &p->nodes.node[i];
        snprintf(x->name, sizeof x->name, "n%d", i);
        snprintf(x->site, sizeof x->site, "s%d", pick(d, sites));
        double fast = unit(d);
        x->gflops = 3 * (1 + fast * fast * 30);
        x->memory_bytes = (uint64_t)(need * (tight ? 0.25 + unit(d) : 1 + 3 * unit(d)));
    }
    p->nodes.within_site = (struct at_link){.rtt_ms = 0.05 + unit(d) * 0.6, .mbit_s = 1000 * (1 + unit(d) * 24)};
    p->nodes.elsewhere = (struct at_link){.rtt_ms = 2 + unit(d) * 60, .mbit_s = 10 * (1 + unit(d) * 99)};
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++)
            if (pick(d, 4) == 0)
                p->nodes.link[p->nodes.links++] = (struct at_plan_link){
                    .from = i, .to = j, .link = {.rtt_ms = unit(d) * 60, .mbit_s = 10 + unit(d) * 3000}};
    assert_int_equal(at_plan_nodes_index(&p->nodes, NULL), AT_OK);
}

static void random_problem(uint64_t seed, struct problem *p)
{
    struct dice d = {.seed = seed};
    random_model(&d, p);
    random_nodes(&d, p);
    at_planner_options_default(&p->options, "model", &p->model, &p->train);
    p->options.exchange.bytes_per_param = pick(&d, 2) != 0 ? 4 : 0.03;
    if (pick(&d, 2) != 0) p->options.exchange.steps_min = 1 + p->train.steps / 8;
    if (pick(&d, 3) == 0) p->options.replicas = 1 + pick(&d, p->nodes.count);
    if (pick(&d, 2) != 0) p->options.microbatches = 1 + pick(&d, (int)p->train.batch);
    p->options.recompute = pick(&d, 3) - 1;
}

static double brute(const struct problem *p)
{
    struct at_chain_world w;
    int count[AT_PLANNER_COUNTS] = {p->options.microbatches};
    int counts = p->options.microbatches != 0 ? 1 : at_planner_counts(p->train.batch, 2, count);
    double best = 0;
    assert_int_equal(at_chain_world_init(&w, &p->nodes, NULL), AT_OK);
    for (int i = 0; i < counts; i++)
        for (int again = 0; again <= 1; again++) {
            if (p->options.recompute >= 0 && p->options.recompute != again) continue;
            at_cost_init(&w.cost, &p->model, p->train.batch, count[i], &p->options.exchange, again);
            for (int r = 1; r <= p->nodes.count; r++) { /* memory depends on how many replicas there are */
                if (p->options.replicas != 0 && p->options.replicas != r) continue;
                w.cost.replicas = r;
                double v = brute_best(&w, r);
                best = v > best ? v : best;
            }
        }
    at_chain_world_release(&w);
    return best;
}

/* A plan is what it claims: it passes the check, TP only within 1 ms, no node twice, memory kept, and the prediction for
 * it, made anew, is the same. */
static void check_plan(const struct problem *p, const struct at_plan *plan, const struct at_planner_report *r)
{
    struct at_planner_report again;
    struct at_planner_options o = p->options;
    assert_int_equal(at_plan_check(plan, &p->model, p->train.batch, NULL), AT_OK);
    o.recompute = r->recompute;
    assert_int_equal(at_planner_predict(&o, &p->nodes, plan, NULL, &again), AT_OK);
    assert_true(fabs(again.tokens_per_s - r->tokens_per_s) <= 1e-9 * r->tokens_per_s);
    for (int a = 0; a < plan->ranks; a++) {
        assert_true(r->rank[a].bytes <= (double)p->nodes.node[plan->node[a]].memory_bytes);
        assert_true(r->rank[a].busy > 0 && r->rank[a].busy <= 1 + 1e-9);
        struct at_place x = at_plan_place(plan, a);
        for (int b = 0; b < a; b++) {
            struct at_place y = at_plan_place(plan, b);
            assert_true(plan->node[a] != plan->node[b]);
            if (x.replica == y.replica && x.stage == y.stage)
                assert_true(at_plan_link_worse(&p->nodes, plan->node[a], plan->node[b]).rtt_ms <= 1.0);
        }
    }
    assert_int_equal(plan->ranks + r->spares, p->nodes.count);
    for (int i = 0; i < r->spares; i++) assert_true(r->spare_why[i].s[0] != '\0');
    assert_true(r->whys >= 2);
    at_planner_report_release(&again);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void test_against_brute_force(void **state)
{
    int cases = cases_wanted(), possible = 0;
    double *quality = calloc((size_t)cases, sizeof *quality);
    assert_non_null(quality);
    for (int i = 0; i < cases; i++) {
        struct problem p;
        struct at_plan plan;
        struct at_planner_report r;
        struct at_diag diag = {0};
        random_problem((uint64_t)i + 1, &p);
        double best = brute(&p);
        at_err_t err = at_planner_make(&p.options, &p.nodes, &diag, &plan, &r);
        assert_int_equal(err, best > 0 ? AT_OK : AT_E_USAGE);
        if (err == AT_OK) {
            quality[possible++] = r.tokens_per_s / best;
            check_plan(&p, &plan, &r);
            at_plan_release(&plan);
            at_planner_report_release(&r);
        } else {
            assert_true(diag.text[0] != '\0');
        }
        at_plan_nodes_release(&p.nodes);
    }
    qsort(quality, (size_t)possible, sizeof *quality, by_value);
    print_message("%d cases, %d possible; share of the best plan's tokens/s: worst %.4f, p5 %.4f, median %.4f\n", cases,
                  possible, quality[0], quality[possible / 20], quality[possible / 2]);
    assert_true(quality[0] >= 0.95);
    assert_true(quality[possible - 1] <= 1 + 1e-9); /* else brute force missed something */
    free(quality);
}

/* The step, event by event, from the order of turns alone. */
static double naive_step(const struct at_cost *cost, const struct at_chain *c)
{
    int P = c->stages, M = cost->microbatches, next[8] = {0}, left = 2 * M * P;
    static double forward[8][64], backward[8][64];
    double busy[8] = {0}, end = 0;
    for (int s = 0; s < P; s++)
        for (int m = 0; m < M; m++) forward[s][m] = backward[s][m] = -1;
    while (left > 0)
        for (int s = 0; s < P; s++) {
            if (next[s] == 2 * M) continue;
            struct at_turn t = at_schedule_turn(s, P, M, next[s]);
            double ready = 0;
            if (t.forward && s > 0)
                ready = forward[s - 1][t.microbatch] < 0 ? -1 : forward[s - 1][t.microbatch] + c->stage[s - 1].next_s;
            if (!t.forward && s < P - 1)
                ready = backward[s + 1][t.microbatch] < 0 ? -1 : backward[s + 1][t.microbatch] + c->stage[s].back_s;
            if (ready < 0) continue;
            busy[s] =
                (ready > busy[s] ? ready : busy[s]) + (t.forward ? c->stage[s].forward_s : c->stage[s].backward_s);
            if (t.forward)
                forward[s][t.microbatch] = busy[s];
            else
                backward[s][t.microbatch] = busy[s];
            if (busy[s] > end) end = busy[s];
            next[s]++;
            left--;
        }
    return end;
}

static void test_step_is_the_schedule(void **state)
{
    struct dice d = {.seed = 77};
    struct at_chain_stage stage[8];
    for (int i = 0; i < 300; i++) {
        struct at_cost cost = {.microbatches = 1 + pick(&d, 20)};
        struct at_chain c = {.stages = 1 + pick(&d, 8), .stages_max = 8, .stage = stage};
        for (int s = 0; s < 8; s++)
            stage[s] = (struct at_chain_stage){
                .forward_s = unit(&d), .backward_s = unit(&d), .next_s = unit(&d), .back_s = unit(&d)};
        assert_true(fabs(at_chain_play(&cost, &c) - naive_step(&cost, &c)) < 1e-9);
    }
}

static void make_nodes(struct at_plan_nodes *n, int count, double gflops, double bytes, const char *site)
{
    assert_int_equal(at_plan_nodes_alloc(n, count, 0, NULL), AT_OK);
    for (int i = 0; i < count; i++) {
        snprintf(n->node[i].name, sizeof n->node[i].name, "node%d", i);
        snprintf(n->node[i].site, sizeof n->node[i].site, "%s", site);
        n->node[i].gflops = gflops;
        n->node[i].memory_bytes = (uint64_t)bytes;
    }
    assert_int_equal(at_plan_nodes_index(n, NULL), AT_OK);
}

static void test_infeasible_is_explained(void **state)
{
    const struct at_preset *p = preset("7b");
    struct at_plan_nodes n;
    struct at_planner_options o;
    struct at_plan plan;
    struct at_planner_report r;
    struct at_diag diag = {0};
    make_nodes(&n, 6, 100, 13e9, "");
    at_planner_options_default(&o, "7b", &p->model, &p->train);
    o.exchange.memory_per_param = 24;
    o.exchange.bytes_per_param = 0.03;
    o.exchange.blob_per_param = 0.03;
    o.effort = 0.1;
    assert_int_equal(at_planner_make(&o, &n, &diag, &plan, &r), AT_E_USAGE);
    assert_non_null(strstr(diag.text, "7b needs 16"));
    assert_non_null(strstr(diag.text, "these nodes offer 78 GB"));
    assert_non_null(strstr(diag.text, "more like node0 (13 GB)"));
    assert_non_null(strstr(diag.text, "take 1b"));
    const char *about = strstr(diag.text, "add about ");
    assert_non_null(about);
    int more = atoi(about + strlen("add about "));
    assert_in_range(more, 10, 40);
    at_plan_nodes_release(&n);

    diag = (struct at_diag){0}; /* and so many more do */
    make_nodes(&n, 6 + more, 100, 13e9, "");
    assert_int_equal(at_planner_make(&o, &n, &diag, &plan, &r), AT_OK);
    at_plan_release(&plan);
    at_planner_report_release(&r);

    o.replicas = n.count + 1;
    assert_int_equal(at_planner_make(&o, &n, &diag, &plan, &r), AT_E_USAGE);
    assert_string_equal(diag.where, "--replicas");
    at_plan_nodes_release(&n);

    diag = (struct at_diag){0}; /* enough in all, in pieces too small for a layer */
    make_nodes(&n, 60, 100, 3.5e9, "");
    o.replicas = 0;
    assert_int_equal(at_planner_make(&o, &n, &diag, &plan, &r), AT_E_USAGE);
    assert_non_null(strstr(diag.text, "pieces too small"));
    assert_non_null(strstr(diag.text, "one layer takes"));
    at_plan_nodes_release(&n);
}

/* A weak node beside strong ones: some layers when that helps, else spare with a reason; never silently nothing. */
static void test_weak_node(void **state)
{
    const struct at_preset *p = preset("124m");
    struct at_plan_nodes n;
    struct at_planner_options o;
    struct at_plan plan;
    struct at_planner_report r;
    make_nodes(&n, 3, 100, 1.7e9, "home"); /* no node can hold the model alone */
    n.within_site = (struct at_link){.rtt_ms = 2, .mbit_s = 1000};
    n.node[2].gflops = 25;
    at_planner_options_default(&o, "124m", &p->model, &p->train);
    assert_int_equal(at_planner_make(&o, &n, NULL, &plan, &r), AT_OK);
    assert_int_equal(plan.replicas, 1);
    assert_int_equal(plan.ranks, 3);
    int weak = -1;
    for (int i = 0; i < 3; i++)
        if (plan.node[i] == 2) weak = i;
    assert_true(weak >= 0 && plan.stage[weak].layers >= 1 && plan.stage[weak].layers <= 3);
    at_plan_release(&plan);
    at_planner_report_release(&r);

    n.node[2].gflops = 0.5;
    for (int i = 0; i < 2; i++) n.node[i].memory_bytes = 8000000000;
    n.node[2].memory_bytes = 1000000000;
    assert_int_equal(at_planner_make(&o, &n, NULL, &plan, &r), AT_OK);
    assert_true(r.spares == 1 && r.spare[0] == 2);
    assert_non_null(strstr(r.spare_why[0].s, "one layer would take it"));
    at_plan_release(&plan);
    at_planner_report_release(&r);
    at_plan_nodes_release(&n);
}

static void test_thousand_nodes(void **state)
{
    struct dice d = {.seed = 5};
    const struct at_preset *p = preset("1b");
    struct problem q = {.model = p->model, .train = p->train};
    struct at_plan plan;
    struct at_planner_report r;
    assert_int_equal(at_plan_nodes_alloc(&q.nodes, 1000, 0, NULL), AT_OK);
    for (int i = 0; i < 1000; i++) {
        struct at_plan_node *x = &q.nodes.node[i];
        snprintf(x->name, sizeof x->name, "n%d", i);
        snprintf(x->site, sizeof x->site, "s%d", pick(&d, 120));
        x->gflops = 10 + unit(&d) * 400;
        x->memory_bytes = (uint64_t)(4e9 + unit(&d) * 28e9);
    }
    assert_int_equal(at_plan_nodes_index(&q.nodes, NULL), AT_OK);
    at_planner_options_default(&q.options, "1b", &q.model, &q.train);
    q.options.exchange.steps_min = 10;
    q.options.exchange.bytes_per_param = 0.03;
    q.options.effort = 0.2;
    assert_int_equal(at_planner_make(&q.options, &q.nodes, NULL, &plan, &r), AT_OK);
    check_plan(&q, &plan, &r);
    assert_true(plan.replicas >= 20);
    assert_in_range(r.evaluations, 1000, 400000); /* chains played: what bounds the time */
    at_plan_release(&plan);
    at_planner_report_release(&r);
    at_plan_nodes_release(&q.nodes);
}

/* What the planner says a rank will take is what that rank allocates, within a tenth. */
static void test_bytes_are_those_of_ranks(void **state)
{
    static const char *const name[] = {"nano", "10m", "124m", "1b"};
    struct at_outer_config outer;
    at_outer_config_default(&outer, AT_OUTER_MEAN);
    for (int i = 0; i < 4 * 2 * 3 * 2 * 3 * 2; i++) {
        const struct at_preset *p = preset(name[i % 4]);
        int recompute = i / 4 % 2, tp = 1 << i / 8 % 3, pp = 1 + 2 * (i / 24 % 2), replicas = 1 + i / 48 % 3;
        int M = i / 144 == 0 ? 1 : 4;
        struct at_plan plan;
        struct at_cost cost;
        struct at_planner_options o;
        assert_int_equal(at_plan_uniform(&plan, &p->model, replicas, pp, tp, M, p->train.batch, NULL), AT_OK);
        struct at_rank_options rank = {
            .plan = &plan, .model = &p->model, .train = &p->train, .outer = &outer, .recompute = recompute != 0};
        at_planner_options_default(&o, name[i % 4], &p->model, &p->train);
        at_cost_init(&cost, &p->model, p->train.batch, M, &o.exchange, recompute != 0);
        cost.replicas = replicas;
        for (int s = 0; s < pp; s++) {
            double needed = (double)at_rank_bytes(&rank, plan.stage[s].rank_first);
            double said =
                at_cost_bytes(&cost, plan.stage[s].layers, tp, s == 0, s == pp - 1, at_schedule_in_flight(s, pp, M)) -
                AT_COST_PROCESS;
            if (said < 0.9 * needed || said > 1.12 * needed)
                fail_msg("%s tp %d pp %d M %d recompute %d replicas %d, stage %d: %.1f MB said, %.1f MB needed",
                         name[i % 4], tp, pp, M, recompute, replicas, s, said / 1e6, needed / 1e6);
        }
        at_plan_release(&plan);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_step_is_the_schedule),
        cmocka_unit_test(test_bytes_are_those_of_ranks),
        cmocka_unit_test(test_against_brute_force),
        cmocka_unit_test(test_infeasible_is_explained),
        cmocka_unit_test(test_weak_node),
        cmocka_unit_test(test_thousand_nodes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
