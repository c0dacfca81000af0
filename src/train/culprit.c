#include "train/culprit.h"

#include "tensor/gemm.h"
#include "tensor/ops.h"
#include "train/trainer_inner.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- places and their order ---- */

struct point {
    enum at_role role;
    enum at_culprit_what what;
};
static const struct point in_layer[] = {
    {AT_ROLE_NORM1, AT_CULPRIT_NORMED}, {AT_ROLE_Q, AT_CULPRIT_PRODUCT},    {AT_ROLE_K, AT_CULPRIT_PRODUCT},
    {AT_ROLE_V, AT_CULPRIT_PRODUCT},    {AT_ROLE_Q, AT_CULPRIT_ATTENTION},  {AT_ROLE_O, AT_CULPRIT_SUM},
    {AT_ROLE_NORM2, AT_CULPRIT_NORMED}, {AT_ROLE_GATE, AT_CULPRIT_PRODUCT}, {AT_ROLE_UP, AT_CULPRIT_PRODUCT},
    {AT_ROLE_UP, AT_CULPRIT_GATED},     {AT_ROLE_DOWN, AT_CULPRIT_SUM},
};
static const struct point at_the_end[] = {{AT_ROLE_NORM_FINAL, AT_CULPRIT_NORMED}, {AT_ROLE_HEAD, AT_CULPRIT_PRODUCT}};
enum { LAYER_POINTS = sizeof in_layer / sizeof in_layer[0], END_POINTS = sizeof at_the_end / sizeof at_the_end[0] };

/* Places are numbered: weights, the points of all sequences, the loss, gradients. */
struct order {
    uint64_t forward, points, loss, gradient; /* first of each; points: of one sequence */
};

static struct order order_of(const struct at_params *p, uint64_t batch)
{
    struct order o = {.forward = (uint64_t)p->numbers,
                      .points = (uint64_t)p->config.layers * LAYER_POINTS + END_POINTS};
    o.loss = o.forward + batch * o.points;
    o.gradient = o.loss + 1;
    return o;
}

static int tensor_of_number(const struct at_params *p, uint64_t number)
{
    int id = 0;
    while (id + 1 < p->tensors && (uint64_t)p->tensor[id + 1].number <= number) id++;
    return id;
}

static struct at_culprit culprit_at(const struct at_params *p, const struct order *o, uint64_t place)
{
    if (place < o->forward)
        return (struct at_culprit){.tensor = (uint32_t)tensor_of_number(p, place), .what = AT_CULPRIT_WEIGHT};
    if (place >= o->gradient)
        return (struct at_culprit){.tensor =
                                       (uint32_t)tensor_of_number(p, (uint64_t)p->numbers - 1 - (place - o->gradient)),
                                   .what = AT_CULPRIT_GRADIENT};
    struct point at = {AT_ROLE_HEAD, AT_CULPRIT_LOSS};
    uint64_t point = (place - o->forward) % o->points, layer = point / LAYER_POINTS;
    if (place < o->loss)
        at = layer < p->config.layers ? in_layer[point % LAYER_POINTS]
                                      : at_the_end[point - (uint64_t)p->config.layers * LAYER_POINTS];
    return (struct at_culprit){.tensor = (uint32_t)at_params_find(p, at.role, (int)layer), .what = at.what};
}

/* ---- the search ---- */

struct search {
    struct at_trainer *t;
    const struct at_exec *ex;
    struct order order;
    uint64_t first; /* the earliest place that this rank has seen; NOWHERE: none */
};
#define NOWHERE UINT64_MAX

static void note(struct search *s, uint64_t place)
{
    if (place < s->first) s->first = place;
}

static bool finite(const struct search *s, const real *x, long n)
{
    return at_all_finite(s->ex, x, n);
}

/* Columns [from, from + width) of each slot of the rows x(N, slots * each), which lie `row` apart. */
static bool finite_part(const real *x, long row, long N, int slots, long each, long from, long width)
{
    for (long i = 0; i < N; i++)
        for (int s = 0; s < slots; s++)
            for (long j = from; j < from + width; j++)
                if (!isfinite(x[i * row + s * each + j])) return false;
    return true;
}

