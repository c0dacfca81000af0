#include "train/local.h"

#include "train/checkpoint_replica.h"
#include "train/culprit.h"

#include <stdlib.h>
#include <string.h>

static const struct at_outer_config plain_mean = {.kind = AT_OUTER_MEAN, .alpha_first = 1, .alpha_last = 1};

static bool is_lossy(const struct at_outer_config *c)
{
    return c->kind != AT_OUTER_MEAN;
}

static struct at_trainer_options trainer_options(const struct at_local_options *o)
{
    return (struct at_trainer_options){
        .microbatch = o->microbatch, .recompute = o->recompute, .overlap = o->outer != NULL && o->outer->tau > 0};
}

size_t at_local_bytes_options(const struct at_model_config *model, const struct at_train_config *train,
                              const struct at_local_options *o)
{
    const struct at_outer_config *outer = o->outer != NULL ? o->outer : &plain_mean;
    struct at_trainer_options t = trainer_options(o);
    struct at_shard whole = at_shard_whole(model);
    size_t state = at_state_bytes(model), sum = at_trainer_bytes_options(model, &whole, train, &t), each, all;
    if (state == 0 || sum == 0) return 0;
    /* A state or a blob is about as large as the weights; so are the replica's own weights and its error feedback. */
    size_t flats = 1 + (outer->tau > 0 ? 1 : 0) + (is_lossy(outer) ? 1 : 0);
    if (!at_mul_size(state, flats, &each) || !at_mul_size(each, (size_t)o->replicas, &all)) return 0;
    if (!at_mul_size(state, at_outer_config_momentum(outer) ? 2 : 1, &state)) return 0;
    return at_add_size(sum, state, &sum) && at_add_size(sum, all, &sum) ? sum : 0;
}

size_t at_local_bytes(const struct at_model_config *model, const struct at_train_config *train, int replicas,
                      long microbatch)
{
    struct at_local_options o = {.replicas = replicas, .microbatch = microbatch};
    return at_local_bytes_options(model, train, &o);
}

static at_err init_replicas(struct at_local *l)
{
    const struct at_params *p = &l->model->params;
    l->replica = calloc((size_t)l->replicas, sizeof *l->replica);
    l->update = calloc((size_t)l->replicas, sizeof *l->update);
    if (l->replica == NULL || l->update == NULL) return AT_E_NOMEM;
    for (int r = 0; r < l->replicas; r++) {
        struct at_local_replica *x = &l->replica[r];
        x->blob.bytes_max = at_update_bytes_max(p);
        if (l->outer.tau > 0 && (x->theta = malloc(p->count * sizeof(real))) == NULL) return AT_E_NOMEM;
        if (is_lossy(&l->outer) && (x->feedback = calloc(p->count, sizeof(real))) == NULL) return AT_E_NOMEM;
        int err = at_update_begin(&l->update[r], p);
        if (err != AT_OK) return err;
    }
    return AT_OK;
}

static at_err init_state(struct at_local *l)
{
    const struct at_params *p = &l->model->params;
    int err = at_state_init(&l->state, p);
    if (err == AT_OK && at_outer_config_momentum(&l->outer)) err = at_state_add_momentum(&l->state);
    if (err == AT_OK && l->outer.tau > 0) {
        l->stats_before = malloc(at_stats_count(p) * sizeof *l->stats_before);
        if (l->stats_before == NULL) err = AT_E_NOMEM;
    }
    return err;
}

at_err at_local_init_options(struct at_local *l, const struct at_model *m, const struct at_data *data,
                             const struct at_train_config *config, const struct at_local_options *o,
                             struct at_diag *diag)
{
    if (o->replicas < 1 || o->replicas > AT_OUTER_REPLICAS_MAX)
        return at_fail(diag, AT_E_USAGE, "replicas", "must be 1 to %d", AT_OUTER_REPLICAS_MAX);
    struct at_local n = {.model = m, .data = data, .config = *config, .replicas = o->replicas};
    n.outer = o->outer != NULL ? *o->outer : plain_mean;
    struct at_trainer_options t = trainer_options(o);
    int err = at_trainer_init_options(&n.trainer, m, config, &t, diag);
    if (err == AT_OK) err = at_outer_config_check(&n.outer, config, diag);
    if (err == AT_OK && ((err = init_state(&n)) != AT_OK || (err = init_replicas(&n)) != AT_OK))
        err = at_fail(diag, err, "run", "no memory for the run's state");
    if (err != AT_OK) {
        at_local_release(&n);
        return err;
    }
    at_samples_init(&n.samples, (uint64_t)config->steps * config->batch);
    at_state_genesis(&n.state, config->seed);
    *l = n;
    return AT_OK;
}

