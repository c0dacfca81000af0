/* gemm_ref_fma.c: the plain matrix kernels, compiled for x86-64 CPUs that have the fma instruction. */
#if defined(__x86_64__)

#include "tensor/attention_ref.h"
#include "tensor/gemm_ref.h"

const struct at_gemm_kern at_gemm_kern_ref_fma = {ref_gemm, ref_attention_forward, ref_attention_backward, ref_peak};

#else
typedef int at_gemm_ref_fma_is_empty;
#endif
