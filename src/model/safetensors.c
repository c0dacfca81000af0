/* Reading safetensors: a foreign file's header, checked field by field. */
#include "model/safetensors.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static at_err bad(struct at_diag *diag, const char *name, const char *tensor, const char *what)
{
    return at_fail(diag, AT_E_DATA, name, "damaged safetensors header: '%.80s' %s", tensor, what);
}

static bool copy_text(char *to, size_t cap, const char *from, size_t n)
{
    if (n >= cap || memchr(from, '\0', n) != NULL) return false;
    memcpy(to, from, n);
    to[n] = '\0';
    return true;
}

/* A JSON integer >= 0. */
static bool read_size(const json_t *j, uint64_t *ret)
{
    if (!json_is_integer(j) || json_integer_value(j) < 0) return false;
    *ret = (uint64_t)json_integer_value(j);
    return true;
}

static at_err read_shape(const json_t *shape, const char *name, struct at_diag *diag, struct at_st_tensor *t,
                         size_t *ret_elements)
{
    if (!json_is_array(shape) || json_array_size(shape) > AT_ST_DIMS_MAX)
        return bad(diag, name, t->name, "needs a shape of at most 4 dimensions");
    t->dims = (int)json_array_size(shape);
    size_t elements = 1;
    for (int i = 0; i < t->dims; i++)
        if (!read_size(json_array_get(shape, (size_t)i), &t->shape[i]) || t->shape[i] > SIZE_MAX ||
            !at_mul_size(elements, (size_t)t->shape[i], &elements))
            return bad(diag, name, t->name, "has an impossible shape");
    *ret_elements = elements;
    return AT_OK;
}

static at_err read_tensor(const char *key, size_t key_n, const json_t *value, const char *name, struct at_diag *diag,
                          struct at_st_tensor *t)
{
    uint64_t begin, end;
    size_t elements = 0, bytes;
    if (!copy_text(t->name, sizeof t->name, key, key_n)) return bad(diag, name, key, "is too long a name");
    const json_t *dtype = json_object_get(value, "dtype"), *offsets = json_object_get(value, "data_offsets");
    if (!json_is_object(value) || json_object_size(value) != 3 || !json_is_string(dtype))
        return bad(diag, name, t->name, "needs dtype, shape and data_offsets, nothing else");
    int err = read_shape(json_object_get(value, "shape"), name, diag, t, &elements);
    if (err != AT_OK) return err;
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 || !read_size(json_array_get(offsets, 0), &begin) ||
        !read_size(json_array_get(offsets, 1), &end) || begin > end || end > SIZE_MAX)
        return bad(diag, name, t->name, "has impossible data_offsets");
    t->f32 = strcmp(json_string_value(dtype), "F32") == 0;
    t->begin = (size_t)begin;
    t->end = (size_t)end;
    if (t->f32 && (!at_mul_size(elements, 4, &bytes) || bytes != t->end - t->begin))
        return bad(diag, name, t->name, "has a shape that does not fit its data_offsets");
    return AT_OK;
}

static at_err read_meta(const json_t *value, const char *name, struct at_diag *diag, struct at_st_file *f)
{
    if (!json_is_object(value) || json_object_size(value) > AT_ST_META_MAX)
        return bad(diag, name, "__metadata__", "must be an object of at most 16 entries");
    for (void *it = json_object_iter((json_t *)value); it != NULL; it = json_object_iter_next((json_t *)value, it)) {
        const json_t *v = json_object_iter_value(it);
        const char *key = json_object_iter_key(it);
        struct at_st_meta *m = &f->meta[f->metas];
        if (!json_is_string(v) || !copy_text(m->key, sizeof m->key, key, strlen(key)) ||
            !copy_text(m->value, sizeof m->value, json_string_value(v), json_string_length(v)))
            return bad(diag, name, key, "in __metadata__ must be a short string");
        f->metas++;
    }
    return AT_OK;
}

