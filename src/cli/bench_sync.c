/* bench_sync.c: the yardstick of the loss curves: one process, one optimizer, every step's gradient over the whole batch;
 * no rounds, no replicas, moments kept from the first step to the last. */
#include "cli/bench.h"
#include "cli/cli_text.h"
#include "cli/progress.h"
#include "os/sys.h"
#include "train/unit.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

struct bench {
    struct at_buf text;
    struct at_data data;
    struct at_model model;
    struct at_trainer trainer;
    struct at_train_config config;
    json_t *curve; /* [[tokens, held-out loss], ...] */
};

static void point(struct bench *b, const struct at_exec *ex, uint64_t tokens)
{
    double loss = at_heldout_loss(&b->trainer, ex, &b->data, b->trainer.theta);
    json_t *pair = json_array();
    AT_ASSERT(pair != NULL && json_array_append_new(pair, json_integer((json_int_t)tokens)) == 0);
    AT_ASSERT(json_array_append_new(pair, json_real(loss)) == 0 && json_array_append_new(b->curve, pair) == 0);
    at_say("%s tokens  held-out %.4f  %s", at_count((double)tokens).s, loss, at_duration(at_cli_seconds()).s);
}

static at_err train(struct bench *b, const struct at_exec *ex, uint64_t every, struct at_diag *diag)
{
    struct at_trainer *t = &b->trainer;
    long T = b->data.seq_len, batch = (long)b->config.batch;
    point(b, ex, 0);
    for (uint32_t k = 1; k <= b->config.steps; k++) {
        at_err_t err = at_bench_check_interrupt(diag);
        if (err != AT_OK) return err;
        for (long i = 0; i < batch; i++)
            at_data_sample(&b->data, (uint64_t)(k - 1) * (uint64_t)batch + (uint64_t)i, t->input + i * T,
                           t->target + i * T);
        double loss = at_trainer_gradient(t, ex, t->theta);
        if (!isfinite(loss)) return at_fail(diag, AT_E_NONFINITE, "bench", "the loss is not finite");
        if ((err = at_trainer_step(t, ex, 0, k, diag)) != AT_OK) return err;
        if (k % every == 0 || k == b->config.steps) point(b, ex, (uint64_t)k * (uint64_t)(batch * T));
    }
    return AT_OK;
}

static at_err prepare(struct bench *b, const struct at_bench_args *a, const struct at_preset *preset,
                      struct at_diag *diag)
{
    at_err_t err = at_cli_text_read(&a->data, 1, diag, &b->text);
    if (err == AT_OK)
        err = at_data_init(&b->data, at_buf_span(&b->text), preset->model.seq_len, b->config.seed, AT_HELDOUT_FRACTION,
                           AT_HELDOUT_BYTES_DEFAULT, diag);
    if (err == AT_OK) err = at_model_init(&b->model, &preset->model, diag);
    if (err == AT_OK) err = at_trainer_init(&b->trainer, &b->model, &b->config, 0, diag);
    if (err != AT_OK) return err;
    at_sys_memory_huge();
    at_params_fill(&b->model.params, b->config.seed, b->trainer.theta);
    memset(b->trainer.m, 0, b->model.params.count * sizeof *b->trainer.m);
    memset(b->trainer.v, 0, b->model.params.count * sizeof *b->trainer.v);
    return AT_OK;
}

at_err at_bench_sync(struct at_cli *cli, const struct at_bench_args *args, const struct at_exec *ex)
{
    const struct at_preset *preset;
    struct bench b = {0};
    at_err_t err = at_preset_find(args->preset, &cli->diag, &preset);
    if (err != AT_OK) return err;
    if (args->data == NULL) return at_fail(&cli->diag, AT_E_USAGE, "--data", "bench sync needs a text to learn");
    b.config = preset->train;
    b.config.rounds = 1; /* one optimizer's life: the schedule spans all steps */
    b.config.steps = (uint32_t)args->steps.v;
    if (args->batch.given) b.config.batch = (uint32_t)args->batch.v;
    if (args->seed.given) b.config.seed = args->seed.v;
    AT_ASSERT((b.curve = json_array()) != NULL);
    err = prepare(&b, args, preset, &cli->diag);
    if (err == AT_OK) err = train(&b, ex, args->every.v, &cli->diag);
    if (err == AT_OK && cli->json) {
        at_json_set_text(at_cli_answer(cli), "preset", preset->name);
        at_json_set_int(cli->answer, "batch", b.config.batch);
        at_json_set_int(cli->answer, "steps", b.config.steps);
        at_json_set_real(cli->answer, "seconds", at_cli_seconds());
        at_json_set(cli->answer, "curve", json_incref(b.curve));
    }
    json_decref(b.curve);
    at_trainer_release(&b.trainer);
    at_model_release(&b.model);
    at_buf_release(&b.text);
    return err;
}
