/* bench_gemm.c: every matrix product of a training step, with the joins, column blocks, row strides and sizes that the
 * model uses. */
#include "cli/bench.h"
#include "model/config.h"
#include "os/sys.h"
#include "tensor/gemm.h"

#include <stdlib.h>
#include <string.h>

static const char *const op_name[] = {[AT_GEMM_NN] = "nn", [AT_GEMM_NT] = "nt", [AT_GEMM_TN] = "tn"};
static const char *const join_name[] = {
    [AT_JOIN_CHAIN] = "chain", [AT_JOIN_SLOTS] = "slots", [AT_JOIN_GRAINS] = "grains"};

/* A weight matrix (rows, cols) of the model; row-parallel ones lie in column blocks (params.h). */
struct weight {
    const char *name;
    long rows, cols, block_cols; /* block_cols 0: one block */
    uint32_t per_step;           /* of them in a model */
    long in_row, out_row;        /* row strides of what goes through it */
};
enum { WEIGHTS = 5, PASSES = 3, PRODUCTS = WEIGHTS * PASSES };
enum pass { FORWARD, D_INPUT, D_WEIGHT };
static const char *const pass_name[] = {"forward", "d_input", "d_weight"};

struct product {
    struct weight weight;
    enum pass pass;
    struct at_gemm g; /* matrices not placed yet */
};

struct bench {
    const struct at_exec *ex;
    struct product product[PRODUCTS];
    real *a, *b, *c, *block;
};

static void list_weights(const struct at_model_config *c, struct weight ret_weight[WEIGHTS])
{
    long d = c->d_model, q = (long)c->heads * c->head_size, kv = (long)c->kv_heads * c->head_size, ff = c->d_ff;
    int S = at_model_slots(c);
    const struct weight all[WEIGHTS] = {{"qkv", q + 2 * kv, d, 0, c->layers, d, q + 2 * kv},
                                        {"o", d, q, q / S, c->layers, q, d},
                                        {"gate_up", 2 * ff, d, 0, c->layers, d, at_gemm_row(2 * ff)},
                                        {"down", d, ff, ff / S, c->layers, at_gemm_row(ff), d},
                                        {"head", at_model_vocab_padded(c), d, 0, 1, d, at_model_vocab_padded(c)}};
    memcpy(ret_weight, all, sizeof all);
}

static struct at_mat of_weight(const struct weight *w)
{
    if (w->block_cols == 0) return at_mat(NULL, w->cols);
    return (struct at_mat){NULL, w->block_cols, w->block_cols, w->rows * w->block_cols};
}

/* N rows go through the weight. A reduction along a dimension that tensor parallelism may split is in slots. */
static struct product product_of(const struct weight *w, enum pass pass, long N, long T, int S)
{
    struct at_gemm g = {.op = AT_GEMM_NT, .join = AT_JOIN_CHAIN, .slots = 1, .m = N, .n = w->rows, .k = w->cols};
    bool slots = pass == FORWARD ? w->block_cols != 0 : w->block_cols == 0;
    switch (pass) {
    case FORWARD:
        g.a = at_mat(NULL, w->in_row);
        g.b = of_weight(w);
        g.c = at_mat(NULL, w->out_row);
        break;
    case D_INPUT:
        g.op = AT_GEMM_NN, g.n = w->cols, g.k = w->rows;
        g.a = at_mat(NULL, w->out_row);
        g.b = of_weight(w);
        g.c = at_mat(NULL, w->in_row);
        break;
    case D_WEIGHT:
        g.op = AT_GEMM_TN, g.m = w->rows, g.n = w->cols, g.k = N;
        g.a = at_mat(NULL, w->out_row);
        g.b = at_mat(NULL, w->in_row);
        g.c = of_weight(w);
        g.join = AT_JOIN_GRAINS, g.seq_len = T;
        break;
    }
    if (pass != D_WEIGHT && slots) g.join = AT_JOIN_SLOTS, g.slots = S;
    return (struct product){*w, pass, g};
}

static size_t larger(size_t x, size_t y)
{
    return x > y ? x : y;
}

#define LINE 64 /* bytes: matrices are aligned as a model's are */

static size_t whole_lines(size_t n)
{
    const size_t line = LINE / sizeof(real);
    return (n + line - 1) / line * line;
}

/* One set of matrices, as large as the largest product needs. */
static at_err bench_init(struct bench *b, const struct at_exec *ex, const struct at_preset *preset, long sequences,
                         struct at_diag *diag)
{
    struct weight weight[WEIGHTS];
    size_t a = 0, w = 0, c = 0;
    const struct at_model_config *m = &preset->model;
    list_weights(m, weight);
    *b = (struct bench){.ex = ex};
    for (int i = 0; i < PRODUCTS; i++) {
        struct product *p = &b->product[i];
        *p = product_of(&weight[i / PASSES], (enum pass)(i % PASSES), sequences * (long)m->seq_len, (long)m->seq_len,
                        at_model_slots(m));
        const bool tn = p->g.op == AT_GEMM_TN, nt = p->g.op == AT_GEMM_NT;
        a = larger(a, whole_lines((size_t)(tn ? p->g.k : p->g.m) * (size_t)p->g.a.ld));
        w = larger(w, p->g.b.block_cols != 0 ? whole_lines((size_t)p->g.n * (size_t)p->g.k)
                                             : whole_lines((size_t)(nt ? p->g.n : p->g.k) * (size_t)p->g.b.ld));
        c = larger(c, p->g.c.block_cols != 0 ? whole_lines((size_t)p->g.m * (size_t)p->g.n)
                                             : whole_lines((size_t)p->g.m * (size_t)p->g.c.ld));
    }
    b->block = aligned_alloc(LINE, (a + w + c) * sizeof(real));
    if (b->block == NULL) return at_fail(diag, AT_E_NOMEM, "bench", "no memory for the matrices");
    at_sys_memory_huge();
    at_bench_fill(b->block, a + w + c, 1);
    b->a = b->block;
    b->b = b->a + a;
    b->c = b->b + w;
    return AT_OK;
}

