/* A unit of work is a pure function of state and range; its optimizer against a plain one; the outer step
 * against fma. */
#include "train/moments.h"
#include "train/train_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct at_buf run_unit(struct test_run *r, const struct at_exec *ex, long micro, uint32_t round,
                              uint32_t samples, at_unit_progress_fn *progress, void *arg,
                              struct at_unit_report *ret_report)
{
    struct at_trainer t;
    struct at_state s;
    struct at_buf blob = {0};
    assert_int_equal(at_trainer_init(&t, &r->m, &r->config, micro, NULL), AT_OK);
    assert_int_equal(at_state_init(&s, &r->m.params), AT_OK);
    test_state(&s, round);
    struct at_unit unit = {.start = 100, .samples = samples, .step_first = (uint64_t)round * r->config.steps};
    assert_int_equal(at_unit_run(&t, ex, &r->data, &s, &unit, progress, arg, NULL, &blob, ret_report), AT_OK);
    at_state_release(&s);
    at_trainer_release(&t);
    return blob;
}

static void same_blob(struct at_buf *a, struct at_buf *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->p, b->p, a->n);
    at_buf_release(b);
}

static void test_bits_do_not_depend_on_kernels_threads_microbatches(void **state)
{
    for (int c = 0; c < RUN_CONFIGS; c++)
        for (uint32_t round = 0; round < 2; round++) {
            struct test_run r;
            struct at_unit_report report;
            assert_true(test_run_init(&r, &run_configs[c]));
            struct at_buf want = run_unit(&r, &r.ex, 0, round, 12, NULL, NULL, &report);
            assert_true(report.info.steps == 3 && report.info.samples == 12 && report.info.start == 100);
            assert_true(report.info.tokens == 12 * (uint64_t)r.data.seq_len && report.loss_mean > 0);
            for (const struct at_kern *const *k = at_kern_available(); *k != NULL; k++)
                for (int threads = 1; threads <= 3; threads++) {
                    uint64_t count = 0;
                    struct at_par par = test_par_shuffled(threads, &count);
                    struct at_exec ex;
                    assert_int_equal(at_exec_init(&ex, *k, &par), AT_OK);
                    struct at_buf got = run_unit(&r, &ex, 1 << (threads - 1), round, 12, NULL, NULL, &report);
                    same_blob(&want, &got);
                    at_exec_release(&ex);
                }
            at_buf_release(&want);
            test_run_release(&r);
        }
}

static bool stop_after(void *arg, const struct at_unit_progress *p)
{
    return p->step < *(uint32_t *)arg;
}

/* Stopping early is the same as having been given the shorter range. */
static void test_stopping_early_leaves_a_prefix(void **state)
{
    struct test_run r;
    struct at_unit_report a, b;
    assert_true(test_run_init(&r, &run_configs[0]));
    for (uint32_t k = 1; k <= 3; k++) {
        struct at_buf stopped = run_unit(&r, &r.ex, 2, 1, 12, stop_after, &k, &a);
        struct at_buf shorter = run_unit(&r, &r.ex, 2, 1, 4 * k, NULL, NULL, &b);
        assert_true(a.info.steps == k && a.info.samples == 4 * k && a.loss_mean == b.loss_mean);
        same_blob(&stopped, &shorter);
        at_buf_release(&stopped);
    }
    test_run_release(&r);
}

/* AdamW with clipping written again in binary64, over two steps of one unit. */
static void test_optimizer_against_a_plain_one(void **state)
{
    for (uint32_t round = 0; round < 2; round++) {
        struct test_run r;
        struct at_trainer t;
        struct at_state s;
        assert_true(test_run_init(&r, &run_configs[1]));
        r.config.clip_norm = 0.05;
        assert_int_equal(at_trainer_init(&t, &r.m, &r.config, 2, NULL), AT_OK);
        assert_int_equal(at_state_init(&s, &r.m.params), AT_OK);
        test_state(&s, round);
        const struct at_params *p = &r.m.params;
        size_t n = p->count;
        double *th = malloc(n * sizeof *th), *m = calloc(n, sizeof *m), *v = calloc(n, sizeof *v);
        memcpy(t.theta, s.theta, n * sizeof(real));
        memset(t.m, 0, n * sizeof(real));
        memset(t.v, 0, n * sizeof(real));
        if (round != 0) at_moments_expand(&r.ex, p, s.stats, t.v);
        for (size_t i = 0; i < n; i++) {
            th[i] = (double)t.theta[i];
            v[i] = (double)t.v[i];
        }
        for (uint32_t k = 1; k <= 2; k++) {
            for (uint64_t j = 0; j < 4; j++)
                at_data_sample(&r.data, 4 * (k - 1) + j, t.input + j * 10, t.target + j * 10);
            at_trainer_gradient(&t, &r.ex, t.theta);
            double norm = 0;
            for (size_t i = 0; i < n; i++) norm += (double)t.grad[i] * (double)t.grad[i];
            double clip = sqrt(norm) > 0.05 ? 0.05 / sqrt(norm) : 1;
            assert_true(clip < 1);
            for (size_t i = 0; i < n; i++) {
                double g = (double)t.grad[i] * clip;
                bool gain = at_role_is_gain(p->tensor[at_params_block_at(p, i)->tensor].role);
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.95 * v[i] + 0.05 * g * g;
                double b1 = round == 0 ? 1 - pow(0.9, k) : 1, b2 = round == 0 ? 1 - pow(0.95, k) : 1;
                double u = m[i] / b1 / (sqrt(v[i] / b2) + 1e-8) + (gain ? 0 : 0.1) * th[i];
                th[i] -= (double)at_lr(&r.config, (uint64_t)round * 3 + k - 1) * u;
            }
            assert_int_equal(at_trainer_step(&t, &r.ex, round, k, NULL), AT_OK);
            for (size_t i = 0; i < n; i++) assert_true(fabs((double)t.theta[i] - th[i]) < 2e-6);
        }
        free(th);
        free(m);
        free(v);
        at_state_release(&s);
        at_trainer_release(&t);
        test_run_release(&r);
    }
}

