#include "train/checkpoint_replica.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { METAS = 6 };

static const char *const part_name[AT_OWN_PARTS] = {"error_feedback", "own_weights", "moments_before"};

void at_own_name(const struct at_own_head *h, char ret_name[AT_OWN_NAME_BYTES])
{
    snprintf(ret_name, AT_OWN_NAME_BYTES, "replica-%04" PRIu32 "-%.16s.safetensors", h->replica,
             at_hash_hex(h->root).s);
}

static bool has_part(const struct at_own_head *h, int part)
{
    return part == AT_OWN_FEEDBACK ? h->feedback : h->overlap;
}

size_t at_own_count(const struct at_params *whole, int part, int tensor, int slot)
{
    return at_part_count(whole, part == AT_OWN_STATS ? AT_PART_STATS : AT_PART_WEIGHTS, tensor, slot);
}

static size_t values_count(const struct at_params *p, int part, const struct at_block *b)
{
    return at_own_count(p, part, b->tensor, b->slot);
}

/* Of a whole part. */
static size_t part_count(const struct at_params *p, int part)
{
    return part == AT_OWN_STATS ? at_stats_count(p) : p->count;
}

static void set_number(struct at_st_meta *m, const char *key, uint32_t value)
{
    char text[16];
    snprintf(text, sizeof text, "%" PRIu32, value);
    at_checkpoint_set_meta(m, key, text);
}

static at_err write_header(const struct at_params *p, const struct at_own_head *h, struct at_buf *out)
{
    struct at_st_meta meta[METAS];
    struct at_st_tensor tensor[AT_OWN_PARTS];
    int tensors = 0;
    at_checkpoint_set_meta(&meta[0], "profile", "F32-1");
    set_number(&meta[1], "round", h->round);
    at_checkpoint_set_meta(&meta[2], "state_root", at_hash_hex(h->root).s);
    set_number(&meta[3], "replica", h->replica);
    set_number(&meta[4], "replicas", h->replicas);
    at_checkpoint_set_meta(&meta[5], "values_hash", at_hash_hex(h->values).s);
    for (int part = 0; part < AT_OWN_PARTS; part++) {
        if (!has_part(h, part)) continue;
        struct at_st_tensor *t = &tensor[tensors++];
        *t = (struct at_st_tensor){.f32 = true, .dims = 1, .shape = {part_count(p, part)}};
        snprintf(t->name, sizeof t->name, "%s", part_name[part]);
    }
    return at_st_write_header(out, meta, METAS, tensor, tensors);
}

/* ---- moving the values -------------------------------------------------------------------------------------------- */

/* One block's room, and what is known of the file so far; for both directions. */
struct mover {
    const struct at_params *p;
    const struct at_block_stream *blocks;
    const struct at_piece_sink *to; /* writing; else NULL */
    const struct at_piece_source *from;
    const char *name;
    real *values;
    uint8_t *bytes;
    uint64_t offset;
    struct at_sha256_ctx hash;
    struct at_diag *diag;
};

static at_err mover_init(struct mover *m)
{
    size_t most = 0;
    for (int i = 0; i < m->p->blocks; i++)
        for (int part = AT_OWN_WEIGHTS; part <= AT_OWN_STATS; part++) {
            size_t n = values_count(m->p, part, &m->p->block[i]);
            most = n > most ? n : most;
        }
    m->values = malloc(most * sizeof *m->values);
    m->bytes = malloc(most * sizeof *m->values);
    if (m->values == NULL || m->bytes == NULL) return AT_E_NOMEM;
    at_sha256_init(&m->hash);
    return AT_OK;
}

static void mover_release(struct mover *m)
{
    free(m->values);
    free(m->bytes);
}

