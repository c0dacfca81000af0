/* The row kernels for AArch64, where Advanced SIMD and fma are always there. Nothing on other processors or in
 * binary64. */
#if defined(__aarch64__) && !defined(AT_REAL64)

#include "tensor/vec16_neon.h"

#define AT_ROWS_TABLE at_rows_kern_neon
#include "tensor/rows_body.h"

#else
typedef int at_rows_neon_is_empty;
#endif
