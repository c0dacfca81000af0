#include "train/checkpoint_stream.h"

#include "base/merkle.h"

#include <stdlib.h>
#include <string.h>

static const char *const part_name[AT_PARTS] = {AT_CHECKPOINT_MODEL, "the statistics' file", "the momentum's file"};

void at_checkpoint_part_name(int part, struct at_hash root, char ret_name[48])
{
    if (part == AT_PART_WEIGHTS)
        strcpy(ret_name, AT_CHECKPOINT_MODEL);
    else if (part == AT_PART_STATS)
        at_checkpoint_stats_name(root, ret_name);
    else
        at_checkpoint_momentum_name(root, ret_name);
}

size_t at_part_count(const struct at_params *whole, int part, int tensor, int slot)
{
    const struct at_block *b = at_params_block(whole, tensor, slot);
    return part == AT_PART_STATS ? at_block_stats_count(whole, b) : at_block_count(b);
}

static at_err write_header(const struct at_params *p, int part, const struct at_checkpoint_named *named,
                           struct at_buf *out)
{
    struct at_st_meta meta[AT_CHECKPOINT_METAS];
    at_checkpoint_meta(named, meta);
    if (part == AT_PART_WEIGHTS) return at_hf_write_header(p, meta, AT_CHECKPOINT_METAS, out);
    return part == AT_PART_STATS ? at_checkpoint_stats_header(p, meta, out)
                                 : at_checkpoint_momentum_header(p, meta, out);
}

/* What both directions need: room for one tensor's values and bytes. */
struct room {
    real *values;
    uint8_t *bytes;
    uint64_t offset; /* of what comes next in the part's file */
};

static at_err room_init(struct room *r, const struct at_params *p)
{
    size_t most = 0, bytes;
    for (int t = 0; t < p->tensors; t++) {
        const struct at_tensor *x = &p->tensor[t];
        size_t n = (size_t)x->rows * (size_t)x->cols;
        if (!x->split_cols) n /= (size_t)x->slots;
        size_t stats = at_block_stats_count(p, at_params_block(p, t, 0));
        if (n < stats) n = stats;
        if (n > most) most = n;
    }
    *r = (struct room){0};
    if (!at_mul_size(most, sizeof(real), &bytes)) return AT_E_NOMEM;
    r->values = malloc(bytes);
    r->bytes = malloc(bytes);
    return r->values != NULL && r->bytes != NULL ? AT_OK : AT_E_NOMEM;
}

static void room_release(struct room *r)
{
    free(r->values);
    free(r->bytes);
}

/* ---- writing ------------------------------------------------------------------------------------------------------ */

struct writer {
    const struct at_params *p;
    const struct at_block_stream *from;
    const struct at_piece_sink *to;
    struct room room;
    struct at_hash *leaf; /* of the weights, in memory order: the file has another */
    size_t *leaf_first;   /* [blocks + 1] */
    struct at_diag *diag;
};

static size_t tiles(size_t bytes)
{
    return (bytes + AT_TILE_BYTES - 1) / AT_TILE_BYTES;
}

static at_err writer_init(struct writer *w)
{
    const struct at_params *p = w->p;
    w->leaf_first = calloc((size_t)p->blocks + 1, sizeof *w->leaf_first);
    if (w->leaf_first == NULL) return AT_E_NOMEM;
    for (int i = 0; i < p->blocks; i++)
        w->leaf_first[i + 1] = w->leaf_first[i] + tiles(4 * at_block_count(&p->block[i]));
    w->leaf = calloc(w->leaf_first[p->blocks], sizeof *w->leaf);
    return w->leaf != NULL ? room_init(&w->room, p) : AT_E_NOMEM;
}

static struct at_hash weights_root(const struct writer *w)
{
    struct at_merkle tree = {0};
    for (size_t i = 0; i < w->leaf_first[w->p->blocks]; i++) at_merkle_append(&tree, w->leaf[i]);
    return at_merkle_root(&tree);
}

static at_err put(struct writer *w, int part, size_t n)
{
    at_err_t err = w->to->put(w->to->arg, part, w->room.offset, at_span(w->room.bytes, n), w->diag);
    w->room.offset += n;
    return err;
}