static void test_learning_rate(void **state)
{
    struct at_train_config c = test_train_config(); /* 4 x 3 steps, warm-up 2, 1e-2 to 1e-3 */
    assert_true(at_lr(&c, 0) == 0.005f && at_lr(&c, 1) == 0.01f);
    for (uint32_t g = 2; g < 12; g++) {
        double want = 1e-2 * (0.1 + 0.9 * 0.5 * (1 + cos(3.14159265358979323846 * (g - 2) / 10.0)));
        assert_true(fabs((double)at_lr(&c, g) - want) < 1e-9);
    }
    assert_true(at_lr(&c, 12) == 0.001f && at_lr(&c, 3000002) == 0.001f);
    c.warmup_steps = 100;
    assert_true(at_lr(&c, 11) == (real)(1e-2 * 12 / 100));
    c.warmup_steps = 0;
    assert_true(at_lr(&c, 0) == 0.01f);
}

/* Means of rows and columns, and back: exact for moments that are a product of rows and columns. */
static void test_moments(void **state)
{
    struct test_run r;
    assert_true(test_run_init(&r, &run_configs[1]));
    const struct at_params *p = &r.m.params;
    real *v = malloc(p->count * sizeof *v), *w = malloc(p->count * sizeof *w);
    real *stats = malloc(at_stats_count(p) * sizeof *stats);
    for (int i = 0; i < p->blocks; i++)
        for (long y = 0; y < p->block[i].rows; y++)
            for (long x = 0; x < p->block[i].cols; x++)
                v[p->block[i].offset + (size_t)(y * p->block[i].cols + x)] =
                    (real)((1 + (double)(y % 7)) * 0.01 * (2 + (double)(x % 5)));
    at_moments_reduce(&r.ex, p, v, stats);
    const real *st = stats;
    for (int i = 0; i < p->blocks; i++) {
        const struct at_block *b = &p->block[i];
        if (!at_role_is_gain(p->tensor[b->tensor].role)) {
            double row = 0, col = 0;
            for (long x = 0; x < b->cols; x++) row += (double)v[b->offset + (size_t)((b->rows - 1) * b->cols + x)];
            for (long y = 0; y < b->rows; y++) col += (double)v[b->offset + (size_t)(y * b->cols + b->cols - 1)];
            assert_true(fabs((double)st[b->rows - 1] - row / (double)b->cols) < 1e-8);
            assert_true(fabs((double)st[b->rows + b->cols - 1] - col / (double)b->rows) < 1e-8);
        }
        st += at_block_stats_count(p, b);
    }
    at_moments_expand(&r.ex, p, stats, w);
    for (size_t i = 0; i < p->count; i++) assert_true(fabs((double)w[i] / (double)v[i] - 1) < 1e-6);
    memset(stats, 0, at_stats_count(p) * sizeof *stats); /* nothing seen yet: no division by zero */
    at_moments_expand(&r.ex, p, stats, w);
    for (size_t i = 0; i < p->count; i++) assert_true(w[i] == 0);
    free(v);
    free(w);
    free(stats);
    test_run_release(&r);
}

/* What goes wrong where is said alike by every table, thread count and microbatch. */
static void refused(struct test_run *r, const struct at_state *s, const char *where, const char *text)
{
    for (const struct at_kern *const *k = at_kern_available(); *k != NULL; k++)
        for (int threads = 1; threads <= 3; threads++) {
            struct at_trainer t;
            struct at_exec ex;
            struct at_buf blob = {0};
            struct at_unit_report report;
            struct at_diag diag = {0};
            uint64_t count = 0;
            struct at_par par = test_par_shuffled(threads, &count);
            struct at_unit unit = {.start = 0, .samples = 4};
            assert_int_equal(at_exec_init(&ex, *k, &par), AT_OK);
            struct at_trainer_options o = {.microbatch = threads, .recompute = threads == 2};
            assert_int_equal(at_trainer_init_options(&t, &r->m, &r->config, &o, NULL), AT_OK);
            assert_int_equal(at_unit_run(&t, &ex, &r->data, s, &unit, NULL, NULL, &diag, &blob, &report),
                             AT_E_NONFINITE);
            assert_string_equal(diag.where, where);
            assert_non_null(strstr(diag.text, text));
            assert_int_equal(blob.n, 0);
            at_trainer_release(&t);
            at_exec_release(&ex);
        }
}

