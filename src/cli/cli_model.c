#include "cli/cli_model.h"

#include "cli/train_diary.h"
#include "os/file_part.h"
#include "train/checkpoint_stream.h"

#include <stdio.h>
#include <string.h>

#define MODEL_BYTES_MAX ((size_t)64 << 30)

struct files {
    struct at_buf model, config, stats, momentum; /* momentum: empty where there is none */
};

static void files_release(struct files *f)
{
    at_buf_release(&f->model);
    at_buf_release(&f->config);
    at_buf_release(&f->stats);
    at_buf_release(&f->momentum);
}

/* The codecs know a file by its name only; a person needs to know in which folder, and what to do. */
static at_err_t explain(const char *dir, at_err_t err, const struct at_diag *own, struct at_diag *diag)
{
    char path[AT_PATH_BYTES];
    if (own->err == AT_OK) return at_fail(diag, err, dir, "cannot load the model: %s", at_err_text(err));
    if (at_path_join(dir, own->where, NULL, path) != AT_OK) return at_fail(diag, err, own->where, "%s", own->text);
    return at_fail(diag, err, path, "%s; put a copy in its place (every member of a run has the same)", own->text);
}

static at_err read_one(const char *dir, const char *name, struct at_diag *diag, struct at_buf *buf)
{
    char path[AT_PATH_BYTES];
    at_err_t err = at_path_join(dir, name, diag, path);
    if (err != AT_OK) return err;
    buf->bytes_max = MODEL_BYTES_MAX;
    return at_file_read(path, MODEL_BYTES_MAX, diag, buf);
}

static at_err read_files(const char *dir, struct at_diag *diag, struct files *f)
{
    struct at_hash root;
    uint32_t round;
    char stats_name[40];
    at_err_t err = read_one(dir, AT_CHECKPOINT_MODEL, diag, &f->model);
    if (err != AT_OK) return err;
    struct at_diag own = {0};
    err = at_checkpoint_peek(at_buf_span(&f->model), &own, &root, &round);
    if (err != AT_OK) return explain(dir, err, &own, diag);
    at_checkpoint_stats_name(root, stats_name);
    if ((err = read_one(dir, stats_name, diag, &f->stats)) != AT_OK) return err;
    char momentum_name[48], path[AT_PATH_BYTES];
    at_checkpoint_momentum_name(root, momentum_name);
    if ((err = at_path_join(dir, momentum_name, diag, path)) != AT_OK) return err;
    if (at_file_exists(path) && (err = read_one(dir, momentum_name, diag, &f->momentum)) != AT_OK) return err;
    return read_one(dir, AT_CHECKPOINT_CONFIG, diag, &f->config);
}

static at_err parse(const char *dir, const struct files *f, struct at_diag *diag, struct at_cli_model *ret_model)
{
    struct at_diag own = {0};
    struct at_model_config config;
    at_err_t err = at_hf_read_config(at_buf_span(&f->config), AT_CHECKPOINT_CONFIG, &own, &config);
    if (err == AT_OK) err = at_model_init(&ret_model->model, &config, &own);
    if (err == AT_OK) err = at_state_init(&ret_model->state, &ret_model->model.params);
    if (err == AT_OK && f->momentum.n > 0) err = at_state_add_momentum(&ret_model->state);
    if (err == AT_OK)
        err = at_checkpoint_read_all(&ret_model->state, at_buf_span(&f->model), at_buf_span(&f->config),
                                     at_buf_span(&f->stats), at_buf_span(&f->momentum), &own, &ret_model->root);
    return err == AT_OK ? AT_OK : explain(dir, err, &own, diag);
}

at_err at_cli_model_read(const char *dir, struct at_diag *diag, struct at_cli_model *ret_model)
{
    char path[AT_PATH_BYTES];
    struct files f = {0};
    struct at_diag first = {0};
    memset(ret_model, 0, sizeof *ret_model);
    at_err_t err = at_path_join(dir, AT_CHECKPOINT_MODEL, diag, path);
    if (err != AT_OK) return err;
    if (!at_file_exists(dir)) return at_fail(diag, AT_E_NOT_FOUND, dir, "there is no such folder");
    if (!at_file_exists(path))
        return at_fail(diag, AT_E_NOT_FOUND, dir, "no model here yet: %s is missing", AT_CHECKPOINT_MODEL);
    err = read_files(dir, &first, &f);
    if (err == AT_E_NOT_FOUND) { /* a node may have replaced the model between two of our reads: once more */
        files_release(&f);
        err = read_files(dir, diag, &f);
    } else if (err != AT_OK && diag != NULL && diag->err == AT_OK) {
        *diag = first;
    }
    if (err == AT_OK) err = parse(dir, &f, diag, ret_model);
    files_release(&f);
    if (err != AT_OK) at_cli_model_release(ret_model);
    return err;
}

void at_cli_model_release(struct at_cli_model *m)
{
    at_state_release(&m->state);
    at_model_release(&m->model);
    memset(m, 0, sizeof *m);
}

static at_err write_one(const char *dir, const char *name, const struct at_buf *buf, struct at_diag *diag)
{
    char path[AT_PATH_BYTES];
    at_err_t err = at_path_join(dir, name, diag, path);
    if (err != AT_OK) return err;
    struct at_span part = at_buf_span(buf);
    return at_file_write_atomic(path, &part, 1, 0644, diag);
}

/* The names of all files but the model's hold its root, so the old model's stay until the new one is in place. */
struct sweep {
    const char *dir;
    char keep[40]; /* how names end that have the new root */
};

