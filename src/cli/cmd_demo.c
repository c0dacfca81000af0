/* cmd_demo.c: four members found a run on this machine, each a process of its own with its own key and folder, train,
 * and own the result. It drives nothing but the other commands: init, start, join, status (the control socket), finish,
 * root, ledger verify, points, ask. */
#include "cli/cli_cmd.h"
#include "cli/cli_text.h"
#include "cli/demo.h"
#include "model/config.h"
#include "node/node.h"
#include "os/sys.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct args {
    const char *dir, *preset, *kernels;
    struct at_opt_list data;
    struct at_opt_int members, rounds, steps, seed;
};

static const struct at_opt rows[] = {
    AT_ROW_INT(struct args, members, "members", "N", 1, AT_DEMO_MEMBERS_MAX, "4", "members, each its own process"),
    AT_ROW_INT(struct args, rounds, "rounds", "R", 1, 100000, NULL,
               "rounds (default: the preset's, or 130 s if sooner)"),
    AT_ROW_INT(struct args, steps, "steps", "H", 1, 100000, NULL, "inner steps of a round (default: the preset's)"),
    AT_ROW_INT(struct args, seed, "seed", "S", 0, UINT64_MAX, NULL, "seed of weights and data order"),
    AT_ROW_TEXT(struct args, dir, "dir", "D", NULL, "a new folder (default: ./atoll-demo-TIME)"),
    AT_ROW_TEXT(struct args, preset, "preset", "P", "nano", "the model's shape"),
    AT_ROW_LIST(struct args, data, "data", "FILE", "text to learn (default: Moby-Dick)"),
    AT_ROW_TEXT(struct args, kernels, "kernels", "K", "auto", "ref, avx2, avx512 or auto; all give the same bits"),
};

#define TIME_LIMIT_S  130
#define STARTUP_MS    60000 /* a member that has not joined by then never will */
#define POLL_MS       200
#define RESTARTS_MAX  3
#define SAMPLE_TOKENS "480"

struct job {
    struct at_cli *cli;
    const struct args *args;
    struct at_demo demo;
    char program[AT_PATH_BYTES], log[AT_PATH_BYTES];
    char invite[AT_INVITE_TEXT_MAX], seed[24];
};

static void pause_ms(unsigned ms)
{
    nanosleep(&(struct timespec){ms / 1000, (long)(ms % 1000) * 1000000}, NULL);
}

static double number(const json_t *object, const char *key, double otherwise)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : otherwise;
}

static void copy_text(const json_t *object, const char *key, char *ret, size_t bytes)
{
    const char *text = json_string_value(json_object_get(object, key));
    if (text != NULL) snprintf(ret, bytes, "%s", text);
}

/* ---- the other commands ------------------------------------------------------------------------------------------ */

#define COMMAND_WORDS_MAX 96
struct command {
    const char *word[COMMAND_WORDS_MAX + 2];
    int count;
};

static struct command command(const struct job *j, const char *name)
{
    return (struct command){{j->program, name}, 2};
}

static void add(struct command *c, const char *word)
{
    AT_ASSERT(c->count < COMMAND_WORDS_MAX);
    c->word[c->count++] = word;
}

static void add_option(struct command *c, const char *option, const char *value)
{
    add(c, option);
    add(c, value);
}

/* Runs a command with --json and gives its one object. An exit code of 4 may come with an object: the caller's. */
static at_err ask_json(struct job *j, struct command *c, struct at_diag *diag, json_t **ret_object)
{
    struct at_buf out = {.bytes_max = (size_t)16 << 20};
    json_error_t why;
    add(c, "--json");
    at_err_t err = at_child_run(c->word, j->log, diag, &out);
    if (err == AT_OK) {
        json_t *object = json_loadb((const char *)out.p, out.n, JSON_REJECT_DUPLICATES, &why);
        if (object != NULL)
            *ret_object = object;
        else
            err = at_fail(diag, AT_E_INTERNAL, c->word[1], "its answer is no JSON: %s", why.text);
    }
    at_buf_release(&out);
    return err;
}

/* ---- beginning --------------------------------------------------------------------------------------------------- */

static at_err make_folder(struct job *j)
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