#define FLOPS_NO_WARM_UP 1e10

/* GFLOP/s over at least 0.1 s, after one product that is not counted: it brings the operands into the caches, which
 * those of a large product do not fit. */
static at_err measure(void *arg, uint64_t item, struct at_diag *diag, double *ret_gflops)
{
    struct bench *b = arg;
    struct at_gemm g = b->product[item].g;
    g.a.p = b->a;
    g.b.p = b->b;
    g.c.p = b->c;
    double flops = 2.0 * (double)g.m * (double)g.n * (double)g.k, start_s, spent_s;
    int runs = 0;
    if (flops < FLOPS_NO_WARM_UP) at_gemm(b->ex, &g);
    start_s = at_bench_clock_s();
    do {
        at_gemm(b->ex, &g);
        runs++;
        spent_s = at_bench_clock_s() - start_s;
    } while (spent_s < 0.1);
    *ret_gflops = flops * runs / spent_s * 1e-9;
    return at_bench_check_interrupt(diag);
}

static void describe(json_t *list, const struct product *p, double gflops, double peak)
{
    json_t *object = json_object();
    AT_ASSERT(object != NULL && json_array_append_new(list, object) == 0);
    at_json_set_text(object, "weight", p->weight.name);
    at_json_set_text(object, "pass", pass_name[p->pass]);
    at_json_set_text(object, "op", op_name[p->g.op]);
    at_json_set_text(object, "join", join_name[p->g.join]);
    at_json_set_int(object, "slots", (uint64_t)p->g.slots);
    at_json_set_int(object, "m", (uint64_t)p->g.m);
    at_json_set_int(object, "n", (uint64_t)p->g.n);
    at_json_set_int(object, "k", (uint64_t)p->g.k);
    at_json_set_int(object, "per_step", p->weight.per_step);
    if (gflops <= 0) return;
    at_json_set_9(object, "gflops", gflops);
    at_json_set_9(object, "fraction", gflops / peak);
}

static void print_product(const struct product *p, double gflops, double peak)
{
    printf("%-8s %-9s %s %-6s %6ld x %6ld x %6ld  %7.1f GFLOP/s  %.2f\n", p->weight.name, pass_name[p->pass],
           op_name[p->g.op], join_name[p->g.join], p->g.m, p->g.n, p->g.k, gflops, gflops / peak);
}

static void report(struct at_cli *cli, const struct bench *b, const char *preset, const double *speed, double peak)
{
    json_t *list = json_array();
    AT_ASSERT(list != NULL);
    if (!cli->json && speed != NULL)
        printf("%s, peak %.1f GFLOP/s (%s, %d thread%s)\n", preset, peak, b->ex->kern->name, b->ex->par->threads,
               b->ex->par->threads == 1 ? "" : "s");
    for (int i = 0; i < PRODUCTS; i++) {
        describe(list, &b->product[i], speed != NULL ? speed[i] : 0, peak);
        if (!cli->json && speed != NULL) print_product(&b->product[i], speed[i], peak);
    }
    if (cli->json) {
        at_json_set_text(at_cli_answer(cli), "preset", preset);
        at_json_set_int(cli->answer, "threads", (uint64_t)b->ex->par->threads);
        at_json_set_text(cli->answer, "kernels", b->ex->kern->name);
        if (speed != NULL) at_json_set_9(cli->answer, "peak_gflops", peak);
        at_json_set(cli->answer, "products", json_incref(list));
    }
    json_decref(list);
}

static at_err measure_all(struct at_cli *cli, struct bench *b, const char *preset)
{
    double peak[PRODUCTS * AT_BENCH_MEASUREMENTS], speed[PRODUCTS][AT_BENCH_MEASUREMENTS], middle[PRODUCTS];
    int peaks = 0;
    for (int i = 0; i < AT_BENCH_MEASUREMENTS; i++)
        for (int j = 0; j < PRODUCTS; j++) {
            peak[peaks++] = at_bench_peak_gflops(b->ex);
            at_err_t err = measure(b, (uint64_t)j, &cli->diag, &speed[j][i]);
            if (err != AT_OK) return err;
        }
    for (int j = 0; j < PRODUCTS; j++) middle[j] = at_bench_median(speed[j], AT_BENCH_MEASUREMENTS);
    report(cli, b, preset, middle, at_bench_median(peak, peaks));
    return AT_OK;
}

at_err at_bench_gemm(struct at_cli *cli, const struct at_bench_args *args, const struct at_exec *ex)
{
    const struct at_preset *preset;
    struct bench b = {0};
    at_err_t err = at_preset_find(args->preset, &cli->diag, &preset);
    if (err != AT_OK) return err;
    long sequences = args->batch.given ? (long)args->batch.v : (long)preset->train.batch;
    if ((err = bench_init(&b, ex, preset, sequences, &cli->diag)) != AT_OK) return err;
    if (args->list) {
        report(cli, &b, preset->name, NULL, 0);
    } else if (args->lines) {
        err = at_bench_lines(ex, PRODUCTS, measure, &b, &cli->diag);
    } else {
        err = measure_all(cli, &b, preset->name);
    }
    free(b.block);
    return err;
}
