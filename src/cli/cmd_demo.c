/* cmd_demo.c: four members found a run on this machine, each a process of its own with its own key and folder, train,
 * and own the result. It drives nothing but the other commands: init, start, join, status (the control socket), finish,
 * root, ledger verify, points, ask. */
#include "cli/cli_cmd.h"
#include "cli/cli_text.h"
#include "cli/demo_job.h"
#include "model/config.h"
#include "model/stages.h"
#include "node/node.h"
#include "os/sys.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct at_opt rows[] = {
    AT_ROW_INT(struct at_demo_args, members, "members", "N", 1, AT_DEMO_MEMBERS_MAX, "4",
               "members, each its own process"),
    AT_ROW_INT(struct at_demo_args, rounds, "rounds", "R", 1, 100000, NULL,
               "rounds (default: the preset's, or 130 s if sooner)"),
    AT_ROW_INT(struct at_demo_args, steps, "steps", "H", 1, 100000, NULL,
               "inner steps of a round (default: the preset's)"),
    AT_ROW_INT(struct at_demo_args, seed, "seed", "S", 0, UINT64_MAX, NULL, "seed of weights and data order"),
    AT_ROW_INT(struct at_demo_args, stages, "stages", "P", 1, AT_STAGES_MAX, "1",
               "members that share a unit: each computes a run of layers"),
    AT_ROW_FLAG(struct at_demo_args, groups_by_log, "groups-by-log",
                "they share units in the order of joining, see init"),
    AT_ROW_FLAG(struct at_demo_args, chaos, "chaos",
                "kill, pause and cut off members on a schedule made from the seed"),
    AT_ROW_TEXT(struct at_demo_args, dir, "dir", "D", NULL, "a new folder (default: ./atoll-demo-TIME)"),
    AT_ROW_TEXT(struct at_demo_args, preset, "preset", "P", "nano", "the model's shape"),
    AT_ROW_LIST(struct at_demo_args, data, "data", "FILE", "text to learn (default: Moby-Dick)"),
    AT_ROW_TEXT(struct at_demo_args, kernels, "kernels", "K", "auto",
                "ref, avx2, avx512 or auto; all give the same bits"),
};

#define TIME_LIMIT_S  130
#define STARTUP_MS    60000 /* a member that has not joined by then never will */
#define POLL_MS       200
#define RESTARTS_MAX  3
#define ALONE_S       3 /* members that did not see the end are without the founder for so long: it comes back */
#define FOUNDER_CALLS 10

static void pause_ms(unsigned ms)
{
    nanosleep(&(struct timespec){ms / 1000, (long)(ms % 1000) * 1000000}, NULL);
}

/* ---- beginning --------------------------------------------------------------------------------------------------- */

static at_err make_folder(struct at_demo_job *j)
{
    struct at_demo *d = &j->demo;
    struct at_diag *diag = &j->cli->diag;
    bool empty = false;
    if (j->args->dir != NULL) {
        snprintf(d->dir, sizeof d->dir, "%.900s", j->args->dir);
    } else {
        char when[32] = "now";
        struct tm tm;
        time_t now = time(NULL);
        if (localtime_r(&now, &tm) != NULL) strftime(when, sizeof when, "%Y%m%d-%H%M%S", &tm);
        snprintf(d->dir, sizeof d->dir, "atoll-demo-%s", when);
    }
    at_err_t err = at_dir_is_empty(d->dir, diag, &empty);
    if (err == AT_OK && !empty)
        err =
            at_fail(diag, AT_E_DATA, d->dir, "the folder is not empty; nothing was changed: choose another for --dir");
    if (err == AT_OK) err = at_dir_make(d->dir, 0755, diag);
    if (err == AT_OK) err = at_path_join(d->dir, "demo.log", diag, j->log);
    for (int i = 0; i < d->member_count && err == AT_OK; i++) {
        char name[24];
        snprintf(name, sizeof name, "member-%d", i + 1);
        err = at_path_join(d->dir, name, diag, d->member[i].dir);
        snprintf(name, sizeof name, "member-%d.log", i + 1);
        if (err == AT_OK) err = at_path_join(d->dir, name, diag, d->member[i].log);
    }
    return err;
}

