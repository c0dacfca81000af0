/* real.h: the number type of the tensor, model and train layers: binary32 under contract F32-1.
 * A second build of the same sources with AT_REAL64 (binary64, kern_ref only) serves finite differences in tests. */
#ifndef ATOLL_TENSOR_REAL_H
#define ATOLL_TENSOR_REAL_H

#ifdef AT_REAL64
typedef double real;
#define REAL(x)     x
#define AT_REAL_MAX 1.7976931348623157e308
#else
typedef float real;
#define REAL(x)     x##f
#define AT_REAL_MAX 3.402823466e38f
#endif

#endif
