/* cmd_train.c: the whole algorithm in one process, for one machine: replicas one after the other, no swarm. Same
 * settings, same state root as a swarm's run. */
#include "cli/cli_cmd.h"
#include "cli/cli_exec.h"
#include "cli/cli_model.h"
#include "cli/cli_text.h"
#include "cli/progress.h"
#include "os/sys.h"
#include "train/local.h"

#include <inttypes.h>
#include <string.h>

struct args {
    const char *preset, *kernels, *out;
    struct at_opt_list data;
    struct at_opt_int replicas, rounds, steps, seed, threads;
};

static const struct at_opt rows[] = {
    AT_ROW_TEXT(struct args, preset, "preset", "P", "nano", "the model's shape: nano, 10m, 124m"),
    AT_ROW_LIST(struct args, data, "data", "FILE", "text to learn; several times, or further files as plain words"),
    AT_ROW_INT(struct args, replicas, "replicas", "R", 1, 1024, "1", "replicas whose updates are averaged each round"),
    AT_ROW_INT(struct args, rounds, "rounds", "N", 1, 1000000, NULL, "rounds (default: the preset's)"),
    AT_ROW_INT(struct args, steps, "steps", "H", 1, 100000, NULL, "inner steps of a round (default: the preset's)"),
    AT_ROW_INT(struct args, seed, "seed", "S", 0, UINT64_MAX, NULL,
               "seed of weights and data order (default: the preset's)"),
    AT_ROW_INT(struct args, threads, "threads", "N", 1, 64, NULL, "threads (default: one per processor)"),
    AT_ROW_TEXT(struct args, kernels, "kernels", "K", "auto", "ref, avx2, avx512 or auto; all give the same bits"),
    AT_ROW_TEXT(struct args, out, "out", "D", NULL, "folder for model.safetensors and config.json"),
};

struct job {
    const struct args *args;
    struct at_cli_exec exec;
    struct at_buf text;
    struct at_data data;
    struct at_model model;
    struct at_local local;
    struct at_train_config config;
    struct at_screen screen;
    double loss_first, loss_last, train_s, round_start_s, saved_s;
    uint64_t round_tokens; /* of the replicas that finished in this round */
    int replica;
};

static double clock_s(void)
{
    return (double)at_clock_mono_ns() * 1e-9;
}

static uint64_t tokens_in_all(const struct job *j)
{
    return (uint64_t)j->config.rounds * j->config.steps * j->config.batch * (uint64_t)j->args->replicas.v *
           j->model.params.config.seq_len;
}

static double seconds_left(const struct job *j, uint64_t tokens, double spent_s)
{
    return tokens == 0 ? 0 : spent_s / (double)tokens * (double)(tokens_in_all(j) - tokens);
}

static bool on_step(void *arg, int replica, const struct at_unit_progress *p)
{
    struct job *j = arg;
    if (j->screen.live) {
        char line[512];
        uint64_t unit = (uint64_t)j->config.steps * j->config.batch * j->model.params.config.seq_len;
        uint64_t done = j->local.state.round * unit * j->args->replicas.v + (uint64_t)replica * unit + p->tokens;
        double spent_s = j->train_s + clock_s() - j->round_start_s;
        snprintf(line, sizeof line,
                 "round %s%u/%u%s  %s  replica %d/%d step %2u/%u  loss %.3f  held-out %s%.3f%s  %s tok/s  %s left",
                 at_style(&j->screen, AT_STYLE_BOLD), j->local.state.round + 1, j->config.rounds,
                 at_style(&j->screen, AT_STYLE_PLAIN),
                 at_bar(&j->screen, (double)done / (double)tokens_in_all(j), 20).s, replica + 1,
                 (int)j->args->replicas.v, p->step, j->config.steps, p->loss, at_style(&j->screen, AT_STYLE_CYAN),
                 j->loss_last, at_style(&j->screen, AT_STYLE_PLAIN), at_count((double)done / spent_s).s,
                 at_duration(seconds_left(j, done, spent_s)).s);
        at_screen_draw(&j->screen, (const char *const[]){line}, 1);
    }
    return !at_interrupted();
}

