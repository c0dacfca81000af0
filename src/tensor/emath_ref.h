/* emath_ref.h: the scalar exp, log and sigmoid, as a template: plain C over a given fma. Included by emath.c and
 * rows_ref.c, once for every way to compute fma, which must define
 *   AT_REF(name)         the function's name in this copy
 *   AT_REF_TARGET        the copy's target attribute, or nothing
 *   AT_REF_FMA(a, b, c)  the correctly rounded fma for `real` */

#ifdef AT_REAL64

AT_REF_TARGET static inline real AT_REF(ref_exp)(real x)
{
    return at_exp64(x);
}

AT_REF_TARGET static inline real AT_REF(ref_log)(real x)
{
    return at_log64(x);
}

AT_REF_TARGET static inline real AT_REF(ref_sigmoid)(real x)
{
    return 1.0 / (1.0 + at_exp64(-x));
}

#else

/* exp(x) = (p + lo) * 2^n for x within range: p in [0.7, 1.42], lo what p's rounding lost, n in the low bits of t. */
struct AT_REF(exp_parts) {
    float p, lo, t;
};

AT_REF_TARGET static inline struct AT_REF(exp_parts) AT_REF(exp_core)(float x)
{
    float t = AT_REF_FMA(x, EM_LOG2E, EM_MAGIC);
    float n = t - EM_MAGIC;
    float r = AT_REF_FMA(n, -EM_LN2_HI, x);
    r = AT_REF_FMA(n, -EM_LN2_LO, r);
    float q = AT_REF_FMA(EM_E6, r, EM_E5);
    q = AT_REF_FMA(q, r, EM_E4);
    q = AT_REF_FMA(q, r, EM_E3);
    q = AT_REF_FMA(q, r, EM_E2);
    q = AT_REF_FMA(q, r, 1.0f);
    float p = AT_REF_FMA(q, r, 1.0f);
    return (struct AT_REF(exp_parts)){p, AT_REF_FMA(q, r, 1.0f - p), t};
}

/* y with the integer in the low bits of t added to its exponent field. */
AT_REF_TARGET static inline float AT_REF(scale)(float y, float t)
{
    uint32_t y_bits, t_bits;
    memcpy(&y_bits, &y, sizeof y);
    memcpy(&t_bits, &t, sizeof t);
    y_bits += t_bits << 23;
    memcpy(&y, &y_bits, sizeof y);
    return y;
}

AT_REF_TARGET static inline real AT_REF(ref_exp)(real x)
{
    if (!(x <= EM_EXP_HI)) return x + INFINITY;
    if (x < EM_EXP_LO) return 0.0f;
    struct AT_REF(exp_parts) e = AT_REF(exp_core)(x);
    return AT_REF(scale)(e.p, e.t);
}

AT_REF_TARGET static inline real AT_REF(ref_log)(real x)
{
    if (!(x > 0.0f)) return x == 0.0f ? -INFINITY : NAN;
    if (x == INFINITY) return x;
    float e = 0.0f;
    if (x < 0x1p-126f) {
        x *= 0x1p25f;
        e = -25.0f;
    }
    int32_t bits;
    memcpy(&bits, &x, sizeof x);
    bits -= EM_SQRT_HALF_BITS;
    e += (float)(bits >> 23);
    bits = (bits & 0x7fffff) + EM_SQRT_HALF_BITS;
    float m;
    memcpy(&m, &bits, sizeof m);
    static const float coef[] = {EM_L7, EM_L6, EM_L5, EM_L4, EM_L3, EM_L2, EM_L1, EM_L0, -0.5f};
    float f = m - 1.0f, q = EM_L8;
    for (int i = 0; i < 9; i++) q = AT_REF_FMA(q, f, coef[i]);
    float h = e * EM_LN2_HI, hi = h + f;
    float lo = AT_REF_FMA(f * f, q, e * EM_LN2_LO) + (f - (hi - h));
    return hi + lo;
}

AT_REF_TARGET static inline real AT_REF(ref_sigmoid)(real x)
{
    if (x != x) return x;
    if (x < EM_EXP_LO) return 0.0f;
    struct AT_REF(exp_parts) parts = AT_REF(exp_core)(-x < EM_SIGMOID_LO ? EM_SIGMOID_LO : -x);
    float power = AT_REF(scale)(1.0f, parts.t);
    float e = parts.p * power, e_lo = parts.lo * power;
    float d = 1.0f + e, part = d - 1.0f;
    float lost = ((1.0f - (d - part)) + (e - part)) + e_lo;
    float y = 1.0f / d;
    float r = AT_REF_FMA(-y, d, 1.0f);
    r = AT_REF_FMA(-y, lost, r);
    return AT_REF_FMA(y, r, y);
}

#endif
