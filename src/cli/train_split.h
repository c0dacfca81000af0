/* train_split.h: a split run as one rank does it: all ranks go through the same steps together; rank 0 decides, shows and
 * writes. Which links join them is not known here (train_start.h). */
#ifndef ATOLL_CLI_TRAIN_SPLIT_H
#define ATOLL_CLI_TRAIN_SPLIT_H

#include "cli/progress.h"
#include "cli/train_setup.h"
#include "tensor/exec.h"

struct at_rank_figures {                /* of one rank over the run */
    uint64_t bytes_planned, bytes_peak; /* peak: of its process; 0: not known */
    uint64_t bytes_sent, update_bytes;
    double exchange_seconds;
};

struct at_split_result { /* rank 0's */
    struct at_hash root;
    double loss_first, loss_last, train_seconds;
    uint64_t tokens;
    uint32_t rounds; /* in the state */
    bool interrupted;
    struct at_rank_figures *figures; /* [ranks], owned */
    json_t *round_list;              /* see at_train_rounds_note; owned */
};
void at_split_result_release(struct at_split_result *r);

/* Collective: the whole run. screen: rank 0's, NULL elsewhere. The same error and text on all ranks. */
at_err at_split_run(const struct at_train_setup *setup, const struct at_comm *comm, const struct at_exec *ex,
                    struct at_screen *screen, struct at_diag *diag, struct at_split_result *ret_result);

/* Before anything is allocated: what every rank will need, and whether `ranks_here` of them fit this machine. */
struct at_rank_options at_split_options(const struct at_train_setup *setup);
at_err at_split_tell_memory(const struct at_train_setup *setup, struct at_diag *diag);
/* What rank `rank` will need with `threads`. */
uint64_t at_split_bytes(const struct at_train_setup *setup, int rank);

#endif
