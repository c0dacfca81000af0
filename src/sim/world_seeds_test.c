/* world_seeds_test.c: a death at every event, hundreds of random worlds, and the canaries that must be seen.
 * ATOLL_SIM_SEED and ATOLL_SIM_SEEDS: the first seed and how many. */
#include "base/sanitized.h"
#include "sim/world_rig.h"

enum { EVERY = AT_SANITIZED ? 4 : 1 }; /* so many events further each death */

/* ---- the steward dies at every single event of a small run, before or after its operations ---- */
static uint64_t run_with_steward_crash(uint64_t event, enum at_world_crash how, uint32_t restart_ms)
{
    struct at_world_options o = small(12);
    o.nodes = (int)(o.min_members = 2);
    o.full_percent = 10;
    struct at_world *w = make(&o);
    at_world_crash_at_event(w, 0, event, how, restart_ms);
    must_finish(w, 120000);
    uint64_t events = at_world_events(w, 0);
    assert_int_equal(at_world_log_count(w, AT_RECORD_END), 1);
    at_world_release(w);
    return events;
}

static void steward_killed_at_every_event(void **state)
{
    (void)state;
    uint64_t events = run_with_steward_crash(UINT64_MAX, AT_WORLD_CRASH_NEVER, 0), runs = 0;
    for (uint64_t k = 0; k < events; k += EVERY, runs += 2) {
        run_with_steward_crash(k, AT_WORLD_CRASH_BEFORE_OPS, 50);
        run_with_steward_crash(k, AT_WORLD_CRASH_AFTER_OPS, k % 3 == 0 ? 3000 : 50);
    }
    print_message("%llu crash points of the steward\n", (unsigned long long)runs);
}

static void member_killed_at_every_event(void **state)
{
    (void)state;
    uint64_t events = 1;
    for (uint64_t k = 0; k < events; k += k ? EVERY : 1) {
        struct at_world_options o = small(13);
        o.nodes = (int)(o.min_members = 2);
        struct at_world *w = make(&o);
        at_world_crash_at_event(w, 1, k, k % 2 ? AT_WORLD_CRASH_BEFORE_OPS : AT_WORLD_CRASH_AFTER_OPS, 50);
        must_finish(w, 120000);
        if (k == 0) events = at_world_events(w, 1) - 1;
        at_world_release(w);
    }
    print_message("%llu crash points of a member\n", (unsigned long long)events);
}

/* ---- many seeds, many faults; then they stop and everything must end well ---- */
static struct at_world *random_world(uint64_t seed)
{
    uint64_t x = seed * 7919 + 1;
    struct at_world_options o = small(seed);
    struct at_world *w = NULL;
    o.nodes = 2 + (int)(lcg(&x) % 3);
    o.min_members = 1 + (uint32_t)(lcg(&x) % (uint64_t)o.nodes);
    o.rounds = 1 + (uint32_t)(lcg(&x) % 3);
    o.latency_ms_max = 1 + (uint32_t)(lcg(&x) % 60);
    o.sync_ms_max = 1 + (uint32_t)(lcg(&x) % 40);
    o.step_ms = 5 + (uint32_t)(lcg(&x) % 400);
    o.round_ms_max = 4000 + (uint32_t)(lcg(&x) % 4000);
    o.full_percent = (uint32_t)(lcg(&x) % 40);
    o.update_bytes = lcg(&x) % 4 ? 2000 : 300000;
    o.state_bytes = lcg(&x) % 4 ? 2000 : 300000;
    assert_int_equal(at_world_init(&o, &w), AT_OK);
    for (int i = 0; i < o.nodes; i++) at_world_start_node(w, i, lcg(&x) % 3000);
    for (uint64_t faults = lcg(&x) % 5; faults > 0; faults--) {
        int node = (int)(lcg(&x) % (uint64_t)o.nodes);
        uint64_t at = 1 + lcg(&x) % 8000;
        switch (lcg(&x) % 5) {
        case 0:
        case 1:
            at_world_crash(w, node, at, lcg(&x) % 3 == 0);
            at_world_start_node(w, node, at + 1 + lcg(&x) % 6000);
            break;
        case 2:
            at_world_break_links(w, node, at);
            break;
        case 3:
            at_world_partition(w, node, at, at + lcg(&x) % 12000);
            break;
        case 4: { /* one draw after the other: C leaves the order of arguments open */
            uint64_t event = lcg(&x) % 150;
            enum at_world_crash how = lcg(&x) % 2 ? AT_WORLD_CRASH_BEFORE_OPS : AT_WORLD_CRASH_AFTER_OPS;
            at_world_crash_at_event(w, node, event, how, (uint32_t)(lcg(&x) % 2000));
            break;
        }
        }
    }
    /* Every start is tried again once the faults are over: a crash may have hit after its own restart. */
    for (int i = 0; i < o.nodes; i++) at_world_start_node(w, i, 20000);
    at_world_speed(w, 1, lcg(&x) % 4 ? 1.0 : 0.1);
    return w;
}

static void random_seeds(void **state)
{
    (void)state;
    uint64_t first = from_env("ATOLL_SIM_SEED", 1), count = from_env("ATOLL_SIM_SEEDS", 200);
    for (uint64_t seed = first; seed < first + count; seed++) {
        struct at_world *w = random_world(seed);
        if (!at_world_run(w, 200000) || !at_world_check(w)) {
            fprintf(stderr, "%s\n", at_world_trace(w));
            fail_msg("ATOLL_SIM_SEED=%llu ATOLL_SIM_SEEDS=1: %s", (unsigned long long)seed,
                     at_world_violation(w) ? at_world_violation(w) : "not done after 200 s");
        }
        at_world_release(w);
    }
    print_message("seeds %llu to %llu\n", (unsigned long long)first, (unsigned long long)(first + count - 1));
}

/* A planted bug must be seen, or the judges are worth nothing: the steward dies at every event until one objects. */
static void canary(uint32_t bug, const char *expect)
{
    for (uint64_t event = 0; event < 80; event++) {
        struct at_world_options o = small(16);
        o.canary = bug;
        o.sync_ms_max = 10; /* durable long after it was told */
        o.latency_ms_max = 1;
        struct at_world *w = make(&o);
        at_world_crash_at_event(w, 0, event, AT_WORLD_CRASH_AFTER_OPS, 50);
        bool fine = at_world_run(w, 120000) && at_world_check(w);
        if (!fine && at_world_violation(w)) {
            print_message("canary %u, event %llu: %s\n", bug, (unsigned long long)event, at_world_violation(w));
            assert_non_null(strstr(at_world_violation(w), expect));
            at_world_release(w);
            return;
        }
        at_world_release(w);
    }
    fail_msg("nobody saw canary %u", bug);
}

static void canary_acknowledges_before_durable(void **state)
{
    (void)state;
    canary(1, "past");
}

static void canary_counts_what_it_has_not(void **state)
{
    (void)state;
    canary(2, "the steward lacks");
}

int main(void)
{
    if (getenv("ATOLL_SIM_ONLY")) cmocka_set_test_filter(getenv("ATOLL_SIM_ONLY"));
    const struct CMUnitTest tests[] = {cmocka_unit_test(steward_killed_at_every_event),
                                       cmocka_unit_test(member_killed_at_every_event), cmocka_unit_test(random_seeds),
                                       cmocka_unit_test(canary_acknowledges_before_durable),
                                       cmocka_unit_test(canary_counts_what_it_has_not)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
