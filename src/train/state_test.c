/* The state's root against one built from the documented bytes, and its blob. */
#include "base/merkle.h"
#include "train/train_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* RFC 6962 by its recursive definition. */
static struct at_hash tree_of(const struct at_hash *leaf, size_t n)
{
    if (n == 1) return leaf[0];
    size_t k = 1;
    while (2 * k < n) k *= 2;
    return at_merkle_node(tree_of(leaf, k), tree_of(leaf + k, n - k));
}

struct leaves {
    struct at_hash h[256];
    size_t n;
};

static void add(struct leaves *l, const void *p, size_t n)
{
    uint8_t bytes[1 + AT_TILE_BYTES] = {0};
    memcpy(bytes + 1, p, n);
    l->h[l->n++] = at_sha256(bytes, n + 1);
}

static void add_reals(struct leaves *l, const float *x, size_t n) /* this test's machine is little-endian */
{
    for (size_t i = 0; i < 4 * n; i += AT_TILE_BYTES)
        add(l, (const uint8_t *)x + i, 4 * n - i < AT_TILE_BYTES ? 4 * n - i : AT_TILE_BYTES);
}

static struct at_hash documented_root(const struct at_state *s)
{
    static struct leaves l;
    l.n = 0;
    const struct at_params *p = s->params;
    const struct at_model_config *c = &p->config;
    const uint32_t words[] = {
        s->round, 0,          c->layers, c->d_model,        c->heads,           c->kv_heads,        c->head_size,
        c->d_ff,  c->seq_len, c->vocab,  c->tied ? 1u : 0u, (uint32_t)p->slots, (uint32_t)p->count, 0};
    uint8_t first[72] = "atoll state 1";
    if (s->momentum != NULL) memcpy(first + 13, "+m", 2);
    memcpy(first + 16, words, sizeof words);
    add(&l, first, sizeof first);
    for (int i = 0; i < p->blocks; i++) add_reals(&l, s->theta + p->block[i].offset, at_block_count(&p->block[i]));
    const real *stats = s->stats;
    for (int i = 0; i < p->blocks; i++) {
        add_reals(&l, stats, at_block_stats_count(p, &p->block[i]));
        stats += at_block_stats_count(p, &p->block[i]);
    }
    for (int i = 0; s->momentum != NULL && i < p->blocks; i++)
        add_reals(&l, s->momentum + p->block[i].offset, at_block_count(&p->block[i]));
    return tree_of(l.h, l.n);
}

static void test_root_is_as_documented(void **state)
{
    static const struct at_model_config wide = TEST_SHAPE(1, 136, 1, 1, 136, 8, 256, false); /* blocks of two tiles */
    for (int c = -1; c < RUN_CONFIGS; c++) {
        struct at_params p;
        struct at_state s;
        struct at_hash root;
        assert_int_equal(at_params_init(&p, c < 0 ? &wide : &run_configs[c]), AT_OK);
        assert_int_equal(at_state_init(&s, &p), AT_OK);
        test_state(&s, 5);
        assert_int_equal(at_state_root(&s, NULL, &root), AT_OK);
        assert_true(at_hash_eq(root, documented_root(&s)));
        assert_int_equal(at_state_add_momentum(&s), AT_OK);
        test_weights(&p, 77, s.momentum);
        assert_int_equal(at_state_root(&s, NULL, &root), AT_OK);
        assert_true(at_hash_eq(root, documented_root(&s)));
        at_state_release(&s);
        at_params_release(&p);
    }
}

/* The part of a whole state that a shard holds. */
static void cut_state(const struct at_state *whole, struct at_state *s)
{
    const struct at_params *p = s->params;
    s->round = whole->round;
    for (int i = 0; i < p->blocks; i++) {
        const struct at_block *b = &p->block[i], *w = at_params_block(whole->params, b->tensor, b->slot);
        memcpy(s->theta + b->offset, whole->theta + w->offset, at_block_count(b) * sizeof(real));
        memcpy(s->stats + at_block_stats_offset(p, i),
               whole->stats + at_block_stats_offset(whole->params, (int)(w - whole->params->block)),
               at_block_stats_count(p, b) * sizeof(real));
        if (s->momentum != NULL)
            memcpy(s->momentum + b->offset, whole->momentum + w->offset, at_block_count(b) * sizeof(real));
    }
}

