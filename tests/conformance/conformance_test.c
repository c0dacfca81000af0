/* Conformance of the tensor layer to contract F32-1: for every operation, inputs made from a seed (Philox) and the
 * SHA-256 of its outputs (binary32, little-endian), which is committed in vectors.txt. Every kernel table of this
 * machine, the reference without FMA instructions too, must give those hashes with 1, 2 and 3 threads.
 *
 * After a change of the contract (and only then): conformance_test --print > tests/conformance/vectors.txt */
#include "base/hash.h"
#include "base/sanitized.h"
#include "os/pool.h"
#include "tensor/emath.h"
#include "tensor/exec.h"
#include "tensor/gemm_kern.h"
#include "tensor/ops.h"
#include "tensor/rows_kern.h"
#include "tensor/tensor_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define VECTORS "tests/conformance/vectors.txt"

struct run {
    const struct at_exec *ex;
    struct at_sha256_ctx sha;
    uint32_t next_input; /* each input of a case is a stream of its own */
    uint64_t seed;
    real *block[16]; /* freed when the case is done */
    int blocks;
    bool finite;
};

static real *space(struct run *run, long n)
{
    AT_ASSERT(run->blocks < 16);
    real *x = calloc((size_t)n, sizeof *x);
    AT_ASSERT(x);
    run->block[run->blocks++] = x;
    return x;
}

static real *input(struct run *run, long n, double scale)
{
    real *x = space(run, n);
    test_fill(x, n, run->seed, run->next_input++, scale);
    return x;
}

static void output(struct run *run, const void *x, size_t bytes)
{
    at_sha256_update(&run->sha, x, bytes);
}

static void output_reals(struct run *run, const real *x, long n)
{
    for (long i = 0; i < n; i++) {
        uint8_t le[4];
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        at_store_le32(le, bits);
        output(run, le, sizeof le);
        run->finite = run->finite && isfinite(x[i]);
    }
}

static void output_wide(struct run *run, double x)
{
    uint8_t le[8];
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    at_store_le64(le, bits);
    output(run, le, sizeof le);
}

/* ---- elementary functions ---- */

/* Numbers over the whole line, special values among them; a NaN is written as 0 (its payload is not part of the
 * contract). */
enum { LINE = 250000 };
static real *line(struct run *run)
{
    real *x = space(run, LINE);
    for (uint32_t i = 0; i < LINE; i++) {
        uint32_t bits = i * 17179u + (uint32_t)run->seed;
        memcpy(&x[i], &bits, sizeof bits);
    }
    return x;
}

static void output_line(struct run *run, real *y)
{
    for (long i = 0; i < LINE; i++)
        if (y[i] != y[i]) y[i] = 0;
    bool finite = run->finite;
    output_reals(run, y, LINE);
    run->finite = finite; /* infinities are results here */
}

static void case_exp(struct run *run)
{
    real *x = line(run), *y = space(run, LINE);
    for (long i = 0; i < LINE; i++) y[i] = at_exp(x[i]);
    output_line(run, y);
    run->ex->kern->rows->exp_scale_row(y, x, LINE, 0.0f, 1.0f);
    output_line(run, y);
}

static void case_log(struct run *run)
{
    real *y = line(run);
    for (long i = 0; i < LINE; i++) y[i] = at_log(fabsf(y[i]));
    output_line(run, y);
}

static void case_sigmoid(struct run *run)
{
    real *x = line(run), *y = space(run, LINE), *one = space(run, LINE);
    for (long i = 0; i < LINE; i++) {
        y[i] = at_sigmoid(x[i]);
        one[i] = 1.0f;
    }
    output_line(run, y);
    run->ex->kern->rows->swiglu_row(y, x, one, LINE);
    output_line(run, y);
}

static void case_softmax_row(struct run *run)
{
    real *x = input(run, 5003, 95.0), *p = space(run, 5003);
    real m = run->ex->kern->rows->row_max(x, 5003);
    real sum = run->ex->kern->rows->softmax_row(p, x, 5003, m);
    output_reals(run, p, 5003);
    output_reals(run, &sum, 1);
}

