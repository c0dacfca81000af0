/* oneDNN. Link with -ldnnl and OpenMP's runtime. Its matrices are row-major. dnnl_sgemm was faster than the matmul
 * primitive on plain layouts for most of these sizes. */
#include "gemm_peer.h"

#include <dnnl.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

void peer_version(char *ret_text, size_t size)
{
    const dnnl_version_t *v = dnnl_version();
    snprintf(ret_text, size, "%d.%d.%d", v->major, v->minor, v->patch);
}

void peer_threads(int threads)
{
    omp_set_num_threads(threads);
}

void peer_gemm(enum peer_op op, long m, long n, long k, int accumulate, const float *a, const float *b, float *c)
{
    dnnl_status_t status = dnnl_sgemm(op == PEER_TN ? 'T' : 'N', op == PEER_NT ? 'T' : 'N', m, n, k, 1.0f, a,
                                      op == PEER_TN ? m : k, b, op == PEER_NT ? k : n, accumulate ? 1.0f : 0.0f, c, n);
    if (status != dnnl_success) {
        fprintf(stderr, "dnnl_sgemm failed with status %d\n", (int)status);
        exit(1);
    }
}
