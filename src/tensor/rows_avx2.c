/* The row kernels for AVX2; this file alone is compiled with its flags. Nothing on other processors or in binary64. */
#if defined(__x86_64__) && !defined(AT_REAL64)

#include "tensor/vec16_avx2.h"

#define AT_ROWS_TABLE at_rows_kern_avx2
#include "tensor/rows_body.h"

#else
typedef int at_rows_avx2_is_empty;
#endif
