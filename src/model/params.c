#include "model/params.h"

#include "base/rng.h"
#include "tensor/emath.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS_MAX = 8, LAYER_TENSORS = 9 };

static struct at_tensor make_tensor(const struct at_params *p, enum at_role role, int layer)
{
    const struct at_model_config *c = &p->config;
    long d = c->d_model, q = (long)c->heads * c->head_size, kv = (long)c->kv_heads * c->head_size;
    struct at_tensor t = {.role = role, .layer = layer, .rows = 1, .cols = d, .slots = p->slots};
    switch (role) {
    case AT_ROLE_EMBEDDING:
    case AT_ROLE_HEAD:
        t.rows = p->vocab_padded;
        break;
    case AT_ROLE_Q:
        t.rows = q;
        break;
    case AT_ROLE_K:
    case AT_ROLE_V:
        t.rows = kv;
        break;
    case AT_ROLE_GATE:
    case AT_ROLE_UP:
        t.rows = c->d_ff;
        break;
    case AT_ROLE_O:
    case AT_ROLE_DOWN:
        t.rows = d;
        t.cols = role == AT_ROLE_O ? q : (long)c->d_ff;
        t.split_cols = true;
        break;
    case AT_ROLE_NORM1:
    case AT_ROLE_NORM2:
    case AT_ROLE_NORM_FINAL:
        t.slots = 1;
        break;
    }
    t.rows_used = role == AT_ROLE_EMBEDDING || role == AT_ROLE_HEAD ? (long)c->vocab : t.rows;
    return t;
}

bool at_shard_holds(const struct at_params *p, const struct at_shard *shard, int tensor, int slot)
{
    const struct at_tensor *t = &p->tensor[tensor];
    bool first = shard->layer_first == 0, last = shard->layer_first + shard->layers == (int)p->config.layers;
    if (t->slots > 1 && (slot < shard->slot_first || slot >= shard->slot_first + shard->slots)) return false;
    switch (t->role) {
    case AT_ROLE_EMBEDDING:
        return p->config.tied ? last : first;
    case AT_ROLE_NORM_FINAL:
    case AT_ROLE_HEAD:
        return last;
    default:
        return t->layer >= shard->layer_first && t->layer < shard->layer_first + shard->layers;
    }
}

static bool answers_for(const struct at_params *p, const struct at_shard *shard, int tensor)
{
    return shard->slot_first == 0 || !at_role_is_gain(p->tensor[tensor].role);
}

bool at_shard_owns(const struct at_params *p, const struct at_shard *shard, int tensor, int slot)
{
    return at_shard_holds(p, shard, tensor, slot) && answers_for(p, shard, tensor);
}

static void add_block(struct at_params *p, int tensor, int slot)
{
    const struct at_tensor *t = &p->tensor[tensor];
    if (!at_shard_holds(p, &p->shard, tensor, slot)) {
        p->block_of[tensor * SLOTS_MAX + slot] = -1;
        return;
    }
    struct at_block *b = &p->block[p->blocks];
    *b = (struct at_block){.tensor = tensor,
                           .slot = slot,
                           .rows = t->split_cols ? t->rows : t->rows / t->slots,
                           .cols = t->split_cols ? t->cols / t->slots : t->cols,
                           .offset = p->count};
    p->block_of[tensor * SLOTS_MAX + slot] = p->blocks++;
    p->count += at_block_count(b);
}

/* Lays `n` tensors from id `first` into memory together: slot by slot, within a slot one tensor after the other. */
static void add_fused(struct at_params *p, int first, int n)
{
    for (int s = 0; s < p->tensor[first].slots; s++)
        for (int i = 0; i < n; i++) add_block(p, first + i, s);
}

static void lay_out(struct at_params *p)
{
    add_fused(p, 0, 1);
    for (int l = 0; l < (int)p->config.layers; l++) {
        int id = 1 + l * LAYER_TENSORS;
        add_fused(p, id, 1);     /* norm1 */
        add_fused(p, id + 1, 3); /* q k v */
        add_fused(p, id + 4, 1); /* o */
        add_fused(p, id + 5, 1); /* norm2 */
        add_fused(p, id + 6, 2); /* gate up */
        add_fused(p, id + 8, 1); /* down */
    }
    for (int id = 1 + (int)p->config.layers * LAYER_TENSORS; id < p->tensors; id++) add_fused(p, id, 1);
}

struct at_shard at_shard_whole(const struct at_model_config *config)
{
    return (struct at_shard){.slots = at_model_slots(config), .layers = (int)config->layers};
}

static void check_shard(const struct at_params *p)
{
    const struct at_shard *s = &p->shard;
    AT_ASSERT(s->slots >= 1 && (s->slots & (s->slots - 1)) == 0 && s->slot_first >= 0);
    AT_ASSERT(s->slot_first % s->slots == 0 && s->slot_first + s->slots <= p->slots);
    AT_ASSERT(s->layers >= 1 && s->layer_first >= 0 && s->layer_first + s->layers <= (int)p->config.layers);
}

