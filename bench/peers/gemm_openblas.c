/* OpenBLAS. Link with -lopenblas. */
#include "gemm_peer.h"

#include <cblas.h>
#include <stdio.h>

void peer_version(char *ret_text, size_t size)
{
    char version[32] = "";
    sscanf(openblas_get_config(), "OpenBLAS %31s", version);
    snprintf(ret_text, size, "%s, %s kernels", version, openblas_get_corename());
}

void peer_threads(int threads)
{
    openblas_set_num_threads(threads);
}

void peer_gemm(enum peer_op op, long m, long n, long k, int accumulate, const float *a, const float *b, float *c)
{
    cblas_sgemm(CblasRowMajor, op == PEER_TN ? CblasTrans : CblasNoTrans, op == PEER_NT ? CblasTrans : CblasNoTrans,
                (blasint)m, (blasint)n, (blasint)k, 1.0f, a, (blasint)(op == PEER_TN ? m : k), b,
                (blasint)(op == PEER_NT ? k : n), accumulate ? 1.0f : 0.0f, c, (blasint)n);
}
