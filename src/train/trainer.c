/* A rank's memory, its gradient and its optimizer step. */
#include "train/trainer_inner.h"

#include "base/bytes.h"
#include "tensor/emath.h"
#include "train/culprit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Longer products lose less to packing weights and to passing over the gradient's accumulators: 5 % of a step between 2
 * and 8 sequences of the 10m preset. */
#define ACTIVATION_BYTES_WANTED ((size_t)448 << 20)

real at_lr(const struct at_train_config *c, uint64_t g)
{
    uint64_t total = (uint64_t)c->rounds * c->steps;
    if (g < c->warmup_steps) return (real)(c->lr_peak * (double)(g + 1) / (double)c->warmup_steps);
    double done = 1;
    if (g < total) done = (double)(g - c->warmup_steps) / (double)(total - c->warmup_steps);
    double wave = 0.5 * (1.0 + at_cos64(3.14159265358979323846 * done));
    return (real)(c->lr_peak * (c->lr_final_fraction + (1.0 - c->lr_final_fraction) * wave));
}

/* ---- memory ---- */

static int in_flight_of(const struct at_trainer_options *o)
{
    return o->in_flight < 1 ? 1 : o->in_flight;
}

/* Bytes of all activations of a rank. */
static size_t pass_bytes(const struct at_model_config *model, const struct at_shard *shard,
                         const struct at_trainer_options *o, long sequences)
{
    size_t one = at_activations_bytes(model, shard, sequences, o->recompute), all;
    size_t passing = at_passing_bytes(model, shard, sequences, o->recompute);
    if (one == 0 || passing == 0 || !at_mul_size(one, (size_t)in_flight_of(o), &all)) return 0;
    return at_add_size(all, passing, &all) ? all : 0;
}

long at_trainer_microbatch(const struct at_model_config *model, const struct at_shard *shard,
                           const struct at_train_config *train, const struct at_trainer_options *o)
{
    long n = train->batch;
    if (o->microbatch > 0) return o->microbatch < n ? o->microbatch : n;
    while (n > 1) {
        size_t bytes = pass_bytes(model, shard, o, n);
        if (bytes != 0 && bytes <= ACTIVATION_BYTES_WANTED) break;
        n--;
    }
    return n;
}

/* Elements of the arrays of a shard. */
struct lengths {
    size_t flat, grad, stats, step;
};

static bool measure(const struct at_model_config *c, const struct at_shard *shard, struct lengths *ret)
{
    struct at_model m = {0};
    if (at_params_init_shard(&m.params, c, shard) != AT_OK) return false;
    *ret = (struct lengths){.flat = m.params.count,
                            .grad = at_model_grad_count(&m),
                            .stats = at_stats_count(&m.params),
                            .step = at_step_values(&m.params)};
    at_params_release(&m.params);
    return true;
}

size_t at_state_bytes(const struct at_model_config *model)
{
    struct lengths n;
    struct at_shard whole = at_shard_whole(model);
    return measure(model, &whole, &n) ? (n.flat + n.stats) * sizeof(real) : 0;
}

size_t at_trainer_bytes_options(const struct at_model_config *model, const struct at_shard *shard,
                                const struct at_train_config *train, const struct at_trainer_options *options)
{
    struct lengths n;
    size_t tokens, pass = pass_bytes(model, shard, options, at_trainer_microbatch(model, shard, train, options));
    if (pass == 0 || !measure(model, shard, &n)) return 0;
    if (!at_mul_size((size_t)train->batch * model->seq_len, 2 * sizeof(int32_t), &tokens)) return 0;
    size_t flats = options->overlap ? 4 : 3;
    size_t bytes = (flats * n.flat + n.grad + n.stats) * sizeof(real) + n.step * sizeof(double);
    if (options->forward_only) bytes = 0;
    return at_add_size(bytes, pass, &bytes) && at_add_size(bytes, tokens, &bytes) ? bytes : 0;
}

