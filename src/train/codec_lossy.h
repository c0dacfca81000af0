/* codec_lossy.h: inner header of the train layer: what the lossy codecs share. Padded rows are at a block's end; they
 * are not coded and decode to +0. Statistics by stats_code.h. Exact: yes. */
#ifndef ATOLL_TRAIN_CODEC_LOSSY_H
#define ATOLL_TRAIN_CODEC_LOSSY_H

#include "train/codec.h"
#include "train/state.h"

/* Elements of a block that are not padding. */
static inline size_t at_codec_used(const struct at_params *p, const struct at_block *b)
{
    return (size_t)at_block_rows_used(p, b) * (size_t)b->cols;
}

/* Of a reader's next n elements. */
static inline size_t at_codec_used_of(const struct at_codec_reader *d, size_t n, size_t used)
{
    if (d->done >= used) return 0;
    return used - d->done < n ? used - d->done : n;
}

void at_codec_open_stats(const struct at_codec_block *b, const struct at_codec *codec, int steps, struct at_span bytes,
                         struct at_codec_reader *ret_reader);
void at_codec_next_stats(struct at_codec_reader *d, size_t n, real *ret_stats);

#endif
