#include "train/state.h"

#include "base/merkle.h"
#include "model/safetensors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char root_tag[16] = "atoll state 1", root_tag_m[16] = "atoll state 1+m";
static const char blob_tag[16] = "atoll blob 1", blob_tag_m[16] = "atoll blob 1+m";
enum { LEAF0_BYTES = 72 };

size_t at_block_stats_count(const struct at_params *p, const struct at_block *b)
{
    return at_role_is_gain(p->tensor[b->tensor].role) ? (size_t)b->cols : (size_t)(b->rows + b->cols);
}

size_t at_block_stats_offset(const struct at_params *p, int block)
{
    size_t n = 0;
    for (int i = 0; i < block; i++) n += at_block_stats_count(p, &p->block[i]);
    return n;
}

size_t at_stats_count(const struct at_params *p)
{
    return at_block_stats_offset(p, p->blocks);
}

at_err at_state_init(struct at_state *s, const struct at_params *p)
{
    struct at_state n = {.params = p};
    n.theta = calloc(p->count, sizeof *n.theta);
    n.stats = calloc(at_stats_count(p), sizeof *n.stats);
    if (n.theta == NULL || n.stats == NULL) {
        at_state_release(&n);
        return AT_E_NOMEM;
    }
    *s = n;
    return AT_OK;
}

at_err at_state_add_momentum(struct at_state *s)
{
    AT_ASSERT(s->momentum == NULL);
    s->momentum = calloc(s->params->count, sizeof *s->momentum);
    return s->momentum != NULL ? AT_OK : AT_E_NOMEM;
}

void at_state_release(struct at_state *s)
{
    free(s->theta);
    free(s->stats);
    free(s->momentum);
    *s = (struct at_state){0};
}

_Static_assert(sizeof(real) == 4 && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a blob's values are memory's");

void at_state_over(struct at_state *s, const struct at_params *p, bool momentum, uint8_t *blob)
{
    real *theta = (real *)(void *)(blob + AT_STATE_HEADER_BYTES), *stats = theta + p->count;
    *s = (struct at_state){.params = p, .theta = theta, .stats = stats};
    if (momentum) s->momentum = stats + at_stats_count(p);
}

void at_state_genesis(struct at_state *s, uint64_t seed)
{
    at_params_fill(s->params, seed, s->theta);
    memset(s->stats, 0, at_stats_count(s->params) * sizeof *s->stats);
    if (s->momentum != NULL) memset(s->momentum, 0, s->params->count * sizeof *s->momentum);
    s->round = 0;
}

void at_state_copy(struct at_state *to, const struct at_state *from)
{
    AT_ASSERT(to->params == from->params && (to->momentum == NULL) == (from->momentum == NULL));
    memcpy(to->theta, from->theta, to->params->count * sizeof *to->theta);
    memcpy(to->stats, from->stats, at_stats_count(to->params) * sizeof *to->stats);
    if (to->momentum != NULL) memcpy(to->momentum, from->momentum, to->params->count * sizeof *to->momentum);
    to->round = from->round;
}

static bool all_finite(const real *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i])) return false;
    return true;
}

at_err at_state_check(const struct at_state *s, struct at_diag *diag)
{
    const struct at_params *p = s->params;
    const real *stats = s->stats;
    for (int i = 0; i < p->blocks; i++) {
        const struct at_block *b = &p->block[i];
        size_t n = at_block_stats_count(p, b);
        const char *bad = NULL;
        if (s->momentum != NULL && !all_finite(s->momentum + b->offset, at_block_count(b))) bad = "momentum";
        if (!all_finite(stats, n)) bad = "statistic";
        if (!all_finite(s->theta + b->offset, at_block_count(b))) bad = "weight";
        if (bad != NULL)
            return at_fail(diag, AT_E_NONFINITE, at_tensor_name(p, b->tensor).s, "%s: a %s is not finite",
                           at_tensor_place(p, b->tensor).s, bad);
        stats += n;
    }
    return AT_OK;
}

at_err at_state_check_foreign(const struct at_state *s, struct at_diag *diag)
{
    int err = at_state_check(s, diag);
    if (err != AT_OK) return err;
    if (!at_params_padding_is_zero(s->params, s->theta))
        return at_fail(diag, AT_E_DATA, "state", "a padded vocabulary row is not zero");
    if (s->momentum != NULL && !at_params_padding_is_zero(s->params, s->momentum))
        return at_fail(diag, AT_E_DATA, "state", "a padded row of the momentum is not zero");
    size_t stats = at_stats_count(s->params);
    for (size_t i = 0; i < stats; i++)
        if (signbit(s->stats[i])) return at_fail(diag, AT_E_DATA, "state", "a second moment is negative");
    return AT_OK;
}

/* ---- the root ---- */

