/* Sets of indices: what is written is read, whatever the sets are; the bound holds; sets that gather in rows and columns
 * take fewer bits than alike ones. */
#include "train/index_set.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CHUNKS = 12, LEN = AT_INDEX_LEN_MAX, N_MAX = 1024 };

static uint64_t seed = 1;
static uint32_t draw(uint32_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % below;
}

struct sets {
    size_t n[CHUNKS], len[CHUNKS];
    uint16_t index[CHUNKS][N_MAX];
};

/* n of len, `worth` says how often one that is drawn is taken, of 256. */
static void draw_set(struct sets *s, int chunk, size_t n, size_t len, uint32_t cols,
                     uint32_t (*worth)(uint32_t, uint32_t))
{
    bool kept[LEN] = {false};
    size_t count = 0;
    for (size_t tries = 0; count < n; tries++) {
        uint32_t i = draw((uint32_t)len), at = (uint32_t)chunk * LEN + i;
        if (kept[i] || (tries < 100000 && draw(256) >= worth(at / cols, at % cols))) continue;
        kept[i] = true;
        count++;
    }
    s->n[chunk] = count = 0;
    s->len[chunk] = len;
    for (size_t i = 0; i < len; i++)
        if (kept[i]) s->index[chunk][count++] = (uint16_t)i;
    s->n[chunk] = count;
}

/* Bytes of all; they are read again. */
static size_t there_and_back(const struct sets *s, uint32_t cols)
{
    struct at_buf out = {0};
    struct at_range_writer w;
    struct at_range_reader r;
    struct at_index_set set;
    uint16_t again[N_MAX];
    size_t bits = 0;
    at_index_set_init(&set, cols);
    at_range_begin(&w, &out);
    for (int i = 0; i < CHUNKS; i++) {
        at_index_set_put(&set, &w, s->index[i], s->n[i], s->len[i]);
        bits += AT_INDEX_BITS_MAX(s->n[i], s->len[i]);
    }
    assert_int_equal(at_range_end(&w), AT_OK);
    assert_true(out.n <= bits / 8 + CHUNKS); /* the coder itself loses a little */
    at_range_open(&r, at_buf_span(&out));
    at_index_set_init(&set, cols);
    for (int i = 0; i < CHUNKS; i++) {
        at_index_set_get(&set, &r, s->n[i], s->len[i], again);
        assert_memory_equal(again, s->index[i], s->n[i] * sizeof again[0]);
    }
    size_t n = out.n;
    at_buf_release(&out);
    return n;
}

static uint32_t alike(uint32_t row, uint32_t col)
{
    return 256;
}
static uint32_t gathered(uint32_t row, uint32_t col)
{
    return (row % 5 == 0 ? 256 : 16) * (col % 7 == 0 ? 256u : 64u) / 256;
}
/* First one half of the columns, then the other: what was learned is wrong. */
static uint32_t turned(uint32_t row, uint32_t col)
{
    return (col % 2 == 0) == (row < 20) ? 256 : 0;
}

static void any_set_comes_back(void **state)
{
    static const uint32_t cols[] = {1, 7, 48, 384, 768, 5000, 300000};
    static const size_t count[] = {0, 1, 64, 1024};
    static struct sets s;
    for (size_t c = 0; c < sizeof cols / sizeof cols[0]; c++)
        for (int k = 0; k < 12; k++) {
            for (int i = 0; i < CHUNKS; i++) {
                size_t len = i == CHUNKS - 1 ? 1 + draw(LEN) : LEN, n = count[k % 4];
                draw_set(&s, i, n < len ? n : len, len, cols[c], k / 4 == 0 ? alike : k / 4 == 1 ? gathered : turned);
            }
            there_and_back(&s, cols[c]);
        }
}

/* All of a short chunk, and the last ones of a long one. */
static void ends_of_chunks(void **state)
{
    static struct sets s;
    for (int i = 0; i < CHUNKS; i++) {
        s.len[i] = i % 2 == 0 ? 64 : LEN;
        s.n[i] = 64;
        for (size_t j = 0; j < 64; j++) s.index[i][j] = (uint16_t)(s.len[i] - 64 + j);
    }
    there_and_back(&s, 384);
}

static double bits_of_set(double n, double k)
{
    return (lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)) / log(2);
}

static void what_gathers_takes_less(void **state)
{
    static struct sets s;
    double alike_bytes = CHUNKS * bits_of_set(LEN, 64) / 8;
    for (int i = 0; i < CHUNKS; i++) draw_set(&s, i, 64, LEN, 384, alike);
    assert_true((double)there_and_back(&s, 384) < 1.06 * alike_bytes); /* what learning nothing costs */
    for (int i = 0; i < CHUNKS; i++) draw_set(&s, i, 64, LEN, 384, gathered);
    assert_true((double)there_and_back(&s, 384) < 0.95 * alike_bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_set_comes_back),
        cmocka_unit_test(ends_of_chunks),
        cmocka_unit_test(what_gathers_takes_less),
    };
    return cmocka_run_group_tests_name("index_set", tests, NULL, NULL);
}
