/* Codecs "sparse" and "sparse6s": of every chunk of 4096 values the k largest, each a sign and one bit of size;
 * statistics as log2 ratios in whole octaves (stats_code.h). For slow links.
 *
 * The block's elements without padded rows, in memory order, are cut in chunks of 4096 (the last one short, len). Of a
 * chunk the first count = max(1, floor(k * len / 4096)) by (|e| bits descending, index ascending) are kept; those that
 * are zero are dropped. Of the kept ones, v_i by index ascending, all sums in binary64 in that order:
 *   sparse    large = |v| >= mean |v|
 *   sparse6s  large = |v| >= 3 s, s^2 = mean v^2 - (mean v)^2: bins with edges 0, +-3 s, as in published runs
 *   the mean |v| of the large and of the small ones, each rounded to 2^(q / 8), q whole (log2 by at_log64, ties up)
 * and come back as sign * 2^(q / 8), rounded to binary32 once.
 *
 * Weights' part: its bytes as LEB128, then one range-coded stream (range_code.h), learning across the block's chunks.
 * Per chunk:
 *   a learned bit: fewer than `count` are kept, then the number of them, each of 0 .. count-1 as likely
 *   which indices: index_set.h
 *   per kept value: its sign; a learned bit: large
 *   q of the large ones, if there are any, less that of the chunk before (at first that of 2^-10), as a learned whole
 *     number; q of the small ones less that of the large ones (none: as for large) likewise
 * Foreign bytes decode to something finite whatever they are; the number of steps is that of the elements. */
#include "tensor/emath.h"
#include "train/codec_lossy.h"
#include "train/index_set.h"
#include "train/kept.h"
#include "train/leb128.h"
#include "train/stats_code.h"

#include <math.h>
#include <string.h>

#define LOG2E 0x1.71547652b82fep+0
enum {
    CHUNK = AT_CODEC_CHUNK,
    STATS_STEPS = 1,
    K_MAX = 1024,
    STEPS = 8,
    LEVEL_FIRST = -10 * STEPS,
    LEVEL_END = 100 * STEPS
};

static size_t kept_of(uint32_t k, size_t len)
{
    size_t n = (size_t)k * len / CHUNK;
    return n > 0 ? n : 1;
}

/* Bytes of a chunk at most, whatever its values are and whatever was learned before. A learned bit has seen at most 254
 * of one kind for one of the other: 8 bits. So, beside the index set (index_set.h): a value takes its sign and 8; whether
 * fewer are kept 8, and how many 10; a level at most 14 learned bits and 22 of its gamma code (range_code.h), so two of
 * them 268. What the coder loses is 0.0015 bits for an index of 1/2^14, 6 in all, and next to nothing for the others.
 * 8 + 10 + 268 + 6 < 300. */
static size_t chunk_bytes_max(size_t kept, size_t len)
{
    return (AT_INDEX_BITS_MAX(kept, len) + 9 * kept + 300) / 8 + 1;
}

/* The coder never writes a byte before 8 bits were spent, and 4 at its end. */
static size_t bytes_max(const struct at_params *p, const struct at_block *b, uint32_t k)
{
    size_t used = at_codec_used(p, b), rest = used % CHUNK, bytes = AT_LEB128_BYTES_MAX + 4;
    bytes += used / CHUNK * chunk_bytes_max(kept_of(k, CHUNK), CHUNK);
    if (rest != 0) bytes += chunk_bytes_max(kept_of(k, rest), rest);
    return bytes + at_stats_code_bytes_max(at_block_stats_count(p, b));
}

/* What a stream has learned. */
struct models {
    struct at_range_int large, small;
    struct at_range_model less, size;
    int16_t level;
    struct at_index_set set;
};

static void models_init(struct models *m, const struct at_block *b)
{
    *m = (struct models){.less = {{8, 1}}, .size = {{5, 3}}, .level = LEVEL_FIRST};
    at_index_set_init(&m->set, (uint32_t)b->cols);
    at_range_int_init(&m->large);
    at_range_int_init(&m->small);
}

/* ---- choosing ---- */

static uint32_t size_bits(real x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits & 0x7FFFFFFFu;
}

/* The `count`-th largest size, 1 <= count <= len, digit by digit; *io_count: then how many of those of just this size are
 * among the `count`. Overwrites size. */