static void add_place(const struct at_demo_job *j, int i, struct at_demo_command *c, char text[2][AT_WIRES_TEXT])
{
    if (j->wires == NULL) return;
    at_wires_place(j->wires, i, text[0], text[1]);
    at_demo_option(c, "--listen", text[0]);
    at_demo_option(c, "--announce", text[1]);
}

static at_err found_run(struct at_demo_job *j)
{
    const struct at_demo_args *a = j->args;
    struct at_demo *d = &j->demo;
    struct at_demo_command c = at_demo_command(j, "init");
    char corpus[AT_PATH_BYTES], number_text[4][24], place[2][AT_WIRES_TEXT];
    json_t *object;
    at_err_t err;
    add_place(j, 0, &c, place);
    at_demo_option(&c, "--dir", d->member[0].dir);
    at_demo_option(&c, "--preset", a->preset);
    at_demo_option(&c, "--name", "member-1");
    if (a->data.count == 0) {
        if ((err = at_cli_corpus_find(&j->cli->diag, corpus)) != AT_OK) return err;
        at_demo_option(&c, "--data", corpus);
    }
    if (a->data.count > 32) return at_fail(&j->cli->diag, AT_E_USAGE, "--data", "at most 32 files for the demo");
    for (int i = 0; i < a->data.count; i++) at_demo_option(&c, "--data", a->data.v[i]);
    snprintf(number_text[0], sizeof number_text[0], "%u", d->rounds);
    snprintf(number_text[1], sizeof number_text[1], "%u", d->steps);
    snprintf(number_text[2], sizeof number_text[2], "%d", d->member_count);
    snprintf(number_text[3], sizeof number_text[3], "%u", (unsigned)a->stages.v);
    at_demo_option(&c, "--stages", number_text[3]);
    if (a->groups_by_log) at_demo_add(&c, "--groups-by-log");
    at_demo_option(&c, "--rounds", number_text[0]);
    at_demo_option(&c, "--steps", number_text[1]);
    at_demo_option(&c, "--min-members", number_text[2]);
    if (a->seed.given) at_demo_option(&c, "--seed", j->seed);
    if ((err = at_demo_ask(j, &c, &j->cli->diag, &object)) != AT_OK) return err;
    at_demo_text(object, "run_id", d->run_id, sizeof d->run_id);
    at_demo_text(object, "node_id", d->member[0].id, sizeof d->member[0].id);
    at_demo_text(object, "invite", j->invite, sizeof j->invite);
    json_decref(object);
    return AT_OK;
}

/* The founder starts; the others join, the first time; whoever was killed starts again from its folder. */
static at_err start_member(struct at_demo_job *j, int i)
{
    struct at_demo_member *m = &j->demo.member[i];
    bool joins = i > 0 && !m->joined;
    struct at_demo_command c = at_demo_command(j, joins ? "join" : "start");
    char name[24], place[2][AT_WIRES_TEXT];
    snprintf(name, sizeof name, "member-%d", i + 1);
    if (joins) at_demo_add(&c, j->invite);
    if (joins) add_place(j, i, &c, place);
    at_demo_option(&c, "--dir", m->dir);
    at_demo_option(&c, "--threads", "1");
    at_demo_option(&c, "--kernels", j->args->kernels);
    if (joins) at_demo_option(&c, "--name", name);
    return at_child_start(&m->child, c.word, m->log, &j->cli->diag);
}

/* ---- watching ---------------------------------------------------------------------------------------------------- */

