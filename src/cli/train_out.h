/* train_out.h: the folder of --out while a run writes there. It is made, locked and tried before the first round: a run
 * that can keep nothing must not train first, and two runs in one folder would remove each other's files. Of the one
 * process that writes: in a split run rank 0's. Readers (`atoll ask`, `atoll root`) do not ask for the lock. */
#ifndef ATOLL_CLI_TRAIN_OUT_H
#define ATOLL_CLI_TRAIN_OUT_H

#include "cli/train_setup.h"
#include "os/file.h"

struct at_train_out {
    const char *dir;             /* NULL: not open */
    struct at_lock folder, node; /* node: where the folder is a swarm's, that of its node */
    bool made;
};
/* Nothing without --out. AT_E_ENV: somebody else writes there, naming the folder; AT_E_DATA: as at_train_check_out, which
 * is asked again now that nobody else writes; AT_E_ENV, AT_E_DISK ...: no file can be made there. */
at_err at_train_out_open(struct at_train_out *o, const struct at_train_args *args, struct at_diag *diag);
/* A folder that was made and in which nothing was kept goes again. Safe on a zeroed object. */
void at_train_out_close(struct at_train_out *o);

/* Whether it is this process that writes --out; under mpirun only rank 0's number says so. */
bool at_train_out_is_here(const struct at_train_setup *s);

#endif