static at_err found_run(struct job *j)
{
    const struct args *a = j->args;
    struct at_demo *d = &j->demo;
    struct command c = command(j, "init");
    char corpus[AT_PATH_BYTES], number_text[3][24];
    json_t *object;
    at_err_t err;
    add_option(&c, "--dir", d->member[0].dir);
    add_option(&c, "--preset", a->preset);
    add_option(&c, "--name", "member-1");
    if (a->data.count == 0) {
        if ((err = at_cli_corpus_find(&j->cli->diag, corpus)) != AT_OK) return err;
        add_option(&c, "--data", corpus);
    }
    if (a->data.count > 32) return at_fail(&j->cli->diag, AT_E_USAGE, "--data", "at most 32 files for the demo");
    for (int i = 0; i < a->data.count; i++) add_option(&c, "--data", a->data.v[i]);
    snprintf(number_text[0], sizeof number_text[0], "%u", d->rounds);
    snprintf(number_text[1], sizeof number_text[1], "%u", d->steps);
    snprintf(number_text[2], sizeof number_text[2], "%d", d->member_count);
    add_option(&c, "--rounds", number_text[0]);
    add_option(&c, "--steps", number_text[1]);
    add_option(&c, "--min-members", number_text[2]);
    if (a->seed.given) add_option(&c, "--seed", j->seed);
    if ((err = ask_json(j, &c, &j->cli->diag, &object)) != AT_OK) return err;
    copy_text(object, "run_id", d->run_id, sizeof d->run_id);
    copy_text(object, "node_id", d->member[0].id, sizeof d->member[0].id);
    copy_text(object, "invite", j->invite, sizeof j->invite);
    json_decref(object);
    return AT_OK;
}

/* The founder starts; the others join, the first time; whoever was killed starts again from its folder. */
static at_err start_member(struct job *j, int i)
{
    struct at_demo_member *m = &j->demo.member[i];
    bool joins = i > 0 && !m->joined;
    struct command c = command(j, joins ? "join" : "start");
    char name[24];
    snprintf(name, sizeof name, "member-%d", i + 1);
    if (joins) add(&c, j->invite);
    add_option(&c, "--dir", m->dir);
    add_option(&c, "--threads", "1");
    add_option(&c, "--kernels", j->args->kernels);
    if (joins) add_option(&c, "--name", name);
    return at_child_start(&m->child, c.word, m->log, &j->cli->diag);
}

/* ---- watching ---------------------------------------------------------------------------------------------------- */

static void take_member(struct at_demo *d, const json_t *object)
{
    double replica = number(object, "replica", -1);
    if (!(replica >= 0 && replica < d->member_count)) return;
    struct at_demo_member *m = &d->member[(int)replica];
    m->joined = true;
    copy_text(object, "id", m->id, sizeof m->id);
    copy_text(object, "phase", m->phase, sizeof m->phase);
    m->online = !json_is_false(json_object_get(object, "online"));
    m->step = (unsigned)number(object, "step", 0);
    m->tokens = (uint64_t)number(object, "tokens", 0);
    m->tokens_per_s = number(object, "tokens_per_s", 0);
    m->points_pending = (uint64_t)number(object, "points_pending", 0);
    m->points_confirmed = (uint64_t)number(object, "points_confirmed", 0);
    m->share = number(object, "share", 0);
}

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
        json_array_foreach(json_object_get(object, "members"), i, member) take_member(d, member);
        copy_text(object, "phase", d->phase, sizeof d->phase);
        d->round = (unsigned)number(object, "rounds_done", d->round);
        d->loss_first = number(object, "heldout_loss_first", d->loss_first);
        d->loss_last = number(object, "heldout_loss_last", d->loss_last);
        d->tokens = (uint64_t)number(object, "tokens", 0);
        if (json_is_true(json_object_get(object, "ended"))) d->ended = true;
        if (d->train_start_s == 0 && d->tokens > 0) d->train_start_s = at_cli_seconds();
    }
    json_decref(object);
    d->elapsed_s = at_cli_seconds();
    return ok;
}