/* Asks the founder's node. False: no answer this time (it is starting, ending or gone). */
static bool take_status(struct at_demo *d)
{
    struct at_buf text = {.bytes_max = (size_t)1 << 20};
    bool ok = at_control_call(d->member[0].dir, "status", 2000, NULL, &text) == AT_OK;
    json_t *object = ok ? json_loadb((const char *)text.p, text.n, JSON_REJECT_DUPLICATES, NULL) : NULL;
    at_buf_release(&text);
    ok = json_is_true(json_object_get(object, "ok"));
    if (ok) {
        size_t i;
        json_t *member;
        json_array_foreach(json_object_get(object, "members"), i, member) at_demo_take_member(d, member);
        at_demo_text(object, "phase", d->phase, sizeof d->phase);
        d->round = (unsigned)at_demo_number(object, "rounds_done", d->round);
        d->loss_first = at_demo_number(object, "heldout_loss_first", d->loss_first);
        d->loss_last = at_demo_number(object, "heldout_loss_last", d->loss_last);
        d->loss_rounds = (unsigned)at_demo_number(object, "heldout_rounds", d->loss_rounds);
        d->tokens = (uint64_t)at_demo_number(object, "tokens", 0);
        if (json_is_true(json_object_get(object, "ended"))) d->ended = true;
        if (d->train_start_s == 0 && d->tokens > 0) d->train_start_s = at_cli_seconds();
    }
    json_decref(object);
    d->elapsed_s = at_cli_seconds();
    return ok;
}

/* A member that ended: done, killed (it starts again from its folder and goes on) or in trouble (that is the end). */
static at_err look_after(struct at_demo_job *j, int i)
{
    struct at_demo *d = &j->demo;
    struct at_demo_member *m = &d->member[i];
    if (m->child.pid == 0) return AT_OK;
    if (!m->child.running && m->restart_s > 0 && d->elapsed_s >= m->restart_s) {
        m->restart_s = 0;
        return start_member(j, i);
    }
    if (!m->child.running) return AT_OK;
    at_child_poll(&m->child);
    if (m->child.running) return AT_OK;
    if (m->child.exit_signal == SIGKILL && m->restart_s > 0) return AT_OK; /* our doing */
    m->restart_s = 0;
    if (m->child.exit_signal == 0 && m->child.exit_code == 0 && m->joined) return AT_OK;
    char tail[380], name[24];
    snprintf(name, sizeof name, "member-%d", i + 1);
    at_file_tail(m->log, 3, tail, sizeof tail);
    if (m->child.exit_signal != 0 && m->joined && m->restarts < RESTARTS_MAX) {
        m->restarts++;
        at_screen_say(&d->screen, "%s was killed by signal %d; it starts again from its folder. Its last words:\n%s",
                      name, m->child.exit_signal, tail);
        return start_member(j, i);
    }
    if (m->child.exit_signal != 0)
        return at_fail(&j->cli->diag, AT_E_INTERNAL, name, "was killed by signal %d; its log (%s) ends: %s",
                       m->child.exit_signal, m->log, tail);
    return at_fail(&j->cli->diag, at_err_of_exit_code(m->child.exit_code ? m->child.exit_code : 1), name,
                   "ended with exit code %d; its log (%s) ends: %s", m->child.exit_code, m->log, tail);
}

static at_err look_after_all(struct at_demo_job *j)
{
    for (int i = 0; i < j->demo.member_count; i++) {
        at_err_t err = look_after(j, i);
        if (err != AT_OK) return err;
    }
    return at_interrupted() ? at_fail(&j->cli->diag, AT_E_INTERRUPTED, "demo", "interrupted; %s is kept", j->demo.dir)
                            : AT_OK;
}

/* One after the other, each JOIN final before the next begins: member i is replica i, so the run is deterministic. */
static at_err gather(struct at_demo_job *j)
{
    struct at_demo *d = &j->demo;
    for (int i = 0; i < d->member_count; i++) {
        at_err_t err = start_member(j, i);
        uint64_t until_ms = at_clock_mono_ms() + STARTUP_MS;
        while (err == AT_OK && !d->member[i].joined) {
            pause_ms(20);
            take_status(d);
            err = look_after_all(j);
            if (err == AT_OK && at_clock_mono_ms() > until_ms)
                err = at_fail(&j->cli->diag, AT_E_PEER, "demo", "member-%d has not joined within %d s; see %s", i + 1,
                              STARTUP_MS / 1000, d->member[i].log);
            at_demo_view_draw(d);
        }
        if (err != AT_OK) return err;
    }
    return AT_OK;
}

