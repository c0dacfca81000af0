/* vec16_neon.h: sixteen binary32 lanes as four Advanced SIMD registers. The operations mean the same as in
 * vec16_avx2.h: IEEE division and square root (never the estimates), and comparisons with select where FMAX would treat
 * a NaN otherwise. */
#ifndef ATOLL_TENSOR_VEC16_NEON_H
#define ATOLL_TENSOR_VEC16_NEON_H

#include <arm_neon.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Left to itself the compiler calls the longer ones, through memory. */
#define AT_V16 static inline __attribute__((always_inline))

typedef struct {
    float32x4_t a, b, c, d; /* lanes 0-3, 4-7, 8-11, 12-15 */
} v16;
typedef struct {
    uint32x4_t a, b, c, d;
    long n; /* the same, for loads and stores */
} v16_mask;

#define V16_EACH1(fn, x)    ((v16){fn((x).a), fn((x).b), fn((x).c), fn((x).d)})
#define V16_EACH2(fn, x, y) ((v16){fn((x).a, (y).a), fn((x).b, (y).b), fn((x).c, (y).c), fn((x).d, (y).d)})
#define V16_EACH3(fn, x, y, z)                                                                                         \
    ((v16){fn((x).a, (y).a, (z).a), fn((x).b, (y).b, (z).b), fn((x).c, (y).c, (z).c), fn((x).d, (y).d, (z).d)})

AT_V16 v16 v16_set(float x)
{
    float32x4_t all = vdupq_n_f32(x);
    return (v16){all, all, all, all};
}
AT_V16 v16 v16_load(const float *p)
{
    return (v16){vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
}
AT_V16 void v16_store(float *p, v16 x)
{
    vst1q_f32(p, x.a);
    vst1q_f32(p + 4, x.b);
    vst1q_f32(p + 8, x.c);
    vst1q_f32(p + 12, x.d);
}

/* The first n lanes, 0 <= n <= 16. Masked-off lanes load as +0, are not stored, and touch no memory. */
AT_V16 v16_mask v16_first(long n)
{
    static const int32_t window[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    const int32_t *at = window + 16 - n;
    return (v16_mask){vreinterpretq_u32_s32(vld1q_s32(at)), vreinterpretq_u32_s32(vld1q_s32(at + 4)),
                      vreinterpretq_u32_s32(vld1q_s32(at + 8)), vreinterpretq_u32_s32(vld1q_s32(at + 12)), n};
}
AT_V16 v16 v16_load_part(v16_mask k, const float *p)
{
    float x[16] = {0};
    memcpy(x, p, (size_t)k.n * sizeof x[0]);
    return v16_load(x);
}
AT_V16 void v16_store_part(v16_mask k, float *p, v16 x)
{
    float y[16];
    v16_store(y, x);
    memcpy(p, y, (size_t)k.n * sizeof y[0]);
}
AT_V16 v16 v16_pick(v16_mask k, v16 x, v16 otherwise)
{
    return V16_EACH3(vbslq_f32, k, x, otherwise);
}

AT_V16 v16 v16_add(v16 a, v16 b)
{
    return V16_EACH2(vaddq_f32, a, b);
}
AT_V16 v16 v16_sub(v16 a, v16 b)
{
    return V16_EACH2(vsubq_f32, a, b);
}
AT_V16 v16 v16_mul(v16 a, v16 b)
{
    return V16_EACH2(vmulq_f32, a, b);
}
AT_V16 v16 v16_div(v16 a, v16 b)
{
    return V16_EACH2(vdivq_f32, a, b);
}
AT_V16 v16 v16_sqrt(v16 a)
{
    return V16_EACH1(vsqrtq_f32, a);
}
AT_V16 v16 v16_fma(v16 a, v16 b, v16 c)
{
    return V16_EACH3(vfmaq_f32, c, a, b); /* the addend comes first here */
}
AT_V16 v16 v16_fnma(v16 a, v16 b, v16 c) /* -(a*b) + c, one rounding */
{
    return V16_EACH3(vfmsq_f32, c, a, b);
}
AT_V16 v16 v16_neg(v16 a)
{
    return V16_EACH1(vnegq_f32, a);
}

/* One register of the selections below. */
AT_V16 float32x4_t v16_max_one(float32x4_t x, float32x4_t m)
{
    return vbslq_f32(vcgtq_f32(x, m), x, m);
}
AT_V16 float32x4_t v16_zero_below_one(float32x4_t x, float32x4_t limit, float32x4_t y)
{
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(y), vcltq_f32(x, limit)));
}
AT_V16 float32x4_t v16_inf_above_one(float32x4_t x, float32x4_t limit, float32x4_t y)
{
    return vbslq_f32(vcleq_f32(x, limit), y, vaddq_f32(x, vdupq_n_f32(__builtin_inff())));
}
AT_V16 float32x4_t v16_scale_one(float32x4_t y, float32x4_t t)
{
    return vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(y), vshlq_n_u32(vreinterpretq_u32_f32(t), 23)));
}

