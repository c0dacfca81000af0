/* node_compute_files.c: a node's state, and what it keeps for itself, as files of the run folder. */
#include "node/node_compute_inner.h"

#include "os/file_part.h"
#include "train/checkpoint_stream.h"

#include <stdlib.h>
#include <string.h>

struct saving {
    const struct at_held *held;
    struct at_file_part part[AT_PARTS];
};

static at_err_t move(void *arg, int part, int tensor, int slot, real *values, struct at_diag *diag)
{
    const struct at_state *s = &((struct saving *)arg)->held->state;
    const struct at_block *b = at_params_block(s->params, tensor, slot);
    const real *from = part == AT_PART_WEIGHTS ? s->theta + b->offset
                       : part == AT_PART_STATS
                           ? s->stats + at_block_stats_offset(s->params, (int)(b - s->params->block))
                           : s->momentum + b->offset;
    memcpy(values, from, at_part_count(s->params, part, tensor, slot) * sizeof *values);
    return AT_OK;
}

static at_err_t put(void *arg, int part, uint64_t offset, struct at_span bytes, struct at_diag *diag)
{
    return at_file_part_put(&((struct saving *)arg)->part[part], offset, bytes, diag);
}

struct sweep {
    const char *dir;
    char stats[48], momentum[48]; /* names to keep */
};
static at_err_t sweep_old(void *user, const char *name)
{
    const struct sweep *s = user;
    char path[AT_PATH_BYTES];
    size_t n = strlen(name);
    bool ours = strncmp(name, "stats-", 6) == 0 || strncmp(name, "momentum-", 9) == 0;
    bool stale = ours && n > 18 && strcmp(name + n - 12, ".safetensors") == 0 && strcmp(name, s->stats) != 0 &&
                 strcmp(name, s->momentum) != 0;
    stale |= n > 4 && strcmp(name + n - 4, ".tmp") == 0 && strstr(name, ".safetensors.") != NULL; /* of a crash */
    return stale && at_path_join(s->dir, name, NULL, path) == AT_OK ? at_file_remove(path, NULL) : AT_OK;
}

/* Statistics and momentum carry their root in their names and are put in place first, so the model.safetensors that is there
 * finds its own. */
static at_err put_in_place(struct saving *f, const char *dir, struct at_diag *diag)
{
    char path[AT_PATH_BYTES];
    struct at_buf config = {0};
    at_err_t err = AT_OK;
    for (int part = AT_PART_STATS; part < AT_PARTS && !err; part++)
        if (f->part[part].fd_plus_1) err = at_file_part_commit(&f->part[part], diag);
    if (!err) err = at_path_join(dir, AT_CHECKPOINT_CONFIG, diag, path);
    if (!err && (err = at_hf_write_config(&f->held->state.params->config, &config)) != AT_OK)
        err = at_fail(diag, err, path, "out of memory");
    struct at_span text = at_buf_span(&config);
    if (!err) err = at_file_write_atomic(path, &text, 1, 0644, diag);
    at_buf_release(&config);
    return err ? err : at_file_part_commit(&f->part[AT_PART_WEIGHTS], diag);
}

at_err_t at_compute_save(const char *dir, const struct at_held *held, struct at_diag *diag)
{
    struct saving f = {.held = held};
    const struct at_state *state = &held->state;
    struct at_hash root = held->root;
    bool momentum = state->momentum != NULL;
    char path[AT_PATH_BYTES], name[48];
    at_err_t err = AT_OK;
    for (int part = 0; part < (momentum ? AT_PARTS : AT_PART_MOMENTUM) && !err; part++) {
        at_checkpoint_part_name(part, root, name);
        err = at_path_join(dir, name, diag, path);
        if (!err) err = at_file_part_create(&f.part[part], path, 0644, diag);
    }
    if (!err)
        err = at_checkpoint_stream_write(state->params, state->round, root, momentum,
                                         &(struct at_block_stream){move, &f}, &(struct at_piece_sink){put, &f}, diag);
    if (!err) err = put_in_place(&f, dir, diag);
    for (int i = 0; i < AT_PARTS; i++) at_file_part_drop(&f.part[i]);
    struct sweep s = {.dir = dir};
    at_checkpoint_part_name(AT_PART_STATS, root, s.stats);
    at_checkpoint_part_name(AT_PART_MOMENTUM, root, s.momentum);
    return err ? err : at_dir_list(dir, diag, sweep_old, &s);
}

static at_err map_one(const struct at_compute *c, const char *name, struct at_diag *diag, struct at_file_map *map)
{
    char path[AT_PATH_BYTES];
    at_err_t err = at_path_join(c->dir, name, diag, path);
    return err ? err : at_file_map_open(map, path, MODEL_BYTES_MAX, diag);
}

struct files { /* of a state, to be read */
    struct at_file_map model, config, stats, momentum;
};

static at_err map_all(const struct at_compute *c, struct files *f, struct at_diag *diag)
{
    char name[48];
    struct at_hash root;
    uint32_t round = 0;
    at_err_t err = map_one(c, AT_CHECKPOINT_MODEL, diag, &f->model);
    if (!err) err = at_checkpoint_peek(at_span(f->model.p, f->model.n), diag, &root, &round);
    if (!err) at_checkpoint_part_name(AT_PART_STATS, root, name);
    if (!err) err = map_one(c, name, diag, &f->stats);
    if (!err) at_checkpoint_part_name(AT_PART_MOMENTUM, root, name);
    if (!err && c->momentum) err = map_one(c, name, diag, &f->momentum);
    return err ? err : map_one(c, AT_CHECKPOINT_CONFIG, diag, &f->config);
}

at_err_t at_compute_load(struct at_compute *c, struct at_diag *diag, struct at_compute_state *ret_state)
{
    char path[AT_PATH_BYTES];
    struct files f = {.model = {0}};
    struct at_held *h = NULL;
    struct at_hash root;
    at_err_t err = at_path_join(c->dir, AT_CHECKPOINT_MODEL, diag, path);
    if (!err && !at_file_exists(path)) return AT_E_NOT_FOUND;
    if (!err) err = map_all(c, &f, diag);
    if (!err) err = at_compute_fresh(c, diag, &h);
    if (!err)
        err = at_checkpoint_read_over(&h->state, at_span(f.model.p, f.model.n), at_span(f.config.p, f.config.n),
                                      at_span(f.stats.p, f.stats.n), at_span(f.momentum.p, f.momentum.n), diag, &root);
    at_file_map_release(&f.model);
    at_file_map_release(&f.config);
    at_file_map_release(&f.stats);
    at_file_map_release(&f.momentum);
    if (!err) return at_compute_hold(c, h, &root, false, diag, ret_state);
    at_held_put(h);
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
