/* node_compute_files.c: a node's state, and what it keeps for itself, as files of the run folder. */
#include "node/node_compute_inner.h"

#include "train/checkpoint.h"

#include <stdlib.h>
#include <string.h>

struct at_compute_files {
    struct at_checkpoint c;
};

at_err_t at_compute_pack(struct at_compute *c, struct at_hash root, struct at_diag *diag,
                         struct at_compute_files **ret_files)
{
    struct at_compute_files *f = calloc(1, sizeof *f);
    if (!f) return at_fail(diag, AT_E_NOMEM, c->dir, "out of memory");
    at_err_t err = at_checkpoint_write(&c->state, diag, &f->c);
    if (err) {
        free(f);
        return err;
    }
    if (!at_hash_eq(f->c.root, root)) {
        at_compute_files_release(f);
        return at_fail(diag, AT_E_INTERNAL, c->dir, "asked to save another state than the one held");
    }
    *ret_files = f;
    return AT_OK;
}

void at_compute_files_release(struct at_compute_files *files)
{
    if (files) at_checkpoint_release(&files->c);
    free(files);
}

static at_err write_one(const char *dir, const char *name, const struct at_buf *bytes, struct at_diag *diag)
{
    char path[AT_PATH_BYTES];
    struct at_span part = at_buf_span(bytes);
    at_err_t err = at_path_join(dir, name, diag, path);
    return err ? err : at_file_write_atomic(path, &part, 1, 0644, diag);
}

struct sweep {
    const char *dir;
    const struct at_checkpoint *keep;
};
static at_err_t sweep_old(void *user, const char *name)
{
    const struct sweep *s = user;
    char path[AT_PATH_BYTES];
    size_t n = strlen(name);
    bool ours = strncmp(name, "stats-", 6) == 0 || strncmp(name, "momentum-", 9) == 0;
    bool stale = ours && n > 18 && strcmp(name + n - 12, ".safetensors") == 0 &&
                 strcmp(name, s->keep->stats_name) != 0 && strcmp(name, s->keep->momentum_name) != 0;
    stale |= n > 4 && strcmp(name + n - 4, ".tmp") == 0 && strstr(name, ".safetensors.") != NULL; /* of a crash */
    return stale && at_path_join(s->dir, name, NULL, path) == AT_OK ? at_file_remove(path, NULL) : AT_OK;
}

/* Statistics and momentum carry their root in their names and come first, so the model.safetensors that is there finds
 * its own. */
at_err_t at_compute_write(const char *dir, const struct at_compute_files *files, struct at_diag *diag)
{
    at_err_t err = write_one(dir, files->c.stats_name, &files->c.stats, diag);
    if (!err && files->c.momentum.n > 0) err = write_one(dir, files->c.momentum_name, &files->c.momentum, diag);
    if (!err) err = write_one(dir, AT_CHECKPOINT_CONFIG, &files->c.config, diag);
    if (!err) err = write_one(dir, AT_CHECKPOINT_MODEL, &files->c.model, diag);
    if (!err) err = at_dir_list(dir, diag, sweep_old, &(struct sweep){dir, &files->c});
    return err;
}

static at_err read_one(const struct at_compute *c, const char *name, struct at_diag *diag, struct at_buf *bytes)
{
    char path[AT_PATH_BYTES];
    bytes->bytes_max = MODEL_BYTES_MAX;
    at_err_t err = at_path_join(c->dir, name, diag, path);
    return err ? err : at_file_read(path, MODEL_BYTES_MAX, diag, bytes);
}

at_err_t at_compute_load(struct at_compute *c, struct at_diag *diag, struct at_compute_state *ret_state)
{
    char path[AT_PATH_BYTES], stats_name[40], momentum_name[48];
    struct at_buf model = {0}, config = {0}, stats = {0}, momentum = {0};
    struct at_hash root;
    uint32_t round = 0;
    at_err_t err = at_path_join(c->dir, AT_CHECKPOINT_MODEL, diag, path);
    if (!err && !at_file_exists(path)) return AT_E_NOT_FOUND;
    if (!err) err = read_one(c, AT_CHECKPOINT_MODEL, diag, &model);
    if (!err) err = at_checkpoint_peek(at_buf_span(&model), diag, &root, &round);
    if (!err) at_checkpoint_stats_name(root, stats_name);
    if (!err) err = read_one(c, stats_name, diag, &stats);
    if (!err) at_checkpoint_momentum_name(root, momentum_name);
    if (!err && c->momentum) err = read_one(c, momentum_name, diag, &momentum);
    if (!err) err = read_one(c, AT_CHECKPOINT_CONFIG, diag, &config);
    if (!err)
        err = at_checkpoint_read_all(&c->state, at_buf_span(&model), at_buf_span(&config), at_buf_span(&stats),
                                     at_buf_span(&momentum), diag, &root);
    at_buf_release(&model);
    at_buf_release(&config);
    at_buf_release(&stats);
    at_buf_release(&momentum);
    if (!err) return at_compute_describe(c, false, diag, ret_state);
    return err == AT_E_NOT_FOUND ? AT_E_DATA : err; /* a file of several is missing: damaged, not absent */
}

/* ---- what a member keeps for itself ---- */
static const char own_name[] = "feedback.safetensors";

at_err_t at_compute_pack_own(struct at_compute *c, struct at_hash run, struct at_hash counted, struct at_diag *diag,
                             struct at_buf *out)
{
    struct at_error_feedback *f = &c->feedback;
    if (!c->configured || c->genesis.outer.kind == AT_OUTER_MEAN) return AT_OK;
    c->feedback_lost |= !at_error_feedback_settle(f, counted);
    if ((!f->e || at_hash_eq(c->feedback_kept, f->after)) && !f->next) return AT_OK;
    out->bytes_max = at_error_feedback_file_bytes_max(f->params);
    at_err_t err = at_error_feedback_write(f, run, out);
    if (err) return at_fail(diag, err, c->dir, "no memory for the error feedback's file");
    c->feedback_kept = f->after;
    return AT_OK;
}

at_err_t at_compute_write_own(const char *dir, const struct at_buf *bytes, struct at_diag *diag)
{
    char path[AT_PATH_BYTES];
    struct at_span part = at_buf_span(bytes);
    at_err_t err = at_path_join(dir, own_name, diag, path);
    return err ? err : at_file_write_atomic(path, &part, 1, 0600, diag);
}

at_err_t at_compute_load_own(struct at_compute *c, struct at_hash run, struct at_diag *diag)
{
    char path[AT_PATH_BYTES];
    struct at_buf bytes = {.bytes_max = MODEL_BYTES_MAX};
    if (c->genesis.outer.kind == AT_OUTER_MEAN) return AT_OK;
    at_err_t err = at_path_join(c->dir, own_name, diag, path);
    if (err || !at_file_exists(path)) return err;
    err = at_file_read(path, at_error_feedback_file_bytes_max(c->feedback.params), diag, &bytes);
    if (!err) err = at_error_feedback_read(&c->feedback, run, at_buf_span(&bytes), diag);
    if (!err) c->feedback_kept = c->feedback.after;
    at_buf_release(&bytes);
    return err;
}
