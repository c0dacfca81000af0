/* gemm_kern.h: the table of matrix kernels of one instruction set (inner header of the tensor layer).
 *
 * A table computes parts of outputs: at_gemm and at_attention_* cut the outputs among threads, a part is computed by
 * one thread with its own scratch. Exact: yes: every table gives the bits of gemm_ref.c and attention_ref.c (contract
 * F32-1). Not for code outside src/tensor, except at_gemm_scratch_bytes, at_attention_scratch_bytes and the
 * peak loop. */
#ifndef ATOLL_TENSOR_GEMM_KERN_H
#define ATOLL_TENSOR_GEMM_KERN_H

#include "tensor/gemm.h"
#include "tensor/ops.h"
#include "tensor/rows_kern.h"

/* Rows [m0,m1) and columns [n0,n1) of C; never empty. */
struct at_gemm_part {
    long m0, m1, n0, n1;
};

/* The arguments of at_attention_forward (q side: o, row_max, row_sum written) and at_attention_backward (d_qkv
 * written). */
struct at_attention {
    real *o, *row_max, *row_sum;
    const real *qkv, *kv;
    long kv_seq_stride;
    struct at_heads h;
    long B, T, pos0;
    real scale;
    const struct at_rows_kern *rows;
    real *d_qkv; /* backward only: */
    const real *d_o, *o_kept, *max_kept, *sum_kept;
};

struct at_gemm_kern {
    void (*gemm)(const struct at_gemm *g, struct at_gemm_part part, void *scratch);
    /* One query head of one sequence. */
    void (*attention_forward)(const struct at_attention *a, long b, int head, void *scratch);
    /* One key/value head of one sequence with its group of query heads. */
    void (*attention_backward)(const struct at_attention *a, long b, int kv_head, void *scratch);
    /* A loop of fused multiply-adds in registers only; returns the FLOPs done (at least 10 vectors per iteration). */
    double (*peak)(long iterations);
};

extern const struct at_gemm_kern at_gemm_kern_ref; /* plain C; fma by exact emulation unless the build has it */
#if defined(__x86_64__)
extern const struct at_gemm_kern at_gemm_kern_ref_fma; /* the same source for CPUs that have the instruction */
#ifndef AT_REAL64
extern const struct at_gemm_kern at_gemm_kern_avx2;
extern const struct at_gemm_kern at_gemm_kern_avx512;
#endif
#endif
#if defined(__aarch64__) && !defined(AT_REAL64)
extern const struct at_gemm_kern at_gemm_kern_neon;
#endif

/* Longest context (pos0 + T) and largest head of at_attention_*: what the scratch has room for. */
#define AT_ATTENTION_KEYS_MAX 65536
#define AT_HEAD_SIZE_MAX      256

/* Scratch of one part in the plain kernels. */
size_t at_gemm_ref_bytes(void);
size_t at_attention_ref_bytes(void);

/* Scratch that at_exec must hold for this many threads, its start aligned to 64 bytes. Independent of shapes. */
size_t at_gemm_scratch_bytes(int threads);
size_t at_attention_scratch_bytes(int threads);

#endif
