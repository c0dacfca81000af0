#include "cli/cli_exec.h"

#include "os/sys.h"
#include "tensor/float_mode.h"

at_err at_cli_exec_init(struct at_cli_exec *e, const char *kernels, uint64_t threads, struct at_diag *diag)
{
    const struct at_kern *kern;
    at_err_t err = at_kern_select(kernels, diag, &kern);
    if (err == AT_OK) err = at_float_mode_check(diag); /* before the pool's threads take it over */
    if (err != AT_OK) return err;
    int count = threads != 0 ? (int)threads : at_sys_cpu_count();
    if (count > AT_POOL_THREADS_MAX) count = AT_POOL_THREADS_MAX;
    if ((err = at_pool_init(&e->pool, count, diag)) != AT_OK) return err;
    if ((err = at_exec_init(&e->ex, kern, &e->pool.par)) != AT_OK) {
        at_pool_release(&e->pool);
        return at_fail(diag, err, "--threads", "no memory for the scratch space of %d threads", count);
    }
    return AT_OK;
}

void at_cli_exec_release(struct at_cli_exec *e)
{
    at_exec_release(&e->ex);
    at_pool_release(&e->pool);
}
