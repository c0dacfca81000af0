/* The operations against naive loops written from ops.h's words with the C library's fmaf, and every table with 1, 2
 * and 3 threads in shuffled order: always the same bits. */
#include "tensor/ops.h"

#include "tensor/emath.h"
#include "tensor/tensor_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

/* Large enough that the drivers cut the work into several jobs. */
enum { B = 3, T = 290, N = B * T, C = 76, VOCAB = 93, PADDED = 96, SLOTS = 4, F = 72 };

/* One configuration after the other: every table, 1 to 3 threads. */
struct config {
    struct at_exec ex;
    struct at_par par;
    uint64_t shuffles;
};
typedef void check_fn(const struct at_exec *ex);

static void for_each_config(check_fn *check)
{
    for (const struct at_kern *const *k = at_kern_available(); *k; k++) {
        for (int threads = 1; threads <= 3; threads++) {
            struct config c = {.shuffles = 0};
            c.par = test_par_shuffled(threads, &c.shuffles);
            assert_int_equal(at_exec_init(&c.ex, *k, &c.par), AT_OK);
            check(&c.ex);
            assert_true(c.shuffles > 0 || threads == 1); /* the work was split */
            at_exec_release(&c.ex);
        }
    }
}

static real lanes16(const real *term_a, const real *term_b, long n)
{
    real l[16] = {0};
    for (long i = 0; i < n; i++) l[i % 16] = fmaf(term_a[i], term_b[i], l[i % 16]);
    for (int i = 0; i < 8; i++) l[i] += l[i + 8];
    for (int i = 0; i < 4; i++) l[i] += l[i + 4];
    return (l[0] + l[2]) + (l[1] + l[3]);
}

static real x[N * C], dy[N * C], gain[C], rstd[N];
static int32_t token[N];

static void fill_rows(void)
{
    test_fill(x, N * C, 1, 1, 2.0);
    test_fill(dy, N * C, 1, 2, 1.0);
    test_fill(gain, C, 1, 3, 1.5);
    test_fill(rstd, N, 1, 4, 1.5);
    for (int r = 0; r < N; r++) token[r] = (int32_t)(at_philox(1, AT_RNG_TEST, 5, (uint64_t)r).v[0] % VOCAB);
}

static void check_embedding(const struct at_exec *ex)
{
    static real table[VOCAB * C], want[VOCAB * C], got[VOCAB * C], out[N * C];
    test_fill(table, VOCAB * C, 2, 1, 1.0);
    table[5] = -0.0f;
    at_embedding_forward(ex, out, token, table, N, C);
    for (int r = 0; r < N; r++)
        for (int j = 0; j < C; j++) assert_true(test_same(out[r * C + j], table[token[r] * C + j] + 0.0f));
    memcpy(want, table, sizeof want);
    memcpy(got, table, sizeof got);
    for (int r = 0; r < N; r++)
        for (int j = 0; j < C; j++) want[token[r] * C + j] += dy[r * C + j];
    at_embedding_backward(ex, got, token, dy, N, C);
    assert_memory_equal(want, got, sizeof want);
}

static void check_rmsnorm_forward(const struct at_exec *ex)
{
    static real y[N * C], got_rstd[N];
    at_rmsnorm_forward(ex, y, got_rstd, x, gain, N, C, 1e-5f);
    for (int r = 0; r < N; r++) {
        real s = 1.0f / sqrtf(lanes16(x + r * C, x + r * C, C) / (real)C + 1e-5f);
        assert_true(test_same(s, got_rstd[r]));
        for (int j = 0; j < C; j++) assert_true(test_same(y[r * C + j], (x[r * C + j] * s) * gain[j]));
    }
}

/* rows: a whole number of sequences of seq_len positions. */
static void check_rmsnorm_backward_of(const struct at_exec *ex, int rows, int seq_len)
{
    static real want[N * C], got[N * C], want_gain[C], got_gain[C];
    test_fill(want, N * C, 3, 1, 1.0);
    memcpy(got, want, sizeof got);
    test_fill(want_gain, C, 3, 2, 1.0);
    memcpy(got_gain, want_gain, sizeof got_gain);
    for (int r = 0; r < rows; r++) {
        real xhat[C], w[C];
        for (int j = 0; j < C; j++) {
            xhat[j] = x[r * C + j] * rstd[r];
            w[j] = dy[r * C + j] * gain[j];
        }
        real c = lanes16(w, xhat, C) / (real)C;
        for (int j = 0; j < C; j++) want[r * C + j] = want[r * C + j] + rstd[r] * (w[j] - xhat[j] * c);
    }
    for (int j = 0; j < C; j++) {
        real acc = 0;
        for (int r = 0; r < rows; r++) {
            acc = fmaf(dy[r * C + j], x[r * C + j] * rstd[r], acc);
            int t = r % seq_len; /* not a multiple of 256: a sequence's last grain is short */
            if (t % 256 == 255 || t == seq_len - 1) {
                want_gain[j] += acc + 0.0f;
                acc = 0;
            }
        }
    }
    at_rmsnorm_backward(ex, got, got_gain, dy, x, rstd, gain, rows, seq_len, C);
    assert_memory_equal(want, got, sizeof want);
    assert_memory_equal(want_gain, got_gain, sizeof want_gain);
}

