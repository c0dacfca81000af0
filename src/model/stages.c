#include "model/stages.h"

#include "base/bytes.h"
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

/* The stage that is the least costly with one more layer; later ones first. False: none has room for it. */
static bool next_layer(const struct at_model_config *c, int stages, const int *layers, const uint32_t *speed,
                       const uint32_t *most, int *ret_stage)
{
    uint64_t layer = at_stage_layer_flops(c), first = at_stage_first_flops(c), last = at_stage_last_flops(c), least = 0;
    int best = -1;
    for (int s = stages - 1; s >= 0; s--) {
        uint64_t cost = (uint64_t)layers[s] * layer + (s == 0 ? first : 0) + (s == stages - 1 ? last : 0);
        if (most && (uint32_t)layers[s] >= most[s]) continue;
        bool less = best < 0 || (speed ? (at_u128)cost * speed[best] < (at_u128)least * speed[s] : cost < least);
        if (!less) continue;
        best = s;
        least = cost;
    }
    *ret_stage = best;
    return best >= 0;
}

void at_stages_cut(const struct at_model_config *c, int stages, int *ret_layers)
{
    AT_ASSERT(stages >= 1 && (uint32_t)stages <= c->layers);
    for (int s = 0; s < stages; s++) ret_layers[s] = 1;
    for (uint32_t left = c->layers - (uint32_t)stages; left > 0; left--) {
        int s = 0;
        AT_ASSERT(next_layer(c, stages, ret_layers, NULL, NULL, &s));
        ret_layers[s]++;
    }
}

bool at_stage_cut_by(const struct at_model_config *c, int stages, const uint32_t *speed, const uint32_t *most,
                     struct at_stage_cut *ret_cut)
{
    int layers[AT_STAGES_MAX];
    AT_ASSERT(stages >= 1 && stages <= AT_STAGES_MAX && (uint32_t)stages <= c->layers);
    for (int s = 0; s < stages; s++) {
        if (most && most[s] == 0) return false;
        layers[s] = 1;
    }
    for (uint32_t left = c->layers - (uint32_t)stages; left > 0; left--) {
        int s = 0;
        if (!next_layer(c, stages, layers, speed, most, &s)) return false;
        layers[s]++;
    }
    *ret_cut = (struct at_stage_cut){.stages = (uint16_t)stages};
    for (int s = 0; s < stages; s++) ret_cut->layers[s] = (uint16_t)layers[s];
    return true;
}

uint64_t at_stage_cut_flops(const struct at_model_config *c, const struct at_stage_cut *cut, int stage)
{
    AT_ASSERT(stage >= 0 && stage < cut->stages);
    uint64_t head = stage == cut->stages - 1 ? 6 * (uint64_t)c->vocab * c->d_model : 0;
    return cut->layers[stage] * at_stage_layer_flops(c) + head;
}

struct at_shard at_stage_cut_shard(const struct at_model_config *c, const struct at_stage_cut *cut, int stage)
{
    struct at_shard shard = at_shard_whole(c);
    AT_ASSERT(stage >= 0 && stage < cut->stages);
    shard.layer_first = 0;
    for (int s = 0; s < stage; s++) shard.layer_first += cut->layers[s];
    shard.layers = cut->layers[stage];
    return shard;
}

int at_stage_microbatches(uint32_t batch, int stages)
{
    return (uint32_t)(2 * stages) < batch ? 2 * stages : (int)batch;
}

uint64_t at_stage_bytes(const struct at_model_config *c, uint32_t batch, int stages, uint32_t layers, bool first,
                        bool last)
{
    uint64_t d = c->d_model, q = (uint64_t)c->heads * c->head_size, kv = (uint64_t)c->kv_heads * c->head_size;
    uint64_t matrix = (uint64_t)at_model_vocab_padded(c) * d, layer = 2 * d * q + 2 * d * kv + 3 * d * c->d_ff + 2 * d;
    uint64_t m = (uint64_t)at_stage_microbatches(batch, stages), tokens = (batch + m - 1) / m * c->seq_len;
    uint64_t params = layers * layer + (first && !c->tied ? matrix : 0) + (last ? matrix : 0);
    uint64_t kept = layers * (4 * d + 2 * q + 2 * kv + 3 * (uint64_t)c->d_ff); /* of a token; 4 bytes each */
    uint64_t logits = last ? 2 * 4 * tokens * at_model_vocab_padded(c) : 0;
    return 24 * params + 4 * tokens * kept * (uint64_t)stages + logits + ((uint64_t)24 << 20);
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
