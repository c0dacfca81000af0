#include "train/update.h"

#include "tensor/ops.h"
#include "train/leb128.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t magic[8] = {'A', 'T', 'U', 'P', 'D', 'A', 'T', '3'};

static const struct at_codec *const codecs[] = {&at_codec_plain, &at_codec_int4, &at_codec_sparse, &at_codec_sparse6s};
enum { CODECS = sizeof codecs / sizeof codecs[0] };

const struct at_codec *at_codec_find(uint32_t id)
{
    for (int i = 0; i < CODECS; i++)
        if (codecs[i]->id == id) return codecs[i];
    return NULL;
}

static uint64_t weights_of_model(const struct at_params *p)
{
    uint64_t n = 0;
    for (int i = 0; i < p->tensors; i++) n += (uint64_t)p->tensor[i].rows * (uint64_t)p->tensor[i].cols;
    return n;
}

/* ---- writing ---- */

struct sums {
    struct at_exec ex; /* one thread: a run is walked by one */
    real beta;
    const real *start, *now;
    real *feedback;
    size_t count;
};

static void add_job(void *arg, int job)
{
    const struct sums *s = arg;
    size_t from = (size_t)job * AT_CODEC_CHUNK, left = s->count - from,
           n = left < AT_CODEC_CHUNK ? left : AT_CODEC_CHUNK;
    real d[AT_CODEC_CHUNK];
    for (size_t i = 0; i < n; i++) d[i] = s->start[from + i] - s->now[from + i];
    at_axpy(&s->ex, d, s->beta, s->feedback + from, (long)n);
    memcpy(s->feedback + from, d, n * sizeof *d);
}

void at_feedback_add(const struct at_exec *ex, const struct at_codec *codec, const struct at_params *p,
                     const real *theta_start, const real *theta, real *feedback)
{
    struct sums s = {*ex, codec->beta, theta_start, theta, feedback, p->count};
    s.ex.par = &at_par_serial;
    if (codec->beta != 0) at_par_run(ex->par, (int)((p->count + AT_CODEC_CHUNK - 1) / AT_CODEC_CHUNK), add_job, &s);
}

/* One block's frame: what is left out since `number_min`, bytes, payload. */
static at_err encode_block(const struct at_codec *codec, uint32_t k, const struct at_update_source *s, int block,
                           uint32_t *io_number_min, struct at_buf *out)
{
    const struct at_block *b = &s->params->block[block];
    size_t at = out->n, stats_at = at_block_stats_offset(s->params, block);
    struct at_codec_block c = {.params = s->params, .block = b, .k = k};
    struct at_codec_values x = {.start = s->theta_start + b->offset, .now = s->theta + b->offset};
    if (s->feedback != NULL) x.e = s->feedback + b->offset;
    if (s->stats_public != NULL) c.stats_public = s->stats_public + stats_at;
    uint8_t head[AT_UPDATE_BLOCK_BYTES], *room;
    uint32_t number = (uint32_t)at_block_number(s->params, b);
    int err = codec->encode(&c, &x, out);
    if (err == AT_OK) err = codec->encode_stats(&c, s->stats + stats_at, out);
    size_t bytes = out->n - at, n = at_leb128_write(number - *io_number_min, head);
    if (err == AT_OK && bytes > UINT32_MAX) err = AT_E_TOO_BIG;
    n += at_leb128_write((uint32_t)bytes, head + n);
    if (err == AT_OK) err = at_buf_reserve(out, n, &room);
    if (err != AT_OK) return err;
    memmove(out->p + at + n, out->p + at, bytes);
    memcpy(out->p + at, head, n);
    out->n += n;
    *io_number_min = number + 1;
    return AT_OK;
}

/* Blocks [first, end) lie slot by slot; in a blob their numbers ascend: tensor by tensor. */
static at_err encode_blocks(const struct at_codec *codec, uint32_t k, const struct at_update_source *s, int first,
                            int end, at_update_filter_fn *filter, void *arg, struct at_buf *out, uint32_t *ret_blocks)
{
    const struct at_params *p = s->params;
    uint32_t n = 0, number_min = 0;
    int low = p->tensors, high = -1;
    for (int i = first; i < end; i++) {
        if (p->block[i].tensor < low) low = p->block[i].tensor;
        if (p->block[i].tensor > high) high = p->block[i].tensor;
    }
    for (int t = low; t <= high; t++)
        for (int slot = 0; slot < p->tensor[t].slots; slot++) {
            if (!at_params_holds(p, t, slot)) continue;
            int block = (int)(at_params_block(p, t, slot) - p->block);
            if (block < first || block >= end || (filter != NULL && !filter(arg, block))) continue;
            int err = encode_block(codec, k, s, block, &number_min, out);
            if (err != AT_OK) return err;
            n++;
        }
    *ret_blocks = n;
    return AT_OK;
}

