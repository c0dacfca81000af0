/* The table of weights: no gap, no overlap, the fused order, initial values that know nothing of slots. */
#include "model/model_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

/* Blocks follow one another; every element of every tensor lies in exactly one place. */
static void test_cover(void **state)
{
    for (int c = 0; c < TEST_CONFIGS; c++) {
        struct at_params p;
        assert_int_equal(at_params_init(&p, &test_configs[c]), AT_OK);
        size_t at = 0, used = 0;
        int seen[64][8] = {{0}};
        for (int i = 0; i < p.blocks; i++) {
            const struct at_block *b = &p.block[i];
            assert_int_equal(b->offset, at);
            assert_ptr_equal(at_params_block(&p, b->tensor, b->slot), b);
            assert_ptr_equal(at_params_block_at(&p, at), b);
            assert_ptr_equal(at_params_block_at(&p, at + at_block_count(b) - 1), b);
            assert_int_equal(seen[b->tensor][b->slot]++, 0);
            at += at_block_count(b);
            used += (size_t)(at_block_rows_used(&p, b) * b->cols);
        }
        assert_int_equal(at, p.count);
        assert_int_equal(used, at_model_params(&test_configs[c]));
        for (int t = 0; t < p.tensors; t++)
            for (int s = 0; s < p.tensor[t].slots; s++) assert_int_equal(seen[t][s], 1);
        at_params_release(&p);
    }
}

/* q, k, v of one slot lie together, slot after slot; gate and up likewise: what makes them one matrix. */
static void test_fused_order(void **state)
{
    struct at_params p;
    assert_int_equal(at_params_init(&p, &test_configs[1]), AT_OK); /* S = 2, d = 24, 6 + 2 + 2 heads of 4 */
    assert_int_equal(p.slots, 2);
    size_t at = at_params_block(&p, at_params_find(&p, AT_ROLE_Q, 1), 0)->offset;
    static const struct {
        enum at_role role;
        int slot;
        long rows;
    } qkv[] = {{AT_ROLE_Q, 0, 12}, {AT_ROLE_K, 0, 4}, {AT_ROLE_V, 0, 4},
               {AT_ROLE_Q, 1, 12}, {AT_ROLE_K, 1, 4}, {AT_ROLE_V, 1, 4}};
    for (int i = 0; i < 6; i++) {
        const struct at_block *b = at_params_block(&p, at_params_find(&p, qkv[i].role, 1), qkv[i].slot);
        assert_int_equal(b->offset, at);
        assert_int_equal(b->rows, qkv[i].rows);
        assert_int_equal(b->cols, 24);
        at += at_block_count(b);
    }
    const struct at_block *o = at_params_block(&p, at_params_find(&p, AT_ROLE_O, 1), 0);
    assert_int_equal(o->offset, at);
    assert_int_equal(o->rows, 24);
    assert_int_equal(o->cols, 12);
    assert_string_equal(at_tensor_name(&p, at_params_find(&p, AT_ROLE_UP, 1)).s, "model.layers.1.mlp.up_proj.weight");
    at_params_release(&p);
}

/* Two shapes that differ in the number of slots only give the same unsharded tensor. */
static void test_fill_knows_no_slots(void **state)
{
    struct at_model_config a = TEST_SHAPE(1, 32, 8, 8, 40, 12, 40, false), b = a;
    b.kv_heads = 1; /* S = 1; q, o, gate, up, down, embedding keep their shapes */
    struct at_params p, q;
    assert_int_equal(at_params_init(&p, &a), AT_OK);
    assert_int_equal(at_params_init(&q, &b), AT_OK);
    real *x = malloc(p.count * sizeof *x), *y = malloc(q.count * sizeof *y);
    at_params_fill(&p, 9, x);
    at_params_fill(&q, 9, y);
    static const enum at_role roles[] = {AT_ROLE_EMBEDDING, AT_ROLE_Q, AT_ROLE_O, AT_ROLE_DOWN, AT_ROLE_HEAD};
    for (int k = 0; k < 5; k++) {
        int id = at_params_find(&p, roles[k], 0);
        const struct at_tensor *t = &p.tensor[id];
        const real *whole = y + at_params_block(&q, id, 0)->offset;
        for (int s = 0; s < t->slots; s++) {
            const struct at_block *blk = at_params_block(&p, id, s);
            for (long i = 0; i < blk->rows; i++)
                for (long j = 0; j < blk->cols; j++) {
                    long row = t->split_cols ? i : s * blk->rows + i, col = t->split_cols ? s * blk->cols + j : j;
                    assert_true(x[blk->offset + (size_t)(i * blk->cols + j)] == whole[row * t->cols + col]);
                }
        }
    }
    free(x);
    free(y);
    at_params_release(&p);
    at_params_release(&q);
}

/* Mean near 0, deviation as documented, gains 1, padding +0 and noticed when it is not. */
static void test_fill_moments(void **state)
{
    struct at_model_config c = TEST_SHAPE(2, 64, 4, 4, 128, 8, 250, false);
    struct at_params p;
    assert_int_equal(at_params_init(&p, &c), AT_OK);
    real *x = malloc(p.count * sizeof *x);
    at_params_fill(&p, 3, x);
    for (int id = 0; id < p.tensors; id++) {
        const struct at_tensor *t = &p.tensor[id];
        double sum = 0, squares = 0, n = (double)(t->rows_used * t->cols), want;
        for (int s = 0; s < t->slots; s++) {
            const struct at_block *b = at_params_block(&p, id, s);
            for (long e = 0; e < at_block_rows_used(&p, b) * b->cols; e++) {
                sum += (double)x[b->offset + (size_t)e];
                squares += (double)x[b->offset + (size_t)e] * (double)x[b->offset + (size_t)e];
            }
        }
        if (at_role_is_gain(t->role)) {
            assert_true(sum == n);
            continue;
        }
        switch (t->role) {
        case AT_ROLE_EMBEDDING:
            want = 0.1;
            break;
        case AT_ROLE_HEAD:
            want = 0.02;
            break;
        case AT_ROLE_O:
            want = 0.125 / 2;
            break;
        case AT_ROLE_DOWN:
            want = 1 / sqrt(128.0) / 2;
            break;
        default:
            want = 0.125;
        }
        assert_true(fabs(sum / n) < 5 * want / sqrt(n));
        assert_true(fabs(sqrt(squares / n) / want - 1) < 5 / sqrt(2 * n));
    }
    assert_true(at_params_padding_is_zero(&p, x));
    const struct at_block *last = at_params_block(&p, 0, p.slots - 1);
    x[last->offset + at_block_count(last) - 1] = -REAL(0.0);
    assert_false(at_params_padding_is_zero(&p, x));
    free(x);
    at_params_release(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cover),
        cmocka_unit_test(test_fused_order),
        cmocka_unit_test(test_fill_knows_no_slots),
        cmocka_unit_test(test_fill_moments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