/* Rounds shorter than our look at them: the ledger has their losses. */
static void show_missed(struct at_demo_job *j, unsigned from, unsigned to)
{
    struct at_demo_command c = at_demo_command(j, "ledger");
    struct at_diag why = {0};
    json_t *object = NULL, *record;
    size_t i;
    at_demo_add(&c, "show");
    at_demo_add(&c, j->demo.member[0].dir);
    at_demo_option(&c, "--count", "1000000000");
    if (at_demo_ask(j, &c, &why, &object) != AT_OK) return; /* the line for the newest round still comes */
    json_array_foreach(json_object_get(object, "records"), i, record)
    {
        const char *kind = json_string_value(json_object_get(record, "kind"));
        double round = at_demo_number(record, "round", -1) + 1;
        if (kind != NULL && strcmp(kind, "EPOCH") == 0 && round >= from && round < to)
            at_demo_view_missed(&j->demo, (unsigned)round, at_demo_number(record, "heldout_loss", (double)NAN),
                                (unsigned)at_demo_number(record, "heldout_rounds", 0));
    }
    json_decref(object);
}

void at_demo_show_round(struct at_demo_job *j)
{
    struct at_demo *d = &j->demo;
    if (d->round <= d->round_shown) return;
    if (!d->screen.live && d->round > d->round_shown + 1) show_missed(j, d->round_shown + 1, d->round);
    d->round_shown = d->round;
    at_demo_view_round(d);
}

static bool all_gone(const struct at_demo *d)
{
    for (int i = 0; i < d->member_count; i++)
        if (d->member[i].child.running || d->member[i].restart_s > 0) return false;
    return true;
}

/* The founder waits at the end for those whose link was lost lately, but not for ever. Whoever was away for longer cannot
 * see the end without it: then it comes back for a moment, as a person would let it. */
static at_err recall_founder(struct at_demo_job *j)
{
    struct at_demo *d = &j->demo;
    struct at_demo_member *founder = &d->member[0];
    if (founder->child.running || founder->restart_s > 0) {
        d->founder_gone_s = 0;
        return AT_OK;
    }
    if (d->founder_gone_s == 0) d->founder_gone_s = d->elapsed_s;
    if (d->elapsed_s < d->founder_gone_s + ALONE_S) return AT_OK;
    if (d->founder_calls++ == FOUNDER_CALLS)
        return at_fail(&j->cli->diag, AT_E_PEER, d->dir, "a member does not see the end of the run; see the logs");
    at_screen_say(&d->screen, "the founder has ended and others have not: it starts once more");
    return start_member(j, 0);
}

static at_err watch(struct at_demo_job *j)
{
    struct at_demo *d = &j->demo;
    at_err_t err = AT_OK;
    at_demo_chaos_begin(j);
    while (err == AT_OK && !all_gone(d)) {
        if (take_status(d)) at_demo_show_round(j);
        at_demo_chaos_drive(j);
        at_demo_view_draw(d);
        if (d->limit_s > 0 && d->elapsed_s >= d->limit_s && !d->finishing && !d->ended) {
            struct at_demo_command c = at_demo_command(j, "finish");
            struct at_diag why = {0};
            json_t *object = NULL;
            at_demo_option(&c, "--dir", d->member[0].dir);
            /* The founder may be ending by itself just now: then there is nobody to tell, which is as good. */
            d->finishing = at_demo_ask(j, &c, &why, &object) == AT_OK;
            json_decref(object);
        }
        pause_ms(POLL_MS);
        err = look_after_all(j);
        if (err == AT_OK && !all_gone(d)) err = recall_founder(j);
    }
    return err;
}