/* Where leaves go: a tree, or an array. */
struct leaves {
    struct at_merkle *tree;
    struct at_hash *at;
};

static void put_leaf(struct leaves *out, struct at_hash leaf)
{
    if (out->tree != NULL)
        at_merkle_append(out->tree, leaf);
    else
        *out->at++ = leaf;
}

static void put_tiles(struct leaves *out, const real *x, size_t n)
{
    uint8_t tile[AT_TILE_BYTES];
    for (size_t i = 0; i < n;) {
        size_t k = n - i < AT_TILE_BYTES / 4 ? n - i : AT_TILE_BYTES / 4;
        at_f32_store(tile, x + i, k);
        put_leaf(out, at_merkle_leaf(at_span(tile, 4 * k)));
        i += k;
    }
}

static struct at_hash shape_leaf(const struct at_params *p, uint32_t round, bool momentum)
{
    const struct at_model_config *c = &p->config;
    const uint32_t word[] = {c->layers, c->d_model, c->heads, c->kv_heads, c->head_size,
                             c->d_ff,   c->seq_len, c->vocab, c->tied,     (uint32_t)p->slots};
    uint64_t weights = 0;
    for (int i = 0; i < p->tensors; i++) weights += (uint64_t)p->tensor[i].rows * (uint64_t)p->tensor[i].cols;
    uint8_t leaf[LEAF0_BYTES];
    memcpy(leaf, momentum ? root_tag_m : root_tag, sizeof root_tag);
    at_store_le64(leaf + 16, round);
    for (int i = 0; i < 10; i++) at_store_le32(leaf + 24 + 4 * i, word[i]);
    at_store_le64(leaf + 64, weights);
    return at_merkle_leaf(at_span(leaf, sizeof leaf));
}

static void put_weights(struct leaves *out, const struct at_state *s, const real *values)
{
    const struct at_params *p = s->params;
    for (int i = 0; i < p->blocks; i++)
        if (at_params_owns(p, &p->block[i])) put_tiles(out, values + p->block[i].offset, at_block_count(&p->block[i]));
}

static void put_all(struct leaves *out, const struct at_state *s)
{
    const struct at_params *p = s->params;
    const real *stats = s->stats;
    put_weights(out, s, s->theta);
    for (int i = 0; i < p->blocks; i++) {
        size_t n = at_block_stats_count(p, &p->block[i]);
        if (at_params_owns(p, &p->block[i])) put_tiles(out, stats, n);
        stats += n;
    }
    if (s->momentum != NULL) put_weights(out, s, s->momentum);
}

struct at_hash at_state_weights_root(const struct at_state *s)
{
    struct at_merkle tree = {0};
    put_weights(&(struct leaves){.tree = &tree}, s, s->theta);
    return at_merkle_root(&tree);
}

at_err at_state_root(const struct at_state *s, struct at_diag *diag, struct at_hash *ret_root)
{
    int err = at_state_check(s, diag);
    if (err != AT_OK) return err;
    struct at_merkle tree = {0};
    struct leaves out = {.tree = &tree};
    put_leaf(&out, shape_leaf(s->params, s->round, s->momentum != NULL));
    put_all(&out, s);
    *ret_root = at_merkle_root(&tree);
    return AT_OK;
}

/* ---- the root of a split state ---- */

enum { PARTS = 3 }; /* weights, statistics, momentum */

static size_t tiles(size_t reals)
{
    return (4 * reals + AT_TILE_BYTES - 1) / AT_TILE_BYTES;
}

static size_t block_leaves(const struct at_params *p, const struct at_block *b, int part)
{
    return tiles(part == 1 ? at_block_stats_count(p, b) : at_block_count(b));
}

static size_t part_leaves(const struct at_params *p, int part)
{
    size_t n = 0;
    for (int i = 0; i < p->blocks; i++)
        if (at_params_owns(p, &p->block[i])) n += block_leaves(p, &p->block[i], part);
    return n;
}

size_t at_state_leaves(const struct at_params *p, bool momentum)
{
    return part_leaves(p, 0) + part_leaves(p, 1) + (momentum ? part_leaves(p, 2) : 0);
}

at_err at_state_hash_leaves(const struct at_state *s, struct at_diag *diag, struct at_hash *ret_leaves)
{
    int err = at_state_check(s, diag);
    if (err == AT_OK) put_all(&(struct leaves){.at = ret_leaves}, s);
    return err;
}

/* The tables of the shards, and where the next leaves of each part of each shard are. */
struct shards {
    struct at_params whole, *shard;
    const struct at_hash **next; /* [shards][PARTS] */
    int n;
};

