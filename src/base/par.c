#include "base/par.h"

#include <stddef.h>

static void run_serial(void *pool, int jobs, at_job_fn *job, void *arg)
{
    for (int i = 0; i < jobs; i++) job(arg, i);
}

const struct at_par at_par_serial = {.threads = 1, .run = run_serial, .pool = NULL};