static void make_tensors(struct at_params *p)
{
    int id = 0, layers = (int)p->config.layers;
    p->tensor[id++] = make_tensor(p, AT_ROLE_EMBEDDING, -1);
    for (int l = 0; l < layers; l++)
        for (int i = 0; i < LAYER_TENSORS; i++) p->tensor[id++] = make_tensor(p, (enum at_role)(AT_ROLE_NORM1 + i), l);
    p->tensor[id++] = make_tensor(p, AT_ROLE_NORM_FINAL, -1);
    if (!p->config.tied) p->tensor[id++] = make_tensor(p, AT_ROLE_HEAD, -1);
    AT_ASSERT(id == p->tensors);
    for (id = 0; id < p->tensors; id++) {
        p->tensor[id].number = p->numbers;
        p->numbers += p->tensor[id].slots;
    }
}

at_err at_params_init_shard(struct at_params *p, const struct at_model_config *config, const struct at_shard *shard)
{
    struct at_params n = {.config = *config,
                          .shard = *shard,
                          .slots = at_model_slots(config),
                          .vocab_padded = at_model_vocab_padded(config)};
    check_shard(&n);
    n.tensors = 1 + LAYER_TENSORS * (int)config->layers + 1 + (config->tied ? 0 : 1);
    n.tensor = calloc((size_t)n.tensors, sizeof *n.tensor);
    n.block = calloc((size_t)n.tensors * SLOTS_MAX, sizeof *n.block);
    n.block_of = calloc((size_t)n.tensors * SLOTS_MAX, sizeof *n.block_of);
    if (n.tensor == NULL || n.block == NULL || n.block_of == NULL) {
        at_params_release(&n);
        return AT_E_NOMEM;
    }
    make_tensors(&n);
    lay_out(&n);
    *p = n;
    return AT_OK;
}

at_err at_params_init(struct at_params *p, const struct at_model_config *config)
{
    struct at_shard whole = at_shard_whole(config);
    return at_params_init_shard(p, config, &whole);
}

void at_params_release(struct at_params *p)
{
    free(p->tensor);
    free(p->block);
    free(p->block_of);
    *p = (struct at_params){0};
}

int at_params_find(const struct at_params *p, enum at_role role, int layer)
{
    switch (role) {
    case AT_ROLE_EMBEDDING:
        return 0;
    case AT_ROLE_NORM_FINAL:
        return 1 + (int)p->config.layers * LAYER_TENSORS;
    case AT_ROLE_HEAD:
        return p->config.tied ? 0 : 2 + (int)p->config.layers * LAYER_TENSORS;
    default:
        break;
    }
    AT_ASSERT(layer >= 0 && layer < (int)p->config.layers);
    return 1 + layer * LAYER_TENSORS + ((int)role - (int)AT_ROLE_NORM1);
}

bool at_params_holds(const struct at_params *p, int tensor, int slot)
{
    AT_ASSERT(tensor >= 0 && tensor < p->tensors && slot >= 0 && slot < p->tensor[tensor].slots);
    return p->block_of[tensor * SLOTS_MAX + slot] >= 0;
}

const struct at_block *at_params_block(const struct at_params *p, int tensor, int slot)
{
    AT_ASSERT(at_params_holds(p, tensor, slot));
    return &p->block[p->block_of[tensor * SLOTS_MAX + slot]];
}

bool at_params_owns(const struct at_params *p, const struct at_block *b)
{
    return answers_for(p, &p->shard, b->tensor);
}

double at_params_norm(const struct at_params *p, const double *square)
{
    double total = 0;
    for (int id = 0; id < p->tensors; id++) {
        double slot[SLOTS_MAX];
        int S = p->tensor[id].slots;
        for (int s = 0; s < S; s++) slot[s] = square[p->tensor[id].number + s];
        for (int w = 1; w < S; w *= 2)
            for (int s = 0; s < S; s += 2 * w) slot[s] += slot[s + w];
        total += slot[0];
    }
    return sqrt(total);
}

const struct at_block *at_params_block_at(const struct at_params *p, size_t index)
{
    AT_ASSERT(index < p->count);
    int lo = 0, hi = p->blocks; /* the last block whose offset is <= index lies in [lo, hi) */
    while (hi - lo > 1) {
        int mid = lo + (hi - lo) / 2;
        if (p->block[mid].offset <= index)
            lo = mid;
        else
            hi = mid;
    }
    return &p->block[lo];
}