at_err at_update_encode_blocks(const struct at_codec *codec, uint32_t k, const struct at_update_info *info,
                               const struct at_update_source *source, int first, int blocks,
                               at_update_filter_fn *filter, void *arg, struct at_buf *out)
{
    AT_ASSERT((codec->beta == 0 || source->feedback != NULL) && (codec->param_max != 0 || k == 0));
    AT_ASSERT(first >= 0 && blocks >= 0 && blocks <= source->params->blocks - first);
    uint8_t h[AT_UPDATE_HEADER_BYTES] = {0};
    memcpy(h, magic, sizeof magic);
    at_store_le32(h + 8, codec->id);
    at_store_le32(h + 12, info->round);
    at_store_le64(h + 16, info->start);
    at_store_le32(h + 24, info->samples);
    at_store_le32(h + 28, info->steps);
    at_store_le64(h + 32, info->tokens);
    at_store_le32(h + 44, k);
    at_store_le64(h + 48, weights_of_model(source->params));
    size_t before = out->n;
    uint32_t written = 0;
    int err = at_buf_append(out, h, sizeof h);
    if (err == AT_OK) err = encode_blocks(codec, k, source, first, first + blocks, filter, arg, out, &written);
    if (err == AT_OK)
        at_store_le32(out->p + before + 40, written);
    else
        out->n = before;
    return err;
}

at_err at_update_encode(const struct at_codec *codec, uint32_t k, const struct at_update_info *info,
                        const struct at_update_source *source, at_update_filter_fn *filter, void *arg,
                        struct at_buf *out)
{
    return at_update_encode_blocks(codec, k, info, source, 0, source->params->blocks, filter, arg, out);
}

at_err at_update_write(const struct at_codec *codec, const struct at_params *p, const struct at_update_info *info,
                       const real *theta_start, const real *theta, const real *stats, struct at_buf *out)
{
    struct at_update_source s = {.params = p, .theta_start = theta_start, .theta = theta, .stats = stats};
    return at_update_encode(codec, 0, info, &s, NULL, NULL, out);
}

/* ---- reading ---- */

size_t at_update_bytes_max(const struct at_params *p)
{
    size_t sum = AT_UPDATE_HEADER_BYTES;
    for (int b = 0; b < p->blocks; b++) {
        size_t most = 0;
        for (int i = 0; i < CODECS; i++) {
            size_t n = codecs[i]->bytes_max(p, &p->block[b], codecs[i]->param_max);
            if (n > most) most = n;
        }
        sum += AT_UPDATE_BLOCK_BYTES + most;
    }
    return sum;
}

at_err at_update_begin(struct at_update *u, const struct at_params *p)
{
    int all = p->numbers;
    if (u->params != p) {
        at_update_release(u);
        u->payload = calloc((size_t)p->blocks, sizeof *u->payload);
        u->block_of = malloc((size_t)all * sizeof *u->block_of);
        if (u->payload == NULL || u->block_of == NULL) {
            at_update_release(u);
            return AT_E_NOMEM;
        }
        u->params = p;
        for (int i = 0; i < all; i++) u->block_of[i] = -1;
        for (int i = 0; i < p->blocks; i++) u->block_of[at_block_number(p, &p->block[i])] = i;
    }
    at_update_move(u, 0, p->blocks);
    u->info = (struct at_update_info){0};
    u->codec = NULL;
    u->k = 0;
    return AT_OK;
}

void at_update_move(struct at_update *u, int first, int blocks)
{
    AT_ASSERT(first >= 0 && blocks >= 0 && blocks <= u->params->blocks - first);
    for (int i = u->first; i < u->end; i++) u->payload[i] = (struct at_span){0};
    at_kept_release(&u->kept);
    u->first = first;
    u->end = first + blocks;
    u->blocks = 0;
}

void at_update_release(struct at_update *u)
{
    at_kept_release(&u->kept);
    free(u->payload);
    free(u->block_of);
    *u = (struct at_update){0};
}