at_err at_local_init(struct at_local *l, const struct at_model *m, const struct at_data *data,
                     const struct at_train_config *config, int replicas, long microbatch, struct at_diag *diag)
{
    struct at_local_options o = {.replicas = replicas, .microbatch = microbatch};
    return at_local_init_options(l, m, data, config, &o, diag);
}

void at_local_release(struct at_local *l)
{
    for (int r = 0; l->replica != NULL && r < l->replicas; r++) {
        at_buf_release(&l->replica[r].blob);
        free(l->replica[r].theta);
        free(l->replica[r].feedback);
    }
    for (int r = 0; l->update != NULL && r < l->replicas; r++) at_update_release(&l->update[r]);
    free(l->replica);
    free(l->update);
    free(l->stats_before);
    at_samples_release(&l->samples);
    at_state_release(&l->state);
    at_trainer_release(&l->trainer);
    *l = (struct at_local){0};
}

struct at_round at_local_next(const struct at_local *l)
{
    struct at_round previous = l->round;
    previous.steps = l->steps_done;
    return at_outer_round(&l->outer, &l->config, l->steps_done != 0 ? &previous : NULL);
}

at_err at_local_resume(struct at_local *l, const struct at_round *round, uint32_t steps_done,
                       const struct at_samples *samples, uint64_t tokens)
{
    AT_ASSERT(l->state.round == round->round + 1 && steps_done != 0);
    int err = at_samples_copy(&l->samples, samples);
    if (err != AT_OK) return err;
    l->round = *round;
    l->steps_done = steps_done;
    l->tokens = tokens;
    return AT_OK;
}

/* Without a round so far a replica's own weights are the state's: to join them changes nothing. */
void at_local_start(struct at_local *l)
{
    const struct at_params *p = &l->model->params;
    if (l->started || l->stats_before == NULL) return;
    for (int r = 0; r < l->replicas; r++) memcpy(l->replica[r].theta, l->state.theta, p->count * sizeof(real));
    memcpy(l->stats_before, l->state.stats, at_stats_count(p) * sizeof *l->stats_before);
    l->started = true;
}

real *at_local_own(struct at_local *l, int replica, int part, int tensor, int slot)
{
    const struct at_params *p = &l->model->params;
    const struct at_block *b = at_params_block(p, tensor, slot);
    AT_ASSERT(!l->torn && (part == AT_OWN_FEEDBACK || l->started));
    if (part == AT_OWN_STATS) return l->stats_before + at_block_stats_offset(p, (int)(b - p->block));
    return (part == AT_OWN_FEEDBACK ? l->replica[replica].feedback : l->replica[replica].theta) + b->offset;
}

/* ---- a unit ---- */

struct watcher {
    struct at_local *l;
    at_local_progress_fn *progress;
    void *arg;
    int replica;
    bool stopped;
};

static bool watch(void *arg, const struct at_unit_progress *p)
{
    struct watcher *w = arg;
    w->l->end_unit = false;
    if (w->progress != NULL && !w->progress(w->arg, w->replica, p)) w->stopped = true;
    return !w->stopped && !w->l->end_unit;
}

/* The state as a replica sees it that has not heard of the last outer step; then the news. */
struct late {
    const struct at_state *newest;
    struct at_state seen;
};

static at_err_t hear(void *arg, struct at_diag *diag)
{
    struct late *late = arg;
    late->seen = *late->newest;
    return AT_OK;
}

static void swap_theta(struct at_local *l, int replica)
{
    real *own = l->replica[replica].theta;
    if (own == NULL) return;
    l->replica[replica].theta = l->trainer.theta;
    l->trainer.theta = own;
}

