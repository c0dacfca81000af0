/* tiles_test.c: the picker against peers that a loop plays: rare tiles, liars, stalls, those who leave, resumes, the last
 * tile; and many seeds of all of it. ATOLL_TILES_SEED and ATOLL_TILES_SEEDS: the first seed and how many. */
#include "swarm/budget.h"
#include "swarm/tiles.h"

#include "base/merkle.h"
#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TILES_MAX 700

static struct at_buf leaves_of(uint32_t tiles)
{
    struct at_buf leaves = {0};
    for (uint32_t i = 0; i < tiles; i++) {
        struct at_hash leaf = at_merkle_leaf(at_span(&i, sizeof i)); /* tile i is its own number */
        assert_int_equal(at_buf_append(&leaves, leaf.b, sizeof leaf.b), AT_OK);
    }
    return leaves;
}

static void start(struct at_tiles *t, uint32_t tiles, uint64_t seed)
{
    struct at_buf leaves = leaves_of(tiles);
    memset(t, 0, sizeof *t);
    assert_int_equal(at_tiles_start(t, at_buf_span(&leaves), tiles, seed), AT_OK);
    at_buf_release(&leaves);
}

static enum at_tiles_verdict give(struct at_tiles *t, uint64_t id, uint32_t tile, uint64_t now_ms)
{
    return at_tiles_got(t, id, tile, at_span(&tile, sizeof tile), now_ms);
}

/* The tiles that would be asked now, in order; all from `id`. */
static size_t asked(struct at_tiles *t, uint64_t now_ms, uint64_t id, uint32_t *ret_tiles)
{
    size_t n = 0;
    uint64_t who;
    for (uint32_t tile; at_tiles_next(t, now_ms, &who, &tile); n++) {
        assert_int_equal(who, id);
        ret_tiles[n] = tile;
    }
    return n;
}

static struct at_span only(uint8_t *bits, size_t n, uint32_t tile)
{
    memset(bits, 0, n);
    bits[tile / 8] |= (uint8_t)(1u << tile % 8);
    return at_span(bits, tile / 8 + 1);
}

static void rarest_first(void **state)
{
    struct at_tiles t;
    uint8_t bits[13];
    uint32_t got[AT_TILES_WINDOW_MAX];
    start(&t, 100, 250); /* ascending from 50 */
    assert_true(at_tiles_peer_holds(&t, 1, true, at_span(NULL, 0)));
    assert_int_equal(asked(&t, 0, 1, got), 4);
    for (uint32_t i = 0; i < 4; i++) assert_int_equal(got[i], 50 + i); /* all alike */
    at_tiles_release(&t);

    start(&t, 100, 250);
    assert_true(at_tiles_peer_holds(&t, 1, true, at_span(NULL, 0)));
    memset(bits, 0xff, sizeof bits);
    bits[3] = 0;
    bits[12] = 0x0f;
    assert_true(at_tiles_peer_holds(&t, 2, false, at_span(bits, sizeof bits)));
    uint64_t who;
    uint32_t tile, from_1 = 0;
    while (at_tiles_next(&t, 0, &who, &tile)) { /* peer 1 is asked for what only it has, peer 2 for the others */
        if (who == 1) assert_int_equal(tile, 24 + from_1++);
        if (who == 2) assert_true(tile >= 50 && tile < 54);
    }
    assert_int_equal(from_1, 4);
    at_tiles_release(&t);
}

static void windows_follow_the_link(void **state)
{
    struct at_tiles t;
    uint32_t got[AT_TILES_WINDOW_MAX];
    start(&t, TILES_MAX, 0);
    assert_true(at_tiles_peer_holds(&t, 1, true, at_span(NULL, 0)));
    assert_int_equal(asked(&t, 0, 1, got), 4);
    for (int i = 0; i < 4; i++) assert_int_equal(give(&t, 1, got[i], 10), AT_TILES_NEW);
    assert_int_equal(asked(&t, 10, 1, got), 8); /* quick answers: one more each */
    for (int i = 0; i < 8; i++) assert_int_equal(give(&t, 1, got[i], 20), AT_TILES_NEW);
    assert_int_equal(asked(&t, 20, 1, got), AT_TILES_WINDOW_MAX);
    for (int i = 0; i < 3; i++) assert_int_equal(give(&t, 1, got[i], 20 + AT_TILES_SLOW_MS + 1), AT_TILES_NEW);
    assert_int_equal(asked(&t, 5000, 1, got), 0); /* it may owe 2 and owes 13 */
    at_tiles_release(&t);
}

