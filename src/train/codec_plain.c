/* Codec "plain": d, then the statistics, as binary32. */
#include "model/safetensors.h"
#include "train/codec.h"
#include "train/state.h"

static size_t bytes_max(const struct at_params *p, const struct at_block *b, uint32_t k)
{
    return 4 * (at_block_count(b) + at_block_stats_count(p, b));
}

static at_err_t append(const real *x, size_t n, struct at_buf *out)
{
    uint8_t *at;
    int err = at_buf_reserve(out, 4 * n, &at);
    if (err != AT_OK) return err;
    at_f32_store(at, x, n);
    out->n += 4 * n;
    return AT_OK;
}

static at_err_t encode(const struct at_codec_block *b, const struct at_codec_values *x, struct at_buf *out)
{
    enum { RUN = 1024 };
    real d[RUN];
    size_t n = at_block_count(b->block);
    for (size_t i = 0; i < n; i += RUN) {
        size_t len = n - i < RUN ? n - i : RUN;
        for (size_t j = 0; j < len; j++) d[j] = x->start[i + j] - x->now[i + j];
        int err = append(d, len, out);
        if (err != AT_OK) return err;
    }
    return AT_OK;
}

static at_err_t encode_stats(const struct at_codec_block *b, const real *stats, struct at_buf *out)
{
    return append(stats, at_block_stats_count(b->params, b->block), out);
}

/* Weights finite, and +0 where rows are padding; statistics neither negative, infinite nor NaN. */
static at_err_t check(const struct at_codec_block *b, struct at_span payload, struct at_diag *diag)
{
    const struct at_params *p = b->params;
    struct at_tensor_name name = at_tensor_name(p, b->block->tensor);
    size_t want = bytes_max(p, b->block, 0);
    if (payload.n != want)
        return at_fail(diag, payload.n < want ? AT_E_TRUNCATED : AT_E_DATA, name.s, "%zu bytes instead of %zu",
                       payload.n, want);
    size_t used = (size_t)(at_block_rows_used(p, b->block) * b->block->cols), n = at_block_count(b->block);
    uint32_t bad = 0, padding = 0;
    for (size_t i = 0; i < used; i++) bad |= (at_load_le32(payload.p + 4 * i) & 0x7F800000u) == 0x7F800000u;
    for (size_t i = used; i < n; i++) padding |= at_load_le32(payload.p + 4 * i);
    if (bad != 0)
        return at_fail(diag, AT_E_NONFINITE, name.s, "%s: an update is not finite",
                       at_tensor_place(p, b->block->tensor).s);
    if (padding != 0) return at_fail(diag, AT_E_DATA, name.s, "a padded row is not zero");
    for (size_t i = 4 * n; i < want; i += 4) bad |= at_load_le32(payload.p + i) >= 0x7F800000u;
    if (bad != 0) return at_fail(diag, AT_E_NONFINITE, name.s, "a second moment is negative or not finite");
    return AT_OK;
}

static void open(const struct at_codec_block *b, struct at_span payload, struct at_codec_reader *ret_reader)
{
    *ret_reader = (struct at_codec_reader){
        .codec = &at_codec_plain, .at = payload.p, .end = payload.p + payload.n, .count = at_block_count(b->block)};
}

static void open_stats(const struct at_codec_block *b, struct at_span payload, struct at_codec_reader *ret_reader)
{
    open(b, payload, ret_reader);
    ret_reader->at += 4 * at_block_count(b->block);
    ret_reader->count = at_block_stats_count(b->params, b->block);
}

static void next(struct at_codec_reader *d, size_t n, real *ret_x)
{
    AT_ASSERT(n <= d->count - d->done);
    at_f32_read(d->at, ret_x, n);
    d->at += 4 * n;
    d->done += n;
}

const struct at_codec at_codec_plain = {.name = "plain",
                                        .id = AT_CODEC_PLAIN,
                                        .bytes_max = bytes_max,
                                        .encode = encode,
                                        .encode_stats = encode_stats,
                                        .check = check,
                                        .open = open,
                                        .next = next,
                                        .open_stats = open_stats,
                                        .next_stats = next};