static void case_binary64_functions(struct run *run)
{
    for (uint64_t i = 0; i < 3000; i++) {
        struct at_philox r = at_philox(run->seed, AT_RNG_TEST, 1, i);
        double u = at_rng_unit(r.v[0], r.v[1]), v = 2 * u - 1;
        output_wide(run, at_exp64(v * 700));
        output_wide(run, at_log64(u + 1e-300));
        output_wide(run, at_sin64(v * 1e6));
        output_wide(run, at_cos64(v * 1e3));
    }
}

static void case_rotary_table(struct run *run)
{
    real *c = space(run, 400 * 24), *s = space(run, 400 * 24);
    at_rotary_table(c, s, 400, 48, 10000.0);
    output_reals(run, c, 400 * 24);
    output_reals(run, s, 400 * 24);
}

/* ---- rows and elements ---- */

enum { B = 2, T = 300, N = B * T, C = 76 };

static void tokens(struct run *run, int32_t *token, long n, uint32_t vocab)
{
    uint32_t sub = run->next_input++;
    for (long i = 0; i < n; i++) token[i] = (int32_t)(at_philox(run->seed, AT_RNG_TEST, sub, (uint64_t)i).v[0] % vocab);
}

static void case_embedding(struct run *run)
{
    int32_t token[N];
    tokens(run, token, N, 50);
    real *table = input(run, 50L * C, 1.0), *dx = input(run, N * C, 1.0), *x = space(run, N * C);
    at_embedding_forward(run->ex, x, token, table, N, C);
    at_embedding_backward(run->ex, table, token, dx, N, C);
    output_reals(run, x, N * C);
    output_reals(run, table, 50L * C);
}

static void case_rmsnorm(struct run *run)
{
    real *x = input(run, N * C, 2.0), *gain = input(run, C, 1.5), *dy = input(run, N * C, 1.0);
    real *d_x = input(run, N * C, 1.0), *d_gain = input(run, C, 1.0), *y = space(run, N * C), *rstd = space(run, N);
    at_rmsnorm_forward(run->ex, y, rstd, x, gain, N, C, 1e-5f);
    at_rmsnorm_backward(run->ex, d_x, d_gain, dy, x, rstd, gain, N, T, C);
    output_reals(run, y, N * C);
    output_reals(run, rstd, N);
    output_reals(run, d_x, N * C);
    output_reals(run, d_gain, C);
}

static void case_rotary(struct run *run)
{
    const struct at_heads h = {.heads = 4, .kv_heads = 2, .head_size = 48, .slots = 2};
    long row = at_heads_row(&h);
    real *c = space(run, 310 * 24), *s = space(run, 310 * 24), *qkv = input(run, N * row, 1.0);
    at_rotary_table(c, s, 310, 48, 10000.0);
    at_rotary(run->ex, qkv, &h, c, s, N, T, 10, false);
    output_reals(run, qkv, N * row);
    at_rotary(run->ex, qkv, &h, c, s, N, T, 3, true);
    output_reals(run, qkv, N * row);
}

static void case_swiglu(struct run *run)
{
    enum { F = 88 };
    real *gu = input(run, N * 2 * F, 8.0), *dh = input(run, N * F, 1.0), *h = space(run, N * F);
    at_swiglu_forward(run->ex, h, F, gu, 2 * F, N, F, 4);
    at_swiglu_backward(run->ex, gu, dh, F, gu, 2 * F, N, F, 4);
    output_reals(run, h, N * F);
    output_reals(run, gu, N * 2 * F);
}

