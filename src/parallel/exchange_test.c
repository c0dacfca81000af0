/* Updates between replicas that are cut alike or otherwise, in fragments of any size; and peers that send nonsense. */
#include "parallel/exchange.h"

#include "parallel/rank_test_util.h"
#include "train/leb128.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { TAG = 5, REPLICAS_MAX = 3 };

static struct test_net net;
static const struct at_model_config shape = TEST_SHAPE(4, 16, 8, 8, 24, 6, 61, false);

/* ---- made-up updates, the same function of (replica, block, element) wherever they are made ---- */

/* Powers of two: start - now is exact. */
static real delta(int replica, int number, size_t i)
{
    struct at_philox x = at_philox(5, AT_RNG_TEST, (uint64_t)(replica * 1000 + number), i);
    return (real)ldexp(x.v[0] % 2 != 0 ? 1 : -1, -(int)(x.v[1] % 8));
}

struct shelf {
    struct at_params params;
    real *start, *now, *feedback, *stats, *stats_public;
    struct at_update_source source;
};

static void shelf_init(struct shelf *s, const struct at_plan *plan, int rank)
{
    struct at_shard shard = at_plan_shard(plan, &shape, rank);
    int replica = at_plan_place(plan, rank).replica;
    if (at_params_init_shard(&s->params, &shape, &shard) != AT_OK) abort();
    const struct at_params *p = &s->params;
    size_t stats = at_stats_count(p);
    s->start = calloc(p->count, sizeof *s->start);
    s->now = calloc(p->count, sizeof *s->now);
    s->feedback = calloc(p->count, sizeof *s->feedback);
    s->stats = malloc(stats * sizeof *s->stats);
    s->stats_public = malloc(stats * sizeof *s->stats_public);
    if (!s->start || !s->now || !s->feedback || !s->stats || !s->stats_public) abort();
    for (size_t i = 0; i < stats; i++) s->stats[i] = s->stats_public[i] = 1;
    for (int b = 0; b < p->blocks; b++) {
        size_t used = (size_t)(at_block_rows_used(p, &p->block[b]) * p->block[b].cols), at = p->block[b].offset;
        for (size_t i = 0; i < used; i++)
            s->now[at + i] = -(s->feedback[at + i] = delta(replica, at_block_number(p, &p->block[b]), i));
    }
    s->source = (struct at_update_source){.params = p,
                                          .theta_start = s->start,
                                          .theta = s->now,
                                          .feedback = s->feedback,
                                          .stats = s->stats,
                                          .stats_public = s->stats_public};
}

static void shelf_release(struct shelf *s)
{
    free(s->start);
    free(s->now);
    free(s->feedback);
    free(s->stats);
    free(s->stats_public);
    at_params_release(&s->params);
}

static struct at_update_info info_of(int replica, uint32_t round)
{
    uint32_t samples = 4 + 2 * (uint32_t)replica;
    return (struct at_update_info){
        .round = round, .samples = samples, .steps = 2, .start = 100 * (uint64_t)replica, .tokens = samples * 6};
}

/* What replica r sends of a block is what anybody decodes of it. */
static bool block_is(const struct at_update *u, int block, int replica, double tolerance)
{
    const struct at_params *p = u->params;
    const struct at_block *b = &p->block[block];
    struct at_codec_reader d;
    real x[AT_CODEC_CHUNK];
    size_t used = (size_t)(at_block_rows_used(p, b) * b->cols), n = at_block_count(b), len;
    at_update_open(u, block, &d);
    for (size_t at = 0; at < n; at += len) {
        len = n - at < AT_CODEC_CHUNK ? n - at : AT_CODEC_CHUNK;
        u->codec->next(&d, len, x);
        for (size_t i = 0; i < len; i++) {
            real want = at + i < used ? delta(replica, at_block_number(p, b), at + i) : 0;
            if (fabs((double)x[i] - (double)want) > tolerance) return false;
        }
    }
    return true;
}

/* ---- honest rounds ---- */

static const uint32_t codec_of_round[] = {AT_CODEC_PLAIN, AT_CODEC_INT4, AT_CODEC_SPARSE, AT_CODEC_PLAIN};
enum { ROUNDS = sizeof codec_of_round / sizeof codec_of_round[0] };

