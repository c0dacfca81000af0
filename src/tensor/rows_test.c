/* Every row-kernel table against the plain reference (with emulated fma), bit for bit: all lengths that meet a tail,
 * ordinary, awkward and non-finite inputs, and nothing written past the end. */
#include "tensor/rows_kern.h"

#include "tensor/exec.h"
#include "tensor/ops.h"
#include "tensor/tensor_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { LENGTH_MAX = 1100, GUARD = 40, ROWS = 5, KERNELS = 17 };

struct buffers {
    real v[4][LENGTH_MAX + GUARD]; /* outputs, or inputs that are updated in place */
    real scalar;
    double wide;
    bool flag;
};

static struct {
    real in[5][LENGTH_MAX + GUARD];
    real rows[2][ROWS * LENGTH_MAX + GUARD];
    real rstd[ROWS];
} data;

static const char *const kernel_name[KERNELS] = {"row_max",
                                                 "softmax_row",
                                                 "exp_sum_row",
                                                 "exp_scale_row",
                                                 "dot_row",
                                                 "add",
                                                 "copy",
                                                 "rmsnorm_row",
                                                 "rmsnorm_back_row",
                                                 "rmsnorm_gain",
                                                 "rotary_head",
                                                 "rotary_head inverse",
                                                 "swiglu_row",
                                                 "swiglu_back_row",
                                                 "adamw",
                                                 "sum_squares and all_finite",
                                                 "axpy"};

static const struct at_adamw adamw_options = {.lr = REAL(3e-4),
                                              .beta1 = REAL(0.9),
                                              .beta2 = REAL(0.95),
                                              .one_minus_beta1 = REAL(0.1),
                                              .one_minus_beta2 = REAL(0.05),
                                              .inv_bias1 = REAL(5.26),
                                              .inv_bias2 = REAL(10.26),
                                              .eps = REAL(1e-8),
                                              .weight_decay = REAL(0.1),
                                              .clip = REAL(0.77)};

static void run_kernel(int which, const struct at_rows_kern *k, long n, struct buffers *out)
{
    real(*v)[LENGTH_MAX + GUARD] = out->v;
    const real *a = data.in[0], *b = data.in[1], *c = data.in[2];
    for (int i = 0; i < 4; i++) memcpy(v[i], data.in[i], sizeof v[i]);
    switch (which) {
    case 0:
        out->scalar = k->row_max(a, n);
        break;
    case 1:
        out->scalar = k->softmax_row(v[0], v[0], n, data.in[4][0]);
        break;
    case 2:
        out->scalar = k->exp_sum_row(a, n, data.in[4][0]);
        break;
    case 3:
        k->exp_scale_row(v[3], a, n, data.in[4][1], data.in[4][2]);
        break;
    case 4:
        out->scalar = k->dot_row(a, b, n);
        break;
    case 5:
        k->add(v[0], v[0], b, n);
        break;
    case 6:
        k->copy(v[3], a, n);
        break;
    case 7:
        out->scalar = k->rmsnorm_row(v[3], a, b, n, REAL(1e-5));
        break;
    case 8:
        k->rmsnorm_back_row(v[3], a, b, c, data.in[4][0], n);
        break;
    case 9:
        k->rmsnorm_gain(v[3], data.rows[0], data.rows[1], data.rstd, ROWS, n, LENGTH_MAX);
        break;
    case 10:
    case 11:
        k->rotary_head(v[0], v[1], c, data.in[4], n, which == 11);
        break;
    case 12:
        k->swiglu_row(v[3], a, b, n);
        break;
    case 13:
        k->swiglu_back_row(v[0], v[1], c, v[0], v[1], n);
        break;
    case 14:
        k->adamw(v[0], v[1], v[2], data.in[3], n, &adamw_options);
        break;
    case 15:
        out->wide = k->sum_squares_row(a, n);
        out->flag = k->all_finite(a, n);
        break;
    case 16:
        k->axpy(v[3], REAL(0.3), a, n);
        break;
    }
}

static bool same_buffers(const struct buffers *a, const struct buffers *b)
{
    for (int i = 0; i < 4; i++)
        if (!test_all_same(a->v[i], b->v[i], LENGTH_MAX + GUARD)) return false;
    bool same_wide = memcmp(&a->wide, &b->wide, sizeof a->wide) == 0 || (a->wide != a->wide && b->wide != b->wide);
    return test_same(a->scalar, b->scalar) && same_wide && a->flag == b->flag;
}

