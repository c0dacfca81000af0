/* update.h: what a unit of work hands over: the pseudo-gradient d = theta_t - theta_r and the replica's second-moment
 * statistics, as blobs of bytes, one (tensor, slot) block after the other. Pure. Exact: yes. Codecs: codec.h.
 *
 *   offset  bytes  field (little-endian)
 *   0       8      "ATUPDAT3"
 *   8       4      codec id
 *   12      4      round
 *   16      8      start: first sample of the consumed range
 *   24      4      samples consumed
 *   28      4      inner steps done
 *   32      8      tokens (samples * seq_len)
 *   40      4      blocks in this blob
 *   44      4      the codec's parameter (sparse: k), else 0
 *   48      8      weights of the whole model, padding included
 *   56      8      0
 *   64      ...    blocks, numbers ascending:  numbers left out since the block before | payload bytes | payload
 *
 * The two are LEB128 (leb128.h), as short as they go: three bytes for a block of a small update.
 * The number of a block is its canonical one in the whole model (at_block_number). A blob may hold any
 * of the blocks: a replica of many ranks sends many blobs, and a rank puts together those blocks that it holds from the
 * blobs of several ranks, which may be cut otherwise than itself; or a rank sends its blocks in fragments. */
#ifndef ATOLL_TRAIN_UPDATE_H
#define ATOLL_TRAIN_UPDATE_H

#include "tensor/exec.h"
#include "train/codec.h"
#include "train/kept.h"
#include "train/state.h"

#define AT_UPDATE_HEADER_BYTES 64
#define AT_UPDATE_BLOCK_BYTES  10 /* at most, beside its payload */

struct at_update_info {
    uint32_t round, samples, steps;
    uint64_t start, tokens;
};

/* ---- writing ---- */

/* What a replica, or one rank of it, holds after its unit. All borrowed. */
struct at_update_source {
    const struct at_params *params;
    const real *theta_start, *theta;  /* (count): d = start - theta */
    const real *feedback;             /* (count) e, after at_feedback_add; NULL for codecs without */
    const real *stats, *stats_public; /* (at_stats_count): of this replica, and of the state it started from */
};
/* Whether params->block[block] goes into a blob. */
typedef bool at_update_filter_fn(void *arg, int block);

/* Appends one blob with the blocks that `filter` lets pass (NULL: all held). AT_E_NOMEM, AT_E_TOO_BIG. */
at_err at_update_encode(const struct at_codec *codec, uint32_t k, const struct at_update_info *info,
                        const struct at_update_source *source, at_update_filter_fn *filter, void *arg,
                        struct at_buf *out);
/* A fragment of it: only of params->block[first .. first + blocks). Costs what these blocks cost. */
at_err at_update_encode_blocks(const struct at_codec *codec, uint32_t k, const struct at_update_info *info,
                               const struct at_update_source *source, int first, int blocks,
                               at_update_filter_fn *filter, void *arg, struct at_buf *out);
/* The whole of it by a codec without error feedback. */
at_err at_update_write(const struct at_codec *codec, const struct at_params *p, const struct at_update_info *info,
                       const real *theta_start, const real *theta, const real *stats, struct at_buf *out);
/* e = fma(beta, e, start - theta) elementwise: once per unit, before encoding. Nothing for codecs without. */
void at_feedback_add(const struct at_exec *ex, const struct at_codec *codec, const struct at_params *p,
                     const real *theta_start, const real *theta, real *feedback);

/* ---- reading ---- */

/* The update of one replica, put together from blobs, which are borrowed and must stay. A zeroed struct is empty. */
struct at_update {
    struct at_update_info info;
    const struct at_codec *codec; /* NULL before the first blob */
    uint32_t k;
    const struct at_params *params;
    struct at_span *payload; /* [params->blocks]; .p NULL: not there yet */
    int *block_of;           /* [params->numbers] index into params->block; -1: not held */
    int first, end;          /* blocks that it is put together from now: all, or a fragment */
    int blocks;              /* there */
    struct at_kept kept;     /* at_update_unpack */
};

/* The most bytes a blob of this model, or part of it, may have by any codec with any k (what to accept from a peer). What
 * at_update_add takes is bounded by the codec and k of its header. */
size_t at_update_bytes_max(const struct at_params *p);
/* An empty update of these params; takes memory the first time only. AT_E_NOMEM. */
at_err at_update_begin(struct at_update *u, const struct at_params *p);
/* Goes over to a fragment: forgets the blocks that are there (their blobs may go), and takes only params->block[first ..
 * first + blocks) from now on, of the same unit as the blobs before. Costs what the fragment before it had of blocks. */
void at_update_move(struct at_update *u, int first, int blocks);
/* Foreign bytes: AT_E_TRUNCATED, AT_E_DATA (another model, impossible counts, blocks that we do not hold or that are of
 * another fragment, repeated blocks, another unit than that of the blobs before), AT_E_NONFINITE. After an error begin
 * again. */
at_err at_update_add(struct at_update *u, struct at_span blob, struct at_diag *diag);
/* AT_E_DATA naming the first block that is missing, of all or of the fragment. */
at_err at_update_complete(const struct at_update *u, struct at_diag *diag);
void at_update_release(struct at_update *u);
/* begin, add, complete: one blob with all blocks. Whether range, round and tokens are those of the receipt is the
 * caller's to compare with u->info. u: zeroed, or used before. */
at_err at_update_parse(const struct at_params *p, struct at_span blob, struct at_diag *diag, struct at_update *u);

/* Decodes a complete, whole update once, so that reading it is cheap from now on; of codecs for which that pays, and nothing
 * for others. Takes at_kept_bytes until it is begun anew, moved or released; without that memory it is decoded at every
 * reading, as before. */
void at_update_unpack(struct at_update *u, const struct at_par *par);
/* Readers of a block that is there. stats_public: of this block. */
void at_update_open(const struct at_update *u, int block, struct at_codec_reader *ret_reader);
void at_update_open_stats(const struct at_update *u, int block, const real *stats_public,
                          struct at_codec_reader *ret_reader);

/* This update, our own, is part of the new state: e -= decoded, for the blocks that are there. In fragments: for each,
 * before the next. */
void at_update_confirm(const struct at_update *u, const struct at_par *par, real *feedback);

#endif
