/* world_tiles_test.c: states by tiles between real machines: many peers, wrong tiles, deaths at every event of a fetch,
 * returns by updates or by tiles, the budget, and seeds of all of it. ATOLL_SIM_SEED and ATOLL_SIM_SEEDS: the first
 * seed and how many. */
#include "sim/world_rig.h"
#include "swarm/tiles.h"

/* Five nodes from the start and a newcomer, node 5; a state of 64 tiles. */
enum { NEWCOMER = 5, TILES = 64 };

static struct at_world_options many_tiles(uint64_t seed)
{
    struct at_world_options o = small(seed);
    o.nodes = 6;
    o.min_members = 5;
    o.rounds = 4;
    o.step_ms = 700; /* rounds of two seconds */
    o.state_bytes = TILES * 100;
    o.tile_bytes = 100;
    return o;
}

/* All but the last begin; the last comes at `at_ms` and is linked to all members a little later. */
static struct at_world *with_newcomer(const struct at_world_options *o, uint64_t at_ms)
{
    struct at_world *w = NULL;
    int last = o->nodes - 1;
    assert_int_equal(at_world_init(o, &w), AT_OK);
    for (int i = 0; i < last; i++) at_world_start_node(w, i, (uint64_t)i);
    at_world_start_node(w, last, at_ms);
    for (int i = 1; i < last; i++) at_world_join_up(w, last, i, at_ms + 5);
    return w;
}

static void from_all_at_once(void **state)
{
    (void)state;
    struct at_world_options o = many_tiles(21);
    o.full_percent = 10;
    struct at_world *w = with_newcomer(&o, 2500);
    assert_false(at_world_run(w, 3500));
    assert_int_equal(at_world_status(w, NEWCOMER)->phase, AT_NODE_PHASE_WAITING);
    struct at_world_traffic t = at_world_traffic(w, NEWCOMER);
    assert_int_equal(t.tiles_in, TILES); /* nothing twice */
    assert_int_equal(t.tile_bytes_in, o.state_bytes);
    for (int i = 0; i < NEWCOMER; i++) assert_true(at_world_traffic(w, i).tiles_out > 0);
    must_finish(w, 60000);
    assert_int_equal(at_world_included(w, 3), 6);
    at_world_release(w);
}

static void wrong_tiles(void **state)
{
    (void)state;
    struct at_world_options o = many_tiles(22);
    struct at_world *w = with_newcomer(&o, 2500);
    at_world_spoil_tiles(w, 2);
    at_world_spoil_tiles(w, 3);
    assert_false(at_world_run(w, 3500));
    struct at_world_traffic t = at_world_traffic(w, NEWCOMER);
    assert_int_equal(t.wrong_tiles, 2); /* each was caught at its first, and lost its link */
    assert_true(t.tiles_in >= TILES + 2 && t.tiles_in <= TILES + 2 * AT_TILES_WINDOW_MAX);
    assert_int_equal(at_world_status(w, NEWCOMER)->phase, AT_NODE_PHASE_WAITING);
    must_finish(w, 60000);
    assert_int_equal(at_world_included(w, 3), 6);
    at_world_release(w);
}

/* A Byzantine member's machine is honest, and what leaves it is not. */
static void tiles_changed_on_the_way(void **state)
{
    (void)state;
    struct at_world_options o = many_tiles(32);
    struct at_world *w = with_newcomer(&o, 2500);
    at_world_set(w, 2, AT_WORLD_HOSTILE, AT_WORLD_HOSTILE_GARBAGE, 2500);
    assert_false(at_world_run(w, 3500));
    assert_int_equal(at_world_traffic(w, NEWCOMER).wrong_tiles, 1);
    assert_int_equal(at_world_status(w, NEWCOMER)->phase, AT_NODE_PHASE_WAITING);
    assert_true(at_world_run(w, 120000));
    assert_true(at_world_check(w));
    assert_null(at_world_unfinished(w));
    assert_int_equal(at_world_included(w, 3), 5);
    at_world_release(w);
}

