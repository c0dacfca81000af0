/* A unit of a split replica against the same unit alone: every rank is a thread, with its shard of the state and links of
 * the plainest kind. Weights, statistics and reports are the same to the bit; so is where it stops, what it refuses, and
 * what is joined late. */
#include "base/sanitized.h"
#include "model/tp_test_util.h"
#include "train/train_test_util.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { STAGES_MAX = 3, RANKS_MAX = STAGES_MAX * TEST_TP_MAX, BATCH = 4, OVERLAP_STEPS = 2 };

static const struct at_model_config tied_stages = TEST_SHAPE(3, 16, 4, 4, 16, 8, 257, true);

/* One message from a rank to one other. */
struct box {
    bool full;
    real *x;
};

struct board {
    int tp, pp;
    struct test_group stage[STAGES_MAX], all;
    double *gathered[RANKS_MAX];
    struct box x[STAGES_MAX][TEST_TP_MAX], d_x[STAGES_MAX][TEST_TP_MAX]; /* to this stage and tensor rank */
    pthread_mutex_t lock;
    pthread_cond_t changed;
};

/* What a unit is tried with. */
struct trial {
    const struct test_run *run;
    uint32_t round, stop_after; /* 0: never */
    long micro;
    bool recompute, join;
    const struct at_state *first, *then; /* whole states: what it starts from, what is joined */
    const real *left;                    /* joined: the weights that the unit before left, whole */
};

struct rank {
    const struct trial *trial;
    struct board *board;
    int stage, number; /* number: of all ranks of the replica */
    struct test_member member;
    struct at_exec ex;
    struct at_model m;
    struct at_trainer t;
    struct at_replica replica;
    struct at_state state;
    struct at_unit_report report;
    struct at_diag diag;
    at_err_t err;
};

static void put(struct rank *r, struct box *b, const real *x, size_t n)
{
    pthread_mutex_lock(&r->board->lock);
    while (b->full) pthread_cond_wait(&r->board->changed, &r->board->lock);
    b->x = malloc(n * sizeof *x);
    memcpy(b->x, x, n * sizeof *x);
    b->full = true;
    pthread_cond_broadcast(&r->board->changed);
    pthread_mutex_unlock(&r->board->lock);
}

static void take(struct rank *r, struct box *b, real *ret_x, size_t n)
{
    pthread_mutex_lock(&r->board->lock);
    while (!b->full) pthread_cond_wait(&r->board->changed, &r->board->lock);
    memcpy(ret_x, b->x, n * sizeof *ret_x);
    free(b->x);
    b->full = false;
    pthread_cond_broadcast(&r->board->changed);
    pthread_mutex_unlock(&r->board->lock);
}

static at_err_t gather(void *arg, double *x, size_t n, struct at_diag *diag)
{
    struct rank *r = arg;
    double *sum = malloc(n * sizeof *sum);
    r->board->gathered[r->number] = x;
    test_barrier(&r->board->all);
    for (size_t i = 0; i < n; i++) {
        sum[i] = 0;
        for (int k = 0; k < r->board->tp * r->board->pp; k++) sum[i] += r->board->gathered[k][i];
    }
    test_barrier(&r->board->all);
    memcpy(x, sum, n * sizeof *sum);
    free(sum);
    (void)diag;
    return AT_OK;
}

/* The rows of the embedding come to the first stage, from the last one when the matrix is tied. */
static void get_rows(struct rank *r, const real *theta, const int32_t *token, long N)
{
    const struct at_params *p = &r->m.params;
    struct board *b = r->board;
    size_t n = (size_t)N * p->config.d_model;
    real *x = r->t.act->layer[0].x;
    if (at_shard_has_embedding(p)) {
        real *rows = r->stage == 0 ? x : r->t.pass->sum;
        r->err |= at_model_embed(&r->ex, &r->m, &r->replica.tp, theta, token, N, rows);
        if (r->stage != 0) put(r, &b->x[0][r->member.rank], rows, n);
    }
    if (r->stage != 0 || !at_shard_has_embedding(p)) take(r, &b->x[r->stage][r->member.rank], x, n);
}

