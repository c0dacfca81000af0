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

/* A cut that somebody has chosen: so many stages of so many layers. */
struct at_stage_cut {
    uint16_t stages, layers[AT_STAGES_MAX];
};
/* The cut for members of unlike speed: as at_stages_cut, which it is where all speeds are the same, but a stage's cost is
 * what it takes its member. speed[stages]: work a second, in any unit, not 0; below 2^32. most[stages]: layers that a stage has room for;
 * NULL: no bounds. False: they have not room for all layers together, or one has none. stages <= AT_STAGES_MAX. */
bool at_stage_cut_by(const struct at_model_config *c, int stages, const uint32_t *speed, const uint32_t *most,
                     struct at_stage_cut *ret_cut);
/* As at_stage_flops_per_token, of this cut. What a stage of it holds: at_stage_cut_shard (params.h). */
uint64_t at_stage_cut_flops(const struct at_model_config *c, const struct at_stage_cut *cut, int stage);

/* Microbatches of a step whose stages members compute: twice as many as stages keep most of them busy (a bubble of a
 * third); more messages would be smaller. */
int at_stage_microbatches(uint32_t batch, int stages);
/* About what such a member needs, in bytes: weights, public weights, gradient, moments and an update; the activations of
 * as many microbatches as there are stages; the program. For plans, not for refusals. Roles of a run follow from both (ledger/roles.h): to change
 * them is to change what a log of such a run means. */
uint64_t at_stage_bytes(const struct at_model_config *c, uint32_t batch, int stages, uint32_t layers, bool first,
                        bool last);

/* The part of stage `stage` in at_model_flops_per_token: the stages' parts add up to that. stages <= AT_STAGES_MAX. What it
 * holds: at_stage_shard (params.h). */
uint64_t at_stage_flops_per_token(const struct at_model_config *c, int stages, int stage);

#endif