static bool same_unit(const struct at_update_info *a, const struct at_update_info *b)
{
    return a->round == b->round && a->start == b->start && a->samples == b->samples && a->steps == b->steps &&
           a->tokens == b->tokens;
}

/* The header: of this model, of a unit that can be, of the same unit as the blobs before. */
static at_err read_header(struct at_update *u, struct at_span blob, struct at_diag *diag, uint32_t *ret_blocks)
{
    const struct at_params *p = u->params;
    const uint8_t *h = blob.p;
    if (blob.n < AT_UPDATE_HEADER_BYTES)
        return at_fail(diag, AT_E_TRUNCATED, "update", "%zu bytes are too few", blob.n);
    if (memcmp(h, magic, sizeof magic) != 0 || at_load_le64(h + 56) != 0)
        return at_fail(diag, AT_E_DATA, "update", "not an update");
    uint32_t k = at_load_le32(h + 44);
    const struct at_codec *codec = at_codec_find(at_load_le32(h + 8));
    if (codec == NULL) return at_fail(diag, AT_E_DATA, "update", "unknown codec %u", at_load_le32(h + 8));
    if ((codec->param_max == 0) != (k == 0) || k > codec->param_max)
        return at_fail(diag, AT_E_DATA, "update", "codec %s with parameter %u", codec->name, k);
    struct at_update_info info = {.round = at_load_le32(h + 12),
                                  .start = at_load_le64(h + 16),
                                  .samples = at_load_le32(h + 24),
                                  .steps = at_load_le32(h + 28),
                                  .tokens = at_load_le64(h + 32)};
    if (at_load_le64(h + 48) != weights_of_model(p))
        return at_fail(diag, AT_E_DATA, "update", "an update of another model");
    if (info.steps == 0 || info.samples < info.steps || info.samples % info.steps != 0 ||
        info.tokens != (uint64_t)info.samples * p->config.seq_len)
        return at_fail(diag, AT_E_DATA, "update", "impossible counts of steps, samples and tokens");
    if (u->codec != NULL && (u->codec != codec || u->k != k || !same_unit(&u->info, &info)))
        return at_fail(diag, AT_E_DATA, "update", "parts of different updates");
    u->codec = codec;
    u->k = k;
    u->info = info;
    *ret_blocks = at_load_le32(h + 40);
    return AT_OK;
}

static at_err add_block(struct at_update *u, uint32_t number, struct at_span payload, struct at_diag *diag)
{
    const struct at_params *p = u->params;
    int block = number < (uint32_t)p->numbers ? u->block_of[number] : -1;
    if (block < 0) return at_fail(diag, AT_E_DATA, "update", "block %u is not held here", number);
    const struct at_block *b = &p->block[block];
    if (block < u->first || block >= u->end)
        return at_fail(diag, AT_E_DATA, at_tensor_name(p, b->tensor).s, "slot %d is not of this fragment", b->slot);
    if (u->payload[block].p != NULL)
        return at_fail(diag, AT_E_DATA, at_tensor_name(p, b->tensor).s, "slot %d comes twice", b->slot);
    struct at_codec_block c = {.params = p, .block = b, .k = u->k};
    int err = u->codec->check(&c, payload, diag);
    if (err != AT_OK) return err;
    u->payload[block] = payload;
    u->blocks++;
    return AT_OK;
}

at_err at_update_add(struct at_update *u, struct at_span blob, struct at_diag *diag)
{
    uint32_t blocks = 0, number_min = 0;
    int err = read_header(u, blob, diag, &blocks);
    if (err != AT_OK) return err;
    struct at_span rest = at_span(blob.p + AT_UPDATE_HEADER_BYTES, blob.n - AT_UPDATE_HEADER_BYTES);
    for (uint32_t i = 0; i < blocks; i++) {
        uint32_t left_out, n;
        if (!at_leb128_take(&rest, &left_out) || !at_leb128_take(&rest, &n))
            return at_fail(diag, AT_E_TRUNCATED, "update", "%u of %u blocks can be read", i, blocks);
        if (left_out > (uint32_t)u->params->numbers - number_min)
            return at_fail(diag, AT_E_DATA, "update", "block %u is followed by none of this model's", number_min);
        uint32_t number = number_min + left_out;
        if (n > rest.n) return at_fail(diag, AT_E_TRUNCATED, "update", "block %u ends too early", number);
        err = add_block(u, number, at_span(rest.p, n), diag);
        if (err != AT_OK) return err;
        rest = at_span(rest.p + n, rest.n - n);
        number_min = number + 1;
    }
    if (rest.n != 0) return at_fail(diag, AT_E_DATA, "update", "%zu bytes too many", rest.n);
    return AT_OK;
}

