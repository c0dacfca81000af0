/* The whole algorithm in one process, for one machine: replicas one after the other, no swarm. Same settings, same state
 * root as a swarm's run and as any split. */
#include "cli/train_alone.h"

#include "cli/cli_exec.h"
#include "cli/cli_model.h"
#include "cli/train_diary.h"
#include "cli/train_own.h"
#include "cli/train_rounds.h"
#include "cli/train_show.h"
#include "os/sys.h"
#include "train/local.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

struct job {
    const struct at_train_setup *setup;
    const struct at_train_args *args;
    struct at_cli_exec exec;
    struct at_model model;
    struct at_local local;
    struct at_train_diary diary;
    struct at_train_config config;
    struct at_screen screen;
    struct at_train_show show;
    double loss_first, unit_start_s, saved_s, save_cost_s;
    uint32_t saved_round; /* of the state that was saved last, or began */
    int replica;
    json_t *curve; /* [[tokens, held-out loss], ...] */
};

static bool on_step(void *arg, int replica, const struct at_unit_progress *p)
{
    struct job *j = arg;
    char who[32];
    snprintf(who, sizeof who, "replica %d/%d", replica + 1, (int)j->args->replicas.v);
    at_train_show_step(&j->show, who, replica, p, false);
    if (p->step == 1 || replica != j->replica) j->unit_start_s = at_train_clock();
    j->replica = replica;
    double limit = j->show.round.seconds;
    if (limit > 0 && at_train_clock() - j->unit_start_s >= limit) j->local.end_unit = true;
    return !at_interrupted() || j->args->out != NULL; /* where nothing is kept, there is nothing to finish */
}

static struct at_local_options options(const struct job *j)
{
    return (struct at_local_options){
        .replicas = j->setup->replicas, .recompute = j->setup->recompute, .outer = &j->setup->outer};
}