static bool begins(const char *name, const char *const *with, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strncmp(name, with[i], strlen(with[i])) == 0) return true;
    return false;
}

static bool ends(const char *name, const char *with)
{
    size_t n = strlen(name), m = strlen(with);
    return n > m && strcmp(name + n - m, with) == 0;
}

/* A file of a state, named by its root; one that was being written. */
static bool is_of_state(const char *name)
{
    static const char *const with[] = {"stats-", "momentum-", "replica-"};
    return begins(name, with, 3) && ends(name, ".safetensors");
}

static bool is_half(const char *name)
{
    static const char *const with[] = {
        "stats-", "momentum-", "replica-", AT_CHECKPOINT_MODEL ".", AT_CHECKPOINT_CONFIG ".", AT_TRAIN_JOURNAL "."};
    return begins(name, with, 6) && ends(name, ".tmp");
}

static at_err_t sweep_one(void *user, const char *name)
{
    const struct sweep *s = user;
    char path[AT_PATH_BYTES];
    bool old = is_of_state(name) && !ends(name, s->keep);
    if ((!old && !is_half(name)) || at_path_join(s->dir, name, NULL, path) != AT_OK) return AT_OK;
    return at_file_remove(path, NULL);
}

at_err at_cli_model_sweep(const char *dir, struct at_hash root, struct at_diag *diag)
{
    struct sweep s = {.dir = dir};
    snprintf(s.keep, sizeof s.keep, "-%.16s.safetensors", at_hash_hex(root).s);
    return at_dir_list(dir, diag, sweep_one, &s);
}

/* What a folder holds beside a model. */
struct content {
    int entries, configs, ours;
};

static at_err_t count_one(void *user, const char *name)
{
    struct content *c = user;
    bool config = strcmp(name, AT_CHECKPOINT_CONFIG) == 0;
    c->entries++;
    c->configs += config;
    c->ours += config || is_of_state(name) || is_half(name) || strcmp(name, AT_TRAIN_JOURNAL) == 0;
    return AT_OK;
}

at_err at_cli_model_is_free(const char *dir, struct at_diag *diag, bool *ret_free)
{
    struct content c = {0};
    at_err_t err = at_file_exists(dir) ? at_dir_list(dir, diag, count_one, &c) : AT_OK;
    if (err == AT_OK) *ret_free = c.entries == 0 || (c.ours == c.entries && c.configs < c.entries);
    return err;
}

static at_err_t get(void *arg, int part, uint64_t offset, uint8_t *ret_bytes, size_t n, struct at_diag *diag)
{
    return at_file_part_get(arg, offset, ret_bytes, n, diag);
}

/* What the head of the model's file names. AT_E_NOT_FOUND: there is no such file. */
static at_err read_named(const char *dir, struct at_diag *diag, struct at_checkpoint_named *ret_named)
{
    char path[AT_PATH_BYTES];
    struct at_file_part file = {0};
    at_err_t err = at_path_join(dir, AT_CHECKPOINT_MODEL, diag, path);
    if (err != AT_OK) return err;
    if (!at_file_exists(path)) return at_fail(diag, AT_E_NOT_FOUND, path, "there is no model yet");
    err = at_file_part_open(&file, path, diag);
    struct at_piece_source from = {get, &file, {file.bytes}};
    if (err == AT_OK) err = at_checkpoint_stream_named(&from, diag, ret_named);
    at_file_part_drop(&file);
    return err;
}

void at_cli_model_sweep_back(const char *dir)
{
    struct at_checkpoint_named named = {0};
    at_err_t err = read_named(dir, NULL, &named);
    if (err == AT_OK || err == AT_E_NOT_FOUND) /* none: then nothing that is there belongs to one */
        err = at_cli_model_sweep(dir, named.root, NULL);
    (void)err; /* the failure before is told */
}

at_err_t at_cli_model_rounds(const char *dir, struct at_diag *diag, uint32_t *ret_rounds)
{
    struct at_checkpoint_named named;
    at_err_t err = read_named(dir, diag, &named);
    if (err == AT_OK) *ret_rounds = named.round;
    return err;
}

at_err at_cli_model_write(const char *dir, const struct at_state *state, struct at_diag *diag)
{
    return at_cli_model_write_with(dir, state, NULL, NULL, diag);
}

at_err at_cli_model_write_with(const char *dir, const struct at_state *state, at_cli_model_also_fn *also, void *arg,
                               struct at_diag *diag)
{
    struct at_checkpoint c;
    at_err_t err = at_dir_make(dir, 0755, diag);
    if (err != AT_OK) return err;
    if ((err = at_checkpoint_write(state, diag, &c)) != AT_OK) return err;
    err = write_one(dir, c.stats_name, &c.stats, diag);
    if (err == AT_OK && c.momentum.n > 0) err = write_one(dir, c.momentum_name, &c.momentum, diag);
    if (err == AT_OK) err = write_one(dir, AT_CHECKPOINT_CONFIG, &c.config, diag);
    if (err == AT_OK && also != NULL) err = also(arg, dir, c.root, diag);
    if (err == AT_OK) err = write_one(dir, AT_CHECKPOINT_MODEL, &c.model, diag);
    if (err == AT_OK)
        err = at_cli_model_sweep(dir, c.root, diag);
    else
        at_cli_model_sweep_back(dir);
    at_checkpoint_release(&c);
    return err;
}