static void give_rows(struct rank *r, const int32_t *token, long N)
{
    const struct at_params *p = &r->m.params;
    struct board *b = r->board;
    int last = b->pp - 1, before = r->stage == 0 ? last : r->stage - 1;
    size_t n = (size_t)N * p->config.d_model;
    if (r->stage != 0 || !at_shard_has_embedding(p)) put(r, &b->d_x[before][r->member.rank], r->t.pass->d_x, n);
    if (!at_shard_has_embedding(p)) return;
    if (r->stage != 0) take(r, &b->d_x[last][r->member.rank], r->t.pass->d_x, n);
    at_model_embed_grad(&r->ex, &r->m, r->t.grad, token, r->t.pass->d_x, N);
}

/* Microbatch by microbatch, forward and backward through all stages. */
static at_err_t gradient(void *arg, struct at_trainer *t, const struct at_exec *ex, const real *theta, double *ret_sum,
                         struct at_diag *diag)
{
    struct rank *r = arg;
    long T = r->m.params.config.seq_len, N = t->microbatch * T;
    size_t n = (size_t)N * r->m.params.config.d_model;
    real inv = (real)(1.0 / (double)(BATCH * T));
    double sum = 0;
    bool last = at_shard_is_last(&r->m.params);
    memset(t->grad, 0, at_model_grad_count(&r->m) * sizeof(real));
    for (long row = 0; row < BATCH * T; row += N) {
        get_rows(r, theta, t->input + row, N);
        r->err |= at_stage_forward(ex, &r->m, &r->replica.tp, t->act, theta, t->microbatch);
        if (!last) {
            put(r, &r->board->x[r->stage + 1][r->member.rank], t->act->x_last, n);
            take(r, &r->board->d_x[r->stage][r->member.rank], t->pass->d_x, n);
        }
        r->err |= at_stage_backward(ex, &r->m, &r->replica.tp, t->act, theta, t->target + row, t->microbatch, inv,
                                    t->grad, &sum);
        give_rows(r, t->input + row, N);
    }
    at_model_grad_finish(ex, &r->m, t->grad);
    *ret_sum = last && r->member.rank == 0 ? sum : 0;
    (void)diag;
    return r->err;
}

/* The same, forward only, a sequence at a time. */
static at_err_t forward(void *arg, struct at_trainer *t, const struct at_exec *ex, const real *theta,
                        void (*look)(void *look_arg, long sequence, struct at_activations *a), void *look_arg,
                        double *ret_sum, struct at_diag *diag)
{
    struct rank *r = arg;
    long T = r->m.params.config.seq_len;
    double sum = 0;
    bool last = at_shard_is_last(&r->m.params);
    for (long i = 0; i < BATCH; i++) {
        get_rows(r, theta, t->input + i * T, T);
        r->err |= at_stage_forward(ex, &r->m, &r->replica.tp, t->act, theta, 1);
        look(look_arg, i, t->act);
        if (last)
            r->err |= at_stage_loss(ex, &r->m, &r->replica.tp, t->act, t->target + i * T, 1, &sum);
        else
            put(r, &r->board->x[r->stage + 1][r->member.rank], t->act->x_last, (size_t)T * r->m.params.config.d_model);
    }
    *ret_sum = last && r->member.rank == 0 ? sum : 0;
    (void)diag;
    return r->err;
}

static void cut_stats(const struct at_state *from, struct at_state *to)
{
    const struct at_params *p = to->params;
    for (int i = 0; i < p->blocks; i++) {
        const struct at_block *b = &p->block[i];
        int whole = (int)(at_params_block(from->params, b->tensor, b->slot) - from->params->block);
        memcpy(to->stats + at_block_stats_offset(p, i), from->stats + at_block_stats_offset(from->params, whole),
               at_block_stats_count(p, b) * sizeof(real));
    }
}

static void cut_state(const struct at_state *from, struct at_state *to)
{
    test_cut(from->params, from->theta, to->params, to->theta);
    cut_stats(from, to);
    to->round = from->round;
}

static at_err_t join(void *arg, struct at_diag *diag)
{
    struct rank *r = arg;
    cut_state(r->trial->then, &r->state);
    (void)diag;
    return AT_OK;
}

/* Only the leader's answer counts: all others say the opposite. */
static bool progress(void *arg, const struct at_unit_progress *p)
{
    struct rank *r = arg;
    bool go_on = p->step != r->trial->stop_after;
    return r->t.replica == NULL || r->replica.leader ? go_on : !go_on;
}

