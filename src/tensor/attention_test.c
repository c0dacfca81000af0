/* attention_test.c: at_attention_* against the contract's words written as plain loops, bit for bit, for every kernel
 * table and thread count; and decoding with a cache against the full pass. */
#include "base/rng.h"
#include "os/pool.h"
#include "tensor/emath.h"
#include "tensor/gemm_kern.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t draws;

static float draw_float(void)
{
    const struct at_philox r = at_philox(12, AT_RNG_TEST, 2, draws++);
    const float sign = r.v[0] & 1 ? 1.0f : -1.0f, x = (float)(r.v[1] >> 8) / (float)(1 << 24);
    if (r.v[2] % 40 == 0) return sign * 0.0f;
    if (r.v[2] % 40 == 1) return sign * ldexpf(x, -130);
    return sign * ldexpf(x, (int)(r.v[3] % 6) - 3);
}

static float *draw_floats(long n)
{
    float *p = malloc((size_t)n * sizeof *p);
    assert_non_null(p);
    for (long i = 0; i < n; i++) p[i] = draw_float();
    return p;
}

static float join_lanes(float lane[16])
{
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
}

/* chain(x . y) with strides. */
static float chain(const float *x, long xs, const float *y, long ys, long n)
{
    float acc = 0;
    for (long i = 0; i < n; i++) acc = fmaf(x[i * xs], y[i * ys], acc);
    return acc + 0.0f;
}

struct shape {
    struct at_heads h;
    long B, T, pos0;
};

struct run {
    float *o, *max, *sum, *d_qkv;
};

static long rows_of(const struct shape *s)
{
    return s->B * s->T;
}

static struct run run_alloc(const struct shape *s)
{
    const long n = rows_of(s), o = n * s->h.heads * s->h.head_size;
    return (struct run){draw_floats(o), draw_floats(n * s->h.heads), draw_floats(n * s->h.heads),
                        draw_floats(n * at_heads_row(&s->h))};
}

static void run_free(struct run *r)
{
    free(r->o);
    free(r->max);
    free(r->sum);
    free(r->d_qkv);
}

static void naive_forward(const struct shape *s, struct run r, const float *qkv, const float *kv, long stride,
                          float scale)
{
    const struct at_heads *h = &s->h;
    const long row = at_heads_row(h), hd = h->head_size;
    float *p = malloc((size_t)(s->pos0 + s->T) * sizeof *p);
    assert_non_null(p);
    for (long b = 0; b < s->B; b++)
        for (long t = 0; t < s->T; t++)
            for (int head = 0; head < h->heads; head++) {
                const int kh = head * h->kv_heads / h->heads;
                const long i = b * s->T + t, n = s->pos0 + t + 1;
                const float *q = qkv + i * row + at_heads_q(h, head), *k = kv + b * stride + at_heads_k(h, kh),
                            *v = kv + b * stride + at_heads_v(h, kh);
                float max = -INFINITY, lane[16] = {0};
                for (long j = 0; j < n; j++) p[j] = chain(q, 1, k + j * row, 1, hd) * scale;
                for (long j = 0; j < n; j++) max = p[j] > max ? p[j] : max;
                max += 0.0f;
                for (long j = 0; j < n; j++) lane[j % 16] += p[j] = at_exp(p[j] - max);
                const float sum = join_lanes(lane);
                for (long d = 0; d < hd; d++)
                    r.o[(i * h->heads + head) * hd + d] = chain(p, 1, v + d, row, n) * (1.0f / sum);
                r.max[i * h->heads + head] = max;
                r.sum[i * h->heads + head] = sum;
            }
    free(p);
}

/* P and dS of one head of one sequence, whole (T,T) matrices; zeros above the diagonal are left out of the chains. */
static void naive_scores_back(const struct shape *s, const struct run *r, const float *qkv, const float *d_o,
                              float scale, long b, int head, float *p, float *ds)
{
    const struct at_heads *h = &s->h;
    const long row = at_heads_row(h), hd = h->head_size, T = s->T;
    const int kh = head * h->kv_heads / h->heads;
    for (long t = 0; t < T; t++) {
        const long i = (b * T + t) * h->heads + head;
        float lane[16] = {0};
        for (long d = 0; d < hd; d++) lane[d % 16] = fmaf(d_o[i * hd + d], r->o[i * hd + d], lane[d % 16]);
        const float big_d = join_lanes(lane);
        for (long j = 0; j <= t; j++) {
            const float *q = qkv + (b * T + t) * row + at_heads_q(h, head), *kv = qkv + (b * T + j) * row;
            const float score = chain(q, 1, kv + at_heads_k(h, kh), 1, hd) * scale;
            p[t * T + j] = at_exp(score - r->max[i]) * (1.0f / r->sum[i]);
            ds[t * T + j] = (p[t * T + j] * (chain(d_o + i * hd, 1, kv + at_heads_v(h, kh), 1, hd) - big_d)) * scale;
        }
    }
}

