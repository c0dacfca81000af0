#include "model/hf.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- weights ---- */

static struct at_st_tensor describe(const struct at_params *p, int tensor)
{
    const struct at_tensor *t = &p->tensor[tensor];
    struct at_st_tensor d = {.f32 = true};
    snprintf(d.name, sizeof d.name, "%s", at_tensor_name(p, tensor).s);
    if (at_role_is_gain(t->role)) {
        d.dims = 1;
        d.shape[0] = (uint64_t)t->cols;
    } else {
        d.dims = 2;
        d.shape[0] = (uint64_t)t->rows_used;
        d.shape[1] = (uint64_t)t->cols;
    }
    return d;
}

at_err at_hf_write_header(const struct at_params *p, const struct at_st_meta *meta, int metas, struct at_buf *out)
{
    AT_ASSERT(metas < AT_ST_META_MAX);
    struct at_st_meta all[AT_ST_META_MAX] = {{"format", "pt"}};
    if (metas > 0) memcpy(all + 1, meta, (size_t)metas * sizeof *meta);
    struct at_st_tensor *t = calloc((size_t)p->tensors, sizeof *t);
    if (t == NULL) return AT_E_NOMEM;
    for (int i = 0; i < p->tensors; i++) t[i] = describe(p, i);
    int err = at_st_write_header(out, all, metas + 1, t, p->tensors);
    free(t);
    return err;
}

/* Calls for every run of elements of a tensor that is contiguous here and there: (offset here, element
 * there, length). */
struct runs {
    const struct at_params *p;
    const struct at_tensor *t;
    int tensor;
    long row, slot; /* next */
};

static bool next_run(struct runs *r, size_t *ret_here, size_t *ret_there, size_t *ret_n)
{
    const struct at_tensor *t = r->t;
    if (r->row >= t->rows_used) return false;
    if (!t->split_cols) { /* a slot is whole rows: the rest of it in one run */
        long per = t->rows / t->slots, slot = r->row / per;
        const struct at_block *b = at_params_block(r->p, r->tensor, (int)slot);
        long end = (slot + 1) * per < t->rows_used ? (slot + 1) * per : t->rows_used;
        *ret_here = b->offset;
        *ret_there = (size_t)(r->row * t->cols);
        *ret_n = (size_t)((end - r->row) * t->cols);
        r->row = end;
        return true;
    }
    const struct at_block *b = at_params_block(r->p, r->tensor, (int)r->slot);
    *ret_here = b->offset + (size_t)(r->row * b->cols);
    *ret_there = (size_t)(r->row * t->cols + r->slot * b->cols);
    *ret_n = (size_t)b->cols;
    if (++r->slot == t->slots) {
        r->slot = 0;
        r->row++;
    }
    return true;
}

static struct runs runs_of(const struct at_params *p, int tensor)
{
    return (struct runs){.p = p, .t = &p->tensor[tensor], .tensor = tensor};
}

at_err at_hf_write(const struct at_params *p, const float *theta, const struct at_st_meta *meta, int metas,
                   struct at_buf *out)
{
    size_t before = out->n, bytes = 0, here, there, n;
    int err = at_hf_write_header(p, meta, metas, out);
    if (err != AT_OK) return err;
    for (int i = 0; i < p->tensors; i++) bytes += 4 * (size_t)(p->tensor[i].rows_used * p->tensor[i].cols);
    uint8_t *at;
    err = at_buf_reserve(out, bytes, &at);
    if (err != AT_OK) {
        out->n = before;
        return err;
    }
    for (int i = 0; i < p->tensors; i++) {
        for (struct runs r = runs_of(p, i); next_run(&r, &here, &there, &n);)
            at_f32_store(at + 4 * there, theta + here, n);
        at += 4 * (size_t)(p->tensor[i].rows_used * p->tensor[i].cols);
    }
    out->n += bytes;
    return AT_OK;
}

static bool same_shape(const struct at_st_tensor *a, const struct at_st_tensor *b)
{
    if (a->dims != b->dims) return false;
    for (int i = 0; i < a->dims; i++)
        if (a->shape[i] != b->shape[i]) return false;
    return true;
}

