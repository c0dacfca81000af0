/* A replica's memory, its gradient and its optimizer step. */
#include "base/bytes.h"
#include "tensor/emath.h"
#include "train/culprit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ACTIVATION_BYTES_WANTED ((size_t)96 << 20)

real at_lr(const struct at_train_config *c, uint32_t round, uint32_t step)
{
    uint64_t g = (uint64_t)round * c->steps + step, total = (uint64_t)c->rounds * c->steps;
    if (g < c->warmup_steps) return (real)(c->lr_peak * (double)(g + 1) / (double)c->warmup_steps);
    double done = 1;
    if (g < total) done = (double)(g - c->warmup_steps) / (double)(total - c->warmup_steps);
    double wave = 0.5 * (1.0 + at_cos64(3.14159265358979323846 * done));
    return (real)(c->lr_peak * (c->lr_final_fraction + (1.0 - c->lr_final_fraction) * wave));
}

static long choose_microbatch(const struct at_model_config *model, const struct at_train_config *train, long wanted)
{
    if (wanted > 0) return wanted < (long)train->batch ? wanted : (long)train->batch;
    long n = train->batch;
    while (n > 1) {
        size_t bytes = at_activations_bytes(model, n);
        if (bytes != 0 && bytes <= ACTIVATION_BYTES_WANTED) break;
        n--;
    }
    return n;
}

/* Reals of the flat array, of the gradient and of the statistics, without building the table. */
static bool measure(const struct at_model_config *c, size_t *ret_flat, size_t *ret_grad, size_t *ret_stats)
{
    struct at_params p;
    if (at_params_init(&p, c) != AT_OK) return false;
    *ret_flat = p.count;
    *ret_grad = p.count + (c->tied ? (size_t)p.vocab_padded * c->d_model : 0);
    *ret_stats = at_stats_count(&p);
    at_params_release(&p);
    return true;
}

size_t at_state_bytes(const struct at_model_config *model)
{
    size_t flat, grad, stats;
    return measure(model, &flat, &grad, &stats) ? (flat + stats) * sizeof(real) : 0;
}

size_t at_trainer_bytes(const struct at_model_config *model, const struct at_train_config *train, long microbatch)
{
    size_t flat, grad, stats, tokens, act = at_activations_bytes(model, choose_microbatch(model, train, microbatch));
    if (act == 0 || !measure(model, &flat, &grad, &stats)) return 0;
    if (!at_mul_size((size_t)train->batch * model->seq_len, 2 * sizeof(int32_t), &tokens)) return 0;
    size_t bytes = (3 * flat + grad + stats) * sizeof(real);
    return at_add_size(bytes, act, &bytes) && at_add_size(bytes, tokens, &bytes) ? bytes : 0;
}

at_err at_trainer_init(struct at_trainer *t, const struct at_model *m, const struct at_train_config *config,
                       long microbatch, struct at_diag *diag)
{
    int err = at_train_config_check(config, diag);
    if (err != AT_OK) return err;
    const struct at_params *p = &m->params;
    struct at_trainer n = {.model = m, .config = *config};
    n.microbatch = choose_microbatch(&p->config, config, microbatch);
    size_t tokens = (size_t)config->batch * p->config.seq_len;
    n.theta = malloc(p->count * sizeof(real));
    n.grad = malloc(at_model_grad_count(m) * sizeof(real));
    n.m = malloc(p->count * sizeof(real));
    n.v = malloc(p->count * sizeof(real));
    n.stats = malloc(at_stats_count(p) * sizeof(real));
    n.input = malloc(tokens * sizeof *n.input);
    n.target = malloc(tokens * sizeof *n.target);
    err = at_activations_init(&n.act, m, n.microbatch);
    if (err != AT_OK || n.theta == NULL || n.grad == NULL || n.m == NULL || n.v == NULL || n.stats == NULL ||
        n.input == NULL || n.target == NULL) {
        at_trainer_release(&n);
        return at_fail(diag, AT_E_NOMEM, "trainer", "training needs %zu MB of memory",
                       at_trainer_bytes(&p->config, config, microbatch) >> 20);
    }
    *t = n;
    return AT_OK;
}

void at_trainer_release(struct at_trainer *t)
{
    free(t->theta);
    free(t->grad);
    free(t->m);
    free(t->v);
    free(t->stats);
    free(t->input);
    free(t->target);
    at_activations_release(&t->act);
    *t = (struct at_trainer){0};
}

double at_trainer_gradient(struct at_trainer *t, const struct at_exec *ex, const real *theta)
{
    long batch = t->config.batch, T = t->model->params.config.seq_len;
    real inv = (real)(1.0 / (double)(batch * T));
    double sum = 0;
    memset(t->grad, 0, at_model_grad_count(t->model) * sizeof *t->grad);
    for (long b = 0; b < batch; b += t->microbatch) {
        long n = batch - b < t->microbatch ? batch - b : t->microbatch;
        at_model_forward(ex, t->model, &t->act, theta, t->input + b * T, n);
        at_model_backward(ex, t->model, &t->act, theta, t->input + b * T, t->target + b * T, n, inv, t->grad, &sum);
    }
    at_model_grad_finish(ex, t->model, t->grad);
    return sum;
}

/* Rule 8: per (tensor, slot), slot tree, tensors in canonical order. */
static double gradient_sum_squares(const struct at_trainer *t, const struct at_exec *ex)
{
    const struct at_params *p = &t->model->params;
    double total = 0;
    for (int id = 0; id < p->tensors; id++) {
        double slot[8];
        int S = p->tensor[id].slots;
        for (int s = 0; s < S; s++) {
            const struct at_block *b = at_params_block(p, id, s);
            slot[s] = at_sum_squares(ex, t->grad + b->offset, b->rows, b->cols);
        }
        for (int w = 1; w < S; w *= 2)
            for (int s = 0; s < S; s += 2 * w) slot[s] += slot[s + w];
        total += slot[0];
    }
    return total;
}

static real inv_bias(double beta, uint32_t k)
{
    double power = 1;
    for (uint32_t i = 0; i < k; i++) power *= beta;
    return (real)(1.0 / (1.0 - power));
}

at_err at_trainer_step(struct at_trainer *t, const struct at_exec *ex, uint32_t round, uint32_t k, struct at_diag *diag)
{
    const struct at_train_config *c = &t->config;
    const struct at_params *p = &t->model->params;
    double norm = sqrt(gradient_sum_squares(t, ex));
    if (!isfinite(norm)) return at_trainer_name_culprit(t, ex, diag);
    struct at_adamw opt = {.lr = at_lr(c, round, k - 1),
                           .beta1 = (real)c->beta1,
                           .beta2 = (real)c->beta2,
                           .one_minus_beta1 = (real)(1.0 - c->beta1),
                           .one_minus_beta2 = (real)(1.0 - c->beta2),
                           .inv_bias1 = round == 0 ? inv_bias(c->beta1, k) : 1,
                           .inv_bias2 = round == 0 ? inv_bias(c->beta2, k) : 1,
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
    return AT_OK;
}
