/* vec16_avx2.h: sixteen binary32 lanes as two YMM registers, lanes 0-7 and 8-15. The operations mean the same as in
 * vec16_avx512.h; the file that includes one of the two is compiled for that instruction set. */
#ifndef ATOLL_TENSOR_VEC16_AVX2_H
#define ATOLL_TENSOR_VEC16_AVX2_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    __m256 v[2];
} v16;
typedef struct {
    __m256i v[2];
} v16_mask;

static inline v16 v16_set(float x)
{
    return (v16){{_mm256_set1_ps(x), _mm256_set1_ps(x)}};
}
static inline v16 v16_load(const float *p)
{
    return (v16){{_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}};
}
static inline void v16_store(float *p, v16 x)
{
    _mm256_storeu_ps(p, x.v[0]);
    _mm256_storeu_ps(p + 8, x.v[1]);
}

/* The first n lanes, 0 <= n <= 16. Masked-off lanes load as +0, are not stored, and touch no memory. */
static inline v16_mask v16_first(long n)
{
    static const int32_t window[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    const int32_t *at = window + 16 - n;
    return (v16_mask){{_mm256_loadu_si256((const __m256i *)at), _mm256_loadu_si256((const __m256i *)(at + 8))}};
}
static inline v16 v16_load_part(v16_mask k, const float *p)
{
    return (v16){{_mm256_maskload_ps(p, k.v[0]), _mm256_maskload_ps(p + 8, k.v[1])}};
}
static inline void v16_store_part(v16_mask k, float *p, v16 x)
{
    _mm256_maskstore_ps(p, k.v[0], x.v[0]);
    _mm256_maskstore_ps(p + 8, k.v[1], x.v[1]);
}
static inline v16 v16_pick(v16_mask k, v16 x, v16 otherwise)
{
    return (v16){{_mm256_blendv_ps(otherwise.v[0], x.v[0], _mm256_castsi256_ps(k.v[0])),
                  _mm256_blendv_ps(otherwise.v[1], x.v[1], _mm256_castsi256_ps(k.v[1]))}};
}

static inline v16 v16_add(v16 a, v16 b)
{
    return (v16){{_mm256_add_ps(a.v[0], b.v[0]), _mm256_add_ps(a.v[1], b.v[1])}};
}
static inline v16 v16_sub(v16 a, v16 b)
{
    return (v16){{_mm256_sub_ps(a.v[0], b.v[0]), _mm256_sub_ps(a.v[1], b.v[1])}};
}
static inline v16 v16_mul(v16 a, v16 b)
{
    return (v16){{_mm256_mul_ps(a.v[0], b.v[0]), _mm256_mul_ps(a.v[1], b.v[1])}};
}
static inline v16 v16_div(v16 a, v16 b)
{
    return (v16){{_mm256_div_ps(a.v[0], b.v[0]), _mm256_div_ps(a.v[1], b.v[1])}};
}
static inline v16 v16_sqrt(v16 a)
{
    return (v16){{_mm256_sqrt_ps(a.v[0]), _mm256_sqrt_ps(a.v[1])}};
}
static inline v16 v16_fma(v16 a, v16 b, v16 c)
{
    return (v16){{_mm256_fmadd_ps(a.v[0], b.v[0], c.v[0]), _mm256_fmadd_ps(a.v[1], b.v[1], c.v[1])}};
}
static inline v16 v16_fnma(v16 a, v16 b, v16 c) /* -(a*b) + c, one rounding */
{
    return (v16){{_mm256_fnmadd_ps(a.v[0], b.v[0], c.v[0]), _mm256_fnmadd_ps(a.v[1], b.v[1], c.v[1])}};
}
static inline v16 v16_neg(v16 a)
{
    __m256 sign = _mm256_set1_ps(-0.0f);
    return (v16){{_mm256_xor_ps(a.v[0], sign), _mm256_xor_ps(a.v[1], sign)}};
}
/* x > m ? x : m, so a NaN in x is passed over. */
static inline v16 v16_max(v16 x, v16 m)
{
    return (v16){{_mm256_max_ps(x.v[0], m.v[0]), _mm256_max_ps(x.v[1], m.v[1])}};
}

/* x < limit ? +0 : y, and !(x <= limit) ? x + inf : y. */
static inline v16 v16_zero_below(v16 x, v16 limit, v16 y)
{
    for (int i = 0; i < 2; i++) y.v[i] = _mm256_and_ps(_mm256_cmp_ps(x.v[i], limit.v[i], _CMP_NLT_UQ), y.v[i]);
    return y;
}
static inline v16 v16_inf_above(v16 x, v16 limit, v16 y)
{
    __m256 inf = _mm256_set1_ps(__builtin_inff());
    for (int i = 0; i < 2; i++) {
        __m256 above = _mm256_cmp_ps(x.v[i], limit.v[i], _CMP_NLE_UQ);
        y.v[i] = _mm256_blendv_ps(y.v[i], _mm256_add_ps(x.v[i], inf), above);
    }
    return y;
}
/* y with the integer in the low bits of t added to its exponent field. */
static inline v16 v16_scale(v16 y, v16 t)
{
    for (int i = 0; i < 2; i++) {
        __m256i shifted = _mm256_slli_epi32(_mm256_castps_si256(t.v[i]), 23);
        y.v[i] = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(y.v[i]), shifted));
    }
    return y;
}
static inline bool v16_all_finite(v16 x)
{
    __m256 sign = _mm256_set1_ps(-0.0f), inf = _mm256_set1_ps(__builtin_inff());
    __m256 a = _mm256_cmp_ps(_mm256_andnot_ps(sign, x.v[0]), inf, _CMP_NLT_UQ);
    __m256 b = _mm256_cmp_ps(_mm256_andnot_ps(sign, x.v[1]), inf, _CMP_NLT_UQ);
    return _mm256_movemask_ps(_mm256_or_ps(a, b)) == 0;
}

static inline __m256 v16_low(v16 x)
{
    return x.v[0];
}
static inline __m256 v16_high(v16 x)
{
    return x.v[1];
}

/* Sixteen binary64 lanes: l = fma(x, x, l) of the widened x. */
typedef struct {
    __m256d v[4];
} v16d;

static inline v16d v16d_zero(void)
{
    __m256d zero = _mm256_setzero_pd();
    return (v16d){{zero, zero, zero, zero}};
}
static inline v16d v16d_add_square(v16d l, v16 x)
{
    for (int i = 0; i < 2; i++) {
        __m256d a = _mm256_cvtps_pd(_mm256_castps256_ps128(x.v[i]));
        __m256d b = _mm256_cvtps_pd(_mm256_extractf128_ps(x.v[i], 1));
        l.v[2 * i] = _mm256_fmadd_pd(a, a, l.v[2 * i]);
        l.v[2 * i + 1] = _mm256_fmadd_pd(b, b, l.v[2 * i + 1]);
    }
    return l;
}
/* The lanes joined as far as four: l_i + l_{i+8}, then + l_{i+4}. */
static inline __m256d v16d_join4(v16d l)
{
    return _mm256_add_pd(_mm256_add_pd(l.v[0], l.v[2]), _mm256_add_pd(l.v[1], l.v[3]));
}

#endif
