/* Updates as bytes: hostile ones, and whole ones put together from those of ranks that are cut otherwise. */
#include "train/leb128.h"
#include "train/train_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

struct rig {
    struct at_params p;
    struct at_state s; /* what the unit started from */
    float *theta, *stats;
    struct at_update_info info;
    struct at_buf blob;
};

static void rig_init(struct rig *r, int config)
{
    *r = (struct rig){.info = {.round = 4, .start = 11, .samples = 8, .steps = 2}};
    assert_int_equal(at_params_init(&r->p, &run_configs[config]), AT_OK);
    assert_int_equal(at_state_init(&r->s, &r->p), AT_OK);
    test_state(&r->s, 4);
    r->info.tokens = 8ull * r->p.config.seq_len;
    r->theta = malloc(r->p.count * sizeof *r->theta);
    r->stats = malloc(at_stats_count(&r->p) * sizeof *r->stats);
    test_weights(&r->p, 50, r->theta);
    for (size_t j = 0; j < at_stats_count(&r->p); j++) r->stats[j] = r->s.stats[j] * 1.5f;
    assert_int_equal(at_update_write(&at_codec_plain, &r->p, &r->info, r->s.theta, r->theta, r->stats, &r->blob),
                     AT_OK);
    assert_true(r->blob.n <= at_update_bytes_max(&r->p));
}

static void rig_release(struct rig *r)
{
    free(r->theta);
    free(r->stats);
    at_buf_release(&r->blob);
    at_state_release(&r->s);
    at_params_release(&r->p);
}

static at_err_t parse_exact(struct rig *r, size_t n)
{
    struct at_update u = {0};
    uint8_t *exact = malloc(n != 0 ? n : 1);
    memcpy(exact, r->blob.p, n);
    int err = at_update_parse(&r->p, at_span(exact, n), NULL, &u);
    at_update_release(&u);
    free(exact);
    return err;
}

/* Of the frame of a block that follows the one before. */
static size_t head_bytes(const struct at_params *p, const struct at_block *b)
{
    uint8_t head[AT_LEB128_BYTES_MAX];
    return 1 + at_leb128_write(4 * (uint32_t)(at_block_count(b) + at_block_stats_count(p, b)), head);
}