static at_err refuse_used_folder(const char *dir, struct at_diag *diag)
{
    bool empty = true;
    at_err_t err = at_dir_is_empty(dir, diag, &empty);
    if (err == AT_OK && !empty)
        err = at_fail(diag, AT_E_DATA, dir, "the folder is not empty; nothing was changed: choose another for --out");
    return err;
}

static at_err check_memory(const struct job *j, const struct at_preset *preset, struct at_diag *diag)
{
    uint64_t need = at_local_bytes(&preset->model, &j->config, (int)j->args->replicas.v, 0), free_bytes;
    if (need == 0) return at_fail(diag, AT_E_NOMEM, preset->name, "the model does not fit an address space");
    free_bytes = at_sys_memory_available();
    at_say("%s: %s parameters; needs %s of memory%s%s%s; %d thread%s, %s kernels", preset->name,
           at_count((double)at_model_params(&preset->model)).s, at_bytes(need).s, free_bytes ? " (" : "",
           free_bytes ? at_bytes(free_bytes).s : "", free_bytes ? " available)" : "", j->exec.pool.par.threads,
           j->exec.pool.par.threads == 1 ? "" : "s", j->exec.ex.kern->name);
    if (free_bytes != 0 && need > free_bytes)
        return at_fail(diag, AT_E_NOMEM, preset->name, "needs %s of memory and %s are available; take a smaller preset",
                       at_bytes(need).s, at_bytes(free_bytes).s);
    return AT_OK;
}

static at_err prepare(struct job *j, struct at_cli *cli)
{
    const struct args *a = j->args;
    struct at_diag *diag = &cli->diag;
    const struct at_preset *preset;
    at_err_t err = at_preset_find(a->preset, diag, &preset);
    if (err != AT_OK) return err;
    j->config = preset->train;
    if (a->rounds.given) j->config.rounds = (uint32_t)a->rounds.v;
    if (a->steps.given) j->config.steps = (uint32_t)a->steps.v;
    if (a->seed.given) j->config.seed = a->seed.v;
    if ((err = at_train_config_check(&j->config, diag)) != AT_OK) return err;
    if (a->out != NULL && (err = refuse_used_folder(a->out, diag)) != AT_OK) return err;

    char corpus[AT_PATH_BYTES];
    const char *standard = corpus;
    if (a->data.count == 0 && (err = at_cli_corpus_find(diag, corpus)) != AT_OK) return err;
    err = at_cli_text_read(a->data.count ? a->data.v : &standard, a->data.count ? a->data.count : 1, diag, &j->text);
    if (err == AT_OK)
        err = at_data_init(&j->data, at_buf_span(&j->text), preset->model.seq_len, j->config.seed, AT_HELDOUT_FRACTION,
                           AT_HELDOUT_BYTES_DEFAULT, diag);
    if (err == AT_OK) err = at_cli_exec_init(&j->exec, a->kernels, a->threads.v, diag);
    if (err == AT_OK) err = check_memory(j, preset, diag);
    if (err == AT_OK) err = at_model_init(&j->model, &preset->model, diag);
    if (err == AT_OK) err = at_local_init(&j->local, &j->model, &j->data, &j->config, (int)a->replicas.v, 0, diag);
    return err;
}

static at_err save(struct job *j, struct at_diag *diag)
{
    if (j->args->out == NULL) return AT_OK;
    j->saved_s = clock_s();
    return at_cli_model_write(j->args->out, &j->local.state, diag);
}

static double heldout(struct job *j)
{
    return at_heldout_loss(&j->local.trainer, &j->exec.ex, &j->data, j->local.state.theta);
}

static at_err train(struct job *j, struct at_diag *diag)
{
    j->loss_first = j->loss_last = heldout(j);
    at_screen_say(&j->screen, "held-out loss before: %.4f nats/byte", j->loss_first);
    j->saved_s = clock_s();
    while (j->local.state.round < j->config.rounds) {
        double loss;
        j->round_start_s = clock_s();
        at_err_t err = at_local_round(&j->local, &j->exec.ex, on_step, j, diag, &loss);
        if (err != AT_OK) return err;
        j->loss_last = heldout(j);
        j->train_s += clock_s() - j->round_start_s;
        at_screen_say(&j->screen, "round %*u/%u  held-out %.4f  training %.4f  %s tok/s  %s left",
                      j->config.rounds > 99 ? 4 : 2, j->local.state.round, j->config.rounds, j->loss_last, loss,
                      at_count((double)j->local.tokens / j->train_s).s,
                      at_duration(seconds_left(j, j->local.tokens, j->train_s)).s);
        bool last = j->local.state.round == j->config.rounds;
        if (!last && clock_s() - j->saved_s > 30 && (err = save(j, diag)) != AT_OK) return err;
    }
    return AT_OK;
}

