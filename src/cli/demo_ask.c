/* demo_ask.c: how the demo asks the other commands, and reads what they answer. */
#include "cli/demo_job.h"

#include <string.h>

double at_demo_number(const json_t *object, const char *key, double otherwise)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : otherwise;
}

void at_demo_text(const json_t *object, const char *key, char *ret, size_t bytes)
{
    const char *text = json_string_value(json_object_get(object, key));
    if (text != NULL) snprintf(ret, bytes, "%s", text);
}

/* ---- the other commands ------------------------------------------------------------------------------------------ */

struct at_demo_command at_demo_command(const struct at_demo_job *j, const char *name)
{
    return (struct at_demo_command){{j->program, name}, 2};
}

void at_demo_add(struct at_demo_command *c, const char *word)
{
    AT_ASSERT(c->count < AT_DEMO_WORDS_MAX);
    c->word[c->count++] = word;
}

void at_demo_option(struct at_demo_command *c, const char *option, const char *value)
{
    at_demo_add(c, option);
    at_demo_add(c, value);
}

at_err_t at_demo_ask(struct at_demo_job *j, struct at_demo_command *c, struct at_diag *diag, json_t **ret_object)
{
    struct at_buf out = {.bytes_max = (size_t)16 << 20};
    json_error_t why;
    at_demo_add(c, "--json");
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

void at_demo_take_member(struct at_demo *d, const json_t *object)
{
    double replica = at_demo_number(object, "replica", -1);
    if (!(replica >= 0 && replica < d->member_count)) return;
    struct at_demo_member *m = &d->member[(int)replica];
    m->joined = true;
    at_demo_text(object, "id", m->id, sizeof m->id);
    at_demo_text(object, "phase", m->phase, sizeof m->phase);
    m->online = !json_is_false(json_object_get(object, "online"));
    m->step = (unsigned)at_demo_number(object, "step", 0);
    m->tokens = (uint64_t)at_demo_number(object, "tokens", 0);
    m->tokens_per_s = at_demo_number(object, "tokens_per_s", 0);
    m->points_pending = (uint64_t)at_demo_number(object, "points_pending", 0);
    m->points_confirmed = (uint64_t)at_demo_number(object, "points_confirmed", 0);
    m->share = at_demo_number(object, "share", 0);
}
