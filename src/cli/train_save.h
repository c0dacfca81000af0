/* train_save.h: a split run's checkpoint: fetched, or stored, block by block by all ranks together, while rank 0 alone
 * touches the files. Collective functions: every rank calls them in the same order; rank 0's trouble with a file ends the
 * run for all, in the same words. */
#ifndef ATOLL_CLI_TRAIN_SAVE_H
#define ATOLL_CLI_TRAIN_SAVE_H

#include "base/comm.h"
#include "cli/train_diary.h"
#include "parallel/rank.h"

struct at_train_files {
    const struct at_comm *comm;
    struct at_rank *rank;
    const struct at_train_setup *setup;
    bool momentum;                /* this run's states have an outer momentum */
    struct at_train_diary *diary; /* rank 0's, written with the model; NULL elsewhere */
};

/* Trouble of this rank alone becomes everybody's end, in these words. Returns err. */
at_err at_train_tell_all(const struct at_comm *comm, at_err_t err, const struct at_diag *diag);

/* Collective, after at_rank_join. Into `dir` (rank 0's), so that a reader or a crash sees the old model or the new one, whole. */
at_err at_train_files_save(const struct at_train_files *f, const char *dir, struct at_diag *diag);
/* Collective. From `dir`, what replicas keep for themselves included, unless --model-only; the state afterwards has the root that the files name, or the run ends (AT_E_DATA). */
at_err at_train_files_load(const struct at_train_files *f, const char *dir, struct at_diag *diag, uint32_t *ret_round,
                           struct at_hash *ret_root);

#endif