static void case_cross_entropy(struct run *run)
{
    int32_t target[N];
    tokens(run, target, N, 251);
    for (int i = 0; i < N; i += 7) target[i] = -1;
    real *loss = space(run, N), *logits = input(run, N * 256, 12.0);
    for (int slots = 1; slots <= 8; slots *= 2) {
        at_cross_entropy(run->ex, loss, NULL, logits, target, N, 251, 256, slots, 1.0f);
        output_reals(run, loss, N);
    }
    at_cross_entropy(run->ex, loss, logits, logits, target, N, 251, 256, 8, 1.0f / 514);
    output_reals(run, loss, N);
    output_reals(run, logits, N * 256);
}

static void case_add(struct run *run)
{
    real *a = input(run, 40003, 1.0), *b = input(run, 40003, 1.0);
    at_add(run->ex, a, a, b, 40003);
    output_reals(run, a, 40003);
}

static void case_adamw(struct run *run)
{
    enum { n = 40003 };
    const struct at_adamw o = {3e-4f, 0.9f, 0.95f, 0.1f, 0.05f, 5.26f, 10.26f, 1e-8f, 0.1f, 0.77f};
    real *theta = input(run, n, 1.0), *m = input(run, n, 1e-2), *v = input(run, n, 1e-2), *g = input(run, n, 1e-1);
    for (long i = 0; i < n; i++) v[i] = v[i] * v[i];
    for (int step = 0; step < 3; step++) at_adamw(run->ex, theta, m, v, g, n, &o);
    output_reals(run, theta, n);
    output_reals(run, m, n);
    output_reals(run, v, n);
}

static void case_sum_squares(struct run *run)
{
    output_wide(run, at_sum_squares(run->ex, input(run, 3001L * 77, 2.0), 3001, 77));
    output_wide(run, at_sum_squares(run->ex, input(run, 90001, 1e-20), 1, 90001));
}

static void case_axpy(struct run *run)
{
    enum { n = 40003 };
    real *theta = input(run, n, 1.0), *a = input(run, n, 1.0);
    const real w[4] = {0.1f, 0.2f, 0.3f, 0.4f};
    for (int r = 0; r < 4; r++) at_axpy(run->ex, a, w[r], input(run, n, 1.0), n);
    at_axpy(run->ex, theta, -1.0f, a, n);
    output_reals(run, theta, n);
    output(run, at_all_finite(run->ex, theta, n) ? "1" : "0", 1);
}

/* ---- matrix products and attention ---- */

static void product(struct run *run, enum at_gemm_op op, enum at_gemm_join join, int slots, long seq_len, long m,
                    long n, long k)
{
    real *a = input(run, m * k, 1.0), *b = input(run, k * n, 1.0), *c = input(run, m * n, 1.0);
    struct at_gemm g = {.op = op, .join = join, .slots = slots, .seq_len = seq_len, .m = m, .n = n, .k = k};
    g.a = at_mat(a, op == AT_GEMM_TN ? m : k);
    g.b = at_mat(b, op == AT_GEMM_NT ? k : n);
    g.c = at_mat(c, n);
    at_gemm(run->ex, &g);
    output_reals(run, c, m * n);
}

static void case_gemm_chain(struct run *run)
{
    product(run, AT_GEMM_NN, AT_JOIN_CHAIN, 1, 0, 70, 83, 129);
    product(run, AT_GEMM_NT, AT_JOIN_CHAIN, 1, 0, 65, 100, 520);
}

static void case_gemm_chain_tn(struct run *run)
{
    product(run, AT_GEMM_TN, AT_JOIN_CHAIN, 1, 0, 61, 97, 301);
    product(run, AT_GEMM_NN, AT_JOIN_CHAIN, 1, 0, 1, 200, 1031);
}

static void case_gemm_slots(struct run *run)
{
    product(run, AT_GEMM_NT, AT_JOIN_SLOTS, 8, 0, 50, 90, 384);
    product(run, AT_GEMM_NN, AT_JOIN_SLOTS, 4, 0, 33, 70, 176);
    product(run, AT_GEMM_NN, AT_JOIN_SLOTS, 2, 0, 7, 31, 94);
}