at_err at_update_complete(const struct at_update *u, struct at_diag *diag)
{
    const struct at_params *p = u->params;
    if (u->blocks == u->end - u->first && u->codec != NULL) return AT_OK;
    int b = u->first;
    while (b < u->end && u->payload[b].p != NULL) b++;
    return at_fail(diag, AT_E_DATA, b < u->end ? at_tensor_name(p, p->block[b].tensor).s : "update",
                   "an update without slot %d of it", b < u->end ? p->block[b].slot : 0);
}

at_err at_update_parse(const struct at_params *p, struct at_span blob, struct at_diag *diag, struct at_update *u)
{
    int err = at_update_begin(u, p);
    if (err != AT_OK) return at_fail(diag, err, "update", "no memory for an update");
    err = at_update_add(u, blob, diag);
    return err == AT_OK ? at_update_complete(u, diag) : err;
}

static struct at_codec_block block_of(const struct at_update *u, int block, const real *stats_public)
{
    AT_ASSERT(u->payload[block].p != NULL);
    return (struct at_codec_block){
        .params = u->params, .block = &u->params->block[block], .k = u->k, .stats_public = stats_public};
}

/* Blocks differ much in size: whichever thread is free takes the next one. */
struct spread {
    const struct at_update *u;
    real *feedback;
    atomic_int next;
};

static void spread_blocks(const struct at_par *par, struct spread *s, at_job_fn *job)
{
    atomic_init(&s->next, s->u->first);
    at_par_run(par, par->threads, job, s);
}

static void unpack_job(void *arg, int job)
{
    struct spread *s = arg;
    for (int i; (i = atomic_fetch_add(&s->next, 1)) < s->u->end;) {
        struct at_codec_block c = block_of(s->u, i, NULL);
        s->u->codec->unpack(&c, s->u->payload[i], &s->u->kept.block[i]);
    }
}

void at_update_unpack(struct at_update *u, const struct at_par *par)
{
    struct spread s = {.u = u};
    AT_ASSERT(u->first == 0 && u->end == u->params->blocks && u->blocks == u->params->blocks);
    if (u->codec->unpack == NULL || u->kept.block != NULL) return;
    if (at_kept_init(&u->kept, u->params, u->codec, u->k) == AT_OK) spread_blocks(par, &s, unpack_job);
}

void at_update_open(const struct at_update *u, int block, struct at_codec_reader *ret_reader)
{
    struct at_codec_block c = block_of(u, block, NULL);
    if (u->kept.block != NULL) {
        at_kept_open(u->params, c.block, &u->kept.block[block], ret_reader);
        return;
    }
    u->codec->open(&c, u->payload[block], ret_reader);
}

void at_update_open_stats(const struct at_update *u, int block, const real *stats_public,
                          struct at_codec_reader *ret_reader)
{
    struct at_codec_block c = block_of(u, block, stats_public);
    u->codec->open_stats(&c, u->payload[block], ret_reader);
}

static void confirm_block(const struct at_update *u, int block, real *e)
{
    struct at_codec_reader d;
    real x[AT_CODEC_CHUNK];
    size_t n = at_block_count(&u->params->block[block]), len;
    at_update_open(u, block, &d);
    for (size_t at = 0; at < n; at += len) {
        len = n - at < AT_CODEC_CHUNK ? n - at : AT_CODEC_CHUNK;
        d.codec->next(&d, len, x);
        for (size_t j = 0; j < len; j++) e[at + j] -= x[j];
    }
}

static void confirm_job(void *arg, int job)
{
    struct spread *s = arg;
    for (int i; (i = atomic_fetch_add(&s->next, 1)) < s->u->end;)
        if (s->u->payload[i].p != NULL) confirm_block(s->u, i, s->feedback + s->u->params->block[i].offset);
}

void at_update_confirm(const struct at_update *u, const struct at_par *par, real *feedback)
{
    struct spread s = {.u = u, .feedback = feedback};
    if (u->codec->beta != 0) spread_blocks(par, &s, confirm_job);
}
