/* The reference row kernels, compiled twice from one source: for any CPU, and for CPUs with FMA. Same bits. */
#include "tensor/emath.h"
#include "tensor/emath_coef.h"
#include "tensor/ops.h"
#include "tensor/ref_fma.h"
#include "tensor/rows_kern.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

/* IEEE square root and, for finite squares of binary32 numbers, an exact product: no fma is needed to get
 * fma's bits. */
#ifdef AT_REAL64
#define REAL_SQRT(x)            sqrt(x)
#define AT_REF_SQUARE_ADD(x, l) AT_REF_FMA(x, x, l)
#else
#define REAL_SQRT(x)            sqrtf(x)
#define AT_REF_SQUARE_ADD(x, l) ((x) * (x) + (l))
#endif

#define AT_REF(name)        name
#define AT_REF_TARGET       /* any CPU */
#define AT_REF_FMA(a, b, c) AT_FMA_PLAIN(a, b, c)
#define AT_REF_TABLE        at_rows_kern_ref
#include "tensor/rows_ref_body.h"

#if AT_HAVE_TARGET_FMA
#undef AT_REF
#undef AT_REF_TARGET
#undef AT_REF_FMA
#undef AT_REF_TABLE
#define AT_REF(name)        name##_hard
#define AT_REF_TARGET       AT_TARGET_FMA
#define AT_REF_FMA(a, b, c) AT_FMA_HARD(a, b, c)
#define AT_REF_TABLE        at_rows_kern_ref_fma
#include "tensor/rows_ref_body.h"
#endif
