#include "train/checkpoint.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { METAS = AT_CHECKPOINT_METAS };

void at_checkpoint_set_meta(struct at_st_meta *m, const char *key, const char *value)
{
    snprintf(m->key, sizeof m->key, "%s", key);
    snprintf(m->value, sizeof m->value, "%s", value);
}

void at_checkpoint_meta(const struct at_checkpoint_named *n, struct at_st_meta meta[METAS])
{
    char round[16];
    snprintf(round, sizeof round, "%" PRIu32, n->round);
    at_checkpoint_set_meta(&meta[0], "profile", "F32-1");
    at_checkpoint_set_meta(&meta[1], "round", round);
    at_checkpoint_set_meta(&meta[2], "state_root", at_hash_hex(n->root).s);
    at_checkpoint_set_meta(&meta[3], "weights_root", at_hash_hex(n->weights_root).s);
}

at_err at_checkpoint_stats_header(const struct at_params *p, const struct at_st_meta *meta, struct at_buf *out)
{
    struct at_st_tensor t = {.name = "second_moments", .f32 = true, .dims = 1, .shape = {at_stats_count(p)}};
    return at_st_write_header(out, meta, METAS, &t, 1);
}

at_err at_checkpoint_momentum_header(const struct at_params *p, const struct at_st_meta *meta, struct at_buf *out)
{
    struct at_st_tensor t = {.name = "outer_momentum", .f32 = true, .dims = 1, .shape = {p->count}};
    return at_st_write_header(out, meta, METAS, &t, 1);
}

void at_checkpoint_momentum_name(struct at_hash root, char ret_name[48])
{
    snprintf(ret_name, 48, "momentum-%.16s.safetensors", at_hash_hex(root).s);
}

void at_checkpoint_stats_name(struct at_hash root, char ret_name[40])
{
    snprintf(ret_name, 40, "stats-%.16s.safetensors", at_hash_hex(root).s);
}

at_err at_checkpoint_write(const struct at_state *s, struct at_diag *diag, struct at_checkpoint *ret_checkpoint)
{
    struct at_checkpoint c = {0};
    struct at_st_meta meta[METAS];
    int err = at_state_root(s, diag, &c.root);
    if (err != AT_OK) return err;
    at_checkpoint_meta(&(struct at_checkpoint_named){c.root, at_state_weights_root(s), s->round}, meta);
    at_checkpoint_stats_name(c.root, c.stats_name);
    at_checkpoint_momentum_name(c.root, c.momentum_name);
    c.model.bytes_max = c.stats.bytes_max = c.momentum.bytes_max = AT_ST_HEADER_BYTES_MAX + 8 + at_state_blob_bytes(s);
    err = at_hf_write(s->params, s->theta, meta, METAS, &c.model);
    if (err == AT_OK) err = at_hf_write_config(&s->params->config, &c.config);
    if (err == AT_OK) err = at_checkpoint_stats_header(s->params, meta, &c.stats);
    if (err == AT_OK) err = at_f32_append(&c.stats, s->stats, at_stats_count(s->params));
    if (s->momentum != NULL && err == AT_OK) err = at_checkpoint_momentum_header(s->params, meta, &c.momentum);
    if (s->momentum != NULL && err == AT_OK) err = at_f32_append(&c.momentum, s->momentum, s->params->count);
    if (err != AT_OK) {
        at_checkpoint_release(&c);
        return at_fail(diag, err, "checkpoint", "no memory for the checkpoint");
    }
    *ret_checkpoint = c;
    return AT_OK;
}

void at_checkpoint_release(struct at_checkpoint *c)
{
    at_buf_release(&c->model);
    at_buf_release(&c->config);
    at_buf_release(&c->stats);
    at_buf_release(&c->momentum);
    *c = (struct at_checkpoint){0};
}

bool at_checkpoint_read_u32(const char *text, uint32_t *ret)
{
    uint64_t n = 0;
    size_t len = strlen(text);
    if (len == 0 || len > 10 || (len > 1 && text[0] == '0')) return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9') return false;
        n = 10 * n + (uint64_t)(text[i] - '0');
    }
    *ret = (uint32_t)n;
    return n <= UINT32_MAX;
}

at_err at_checkpoint_read_meta(const struct at_st_file *f, const char *name, struct at_diag *diag,
                               struct at_checkpoint_named *ret)
{
    const char *root = at_st_meta(f, "state_root"), *round = at_st_meta(f, "round");
    const char *weights = at_st_meta(f, "weights_root");
    if (root == NULL || round == NULL || weights == NULL || !at_checkpoint_read_u32(round, &ret->round) ||
        at_hash_parse(root, &ret->root) != AT_OK || at_hash_parse(weights, &ret->weights_root) != AT_OK)
        return at_fail(diag, AT_E_DATA, name, "names no state_root and round: not a checkpoint of a run");
    return AT_OK;
}

at_err at_checkpoint_peek(struct at_span model, struct at_diag *diag, struct at_hash *ret_root, uint32_t *ret_round)
{
    struct at_st_file f;
    struct at_checkpoint_named named;
    int err = at_st_parse(model, AT_CHECKPOINT_MODEL, diag, &f);
    if (err != AT_OK) return err;
    err = at_checkpoint_read_meta(&f, AT_CHECKPOINT_MODEL, diag, &named);
    at_st_release(&f);
    if (err != AT_OK) return err;
    *ret_root = named.root;
    *ret_round = named.round;
    return AT_OK;
}