static uint32_t threshold(uint32_t *size, size_t len, size_t *io_count)
{
    static const struct {
        int shift, bits;
    } digits[] = {{20, 11}, {9, 11}, {0, 9}};
    uint32_t t = 0;
    for (int i = 0; i < 3; i++) {
        uint16_t n[1 << 11] = {0};
        int shift = digits[i].shift;
        uint32_t mask = (1u << digits[i].bits) - 1, digit = mask;
        size_t alike = 0;
        for (size_t j = 0; j < len; j++) n[size[j] >> shift & mask]++;
        while (n[digit] < *io_count) *io_count -= n[digit--];
        for (size_t j = 0; j < len; j++)
            if ((size[j] >> shift & mask) == digit) size[alike++] = size[j];
        t |= digit << shift;
        len = alike;
    }
    return t;
}

/* Indices of the kept ones, ascending, without zeros. */
static size_t choose(const real *e, size_t len, size_t count, uint16_t *ret_index)
{
    uint32_t size[CHUNK];
    size_t equal = count, n = 0; /* of those at the threshold the first ones */
    for (size_t i = 0; i < len; i++) size[i] = size_bits(e[i]);
    uint32_t t = threshold(size, len, &equal);
    for (size_t i = 0; i < len; i++) {
        uint32_t here = size_bits(e[i]);
        if (here < t || here == 0) continue;
        if (here == t) {
            if (equal == 0) continue;
            equal--;
        }
        ret_index[n++] = (uint16_t)i;
    }
    return n;
}

/* ---- quantising ---- */

struct chunk {
    size_t n;
    uint16_t index[K_MAX];
    bool negative[K_MAX], large[K_MAX];
    int level[2]; /* of the small and the large ones */
    bool any[2];
};

static double limit_mean(const real *e, const struct chunk *c)
{
    double sum = 0;
    for (size_t i = 0; i < c->n; i++) sum += fabs((double)e[c->index[i]]);
    return sum / (double)c->n;
}

static double limit_sigma(const real *e, const struct chunk *c)
{
    double sum = 0, squares = 0, n = (double)c->n;
    for (size_t i = 0; i < c->n; i++) {
        double v = (double)e[c->index[i]];
        sum += v;
        squares += v * v;
    }
    double variance = squares / n - sum / n * (sum / n);
    return variance > 0 ? 3 * sqrt(variance) : 0;
}

/* round(8 log2(x)), ties up, within what a level may be. */
static int level_of(double x)
{
    double y = STEPS * (at_log64(x) * LOG2E) + 0.5;
    int q = (int)y;
    if ((double)q > y) q--;
    return q < -126 * STEPS ? -126 * STEPS : q > LEVEL_END - 1 ? LEVEL_END - 1 : q;
}

static void quantise(const real *e, double limit, struct chunk *c)
{
    double sum[2] = {0, 0}, n[2] = {0, 0};
    for (size_t i = 0; i < c->n; i++) {
        real v = e[c->index[i]];
        double size = fabs((double)v);
        c->negative[i] = v < 0;
        c->large[i] = size >= limit;
        sum[c->large[i]] += size;
        n[c->large[i]] += 1;
    }
    for (int b = 0; b < 2; b++) {
        c->any[b] = n[b] > 0;
        if (c->any[b]) c->level[b] = level_of(sum[b] / n[b]);
    }
}

/* ---- writing ---- */

static void put_chunk(struct at_range_writer *w, struct models *m, const struct chunk *c, size_t len, size_t count)
{
    at_range_put_learned_bit(w, &m->less, c->n < count);
    if (c->n < count) at_range_put(w, (uint32_t)c->n, 1, (uint32_t)count);
    at_index_set_put(&m->set, w, c->index, c->n, len);
    for (size_t i = 0; i < c->n; i++) {
        at_range_put_bits(w, c->negative[i], 1);
        at_range_put_learned_bit(w, &m->size, c->large[i]);
    }
    if (c->any[1]) {
        at_range_put_int(w, &m->large, c->level[1] - m->level);
        m->level = (int16_t)c->level[1];
    }
    if (c->any[0]) at_range_put_int(w, &m->small, c->level[0] - m->level);
    if (c->any[0] && !c->any[1]) m->level = (int16_t)c->level[0];
}

static at_err_t put_length(struct at_buf *out, size_t at, uint32_t bytes)
{
    uint8_t head[AT_LEB128_BYTES_MAX], *room;
    size_t n = at_leb128_write(bytes, head);
    int err = at_buf_reserve(out, n, &room);
    if (err != AT_OK) return err;
    memmove(out->p + at + n, out->p + at, bytes);
    memcpy(out->p + at, head, n);
    out->n += n;
    return AT_OK;
}

