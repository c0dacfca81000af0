#include "train/update.h"

#include "model/safetensors.h"

#include <string.h>

static const uint8_t magic[8] = {'A', 'T', 'U', 'P', 'D', 'A', 'T', 'E'};

/* ---- codec "plain" ---- */

static size_t plain_bytes(const struct at_params *p)
{
    return 4 * (p->count + at_stats_count(p));
}

static at_err plain_encode(const struct at_params *p, const real *theta_start, const real *theta, const real *stats,
                           struct at_buf *out)
{
    uint8_t *at;
    int err = at_buf_reserve(out, plain_bytes(p), &at);
    if (err != AT_OK) return err;
    enum { CHUNK = 1024 };
    real d[CHUNK];
    for (size_t i = 0; i < p->count; i += CHUNK) {
        size_t n = p->count - i < CHUNK ? p->count - i : CHUNK;
        for (size_t j = 0; j < n; j++) d[j] = theta_start[i + j] - theta[i + j];
        at_f32_store(at + 4 * i, d, n);
    }
    at_f32_store(at + 4 * p->count, stats, at_stats_count(p));
    out->n += plain_bytes(p);
    return AT_OK;
}

static void plain_decode(const struct at_params *p, struct at_span payload, size_t from, size_t n, real *ret_d)
{
    at_f32_read(payload.p + 4 * from, ret_d, n);
}

static void plain_decode_stats(const struct at_params *p, struct at_span payload, size_t from, size_t n,
                               real *ret_stats)
{
    at_f32_read(payload.p + 4 * (p->count + from), ret_stats, n);
}

/* One block's share of the payload: finite, and +0 where rows are padding. */
static at_err plain_check_block(const struct at_params *p, const struct at_block *b, struct at_span payload,
                                struct at_diag *diag)
{
    const uint8_t *at = payload.p + 4 * b->offset;
    size_t used = (size_t)(at_block_rows_used(p, b) * b->cols), n = at_block_count(b);
    uint32_t bad = 0, padding = 0;
    for (size_t i = 0; i < used; i++) bad |= (at_load_le32(at + 4 * i) & 0x7F800000u) == 0x7F800000u;
    for (size_t i = used; i < n; i++) padding |= at_load_le32(at + 4 * i);
    if (bad != 0)
        return at_fail(diag, AT_E_NONFINITE, at_tensor_name(p, b->tensor).s, "%s: an update is not finite",
                       at_tensor_place(p, b->tensor).s);
    if (padding != 0) return at_fail(diag, AT_E_DATA, at_tensor_name(p, b->tensor).s, "a padded row is not zero");
    return AT_OK;
}

static at_err plain_check(const struct at_params *p, struct at_span payload, struct at_diag *diag)
{
    if (payload.n != plain_bytes(p))
        return at_fail(diag, payload.n < plain_bytes(p) ? AT_E_TRUNCATED : AT_E_DATA, "update",
                       "a payload of %zu bytes instead of %zu", payload.n, plain_bytes(p));
    for (int i = 0; i < p->blocks; i++) {
        int err = plain_check_block(p, &p->block[i], payload, diag);
        if (err != AT_OK) return err;
    }
    const uint8_t *at = payload.p + 4 * p->count;
    size_t n = at_stats_count(p);
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) bad |= at_load_le32(at + 4 * i) >= 0x7F800000u; /* negative, infinite or NaN */
    if (bad != 0) return at_fail(diag, AT_E_NONFINITE, "update", "a second moment is negative or not finite");
    return AT_OK;
}

const struct at_codec at_codec_plain = {.name = "plain",
                                        .id = 1,
                                        .payload_bytes_max = plain_bytes,
                                        .encode = plain_encode,
                                        .check = plain_check,
                                        .decode = plain_decode,
                                        .decode_stats = plain_decode_stats};

static const struct at_codec *const codecs[] = {&at_codec_plain};
enum { CODECS = sizeof codecs / sizeof codecs[0] };

static const struct at_codec *find_codec(uint32_t id)
{
    for (int i = 0; i < CODECS; i++)
        if (codecs[i]->id == id) return codecs[i];
    return NULL;
}

/* ---- the blob ---- */

size_t at_update_bytes_max(const struct at_params *p)
{
    size_t most = 0;
    for (int i = 0; i < CODECS; i++) {
        size_t n = codecs[i]->payload_bytes_max(p);
        if (n > most) most = n;
    }
    return AT_UPDATE_HEADER_BYTES + most;
}

at_err at_update_write(const struct at_codec *codec, const struct at_params *p, const struct at_update_info *info,
                       const real *theta_start, const real *theta, const real *stats, struct at_buf *out)
{
    uint8_t h[AT_UPDATE_HEADER_BYTES] = {0};
    memcpy(h, magic, sizeof magic);
    at_store_le32(h + 8, codec->id);
    at_store_le32(h + 12, info->round);
    at_store_le64(h + 16, info->start);
    at_store_le32(h + 24, info->samples);
    at_store_le32(h + 28, info->steps);
    at_store_le64(h + 32, info->tokens);
    at_store_le64(h + 40, p->count);
    at_store_le64(h + 48, at_stats_count(p));
    size_t before = out->n;
    int err = at_buf_append(out, h, sizeof h);
    if (err == AT_OK) err = codec->encode(p, theta_start, theta, stats, out);
    if (err != AT_OK) out->n = before;
    return err;
}

at_err at_update_parse(const struct at_params *p, struct at_span blob, struct at_diag *diag,
                       struct at_update *ret_update)
{
    const uint8_t *h = blob.p;
    if (blob.n < AT_UPDATE_HEADER_BYTES)
        return at_fail(diag, AT_E_TRUNCATED, "update", "%zu bytes are too few", blob.n);
    if (memcmp(h, magic, sizeof magic) != 0 || at_load_le64(h + 56) != 0)
        return at_fail(diag, AT_E_DATA, "update", "not an update");
    struct at_update u = {.params = p, .codec = find_codec(at_load_le32(h + 8))};
    if (u.codec == NULL) return at_fail(diag, AT_E_DATA, "update", "unknown codec %u", at_load_le32(h + 8));
    u.info = (struct at_update_info){.round = at_load_le32(h + 12),
                                     .start = at_load_le64(h + 16),
                                     .samples = at_load_le32(h + 24),
                                     .steps = at_load_le32(h + 28),
                                     .tokens = at_load_le64(h + 32)};
    if (at_load_le64(h + 40) != p->count || at_load_le64(h + 48) != at_stats_count(p))
        return at_fail(diag, AT_E_DATA, "update", "an update of another model");
    if (u.info.steps == 0 || u.info.samples < u.info.steps || u.info.samples % u.info.steps != 0 ||
        u.info.tokens != (uint64_t)u.info.samples * p->config.seq_len)
        return at_fail(diag, AT_E_DATA, "update", "impossible counts of steps, samples and tokens");
    u.payload = at_span(blob.p + AT_UPDATE_HEADER_BYTES, blob.n - AT_UPDATE_HEADER_BYTES);
    int err = u.codec->check(p, u.payload, diag);
    if (err != AT_OK) return err;
    *ret_update = u;
    return AT_OK;
}
