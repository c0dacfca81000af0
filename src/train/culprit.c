/* Naming the tensor that made a step's numbers overflow. Slow, and run once: the step is refused. */
#include "train/culprit.h"

#include "tensor/ops.h"
#include "train/trainer_inner.h"

#include <math.h>

struct search {
    struct at_trainer *t;
    const struct at_exec *ex;
    struct at_diag *diag;
};

/* True when it is found: says so in diag. */
static bool blame(const struct search *s, enum at_role role, int layer, const char *what)
{
    const struct at_params *p = &s->t->model->params;
    int tensor = at_params_find(p, role, layer);
    (void)at_fail(s->diag, AT_E_NONFINITE, at_tensor_name(p, tensor).s, "%s: %s is not finite",
                  at_tensor_place(p, tensor).s, what);
    return true;
}

static bool finite(const struct search *s, const real *x, long n)
{
    return at_all_finite(s->ex, x, n);
}

/* Columns [from, from + width) of each slot of the rows x(N, slots * each). */
static bool finite_part(const real *x, long N, int slots, long each, long from, long width)
{
    for (long i = 0; i < N * slots; i++)
        for (long j = from; j < from + width; j++)
            if (!isfinite(x[i * each + j])) return false;
    return true;
}

/* Weights; or, from the last to the first as backward makes them, gradients. */
static bool in_blocks(const struct search *s, const real *flat, bool backwards, const char *what)
{
    const struct at_params *p = &s->t->model->params;
    for (int i = 0; i < p->blocks; i++) {
        const struct at_block *b = &p->block[backwards ? p->blocks - 1 - i : i];
        const struct at_tensor *t = &p->tensor[b->tensor];
        if (!finite(s, flat + b->offset, (long)at_block_count(b))) return blame(s, t->role, t->layer, what);
    }
    return false;
}

static bool in_layer(const struct search *s, int l, long N)
{
    const struct at_model *m = s->t->model;
    const struct at_layer_kept *k = at_stage_kept(s->ex, m, s->t->act, s->t->theta, l, N / m->params.config.seq_len);
    const struct at_heads *h = &m->heads;
    int S = m->params.slots;
    long d = m->params.config.d_model, ff = m->params.config.d_ff, hd = h->head_size;
    long each = at_heads_slot(h), q = h->heads / S * hd, kv = h->kv_heads / S * hd;
    if (!finite(s, k->norm1, N * d)) return blame(s, AT_ROLE_NORM1, l, "the norm's output");
    if (!finite_part(k->qkv, N, S, each, 0, q)) return blame(s, AT_ROLE_Q, l, "the product with it");
    if (!finite_part(k->qkv, N, S, each, q, kv)) return blame(s, AT_ROLE_K, l, "the product with it");
    if (!finite_part(k->qkv, N, S, each, q + kv, kv)) return blame(s, AT_ROLE_V, l, "the product with it");
    if (!finite(s, k->attention, N * h->heads * hd)) return blame(s, AT_ROLE_Q, l, "the attention of its queries");
    if (!finite(s, k->x_mid, N * d)) return blame(s, AT_ROLE_O, l, "the sum with its product");
    if (!finite(s, k->norm2, N * d)) return blame(s, AT_ROLE_NORM2, l, "the norm's output");
    if (!finite_part(k->gate_up, N, S, 2 * ff / S, 0, ff / S)) return blame(s, AT_ROLE_GATE, l, "the product with it");
    if (!finite_part(k->gate_up, N, S, 2 * ff / S, ff / S, ff / S))
        return blame(s, AT_ROLE_UP, l, "the product with it");
    if (!finite(s, k->hidden, N * ff)) return blame(s, AT_ROLE_UP, l, "the gated product with it");
    return false;
}

/* One microbatch, its activations just computed. */
static bool in_forward(const struct search *s, long N)
{
    const struct at_params *p = &s->t->model->params;
    const struct at_activations *a = s->t->act;
    int layers = (int)p->config.layers;
    long d = p->config.d_model;
    for (int l = 0; l < layers; l++) {
        if (in_layer(s, l, N)) return true;
        if (!finite(s, l + 1 < layers ? a->layer[l + 1].x : a->x_last, N * d))
            return blame(s, AT_ROLE_DOWN, l, "the sum with its product");
    }
    if (!finite(s, a->pass->norm_last, N * d)) return blame(s, AT_ROLE_NORM_FINAL, 0, "the norm's output");
    if (!finite(s, a->pass->logits, N * p->vocab_padded)) return blame(s, AT_ROLE_HEAD, 0, "the product with it");
    return false;
}

static bool search(const struct search *s)
{
    struct at_trainer *t = s->t;
    long batch = t->config.batch, T = t->model->params.config.seq_len;
    double sum = 0;
    if (in_blocks(s, t->theta, false, "a weight")) return true;
    for (long b = 0; b < batch; b++) { /* sequence by sequence: the first one is named, whatever the microbatch */
        at_model_forward(s->ex, t->model, t->act, t->theta, t->input + b * T, 1);
        if (in_forward(s, T)) return true;
        at_model_loss(s->ex, t->model, t->act, t->target + b * T, 1, &sum);
    }
    if (!isfinite(sum)) return blame(s, AT_ROLE_HEAD, 0, "the loss of its logits");
    return in_blocks(s, t->grad, true, "its gradient");
}

/* Every rank of a split replica has the same gathered squares, so all say the same. */
static bool in_gathered(const struct search *s)
{
    const struct at_params *p = &s->t->model->params;
    for (int id = 0; id < p->tensors; id++)
        for (int slot = 0; slot < p->tensor[id].slots; slot++)
            if (!isfinite(s->t->step[p->tensor[id].number + slot]))
                return blame(s, p->tensor[id].role, p->tensor[id].layer, "its gradient");
    return !isfinite(*at_step_loss(s->t)) && blame(s, AT_ROLE_HEAD, 0, "the loss of its logits");
}

at_err_t at_trainer_name_culprit(struct at_trainer *t, const struct at_exec *ex, struct at_diag *diag)
{
    struct search s = {t, ex, diag};
    if (!(t->replica == NULL ? search(&s) : in_gathered(&s)))
        (void)at_fail(diag, AT_E_NONFINITE, "gradient", "the gradient's norm is not finite");
    return AT_E_NONFINITE;
}