/* x > m ? x : m, so a NaN in x is passed over. */
AT_V16 v16 v16_max(v16 x, v16 m)
{
    return V16_EACH2(v16_max_one, x, m);
}
/* x < limit ? +0 : y, and !(x <= limit) ? x + inf : y. */
AT_V16 v16 v16_zero_below(v16 x, v16 limit, v16 y)
{
    return V16_EACH3(v16_zero_below_one, x, limit, y);
}
AT_V16 v16 v16_inf_above(v16 x, v16 limit, v16 y)
{
    return V16_EACH3(v16_inf_above_one, x, limit, y);
}
/* y with the integer in the low bits of t added to its exponent field. */
AT_V16 v16 v16_scale(v16 y, v16 t)
{
    return V16_EACH2(v16_scale_one, y, t);
}
AT_V16 bool v16_all_finite(v16 x)
{
    /* |x| >= infinity as integers, sign shifted out: infinities and NaNs */
    const uint32x4_t inf = vdupq_n_u32(0xff000000u);
    uint32x4_t a = vcgeq_u32(vshlq_n_u32(vreinterpretq_u32_f32(x.a), 1), inf);
    uint32x4_t b = vcgeq_u32(vshlq_n_u32(vreinterpretq_u32_f32(x.b), 1), inf);
    uint32x4_t c = vcgeq_u32(vshlq_n_u32(vreinterpretq_u32_f32(x.c), 1), inf);
    uint32x4_t d = vcgeq_u32(vshlq_n_u32(vreinterpretq_u32_f32(x.d), 1), inf);
    return vmaxvq_u32(vorrq_u32(vorrq_u32(a, b), vorrq_u32(c, d))) == 0;
}

/* Rule 4: l_i += l_{i+8}, +4, +2, +1. */
AT_V16 float v16_join(v16 l)
{
    float32x4_t q = vaddq_f32(vaddq_f32(l.a, l.c), vaddq_f32(l.b, l.d));
    float32x2_t h = vadd_f32(vget_low_f32(q), vget_high_f32(q));
    return vget_lane_f32(h, 0) + vget_lane_f32(h, 1);
}
/* The largest lane; none is NaN. */
AT_V16 float v16_join_max(v16 m)
{
    return vmaxvq_f32(v16_max_one(v16_max_one(m.a, m.c), v16_max_one(m.b, m.d)));
}

/* Sixteen binary64 lanes: l = fma(x, x, l) of the widened x. */
typedef struct {
    float64x2_t v[8];
} v16d;

AT_V16 v16d v16d_zero(void)
{
    float64x2_t zero = vdupq_n_f64(0.0);
    return (v16d){{zero, zero, zero, zero, zero, zero, zero, zero}};
}
AT_V16 float64x2_t v16d_square(float64x2_t l, float64x2_t x)
{
    return vfmaq_f64(l, x, x);
}
AT_V16 v16d v16d_add_square(v16d l, v16 x)
{
    return (v16d){{v16d_square(l.v[0], vcvt_f64_f32(vget_low_f32(x.a))), v16d_square(l.v[1], vcvt_high_f64_f32(x.a)),
                   v16d_square(l.v[2], vcvt_f64_f32(vget_low_f32(x.b))), v16d_square(l.v[3], vcvt_high_f64_f32(x.b)),
                   v16d_square(l.v[4], vcvt_f64_f32(vget_low_f32(x.c))), v16d_square(l.v[5], vcvt_high_f64_f32(x.c)),
                   v16d_square(l.v[6], vcvt_f64_f32(vget_low_f32(x.d))), v16d_square(l.v[7], vcvt_high_f64_f32(x.d))}};
}
AT_V16 double v16d_join(v16d l)
{
    float64x2_t q0 = vaddq_f64(vaddq_f64(l.v[0], l.v[4]), vaddq_f64(l.v[2], l.v[6]));
    float64x2_t q1 = vaddq_f64(vaddq_f64(l.v[1], l.v[5]), vaddq_f64(l.v[3], l.v[7]));
    float64x2_t h = vaddq_f64(q0, q1);
    return vgetq_lane_f64(h, 0) + vgetq_lane_f64(h, 1);
}

#endif
