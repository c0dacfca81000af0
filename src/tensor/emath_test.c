/* binary32 functions against the C library's binary64 ones (within 1 ulp of binary64: 2^-29 of a binary32 ulp),
 * binary64 ones against its long double ones, the emulated fma against fmaf. */
#include "tensor/emath.h"

#include "base/rng.h"
#include "tensor/fma.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static float from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
static uint32_t to_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof x);
    return bits;
}
static void assert_same(float a, float b)
{
    assert_true(to_bits(a) == to_bits(b) || (a != a && b != b));
}

/* |y - want| in units of the last place of a `bits`-bit number of want's size; results below the least normal number
 * are measured in subnormal steps. */
static double ulps(long double y, long double want, int bits, int exponent_min)
{
    if (isinf(want) || isnan(want) || y == want) return y == want || (isnan(y) && isnan(want)) ? 0.0 : INFINITY;
    int e;
    frexpl(want, &e);
    if (e < exponent_min) e = exponent_min;
    return (double)fabsl(ldexpl(y - want, bits - e));
}
static double ulps32(float y, double want)
{
    float nearest = (float)want;
    if (isinf(nearest)) return y == nearest ? 0.0 : INFINITY;
    return ulps((long double)y, (long double)want, FLT_MANT_DIG, FLT_MIN_EXP);
}

static double worse(double a, double b)
{
    return b > a || b != b ? b : a;
}

#ifdef ATOLL_CROSS /* an emulated processor computes long doubles in software */
#define STRIDE 5003
#else
#define STRIDE 1009 /* a prime: low bits of every kind */
#endif

static void test_exp_log_sigmoid_within_1_5_ulp(void **state)
{
    (void)state;
    double exp_worst = 0, log_worst = 0, sigmoid_worst = 0;
    for (uint64_t bits = 0; bits <= 0xffffffffu; bits += STRIDE) {
        float x = from_bits((uint32_t)bits);
        if (x != x) continue;
        if (x >= -87.3f) {
            double e = exp(-(double)x);
            exp_worst = worse(exp_worst, ulps32(at_exp(x), exp((double)x)));
            sigmoid_worst = worse(sigmoid_worst, ulps32(at_sigmoid(x), 1.0 / (1.0 + e)));
        } else {
            assert_same(at_exp(x), 0.0f);
            assert_same(at_sigmoid(x), 0.0f);
        }
        if (x > 0) log_worst = worse(log_worst, ulps32(at_log(x), log((double)x)));
    }
    print_message("max ulp: exp %.4f, log %.4f, sigmoid %.4f\n", exp_worst, log_worst, sigmoid_worst);
    assert_true(exp_worst <= 1.0 && log_worst <= 1.0 && sigmoid_worst <= 1.0);
}

static void test_special_values(void **state)
{
    (void)state;
    assert_same(at_exp(0.0f), 1.0f);
    assert_same(at_exp(-0.0f), 1.0f);
    assert_same(at_exp(INFINITY), INFINITY);
    assert_same(at_exp(-INFINITY), 0.0f);
    assert_same(at_exp(NAN), NAN);
    assert_same(at_exp(FLT_MAX), INFINITY);
    assert_same(at_exp(-FLT_MAX), 0.0f);
    assert_same(at_exp(nextafterf(-87.3f, -100.0f)), 0.0f);
    assert_true(at_exp(-87.3f) >= FLT_MIN);
    assert_true(isfinite(at_exp(88.72283f)));
    assert_same(at_exp(nextafterf(88.72283f, 100.0f)), INFINITY);

    assert_same(at_log(1.0f), 0.0f);
    assert_same(at_log(0.0f), -INFINITY);
    assert_same(at_log(-0.0f), -INFINITY);
    assert_same(at_log(INFINITY), INFINITY);
    assert_same(at_log(-1e-45f), NAN);
    assert_same(at_log(-INFINITY), NAN);
    assert_same(at_log(NAN), NAN);
    for (uint32_t bits = 1; bits < 0x800000; bits += 4099) /* subnormals */
        assert_true(ulps32(at_log(from_bits(bits)), log((double)from_bits(bits))) <= 1.0);

    assert_same(at_sigmoid(0.0f), 0.5f);
    assert_same(at_sigmoid(INFINITY), 1.0f);
    assert_same(at_sigmoid(-INFINITY), 0.0f);
    assert_same(at_sigmoid(NAN), NAN);
    assert_same(at_sigmoid(100.0f), 1.0f);
}

/* Triples that make rounding hard: any exponents, cancelling sums, few-bit mantissas (ties), subnormal results. */
static void hard_triple(uint64_t i, float *a, float *b, float *c)
{
    struct at_philox r = at_philox(3, AT_RNG_TEST, 1, i);
    uint32_t shape = r.v[3] % 4, keep = 0xffffffffu << (r.v[3] >> 8) % 24;
    *a = from_bits(r.v[0] & (shape & 1 ? keep : 0xffffffffu));
    *b = from_bits(r.v[1] & (shape & 1 ? keep : 0xffffffffu));
    *c = from_bits(r.v[2]);
    if (shape & 2) { /* c near -a*b, or far below it, with few bits */
        double p = -(double)*a * (double)*b;
        *c = (float)ldexp(p, (int)(r.v[3] >> 16) % 60 - 30);
        *c = from_bits(to_bits(*c) ^ (r.v[2] & 3));
    }
}