static void *run_rank(void *arg)
{
    struct rank *r = arg;
    const struct trial *x = r->trial;
    struct at_unit unit = {.start = 40, .samples = 3 * BATCH, .step_first = 3 * x->round, .tau = OVERLAP_STEPS};
    if (x->join) {
        unit.join = join;
        unit.join_arg = r;
        test_cut(x->first->params, x->left, &r->m.params, r->t.theta);
    }
    cut_state(x->first, &r->state);
    at_err_t err = at_unit_train(&r->t, &r->ex, &x->run->data, &r->state, &unit, progress, r, &r->diag, &r->report);
    r->err = err != AT_OK ? err : r->err;
    return NULL;
}

static void rank_init(struct rank *r, const struct trial *x, struct board *board, int stage, int tp_rank)
{
    *r = (struct rank){.trial = x, .board = board, .stage = stage, .number = stage * board->tp + tp_rank};
    struct at_shard shard = test_shard(&x->run->m.params.config, board->tp, board->pp, tp_rank, stage);
    struct at_trainer_options o = {.microbatch = x->micro, .recompute = x->recompute, .overlap = x->join};
    assert_int_equal(at_exec_init(&r->ex, at_kern_available()[0], &at_par_serial), AT_OK);
    assert_int_equal(at_model_init_shard(&r->m, &x->run->m.params.config, &shard, NULL), AT_OK);
    assert_int_equal(at_trainer_init_options(&r->t, &r->m, &x->run->config, &o, NULL), AT_OK);
    assert_int_equal(at_state_init(&r->state, &r->m.params), AT_OK);
    r->replica = (struct at_replica){.tp = test_tp(&board->stage[stage], &r->member, tp_rank),
                                     .arg = r,
                                     .gradient = gradient,
                                     .forward = forward,
                                     .gather = {gather, r},
                                     .leader = r->number == 0};
    if (board->tp == 1) r->replica.tp = at_tp_alone;
    r->member.rank = tp_rank;
    if (board->tp * board->pp > 1) r->t.replica = &r->replica;
}

static void rank_release(struct rank *r)
{
    at_state_release(&r->state);
    at_trainer_release(&r->t);
    at_model_release(&r->m);
    at_exec_release(&r->ex);
}

static void run_split(const struct trial *x, int tp, int pp, struct rank *rank)
{
    struct board board = {.tp = tp, .pp = pp};
    pthread_t thread[RANKS_MAX];
    pthread_mutex_init(&board.lock, NULL);
    pthread_cond_init(&board.changed, NULL);
    test_group_init(&board.all, tp * pp);
    for (int s = 0; s < pp; s++) test_group_init(&board.stage[s], tp);
    for (int i = 0; i < tp * pp; i++) rank_init(&rank[i], x, &board, i / tp, i % tp);
    for (int i = 0; i < tp * pp; i++) assert_int_equal(pthread_create(&thread[i], NULL, run_rank, &rank[i]), 0);
    for (int i = 0; i < tp * pp; i++) pthread_join(thread[i], NULL);
    for (int s = 0; s < pp; s++) test_group_release(&board.stage[s]);
    test_group_release(&board.all);
    pthread_cond_destroy(&board.changed);
    pthread_mutex_destroy(&board.lock);
}

/* Blocks and statistics of a rank against those of the unit alone. */
static void check_rank(const struct rank *r, const struct rank *alone)
{
    const struct at_params *p = &r->m.params, *w = &alone->m.params;
    const struct at_state made = {.params = w, .stats = alone->t.stats};
    struct at_state cut;
    assert_int_equal(r->err, alone->err);
    if (r->err != AT_OK) return;
    assert_memory_equal(&r->report.info, &alone->report.info, sizeof r->report.info);
    assert_true(r->report.loss_mean == alone->report.loss_mean);
    for (int i = 0; i < p->blocks; i++) {
        const struct at_block *b = &p->block[i], *whole = at_params_block(w, b->tensor, b->slot);
        assert_memory_equal(r->t.theta + b->offset, alone->t.theta + whole->offset, at_block_count(b) * sizeof(real));
    }
    assert_int_equal(at_state_init(&cut, p), AT_OK);
    cut_stats(&made, &cut);
    assert_memory_equal(r->t.stats, cut.stats, at_stats_count(p) * sizeof(real));
    at_state_release(&cut);
}

