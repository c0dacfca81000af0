#include "parallel/plan_cost.h"

#include "model/stages.h"
#include "parallel/exchange.h"

double at_cost_layer_flops(const struct at_model_config *c)
{
    return (double)at_stage_layer_flops(c);
}

double at_cost_first_flops(const struct at_model_config *c)
{
    return (double)at_stage_first_flops(c);
}

double at_cost_last_flops(const struct at_model_config *c)
{
    return (double)at_stage_last_flops(c);
}

void at_cost_init(struct at_cost *c, const struct at_model_config *model, uint32_t batch, int microbatches,
                  const struct at_cost_exchange *exchange, bool recompute)
{
    double d = model->d_model, q = (double)model->heads * model->head_size;
    double kv = (double)model->kv_heads * model->head_size, ff = model->d_ff, heads = model->heads;
    double matrix = (double)at_model_vocab_padded(model) * d;
    AT_ASSERT(microbatches >= 1 && (uint32_t)microbatches <= batch);
    *c = (struct at_cost){
        .model = *model,
        .exchange = *exchange,
        .recompute = recompute,
        .replicas = 1,
        .layers = (int)model->layers,
        .slots = at_model_slots(model),
        .microbatches = microbatches,
        .sequences = (double)((batch + (uint32_t)microbatches - 1) / (uint32_t)microbatches),
        .step_tokens = (double)batch * model->seq_len,
        .layer_flops = at_cost_layer_flops(model),
        .first_flops = at_cost_first_flops(model),
        .last_flops = at_cost_last_flops(model),
        .layer_params = 2 * d * q + 2 * d * kv + 3 * d * ff,
        .layer_gains = 2 * d,
        .first_params = model->tied ? 0 : matrix,
        .last_params = matrix,
        .layer_kept = q + 2 * kv + 2 * heads + q + 3 * ff, /* qkv, row max and sum, attention, gate-up, hidden */
        .inputs_kept = 4 * d + 2,                          /* x, norm1, x_mid, norm2 and their 1/rms */
    };
    c->tokens = c->sequences * model->seq_len;
}

double at_cost_work_per_gflop(void)
{
    const struct at_preset *p;
    struct at_cost c;
    struct at_cost_exchange none = {0};
    if (at_preset_find("10m", NULL, &p) != AT_OK) AT_ASSERT(false);
    at_cost_init(&c, &p->model, p->train.batch, 1, &none, false);
    return 1e9 * at_cost_step_work(&c) / (c.step_tokens * (double)at_model_flops_per_token(&p->model));
}

double at_cost_params(const struct at_cost *c, int layers, int tp, bool first, bool last)
{
    double outside = (first ? c->first_params : 0) + (last ? c->last_params : 0);
    return (layers * c->layer_params + outside) / tp + layers * c->layer_gains + (last ? c->model.d_model : 0);
}

/* Statistics of second moments: a row mean and a column mean per (tensor, slot), about rows + slots * cols elements. */
static double layer_statistics(const struct at_cost *c)
{
    const struct at_model_config *m = &c->model;
    double q = (double)m->heads * m->head_size, kv = (double)m->kv_heads * m->head_size;
    return q + 2 * kv + 2.0 * m->d_ff + q + m->d_ff + 7.0 * c->slots * m->d_model + 2.0 * m->d_model;
}

static double most(double a, double b)
{
    return a > b ? a : b;
}

/* Parameters of two fragments: of so many bytes of binary32, or one block; the vocabulary's blocks may be larger. */
static double fragment_params(const struct at_cost *c, int tp, bool first, bool last)
{
    const struct at_model_config *m = &c->model;
    double d = m->d_model, q = (double)m->heads * m->head_size;
    double usual = most(most(d * m->d_ff, d * q) / c->slots, (double)AT_EXCHANGE_FRAGMENT_BYTES / 4);
    double vocab = most(usual, c->last_params / c->slots);
    int held = ((first && c->first_params > 0 ? 1 : 0) + (last ? 1 : 0)) * c->slots / tp;
    return held == 0 ? 2 * usual : held == 1 ? usual + vocab : 2 * vocab;
}

