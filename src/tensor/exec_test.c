#include "tensor/exec.h"

#include "tensor/gemm_kern.h"
#include "tensor/ops_scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_ref_is_always_there_and_last(void **state)
{
    (void)state;
    const struct at_kern *const *list = at_kern_available(), *kern = NULL;
    int n = 0;
    while (list[n]) {
        assert_int_equal(at_kern_select(list[n]->name, NULL, &kern), AT_OK);
        assert_ptr_equal(kern, list[n]);
        assert_non_null(kern->gemm);
        assert_non_null(kern->rows);
        n++;
    }
    assert_true(n >= 1);
    assert_string_equal(list[n - 1]->name, "ref");
    assert_int_equal(at_kern_select("auto", NULL, &kern), AT_OK);
    assert_ptr_equal(kern, list[0]);
}

static void test_refusals_name_what_there_is(void **state)
{
    (void)state;
    const struct at_kern *kern = NULL;
    const char *wrong[] = {"", "AVX2", "sse", "ref "};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct at_diag diag = {0};
        assert_int_equal(at_kern_select(wrong[i], &diag, &kern), AT_E_USAGE);
        assert_non_null(strstr(diag.text, "ref"));
        assert_null(kern);
    }
    const char *known[] = {"avx2", "avx512", "neon"};
    for (int i = 0; i < 3; i++) {
        struct at_diag diag = {0};
        at_err_t err = at_kern_select(known[i], &diag, &kern);
        if (err == AT_OK) continue; /* this CPU has it */
        assert_int_equal(err, AT_E_KERNEL);
        assert_non_null(strstr(diag.text, "available: "));
    }
}

static void test_scratch_is_large_enough_and_aligned(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 64; threads *= 4) {
        struct at_par par = at_par_serial;
        par.threads = threads;
        struct at_exec ex;
        assert_int_equal(at_exec_init(&ex, at_kern_available()[0], &par), AT_OK);
        assert_int_equal((uintptr_t)ex.scratch % 64, 0);
        assert_true(ex.scratch_bytes >= at_gemm_scratch_bytes(threads));
        assert_true(ex.scratch_bytes >= at_attention_scratch_bytes(threads));
        assert_true(ex.scratch_bytes >= at_ops_scratch_bytes(threads));
        at_exec_release(&ex);
        assert_null(ex.scratch);
        at_exec_release(&ex); /* safe to repeat */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ref_is_always_there_and_last),
        cmocka_unit_test(test_refusals_name_what_there_is),
        cmocka_unit_test(test_scratch_is_large_enough_and_aligned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