static void check_split(const struct trial *x, int tp, int pp, const struct rank *alone)
{
    static struct rank rank[RANKS_MAX];
    run_split(x, tp, pp, rank);
    for (int i = 0; i < tp * pp; i++) {
        check_rank(&rank[i], alone);
        assert_string_equal(rank[i].diag.where, alone->diag.where);
        assert_string_equal(rank[i].diag.text, alone->diag.text);
        rank_release(&rank[i]);
    }
}

/* A run, two states in its middle, and weights that a unit before might have left. */
struct world {
    struct test_run run;
    struct at_state first, then;
    real *left;
};

static void world_init(struct world *w, const struct at_model_config *c)
{
    assert_true(test_run_init(&w->run, c));
    assert_int_equal(at_state_init(&w->first, &w->run.m.params), AT_OK);
    assert_int_equal(at_state_init(&w->then, &w->run.m.params), AT_OK);
    size_t n = w->run.m.params.count;
    w->left = malloc(n * sizeof *w->left);
    test_state(&w->first, 1);
    test_state(&w->then, 2);
    for (size_t i = 0; i < n; i++) {
        w->then.theta[i] *= REAL(1.01);
        w->left[i] = w->first.theta[i] * REAL(0.99);
    }
}

static void world_release(struct world *w)
{
    at_state_release(&w->first);
    at_state_release(&w->then);
    free(w->left);
    test_run_release(&w->run);
}

static void check_world(const struct world *w, struct trial x)
{
    struct rank alone;
    const struct at_model_config *c = &w->run.m.params.config;
    x.run = &w->run;
    x.first = &w->first;
    x.then = &w->then;
    x.left = w->left;
    run_split(&x, 1, 1, &alone);
    assert_int_equal(alone.err, AT_OK);
    for (int tp = 1; tp <= w->run.m.params.slots; tp *= 2)
        for (int pp = 1; pp <= (int)c->layers; pp++) {
            x.micro = tp == 8 ? 4 : tp;
            x.recompute = pp == 2;
            if (AT_SANITIZED && (tp + pp + (int)x.stop_after) % 2) continue;
            check_split(&x, tp, pp, &alone);
        }
    rank_release(&alone);
}

static const struct at_model_config *const worlds[] = {&run_configs[0], &run_configs[1], &tied_stages};
enum { WORLDS = sizeof worlds / sizeof worlds[0] };

static void test_split_units_have_the_bits_of_one(void **state)
{
    for (int c = 0; c < WORLDS; c++) {
        struct world w;
        world_init(&w, worlds[c]);
        check_world(&w, (struct trial){.round = 1});
        w.first.round = 0;
        w.run.config.clip_norm = 1e-3; /* and one where the norm matters */
        check_world(&w, (struct trial){.round = 0});
        world_release(&w);
    }
}

static void test_the_leader_ends_a_unit(void **state)
{
    for (uint32_t k = 1; k <= 3; k++) {
        struct world w;
        world_init(&w, &tied_stages);
        check_world(&w, (struct trial){.round = 1, .stop_after = k});
        world_release(&w);
    }
}

/* Also when the unit ends before the step at which it would have been joined. */
static void test_joined_units(void **state)
{
    for (uint32_t stop = 0; stop <= 2; stop++) {
        struct world w;
        world_init(&w, &run_configs[1]);
        check_world(&w, (struct trial){.round = 2, .join = true, .stop_after = stop});
        world_release(&w);
    }
}

/* The join alone, by hand: two steps, the shift, one step; and it starts from what was left. */
static void test_join_is_a_shift(void **state)
{
    struct world w;
    struct rank one;
    world_init(&w, &run_configs[1]);
    w.run.config.lr_peak = 0; /* steps leave the weights alone: what is left is the shift */
    struct trial x = {.run = &w.run, .round = 2, .join = true, .first = &w.first, .then = &w.then, .left = w.left};
    run_split(&x, 1, 1, &one);
    assert_int_equal(one.err, AT_OK);
    assert_int_equal(one.report.info.round, 2);
    for (size_t i = 0; i < w.run.m.params.count; i++) {
        real want = w.left[i] + (w.then.theta[i] - w.left[i]);
        assert_memory_equal(&one.t.theta[i], &want, sizeof want);
    }
    rank_release(&one);
    world_release(&w);
}

