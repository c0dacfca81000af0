/* stages.h: how a model is cut into pipeline stages when nothing is known of who computes them: runs of consecutive
 * layers that cost about the same, embedding and head counted. Pure, integers only. Exact: yes: everybody who knows the
 * model and the number of stages knows the cut, and how much work each stage is. */
#ifndef ATOLL_MODEL_STAGES_H
#define ATOLL_MODEL_STAGES_H

#include "model/config.h"

#define AT_STAGES_MAX 16 /* of a replica whose members are cut by this rule */

/* FLOPs of a token, forward and backward: of one layer; of what the first and the last stage do besides (looking tokens
 * up, the head). Lookups are no matrix products: they count for the cut only. */
uint64_t at_stage_layer_flops(const struct at_model_config *c);
uint64_t at_stage_first_flops(const struct at_model_config *c);
uint64_t at_stage_last_flops(const struct at_model_config *c);

/* ret_layers[stages]: layers of each stage, each at least 1; 1 <= stages <= c->layers. Each stage starts with one layer; each
 * further one goes where the stage is the least costly with it. As layers cost the same, this gives the least slowest
 * stage. Ties go to the later stage, which keeps fewer microbatches. */
void at_stages_cut(const struct at_model_config *c, int stages, int *ret_layers);

/* The part of stage `stage` in at_model_flops_per_token: the stages' parts add up to that. stages <= AT_STAGES_MAX. What it
 * holds: at_stage_shard (params.h). */
uint64_t at_stage_flops_per_token(const struct at_model_config *c, int stages, int stage);

#endif
