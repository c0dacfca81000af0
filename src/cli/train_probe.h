/* train_probe.h: `--outer auto`: what the links between replicas bear, measured by sending bytes along them. */
#ifndef ATOLL_CLI_TRAIN_PROBE_H
#define ATOLL_CLI_TRAIN_PROBE_H

#include "base/comm.h"
#include "cli/train_setup.h"
#include "train/auto.h"

/* By all ranks. Rank 0 asks the first rank of each other replica; io_measured (only rank 0's is changed): the slowest
 * link's rate and the longest round trip. */
at_err at_train_probe(const struct at_train_setup *s, const struct at_comm *comm, struct at_auto_measured *io_measured,
                      struct at_diag *diag);

#endif
