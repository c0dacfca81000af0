/* cli_exec.h: --kernels and --threads as one thing: a pool, a kernel table, scratch. */
#ifndef ATOLL_CLI_CLI_EXEC_H
#define ATOLL_CLI_CLI_EXEC_H

#include "os/pool.h"
#include "tensor/exec.h"

#include <stdint.h>

struct at_cli_exec { /* must not move while in use: ex borrows the pool */
    struct at_pool pool;
    struct at_exec ex;
};
/* threads 0: as many as processors (at most 64). AT_E_KERNEL names the kernels that are available; AT_E_ENV. */
at_err at_cli_exec_init(struct at_cli_exec *e, const char *kernels, uint64_t threads, struct at_diag *diag);
void at_cli_exec_release(struct at_cli_exec *e); /* safe on a zeroed object */

#endif