/* The first point of layer l of this rank's stage; LAYER_POINTS: none. x_next: what the layer makes. */
static int point_in_layer(const struct search *s, struct at_activations *a, int l, const real *x_next, long B)
{
    const struct at_model *m = s->t->model;
    const struct at_layer_kept *k = at_stage_kept(s->ex, m, a, s->t->theta, l, B);
    const struct at_heads *h = &m->heads; /* of the shard */
    int S = m->params.shard.slots;
    long N = B * (long)m->params.config.seq_len, d = m->params.config.d_model;
    long ff = m->params.config.d_ff / m->params.slots; /* of a slot */
    long each = at_heads_slot(h), row = S * each, gu_row = at_gemm_row(S * 2 * ff), q = h->heads / S * h->head_size,
         kv = h->kv_heads / S * h->head_size;
    if (!finite(s, k->norm1, N * d)) return 0;
    if (!finite_part(k->qkv, row, N, S, each, 0, q)) return 1;
    if (!finite_part(k->qkv, row, N, S, each, q, kv)) return 2;
    if (!finite_part(k->qkv, row, N, S, each, q + kv, kv)) return 3;
    if (!finite(s, k->attention, N * h->heads * h->head_size)) return 4;
    if (!finite(s, k->x_mid, N * d)) return 5;
    if (!finite(s, k->norm2, N * d)) return 6;
    if (!finite_part(k->gate_up, gu_row, N, S, 2 * ff, 0, ff)) return 7;
    if (!finite_part(k->gate_up, gu_row, N, S, 2 * ff, ff, ff)) return 8;
    if (!finite_part(k->hidden, at_gemm_row(S * ff), N, S, ff, 0, ff)) return 9;
    if (!finite(s, x_next, N * d)) return 10;
    return LAYER_POINTS;
}

/* What this rank computes of one sequence, its activations just made. */
static void look(void *arg, long sequence, struct at_activations *a)
{
    struct search *s = arg;
    const struct at_params *p = &s->t->model->params;
    int layers = p->shard.layers;
    long T = p->config.seq_len;
    uint64_t base = s->order.forward + (uint64_t)sequence * s->order.points;
    if (s->first < base) return;
    for (int l = 0; l < layers; l++) {
        int at = point_in_layer(s, a, l, l + 1 < layers ? a->layer[l + 1].x : a->x_last, 1);
        if (at == LAYER_POINTS) continue;
        note(s, base + (uint64_t)(p->shard.layer_first + l) * LAYER_POINTS + (uint64_t)at);
        return;
    }
    if (!at_shard_is_last(p)) return;
    base += (uint64_t)p->config.layers * LAYER_POINTS;
    if (!finite(s, a->pass->norm_last, T * p->config.d_model))
        note(s, base);
    else if (!finite(s, a->pass->logits, T * at_shard_vocab(p)))
        note(s, base + 1);
}

/* Weights, from the first place on; or gradients, whose places run from the last block to the first. */
static void look_at_blocks(struct search *s, const real *flat, bool gradients)
{
    const struct at_params *p = &s->t->model->params;
    for (int i = 0; i < p->blocks; i++) {
        const struct at_block *b = &p->block[i];
        uint64_t n = (uint64_t)at_block_number(p, b);
        uint64_t place = gradients ? s->order.gradient + (uint64_t)p->numbers - 1 - n : n;
        if (place < s->first && !finite(s, flat + b->offset, (long)at_block_count(b))) note(s, place);
    }
}

/* Sequence by sequence, so that the first one is named whatever the microbatch. */
static at_err forward_alone(struct search *s, double *ret_sum)
{
    struct at_trainer *t = s->t;
    long T = t->model->params.config.seq_len;
    for (long b = 0; b < (long)t->config.batch && s->first == NOWHERE; b++) {
        at_model_forward(s->ex, t->model, t->act, t->theta, t->input + b * T, 1);
        look(s, b, t->act);
        at_model_loss(s->ex, t->model, t->act, t->target + b * T, 1, ret_sum);
    }
    return AT_OK;
}

