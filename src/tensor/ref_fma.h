/* ref_fma.h: how the scalar code gets its fma. AT_FMA_PLAIN: in code compiled for any CPU. AT_FMA_HARD: in functions
 * marked AT_TARGET_FMA, which may run only where at_cpu_features() has AT_CPU_FMA. Exact: both give the same bits. */
#ifndef ATOLL_TENSOR_REF_FMA_H
#define ATOLL_TENSOR_REF_FMA_H

#include "tensor/fma.h"
#include "tensor/real.h"

#ifdef AT_REAL64
#define AT_FMA_HARD(a, b, c)  __builtin_fma(a, b, c)
#define AT_FMA_PLAIN(a, b, c) fma(a, b, c) /* correctly rounded by the C library; this build serves tests only */
#else
#define AT_FMA_HARD(a, b, c) __builtin_fmaf(a, b, c)
#if defined(__FMA__) || defined(__FP_FAST_FMAF) || defined(__ARM_FEATURE_FMA)
#define AT_FMA_PLAIN(a, b, c) __builtin_fmaf(a, b, c) /* one instruction on every CPU this build is for */
#else
#define AT_FMA_PLAIN(a, b, c) at_fma_soft32(a, b, c)
#endif
#endif

#if defined(__x86_64__)
#define AT_HAVE_TARGET_FMA 1
#define AT_TARGET_FMA      __attribute__((target("fma")))
#else
#define AT_HAVE_TARGET_FMA 0
#endif

#endif
