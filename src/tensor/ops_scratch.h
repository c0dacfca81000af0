/* ops_scratch.h: what at_exec_init must know of ops.c. */
#ifndef ATOLL_TENSOR_OPS_SCRATCH_H
#define ATOLL_TENSOR_OPS_SCRATCH_H

#include <stddef.h>

size_t at_ops_scratch_bytes(int threads);

#endif