/* The earliest place that any rank of the replica saw. Each writes its own where the tensor's block is that it answers
 * for; who holds a gain without answering for it has seen nothing that another did not. */
static at_err agree(struct search *s, struct at_diag *diag)
{
    struct at_trainer *t = s->t;
    const struct at_params *p = &t->model->params;
    memset(t->step, 0, at_step_values(p) * sizeof *t->step);
    int tensor = s->first == NOWHERE ? -1 : (int)culprit_at(p, &s->order, s->first).tensor;
    for (int i = 0; i < p->blocks; i++) {
        if (p->block[i].tensor != tensor || !at_params_owns(p, &p->block[i])) continue;
        t->step[at_block_number(p, &p->block[i])] = (double)(s->first + 1);
        break;
    }
    at_err_t err = at_gather_run(&t->replica->gather, t->step, at_step_values(p), diag);
    s->first = NOWHERE;
    for (int i = 0; err == AT_OK && i < p->numbers; i++)
        if (t->step[i] != 0) note(s, (uint64_t)t->step[i] - 1);
    return err;
}

at_err_t at_culprit_find(struct at_trainer *t, const struct at_exec *ex, struct at_diag *diag,
                         struct at_culprit *ret_culprit)
{
    const struct at_replica *r = t->replica;
    const struct at_params *p = &t->model->params;
    struct search s = {.t = t, .ex = ex, .order = order_of(p, t->config.batch), .first = NOWHERE};
    double sum = 0;
    look_at_blocks(&s, t->theta, false);
    at_err_t err = r == NULL ? forward_alone(&s, &sum) : r->forward(r->arg, t, ex, t->theta, look, &s, &sum, diag);
    if (err != AT_OK) return err;
    if (!isfinite(sum)) note(&s, s.order.loss);
    look_at_blocks(&s, t->grad, true);
    if (r != NULL && (err = agree(&s, diag)) != AT_OK) return err;
    *ret_culprit = s.first == NOWHERE ? (struct at_culprit){.what = AT_CULPRIT_NORM} : culprit_at(p, &s.order, s.first);
    return AT_E_NONFINITE;
}

/* ---- the words ---- */

at_err_t at_culprit_tell(const struct at_params *p, const struct at_culprit *culprit, int replica, struct at_diag *diag)
{
    static const char *const words[] = {
        [AT_CULPRIT_NORM] = "the gradient's norm",
        [AT_CULPRIT_WEIGHT] = "a weight",
        [AT_CULPRIT_NORMED] = "the norm's output",
        [AT_CULPRIT_PRODUCT] = "the product with it",
        [AT_CULPRIT_ATTENTION] = "the attention of its queries",
        [AT_CULPRIT_SUM] = "the sum with its product",
        [AT_CULPRIT_GATED] = "the gated product with it",
        [AT_CULPRIT_LOSS] = "the loss of its logits",
        [AT_CULPRIT_GRADIENT] = "its gradient",
        [AT_CULPRIT_MADE_WEIGHT] = "a weight",
        [AT_CULPRIT_MADE_STATISTIC] = "a statistic",
    };
    bool known = culprit->what < sizeof words / sizeof words[0] && culprit->tensor < (uint32_t)p->tensors;
    bool made = known && culprit->what >= AT_CULPRIT_MADE_WEIGHT;
    char who[32] = "";
    if (replica >= 0) snprintf(who, sizeof who, "replica %d, ", replica);
    const char *what = known ? words[culprit->what] : "a value";
    uint32_t round = culprit->round + 1, step = culprit->step - (made ? 1 : 0);
    if (!known || culprit->what == AT_CULPRIT_NORM)
        return at_fail(diag, AT_E_NONFINITE, "gradient", "%s is not finite (%sround %u, step %u)", what, who, round,
                       step);
    int tensor = (int)culprit->tensor;
    return at_fail(diag, AT_E_NONFINITE, at_tensor_name(p, tensor).s, "%s: %s is not finite (%sround %u, %sstep %u)",
                   at_tensor_place(p, tensor).s, what, who, round, made ? "after " : "", step);
}