static void stalled_peer_is_passed_over(void **state)
{
    struct at_tiles t;
    uint32_t first[AT_TILES_WINDOW_MAX], again[AT_TILES_WINDOW_MAX];
    start(&t, 4, 0);
    assert_true(at_tiles_peer_holds(&t, 1, true, at_span(NULL, 0)));
    assert_int_equal(asked(&t, 100, 1, first), 4);
    assert_int_equal(asked(&t, 100 + AT_TILES_STALL_MS - 1, 1, again), 0);
    assert_int_equal(at_tiles_deadline_ms(&t, 100 + AT_TILES_AGAIN_MS), 100 + AT_TILES_STALL_MS);
    assert_int_equal(asked(&t, 100 + AT_TILES_STALL_MS, 1, again), 0); /* not from it again */
    assert_int_equal(at_tiles_deadline_ms(&t, 100 + AT_TILES_STALL_MS), UINT64_MAX);
    assert_true(at_tiles_peer_holds(&t, 2, true, at_span(NULL, 0)));
    assert_int_equal(asked(&t, 100 + AT_TILES_STALL_MS, 2, again), 4);
    for (int i = 0; i < 3; i++) assert_int_equal(give(&t, 2, again[i], 7000), AT_TILES_NEW);
    assert_int_equal(give(&t, 1, again[0], 7000), AT_TILES_KNOWN); /* late and right: no harm, and no use */
    assert_int_equal(give(&t, 1, again[3], 7000), AT_TILES_NEW);
    assert_int_equal(t.missing, 0);
    assert_int_equal(give(&t, 2, again[3], 7000), AT_TILES_KNOWN);
    at_tiles_release(&t);
}

/* A peer that has moved on says that it holds nothing, and then answers what it was asked before: it owed that. */
static void answers_that_cross_an_empty_map(void **state)
{
    struct at_tiles t;
    uint32_t got[AT_TILES_WINDOW_MAX];
    start(&t, 100, 0);
    assert_true(at_tiles_peer_holds(&t, 1, true, at_span(NULL, 0)));
    assert_int_equal(asked(&t, 0, 1, got), 4);
    at_tiles_peer_empty(&t, 1);
    assert_false(at_tiles_starved(&t)); /* something may still come */
    assert_int_equal(asked(&t, 10, 1, got), 0);
    assert_int_equal(give(&t, 1, 0, 20), AT_TILES_NEW);
    for (uint32_t tile = 1; tile < 4; tile++) assert_true(at_tiles_missing(&t, 1, tile));
    assert_false(at_tiles_missing(&t, 1, 1));
    assert_true(at_tiles_starved(&t));
    at_tiles_peer_empty(&t, 1); /* said again: it owes nothing, and its place is free */
    for (uint64_t id = 2; id < 2 + AT_TILES_PEERS_MAX; id++)
        assert_true(at_tiles_peer_holds(&t, id, true, at_span(NULL, 0)));
    at_tiles_release(&t);
}

static void liars(void **state)
{
    struct at_tiles t;
    uint32_t got[AT_TILES_WINDOW_MAX], other = 77;
    start(&t, 50, 0);
    assert_true(at_tiles_peer_holds(&t, 1, true, at_span(NULL, 0)));
    assert_int_equal(asked(&t, 0, 1, got), 4);
    assert_int_equal(give(&t, 1, 49, 1), AT_TILES_UNASKED);
    assert_int_equal(give(&t, 9, got[0], 1), AT_TILES_UNASKED); /* no peer */
    assert_int_equal(give(&t, 0, got[0], 1), AT_TILES_UNASKED);
    assert_int_equal(give(&t, 1, UINT32_MAX, 1), AT_TILES_UNASKED);
    assert_int_equal(at_tiles_got(&t, 1, got[0], at_span(&other, sizeof other), 1), AT_TILES_WRONG);
    assert_int_equal(give(&t, 1, got[0], 1), AT_TILES_UNASKED); /* one chance a tile */
    at_tiles_peer_gone(&t, 1);
    assert_int_equal(t.free, 50);
    assert_true(at_tiles_starved(&t));
    /* One that claims everything and has nothing is asked once for each. */
    assert_true(at_tiles_peer_holds(&t, 2, true, at_span(NULL, 0)));
    assert_false(at_tiles_starved(&t));
    uint32_t asks = 0, tile;
    for (uint64_t who; at_tiles_next(&t, asks, &who, &tile); asks++) {
        assert_true(at_tiles_missing(&t, who, tile));
        assert_false(at_tiles_missing(&t, who, tile));
        assert_true(asks < 50);
    }
    assert_int_equal(asks, 50);
    assert_true(at_tiles_starved(&t));
    at_tiles_release(&t);
}

