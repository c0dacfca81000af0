#include "train/unit.h"

#include "train/culprit.h"
#include "train/moments.h"
#include "train/trainer_inner.h"

#include <math.h>
#include <string.h>

/* A unit under way. */
struct run {
    struct at_trainer *t;
    const struct at_exec *ex;
    const struct at_data *data;
    const struct at_state *state;
    const struct at_unit *unit;
    struct at_diag *diag;
    uint32_t round, done; /* steps done */
    bool joined, stop;    /* this rank's wish, then everybody's */
    double loss_sum;
};

static void start(struct run *u)
{
    struct at_trainer *t = u->t;
    const struct at_params *p = &t->model->params;
    size_t bytes = p->count * sizeof(real);
    u->joined = u->unit->join == NULL;
    u->round = u->state->round + (u->joined ? 0 : 1);
    AT_ASSERT(u->joined || t->theta_start != NULL);
    if (u->joined)
        memcpy(t->theta, u->state->theta, bytes);
    else
        memcpy(t->theta_start, t->theta, bytes);
    memset(t->m, 0, bytes);
    if (u->round == 0)
        memset(t->v, 0, bytes);
    else
        at_moments_expand(u->ex, p, u->state->stats, t->v);
}

static void load_batch(const struct run *u)
{
    struct at_trainer *t = u->t;
    long T = u->data->seq_len;
    uint64_t first = u->unit->start + (uint64_t)u->done * t->config.batch;
    for (long i = 0; i < (long)t->config.batch; i++)
        at_data_sample(u->data, first + (uint64_t)i, t->input + i * T, t->target + i * T);
}

static at_err gradient(const struct run *u, double *ret_sum)
{
    const struct at_replica *r = u->t->replica;
    if (r != NULL) return r->gradient(r->arg, u->t, u->ex, u->t->theta, ret_sum, u->diag);
    *ret_sum = at_trainer_gradient(u->t, u->ex, u->t->theta);
    return AT_OK;
}

static at_err gather(const struct run *u)
{
    const struct at_replica *r = u->t->replica;
    return at_gather_run(r != NULL ? &r->gather : NULL, u->t->step, at_step_values(&u->t->model->params), u->diag);
}

/* What went wrong, found by all ranks of the replica, in this unit's words. */
static at_err refuse(const struct run *u, struct at_culprit culprit)
{
    culprit.round = u->round;
    culprit.step = u->done + 1;
    u->t->culprit = culprit;
    return at_culprit_tell(&u->t->model->params, &culprit, -1, u->diag);
}

/* One inner step; sets u->stop, and does nothing else, when the unit is to end before it. */
static at_err step(struct run *u)
{
    struct at_trainer *t = u->t;
    double sum = 0;
    load_batch(u);
    int err = gradient(u, &sum);
    if (err != AT_OK) return err;
    at_step_squares(t, u->ex);
    *at_step_loss(t) = sum;
    *at_step_stop(t) = t->replica != NULL && t->replica->leader && u->stop ? 1 : 0;
    err = gather(u);
    if (err != AT_OK) return err;
    u->stop = *at_step_stop(t) != 0;
    if (u->stop) return AT_OK;
    double norm = at_params_norm(&t->model->params, t->step);
    sum = *at_step_loss(t);
    if (!isfinite(sum) || !isfinite(norm)) {
        struct at_culprit culprit;
        err = at_culprit_find(t, u->ex, u->diag, &culprit);
        return err == AT_E_NONFINITE ? refuse(u, culprit) : err;
    }
    u->done++;
    at_step_apply(t, u->ex, norm, u->unit->step_first + u->done - 1, u->round == 0 ? u->done : 0);
    u->loss_sum += sum;
    return AT_OK;
}

struct shift {
    real *theta;
    const real *to, *from;
    const struct at_params *p;
};