/* A second newcomer has its tiles from the first as well: before that one has the whole state. */
static void newcomers_serve_each_other(void **state)
{
    (void)state;
    struct at_world_options o = many_tiles(23);
    struct at_world *w = NULL;
    o.nodes = 3;
    o.min_members = 1;
    o.rounds = 3;
    o.step_ms = 4000;
    o.serve_bytes_per_s = 1600; /* four seconds for a state */
    assert_int_equal(at_world_init(&o, &w), AT_OK);
    at_world_start_node(w, 0, 0);
    for (int i = 1; i < 3; i++) at_world_start_node(w, i, 13000);
    at_world_join_up(w, 1, 2, 13020);
    must_finish(w, 90000);
    uint64_t given = at_world_traffic(w, 0).tiles_out;
    uint64_t exchanged = at_world_traffic(w, 1).tiles_out + at_world_traffic(w, 2).tiles_out;
    assert_true(exchanged > TILES / 4);
    assert_true(given + exchanged <= 3 * TILES); /* each had it once, and a bounded rest twice */
    at_world_release(w);
}

static uint64_t newcomer_dies(uint64_t event, enum at_world_crash how, uint64_t *ret_saved)
{
    struct at_world_options o = many_tiles(24);
    o.nodes = 3;
    o.min_members = o.rounds = 2;
    o.state_bytes = 2000;
    struct at_world *w = with_newcomer(&o, 2500);
    at_world_crash_at_event(w, 2, event, how, 100);
    at_world_join_up(w, 2, 1, 2800); /* again, should it have died */
    assert_false(at_world_run(w, 3500));
    uint64_t events = at_world_events(w, 2);
    *ret_saved += at_world_traffic(w, 2).tiles_found;
    must_finish(w, 60000);
    assert_int_equal(at_world_traffic(w, 2).wrong_tiles, 0);
    at_world_release(w);
    return events;
}

static void newcomer_dies_at_every_event(void **state)
{
    (void)state;
    uint64_t found = 0, events = newcomer_dies(UINT64_MAX, AT_WORLD_CRASH_NEVER, &found);
    assert_true(events > 40);
    assert_int_equal(found, 0);
    for (uint64_t k = 0; k < events; k++)
        newcomer_dies(k, k % 2 ? AT_WORLD_CRASH_BEFORE_OPS : AT_WORLD_CRASH_AFTER_OPS, &found);
    assert_true(found > 0); /* what was on disk was not fetched again */
    print_message("%llu crash points, %llu tiles found on disk\n", (unsigned long long)events,
                  (unsigned long long)found);
}

/* Those who serve die in the middle; the steward's tiles, or their return, end it. */
static void servers_die(void **state)
{
    (void)state;
    struct at_world_options o = many_tiles(25);
    o.serve_bytes_per_s = 1000;
    o.step_ms = 3000;
    struct at_world *w = with_newcomer(&o, 9200);
    for (int i = 0; i < NEWCOMER; i++) {
        at_world_crash(w, i, 9500 + 100 * (uint64_t)i, i % 2);
        at_world_start_node(w, i, 11000 + 200 * (uint64_t)i);
    }
    must_finish(w, 200000);
    assert_int_equal(at_world_included(w, 3), 6);
    at_world_release(w);
}

/* One wrong byte in an own state: one tile is fetched and not all. */
static void desync_costs_a_tile(void **state)
{
    (void)state;
    struct at_world_options o = many_tiles(26);
    o.nodes = 5;
    o.step_ms = 200;
    struct at_world *w = make(&o);
    at_world_corrupt_state(w, 1);
    must_finish(w, 90000);
    assert_int_equal(at_world_desyncs(w, 1), 1);
    assert_int_equal(at_world_traffic(w, 1).tiles_in, 1);
    assert_int_equal(at_world_traffic(w, 1).tiles_found, TILES - 1);
    assert_int_equal(at_world_included(w, 3), 5);
    at_world_release(w);
}

/* Away for five rounds of four members. Small updates are replayed: what comes in is a small part of the state. Large
 * ones are not: then the tiles come. */