static void everyone_leaves_and_some_come_back(void **state)
{
    struct at_tiles t;
    uint32_t got[AT_TILES_WINDOW_MAX];
    start(&t, 20, 3);
    assert_true(at_tiles_peer_holds(&t, 1, true, at_span(NULL, 0)));
    assert_int_equal(asked(&t, 0, 1, got), 4);
    assert_int_equal(give(&t, 1, got[2], 1), AT_TILES_NEW);
    at_tiles_peer_gone(&t, 1);
    at_tiles_peer_gone(&t, 1); /* twice is once */
    assert_true(at_tiles_starved(&t));
    assert_int_equal(asked(&t, 1000, 1, got), 0);
    assert_int_equal(at_tiles_deadline_ms(&t, 1000), UINT64_MAX);
    assert_int_equal(t.missing, 19);
    uint64_t who;
    uint32_t tile, n = 0;
    assert_true(at_tiles_peer_holds(&t, 7, true, at_span(NULL, 0)));
    for (; at_tiles_next(&t, 2000, &who, &tile); n++) assert_int_equal(give(&t, 7, tile, 2001), AT_TILES_NEW);
    assert_int_equal(n, 19);
    assert_int_equal(t.missing, 0);
    assert_false(at_tiles_starved(&t));
    at_tiles_release(&t);
}

static void resumed_with_one_tile_left(void **state)
{
    struct at_tiles t;
    uint8_t bits[2];
    uint32_t got[AT_TILES_WINDOW_MAX];
    start(&t, 9, 0);
    for (uint32_t i = 0; i < 9; i++)
        if (i != 8) at_tiles_found(&t, i);
    at_tiles_found(&t, 3); /* twice is once */
    assert_int_equal(t.missing, 1);
    assert_true(at_span_eq(at_tiles_map(&t), at_span("\xff", 1)));
    assert_true(at_tiles_peer_holds(&t, 1, false, at_span("\xff", 1)));
    assert_true(at_tiles_starved(&t)); /* it has all but the one */
    assert_int_equal(asked(&t, 0, 1, got), 0);
    assert_true(at_tiles_peer_holds(&t, 1, false, only(bits, 2, 8)));
    assert_int_equal(asked(&t, 0, 1, got), 1);
    assert_int_equal(got[0], 8);
    /* the endgame: late, so a second peer is asked too; and no third */
    for (uint64_t id = 2; id < 5; id++) assert_true(at_tiles_peer_holds(&t, id, true, at_span(NULL, 0)));
    assert_int_equal(asked(&t, AT_TILES_AGAIN_MS - 1, 2, got), 0);
    assert_int_equal(at_tiles_deadline_ms(&t, 1), AT_TILES_AGAIN_MS);
    uint64_t who = 0;
    uint32_t tile;
    assert_true(at_tiles_next(&t, AT_TILES_AGAIN_MS, &who, &tile));
    assert_true(who > 1 && tile == 8);
    assert_false(at_tiles_next(&t, 2 * AT_TILES_AGAIN_MS, &(uint64_t){0}, &tile));
    assert_int_equal(give(&t, who, 8, 900), AT_TILES_NEW);
    assert_int_equal(give(&t, 1, 8, 901), AT_TILES_KNOWN);
    assert_true(at_span_eq(at_tiles_map(&t), at_span("\xff\x01", 2)));
    at_tiles_release(&t);
}

static void no_more_peers_than_there_is_room_for(void **state)
{
    struct at_tiles t;
    start(&t, 10, 0);
    for (uint64_t id = 1; id <= AT_TILES_PEERS_MAX; id++)
        assert_true(at_tiles_peer_holds(&t, id, true, at_span(NULL, 0)));
    assert_false(at_tiles_peer_holds(&t, 1000, true, at_span(NULL, 0)));
    assert_true(at_tiles_peer_holds(&t, 5, false, at_span("\x01", 1))); /* known ones may say more */
    at_tiles_peer_gone(&t, 9);
    assert_true(at_tiles_peer_holds(&t, 1000, true, at_span(NULL, 0)));
    at_tiles_release(&t);
}

/* ---- many seeds: peers with parts of it, that answer late, lie, leave and come ---- */
struct play {
    struct at_tiles t;
    uint64_t seed, draws, now_ms;
    struct {
        bool here, lies, slow;
        uint8_t bits[(TILES_MAX + 7) / 8];
    } peer[AT_TILES_PEERS_MAX + 1];
    struct {
        bool used;
        uint64_t id, due_ms;
        uint32_t tile;
    } way[AT_TILES_PEERS_MAX * AT_TILES_WINDOW_MAX];
    uint64_t asks, wrong;
};