static at_err write_block(struct mover *m, int part, const struct at_block *b)
{
    size_t n = values_count(m->p, part, b);
    at_err_t err = m->blocks->move(m->blocks->arg, part, b->tensor, b->slot, m->values, m->diag);
    if (err != AT_OK) return err;
    at_f32_store(m->bytes, m->values, n);
    at_sha256_update(&m->hash, m->bytes, 4 * n);
    err = m->to->put(m->to->arg, 0, m->offset, at_span(m->bytes, 4 * n), m->diag);
    m->offset += 4 * n;
    return err;
}

/* What no run leaves: values that are not finite, negative moments, padding that is not zero. */
static bool possible(const struct mover *m, int part, const struct at_block *b, size_t n)
{
    size_t used = part == AT_OWN_STATS ? n : (size_t)(at_block_rows_used(m->p, b) * b->cols);
    bool ok = true;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = at_load_le32(m->bytes + 4 * i);
        ok &=
            (bits & 0x7f800000u) != 0x7f800000u && (part != AT_OWN_STATS || bits >> 31 == 0) && (i < used || bits == 0);
    }
    return ok;
}

static at_err read_block(struct mover *m, int part, const struct at_block *b)
{
    size_t n = values_count(m->p, part, b);
    at_err_t err = m->from->get(m->from->arg, 0, m->offset, m->bytes, 4 * n, m->diag);
    if (err != AT_OK) return err;
    at_sha256_update(&m->hash, m->bytes, 4 * n);
    m->offset += 4 * n;
    if (!possible(m, part, b, n))
        return at_fail(m->diag, AT_E_DATA, m->name, "damaged: %s has a value that no run leaves there",
                       part_name[part]);
    at_f32_read(m->bytes, m->values, n);
    return m->blocks->move(m->blocks->arg, part, b->tensor, b->slot, m->values, m->diag);
}

static at_err move_all(struct mover *m, const struct at_own_head *head, struct at_hash *ret_values)
{
    at_err_t err = mover_init(m);
    if (err != AT_OK) return err;
    for (int part = 0; part < AT_OWN_PARTS; part++)
        for (int i = 0; has_part(head, part) && i < m->p->blocks && err == AT_OK; i++)
            err = m->to != NULL ? write_block(m, part, &m->p->block[i]) : read_block(m, part, &m->p->block[i]);
    *ret_values = at_sha256_final(&m->hash);
    return err;
}

/* ---- the file ----------------------------------------------------------------------------------------------------- */

static at_err told(at_err_t err, struct at_diag *diag)
{
    return err == AT_OK ? AT_OK : at_fail(diag, err, "replica", "%s", at_err_text(err));
}

at_err_t at_own_write(const struct at_params *whole, const struct at_own_head *head, const struct at_block_stream *from,
                      const struct at_piece_sink *to, struct at_diag *diag)
{
    struct mover m = {.p = whole, .blocks = from, .to = to, .diag = diag};
    struct at_own_head h = *head;
    struct at_buf first = {0}, header = {0};
    at_err_t err = write_header(whole, &h, &first); /* as long as it will be, without the hash */
    m.offset = first.n;
    if (err == AT_OK) err = move_all(&m, &h, &h.values);
    if (err == AT_OK) err = write_header(whole, &h, &header);
    if (err == AT_OK) err = to->put(to->arg, 0, 0, at_buf_span(&header), diag);
    mover_release(&m);
    at_buf_release(&first);
    at_buf_release(&header);
    return told(err, diag);
}

