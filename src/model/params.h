/* params.h: where every weight lies: the table of tensors and of their (tensor, slot) blocks, and their initial values.
 * Pure; at_params_init* allocate the table, nothing else here does.
 *
 * All weights of a model are one flat array of `real`. Memory order = canonical order (contract rule 14), slot-major,
 * so that each (tensor, slot) is one contiguous rows x cols block:
 *
 *   embedding   [S] x (vocab_padded/S x d)
 *   each layer:
 *     norm1     (d)
 *     q, k, v   [S] x { q_s (heads*hd/S x d), k_s (kv*hd/S x d), v_s (kv*hd/S x d) }   one matrix of all rows x d
 *     o         [S] x (d x heads*hd/S)                                                 column blocks (struct at_mat)
 *     norm2     (d)
 *     gate, up  [S] x { gate_s (ff/S x d), up_s (ff/S x d) }                           one matrix of 2*ff rows x d
 *     down      [S] x (d x ff/S)                                                       column blocks
 *   final norm  (d)
 *   head        [S] x (vocab_padded/S x d), absent when tied
 *
 * Tensor ids count 0, 1, 2... in the order embedding; per layer norm1, q, k, v, o, norm2, gate, up, down; final norm;
 * head. Rows of the padded vocabulary are +0, take no part, and stay +0.
 *
 * A rank of a split run holds a *shard*: of a run of layers all gains and, of every matrix, an aligned power-of-two run of
 * slots. The first stage (run of layers) also holds the embedding, the last one the final norm and the head. A tied
 * matrix lies on the last stage, which looks tokens up for the first. The array of a shard is the whole array with the
 * blocks left out that it does not hold: the same order, no gaps. Tensor ids and slot numbers are those of the whole
 * model everywhere.
 *
 * Which product reduces how (contract rules 2, 3, 8):
 *   forward    qkv, gate-up, head: one chain over d
 *              o, down: S slots over heads*hd, ff
 *   d input    qkv, gate-up, head: S slots over their rows (within a slot q then k then v, gate then up)
 *              o, down: one chain
 *   d weight   grains of 256 positions */
#ifndef ATOLL_MODEL_PARAMS_H
#define ATOLL_MODEL_PARAMS_H

#include "model/config.h"
#include "tensor/real.h"

#include <stddef.h>

enum at_role {
    AT_ROLE_EMBEDDING,
    AT_ROLE_NORM1,
    AT_ROLE_Q,
    AT_ROLE_K,
    AT_ROLE_V,
    AT_ROLE_O,
    AT_ROLE_NORM2,
    AT_ROLE_GATE,
    AT_ROLE_UP,
    AT_ROLE_DOWN,
    AT_ROLE_NORM_FINAL,
    AT_ROLE_HEAD,
};

/* What one rank of a split run holds: an aligned power-of-two run of slots of a run of layers. */
struct at_shard {
    int slot_first, slots, layer_first, layers; /* slot_first is a multiple of slots; both counts >= 1 */
};
struct at_shard at_shard_whole(const struct at_model_config *config);
/* What a stage of the cut of stages.h holds: all slots of its layers. 1 <= stages <= AT_STAGES_MAX. */
struct at_shard at_stage_shard(const struct at_model_config *config, int stages, int stage);
struct at_stage_cut;
struct at_shard at_stage_cut_shard(const struct at_model_config *config, const struct at_stage_cut *cut, int stage);

struct at_tensor {
    enum at_role role;
    int layer;       /* -1 outside the layers */
    long rows, cols; /* unsharded, vocabulary padded; a gain is 1 x d */
    long rows_used;  /* rows without the vocabulary's padding */
    int slots;       /* S, or 1 for a gain */
    int number;      /* canonical number of its slot 0: blocks of the whole model before it (tensor order, slots) */
    bool split_cols; /* o and down: slots are runs of columns, otherwise of rows */
};

/* One (tensor, slot): elements [offset, offset + rows*cols) of the flat array, row-major. */
struct at_block {
    int tensor, slot;
    long rows, cols;
    size_t offset;
};

struct at_params {
    struct at_model_config config;
    struct at_shard shard; /* what the blocks are of */
    int slots;             /* S, of the whole model */
    long vocab_padded;     /* of the whole model */
    int tensors;           /* of the whole model */
    int numbers;           /* blocks of the whole model */
    int blocks;            /* of the shard: in memory order, without gaps */
    struct at_tensor *tensor;
    struct at_block *block;
    int *block_of; /* [tensors][8]: block index of (tensor, slot); -1: not held */
    size_t count;  /* elements of the shard's flat array, padding included */
};