static void check_rmsnorm_backward(const struct at_exec *ex)
{
    check_rmsnorm_backward_of(ex, N, T);
    const int seq_len[] = {1, 254, 255, 256, 257, 510, 511, 512, 513}; /* around the ends of a grain */
    for (int i = 0; i < 9; i++) check_rmsnorm_backward_of(ex, N / seq_len[i] * seq_len[i], seq_len[i]);
}

static void check_rotary(const struct at_exec *ex)
{
    const struct at_heads h = {.heads = 8, .kv_heads = 4, .head_size = 10, .slots = 4};
    enum { ROW = 160, HALF = 5, POS0 = 7, KV_PER_SLOT = 1, SLOT = 40 };
    static real cos_table[(T + POS0) * HALF], sin_table[(T + POS0) * HALF], in[N * ROW], want[N * ROW], got[N * ROW];
    at_rotary_table(cos_table, sin_table, T + POS0, h.head_size, 500.0);
    test_fill(in, N * ROW, 4, 1, 1.0);
    assert_int_equal(at_heads_row(&h), ROW);
    memcpy(want, in, sizeof in);
    for (int r = 0; r < N; r++) {
        const real *c = cos_table + (r % T + POS0) * HALF, *s = sin_table + (r % T + POS0) * HALF;
        for (int slot = 0; slot < 4; slot++) { /* two query heads, one key head, one value head */
            for (int head = 0; head < 3; head++) {
                real *v = want + r * ROW + slot * SLOT + head * 10;
                for (int i = 0; i < HALF; i++) {
                    real a = v[i], b = v[i + HALF];
                    v[i] = a * c[i] - b * s[i];
                    v[i + HALF] = b * c[i] + a * s[i];
                }
            }
        }
    }
    memcpy(got, in, sizeof in);
    at_rotary(ex, got, &h, cos_table, sin_table, N, T, POS0, false);
    assert_memory_equal(want, got, sizeof want);
    at_rotary(ex, got, &h, cos_table, sin_table, N, T, POS0, true);
    for (long i = 0; i < N * ROW; i++) assert_true(fabsf(got[i] - in[i]) < 1e-6f); /* turned back */
}

static void check_swiglu(const struct at_exec *ex)
{
    static real gu[N * 2 * F], dh[N * F], h[N * F], want[N * 2 * F];
    enum { W = F / SLOTS };
    test_fill(gu, N * 2 * F, 5, 1, 6.0);
    test_fill_awkward(gu, N * 2 * F, 5, 1, false);
    test_fill(dh, N * F, 5, 2, 1.0);
    at_swiglu_forward(ex, h, F, gu, 2 * F, N, F, SLOTS);
    for (int r = 0; r < N; r++) {
        for (int j = 0; j < F; j++) {
            int at = r * 2 * F + j / W * 2 * W + j % W;
            real g = gu[at], u = gu[at + W], s = at_sigmoid(g), d = dh[r * F + j];
            assert_true(test_same(h[r * F + j], (g * s) * u));
            want[at + W] = d * (g * s);
            want[at] = ((d * u) * s) * fmaf(g, 1.0f - s, 1.0f);
        }
    }
    at_swiglu_backward(ex, gu, dh, F, gu, 2 * F, N, F, SLOTS); /* in place */
    assert_true(test_all_same(want, gu, N * 2 * F));
}

