/* world_fast_test.c: rounds that are shorter than it takes to fetch a state. Whoever is left out of them must come in
 * all the same, and must not cost the others more than a fifth of their time. */
#include "sim/world_internal.h"
#include "sim/world_rig.h"

enum { NEWCOMER = 3 };

/* Three members on fast lines make a round in about a twentieth of a second. The fourth's line is slow. No seed is a
 * multiple of three: then the world gives the log out by threes, slower than it grows. */
static struct at_world *fast_rounds(uint64_t seed, uint32_t state_bytes, uint32_t slow_ms)
{
    struct at_world_options o = small(seed);
    const struct at_world_line fast = {.latency_ms = 1, .up_kbit = 1000000, .down_kbit = 1000000};
    const struct at_world_line slow = {.latency_ms = slow_ms, .up_kbit = 1600, .down_kbit = 1600};
    o.nodes = 4;
    o.rounds = 20000;
    o.step_ms = 5;
    o.update_bytes = 500;
    o.state_bytes = state_bytes;
    o.lines = true;
    struct at_world *w = make_down(&o);
    for (int i = 0; i < NEWCOMER; i++) at_world_line_set(w, i, &fast);
    at_world_line_set(w, NEWCOMER, &slow);
    start_all(w, NEWCOMER);
    at_world_start_node(w, NEWCOMER, 1000);
    return w;
}

/* Closed and applied. */
static uint32_t rounds_so_far(struct at_world *w)
{
    const struct at_node_status *steward = at_world_status(w, 0);
    return steward ? steward->round : 0;
}

static void go_on(struct at_world *w, uint64_t until_ms)
{
    assert_false(at_world_run(w, until_ms));
    if (at_world_violation(w)) fail_msg("%s", at_world_violation(w));
}

static bool newest_counts_all(struct at_world *w)
{
    return rounds_so_far(w) > 0 && at_world_included(w, rounds_so_far(w) - 1) == 4;
}

/* Until a round counts all four. */
static uint64_t comes_in(struct at_world *w, uint64_t until_ms)
{
    uint64_t now = at_world_now_ms(w);
    while (!newest_counts_all(w)) {
        if (now >= until_ms) fail_msg("left out of %u rounds", rounds_so_far(w));
        go_on(w, now += 100);
    }
    print_message("in round %u, after %llu ms\n", rounds_so_far(w), (unsigned long long)now);
    return now;
}

static void ends_well(struct at_world *w)
{
    at_world_finish(w, 0, at_world_now_ms(w));
    must_finish(w, at_world_now_ms(w) + 60000);
    at_world_release(w);
}

static void newcomer(uint64_t seed, uint32_t state_bytes, uint32_t slow_ms, uint64_t until_ms)
{
    struct at_world *w = fast_rounds(seed, state_bytes, slow_ms);
    go_on(w, 1900); /* so long others go on alone */
    assert_true(rounds_so_far(w) > 20);
    uint64_t now = comes_in(w, until_ms);
    uint32_t first = rounds_so_far(w), with = 0;
    go_on(w, now + 2000); /* and it stays: they keep step with it */
    for (uint32_t r = first; r < rounds_so_far(w); r++) with += at_world_included(w, r) == 4;
    assert_true(with > 2 && with + 1 >= rounds_so_far(w) - first);
    ends_well(w);
}

/* A fetch takes half a second: ten rounds. */
static void fetch_of_ten_rounds(void **state)
{
    (void)state;
    newcomer(55, 60000, 15, 10000);
}

/* And several seconds: a pause is long enough only when it has been left out for a while. Long (ATOLL_SIM_LONG). */
static void fetch_of_a_hundred_rounds(void **state)
{
    (void)state;
    if (!getenv("ATOLL_SIM_LONG")) skip();
    newcomer(52, 500000, 40, 120000);
}

/* A member that comes back after more rounds than are kept. */
static void return_of_a_member(void **state)
{
    (void)state;
    struct at_world *w = fast_rounds(53, 60000, 15);
    uint64_t now = comes_in(w, 10000);
    at_world_crash(w, NEWCOMER, now, false);
    go_on(w, now + 3000);
    uint32_t before = rounds_so_far(w);
    at_world_start_node(w, NEWCOMER, now + 3000);
    go_on(w, now + 3900);
    assert_true(rounds_so_far(w) > before + 4);
    (void)comes_in(w, now + 20000);
    ends_well(w);
}

