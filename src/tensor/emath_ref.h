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

#else

AT_REF_TARGET static inline real AT_REF(ref_exp)(real x)
{
    if (!(x <= EM_EXP_HI)) return x + INFINITY;
    if (x < EM_EXP_LO) return 0.0f;
    float t = AT_REF_FMA(x, EM_LOG2E, EM_MAGIC);
    float n = t - EM_MAGIC;
    float r = AT_REF_FMA(n, -EM_LN2_HI, x);
    r = AT_REF_FMA(n, -EM_LN2_LO, r);
    float p = AT_REF_FMA(EM_E6, r, EM_E5);
    p = AT_REF_FMA(p, r, EM_E4);
    p = AT_REF_FMA(p, r, EM_E3);
    p = AT_REF_FMA(p, r, EM_E2);
    p = AT_REF_FMA(p, r, 1.0f);
    p = AT_REF_FMA(p, r, 1.0f);
    uint32_t p_bits, t_bits;
    memcpy(&p_bits, &p, sizeof p);
    memcpy(&t_bits, &t, sizeof t);
    p_bits += t_bits << 23;
    memcpy(&p, &p_bits, sizeof p);
    return p;
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

#endif

AT_REF_TARGET static inline real AT_REF(ref_sigmoid)(real x)
{
    return REAL(1.0) / (REAL(1.0) + AT_REF(ref_exp)(-x));
}
