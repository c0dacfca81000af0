/* The outer step against fma written out, and the parser of updates, which are foreign bytes. */
#include "train/train_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { R = 3 };

struct rig {
    struct at_params p;
    struct at_state s;
    struct at_exec ex;
    struct at_buf blob[R];
    struct at_update u[R];
    float *theta[R], *stats[R];
    size_t n, k;
};

static void rig_init(struct rig *r, int config)
{
    *r = (struct rig){0};
    assert_int_equal(at_params_init(&r->p, &run_configs[config]), AT_OK);
    assert_int_equal(at_state_init(&r->s, &r->p), AT_OK);
    assert_int_equal(at_exec_init(&r->ex, at_kern_available()[0], &at_par_serial), AT_OK);
    r->n = r->p.count;
    r->k = at_stats_count(&r->p);
    test_state(&r->s, 4);
    for (int i = 0; i < R; i++) {
        r->theta[i] = malloc(r->n * sizeof(float));
        r->stats[i] = malloc(r->k * sizeof(float));
        test_weights(&r->p, 50 + (uint64_t)i, r->theta[i]);
        for (size_t j = 0; j < r->k; j++) r->stats[i][j] = r->s.stats[j] * (float)(i + 1);
        uint32_t steps = 1 + (uint32_t)i;
        struct at_update_info info = {
            .round = 4, .samples = 4 * steps, .steps = steps, .tokens = 4ull * steps * r->p.config.seq_len};
        assert_int_equal(
            at_update_write(&at_codec_plain, &r->p, &info, r->s.theta, r->theta[i], r->stats[i], &r->blob[i]), AT_OK);
        assert_int_equal(r->blob[i].n, at_update_bytes_max(&r->p));
        assert_int_equal(at_update_parse(&r->p, at_buf_span(&r->blob[i]), NULL, &r->u[i]), AT_OK);
        assert_int_equal(r->u[i].info.tokens, info.tokens);
    }
}

static void rig_release(struct rig *r)
{
    for (int i = 0; i < R; i++) {
        free(r->theta[i]);
        free(r->stats[i]);
        at_buf_release(&r->blob[i]);
    }
    at_exec_release(&r->ex);
    at_state_release(&r->s);
    at_params_release(&r->p);
}

static void test_weighted_mean(void **state)
{
    for (int c = 0; c < RUN_CONFIGS; c++) {
        struct rig r;
        rig_init(&r, c);
        static const int tokens[R] = {1, 2, 3};
        float *want = malloc(r.n * sizeof *want), *want_stats = malloc(r.k * sizeof *want_stats);
        for (size_t i = 0; i < r.n; i++) {
            float a = 0;
            for (int j = 0; j < R; j++) a = fmaf((float)(tokens[j] / 6.0), r.s.theta[i] - r.theta[j][i], a);
            want[i] = fmaf(-1, a, r.s.theta[i]);
        }
        for (size_t i = 0; i < r.k; i++) {
            float a = 0;
            for (int j = 0; j < R; j++) a = fmaf((float)(tokens[j] / 6.0), r.stats[j][i], a);
            want_stats[i] = a;
        }
        uint64_t count = 0;
        struct at_par par = test_par_shuffled(3, &count);
        r.ex.par = &par;
        assert_int_equal(at_outer_step(&r.ex, &r.s, r.u, R, NULL), AT_OK);
        assert_int_equal(r.s.round, 5);
        assert_memory_equal(r.s.theta, want, r.n * sizeof *want);
        assert_memory_equal(r.s.stats, want_stats, r.k * sizeof *want_stats);
        assert_true(at_params_padding_is_zero(&r.p, r.s.theta));
        free(want);
        free(want_stats);
        rig_release(&r);
    }
}

