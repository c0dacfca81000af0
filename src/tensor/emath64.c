/* Binary64 exp, log, sin and cos for tables and schedules: mul, add, div only, no fma, so that any compiler and CPU
 * give the same bits. Methods: Muller, "Elementary Functions" (3rd ed.), ch. 11 (Cody & Waite reduction) and 4
 * (Taylor/atanh series on a small interval, the leading terms added last and compensated). The series' coefficients are
 * factorials and odd integers, so there is no table to get wrong. */
#include "tensor/emath.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#define LN2_HI 0x1.62e42feep-1 /* 32 bits: exact times any exponent */
#define LN2_LO 0x1.a39ef35793c76p-33
#define LOG2E  0x1.71547652b82fep+0
#define MAGIC  0x1.8p+52

/* 2^n, -1022 <= n <= 1023 */
static double pow2(int n)
{
    uint64_t bits = (uint64_t)(1023 + n) << 52;
    double y;
    memcpy(&y, &bits, sizeof y);
    return y;
}

double at_exp64(double x)
{
    if (x != x) return x;
    if (x > 709.79) return INFINITY; /* exp(709.7827...) is the largest finite */
    if (x < -745.14) return 0.0;     /* below half the smallest subnormal */
    double n = (x * LOG2E + MAGIC) - MAGIC;
    double hi = x - n * LN2_HI, lo = n * LN2_LO, r = hi - lo;
    double q = 1.0 / 87178291200.0; /* r^2 (1/2! + r/3! + ... + r^12/14!) */
    static const double factorial[] = {6227020800.0, 479001600.0, 39916800.0, 3628800.0, 362880.0, 40320.0,
                                       5040.0,       720.0,       120.0,      24.0,      6.0,      2.0};
    for (int i = 0; i < 12; i++) q = q * r + 1.0 / factorial[i];
    double rest = (hi - r) - lo; /* what rounding r lost */
    double y = 1.0 + (r + (r * r * q + rest));
    int half = (int)n / 2; /* in two steps: subnormal results, and n = 1024 with y < 1 */
    return y * pow2(half) * pow2((int)n - half);
}

double at_log64(double x)
{
    if (!(x > 0.0)) return x == 0.0 ? -INFINITY : NAN;
    if (x == INFINITY) return x;
    double e = 0.0;
    if (x < 0x1p-1022) {
        x *= 0x1p54;
        e = -54.0;
    }
    const int64_t sqrt_half = 0x3fe6a09e667f3bcd;
    int64_t bits;
    memcpy(&bits, &x, sizeof x);
    bits -= sqrt_half;
    e += (double)(bits >> 52);
    bits = (bits & 0xfffffffffffff) + sqrt_half;
    double m;
    memcpy(&m, &bits, sizeof m);
    /* log(1+f) = 2 atanh(s), s = f/(2+f); = f - (f^2/2 - s (f^2/2 + R)), R = 2 (s^2/3 + s^4/5 + ...): the large terms
     * exact or nearly so. */
    double f = m - 1.0, s = f / (2.0 + f), z = s * s, tail = 0.0;
    for (int k = 23; k >= 3; k -= 2) tail = (tail + 2.0 / k) * z;
    double half_square = 0.5 * f * f;
    double correction = s * (half_square + tail) + e * LN2_LO;
    return e * LN2_HI - ((half_square - correction) - f);
}

/* x - n pi/2 as the sum of two binary64 numbers; returns n mod 4. pi/2 in three pieces of 33 bits, whose products with
 * n < 2^20 are exact, and a tail: 150 bits, of which cancellation takes at most about 80. */
static int reduce(double x, double *ret_hi, double *ret_lo)
{
    const double p1 = 0x1.921fb544p+0, p2 = 0x1.0b4611a6p-34, p3 = 0x1.3198a2ep-69, p4 = 0x1.b839a252049c1p-104;
    double n = (x * 0x1.45f306dc9c883p-1 + MAGIC) - MAGIC;
    double a = x - n * p1; /* exact */
    double b = n * p2, hi = a - b, t = hi - a;
    double lo = (a - (hi - t)) - (b + t); /* two-sum */
    double c = n * p3, sum = hi - c;
    t = sum - hi;
    lo += ((hi - (sum - t)) - (c + t)) - n * p4;
    *ret_hi = sum + lo;
    *ret_lo = lo - (*ret_hi - sum);
    return (int)((int64_t)n & 3);
}

/* sin and cos of hi + lo, |hi| <= pi/4, |lo| <= ulp(hi). */
static double sin_small(double hi, double lo)
{
    static const double coef[] = {
        1.0 / 355687428096000.0, -1.0 / 1307674368000.0, 1.0 / 6227020800.0, -1.0 / 39916800.0,
        1.0 / 362880.0,          -1.0 / 5040.0,          1.0 / 120.0};
    double z = hi * hi, q = coef[0];
    for (int i = 1; i < 7; i++) q = q * z + coef[i];
    double cube = z * hi;
    return hi - ((z * (0.5 * lo - cube * q) - lo) - cube * (-1.0 / 6.0));
}

static double cos_small(double hi, double lo)
{
    static const double coef[] = {1.0 / 20922789888000.0, -1.0 / 87178291200.0, 1.0 / 479001600.0, -1.0 / 3628800.0,
                                  1.0 / 40320.0,          -1.0 / 720.0,         1.0 / 24.0};
    double z = hi * hi, q = coef[0];
    for (int i = 1; i < 7; i++) q = q * z + coef[i];
    double half = 0.5 * z, w = 1.0 - half;
    return w + (((1.0 - w) - half) + (z * (z * q) - hi * lo));
}

static double sin_quadrant(double x, int shift)
{
    if (!(x >= -0x1p20 && x <= 0x1p20)) return NAN; /* also NaN and infinities */
    double hi, lo;
    int quadrant = (reduce(x, &hi, &lo) + shift) & 3;
    double y = quadrant & 1 ? cos_small(hi, lo) : sin_small(hi, lo);
    return quadrant & 2 ? -y : y;
}

double at_sin64(double x)
{
    return x == 0.0 ? x : sin_quadrant(x, 0);
}
double at_cos64(double x)
{
    return sin_quadrant(x, 1);
}
