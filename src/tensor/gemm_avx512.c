/* gemm_avx512.c: 14 x 32 tiles: 28 accumulators, 2 vectors of B, 1 broadcast of A in the 32 registers. */
#include "tensor/gemm_tile.h"

#if defined(__x86_64__) && !defined(AT_REAL64)

#include <immintrin.h>
#include <string.h>

#define MR    14
#define LANES 16

#define ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14)

typedef __m512 tv;
#define tv_zero()       _mm512_setzero_ps()
#define tv_load(p)      _mm512_loadu_ps(p)
#define tv_store(p, x)  _mm512_storeu_ps(p, x)
#define tv_every(p)     _mm512_set1_ps(*(p))
#define tv_fma(x, y, z) _mm512_fmadd_ps(x, y, z)
#define tv_add(x, y)    _mm512_add_ps(x, y)
#define tv_mul(x, y)    _mm512_mul_ps(x, y)

static __mmask16 first(long n)
{
    return (__mmask16)(n >= 16 ? 0xffffu : (1u << n) - 1u);
}

static void isa_pack_copy(float *dst, long width, const float *src, long ld, long k, long n)
{
    const __mmask16 m0 = first(n), m1 = n > 16 ? first(n - 16) : 0;
    for (long p = 0; p < k; p++, dst += width, src += ld) {
        __builtin_prefetch(src + AT_PACK_STEPS * ld);
        __builtin_prefetch(src + AT_PACK_STEPS * ld + n - 1);
        _mm512_mask_storeu_ps(dst, m0, _mm512_maskz_loadu_ps(m0, src));
        if (m1) _mm512_mask_storeu_ps(dst + 16, m1, _mm512_maskz_loadu_ps(m1, src + 16));
    }
}

/* r[i] lane j becomes r[j] lane i. */
static inline __attribute__((always_inline)) void transpose16(__m512 r[16])
{
    __m512 t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2])));
        r[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2])));
        r[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3])));
        r[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3])));
    }
    /* r[4g + q] holds, in its 128-bit quarter l, column 4l + q of rows 4g..4g+3. */
#pragma GCC unroll 4
    for (int q = 0; q < 4; q++) {
        t[q] = _mm512_shuffle_f32x4(r[q], r[4 + q], 0x88);          /* quarters 0,2 of row groups 0,1 */
        t[4 + q] = _mm512_shuffle_f32x4(r[q], r[4 + q], 0xdd);      /* quarters 1,3 */
        t[8 + q] = _mm512_shuffle_f32x4(r[8 + q], r[12 + q], 0x88); /* the same of groups 2,3 */
        t[12 + q] = _mm512_shuffle_f32x4(r[8 + q], r[12 + q], 0xdd);
    }
#pragma GCC unroll 4
    for (int q = 0; q < 4; q++) {
        r[q] = _mm512_shuffle_f32x4(t[q], t[8 + q], 0x88);
        r[8 + q] = _mm512_shuffle_f32x4(t[q], t[8 + q], 0xdd);
        r[4 + q] = _mm512_shuffle_f32x4(t[4 + q], t[12 + q], 0x88);
        r[12 + q] = _mm512_shuffle_f32x4(t[4 + q], t[12 + q], 0xdd);
    }
}

/* Up to 16 columns of a panel. */
static inline void transpose_strip(float *dst, long width, const float *src, long ld, long k, long n, __mmask16 out)
{
    for (long p = 0; p < k; p += 16) {
        const __mmask16 in = first(k - p);
        __m512 r[16];
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) r[i] = i < n ? _mm512_maskz_loadu_ps(in, src + i * ld + p) : _mm512_setzero_ps();
        transpose16(r);
        if (k - p >= 16) {
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++) _mm512_mask_storeu_ps(dst + (p + i) * width, out, r[i]);
        } else {
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++)
                if (p + i < k) _mm512_mask_storeu_ps(dst + (p + i) * width, out, r[i]);
        }
    }
}

static void isa_pack_transpose(float *dst, long width, const float *src, long ld, long k, long n)
{
    transpose_strip(dst, width, src, ld, k, n < 16 ? n : 16, first(width));
    if (width > 16)
        transpose_strip(dst + 16, width, src + (n > 16 ? 16 * ld : 0), ld, k, n > 16 ? n - 16 : 0, first(width - 16));
}

static void isa_scale(float *y, const float *x, long n, float factor)
{
    const __m512 f = _mm512_set1_ps(factor);
    for (long j = 0; j < n; j += 16) {
        const __mmask16 m = first(n - j);
        _mm512_mask_storeu_ps(y + j, m, _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + j), f));
    }
}

static void isa_softmax_back(float *ds, const float *p, long n, float big_d, float scale)
{
    const __m512 d = _mm512_set1_ps(big_d), s = _mm512_set1_ps(scale);
    for (long j = 0; j < n; j += 16) {
        const __mmask16 m = first(n - j);
        const __m512 x = _mm512_sub_ps(_mm512_maskz_loadu_ps(m, ds + j), d);
        _mm512_mask_storeu_ps(ds + j, m, _mm512_mul_ps(_mm512_mul_ps(_mm512_maskz_loadu_ps(m, p + j), x), s));
    }
}

#include "tensor/tile_row_x86.h"
/* after it */
#include "tensor/tile_body.h"

const struct at_gemm_kern at_gemm_kern_avx512 = {isa_gemm, isa_attention_forward, isa_attention_backward, isa_peak};

#else
typedef int at_gemm_isa_is_empty;
#endif