struct trial {
    struct at_plan plan;
    struct at_exchange_needs needs;
    const char *wrong[TEST_RANKS_MAX]; /* NULL: all was as it should be */
    int fragments[TEST_RANKS_MAX];
};

static const char *one_round(struct at_exchange *x, const struct shelf *s, uint32_t round, int *ret_fragments)
{
    const struct at_codec *codec = at_codec_find(codec_of_round[round]);
    uint32_t k = codec->param_max != 0 ? 64 : 0;
    double tolerance = codec->id == AT_CODEC_PLAIN ? 0 : codec->id == AT_CODEC_INT4 ? 0.08 : 2;
    struct at_update_info info = info_of(x->replica, round);
    struct at_diag diag = {0};
    int done = 0, first, blocks;
    at_exchange_expect(x, codec->id);
    if (at_exchange_poll(x, &diag) != AT_OK) return "poll";
    if (at_exchange_send(x, codec, k, &info, &s->source, 10 * x->replica + round, &diag) != AT_OK) return "send";
    for (*ret_fragments = 0;; ++*ret_fragments) {
        if (at_exchange_take(x, &diag, &first, &blocks) != AT_OK) return "take";
        if (first != done) return "a gap between fragments";
        if (blocks == 0) break;
        if (codec->id == AT_CODEC_SPARSE && blocks != x->params->blocks) return "sparse goes whole";
        size_t bytes = 0;
        for (int b = first; b < first + blocks; b++)
            bytes += AT_UPDATE_BLOCK_BYTES + at_codec_plain.bytes_max(x->params, &s->params.block[b], 0);
        if (!x->whole && blocks > 1 && bytes > x->needs.fragment_bytes) return "a fragment is too large";
        for (int r = 0; r < x->replicas; r++) {
            struct at_update_info want = info_of(r, round);
            if (x->update[r].info.tokens != want.tokens || x->update[r].info.start != want.start) return "info";
            if (x->loss[r] != 10 * r + round) return "loss";
            for (int b = first; b < first + blocks; b++)
                if (!block_is(&x->update[r], b, r, tolerance)) return "another update arrived";
        }
        done += blocks;
        if (at_exchange_drop(x, &diag) != AT_OK) return "drop";
    }
    return done == x->params->blocks ? NULL : "blocks are missing";
}

static void honest(void *arg, int rank, const struct at_comm *comm)
{
    struct trial *t = arg;
    struct shelf s;
    struct at_exchange x;
    const char *wrong = NULL;
    shelf_init(&s, &t->plan, rank);
    if (at_exchange_init(&x, comm, &t->plan, &s.params, &t->needs, TAG, NULL) != AT_OK) abort();
    for (uint32_t round = 0; wrong == NULL && round < ROUNDS; round++)
        wrong = one_round(&x, &s, round, &t->fragments[rank]);
    if (wrong != NULL) (comm->ops->fail)(comm->link, AT_E_INTERNAL, "test", wrong);
    at_exchange_settle(&x);
    at_exchange_release(&x);
    shelf_release(&s);
    t->wrong[rank] = wrong;
}

