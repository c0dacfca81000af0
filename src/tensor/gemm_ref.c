/* gemm_ref.c: the plain matrix kernels for any CPU. */
#include "tensor/gemm_ref.h"
#include "tensor/attention_ref.h"

const struct at_gemm_kern at_gemm_kern_ref = {ref_gemm, ref_attention_forward, ref_attention_backward, ref_peak};

size_t at_gemm_ref_bytes(void)
{
    return sizeof(struct ref_tile);
}

size_t at_attention_ref_bytes(void)
{
    return 2 * AT_ATTENTION_KEYS_MAX * sizeof(real);
}