static void test_emulated_fma_is_fmaf(void **state)
{
    (void)state;
    long subnormal = 0, wrong = 0;
    for (uint64_t i = 0; i < 3000000; i++) {
        float a, b, c;
        hard_triple(i, &a, &b, &c);
        float want = fmaf(a, b, c), soft = at_fma_soft32(a, b, c), hard = at_fma(a, b, c);
        wrong += !(to_bits(want) == to_bits(soft) || (want != want && soft != soft));
        wrong += !(to_bits(want) == to_bits(hard) || (want != want && hard != hard));
        subnormal += want != 0 && fabsf(want) < FLT_MIN;
    }
    assert_int_equal(wrong, 0);
    assert_true(subnormal > 1000); /* the triples do reach there */
    assert_same(at_fma_soft32(-1e-30f, 1e-30f, 0.0f), -0.0f);
    assert_same(at_fma_soft32(FLT_MAX, FLT_MAX, -INFINITY), -INFINITY);
    assert_same(at_fma_soft32(INFINITY, 0.0f, 1.0f), NAN);
}

static void test_binary64_functions_within_2_ulp(void **state)
{
    (void)state;
    double worst[4] = {0};
    for (uint64_t i = 0; i < 400000; i++) {
        struct at_philox r = at_philox(4, AT_RNG_TEST, 2, i);
        double u = at_rng_unit(r.v[0], r.v[1]), v = 2 * u - 1;
        uint32_t shape = r.v[2] % 4;
        double x = shape ? v * (v < 0 ? 745.0 : 709.7) : v,
               y = shape ? ldexp(u + 0.25, (int)(r.v[3] % 2098) - 1074) : 1.0 + v / 4;
        double z = shape == 0 ? v * 8 : shape == 1 ? rint(v * 636000) * 1.5707963267948966 : v * 1e6;
        worst[0] = worse(worst[0], ulps((long double)at_exp64(x), expl((long double)x), DBL_MANT_DIG, DBL_MIN_EXP));
        worst[1] = worse(worst[1], ulps((long double)at_log64(y), logl((long double)y), DBL_MANT_DIG, DBL_MIN_EXP));
        worst[2] = worse(worst[2], ulps((long double)at_sin64(z), sinl((long double)z), DBL_MANT_DIG, DBL_MIN_EXP));
        worst[3] = worse(worst[3], ulps((long double)at_cos64(z), cosl((long double)z), DBL_MANT_DIG, DBL_MIN_EXP));
    }
    print_message("max ulp: exp64 %.4f, log64 %.4f, sin64 %.4f, cos64 %.4f\n", worst[0], worst[1], worst[2], worst[3]);
    for (int i = 0; i < 4; i++) assert_true(worst[i] <= 2.0);
}

static void test_binary64_special_values(void **state)
{
    (void)state;
    assert_true(at_exp64(0.0) == 1.0 && at_exp64(1000.0) == INFINITY && at_exp64(-1000.0) == 0.0);
    assert_true(at_exp64(709.7) < INFINITY && at_exp64(710.0) == INFINITY && at_exp64(-745.0) == 0x1p-1074);
    assert_true(at_exp64(INFINITY) == INFINITY && at_exp64(-INFINITY) == 0.0 && isnan(at_exp64(NAN)));
    assert_true(at_log64(1.0) == 0.0 && at_log64(0.0) == -INFINITY && at_log64(INFINITY) == INFINITY);
    assert_true(isnan(at_log64(-1.0)) && isnan(at_log64(NAN)));
    assert_true(at_sin64(0.0) == 0.0 && signbit(at_sin64(-0.0)) && at_cos64(0.0) == 1.0);
    assert_true(isnan(at_sin64(INFINITY)) && isnan(at_cos64(NAN)) && isnan(at_sin64(2e6)));
    /* Kahan's hard case is out of range; this one is the nearest to a multiple of pi/2 below 10^6 or so. */
    assert_true(ulps((long double)at_cos64(0x1.921fb54442d18p+0), cosl(0x1.921fb54442d18p+0L), 53, -1021) <= 2.0);
}

static void test_rotary_table(void **state)
{
    (void)state;
    enum { POSITIONS = 300, HEAD = 12 };
    static float c[POSITIONS * HEAD / 2], s[POSITIONS * HEAD / 2];
    at_rotary_table(c, s, POSITIONS, HEAD, 10000.0);
    for (long t = 0; t < POSITIONS; t++) {
        for (int i = 0; i < HEAD / 2; i++) {
            long double angle = (long double)t * powl(10000.0L, -2.0L * i / HEAD);
            assert_true(fabsl((long double)c[t * HEAD / 2 + i] - cosl(angle)) < 6.1e-8L);
            assert_true(fabsl((long double)s[t * HEAD / 2 + i] - sinl(angle)) < 6.1e-8L);
        }
    }
    assert_same(c[0], 1.0f);
    assert_same(s[0], 0.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp_log_sigmoid_within_1_5_ulp), cmocka_unit_test(test_special_values),
        cmocka_unit_test(test_emulated_fma_is_fmaf),           cmocka_unit_test(test_binary64_functions_within_2_ulp),
        cmocka_unit_test(test_binary64_special_values),        cmocka_unit_test(test_rotary_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
