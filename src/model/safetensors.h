/* safetensors.h: the file format of model weights (huggingface/safetensors): pure buffer codecs, no files.
 *
 *   offset  bytes  field
 *   0       8      N, length of the header, little-endian
 *   8       N      JSON object: {"__metadata__": {string: string...},
 *                  name: {"dtype", "shape": [..], "data_offsets": [b,e]}...}
 *   8+N     ...    data; [b,e) of each tensor is relative to here; the tensors fill it without gap or overlap
 * A file is foreign input: every size is checked, nothing is read outside the buffer, limits below. */
#ifndef ATOLL_MODEL_SAFETENSORS_H
#define ATOLL_MODEL_SAFETENSORS_H

#include "base/bytes.h"

#define AT_ST_HEADER_BYTES_MAX ((size_t)8 << 20)
#define AT_ST_TENSORS_MAX      65536
#define AT_ST_DIMS_MAX         4
#define AT_ST_NAME_MAX         127
#define AT_ST_META_MAX         16
#define AT_ST_META_TEXT_MAX    127

/* One tensor. Only dtype F32 is known; others are listed with f32 = false and cannot be read as weights. */
struct at_st_tensor {
    char name[AT_ST_NAME_MAX + 1];
    bool f32;
    int dims;
    uint64_t shape[AT_ST_DIMS_MAX];
    size_t begin, end; /* within the data */
};
struct at_st_meta {
    char key[AT_ST_META_TEXT_MAX + 1], value[AT_ST_META_TEXT_MAX + 1];
};

/* Owned; release with at_st_release. `data` borrows from the parsed buffer. Tensors ascend by `begin`. */
struct at_st_file {
    struct at_st_tensor *tensor;
    int tensors;
    struct at_st_meta meta[AT_ST_META_MAX];
    int metas;
    struct at_span header; /* the JSON text, borrowed */
    struct at_span data;
};

/* AT_E_DATA (with the reason in diag->text; the caller's `name` of the file in diag->where), AT_E_TRUNCATED when the
 * buffer ends too early, AT_E_TOO_BIG past a limit, AT_E_NOMEM. */
at_err at_st_parse(struct at_span file, const char *name, struct at_diag *diag, struct at_st_file *ret_file);
/* The same from the first bytes of a file of file_bytes, up to the end of its header at least; ret_file->data.p is NULL. */
at_err at_st_parse_head(struct at_span head, size_t file_bytes, const char *name, struct at_diag *diag,
                        struct at_st_file *ret_file);
void at_st_release(struct at_st_file *f);
const struct at_st_tensor *at_st_find(const struct at_st_file *f, const char *name); /* NULL when absent */
const char *at_st_meta(const struct at_st_file *f, const char *key);                 /* NULL when absent */

/* Writing: the length and header for tensors whose data follow in the given order; begin and end are computed here from
 * the shapes. The JSON is padded with spaces to a multiple of 8. Deterministic: same input, same bytes. */
at_err at_st_write_header(struct at_buf *out, const struct at_st_meta *meta, int metas, struct at_st_tensor *tensor,
                          int tensors);

/* Little-endian binary32: append to a buffer, store at p (4n bytes), read from p. No alignment is asked. */
at_err at_f32_append(struct at_buf *out, const float *x, size_t n);
void at_f32_store(uint8_t *ret_p, const float *x, size_t n);
void at_f32_read(const uint8_t *p, float *ret_x, size_t n);

#endif
