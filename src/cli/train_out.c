#include "cli/train_out.h"

#include "os/file_part.h"
#include "os/folder_lock.h"
#include "train/checkpoint.h"

static at_err lock(struct at_train_out *o, struct at_diag *diag)
{
    char path[AT_PATH_BYTES];
    at_err_t err = at_folder_lock_take(&o->folder, o->dir, diag);
    if (err == AT_OK) err = at_path_join(o->dir, "lock", diag, path);
    return err == AT_OK && at_file_exists(path) ? at_lock_take(&o->node, o->dir, diag) : err;
}

/* A neighbour of the model's file, as saving makes it, and without a byte. */
static at_err try_file(const char *dir, struct at_diag *diag)
{
    char path[AT_PATH_BYTES];
    struct at_file_part file = {0};
    at_err_t err = at_path_join(dir, AT_CHECKPOINT_MODEL, diag, path);
    if (err == AT_OK) err = at_file_part_create(&file, path, 0644, diag);
    at_file_part_drop(&file);
    return err;
}

at_err_t at_train_out_open(struct at_train_out *o, const struct at_train_args *args, struct at_diag *diag)
{
    *o = (struct at_train_out){.dir = args->out};
    if (args->out == NULL) return AT_OK;
    o->made = !at_file_exists(args->out);
    at_err_t err = at_dir_make(args->out, 0755, diag);
    if (err == AT_OK) err = lock(o, diag);
    if (err == AT_OK) err = at_train_check_out(args, diag);
    if (err == AT_OK) err = try_file(args->out, diag);
    if (err != AT_OK) at_train_out_close(o);
    return err;
}

void at_train_out_close(struct at_train_out *o)
{
    bool ours = o->made && o->folder.fd_plus_1 != 0; /* else somebody may be about to fill it */
    at_err_t left = ours ? at_dir_remove_empty(o->dir) : AT_OK;
    (void)left; /* a checkpoint */
    at_lock_release(&o->node);
    at_lock_release(&o->folder);
    *o = (struct at_train_out){0};
}

bool at_train_out_is_here(const struct at_train_setup *s)
{
    return s->link != AT_LINK_MPI && (s->node < 0 || s->plan.node[0] == s->node);
}