static int by_begin(const void *a, const void *b)
{
    const struct at_st_tensor *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

/* No gap, no overlap, nothing left over. */
static at_err check_cover(struct at_st_file *f, const char *name, struct at_diag *diag)
{
    size_t at = 0;
    if (f->tensors > 1) qsort(f->tensor, (size_t)f->tensors, sizeof *f->tensor, by_begin);
    for (int i = 0; i < f->tensors; i++) {
        if (f->tensor[i].begin != at) return bad(diag, name, f->tensor[i].name, "leaves a gap or overlaps");
        at = f->tensor[i].end;
    }
    if (at > f->data.n)
        return at_fail(diag, AT_E_TRUNCATED, name, "the file is truncated: %zu bytes of data instead of %zu", f->data.n,
                       at);
    if (at < f->data.n) return at_fail(diag, AT_E_DATA, name, "%zu bytes too many", f->data.n - at);
    return AT_OK;
}

static at_err read_entries(json_t *root, const char *name, struct at_diag *diag, struct at_st_file *f)
{
    size_t n = json_object_size(root);
    if (n > AT_ST_TENSORS_MAX) return at_fail(diag, AT_E_TOO_BIG, name, "more than %d tensors", AT_ST_TENSORS_MAX);
    f->tensor = calloc(n + 1, sizeof *f->tensor);
    if (f->tensor == NULL) return AT_E_NOMEM;
    for (void *it = json_object_iter(root); it != NULL; it = json_object_iter_next(root, it)) {
        const char *key = json_object_iter_key(it);
        const json_t *value = json_object_iter_value(it);
        int err = strcmp(key, "__metadata__") == 0
                      ? read_meta(value, name, diag, f)
                      : read_tensor(key, strlen(key), value, name, diag, &f->tensor[f->tensors++]);
        if (err != AT_OK) return err;
    }
    return check_cover(f, name, diag);
}

at_err at_st_parse(struct at_span file, const char *name, struct at_diag *diag, struct at_st_file *ret_file)
{
    int err = at_st_parse_head(file, file.n, name, diag, ret_file);
    if (err == AT_OK) ret_file->data.p = ret_file->header.p + ret_file->header.n;
    return err;
}

at_err at_st_parse_head(struct at_span file, size_t file_bytes, const char *name, struct at_diag *diag,
                        struct at_st_file *ret_file)
{
    if (file.n < 8) return at_fail(diag, AT_E_TRUNCATED, name, "%zu bytes are too few for a safetensors file", file.n);
    uint64_t n = at_load_le64(file.p);
    if (n > AT_ST_HEADER_BYTES_MAX)
        return at_fail(diag, AT_E_TOO_BIG, name, "not a safetensors file, or its header is too large");
    if (n > file.n - 8) return at_fail(diag, AT_E_TRUNCATED, name, "the file ends within its header");
    struct at_st_file f = {.header = at_span(file.p + 8, (size_t)n), .data = at_span(NULL, file_bytes - 8 - (size_t)n)};
    json_error_t why;
    /* jansson bounds its own recursion (2048 levels) and refuses NUL in keys. */
    json_t *root = json_loadb((const char *)f.header.p, f.header.n, JSON_REJECT_DUPLICATES, &why);
    int err;
    if (!json_is_object(root))
        err = at_fail(diag, AT_E_DATA, name, "the safetensors header is not a JSON object");
    else
        err = read_entries(root, name, diag, &f);
    json_decref(root);
    if (err != AT_OK) {
        at_st_release(&f);
        return err;
    }
    *ret_file = f;
    return AT_OK;
}

void at_st_release(struct at_st_file *f)
{
    free(f->tensor);
    *f = (struct at_st_file){0};
}

const struct at_st_tensor *at_st_find(const struct at_st_file *f, const char *name)
{
    for (int i = 0; i < f->tensors; i++)
        if (strcmp(f->tensor[i].name, name) == 0) return &f->tensor[i];
    return NULL;
}

const char *at_st_meta(const struct at_st_file *f, const char *key)
{
    for (int i = 0; i < f->metas; i++)
        if (strcmp(f->meta[i].key, key) == 0) return f->meta[i].value;
    return NULL;
}