static at_err check_tensors(const struct at_params *p, const struct at_st_file *file, const char *name,
                            struct at_diag *diag)
{
    for (int i = 0; i < p->tensors; i++) {
        struct at_st_tensor want = describe(p, i);
        const struct at_st_tensor *t = at_st_find(file, want.name);
        if (t == NULL) return at_fail(diag, AT_E_DATA, name, "tensor %s is missing", want.name);
        if (!t->f32) return at_fail(diag, AT_E_DATA, name, "tensor %s is not of type F32", want.name);
        if (!same_shape(t, &want))
            return at_fail(diag, AT_E_DATA, name, "tensor %s has another shape: a file of another model", want.name);
    }
    return AT_OK;
}

at_err at_hf_read(const struct at_params *p, const struct at_st_file *file, const char *name, struct at_diag *diag,
                  float *ret_theta)
{
    int err = check_tensors(p, file, name, diag);
    if (err != AT_OK) return err;
    size_t here, there, n;
    memset(ret_theta, 0, p->count * sizeof *ret_theta);
    for (int i = 0; i < p->tensors; i++) {
        const uint8_t *at = file->data.p + at_st_find(file, at_tensor_name(p, i).s)->begin;
        for (struct runs r = runs_of(p, i); next_run(&r, &here, &there, &n);)
            at_f32_read(at + 4 * there, ret_theta + here, n);
    }
    return AT_OK;
}

/* ---- config.json ---- */

/* Seventeen digits: a binary64 comes back as it went. */
static const char config_text[] = "{\n"
                                  "  \"architectures\": [\"LlamaForCausalLM\"],\n"
                                  "  \"model_type\": \"llama\",\n"
                                  "  \"hidden_act\": \"silu\",\n"
                                  "  \"torch_dtype\": \"float32\",\n"
                                  "  \"attention_bias\": false,\n"
                                  "  \"mlp_bias\": false,\n"
                                  "  \"attention_dropout\": 0.0,\n"
                                  "  \"initializer_range\": 0.02,\n"
                                  "  \"use_cache\": true,\n"
                                  "  \"bos_token_id\": null,\n"
                                  "  \"eos_token_id\": null,\n"
                                  "  \"pad_token_id\": null,\n"
                                  "  \"rope_scaling\": null,\n"
                                  "  \"num_hidden_layers\": %" PRIu32 ",\n"
                                  "  \"hidden_size\": %" PRIu32 ",\n"
                                  "  \"num_attention_heads\": %" PRIu32 ",\n"
                                  "  \"num_key_value_heads\": %" PRIu32 ",\n"
                                  "  \"head_dim\": %" PRIu32 ",\n"
                                  "  \"intermediate_size\": %" PRIu32 ",\n"
                                  "  \"max_position_embeddings\": %" PRIu32 ",\n"
                                  "  \"vocab_size\": %" PRIu32 ",\n"
                                  "  \"tie_word_embeddings\": %s,\n"
                                  "  \"rope_theta\": %s,\n"
                                  "  \"rms_norm_eps\": %s\n"
                                  "}\n";

struct real_text {
    char s[32];
};

/* Always with a point or an exponent: readers that check types take "10000" for a whole number. */
static struct real_text real_text(double x)
{
    struct real_text t;
    snprintf(t.s, sizeof t.s, "%.17g", x);
    if (strpbrk(t.s, ".e") == NULL) strcat(t.s, ".0");
    return t;
}

at_err at_hf_write_config(const struct at_model_config *c, struct at_buf *out)
{
    char text[sizeof config_text + 256];
    int n = snprintf(text, sizeof text, config_text, c->layers, c->d_model, c->heads, c->kv_heads, c->head_size,
                     c->d_ff, c->seq_len, c->vocab, c->tied ? "true" : "false", real_text(c->rope_theta).s,
                     real_text(c->norm_eps).s);
    AT_ASSERT(n > 0 && (size_t)n < sizeof text);
    return at_buf_append(out, text, (size_t)n);
}