static void naive_backward(const struct shape *s, struct run r, const float *qkv, const float *d_o, float scale)
{
    const struct at_heads *h = &s->h;
    const long row = at_heads_row(h), hd = h->head_size, T = s->T, group = h->heads / h->kv_heads;
    float *p = malloc((size_t)(T * T) * sizeof *p), *ds = malloc((size_t)(T * T) * sizeof *ds);
    assert_non_null(p);
    assert_non_null(ds);
    memset(r.d_qkv, 0, (size_t)(rows_of(s) * row) * sizeof *r.d_qkv);
    for (long b = 0; b < s->B; b++) {
        const float *x = qkv + b * T * row;
        float *dx = r.d_qkv + b * T * row;
        for (int head = 0; head < h->heads; head++) {
            const int kh = (int)(head / group);
            float *dk = dx + at_heads_k(h, kh), *dv = dx + at_heads_v(h, kh);
            naive_scores_back(s, &r, qkv, d_o, scale, b, head, p, ds);
            for (long t = 0; t < T; t++)
                for (long d = 0; d < hd; d++)
                    dx[t * row + at_heads_q(h, head) + d] = chain(ds + t * T, 1, x + at_heads_k(h, kh) + d, row, t + 1);
            for (long j = 0; j < T; j++)
                for (long d = 0; d < hd; d++)
                    for (long t = j; t < T; t++) {
                        const float q = x[t * row + at_heads_q(h, head) + d];
                        const float g = d_o[((b * T + t) * h->heads + head) * hd + d];
                        dk[j * row + d] = fmaf(ds[t * T + j], q, dk[j * row + d]);
                        dv[j * row + d] = fmaf(p[t * T + j], g, dv[j * row + d]);
                    }
        }
    }
    for (long i = 0; i < rows_of(s) * row; i++) r.d_qkv[i] += 0.0f;
    free(p);
    free(ds);
}

static void run_backwards(void *pool, int jobs, at_job_fn *job, void *arg)
{
    for (int i = jobs - 1; i >= 0; i--) job(arg, i);
}
static const struct at_par backwards3 = {3, run_backwards, NULL};
static struct at_pool pool;

/* All tables that this CPU runs, and the plain one that any CPU runs. */
static const struct at_kern any_cpu = {"ref without fma", &at_gemm_kern_ref, &at_rows_kern_ref};
static const struct at_kern *kerns[8];

static void list_kerns(void)
{
    int n = 0;
    for (const struct at_kern *const *k = at_kern_available(); *k; k++) kerns[n++] = *k;
    kerns[n] = &any_cpu;
}

static void same(const float *got, const float *want, long n, const char *what, const struct at_kern *kern, size_t par)
{
    for (long i = 0; i < n; i++)
        if (memcmp(got + i, want + i, sizeof *got) != 0)
            fail_msg("%s: %s, par %zu, element %ld: %a, not %a", what, kern->name, par, i, got[i], want[i]);
}

static void check(const struct shape *s, const char *what)
{
    const struct at_par *pars[] = {&at_par_serial, &backwards3, &pool.par};
    const long n = rows_of(s), row = at_heads_row(&s->h), heads = s->h.heads, stride = (s->pos0 + s->T) * row + 5;
    float *qkv = draw_floats(n * row), *cache = draw_floats(s->B * stride),
          *d_o = draw_floats(n * heads * s->h.head_size);
    const float *kv = s->pos0 ? cache : qkv, scale = 0.37f;
    const long kv_stride = s->pos0 ? stride : s->T * row;
    struct run want = run_alloc(s), got = run_alloc(s);
    naive_forward(s, want, qkv, kv, kv_stride, scale);
    if (!s->pos0) naive_backward(s, want, qkv, d_o, scale);
    for (const struct at_kern *const *kern = kerns; *kern; kern++)
        for (size_t p = 0; p < sizeof pars / sizeof *pars; p++) {
            struct at_exec ex;
            assert_int_equal(at_exec_init(&ex, *kern, pars[p]), 0);
            at_attention_forward(&ex, got.o, got.max, got.sum, qkv, kv, kv_stride, &s->h, s->B, s->T, s->pos0, scale);
            same(got.o, want.o, n * heads * s->h.head_size, what, *kern, p);
            same(got.max, want.max, n * heads, what, *kern, p);
            same(got.sum, want.sum, n * heads, what, *kern, p);
            if (!s->pos0) {
                at_attention_backward(&ex, got.d_qkv, d_o, got.o, qkv, got.max, got.sum, &s->h, s->B, s->T, scale);
                same(got.d_qkv, want.d_qkv, n * row, what, *kern, p);
            }
            at_exec_release(&ex);
        }
    run_free(&want);
    run_free(&got);
    free(qkv);
    free(cache);
    free(d_o);
}