enum { RANKS_MAX = 16 };

static void check_cut(const struct at_state *whole, int tp, int pp)
{
    const struct at_model_config *c = &whole->params->config;
    struct at_shard shard[RANKS_MAX];
    struct at_hash *leaves[RANKS_MAX], want, root;
    bool momentum = whole->momentum != NULL;
    int layers = (int)c->layers, slots = whole->params->slots, n = tp * pp;
    size_t all = 0;
    for (int r = 0; r < n; r++) {
        struct at_params p;
        struct at_state s;
        int first = r / tp * layers / pp;
        shard[r] = (struct at_shard){r % tp * (slots / tp), slots / tp, first, (r / tp + 1) * layers / pp - first};
        assert_int_equal(at_params_init_shard(&p, c, &shard[r]), AT_OK);
        assert_int_equal(at_state_init(&s, &p), AT_OK);
        if (momentum) assert_int_equal(at_state_add_momentum(&s), AT_OK);
        cut_state(whole, &s);
        all += at_state_leaves(&p, momentum);
        leaves[r] = malloc(at_state_leaves(&p, momentum) * sizeof *leaves[r]);
        assert_int_equal(at_state_hash_leaves(&s, NULL, leaves[r]), AT_OK);
        at_state_release(&s);
        at_params_release(&p);
    }
    assert_int_equal(all, at_state_leaves(whole->params, momentum));
    assert_int_equal(at_state_root(whole, NULL, &want), AT_OK);
    const struct at_hash *const *from = (const struct at_hash *const *)leaves;
    assert_int_equal(at_state_root_from(c, whole->round, momentum, shard, from, n, NULL, &root), AT_OK);
    assert_true(at_hash_eq(root, want));
    if (n > 1) /* one rank is missing; one is there twice */
        assert_int_equal(at_state_root_from(c, whole->round, momentum, shard, from, n - 1, NULL, &root), AT_E_DATA);
    if (n > 1) shard[0] = shard[n - 1];
    if (n > 1) assert_int_equal(at_state_root_from(c, 5, momentum, shard, from, n, NULL, &root), AT_E_DATA);
    for (int r = 0; r < n; r++) free(leaves[r]);
}

static void test_root_of_shards(void **state)
{
    for (int c = 0; c < RUN_CONFIGS; c++)
        for (int momentum = 0; momentum < 2; momentum++) {
            struct at_params p;
            struct at_state s;
            assert_int_equal(at_params_init(&p, &run_configs[c]), AT_OK);
            assert_int_equal(at_state_init(&s, &p), AT_OK);
            if (momentum) assert_int_equal(at_state_add_momentum(&s), AT_OK);
            test_state(&s, 5);
            if (momentum) test_weights(&p, 78, s.momentum);
            for (int tp = 1; tp <= p.slots; tp *= 2)
                for (int pp = 1; pp <= (int)p.config.layers; pp++) check_cut(&s, tp, pp);
            at_state_release(&s);
            at_params_release(&p);
        }
}

static void test_root_sees_every_value(void **state)
{
    struct at_params p;
    struct at_state s;
    struct at_hash root, other;
    assert_int_equal(at_params_init(&p, &run_configs[0]), AT_OK);
    assert_int_equal(at_state_init(&s, &p), AT_OK);
    test_state(&s, 5);
    assert_int_equal(at_state_root(&s, NULL, &root), AT_OK);
    size_t all = p.count + at_stats_count(&p);
    for (size_t k = 0; k < 40; k++) {
        size_t e = k < 2 ? k * (all - 1) : at_philox(3, AT_RNG_TEST, 1, k).v[0] % all;
        real *x = e < p.count ? &s.theta[e] : &s.stats[e - p.count], kept = *x;
        *x = nextafterf(kept, 1);
        assert_int_equal(at_state_root(&s, NULL, &other), AT_OK);
        assert_false(at_hash_eq(root, other));
        *x = kept;
    }
    s.round++;
    assert_int_equal(at_state_root(&s, NULL, &other), AT_OK);
    assert_false(at_hash_eq(root, other));
    at_state_release(&s);
    at_params_release(&p);
}