/* Every value of one tensor's slot 3 (a gain: of all) becomes `value`. */
struct poison {
    enum at_role role;
    int layer;
    real value;
    const char *text;
};

static void poison(const struct at_params *p, const struct poison *x, real *theta)
{
    int tensor = at_params_find(p, x->role, x->layer);
    const struct at_block *b = at_params_block(p, tensor, at_role_is_gain(x->role) ? 0 : 3);
    for (size_t i = 0; i < at_block_count(b); i++) theta[b->offset + i] = x->value;
}

/* All ranks refuse a step that is not finite with the words of the whole replica alone, wherever the value lies and
 * whatever it spoils behind it. */
static void test_not_finite_in_a_split_replica(void **state)
{
    static const struct poison cases[] = {
        {AT_ROLE_Q, 1, (real)INFINITY, "a weight"},
        {AT_ROLE_UP, 1, REAL(3e38), "layer 1"},
        {AT_ROLE_V, 0, REAL(3e38), "layer 0"},
        {AT_ROLE_NORM2, 2, (real)NAN, "a weight"},
        {AT_ROLE_O, 0, REAL(1e38), "layer"},
        {AT_ROLE_EMBEDDING, 0, REAL(3e38), ""},
        {AT_ROLE_K, 2, REAL(2e37), "layer 2: the attention"},
        {AT_ROLE_DOWN, 1, REAL(3e38), "layer"},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct world w;
        struct rank alone;
        world_init(&w, &tied_stages);
        poison(&w.run.m.params, &cases[c], w.first.theta);
        struct trial x = {
            .run = &w.run, .round = 1, .first = &w.first, .micro = 1 + (long)(c % 2), .recompute = c % 3 == 0};
        run_split(&x, 1, 1, &alone);
        assert_int_equal(alone.err, AT_E_NONFINITE);
        assert_non_null(strstr(alone.diag.text, cases[c].text));
        assert_non_null(strstr(alone.diag.text, "round 2, step 1"));
        for (int tp = 1; tp <= 4; tp *= 2)
            for (int pp = 1; pp <= 3; pp++)
                if (tp * pp > 1 && (!AT_SANITIZED || (tp + pp + (int)c) % 3 == 0)) check_split(&x, tp, pp, &alone);
        rank_release(&alone);
        world_release(&w);
    }
}

/* What is said before is what is taken, for every kind of trainer. */
static void test_bytes_are_what_is_allocated(void **state)
{
    struct at_train_config config = test_train_config();
    for (int c = 0; c < WORLDS; c++)
        for (int kind = 0; kind < 8; kind++) {
            struct at_shard shard = test_shard(worlds[c], 2, (int)worlds[c]->layers, kind & 1, 0);
            struct at_trainer_options o = {
                .microbatch = 2, .in_flight = 3, .recompute = (kind & 2) != 0, .overlap = (kind & 4) != 0};
            struct at_model m;
            struct at_trainer t;
            assert_int_equal(at_model_init_shard(&m, worlds[c], &shard, NULL), AT_OK);
            assert_int_equal(at_trainer_init_options(&t, &m, &config, &o, NULL), AT_OK);
            size_t flat = m.params.count * (o.overlap ? 4 : 3);
            size_t sum = sizeof(real) * (flat + at_model_grad_count(&m) + at_stats_count(&m.params)) + t.pass->bytes +
                         3 * t.act[0].bytes + sizeof(double) * ((size_t)m.params.numbers + 2) +
                         2 * sizeof(int32_t) * BATCH * worlds[c]->seq_len;
            assert_true(t.act[2].block != NULL && (t.theta_start != NULL) == o.overlap);
            assert_int_equal(at_trainer_bytes_options(worlds[c], &shard, &config, &o), sum);
            at_trainer_release(&t);
            at_model_release(&m);
        }
}

/* Says no at the left-th pass; never where it begins at 0. */
static bool count_passes(void *arg)
{
    int *left = arg;
    return --*left != 0;
}

