/* The table of weights: no gap, no overlap, the fused order, initial values that know nothing of slots. */
#include "model/model_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

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

/* Stages of a cut of L layers in pp runs, as equal as can be. */
static struct at_shard shard_at(const struct at_model_config *c, int tp, int pp, int rank, int stage)
{
    int L = (int)c->layers, S = at_model_slots(c), first = stage * L / pp;
    return (struct at_shard){
        .slot_first = rank * (S / tp), .slots = S / tp, .layer_first = first, .layers = (stage + 1) * L / pp - first};
}

/* Every block of the whole has one owner; held blocks come in the whole's order without gaps, filled as the whole is. */
static void check_shards(const struct at_params *whole, const real *want, int tp, int pp)
{
    int *owners = calloc((size_t)whole->numbers, sizeof *owners), *held = calloc((size_t)whole->numbers, sizeof *held);
    for (int stage = 0; stage < pp; stage++)
        for (int rank = 0; rank < tp; rank++) {
            struct at_shard shard = shard_at(&whole->config, tp, pp, rank, stage);
            struct at_params p;
            assert_int_equal(at_params_init_shard(&p, &whole->config, &shard), AT_OK);
            real *x = malloc(p.count * sizeof *x);
            at_params_fill(&p, 17, x);
            size_t at = 0;
            int last = -1;
            for (int i = 0; i < p.blocks; i++) {
                const struct at_block *b = &p.block[i], *w = at_params_block(whole, b->tensor, b->slot);
                assert_int_equal(b->offset, at);
                at += at_block_count(b);
                assert_true(w - whole->block > last);
                last = (int)(w - whole->block);
                assert_true(b->rows == w->rows && b->cols == w->cols);
                assert_int_equal(at_block_rows_used(&p, b), at_block_rows_used(whole, w));
                assert_memory_equal(x + b->offset, want + w->offset, at_block_count(b) * sizeof *x);
                assert_true(at_params_holds(&p, b->tensor, b->slot));
                assert_true(at_shard_holds(whole, &shard, b->tensor, b->slot));
                assert_int_equal(at_shard_owns(whole, &shard, b->tensor, b->slot), at_params_owns(&p, b));
                assert_ptr_equal(at_params_block_at(&p, at - 1), b);
                assert_int_equal(at_block_number(&p, b), at_block_number(whole, w));
                owners[at_block_number(&p, b)] += at_params_owns(&p, b);
                held[at_block_number(&p, b)]++;
            }
            assert_int_equal(at, p.count);
            assert_true(at_params_padding_is_zero(&p, x));
            free(x);
            at_params_release(&p);
        }
    for (int i = 0; i < whole->blocks; i++) {
        const struct at_block *b = &whole->block[i];
        bool gain = at_role_is_gain(whole->tensor[b->tensor].role);
        assert_int_equal(owners[at_block_number(whole, b)], 1);
        assert_int_equal(held[at_block_number(whole, b)], gain ? tp : 1);
    }
    free(owners);
    free(held);
}

static void test_shards_partition_the_whole(void **state)
{
    for (int c = 0; c < TEST_CONFIGS; c++) {
        struct at_params whole;
        assert_int_equal(at_params_init(&whole, &test_configs[c]), AT_OK);
        assert_int_equal(whole.numbers, whole.blocks);
        real *x = malloc(whole.count * sizeof *x);
        at_params_fill(&whole, 17, x);
        for (int tp = 1; tp <= whole.slots; tp *= 2)
            for (int pp = 1; pp <= (int)test_configs[c].layers; pp++) check_shards(&whole, x, tp, pp);
        free(x);
        at_params_release(&whole);
    }
}

/* A tied matrix lies on the last stage, an untied embedding on the first. */
static void test_embedding_of_a_shard(void **state)
{
    for (int tied = 0; tied < 2; tied++) {
        struct at_model_config c = TEST_SHAPE(3, 16, 4, 4, 16, 8, 40, tied);
        for (int stage = 0; stage < 3; stage++) {
            struct at_shard shard = {.slot_first = 2, .slots = 2, .layer_first = stage, .layers = 1};
            struct at_params p;
            assert_int_equal(at_params_init_shard(&p, &c, &shard), AT_OK);
            assert_int_equal(at_params_holds(&p, at_params_find(&p, AT_ROLE_EMBEDDING, 0), 3), stage == (tied ? 2 : 0));
            assert_int_equal(at_params_holds(&p, at_params_find(&p, AT_ROLE_HEAD, 0), 2), stage == 2);
            assert_false(at_params_holds(&p, at_params_find(&p, AT_ROLE_HEAD, 0), 1));
            assert_int_equal(at_params_holds(&p, at_params_find(&p, AT_ROLE_NORM_FINAL, 0), 0), stage == 2);
            assert_int_equal(at_params_holds(&p, at_params_find(&p, AT_ROLE_NORM1, 1), 0), stage == 1);
            assert_true(at_shard_vocab(&p) == 20 && at_shard_vocab_first(&p) == 20);
            at_params_release(&p);
        }
    }
}

/* Numbers that no sum of squares has, so that the order shows: (big + 1) + (-big + 1) = 0, in any other order 1 or 2. */
static void test_norm_joins_slots_first(void **state)
{
    struct at_params p;
    struct at_model_config c = TEST_SHAPE(1, 16, 4, 4, 16, 8, 40, true);
    assert_int_equal(at_params_init(&p, &c), AT_OK);
    assert_int_equal(p.slots, 4);
    double *square = calloc((size_t)p.numbers, sizeof *square), slot[4] = {0x1p80, 1, -0x1p80, 1};
    memcpy(square + p.tensor[2].number, slot, sizeof slot);
    square[p.numbers - 1] = 9; /* the last tensor, a gain: one slot */
    assert_true(at_params_norm(&p, square) == 3);
    assert_memory_equal(square + p.tensor[2].number, slot, sizeof slot);
    free(square);
    at_params_release(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cover),
        cmocka_unit_test(test_fused_order),
        cmocka_unit_test(test_fill_knows_no_slots),
        cmocka_unit_test(test_fill_moments),
        cmocka_unit_test(test_shards_partition_the_whole),
        cmocka_unit_test(test_embedding_of_a_shard),
        cmocka_unit_test(test_norm_joins_slots_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
