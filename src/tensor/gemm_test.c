/* gemm_test.c: at_gemm against three nested loops, bit for bit, for every kernel table, thread count and order
 * of jobs. */
#include "base/rng.h"
#include "base/sanitized.h"
#include "os/pool.h"
#include "tensor/gemm.h"
#include "tensor/gemm_kern.h"
#include "tensor/peak.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t draws;

static uint32_t draw(uint32_t below)
{
    return at_philox(11, AT_RNG_TEST, 1, draws++).v[0] % below;
}

/* Mostly ordinary numbers over nine octaves; some zeros of both signs, subnormals, and products that underflow. */
static float draw_float(void)
{
    const uint32_t kind = draw(24);
    const float sign = draw(2) ? 1.0f : -1.0f, x = (float)(1 + draw(1 << 20)) / (float)(1 << 20);
    if (kind == 0) return sign * 0.0f;
    if (kind == 1) return sign * ldexpf(x, -130);
    if (kind == 2) return sign * ldexpf(x, -80);
    return sign * ldexpf(x, (int)draw(9) - 4);
}

/* A matrix with its buffer: random block columns, random gaps. */
struct owned {
    struct at_mat mat;
    size_t bytes;
};

static struct owned make(long rows, long cols, int layout)
{
    struct owned x = {0};
    long blocks = 1;
    x.mat.ld = cols + (layout ? (long)draw(5) : 0);
    if (layout == 2) {
        x.mat.block_cols = 1 + (long)draw((uint32_t)cols);
        blocks = (cols + x.mat.block_cols - 1) / x.mat.block_cols;
        x.mat.ld = x.mat.block_cols + (long)draw(4);
        x.mat.block_stride = rows * x.mat.ld + (long)draw(4);
    }
    const long n = blocks == 1 ? rows * x.mat.ld : blocks * x.mat.block_stride;
    x.bytes = (size_t)n * sizeof(float);
    x.mat.p = malloc(x.bytes);
    assert_non_null(x.mat.p);
    for (long i = 0; i < n; i++) x.mat.p[i] = draw_float();
    return x;
}

static float *at(const struct at_mat *x, long i, long j)
{
    const long block = x->block_cols ? j / x->block_cols : 0;
    return x->p + block * x->block_stride + i * x->ld + (j - block * x->block_cols);
}

static float naive_chain(const struct at_gemm *g, long i, long j, long k0, long k1)
{
    float acc = 0;
    for (long k = k0; k < k1; k++)
        acc = fmaf(g->op == AT_GEMM_TN ? *at(&g->a, k, i) : *at(&g->a, i, k),
                   g->op == AT_GEMM_NT ? *at(&g->b, j, k) : *at(&g->b, k, j), acc);
    return acc + 0.0f;
}

static float naive_slots(const struct at_gemm *g, long i, long j, int first, int count)
{
    if (count == 1) return naive_chain(g, i, j, first * (g->k / g->slots), (first + 1) * (g->k / g->slots));
    return naive_slots(g, i, j, first, count / 2) + naive_slots(g, i, j, first + count / 2, count / 2);
}

static void naive(const struct at_gemm *g)
{
    for (long i = 0; i < g->m; i++)
        for (long j = 0; j < g->n; j++) {
            float *c = at(&g->c, i, j);
            if (g->join == AT_JOIN_CHAIN) *c = naive_chain(g, i, j, 0, g->k);
            if (g->join == AT_JOIN_SLOTS) *c = naive_slots(g, i, j, 0, g->slots);
            if (g->join != AT_JOIN_GRAINS) continue;
            if (g->fresh) *c = 0;
            for (long s = 0; s < g->k; s += g->seq_len)
                for (long p = 0; p < g->seq_len; p += AT_GRAIN_POSITIONS)
                    *c = *c + naive_chain(g, i, j, s + p, s + (p + 256 < g->seq_len ? p + 256 : g->seq_len));
        }
}