static void naive_cross_entropy(real *loss, real *d, const real *z, int32_t target, real inv)
{
    real m = z[0], slot[SLOTS];
    for (int j = 1; j < VOCAB; j++) m = z[j] > m ? z[j] : m;
    for (int s = 0; s < SLOTS; s++) {
        real p[PADDED / SLOTS], one[PADDED / SLOTS];
        int n = 0;
        for (int j = s * (PADDED / SLOTS); j < (s + 1) * (PADDED / SLOTS) && j < VOCAB; j++) {
            p[n] = at_exp(z[j] - m);
            one[n++] = 1.0f; /* fma(p, 1, l) rounds like p + l */
        }
        slot[s] = lanes16(p, one, n);
    }
    real lse = m + at_log((slot[0] + slot[1]) + (slot[2] + slot[3]));
    *loss = target < 0 ? 0 : lse - z[target];
    for (int j = 0; j < PADDED; j++) {
        real p = j < VOCAB && target >= 0 ? at_exp(z[j] - lse) : 0.0f;
        d[j] = j < VOCAB && target >= 0 ? (p - (j == target ? 1.0f : 0.0f)) * inv : 0.0f;
    }
}

static void check_cross_entropy(const struct at_exec *ex)
{
    static real z[N * PADDED], loss[N], want_loss[N], want[N * PADDED];
    static int32_t target[N];
    test_fill(z, N * PADDED, 6, 1, 9.0);
    for (int r = 0; r < N; r++) {
        target[r] = r % 5 == 3 ? -1 - r : token[r];
        z[r * PADDED + VOCAB] = 1e30f; /* a padded column has no say */
        naive_cross_entropy(&want_loss[r], want + r * PADDED, z + r * PADDED, target[r], 1.0f / 700);
    }
    at_cross_entropy(ex, loss, NULL, z, target, N, VOCAB, PADDED, SLOTS, 1.0f / 700);
    assert_memory_equal(loss, want_loss, sizeof loss);
    memset(loss, 0, sizeof loss);
    at_cross_entropy(ex, loss, z, z, target, N, VOCAB, PADDED, SLOTS, 1.0f / 700);
    assert_memory_equal(loss, want_loss, sizeof loss);
    assert_memory_equal(z, want, sizeof want);
}

/* Whole slots of padding, one class, the widest slot count. */
static void check_cross_entropy_corners(const struct at_exec *ex)
{
    real z[64], d[64], loss;
    for (int vocab = 1; vocab <= 64; vocab += 9) {
        test_fill(z, 64, 7, (uint32_t)vocab, 5.0);
        int32_t target = vocab - 1;
        at_cross_entropy(ex, &loss, d, z, &target, 1, vocab, 64, 8, 1.0f);
        double sum = 0, total = 0;
        for (int j = 0; j < vocab; j++) sum += exp((double)z[j]);
        for (int j = 0; j < 64; j++) total += (double)d[j];
        assert_true(fabs((double)loss - (log(sum) - (double)z[target])) < 1e-5);
        assert_true(fabs(total) < 1e-5); /* probabilities sum to 1, the one-hot too */
    }
}

enum { ELEMENTS = 70001 };
static real theta[ELEMENTS], grad[ELEMENTS], other[ELEMENTS];

static void check_adamw(const struct at_exec *ex)
{
    static real want[3][ELEMENTS], got[3][ELEMENTS];
    const struct at_adamw o = {.lr = 3e-4f,
                               .beta1 = 0.9f,
                               .beta2 = 0.95f,
                               .one_minus_beta1 = 0.1f,
                               .one_minus_beta2 = 0.05f,
                               .inv_bias1 = 5.26f,
                               .inv_bias2 = 10.26f,
                               .eps = 1e-8f,
                               .weight_decay = 0.1f,
                               .clip = 0.77f};
    for (uint32_t i = 0; i < 3; i++) test_fill(want[i], ELEMENTS, 8, i, 1.0);
    for (long i = 0; i < ELEMENTS; i++) want[2][i] = fabsf(want[2][i]) * 1e-4f;
    memcpy(got, want, sizeof got);
    for (long i = 0; i < ELEMENTS; i++) {
        real g = grad[i] * o.clip;
        real m = want[1][i] = fmaf(o.beta1, want[1][i], o.one_minus_beta1 * g);
        real v = want[2][i] = fmaf(o.beta2, want[2][i], (o.one_minus_beta2 * g) * g);
        real u = (m * o.inv_bias1) / (sqrtf(v * o.inv_bias2) + o.eps);
        u = fmaf(o.weight_decay, want[0][i], u);
        want[0][i] = fmaf(-o.lr, u, want[0][i]);
    }
    at_adamw(ex, got[0], got[1], got[2], grad, ELEMENTS, &o);
    assert_memory_equal(want, got, sizeof want);
}