static uint64_t draw(struct play *p, uint64_t below)
{
    struct at_philox r = at_philox(p->seed, AT_RNG_TEST, 7, p->draws++);
    return ((uint64_t)r.v[0] << 32 | r.v[1]) % below;
}

static void arrive_peer(struct play *p, uint64_t id, bool whole)
{
    uint64_t share = 1 + draw(p, 8);
    p->peer[id].here = true;
    p->peer[id].lies = !whole && draw(p, 5) == 0;
    p->peer[id].slow = !whole && draw(p, 6) == 0;
    memset(p->peer[id].bits, whole ? 0xff : 0, sizeof p->peer[id].bits);
    for (uint32_t i = 0; !whole && i < p->t.tiles; i++)
        if (draw(p, 8) < share) p->peer[id].bits[i / 8] |= (uint8_t)(1u << i % 8);
    size_t n = whole ? 0 : (p->t.tiles + 7) / 8;
    assert_true(at_tiles_peer_holds(&p->t, id, whole, at_span(p->peer[id].bits, n)));
}

static void leave(struct play *p, uint64_t id)
{
    p->peer[id].here = false;
    at_tiles_peer_gone(&p->t, id);
    for (size_t k = 0; k < sizeof p->way / sizeof *p->way; k++)
        if (p->way[k].id == id) p->way[k].used = false;
}

static void ask_all(struct play *p)
{
    uint64_t id;
    uint32_t tile;
    while (at_tiles_next(&p->t, p->now_ms, &id, &tile)) {
        size_t k = 0;
        while (p->way[k].used) k++;
        assert_true(p->peer[id].here && !at_tiles_has(&p->t, tile));
        assert_true(p->peer[id].bits[tile / 8] >> tile % 8 & 1); /* never asked for what it does not hold */
        uint64_t takes = p->peer[id].slow ? 1000 + draw(p, 9000) : 1 + draw(p, 300);
        p->way[k].used = true;
        p->way[k].id = id;
        p->way[k].tile = tile;
        p->way[k].due_ms = p->now_ms + takes;
        p->asks++;
    }
}

static void answer_due(struct play *p)
{
    for (size_t k = 0; k < sizeof p->way / sizeof *p->way; k++) {
        uint64_t id = p->way[k].id;
        uint32_t tile = p->way[k].tile, wrong = tile ^ 1;
        if (!p->way[k].used || p->way[k].due_ms > p->now_ms) continue;
        p->way[k].used = false;
        if (p->peer[id].lies && draw(p, 3) == 0) {
            bool before = at_tiles_has(&p->t, tile);
            assert_int_equal(at_tiles_got(&p->t, id, tile, at_span(&wrong, sizeof wrong), p->now_ms), AT_TILES_WRONG);
            assert_int_equal(at_tiles_has(&p->t, tile), before);
            p->wrong++;
            leave(p, id);
        } else if (p->peer[id].lies && draw(p, 2) == 0) {
            p->peer[id].bits[tile / 8] &= (uint8_t) ~(1u << tile % 8);
            assert_true(at_tiles_missing(&p->t, id, tile));
        } else {
            bool known = at_tiles_has(&p->t, tile);
            assert_int_equal(give(&p->t, id, tile, p->now_ms), known ? AT_TILES_KNOWN : AT_TILES_NEW);
        }
    }
}

static void check_counts(const struct play *p)
{
    uint32_t missing = 0, owed = 0;
    for (uint32_t i = 0; i < p->t.tiles; i++) missing += !at_tiles_has(&p->t, i);
    assert_int_equal(missing, p->t.missing);
    for (size_t k = 0; k < AT_TILES_PEERS_MAX; k++) {
        assert_true(p->t.peer[k].owes <= AT_TILES_WINDOW_MAX);
        owed += p->t.peer[k].owes;
    }
    uint32_t on_the_way = 0;
    for (size_t k = 0; k < sizeof p->way / sizeof *p->way; k++) on_the_way += p->way[k].used;
    assert_int_equal(owed, on_the_way);
}

