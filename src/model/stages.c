#include "model/stages.h"

#include "model/params.h"

uint64_t at_stage_layer_flops(const struct at_model_config *c)
{
    uint64_t d = c->d_model, q = (uint64_t)c->heads * c->head_size, kv = (uint64_t)c->kv_heads * c->head_size;
    return 6 * (2 * d * q + 2 * d * kv + 3 * d * c->d_ff) + 6 * c->seq_len * q;
}

uint64_t at_stage_first_flops(const struct at_model_config *c)
{
    return c->tied ? 0 : 2 * (uint64_t)c->d_model;
}

uint64_t at_stage_last_flops(const struct at_model_config *c)
{
    return 6 * (uint64_t)c->vocab * c->d_model + (c->tied ? 2 * (uint64_t)c->d_model : 0);
}

void at_stages_cut(const struct at_model_config *c, int stages, int *ret_layers)
{
    uint64_t layer = at_stage_layer_flops(c), first = at_stage_first_flops(c), last = at_stage_last_flops(c);
    AT_ASSERT(stages >= 1 && (uint32_t)stages <= c->layers);
    for (int s = 0; s < stages; s++) ret_layers[s] = 1;
    for (uint32_t left = c->layers - (uint32_t)stages; left > 0; left--) {
        int best = stages - 1;
        uint64_t least = 0;
        for (int s = stages - 1; s >= 0; s--) {
            uint64_t cost = (uint64_t)ret_layers[s] * layer + (s == 0 ? first : 0) + (s == stages - 1 ? last : 0);
            if (s < stages - 1 && cost >= least) continue;
            best = s;
            least = cost;
        }
        ret_layers[best]++;
    }
}

struct at_shard at_stage_shard(const struct at_model_config *c, int stages, int stage)
{
    int layers[AT_STAGES_MAX], before = 0;
    AT_ASSERT(stages <= AT_STAGES_MAX && stage >= 0 && stage < stages);
    at_stages_cut(c, stages, layers);
    for (int s = 0; s < stage; s++) before += layers[s];
    struct at_shard shard = at_shard_whole(c);
    shard.layer_first = before;
    shard.layers = layers[stage];
    return shard;
}

uint64_t at_stage_flops_per_token(const struct at_model_config *c, int stages, int stage)
{
    int layers[AT_STAGES_MAX];
    AT_ASSERT(stages <= AT_STAGES_MAX && stage >= 0 && stage < stages);
    at_stages_cut(c, stages, layers);
    uint64_t head = stage == stages - 1 ? 6 * (uint64_t)c->vocab * c->d_model : 0;
    return (uint64_t)layers[stage] * at_stage_layer_flops(c) + head;
}
