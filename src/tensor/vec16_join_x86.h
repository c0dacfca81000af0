/* vec16_join_x86.h: how sixteen lanes become one number, for vec16_avx2.h and vec16_avx512.h, which include it last. */
#ifndef ATOLL_TENSOR_VEC16_JOIN_X86_H
#define ATOLL_TENSOR_VEC16_JOIN_X86_H

/* Rule 4: l_i += l_{i+8}, +4, +2, +1. */
AT_V16 float v16_join(v16 l)
{
    __m256 a = _mm256_add_ps(v16_low(l), v16_high(l));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    b = _mm_add_ss(b, _mm_movehdup_ps(b));
    return _mm_cvtss_f32(b);
}
/* The largest lane; none is NaN. */
AT_V16 float v16_join_max(v16 m)
{
    __m256 a = _mm256_max_ps(v16_low(m), v16_high(m));
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    b = _mm_max_ss(b, _mm_movehdup_ps(b));
    return _mm_cvtss_f32(b);
}
AT_V16 double v16d_join(v16d l)
{
    __m256d a = v16d_join4(l);
    __m128d b = _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1));
    return _mm_cvtsd_f64(_mm_add_sd(b, _mm_unpackhi_pd(b, b)));
}

#endif
