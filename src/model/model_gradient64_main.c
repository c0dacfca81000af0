/* The whole model's gradient against finite differences, in binary64 (linked with at_model64 and at_tensor64).
 * Fourth-order central differences with h = 1e-3: error about h^4 and 1e-16 / h. */
#include "model/model_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { B = 2, PICKS = 3 };

static struct at_exec ex;
static struct at_model m;
static struct at_passing pass;
static struct at_activations act;
static real *theta, *grad;
static int32_t token[B * 16], target[B * 16];

static double loss(void)
{
    double sum = 0;
    at_model_forward(&ex, &m, &act, theta, token, B);
    at_model_loss(&ex, &m, &act, target, B, &sum);
    return sum / (B * (double)m.params.config.seq_len);
}

static double difference(size_t e)
{
    const double h = 1e-3;
    double x = theta[e], f[4];
    static const double at[4] = {-2, -1, 1, 2};
    for (int i = 0; i < 4; i++) {
        theta[e] = x + at[i] * h;
        f[i] = loss();
    }
    theta[e] = x;
    return (f[0] - f[3] + 8 * (f[2] - f[1])) / (12 * h);
}

/* A few elements of every block, its largest among them. */
static void check_block(const struct at_block *b)
{
    size_t n = (size_t)(at_block_rows_used(&m.params, b) * b->cols), largest = 0;
    for (size_t i = 0; i < n; i++)
        if (fabs(grad[b->offset + i]) > fabs(grad[b->offset + largest])) largest = i;
    for (int i = 0; n != 0 && i < PICKS; i++) {
        size_t e = b->offset + (i == 0 ? largest : at_philox(8, AT_RNG_TEST, (uint32_t)i, b->offset).v[0] % n);
        double want = difference(e), scale = fabs(want) + 1e-3 * fabs(grad[b->offset + largest]) + 1e-9;
        if (fabs(grad[e] - want) > 1e-6 * scale)
            fail_msg("%s slot %d element %zu: %.12g instead of %.12g", at_tensor_name(&m.params, b->tensor).s, b->slot,
                     e - b->offset, grad[e], want);
    }
}

static void check_config(const struct at_model_config *c)
{
    assert_int_equal(at_model_init(&m, c, NULL), AT_OK);
    assert_int_equal(at_passing_init(&pass, &m, B, false), AT_OK);
    assert_int_equal(at_activations_init(&act, &m, &pass), AT_OK);
    theta = malloc(m.params.count * sizeof *theta);
    grad = calloc(at_model_grad_count(&m), sizeof *grad);
    test_weights(&m.params, 21, theta);
    test_tokens(token, B * (long)c->seq_len, c->vocab, 3);
    test_tokens(target, B * (long)c->seq_len, c->vocab, 4);
    double sum = 0;
    at_model_forward(&ex, &m, &act, theta, token, B);
    at_model_backward(&ex, &m, &act, theta, token, target, B, 1.0 / (B * (double)c->seq_len), grad, &sum);
    at_model_grad_finish(&ex, &m, grad);
    for (int i = 0; i < m.params.blocks; i++) check_block(&m.params.block[i]);
    free(theta);
    free(grad);
    at_activations_release(&act);
    at_passing_release(&pass);
    at_model_release(&m);
}

static void test_gradients(void **state)
{
    assert_int_equal(at_exec_init(&ex, at_kern_available()[0], &at_par_serial), AT_OK);
    for (int c = 0; c < TEST_CONFIGS; c++) check_config(&test_configs[c]);
    at_exec_release(&ex);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_gradients)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