size_t at_trainer_bytes(const struct at_model_config *model, const struct at_train_config *train, long microbatch)
{
    struct at_shard whole = at_shard_whole(model);
    struct at_trainer_options options = {.microbatch = microbatch};
    return at_trainer_bytes_options(model, &whole, train, &options);
}

static at_err init_activations(struct at_trainer *t, bool recompute)
{
    t->pass = calloc(1, sizeof *t->pass);
    t->act = calloc((size_t)t->in_flight, sizeof *t->act);
    if (t->pass == NULL || t->act == NULL) return AT_E_NOMEM;
    int err = at_passing_init_in(t->pass, t->model, t->microbatch, recompute, &t->memory);
    for (int i = 0; err == AT_OK && i < t->in_flight; i++) err = at_activations_init(&t->act[i], t->model, t->pass);
    return err;
}

static at_err init_batch(struct at_trainer *t)
{
    size_t tokens = (size_t)t->config.batch * t->model->params.config.seq_len;
    t->input = malloc(tokens * sizeof *t->input);
    t->target = malloc(tokens * sizeof *t->target);
    return t->input != NULL && t->target != NULL ? AT_OK : AT_E_NOMEM;
}

static at_err init_arrays(struct at_trainer *t, bool overlap)
{
    const struct at_params *p = &t->model->params;
    t->flat_bytes = p->count * sizeof(real);
    t->grad_bytes = at_model_grad_count(t->model) * sizeof(real);
    t->theta = at_memory_take(&t->memory, t->flat_bytes);
    t->grad = at_memory_take(&t->memory, t->grad_bytes);
    t->m = at_memory_take(&t->memory, t->flat_bytes);
    t->v = at_memory_take(&t->memory, t->flat_bytes);
    t->stats = malloc(at_stats_count(p) * sizeof(real));
    t->step = malloc(at_step_values(p) * sizeof *t->step);
    if (overlap) t->theta_start = at_memory_take(&t->memory, t->flat_bytes);
    bool ok = t->theta != NULL && t->grad != NULL && t->m != NULL && t->v != NULL && t->stats != NULL &&
              t->step != NULL && (!overlap || t->theta_start != NULL);
    return ok ? AT_OK : AT_E_NOMEM;
}

at_err at_trainer_init_options(struct at_trainer *t, const struct at_model *m, const struct at_train_config *config,
                               const struct at_trainer_options *options, struct at_diag *diag)
{
    int err = at_train_config_check(config, diag);
    if (err != AT_OK) return err;
    const struct at_params *p = &m->params;
    struct at_trainer n = {.model = m, .config = *config, .in_flight = in_flight_of(options)};
    if (options->memory != NULL) n.memory = *options->memory;
    n.microbatch = at_trainer_microbatch(&p->config, &p->shard, config, options);
    err = init_batch(&n);
    if (err == AT_OK && !options->forward_only) err = init_arrays(&n, options->overlap);
    if (err == AT_OK) err = init_activations(&n, options->recompute);
    if (err != AT_OK) {
        at_trainer_release(&n);
        return at_fail(diag, AT_E_NOMEM, "trainer", "training needs %zu MB of memory",
                       at_trainer_bytes_options(&p->config, &p->shard, config, options) >> 20);
    }
    *t = n;
    return AT_OK;
}

at_err at_trainer_init(struct at_trainer *t, const struct at_model *m, const struct at_train_config *config,
                       long microbatch, struct at_diag *diag)
{
    struct at_trainer_options options = {.microbatch = microbatch};
    return at_trainer_init_options(t, m, config, &options, diag);
}

void at_trainer_release(struct at_trainer *t)
{
    for (int i = 0; t->act != NULL && i < t->in_flight; i++) at_activations_release(&t->act[i]);
    if (t->pass != NULL) at_passing_release(t->pass);
    free(t->act);
    free(t->pass);
    at_memory_give(&t->memory, t->theta, t->flat_bytes);
    at_memory_give(&t->memory, t->grad, t->grad_bytes);
    at_memory_give(&t->memory, t->m, t->flat_bytes);
    at_memory_give(&t->memory, t->v, t->flat_bytes);
    at_memory_give(&t->memory, t->theta_start, t->flat_bytes);
    free(t->stats);
    free(t->step);
    free(t->input);
    free(t->target);
    *t = (struct at_trainer){0};
}

