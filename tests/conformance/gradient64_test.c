/* The backward operations against finite differences of the forward ones, in the binary64 build of the tensor layer:
 * whatever the exact bits are, they must be the bits of the right derivative. L = sum of weight * output. */
#include "tensor/emath.h"
#include "tensor/exec.h"
#include "tensor/ops.h"
#include "tensor/tensor_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

_Static_assert(sizeof(real) == 8, "this test is of the binary64 build");

static struct at_exec ex;

static double weighted(const real *weight, const real *y, long n)
{
    double sum = 0;
    for (long i = 0; i < n; i++) sum += weight[i] * y[i];
    return sum;
}

typedef double loss_fn(const void *arg);

/* Every gradient[i] against (L(x_i + h) - L(x_i - h)) / 2h. */
static void check_gradient(const char *what, loss_fn *loss, const void *arg, real *x, const real *gradient, long n)
{
    const double h = 1e-5;
    for (long i = 0; i < n; i++) {
        real keep = x[i];
        x[i] = keep + h;
        double up = loss(arg);
        x[i] = keep - h;
        double down = loss(arg);
        x[i] = keep;
        double want = (up - down) / (2 * h);
        if (fabs(want - gradient[i]) > 1e-8 + 1e-7 * fabs(want))
            fail_msg("%s: element %ld: gradient %.12g, finite difference %.12g", what, i, gradient[i], want);
    }
}

enum { N = 6, C = 21 };

static struct {
    real x[N * C], gain[C], weight[N * C], y[N * C], rstd[N], d_x[N * C], d_gain[C];
} norm;

static double norm_loss(const void *arg)
{
    (void)arg;
    static real rstd[N];
    at_rmsnorm_forward(&ex, norm.y, rstd, norm.x, norm.gain, N, C, 1e-5);
    return weighted(norm.weight, norm.y, N * C);
}

static void test_rmsnorm(void **state)
{
    (void)state;
    test_fill(norm.x, N * C, 1, 1, 2);
    test_fill(norm.gain, C, 1, 2, 1);
    test_fill(norm.weight, N * C, 1, 3, 1);
    at_rmsnorm_forward(&ex, norm.y, norm.rstd, norm.x, norm.gain, N, C, 1e-5);
    at_rmsnorm_backward(&ex, norm.d_x, norm.d_gain, norm.weight, norm.x, norm.rstd, norm.gain, N, 3, C);
    check_gradient("d_x", norm_loss, NULL, norm.x, norm.d_x, N * C);
    check_gradient("d_gain", norm_loss, NULL, norm.gain, norm.d_gain, C);
}

static struct {
    real gu[N * 2 * C], weight[N * C], h[N * C], d_gu[N * 2 * C];
} glu;

static double glu_loss(const void *arg)
{
    (void)arg;
    at_swiglu_forward(&ex, glu.h, C, glu.gu, 2 * C, N, C, 3);
    return weighted(glu.weight, glu.h, N * C);
}

static void test_swiglu(void **state)
{
    (void)state;
    test_fill(glu.gu, N * 2 * C, 2, 1, 5);
    test_fill(glu.weight, N * C, 2, 2, 1);
    at_swiglu_backward(&ex, glu.d_gu, glu.weight, C, glu.gu, 2 * C, N, C, 3);
    check_gradient("d_gu", glu_loss, NULL, glu.gu, glu.d_gu, N * 2 * C);
}

enum { VOCAB = 21, PADDED = 24 };
static struct {
    real z[N * PADDED], loss[N], d[N * PADDED];
    int32_t target[N];
} xent;

static double xent_loss(const void *arg)
{
    (void)arg;
    at_cross_entropy(&ex, xent.loss, NULL, xent.z, xent.target, N, VOCAB, PADDED, 4, 1);
    double sum = 0;
    for (int r = 0; r < N; r++) sum += xent.loss[r];
    return sum * 0.25;
}

static void test_cross_entropy(void **state)
{
    (void)state;
    test_fill(xent.z, N * PADDED, 3, 1, 4);
    for (int r = 0; r < N; r++) xent.target[r] = r == 2 ? -1 : 4 * r;
    at_cross_entropy(&ex, xent.loss, xent.d, xent.z, xent.target, N, VOCAB, PADDED, 4, 0.25);
    check_gradient("d_logits", xent_loss, NULL, xent.z, xent.d, N * PADDED);
}

enum { B = 2, T = 5, HEADS = 4, KV_HEADS = 2, HEAD = 6, ROW = (HEADS + 2 * KV_HEADS) * HEAD, WIDTH = HEADS * HEAD };
static const struct at_heads heads = {HEADS, KV_HEADS, HEAD, 2};
static struct {
    real qkv[B * T * ROW], turned[B * T * ROW], o[B * T * WIDTH], max[B * T * HEADS], sum[B * T * HEADS];
    real weight[B * T * WIDTH], d_qkv[B * T * ROW], cos[T * HEAD / 2], sin[T * HEAD / 2];
} attn;

/* Rotary positions, then attention, as in the model. */
static double attention_loss(const void *arg)
{
    (void)arg;
    memcpy(attn.turned, attn.qkv, sizeof attn.qkv);
    at_rotary(&ex, attn.turned, &heads, attn.cos, attn.sin, (long)B * T, T, 0, false);
    at_attention_forward(&ex, attn.o, attn.max, attn.sum, attn.turned, attn.turned, (long)T * ROW, &heads, B, T, 0,
                         0.4);
    return weighted(attn.weight, attn.o, (long)B * T * WIDTH);
}

static void test_rotary_and_attention(void **state)
{
    (void)state;
    test_fill(attn.qkv, (long)B * T * ROW, 4, 1, 1.5);
    test_fill(attn.weight, (long)B * T * WIDTH, 4, 2, 1);
    at_rotary_table(attn.cos, attn.sin, T, HEAD, 100);
    attention_loss(NULL);
    at_attention_backward(&ex, attn.d_qkv, attn.weight, attn.o, attn.turned, attn.max, attn.sum, &heads, B, T, 0.4);
    at_rotary(&ex, attn.d_qkv, &heads, attn.cos, attn.sin, (long)B * T, T, 0, true);
    check_gradient("d_qkv", attention_loss, NULL, attn.qkv, attn.d_qkv, (long)B * T * ROW);
}

static int setup(void **state)
{
    (void)state;
    return at_exec_init(&ex, at_kern_available()[0], &at_par_serial);
}
static int teardown(void **state)
{
    (void)state;
    at_exec_release(&ex);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rmsnorm),
        cmocka_unit_test(test_swiglu),
        cmocka_unit_test(test_cross_entropy),
        cmocka_unit_test(test_rotary_and_attention),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