static at_err check_said(const struct at_own_head *want, const struct at_st_file *f, const char *name,
                         struct at_diag *diag, struct at_hash *ret_values)
{
    struct at_hash root;
    uint32_t round, replica, replicas;
    const char *text[] = {at_st_meta(f, "state_root"), at_st_meta(f, "values_hash"), at_st_meta(f, "round"),
                          at_st_meta(f, "replica"), at_st_meta(f, "replicas")};
    bool all = true;
    for (size_t i = 0; i < sizeof text / sizeof text[0]; i++) all &= text[i] != NULL;
    if (!all || at_hash_parse(text[0], &root) != AT_OK || at_hash_parse(text[1], ret_values) != AT_OK ||
        !at_checkpoint_read_u32(text[2], &round) || !at_checkpoint_read_u32(text[3], &replica) ||
        !at_checkpoint_read_u32(text[4], &replicas))
        return at_fail(diag, AT_E_DATA, name, "damaged, or not what a replica of a run keeps");
    if (!at_hash_eq(root, want->root) || round != want->round || replica != want->replica || replicas != want->replicas)
        return at_fail(diag, AT_E_DATA, name,
                       "of replica %" PRIu32 " of %" PRIu32 " after round %" PRIu32
                       " of another run or another state, not of replica %" PRIu32 " of %" PRIu32 " of this one",
                       replica, replicas, round, want->replica, want->replicas);
    bool feedback = at_st_find(f, part_name[AT_OWN_FEEDBACK]) != NULL;
    bool overlap = at_st_find(f, part_name[AT_OWN_WEIGHTS]) != NULL;
    if (feedback != want->feedback || overlap != want->overlap)
        return at_fail(diag, AT_E_DATA, name, "was kept by a run with another --outer or --tau");
    return AT_OK;
}

at_err_t at_own_open(const struct at_params *whole, const struct at_own_head *want, const struct at_piece_source *from,
                     struct at_diag *diag, struct at_hash *ret_values)
{
    struct at_own_head h = *want;
    struct at_st_file f = {0};
    struct at_buf head = {0}, made = {0};
    char name[AT_OWN_NAME_BYTES];
    uint64_t values = 0;
    at_own_name(want, name);
    at_err_t err = at_checkpoint_stream_head(from, 0, name, diag, &head, &f);
    if (err == AT_OK) err = check_said(want, &f, name, diag, &h.values);
    if (err == AT_OK) err = write_header(whole, &h, &made);
    for (int part = 0; part < AT_OWN_PARTS; part++)
        if (has_part(&h, part)) values += 4 * (uint64_t)part_count(whole, part);
    if (err == AT_OK && !at_span_eq(at_buf_span(&made), at_buf_span(&head)))
        err = at_fail(diag, AT_E_DATA, name, "damaged, or of another model than this run's");
    if (err == AT_OK && from->bytes[0] != made.n + values)
        err = at_fail(diag, from->bytes[0] < made.n + values ? AT_E_TRUNCATED : AT_E_DATA, name,
                      "%" PRIu64 " bytes instead of %" PRIu64 ": truncated, or of another model", from->bytes[0],
                      made.n + values);
    if (err == AT_OK) *ret_values = h.values;
    at_st_release(&f);
    at_buf_release(&head);
    at_buf_release(&made);
    return told(err, diag);
}

at_err_t at_own_read(const struct at_params *whole, const struct at_own_head *head, const struct at_piece_source *from,
                     const struct at_block_stream *to, struct at_diag *diag)
{
    char name[AT_OWN_NAME_BYTES];
    struct mover m = {.p = whole, .blocks = to, .from = from, .name = name, .diag = diag};
    struct at_buf header = {0};
    struct at_hash values = {{0}};
    at_own_name(head, name);
    at_err_t err = write_header(whole, head, &header);
    m.offset = header.n;
    if (err == AT_OK) err = move_all(&m, head, &values);
    if (err == AT_OK && !at_hash_eq(values, head->values))
        err = at_fail(diag, AT_E_DATA, name, "damaged: its values are not those that it names");
    mover_release(&m);
    at_buf_release(&header);
    return told(err, diag);
}

at_err_t at_own_follow(const struct at_params *whole, const struct at_own_head *head,
                       const struct at_block_stream *each, struct at_diag *diag)
{
    at_err_t err = AT_OK;
    for (int part = 0; part < AT_OWN_PARTS; part++)
        for (int i = 0; has_part(head, part) && i < whole->blocks && err == AT_OK; i++)
            err = each->move(each->arg, part, whole->block[i].tensor, whole->block[i].slot, NULL, diag);
    return err;
}
