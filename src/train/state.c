#include "train/state.h"

#include "base/merkle.h"
#include "model/safetensors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char root_tag[16] = "atoll state 1";
static const char blob_tag[16] = "atoll blob 1";
enum { BLOB_HEADER_BYTES = 40, LEAF0_BYTES = 72 };

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

void at_state_release(struct at_state *s)
{
    free(s->theta);
    free(s->stats);
    *s = (struct at_state){0};
}

void at_state_genesis(struct at_state *s, uint64_t seed)
{
    at_params_fill(s->params, seed, s->theta);
    memset(s->stats, 0, at_stats_count(s->params) * sizeof *s->stats);
    s->round = 0;
}

void at_state_copy(struct at_state *to, const struct at_state *from)
{
    AT_ASSERT(to->params == from->params);
    memcpy(to->theta, from->theta, to->params->count * sizeof *to->theta);
    memcpy(to->stats, from->stats, at_stats_count(to->params) * sizeof *to->stats);
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
        bool weights = all_finite(s->theta + b->offset, at_block_count(b));
        if (!weights || !all_finite(stats, n))
            return at_fail(diag, AT_E_NONFINITE, at_tensor_name(p, b->tensor).s, "%s: a %s is not finite",
                           at_tensor_place(p, b->tensor).s, weights ? "statistic" : "weight");
        stats += n;
    }
    return AT_OK;
}

/* ---- the root ---- */

static void append_tiles(struct at_merkle *tree, const real *x, size_t n)
{
    uint8_t tile[AT_TILE_BYTES];
    for (size_t i = 0; i < n;) {
        size_t k = n - i < AT_TILE_BYTES / 4 ? n - i : AT_TILE_BYTES / 4;
        at_f32_store(tile, x + i, k);
        at_merkle_append(tree, at_merkle_leaf(at_span(tile, 4 * k)));
        i += k;
    }
}

static void append_shape(struct at_merkle *tree, const struct at_state *s)
{
    const struct at_model_config *c = &s->params->config;
    const uint32_t word[] = {c->layers, c->d_model, c->heads, c->kv_heads, c->head_size,
                             c->d_ff,   c->seq_len, c->vocab, c->tied,     (uint32_t)s->params->slots};
    uint8_t leaf[LEAF0_BYTES];
    memcpy(leaf, root_tag, sizeof root_tag);
    at_store_le64(leaf + 16, s->round);
    for (int i = 0; i < 10; i++) at_store_le32(leaf + 24 + 4 * i, word[i]);
    at_store_le64(leaf + 64, s->params->count);
    at_merkle_append(tree, at_merkle_leaf(at_span(leaf, sizeof leaf)));
}

static void append_weights(struct at_merkle *tree, const struct at_state *s)
{
    const struct at_params *p = s->params;
    for (int i = 0; i < p->blocks; i++) append_tiles(tree, s->theta + p->block[i].offset, at_block_count(&p->block[i]));
}

struct at_hash at_state_weights_root(const struct at_state *s)
{
    struct at_merkle tree = {0};
    append_weights(&tree, s);
    return at_merkle_root(&tree);
}

at_err at_state_root(const struct at_state *s, struct at_diag *diag, struct at_hash *ret_root)
{
    int err = at_state_check(s, diag);
    if (err != AT_OK) return err;
    const struct at_params *p = s->params;
    struct at_merkle tree = {0};
    append_shape(&tree, s);
    append_weights(&tree, s);
    const real *stats = s->stats;
    for (int i = 0; i < p->blocks; i++) {
        size_t n = at_block_stats_count(p, &p->block[i]);
        append_tiles(&tree, stats, n);
        stats += n;
    }
    *ret_root = at_merkle_root(&tree);
    return AT_OK;
}

/* ---- the blob ---- */

size_t at_state_blob_bytes(const struct at_params *p)
{
    return BLOB_HEADER_BYTES + 4 * (p->count + at_stats_count(p));
}

at_err at_state_write(const struct at_state *s, struct at_buf *out)
{
    size_t stats = at_stats_count(s->params), bytes = at_state_blob_bytes(s->params);
    uint8_t *p;
    int err = at_buf_reserve(out, bytes, &p);
    if (err != AT_OK) return err;
    memcpy(p, blob_tag, sizeof blob_tag);
    at_store_le64(p + 16, s->round);
    at_store_le64(p + 24, s->params->count);
    at_store_le64(p + 32, stats);
    at_f32_store(p + BLOB_HEADER_BYTES, s->theta, s->params->count);
    at_f32_store(p + BLOB_HEADER_BYTES + 4 * s->params->count, s->stats, stats);
    out->n += bytes;
    return AT_OK;
}

static at_err check_read(const struct at_state *s, struct at_diag *diag)
{
    int err = at_state_check(s, diag);
    if (err != AT_OK) return err;
    if (!at_params_padding_is_zero(s->params, s->theta))
        return at_fail(diag, AT_E_DATA, "state", "a padded vocabulary row is not zero");
    size_t stats = at_stats_count(s->params);
    for (size_t i = 0; i < stats; i++)
        if (signbit(s->stats[i])) return at_fail(diag, AT_E_DATA, "state", "a second moment is negative");
    return AT_OK;
}

at_err at_state_read(struct at_state *s, struct at_span blob, struct at_diag *diag)
{
    const struct at_params *p = s->params;
    size_t stats = at_stats_count(p);
    if (blob.n < BLOB_HEADER_BYTES) return at_fail(diag, AT_E_TRUNCATED, "state", "%zu bytes are too few", blob.n);
    if (memcmp(blob.p, blob_tag, sizeof blob_tag) != 0) return at_fail(diag, AT_E_DATA, "state", "not a state blob");
    uint64_t round = at_load_le64(blob.p + 16);
    if (round > UINT32_MAX || at_load_le64(blob.p + 24) != p->count || at_load_le64(blob.p + 32) != stats)
        return at_fail(diag, AT_E_DATA, "state", "a state of another model");
    if (blob.n != at_state_blob_bytes(p))
        return at_fail(diag, blob.n < at_state_blob_bytes(p) ? AT_E_TRUNCATED : AT_E_DATA, "state",
                       "%zu bytes instead of %zu", blob.n, at_state_blob_bytes(p));
    struct at_state n;
    int err = at_state_init(&n, p);
    if (err != AT_OK) return at_fail(diag, err, "state", "no memory for the state");
    n.round = (uint32_t)round;
    at_f32_read(blob.p + BLOB_HEADER_BYTES, n.theta, p->count);
    at_f32_read(blob.p + BLOB_HEADER_BYTES + 4 * p->count, n.stats, stats);
    err = check_read(&n, diag);
    if (err == AT_OK) at_state_copy(s, &n);
    at_state_release(&n);
    return err;
}
