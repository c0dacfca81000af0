/* update.h: what a unit of work hands over: the pseudo-gradient d = theta_t - theta_r and the replica's second-moment
 * statistics, as one blob of bytes. Pure. Exact: yes. The codec is a seam: "plain" (binary32) is the only one yet.
 *
 *   offset  bytes  field (little-endian)
 *   0       8      "ATUPDATE"
 *   8       4      codec id (1 = plain)
 *   12      4      round
 *   16      8      start: first sample of the consumed range
 *   24      4      samples consumed
 *   28      4      inner steps done
 *   32      8      tokens (samples * seq_len)
 *   40      8      weights (params.count)
 *   48      8      statistics (at_stats_count)
 *   56      8      0
 *   64      ...    payload of the codec; plain: d then statistics, binary32, canonical order */
#ifndef ATOLL_TRAIN_UPDATE_H
#define ATOLL_TRAIN_UPDATE_H

#include "train/state.h"

#define AT_UPDATE_HEADER_BYTES 64

struct at_update_info {
    uint32_t round, samples, steps;
    uint64_t start, tokens;
};

struct at_update; /* a parsed blob */

struct at_codec {
    const char *name;
    uint32_t id;
    /* Bytes of a payload at most. */
    size_t (*payload_bytes_max)(const struct at_params *p);
    /* Appends the payload for d = start - now and the statistics. */
    at_err (*encode)(const struct at_params *p, const real *theta_start, const real *theta, const real *stats,
                     struct at_buf *out);
    /* Checks a payload whole: length, finite values, +0 padding, statistics >= 0. */
    at_err (*check)(const struct at_params *p, struct at_span payload, struct at_diag *diag);
    /* d[from, from+n), which lies within one block; statistics [from, from+n). After check only. */
    void (*decode)(const struct at_params *p, struct at_span payload, size_t from, size_t n, real *ret_d);
    void (*decode_stats)(const struct at_params *p, struct at_span payload, size_t from, size_t n, real *ret_stats);
};
extern const struct at_codec at_codec_plain;

/* Borrows the blob. */
struct at_update {
    struct at_update_info info;
    const struct at_codec *codec;
    const struct at_params *params;
    struct at_span payload;
};

/* The most bytes a blob of this model may have (what to accept from a peer). */
size_t at_update_bytes_max(const struct at_params *p);
at_err at_update_write(const struct at_codec *codec, const struct at_params *p, const struct at_update_info *info,
                       const real *theta_start, const real *theta, const real *stats, struct at_buf *out);
/* Foreign bytes: AT_E_TRUNCATED, AT_E_DATA (other shape, impossible counts), AT_E_NONFINITE. Whether range, round and
 * tokens are those of the receipt is the caller's to compare with ret_update->info. */
at_err at_update_parse(const struct at_params *p, struct at_span blob, struct at_diag *diag,
                       struct at_update *ret_update);

#endif