static at_err prepare(struct at_demo_job *j)
{
    const struct at_demo_args *a = j->args;
    struct at_demo *d = &j->demo;
    const struct at_preset *preset;
    at_err_t err = at_preset_find(a->preset, &j->cli->diag, &preset);
    if (err != AT_OK) return err;
    at_screen_init(&d->screen, stderr);
    d->rounds = a->rounds.given ? (unsigned)a->rounds.v : preset->train.rounds;
    d->steps = a->steps.given ? (unsigned)a->steps.v : preset->train.steps;
    d->limit_s = a->rounds.given ? 0 : TIME_LIMIT_S;
    d->loss_first = d->loss_last = (double)NAN;
    d->member_count = (int)a->members.v;
    d->member = calloc((size_t)d->member_count, sizeof *d->member);
    if (d->member == NULL) return at_fail(&j->cli->diag, AT_E_NOMEM, "demo", "out of memory");
    snprintf(j->seed, sizeof j->seed, "%" PRIu64, a->seed.v);
    err = at_cli_program_path(&j->cli->diag, j->program);
    if (err == AT_OK && a->chaos) err = at_wires_start(d->member_count, &j->cli->diag, &j->wires);
    return err == AT_OK ? make_folder(j) : err;
}

static at_err_t run(struct at_cli *cli, void *args)
{
    struct at_demo_job *j = calloc(1, sizeof *j);
    if (j == NULL) return at_fail(&cli->diag, AT_E_NOMEM, "demo", "out of memory");
    j->cli = cli;
    j->args = args;
    at_interrupt_catch();
    at_err_t err = prepare(j);
    if (err == AT_OK) {
        at_screen_say(&j->demo.screen,
                      "%d members found a run on this machine; each is a process with its own key, in %s",
                      j->demo.member_count, j->demo.dir);
        err = found_run(j);
    }
    if (err == AT_OK) err = gather(j);
    if (err == AT_OK) err = watch(j);
    at_screen_clear(&j->demo.screen);
    j->demo.chaos.on = false; /* whoever is paused must hear that it is over */
    at_demo_chaos_calm(j);
    for (int i = j->demo.member != NULL ? j->demo.member_count - 1 : -1; i >= 0; i--)
        at_child_end(&j->demo.member[i].child, 5000);
    at_wires_stop(j->wires);
    if (err == AT_OK) err = at_demo_finish(j);
    free(j->demo.sample);
    free(j->demo.member);
    free(j);
    return err;
}

const struct at_command at_cmd_demo = {
    .name = "demo",
    .summary = "four members on this machine train a small model and share it",
    .usage = "[--members N] [--rounds R] [--steps H] [--seed S] [--chaos] [--dir D]",
    .about =
        "Each member is a process with its own key and folder, linked by TLS on this machine. Without --rounds it\n"
        "stops at the first round edge after 130 s. With --rounds and --steps it is deterministic: same settings,\n"
        "same state root, the one that `atoll train --replicas N` with the same settings gives.\n"
        "With --stages who shares units with whom depends on what members measure, and so does the root; with\n"
        "--groups-by-log it does not, and is that of one replica for each group.\n"
        "With --chaos members, the founder too, are killed with kill -9, paused, and cut off from the others while "
        "they\n"
        "train (each has a loopback address of its own, and the demo carries what goes between them); the run still "
        "ends\n"
        "with one root, a verified ledger and every sample counted once. Which rounds they miss is a matter of time,\n"
        "so the root is then another in each run; `atoll ledger replay` computes it from the ledger again.",
    .examples = "  atoll demo\n  atoll demo --members 4 --rounds 6 --steps 10 --seed 7 --json\n  atoll demo --members "
                "8 --chaos --seed 3\n",
    AT_ROWS(rows),
    .args_bytes = sizeof(struct at_demo_args),
    .run = run,
};
