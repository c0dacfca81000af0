/* exec.h: what every tensor operation is handed: a kernel table, threads, scratch memory. No globals.
 *
 * Kernels are picked once, at run time: by CPUID and XGETBV (a CPU that has AVX-512 under an OS that does not save its
 * registers is a CPU without AVX-512), or forced by name. All tables give the same bits (contract F32-1). */
#ifndef ATOLL_TENSOR_EXEC_H
#define ATOLL_TENSOR_EXEC_H

#include "base/err.h"
#include "base/par.h"
#include "tensor/real.h"

#include <stddef.h>

struct at_gemm_kern; /* gemm_kern.h */
struct at_rows_kern; /* rows_kern.h */

/* One instruction set's kernels. Constant, immutable, shared. */
struct at_kern {
    const char *name; /* "ref", "avx2", "avx512", "neon" */
    const struct at_gemm_kern *gemm;
    const struct at_rows_kern *rows;
};

/* `name`: "ref", "avx2", "avx512", "neon" or "auto" (the fastest available). AT_E_USAGE for an unknown name, AT_E_KERNEL for
 * one this CPU or build lacks; `diag` then names those that are available. */
at_err at_kern_select(const char *name, struct at_diag *diag, const struct at_kern **ret_kern);

/* Available tables, fastest first, NULL-terminated. */
const struct at_kern *const *at_kern_available(void);

/* Kernels + threads + scratch. `par` is borrowed and must outlive it. Scratch is sized for par->threads, independent of
 * the shapes: no operation allocates. One operation at a time per at_exec. init: AT_E_NOMEM, AT_E_ENV (float_mode). */
struct at_exec {
    const struct at_kern *kern;
    const struct at_par *par;
    void *scratch;
    size_t scratch_bytes;
};
at_err at_exec_init(struct at_exec *ex, const struct at_kern *kern, const struct at_par *par);
void at_exec_release(struct at_exec *ex);

#endif
