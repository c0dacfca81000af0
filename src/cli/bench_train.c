/* bench_train.c: whole training steps: forward, backward, optimizer. */
#include "base/rng.h"
#include "cli/bench.h"
#include "cli/progress.h"
#include "os/sys.h"
#include "train/unit.h"

#include <math.h>
#include <string.h>

struct bench {
    const struct at_exec *ex;
    struct at_model model;
    struct at_trainer trainer;
    uint32_t k; /* steps done */
};

/* Tokens a second over at least 0.4 s. */
static at_err measure(void *arg, uint64_t item, struct at_diag *diag, double *ret_tokens_per_s)
{
    struct bench *b = arg;
    struct at_trainer *t = &b->trainer;
    double start_s = at_bench_clock_s(), spent_s;
    uint32_t steps = 0;
    (void)item;
    do {
        at_err_t err = at_bench_check_interrupt(diag);
        if (err != AT_OK) return err;
        double loss = at_trainer_gradient(t, b->ex, t->theta);
        if (!isfinite(loss)) return at_fail(diag, AT_E_NONFINITE, "bench", "the loss is not finite");
        err = at_trainer_step(t, b->ex, 0, ++b->k, diag);
        if (err != AT_OK) return err;
        steps++;
        spent_s = at_bench_clock_s() - start_s;
    } while (spent_s < 0.4);
    *ret_tokens_per_s = (double)steps * t->config.batch * t->model->params.config.seq_len / spent_s;
    return AT_OK;
}

static at_err bench_init(struct bench *b, const struct at_exec *ex, const struct at_preset *preset,
                         const struct at_train_config *config, struct at_diag *diag)
{
    *b = (struct bench){.ex = ex};
    at_err_t err = at_model_init(&b->model, &preset->model, diag);
    if (err == AT_OK) err = at_trainer_init(&b->trainer, &b->model, config, 0, diag);
    if (err != AT_OK) return err;
    at_sys_memory_huge();
    struct at_trainer *t = &b->trainer;
    size_t n = (size_t)config->batch * preset->model.seq_len;
    at_params_fill(&b->model.params, config->seed, t->theta);
    memset(t->m, 0, b->model.params.count * sizeof *t->m);
    memset(t->v, 0, b->model.params.count * sizeof *t->v);
    for (size_t i = 0; i < n; i++) {
        t->input[i] = (int32_t)(at_philox(1, AT_RNG_TEST, 0, i).v[0] % preset->model.vocab);
        t->target[i] = (int32_t)(at_philox(1, AT_RNG_TEST, 1, i).v[0] % preset->model.vocab);
    }
    return AT_OK;
}

static void bench_release(struct bench *b)
{
    at_trainer_release(&b->trainer);
    at_model_release(&b->model);
}

static void report(struct at_cli *cli, const struct bench *b, const struct at_preset *preset, double tokens_per_s,
                   double peak)
{
    int threads = b->ex->par->threads;
    double gflops = tokens_per_s * (double)at_model_flops_per_token(&preset->model) * 1e-9;
    if (!cli->json) {
        printf("%s, batch %u, %d thread%s, %s: %s tok/s, %.1f of %.1f GFLOP/s, %.1f %% of peak\n", preset->name,
               b->trainer.config.batch, threads, threads == 1 ? "" : "s", b->ex->kern->name, at_count(tokens_per_s).s,
               gflops, peak, 100 * gflops / peak);
        return;
    }
    json_t *answer = at_cli_answer(cli);
    at_json_set_text(answer, "preset", preset->name);
    at_json_set_int(answer, "batch", b->trainer.config.batch);
    at_json_set_int(answer, "threads", (uint64_t)threads);
    at_json_set_text(answer, "kernels", b->ex->kern->name);
    at_json_set_9(answer, "tokens_per_s", tokens_per_s);
    at_json_set_9(answer, "gflops", gflops);
    at_json_set_9(answer, "peak_gflops", peak);
    at_json_set_9(answer, "fraction", gflops / peak);
}