static void every_block_arrives_in_every_cutting(void **state)
{
    static const char *const cuts[][REPLICAS_MAX] = {
        {"2x4", "1x2 1x2"},    {"2x4", "2x4"}, {"1x4", "2x2 1x2", "4x1 1x3"},
        {"4x4", "2x4", "1x4"}, {"1x4"},        {"1x1 2x3", "4x2 1x2", "1x1 2x3"},
    };
    static const size_t limits[] = {1, 3000, 9000, (size_t)1 << 30};
    struct at_outer_config outer;
    at_outer_config_default(&outer, AT_OUTER_AUTO);
    outer.tau = 0;
    for (size_t c = 0; c < sizeof cuts / sizeof cuts[0]; c++) {
        int replicas = 1;
        while (replicas < REPLICAS_MAX && cuts[c][replicas] != NULL) replicas++;
        for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
            struct trial t = {.needs = at_exchange_needs_of(&outer)};
            t.needs.fragment_bytes = limits[i];
            assert_true(split_plan(&t.plan, cuts[c], replicas, 1));
            const char *misuse = test_net_run(&net, t.plan.ranks, honest, &t);
            if (misuse != NULL) print_error("cut %zu, limit %zu: %s\n", c, limits[i], misuse);
            assert_null(misuse);
            for (int r = 0; r < t.plan.ranks; r++) {
                struct at_shard shard = at_plan_shard(&t.plan, &shape, r);
                if (t.wrong[r] != NULL) print_error("cut %zu, limit %zu, rank %d: %s\n", c, limits[i], r, t.wrong[r]);
                assert_null(t.wrong[r]);
                if (i == 3) assert_int_equal(t.fragments[r], 1);
                if (i < 3) assert_true(t.fragments[r] > (i == 2 ? 1 : 4));
                if (i == 0 && shard.slots == at_model_slots(&shape)) { /* a block at a time */
                    struct at_params p;
                    assert_int_equal(at_params_init_shard(&p, &shape, &shard), AT_OK);
                    assert_int_equal(t.fragments[r], p.blocks);
                    at_params_release(&p);
                }
            }
            at_plan_release(&t.plan);
        }
    }
}

/* ---- memory ---- */

static void room_is_for_two_fragments(void **state)
{
    static const char *const cut[] = {"1x4", "1x4", "1x4", "1x4"};
    struct at_plan plan;
    struct at_outer_config outer;
    const struct at_preset *p;
    assert_int_equal(at_preset_find("10m", NULL, &p), AT_OK);
    assert_int_equal(at_plan_uniform(&plan, &p->model, 4, 1, 1, 1, p->train.batch, NULL), AT_OK);
    size_t F = AT_EXCHANGE_FRAGMENT_BYTES, M = 1000000;
    at_outer_config_default(&outer, AT_OUTER_MEAN);
    outer.tau = 0;
    struct at_exchange_needs needs = at_exchange_needs_of(&outer);
    assert_in_range(at_exchange_bytes(&plan, &p->model, 0, &needs), 4 * F, 4 * 2 * F + F / 4); /* binary32 */
    outer.tau = 1;
    needs = at_exchange_needs_of(&outer);
    assert_in_range(at_exchange_bytes(&plan, &p->model, 0, &needs), 4 * 43 * M, 4 * 45 * M);
    at_outer_config_default(&outer, AT_OUTER_DILOCO);
    outer.tau = 0;
    needs = at_exchange_needs_of(&outer);
    assert_in_range(at_exchange_bytes(&plan, &p->model, 0, &needs), 1, 4 * 2 * F / 4); /* four bits and more, of 32 */
    at_outer_config_default(&outer, AT_OUTER_SPARSE);
    outer.tau = 0;
    needs = at_exchange_needs_of(&outer); /* whole ones, at most 0.7 kB for a chunk of 4096, and the statistics */
    assert_in_range(at_exchange_bytes(&plan, &p->model, 0, &needs), 4 * 4 * M, 4 * 6 * M);
    outer.k = AT_SPARSE_K_MAX; /* 2.9 kB */
    needs = at_exchange_needs_of(&outer);
    size_t most = at_exchange_bytes(&plan, &p->model, 0, &needs);
    assert_in_range(most, 4 * 10 * M, 4 * 12 * M);
    at_outer_config_default(&outer, AT_OUTER_AUTO); /* which may take any k */
    outer.tau = 0;
    needs = at_exchange_needs_of(&outer);
    assert_true(at_exchange_bytes(&plan, &p->model, 0, &needs) >= most);
    at_plan_release(&plan);
    assert_true(split_plan(&plan, cut, 1, 1)); /* a model smaller than a fragment: one room of its size */
    at_outer_config_default(&outer, AT_OUTER_MEAN);
    needs = at_exchange_needs_of(&outer);
    struct at_exchange_needs whole = {.whole = needs.parts};
    assert_true(at_exchange_bytes(&plan, &shape, 0, &needs) == at_exchange_bytes(&plan, &shape, 0, &whole));
    at_plan_release(&plan);
}

/* ---- a peer that sends nonsense ---- */