/* ---- an inner step ---- */

double at_trainer_gradient(struct at_trainer *t, const struct at_exec *ex, const real *theta)
{
    long batch = t->config.batch, T = t->model->params.config.seq_len;
    real inv = (real)(1.0 / (double)(batch * T));
    double sum = 0;
    at_model_grad_begin(ex, t->model, t->pass, t->grad);
    for (long b = 0; b < batch; b += t->microbatch) {
        long n = batch - b < t->microbatch ? batch - b : t->microbatch;
        at_model_forward(ex, t->model, t->act, theta, t->input + b * T, n);
        at_model_backward(ex, t->model, t->act, theta, t->input + b * T, t->target + b * T, n, inv, t->grad, &sum);
    }
    at_model_grad_finish(ex, t->model, t->grad);
    return sum;
}

void at_step_squares(struct at_trainer *t, const struct at_exec *ex)
{
    const struct at_params *p = &t->model->params;
    memset(t->step, 0, at_step_values(p) * sizeof *t->step);
    for (int i = 0; i < p->blocks; i++) {
        const struct at_block *b = &p->block[i];
        if (at_params_owns(p, b))
            t->step[at_block_number(p, b)] = at_sum_squares(ex, t->grad + b->offset, b->rows, b->cols);
    }
}

static real inv_bias(double beta, uint32_t k)
{
    double power = 1;
    for (uint32_t i = 0; i < k; i++) power *= beta;
    return (real)(1.0 / (1.0 - power));
}

void at_step_apply(struct at_trainer *t, const struct at_exec *ex, double norm, uint64_t g, uint32_t bias_step)
{
    const struct at_train_config *c = &t->config;
    const struct at_params *p = &t->model->params;
    struct at_adamw opt = {.lr = at_lr(c, g),
                           .beta1 = (real)c->beta1,
                           .beta2 = (real)c->beta2,
                           .one_minus_beta1 = (real)(1.0 - c->beta1),
                           .one_minus_beta2 = (real)(1.0 - c->beta2),
                           .inv_bias1 = bias_step != 0 ? inv_bias(c->beta1, bias_step) : 1,
                           .inv_bias2 = bias_step != 0 ? inv_bias(c->beta2, bias_step) : 1,
                           .eps = (real)c->adam_eps,
                           .clip = norm > c->clip_norm ? (real)(c->clip_norm / norm) : 1};
    for (int i = 0, j; i < p->blocks; i = j) { /* neighbours with the same decay in one call */
        bool gain = at_role_is_gain(p->tensor[p->block[i].tensor].role);
        size_t from = p->block[i].offset, end = from;
        for (j = i; j < p->blocks && at_role_is_gain(p->tensor[p->block[j].tensor].role) == gain; j++)
            end += at_block_count(&p->block[j]);
        opt.weight_decay = gain ? 0 : (real)c->weight_decay;
        at_adamw(ex, t->theta + from, t->m + from, t->v + from, t->grad + from, (long)(end - from), &opt);
    }
}

at_err at_trainer_step(struct at_trainer *t, const struct at_exec *ex, uint32_t round, uint32_t k, struct at_diag *diag)
{
    AT_ASSERT(t->replica == NULL);
    at_step_squares(t, ex);
    double norm = at_params_norm(&t->model->params, t->step);
    if (!isfinite(norm)) {
        at_err_t err = at_culprit_find(t, ex, diag, &t->culprit);
        t->culprit.round = round;
        t->culprit.step = k;
        return err == AT_E_NONFINITE ? at_culprit_tell(&t->model->params, &t->culprit, -1, diag) : err;
    }
    at_step_apply(t, ex, norm, (uint64_t)round * t->config.steps + k - 1, round == 0 ? k : 0);
    return AT_OK;
}
