/* gemm_avx2.c: 6 x 16 tiles: 12 accumulators, 2 vectors of B, 1 broadcast of A in the 16 registers. */
#include "tensor/gemm_tile.h"

#if defined(__x86_64__) && !defined(AT_REAL64)

#include <immintrin.h>
#include <string.h>

#define MR    6
#define LANES 8

#define ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6)

typedef __m256 tv;
#define tv_zero()       _mm256_setzero_ps()
#define tv_load(p)      _mm256_loadu_ps(p)
#define tv_store(p, x)  _mm256_storeu_ps(p, x)
#define tv_every(p)     _mm256_broadcast_ss(p)
#define tv_fma(x, y, z) _mm256_fmadd_ps(x, y, z)
#define tv_add(x, y)    _mm256_add_ps(x, y)
#define tv_mul(x, y)    _mm256_mul_ps(x, y)

static void isa_pack_copy(float *dst, long width, const float *src, long ld, long k, long n)
{
    for (long p = 0; p < k; p++, dst += width, src += ld) {
        __builtin_prefetch(src + AT_PACK_STEPS * ld);
        if (n == 2 * LANES) {
            memcpy(dst, src, sizeof(float) * 2 * LANES);
        } else if (n == MR) {
            memcpy(dst, src, sizeof(float) * MR);
        } else {
            for (long j = 0; j < n; j++) dst[j] = src[j];
        }
    }
}

/* r[i] lane j becomes r[j] lane i. */
static inline __attribute__((always_inline)) void transpose8(__m256 r[8])
{
    __m256 t[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    /* r[4g + q] holds, in its half l, column 4l + q of rows 4g..4g+3. */
#pragma GCC unroll 4
    for (int q = 0; q < 4; q++) {
        const __m256 low = _mm256_permute2f128_ps(r[q], r[4 + q], 0x20);
        r[4 + q] = _mm256_permute2f128_ps(r[q], r[4 + q], 0x31);
        r[q] = low;
    }
}

/* Up to 8 columns of a panel; whole vectors are stored, the next step's store repairs what lies behind. */
static inline void transpose_strip(float *dst, long width, const float *src, long ld, long k, long n, long out)
{
    long p = 0;
    for (; p + 8 <= k; p += 8) {
        __m256 r[8];
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) r[i] = i < n ? _mm256_loadu_ps(src + i * ld + p) : _mm256_setzero_ps();
        transpose8(r);
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) _mm256_storeu_ps(dst + (p + i) * width, r[i]);
    }
    for (; p < k; p++)
        for (long j = 0; j < out; j++) dst[p * width + j] = j < n ? src[j * ld + p] : 0.0f;
}

static void isa_pack_transpose(float *dst, long width, const float *src, long ld, long k, long n)
{
    transpose_strip(dst, width, src, ld, k, n < 8 ? n : 8, width < 8 ? width : 8);
    if (width > 8) transpose_strip(dst + 8, width, n > 8 ? src + 8 * ld : src, ld, k, n > 8 ? n - 8 : 0, 8);
}

static void isa_scale(float *y, const float *x, long n, float factor)
{
    const __m256 f = _mm256_set1_ps(factor);
    long j = 0;
    for (; j + 8 <= n; j += 8) _mm256_storeu_ps(y + j, _mm256_mul_ps(_mm256_loadu_ps(x + j), f));
    for (; j < n; j++) y[j] = x[j] * factor;
}

static void isa_softmax_back(float *ds, const float *p, long n, float big_d, float scale)
{
    const __m256 d = _mm256_set1_ps(big_d), s = _mm256_set1_ps(scale);
    long j = 0;
    for (; j + 8 <= n; j += 8) {
        const __m256 x = _mm256_sub_ps(_mm256_loadu_ps(ds + j), d);
        _mm256_storeu_ps(ds + j, _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(p + j), x), s));
    }
    for (; j < n; j++) ds[j] = (p[j] * (ds[j] - big_d)) * scale;
}

#include "tensor/tile_row_x86.h"
/* after it */
#include "tensor/tile_body.h"

const struct at_gemm_kern at_gemm_kern_avx2 = {isa_gemm, isa_attention_forward, isa_attention_backward, isa_peak};

#else
typedef int at_gemm_isa_is_empty;
#endif