static at_err_t encode_by(const struct at_codec_block *b, const real *e, bool sigma, struct at_buf *out)
{
    struct at_range_writer w;
    struct models m;
    struct chunk c;
    size_t used = at_codec_used(b->params, b->block), at = out->n, len;
    models_init(&m, b->block);
    at_range_begin(&w, out);
    for (size_t i = 0; i < used; i += len) {
        len = used - i < CHUNK ? used - i : CHUNK;
        size_t count = kept_of(b->k, len);
        c.n = choose(e + i, len, count, c.index);
        c.any[0] = c.any[1] = false;
        if (c.n > 0) quantise(e + i, sigma ? limit_sigma(e + i, &c) : limit_mean(e + i, &c), &c);
        put_chunk(&w, &m, &c, len, count);
    }
    int err = at_range_end(&w);
    if (err == AT_OK && out->n - at > UINT32_MAX) err = AT_E_TOO_BIG;
    return err == AT_OK ? put_length(out, at, (uint32_t)(out->n - at)) : err;
}

static at_err_t encode(const struct at_codec_block *b, const struct at_codec_values *x, struct at_buf *out)
{
    return encode_by(b, x->e, false, out);
}

static at_err_t encode_sigma(const struct at_codec_block *b, const struct at_codec_values *x, struct at_buf *out)
{
    return encode_by(b, x->e, true, out);
}

static at_err_t encode_stats(const struct at_codec_block *b, const real *stats, struct at_buf *out)
{
    return at_stats_code_put(STATS_STEPS, stats, b->stats_public, at_block_stats_count(b->params, b->block), out);
}

/* ---- reading ---- */

struct reader {
    struct at_range_reader range;
    struct models m;
    uint32_t k;
    uint64_t used; /* elements that are not padding */
};
_Static_assert(sizeof(struct reader) <= sizeof(((struct at_codec_reader *)0)->word), "the reader's own words");

/* Cuts a payload in its weights' part and its statistics' part. */
static bool cut(struct at_span payload, struct at_span *ret_weights, struct at_span *ret_stats)
{
    uint32_t bytes;
    if (!at_leb128_take(&payload, &bytes) || bytes > payload.n) return false;
    *ret_weights = at_span(payload.p, bytes);
    *ret_stats = at_span(payload.p + bytes, payload.n - bytes);
    return true;
}

static real value_of(int level)
{
    return (real)at_stats_code_power(level, STEPS);
}

static int level_plus(int level, int difference)
{
    int q = level + difference;
    return q < -126 * STEPS ? -126 * STEPS : q > LEVEL_END - 1 ? LEVEL_END - 1 : q;
}

/* What one chunk of len keeps, indices ascending; both have room for kept_of(k, len). Returns how many. */
static size_t next_kept(struct reader *r, size_t len, uint16_t *ret_index, real *ret_value)
{
    struct chunk c;
    struct models *m = &r->m;
    c.n = kept_of(r->k, len);
    c.any[0] = c.any[1] = false;
    if (at_range_learned_bit(&r->range, &m->less)) {
        uint32_t count = (uint32_t)c.n, n = at_range_peek(&r->range, count);
        at_range_skip(&r->range, n, 1, count);
        c.n = n;
    }
    at_index_set_get(&m->set, &r->range, c.n, len, ret_index);
    for (size_t i = 0; i < c.n; i++) {
        c.negative[i] = at_range_bits(&r->range, 1) != 0;
        c.large[i] = at_range_learned_bit(&r->range, &m->size);
        c.any[c.large[i]] = true;
    }
    if (c.any[1]) m->level = (int16_t)level_plus(m->level, at_range_get_int(&r->range, &m->large));
    real value[2] = {0, value_of(m->level)};
    if (c.any[0]) {
        int level = level_plus(m->level, at_range_get_int(&r->range, &m->small));
        value[0] = value_of(level);
        if (!c.any[1]) m->level = (int16_t)level;
    }
    for (size_t i = 0; i < c.n; i++) ret_value[i] = c.negative[i] ? -value[c.large[i]] : value[c.large[i]];
    return c.n;
}

static struct reader reader_of(const struct at_codec_block *b, struct at_span weights)
{
    struct reader r = {.k = b->k, .used = at_codec_used(b->params, b->block)};
    models_init(&r.m, b->block);
    at_range_open(&r.range, weights);
    return r;
}

static void open_by(const struct at_codec_block *b, struct at_span payload, const struct at_codec *codec,
                    struct at_codec_reader *ret_reader)
{
    struct at_span weights, stats;
    AT_ASSERT(cut(payload, &weights, &stats));
    struct reader r = reader_of(b, weights);
    *ret_reader = (struct at_codec_reader){.codec = codec, .count = at_block_count(b->block)};
    memcpy(ret_reader->word, &r, sizeof r);
}

