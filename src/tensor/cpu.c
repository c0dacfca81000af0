#include "tensor/cpu.h"

#include <stdatomic.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define LEAF1_ECX_FMA      (1u << 12)
#define LEAF1_ECX_OSXSAVE  (1u << 27)
#define LEAF1_ECX_AVX      (1u << 28)
#define LEAF7_EBX_AVX2     (1u << 5)
#define LEAF7_EBX_AVX512F  (1u << 16)
#define LEAF7_EBX_AVX512DQ (1u << 17)
#define LEAF7_EBX_AVX512VL (1u << 31)
#define XCR0_YMM           0x06u /* SSE and AVX state */
#define XCR0_ZMM           0xe6u /* and opmask, the upper halves of ZMM0-15, ZMM16-31 */

unsigned at_cpu_decide(uint32_t leaf1_ecx, uint32_t leaf7_ebx, uint64_t xcr0)
{
    const uint32_t first = LEAF1_ECX_FMA | LEAF1_ECX_OSXSAVE | LEAF1_ECX_AVX;
    const uint32_t wide = LEAF7_EBX_AVX512F | LEAF7_EBX_AVX512DQ | LEAF7_EBX_AVX512VL;
    unsigned set = AT_CPU_KNOWN;
    if ((leaf1_ecx & first) != first || (xcr0 & XCR0_YMM) != XCR0_YMM) return set;
    set |= AT_CPU_FMA;
    if (!(leaf7_ebx & LEAF7_EBX_AVX2)) return set;
    set |= AT_CPU_AVX2;
    if ((leaf7_ebx & wide) == wide && (xcr0 & XCR0_ZMM) == XCR0_ZMM) set |= AT_CPU_AVX512;
    return set;
}

static unsigned ask_cpu(void)
{
    uint32_t ecx = 0, ebx = 0;
    uint64_t xcr0 = 0;
#if defined(__x86_64__)
    uint32_t a, b, c, d;
    if (__get_cpuid(1, &a, &b, &c, &d)) ecx = c;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) ebx = b;
    if (ecx & LEAF1_ECX_OSXSAVE) { /* without it XGETBV is an invalid instruction */
        uint32_t lo, hi;
        __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
        xcr0 = (uint64_t)hi << 32 | lo;
    }
#endif
    return at_cpu_decide(ecx, ebx, xcr0);
}

unsigned at_cpu_features(void)
{
    /* Not state: a constant of the machine, computed when first needed. Threads that race store the same value. */
    static atomic_uint known;
    unsigned set = atomic_load_explicit(&known, memory_order_relaxed);
    if (!set) {
        set = ask_cpu();
        atomic_store_explicit(&known, set, memory_order_relaxed);
    }
    return set;
}