static at_err field(const json_t *root, const char *key, const char *name, struct at_diag *diag, uint32_t *ret)
{
    const json_t *j = json_object_get(root, key);
    if (!json_is_integer(j) || json_integer_value(j) < 0 || json_integer_value(j) > UINT32_MAX)
        return at_fail(diag, AT_E_DATA, name, "field %s is missing or not a whole number", key);
    *ret = (uint32_t)json_integer_value(j);
    return AT_OK;
}

static at_err number(const json_t *root, const char *key, const char *name, struct at_diag *diag, double *ret)
{
    const json_t *j = json_object_get(root, key);
    if (!json_is_number(j)) return at_fail(diag, AT_E_DATA, name, "field %s is missing or not a number", key);
    *ret = json_number_value(j);
    return AT_OK;
}

/* Features of the family that change the arithmetic and that this model does not have. */
static at_err check_features(const json_t *root, const char *name, struct at_diag *diag)
{
    const json_t *scaling = json_object_get(root, "rope_scaling"), *act = json_object_get(root, "hidden_act");
    if (scaling != NULL && !json_is_null(scaling))
        return at_fail(diag, AT_E_DATA, name, "field rope_scaling: scaled rotary positions are not supported");
    if (act != NULL && (!json_is_string(act) || strcmp(json_string_value(act), "silu") != 0))
        return at_fail(diag, AT_E_DATA, name, "field hidden_act: only silu is supported");
    if (json_is_true(json_object_get(root, "attention_bias")) || json_is_true(json_object_get(root, "mlp_bias")))
        return at_fail(diag, AT_E_DATA, name, "fields attention_bias, mlp_bias: biases are not supported");
    return AT_OK;
}

static at_err read_config(const json_t *root, const char *name, struct at_diag *diag, struct at_model_config *c)
{
    const json_t *type = json_object_get(root, "model_type"), *tied = json_object_get(root, "tie_word_embeddings");
    if (!json_is_string(type) || strcmp(json_string_value(type), "llama") != 0)
        return at_fail(diag, AT_E_DATA, name, "not the config of a Llama model (field model_type)");
    int err = check_features(root, name, diag);
    if (err != AT_OK) return err;
    const struct {
        const char *key;
        uint32_t *to;
    } whole[] = {{"num_hidden_layers", &c->layers},  {"hidden_size", &c->d_model},
                 {"num_attention_heads", &c->heads}, {"num_key_value_heads", &c->kv_heads},
                 {"intermediate_size", &c->d_ff},    {"max_position_embeddings", &c->seq_len},
                 {"vocab_size", &c->vocab}};
    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++) {
        err = field(root, whole[i].key, name, diag, whole[i].to);
        if (err != AT_OK) return err;
    }
    c->head_size = c->heads != 0 ? c->d_model / c->heads : 0;
    const json_t *head_dim = json_object_get(root, "head_dim");
    if (head_dim != NULL && !json_is_null(head_dim)) {
        err = field(root, "head_dim", name, diag, &c->head_size);
        if (err != AT_OK) return err;
    }
    c->tied = json_is_true(tied);
    err = number(root, "rope_theta", name, diag, &c->rope_theta);
    if (err == AT_OK) err = number(root, "rms_norm_eps", name, diag, &c->norm_eps);
    return err == AT_OK ? at_model_config_check(c, diag) : err;
}

at_err at_hf_read_config(struct at_span json, const char *name, struct at_diag *diag,
                         struct at_model_config *ret_config)
{
    json_error_t why;
    json_t *root = json.n <= 65536 ? json_loadb((const char *)json.p, json.n, JSON_REJECT_DUPLICATES, &why) : NULL;
    struct at_model_config c = {0};
    int err =
        json_is_object(root) ? read_config(root, name, diag, &c) : at_fail(diag, AT_E_DATA, name, "not a JSON object");
    json_decref(root);
    if (err == AT_OK) *ret_config = c;
    return err;
}
