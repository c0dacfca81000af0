#include "train/unit.h"

#include "train/culprit.h"
#include "train/moments.h"

#include <math.h>
#include <string.h>

static void start_from_state(struct at_trainer *t, const struct at_exec *ex, const struct at_state *state)
{
    size_t bytes = state->params->count * sizeof(real);
    memcpy(t->theta, state->theta, bytes);
    memset(t->m, 0, bytes);
    if (state->round == 0)
        memset(t->v, 0, bytes);
    else
        at_moments_expand(ex, state->params, state->stats, t->v);
}

static void load_batch(struct at_trainer *t, const struct at_data *data, uint64_t first)
{
    long T = data->seq_len;
    for (long i = 0; i < (long)t->config.batch; i++)
        at_data_sample(data, first + (uint64_t)i, t->input + i * T, t->target + i * T);
}

/* The weights and statistics that this unit made must be finite too, or it has no update. */
static at_err finish(struct at_trainer *t, const struct at_exec *ex, const struct at_state *state, struct at_diag *diag)
{
    at_moments_reduce(ex, state->params, t->v, t->stats);
    struct at_state made = {.params = state->params, .round = state->round, .theta = t->theta, .stats = t->stats};
    return at_state_check(&made, diag);
}

at_err at_unit_run(struct at_trainer *t, const struct at_exec *ex, const struct at_data *data,
                   const struct at_state *state, const struct at_unit *unit, at_unit_progress_fn *progress, void *arg,
                   struct at_diag *diag, struct at_buf *out, struct at_unit_report *ret_report)
{
    uint32_t batch = t->config.batch, steps = unit->samples / batch, k = 0;
    AT_ASSERT(state->params == &t->model->params && data->seq_len == (long)state->params->config.seq_len);
    if (steps == 0 || unit->samples % batch != 0)
        return at_fail(diag, AT_E_DATA, "unit", "%u samples are not a multiple of the batch of %u", unit->samples,
                       batch);
    uint64_t step_tokens = (uint64_t)batch * (uint64_t)data->seq_len;
    double loss_sum = 0;
    start_from_state(t, ex, state);
    for (bool go_on = true; go_on && k < steps;) {
        load_batch(t, data, unit->start + (uint64_t)k * batch);
        double sum = at_trainer_gradient(t, ex, t->theta);
        int err =
            isfinite(sum) ? at_trainer_step(t, ex, state->round, ++k, diag) : at_trainer_name_culprit(t, ex, diag);
        if (err != AT_OK) return err;
        loss_sum += sum;
        struct at_unit_progress p = {.step = k, .tokens = k * step_tokens, .loss = sum / (double)step_tokens};
        if (progress != NULL) go_on = progress(arg, &p);
    }
    int err = finish(t, ex, state, diag);
    if (err != AT_OK) return err;
    struct at_unit_report r = {.info = {.round = state->round,
                                        .samples = k * batch,
                                        .steps = k,
                                        .start = unit->start,
                                        .tokens = k * step_tokens},
                               .loss_mean = loss_sum / (double)(k * step_tokens)};
    err = at_update_write(&at_codec_plain, state->params, &r.info, state->theta, t->theta, t->stats, out);
    if (err != AT_OK) return at_fail(diag, err, "update", "no memory for the update");
    *ret_report = r;
    return AT_OK;
}

double at_heldout_loss(struct at_trainer *t, const struct at_exec *ex, const struct at_data *data, const real *theta)
{
    double sum = 0;
    long T = data->seq_len;
    for (long w = 0; w < data->windows;) {
        long n = data->windows - w < t->microbatch ? data->windows - w : t->microbatch;
        for (long i = 0; i < n; i++, w++) at_data_window(data, w, t->input + i * T, t->target + i * T);
        at_model_forward(ex, t->model, &t->act, theta, t->input, n);
        at_model_loss(ex, t->model, &t->act, t->target, n, &sum);
    }
    return sum / (double)(data->windows * T);
}
