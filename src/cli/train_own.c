#include "cli/train_own.h"

#include "os/file_part.h"

#include <string.h>

struct at_own_head at_own_files_head(const struct at_train_setup *s, struct at_hash root, uint32_t round)
{
    return (struct at_own_head){.root = root,
                                .round = round,
                                .replicas = (uint32_t)s->replicas,
                                .feedback = s->outer.kind != AT_OUTER_MEAN,
                                .overlap = s->outer.tau > 0};
}

bool at_own_files_any(const struct at_own_head *h)
{
    return h->feedback || h->overlap;
}

/* One replica's file. */
struct one {
    const struct at_own_files *f;
    struct at_own_head head;
    struct at_file_part file;
    char path[AT_PATH_BYTES];
};

static at_err_t move(void *arg, int part, int tensor, int slot, real *values, struct at_diag *diag)
{
    const struct one *x = arg;
    return x->f->move(x->f->arg, (int)x->head.replica, part, tensor, slot, values, diag);
}

static at_err_t put(void *arg, int part, uint64_t offset, struct at_span bytes, struct at_diag *diag)
{
    return at_file_part_put(&((struct one *)arg)->file, offset, bytes, diag);
}

static at_err_t get(void *arg, int part, uint64_t offset, uint8_t *ret_bytes, size_t n, struct at_diag *diag)
{
    return at_file_part_get(&((struct one *)arg)->file, offset, ret_bytes, n, diag);
}

static at_err one_init(struct one *x, const struct at_own_files *f, uint32_t replica, const char *dir,
                       struct at_diag *diag)
{
    char name[AT_OWN_NAME_BYTES];
    *x = (struct one){.f = f, .head = f->head};
    x->head.replica = replica;
    at_own_name(&x->head, name);
    return at_path_join(dir, name, diag, x->path);
}

static at_err save_one(struct one *x, struct at_diag *diag)
{
    at_err_t err = at_file_part_create(&x->file, x->path, 0644, diag);
    if (err == AT_OK)
        err = at_own_write(x->f->whole, &x->head, &(struct at_block_stream){move, x}, &(struct at_piece_sink){put, x},
                           diag);
    if (err == AT_OK) err = at_file_part_commit(&x->file, diag);
    at_file_part_drop(&x->file);
    return err;
}

at_err_t at_own_files_save(const struct at_own_files *f, const char *dir, struct at_diag *diag)
{
    struct one x;
    at_err_t err = AT_OK;
    if (!at_own_files_any(&f->head)) return AT_OK;
    for (uint32_t i = 0; i < f->head.replicas && err == AT_OK; i++) {
        err = one_init(&x, f, i, dir, diag);
        if (err == AT_OK) err = save_one(&x, diag);
    }
    return err;
}

static at_err load_one(struct one *x, struct at_diag *diag)
{
    struct at_diag own = {0};
    at_err_t err = at_file_part_open(&x->file, x->path, &own);
    struct at_piece_source from = {get, x, {x->file.bytes}};
    if (err == AT_OK) err = at_own_open(x->f->whole, &x->head, &from, &own, &x->head.values);
    if (err == AT_OK) err = at_own_read(x->f->whole, &x->head, &from, &(struct at_block_stream){move, x}, &own);
    at_file_part_drop(&x->file);
    if (err == AT_OK) return AT_OK;
    if (at_err_exit_code(err) != at_err_exit_code(AT_E_DATA)) /* another rank's end, no memory, no permission */
        return at_fail(diag, err, own.where, "%s", own.text);
    return at_fail(
        diag, err, x->path,
        "%s; put back what replica %u kept there, or go on from the model alone with --model-only: that is a "
        "valid run, with another result",
        err == AT_E_NOT_FOUND ? "there is no such file" : own.text, x->head.replica);
}

at_err_t at_own_files_load(const struct at_own_files *f, const char *dir, struct at_diag *diag)
{
    struct one x;
    at_err_t err = AT_OK;
    if (!at_own_files_any(&f->head)) return AT_OK;
    for (uint32_t i = 0; i < f->head.replicas && err == AT_OK; i++) {
        err = one_init(&x, f, i, dir, diag);
        if (err == AT_OK) err = load_one(&x, diag);
    }
    return err;
}

at_err_t at_own_files_follow(const struct at_own_files *f, struct at_diag *diag)
{
    struct one x = {.f = f, .head = f->head};
    at_err_t err = AT_OK;
    for (; x.head.replica < f->head.replicas && err == AT_OK; x.head.replica++)
        err = at_own_follow(f->whole, &x.head, &(struct at_block_stream){move, &x}, diag);
    return err;
}