/* The file must begin with exactly these bytes, and be `bytes` long. */
static at_err compare(struct at_span file, const struct at_buf *want, size_t bytes, const char *name,
                      struct at_diag *diag)
{
    if (file.n != bytes)
        return at_fail(diag, file.n < bytes ? AT_E_TRUNCATED : AT_E_DATA, name,
                       "%zu bytes instead of %zu: truncated, or of another model", file.n, bytes);
    if (memcmp(file.p, want->p, want->n) != 0)
        return at_fail(diag, AT_E_DATA, name, "damaged, or of another model than this run's");
    return AT_OK;
}

static at_err check_texts(const struct at_params *p, const struct at_st_meta meta[METAS], struct at_span model,
                          struct at_span config, struct at_span stats, struct at_span momentum, const char *stats_name,
                          struct at_diag *diag)
{
    struct at_buf m = {0}, c = {0}, s = {0}, o = {0};
    size_t weights = 0;
    for (int i = 0; i < p->tensors; i++) weights += (size_t)(p->tensor[i].rows_used * p->tensor[i].cols);
    int err = at_hf_write_header(p, meta, METAS, &m);
    if (err == AT_OK) err = at_hf_write_config(&p->config, &c);
    if (err == AT_OK) err = at_checkpoint_stats_header(p, meta, &s);
    if (err == AT_OK) err = compare(config, &c, c.n, AT_CHECKPOINT_CONFIG, diag);
    if (err == AT_OK) err = compare(model, &m, m.n + 4 * weights, AT_CHECKPOINT_MODEL, diag);
    if (err == AT_OK) err = compare(stats, &s, s.n + 4 * at_stats_count(p), stats_name, diag);
    if (err == AT_OK && momentum.n > 0) err = at_checkpoint_momentum_header(p, meta, &o);
    if (err == AT_OK && momentum.n > 0) err = compare(momentum, &o, o.n + 4 * p->count, "the momentum's file", diag);
    at_buf_release(&m);
    at_buf_release(&c);
    at_buf_release(&s);
    at_buf_release(&o);
    return err;
}

/* Weights and statistics into a new state, and its roots against those that the files name. */
static at_err read_state(struct at_state *n, const struct at_st_file *f, struct at_span stats, struct at_span momentum,
                         const struct at_checkpoint_named *named, const char *stats_name, struct at_diag *diag)
{
    int err = at_hf_read(n->params, f, AT_CHECKPOINT_MODEL, diag, n->theta);
    if (err != AT_OK) return err;
    if (!at_hash_eq(at_state_weights_root(n), named->weights_root))
        return at_fail(diag, AT_E_DATA, AT_CHECKPOINT_MODEL, "damaged: its weights do not have the root that it names");
    size_t count = at_stats_count(n->params);
    at_f32_read(stats.p + (stats.n - 4 * count), n->stats, count);
    if (n->momentum != NULL)
        at_f32_read(momentum.p + (momentum.n - 4 * n->params->count), n->momentum, n->params->count);
    n->round = named->round;
    struct at_hash made;
    if (at_state_root(n, NULL, &made) != AT_OK || !at_hash_eq(made, named->root))
        return at_fail(diag, AT_E_DATA, stats_name, "damaged: with it the state does not have the root that it names");
    return at_state_check_foreign(n, diag);
}

at_err at_checkpoint_read(struct at_state *s, struct at_span model, struct at_span config, struct at_span stats,
                          struct at_diag *diag, struct at_hash *ret_root)
{
    return at_checkpoint_read_all(s, model, config, stats, (struct at_span){0}, diag, ret_root);
}

at_err at_checkpoint_read_over(struct at_state *s, struct at_span model, struct at_span config, struct at_span stats,
                               struct at_span momentum, struct at_diag *diag, struct at_hash *ret_root)
{
    AT_ASSERT((s->momentum != NULL) == (momentum.n > 0));
    struct at_st_file f = {0};
    struct at_st_meta meta[METAS];
    struct at_checkpoint_named named;
    char stats_name[40];
    int err = at_st_parse(model, AT_CHECKPOINT_MODEL, diag, &f);
    if (err != AT_OK) return err;
    err = at_checkpoint_read_meta(&f, AT_CHECKPOINT_MODEL, diag, &named);
    if (err == AT_OK) {
        at_checkpoint_meta(&named, meta);
        at_checkpoint_stats_name(named.root, stats_name);
        err = check_texts(s->params, meta, model, config, stats, momentum, stats_name, diag);
    }
    if (err == AT_OK) err = read_state(s, &f, stats, momentum, &named, stats_name, diag);
    if (err == AT_OK) *ret_root = named.root;
    at_st_release(&f);
    return err;
}

at_err at_checkpoint_read_all(struct at_state *s, struct at_span model, struct at_span config, struct at_span stats,
                              struct at_span momentum, struct at_diag *diag, struct at_hash *ret_root)
{
    struct at_state n = {0};
    int err = at_state_init(&n, s->params);
    if (err == AT_OK && s->momentum != NULL) err = at_state_add_momentum(&n);
    if (err != AT_OK)
        err = at_fail(diag, err, "checkpoint", "no memory for the state");
    else
        err = at_checkpoint_read_over(&n, model, config, stats, momentum, diag, ret_root);
    if (err == AT_OK) at_state_copy(s, &n);
    at_state_release(&n);
    return err;
}
