#include "tensor/float_mode.h"

#include <stdint.h>
#include <string.h>

/* Compared as bits: where subnormal operands count as zero, == takes them for it, too. Volatile: the processor must
 * compute it, not the compiler. */
static uint32_t product(float x, float y)
{
    volatile float a = x, b = y, r = a * b;
    float value = r;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static uint32_t sum(float x, float y)
{
    volatile float a = x, b = y, r = a + b;
    float value = r;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

at_err_t at_float_mode_check(struct at_diag *diag)
{
    enum { ONE = 0x3f800000 }; /* its neighbour above is 2^-23 away */
    if (product(0x1p-149f, 1) != 1)
        return at_fail(diag, AT_E_ENV, "arithmetic",
                       "this process takes subnormal numbers for zero (a library built with -ffast-math does that): "
                       "results would not be exact");
    if (product(0x1p-126f, 0.5f) != 0x00400000)
        return at_fail(diag, AT_E_ENV, "arithmetic",
                       "this process flushes subnormal numbers to zero (a library built with -ffast-math does that): "
                       "results would not be exact");
    if (sum(1, 0x1p-25f) != ONE || sum(1, 0x1p-24f) != ONE || sum(1, 0x1.8p-24f) != ONE + 1)
        return at_fail(diag, AT_E_ENV, "arithmetic",
                       "this process does not round to nearest even (something has set another rounding mode): results "
                       "would not be exact");
    return AT_OK;
}