static void test_not_finite_has_no_root(void **state)
{
    struct at_params p;
    struct at_state s;
    struct at_hash root;
    struct at_diag diag = {0};
    assert_int_equal(at_params_init(&p, &run_configs[1]), AT_OK);
    assert_int_equal(at_state_init(&s, &p), AT_OK);
    test_state(&s, 0);
    s.theta[at_params_block(&p, at_params_find(&p, AT_ROLE_DOWN, 1), 1)->offset] = (real)NAN;
    assert_int_equal(at_state_root(&s, &diag, &root), AT_E_NONFINITE);
    assert_string_equal(diag.where, "model.layers.1.mlp.down_proj.weight");
    assert_non_null(strstr(diag.text, "layer 1"));
    at_state_release(&s);
    at_params_release(&p);
}

static void refuse(struct at_state *s, const struct at_state *kept, const uint8_t *p, size_t n)
{
    uint8_t *exact = malloc(n != 0 ? n : 1);
    memcpy(exact, p, n);
    assert_int_not_equal(at_state_read(s, at_span(exact, n), NULL), AT_OK);
    free(exact);
    assert_memory_equal(s->theta, kept->theta, s->params->count * sizeof(real));
    assert_int_equal(s->round, kept->round);
}

static void test_blob(void **state)
{
    struct at_params p;
    struct at_state s, t, kept;
    struct at_buf blob = {0};
    assert_int_equal(at_params_init(&p, &run_configs[2]), AT_OK);
    assert_int_equal(at_state_init(&s, &p), AT_OK);
    assert_int_equal(at_state_init(&t, &p), AT_OK);
    assert_int_equal(at_state_init(&kept, &p), AT_OK);
    test_state(&s, 9);
    assert_int_equal(at_state_write(&s, &blob), AT_OK);
    assert_int_equal(blob.n, at_state_blob_bytes(&s));
    for (size_t n = 0; n < blob.n; n += n < 64 ? 1 : 997) refuse(&t, &kept, blob.p, n);
    refuse(&t, &kept, blob.p, blob.n - 1);
    static const size_t bad_bytes[] = {0, 12, 20, 24, 32, 39};
    for (int i = 0; i < 6; i++) {
        blob.p[bad_bytes[i]] ^= 0x40;
        refuse(&t, &kept, blob.p, blob.n);
        blob.p[bad_bytes[i]] ^= 0x40;
    }
    size_t last_row = at_params_block(&p, 0, p.slots - 1)->offset + at_block_count(at_params_block(&p, 0, p.slots - 1));
    struct {
        size_t at;
        uint32_t bits;
    } bad[] = {{40, 0x7F800000}, {40, 0x7FC00001}, {40 + 4 * (last_row - 1), 1}, {40 + 4 * p.count, 0x80000001}};
    for (int i = 0; i < 4; i++) {
        uint32_t was = at_load_le32(blob.p + bad[i].at);
        at_store_le32(blob.p + bad[i].at, bad[i].bits);
        refuse(&t, &kept, blob.p, blob.n);
        at_store_le32(blob.p + bad[i].at, was);
    }
    assert_int_equal(at_state_read(&t, at_buf_span(&blob), NULL), AT_OK);
    struct at_hash a, b;
    assert_int_equal(at_state_root(&s, NULL, &a), AT_OK);
    assert_int_equal(at_state_root(&t, NULL, &b), AT_OK);
    assert_true(at_hash_eq(a, b));
    assert_int_equal(at_buf_append(&blob, "x", 1), AT_OK);
    assert_int_equal(at_state_read(&t, at_buf_span(&blob), NULL), AT_E_DATA);
    blob.n--;
    assert_int_equal(at_state_add_momentum(&t), AT_OK); /* a state with momentum is another */
    assert_int_equal(at_state_read(&t, at_buf_span(&blob), NULL), AT_E_DATA);
    for (size_t i = 0; i < p.count; i++) t.momentum[i] = t.theta[i];
    at_buf_clear(&blob);
    assert_int_equal(at_state_write(&t, &blob), AT_OK);
    assert_int_equal(at_state_read(&s, at_buf_span(&blob), NULL), AT_E_DATA);
    assert_int_equal(at_state_add_momentum(&s), AT_OK);
    assert_int_equal(at_state_read(&s, at_buf_span(&blob), NULL), AT_OK);
    assert_memory_equal(s.momentum, t.theta, p.count * sizeof(real));
    at_buf_release(&blob);
    at_state_release(&s);
    at_state_release(&t);
    at_state_release(&kept);
    at_params_release(&p);
}

