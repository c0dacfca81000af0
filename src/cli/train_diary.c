#include "cli/train_diary.h"

#include "cli/train_rounds.h"
#include "os/file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define JOURNAL_BYTES_MAX ((size_t)1 << 30)

static struct at_journal_head head_of(const struct at_train_setup *s)
{
    return (struct at_journal_head){.replicas = (uint32_t)s->replicas,
                                    .batch = s->config.batch,
                                    .seq_len = s->preset->model.seq_len,
                                    .epoch_samples = s->data.samples,
                                    .seed = s->config.seed,
                                    .has_text = true,
                                    .text = s->text_hash};
}

/* What `--outer auto` weighs. */
static at_err size_run(struct at_train_diary *d)
{
    struct at_params whole;
    at_err_t err = at_params_init(&whole, &d->setup->preset->model);
    if (err != AT_OK) return err;
    d->run = (struct at_auto_run){d->setup->replicas, whole.count, at_stats_count(&whole)};
    at_params_release(&whole);
    return AT_OK;
}

static bool same_head(const struct at_journal_head *a, const struct at_journal_head *b)
{
    return a->replicas == b->replicas && a->batch == b->batch && a->seq_len == b->seq_len &&
           a->epoch_samples == b->epoch_samples && a->seed == b->seed;
}

/* Every round that was saved has its root in the journal: the last of these is the checkpoint, or it is another run's. */
static at_err same_state(const struct at_journal_tail *t, const char *path, uint32_t rounds, struct at_hash root,
                         struct at_diag *diag)
{
    if (t->rounds < rounds)
        return at_fail(diag, AT_E_DATA, path, "ends after %u rounds, before the model's %u", t->rounds, rounds);
    if (t->has_root && at_hash_eq(t->root, root)) return AT_OK;
    return at_fail(
        diag, AT_E_DATA, path,
        "is of another run: after %u rounds it has the root %.16s, and the model %.16s; put back the journal "
        "that was saved with this model",
        rounds, t->has_root ? at_hash_hex(t->root).s : "null", at_hash_hex(root).s);
}

/* The journal of the folder that is resumed, up to the checkpoint's round. */
static at_err read_journal(struct at_train_diary *d, const char *path, uint32_t rounds, struct at_hash root,
                           struct at_diag *diag)
{
    struct at_journal_tail tail = {0};
    struct at_buf text = {.bytes_max = JOURNAL_BYTES_MAX};
    at_err_t err = at_file_read(path, JOURNAL_BYTES_MAX, diag, &text);
    if (err == AT_OK) err = at_journal_read(at_buf_span(&text), path, rounds, diag, &tail);
    if (err == AT_OK && !same_head(&tail.head, &d->head))
        err = at_fail(
            diag, AT_E_DATA, path,
            "this run had %u replicas, seed %llu and %llu samples of text; go on with the same --replicas, --seed "
            "and --data",
            tail.head.replicas, (unsigned long long)tail.head.seed, (unsigned long long)tail.head.epoch_samples);
    if (err == AT_OK && tail.head.has_text && !at_hash_eq(tail.head.text, d->head.text))
        err =
            at_fail(diag, AT_E_DATA, path,
                    "this run learnt another text of that length, with the SHA-256 %.16s and not %.16s; go on with the "
                    "same --data",
                    at_hash_hex(tail.head.text).s, at_hash_hex(d->head.text).s);
    if (err == AT_OK) err = same_state(&tail, path, rounds, root, diag);
    if (err == AT_OK) {
        d->last = tail.last;
        d->last.steps = tail.steps_done;
        d->tokens = tail.tokens;
        text.n = tail.bytes;
        err = at_samples_copy(&d->samples, &tail.samples);
        at_buf_release(&d->text);
        d->text = text;
        text = (struct at_buf){0};
    }
    at_samples_release(&tail.samples);
    at_buf_release(&text);
    return err;
}

/* No journal there (a swarm's model, or another program's): rounds of the usual length are taken for granted. */
static void assume(struct at_train_diary *d, uint32_t rounds)
{
    d->incomplete = true;
    d->last = at_train_round_before(d->setup, rounds);
    uint64_t steps = d->last.step_first + d->last.steps;
    d->samples.next = steps * d->head.batch * d->head.replicas;
    d->tokens = d->samples.next * d->head.seq_len;
}

