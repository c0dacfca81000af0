/* Writing safetensors: the header's text. */
#include "model/safetensors.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static at_err append_text(struct at_buf *out, const char *s)
{
    return at_buf_append(out, s, strlen(s));
}

/* A JSON string, quoted and escaped. */
static at_err append_string(struct at_buf *out, const char *s)
{
    json_t *j = json_string(s);
    char *text = j != NULL ? json_dumps(j, JSON_ENCODE_ANY) : NULL;
    int err = text != NULL ? append_text(out, text) : AT_E_NOMEM;
    free(text);
    json_decref(j);
    return err;
}

static at_err append_meta(struct at_buf *out, const struct at_st_meta *meta, int metas)
{
    int err = append_text(out, "\"__metadata__\":{");
    for (int i = 0; err == AT_OK && i < metas; i++) {
        if (i != 0) err = append_text(out, ",");
        if (err == AT_OK) err = append_string(out, meta[i].key);
        if (err == AT_OK) err = append_text(out, ":");
        if (err == AT_OK) err = append_string(out, meta[i].value);
    }
    return err == AT_OK ? append_text(out, "}") : err;
}

static at_err append_tensor(struct at_buf *out, const struct at_st_tensor *t)
{
    char text[64 + AT_ST_DIMS_MAX * 24];
    int n = snprintf(text, sizeof text, ":{\"dtype\":\"F32\",\"shape\":[");
    for (int i = 0; i < t->dims; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%s%" PRIu64, i != 0 ? "," : "", t->shape[i]);
    n += snprintf(text + n, sizeof text - (size_t)n, "],\"data_offsets\":[%zu,%zu]}", t->begin, t->end);
    AT_ASSERT((size_t)n < sizeof text);
    int err = append_text(out, ",");
    if (err == AT_OK) err = append_string(out, t->name);
    return err == AT_OK ? append_text(out, text) : err;
}

static at_err place(struct at_st_tensor *t, size_t begin)
{
    size_t bytes = 4;
    for (int i = 0; i < t->dims; i++)
        if (!at_mul_size(bytes, t->shape[i], &bytes)) return AT_E_TOO_BIG;
    t->begin = begin;
    return at_add_size(begin, bytes, &t->end) ? AT_OK : AT_E_TOO_BIG;
}

at_err at_st_write_header(struct at_buf *out, const struct at_st_meta *meta, int metas, struct at_st_tensor *tensor,
                          int tensors)
{
    struct at_buf json = {.bytes_max = AT_ST_HEADER_BYTES_MAX};
    size_t at = 0;
    int err = append_text(&json, "{");
    if (err == AT_OK) err = append_meta(&json, meta, metas);
    for (int i = 0; err == AT_OK && i < tensors; i++) {
        err = place(&tensor[i], at);
        at = tensor[i].end;
        if (err == AT_OK) err = append_tensor(&json, &tensor[i]);
    }
    if (err == AT_OK) err = append_text(&json, "}");
    while (err == AT_OK && json.n % 8 != 0) err = append_text(&json, " ");
    uint8_t n[8];
    at_store_le64(n, json.n);
    if (err == AT_OK) err = at_buf_append(out, n, sizeof n);
    if (err == AT_OK) err = at_buf_append(out, json.p, json.n);
    at_buf_release(&json);
    return err;
}