/* Windows in parts, added in one order: the loss of one pass over all. */
static void test_heldout_in_parts(void **state)
{
    struct test_run r;
    struct at_trainer t;
    assert_true(test_run_init(&r, &run_configs[1]));
    assert_int_equal(at_trainer_init(&t, &r.m, &r.config, 3, NULL), AT_OK);
    real *theta = malloc(r.m.params.count * sizeof *theta);
    real *loss = malloc((size_t)(r.data.windows * r.data.seq_len) * sizeof *loss);
    test_weights(&r.m.params, 5, theta);
    long half = r.data.windows / 2 + 1;
    at_heldout_losses(&t, &r.ex, &r.data, theta, half, r.data.windows - half, loss + half * r.data.seq_len);
    at_heldout_losses(&t, &r.ex, &r.data, theta, 0, half, loss);
    double want = at_heldout_loss(&t, &r.ex, &r.data, theta);
    assert_true(at_heldout_mean(loss, r.data.windows, r.data.seq_len) == want && want > 0);
    assert_true(r.data.windows > 5);
    for (uint32_t step = 1; step <= 4;
         step++) { /* shares of them: every window once, and the means' mean is about it */
        double mean = 0;
        long windows = 0;
        for (uint32_t first = 0; first < step; first++) {
            struct at_heldout_share share = {first, step, 100000};
            double sum = 0;
            for (long w = first; w < r.data.windows; w += step, windows++)
                for (long i = 0; i < r.data.seq_len; i++) sum += (double)loss[w * r.data.seq_len + i];
            uint64_t tokens = (uint64_t)(at_heldout_windows(&r.data, share) * r.data.seq_len);
            uint32_t code = at_heldout_of_share(&t, &r.ex, &r.data, theta, share, NULL, NULL);
            assert_true(code == at_heldout_code(sum, tokens) && code > 0);
            mean += at_heldout_join(code, 1) / step;
        }
        assert_true(windows == r.data.windows && fabs(mean - want) < 0.05 * want);
    }
    static const struct at_heldout_share none[] = {{100000, 100001, 100000}, {0, 0, 100000}, {0, 1, 0}};
    for (int i = 0; i < 3; i++)
        assert_int_equal(at_heldout_of_share(&t, &r.ex, &r.data, theta, none[i], NULL, NULL), 0);
    /* Bounded: at most so many windows each, no window twice, and none far from the next. */
    for (uint32_t most = 1; most <= 9; most++)
        for (uint32_t step = 1; step <= 4; step++) {
            long stride = (long)at_heldout_stride((struct at_heldout_share){0, step, most}, (uint64_t)r.data.windows);
            long all = 0;
            for (uint32_t first = 0; first < step; first++) {
                struct at_heldout_share share = {first, step, most};
                long n = at_heldout_windows(&r.data, share);
                assert_true(n <= (long)most);
                all += n;
                double sum = 0;
                for (long k = 0; k < n; k++)
                    for (long i = 0, w = ((long)first + k * (long)step) * stride; i < r.data.seq_len; i++)
                        sum += (double)loss[w * r.data.seq_len + i];
                uint64_t tokens = (uint64_t)(n * r.data.seq_len);
                assert_int_equal(at_heldout_of_share(&t, &r.ex, &r.data, theta, share, NULL, NULL),
                                 at_heldout_code(sum, tokens));
            }
            assert_int_equal(all, (r.data.windows + stride - 1) / stride);
        }
    /* Whoever has no time for it has none to tell; after the last pass that does not matter. */
    struct at_heldout_share share = {0, 1, 100000};
    int passes = 0, whole = 0;
    (void)at_heldout_of_share(&t, &r.ex, &r.data, theta, share, count_passes, &whole);
    assert_true(whole < -1);
    for (passes = 1; passes <= -whole; passes++) {
        int left = passes;
        uint32_t code = at_heldout_of_share(&t, &r.ex, &r.data, theta, share, count_passes, &left);
        assert_true((code > 0) == (passes == -whole));
    }
    free(theta);
    free(loss);
    at_trainer_release(&t);
    test_run_release(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split_units_have_the_bits_of_one),
        cmocka_unit_test(test_the_leader_ends_a_unit),
        cmocka_unit_test(test_joined_units),
        cmocka_unit_test(test_join_is_a_shift),
        cmocka_unit_test(test_not_finite_in_a_split_replica),
        cmocka_unit_test(test_bytes_are_what_is_allocated),
        cmocka_unit_test(test_heldout_in_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