/* A member that ended: done, killed (it starts again from its folder and goes on) or in trouble (that is the end). */
static at_err look_after(struct job *j, int i)
{
    struct at_demo *d = &j->demo;
    struct at_demo_member *m = &d->member[i];
    if (m->child.pid == 0 || !m->child.running) return AT_OK;
    at_child_poll(&m->child);
    if (m->child.running) return AT_OK;
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

static at_err look_after_all(struct job *j)
{
    for (int i = 0; i < j->demo.member_count; i++) {
        at_err_t err = look_after(j, i);
        if (err != AT_OK) return err;
    }
    return at_interrupted() ? at_fail(&j->cli->diag, AT_E_INTERRUPTED, "demo", "interrupted; %s is kept", j->demo.dir)
                            : AT_OK;
}

/* One after the other, each JOIN final before the next begins: member i is replica i, so the run is deterministic. */
static at_err gather(struct job *j)
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
static void show_missed(struct job *j, unsigned from, unsigned to)
{
    struct command c = command(j, "ledger");
    struct at_diag why = {0};
    json_t *object = NULL, *record;
    size_t i;
    add(&c, "show");
    add(&c, j->demo.member[0].dir);
    add_option(&c, "--count", "1000000000");
    if (ask_json(j, &c, &why, &object) != AT_OK) return; /* the line for the newest round still comes */
    json_array_foreach(json_object_get(object, "records"), i, record)
    {
        const char *kind = json_string_value(json_object_get(record, "kind"));
        double round = number(record, "round", -1) + 1;
        if (kind != NULL && strcmp(kind, "EPOCH") == 0 && round >= from && round < to)
            at_demo_view_missed(&j->demo, (unsigned)round, number(record, "heldout_loss", (double)NAN));
    }
    json_decref(object);
}

static void show_round(struct job *j)
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
        if (d->member[i].child.running) return false;
    return true;
}

static at_err watch(struct job *j)
{
    struct at_demo *d = &j->demo;
    at_err_t err = AT_OK;
    while (err == AT_OK && !all_gone(d)) {
        if (take_status(d)) show_round(j);
        at_demo_view_draw(d);
        if (d->limit_s > 0 && d->elapsed_s >= d->limit_s && !d->finishing && !d->ended) {
            struct command c = command(j, "finish");
            struct at_diag why = {0};
            json_t *object = NULL;
            add_option(&c, "--dir", d->member[0].dir);
            /* The founder may be ending by itself just now: then there is nobody to tell, which is as good. */
            d->finishing = ask_json(j, &c, &why, &object) == AT_OK;
            json_decref(object);
        }
        pause_ms(POLL_MS);
        err = look_after_all(j);
    }
    return err;
}

/* ---- end --------------------------------------------------------------------------------------------------------- */

static at_err read_roots(struct job *j)
{
    struct at_demo *d = &j->demo;
    d->roots_agree = true;
    for (int i = 0; i < d->member_count; i++) {
        struct command c = command(j, "root");
        json_t *object;
        add(&c, d->member[i].dir);
        at_err_t err = ask_json(j, &c, &j->cli->diag, &object);
        if (err != AT_OK) return err;
        copy_text(object, "state_root", d->member[i].root, sizeof d->member[i].root);
        json_decref(object);
        if (strcmp(d->member[i].root, d->member[0].root) != 0) d->roots_agree = false;
    }
    return AT_OK;
}

/* Every member's copy is verified; the head shown is the founder's. */
static at_err read_ledger(struct job *j)
{
    struct at_demo *d = &j->demo;
    d->ledger_ok = true;
    for (int i = 0; i < d->member_count; i++) {
        struct command c = command(j, "ledger");
        struct at_diag why = {0};
        json_t *object;
        add(&c, "verify");
        add(&c, d->member[i].dir);
        at_err_t err = ask_json(j, &c, &why, &object);
        if (err == AT_E_VERIFY) {
            at_screen_say(&d->screen, "member-%d's ledger: %s", i + 1, why.text);
            d->ledger_ok = false;
            continue;
        }
        if (err != AT_OK) {
            j->cli->diag = why;
            return err;
        }
        if (i == 0) {
            copy_text(object, "head", d->head, sizeof d->head);
            d->records = (uint64_t)number(object, "records", 0);
        }
        json_decref(object);
    }
    return AT_OK;
}

static at_err read_points(struct job *j)
{
    struct at_demo *d = &j->demo;
    struct command c = command(j, "points"), s = command(j, "status");
    json_t *object, *member;
    size_t i;
    add_option(&c, "--dir", d->member[0].dir);
    at_err_t err = ask_json(j, &c, &j->cli->diag, &object);
    if (err != AT_OK) return err;
    d->tokens = (uint64_t)number(object, "tokens", 0);
    d->round = (unsigned)number(object, "rounds", 0);
    json_array_foreach(json_object_get(object, "members"), i, member) take_member(d, member);
    json_decref(object);
    add_option(&s, "--dir", d->member[0].dir);
    if ((err = ask_json(j, &s, &j->cli->diag, &object)) != AT_OK) return err;
    d->loss_last = number(object, "heldout_loss_last", d->loss_last);
    json_decref(object);
    show_round(j); /* the members may have ended before we looked at the last rounds */
    return AT_OK;
}