/* Both are linear in `layers`: whole, with room for whole updates, and for fragments; the smaller one is needed. */
static double bytes_of(const struct at_cost *c, bool whole, int layers, int tp, bool first, bool last, int in_flight)
{
    const struct at_model_config *m = &c->model;
    double d = m->d_model, real_bytes = 4, V = at_model_vocab_padded(m);
    double params = at_cost_params(c, layers, tp, first, last);
    double room = whole ? params : fragment_params(c, tp, first, last);
    double bytes = params * c->exchange.memory_per_param + c->replicas * room * c->exchange.blob_per_param;
    bytes += 2 * real_bytes * layers * layer_statistics(c) / tp;
    if (first || last) bytes += 2 * real_bytes * (V + c->slots * d) / tp * ((first && !m->tied) + last);
    if (last && m->tied) bytes += real_bytes * c->last_params / tp; /* the head's gradient has its own accumulator */
    double kept = c->recompute ? 2 * d : c->inputs_kept + c->layer_kept / tp; /* a token and layer */
    double width = (double)m->heads * m->head_size + 2.0 * m->kv_heads * m->head_size;
    if (width < m->d_ff) width = m->d_ff;
    bytes += real_bytes * c->tokens * in_flight * (layers * kept + (last ? 2 * d + 1 : d));
    bytes += real_bytes * c->tokens * (2 * d + width / tp + (last ? V / tp + 2 : 0));
    if (c->recompute) bytes += real_bytes * c->tokens * (c->inputs_kept + c->layer_kept / tp);
    double buffers = first && last ? 0 : first && !m->tied ? 1 : 2; /* of inputs and gradients on their way */
    if (last && !first && m->tied) buffers += 1 + (c->microbatches < 4 ? c->microbatches : 4); /* looked-up rows */
    bytes += real_bytes * c->tokens * d * buffers;
    bytes += tp > 1 ? real_bytes * c->tokens * d : 0; /* what arrives in an all-reduce */
    return bytes + AT_COST_PROCESS;
}

double at_cost_bytes(const struct at_cost *c, int layers, int tp, bool first, bool last, int in_flight)
{
    double whole = bytes_of(c, true, layers, tp, first, last, in_flight);
    double parts = c->exchange.fragments ? bytes_of(c, false, layers, tp, first, last, in_flight) : whole;
    return parts < whole ? parts : whole;
}

double at_cost_layers_in(const struct at_cost *c, double memory, int tp, bool first, bool last, int in_flight)
{
    double best = 0;
    for (int whole = c->exchange.fragments ? 0 : 1; whole < 2; whole++) {
        double none = bytes_of(c, whole != 0, 0, tp, first, last, in_flight);
        double each = bytes_of(c, whole != 0, 1, tp, first, last, in_flight) - none;
        best = most(best, (memory - none) / each);
    }
    return best;
}

double at_cost_layer_work(const struct at_cost *c, int tp)
{
    return c->tokens * (c->layer_flops / tp + AT_COST_ROWS * c->model.d_model) + c->layer_params / tp * AT_COST_PACKING;
}

double at_cost_first_work(const struct at_cost *c, int tp)
{
    return c->tokens * c->first_flops / tp;
}

double at_cost_last_work(const struct at_cost *c, int tp)
{
    return c->tokens * c->last_flops / tp + c->last_params / tp * AT_COST_PACKING;
}

double at_cost_step_work(const struct at_cost *c)
{
    double microbatch = c->layers * at_cost_layer_work(c, 1) + at_cost_first_work(c, 1) + at_cost_last_work(c, 1);
    return c->microbatches * microbatch + AT_COST_OPTIMIZER * at_cost_params(c, c->layers, 1, true, true);
}

double at_cost_boundary_bytes(const struct at_cost *c)
{
    return c->tokens * c->model.d_model * 4;
}