/* One that joined and is never ready. */
static uint32_t rounds_with_idler(bool idler)
{
    struct at_world *w = fast_rounds(56, 60000, 15);
    struct at_keypair key = at_world_stranger_key(w, 1);
    struct at_record rec = {.kind = AT_RECORD_JOIN, .run = at_world_run_id(w), .time_ms = 1, .join = {.name = "idler"}};
    struct at_signed_record record;
    struct at_message hello = {.kind = AT_MSG_HELLO}, join = {.kind = AT_MSG_SUBMIT, .submit = {.record = &record}};
    struct at_buf bytes = {0};
    go_on(w, comes_in(w, 10000));
    uint64_t from_ms = at_world_now_ms(w);
    hello.hello.protocol = AT_PROTOCOL_VERSION;
    hello.hello.run = at_world_run_id(w);
    assert_int_equal(at_record_sign(&rec, &key, NULL, &record), AT_OK);
    if (idler) {
        uint64_t link = at_world_stranger_link(w, &key, 0);
        assert_int_equal(at_message_encode(&hello, &bytes), AT_OK);
        at_world_stranger_send(w, link, at_buf_span(&bytes));
        at_buf_clear(&bytes);
        assert_int_equal(at_message_encode(&join, &bytes), AT_OK);
        at_world_stranger_send(w, link, at_buf_span(&bytes));
        at_buf_release(&bytes);
    }
    uint32_t before = rounds_so_far(w);
    go_on(w, from_ms + 20000);
    uint32_t rounds = rounds_so_far(w) - before;
    assert_int_equal(at_world_log_count(w, AT_RECORD_JOIN), idler ? 5 : 4);
    ends_well(w);
    return rounds;
}
static void idler_costs_little(void **state)
{
    (void)state;
    uint32_t alone = rounds_with_idler(false), with = rounds_with_idler(true);
    print_message("%u rounds in twenty seconds, %u with one that is never ready\n", alone, with);
    assert_true(with < alone); /* pauses were made */
    assert_true(100 * (uint64_t)with >= 78 * (uint64_t)alone);
}

static uint32_t updates_on_disk(const struct at_world *w, int node)
{
    const struct at_world_disk *d = &w->nodes[node].disk;
    uint32_t n = 0;
    for (uint32_t i = 0; i < d->blob_count; i++) n += d->blobs[i].used && d->blobs[i].kind == AT_BLOB_UPDATE;
    return n;
}

/* A member that is killed and comes back again and again is behind all the time: it saves no state, and with seed 57, where
 * the log comes by threes, it never sees the pause between two rounds either. Its disk does not fill up: ten rounds that can
 * be replayed, and eight until the others are thrown away. */
static void kept_behind(uint64_t seed, uint32_t slow_ms, uint32_t up_ms, uint32_t down_ms, uint64_t until_ms)
{
    struct at_world *w = fast_rounds(seed, 60000, slow_ms);
    uint64_t now = 3000;
    go_on(w, now);
    for (bool up = true; now < until_ms; up = !up) {
        if (up)
            at_world_crash(w, NEWCOMER, now, false);
        else
            at_world_start_node(w, NEWCOMER, now);
        for (uint64_t until = now + (up ? down_ms : up_ms); now < until;) {
            go_on(w, now += 50);
            for (int i = 0; i < 4; i++) assert_true(updates_on_disk(w, i) <= 4 * (10 + 8));
        }
    }
    at_world_release(w);
}
static void disks_of_those_behind(void **state)
{
    (void)state;
    kept_behind(50, 15, 1500, 150, 7000);
    kept_behind(57, 5, 500, 200, 16000);
}

int main(void)
{
    if (getenv("ATOLL_SIM_ONLY")) cmocka_set_test_filter(getenv("ATOLL_SIM_ONLY"));
    const struct CMUnitTest tests[] = {cmocka_unit_test(fetch_of_ten_rounds),
                                       cmocka_unit_test(fetch_of_a_hundred_rounds),
                                       cmocka_unit_test(return_of_a_member), cmocka_unit_test(idler_costs_little),
                                       cmocka_unit_test(disks_of_those_behind)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
