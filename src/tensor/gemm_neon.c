/* gemm_neon.c: 6 x 16 tiles: 24 accumulators, 4 vectors of B, 2 of A (used lane by lane) in the 32 registers. What the
 * drivers call a vector of `lanes` columns is two registers here. */
#include "tensor/gemm_tile.h"

#if defined(__aarch64__) && !defined(AT_REAL64)

#include <arm_neon.h>
#include <string.h>

#define MR    6
#define LANES 8
#define QUADS 4 /* registers in a row of a full tile */

/* Loops over rows and registers are unrolled whole, so that acc is registers; clang keeps the array in memory when it is
 * told a number instead of "full". */
#ifdef __clang__
#define UNROLL_6 _Pragma("clang loop unroll(full)")
#define UNROLL_4 _Pragma("clang loop unroll(full)")
#else
#define UNROLL_6 _Pragma("GCC unroll 6")
#define UNROLL_4 _Pragma("GCC unroll 4")
#endif
#define EACH_ROW   UNROLL_6 for (int i = 0; i < rows; i++)
#define EACH_QUAD  UNROLL_4 for (int q = 0; q < quads; q++)
#define C_AT(i, q) (c + (i)*ldc + (q)*4)

/* One row of the tile; the lane must be a literal. */
#define ROW(i, a, lane)                                                                                                \
    if ((i) < rows) EACH_QUAD acc[i][q] = vfmaq_laneq_f32(acc[i][q], bv[q], a, lane);

/* n of 4 floats, or none when n <= 0, and nothing behind them. */
static inline __attribute__((always_inline)) float32x4_t load_first(const float *p, const int n)
{
    const float32x2_t none = vdup_n_f32(0.0f);
    if (n >= 4) return vld1q_f32(p);
    if (n == 3) return vld1q_lane_f32(p + 2, vcombine_f32(vld1_f32(p), none), 2);
    if (n == 2) return vcombine_f32(vld1_f32(p), none);
    return n == 1 ? vld1q_dup_f32(p) : vcombine_f32(none, none);
}

static inline __attribute__((always_inline)) void tile(const int rows, const int quads, const struct at_tile *t)
{
    float32x4_t acc[MR][QUADS];
    const float *a = t->a, *b = t->b;
    float *const c = t->c; /* read once: the stores below might change *t, for all the compiler knows */
    const long lda = t->lda, ldb = t->ldb, ldc = t->ldc;
    const enum at_tile_mode mode = t->mode;
    const float alpha = t->alpha;
    const float32x4_t zero = vdupq_n_f32(0.0f);
    if (mode == AT_TILE_LOAD) {
        EACH_ROW EACH_QUAD acc[i][q] = vld1q_f32(C_AT(i, q));
    } else {
        EACH_ROW EACH_QUAD acc[i][q] = zero;
    }
    for (long p = t->k; p > 0; p--, a += lda, b += ldb) {
        float32x4_t bv[QUADS];
        EACH_QUAD bv[q] = vld1q_f32(b + q * 4);
        const float32x4_t a0 = load_first(a, rows), a4 = load_first(a + 4, rows - 4);
        ROW(0, a0, 0)
        ROW(1, a0, 1)
        ROW(2, a0, 2)
        ROW(3, a0, 3)
        ROW(4, a4, 0)
        ROW(5, a4, 1)
    }
    EACH_ROW EACH_QUAD acc[i][q] = vaddq_f32(acc[i][q], zero);
    if (mode == AT_TILE_ADD) {
        EACH_ROW EACH_QUAD acc[i][q] = vaddq_f32(vld1q_f32(C_AT(i, q)), acc[i][q]);
    } else if (mode == AT_TILE_SCALE) {
        EACH_ROW EACH_QUAD acc[i][q] = vmulq_n_f32(acc[i][q], alpha);
    }
    EACH_ROW EACH_QUAD vst1q_f32(C_AT(i, q), acc[i][q]);
}

/* One function for each number of rows, so that all accumulators are registers. */
#define ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6)
#define X(n)                                                                                                           \
    static void tile_##n##_1(const struct at_tile *t)                                                                  \
    {                                                                                                                  \
        tile(n, 2, t);                                                                                                 \
    }                                                                                                                  \
    static void tile_##n##_2(const struct at_tile *t)                                                                  \
    {                                                                                                                  \
        tile(n, 4, t);                                                                                                 \
    }
ROWS(X)
#undef X

static void neon_tile(int rows, int vecs, const struct at_tile *t)
{
    static void (*const fn[MR + 1][2])(const struct at_tile *) = {{0},
#define X(n) {tile_##n##_1, tile_##n##_2},
                                                                  ROWS(X)
#undef X
    };
    fn[rows][vecs - 1](t);
}

