/* The contract for split runs: ten inner steps of small models have one state root for every number of tensor ranks,
 * stages and microbatches, every kernel table (also mixed between the ranks) and number of threads, whatever compiler
 * built this: the roots are written down here, and one process (train/local.h) makes them, too.
 *
 *   split_test         every (tp, pp); M, kernel tables and threads take turns
 *   split_test --all   all of {kernel tables} x {1, 2, 3 threads} x {tp 1, 2, 4, 8} x {pp 1, 2, 3} x {M 1, 2, 4}
 *   split_test --print the roots, after a change of the contract (and only then) */
#include "os/pool.h"
#include "parallel/comm_test_util.h"
#include "parallel/rank.h"
#include "train/local.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define SHAPE(L, D, H, KV, F, T, V, TIED)                                                                              \
    {                                                                                                                  \
        .layers = L, .d_model = D, .heads = H, .kv_heads = KV, .head_size = (D) / (H), .d_ff = F, .seq_len = T,        \
        .vocab = V, .tied = TIED, .rope_theta = 10000.0, .norm_eps = 1e-5                                              \
    }

struct kind {
    const char *name, *root;
    struct at_model_config model;
    enum at_outer_kind outer;
};

static const struct kind kinds[] = {
    {"eight heads", "3408efb9f820f4dbad085e606ef237bab402d354e4e455d79c65a1f59c911269",
     SHAPE(3, 48, 8, 8, 40, 12, 128, false), AT_OUTER_MEAN},
    {"grouped queries, tp to 4", "34b7b11f126cdbd01fb0e7eb4b1d03cfaac132ba74c4370b0b69dd5dcaeec950",
     SHAPE(4, 72, 12, 4, 28, 18, 123, false), AT_OUTER_SPARSE},
    {"tied, a slot of padding", "31075081c5926e244e9fafea95e65238b83d292da64961cb0df960dab7814ea4",
     SHAPE(3, 32, 8, 8, 24, 11, 113, true), AT_OUTER_DILOCO},
};
enum { KINDS = sizeof kinds / sizeof kinds[0], TEXT_BYTES = 16000, ROUNDS = 5, STEPS = 2 };

struct rig {
    const struct kind *kind;
    struct at_model model;
    struct at_data data;
    struct at_train_config config;
    struct at_outer_config outer;
    uint8_t text[TEXT_BYTES];
};

static void rig_init(struct rig *r, const struct kind *k)
{
    r->kind = k;
    r->config = (struct at_train_config){ROUNDS, STEPS, 4, 3, 2e-2, 0.1, 0.9, 0.95, 1e-8, 0.1, 0.7, 77};
    r->outer = (struct at_outer_config){.kind = k->outer, .alpha_first = 1, .alpha_last = 1};
    if (k->outer == AT_OUTER_DILOCO) { /* all written down: defaults may be measured anew, these roots may not move */
        r->outer.alpha_first = r->outer.alpha_last = 0.7;
        r->outer.momentum = 0.9;
    }
    if (k->outer == AT_OUTER_SPARSE) {
        r->outer.k = 64;
        r->outer.alpha_last = 0.65;
        r->outer.momentum = 0.4;
        r->outer.dense_fraction = 0.1;
    }
    for (uint64_t i = 0; i < TEXT_BYTES; i++) /* bytes that every vocabulary here has; some order to learn */
        r->text[i] = (uint8_t)(32 + (i % 3 == 0 ? i * i / 7 % 60 : i * i % 50));
    AT_ASSERT(at_model_init(&r->model, &k->model, NULL) == AT_OK);
    AT_ASSERT(at_data_init(&r->data, at_span(r->text, TEXT_BYTES), (long)k->model.seq_len, 77, 0.05, 32768, NULL) ==
              AT_OK);
}

/* One process, plain kernels. */
static struct at_hash local_root(const struct rig *r, int replicas)
{
    struct at_exec ex;
    const struct at_kern *ref;
    struct at_local l;
    struct at_local_options o = {.replicas = replicas, .outer = &r->outer};
    struct at_hash root;
    double loss;
    AT_ASSERT(at_kern_select("ref", NULL, &ref) == AT_OK && at_exec_init(&ex, ref, &at_par_serial) == AT_OK);
    AT_ASSERT(at_local_init_options(&l, &r->model, &r->data, &r->config, &o, NULL) == AT_OK);
    for (int t = 0; t < ROUNDS; t++) AT_ASSERT(at_local_round(&l, &ex, NULL, NULL, NULL, &loss) == AT_OK);
    AT_ASSERT(at_state_root(&l.state, NULL, &root) == AT_OK);
    at_local_release(&l);
    at_exec_release(&ex);
    return root;
}

struct job {
    const struct rig *rig;
    struct at_plan plan;
    int kern, threads; /* rank i has table kern + i if it is mixed */
    bool mixed, recompute;
    struct at_hash root[TEST_RANKS_MAX];
    struct at_diag diag[TEST_RANKS_MAX];
};

