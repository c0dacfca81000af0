/* cpu.h: what this CPU can run under this operating system, by CPUID and XGETBV. Safe from any thread at any time.
 *
 * A feature counts only when the OS saves its registers: FMA and AVX2 need the YMM state, AVX-512 also the opmask and
 * ZMM states (Intel SDM vol. 1, 13.3 and 14.3). On anything but x86-64 the set is empty (AArch64 always
 * has Advanced SIMD and fma: exec.c asks nothing there). */
#ifndef ATOLL_TENSOR_CPU_H
#define ATOLL_TENSOR_CPU_H

#include <stdint.h>

enum at_cpu_feature {
    AT_CPU_KNOWN = 1 << 0,  /* always set: tells "looked, found nothing" from "not looked yet" */
    AT_CPU_FMA = 1 << 1,    /* FMA3, and YMM saved */
    AT_CPU_AVX2 = 1 << 2,   /* AVX2 and FMA3, and YMM saved */
    AT_CPU_AVX512 = 1 << 3, /* AVX2 and AVX-512 F, DQ, VL, and ZMM and opmask saved */
};

/* A set of at_cpu_feature. The first call asks the CPU (CPUID can cost microseconds in a virtual machine), later ones
 * are one load. */
unsigned at_cpu_features(void);

/* The decision alone, from the raw registers, for tests: CPUID leaf 1 ECX, leaf 7 EBX, XCR0 (0 when OSXSAVE is not
 * set). */
unsigned at_cpu_decide(uint32_t leaf1_ecx, uint32_t leaf7_ebx, uint64_t xcr0);

#endif
