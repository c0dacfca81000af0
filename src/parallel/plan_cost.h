/* plan_cost.h: what a piece of a model costs: floating-point operations, bytes, messages, and the seconds that follow
 * from a machine's measured speed. Pure. Only plans depend on it, never bits.
 *
 * FLOPs are those of training one token, forward and backward, as at_model_flops_per_token counts them (they add up to
 * it), plus two additions per element for the embedding's look-up and gradient. */
#ifndef ATOLL_PARALLEL_PLAN_COST_H
#define ATOLL_PARALLEL_PLAN_COST_H

#include "model/config.h"

/* One layer; what the first stage (embedding of an untied model) and the last stage (head; a tied model's embedding)
 * have besides their layers. */
double at_cost_layer_flops(const struct at_model_config *c);
double at_cost_first_flops(const struct at_model_config *c);
double at_cost_last_flops(const struct at_model_config *c);

#endif
