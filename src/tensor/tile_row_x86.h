/* tile_row_x86.h: a row of tile_body.h's step in assembly, for gemm_avx2.c and gemm_avx512.c, which define tv before it.
 *
 * Written as intrinsics, gcc spreads the rows of several steps over each other and then keeps an accumulator in memory:
 * 0.94 of the peak where everything lies in the first-level cache, and 0.97 to 0.99 with these three instructions. What they
 * compute is the same fused multiply-add. Sanitizer builds keep the C form, whose accesses they check. */
#ifndef AT_TILES_IN_C

#define TILE_ROW

/* acc[v] = fma(*a, b[v], acc[v]) */
static inline __attribute__((always_inline)) void tile_row(const int vecs, tv *acc, const float *a, const tv *b)
{
    tv x;
    if (vecs == 2) {
        __asm__("vbroadcastss %[a], %[x]\n\t"
                "vfmadd231ps %[b0], %[x], %[c0]\n\t"
                "vfmadd231ps %[b1], %[x], %[c1]"
                : [c0] "+v"(acc[0]), [c1] "+v"(acc[1]), [x] "=&v"(x)
                : [a] "m"(*a), [b0] "v"(b[0]), [b1] "v"(b[1]));
    } else {
        __asm__("vbroadcastss %[a], %[x]\n\t"
                "vfmadd231ps %[b0], %[x], %[c0]"
                : [c0] "+v"(acc[0]), [x] "=&v"(x)
                : [a] "m"(*a), [b0] "v"(b[0]));
    }
}

#endif