static void shift_block(void *arg, int block)
{
    const struct shift *s = arg;
    const struct at_block *b = &s->p->block[block];
    for (size_t i = b->offset; i < b->offset + at_block_count(b); i++)
        s->theta[i] = s->theta[i] + (s->to[i] - s->from[i]);
}

static at_err join(struct run *u)
{
    int err = u->unit->join(u->unit->join_arg, u->diag);
    if (err != AT_OK) return err;
    AT_ASSERT(u->state->round == u->round);
    const struct at_params *p = &u->t->model->params;
    struct shift s = {u->t->theta, u->state->theta, u->t->theta_start, p};
    at_par_run(u->ex->par, p->blocks, shift_block, &s);
    u->joined = true;
    return AT_OK;
}

/* The weights and statistics that this unit made must be finite too, or it has no update: on all ranks alike. */
static at_err finish(const struct run *u)
{
    struct at_trainer *t = u->t;
    const struct at_params *p = &t->model->params;
    const real *stats = t->stats;
    at_moments_reduce(u->ex, p, t->v, t->stats);
    memset(t->step, 0, at_step_values(p) * sizeof *t->step);
    for (int i = 0; i < p->blocks; i++) {
        const struct at_block *b = &p->block[i];
        size_t n = at_block_stats_count(p, b);
        if (at_params_owns(p, b))
            t->step[at_block_number(p, b)] = !at_all_finite(u->ex, t->theta + b->offset, (long)at_block_count(b)) ? 1
                                             : !at_all_finite(u->ex, stats, (long)n)                              ? 2
                                                                                                                  : 0;
        stats += n;
    }
    int err = gather(u);
    if (err != AT_OK) return err;
    for (int id = 0; id < p->tensors; id++)
        for (int s = 0; s < p->tensor[id].slots; s++)
            if (t->step[p->tensor[id].number + s] != 0)
                return refuse(u, (struct at_culprit){.tensor = (uint32_t)id,
                                                     .what = t->step[p->tensor[id].number + s] < 2
                                                                 ? AT_CULPRIT_MADE_WEIGHT
                                                                 : AT_CULPRIT_MADE_STATISTIC});
    return AT_OK;
}

at_err at_unit_train(struct at_trainer *t, const struct at_exec *ex, const struct at_data *data,
                     const struct at_state *state, const struct at_unit *unit, at_unit_progress_fn *progress, void *arg,
                     struct at_diag *diag, struct at_unit_report *ret_report)
{
    uint32_t batch = t->config.batch, steps = unit->samples / batch;
    uint64_t step_tokens = (uint64_t)batch * (uint64_t)data->seq_len;
    struct run u = {.t = t, .ex = ex, .data = data, .state = state, .unit = unit, .diag = diag};
    AT_ASSERT(state->params == &t->model->params && data->seq_len == (long)state->params->config.seq_len);
    if (steps == 0 || unit->samples % batch != 0)
        return at_fail(diag, AT_E_DATA, "unit", "%u samples are not a multiple of the batch of %u", unit->samples,
                       batch);
    start(&u);
    t->culprit = (struct at_culprit){0};
    int err = AT_OK;
    while (err == AT_OK && u.done < steps) {
        uint32_t before = u.done;
        err = step(&u);
        if (err != AT_OK || u.done == before) break;
        if (!u.joined && u.done == unit->tau) err = join(&u);
        struct at_unit_progress p = {
            .step = u.done, .tokens = u.done * step_tokens, .loss = *at_step_loss(t) / (double)step_tokens};
        if (err == AT_OK && progress != NULL) u.stop = !progress(arg, &p);
        if (t->replica == NULL && u.stop) break;
    }
    if (err == AT_OK && !u.joined) err = join(&u);
    if (err == AT_OK) err = finish(&u);
    if (err != AT_OK) return err;
    *ret_report = (struct at_unit_report){.info = {.round = u.round,
                                                   .samples = u.done * batch,
                                                   .steps = u.done,
                                                   .start = unit->start,
                                                   .tokens = u.done * step_tokens},
                                          .loss_mean = u.loss_sum / (double)(u.done * step_tokens)};
    return AT_OK;
}