static void next(struct at_codec_reader *d, size_t n, real *ret_d)
{
    struct reader r;
    uint16_t index[K_MAX];
    real value[K_MAX];
    AT_ASSERT(n <= d->count - d->done && d->done % CHUNK == 0);
    memcpy(&r, d->word, sizeof r);
    memset(ret_d, 0, n * sizeof *ret_d);
    size_t used = at_codec_used_of(d, n, r.used), len;
    for (size_t i = 0; i < used; i += len) {
        len = used - i < CHUNK ? used - i : CHUNK;
        size_t kept = next_kept(&r, len, index, value);
        for (size_t j = 0; j < kept; j++) ret_d[i + index[j]] = value[j];
    }
    memcpy(d->word, &r, sizeof r);
    d->done += n;
}

static size_t kept_max(const struct at_params *p, const struct at_block *b, uint32_t k)
{
    size_t used = at_codec_used(p, b), rest = used % CHUNK;
    return used / CHUNK * kept_of(k, CHUNK) + (rest != 0 ? kept_of(k, rest) : 0);
}

static void unpack(const struct at_codec_block *b, struct at_span payload, const struct at_kept_block *ret_kept)
{
    struct at_span weights, stats;
    struct at_kept_block to = *ret_kept;
    AT_ASSERT(cut(payload, &weights, &stats));
    struct reader r = reader_of(b, weights);
    for (size_t i = 0; i < r.used; i += CHUNK) {
        size_t kept = next_kept(&r, r.used - i < CHUNK ? r.used - i : CHUNK, to.index, to.value);
        *to.count++ = (uint16_t)kept;
        to.index += kept;
        to.value += kept;
    }
}

static at_err_t check(const struct at_codec_block *b, struct at_span payload, struct at_diag *diag)
{
    struct at_tensor_name name = at_tensor_name(b->params, b->block->tensor);
    struct at_span weights, stats;
    if (!cut(payload, &weights, &stats))
        return at_fail(diag, AT_E_TRUNCATED, name.s, "%zu bytes do not begin with its weights and their length",
                       payload.n);
    if (payload.n > bytes_max(b->params, b->block, b->k))
        return at_fail(diag, AT_E_DATA, name.s, "%zu bytes are too many", payload.n);
    return AT_OK;
}

static void open_stats_by(const struct at_codec_block *b, struct at_span payload, const struct at_codec *codec,
                          struct at_codec_reader *ret_reader)
{
    struct at_span weights, stats;
    AT_ASSERT(cut(payload, &weights, &stats));
    at_codec_open_stats(b, codec, STATS_STEPS, stats, ret_reader);
}

static void open(const struct at_codec_block *b, struct at_span payload, struct at_codec_reader *ret_reader)
{
    open_by(b, payload, &at_codec_sparse, ret_reader);
}

static void open_sigma(const struct at_codec_block *b, struct at_span payload, struct at_codec_reader *ret_reader)
{
    open_by(b, payload, &at_codec_sparse6s, ret_reader);
}

static void open_stats(const struct at_codec_block *b, struct at_span payload, struct at_codec_reader *ret_reader)
{
    open_stats_by(b, payload, &at_codec_sparse, ret_reader);
}

static void open_stats_sigma(const struct at_codec_block *b, struct at_span payload, struct at_codec_reader *ret_reader)
{
    open_stats_by(b, payload, &at_codec_sparse6s, ret_reader);
}

const struct at_codec at_codec_sparse = {.name = "sparse",
                                         .id = AT_CODEC_SPARSE,
                                         .beta = 0.95f,
                                         .param_max = K_MAX,
                                         .bytes_max = bytes_max,
                                         .encode = encode,
                                         .encode_stats = encode_stats,
                                         .check = check,
                                         .open = open,
                                         .next = next,
                                         .open_stats = open_stats,
                                         .next_stats = at_codec_next_stats,
                                         .kept_max = kept_max,
                                         .unpack = unpack};

const struct at_codec at_codec_sparse6s = {.name = "sparse6s",
                                           .id = AT_CODEC_SPARSE6S,
                                           .beta = 0.95f,
                                           .param_max = K_MAX,
                                           .bytes_max = bytes_max,
                                           .encode = encode_sigma,
                                           .encode_stats = encode_stats,
                                           .check = check,
                                           .open = open_sigma,
                                           .next = next,
                                           .open_stats = open_stats_sigma,
                                           .next_stats = at_codec_next_stats,
                                           .kept_max = kept_max,
                                           .unpack = unpack};
