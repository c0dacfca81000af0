#include "parallel/plan_cost.h"

double at_cost_layer_flops(const struct at_model_config *c)
{
    double d = c->d_model, q = (double)c->heads * c->head_size, kv = (double)c->kv_heads * c->head_size;
    return 6 * (2 * d * q + 2 * d * kv + 3 * d * c->d_ff) + 6 * c->seq_len * q;
}

double at_cost_first_flops(const struct at_model_config *c)
{
    return c->tied ? 0 : 2.0 * c->d_model;
}

double at_cost_last_flops(const struct at_model_config *c)
{
    return 6.0 * c->vocab * c->d_model + (c->tied ? 2.0 * c->d_model : 0);
}
