#include "train/codec_lossy.h"

#include "train/stats_code.h"

#include <string.h>

_Static_assert(sizeof(struct at_stats_reader) <= sizeof(((struct at_codec_reader *)0)->word), "the reader's own words");

void at_codec_open_stats(const struct at_codec_block *b, const struct at_codec *codec, int steps, struct at_span bytes,
                         struct at_codec_reader *ret_reader)
{
    AT_ASSERT(b->stats_public != NULL);
    *ret_reader = (struct at_codec_reader){
        .codec = codec, .count = at_block_stats_count(b->params, b->block), .stats_public = b->stats_public};
    struct at_stats_reader s;
    at_stats_code_open(&s, steps, bytes);
    memcpy(ret_reader->word, &s, sizeof s);
}

void at_codec_next_stats(struct at_codec_reader *d, size_t n, real *ret_stats)
{
    AT_ASSERT(n <= d->count - d->done);
    struct at_stats_reader s;
    memcpy(&s, d->word, sizeof s);
    at_stats_code_next(&s, d->stats_public + d->done, n, ret_stats);
    memcpy(d->word, &s, sizeof s);
    d->done += n;
}