/* Every tile of the blob hashes to its leaf, and the tiles and the header are the blob, each byte once. */
static void check_tiles(const struct at_state *s)
{
    size_t n = at_state_leaves(s->params, s->momentum != NULL);
    struct at_tile *tile = calloc(n, sizeof *tile);
    struct at_hash *leaf = calloc(n + 1, sizeof *leaf), root, again;
    struct at_buf blob = {0};
    uint8_t header[AT_STATE_HEADER_BYTES];
    assert_int_equal(at_state_write(s, &blob), AT_OK);
    assert_int_equal(at_state_root(s, NULL, &again), AT_OK);
    at_state_tiles(s->params, s->momentum != NULL, tile);
    uint64_t seed = n;
    struct at_par par = test_par_shuffled(3, &seed);
    assert_int_equal(at_state_tree(s, at_buf_span(&blob), tile, &par, NULL, leaf, &root), AT_OK);
    assert_true(at_hash_eq(root, again));
    at_state_header(s->params, s->momentum != NULL, s->round, header);
    assert_memory_equal(header, blob.p, sizeof header);
    uint8_t *seen = calloc(blob.n, 1);
    memset(seen, 1, sizeof header);
    struct at_merkle tree = {0};
    at_merkle_append(&tree, leaf[0]);
    for (size_t i = 0; i < n; i++) {
        assert_true(tile[i].bytes > 0 && tile[i].bytes <= AT_TILE_BYTES && tile[i].offset + tile[i].bytes <= blob.n);
        for (size_t k = 0; k < tile[i].bytes; k++) seen[tile[i].offset + k]++;
        assert_true(at_hash_eq(at_merkle_leaf(at_span(blob.p + tile[i].offset, tile[i].bytes)), leaf[i + 1]));
        at_merkle_append(&tree, leaf[i + 1]);
    }
    for (size_t k = 0; k < blob.n; k++) assert_int_equal(seen[k], 1);
    assert_true(at_hash_eq(at_merkle_root(&tree), root));
    free(seen);
    free(tile);
    free(leaf);
    at_buf_release(&blob);
}

static void test_tiles(void **state)
{
    for (size_t c = 0; c < sizeof run_configs / sizeof *run_configs; c++) {
        struct at_params p;
        struct at_state s;
        assert_int_equal(at_params_init(&p, &run_configs[c]), AT_OK);
        assert_int_equal(at_state_init(&s, &p), AT_OK);
        at_state_genesis(&s, 5);
        s.round = 7;
        check_tiles(&s);
        assert_int_equal(at_state_add_momentum(&s), AT_OK);
        s.momentum[3] = 0.5f;
        check_tiles(&s);
        at_state_release(&s);
        at_params_release(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_root_is_as_documented),
        cmocka_unit_test(test_root_of_shards),
        cmocka_unit_test(test_root_sees_every_value),
        cmocka_unit_test(test_not_finite_has_no_root),
        cmocka_unit_test(test_blob),
        cmocka_unit_test(test_tiles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
