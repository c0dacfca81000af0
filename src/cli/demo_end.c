/* demo_end.c: when all members have ended: their roots, ledgers and points, a sample, the last page. */
#include "cli/cli_ledger.h"
#include "cli/cli_text.h"
#include "cli/demo_job.h"
#include "cli/ledger_samples.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLE_TOKENS "480"

static at_err read_roots(struct at_demo_job *j)
{
    struct at_demo *d = &j->demo;
    d->roots_agree = true;
    for (int i = 0; i < d->member_count; i++) {
        struct at_demo_command c = at_demo_command(j, "root");
        json_t *object;
        at_demo_add(&c, d->member[i].dir);
        at_err_t err = at_demo_ask(j, &c, &j->cli->diag, &object);
        if (err != AT_OK) return err;
        at_demo_text(object, "state_root", d->member[i].root, sizeof d->member[i].root);
        json_decref(object);
        if (strcmp(d->member[i].root, d->member[0].root) != 0) d->roots_agree = false;
    }
    return AT_OK;
}

/* Every member's copy is verified; the head shown is the founder's. */
static at_err read_ledger(struct at_demo_job *j)
{
    struct at_demo *d = &j->demo;
    d->ledger_ok = true;
    for (int i = 0; i < d->member_count; i++) {
        struct at_demo_command c = at_demo_command(j, "ledger");
        struct at_diag why = {0};
        json_t *object;
        at_demo_add(&c, "verify");
        at_demo_add(&c, d->member[i].dir);
        at_err_t err = at_demo_ask(j, &c, &why, &object);
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
            at_demo_text(object, "head", d->head, sizeof d->head);
            d->records = (uint64_t)at_demo_number(object, "records", 0);
        }
        json_decref(object);
    }
    return AT_OK;
}

/* Which samples counted, reckoned from the founder's log. */
struct reckoning {
    struct at_cli_ledger ledger;
    struct at_sample_check check;
    enum at_ledger_phase before;
    struct at_diag *diag;
};

static at_err_t reckon(void *user, uint64_t idx, const struct at_signed_record *rec, const struct at_record *body)
{
    struct reckoning *r = user;
    enum at_ledger_phase before = r->before;
    r->before = r->ledger.ledger.phase;
    return at_sample_check_take(&r->check, &r->ledger.ledger, before, r->diag);
}

static at_err read_samples(struct at_demo_job *j)
{
    struct at_demo *d = &j->demo;
    struct reckoning r = {.diag = &j->cli->diag};
    at_err_t err = at_cli_ledger_open(d->member[0].dir, r.diag, &r.ledger);
    if (err != AT_OK) return err;
    err = at_cli_ledger_each(&r.ledger, r.diag, reckon, &r);
    d->data_once = err == AT_OK;
    at_sample_check_release(&r.check);
    at_cli_ledger_release(&r.ledger);
    return err == AT_E_VERIFY ? AT_OK : err; /* a verdict, told with the others */
}

static at_err read_points(struct at_demo_job *j)
{
    struct at_demo *d = &j->demo;
    struct at_demo_command c = at_demo_command(j, "points"), s = at_demo_command(j, "status");
    json_t *object, *member;
    size_t i;
    at_demo_option(&c, "--dir", d->member[0].dir);
    at_err_t err = at_demo_ask(j, &c, &j->cli->diag, &object);
    if (err != AT_OK) return err;
    d->tokens = (uint64_t)at_demo_number(object, "tokens", 0);
    d->round = (unsigned)at_demo_number(object, "rounds", 0);
    json_array_foreach(json_object_get(object, "members"), i, member) at_demo_take_member(d, member);
    json_decref(object);
    at_demo_option(&s, "--dir", d->member[0].dir);
    if ((err = at_demo_ask(j, &s, &j->cli->diag, &object)) != AT_OK) return err;
    d->loss_last = at_demo_number(object, "heldout_loss_last", d->loss_last);
    d->loss_rounds = (unsigned)at_demo_number(object, "heldout_rounds", d->loss_rounds);
    json_decref(object);
    at_demo_show_round(j); /* the members may have ended before we looked at the last rounds */
    return AT_OK;
}

static at_err read_sample(struct at_demo_job *j)
{
    struct at_demo *d = &j->demo;
    struct at_demo_command c = at_demo_command(j, "ask");
    json_t *object;
    at_demo_option(&c, "--dir", d->member[0].dir);
    at_demo_option(&c, "--max-tokens", SAMPLE_TOKENS);
    at_demo_option(&c, "--temperature", "0.5");
    at_demo_option(&c, "--seed", "1");
    at_demo_option(&c, "--kernels", j->args->kernels);
    at_demo_add(&c, "The ");
    at_err_t err = at_demo_ask(j, &c, &j->cli->diag, &object);
    if (err != AT_OK) return err;
    const char *text = json_string_value(json_object_get(object, "text"));
    size_t bytes = strlen(text != NULL ? text : "") + sizeof "The ";
    d->sample = malloc(bytes);
    AT_ASSERT(d->sample != NULL);
    snprintf(d->sample, bytes, "The %s", text != NULL ? text : "");
    json_decref(object);
    return AT_OK;
}

static void fill_answer(struct at_demo_job *j)
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
    if (j->args->chaos) {
        at_json_set_int(answer, "kills", d->chaos.kills);
        at_json_set_int(answer, "pauses", d->chaos.pauses);
        at_json_set_int(answer, "partitions", d->chaos.partitions);
        at_json_set_bool(answer, "data_exactly_once", d->data_once);
    }
    at_json_set_text(answer, "sample", d->sample);
    at_json_set_9(answer, "seconds", at_cli_seconds());
}

at_err_t at_demo_finish(struct at_demo_job *j)
{
    struct at_demo *d = &j->demo;
    at_err_t err = read_points(j);
    if (err == AT_OK) {
        at_demo_show_round(j);
        err = read_roots(j);
    }
    if (err == AT_OK) err = read_ledger(j);
    if (err == AT_OK) err = read_samples(j);
    if (err == AT_OK) err = read_sample(j);
    if (err != AT_OK) return err;
    d->elapsed_s = at_cli_seconds();
    at_screen_clear(&d->screen);
    at_demo_view_end(d, j->cli->program, j->cli->json ? stderr : stdout);
    if (j->cli->json) fill_answer(j);
    if (!d->roots_agree)
        return at_fail(&j->cli->diag, AT_E_VERIFY, d->dir, "the members do not hold the same model; see their logs");
    if (!d->data_once) return at_fail(&j->cli->diag, AT_E_VERIFY, d->dir, "not every sample counts once");
    if (!d->ledger_ok) return at_fail(&j->cli->diag, AT_E_VERIFY, d->dir, "a member's ledger does not verify");
    return AT_OK;
}
