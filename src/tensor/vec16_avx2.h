/* vec16_avx2.h: sixteen binary32 lanes as two YMM registers, lanes 0-7 and 8-15. The operations mean the same as in
 * vec16_avx512.h; the file that includes one of the two is compiled for that instruction set. */
#ifndef ATOLL_TENSOR_VEC16_AVX2_H
#define ATOLL_TENSOR_VEC16_AVX2_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

/* Left to itself the compiler calls the longer ones, through memory. */
#define AT_V16 static inline __attribute__((always_inline))

typedef struct {
    __m256 lo, hi;
} v16;
typedef struct {
    __m256i lo, hi;
} v16_mask;

AT_V16 v16 v16_set(float x)
{
    return (v16){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
AT_V16 v16 v16_load(const float *p)
{
    return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
AT_V16 void v16_store(float *p, v16 x)
{
    _mm256_storeu_ps(p, x.lo);
    _mm256_storeu_ps(p + 8, x.hi);
}

/* The first n lanes, 0 <= n <= 16. Masked-off lanes load as +0, are not stored, and touch no memory. */
AT_V16 v16_mask v16_first(long n)
{
    static const int32_t window[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    const int32_t *at = window + 16 - n;
    return (v16_mask){_mm256_loadu_si256((const __m256i *)at), _mm256_loadu_si256((const __m256i *)(at + 8))};
}
AT_V16 v16 v16_load_part(v16_mask k, const float *p)
{
    return (v16){_mm256_maskload_ps(p, k.lo), _mm256_maskload_ps(p + 8, k.hi)};
}
AT_V16 void v16_store_part(v16_mask k, float *p, v16 x)
{
    _mm256_maskstore_ps(p, k.lo, x.lo);
    _mm256_maskstore_ps(p + 8, k.hi, x.hi);
}
AT_V16 v16 v16_pick(v16_mask k, v16 x, v16 otherwise)
{
    return (v16){_mm256_blendv_ps(otherwise.lo, x.lo, _mm256_castsi256_ps(k.lo)),
                 _mm256_blendv_ps(otherwise.hi, x.hi, _mm256_castsi256_ps(k.hi))};
}

AT_V16 v16 v16_add(v16 a, v16 b)
{
    return (v16){_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
AT_V16 v16 v16_sub(v16 a, v16 b)
{
    return (v16){_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
AT_V16 v16 v16_mul(v16 a, v16 b)
{
    return (v16){_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
AT_V16 v16 v16_div(v16 a, v16 b)
{
    return (v16){_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
AT_V16 v16 v16_sqrt(v16 a)
{
    return (v16){_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)};
}
AT_V16 v16 v16_fma(v16 a, v16 b, v16 c)
{
    return (v16){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
AT_V16 v16 v16_fnma(v16 a, v16 b, v16 c) /* -(a*b) + c, one rounding */
{
    return (v16){_mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi)};
}
AT_V16 v16 v16_neg(v16 a)
{
    __m256 sign = _mm256_set1_ps(-0.0f);
    return (v16){_mm256_xor_ps(a.lo, sign), _mm256_xor_ps(a.hi, sign)};
}
/* x > m ? x : m, so a NaN in x is passed over. */
AT_V16 v16 v16_max(v16 x, v16 m)
{
    return (v16){_mm256_max_ps(x.lo, m.lo), _mm256_max_ps(x.hi, m.hi)};
}

/* x < limit ? +0 : y, and !(x <= limit) ? x + inf : y. */
AT_V16 v16 v16_zero_below(v16 x, v16 limit, v16 y)
{
    __m256 lo = _mm256_cmp_ps(x.lo, limit.lo, _CMP_NLT_UQ), hi = _mm256_cmp_ps(x.hi, limit.hi, _CMP_NLT_UQ);
    return (v16){_mm256_and_ps(lo, y.lo), _mm256_and_ps(hi, y.hi)};
}
AT_V16 v16 v16_inf_above(v16 x, v16 limit, v16 y)
{
    __m256 inf = _mm256_set1_ps(__builtin_inff());
    __m256 lo = _mm256_cmp_ps(x.lo, limit.lo, _CMP_NLE_UQ), hi = _mm256_cmp_ps(x.hi, limit.hi, _CMP_NLE_UQ);
    return (v16){_mm256_blendv_ps(y.lo, _mm256_add_ps(x.lo, inf), lo),
                 _mm256_blendv_ps(y.hi, _mm256_add_ps(x.hi, inf), hi)};
}
/* y with the integer in the low bits of t added to its exponent field. */
AT_V16 v16 v16_scale(v16 y, v16 t)
{
    __m256i lo = _mm256_slli_epi32(_mm256_castps_si256(t.lo), 23),
            hi = _mm256_slli_epi32(_mm256_castps_si256(t.hi), 23);
    return (v16){_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(y.lo), lo)),
                 _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(y.hi), hi))};
}
AT_V16 bool v16_all_finite(v16 x)
{
    __m256 sign = _mm256_set1_ps(-0.0f), inf = _mm256_set1_ps(__builtin_inff());
    __m256 a = _mm256_cmp_ps(_mm256_andnot_ps(sign, x.lo), inf, _CMP_NLT_UQ);
    __m256 b = _mm256_cmp_ps(_mm256_andnot_ps(sign, x.hi), inf, _CMP_NLT_UQ);
    return _mm256_movemask_ps(_mm256_or_ps(a, b)) == 0;
}

AT_V16 __m256 v16_low(v16 x)
{
    return x.lo;
}
AT_V16 __m256 v16_high(v16 x)
{
    return x.hi;
}

/* Sixteen binary64 lanes: l = fma(x, x, l) of the widened x. */
typedef struct {
    __m256d a, b, c, d; /* lanes 0-3, 4-7, 8-11, 12-15 */
} v16d;

AT_V16 v16d v16d_zero(void)
{
    __m256d zero = _mm256_setzero_pd();
    return (v16d){zero, zero, zero, zero};
}
AT_V16 v16d v16d_add_square(v16d l, v16 x)
{
    __m256d a = _mm256_cvtps_pd(_mm256_castps256_ps128(x.lo)), b = _mm256_cvtps_pd(_mm256_extractf128_ps(x.lo, 1));
    __m256d c = _mm256_cvtps_pd(_mm256_castps256_ps128(x.hi)), d = _mm256_cvtps_pd(_mm256_extractf128_ps(x.hi, 1));
    return (v16d){_mm256_fmadd_pd(a, a, l.a), _mm256_fmadd_pd(b, b, l.b), _mm256_fmadd_pd(c, c, l.c),
                  _mm256_fmadd_pd(d, d, l.d)};
}
/* The lanes joined as far as four: l_i + l_{i+8}, then + l_{i+4}. */
AT_V16 __m256d v16d_join4(v16d l)
{
    return _mm256_add_pd(_mm256_add_pd(l.a, l.c), _mm256_add_pd(l.b, l.d));
}

#include "tensor/vec16_join_x86.h"

#endif
