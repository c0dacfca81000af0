/* cmd_bench.c: how fast this machine does the contract's arithmetic, as a fraction of what its FMA units could do.
 *
 * Every figure is the median of five measurements. Before each one a register-only FMA loop with the same kernels and
 * threads measures the peak, so that a clock that sinks under load lowers both. */
#include "base/rng.h"
#include "cli/cli_cmd.h"
#include "cli/cli_exec.h"
#include "cli/progress.h"
#include "os/sys.h"
#include "tensor/gemm.h"
#include "tensor/peak.h"
#include "train/unit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct args {
    const char *preset, *kernels;
    struct at_opt_int batch, threads;
};

static const struct at_opt rows[] = {
    AT_ROW_TEXT(struct args, preset, "preset", "P", "10m", "train: the model's shape: nano, 10m, 124m"),
    AT_ROW_INT(struct args, batch, "batch", "B", 1, 1024, NULL, "train: sequences of a step (default: the preset's)"),
    AT_ROW_INT(struct args, threads, "threads", "N", 1, 64, "1", "threads"),
    AT_ROW_TEXT(struct args, kernels, "kernels", "K", "auto", "ref, avx2, avx512 or auto"),
};

enum { MEASUREMENTS = 5 };

static double clock_s(void)
{
    return (double)at_clock_mono_ns() * 1e-9;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *value, int count)
{
    double sorted[256];
    AT_ASSERT(count >= 1 && count <= 256);
    memcpy(sorted, value, (size_t)count * sizeof *sorted);
    qsort(sorted, (size_t)count, sizeof *sorted, by_value);
    return count % 2 ? sorted[count / 2] : (sorted[count / 2 - 1] + sorted[count / 2]) / 2;
}

/* GFLOP/s of the FMA loop, over about 50 ms. */
static double peak_gflops(const struct at_exec *ex)
{
    long iterations = 1000;
    for (;;) {
        double start_s = clock_s(), flops = at_peak_flops_run(ex->kern, ex->par, iterations);
        double spent_s = clock_s() - start_s;
        if (spent_s >= 0.04) return flops / spent_s * 1e-9;
        double factor = spent_s > 1e-4 ? 0.05 / spent_s : 20;
        iterations = (long)((double)iterations * (factor < 1.1 ? 1.1 : factor)) + 1;
    }
}

/* Numbers of magnitude one, none of them subnormal or special. */
static void fill(real *x, size_t n, uint32_t seed)
{
    uint32_t s = seed * 2654435761u + 1;
    for (size_t i = 0; i < n; i++) {
        s = s * 1664525u + 1013904223u;
        x[i] = (real)(int32_t)(s >> 8) / (real)(1 << 24) - (real)0.5;
    }
}

/* The products of a training step of the 10m preset (2,048 positions), and a square one. */
struct shape {
    enum at_gemm_op op;
    long m, n, k;
};
static const struct shape shapes[] = {
    {AT_GEMM_NT, 2048, 1152, 384},  {AT_GEMM_NT, 2048, 2048, 384},  {AT_GEMM_NT, 2048, 384, 1024},
    {AT_GEMM_NT, 1024, 1024, 1024}, {AT_GEMM_NN, 2048, 384, 1152},  {AT_GEMM_NN, 2048, 384, 2048},
    {AT_GEMM_NN, 2048, 1024, 384},  {AT_GEMM_NN, 1024, 1024, 1024}, {AT_GEMM_TN, 1152, 384, 2048},
    {AT_GEMM_TN, 2048, 384, 2048},  {AT_GEMM_TN, 384, 1024, 2048},  {AT_GEMM_TN, 1024, 1024, 1024},
};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };
static const char *const op_name[] = {"nn", "nt", "tn"};

static double gemm_gflops(const struct at_exec *ex, const struct shape *s, real *a, real *b, real *c)
{
    struct at_gemm g = {.op = s->op, .join = AT_JOIN_CHAIN, .slots = 1, .m = s->m, .n = s->n, .k = s->k};
    g.a = at_mat(a, s->op == AT_GEMM_TN ? s->m : s->k);
    g.b = at_mat(b, s->op == AT_GEMM_NT ? s->k : s->n);
    g.c = at_mat(c, s->n);
    double flops = 2.0 * (double)s->m * (double)s->n * (double)s->k, start_s = clock_s(), spent_s;
    int runs = 0;
    do {
        at_gemm(ex, &g);
        runs++;
        spent_s = clock_s() - start_s;
    } while (spent_s < 0.05);
    return flops * runs / spent_s * 1e-9;
}