static at_err shards_init(struct shards *x, const struct at_model_config *config, const struct at_shard *shard,
                          const struct at_hash *const *leaves, int n)
{
    x->n = n;
    x->shard = calloc((size_t)n, sizeof *x->shard);
    x->next = calloc((size_t)n * PARTS, sizeof *x->next);
    if (x->shard == NULL || x->next == NULL) return AT_E_NOMEM;
    int err = at_params_init(&x->whole, config);
    for (int i = 0; i < n && err == AT_OK; i++) {
        err = at_params_init_shard(&x->shard[i], config, &shard[i]);
        if (err != AT_OK) break;
        x->next[i * PARTS] = leaves[i];
        for (int part = 1; part < PARTS; part++)
            x->next[i * PARTS + part] = x->next[i * PARTS + part - 1] + part_leaves(&x->shard[i], part - 1);
    }
    return err;
}

static void shards_release(struct shards *x)
{
    for (int i = 0; x->shard != NULL && i < x->n; i++) at_params_release(&x->shard[i]);
    at_params_release(&x->whole);
    free(x->shard);
    free(x->next);
}

/* The one shard that owns (tensor, slot), or -1: none, or several. */
static int owner_of(const struct shards *x, const struct at_block *b)
{
    int owner = -1;
    for (int i = 0; i < x->n; i++) {
        const struct at_params *p = &x->shard[i];
        if (!at_params_holds(p, b->tensor, b->slot) || !at_params_owns(p, at_params_block(p, b->tensor, b->slot)))
            continue;
        if (owner >= 0) return -1;
        owner = i;
    }
    return owner;
}

/* The whole model's blocks in memory order; a shard's are in the same order. */
static at_err join_leaves(struct shards *x, bool momentum, struct at_merkle *tree, struct at_diag *diag)
{
    for (int part = 0; part < (momentum ? PARTS : PARTS - 1); part++)
        for (int b = 0; b < x->whole.blocks; b++) {
            int owner = owner_of(x, &x->whole.block[b]);
            if (owner < 0)
                return at_fail(diag, AT_E_DATA, at_tensor_name(&x->whole, x->whole.block[b].tensor).s,
                               "slot %d does not belong to exactly one rank", x->whole.block[b].slot);
            for (size_t n = block_leaves(&x->whole, &x->whole.block[b], part); n > 0; n--)
                at_merkle_append(tree, *x->next[owner * PARTS + part]++);
        }
    return AT_OK;
}

at_err at_state_root_from(const struct at_model_config *config, uint32_t round, bool momentum,
                          const struct at_shard *shard, const struct at_hash *const *leaves, int shards,
                          struct at_diag *diag, struct at_hash *ret_root)
{
    struct shards x = {0};
    struct at_merkle tree = {0};
    int err = shards_init(&x, config, shard, leaves, shards);
    if (err != AT_OK) err = at_fail(diag, err, "state", "no memory for the tables of %d ranks", shards);
    if (err == AT_OK) {
        at_merkle_append(&tree, shape_leaf(&x.whole, round, momentum));
        err = join_leaves(&x, momentum, &tree, diag);
    }
    if (err == AT_OK) *ret_root = at_merkle_root(&tree);
    shards_release(&x);
    return err;
}

/* ---- tiles ---- */

static struct at_tile *tiles_of(struct at_tile *at, uint64_t offset, size_t reals)
{
    for (size_t left = 4 * reals; left > 0; at++) {
        at->offset = offset;
        at->bytes = left < AT_TILE_BYTES ? (uint32_t)left : AT_TILE_BYTES;
        offset += at->bytes;
        left -= at->bytes;
    }
    return at;
}

void at_state_tiles(const struct at_params *p, bool momentum, struct at_tile *ret_tiles)
{
    uint64_t weights = AT_STATE_HEADER_BYTES, stats = weights + 4 * (uint64_t)p->count;
    uint64_t speed = stats + 4 * (uint64_t)at_stats_count(p);
    for (int i = 0; i < p->blocks; i++)
        ret_tiles = tiles_of(ret_tiles, weights + 4 * (uint64_t)p->block[i].offset, at_block_count(&p->block[i]));
    for (int i = 0; i < p->blocks; i++) {
        ret_tiles = tiles_of(ret_tiles, stats, at_block_stats_count(p, &p->block[i]));
        stats += 4 * (uint64_t)at_block_stats_count(p, &p->block[i]);
    }
    for (int i = 0; momentum && i < p->blocks; i++)
        ret_tiles = tiles_of(ret_tiles, speed + 4 * (uint64_t)p->block[i].offset, at_block_count(&p->block[i]));
}

struct tree_work {
    const uint8_t *blob;
    const struct at_tile *tile;
    struct at_hash *leaf;
};

static void hash_tile(void *arg, int i)
{
    const struct tree_work *w = arg;
    w->leaf[i] = at_merkle_leaf(at_span(w->blob + w->tile[i].offset, w->tile[i].bytes));
}

