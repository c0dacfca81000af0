#include "train/local.h"

#include <stdlib.h>

size_t at_local_bytes(const struct at_model_config *model, const struct at_train_config *train, int replicas,
                      long microbatch)
{
    size_t state = at_state_bytes(model), trainer = at_trainer_bytes(model, train, microbatch), blobs, sum;
    if (state == 0 || trainer == 0 || !at_mul_size(state, (size_t)replicas, &blobs)) return 0;
    return at_add_size(state, trainer, &sum) && at_add_size(sum, blobs, &sum) ? sum : 0;
}

at_err at_local_init(struct at_local *l, const struct at_model *m, const struct at_data *data,
                     const struct at_train_config *config, int replicas, long microbatch, struct at_diag *diag)
{
    if (replicas < 1 || replicas > AT_OUTER_REPLICAS_MAX)
        return at_fail(diag, AT_E_USAGE, "replicas", "must be 1 to %d", AT_OUTER_REPLICAS_MAX);
    struct at_local n = {.model = m, .data = data, .config = *config, .replicas = replicas};
    int err = at_trainer_init(&n.trainer, m, config, microbatch, diag);
    if (err == AT_OK) {
        err = at_state_init(&n.state, &m->params);
        n.blob = calloc((size_t)replicas, sizeof *n.blob);
        n.update = calloc((size_t)replicas, sizeof *n.update);
        if (err != AT_OK || n.blob == NULL || n.update == NULL)
            err = at_fail(diag, AT_E_NOMEM, "run", "no memory for the run's state");
    }
    if (err != AT_OK) {
        at_local_release(&n);
        return err;
    }
    for (int r = 0; r < replicas; r++) n.blob[r].bytes_max = at_update_bytes_max(&m->params);
    at_state_genesis(&n.state, config->seed);
    *l = n;
    return AT_OK;
}

void at_local_release(struct at_local *l)
{
    for (int r = 0; l->blob != NULL && r < l->replicas; r++) at_buf_release(&l->blob[r]);
    for (int r = 0; l->update != NULL && r < l->replicas; r++) at_update_release(&l->update[r]);
    free(l->blob);
    free(l->update);
    at_state_release(&l->state);
    at_trainer_release(&l->trainer);
    *l = (struct at_local){0};
}

struct watcher {
    at_local_progress_fn *progress;
    void *arg;
    int replica;
    bool stopped;
};

static bool watch(void *arg, const struct at_unit_progress *p)
{
    struct watcher *w = arg;
    if (w->progress != NULL && !w->progress(w->arg, w->replica, p)) w->stopped = true;
    return !w->stopped;
}

static at_err run_replica(struct at_local *l, const struct at_exec *ex, struct watcher *w, struct at_diag *diag,
                          struct at_unit_report *ret_report)
{
    uint64_t samples = (uint64_t)l->config.steps * l->config.batch;
    if (samples > UINT32_MAX) return at_fail(diag, AT_E_USAGE, "steps", "steps x batch is too large");
    struct at_unit unit = {.start = ((uint64_t)l->state.round * (uint64_t)l->replicas + (uint64_t)w->replica) * samples,
                           .samples = (uint32_t)samples,
                           .step_first = (uint64_t)l->state.round * l->config.steps};
    struct at_buf *blob = &l->blob[w->replica];
    at_buf_clear(blob);
    int err = at_unit_run(&l->trainer, ex, l->data, &l->state, &unit, watch, w, diag, blob, ret_report);
    if (err == AT_OK && w->stopped) err = at_fail(diag, AT_E_INTERRUPTED, "train", "stopped");
    if (err != AT_OK) return err;
    return at_update_parse(&l->model->params, at_buf_span(blob), diag, &l->update[w->replica]);
}

at_err at_local_round(struct at_local *l, const struct at_exec *ex, at_local_progress_fn *progress, void *arg,
                      struct at_diag *diag, double *ret_loss)
{
    double sum = 0;
    uint64_t tokens = 0;
    for (int r = 0; r < l->replicas; r++) {
        struct watcher w = {.progress = progress, .arg = arg, .replica = r};
        struct at_unit_report report;
        int err = run_replica(l, ex, &w, diag, &report);
        if (err != AT_OK) return err;
        sum += report.loss_mean * (double)report.info.tokens;
        tokens += report.info.tokens;
    }
    struct at_round round = at_round_mean(l->state.round, l->config.steps, 0);
    int err = at_outer_step(ex, &l->state, l->update, l->replicas, &round, NULL, diag);
    if (err != AT_OK) return err;
    l->tokens += tokens;
    *ret_loss = sum / (double)tokens;
    return AT_OK;
}