static void neon_pack_copy(float *dst, long width, const float *src, long ld, long k, long n)
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
static inline __attribute__((always_inline)) void transpose4(float32x4_t r[4])
{
    const float32x4_t t0 = vtrn1q_f32(r[0], r[1]), t1 = vtrn2q_f32(r[0], r[1]);
    const float32x4_t t2 = vtrn1q_f32(r[2], r[3]), t3 = vtrn2q_f32(r[2], r[3]);
    r[0] = vcombine_f32(vget_low_f32(t0), vget_low_f32(t2));
    r[1] = vcombine_f32(vget_low_f32(t1), vget_low_f32(t3));
    r[2] = vcombine_f32(vget_high_f32(t0), vget_high_f32(t2));
    r[3] = vcombine_f32(vget_high_f32(t1), vget_high_f32(t3));
}

/* Up to 4 columns of a panel, n of them there, `out` (2 or 4) written. */
static inline __attribute__((always_inline)) void transpose_strip(float *dst, long width, const float *src, long ld,
                                                                  long k, long n, const long out)
{
    long p = 0;
    for (; p + 4 <= k; p += 4) {
        float32x4_t r[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) r[i] = i < n ? vld1q_f32(src + i * ld + p) : vdupq_n_f32(0.0f);
        transpose4(r);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            if (out == 4) {
                vst1q_f32(dst + (p + i) * width, r[i]);
            } else {
                vst1_f32(dst + (p + i) * width, vget_low_f32(r[i]));
            }
        }
    }
    for (; p < k; p++)
        for (long j = 0; j < out; j++) dst[p * width + j] = j < n ? src[j * ld + p] : 0.0f;
}

static void neon_pack_transpose(float *dst, long width, const float *src, long ld, long k, long n)
{
    for (long j = 0; j < width; j += 4) {
        const long here = n - j < 0 ? 0 : n - j < 4 ? n - j : 4;
        const float *from = here > 0 ? src + j * ld : src;
        if (width - j >= 4) {
            transpose_strip(dst + j, width, from, ld, k, here, 4);
        } else {
            transpose_strip(dst + j, width, from, ld, k, here, 2);
        }
    }
}

static void neon_add(float *x, long ldx, const float *y, long ldy, int rows, int vecs)
{
    for (int i = 0; i < rows; i++, x += ldx, y += ldy)
        for (int j = 0; j < vecs * LANES; j += 4) vst1q_f32(x + j, vaddq_f32(vld1q_f32(x + j), vld1q_f32(y + j)));
}

static void neon_scale(float *y, const float *x, long n, float factor)
{
    long j = 0;
    for (; j + 4 <= n; j += 4) vst1q_f32(y + j, vmulq_n_f32(vld1q_f32(x + j), factor));
    for (; j < n; j++) y[j] = x[j] * factor;
}

static void neon_softmax_back(float *ds, const float *p, long n, float big_d, float scale)
{
    const float32x4_t d = vdupq_n_f32(big_d);
    long j = 0;
    for (; j + 4 <= n; j += 4) {
        const float32x4_t x = vsubq_f32(vld1q_f32(ds + j), d);
        vst1q_f32(ds + j, vmulq_n_f32(vmulq_f32(vld1q_f32(p + j), x), scale));
    }
    for (; j < n; j++) ds[j] = (p[j] * (ds[j] - big_d)) * scale;
}

static const struct at_tile_kern kern = {
    .mr = MR,
    .lanes = LANES,
    .tile = neon_tile,
    .pack_copy = neon_pack_copy,
    .pack_transpose = neon_pack_transpose,
    .add = neon_add,
    .scale = neon_scale,
    .softmax_back = neon_softmax_back,
};

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
    enum { CHAINS = 20 }; /* two pipes of four cycles need 8, four pipes 16 */
    float32x4_t acc[CHAINS];
    const float32x4_t x = vdupq_n_f32(0.5f), y = vdupq_n_f32(1.0f);
#pragma GCC unroll 20
    for (int i = 0; i < CHAINS; i++) acc[i] = vdupq_n_f32((float)i);
    for (long it = 0; it < iterations; it++) {
#pragma GCC unroll 20
        for (int i = 0; i < CHAINS; i++) acc[i] = vfmaq_f32(acc[i], x, y);
    }
    float32x4_t sum = acc[0];
    for (int i = 1; i < CHAINS; i++) sum = vaddq_f32(sum, acc[i]);
    volatile float sink = vgetq_lane_f32(sum, 0); /* the loop must not be optimised away */
    (void)sink;
    return (double)iterations * CHAINS * 4 * 2;
}

const struct at_gemm_kern at_gemm_kern_neon = {
    .gemm = gemm, .attention_forward = attention_forward, .attention_backward = attention_backward, .peak = peak};

#else
typedef int at_gemm_neon_is_empty;
#endif
