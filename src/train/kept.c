#include "train/kept.h"

#include "train/codec_lossy.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNK = AT_CODEC_CHUNK };

struct reader {
    struct at_kept_block at;
    uint64_t used; /* elements that are not padding */
};
_Static_assert(sizeof(struct reader) <= sizeof(((struct at_codec_reader *)0)->word), "the reader's own words");

static size_t chunks_of(const struct at_params *p, const struct at_block *b)
{
    return (at_codec_used(p, b) + CHUNK - 1) / CHUNK;
}

/* How much of each there is in all blocks. */
struct counts {
    size_t chunks, entries;
};

static struct counts count(const struct at_params *p, const struct at_codec *codec, uint32_t k)
{
    struct counts n = {0, 0};
    for (int i = 0; i < p->blocks; i++) {
        n.chunks += chunks_of(p, &p->block[i]);
        n.entries += codec->kept_max(p, &p->block[i], k);
    }
    return n;
}

size_t at_kept_bytes(const struct at_params *p, const struct at_codec *codec, uint32_t k)
{
    struct counts n = count(p, codec, k);
    return (size_t)p->blocks * sizeof(struct at_kept_block) + n.entries * (sizeof(real) + sizeof(uint16_t)) +
           n.chunks * sizeof(uint16_t);
}

at_err at_kept_init(struct at_kept *kept, const struct at_params *p, const struct at_codec *codec, uint32_t k)
{
    struct counts n = count(p, codec, k);
    struct at_kept_block *block = malloc(at_kept_bytes(p, codec, k));
    if (block == NULL) return AT_E_NOMEM;
    real *value = (real *)(void *)(block + p->blocks);
    uint16_t *index = (uint16_t *)(void *)(value + n.entries), *counts = index + n.entries;
    for (int i = 0; i < p->blocks; i++) {
        size_t most = codec->kept_max(p, &p->block[i], k);
        block[i] = (struct at_kept_block){counts, index, value};
        counts += chunks_of(p, &p->block[i]);
        index += most;
        value += most;
    }
    *kept = (struct at_kept){block};
    return AT_OK;
}

void at_kept_release(struct at_kept *kept)
{
    free(kept->block);
    *kept = (struct at_kept){0};
}

static void next(struct at_codec_reader *d, size_t n, real *ret_d)
{
    struct reader r;
    AT_ASSERT(n <= d->count - d->done && d->done % CHUNK == 0);
    memcpy(&r, d->word, sizeof r);
    memset(ret_d, 0, n * sizeof *ret_d);
    size_t used = at_codec_used_of(d, n, r.used);
    for (size_t i = 0; i < used; i += CHUNK) {
        size_t here = *r.at.count++;
        for (size_t j = 0; j < here; j++) ret_d[i + r.at.index[j]] = r.at.value[j];
        r.at.index += here;
        r.at.value += here;
    }
    memcpy(d->word, &r, sizeof r);
    d->done += n;
}

static const struct at_codec kept_values = {.name = "kept", .next = next};

void at_kept_open(const struct at_params *p, const struct at_block *b, const struct at_kept_block *from,
                  struct at_codec_reader *ret_reader)
{
    struct reader r = {.at = *from, .used = at_codec_used(p, b)};
    *ret_reader = (struct at_codec_reader){.codec = &kept_values, .count = at_block_count(b)};
    memcpy(ret_reader->word, &r, sizeof r);
}
