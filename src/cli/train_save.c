#include "cli/train_save.h"

#include "cli/cli_model.h"
#include "cli/train_own.h"
#include "os/file_part.h"
#include "train/checkpoint_stream.h"

#include <string.h>

struct files {
    const struct at_train_files *f;
    struct at_file_part part[AT_PARTS];
};

static at_err_t fetch(void *arg, int part, int tensor, int slot, real *values, struct at_diag *diag)
{
    const struct at_train_files *f = ((struct files *)arg)->f;
    return at_rank_fetch(f->rank, part, tensor, slot, values, diag);
}

static at_err_t store(void *arg, int part, int tensor, int slot, real *values, struct at_diag *diag)
{
    const struct at_train_files *f = ((struct files *)arg)->f;
    return at_rank_store(f->rank, part, tensor, slot, values, diag);
}

static at_err_t fetch_own(void *arg, int replica, int part, int tensor, int slot, real *values, struct at_diag *diag)
{
    const struct at_train_files *f = arg;
    return at_rank_fetch_own(f->rank, replica, part, tensor, slot, values, diag);
}

static at_err_t store_own(void *arg, int replica, int part, int tensor, int slot, real *values, struct at_diag *diag)
{
    const struct at_train_files *f = arg;
    return at_rank_store_own(f->rank, replica, part, tensor, slot, values, diag);
}

static struct at_own_files own_files(const struct at_train_files *f, const struct at_params *whole, struct at_hash root,
                                     uint32_t round,
                                     at_err_t (*move)(void *, int, int, int, int, real *, struct at_diag *))
{
    return (struct at_own_files){whole, at_own_files_head(f->setup, root, round), move, (void *)f};
}

static at_err_t put(void *arg, int part, uint64_t offset, struct at_span bytes, struct at_diag *diag)
{
    return at_file_part_put(&((struct files *)arg)->part[part], offset, bytes, diag);
}

static at_err_t get(void *arg, int part, uint64_t offset, uint8_t *ret_bytes, size_t n, struct at_diag *diag)
{
    return at_file_part_get(&((struct files *)arg)->part[part], offset, ret_bytes, n, diag);
}

static void drop_all(struct files *x)
{
    for (int i = 0; i < AT_PARTS; i++) at_file_part_drop(&x->part[i]);
}

at_err_t at_train_tell_all(const struct at_comm *comm, at_err_t err, const struct at_diag *diag)
{
    if (err != AT_OK && comm->ranks > 1)
        comm->ops->fail(comm->link, err, diag->where, diag->text[0] ? diag->text : at_err_text(err));
    return err;
}

/* ---- saving ------------------------------------------------------------------------------------------------------- */

static at_err commit_all(struct files *x, const char *dir, const struct at_buf *config, struct at_hash root,
                         struct at_diag *diag)
{
    char path[AT_PATH_BYTES];
    struct at_span text = at_buf_span(config);
    at_err_t err = AT_OK;
    if (x->f->momentum) err = at_file_part_commit(&x->part[AT_PART_MOMENTUM], diag);
    if (err == AT_OK) err = at_file_part_commit(&x->part[AT_PART_STATS], diag);
    if (err == AT_OK) err = at_path_join(dir, AT_CHECKPOINT_CONFIG, diag, path);
    if (err == AT_OK) err = at_file_write_atomic(path, &text, 1, 0644, diag);
    if (err == AT_OK) err = at_diary_save(x->f->diary, dir, root, diag);
    if (err == AT_OK) err = at_file_part_commit(&x->part[AT_PART_WEIGHTS], diag);
    return err == AT_OK ? at_cli_model_sweep(dir, root, diag) : err;
}

static at_err write_files(struct files *x, const struct at_params *whole, const char *dir, uint32_t round,
                          struct at_hash root, struct at_diag *diag)
{
    char path[AT_PATH_BYTES], name[48];
    struct at_buf config = {0};
    at_err_t err = at_dir_make(dir, 0755, diag);
    for (int part = 0; part < (x->f->momentum ? AT_PARTS : AT_PART_MOMENTUM) && err == AT_OK; part++) {
        at_checkpoint_part_name(part, root, name);
        err = at_path_join(dir, name, diag, path);
        if (err == AT_OK) err = at_file_part_create(&x->part[part], path, 0644, diag);
    }
    if (err == AT_OK) err = at_hf_write_config(&x->f->setup->preset->model, &config);
    if (err == AT_OK)
        err = at_checkpoint_stream_write(whole, round, root, x->f->momentum, &(struct at_block_stream){fetch, x},
                                         &(struct at_piece_sink){put, x}, diag);
    struct at_own_files own = own_files(x->f, whole, root, round, fetch_own);
    if (err == AT_OK) err = at_own_files_save(&own, dir, diag);
    if (err == AT_OK) err = commit_all(x, dir, &config, root, diag);
    at_buf_release(&config);
    return err;
}

/* What write_files does, on the other ranks. */
static at_err follow_save(struct files *x, const struct at_params *whole, struct at_hash root, struct at_diag *diag)
{
    struct at_own_files own = own_files(x->f, whole, root, at_rank_state(x->f->rank)->round, fetch_own);
    at_err_t err = at_checkpoint_stream_follow(whole, x->f->momentum, &(struct at_block_stream){fetch, x}, diag);
    return err == AT_OK ? at_own_files_follow(&own, diag) : err;
}