static at_err train(struct at_local *l, const struct at_exec *ex, const struct at_round *round, uint64_t start,
                    struct watcher *w, struct at_diag *diag, struct at_unit_report *ret_report)
{
    struct late late = {&l->state, l->state};
    struct at_unit unit = {
        .start = start, .samples = round->steps * l->config.batch, .step_first = round->step_first, .tau = round->tau};
    if (round->tau > 0 && l->started) {
        late.seen.round--;
        late.seen.stats = l->stats_before;
        unit.join = hear;
        unit.join_arg = &late;
    }
    w->stopped = false;
    int err = at_unit_train(&l->trainer, ex, l->data, &late.seen, &unit, watch, w, diag, ret_report);
    if (err == AT_OK && w->stopped) err = at_fail(diag, AT_E_INTERRUPTED, "train", "stopped");
    return err;
}

static at_err hand_over(struct at_local *l, const struct at_exec *ex, const struct at_round *round, int replica,
                        struct at_diag *diag)
{
    struct at_local_replica *x = &l->replica[replica];
    const struct at_codec *codec = at_codec_find(round->codec);
    struct at_update_source source = {.params = &l->model->params,
                                      .theta_start = l->state.theta,
                                      .theta = l->trainer.theta,
                                      .feedback = codec->beta != 0 ? x->feedback : NULL,
                                      .stats = l->trainer.stats,
                                      .stats_public = l->state.stats};
    at_feedback_add(ex, codec, source.params, source.theta_start, source.theta, x->feedback);
    at_buf_clear(&x->blob);
    int err = at_update_encode(codec, round->k, &x->info, &source, NULL, NULL, &x->blob);
    if (err != AT_OK) return at_fail(diag, err, "update", "no memory for the update");
    return at_update_parse(source.params, at_buf_span(&x->blob), diag, &l->update[replica]);
}

/* ---- a round ---- */

static at_err check_round(const struct at_local *l, const struct at_round *round, struct at_diag *diag)
{
    int err = at_round_check(round, diag);
    if (err != AT_OK) return err;
    AT_ASSERT(round->round == l->state.round);
    if (round->steps == 0 || (uint64_t)round->steps * l->config.batch > UINT32_MAX)
        return at_fail(diag, AT_E_USAGE, "steps", "%u steps of %u samples", round->steps, l->config.batch);
    if ((at_codec_find(round->codec)->beta != 0 && !is_lossy(&l->outer)) || (round->tau > 0 && l->outer.tau == 0))
        return at_fail(diag, AT_E_USAGE, "round", "codec %u and tau %u are not this run's", round->codec, round->tau);
    return AT_OK;
}

static at_err allot(struct at_local *l, const struct at_round *round, struct at_diag *diag)
{
    int err = at_samples_resize(&l->samples, (uint64_t)round->steps * l->config.batch);
    if (err == AT_OK) err = at_samples_reserve(&l->samples, (size_t)l->replicas);
    if (err != AT_OK) return at_fail(diag, err, "run", "no memory for the samples' ranges");
    if (!at_samples_can_take(&l->samples, (uint64_t)l->replicas))
        return at_fail(diag, AT_E_DATA, "run", "the endless sequence of samples is at its end");
    return AT_OK;
}

/* Replica r's unit, of `steps` at most, and its update. */
static at_err run_unit(struct at_local *l, const struct at_exec *ex, const struct at_round *round, uint64_t start,
                       struct watcher *w, struct at_diag *diag)
{
    struct at_unit_report report;
    struct at_local_replica *x = &l->replica[w->replica];
    swap_theta(l, w->replica);
    int err = train(l, ex, round, start, w, diag, &report);
    if (err == AT_OK) {
        x->info = report.info;
        x->loss_mean = report.loss_mean;
        err = hand_over(l, ex, round, w->replica, diag);
    }
    swap_theta(l, w->replica);
    return err;
}

/* A unit of replica `bad` was refused. Were the replicas side by side, another might have been before it: the steps that
 * come before are run of those behind, and the earliest one is told (culprit.h). */
