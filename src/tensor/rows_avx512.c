/* The row kernels for AVX512; this file alone is compiled with its flags. Nothing on other processors or
 * in binary64. */
#if defined(__x86_64__) && !defined(AT_REAL64)

#include "tensor/vec16_avx512.h"

#define AT_ROWS_TABLE at_rows_kern_avx512
#include "tensor/rows_body.h"

#else
typedef int at_rows_avx512_is_empty;
#endif