static void test_not_finite_names_the_tensor(void **state)
{
    static const struct {
        enum at_role role;
        int layer;
        real value;
        const char *where, *text;
    } cases[] = {
        {AT_ROLE_UP, 1, REAL(3e38), "model.layers.1.mlp.up_proj.weight", "layer 1"},
        {AT_ROLE_Q, 0, REAL(3e38), "model.layers.0.self_attn.q_proj.weight", "layer 0"},
        {AT_ROLE_V, 1, REAL(3e38), "model.layers.1.self_attn.v_proj.weight", "layer 1"},
        {AT_ROLE_K, 1, REAL(2e37), "model.layers.1.self_attn.q_proj.weight", "attention"},
        {AT_ROLE_NORM2, 0, (real)INFINITY, "model.layers.0.post_attention_layernorm.weight", "a weight"},
        {AT_ROLE_O, 1, (real)NAN, "model.layers.1.self_attn.o_proj.weight", "a weight"},
        {AT_ROLE_HEAD, 0, REAL(3e38), "lm_head.weight", "outside the layers"},
    };
    struct test_run r;
    struct at_state s;
    assert_true(test_run_init(&r, &run_configs[1]));
    assert_int_equal(at_state_init(&s, &r.m.params), AT_OK);
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        test_state(&s, 1);
        int tensor = at_params_find(&r.m.params, cases[c].role, cases[c].layer);
        const struct at_block *b = at_params_block(&r.m.params, tensor, 0);
        for (size_t i = 0; i < at_block_count(b); i++) s.theta[b->offset + i] = cases[c].value;
        refused(&r, &s, cases[c].where, cases[c].text);
    }
    at_state_release(&s);
    test_run_release(&r);
}

/* A loss can overflow while its gradient, made of probabilities, is finite. */
static void test_a_loss_that_overflows_is_refused(void **state)
{
    struct test_run r;
    struct at_state s;
    assert_true(test_run_init(&r, &run_configs[1]));
    assert_int_equal(at_state_init(&s, &r.m.params), AT_OK);
    test_state(&s, 1);
    int norm = at_params_find(&r.m.params, AT_ROLE_NORM_FINAL, 0), head = at_params_find(&r.m.params, AT_ROLE_HEAD, 0);
    const struct at_block *gain = at_params_block(&r.m.params, norm, 0);
    for (long i = 0; i < gain->cols; i++) s.theta[gain->offset + (size_t)i] = i == 0 ? 1000 : 0;
    for (int slot = 0; slot < 2; slot++) { /* the first channel is all that the last norm sees */
        const struct at_block *b = at_params_block(&r.m.params, 0, slot);
        for (long i = 0; i < b->rows; i++) s.theta[b->offset + (size_t)(i * b->cols)] = 1000;
    }
    for (int slot = 0; slot < 2; slot++) { /* logits x and -x: only their difference overflows */
        const struct at_block *b = at_params_block(&r.m.params, head, slot);
        for (long i = 0; i < b->rows; i++)
            s.theta[b->offset + (size_t)(i * b->cols)] = (slot == 0 && i == 0 ? 1 : -1) * REAL(6e34);
    }
    refused(&r, &s, "lm_head.weight", "loss");
    at_state_release(&s);
    test_run_release(&r);
}

static void test_units_are_whole_batches(void **state)
{
    struct test_run r;
    struct at_trainer t;
    struct at_state s;
    struct at_buf blob = {0};
    struct at_unit_report report;
    assert_true(test_run_init(&r, &run_configs[1]));
    assert_int_equal(at_trainer_init(&t, &r.m, &r.config, 2, NULL), AT_OK);
    assert_int_equal(at_state_init(&s, &r.m.params), AT_OK);
    test_state(&s, 1);
    for (uint32_t samples = 0; samples < 8; samples++) {
        struct at_unit unit = {.start = 0, .samples = samples};
        if (samples == 4) continue;
        assert_int_equal(at_unit_run(&t, &r.ex, &r.data, &s, &unit, NULL, NULL, NULL, &blob, &report), AT_E_DATA);
    }
    at_state_release(&s);
    at_trainer_release(&t);
    test_run_release(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bits_do_not_depend_on_kernels_threads_microbatches),
        cmocka_unit_test(test_stopping_early_leaves_a_prefix),
        cmocka_unit_test(test_optimizer_against_a_plain_one),
        cmocka_unit_test(test_learning_rate),
        cmocka_unit_test(test_moments),
        cmocka_unit_test(test_not_finite_names_the_tensor),
        cmocka_unit_test(test_a_loss_that_overflows_is_refused),
        cmocka_unit_test(test_units_are_whole_batches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
