/* Codec "int4": groups of 128 values, each a whole number of -7 .. 7 times the group's scale; statistics as log2 ratios
 * in eighths (stats_code.h). For dense outer steps over links that carry an eighth of binary32.
 *
 * The block's elements without padded rows, n of them, in memory order:
 *   per group of 128 (the last one short, to an even number of values):
 *     scale   u16     bfloat16, >= 0, finite: the smallest with 7 * scale >= the group's largest |e|, in binary64
 *     values  4 bits  q + 8, the lower half of a byte first; q = round(e / scale), binary64, halves away from zero;
 *                     0 in a group whose scale is 0
 * decoded: (real)q * scale. Exact: a product of 3 and 8 bits. Then the statistics to the end of the payload. */
#include "train/codec_lossy.h"
#include "train/stats_code.h"

#include <math.h>
#include <string.h>

enum { GROUP = 128, STATS_STEPS = 8 };

static size_t weights_bytes(const struct at_codec_block *b)
{
    size_t n = at_codec_used(b->params, b->block), whole = n / GROUP, rest = n % GROUP;
    return whole * (2 + GROUP / 2) + (rest != 0 ? 2 + (rest + 1) / 2 : 0);
}

static size_t bytes_max(const struct at_params *p, const struct at_block *b, uint32_t k)
{
    struct at_codec_block c = {.params = p, .block = b};
    return weights_bytes(&c) + at_stats_code_bytes_max(at_block_stats_count(p, b));
}

static float from_bf16(uint32_t half)
{
    uint32_t bits = half << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The smallest bfloat16 with 7 * scale >= most. */
static uint32_t scale_for(float most)
{
    float x = most / 7;
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint32_t half = bits >> 16;
    while (7 * (double)from_bf16(half) < (double)most) half++;
    return half;
}

static int quantise(float x, float scale)
{
    double q = (double)x / (double)scale;
    return (int)(q + copysign(0.5, q)); /* no branch: the signs are as good as random */
}

static void encode_group(const real *e, size_t n, uint8_t *at)
{
    float most = 0;
    for (size_t i = 0; i < n; i++) {
        float size = fabsf(e[i]);
        if (size > most) most = size;
    }
    uint32_t half = scale_for(most);
    float scale = from_bf16(half);
    at[0] = (uint8_t)half;
    at[1] = (uint8_t)(half >> 8);
    for (size_t i = 0; i < n; i += 2) {
        int low = half != 0 ? quantise(e[i], scale) : 0;
        int high = half != 0 && i + 1 < n ? quantise(e[i + 1], scale) : 0;
        at[2 + i / 2] = (uint8_t)((low + 8) | (high + 8) << 4);
    }
}

static at_err_t encode(const struct at_codec_block *b, const struct at_codec_values *x, struct at_buf *out)
{
    size_t n = at_codec_used(b->params, b->block);
    uint8_t *at;
    int err = at_buf_reserve(out, weights_bytes(b), &at);
    if (err != AT_OK) return err;
    for (size_t i = 0; i < n; i += GROUP) {
        size_t len = n - i < GROUP ? n - i : GROUP;
        encode_group(x->e + i, len, at);
        at += 2 + (len + 1) / 2;
    }
    out->n += weights_bytes(b);
    return AT_OK;
}

static at_err_t encode_stats(const struct at_codec_block *b, const real *stats, struct at_buf *out)
{
    return at_stats_code_put(STATS_STEPS, stats, b->stats_public, at_block_stats_count(b->params, b->block), out);
}

static at_err_t check(const struct at_codec_block *b, struct at_span payload, struct at_diag *diag)
{
    struct at_tensor_name name = at_tensor_name(b->params, b->block->tensor);
    size_t n = at_codec_used(b->params, b->block), weights = weights_bytes(b);
    if (payload.n < weights)
        return at_fail(diag, AT_E_TRUNCATED, name.s, "%zu bytes; its weights take %zu", payload.n, weights);
    if (payload.n > bytes_max(b->params, b->block, 0))
        return at_fail(diag, AT_E_DATA, name.s, "%zu bytes are too many", payload.n);
    for (size_t i = 0, at = 0; i < n; i += GROUP, at += 2 + GROUP / 2)
        if ((uint32_t)(payload.p[at] | payload.p[at + 1] << 8) > 0x7C00) /* 2^121: any sum of products is finite */
            return at_fail(diag, AT_E_NONFINITE, name.s, "a scale is negative or not finite");
    return AT_OK;
}

/* word[0]: elements that are not padding. */
static void open(const struct at_codec_block *b, struct at_span payload, struct at_codec_reader *ret_reader)
{
    *ret_reader = (struct at_codec_reader){.codec = &at_codec_int4,
                                           .at = payload.p,
                                           .end = payload.p + payload.n,
                                           .count = at_block_count(b->block),
                                           .word = {at_codec_used(b->params, b->block)}};
}

static void next(struct at_codec_reader *d, size_t n, real *ret_d)
{
    AT_ASSERT(n <= d->count - d->done && d->done % GROUP == 0);
    size_t used = at_codec_used_of(d, n, d->word[0]);
    for (size_t i = 0; i < used; i += GROUP) {
        size_t len = used - i < GROUP ? used - i : GROUP;
        float scale = from_bf16((uint32_t)(d->at[0] | d->at[1] << 8));
        real value[16];
        for (int q = 0; q < 16; q++) value[q] = (real)(q - 8) * scale;
        for (size_t j = 0; j + 1 < len; j += 2) {
            ret_d[i + j] = value[d->at[2 + j / 2] & 15];
            ret_d[i + j + 1] = value[d->at[2 + j / 2] >> 4];
        }
        if (len % 2 != 0) ret_d[i + len - 1] = value[d->at[2 + len / 2] & 15];
        d->at += 2 + (len + 1) / 2;
    }
    for (size_t i = used; i < n; i++) ret_d[i] = 0;
    d->done += n;
}

static void open_stats(const struct at_codec_block *b, struct at_span payload, struct at_codec_reader *ret_reader)
{
    size_t weights = weights_bytes(b);
    at_codec_open_stats(b, &at_codec_int4, STATS_STEPS, at_span(payload.p + weights, payload.n - weights), ret_reader);
}

const struct at_codec at_codec_int4 = {.name = "int4",
                                       .id = AT_CODEC_INT4,
                                       .beta = 1,
                                       .bytes_max = bytes_max,
                                       .encode = encode,
                                       .encode_stats = encode_stats,
                                       .check = check,
                                       .open = open,
                                       .next = next,
                                       .open_stats = open_stats,
                                       .next_stats = at_codec_next_stats};