/* Three ways to run jobs: alone, in a shuffled order that claims `threads`, and the real pool. */
static void run_shuffled(void *pool, int jobs, at_job_fn *job, void *arg)
{
    int order[16];
    assert_true(jobs <= 16);
    for (int i = 0; i < jobs; i++) {
        const int j = (int)draw((uint32_t)i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    for (int i = 0; i < jobs; i++) job(arg, order[i]);
}
static const struct at_par shuffled2 = {2, run_shuffled, NULL}, shuffled3 = {3, run_shuffled, NULL},
                           shuffled7 = {7, run_shuffled, NULL};
static struct at_pool pool;

/* All tables that this CPU runs, and the plain one that any CPU runs. */
static const struct at_kern any_cpu = {"ref without fma", &at_gemm_kern_ref, &at_rows_kern_ref};
static const struct at_kern *kerns[8];

/* Threads share a product in the same way whatever the table: the thread sanitizer is shown the fastest one. */
static void list_kerns(void)
{
    int n = 0;
    for (const struct at_kern *const *k = at_kern_available(); *k && !(AT_SANITIZED_THREAD && n); k++) kerns[n++] = *k;
    if (!AT_SANITIZED_THREAD) kerns[n] = &any_cpu;
}

/* One context for each table and way to run; made once, so that the cases are quick under sanitizers. */
#define PARS 5
static struct at_exec execs[8][PARS];

static void make_execs(void)
{
    const struct at_par *const pars[PARS] = {&at_par_serial, &shuffled2, &shuffled3, &shuffled7, &pool.par};
    for (int k = 0; kerns[k]; k++)
        for (int p = 0; p < PARS; p++)
            if (at_exec_init(&execs[k][p], kerns[k], pars[p])) abort();
}

static void release_execs(void)
{
    for (int k = 0; kerns[k]; k++)
        for (int p = 0; p < PARS; p++) at_exec_release(&execs[k][p]);
}

static void check(const struct at_gemm *g, size_t c_bytes)
{
    float *start = malloc(c_bytes), *want = malloc(c_bytes);
    struct at_gemm h = *g;
    assert_non_null(start);
    assert_non_null(want);
    memcpy(start, g->c.p, c_bytes);
    naive(g);
    memcpy(want, g->c.p, c_bytes);
    for (int k = 0; kerns[k]; k++)
        for (int p = 0; p < PARS; p++) {
            memcpy(h.c.p, start, c_bytes);
            at_gemm(&execs[k][p], &h);
            if (memcmp(h.c.p, want, c_bytes) != 0)
                fail_msg("%s, par %d: op %d join %d slots %d seq %ld m %ld n %ld k %ld blocks %ld %ld %ld",
                         kerns[k]->name, p, g->op, g->join, g->slots, g->seq_len, g->m, g->n, g->k, g->a.block_cols,
                         g->b.block_cols, g->c.block_cols);
        }
    free(start);
    free(want);
}

static void one_case(struct at_gemm g, const int layout[3])
{
    const struct owned a = g.op == AT_GEMM_TN ? make(g.k, g.m, layout[0]) : make(g.m, g.k, layout[0]);
    const struct owned b = g.op == AT_GEMM_NT ? make(g.n, g.k, layout[1]) : make(g.k, g.n, layout[1]);
    const struct owned c = make(g.m, g.n, layout[2]);
    g.a = a.mat;
    g.b = b.mat;
    g.c = c.mat;
    check(&g, c.bytes);
    free(a.mat.p);
    free(b.mat.p);
    free(c.mat.p);
}

static void test_random_shapes(void **state)
{
    for (int i = 0; i < 360; i += AT_SANITIZED ? 4 : 1) { /* 4: still every operation with every join */
        struct at_gemm g = {.op = i % 3, .join = i / 3 % 3};
        const long size = i < 200 ? 20 : 70;
        g.m = 1 + (long)draw((uint32_t)size);
        g.n = 1 + (long)draw((uint32_t)size);
        g.k = 1 + (long)draw((uint32_t)size);
        g.slots = 1 << draw(4);
        if (g.join == AT_JOIN_SLOTS) g.k = g.slots * (1 + g.k / g.slots);
        g.seq_len = i % 2 ? 1 + (long)draw(30) : g.k;
        if (g.join == AT_JOIN_GRAINS) {
            g.k = g.seq_len * (1 + g.k / g.seq_len);
            g.fresh = draw(2);
        }
        const int layout[3] = {(int)draw(3), (int)draw(3), (int)draw(3)};
        one_case(g, layout);
    }
}

/* Sizes that need several pieces of K, several blocks of A or B, grains inside long sequences, and slots too long for
 * one piece. */
static void test_long_shapes(void **state)
{
    static const struct at_gemm list[] = {
        {.op = AT_GEMM_NT, .join = AT_JOIN_CHAIN, .m = 33, .n = 35, .k = 1301},
        {.op = AT_GEMM_NN, .join = AT_JOIN_CHAIN, .m = 1, .n = 67, .k = 1025},
        {.op = AT_GEMM_TN, .join = AT_JOIN_GRAINS, .m = 29, .n = 50, .k = 1200, .seq_len = 600},
        {.op = AT_GEMM_TN, .join = AT_JOIN_GRAINS, .m = 17, .n = 48, .k = 1024, .seq_len = 256},
        {.op = AT_GEMM_TN, .join = AT_JOIN_GRAINS, .m = 17, .n = 48, .k = 1400, .seq_len = 200},
        {.op = AT_GEMM_TN, .join = AT_JOIN_GRAINS, .m = 17, .n = 50, .k = 1400, .seq_len = 350, .fresh = true},
        {.op = AT_GEMM_NN, .join = AT_JOIN_SLOTS, .slots = 8, .m = 20, .n = 40, .k = 2048},
        {.op = AT_GEMM_NN, .join = AT_JOIN_SLOTS, .slots = 8, .m = 101, .n = 33, .k = 4112},
        {.op = AT_GEMM_NT, .join = AT_JOIN_SLOTS, .slots = 4, .m = 5, .n = 261, .k = 4100},
        {.op = AT_GEMM_NT, .join = AT_JOIN_SLOTS, .slots = 2, .m = 3, .n = 20, .k = 2050},
        {.op = AT_GEMM_NN, .join = AT_JOIN_CHAIN, .m = 300, .n = 17, .k = 512},
        {.op = AT_GEMM_NT, .join = AT_JOIN_CHAIN, .m = 16, .n = 1100, .k = 512},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        const int plain[3] = {0, 0, 0}, blocks[3] = {2, 2, 2};
        one_case(list[i], plain);
        if (i % 2) one_case(list[i], blocks);
    }
}

/* Several blocks of A, of B and of C: too many outputs for the loops above, so every table is held against the first in
 * whole, and that against the loops in places. */
static void blocks_case(struct at_gemm g)
{
    const struct owned a = g.op == AT_GEMM_TN ? make(g.k, g.m, 0) : make(g.m, g.k, g.k % 512 ? 1 : 0);
    const struct owned b = g.op == AT_GEMM_NT ? make(g.n, g.k, 1) : make(g.k, g.n, 1), c = make(g.m, g.n, 1);
    float *start = malloc(c.bytes), *first = malloc(c.bytes);
    assert_non_null(start);
    assert_non_null(first);
    g.a = a.mat;
    g.b = b.mat;
    g.c = c.mat;
    memcpy(start, c.mat.p, c.bytes);
    for (int k = 0; kerns[k] && kerns[k] != &any_cpu; k++)
        for (int p = 0; p < PARS; p += k == 0 ? 1 : 4) {
            memcpy(c.mat.p, start, c.bytes);
            at_gemm(&execs[k][p], &g);
            if (k == 0 && p == 0) memcpy(first, c.mat.p, c.bytes);
            assert_memory_equal(c.mat.p, first, c.bytes);
        }
    for (int i = 0; i < 200; i++) {
        const long row = (long)draw((uint32_t)g.m), col = (long)draw((uint32_t)g.n);
        struct at_gemm one = g;
        float want = start[at(&g.c, row, col) - c.mat.p];
        one.m = one.n = 1;
        one.a = at_mat(g.op == AT_GEMM_TN ? at(&g.a, 0, row) : at(&g.a, row, 0), g.a.ld);
        one.b = at_mat(g.op == AT_GEMM_NT ? at(&g.b, col, 0) : at(&g.b, 0, col), g.b.ld);
        one.c = at_mat(&want, 1);
        naive(&one);
        assert_memory_equal(&want, first + (at(&g.c, row, col) - c.mat.p), sizeof want);
    }
    free(start);
    free(first);
    free(a.mat.p);
    free(b.mat.p);
    free(c.mat.p);
}

static void test_blocks(void **state)
{
    static const struct at_gemm list[] = {
        {.op = AT_GEMM_NN, .join = AT_JOIN_SLOTS, .slots = 8, .m = 260, .n = 1030, .k = 4104}, /* blocks of C */
        {.op = AT_GEMM_NT, .join = AT_JOIN_CHAIN, .m = 300, .n = 700, .k = 600},               /* A as it lies */
        {.op = AT_GEMM_NT, .join = AT_JOIN_SLOTS, .slots = 4, .m = 230, .n = 70, .k = 600},
        {.op = AT_GEMM_NT, .join = AT_JOIN_CHAIN, .m = 150, .n = 1100, .k = 1024}, /* blocks of B */
        {.op = AT_GEMM_NN, .join = AT_JOIN_CHAIN, .m = 150, .n = 100, .k = 2500},  /* pieces of K */
        {.op = AT_GEMM_TN, .join = AT_JOIN_GRAINS, .m = 530, .n = 300, .k = 600, .seq_len = 300},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) blocks_case(list[i]);
}

/* A chain of products that are all -0 is +0, in C and through every join. */
static void test_negative_zero(void **state)
{
    float a[8 * 8], b[8 * 8], c[8 * 8];
    const uint32_t plus_zero[8 * 8] = {0};
    for (int i = 0; i < 64; i++) {
        a[i] = -0.0f;
        b[i] = 1.0f;
    }
    for (const struct at_kern *const *kern = kerns; *kern; kern++)
        for (int join = 0; join < 3; join++) {
            struct at_exec ex;
            struct at_gemm g = {.join = join, .slots = 8, .seq_len = 4, .m = 8, .n = 8, .k = 8};
            g.a = at_mat(a, 8);
            g.b = at_mat(b, 8);
            g.c = at_mat(c, 8);
            for (int i = 0; i < 64; i++) c[i] = -0.0f;
            assert_int_equal(at_exec_init(&ex, *kern, &at_par_serial), 0);
            at_gemm(&ex, &g);
            assert_memory_equal(c, plus_zero, sizeof c);
            at_exec_release(&ex);
        }
}

/* The canary: the comparison would notice a tree that became a plain sum, a segment that became two, and a chain that
 * ran backwards. */
static void test_canary(void **state)
{
    const int plain[3] = {0, 0, 0};
    struct at_gemm g = {.op = AT_GEMM_NN, .join = AT_JOIN_SLOTS, .slots = 8, .m = 16, .n = 16, .k = 64};
    const struct owned a = make(g.m, g.k, plain[0]), b = make(g.k, g.n, plain[1]), c = make(g.m, g.n, plain[2]);
    int sums = 0, splits = 0, backwards = 0;
    g.a = a.mat;
    g.b = b.mat;
    g.c = c.mat;
    for (long i = 0; i < g.m; i++)
        for (long j = 0; j < g.n; j++) {
            float sum = naive_chain(&g, i, j, 0, 8), back = 0;
            for (int s = 1; s < 8; s++) sum += naive_chain(&g, i, j, s * 8, s * 8 + 8);
            sums += sum != naive_slots(&g, i, j, 0, 8);
            splits += naive_chain(&g, i, j, 0, 64) != naive_chain(&g, i, j, 0, 32) + naive_chain(&g, i, j, 32, 64);
            for (long k = 63; k >= 0; k--) back = fmaf(*at(&g.a, i, k), *at(&g.b, k, j), back);
            backwards += back != naive_chain(&g, i, j, 0, 64);
        }
    assert_true(sums > 100 && splits > 100 && backwards > 100);
    free(a.mat.p);
    free(b.mat.p);
    free(c.mat.p);
}

/* The peak loop does what it says: its FLOPs grow with the iterations. */
static void test_peak(void **state)
{
    for (const struct at_kern *const *kern = kerns; *kern; kern++) {
        const double one = at_peak_flops_run(*kern, &at_par_serial, 1), two = at_peak_flops_run(*kern, &shuffled3, 10);
        assert_true(one >= 10 * 2 * 8);
        assert_true(two == 30 * one);
    }
}

int main(void)
{
    struct at_diag diag = {0};
    list_kerns();
    if (at_pool_init(&pool, 2, &diag)) return 1;
    make_execs();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_canary),      cmocka_unit_test(test_negative_zero), cmocka_unit_test(test_random_shapes),
        cmocka_unit_test(test_long_shapes), cmocka_unit_test(test_blocks),        cmocka_unit_test(test_peak),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    release_execs();
    at_pool_release(&pool);
    return failed;
}
