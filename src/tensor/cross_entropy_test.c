/* A vocabulary cut over ranks: embedding and cross-entropy by parts, joined as the ranks of a stage join them, have the
 * bits of the whole. */
#include "tensor/ops.h"
#include "tensor/tensor_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { N = 37, PADDED = 96, SLOTS = 8, C = 20, PARTS_MAX = 8 };

static struct at_exec ex;
static real z[N * PADDED];
static int32_t token[N];

static struct at_vocab_part part_of(long vocab, int parts, int i)
{
    struct at_vocab_part p = {.first = i * (PADDED / parts), .width = PADDED / parts, .slots = SLOTS / parts};
    long used = vocab - p.first;
    p.used = used < 0 ? 0 : used > p.width ? p.width : used;
    return p;
}

static void tree_sum(real x[PARTS_MAX][N], int parts)
{
    for (int w = 1; w < parts; w *= 2)
        for (int i = 0; i < parts; i += 2 * w)
            for (int r = 0; r < N; r++) x[i][r] = x[i][r] + x[i + w][r];
}

static void check_parts(long vocab, int parts)
{
    static real want[N * PADDED], cut[PARTS_MAX][N * PADDED];
    static real want_loss[N], loss[N], max[PARTS_MAX][N], score[PARTS_MAX][N], sum[PARTS_MAX][N];
    int32_t target[N];
    struct at_vocab_part v[PARTS_MAX];
    for (int r = 0; r < N; r++) target[r] = r % 7 == 3 ? -1 : (int32_t)(token[r] % vocab);
    at_cross_entropy(&ex, want_loss, want, z, target, N, vocab, PADDED, SLOTS, REAL(0.01));
    for (int i = 0; i < parts; i++) {
        v[i] = part_of(vocab, parts, i);
        for (int r = 0; r < N; r++)
            memcpy(cut[i] + r * v[i].width, z + r * PADDED + v[i].first, (size_t)v[i].width * sizeof(real));
        at_cross_entropy_max(&ex, max[i], score[i], cut[i], target, N, &v[i]);
    }
    for (int i = 1; i < parts; i++)
        for (int r = 0; r < N; r++) {
            max[0][r] = max[i][r] > max[0][r] ? max[i][r] : max[0][r];
            score[0][r] = score[i][r] > score[0][r] ? score[i][r] : score[0][r];
        }
    for (int i = 0; i < parts; i++) at_cross_entropy_sum(&ex, sum[i], max[0], cut[i], target, N, &v[i]);
    tree_sum(sum, parts);
    for (int i = 0; i < parts; i++) {
        memset(loss, 0xff, sizeof loss);
        at_cross_entropy_finish(&ex, loss, NULL, cut[i], max[0], score[0], sum[0], target, N, &v[i], 0);
        assert_memory_equal(loss, want_loss, sizeof loss);
        at_cross_entropy_finish(&ex, loss, cut[i], cut[i], max[0], score[0], sum[0], target, N, &v[i], REAL(0.01));
        assert_memory_equal(loss, want_loss, sizeof loss);
        for (int r = 0; r < N; r++)
            assert_memory_equal(cut[i] + r * v[i].width, want + r * PADDED + v[i].first,
                                (size_t)v[i].width * sizeof(real));
    }
}

static void test_cross_entropy_by_parts(void **state)
{
    (void)state;
    test_fill(z, N * PADDED, 6, 1, 9.0);
    for (int r = 0; r < N; r++) token[r] = (int32_t)(at_philox(1, AT_RNG_TEST, 5, (uint64_t)r).v[0] % PADDED);
    for (int parts = 1; parts <= PARTS_MAX; parts *= 2)
        for (long vocab = 1; vocab <= PADDED; vocab += 5) check_parts(vocab, parts); /* parts of padding only, too */
}

static void test_embedding_by_parts(void **state)
{
    (void)state;
    static real table[PADDED * C], d_table[PADDED * C], want_table[PADDED * C];
    static real want[N * C], x[PARTS_MAX][N * C], dx[N * C];
    test_fill(table, PADDED * C, 2, 1, 1.0);
    test_fill(dx, N * C, 2, 2, 1.0);
    test_fill(want_table, PADDED * C, 2, 3, 1.0);
    table[0] = -REAL(0.0);
    for (int r = 0; r < N; r++) token[r] = (int32_t)(at_philox(3, AT_RNG_TEST, 5, (uint64_t)r).v[0] % PADDED);
    memcpy(d_table, want_table, sizeof d_table);
    at_embedding_forward(&ex, want, token, table, N, C);
    at_embedding_backward(&ex, want_table, token, dx, N, C);
    for (int parts = 1; parts <= PARTS_MAX; parts *= 2) {
        real d[PADDED * C];
        memcpy(d, d_table, sizeof d);
        long rows = PADDED / parts;
        for (int i = 0; i < parts; i++) {
            at_embedding_part_forward(&ex, x[i], token, table + i * rows * C, i * rows, rows, N, C);
            at_embedding_part_backward(&ex, d + i * rows * C, token, dx, i * rows, rows, N, C);
        }
        for (int w = 1; w < parts; w *= 2)
            for (int i = 0; i < parts; i += 2 * w)
                for (int e = 0; e < N * C; e++) x[i][e] = x[i][e] + x[i + w][e];
        assert_memory_equal(x[0], want, sizeof want);
        assert_memory_equal(d, want_table, sizeof d);
    }
}

static int start(void **state)
{
    (void)state;
    return at_exec_init(&ex, at_kern_available()[0], &at_par_serial) == AT_OK ? 0 : -1;
}

static int release(void **state)
{
    (void)state;
    at_exec_release(&ex);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cross_entropy_by_parts),
        cmocka_unit_test(test_embedding_by_parts),
    };
    return cmocka_run_group_tests(tests, start, release);
}