at_err_t at_train_files_save(const struct at_train_files *f, const char *dir, struct at_diag *diag)
{
    struct files x = {.f = f};
    struct at_params whole;
    struct at_hash root;
    at_err_t err = at_rank_root(f->rank, diag, &root);
    if (err != AT_OK) return err;
    if ((err = at_params_init(&whole, &f->setup->preset->model)) != AT_OK)
        return at_train_tell_all(f->comm, at_fail(diag, err, "checkpoint", "no memory for the table of tensors"), diag);
    if (f->comm->rank == 0)
        err = at_train_tell_all(f->comm, write_files(&x, &whole, dir, at_rank_state(f->rank)->round, root, diag), diag);
    else
        err = follow_save(&x, &whole, root, diag);
    drop_all(&x);
    if (err != AT_OK && f->comm->rank == 0) at_cli_model_sweep_back(dir);
    at_params_release(&whole);
    return err;
}

/* ---- loading ------------------------------------------------------------------------------------------------------ */

static at_err open_part(struct files *x, int part, const char *dir, struct at_hash root, struct at_piece_source *from,
                        struct at_diag *diag)
{
    char path[AT_PATH_BYTES], name[48];
    at_checkpoint_part_name(part, root, name);
    at_err_t err = at_path_join(dir, name, diag, path);
    if (err == AT_OK) err = at_file_part_open(&x->part[part], path, diag);
    if (err == AT_OK) from->bytes[part] = x->part[part].bytes;
    return err;
}

/* A momentum lies beside the states of some kinds of --outer only. */
static at_err check_outer(const struct at_train_files *f, const char *dir, struct at_hash root, struct at_diag *diag)
{
    char path[AT_PATH_BYTES], name[48];
    at_checkpoint_momentum_name(root, name);
    at_err_t err = at_path_join(dir, name, diag, path);
    if (err == AT_OK && at_file_exists(path) != f->momentum) err = at_train_other_outer(f->setup->args, diag);
    return err;
}

/* Rank 0: what the files say, before anybody stores anything. */
static at_err open_files(struct files *x, const struct at_params *whole, const char *dir, struct at_piece_source *from,
                         struct at_checkpoint_named *named, struct at_diag *diag)
{
    struct at_checkpoint_named first;
    struct at_diag own = {0};
    char path[AT_PATH_BYTES];
    at_err_t err = open_part(x, AT_PART_WEIGHTS, dir, (struct at_hash){{0}}, from, diag);
    if (err == AT_OK) err = at_checkpoint_stream_named(from, &own, &first);
    if (err == AT_OK) err = check_outer(x->f, dir, first.root, diag);
    if (err == AT_OK) err = open_part(x, AT_PART_STATS, dir, first.root, from, diag);
    if (err == AT_OK && x->f->momentum) err = open_part(x, AT_PART_MOMENTUM, dir, first.root, from, diag);
    if (err == AT_OK) err = at_checkpoint_stream_open(whole, from, &own, named);
    if (own.err != AT_OK && at_path_join(dir, own.where, NULL, path) == AT_OK)
        at_fail(diag, own.err, path, "%s", own.text); /* a codec knows the file by its name only */
    return err;
}

struct told { /* by rank 0 */
    uint32_t round;
    uint8_t root[AT_HASH_BYTES];
};

/* After the state. */
static at_err load_own(const struct at_train_files *f, const struct at_params *whole, const char *dir,
                       struct at_hash root, uint32_t round, struct at_diag *diag)
{
    struct at_own_files own = own_files(f, whole, root, round, store_own);
    at_err_t err = f->comm->rank == 0 ? at_train_tell_all(f->comm, at_own_files_load(&own, dir, diag), diag)
                                      : at_own_files_follow(&own, diag);
    if (err == AT_OK && own.head.overlap) at_rank_set_started(f->rank);
    return err;
}

at_err_t at_train_files_load(const struct at_train_files *f, const char *dir, struct at_diag *diag, uint32_t *ret_round,
                             struct at_hash *ret_root)
{
    struct files x = {.f = f};
    struct at_params whole;
    struct at_piece_source from = {.get = get, .arg = &x};
    struct at_checkpoint_named named = {0};
    struct told told = {0};
    struct at_hash made;
    struct at_block_stream to = {store, &x};
    at_err_t err = at_params_init(&whole, &f->setup->preset->model);
    if (err != AT_OK)
        return at_train_tell_all(f->comm, at_fail(diag, err, "checkpoint", "no memory for the table of tensors"), diag);
    if (f->comm->rank == 0) {
        err = at_train_tell_all(f->comm, open_files(&x, &whole, dir, &from, &named, diag), diag);
        told.round = named.round;
        memcpy(told.root, named.root.b, sizeof told.root);
    }
    if (err == AT_OK) err = at_rank_broadcast(f->rank, &told, sizeof told, diag);
    if (err == AT_OK && f->comm->rank == 0)
        err = at_train_tell_all(f->comm, at_checkpoint_stream_read(&whole, &named, &from, &to, diag), diag);
    else if (err == AT_OK)
        err = at_checkpoint_stream_follow(&whole, f->momentum, &to, diag);
    if (err == AT_OK) {
        at_rank_set_round(f->rank, told.round);
        err = at_rank_root(f->rank, diag, &made);
    }
    if (err == AT_OK && memcmp(made.b, told.root, sizeof told.root) != 0)
        err = at_fail(diag, AT_E_DATA, dir, "damaged: its weights and statistics do not have the root that they name");
    if (err == AT_OK && !f->setup->args->model_only) err = load_own(f, &whole, dir, made, told.round, diag);
    if (err == AT_OK) {
        *ret_round = told.round;
        *ret_root = made;
    }
    drop_all(&x);
    at_params_release(&whole);
    return err;
}