static at_err check_interrupt(struct at_diag *diag)
{
    return at_interrupted() ? at_fail(diag, AT_E_INTERRUPTED, "bench", "interrupted; no figure is complete") : AT_OK;
}

static at_err bench_gemm(struct at_cli *cli, const struct at_exec *ex)
{
    double peak[SHAPES * MEASUREMENTS], speed[SHAPES][MEASUREMENTS];
    size_t biggest = (size_t)2048 * 2048;
    real *memory = malloc(3 * biggest * sizeof *memory);
    if (memory == NULL) return at_fail(&cli->diag, AT_E_NOMEM, "bench", "no memory for the matrices");
    fill(memory, 3 * biggest, 1);
    int peaks = 0;
    at_err_t err = AT_OK;
    for (int i = 0; i < MEASUREMENTS; i++)
        for (int j = 0; j < SHAPES && (err = check_interrupt(&cli->diag)) == AT_OK; j++) {
            peak[peaks++] = peak_gflops(ex);
            speed[j][i] = gemm_gflops(ex, &shapes[j], memory, memory + biggest, memory + 2 * biggest);
        }
    free(memory);
    if (err != AT_OK) return err;
    double top = median(peak, peaks);
    json_t *list = json_array();
    AT_ASSERT(list != NULL);
    if (!cli->json) printf("peak %.1f GFLOP/s (%s, %d threads)\n", top, ex->kern->name, ex->par->threads);
    for (int j = 0; j < SHAPES; j++) {
        double s = median(speed[j], MEASUREMENTS);
        json_t *object = json_object();
        AT_ASSERT(object != NULL && json_array_append_new(list, object) == 0);
        at_json_set_text(object, "op", op_name[shapes[j].op]);
        at_json_set_int(object, "m", (uint64_t)shapes[j].m);
        at_json_set_int(object, "n", (uint64_t)shapes[j].n);
        at_json_set_int(object, "k", (uint64_t)shapes[j].k);
        at_json_set_9(object, "gflops", s);
        at_json_set_9(object, "fraction", s / top);
        if (!cli->json)
            printf("%s  %5ld x %5ld x %5ld  %7.1f GFLOP/s  %.2f\n", op_name[shapes[j].op], shapes[j].m, shapes[j].n,
                   shapes[j].k, s, s / top);
    }
    if (cli->json) {
        at_json_set_9(at_cli_answer(cli), "peak_gflops", top);
        at_json_set_int(cli->answer, "threads", (uint64_t)ex->par->threads);
        at_json_set_text(cli->answer, "kernels", ex->kern->name);
        at_json_set(cli->answer, "shapes", json_incref(list));
    }
    json_decref(list);
    return AT_OK;
}

/* Tokens a second of whole training steps (forward, backward, optimizer) over at least 0.4 s. */
static at_err measure_steps(struct at_trainer *t, const struct at_exec *ex, uint32_t *k, struct at_diag *diag,
                            double *ret_tokens_per_s)
{
    double start_s = clock_s(), spent_s;
    uint32_t steps = 0;
    do {
        at_err_t err = check_interrupt(diag);
        if (err != AT_OK) return err;
        double loss = at_trainer_gradient(t, ex, t->theta);
        if (!isfinite(loss)) return at_fail(diag, AT_E_NONFINITE, "bench", "the loss is not finite");
        err = at_trainer_step(t, ex, 0, ++*k, diag);
        if (err != AT_OK) return err;
        steps++;
        spent_s = clock_s() - start_s;
    } while (spent_s < 0.4);
    *ret_tokens_per_s = (double)steps * t->config.batch * t->model->params.config.seq_len / spent_s;
    return AT_OK;
}

static at_err measure_training(struct at_cli *cli, const struct at_preset *preset, const struct at_train_config *config,
                               const struct at_exec *ex, double *ret_tokens_per_s, double *ret_peak)
{
    struct at_model model = {0};
    struct at_trainer t = {0};
    double speed[MEASUREMENTS], peak[MEASUREMENTS + 1];
    uint32_t k = 0;
    at_err_t err = at_model_init(&model, &preset->model, &cli->diag);
    if (err == AT_OK) err = at_trainer_init(&t, &model, config, 0, &cli->diag);
    if (err == AT_OK) {
        at_params_fill(&model.params, config->seed, t.theta);
        memset(t.m, 0, model.params.count * sizeof *t.m);
        memset(t.v, 0, model.params.count * sizeof *t.v);
        for (size_t i = 0, n = (size_t)config->batch * preset->model.seq_len; i < n; i++) {
            t.input[i] = (int32_t)(at_philox(1, AT_RNG_TEST, 0, i).v[0] % preset->model.vocab);
            t.target[i] = (int32_t)(at_philox(1, AT_RNG_TEST, 1, i).v[0] % preset->model.vocab);
        }
        err = measure_steps(&t, ex, &k, &cli->diag, &speed[0]); /* the first touches the memory: thrown away */
        for (int i = 0; i < MEASUREMENTS && err == AT_OK; i++) {
            peak[i] = peak_gflops(ex);
            err = measure_steps(&t, ex, &k, &cli->diag, &speed[i]);
        }
        peak[MEASUREMENTS] = peak_gflops(ex);
    }
    at_trainer_release(&t);
    at_model_release(&model);
    if (err != AT_OK) return err;
    *ret_tokens_per_s = median(speed, MEASUREMENTS);
    *ret_peak = median(peak, MEASUREMENTS + 1);
    return AT_OK;
}