static void test_hostile_updates(void **state)
{
    struct rig r;
    rig_init(&r, 2); /* with padded rows */
    uint8_t *b = r.blob.p;
    const struct at_block *last = at_params_block(&r.p, 0, r.p.slots - 1); /* the second block of the blob */
    size_t n = r.blob.n, first = 64 + head_bytes(&r.p, &r.p.block[0]),
           first_stats = at_block_stats_count(&r.p, &r.p.block[0]);
    size_t first_end = first + 4 * (at_block_count(&r.p.block[0]) + first_stats);
    size_t padded = first_end + head_bytes(&r.p, last) + 4 * (at_block_count(last) - 1);
    uint32_t head = at_load_le32(b + 64); /* the first block's frame, and more */
    for (size_t i = 0; i < n; i += i < 80 ? 1 : 1009) assert_int_equal(parse_exact(&r, i), AT_E_TRUNCATED);
    struct {
        size_t at;
        uint32_t bits;
        at_err_t want;
    } const cases[] = {
        {0, 0, AT_E_DATA},  /* magic */
        {8, 99, AT_E_DATA}, /* codec */
        {24, 0, AT_E_DATA},
        {24, 5, AT_E_DATA}, /* samples against tokens */
        {28, 0, AT_E_DATA},
        {28, 3, AT_E_DATA},
        {28, 16, AT_E_DATA}, /* steps against samples */
        {32, 1, AT_E_DATA},
        {36, 1, AT_E_DATA}, /* tokens */
        {40, 0, AT_E_DATA}, /* blocks: bytes are left */
        {40, 1, AT_E_DATA},
        {40, 0xFFFFFFFF, AT_E_TRUNCATED},
        {44, 1, AT_E_DATA},                      /* a parameter that plain has not */
        {48, 1, AT_E_DATA},                      /* shape */
        {60, 1, AT_E_DATA},                      /* reserved */
        {64, head + 1, AT_E_DATA},               /* all blocks are one too far */
        {64, 0x7FFFFFFF, AT_E_DATA},             /* an unknown block */
        {64, head & 0xFFFF00FF, AT_E_TRUNCATED}, /* a block without bytes */
        {65, 0xFFFFFFFF, AT_E_TRUNCATED},
        {first, 0x7F800000, AT_E_NONFINITE},         /* inf */
        {first, 0xFFC00000, AT_E_NONFINITE},         /* NaN */
        {padded, 0x80000000, AT_E_DATA},             /* -0 in a padded row */
        {first_end - 4, 0x80000000, AT_E_NONFINITE}, /* a moment of -0 */
        {n - 4, 0x7FC00000, AT_E_NONFINITE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t was = at_load_le32(b + cases[i].at);
        at_store_le32(b + cases[i].at, cases[i].bits);
        assert_int_equal(parse_exact(&r, n), cases[i].want);
        at_store_le32(b + cases[i].at, was);
    }
    assert_int_equal(parse_exact(&r, n), AT_OK);
    struct at_update u = {0};
    assert_int_equal(at_update_parse(&r.p, at_buf_span(&r.blob), NULL, &u), AT_OK);
    assert_int_equal(at_update_add(&u, at_buf_span(&r.blob), NULL), AT_E_DATA); /* blocks repeated */
    at_update_release(&u);
    assert_int_equal(at_buf_append(&r.blob, "x", 1), AT_OK);
    assert_int_equal(parse_exact(&r, n + 1), AT_E_DATA);
    rig_release(&r);
}

/* A number has one form: padded, cut off or beyond 32 bits it is none. Nor is an update with such a number. */
static void test_numbers_have_one_form(void **state)
{
    static const uint32_t numbers[] = {0, 1, 127, 128, 300, 16383, 16384, 1u << 28, UINT32_MAX};
    uint8_t bytes[AT_LEB128_BYTES_MAX + 1];
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        uint32_t x = 0;
        size_t n = at_leb128_write(numbers[i], bytes);
        struct at_span all = at_span(bytes, n), cut_off = at_span(bytes, n - 1);
        assert_true(at_leb128_take(&all, &x) && x == numbers[i] && all.n == 0);
        assert_false(at_leb128_take(&cut_off, &x));
        bytes[n - 1] |= 0x80;
        bytes[n] = 0;
        struct at_span padded = at_span(bytes, n + 1);
        assert_false(at_leb128_take(&padded, &x));
    }
    static const uint8_t beyond[] = {0xFF, 0xFF, 0xFF, 0xFF, 0x10};
    struct at_span large = at_span(beyond, sizeof beyond);
    uint32_t x;
    assert_false(at_leb128_take(&large, &x));
    struct rig r;
    rig_init(&r, 0);
    size_t n = r.blob.n, at = AT_UPDATE_HEADER_BYTES;
    assert_int_equal(at_buf_append(&r.blob, "", 1), AT_OK);
    assert_int_equal(r.blob.p[at], 0); /* nothing is left out before the first block: 00, and now 80 00 */
    memmove(r.blob.p + at + 1, r.blob.p + at, n - at);
    r.blob.p[at] = 0x80;
    assert_int_equal(parse_exact(&r, n + 1), AT_E_TRUNCATED);
    rig_release(&r);
}

/* A rank of a replica that is cut in `tp` parts, and the part of flat values that it holds. */
static void cut(const struct at_params *whole, const struct at_params *p, const real *values, real *ret_values)
{
    for (int i = 0; i < p->blocks; i++) {
        const struct at_block *b = &p->block[i];
        memcpy(ret_values + b->offset, values + at_params_block(whole, b->tensor, b->slot)->offset,
               at_block_count(b) * sizeof *values);
    }
}

static void cut_stats(const struct at_params *whole, const struct at_params *p, const real *stats, real *ret_stats)
{
    for (int i = 0; i < p->blocks; i++) {
        int from = (int)(at_params_block(whole, p->block[i].tensor, p->block[i].slot) - whole->block);
        memcpy(ret_stats + at_block_stats_offset(p, i), stats + at_block_stats_offset(whole, from),
               at_block_stats_count(p, &p->block[i]) * sizeof *stats);
    }
}

static struct at_shard shard_of(const struct at_params *whole, int tp, int pp, int rank)
{
    int layers = (int)whole->config.layers, each = whole->slots / tp, stage = rank / tp;
    return (struct at_shard){.slot_first = rank % tp * each,
                             .slots = each,
                             .layer_first = stage * (layers / pp),
                             .layers = stage == pp - 1 ? layers - stage * (layers / pp) : layers / pp};
}

struct wanted {
    const struct at_params *from, *to;
};

static bool is_held_there(void *arg, int block)
{
    struct wanted *w = arg;
    return at_params_holds(w->to, w->from->block[block].tensor, w->from->block[block].slot);
}

