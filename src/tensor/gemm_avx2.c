/* gemm_avx2.c: 6 x 16 tiles: 12 accumulators, 2 vectors of B, 1 broadcast of A in the 16 registers. */
#include "tensor/gemm_tile.h"

#if defined(__x86_64__) && !defined(AT_REAL64)

#include <immintrin.h>
#include <string.h>

#define MR    6
#define LANES 8

/* Loops over rows and vectors are unrolled whole, so that acc is registers. */
#define EACH_ROW   _Pragma("GCC unroll 6") for (int i = 0; i < rows; i++)
#define EACH_VEC   _Pragma("GCC unroll 2") for (int v = 0; v < vecs; v++)
#define C_AT(i, v) (t->c + (i)*t->ldc + (v)*LANES)

static inline __attribute__((always_inline)) void tile(const int rows, const int vecs, const struct at_tile *t)
{
    __m256 acc[MR][2];
    const float *a = t->a, *b = t->b;
    const long lda = t->lda, ldb = t->ldb;
    const __m256 zero = _mm256_setzero_ps(), alpha = _mm256_set1_ps(t->alpha);
    if (t->mode == AT_TILE_LOAD) {
        EACH_ROW EACH_VEC acc[i][v] = _mm256_loadu_ps(C_AT(i, v));
    } else {
        EACH_ROW EACH_VEC acc[i][v] = zero;
    }
    for (long p = t->k; p > 0; p--, a += lda, b += ldb) {
        __m256 bv[2];
        EACH_VEC bv[v] = _mm256_loadu_ps(b + v * LANES);
        EACH_ROW
        {
            const __m256 x = _mm256_broadcast_ss(a + i);
            EACH_VEC acc[i][v] = _mm256_fmadd_ps(x, bv[v], acc[i][v]);
        }
    }
    EACH_ROW EACH_VEC acc[i][v] = _mm256_add_ps(acc[i][v], zero);
    if (t->mode == AT_TILE_ADD) {
        EACH_ROW EACH_VEC acc[i][v] = _mm256_add_ps(_mm256_loadu_ps(C_AT(i, v)), acc[i][v]);
    } else if (t->mode == AT_TILE_SCALE) {
        EACH_ROW EACH_VEC acc[i][v] = _mm256_mul_ps(acc[i][v], alpha);
    }
    EACH_ROW EACH_VEC _mm256_storeu_ps(C_AT(i, v), acc[i][v]);
}

/* One function for each number of rows, so that all accumulators are registers. */
#define ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6)
#define X(n)                                                                                                           \
    static void tile_##n##_1(const struct at_tile *t)                                                                  \
    {                                                                                                                  \
        tile(n, 1, t);                                                                                                 \
    }                                                                                                                  \
    static void tile_##n##_2(const struct at_tile *t)                                                                  \
    {                                                                                                                  \
        tile(n, 2, t);                                                                                                 \
    }
ROWS(X)
#undef X

static void avx2_tile(int rows, int vecs, const struct at_tile *t)
{
    static void (*const fn[MR + 1][2])(const struct at_tile *) = {{0},
#define X(n) {tile_##n##_1, tile_##n##_2},
                                                                  ROWS(X)
#undef X
    };
    fn[rows][vecs - 1](t);
}

static void avx2_pack_copy(float *dst, long width, const float *src, long ld, long k, long n)
{
    for (long p = 0; p < k; p++, dst += width, src += ld) {
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

static void avx2_pack_transpose(float *dst, long width, const float *src, long ld, long k, long n)
{
    transpose_strip(dst, width, src, ld, k, n < 8 ? n : 8, width < 8 ? width : 8);
    if (width > 8) transpose_strip(dst + 8, width, n > 8 ? src + 8 * ld : src, ld, k, n > 8 ? n - 8 : 0, 8);
}

static void avx2_add(float *x, long ldx, const float *y, long ldy, int rows, int vecs)
{
    for (int i = 0; i < rows; i++, x += ldx, y += ldy)
        for (int v = 0; v < vecs; v++)
            _mm256_storeu_ps(x + v * LANES,
                             _mm256_add_ps(_mm256_loadu_ps(x + v * LANES), _mm256_loadu_ps(y + v * LANES)));
}

static void avx2_scale(float *y, const float *x, long n, float factor)
{
    const __m256 f = _mm256_set1_ps(factor);
    long j = 0;
    for (; j + 8 <= n; j += 8) _mm256_storeu_ps(y + j, _mm256_mul_ps(_mm256_loadu_ps(x + j), f));
    for (; j < n; j++) y[j] = x[j] * factor;
}

static void avx2_softmax_back(float *ds, const float *p, long n, float big_d, float scale)
{
    const __m256 d = _mm256_set1_ps(big_d), s = _mm256_set1_ps(scale);
    long j = 0;
    for (; j + 8 <= n; j += 8) {
        const __m256 x = _mm256_sub_ps(_mm256_loadu_ps(ds + j), d);
        _mm256_storeu_ps(ds + j, _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(p + j), x), s));
    }
    for (; j < n; j++) ds[j] = (p[j] * (ds[j] - big_d)) * scale;
}

static const struct at_tile_kern kern = {MR,       LANES,      avx2_tile,        avx2_pack_copy, avx2_pack_transpose,
                                         avx2_add, avx2_scale, avx2_softmax_back};

static void gemm(const struct at_gemm *g, struct at_gemm_part part, void *scratch)
{
    at_gemm_tiled(&kern, g, part, scratch);
}

static void attention_forward(const struct at_attention *a, long b, int head, void *scratch)
{
    at_attention_tiled_forward(&kern, a, b, head, scratch);
}

static void attention_backward(const struct at_attention *a, long b, int kv_head, void *scratch)
{
    at_attention_tiled_backward(&kern, a, b, kv_head, scratch);
}

static double peak(long iterations)
{
    __m256 acc[12];
    const __m256 x = _mm256_set1_ps(0.5f), y = _mm256_set1_ps(1.0f);
#pragma GCC unroll 12
    for (int i = 0; i < 12; i++) acc[i] = _mm256_set1_ps((float)i);
    for (long it = 0; it < iterations; it++) {
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++) acc[i] = _mm256_fmadd_ps(acc[i], x, y);
    }
    __m256 sum = acc[0];
    for (int i = 1; i < 12; i++) sum = _mm256_add_ps(sum, acc[i]);
    float out[LANES];
    _mm256_storeu_ps(out, sum);
    volatile float sink = out[0]; /* the loop must not be optimised away */
    (void)sink;
    return (double)iterations * 12 * LANES * 2;
}

const struct at_gemm_kern at_gemm_kern_avx2 = {gemm, attention_forward, attention_backward, peak};

#else
typedef int at_gemm_avx2_is_empty;
#endif