static void case_gemm_slots_apart(struct run *run)
{
    enum { M = 40, K = 96, COLS = 60, SLOT = K / 4 };
    real *a = input(run, M * K, 1.0), *b = input(run, (long)COLS * K, 1.0), *c = space(run, M * COLS);
    struct at_gemm g = {.op = AT_GEMM_NT, .join = AT_JOIN_SLOTS, .slots = 4, .m = M, .n = COLS, .k = K};
    g.a = at_mat(a, K);
    g.b = (struct at_mat){.p = b, .ld = SLOT, .block_cols = SLOT, .block_stride = (long)COLS * SLOT};
    g.c = at_mat(c, COLS);
    at_gemm(run->ex, &g);
    output_reals(run, c, M * COLS);
}

static void case_gemm_grains(struct run *run)
{
    product(run, AT_GEMM_TN, AT_JOIN_GRAINS, 1, T, 45, 86, N);
    product(run, AT_GEMM_TN, AT_JOIN_GRAINS, 1, 256, 17, 33, 512);
}

static void attention(struct run *run, struct at_heads h, long seq_len)
{
    long row = at_heads_row(&h), rows = B * seq_len, width = (long)h.heads * h.head_size;
    real *qkv = input(run, rows * row, 1.5), *d_o = input(run, rows * width, 1.0), *d_qkv = space(run, rows * row);
    real *o = space(run, rows * width), *max = space(run, rows * h.heads), *sum = space(run, rows * h.heads);
    real scale = 1.0f / sqrtf((real)h.head_size);
    at_attention_forward(run->ex, o, max, sum, qkv, qkv, seq_len * row, &h, B, seq_len, 0, scale);
    at_attention_backward(run->ex, d_qkv, d_o, o, qkv, max, sum, &h, B, seq_len, scale);
    output_reals(run, o, rows * width);
    output_reals(run, max, rows * h.heads);
    output_reals(run, sum, rows * h.heads);
    output_reals(run, d_qkv, rows * row);
}

static void case_attention(struct run *run)
{
    attention(run, (struct at_heads){.heads = 4, .kv_heads = 4, .head_size = 32, .slots = 4}, 70);
    attention(run, (struct at_heads){.heads = 2, .kv_heads = 1, .head_size = 20, .slots = 1}, 290);
}

static void case_attention_grouped(struct run *run)
{
    attention(run, (struct at_heads){.heads = 8, .kv_heads = 2, .head_size = 16, .slots = 2}, 45);
}

/* Five new positions after a cache of forty. */
static void case_attention_decode(struct run *run)
{
    const struct at_heads h = {.heads = 4, .kv_heads = 2, .head_size = 24, .slots = 2};
    enum { NEW = 5, POS0 = 40, SPACE = 64 };
    long row = at_heads_row(&h), width = (long)h.heads * h.head_size;
    real *kv = input(run, B * SPACE * row, 1.5), *qkv = space(run, B * NEW * row), *o = space(run, B * NEW * width);
    for (long b = 0; b < B; b++)
        memcpy(qkv + b * NEW * row, kv + (b * SPACE + POS0) * row, (size_t)(NEW * row) * sizeof *qkv);
    at_attention_forward(run->ex, o, NULL, NULL, qkv, kv, SPACE * row, &h, B, NEW, POS0, 0.2f);
    output_reals(run, o, B * NEW * width);
}

static const struct {
    const char *name;
    void (*fn)(struct run *run);
} cases[] = {
    {"exp", case_exp},
    {"log", case_log},
    {"sigmoid", case_sigmoid},
    {"softmax_row", case_softmax_row},
    {"binary64_functions", case_binary64_functions},
    {"rotary_table", case_rotary_table},
    {"embedding", case_embedding},
    {"rmsnorm", case_rmsnorm},
    {"rotary", case_rotary},
    {"swiglu", case_swiglu},
    {"cross_entropy", case_cross_entropy},
    {"add", case_add},
    {"adamw", case_adamw},
    {"sum_squares", case_sum_squares},
    {"axpy", case_axpy},
    {"gemm_chain", case_gemm_chain},
    {"gemm_chain_tn", case_gemm_chain_tn},
    {"gemm_slots", case_gemm_slots},
    {"gemm_slots_apart", case_gemm_slots_apart},
    {"gemm_grains", case_gemm_grains},
    {"attention", case_attention},
    {"attention_grouped", case_attention_grouped},
    {"attention_decode", case_attention_decode},
};
enum { CASES = sizeof cases / sizeof cases[0] };