static at_err bench_train(struct at_cli *cli, const struct args *a, const struct at_exec *ex)
{
    const struct at_preset *preset;
    double tokens_per_s, peak;
    at_err_t err = at_preset_find(a->preset, &cli->diag, &preset);
    if (err != AT_OK) return err;
    struct at_train_config config = preset->train;
    if (a->batch.given) config.batch = (uint32_t)a->batch.v;
    size_t need = at_trainer_bytes(&preset->model, &config, 0);
    uint64_t free_bytes = at_sys_memory_available();
    at_say("%s, batch %u: needs %s of memory%s%s%s", preset->name, config.batch, at_bytes(need).s,
           free_bytes ? " (" : "", free_bytes ? at_bytes(free_bytes).s : "", free_bytes ? " available)" : "");
    if (need == 0 || (free_bytes != 0 && need > free_bytes))
        return at_fail(&cli->diag, AT_E_NOMEM, preset->name,
                       "needs %s of memory and %s are available; take a smaller "
                       "preset or batch",
                       at_bytes(need).s, at_bytes(free_bytes).s);
    if ((err = measure_training(cli, preset, &config, ex, &tokens_per_s, &peak)) != AT_OK) return err;
    double gflops = tokens_per_s * (double)at_model_flops_per_token(&preset->model) * 1e-9;
    if (!cli->json) {
        printf("%s, batch %u, %d thread%s, %s: %s tok/s, %.1f of %.1f GFLOP/s, %.1f %% of peak\n", preset->name,
               config.batch, ex->par->threads, ex->par->threads == 1 ? "" : "s", ex->kern->name,
               at_count(tokens_per_s).s, gflops, peak, 100 * gflops / peak);
        return AT_OK;
    }
    json_t *answer = at_cli_answer(cli);
    at_json_set_text(answer, "preset", preset->name);
    at_json_set_int(answer, "batch", config.batch);
    at_json_set_int(answer, "threads", (uint64_t)ex->par->threads);
    at_json_set_text(answer, "kernels", ex->kern->name);
    at_json_set_9(answer, "tokens_per_s", tokens_per_s);
    at_json_set_9(answer, "gflops", gflops);
    at_json_set_9(answer, "peak_gflops", peak);
    at_json_set_9(answer, "fraction", gflops / peak);
    return AT_OK;
}

static at_err_t run(struct at_cli *cli, void *args)
{
    const struct args *a = args;
    const char *what = cli->words.v[0];
    struct at_cli_exec e = {0};
    bool gemm = strcmp(what, "gemm") == 0;
    if (!gemm && strcmp(what, "train") != 0)
        return at_fail(&cli->diag, AT_E_USAGE, what, "unknown; it is `bench gemm` or `bench train`");
    at_interrupt_catch();
    at_err_t err = at_cli_exec_init(&e, a->kernels, a->threads.v, &cli->diag);
    if (err == AT_OK) err = gemm ? bench_gemm(cli, &e.ex) : bench_train(cli, a, &e.ex);
    at_cli_exec_release(&e);
    return err;
}

const struct at_command at_cmd_bench = {
    .name = "bench",
    .summary = "measure matrix products or training steps against this machine's peak",
    .usage = "gemm | train [--preset P] [--batch B] [--threads N] [--kernels K]",
    .about =
        "FLOPs of training are counted as tokens x (6 x matmul parameters + 6 x layers x T x heads x head size); the\n"
        "peak is a register-only FMA loop run between the measurements. Medians of five.",
    .examples = "  atoll bench gemm --json\n  atoll bench train --preset 10m --batch 8 --threads 1\n",
    AT_ROWS(rows),
    .args_bytes = sizeof(struct args),
    .words_min = 1,
    .words_max = 1,
    .run = run,
};