static void return_after_five_rounds(bool by_updates)
{
    struct at_world_options o = small(27);
    o.nodes = 5;
    o.min_members = 5;
    o.rounds = 12;
    o.step_ms = 300;
    o.tile_bytes = 4000;
    o.state_bytes = 400000;
    o.update_bytes = by_updates ? 300 : 30000; /* 20 of them: 6000 or 600000 bytes */
    struct at_world *w = make(&o);
    assert_false(at_world_run(w, 1500));
    uint32_t away_from = at_world_status(w, 0)->round;
    at_world_crash(w, 4, 1500, false);
    uint64_t now = 1500;
    while (at_world_status(w, 0)->round < away_from + 5) assert_false(at_world_run(w, now += 20));
    uint64_t before = at_world_traffic(w, 4).update_bytes_in;
    at_world_start_node(w, 4, now);
    while (!at_world_status(w, 4) || at_world_status(w, 4)->phase != AT_NODE_PHASE_TRAINING) {
        assert_false(at_world_run(w, now += 20));
        assert_true(now < 60000);
    }
    struct at_world_traffic t = at_world_traffic(w, 4);
    uint64_t updates = t.update_bytes_in - before;
    print_message("back with %llu bytes of updates and %llu of tiles; a state has %u\n", (unsigned long long)updates,
                  (unsigned long long)t.tile_bytes_in, o.state_bytes);
    if (by_updates) {
        assert_int_equal(t.tile_bytes_in, 0);
        assert_true(updates > 0 && updates <= o.state_bytes / 50);
    } else {
        assert_true(t.tile_bytes_in > 0 && t.tile_bytes_in <= o.state_bytes);
        assert_true(updates <= 8 * o.update_bytes); /* of the rounds that went on meanwhile */
    }
    must_finish(w, 90000);
    at_world_release(w);
}
static void return_by_updates(void **state)
{
    (void)state;
    return_after_five_rounds(true);
}
static void return_by_tiles(void **state)
{
    (void)state;
    return_after_five_rounds(false);
}

/* The second round is open, and no update on its way. */
static struct at_world *slow_fetch(struct at_world_options *o, uint64_t at_ms)
{
    struct at_world *w = NULL;
    o->step_ms = 20000;
    o->round_ms_max = 120000;
    o->tile_bytes = 1000;
    o->state_bytes = TILES * 1000;
    assert_int_equal(at_world_init(o, &w), AT_OK);
    for (int i = 0; i < o->nodes - 1; i++) at_world_start_node(w, i, 0);
    at_world_start_node(w, o->nodes - 1, at_ms);
    return w;
}

static void budget_is_kept(void **state)
{
    (void)state;
    struct at_world_options o = many_tiles(28);
    o.nodes = 3;
    o.min_members = 2;
    o.serve_bytes_per_s = 4000; /* 16 s for a state */
    struct at_world *w = slow_fetch(&o, 63000);
    at_world_wall(w, 1, 2, 0, 73000); /* of one server */
    assert_false(at_world_run(w, 73000));
    uint64_t bytes = at_world_traffic(w, 2).tile_bytes_in;
    print_message("%llu bytes of tiles in ten seconds at %llu a second\n", (unsigned long long)bytes,
                  (unsigned long long)o.serve_bytes_per_s);
    assert_true(bytes >= 30000 && bytes <= 42000);
    must_finish(w, 600000);
    assert_int_equal(at_world_included(w, 3), 3);
    at_world_release(w);
}

/* While updates go their way a state gets a quarter, and the round is as long as without a newcomer. */
static uint64_t second_round_ends(bool newcomer, uint64_t *ret_bytes)
{
    struct at_world_options o = many_tiles(31);
    o.nodes = 4;
    o.min_members = 3;
    o.update_bytes = 3000000;
    o.serve_bytes_per_s = 4000;
    struct at_world *w = slow_fetch(&o, newcomer ? 115000 : 500000);
    uint64_t now = 119000;
    while (at_world_log_count(w, AT_RECORD_EPOCH) < 2) assert_false(at_world_run(w, ++now));
    *ret_bytes = newcomer ? at_world_traffic(w, 3).tile_bytes_in : 0;
    at_world_release(w);
    return now;
}
static void exchange_does_not_wait(void **state)
{
    (void)state;
    uint64_t bytes = 0, none = 0, with = second_round_ends(true, &bytes), without = second_round_ends(false, &none);
    assert_true(bytes > 0);
    assert_true(with <= without + 20);
}

static void limit_of_the_fetcher(void **state)
{
    (void)state;
    struct at_world_options o = many_tiles(29);
    o.fetch_bytes_per_s = 4000;
    struct at_world *w = slow_fetch(&o, 63000);
    for (int i = 1; i < NEWCOMER; i++) at_world_join_up(w, NEWCOMER, i, 63005);
    assert_false(at_world_run(w, 70000));
    uint64_t bytes = at_world_traffic(w, NEWCOMER).tile_bytes_in;
    print_message("%llu bytes of tiles in seven seconds\n", (unsigned long long)bytes);
    assert_true(bytes >= 20000 && bytes <= 30000);
    must_finish(w, 600000);
    at_world_release(w);
}