at_err at_state_tree(const struct at_state *s, struct at_span blob, const struct at_tile *tiles,
                     const struct at_par *par, struct at_diag *diag, struct at_hash *ret_leaves,
                     struct at_hash *ret_root)
{
    struct at_merkle tree = {0};
    bool momentum = s->momentum != NULL;
    size_t n = at_state_leaves(s->params, momentum);
    struct tree_work w = {blob.p, tiles, ret_leaves + 1};
    AT_ASSERT(blob.n == at_state_blob_bytes(s));
    int err = at_state_check(s, diag);
    if (err != AT_OK) return err;
    ret_leaves[0] = shape_leaf(s->params, s->round, momentum);
    at_par_run(par, (int)n, hash_tile, &w);
    for (size_t i = 0; i <= n; i++) at_merkle_append(&tree, ret_leaves[i]);
    *ret_root = at_merkle_root(&tree);
    return AT_OK;
}

/* ---- the blob ---- */

void at_state_header(const struct at_params *p, bool momentum, uint32_t round,
                     uint8_t ret_header[AT_STATE_HEADER_BYTES])
{
    memcpy(ret_header, momentum ? blob_tag_m : blob_tag, sizeof blob_tag);
    at_store_le64(ret_header + 16, round);
    at_store_le64(ret_header + 24, p->count);
    at_store_le64(ret_header + 32, at_stats_count(p));
}

size_t at_state_blob_bytes_of(const struct at_params *p, bool momentum)
{
    return AT_STATE_HEADER_BYTES + 4 * (p->count + at_stats_count(p) + (momentum ? p->count : 0));
}

size_t at_state_blob_bytes(const struct at_state *s)
{
    return at_state_blob_bytes_of(s->params, s->momentum != NULL);
}

at_err at_state_write(const struct at_state *s, struct at_buf *out)
{
    size_t stats = at_stats_count(s->params), bytes = at_state_blob_bytes(s);
    uint8_t *p;
    int err = at_buf_reserve(out, bytes, &p);
    if (err != AT_OK) return err;
    at_state_header(s->params, s->momentum != NULL, s->round, p);
    at_f32_store(p + AT_STATE_HEADER_BYTES, s->theta, s->params->count);
    at_f32_store(p + AT_STATE_HEADER_BYTES + 4 * s->params->count, s->stats, stats);
    if (s->momentum != NULL)
        at_f32_store(p + AT_STATE_HEADER_BYTES + 4 * (s->params->count + stats), s->momentum, s->params->count);
    out->n += bytes;
    return AT_OK;
}

at_err at_state_check_blob(const struct at_params *p, bool momentum, struct at_span blob, struct at_diag *diag,
                           uint32_t *ret_round)
{
    size_t bytes = at_state_blob_bytes_of(p, momentum);
    if (blob.n < AT_STATE_HEADER_BYTES) return at_fail(diag, AT_E_TRUNCATED, "state", "%zu bytes are too few", blob.n);
    if (memcmp(blob.p, momentum ? blob_tag_m : blob_tag, sizeof blob_tag) != 0)
        return at_fail(diag, AT_E_DATA, "state", "not a state blob");
    uint64_t round = at_load_le64(blob.p + 16);
    if (round > UINT32_MAX || at_load_le64(blob.p + 24) != p->count || at_load_le64(blob.p + 32) != at_stats_count(p))
        return at_fail(diag, AT_E_DATA, "state", "a state of another model");
    if (blob.n != bytes)
        return at_fail(diag, blob.n < bytes ? AT_E_TRUNCATED : AT_E_DATA, "state", "%zu bytes instead of %zu", blob.n,
                       bytes);
    *ret_round = (uint32_t)round;
    return AT_OK;
}

at_err at_state_read(struct at_state *s, struct at_span blob, struct at_diag *diag)
{
    const struct at_params *p = s->params;
    size_t stats = at_stats_count(p);
    bool momentum = s->momentum != NULL;
    uint32_t round = 0;
    int err = at_state_check_blob(p, momentum, blob, diag, &round);
    if (err != AT_OK) return err;
    struct at_state n;
    err = at_state_init(&n, p);
    if (err != AT_OK) return at_fail(diag, err, "state", "no memory for the state");
    if (momentum && (err = at_state_add_momentum(&n)) != AT_OK) {
        at_state_release(&n);
        return at_fail(diag, err, "state", "no memory for the momentum");
    }
    n.round = round;
    at_f32_read(blob.p + AT_STATE_HEADER_BYTES, n.theta, p->count);
    at_f32_read(blob.p + AT_STATE_HEADER_BYTES + 4 * p->count, n.stats, stats);
    if (momentum) at_f32_read(blob.p + AT_STATE_HEADER_BYTES + 4 * (p->count + stats), n.momentum, p->count);
    err = at_state_check_foreign(&n, diag);
    if (err == AT_OK) at_state_copy(s, &n);
    at_state_release(&n);
    return err;
}
