/* train_alone.h: `atoll train` in one process: replicas one after the other (train/local.h). */
#ifndef ATOLL_CLI_TRAIN_ALONE_H
#define ATOLL_CLI_TRAIN_ALONE_H

#include "cli/train_setup.h"

at_err at_train_alone(struct at_cli *cli, const struct at_train_setup *setup);

#endif