/* What a peer needs to train the same model. */
static void list(struct at_cli *cli, const struct at_preset *preset, const struct at_train_config *config)
{
    const struct at_model_config *m = &preset->model;
    const struct {
        const char *name;
        uint32_t v;
    } whole[] = {{"layers", m->layers},     {"d_model", m->d_model},     {"heads", m->heads},
                 {"kv_heads", m->kv_heads}, {"head_size", m->head_size}, {"d_ff", m->d_ff},
                 {"seq_len", m->seq_len},   {"vocab", m->vocab},         {"batch", config->batch}};
    const struct {
        const char *name;
        double v;
    } number[] = {{"rope_theta", m->rope_theta},
                  {"norm_eps", m->norm_eps},
                  {"lr_peak", config->lr_peak},
                  {"beta1", config->beta1},
                  {"beta2", config->beta2},
                  {"adam_eps", config->adam_eps},
                  {"weight_decay", config->weight_decay},
                  {"clip_norm", config->clip_norm}};
    json_t *answer = at_cli_answer(cli);
    at_json_set_text(answer, "preset", preset->name);
    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++) at_json_set_int(answer, whole[i].name, whole[i].v);
    at_json_set_bool(answer, "tied", m->tied);
    for (size_t i = 0; i < sizeof number / sizeof number[0]; i++) at_json_set_real(answer, number[i].name, number[i].v);
    at_json_set_int(answer, "parameters", at_model_params(m));
    at_json_set_int(answer, "flops_per_token", at_model_flops_per_token(m));
}

static at_err measure_all(struct at_cli *cli, struct bench *b, const struct at_preset *preset)
{
    enum { N = AT_BENCH_MEASUREMENTS };
    double speed[N], peak[N + 1];
    at_err_t err = measure(b, 0, &cli->diag, &speed[0]); /* the first touches the memory: thrown away */
    for (int i = 0; i < N && err == AT_OK; i++) {
        peak[i] = at_bench_peak_gflops(b->ex);
        err = measure(b, 0, &cli->diag, &speed[i]);
    }
    if (err != AT_OK) return err;
    peak[N] = at_bench_peak_gflops(b->ex);
    report(cli, b, preset, at_bench_median(speed, N), at_bench_median(peak, N + 1));
    return AT_OK;
}

static at_err check_memory(const struct at_preset *preset, const struct at_train_config *config, struct at_diag *diag)
{
    size_t need = at_trainer_bytes(&preset->model, config, 0);
    uint64_t free_bytes = at_sys_memory_available();
    at_say("%s, batch %u: needs %s of memory%s%s%s", preset->name, config->batch, at_bytes(need).s,
           free_bytes ? " (" : "", free_bytes ? at_bytes(free_bytes).s : "", free_bytes ? " available)" : "");
    if (need == 0 || (free_bytes != 0 && need > free_bytes))
        return at_fail(diag, AT_E_NOMEM, preset->name,
                       "needs %s of memory and %s are available; take a smaller preset or batch", at_bytes(need).s,
                       at_bytes(free_bytes).s);
    return AT_OK;
}

at_err at_bench_train(struct at_cli *cli, const struct at_bench_args *args, const struct at_exec *ex)
{
    const struct at_preset *preset;
    struct bench b;
    at_err_t err = at_preset_find(args->preset, &cli->diag, &preset);
    if (err != AT_OK) return err;
    struct at_train_config config = preset->train;
    if (args->batch.given) config.batch = (uint32_t)args->batch.v;
    if (args->list) {
        list(cli, preset, &config);
        return AT_OK;
    }
    if ((err = check_memory(preset, &config, &cli->diag)) != AT_OK) return err;
    err = bench_init(&b, ex, preset, &config, &cli->diag);
    if (err == AT_OK) err = args->lines ? at_bench_lines(ex, 1, measure, &b, &cli->diag) : measure_all(cli, &b, preset);
    bench_release(&b);
    return err;
}