/* Everybody saves; everybody who is linked to all knows. */
static void holders_are_counted(void **state)
{
    (void)state;
    struct at_world_options o = small(30);
    o.rounds = 2;
    o.step_ms = 1000;
    struct at_world *w = make(&o);
    at_world_join_up(w, 1, 2, 100);
    assert_false(at_world_run(w, 1000)); /* the initial state */
    for (int i = 0; i < 3; i++) assert_int_equal(at_world_status(w, i)->checkpoint_holders, 3);
    at_world_crash(w, 2, 1000, false);
    assert_false(at_world_run(w, 1100));
    assert_int_equal(at_world_status(w, 0)->checkpoint_holders, 2);
    at_world_start_node(w, 2, 1200);
    assert_false(at_world_run(w, 5500)); /* the second round: of a state that all of them saved */
    assert_int_equal(at_world_status(w, 0)->round, 1);
    assert_int_equal(at_world_status(w, 0)->checkpoint_holders, 3);
    must_finish(w, 60000);
    at_world_release(w);
}

static void run_seed(uint64_t seed)
{
    uint64_t x = seed * 7907 + 3;
    struct at_world_options o = many_tiles(seed);
    o.rounds = 2 + (uint32_t)(lcg(&x) % 6);
    o.latency_ms_max = 1 + (uint32_t)(lcg(&x) % 80);
    o.sync_ms_max = 1 + (uint32_t)(lcg(&x) % 30);
    o.step_ms = 100 + (uint32_t)(lcg(&x) % 600);
    o.full_percent = (uint32_t)(lcg(&x) % 30);
    o.update_bytes = lcg(&x) % 2 ? 100 : 3000;
    o.serve_bytes_per_s = lcg(&x) % 2 ? 0 : 12000 + lcg(&x) % 40000; /* a steward stays ten seconds at the end */
    struct at_world *w = with_newcomer(&o, 1500 + lcg(&x) % 1000);
    if (lcg(&x) % 3 == 0) at_world_spoil_tiles(w, 1 + (int)(lcg(&x) % 4)); /* never the steward: it may be the last */
    for (uint64_t faults = lcg(&x) % 6; faults > 0; faults--) {
        int node = (int)(lcg(&x) % 6), other = 1 + (int)(lcg(&x) % 5);
        uint64_t at = 1500 + lcg(&x) % 4000;
        switch (lcg(&x) % 4) {
        case 0:
            at_world_crash(w, node, at, lcg(&x) % 3 == 0);
            at_world_start_node(w, node, at + 1 + lcg(&x) % 3000);
            break;
        case 1:
            at_world_break_links(w, node, at);
            break;
        case 2:
            at_world_partition(w, node, at, at + lcg(&x) % 6000);
            break;
        case 3:
            if (other != node) at_world_join_up(w, node, other, at);
            break;
        }
    }
    for (int i = 0; i < 6; i++) at_world_start_node(w, i, 20000);
    if (!at_world_run(w, 300000) || !at_world_check(w)) {
        fprintf(stderr, "%s\n", at_world_trace(w));
        fail_msg("ATOLL_SIM_SEED=%llu ATOLL_SIM_SEEDS=1: %s", (unsigned long long)seed,
                 at_world_violation(w) ? at_world_violation(w) : "not done after 300 s");
    }
    at_world_release(w);
}

static void random_seeds(void **state)
{
    (void)state;
    uint64_t first = from_env("ATOLL_SIM_SEED", 1), count = from_env("ATOLL_SIM_SEEDS", 10);
    for (uint64_t seed = first; seed < first + count; seed++) run_seed(seed);
    print_message("seeds %llu to %llu\n", (unsigned long long)first, (unsigned long long)(first + count - 1));
}

int main(void)
{
    if (getenv("ATOLL_SIM_ONLY")) cmocka_set_test_filter(getenv("ATOLL_SIM_ONLY"));
    const struct CMUnitTest tests[] = {cmocka_unit_test(from_all_at_once),
                                       cmocka_unit_test(wrong_tiles),
                                       cmocka_unit_test(tiles_changed_on_the_way),
                                       cmocka_unit_test(newcomers_serve_each_other),
                                       cmocka_unit_test(newcomer_dies_at_every_event),
                                       cmocka_unit_test(servers_die),
                                       cmocka_unit_test(desync_costs_a_tile),
                                       cmocka_unit_test(return_by_updates),
                                       cmocka_unit_test(return_by_tiles),
                                       cmocka_unit_test(budget_is_kept),
                                       cmocka_unit_test(exchange_does_not_wait),
                                       cmocka_unit_test(limit_of_the_fetcher),
                                       cmocka_unit_test(holders_are_counted),
                                       cmocka_unit_test(random_seeds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
