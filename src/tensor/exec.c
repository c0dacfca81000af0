#include "tensor/exec.h"

#include "tensor/cpu.h"
#include "tensor/float_mode.h"
#include "tensor/gemm_kern.h"
#include "tensor/ops_scratch.h"
#include "tensor/rows_kern.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && !defined(AT_REAL64)
#define HAVE_VECTOR_KERNELS 1
#else
#define HAVE_VECTOR_KERNELS 0
#endif

static const struct at_kern kern_ref = {"ref", &at_gemm_kern_ref, &at_rows_kern_ref};
#if defined(__x86_64__)
static const struct at_kern kern_ref_fma = {"ref", &at_gemm_kern_ref_fma, &at_rows_kern_ref_fma};
#endif
#if HAVE_VECTOR_KERNELS
static const struct at_kern kern_avx2 = {"avx2", &at_gemm_kern_avx2, &at_rows_kern_avx2};
static const struct at_kern kern_avx512 = {"avx512", &at_gemm_kern_avx512, &at_rows_kern_avx512};
#endif
#if defined(__aarch64__) && !defined(AT_REAL64)
#define HAVE_NEON 1 /* part of the architecture: nothing to ask the CPU */
static const struct at_kern kern_neon = {"neon", &at_gemm_kern_neon, &at_rows_kern_neon};
#else
#define HAVE_NEON 0
#endif

const struct at_kern *const *at_kern_available(void)
{
#if HAVE_NEON
    static const struct at_kern *const plain[] = {&kern_neon, &kern_ref, NULL};
#else
    static const struct at_kern *const plain[] = {&kern_ref, NULL};
#endif
    unsigned cpu = at_cpu_features();
#if HAVE_VECTOR_KERNELS
    static const struct at_kern *const with_avx512[] = {&kern_avx512, &kern_avx2, &kern_ref_fma, NULL};
    if (cpu & AT_CPU_AVX512) return with_avx512;
    if (cpu & AT_CPU_AVX2) return with_avx512 + 1;
#endif
#if defined(__x86_64__)
    static const struct at_kern *const with_fma[] = {&kern_ref_fma, NULL};
    if (cpu & AT_CPU_FMA) return with_fma;
#endif
    (void)cpu;
    return plain;
}

/* "avx2, ref" */
static void list_available(char *text, size_t text_bytes)
{
    text[0] = '\0';
    for (const struct at_kern *const *k = at_kern_available(); *k; k++) {
        if (text[0]) strncat(text, ", ", text_bytes - strlen(text) - 1);
        strncat(text, (*k)->name, text_bytes - strlen(text) - 1);
    }
}

at_err at_kern_select(const char *name, struct at_diag *diag, const struct at_kern **ret_kern)
{
    const struct at_kern *const *available = at_kern_available();
    if (strcmp(name, "auto") == 0) {
        *ret_kern = available[0];
        return AT_OK;
    }
    for (const struct at_kern *const *k = available; *k; k++) {
        if (strcmp(name, (*k)->name) == 0) {
            *ret_kern = *k;
            return AT_OK;
        }
    }
    char list[64];
    list_available(list, sizeof list);
    if (strcmp(name, "avx2") == 0 || strcmp(name, "avx512") == 0 || strcmp(name, "neon") == 0)
        return at_fail(diag, AT_E_KERNEL, "kernels", "this CPU or build has no '%s' kernels; available: %s", name,
                       list);
    return at_fail(diag, AT_E_USAGE, "kernels", "unknown kernels '%s'; available: auto, %s", name, list);
}

at_err at_exec_init(struct at_exec *ex, const struct at_kern *kern, const struct at_par *par)
{
    AT_ASSERT(par->threads >= 1);
    at_err_t err = at_float_mode_check(NULL);
    if (err != AT_OK) return err;
    size_t need[] = {at_gemm_scratch_bytes(par->threads), at_attention_scratch_bytes(par->threads),
                     at_ops_scratch_bytes(par->threads)};
    size_t bytes = 64;
    for (size_t i = 0; i < sizeof need / sizeof need[0]; i++)
        if (need[i] > bytes) bytes = need[i];
    if (bytes > SIZE_MAX - 63) return AT_E_NOMEM;
    bytes = (bytes + 63) & ~(size_t)63;
    void *scratch = aligned_alloc(64, bytes);
    if (!scratch) return AT_E_NOMEM;
    *ex = (struct at_exec){.kern = kern, .par = par, .scratch = scratch, .scratch_bytes = bytes};
    return AT_OK;
}

void at_exec_release(struct at_exec *ex)
{
    free(ex->scratch);
    *ex = (struct at_exec){0};
}