static void check_elements(const struct at_exec *ex)
{
    static real want[ELEMENTS], got[ELEMENTS];
    memcpy(got, grad, sizeof got);
    for (long i = 0; i < ELEMENTS; i++) want[i] = grad[i] + other[i];
    at_add(ex, got, got, other, ELEMENTS);
    assert_memory_equal(want, got, sizeof want);

    memset(want, 0, sizeof want);
    want[ELEMENTS - 1] = got[ELEMENTS - 1];
    at_zero(ex, got, ELEMENTS - 1);
    assert_memory_equal(want, got, sizeof want);

    for (long i = 0; i < ELEMENTS; i++) want[i] = fmaf(-0.9f, other[i], theta[i]);
    memcpy(got, theta, sizeof got);
    at_axpy(ex, got, -0.9f, other, ELEMENTS);
    assert_memory_equal(want, got, sizeof want);

    memcpy(got, theta, sizeof got);
    assert_true(at_all_finite(ex, got, ELEMENTS));
    const real bad[3] = {INFINITY, -INFINITY, NAN};
    for (long i = 0, at = 0; at < ELEMENTS; i++, at = i * i * 7) {
        got[at] = bad[i % 3];
        assert_false(at_all_finite(ex, got, ELEMENTS));
        got[at] = i % 2 ? 3.4e38f : 1e-45f;
        assert_true(at_all_finite(ex, got, ELEMENTS));
    }
}

static void check_sum_squares(const struct at_exec *ex)
{
    enum { COLS = 19, ROWS = 3000 }; /* more rows than one batch */
    double want = 0;
    for (int r = 0; r < ROWS; r++) {
        double l[16] = {0};
        for (int j = 0; j < COLS; j++) l[j % 16] += (double)theta[r * COLS + j] * (double)theta[r * COLS + j];
        for (int half = 8; half; half /= 2)
            for (int i = 0; i < half; i++) l[i] += l[i + half];
        want += l[0];
    }
    double got = at_sum_squares(ex, theta, ROWS, COLS);
    assert_memory_equal(&want, &got, sizeof want);
    real keep = theta[COLS * 2500 + 3];
    theta[COLS * 2500 + 3] = NAN;
    assert_false(isfinite(at_sum_squares(ex, theta, ROWS, COLS)));
    theta[COLS * 2500 + 3] = -INFINITY;
    assert_false(isfinite(at_sum_squares(ex, theta, ROWS, COLS)));
    theta[COLS * 2500 + 3] = keep;
    assert_true(at_sum_squares(ex, theta, 0, COLS) == 0);
}

static int setup(void **state)
{
    (void)state;
    fill_rows();
    test_fill(theta, ELEMENTS, 9, 1, 1.0);
    test_fill(grad, ELEMENTS, 9, 2, 1e-2);
    test_fill(other, ELEMENTS, 9, 3, 1.0);
    return 0;
}

static void test_embedding(void **state)
{
    (void)state;
    for_each_config(check_embedding);
}
static void test_rmsnorm_forward(void **state)
{
    (void)state;
    for_each_config(check_rmsnorm_forward);
}
static void test_rmsnorm_backward(void **state)
{
    (void)state;
    for_each_config(check_rmsnorm_backward);
}
static void test_rotary(void **state)
{
    (void)state;
    for_each_config(check_rotary);
}
static void test_swiglu(void **state)
{
    (void)state;
    for_each_config(check_swiglu);
}
static void test_cross_entropy(void **state)
{
    (void)state;
    for_each_config(check_cross_entropy);
}
static void test_adamw(void **state)
{
    (void)state;
    for_each_config(check_adamw);
}
static void test_elements(void **state)
{
    (void)state;
    for_each_config(check_elements);
}
static void test_sum_squares(void **state)
{
    (void)state;
    for_each_config(check_sum_squares);
}

static void test_cross_entropy_corners(void **state)
{
    (void)state;
    for (const struct at_kern *const *k = at_kern_available(); *k; k++) {
        struct at_exec ex;
        assert_int_equal(at_exec_init(&ex, *k, &at_par_serial), AT_OK);
        check_cross_entropy_corners(&ex);
        at_exec_release(&ex);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_embedding),
        cmocka_unit_test(test_rmsnorm_forward),
        cmocka_unit_test(test_rmsnorm_backward),
        cmocka_unit_test(test_rotary),
        cmocka_unit_test(test_swiglu),
        cmocka_unit_test(test_cross_entropy),
        cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_elements),
        cmocka_unit_test(test_sum_squares),
        cmocka_unit_test(test_cross_entropy_corners),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