static void test_shapes(void **state)
{
    static const struct shape list[] = {
        {{1, 1, 1, 1}, 1, 1, 0},     {{2, 2, 3, 1}, 2, 5, 0},    {{8, 8, 16, 8}, 2, 33, 0}, {{4, 2, 48, 2}, 1, 70, 0},
        {{6, 2, 20, 2}, 1, 57, 0},   {{4, 1, 64, 1}, 1, 129, 0}, {{1, 1, 7, 1}, 3, 113, 0}, {{2, 1, 100, 1}, 1, 31, 0},
        {{1, 1, 256, 1}, 1, 300, 0}, {{2, 2, 9, 2}, 1, 24, 0},
    };
    char what[64];
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        snprintf(what, sizeof what, "heads %d/%d of %d, T %ld", list[i].h.heads, list[i].h.kv_heads,
                 list[i].h.head_size, list[i].T);
        check(&list[i], what);
    }
}

/* Queries that come after what is in a cache; contexts of several chunks of keys. */
static void test_positions(void **state)
{
    static const struct shape list[] = {
        {{2, 1, 8, 1}, 2, 1, 1},     {{4, 2, 48, 2}, 1, 1, 37},    {{2, 2, 16, 2}, 3, 9, 20},
        {{1, 1, 48, 1}, 1, 1, 3000}, {{2, 1, 40, 1}, 1, 30, 1630},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) check(&list[i], "cache");
}

/* Decoding one token at a time, then three at a time, gives the bits of the full pass. */
static void test_decode(void **state)
{
    struct shape s = {{4, 2, 12, 2}, 1, 41, 0};
    const long row = at_heads_row(&s.h), o_row = s.h.heads * s.h.head_size;
    float *qkv = draw_floats(s.T * row);
    struct run full = run_alloc(&s), step = run_alloc(&s);
    for (const struct at_kern *const *kern = kerns; *kern; kern++) {
        struct at_exec ex;
        assert_int_equal(at_exec_init(&ex, *kern, &at_par_serial), 0);
        at_attention_forward(&ex, full.o, NULL, NULL, qkv, qkv, s.T * row, &s.h, 1, s.T, 0, 0.3f);
        for (long by = 1; by <= 3; by += 2)
            for (long t = 0; t < s.T; t += by) {
                const long n = t + by < s.T ? by : s.T - t;
                at_attention_forward(&ex, step.o + t * o_row, NULL, NULL, qkv + t * row, qkv, s.T * row, &s.h, 1, n, t,
                                     0.3f);
                same(step.o + t * o_row, full.o + t * o_row, n * o_row, "decode", *kern, 0);
            }
        at_exec_release(&ex);
    }
    run_free(&full);
    run_free(&step);
    free(qkv);
}

/* The canary: with these inputs a softmax sum in plain order, or values summed from the last key down, has
 * other bits. */
static void test_canary(void **state)
{
    enum { N = 200 };
    float p[N], v[N], lane[16] = {0}, plain = 0, down = 0;
    int sums = 0, chains = 0;
    for (int round = 0; round < 50; round++) {
        memset(lane, 0, sizeof lane);
        plain = down = 0;
        for (int j = 0; j < N; j++) {
            p[j] = at_exp(-fabsf(draw_float()));
            v[j] = draw_float();
            lane[j % 16] += p[j];
            plain += p[j];
        }
        for (int j = N - 1; j >= 0; j--) down = fmaf(p[j], v[j], down);
        sums += plain != join_lanes(lane);
        chains += down != chain(p, 1, v, 1, N);
    }
    assert_true(sums > 25 && chains > 25);
}

int main(void)
{
    struct at_diag diag = {0};
    list_kerns();
    if (at_pool_init(&pool, 2, &diag)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_canary),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_positions),
        cmocka_unit_test(test_decode),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    at_pool_release(&pool);
    return failed;
}