static struct at_hash run_case(int i, const struct at_kern *kern, const struct at_par *par, uint64_t seed)
{
    struct at_exec ex;
    AT_ASSERT(at_exec_init(&ex, kern, par) == AT_OK);
    struct run run = {.ex = &ex, .seed = seed, .finite = true};
    at_sha256_init(&run.sha);
    cases[i].fn(&run);
    for (int b = 0; b < run.blocks; b++) free(run.block[b]);
    at_exec_release(&ex);
    AT_ASSERT(run.finite); /* the payloads of NaNs are not part of the contract */
    return at_sha256_final(&run.sha);
}

/* ---- the committed vectors ---- */

static struct at_hash committed[CASES];

static int read_vectors(void **state)
{
    (void)state;
    FILE *file = fopen(VECTORS, "r");
    if (!file) return -1;
    char line[256], name[64], hex[80], extra;
    int n = 0;
    bool ok = true;
    while (fgets(line, sizeof line, file)) {
        if (line[0] == '#') continue;
        ok = ok && n < CASES && sscanf(line, "%63s %79s %c", name, hex, &extra) == 2 && !strcmp(name, cases[n].name) &&
             at_hash_parse(hex, &committed[n]) == AT_OK;
        if (!ok) break;
        n++;
    }
    fclose(file);
    return ok && n == CASES ? 0 : -1;
}

/* The available tables and the reference without FMA instructions. */
static int all_tables(const struct at_kern *ret_table[5])
{
    static const struct at_kern soft = {"ref (no fma)", &at_gemm_kern_ref, &at_rows_kern_ref};
    int n = 0;
    for (const struct at_kern *const *k = at_kern_available(); *k; k++) ret_table[n++] = *k;
    ret_table[n++] = &soft;
    return AT_SANITIZED_THREAD ? 1 : n; /* threads share the work in the same way whatever the table */
}

static void test_every_table_and_thread_count(void **state)
{
    (void)state;
    const struct at_kern *table[5];
    int tables = all_tables(table), wrong = 0;
    for (int threads = 1; threads <= 3; threads++) {
        struct at_pool pool;
        assert_int_equal(at_pool_init(&pool, threads, NULL), AT_OK);
        for (int k = 0; k < tables; k++) {
            for (int i = 0; i < CASES; i++) {
                if (at_hash_eq(run_case(i, table[k], &pool.par, 1), committed[i])) continue;
                print_error("%s: wrong hash from %s with %d threads\n", cases[i].name, table[k]->name, threads);
                wrong++;
            }
        }
        at_pool_release(&pool);
    }
    assert_int_equal(wrong, 0);
}

/* The canary: other inputs give another hash, so a hash does depend on what it is said to. */
static void test_another_seed_gives_another_hash(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++) {
        if (cases[i].fn == case_rotary_table) continue; /* has no random input */
        assert_false(at_hash_eq(run_case(i, at_kern_available()[0], &at_par_serial, 2), committed[i]));
    }
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "--print")) {
        const struct at_kern *table[5];
        int tables = all_tables(table);
        printf("# SHA-256 of each case of conformance_test.c under contract F32-1.\n");
        for (int i = 0; i < CASES; i++)
            printf("%s %s\n", cases[i].name, at_hash_hex(run_case(i, table[tables - 1], &at_par_serial, 1)).s);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_table_and_thread_count),
        cmocka_unit_test(test_another_seed_gives_another_hash),
    };
    return cmocka_run_group_tests(tests, read_vectors, NULL);
}