static void play_seed(uint64_t seed)
{
    struct play *p = calloc(1, sizeof *p);
    p->seed = seed;
    uint32_t tiles = 1 + (uint32_t)draw(p, TILES_MAX);
    start(&p->t, tiles, seed);
    for (uint32_t i = 0; i < tiles; i++)
        if (draw(p, 4) == 0) at_tiles_found(&p->t, i);
    uint32_t missing = p->t.missing;
    for (int turns = 0; p->t.missing > 0; turns++) {
        uint64_t id = 1 + draw(p, 12);
        if (turns > 100000) fail_msg("ATOLL_TILES_SEED=%llu: no end", (unsigned long long)seed);
        if (turns < 200 && !p->peer[id].here && draw(p, 3) == 0) arrive_peer(p, id, false);
        if (turns < 200 && p->peer[id].here && draw(p, 40) == 0) leave(p, id);
        if (turns == 200 && !p->peer[13].here) arrive_peer(p, 13, true); /* at last an honest one with all of it */
        ask_all(p);
        check_counts(p);
        p->now_ms += 1 + draw(p, 60);
        answer_due(p);
    }
    /* Wasted: what liars answered, what stalled, those who left, and the endgame's share. */
    assert_true(p->asks >= missing);
    at_tiles_release(&p->t);
    free(p);
}

static void many_seeds(void **state)
{
    const char *first = getenv("ATOLL_TILES_SEED"), *count = getenv("ATOLL_TILES_SEEDS");
    uint64_t from = first ? strtoull(first, NULL, 10) : 1, n = count ? strtoull(count, NULL, 10) : 60;
    print_message("ATOLL_TILES_SEED=%llu ATOLL_TILES_SEEDS=%llu\n", (unsigned long long)from, (unsigned long long)n);
    for (uint64_t seed = from; seed < from + n; seed++) play_seed(seed);
}

/* With quick honest peers nothing is asked twice, and all of them are used. */
static void honest_peers_share_the_work(void **state)
{
    struct at_tiles t;
    uint64_t from[4] = {0}, who;
    uint32_t tile, on_way[64];
    uint64_t way_id[64];
    start(&t, 640, 5);
    for (uint64_t id = 1; id <= 4; id++) assert_true(at_tiles_peer_holds(&t, id, true, at_span(NULL, 0)));
    for (uint64_t now = 0; t.missing > 0; now += 5) {
        size_t n = 0;
        for (; n < 64 && at_tiles_next(&t, now, &who, &tile); n++) {
            on_way[n] = tile;
            way_id[n] = who;
            from[who - 1]++;
        }
        for (size_t k = 0; k < n; k++) assert_int_equal(give(&t, way_id[k], on_way[k], now + 5), AT_TILES_NEW);
    }
    for (int i = 0; i < 4; i++) assert_int_equal(from[i], 160);
    at_tiles_release(&t);
}

/* ---- the budget ---- */
static void budget_gives_its_rate(void **state)
{
    struct at_budget b, none = {0};
    at_budget_init(&b, 1000, 500, 100);
    assert_true(at_budget_has(&b, 100));
    at_budget_spend(&b, 700); /* more than is left: a debt of 200 */
    assert_false(at_budget_has(&b, 100));
    for (uint64_t now = 100; now <= 301; now++)
        assert_int_equal(at_budget_ready_ms(&b, now), 301); /* asking earns nothing */
    assert_int_equal(b.left, -200);
    assert_false(at_budget_has(&b, 300));
    assert_int_equal(at_budget_ready_ms(&b, 300), 301);
    assert_true(at_budget_has(&b, 301));
    assert_int_equal(at_budget_ready_ms(&b, 302), 302);
    assert_true(at_budget_has(&b, 1000000)); /* a long rest gives a burst and not more */
    at_budget_spend(&b, 500);
    assert_false(at_budget_has(&b, 1000000));
    at_budget_init(&b, 3, 1, 0); /* three bytes a second, asked every millisecond */
    uint64_t spent = 0;
    for (uint64_t now = 0; now < 10000; now++)
        if (at_budget_has(&b, now)) {
            at_budget_spend(&b, 1);
            spent++;
        }
    assert_true(spent >= 29 && spent <= 31);
    at_budget_spend(&none, UINT64_MAX);
    assert_true(at_budget_has(&none, 5));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(rarest_first),
                                       cmocka_unit_test(windows_follow_the_link),
                                       cmocka_unit_test(stalled_peer_is_passed_over),
                                       cmocka_unit_test(answers_that_cross_an_empty_map),
                                       cmocka_unit_test(liars),
                                       cmocka_unit_test(everyone_leaves_and_some_come_back),
                                       cmocka_unit_test(resumed_with_one_tile_left),
                                       cmocka_unit_test(no_more_peers_than_there_is_room_for),
                                       cmocka_unit_test(many_seeds),
                                       cmocka_unit_test(honest_peers_share_the_work),
                                       cmocka_unit_test(budget_gives_its_rate)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
