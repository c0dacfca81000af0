/* state.h: the public state of a run between two rounds: weights, shared second-moment statistics, round number; its
 * root and its bytes. Pure. Exact: yes.
 *
 * Statistics (20-training.md, "Rounds start from public state"), one flat array, blocks in memory order (params.h):
 *   a matrix block (rows x cols): row means (rows), then column means (cols) of the second moments v
 *   a gain (1 x d): v whole (d)
 *
 * Outer momentum (outer.h) is part of the state where the outer step uses it, one value per weight.
 *
 * A rank of a split run has the state of its shard: the same struct over a shard's params.
 *
 * state_root: RFC 6962 Merkle root (base/merkle.h). Leaves, in this order:
 *   leaf 0, 72 bytes  "atoll state 1\0\0\0" (16) | round u64 |
 *                     layers, d_model, heads, kv_heads, head_size, d_ff, seq_len, vocab, tied, slots: u32 each |
 *                     weights u64 (elements of the flat array, padding included)
 *   weights           per block ceil(4*rows*cols / 65536) tiles of 65,536 bytes (the last one short), binary32
 *   statistics        per block the same over its statistics
 *   momentum          per block the same over its momentum, if there is any: then leaf 0 begins "atoll state 1+m\0"
 * Everything little-endian.
 *
 * State blob (what a newcomer fetches):  "atoll blob 1\0\0\0\0" (16) | round u64 | weights u64 | statistics u64 |
 *   weights, binary32 | statistics, binary32; nothing before, between or behind.
 *   With momentum: "atoll blob 1+m\0\0", and the momentum, binary32, behind the statistics. */
#ifndef ATOLL_TRAIN_STATE_H
#define ATOLL_TRAIN_STATE_H

#include "base/bytes.h"
#include "base/hash.h"
#include "base/par.h"
#include "model/params.h"

#define AT_TILE_BYTES 65536

struct at_state {
    const struct at_params *params; /* borrowed */
    uint32_t round;
    real *theta;    /* (params->count) */
    real *stats;    /* (at_stats_count) */
    real *momentum; /* (params->count), or NULL: the outer step has none */
};

size_t at_stats_count(const struct at_params *p);
/* Statistics of one block: rows + cols, or d for a gain. */
size_t at_block_stats_count(const struct at_params *p, const struct at_block *b);
/* Where the statistics of block number `block` begin. */
size_t at_block_stats_offset(const struct at_params *p, int block);

/* Zero weights and statistics, round 0. AT_E_NOMEM. */
at_err at_state_init(struct at_state *s, const struct at_params *p);
/* Gives the state an outer momentum of +0. AT_E_NOMEM. */
at_err at_state_add_momentum(struct at_state *s);
void at_state_release(struct at_state *s);
/* A state whose arrays are those of a blob (below), which is borrowed and need not have a header: who keeps the blob has
 * the state, and no copy. 4-byte aligned. Not to be released. */
void at_state_over(struct at_state *s, const struct at_params *p, bool momentum, uint8_t *blob);
/* Round 0 of a run: initial weights; statistics and momentum zero. */
void at_state_genesis(struct at_state *s, uint64_t seed);
void at_state_copy(struct at_state *to, const struct at_state *from); /* same params, both with
                                                                                   or both without momentum */

/* AT_E_NONFINITE naming tensor and layer: such a state has no root (rule 13). */
at_err at_state_check(const struct at_state *s, struct at_diag *diag);
/* What a state from outside must be besides that: padding +0, second moments not negative (a root does not tell: whoever
 * wrote the state wrote the root). AT_E_NONFINITE, AT_E_DATA. */
at_err at_state_check_foreign(const struct at_state *s, struct at_diag *diag);
at_err at_state_root(const struct at_state *s, struct at_diag *diag, struct at_hash *ret_root);

/* Where the tiles lie in the state's blob, whole params only: tile i is what leaf i + 1 is of. Together they are the blob
 * without its header, each byte once. ret_tiles(at_state_leaves). */
struct at_tile {
    uint64_t offset;
    uint32_t bytes; /* 4 .. AT_TILE_BYTES */
};
void at_state_tiles(const struct at_params *p, bool momentum, struct at_tile *ret_tiles);
/* at_state_root, from the state's blob (its header is not looked at) and over all threads, with the list that a newcomer
 * fetches first: 1 + at_state_leaves(params, momentum) hashes, leaf 0 first. */
at_err at_state_tree(const struct at_state *s, struct at_span blob, const struct at_tile *tiles,
                     const struct at_par *par, struct at_diag *diag, struct at_hash *ret_leaves,
                     struct at_hash *ret_root);

/* The root of a split run's state. Leaves of the blocks that this shard owns (at_params_owns), as hashes: the weights'
 * of all its blocks in memory order, then the statistics', then the momentum's; leaf 0 not among them. */
size_t at_state_leaves(const struct at_params *p, bool momentum);
/* ret_leaves(at_state_leaves). AT_E_NONFINITE. */
at_err at_state_hash_leaves(const struct at_state *s, struct at_diag *diag, struct at_hash *ret_leaves);
/* leaves[i]: those of shard[i]; together the shards own every block of the model once (AT_E_DATA otherwise). The root is
 * that of at_state_root over the whole. AT_E_NOMEM. */
at_err at_state_root_from(const struct at_model_config *config, uint32_t round, bool momentum,
                          const struct at_shard *shard, const struct at_hash *const *leaves, int shards,
                          struct at_diag *diag, struct at_hash *ret_root);

/* The root of the weights' tiles alone (no leaf 0, no statistics): tells which of two files is damaged. */
struct at_hash at_state_weights_root(const struct at_state *s);

/* Bytes of the blob; append it; read it back. Reading: AT_E_DATA or AT_E_TRUNCATED when the bytes are not exactly a
 * state of these params (length, padding +0, statistics >= 0), AT_E_NONFINITE; `s` is untouched on failure. The caller
 * compares the root. */
size_t at_state_blob_bytes(const struct at_state *s);
size_t at_state_blob_bytes_of(const struct at_params *p, bool momentum);
/* The blob's header of any state of these params: who has all tiles has the blob. */
#define AT_STATE_HEADER_BYTES 40
void at_state_header(const struct at_params *p, bool momentum, uint32_t round,
                     uint8_t ret_header[AT_STATE_HEADER_BYTES]);
at_err at_state_write(const struct at_state *s, struct at_buf *out);
/* What at_state_read refuses before it looks at a value: another header or length. */
at_err at_state_check_blob(const struct at_params *p, bool momentum, struct at_span blob, struct at_diag *diag,
                           uint32_t *ret_round);
at_err at_state_read(struct at_state *s, struct at_span blob, struct at_diag *diag);

#endif
