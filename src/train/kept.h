/* kept.h: inner header of the train layer: what sparse updates keep, decoded once. An outer step reads an update up to four
 * times (norm, look, step, error feedback), and decoding is most of what a read costs. Pure. Exact: yes, the same values in
 * the same order. */
#ifndef ATOLL_TRAIN_KEPT_H
#define ATOLL_TRAIN_KEPT_H

#include "train/codec.h"

/* One block's: chunk after chunk, index ascending within each. */
struct at_kept_block {
    uint16_t *count; /* of each chunk of AT_CODEC_CHUNK elements that are not all padding */
    uint16_t *index; /* in its chunk */
    real *value;
};

struct at_kept {
    struct at_kept_block *block; /* [params->blocks]; owned, with all that it points to; NULL: nothing is kept here */
};

/* Bytes that init takes. */
size_t at_kept_bytes(const struct at_params *p, const struct at_codec *codec, uint32_t k);
/* Room for the blocks of an update by a codec that keeps some of each chunk (codec->unpack). AT_E_NOMEM. */
at_err at_kept_init(struct at_kept *kept, const struct at_params *p, const struct at_codec *codec, uint32_t k);
void at_kept_release(struct at_kept *kept);
/* Reads what codec->unpack wrote; borrows it. */
void at_kept_open(const struct at_params *p, const struct at_block *b, const struct at_kept_block *from,
                  struct at_codec_reader *ret_reader);

#endif
