/* codec.h: the seam between a pseudo-gradient and its bytes. Pure. Exact: yes, both ways: the bytes that a unit's update
 * has are part of what can be audited.
 *
 * A codec works on one (tensor, slot) block at a time, so that ranks which hold different parts of a model can exchange
 * updates, and so that a large update can be encoded, sent and applied in fragments. A payload is the weights' part and
 * then the statistics' part; both are read from the front, in order (a reader of fixed size, no memory).
 *
 *   id  name    weights                                        statistics                    error feedback e
 *   1   plain   binary32 (codec_plain.c)                       binary32                      none
 *   2   int4    4 bits and a scale per 128 (codec_int4.c)      log2 ratios (stats_code.h)    e = fma(1, e, d)
 *   3   sparse  k of 4096, 2 bits each (codec_sparse.c)        log2 ratios                   e = fma(0.95, e, d)
 *   4   sparse6s  the same with another quantiser, kept for comparison
 *
 * Lossy codecs code e, the error feedback: real[params.count], owned by the replica, +0 at the start (a newcomer's too).
 * What was decoded is taken away from e only once the contribution is known to be included, so late work is not lost. */
#ifndef ATOLL_TRAIN_CODEC_H
#define ATOLL_TRAIN_CODEC_H

#include "base/bytes.h"
#include "model/params.h"
#include "model/rounds.h"

/* One block as a codec sees it. */
struct at_codec_block {
    const struct at_params *params;
    const struct at_block *block;
    uint32_t k;               /* sparse: kept per 4096 */
    const real *stats_public; /* the block's statistics in the public state that the update is for; plain: unused */
};

/* The elements of one block. */
struct at_codec_values {
    const real *start, *now; /* d = start - now */
    const real *e;           /* error feedback, or NULL */
};

struct at_kept_block; /* kept.h */

#define AT_CODEC_WORDS 128
/* Reads a block's weights or statistics from the front. Made by open; borrows the payload. A kilobyte: many of them
 * belong on the heap, since a pool's threads have small stacks. */
struct at_codec_reader {
    const struct at_codec *codec;
    const uint8_t *at, *end;
    size_t done, count; /* elements so far, and in all */
    const real *stats_public;
    uint64_t word[AT_CODEC_WORDS]; /* the codec's own */
};

struct at_codec {
    const char *name;
    uint32_t id;
    real beta;          /* of the error feedback; 0: none, and d itself is coded */
    uint32_t param_max; /* of the parameter k, which is then 1 to param_max; 0: it has none */
    /* Bytes of a block's payload at most, whatever is in it; k: as in at_codec_block, and more k never need less. */
    size_t (*bytes_max)(const struct at_params *p, const struct at_block *b, uint32_t k);
    /* Appends the weights' part, then the statistics' part. Lossy codecs code e, others start - now: the block's
     * elements. */
    at_err_t (*encode)(const struct at_codec_block *b, const struct at_codec_values *x, struct at_buf *out);
    at_err_t (*encode_stats)(const struct at_codec_block *b, const real *stats, struct at_buf *out);
    /* Foreign bytes: after this, decoding gives finite weights, +0 padding, statistics finite and >= 0, whatever the
     * public statistics are; and reads nothing outside the payload. */
    at_err_t (*check)(const struct at_codec_block *b, struct at_span payload, struct at_diag *diag);
    /* The next n elements; n is a multiple of 4096 but for the last ones of a block. */
    void (*open)(const struct at_codec_block *b, struct at_span payload, struct at_codec_reader *ret_reader);
    void (*next)(struct at_codec_reader *d, size_t n, real *ret_d);
    void (*open_stats)(const struct at_codec_block *b, struct at_span payload, struct at_codec_reader *ret_reader);
    void (*next_stats)(struct at_codec_reader *d, size_t n, real *ret_stats);
    /* Codecs that keep few elements of each chunk, so that it pays to decode them once (kept.h); NULL for others. The most
     * that a block keeps, and its weights' part decoded: what open and next give, without the zeros between. */
    size_t (*kept_max)(const struct at_params *p, const struct at_block *b, uint32_t k);
    void (*unpack)(const struct at_codec_block *b, struct at_span payload, const struct at_kept_block *ret_kept);
};
extern const struct at_codec at_codec_plain, at_codec_int4, at_codec_sparse, at_codec_sparse6s;

#define AT_CODEC_CHUNK 4096
/* NULL: unknown. */
const struct at_codec *at_codec_find(uint32_t id);

#endif