/* A replica of 4 ranks (2 stages of 2) sends to one of 2 (1 stage of 2): what arrives is what one process would read. */
static void test_ranks_of_other_cuts(void **state)
{
    struct rig r;
    rig_init(&r, 1);
    enum { TP_TO = 2, RANKS_FROM = 4 };
    for (int to = 0; to < TP_TO; to++) {
        struct at_params mine;
        struct at_shard shard = shard_of(&r.p, TP_TO, 1, to);
        struct at_update u = {0};
        struct at_buf blob[RANKS_FROM] = {{0}};
        assert_int_equal(at_params_init_shard(&mine, &r.p.config, &shard), AT_OK);
        assert_int_equal(at_update_begin(&u, &mine), AT_OK);
        for (int from = 0; from < RANKS_FROM; from++) {
            struct at_params p;
            struct at_shard s = shard_of(&r.p, 2, 2, from);
            if (from <= 2) assert_int_equal(at_update_complete(&u, NULL), AT_E_DATA); /* stage 1 is missing */
            assert_int_equal(at_params_init_shard(&p, &r.p.config, &s), AT_OK);
            real *start = malloc(p.count * sizeof *start), *now = malloc(p.count * sizeof *now);
            real *stats = malloc(at_stats_count(&p) * sizeof *stats);
            cut(&r.p, &p, r.s.theta, start);
            cut(&r.p, &p, r.theta, now);
            cut_stats(&r.p, &p, r.stats, stats);
            struct at_update_source source = {.params = &p, .theta_start = start, .theta = now, .stats = stats};
            struct wanted wanted = {&p, &mine};
            if (from % 2 == to)
                assert_int_equal(
                    at_update_encode(&at_codec_plain, 0, &r.info, &source, is_held_there, &wanted, &blob[from]), AT_OK);
            else /* only what this one owns, of which we hold nothing: gains come from the other */
                assert_int_equal(at_update_encode(&at_codec_plain, 0, &r.info, &source, NULL, NULL, &blob[from]),
                                 AT_OK);
            assert_int_equal(at_update_add(&u, at_buf_span(&blob[from]), NULL), from % 2 == to ? AT_OK : AT_E_DATA);
            if (from % 2 != to) { /* an error: begin again */
                assert_int_equal(at_update_begin(&u, &mine), AT_OK);
                for (int i = 0; i < from; i++)
                    if (i % 2 == to) assert_int_equal(at_update_add(&u, at_buf_span(&blob[i]), NULL), AT_OK);
            }
            free(start);
            free(now);
            free(stats);
            at_params_release(&p);
        }
        assert_int_equal(at_update_complete(&u, NULL), AT_OK);
        assert_int_equal(at_update_add(&u, at_buf_span(&blob[to]), NULL), AT_E_DATA); /* the same blocks again */
        real *want = malloc(mine.count * sizeof *want), x[AT_CODEC_CHUNK];
        for (size_t i = 0; i < r.p.count; i++) r.theta[i] = r.s.theta[i] - r.theta[i];
        cut(&r.p, &mine, r.theta, want);
        for (int b = 0; b < mine.blocks; b++) {
            struct at_codec_reader d;
            at_update_open(&u, b, &d);
            assert_true(at_block_count(&mine.block[b]) <= AT_CODEC_CHUNK);
            u.codec->next(&d, d.count, x);
            assert_memory_equal(x, want + mine.block[b].offset, d.count * sizeof *x);
        }
        for (size_t i = 0; i < r.p.count; i++) r.theta[i] = r.s.theta[i] - r.theta[i]; /* nearly; for the other rank */
        free(want);
        for (int i = 0; i < RANKS_FROM; i++) at_buf_release(&blob[i]);
        at_update_release(&u);
        at_params_release(&mine);
    }
    rig_release(&r);
}

/* In fragments of any number of blocks: what arrives is what the whole blob says, block by block; nothing of another
 * fragment or another unit is taken. */