/* `config` must have passed at_model_config_check, and the shard must lie within it. AT_E_NOMEM. */
at_err at_params_init(struct at_params *p, const struct at_model_config *config); /* the whole model */
at_err at_params_init_shard(struct at_params *p, const struct at_model_config *config, const struct at_shard *shard);
void at_params_release(struct at_params *p);

/* The tensor's id from its role; layer is ignored outside the layers. A tied head is the embedding. */
int at_params_find(const struct at_params *p, enum at_role role, int layer);
/* Whether the shard holds a block; the block, which it must hold. */
bool at_params_holds(const struct at_params *p, int tensor, int slot);
const struct at_block *at_params_block(const struct at_params *p, int tensor, int slot);
/* Whether this shard is the one that answers for a block that it holds (in norms, roots, checkpoints): matrices always;
 * a gain, which all tensor ranks of a stage hold and update alike, on the rank of slot 0 only. */
bool at_params_owns(const struct at_params *p, const struct at_block *b);
/* The same for any other shard of this model, by the one rule of who holds what. */
bool at_shard_holds(const struct at_params *p, const struct at_shard *shard, int tensor, int slot);
bool at_shard_owns(const struct at_params *p, const struct at_shard *shard, int tensor, int slot);
/* Square root of the sum of square[numbers], one sum of squares per block of the whole model by canonical number: the
 * slots of a tensor joined by the slot tree, tensors by id (contract rule 8). Exact: yes. */
double at_params_norm(const struct at_params *p, const double *square);
/* The block that holds element `index` of the flat array. */
const struct at_block *at_params_block_at(const struct at_params *p, size_t index);

static inline bool at_role_is_gain(enum at_role r)
{
    return r == AT_ROLE_NORM1 || r == AT_ROLE_NORM2 || r == AT_ROLE_NORM_FINAL;
}
static inline bool at_shard_is_first(const struct at_params *p)
{
    return p->shard.layer_first == 0;
}
static inline bool at_shard_is_last(const struct at_params *p)
{
    return p->shard.layer_first + p->shard.layers == (int)p->config.layers;
}
static inline bool at_shard_has_embedding(const struct at_params *p)
{
    return p->config.tied ? at_shard_is_last(p) : at_shard_is_first(p);
}
/* Padded vocabulary rows of the shard, and the first of them. */
static inline long at_shard_vocab(const struct at_params *p)
{
    return p->vocab_padded / p->slots * p->shard.slots;
}
static inline long at_shard_vocab_first(const struct at_params *p)
{
    return p->vocab_padded / p->slots * p->shard.slot_first;
}
/* Canonical number of a block: its place in the whole model by (tensor id, slot), 0 .. numbers - 1. */
static inline int at_block_number(const struct at_params *p, const struct at_block *b)
{
    return p->tensor[b->tensor].number + b->slot;
}
static inline size_t at_block_count(const struct at_block *b)
{
    return (size_t)b->rows * (size_t)b->cols;
}
/* Rows of this block that are not padding (0..rows). */
long at_block_rows_used(const struct at_params *p, const struct at_block *b);

/* The Hugging Face name, as in "model.layers.3.self_attn.q_proj.weight": also what people read in messages. */
struct at_tensor_name {
    char s[64];
};
struct at_tensor_name at_tensor_name(const struct at_params *p, int tensor);
/* "layer 3", or "outside the layers". */
struct at_tensor_name at_tensor_place(const struct at_params *p, int tensor);

/* Initial values (rule 10). Gains are 1, padding +0. Element e (row-major in the unsharded tensor) of a matrix takes
 * lane e % 4 of Philox(seed, AT_RNG_INIT, tensor id, e / 4): words (v0,v1) and (v2,v3) make
 *   u1 = (v0 + 1) * 2^-32, u2 = v1 * 2^-32, r = sqrt(-2 log u1): lanes 0, 1 = r cos(2 pi u2), r sin(2 pi u2)
 * (Box-Muller) and likewise lanes 2, 3, all in binary64; value = (real)(normal * std). std: 1/sqrt(fan_in), for o and
 * down times 1/sqrt(2 layers); embedding 0.1; head 0.02; a tied embedding 0.02 (it is the head too). A shard gets its
 * blocks of the whole. Exact: yes. */
void at_params_fill(const struct at_params *p, uint64_t seed, real *theta);

/* True when every padded row is +0 (-0 counts as wrong): what foreign weights must satisfy. */
bool at_params_padding_is_zero(const struct at_params *p, const real *theta);

#endif