static void test_refusals_leave_the_state_alone(void **state)
{
    struct rig r;
    struct at_diag diag = {0};
    rig_init(&r, 0);
    struct at_state kept;
    assert_int_equal(at_state_init(&kept, &r.p), AT_OK);
    r.s.round = 5; /* an update of another round */
    assert_int_equal(at_outer_step(&r.ex, &r.s, r.u, R, NULL), AT_E_DATA);
    r.s.round = 4;
    /* Finite updates that overflow together. */
    r.s.theta[7] = -3e38f;
    at_state_copy(&kept, &r.s);
    at_store_le32(r.blob[2].p + AT_UPDATE_HEADER_BYTES + 4 * 7, 0x7F7FFFFFu);
    assert_int_equal(at_update_parse(&r.p, at_buf_span(&r.blob[2]), NULL, &r.u[2]), AT_OK);
    assert_int_equal(at_outer_step(&r.ex, &r.s, r.u, R, &diag), AT_E_NONFINITE);
    assert_string_equal(diag.where, "model.embed_tokens.weight");
    assert_memory_equal(kept.theta, r.s.theta, r.n * sizeof(float));
    assert_memory_equal(kept.stats, r.s.stats, r.k * sizeof(float));
    assert_int_equal(r.s.round, 4);
    at_outer_skip(&r.s);
    assert_int_equal(r.s.round, 5);
    at_state_release(&kept);
    rig_release(&r);
}

static at_err_t parse_exact(struct rig *r, size_t n)
{
    struct at_update u;
    uint8_t *exact = malloc(n != 0 ? n : 1);
    memcpy(exact, r->blob[0].p, n);
    int err = at_update_parse(&r->p, at_span(exact, n), NULL, &u);
    free(exact);
    return err;
}

static void test_hostile_updates(void **state)
{
    struct rig r;
    rig_init(&r, 2); /* with padded rows */
    uint8_t *b = r.blob[0].p;
    size_t n = r.blob[0].n, padded = at_block_count(at_params_block(&r.p, 0, r.p.slots - 1)) - 1;
    padded += at_params_block(&r.p, 0, r.p.slots - 1)->offset;
    for (size_t i = 0; i < n; i += i < 80 ? 1 : 1009) assert_int_equal(parse_exact(&r, i), AT_E_TRUNCATED);
    struct {
        size_t at;
        uint32_t bits;
        at_err_t want;
    } const cases[] = {
        {0, 0, AT_E_DATA}, /* magic */
        {8, 2, AT_E_DATA}, /* codec */
        {24, 0, AT_E_DATA},
        {24, 5, AT_E_DATA}, /* samples against tokens */
        {28, 0, AT_E_DATA},
        {28, 3, AT_E_DATA},
        {28, 8, AT_E_DATA}, /* steps against samples */
        {32, 1, AT_E_DATA},
        {36, 1, AT_E_DATA}, /* tokens */
        {40, 1, AT_E_DATA},
        {48, 1, AT_E_DATA},
        {60, 1, AT_E_DATA},                         /* shape; reserved */
        {64, 0x7F800000, AT_E_NONFINITE},           /* inf */
        {64, 0xFFC00000, AT_E_NONFINITE},           /* NaN */
        {64 + 4 * padded, 0x80000000, AT_E_DATA},   /* -0 in a padded row */
        {64 + 4 * r.n, 0x80000000, AT_E_NONFINITE}, /* a moment of -0 */
        {64 + 4 * (r.n + r.k - 1), 0x7FC00000, AT_E_NONFINITE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t was = at_load_le32(b + cases[i].at);
        at_store_le32(b + cases[i].at, cases[i].bits);
        assert_int_equal(parse_exact(&r, n), cases[i].want);
        at_store_le32(b + cases[i].at, was);
    }
    assert_int_equal(parse_exact(&r, n), AT_OK);
    assert_int_equal(at_buf_append(&r.blob[0], "x", 1), AT_OK);
    assert_int_equal(parse_exact(&r, n + 1), AT_E_DATA);
    rig_release(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weighted_mean),
        cmocka_unit_test(test_refusals_leave_the_state_alone),
        cmocka_unit_test(test_hostile_updates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
