/* gemm_peer.h: a matrix-product library as a program that takes turns with `atoll bench gemm --lines`.
 *
 * Standard input: lines "OP M N K ACCUMULATE": OP is nn, nt or tn (A, B as they lie in memory, row-major, without gaps),
 * C(m,n) = A.B, or C += A.B when ACCUMULATE is 1. Each line is measured once, as Atoll measures its own products: one
 * product that is not counted (unless it is large), then products for at least 0.1 s; the answer is one line with GFLOP/s. The end of the
 * input ends the program. With --version in place of the number of threads it prints the library's version and, if that
 * can be told, its kernels. */
#ifndef BENCH_GEMM_PEER_H
#define BENCH_GEMM_PEER_H

#include <stddef.h>

enum peer_op { PEER_NN, PEER_NT, PEER_TN };

/* Each library's program defines these. */
void peer_version(char *ret_text, size_t size);
void peer_threads(int threads);
void peer_gemm(enum peer_op op, long m, long n, long k, int accumulate, const float *a, const float *b, float *c);

#endif
