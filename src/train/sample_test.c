/* Picking tokens: the edges of every option, the distribution, and text longer than the context. */
#include "train/sample.h"
#include "train/train_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static int32_t pick(const real *z, long n, struct at_sample_options o, uint64_t position)
{
    struct at_sample_rank scratch[16];
    int32_t t = -1;
    assert_int_equal(at_sample(z, n, &o, position, scratch, &t), AT_OK);
    return t;
}

static void test_greedy(void **state)
{
    const real z[] = {1, 3, -2, 3, 0};
    assert_int_equal(pick(z, 5, (struct at_sample_options){.temperature = 0, .top_p = 1}, 0), 1);
    for (uint64_t i = 0; i < 50; i++) { /* one candidate, or a temperature near zero, is greedy too */
        assert_int_equal(pick(z, 5, (struct at_sample_options){.temperature = 1, .top_k = 1, .top_p = 1}, i), 1);
        assert_int_equal(pick(z, 5, (struct at_sample_options){.temperature = 9, .top_p = 1e-9}, i), 1);
        int32_t t = pick(z, 5, (struct at_sample_options){.temperature = 1e-3, .top_p = 1}, i);
        assert_true(t == 1 || t == 3);
    }
}

/* Frequencies against softmax, with and without the cuts. */
static void test_distribution(void **state)
{
    const real z[] = {0, (real)log(2), (real)log(4), (real)log(8), -(real)INFINITY};
    static const struct {
        double temperature, top_p, want[5];
        int top_k;
    } cases[] = {
        {1, 1, {1 / 15.0, 2 / 15.0, 4 / 15.0, 8 / 15.0, 0}, 0},
        {0.5, 1, {1 / 85.0, 4 / 85.0, 16 / 85.0, 64 / 85.0, 0}, 0},
        {1, 1, {0, 0, 4 / 12.0, 8 / 12.0, 0}, 2},
        {1, 0.79, {0, 0, 4 / 12.0, 8 / 12.0, 0}, 0}, /* 12/15 = 0.8 */
        {1, 0.81, {0, 2 / 14.0, 4 / 14.0, 8 / 14.0, 0}, 0},
        {1, 0.5, {0, 0, 0, 1, 0}, 3},
    };
    enum { N = 20000 };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        int seen[5] = {0};
        struct at_sample_options o = {cases[c].temperature, cases[c].top_k, cases[c].top_p, 42 + c};
        for (uint64_t i = 0; i < N; i++) seen[pick(z, 5, o, i)]++;
        for (int i = 0; i < 5; i++) {
            double p = cases[c].want[i];
            assert_true(fabs((double)seen[i] / N - p) <= 5 * sqrt(p * (1 - p) / N));
        }
    }
}

static void test_not_finite(void **state)
{
    struct at_sample_options o = {.temperature = 1, .top_p = 1};
    struct at_sample_rank scratch[4];
    int32_t t = 77;
    static const real bad[][3] = {{0, (real)NAN, 1}, {(real)NAN, 0, 1}, {0, 1, (real)INFINITY}};
    for (int i = 0; i < 3; i++) assert_int_equal(at_sample(bad[i], 3, &o, 0, scratch, &t), AT_E_NONFINITE);
    const real none[] = {-(real)INFINITY, -(real)INFINITY};
    assert_int_equal(at_sample(none, 2, &o, 0, scratch, &t), AT_E_NONFINITE);
    assert_int_equal(t, 77);
    o.temperature = (double)NAN;
    assert_int_equal(at_sample_options_check(&o, NULL), AT_E_USAGE);
    o = (struct at_sample_options){.temperature = 1, .top_p = 0};
    assert_int_equal(at_sample_options_check(&o, NULL), AT_E_USAGE);
    o = (struct at_sample_options){.temperature = 1, .top_p = 1, .top_k = -1};
    assert_int_equal(at_sample_options_check(&o, NULL), AT_E_USAGE);
}

static void generate(struct test_run *r, const real *theta, const struct at_kern *kern, uint64_t seed, bool in_parts,
                     int32_t *ret, int n)
{
    struct at_exec ex;
    struct at_generator g;
    const int32_t prompt[] = {'C', 'a', 'l', 'l', ' ', 'm', 'e', ' ', 'I', 's', 'h', 'm', 'a', 'e', 'l'};
    struct at_sample_options o = {.temperature = 0.8, .top_p = 1, .seed = seed};
    assert_int_equal(at_exec_init(&ex, kern, &at_par_serial), AT_OK);
    assert_int_equal(at_generator_init(&g, &r->m, theta, &o, NULL), AT_OK);
    at_generator_prompt(&g, prompt, in_parts ? 6 : 15); /* longer than the context of 8 */
    if (in_parts) at_generator_prompt(&g, prompt + 6, 9);
    for (int i = 0; i < n; i++) assert_int_equal(at_generator_next(&g, &ex, &ret[i]), AT_OK);
    assert_int_equal(g.position, 15 + n);
    at_generator_release(&g);
    at_exec_release(&ex);
}

/* Each token drawn from a full forward pass over the context that the header describes. */
static void plain_generate(struct test_run *r, const real *theta, uint64_t seed, int32_t *text, int n)
{
    struct at_passing pass;
    struct at_activations act;
    struct at_sample_rank scratch[256];
    struct at_sample_options o = {.temperature = 0.8, .top_p = 1, .seed = seed};
    assert_int_equal(at_passing_init(&pass, &r->m, 1, false), AT_OK);
    assert_int_equal(at_activations_init(&act, &r->m, &pass), AT_OK);
    int from = 0; /* of the context; context = 8 tokens at most */
    for (int end = 1; end < 15 + n; end++) {
        if (end - from > 8) from = end - 1 - 4; /* full before text[end - 1] came: the last 4 tokens before it stay */
        if (end < 15) continue;
        int32_t padded[8] = {0};
        for (int i = from; i < end; i++) padded[i - from] = text[i];
        at_model_forward(&r->ex, &r->m, &act, theta, padded, 1);
        assert_int_equal(at_sample(pass.logits + (end - 1 - from) * 256, 256, &o, (uint64_t)end, scratch, &text[end]),
                         AT_OK);
    }
    at_activations_release(&act);
    at_passing_release(&pass);
}

static void test_text_longer_than_the_context(void **state)
{
    enum { N = 40 };
    struct test_run r;
    int32_t a[N], b[N], plain[15 + N + 1] = {'C', 'a', 'l', 'l', ' ', 'm', 'e', ' ', 'I', 's', 'h', 'm', 'a', 'e', 'l'};
    assert_true(test_run_init(&r, &run_configs[0]));
    real *theta = malloc(r.m.params.count * sizeof *theta);
    test_weights(&r.m.params, 4, theta);
    for (const struct at_kern *const *k = at_kern_available(); *k != NULL; k++) {
        generate(&r, theta, *k, 5, false, a, N);
        generate(&r, theta, *k, 5, true, b, N);
        assert_memory_equal(a, b, sizeof a);
        plain_generate(&r, theta, 5, plain, N);
        assert_memory_equal(a, plain + 15, sizeof a);
    }
    generate(&r, theta, at_kern_available()[0], 6, false, b, N);
    assert_memory_not_equal(a, b, sizeof a);
    free(theta);
    test_run_release(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_distribution),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_text_longer_than_the_context),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
