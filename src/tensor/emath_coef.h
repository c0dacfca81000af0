/* emath_coef.h: the constants of the contract's binary32 exp and log (rule 7), shared by the scalar and vector
 * versions. Changing any of them changes every bit that follows: they are part of profile F32-1.
 *
 * exp(x): t = fma(x, LOG2E, MAGIC); n = t - MAGIC (the nearest integer to x/ln 2); r = fma(n, -LN2_HI, x);
 *   r = fma(n, -LN2_LO, r), |r| <= 0.3467; p = E2; p = fma-Horner over E6..E2, then 1, 1:
 *   p = fma(fma(fma(fma(fma(fma(E6, r, E5), r, E4), r, E3), r, E2), r, 1), r, 1);
 *   result = p * 2^n, by adding n to the exponent field (the low bits of t are n). x > HI or NaN: x + inf. x < LO: +0.
 *   For x = LO, n = -126 but r > 0, so p >= 1 and no subnormal arises; up to HI, n = 128 comes with p < 1.
 *   E2..E6: minimax for the relative error, rounded one after the other: 2^-28.2 before rounding errors.
 * log(x): x = m * 2^e, m in [sqrt(1/2), sqrt(2)), f = m - 1 (exact); q = fma-Horner over L8..L0;
 *   h = e * LN2_HI (exact); hi = h + f; lo = fma(f*f, fma(q, f, -0.5), e * LN2_LO) + (f - (hi - h)); result = hi + lo.
 *   L0..L8: Chebyshev fit of (log(1+f) - f + f^2/2) / f^3: 2^-28.4.
 * sigmoid(x): x < LO: +0. a = max(-x, SIGMOID_LO); exp's steps give q, r, p, n of a;
 *   lo = fma(q, r, 1 - p) (what p lost); e = p * 2^n; d = 1 + e; w = d - 1;
 *   lost = ((1 - (d - w)) + (e - w)) + lo * 2^n (two-sum: 1 + exp(a) = d + lost);
 *   y = 1 / d; s = fma(-y, d, 1); s = fma(-y, lost, s); result = fma(y, s, y).
 *   Plain 1 / (1 + exp(-x)) is off by up to 2.3 ulp: each of its roundings can count double in the quotient. */
#ifndef ATOLL_TENSOR_EMATH_COEF_H
#define ATOLL_TENSOR_EMATH_COEF_H

#define EM_LOG2E  0x1.715476p+0f
#define EM_MAGIC  0x1.8p+23f
#define EM_LN2_HI 0x1.62e4p-1f /* 16 bits: times any exponent it is exact */
#define EM_LN2_LO 0x1.7f7d1cp-20f

#define EM_EXP_HI     0x1.62e42ep+6f /* the largest binary32 whose exp is finite, 88.7228317 */
#define EM_EXP_LO     -87.3f
#define EM_SIGMOID_LO -87.0f /* exp(-87) is lost in 1 + e */
#define EM_E2         0x1.fffffcp-2f
#define EM_E3         0x1.55548cp-3f
#define EM_E4         0x1.555858p-5f
#define EM_E5         0x1.123de0p-7f
#define EM_E6         0x1.6ac74ap-10f

#define EM_SQRT_HALF_BITS 0x3f3504f3
#define EM_L0             0x1.555554p-2f
#define EM_L1             -0x1.fffffcp-3f
#define EM_L2             0x1.999d5ap-3f
#define EM_L3             -0x1.555b4ap-3f
#define EM_L4             0x1.23d21ap-3f
#define EM_L5             -0x1.fcf4c6p-4f
#define EM_L6             0x1.dea282p-4f
#define EM_L7             -0x1.d635bcp-4f
#define EM_L8             0x1.1d8ea6p-4f

#endif