at_err_t at_diary_begin(struct at_train_diary *d, const struct at_train_setup *setup, uint32_t rounds,
                        struct at_hash root, struct at_diag *diag)
{
    char path[AT_PATH_BYTES];
    *d = (struct at_train_diary){.setup = setup, .head = head_of(setup)};
    d->text.bytes_max = JOURNAL_BYTES_MAX;
    d->measured = (struct at_auto_measured){.step_seconds = 1, .bytes_per_second = HUGE_VAL};
    at_samples_init(&d->samples, (uint64_t)setup->config.steps * setup->config.batch);
    AT_ASSERT((d->rounds = json_array()) != NULL);
    at_err_t err = size_run(d);
    for (int i = 0; i < 2 && err == AT_OK; i++) {
        d->entry[i].unit = calloc((size_t)setup->replicas, sizeof *d->entry[i].unit);
        if (d->entry[i].unit == NULL) err = AT_E_NOMEM;
    }
    if (err == AT_OK) err = at_journal_put_head(&d->head, &d->text);
    if (err != AT_OK) return at_fail(diag, err, "journal", "no memory for the journal");
    d->last_line = d->text.n;
    if (rounds == 0) return AT_OK;
    if ((err = at_path_join(setup->args->resume, AT_TRAIN_JOURNAL, diag, path)) != AT_OK) return err;
    if (at_file_exists(path))
        err = read_journal(d, path, rounds, root, diag);
    else
        assume(d, rounds);
    d->last_line = d->text.n;
    return err;
}

void at_diary_release(struct at_train_diary *d)
{
    for (int i = 0; i < 2; i++) free(d->entry[i].unit);
    at_samples_release(&d->samples);
    at_buf_release(&d->text);
    json_decref(d->rounds);
    *d = (struct at_train_diary){0};
}

struct at_round at_diary_next(const struct at_train_diary *d)
{
    const struct at_train_setup *s = d->setup;
    const struct at_round *before = d->last.steps != 0 ? &d->last : NULL;
    struct at_round next = s->outer.kind == AT_OUTER_AUTO
                               ? at_auto_round(&s->outer, &s->config, &d->run, before, &d->measured)
                               : at_outer_round(&s->outer, &s->config, before);
    if (next.steps != 0) next.steps = at_journal_steps(&d->samples, &d->head, next.steps);
    return next;
}

at_err_t at_diary_take(struct at_train_diary *d, const struct at_round *round, struct at_diag *diag,
                       uint64_t *ret_start)
{
    struct at_journal_entry *e = &d->entry[round->round % 2];
    uint64_t each = (uint64_t)round->steps * d->head.batch;
    at_err_t err = at_samples_resize(&d->samples, each);
    if (err == AT_OK) err = at_samples_reserve(&d->samples, 2 * (size_t)d->head.replicas);
    if (err != AT_OK) return at_fail(diag, err, "journal", "no memory for the samples' ranges");
    if (!at_samples_can_take(&d->samples, d->head.replicas))
        return at_fail(diag, AT_E_DATA, "train", "the endless sequence of samples is at its end");
    e->round = *round;
    for (uint32_t i = 0; i < d->head.replicas; i++) {
        ret_start[i] = at_samples_take(&d->samples);
        e->unit[i] = (struct at_journal_unit){.start = ret_start[i], .samples = (uint32_t)each};
    }
    d->last = *round;
    return AT_OK;
}

at_err_t at_diary_done(struct at_train_diary *d, uint32_t round, const struct at_update_info *const *consumed,
                       uint64_t tokens, struct at_diag *diag)
{
    struct at_journal_entry *e = &d->entry[round % 2];
    uint32_t steps = 0;
    AT_ASSERT(e->round.round == round);
    e->tokens = tokens;
    e->has_root = false;
    for (uint32_t i = 0; i < d->head.replicas; i++) {
        struct at_journal_unit *u = &e->unit[i];
        u->consumed = consumed[i]->samples;
        if (consumed[i]->steps > steps) steps = consumed[i]->steps;
        at_samples_free(&d->samples, (struct at_range){u->start + u->consumed, u->samples - u->consumed});
    }
    if (d->last.round == round) d->last.steps = steps;
    at_train_rounds_note(d->rounds, &e->round);
    if (d->incomplete) return AT_OK;
    d->last_line = d->text.n;
    d->last_entry = e;
    at_err_t err = at_journal_put(&d->head, e, &d->text);
    return err != AT_OK ? at_fail(diag, err, "journal", "no memory for the journal") : AT_OK;
}

at_err_t at_diary_save(struct at_train_diary *d, const char *dir, struct at_hash root, struct at_diag *diag)
{
    char path[AT_PATH_BYTES];
    if (d->incomplete) return AT_OK;
    at_err_t err = at_path_join(dir, AT_TRAIN_JOURNAL, diag, path);
    if (err == AT_OK && d->last_entry != NULL) { /* the line again, now with the root */
        d->text.n = d->last_line;
        d->last_entry->has_root = true;
        d->last_entry->root = root;
        err = at_journal_put(&d->head, d->last_entry, &d->text);
    }
    struct at_span text = at_buf_span(&d->text);
    return err == AT_OK ? at_file_write_atomic(path, &text, 1, 0644, diag) : err;
}
