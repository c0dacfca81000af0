#include "tensor/cpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define ECX_ALL 0x18001000u /* FMA, OSXSAVE, AVX */
#define EBX_ALL 0x80030020u /* AVX2, AVX-512 F, DQ, VL */

static void test_all_that_is_there_is_used(void **state)
{
    (void)state;
    assert_int_equal(at_cpu_decide(ECX_ALL, EBX_ALL, 0xe7), AT_CPU_KNOWN | AT_CPU_FMA | AT_CPU_AVX2 | AT_CPU_AVX512);
}

/* A CPU whose registers the OS does not save is a CPU without them. */
static void test_os_must_save_the_registers(void **state)
{
    (void)state;
    assert_int_equal(at_cpu_decide(ECX_ALL, EBX_ALL, 0x07), AT_CPU_KNOWN | AT_CPU_FMA | AT_CPU_AVX2);
    const unsigned zmm_bits[] = {0x20, 0x40, 0x80};
    for (int i = 0; i < 3; i++) assert_false(at_cpu_decide(ECX_ALL, EBX_ALL, 0xe7 & ~zmm_bits[i]) & AT_CPU_AVX512);
    assert_int_equal(at_cpu_decide(ECX_ALL, EBX_ALL, 0x03), AT_CPU_KNOWN);
    assert_int_equal(at_cpu_decide(ECX_ALL & ~(1u << 27), EBX_ALL, 0), AT_CPU_KNOWN);
}

static void test_each_missing_part_counts(void **state)
{
    (void)state;
    for (int bit = 0; bit < 32; bit++) {
        if (ECX_ALL >> bit & 1) assert_int_equal(at_cpu_decide(ECX_ALL & ~(1u << bit), EBX_ALL, 0xe7), AT_CPU_KNOWN);
        if (!(EBX_ALL >> bit & 1)) continue;
        unsigned want = bit == 5 ? AT_CPU_KNOWN | AT_CPU_FMA : AT_CPU_KNOWN | AT_CPU_FMA | AT_CPU_AVX2;
        assert_int_equal(at_cpu_decide(ECX_ALL, EBX_ALL & ~(1u << bit), 0xe7), want);
    }
}

static void test_this_machine(void **state)
{
    (void)state;
    unsigned set = at_cpu_features();
    assert_true(set & AT_CPU_KNOWN);
    assert_int_equal(set, at_cpu_features());
#if defined(__x86_64__)
    /* The compiler's runtime looks in its own way. */
    assert_int_equal(!!(set & AT_CPU_FMA), !!__builtin_cpu_supports("fma"));
    assert_int_equal(!!(set & AT_CPU_AVX2), __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
    assert_int_equal(!!(set & AT_CPU_AVX512), __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                                                  __builtin_cpu_supports("avx512vl"));
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_that_is_there_is_used),
        cmocka_unit_test(test_os_must_save_the_registers),
        cmocka_unit_test(test_each_missing_part_counts),
        cmocka_unit_test(test_this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