static void hash_block(struct writer *w, const struct at_block *b)
{
    uint8_t tile[AT_TILE_BYTES];
    size_t n = at_block_count(b);
    struct at_hash *leaf = w->leaf + w->leaf_first[b - w->p->block];
    for (size_t i = 0; i < n; i += AT_TILE_BYTES / 4) {
        size_t k = n - i < AT_TILE_BYTES / 4 ? n - i : AT_TILE_BYTES / 4;
        at_f32_store(tile, w->room.values + i, k);
        *leaf++ = at_merkle_leaf(at_span(tile, 4 * k));
    }
}

/* A block that is a piece of the file, less its padding. */
static at_err write_block(struct writer *w, int part, const struct at_block *b)
{
    size_t n = at_part_count(w->p, part, b->tensor, b->slot);
    at_err_t err = w->from->move(w->from->arg, part, b->tensor, b->slot, w->room.values, w->diag);
    if (err != AT_OK) return err;
    if (part == AT_PART_WEIGHTS) {
        hash_block(w, b);
        n = (size_t)(at_block_rows_used(w->p, b) * b->cols);
    }
    at_f32_store(w->room.bytes, w->room.values, n);
    return n > 0 ? put(w, part, 4 * n) : AT_OK;
}

/* Slots are runs of columns: the tensor is put together. */
static at_err write_by_cols(struct writer *w, int tensor)
{
    const struct at_tensor *t = &w->p->tensor[tensor];
    long per = t->cols / t->slots;
    for (int slot = 0; slot < t->slots; slot++) {
        at_err_t err = w->from->move(w->from->arg, AT_PART_WEIGHTS, tensor, slot, w->room.values, w->diag);
        if (err != AT_OK) return err;
        hash_block(w, at_params_block(w->p, tensor, slot));
        for (long row = 0; row < t->rows; row++)
            at_f32_store(w->room.bytes + 4 * (row * t->cols + slot * per), w->room.values + row * per, (size_t)per);
    }
    return put(w, AT_PART_WEIGHTS, 4 * (size_t)(t->rows * t->cols));
}

static at_err write_part(struct writer *w, int part, const struct at_checkpoint_named *named)
{
    struct at_buf header = {0};
    at_err_t err = write_header(w->p, part, named, &header);
    w->room.offset = header.n;
    at_buf_release(&header);
    for (int i = 0; i < w->p->blocks && err == AT_OK && part != AT_PART_WEIGHTS; i++)
        err = write_block(w, part, &w->p->block[i]);
    for (int t = 0; t < w->p->tensors && err == AT_OK && part == AT_PART_WEIGHTS; t++) {
        if (w->p->tensor[t].split_cols) err = write_by_cols(w, t);
        for (int slot = 0; slot < w->p->tensor[t].slots && err == AT_OK && !w->p->tensor[t].split_cols; slot++)
            err = write_block(w, part, at_params_block(w->p, t, slot));
    }
    return err;
}

at_err_t at_checkpoint_stream_write(const struct at_params *whole, uint32_t round, struct at_hash root, bool momentum,
                                    const struct at_block_stream *from, const struct at_piece_sink *to,
                                    struct at_diag *diag)
{
    struct writer w = {.p = whole, .from = from, .to = to, .diag = diag};
    struct at_checkpoint_named named = {.root = root, .round = round};
    at_err_t err = writer_init(&w);
    for (int part = 0; part < (momentum ? AT_PARTS : AT_PART_MOMENTUM) && err == AT_OK; part++) {
        err = write_part(&w, part, &named);
        if (part == AT_PART_WEIGHTS) named.weights_root = weights_root(&w);
    }
    for (int part = 0; part < (momentum ? AT_PARTS : AT_PART_MOMENTUM) && err == AT_OK; part++) {
        struct at_buf header = {0}; /* as long as it was thought to be, now with the weights' root */
        err = write_header(whole, part, &named, &header);
        if (err == AT_OK) err = to->put(to->arg, part, 0, at_buf_span(&header), diag);
        at_buf_release(&header);
    }
    room_release(&w.room);
    free(w.leaf);
    free(w.leaf_first);
    return err != AT_OK ? at_fail(diag, err, "checkpoint", "%s", at_err_text(err)) : AT_OK;
}

/* ---- reading ------------------------------------------------------------------------------------------------------ */

static uint64_t part_bytes(const struct at_params *p, int part)
{
    uint64_t n = 0;
    if (part == AT_PART_STATS) return 4 * (uint64_t)at_stats_count(p);
    if (part == AT_PART_MOMENTUM) return 4 * (uint64_t)p->count;
    for (int i = 0; i < p->tensors; i++) n += 4 * (uint64_t)p->tensor[i].rows_used * (uint64_t)p->tensor[i].cols;
    return n;
}