at_err at_unit_run(struct at_trainer *t, const struct at_exec *ex, const struct at_data *data,
                   const struct at_state *state, const struct at_unit *unit, at_unit_progress_fn *progress, void *arg,
                   struct at_diag *diag, struct at_buf *out, struct at_unit_report *ret_report)
{
    struct at_unit_report r;
    int err = at_unit_train(t, ex, data, state, unit, progress, arg, diag, &r);
    if (err != AT_OK) return err;
    err = at_update_write(&at_codec_plain, state->params, &r.info, state->theta, t->theta, t->stats, out);
    if (err != AT_OK) return at_fail(diag, err, "update", "no memory for the update");
    *ret_report = r;
    return AT_OK;
}

/* ---- held-out loss ---- */

void at_heldout_load(struct at_trainer *t, const struct at_data *data, long first, long step, long n)
{
    long T = data->seq_len;
    AT_ASSERT(n >= 1 && n <= (long)t->config.batch && first >= 0 && first + (n - 1) * step < data->windows);
    for (long i = 0; i < n; i++) at_data_window(data, first + i * step, t->input + i * T, t->target + i * T);
}

/* Windows of one forward pass, of those first, first + step, ... before `end`; their losses are in t->pass->loss then. */
static long heldout_pass(struct at_trainer *t, const struct at_exec *ex, const struct at_data *data, const real *theta,
                         long first, long step, long end, double *io_sum)
{
    long left = (end - first + step - 1) / step, n = left < t->microbatch ? left : t->microbatch;
    at_heldout_load(t, data, first, step, n);
    at_model_forward(ex, t->model, t->act, theta, t->input, n);
    at_model_loss(ex, t->model, t->act, t->target, n, io_sum);
    return n;
}

void at_heldout_losses(struct at_trainer *t, const struct at_exec *ex, const struct at_data *data, const real *theta,
                       long first, long n, real *ret_loss)
{
    double sum = 0;
    for (long w = first, have; w < first + n; w += have) {
        have = heldout_pass(t, ex, data, theta, w, 1, first + n, &sum);
        memcpy(ret_loss + (w - first) * data->seq_len, t->pass->loss,
               (size_t)(have * data->seq_len) * sizeof *ret_loss);
    }
}

double at_heldout_mean(const real *loss, long windows, long seq_len)
{
    double sum = 0;
    for (long i = 0; i < windows * seq_len; i++) sum += (double)loss[i];
    return sum / (double)(windows * seq_len);
}

double at_heldout_loss(struct at_trainer *t, const struct at_exec *ex, const struct at_data *data, const real *theta)
{
    double sum = 0;
    for (long w = 0; w < data->windows;) w += heldout_pass(t, ex, data, theta, w, 1, data->windows, &sum);
    return sum / (double)(data->windows * data->seq_len);
}

long at_heldout_windows(const struct at_data *data, struct at_heldout_share share)
{
    return (long)at_heldout_count(share, (uint64_t)data->windows);
}

uint32_t at_heldout_of_share(struct at_trainer *t, const struct at_exec *ex, const struct at_data *data,
                             const real *theta, struct at_heldout_share share, at_heldout_go_fn *go, void *arg)
{
    double sum = 0;
    long windows = at_heldout_windows(data, share), stride = (long)at_heldout_stride(share, (uint64_t)data->windows);
    long first = (long)share.first * stride, gap = (long)share.step * stride;
    for (long done = 0; done < windows;) {
        done += heldout_pass(t, ex, data, theta, first + done * gap, gap, data->windows, &sum);
        if (go != NULL && !go(arg) && done < windows) return 0;
    }
    return at_heldout_code(sum, (uint64_t)(windows * data->seq_len));
}