static at_err check_memory(const struct job *j, const struct at_preset *preset, struct at_diag *diag)
{
    struct at_local_options o = options(j);
    uint64_t need = at_local_bytes_options(&preset->model, &j->config, &o), free_bytes;
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

/* What the replicas keep for themselves, from their files or to them. */
static at_err_t give_own(void *arg, int replica, int part, int tensor, int slot, real *values, struct at_diag *diag)
{
    struct job *j = arg;
    const real *at = at_local_own(&j->local, replica, part, tensor, slot);
    memcpy(values, at, at_own_count(&j->model.params, part, tensor, slot) * sizeof *values);
    return AT_OK;
}

static at_err_t take_own(void *arg, int replica, int part, int tensor, int slot, real *values, struct at_diag *diag)
{
    struct job *j = arg;
    real *at = at_local_own(&j->local, replica, part, tensor, slot);
    memcpy(at, values, at_own_count(&j->model.params, part, tensor, slot) * sizeof *values);
    return AT_OK;
}

static at_err resume(struct job *j, struct at_diag *diag)
{
    struct at_cli_model m = {0};
    struct at_local *l = &j->local;
    if (j->args->resume == NULL) return at_diary_begin(&j->diary, j->setup, 0, m.root, diag);
    at_err_t err = at_cli_model_read(j->args->resume, diag, &m);
    if (err == AT_OK && (m.state.momentum != NULL) != (l->state.momentum != NULL))
        err = at_train_other_outer(j->args, diag);
    if (err == AT_OK) {
        const struct at_params *p = &j->model.params;
        memcpy(l->state.theta, m.state.theta, p->count * sizeof *l->state.theta);
        memcpy(l->state.stats, m.state.stats, at_stats_count(p) * sizeof *l->state.stats);
        if (m.state.momentum != NULL) memcpy(l->state.momentum, m.state.momentum, p->count * sizeof *l->state.momentum);
        l->state.round = m.state.round;
        err = at_diary_begin(&j->diary, j->setup, m.state.round, m.root, diag);
        if (err == AT_OK) err = at_samples_copy(&l->samples, &j->diary.samples);
        if (err == AT_OK && !j->args->model_only) {
            struct at_own_files own = {p, at_own_files_head(j->setup, m.root, m.state.round), take_own, j};
            at_local_start(l);
            err = at_own_files_load(&own, j->args->resume, diag);
        }
        j->show.tokens_before = j->diary.tokens;
        if (err == AT_OK) at_screen_say(&j->screen, "goes on from %s, after round %u", j->args->resume, m.state.round);
    }
    at_cli_model_release(&m);
    return err;
}

static at_err prepare(struct job *j, struct at_cli *cli)
{
    struct at_diag *diag = &cli->diag;
    struct at_local_options o = options(j);
    const struct at_preset *preset = j->setup->preset;
    at_err_t err = at_cli_exec_init(&j->exec, j->args->kernels, j->args->threads.v, diag);
    if (err == AT_OK) err = check_memory(j, preset, diag);
    if (err == AT_OK) err = at_model_init(&j->model, &preset->model, diag);
    if (err == AT_OK) err = at_local_init_options(&j->local, &j->model, &j->setup->data, &j->config, &o, diag);
    at_sys_memory_huge();
    return err == AT_OK ? resume(j, diag) : err;
}

/* All that a checkpoint has besides the public state. */
static at_err_t save_more(void *arg, const char *dir, struct at_hash root, struct at_diag *diag)
{
    struct job *j = arg;
    struct at_own_head head = at_own_files_head(j->setup, root, j->local.state.round);
    at_local_start(&j->local); /* for a run that has done no round */
    at_err_t err = at_own_files_save(&(struct at_own_files){&j->model.params, head, give_own, j}, dir, diag);
    return err == AT_OK ? at_diary_save(&j->diary, dir, root, diag) : err;
}

static at_err save(struct job *j, struct at_diag *diag)
{
    if (j->args->out == NULL) return AT_OK;
    double start_s = at_train_clock();
    at_err_t err = at_cli_model_write_with(j->args->out, &j->local.state, save_more, j, diag);
    j->saved_s = at_train_clock();
    j->save_cost_s = j->saved_s - start_s;
    j->saved_round = j->local.state.round;
    j->show.saved |= err == AT_OK;
    return err;
}

static at_err save_if_due(struct job *j, struct at_diag *diag)
{
    bool news = j->local.state.round != j->saved_round;
    return news && at_train_save_due(j->args, at_train_clock() - j->saved_s, j->save_cost_s) ? save(j, diag) : AT_OK;
}

/* The journal, with what every replica took of the round that is now in the state. */
static at_err note_round(struct job *j, struct at_diag *diag)
{
    const struct at_update_info *consumed[AT_OUTER_REPLICAS_MAX];
    uint64_t tokens = 0;
    for (int i = 0; i < j->local.replicas; i++) {
        consumed[i] = &j->local.replica[i].info;
        tokens += consumed[i]->tokens;
    }
    return at_diary_done(&j->diary, j->local.state.round - 1, consumed, tokens, diag);
}

static double heldout(struct job *j)
{
    return at_heldout_loss(&j->local.trainer, &j->exec.ex, &j->setup->data, j->local.state.theta);
}

static void note_point(struct job *j)
{
    json_t *pair = json_array();
    uint64_t tokens = j->show.tokens_before + j->local.tokens;
    AT_ASSERT(pair != NULL && json_array_append_new(pair, json_integer((json_int_t)tokens)) == 0);
    AT_ASSERT(json_array_append_new(pair, isfinite(j->show.loss) ? json_real(j->show.loss) : json_null()) == 0);
    AT_ASSERT(json_array_append_new(j->curve, pair) == 0);
}

/* One round, journal included. */
static at_err do_round(struct job *j, const struct at_round *round, struct at_diag *diag, double *ret_loss)
{
    uint64_t start[AT_OUTER_REPLICAS_MAX];
    at_train_show_start(&j->show, round);
    at_err_t err = at_diary_take(&j->diary, round, diag, start);
    if (err == AT_OK) err = at_local_do(&j->local, &j->exec.ex, round, on_step, j, diag, ret_loss);
    if (err == AT_OK) err = note_round(j, diag);
    if (err != AT_OK) return err;
    double spent_s = at_train_clock() - j->show.start_s;
    at_auto_note_steps(&j->diary.measured, round->steps, spent_s / j->local.replicas);
    j->show.tokens = j->local.tokens;
    j->show.train_seconds += spent_s;
    return AT_OK;
}

static void look(struct job *j)
{
    double start_s = at_train_clock();
    j->show.loss = heldout(j);
    note_point(j);
    j->show.train_seconds += at_train_clock() - start_s;
}

static at_err train(struct job *j, struct at_diag *diag)
{
    j->loss_first = j->show.loss = heldout(j);
    note_point(j);
    at_screen_say(&j->screen, "held-out loss before: %.4f nats/byte", j->loss_first);
    j->saved_s = at_train_clock();
    j->saved_round = j->local.state.round;
    for (;;) {
        at_err_t err;
        double loss = 0;
        struct at_round round = at_diary_next(&j->diary);
        if (round.steps == 0) return AT_OK;
        if (at_interrupted()) return AT_E_INTERRUPTED;
        if ((err = save_if_due(j, diag)) != AT_OK) return err;
        err = do_round(j, &round, diag, &loss);
        if (err != AT_OK) return err;
        bool last = at_diary_next(&j->diary).steps == 0;
        if (!last && at_interrupted()) return AT_E_INTERRUPTED;
        if (!last && !at_train_looks(j->setup, &round)) continue;
        look(j);
        at_train_show_round(&j->show, &round, loss);
    }
}

static at_err report(struct job *j, struct at_cli *cli)
{
    struct at_hash root;
    at_err_t err = at_state_root(&j->local.state, &cli->diag, &root);
    if (err != AT_OK) return err;
    double tokens_per_s = j->show.train_seconds > 0 ? (double)j->local.tokens / j->show.train_seconds : 0;
    if (cli->json) {
        json_t *answer = at_cli_answer(cli);
        at_json_set_text(answer, "state_root", at_hash_hex(root).s);
        at_json_set_int(answer, "tokens", j->local.tokens);
        at_json_set_9(answer, "heldout_loss_first", j->loss_first);
        at_json_set_9(answer, "heldout_loss_last", j->show.loss);
        at_json_set_9(answer, "tokens_per_s", tokens_per_s);
        at_json_set_9(answer, "seconds", at_cli_seconds());
        at_json_set(answer, "curve", json_incref(j->curve));
        at_json_set(answer, "rounds", json_incref(j->diary.rounds));
        return AT_OK;
    }
    at_say("memory: at most %s", at_bytes(at_sys_memory_peak()).s);
    printf("held-out loss %.4f -> %.4f nats/byte, %" PRIu64 " tokens at %s tok/s, %s\nstate root %s\n", j->loss_first,
           j->show.loss, j->local.tokens, at_count(tokens_per_s).s, at_duration(at_cli_seconds()).s,
           at_hash_hex(root).s);
    if (j->args->out != NULL)
        at_say("written to %s; try: %s ask --dir %s \"Call me \"", j->args->out, cli->program, j->args->out);
    return AT_OK;
}

static void job_release(struct job *j)
{
    json_decref(j->curve);
    at_diary_release(&j->diary);
    at_local_release(&j->local);
    at_model_release(&j->model);
    at_cli_exec_release(&j->exec);
}

at_err_t at_train_alone(struct at_cli *cli, const struct at_train_setup *setup)
{
    const struct at_train_args *a = setup->args;
    struct job j = {.setup = setup, .args = a, .config = setup->config};
    AT_ASSERT((j.curve = json_array()) != NULL);
    at_screen_init(&j.screen, stderr);
    at_train_show_begin(&j.show, setup, &j.screen);
    at_err_t err = prepare(&j, cli);
    if (err == AT_OK) {
        err = train(&j, &cli->diag);
        at_screen_clear(&j.screen);
        struct at_diag write_diag = {0};
        bool keep = err == AT_OK || (err == AT_E_INTERRUPTED && j.local.state.round > 0);
        at_err_t write_err = keep ? save(&j, &write_diag) : AT_OK;
        if (write_err != AT_OK) {
            err = write_err;
            cli->diag = write_diag;
        } else if (err == AT_E_INTERRUPTED) {
            cli->diag = (struct at_diag){0};
            err = at_train_tell_interrupted(a, j.local.state.round, &cli->diag);
        }
    }
    if (err == AT_OK) err = report(&j, cli);
    job_release(&j);
    return err;
}
