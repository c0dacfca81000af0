/* vec16_avx512.h: sixteen binary32 lanes as one ZMM register. The operations mean the same as in vec16_avx2.h. */
#ifndef ATOLL_TENSOR_VEC16_AVX512_H
#define ATOLL_TENSOR_VEC16_AVX512_H

#include <immintrin.h>
#include <stdbool.h>

/* Left to itself the compiler calls the longer ones, through memory. */
#define AT_V16 static inline __attribute__((always_inline))

typedef __m512 v16;
typedef __mmask16 v16_mask;

AT_V16 v16 v16_set(float x)
{
    return _mm512_set1_ps(x);
}
AT_V16 v16 v16_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
AT_V16 void v16_store(float *p, v16 x)
{
    _mm512_storeu_ps(p, x);
}

/* The first n lanes, 0 <= n <= 16. Masked-off lanes load as +0, are not stored, and touch no memory. Half a register is
 * common (heads of 48), and what a masked store wrote cannot be loaded before it has reached the cache. */
AT_V16 v16_mask v16_first(long n)
{
    return (v16_mask)((1u << n) - 1u);
}
AT_V16 v16 v16_load_part(v16_mask k, const float *p)
{
    return k == 0xff ? _mm512_zextps256_ps512(_mm256_loadu_ps(p)) : _mm512_maskz_loadu_ps(k, p);
}
AT_V16 void v16_store_part(v16_mask k, float *p, v16 x)
{
    if (k == 0xff) {
        _mm256_storeu_ps(p, _mm512_castps512_ps256(x));
    } else {
        _mm512_mask_storeu_ps(p, k, x);
    }
}
AT_V16 v16 v16_pick(v16_mask k, v16 x, v16 otherwise)
{
    return _mm512_mask_mov_ps(otherwise, k, x);
}

AT_V16 v16 v16_add(v16 a, v16 b)
{
    return _mm512_add_ps(a, b);
}
AT_V16 v16 v16_sub(v16 a, v16 b)
{
    return _mm512_sub_ps(a, b);
}
AT_V16 v16 v16_mul(v16 a, v16 b)
{
    return _mm512_mul_ps(a, b);
}
AT_V16 v16 v16_div(v16 a, v16 b)
{
    return _mm512_div_ps(a, b);
}
AT_V16 v16 v16_sqrt(v16 a)
{
    return _mm512_sqrt_ps(a);
}
AT_V16 v16 v16_fma(v16 a, v16 b, v16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}
AT_V16 v16 v16_fnma(v16 a, v16 b, v16 c)
{
    return _mm512_fnmadd_ps(a, b, c);
} /* -(a*b) + c, one rounding */
AT_V16 v16 v16_neg(v16 a)
{
    return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f));
}
/* x > m ? x : m, so a NaN in x is passed over. */
AT_V16 v16 v16_max(v16 x, v16 m)
{
    return _mm512_max_ps(x, m);
}

/* x < limit ? +0 : y, and !(x <= limit) ? x + inf : y. */
AT_V16 v16 v16_zero_below(v16 x, v16 limit, v16 y)
{
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, limit, _CMP_NLT_UQ), y);
}
AT_V16 v16 v16_inf_above(v16 x, v16 limit, v16 y)
{
    return _mm512_mask_add_ps(y, _mm512_cmp_ps_mask(x, limit, _CMP_NLE_UQ), x, _mm512_set1_ps(__builtin_inff()));
}
/* y with the integer in the low bits of t added to its exponent field. */
AT_V16 v16 v16_scale(v16 y, v16 t)
{
    __m512i shifted = _mm512_slli_epi32(_mm512_castps_si512(t), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(y), shifted));
}
AT_V16 bool v16_all_finite(v16 x)
{
    return _mm512_fpclass_ps_mask(x, 0x99) == 0; /* quiet NaN, +inf, -inf, signalling NaN */
}

AT_V16 __m256 v16_low(v16 x)
{
    return _mm512_castps512_ps256(x);
}
AT_V16 __m256 v16_high(v16 x)
{
    return _mm512_extractf32x8_ps(x, 1);
}

/* Sixteen binary64 lanes: l = fma(x, x, l) of the widened x. */
typedef struct {
    __m512d v[2];
} v16d;

AT_V16 v16d v16d_zero(void)
{
    return (v16d){{_mm512_setzero_pd(), _mm512_setzero_pd()}};
}
AT_V16 v16d v16d_add_square(v16d l, v16 x)
{
    __m512d a = _mm512_cvtps_pd(v16_low(x)), b = _mm512_cvtps_pd(v16_high(x));
    return (v16d){{_mm512_fmadd_pd(a, a, l.v[0]), _mm512_fmadd_pd(b, b, l.v[1])}};
}
/* The lanes joined as far as four: l_i + l_{i+8}, then + l_{i+4}. */
AT_V16 __m256d v16d_join4(v16d l)
{
    __m512d s = _mm512_add_pd(l.v[0], l.v[1]);
    return _mm256_add_pd(_mm512_castpd512_pd256(s), _mm512_extractf64x4_pd(s, 1));
}

#include "tensor/vec16_join_x86.h"

#endif
