/* train_own.h: what the replicas of a run keep for themselves (train/checkpoint_replica.h) as files beside the checkpoint
 * in --out, one for each replica. Their names have the state's root in them: those of the checkpoint that is there stay
 * until the next one is in place, so that a crash at any moment leaves a checkpoint with its own. Runs whose replicas
 * keep nothing (--outer mean without --tau) have no such files. */
#ifndef ATOLL_CLI_TRAIN_OWN_H
#define ATOLL_CLI_TRAIN_OWN_H

#include "cli/train_setup.h"
#include "train/checkpoint_replica.h"

struct at_own_files {
    const struct at_params *whole; /* of the whole model */
    struct at_own_head head;       /* at_own_files_head; the replica's number is filled in */
    /* One block from, or to, where replica head.replica keeps it. Called for all replicas, parts and blocks in order;
     * values: only with whoever has the files, else NULL. */
    at_err_t (*move)(void *arg, int replica, int part, int tensor, int slot, real *values, struct at_diag *diag);
    void *arg;
};

struct at_own_head at_own_files_head(const struct at_train_setup *s, struct at_hash root, uint32_t round);
/* Whether there is anything in it. */
bool at_own_files_any(const struct at_own_head *head);

/* Before the checkpoint's model is put in place. After a failure (AT_E_DISK and the like, naming the file) those of the
 * checkpoint that is there are whole; at_cli_model_sweep_back removes the others. */
at_err at_own_files_save(const struct at_own_files *f, const char *dir, struct at_diag *diag);
/* AT_E_NOT_FOUND, AT_E_DATA ... naming the file, with what to do. */
at_err at_own_files_load(const struct at_own_files *f, const char *dir, struct at_diag *diag);
/* On the ranks without files: the same calls of move. */
at_err at_own_files_follow(const struct at_own_files *f, struct at_diag *diag);

#endif