static void test_fragments(void **state)
{
    struct rig r;
    rig_init(&r, 1);
    struct at_update whole = {0}, u = {0};
    struct at_update_source source = {.params = &r.p, .theta_start = r.s.theta, .theta = r.theta, .stats = r.stats};
    struct at_update_info other = r.info;
    other.start++;
    assert_int_equal(at_update_parse(&r.p, at_buf_span(&r.blob), NULL, &whole), AT_OK);
    for (int each = 1; each <= r.p.blocks; each += each < 4 ? 1 : 13) {
        assert_int_equal(at_update_begin(&u, &r.p), AT_OK);
        for (int first = 0, blocks; first < r.p.blocks; first += blocks) {
            struct at_buf part = {0};
            blocks = r.p.blocks - first < each ? r.p.blocks - first : each;
            at_update_move(&u, first, blocks);
            if (blocks < r.p.blocks) { /* the whole is too much, and so is another unit's part, but for the first */
                assert_int_equal(
                    at_update_encode_blocks(&at_codec_plain, 0, &other, &source, first, blocks, NULL, NULL, &part),
                    AT_OK);
                if (first > 0) assert_int_equal(at_update_add(&u, at_buf_span(&part), NULL), AT_E_DATA);
                assert_int_equal(at_update_add(&u, at_buf_span(&r.blob), NULL), AT_E_DATA);
                at_update_move(&u, first, blocks);
                at_buf_clear(&part);
            }
            assert_int_equal(at_update_complete(&u, NULL), AT_E_DATA);
            assert_int_equal(
                at_update_encode_blocks(&at_codec_plain, 0, &r.info, &source, first, blocks, NULL, NULL, &part), AT_OK);
            assert_int_equal(at_update_add(&u, at_buf_span(&part), NULL), AT_OK);
            assert_int_equal(at_update_complete(&u, NULL), AT_OK);
            assert_int_equal(u.blocks, blocks);
            for (int b = 0; b < r.p.blocks; b++)
                if (b >= first && b < first + blocks)
                    assert_true(at_span_eq(u.payload[b], whole.payload[b]));
                else
                    assert_null(u.payload[b].p);
            at_buf_release(&part);
        }
    }
    at_update_release(&u);
    at_update_release(&whole);
    rig_release(&r);
}

/* All values of an update, block after block. */
static void read_all(const struct at_update *u, real *ret)
{
    for (int b = 0; b < u->params->blocks; b++) {
        struct at_codec_reader d;
        size_t n = at_block_count(&u->params->block[b]), first = 0;
        at_update_open(u, b, &d);
        if (n > AT_CODEC_CHUNK) d.codec->next(&d, first = AT_CODEC_CHUNK, ret);
        d.codec->next(&d, n - first, ret + first);
        ret += n;
    }
}

/* Decoded once or at every reading: the same values, and the same left over. */
static void test_unpacked(void **state)
{
    static const uint32_t keep[] = {1, 60, 1024};
    uint64_t seed = 0;
    for (int i = 0; i < 3 * RUN_CONFIGS; i++) {
        struct rig r;
        rig_init(&r, i / 3);
        size_t bytes = r.p.count * sizeof(real);
        real *e = malloc(bytes), *left[2] = {malloc(bytes), malloc(bytes)}, *x[2] = {malloc(bytes), malloc(bytes)};
        struct at_par par = test_par_shuffled(3, &seed);
        struct at_update u = {0};
        struct at_buf blob = {0};
        for (size_t j = 0; j < r.p.count; j++) e[j] = r.s.theta[j] - r.theta[j];
        memcpy(left[0], e, bytes);
        memcpy(left[1], e, bytes);
        struct at_update_source source = {&r.p, r.s.theta, r.theta, e, r.stats, r.s.stats};
        assert_int_equal(at_update_encode(&at_codec_sparse, keep[i % 3], &r.info, &source, NULL, NULL, &blob), AT_OK);
        assert_int_equal(at_update_parse(&r.p, at_buf_span(&blob), NULL, &u), AT_OK);
        for (int k = 0; k < 2; k++) {
            if (k == 1) at_update_unpack(&u, &par);
            assert_true((u.kept.block != NULL) == (k == 1));
            read_all(&u, x[k]);
            at_update_confirm(&u, &par, left[k]);
        }
        assert_memory_equal(x[0], x[1], bytes);
        assert_memory_equal(left[0], left[1], bytes);
        assert_true(memcmp(left[0], e, bytes) != 0);
        at_update_move(&u, 0, 1); /* forgets them */
        assert_null(u.kept.block);
        at_update_release(&u);
        at_buf_release(&blob);
        for (int k = 0; k < 2; k++) free(left[k]), free(x[k]);
        free(e);
        rig_release(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hostile_updates),
        cmocka_unit_test(test_numbers_have_one_form),
        cmocka_unit_test(test_ranks_of_other_cuts),
        cmocka_unit_test(test_fragments),
        cmocka_unit_test(test_unpacked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
