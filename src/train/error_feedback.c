#include "train/error_feedback.h"

#include "model/safetensors.h"

#include <stdlib.h>
#include <string.h>

enum { METAS = 4, RUN = 4096 };
static const char file_name[] = "feedback";
static const char tensor_name[] = "error_feedback";

static void forget_unit(struct at_error_feedback *f)
{
    free(f->next);
    f->next = NULL;
    at_buf_release(&f->blob);
}

void at_error_feedback_release(struct at_error_feedback *f)
{
    forget_unit(f);
    free(f->e);
    *f = (struct at_error_feedback){.params = f->params};
}

/* The update that was sent is taken away from what it was made of. It was ours and is unchanged, so it reads. */
static bool take_away(struct at_error_feedback *f)
{
    struct at_update u = {0};
    bool ours = at_update_parse(f->params, at_buf_span(&f->blob), NULL, &u) == AT_OK;
    if (ours) at_update_confirm(&u, f->next);
    at_update_release(&u);
    return ours;
}

bool at_error_feedback_settle(struct at_error_feedback *f, struct at_hash counted)
{
    bool known = at_hash_eq(f->after, counted);
    real *e = NULL;
    if (known) return true;
    if (f->next != NULL && at_hash_eq(f->update, counted) && take_away(f)) {
        e = f->next;
        f->next = NULL;
        known = true;
    }
    at_error_feedback_release(f);
    f->e = e;
    f->after = counted;
    return known;
}

static struct at_hash hash_of(const real *e, size_t count)
{
    uint8_t bytes[4 * RUN];
    struct at_sha256_ctx hash;
    at_sha256_init(&hash);
    for (size_t i = 0; i < count; i += RUN) {
        size_t len = count - i < RUN ? count - i : RUN;
        at_f32_store(bytes, e + i, len);
        at_sha256_update(&hash, bytes, 4 * len);
    }
    return at_sha256_final(&hash);
}

struct at_hash at_error_feedback_hash(struct at_error_feedback *f)
{
    if (f->e == NULL) return (struct at_hash){{0}};
    if (!f->hashed) f->hash = hash_of(f->e, f->params->count);
    f->hashed = true;
    return f->hash;
}

at_err at_error_feedback_encode(struct at_error_feedback *f, const struct at_codec *codec, uint32_t k,
                                const struct at_update_info *info, const struct at_update_source *source,
                                struct at_buf *out)
{
    struct at_update_source s = *source;
    size_t n = f->params->count;
    AT_ASSERT(codec->beta != 0 && out->n == 0 && source->params == f->params);
    forget_unit(f);
    if ((f->next = calloc(n, sizeof *f->next)) == NULL) return AT_E_NOMEM;
    if (f->e != NULL) memcpy(f->next, f->e, n * sizeof *f->next);
    at_feedback_add(codec, f->params, s.theta_start, s.theta, f->next);
    s.feedback = f->next;
    f->blob.bytes_max = out->bytes_max;
    at_err_t err = at_update_encode(codec, k, info, &s, NULL, NULL, out);
    if (err == AT_OK) err = at_buf_append(&f->blob, out->p, out->n);
    if (err == AT_OK)
        f->update = at_sha256(out->p, out->n);
    else
        forget_unit(f);
    return err;
}

/* ---- the file ---- */

static void set_meta(struct at_st_meta *m, const char *key, const char *value)
{
    AT_ASSERT(strlen(key) < sizeof m->key && strlen(value) < sizeof m->value);
    strcpy(m->key, key);
    strcpy(m->value, value);
}

static at_err write_header(const struct at_params *p, struct at_hash run, struct at_hash update, struct at_hash values,
                           struct at_buf *out)
{
    struct at_st_meta meta[METAS];
    struct at_st_tensor t = {.f32 = true, .dims = 1, .shape = {p->count}};
    memcpy(t.name, tensor_name, sizeof tensor_name);
    set_meta(&meta[0], "profile", "F32-1");
    set_meta(&meta[1], "run", at_hash_hex(run).s);
    set_meta(&meta[2], "update", at_hash_hex(update).s);
    set_meta(&meta[3], "values_hash", at_hash_hex(values).s);
    return at_st_write_header(out, meta, METAS, &t, 1);
}

size_t at_error_feedback_file_bytes_max(const struct at_params *p)
{
    return 4 * p->count + 4096;
}

at_err at_error_feedback_write(struct at_error_feedback *f, struct at_hash run, struct at_buf *out)
{
    AT_ASSERT(f->e != NULL);
    at_err_t err = write_header(f->params, run, f->after, at_error_feedback_hash(f), out);
    return err == AT_OK ? at_f32_append(out, f->e, f->params->count) : err;
}

/* What no unit leaves: values that are not finite, padding that is not zero. */
static bool possible(const struct at_params *p, const real *e)
{
    bool ok = true;
    for (int i = 0; i < p->blocks; i++) {
        const struct at_block *b = &p->block[i];
        size_t used = (size_t)(at_block_rows_used(p, b) * b->cols), n = at_block_count(b);
        for (size_t k = 0; k < n; k++) {
            uint32_t bits;
            memcpy(&bits, &e[b->offset + k], sizeof bits);
            ok &= (bits & 0x7f800000u) != 0x7f800000u && (k < used || bits == 0);
        }
    }
    return ok;
}

static at_err read_values(struct at_error_feedback *f, struct at_span values, struct at_diag *diag)
{
    size_t n = f->params->count;
    if (values.n != 4 * n)
        return at_fail(diag, values.n < 4 * n ? AT_E_TRUNCATED : AT_E_DATA, file_name, "%zu bytes instead of %zu",
                       values.n, 4 * n);
    if ((f->e = malloc(n * sizeof *f->e)) == NULL) return at_fail(diag, AT_E_NOMEM, file_name, "out of memory");
    at_f32_read(values.p, f->e, n);
    if (!possible(f->params, f->e))
        return at_fail(diag, AT_E_DATA, file_name, "damaged: it has a value that no unit leaves");
    return AT_OK;
}

at_err at_error_feedback_read(struct at_error_feedback *f, struct at_hash run, struct at_span file,
                              struct at_diag *diag)
{
    struct at_st_file st = {0};
    struct at_buf header = {0};
    AT_ASSERT(f->e == NULL && f->next == NULL);
    at_err_t err = at_st_parse(file, file_name, diag, &st);
    const char *update = err == AT_OK ? at_st_meta(&st, "update") : NULL;
    if (err == AT_OK && (update == NULL || at_hash_parse(update, &f->after) != AT_OK))
        err = at_fail(diag, AT_E_DATA, file_name, "damaged, or not what a member keeps");
    if (err == AT_OK) err = read_values(f, st.data, diag);
    if (err == AT_OK) err = write_header(f->params, run, f->after, at_error_feedback_hash(f), &header);
    if (err == AT_OK &&
        (file.n != header.n + st.data.n || !at_span_eq(at_buf_span(&header), at_span(file.p, header.n))))
        err = at_fail(diag, AT_E_DATA, file_name, "damaged, or of another run");
    at_st_release(&st);
    at_buf_release(&header);
    if (err != AT_OK) at_error_feedback_release(f);
    return err;
}
