#include "tensor/emath.h"

#include "base/err.h"
#include "tensor/cpu.h"
#include "tensor/emath_coef.h"
#include "tensor/ref_fma.h"

#define AT_REF(name)        name
#define AT_REF_TARGET       /* any CPU */
#define AT_REF_FMA(a, b, c) AT_FMA_PLAIN(a, b, c)
#include "tensor/emath_ref.h"

AT_REF_TARGET static inline real AT_REF(ref_fma)(real a, real b, real c)
{
    return AT_REF_FMA(a, b, c);
}

#if AT_HAVE_TARGET_FMA
#undef AT_REF
#undef AT_REF_TARGET
#undef AT_REF_FMA
#define AT_REF(name)        name##_hard
#define AT_REF_TARGET       AT_TARGET_FMA
#define AT_REF_FMA(a, b, c) AT_FMA_HARD(a, b, c)
#include "tensor/emath_ref.h"

AT_REF_TARGET static real AT_REF(ref_fma)(real a, real b, real c)
{
    return AT_REF_FMA(a, b, c);
}

#define PICK(name, ...) (at_cpu_features() & AT_CPU_FMA ? name##_hard(__VA_ARGS__) : name(__VA_ARGS__))
#else
#define PICK(name, ...) name(__VA_ARGS__)
#endif

real at_exp(real x)
{
    return PICK(ref_exp, x);
}
real at_log(real x)
{
    return PICK(ref_log, x);
}
real at_sigmoid(real x)
{
    return PICK(ref_sigmoid, x);
}
real at_fma(real a, real b, real c)
{
    return PICK(ref_fma, a, b, c);
}

void at_rotary_table(real *cos, real *sin, long positions, int head_size, double theta)
{
    AT_ASSERT(head_size > 0 && head_size % 2 == 0 && theta > 0);
    long half = head_size / 2;
    double log_theta = at_log64(theta);
    for (long i = 0; i < half; i++) {
        double frequency = at_exp64((double)(-2 * i) / head_size * log_theta);
        for (long t = 0; t < positions; t++) {
            double angle = (double)t * frequency;
            cos[t * half + i] = (real)at_cos64(angle);
            sin[t * half + i] = (real)at_sin64(angle);
        }
    }
}