static at_err read_sample(struct job *j)
{
    struct at_demo *d = &j->demo;
    struct command c = command(j, "ask");
    json_t *object;
    add_option(&c, "--dir", d->member[0].dir);
    add_option(&c, "--max-tokens", SAMPLE_TOKENS);
    add_option(&c, "--temperature", "0.5");
    add_option(&c, "--seed", "1");
    add_option(&c, "--kernels", j->args->kernels);
    add(&c, "The ");
    at_err_t err = ask_json(j, &c, &j->cli->diag, &object);
    if (err != AT_OK) return err;
    const char *text = json_string_value(json_object_get(object, "text"));
    size_t bytes = strlen(text != NULL ? text : "") + sizeof "The ";
    d->sample = malloc(bytes);
    AT_ASSERT(d->sample != NULL);
    snprintf(d->sample, bytes, "The %s", text != NULL ? text : "");
    json_decref(object);
    return AT_OK;
}

static void fill_answer(struct job *j)
{
    const struct at_demo *d = &j->demo;
    json_t *answer = at_cli_answer(j->cli), *members = json_array();
    AT_ASSERT(members != NULL);
    at_json_set_text(answer, "run_id", d->run_id);
    at_json_set_int(answer, "rounds", d->round);
    at_json_set_int(answer, "tokens", d->tokens);
    at_json_set_9(answer, "heldout_loss_first", d->loss_first);
    at_json_set_9(answer, "heldout_loss_last", d->loss_last);
    at_json_set_text(answer, "state_root", d->member[0].root);
    at_json_set_bool(answer, "roots_agree", d->roots_agree);
    at_json_set_text(answer, "ledger", d->ledger_ok ? "ok" : "bad");
    for (int i = 0; i < d->member_count; i++) {
        json_t *object = json_object();
        AT_ASSERT(object != NULL && json_array_append_new(members, object) == 0);
        at_json_set_text(object, "id", d->member[i].id);
        at_json_set_int(object, "tokens", d->member[i].tokens);
        at_json_set_int(object, "points_confirmed", d->member[i].points_confirmed);
        at_json_set_real(object, "share", d->member[i].share);
    }
    at_json_set(answer, "members", members);
    at_json_set_text(answer, "sample", d->sample);
    at_json_set_9(answer, "seconds", at_cli_seconds());
}

static at_err finish(struct job *j)
{
    struct at_demo *d = &j->demo;
    at_err_t err = read_points(j);
    if (err == AT_OK) {
        show_round(j);
        err = read_roots(j);
    }
    if (err == AT_OK) err = read_ledger(j);
    if (err == AT_OK) err = read_sample(j);
    if (err != AT_OK) return err;
    d->elapsed_s = at_cli_seconds();
    at_screen_clear(&d->screen);
    at_demo_view_end(d, j->cli->program, j->cli->json ? stderr : stdout);
    if (j->cli->json) fill_answer(j);
    if (!d->roots_agree)
        return at_fail(&j->cli->diag, AT_E_VERIFY, d->dir, "the members do not hold the same model; see their logs");
    if (!d->ledger_ok) return at_fail(&j->cli->diag, AT_E_VERIFY, d->dir, "a member's ledger does not verify");
    return AT_OK;
}

static at_err prepare(struct job *j)
{
    const struct args *a = j->args;
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
    return err == AT_OK ? make_folder(j) : err;
}

static at_err_t run(struct at_cli *cli, void *args)
{
    struct job *j = calloc(1, sizeof *j);
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
    for (int i = j->demo.member != NULL ? j->demo.member_count - 1 : -1; i >= 0; i--)
        at_child_end(&j->demo.member[i].child, 5000);
    if (err == AT_OK) err = finish(j);
    free(j->demo.sample);
    free(j->demo.member);
    free(j);
    return err;
}

const struct at_command at_cmd_demo = {
    .name = "demo",
    .summary = "four members on this machine train a small model and share it",
    .usage = "[--members N] [--rounds R] [--steps H] [--seed S] [--dir D]",
    .about =
        "Each member is a process with its own key and folder, linked by TLS on this machine. Without --rounds it\n"
        "stops at the first round edge after 130 s. With --rounds and --steps it is deterministic: same settings,\n"
        "same state root, the one that `atoll train --replicas N` with the same settings gives.",
    .examples = "  atoll demo\n  atoll demo --members 4 --rounds 6 --steps 10 --seed 7 --json\n",
    AT_ROWS(rows),
    .args_bytes = sizeof(struct args),
    .run = run,
};