/* The file begins with exactly our header, and is as long as it must be. */
static at_err check_part(const struct at_params *p, int part, const struct at_checkpoint_named *named,
                         const struct at_piece_source *from, struct at_diag *diag)
{
    struct at_buf want = {0}, got = {0};
    uint8_t *room;
    at_err_t err = write_header(p, part, named, &want);
    uint64_t bytes = want.n + part_bytes(p, part);
    if (err == AT_OK && from->bytes[part] != bytes)
        err = at_fail(diag, from->bytes[part] < bytes ? AT_E_TRUNCATED : AT_E_DATA, part_name[part],
                      "%llu bytes instead of %llu: truncated, or of another model",
                      (unsigned long long)from->bytes[part], (unsigned long long)bytes);
    if (err == AT_OK) err = at_buf_reserve(&got, want.n, &room);
    if (err == AT_OK) err = from->get(from->arg, part, 0, room, want.n, diag);
    if (err == AT_OK && memcmp(room, want.p, want.n) != 0)
        err = at_fail(diag, AT_E_DATA, part_name[part], "damaged, or of another model than this run's");
    at_buf_release(&want);
    at_buf_release(&got);
    return err;
}

at_err_t at_checkpoint_stream_head(const struct at_piece_source *from, int part, const char *name, struct at_diag *diag,
                                   struct at_buf *head, struct at_st_file *ret_file)
{
    uint8_t eight[8], *room;
    uint64_t bytes = from->bytes[part];
    if (bytes < sizeof eight)
        return at_fail(diag, AT_E_TRUNCATED, name, "%llu bytes are too few", (unsigned long long)bytes);
    at_err_t err = from->get(from->arg, part, 0, eight, sizeof eight, diag);
    uint64_t n = err == AT_OK ? at_load_le64(eight) : 0;
    if (err == AT_OK && (n > AT_ST_HEADER_BYTES_MAX || n + 8 > bytes))
        err = at_fail(diag, AT_E_DATA, name, "not a safetensors file");
    if (err == AT_OK) err = at_buf_reserve(head, (size_t)n + 8, &room);
    if (err == AT_OK) err = from->get(from->arg, part, 0, room, (size_t)n + 8, diag);
    if (err != AT_OK) return err;
    head->n += (size_t)n + 8;
    return at_st_parse_head(at_buf_span(head), (size_t)bytes, name, diag, ret_file);
}

at_err_t at_checkpoint_stream_named(const struct at_piece_source *from, struct at_diag *diag,
                                    struct at_checkpoint_named *ret)
{
    struct at_buf head = {0};
    struct at_st_file f = {0};
    at_err_t err = at_checkpoint_stream_head(from, AT_PART_WEIGHTS, AT_CHECKPOINT_MODEL, diag, &head, &f);
    if (err == AT_OK) err = at_checkpoint_read_meta(&f, AT_CHECKPOINT_MODEL, diag, ret);
    at_st_release(&f);
    at_buf_release(&head);
    return err;
}

at_err_t at_checkpoint_stream_open(const struct at_params *whole, const struct at_piece_source *from,
                                   struct at_diag *diag, struct at_checkpoint_named *ret_named)
{
    struct at_checkpoint_named named;
    at_err_t err = at_checkpoint_stream_named(from, diag, &named);
    for (int part = 0; part < (from->bytes[AT_PART_MOMENTUM] > 0 ? AT_PARTS : AT_PART_MOMENTUM) && err == AT_OK; part++)
        err = check_part(whole, part, &named, from, diag);
    if (err == AT_OK) *ret_named = named;
    return err;
}

struct reader {
    const struct at_params *p;
    const struct at_piece_source *from;
    const struct at_block_stream *to;
    struct room room;
    struct at_diag *diag;
};

static at_err get(struct reader *r, int part, size_t n)
{
    at_err_t err = r->from->get(r->from->arg, part, r->room.offset, r->room.bytes, n, r->diag);
    r->room.offset += n;
    return err;
}