enum trick { TOO_MUCH, TOO_LITTLE, OTHER_FRAGMENT, NOT_ITS_OWN, OTHER_UNIT, NOT_FINITE, BAD_FRAME };

/* Links of rank 1 that change what it sends to rank 0 in fragment `when`. */
struct liar {
    struct at_comm_ops ops;
    struct at_comm inner, outer;
    enum trick trick;
    int when, heads, blobs;
    uint8_t head[AT_EXCHANGE_HEAD_BYTES];
    uint8_t *blob;
};

/* Where a block's frame has what (update.h). */
struct frame {
    uint8_t *left_out, *bytes, *payload, *end;
};

static struct frame frame_at(uint8_t *at)
{
    struct at_span rest = at_span(at, 2 * AT_LEB128_BYTES_MAX);
    uint32_t left_out = 0, bytes = 0;
    struct frame f = {.left_out = at};
    AT_ASSERT(at_leb128_take(&rest, &left_out));
    f.bytes = at + (rest.p - at);
    AT_ASSERT(at_leb128_take(&rest, &bytes));
    f.payload = at + (rest.p - at);
    f.end = f.payload + bytes;
    return f;
}

/* None of these changes the blob's size. */
static void change(struct liar *l, uint8_t *blob, size_t n)
{
    struct frame first = frame_at(blob + AT_UPDATE_HEADER_BYTES), last = first, fourth = first;
    for (int i = 0; last.end < blob + n; i++) {
        last = frame_at(last.end);
        if (i == 2) fourth = last; /* the fourth block, of number 3 in the first fragment */
    }
    switch (l->trick) {
    case OTHER_FRAGMENT: /* the first block is one of the middle; that is checked before its bytes are */
        if ((first.left_out[0] & 0x80) == 0)
            first.left_out[0] = 127;
        else
            first.left_out[0] = 0x80, first.left_out[1] = 1;
        break;
    case NOT_ITS_OWN: /* slot 4 of the embedding, which rank 2 has, for slot 3; the others stay */
        fourth.left_out[0]++;
        if (fourth.end < blob + n) fourth.end[0]--;
        break;
    case OTHER_UNIT:
        at_store_le64(blob + 16, at_load_le64(blob + 16) + 1);
        break;
    case NOT_FINITE:
        at_store_le32(last.payload, 0x7F800000);
        break;
    case BAD_FRAME:
        last.bytes[0]++;
        break;
    default:
        break;
    }
}

static struct at_transfer lying_send(void *link, int to, uint32_t tag, const void *bytes, size_t n)
{
    struct liar *l = link;
    if (to == 0 && tag == TAG && l->heads++ == l->when && l->trick <= TOO_LITTLE) {
        memcpy(l->head, bytes, n);
        at_store_le64(l->head, l->trick == TOO_MUCH ? (uint64_t)1 << 40 : AT_UPDATE_HEADER_BYTES - 1);
        bytes = l->head;
    }
    if (to == 0 && tag == TAG + 1 && l->blobs++ == l->when) {
        l->blob = malloc(n);
        if (l->blob == NULL) abort();
        memcpy(l->blob, bytes, n);
        change(l, l->blob, n);
        bytes = l->blob;
    }
    return at_comm_send(&l->inner, to, tag, bytes, n);
}
static struct at_transfer liars_recv(void *link, int from, uint32_t tag, void *bytes, size_t n)
{
    return at_comm_recv(&((struct liar *)link)->inner, from, tag, bytes, n);
}
static at_err liars_wait(void *link, struct at_transfer t, struct at_diag *diag)
{
    return at_comm_wait(&((struct liar *)link)->inner, t, diag);
}
static bool liars_done(void *link, struct at_transfer t)
{
    const struct at_comm *c = &((struct liar *)link)->inner;
    return c->ops->done(c->link, t);
}

static const struct at_comm *become_liar(struct liar *l, const struct at_comm *comm)
{
    l->inner = *comm;
    l->ops = *comm->ops;
    l->ops.send = lying_send;
    l->ops.recv = liars_recv;
    l->ops.wait = liars_wait;
    l->ops.done = liars_done;
    l->outer = (struct at_comm){.rank = comm->rank, .ranks = comm->ranks, .ops = &l->ops, .link = l};
    return &l->outer;
}

