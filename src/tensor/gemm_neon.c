/* gemm_neon.c: 6 x 16 tiles: 24 accumulators, 4 vectors of B, 2 of A (used lane by lane) in the 32 registers. A "register"
 * of tile_body.h is two here. */
#include "tensor/gemm_tile.h"

#if defined(__aarch64__) && !defined(AT_REAL64)

#include <arm_neon.h>
#include <string.h>

#define MR    6
#define LANES 8

#define ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6)

typedef struct {
    float32x4_t lo, hi;
} tv;
#define NEON_INLINE static inline __attribute__((always_inline))

NEON_INLINE tv tv_zero(void)
{
    return (tv){vdupq_n_f32(0.0f), vdupq_n_f32(0.0f)};
}
NEON_INLINE tv tv_load(const float *p)
{
    return (tv){vld1q_f32(p), vld1q_f32(p + 4)};
}
NEON_INLINE void tv_store(float *p, tv x)
{
    vst1q_f32(p, x.lo);
    vst1q_f32(p + 4, x.hi);
}
NEON_INLINE tv tv_every(const float *p)
{
    const float32x4_t all = vld1q_dup_f32(p);
    return (tv){all, all};
}
NEON_INLINE tv tv_fma(tv x, tv y, tv z) /* x * y + z; the addend comes first in the instruction */
{
    return (tv){vfmaq_f32(z.lo, x.lo, y.lo), vfmaq_f32(z.hi, x.hi, y.hi)};
}
NEON_INLINE tv tv_add(tv x, tv y)
{
    return (tv){vaddq_f32(x.lo, y.lo), vaddq_f32(x.hi, y.hi)};
}
NEON_INLINE tv tv_mul(tv x, tv y)
{
    return (tv){vmulq_f32(x.lo, y.lo), vmulq_f32(x.hi, y.hi)};
}

/* n of 4 floats, or none when n <= 0, and nothing behind them. */
NEON_INLINE float32x4_t load_first(const float *p, const int n)
{
    const float32x2_t none = vdup_n_f32(0.0f);
    if (n >= 4) return vld1q_f32(p);
    if (n == 3) return vld1q_lane_f32(p + 2, vcombine_f32(vld1_f32(p), none), 2);
    if (n == 2) return vcombine_f32(vld1_f32(p), none);
    return n == 1 ? vld1q_dup_f32(p) : vcombine_f32(none, none);
}

/* One step of the chain: A's values are multiplied from where they lie in a register, which saves a load for each. The
 * lane must be a literal. */
#define TILE_STEP
#define FMA_LANE(acc, b, x, lane)                                                                                      \
    (tv)                                                                                                               \
    {                                                                                                                  \
        vfmaq_laneq_f32(acc.lo, b.lo, x, lane), vfmaq_laneq_f32(acc.hi, b.hi, x, lane)                                 \
    }
#define STEP_ROW(i, x, lane)                                                                                           \
    if ((i) < rows) {                                                                                                  \
        acc[i][0] = FMA_LANE(acc[i][0], b0, x, lane);                                                                  \
        if (vecs == 2) acc[i][1] = FMA_LANE(acc[i][1], b1, x, lane);                                                   \
    }
NEON_INLINE void tile_step(const int rows, const int vecs, tv acc[MR][2], const float *a, const float *b)
{
    __asm__ volatile("" ::: "memory"); /* loads of a later step made now would push accumulators to memory */
    const tv b0 = tv_load(b), b1 = vecs == 2 ? tv_load(b + LANES) : b0;
    const float32x4_t a0 = load_first(a, rows), a4 = load_first(a + 4, rows - 4);
    STEP_ROW(0, a0, 0)
    STEP_ROW(1, a0, 1)
    STEP_ROW(2, a0, 2)
    STEP_ROW(3, a0, 3)
    STEP_ROW(4, a4, 0)
    STEP_ROW(5, a4, 1)
}

static void isa_pack_copy(float *dst, long width, const float *src, long ld, long k, long n)
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

static void isa_pack_transpose(float *dst, long width, const float *src, long ld, long k, long n)
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

static void isa_scale(float *y, const float *x, long n, float factor)
{
    long j = 0;
    for (; j + 4 <= n; j += 4) vst1q_f32(y + j, vmulq_n_f32(vld1q_f32(x + j), factor));
    for (; j < n; j++) y[j] = x[j] * factor;
}

static void isa_softmax_back(float *ds, const float *p, long n, float big_d, float scale)
{
    const float32x4_t d = vdupq_n_f32(big_d);
    long j = 0;
    for (; j + 4 <= n; j += 4) {
        const float32x4_t x = vsubq_f32(vld1q_f32(ds + j), d);
        vst1q_f32(ds + j, vmulq_n_f32(vmulq_f32(vld1q_f32(p + j), x), scale));
    }
    for (; j < n; j++) ds[j] = (p[j] * (ds[j] - big_d)) * scale;
}

#include "tensor/tile_body.h"

const struct at_gemm_kern at_gemm_kern_neon = {isa_gemm, isa_attention_forward, isa_attention_backward, isa_peak};

#else
typedef int at_gemm_neon_is_empty;
#endif