long at_block_rows_used(const struct at_params *p, const struct at_block *b)
{
    const struct at_tensor *t = &p->tensor[b->tensor];
    if (t->rows_used == t->rows) return b->rows;
    long used = t->rows_used - b->slot * b->rows;
    return used < 0 ? 0 : used > b->rows ? b->rows : used;
}

struct at_tensor_name at_tensor_name(const struct at_params *p, int tensor)
{
    static const char *const leaf[] = {
        [AT_ROLE_NORM1] = "input_layernorm", [AT_ROLE_Q] = "self_attn.q_proj",
        [AT_ROLE_K] = "self_attn.k_proj",    [AT_ROLE_V] = "self_attn.v_proj",
        [AT_ROLE_O] = "self_attn.o_proj",    [AT_ROLE_NORM2] = "post_attention_layernorm",
        [AT_ROLE_GATE] = "mlp.gate_proj",    [AT_ROLE_UP] = "mlp.up_proj",
        [AT_ROLE_DOWN] = "mlp.down_proj",
    };
    struct at_tensor_name n;
    const struct at_tensor *t = &p->tensor[tensor];
    if (t->role == AT_ROLE_EMBEDDING)
        snprintf(n.s, sizeof n.s, "model.embed_tokens.weight");
    else if (t->role == AT_ROLE_NORM_FINAL)
        snprintf(n.s, sizeof n.s, "model.norm.weight");
    else if (t->role == AT_ROLE_HEAD)
        snprintf(n.s, sizeof n.s, "lm_head.weight");
    else
        snprintf(n.s, sizeof n.s, "model.layers.%d.%s.weight", t->layer, leaf[t->role]);
    return n;
}

struct at_tensor_name at_tensor_place(const struct at_params *p, int tensor)
{
    struct at_tensor_name n = {"outside the layers"};
    if (p->tensor[tensor].layer >= 0) snprintf(n.s, sizeof n.s, "layer %d", p->tensor[tensor].layer);
    return n;
}

/* ---- initial values ---- */

static double std_of(const struct at_params *p, const struct at_tensor *t)
{
    switch (t->role) {
    case AT_ROLE_EMBEDDING:
        return p->config.tied ? 0.02 : 0.1;
    case AT_ROLE_HEAD:
        return 0.02;
    case AT_ROLE_O:
    case AT_ROLE_DOWN:
        return 1.0 / sqrt((double)t->cols) / sqrt(2.0 * p->config.layers);
    default:
        return 1.0 / sqrt((double)t->cols);
    }
}

static void normals(uint64_t seed, int tensor, uint64_t quad, double ret_z[4])
{
    struct at_philox r = at_philox(seed, AT_RNG_INIT, (uint32_t)tensor, quad);
    for (int i = 0; i < 4; i += 2) {
        double u1 = ((double)r.v[i] + 1.0) * 0x1p-32, u2 = (double)r.v[i + 1] * 0x1p-32;
        double radius = sqrt(-2.0 * at_log64(u1)), angle = 6.283185307179586476925 * u2;
        ret_z[i] = radius * at_cos64(angle);
        ret_z[i + 1] = radius * at_sin64(angle);
    }
}

static void fill_block(const struct at_params *p, const struct at_block *b, uint64_t seed, real *theta)
{
    const struct at_tensor *t = &p->tensor[b->tensor];
    double std = std_of(p, t), z[4] = {0};
    uint64_t have = UINT64_MAX;
    long used = at_block_rows_used(p, b);
    for (long i = 0; i < used; i++)
        for (long j = 0; j < b->cols; j++) {
            uint64_t row = (uint64_t)(t->split_cols ? i : b->slot * b->rows + i);
            uint64_t col = (uint64_t)(t->split_cols ? b->slot * b->cols + j : j);
            uint64_t e = row * (uint64_t)t->cols + col;
            if (e / 4 != have) normals(seed, b->tensor, have = e / 4, z);
            theta[b->offset + (size_t)(i * b->cols + j)] = (real)(z[e % 4] * std);
        }
}

void at_params_fill(const struct at_params *p, uint64_t seed, real *theta)
{
    memset(theta, 0, p->count * sizeof *theta);
    for (int i = 0; i < p->blocks; i++) {
        const struct at_block *b = &p->block[i];
        if (!at_role_is_gain(p->tensor[b->tensor].role)) {
            fill_block(p, b, seed, theta);
            continue;
        }
        for (size_t e = 0; e < at_block_count(b); e++) theta[b->offset + e] = 1;
    }
}

bool at_params_padding_is_zero(const struct at_params *p, const real *theta)
{
    static const real zero = 0;
    for (int i = 0; i < p->blocks; i++) {
        const struct at_block *b = &p->block[i];
        for (size_t e = (size_t)(at_block_rows_used(p, b) * b->cols); e < at_block_count(b); e++)
            if (memcmp(&theta[b->offset + e], &zero, sizeof zero) != 0) return false;
    }
    return true;
}