struct affair {
    struct trial trial;
    struct liar liar;
    struct at_diag diag; /* what rank 0 found */
    int taken;           /* fragments that rank 0 was given before */
};

static void with_a_liar(void *arg, int rank, const struct at_comm *comm)
{
    struct affair *a = arg;
    struct shelf s;
    struct at_exchange x;
    struct at_diag diag = {0};
    int first, blocks = 1, taken = 0;
    shelf_init(&s, &a->trial.plan, rank);
    const struct at_comm *links = rank == 1 ? become_liar(&a->liar, comm) : comm;
    if (at_exchange_init(&x, links, &a->trial.plan, &s.params, &a->trial.needs, TAG, NULL) != AT_OK) abort();
    struct at_update_info info = info_of(x.replica, 0);
    at_exchange_expect(&x, AT_CODEC_PLAIN);
    at_err_t err = at_exchange_send(&x, &at_codec_plain, 0, &info, &s.source, 0, &diag);
    while (err == AT_OK && blocks > 0) {
        err = at_exchange_take(&x, &diag, &first, &blocks);
        if (err == AT_OK && blocks > 0) taken++, err = at_exchange_drop(&x, &diag);
    }
    if (rank == 0) {
        a->diag = diag;
        a->taken = taken;
        (comm->ops->fail)(comm->link, AT_E_PEER, "test", "rank 0 has seen it");
    }
    at_exchange_settle(&x);
    at_exchange_release(&x);
    shelf_release(&s);
}

static void a_peers_nonsense_names_it(void **state)
{
    static const struct {
        enum trick trick;
        at_err_t err;
        const char *says;
    } cases[] = {
        {TOO_MUCH, AT_E_PEER, "announces an update of 1099511627776 bytes"},
        {TOO_LITTLE, AT_E_PEER, "announces an update of 63 bytes"},
        {OTHER_FRAGMENT, AT_E_PEER, "not of this fragment"},
        {NOT_ITS_OWN, AT_E_PEER, "other blocks than those of this fragment"},
        {OTHER_UNIT, AT_E_PEER, "parts of different updates"},
        {NOT_FINITE, AT_E_NONFINITE, "not finite"},
        {BAD_FRAME, AT_E_PEER, "ends too early"},
    };
    static const char *const cut[] = {"1x4", "2x4"}; /* rank 0; ranks 1 and 2 */
    struct at_outer_config outer;
    at_outer_config_default(&outer, AT_OUTER_MEAN);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int when = 0; when < 3; when += 2) { /* in the first fragment, and in a later one */
            struct affair a = {.trial = {.needs = at_exchange_needs_of(&outer)},
                               .liar = {.trick = cases[i].trick, .when = when}};
            if (cases[i].trick == OTHER_UNIT && when == 0) continue;  /* there it is the only unit */
            if (cases[i].trick == NOT_ITS_OWN && when != 0) continue; /* no embedding there */
            a.trial.needs.fragment_bytes = 6000;
            assert_true(split_plan(&a.trial.plan, cut, 2, 1));
            const char *misuse = test_net_run(&net, a.trial.plan.ranks, with_a_liar, &a);
            if (misuse != NULL) print_error("trick %zu: %s\n", i, misuse);
            assert_null(misuse);
            assert_int_equal(a.diag.err, cases[i].err);
            if (strstr(a.diag.text, cases[i].says) == NULL) print_error("trick %zu: %s\n", i, a.diag.text);
            assert_non_null(strstr(a.diag.text, "rank 1 (replica 1)"));
            assert_non_null(strstr(a.diag.text, cases[i].says));
            assert_in_range(a.taken, cases[i].trick <= TOO_LITTLE && when > 0 ? when - 1 : when,
                            when); /* heads come early */
            free(a.liar.blob);
            at_plan_release(&a.trial.plan);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_block_arrives_in_every_cutting),
        cmocka_unit_test(room_is_for_two_fragments),
        cmocka_unit_test(a_peers_nonsense_names_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