static const struct at_kern *table(int i)
{
    int n = 0;
    while (at_kern_available()[n] != NULL) n++;
    return at_kern_available()[i % n];
}

static void rank_body(void *arg, int rank, const struct at_comm *comm)
{
    struct job *j = arg;
    const struct rig *rig = j->rig;
    struct at_pool pool;
    struct at_exec ex;
    struct at_rank *r;
    struct at_rank_options o = {.plan = &j->plan,
                                .model = &rig->kind->model,
                                .train = &rig->config,
                                .outer = &rig->outer,
                                .data = &rig->data,
                                .recompute = j->recompute,
                                .fragment_bytes = j->threads == 2 ? 4096 : 0};
    AT_ASSERT(at_pool_init(&pool, j->threads, NULL) == AT_OK);
    AT_ASSERT(at_exec_init(&ex, table(j->kern + (j->mixed ? rank : 0)), &pool.par) == AT_OK);
    AT_ASSERT(at_rank_init(&r, comm, &ex, &o, NULL) == AT_OK);
    struct at_round round;
    struct at_rank_report report;
    at_err_t err = AT_OK;
    for (int t = 0; err == AT_OK && t < ROUNDS; t++) {
        round = at_outer_round(&rig->outer, &rig->config, t == 0 ? NULL : &round);
        err = at_rank_round(r, &round, NULL, NULL, &j->diag[rank], &report);
    }
    if (err == AT_OK) err = at_rank_root(r, &j->diag[rank], &j->root[rank]);
    at_rank_release(r);
    at_exec_release(&ex);
    at_pool_release(&pool);
}

static struct test_net net;
static bool all, print;

/* 0 when every rank has the root. */
static int run(struct job *j, const struct at_hash *want)
{
    const char *misuse = test_net_run(&net, j->plan.ranks, rank_body, j);
    const struct at_plan_stage *s = &j->plan.stage[0];
    for (int i = 0; i < j->plan.ranks; i++)
        if (misuse != NULL || !at_hash_eq(j->root[i], *want)) {
            print_error("%s: rank %d of %d (tp %d), M %d, table %d%s, %d threads: %s\n", j->rig->kind->name, i,
                        j->plan.ranks, s->tp, j->plan.microbatches, j->kern, j->mixed ? " and others" : "", j->threads,
                        misuse != NULL            ? misuse
                        : j->diag[i].err != AT_OK ? j->diag[i].text
                                                  : "another root");
            return 1;
        }
    return 0;
}

/* All kernel tables and threads, or the n-th of them. */
static int run_plan(const struct rig *rig, const struct at_plan *plan, const struct at_hash *want, int n)
{
    int tables = 0, wrong = 0;
    while (at_kern_available()[tables] != NULL) tables++;
    for (int i = all ? 0 : n; i < (all ? (tables + 1) * 3 : n + 1); i++) {
        struct job j = {.rig = rig, .plan = *plan, .kern = i % (tables + 1), .threads = 1 + i / (tables + 1) % 3};
        j.mixed = j.kern == tables;
        j.recompute = (i + n) % 3 == 0;
        wrong += run(&j, want);
    }
    return wrong;
}

static void one_root(const struct kind *k)
{
    static struct rig r;
    struct at_hash want;
    int wrong = 0, n = 0;
    rig_init(&r, k);
    want = local_root(&r, 1);
    if (print) print_message("%s: %s\n", k->name, at_hash_hex(want).s);
    struct at_hash written;
    assert_int_equal(at_hash_parse(k->root, &written), AT_OK);
    assert_true(at_hash_eq(written, want));
    for (int tp = 1; tp <= r.model.params.slots; tp *= 2)
        for (int pp = 1; pp <= 3; pp++)
            for (int M = 1; M <= 4; M *= 2, n++) {
                struct at_plan plan;
                if (!all && M != 1 << (tp + pp) % 3) continue;
                assert_int_equal(at_plan_uniform(&plan, &k->model, 1, pp, tp, M, r.config.batch, NULL), AT_OK);
                wrong += run_plan(&r, &plan, &want, n);
                at_plan_release(&plan);
            }
    for (int replicas = 2; replicas <= 3; replicas++, n++) { /* replicas change the root; cuts do not */
        struct at_plan plan;
        want = local_root(&r, replicas);
        assert_int_equal(at_plan_uniform(&plan, &k->model, replicas, 2, 2, 2, r.config.batch, NULL), AT_OK);
        wrong += run_plan(&r, &plan, &want, n);
        at_plan_release(&plan);
    }
    at_model_release(&r.model);
    assert_int_equal(wrong, 0);
}

static void test_eight_heads(void **state)
{
    one_root(&kinds[0]);
}
static void test_grouped(void **state)
{
    one_root(&kinds[1]);
}
static void test_tied(void **state)
{
    one_root(&kinds[2]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_eight_heads),
        cmocka_unit_test(test_grouped),
        cmocka_unit_test(test_tied),
    };
    all = argc > 1 && strcmp(argv[1], "--all") == 0;
    print = argc > 1 && strcmp(argv[1], "--print") == 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