static at_err report(struct job *j, struct at_cli *cli)
{
    struct at_hash root;
    at_err_t err = at_state_root(&j->local.state, &cli->diag, &root);
    if (err != AT_OK) return err;
    double tokens_per_s = j->train_s > 0 ? (double)j->local.tokens / j->train_s : 0;
    if (cli->json) {
        json_t *answer = at_cli_answer(cli);
        at_json_set_text(answer, "state_root", at_hash_hex(root).s);
        at_json_set_int(answer, "tokens", j->local.tokens);
        at_json_set_9(answer, "heldout_loss_first", j->loss_first);
        at_json_set_9(answer, "heldout_loss_last", j->loss_last);
        at_json_set_9(answer, "tokens_per_s", tokens_per_s);
        at_json_set_9(answer, "seconds", at_cli_seconds());
        return AT_OK;
    }
    printf("held-out loss %.4f -> %.4f nats/byte, %" PRIu64 " tokens at %s tok/s, %s\nstate root %s\n", j->loss_first,
           j->loss_last, j->local.tokens, at_count(tokens_per_s).s, at_duration(at_cli_seconds()).s,
           at_hash_hex(root).s);
    if (j->args->out != NULL)
        at_say("written to %s; try: %s ask --dir %s \"Call me \"", j->args->out, cli->program, j->args->out);
    return AT_OK;
}

static void job_release(struct job *j)
{
    at_local_release(&j->local);
    at_model_release(&j->model);
    at_cli_exec_release(&j->exec);
    at_buf_release(&j->text);
}

static at_err_t run(struct at_cli *cli, void *args)
{
    struct args *a = args;
    for (int i = 0; i < cli->words.count; i++) { /* --data A B C */
        if (a->data.count == 0)
            return at_fail(&cli->diag, AT_E_USAGE, cli->words.v[i], "unexpected; text files come with --data FILE");
        a->data.v[a->data.count++] = cli->words.v[i];
    }
    struct job j = {.args = a};
    at_screen_init(&j.screen, stderr);
    at_interrupt_catch();
    at_err_t err = prepare(&j, cli);
    if (err == AT_OK) {
        err = train(&j, &cli->diag);
        at_screen_clear(&j.screen);
        bool keep = err == AT_OK || (err == AT_E_INTERRUPTED && a->out != NULL && j.local.state.round > 0);
        if (err == AT_E_INTERRUPTED) {
            cli->diag = (struct at_diag){0};
            if (keep)
                at_fail(&cli->diag, err, a->out, "interrupted; holds the model after %u of %u rounds",
                        j.local.state.round, j.config.rounds);
            else
                at_fail(&cli->diag, err, "train", "interrupted; nothing was written");
        }
        struct at_diag write_diag = {0};
        at_err_t write_err = keep ? save(&j, &write_diag) : AT_OK;
        if (write_err != AT_OK) {
            err = write_err;
            cli->diag = write_diag;
        }
    }
    if (err == AT_OK) err = report(&j, cli);
    job_release(&j);
    return err;
}

const struct at_command at_cmd_train = {
    .name = "train",
    .summary = "train on this machine alone, in one process",
    .usage = "--preset P --data FILE... [--replicas R] [--rounds N] [--steps H] [--seed S] [--out D]",
    .about =
        "The same algorithm as a swarm's: with equal settings it ends in the same state root, to the bit, whatever\n"
        "the kernels and the number of threads. Ctrl-C ends it with the model of the last whole round in --out.",
    .examples = "  atoll train --preset nano --data data/moby-dick.txt --replicas 4 --out my-model\n"
                "  atoll train --data a.txt b.txt --rounds 6 --steps 10 --seed 7 --threads 2 --json\n",
    AT_ROWS(rows),
    .args_bytes = sizeof(struct args),
    .words_max = 10000,
    .run = run,
};