/* kind 0: ordinary numbers; 1: awkward but finite; 2: with infinities and NaN. */
static void fill_data(int kind, uint64_t seed)
{
    for (uint32_t i = 0; i < 5; i++) {
        test_fill(data.in[i], LENGTH_MAX + GUARD, seed, i, kind == 1 ? 20.0 : 3.0);
        if (kind) test_fill_awkward(data.in[i], LENGTH_MAX + GUARD, seed, i, kind == 2);
    }
    for (uint32_t i = 0; i < 2; i++) {
        test_fill(data.rows[i], ROWS * LENGTH_MAX + GUARD, seed, 10 + i, 3.0);
        if (kind) test_fill_awkward(data.rows[i], ROWS * LENGTH_MAX + GUARD, seed, 10 + i, kind == 2);
    }
    test_fill(data.rstd, ROWS, seed, 20, 2.0);
    if (kind < 2) /* second moments are not negative, but nothing breaks when they are */
        for (long i = 0; i < LENGTH_MAX + GUARD; i++) data.in[2][i] = fabsf(data.in[2][i]);
}

static void compare(const char *name, const struct at_rows_kern *k, long n, int kind)
{
    static struct buffers want, got;
    for (int which = 0; which < KERNELS; which++) {
        memset(&want, 0, sizeof want);
        memset(&got, 0, sizeof got);
        run_kernel(which, &at_rows_kern_ref, n, &want);
        run_kernel(which, k, n, &got);
        if (!same_buffers(&want, &got))
            fail_msg("%s: %s differs at n = %ld, inputs %d", name, kernel_name[which], n, kind);
        bool guarded = true;
        for (int i = 0; i < 4; i++)
            guarded = guarded && test_all_same(got.v[i] + n, data.in[i] + n, LENGTH_MAX + GUARD - n);
        if (!guarded) fail_msg("%s: %s wrote past n = %ld", name, kernel_name[which], n);
    }
}

static void test_tables_give_the_same_bits(void **state)
{
    (void)state;
    for (const struct at_kern *const *k = at_kern_available(); *k; k++) {
        for (int kind = 0; kind < 3; kind++) {
            for (uint64_t seed = 0; seed < 3; seed++) {
                fill_data(kind, 100 * seed + (uint64_t)kind);
                for (long n = 0; n <= 67; n++) compare((*k)->name, (*k)->rows, n, kind);
                for (long n = 125; n <= LENGTH_MAX; n += 195) compare((*k)->name, (*k)->rows, n, kind);
            }
        }
    }
}

/* The vector exp and sigmoid against the scalar ones over the whole line. */
static void test_vector_functions_are_the_scalar_ones(void **state)
{
    (void)state;
    static real x[4096], want[4096], got[4096], one[4096];
    for (int i = 0; i < 4096; i++) one[i] = 1;
    for (uint64_t start = 0; start < 0x100000000u; start += 4096u * 2003u) {
        for (uint32_t i = 0; i < 4096; i++) {
            uint32_t bits = (uint32_t)start + i * 2003u;
            memcpy(&x[i], &bits, sizeof bits);
        }
        for (const struct at_kern *const *k = at_kern_available(); *k; k++) {
            at_rows_kern_ref.exp_scale_row(want, x, 4096, 0, 1);
            (*k)->rows->exp_scale_row(got, x, 4096, 0, 1);
            assert_true(test_all_same(want, got, 4096));
            at_rows_kern_ref.swiglu_row(want, x, one, 4096);
            (*k)->rows->swiglu_row(got, x, one, 4096);
            assert_true(test_all_same(want, got, 4096));
        }
    }
}

static void test_maximum_does_not_see_order_or_sign_of_zero(void **state)
{
    (void)state;
    for (const struct at_kern *const *k = at_kern_available(); *k; k++) {
        const struct at_rows_kern *rows = (*k)->rows;
        real zeros[3] = {-REAL(0.0), REAL(0.0), -REAL(0.0)}, nan[3] = {REAL(1.0), (real)NAN, REAL(2.0)};
        assert_false(signbit(rows->row_max(zeros, 3)));
        assert_false(signbit(rows->row_max(zeros, 1)));
        assert_true(rows->row_max(nan, 3) == 2);
        assert_true(rows->row_max(nan, 0) == -(real)INFINITY);
    }
}

/* Products that underflow to -0 in every lane: a masked-off lane of the tail must not turn +0; a chain must. */
static void test_negative_zeros_of_underflow(void **state)
{
    (void)state;
    real tiny[40], minus[40], zeros[40], rstd = 1;
    for (int i = 0; i < 40; i++) {
        tiny[i] = REAL(1e-30);
        minus[i] = -REAL(1e-30);
    }
    for (const struct at_kern *const *k = at_kern_available(); *k; k++) {
        for (long n = 16; n <= 40; n++) {
            assert_true(test_same((*k)->rows->dot_row(tiny, minus, n), -REAL(0.0)));
            for (int i = 0; i < 40; i++) zeros[i] = -REAL(0.0);
            (*k)->rows->rmsnorm_gain(zeros, tiny, minus, &rstd, 1, n, n);
            for (long i = 0; i < n; i++) assert_true(test_same(zeros[i], REAL(0.0)));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables_give_the_same_bits),
        cmocka_unit_test(test_vector_functions_are_the_scalar_ones),
        cmocka_unit_test(test_negative_zeros_of_underflow),
        cmocka_unit_test(test_maximum_does_not_see_order_or_sign_of_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
