#include "train/error_feedback.h"

#include "model/safetensors.h"

#include <stdlib.h>
#include <string.h>

enum { METAS = 6, RUN = 4096 };
static const char file_name[] = "feedback";

/* Memory for the next unit's: fresh memory costs more than what is written into it. */
static void put_by(struct at_error_feedback *f, real *values)
{
    if (values == NULL) return;
    free(f->reuse ? f->spare : values);
    if (f->reuse) f->spare = values;
}

static void forget_unit(struct at_error_feedback *f)
{
    put_by(f, f->next);
    f->next = NULL;
    f->update = (struct at_hash){{0}};
}

void at_error_feedback_release(struct at_error_feedback *f)
{
    free(f->next);
    free(f->e);
    free(f->spare);
    *f = (struct at_error_feedback){.params = f->params, .reuse = f->reuse};
}

bool at_error_feedback_settle(struct at_error_feedback *f, struct at_hash counted)
{
    if (at_hash_eq(f->after, counted)) return true;
    bool known = f->next != NULL && at_hash_eq(f->update, counted);
    real *e = known ? f->next : NULL;
    if (known) f->next = NULL;
    forget_unit(f);
    put_by(f, f->e);
    f->e = e;
    f->hashed = false;
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

/* The update that was sent is taken away from what it was made of. */
static at_err take_away(const struct at_exec *ex, const struct at_params *p, struct at_span blob, real *feedback)
{
    struct at_update u = {0};
    at_err_t err = at_update_parse(p, blob, NULL, &u);
    if (err == AT_OK) at_update_confirm(&u, ex->par, feedback);
    at_update_release(&u);
    return err;
}

at_err at_error_feedback_encode(struct at_error_feedback *f, const struct at_exec *ex, const struct at_codec *codec,
                                uint32_t k, const struct at_update_info *info, const struct at_update_source *source,
                                struct at_buf *out)
{
    struct at_update_source s = *source;
    size_t n = f->params->count;
    AT_ASSERT(codec->beta != 0 && out->n == 0 && source->params == f->params);
    forget_unit(f);
    f->next = f->spare != NULL ? f->spare : malloc(n * sizeof *f->next);
    f->spare = NULL;
    if (f->next == NULL) return AT_E_NOMEM;
    if (f->e != NULL)
        memcpy(f->next, f->e, n * sizeof *f->next);
    else
        memset(f->next, 0, n * sizeof *f->next);
    at_feedback_add(ex, codec, f->params, s.theta_start, s.theta, f->next);
    s.feedback = f->next;
    at_err_t err = at_update_encode(codec, k, info, &s, NULL, NULL, out);
    if (err == AT_OK) err = take_away(ex, f->params, at_buf_span(out), f->next);
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

static void add_tensor(struct at_st_tensor *tensor, int *tensors, const char *name, uint64_t count)
{
    struct at_st_tensor *t = &tensor[(*tensors)++];
    *t = (struct at_st_tensor){.f32 = true, .dims = 1, .shape = {count}};
    strcpy(t->name, name);
}

static at_err write_header(struct at_error_feedback *f, struct at_hash run, struct at_buf *out)
{
    struct at_st_meta meta[METAS];
    struct at_st_tensor tensor[2];
    int tensors = 0;
    struct at_hash none = {{0}}, next = f->next != NULL ? hash_of(f->next, f->params->count) : none;
    if (f->e != NULL) add_tensor(tensor, &tensors, "error_feedback", f->params->count);
    if (f->next != NULL) add_tensor(tensor, &tensors, "error_feedback_next", f->params->count);
    set_meta(&meta[0], "profile", "F32-1");
    set_meta(&meta[1], "run", at_hash_hex(run).s);
    set_meta(&meta[2], "update", at_hash_hex(f->after).s);
    set_meta(&meta[3], "values_hash", at_hash_hex(at_error_feedback_hash(f)).s);
    set_meta(&meta[4], "next_update", at_hash_hex(f->update).s);
    set_meta(&meta[5], "next_hash", at_hash_hex(next).s);
    return at_st_write_header(out, meta, METAS, tensor, tensors);
}

size_t at_error_feedback_file_bytes_max(const struct at_params *p)
{
    return 8 * p->count + 4096;
}

at_err at_error_feedback_write(struct at_error_feedback *f, struct at_hash run, struct at_buf *out)
{
    at_err_t err = write_header(f, run, out);
    if (err == AT_OK && f->e != NULL) err = at_f32_append(out, f->e, f->params->count);
    if (err == AT_OK && f->next != NULL) err = at_f32_append(out, f->next, f->params->count);
    return err;
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

static at_err read_hash(const struct at_st_file *st, const char *key, struct at_diag *diag, struct at_hash *ret)
{
    const char *text = at_st_meta(st, key);
    if (text != NULL && at_hash_parse(text, ret) == AT_OK) return AT_OK;
    return at_fail(diag, AT_E_DATA, file_name, "damaged, or not what a member keeps");
}

static at_err read_values(const struct at_params *p, const struct at_st_file *st, const char *name,
                          struct at_diag *diag, real **ret)
{
    const struct at_st_tensor *t = at_st_find(st, name);
    if (t == NULL) return AT_OK;
    if (t->end - t->begin != 4 * p->count)
        return at_fail(diag, AT_E_DATA, file_name, "%s has %zu bytes instead of %zu", name, t->end - t->begin,
                       4 * p->count);
    if ((*ret = malloc(p->count * sizeof **ret)) == NULL) return at_fail(diag, AT_E_NOMEM, file_name, "out of memory");
    at_f32_read(st->data.p + t->begin, *ret, p->count);
    return possible(p, *ret) ? AT_OK
                             : at_fail(diag, AT_E_DATA, file_name, "damaged: %s has a value that no unit leaves", name);
}

at_err at_error_feedback_read(struct at_error_feedback *f, struct at_hash run, struct at_span file,
                              struct at_diag *diag)
{
    struct at_st_file st = {0};
    struct at_buf header = {0};
    AT_ASSERT(f->e == NULL && f->next == NULL);
    at_err_t err = at_st_parse(file, file_name, diag, &st);
    if (err == AT_OK) err = read_hash(&st, "update", diag, &f->after);
    if (err == AT_OK) err = read_hash(&st, "next_update", diag, &f->update);
    if (err == AT_OK) err = read_values(f->params, &st, "error_feedback", diag, &f->e);
    if (err == AT_OK) err = read_values(f->params, &st, "error_feedback_next", diag, &f->next);
    if (err == AT_OK) err = write_header(f, run, &header);
    if (err == AT_OK &&
        (file.n != header.n + st.data.n || !at_span_eq(at_buf_span(&header), at_span(file.p, header.n))))
        err = at_fail(diag, AT_E_DATA, file_name, "damaged, or of another run");
    at_st_release(&st);
    at_buf_release(&header);
    if (err != AT_OK) at_error_feedback_release(f);
    return err == AT_OK ? AT_OK : at_fail(diag, err, file_name, "%s", at_err_text(err));
}
