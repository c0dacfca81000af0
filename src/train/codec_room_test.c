/* The room of sparse payloads (bytes_max) is enough for the worst sets and values that we can think of, and what is
 * beyond it is refused. */
#include "train/codec_lossy.h"

#include "model/model_test_util.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { FIRST, LAST, SPREAD, ANY, TURNED, CROWDED, SETS, KS = 5, CHUNK = AT_CODEC_CHUNK };
static const uint32_t ks[KS] = {1, 16, 64, 256, 1024};

static uint64_t seed = 1;
static uint32_t draw(uint32_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % below;
}

struct ranked {
    uint32_t rank;
    uint32_t index;
};

static int by_rank(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->rank != y->rank) return x->rank > y->rank ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

/* The elements of a chunk with the highest are kept. */
static uint32_t rank_of(int set, uint32_t chunk, uint32_t i, uint32_t col, uint32_t k)
{
    switch (set) {
    case FIRST:
        return CHUNK - i;
    case LAST:
        return i;
    case SPREAD:
        return i % (CHUNK / k) == 0;
    case TURNED: /* for long in some columns, then in the others: what was learned is wrong */
        return ((col % 3 == 0) == (chunk < 32) ? 1000 : 0) + draw(1000);
    case CROWDED: /* rows that look full, until nothing comes any more */
        return (i / 256 % 4 == chunk % 4 ? 1000 : 0) + 256 - i % 256;
    default:
        return draw(1000);
    }
}

struct rig {
    struct at_params p;
    struct at_codec_block b;
    size_t n, stats_n;
    real *e, *stats, *public;
};

/* Levels that jump from end to end, kinds that come in runs and then turn, statistics that are nothing like the public
 * ones. */
static void hostile_values(struct rig *r, int set)
{
    static struct ranked v[CHUNK];
    uint32_t k = r->b.k, cols = (uint32_t)r->b.block->cols;
    memset(r->e, 0, r->n * sizeof *r->e);
    for (uint32_t at = 0; at < r->n; at += CHUNK) {
        uint32_t chunk = at / CHUNK, len = r->n - at < CHUNK ? (uint32_t)r->n - at : CHUNK;
        uint32_t count = k * len / CHUNK, kept = chunk % 5 == 4 ? count / 2 : count; /* now and then fewer */
        for (uint32_t i = 0; i < len; i++) v[i] = (struct ranked){rank_of(set, chunk, i, (at + i) % cols, k), i};
        qsort(v, len, sizeof *v, by_rank);
        for (uint32_t i = 0; i < kept; i++) {
            bool large = set == ANY ? i % 2 == 0 : (i / 254 % 2 == 0) != (i % 254 > 250);
            r->e[at + v[i].index] = ldexpf(draw(2) == 0 ? -1 : 1, (chunk % 2 == 0 ? -100 : 80) + (large ? 20 : 0));
        }
    }
    for (size_t j = 0; j < r->stats_n; j++) {
        r->public[j] = j % 4 == 0 ? 0 : j % 2 == 0 ? 1e-38f : 1e29f;
        r->stats[j] = j % 3 == 0 ? 0 : j % 8 < 4 ? 1e29f : 1e-38f;
    }
}

/* 63 chunks and a half. */
static void rig_init(struct rig *r)
{
    static const struct at_model_config shape = TEST_SHAPE(1, 256, 8, 8, 64, 8, 8 * 1016, false);
    *r = (struct rig){0};
    assert_int_equal(at_params_init(&r->p, &shape), AT_OK);
    r->b = (struct at_codec_block){.params = &r->p, .block = at_params_block(&r->p, 0, 0)};
    r->n = at_codec_used(&r->p, r->b.block);
    r->stats_n = at_block_stats_count(&r->p, r->b.block);
    assert_true(r->n == 63 * CHUNK + CHUNK / 2 && at_block_count(r->b.block) == r->n);
    r->e = calloc(r->n, sizeof *r->e);
    r->stats = calloc(r->stats_n, sizeof *r->stats);
    r->public = calloc(r->stats_n, sizeof *r->public);
    r->b.stats_public = r->public;
}

static void rig_release(struct rig *r)
{
    free(r->e);
    free(r->stats);
    free(r->public);
    at_params_release(&r->p);
}

static void hostile_payloads_fit(void **state)
{
    struct rig r;
    rig_init(&r);
    for (int i = 0; i < KS * SETS; i++) {
        const struct at_codec *codec = i % 2 == 0 ? &at_codec_sparse : &at_codec_sparse6s;
        struct at_codec_values x = {.e = r.e};
        struct at_buf out = {0};
        r.b.k = ks[i / SETS];
        hostile_values(&r, i % SETS);
        assert_int_equal(codec->encode(&r.b, &x, &out), AT_OK);
        assert_int_equal(codec->encode_stats(&r.b, r.stats, &out), AT_OK);
        assert_true(out.n <= codec->bytes_max(&r.p, r.b.block, r.b.k));
        assert_int_equal(codec->check(&r.b, at_buf_span(&out), NULL), AT_OK);
        at_buf_release(&out);
    }
    rig_release(&r);
}

/* By the k that the update names. */
static void a_byte_more_is_refused(void **state)
{
    struct rig r;
    rig_init(&r);
    size_t most = at_codec_sparse.bytes_max(&r.p, r.b.block, ks[KS - 1]), before = 0;
    uint8_t *bytes = calloc(most + 1, 1);
    for (int i = 0; i < KS; i++) {
        size_t room = at_codec_sparse.bytes_max(&r.p, r.b.block, r.b.k = ks[i]);
        assert_true(room > before && room <= most);
        assert_int_equal(at_codec_sparse.check(&r.b, at_span(bytes, room), NULL), AT_OK);
        assert_int_equal(at_codec_sparse.check(&r.b, at_span(bytes, room + 1), NULL), AT_E_DATA);
        before = room;
    }
    free(bytes);
    rig_release(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hostile_payloads_fit),
        cmocka_unit_test(a_byte_more_is_refused),
    };
    return cmocka_run_group_tests_name("codec_room", tests, NULL, NULL);
}