/* As at_state_check_foreign; what is not finite has no root. */
static at_err check_values(const struct reader *r, int part, size_t used, size_t n)
{
    uint32_t negative = 0, padding = 0;
    if (part == AT_PART_WEIGHTS) return AT_OK; /* its padding is not in the file */
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = at_load_le32(r->room.bytes + 4 * i);
        negative |= bits >> 31;
        if (i >= used) padding |= bits;
    }
    if (part == AT_PART_STATS && negative != 0)
        return at_fail(r->diag, AT_E_DATA, part_name[part], "a second moment is negative");
    if (part == AT_PART_MOMENTUM && padding != 0)
        return at_fail(r->diag, AT_E_DATA, part_name[part], "a padded row of the momentum is not zero");
    return AT_OK;
}

static at_err read_block(struct reader *r, int part, const struct at_block *b)
{
    size_t n = at_part_count(r->p, part, b->tensor, b->slot);
    size_t used = part == AT_PART_STATS ? n : (size_t)(at_block_rows_used(r->p, b) * b->cols);
    size_t there = part == AT_PART_WEIGHTS ? used : n;
    at_err_t err = there > 0 ? get(r, part, 4 * there) : AT_OK;
    if (err == AT_OK) err = check_values(r, part, used, n);
    if (err != AT_OK) return err;
    at_f32_read(r->room.bytes, r->room.values, used);
    memset(r->room.values + used, 0, (n - used) * sizeof(real)); /* padding */
    return r->to->move(r->to->arg, part, b->tensor, b->slot, r->room.values, r->diag);
}

static at_err read_by_cols(struct reader *r, int tensor)
{
    const struct at_tensor *t = &r->p->tensor[tensor];
    long per = t->cols / t->slots;
    at_err_t err = get(r, AT_PART_WEIGHTS, 4 * (size_t)(t->rows * t->cols));
    for (int slot = 0; slot < t->slots && err == AT_OK; slot++) {
        for (long row = 0; row < t->rows; row++)
            at_f32_read(r->room.bytes + 4 * (row * t->cols + slot * per), r->room.values + row * per, (size_t)per);
        err = r->to->move(r->to->arg, AT_PART_WEIGHTS, tensor, slot, r->room.values, r->diag);
    }
    return err;
}

static at_err read_part(struct reader *r, int part)
{
    const struct at_params *p = r->p;
    at_err_t err = AT_OK;
    for (int i = 0; i < p->blocks && err == AT_OK && part != AT_PART_WEIGHTS; i++)
        err = read_block(r, part, &p->block[i]);
    for (int t = 0; t < p->tensors && err == AT_OK && part == AT_PART_WEIGHTS; t++) {
        if (p->tensor[t].split_cols) err = read_by_cols(r, t);
        for (int slot = 0; slot < p->tensor[t].slots && err == AT_OK && !p->tensor[t].split_cols; slot++)
            err = read_block(r, part, at_params_block(p, t, slot));
    }
    return err;
}

at_err_t at_checkpoint_stream_read(const struct at_params *whole, const struct at_checkpoint_named *named,
                                   const struct at_piece_source *from, const struct at_block_stream *to,
                                   struct at_diag *diag)
{
    struct reader r = {.p = whole, .from = from, .to = to, .diag = diag};
    at_err_t err = room_init(&r.room, whole);
    for (int part = 0; part < (from->bytes[AT_PART_MOMENTUM] > 0 ? AT_PARTS : AT_PART_MOMENTUM); part++) {
        struct at_buf header = {0};
        if (err == AT_OK) err = write_header(whole, part, named, &header);
        r.room.offset = header.n;
        at_buf_release(&header);
        if (err == AT_OK) err = read_part(&r, part);
    }
    room_release(&r.room);
    return err != AT_OK ? at_fail(diag, err, "checkpoint", "%s", at_err_text(err)) : AT_OK;
}

at_err_t at_checkpoint_stream_follow(const struct at_params *whole, bool momentum, const struct at_block_stream *each,
                                     struct at_diag *diag)
{
    at_err_t err = AT_OK;
    for (int t = 0; t < whole->tensors; t++)
        for (int slot = 0; slot < whole->tensor[t].slots && err == AT_OK; slot++)
            err = each->move(each->arg, AT_PART_WEIGHTS, t, slot, NULL, diag);
    for (int part = AT_PART_STATS; part < (momentum ? AT_PARTS : AT_PART_MOMENTUM); part++)
        for (int i = 0; i < whole->blocks && err == AT_OK; i++)
            err = each->move(each->arg, part, whole->block[i].tensor, whole->block[i].slot, NULL, diag);
    return err;
}