static at_err tell_first(struct at_local *l, const struct at_exec *ex, const struct at_round *round,
                         const uint64_t *start, int bad, struct watcher w, struct at_diag *diag)
{
    struct at_culprit first = l->trainer.culprit;
    for (int r = bad + 1; r < l->replicas && first.step > 1; r++) {
        struct at_round shorter = *round;
        struct at_diag own = {0};
        if (shorter.steps > first.step - 1) shorter.steps = first.step - 1;
        w.replica = r;
        int err = run_unit(l, ex, &shorter, start[r], &w, &own);
        if (err != AT_OK && err != AT_E_NONFINITE) return at_fail(diag, err, own.where, "%s", own.text);
        const struct at_culprit *found = &l->trainer.culprit;
        if (err == AT_OK || found->step == 0 || found->step >= first.step) continue;
        first = *found;
        bad = r;
    }
    return at_culprit_tell(&l->model->params, &first, bad, diag);
}

/* Units of all replicas. The ranges of a round that fails, and what the units left over, are free again. */
static at_err run_units(struct at_local *l, const struct at_exec *ex, const struct at_round *round,
                        at_local_progress_fn *progress, void *arg, struct at_diag *diag)
{
    uint64_t start[AT_OUTER_REPLICAS_MAX], each = (uint64_t)round->steps * l->config.batch;
    int err = allot(l, round, diag);
    if (err != AT_OK) return err;
    struct watcher w = {.l = l, .progress = progress, .arg = arg};
    for (int r = 0; r < l->replicas; r++) start[r] = at_samples_take(&l->samples);
    for (int r = 0; r < l->replicas && err == AT_OK; r++) {
        struct at_diag own = {0};
        w.replica = r;
        l->trainer.culprit.step = 0;
        err = run_unit(l, ex, round, start[r], &w, &own);
        if (err == AT_E_NONFINITE && l->trainer.culprit.step != 0)
            err = tell_first(l, ex, round, start, r, w, diag);
        else if (err != AT_OK)
            (void)at_fail(diag, err, own.where, "%s", own.text);
    }
    for (int r = 0; r < l->replicas; r++) {
        uint64_t used = err == AT_OK ? l->replica[r].info.samples : 0;
        at_samples_free(&l->samples, (struct at_range){start[r] + used, each - used});
    }
    return err;
}

at_err at_local_do(struct at_local *l, const struct at_exec *ex, const struct at_round *round,
                   at_local_progress_fn *progress, void *arg, struct at_diag *diag, double *ret_loss)
{
    int err = check_round(l, round, diag);
    if (err != AT_OK) return err;
    l->torn = true;
    err = run_units(l, ex, round, progress, arg, diag);
    if (err != AT_OK) return err;
    if (l->stats_before != NULL)
        memcpy(l->stats_before, l->state.stats, at_stats_count(&l->model->params) * sizeof *l->stats_before);
    err = at_outer_step(ex, &l->state, l->update, l->replicas, round, NULL, diag);
    if (err != AT_OK) return err;
    double sum = 0;
    uint64_t tokens = 0;
    l->round = *round;
    l->steps_done = 0;
    for (int r = 0; r < l->replicas; r++) {
        const struct at_local_replica *x = &l->replica[r];
        if (x->feedback != NULL) at_update_confirm(&l->update[r], ex->par, x->feedback);
        if (x->info.steps > l->steps_done) l->steps_done = x->info.steps;
        sum += x->loss_mean * (double)x->info.tokens;
        tokens += x->info.tokens;
        at_kept_release(&l->update[r].kept);
    }
    l->started = true;
    l->torn = false;
    l->tokens += tokens;
    *ret_loss = sum / (double)tokens;
    return AT_OK;
}

at_err at_local_round(struct at_local *l, const struct at_exec *ex, at_local_progress_fn *progress, void *arg,
                      struct at_diag *diag, double *ret_loss)
{
    struct at_round round = at_local_next(l);
    if (round.steps == 0) { /* beyond the run's rounds: the learning rate stays at its end */
        round = l->round;
        round.round++;
        round.step_first += l->steps_done;
        round.steps = l->outer.steps_max != 0 ? l->outer.steps_max : l->config.steps;
    }
    return at_local_do(l, ex, &round, progress, arg, diag, ret_loss);
}
