#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sim/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct at_world_options small(uint64_t seed)
{
    return (struct at_world_options){.seed = seed,
                                     .nodes = 3,
                                     .rounds = 2,
                                     .steps = 3,
                                     .min_members = 3,
                                     .round_ms_max = 20000,
                                     .latency_ms_min = 1,
                                     .latency_ms_max = 3,
                                     .sync_ms_max = 3,
                                     .step_ms = 20,
                                     .update_bytes = 5000,
                                     .shard_bytes = 3000,
                                     .state_bytes = 4000};
}

static struct at_world *make(const struct at_world_options *options)
{
    struct at_world *w = NULL;
    assert_int_equal(at_world_init(options, &w), AT_OK);
    for (int i = 0; i < options->nodes; i++) at_world_start_node(w, i, (uint64_t)i);
    return w;
}

static void must_finish(struct at_world *w, uint64_t until_ms)
{
    bool done = at_world_run(w, until_ms);
    if (at_world_violation(w)) {
        fprintf(stderr, "%s\n", at_world_trace(w));
        fail_msg("%s", at_world_violation(w));
    }
    if (!done) {
        fprintf(stderr, "%s\n", at_world_trace(w));
        fail_msg("not done by %llu ms", (unsigned long long)until_ms);
    }
    if (!at_world_check(w)) fail_msg("%s", at_world_violation(w));
}

/* ---- one round, line by line: two nodes, a millisecond of latency, writes that take one ---- */
static const char expected_round[] = "";

static void transcript_of_one_round(void **state)
{
    (void)state;
    struct at_world_options o = small(1);
    o.nodes = (int)(o.min_members = 2);
    o.rounds = 1;
    o.latency_ms_max = o.sync_ms_max = 1;
    o.trace = true;
    struct at_world *w = make(&o);
    must_finish(w, 60000);
    if (strcmp(at_world_trace(w), expected_round) != 0) fail_msg("the trace is another:\n%s", at_world_trace(w));
    at_world_release(w);
}

static void undisturbed(void **state)
{
    (void)state;
    struct at_world_options o = small(1);
    o.rounds = 4;
    o.nodes = 5;
    o.min_members = 5;
    o.full_percent = 20;
    o.update_bytes = 700000; /* three pieces */
    struct at_world *w = make(&o);
    must_finish(w, 60000);
    assert_int_equal(at_world_log_count(w, AT_RECORD_EPOCH), 4);
    for (uint32_t r = 0; r < 4; r++) assert_int_equal(at_world_included(w, r), 5);
    assert_int_equal(at_world_dials(w, 1), 1);
    at_world_release(w);
}

static void member_killed_mid_round(void **state)
{
    (void)state;
    struct at_world_options o = small(2);
    o.rounds = 3;
    o.step_ms = 1000;
    struct at_world *w = make(&o);
    at_world_crash(w, 2, 1500, false); /* the first round is open from 40 ms to 3 s */
    at_world_start_node(w, 2, 4500);
    must_finish(w, 60000);
    assert_int_equal(at_world_included(w, 0), 2);
    assert_int_equal(at_world_included(w, 2), 3);
    at_world_release(w);
}

static void member_killed_silently(void **state)
{
    (void)state;
    struct at_world_options o = small(3);
    o.rounds = 1;
    o.step_ms = 1000;
    struct at_world *w = make(&o);
    at_world_crash(w, 2, 1500, true);
    assert_false(at_world_run(w, 7400)); /* found out at 6.5 s, given up a second later */
    assert_int_equal(at_world_included(w, 0), UINT32_MAX);
    assert_false(at_world_run(w, 7700));
    assert_int_equal(at_world_included(w, 0), 2);
    at_world_release(w);
}

/* What it had committed counts, though it died; and it comes back for the next round. */
static void member_killed_after_commit(void **state)
{
    (void)state;
    struct at_world_options o = small(4);
    o.step_ms = 1000;
    struct at_world *w = make(&o);
    at_world_speed(w, 2, 2.0);
    assert_false(at_world_run(w, 2000));
    assert_int_equal(at_world_log_count(w, AT_RECORD_RECEIPT), 1);
    at_world_crash(w, 2, 2000, false);
    at_world_start_node(w, 2, 3500);
    must_finish(w, 60000);
    assert_int_equal(at_world_included(w, 0), 3);
    at_world_release(w);
}

/* Dead for a moment inside its round: it goes on with the same allotment, and nobody gives it up. */
static void member_back_in_its_round(void **state)
{
    (void)state;
    struct at_world_options o = small(5);
    o.step_ms = 1000;
    struct at_world *w = make(&o);
    at_world_crash(w, 2, 1500, false);
    at_world_start_node(w, 2, 1600);
    must_finish(w, 60000);
    assert_int_equal(at_world_included(w, 0), 3);
    at_world_release(w);
}

static void late_joiner(void **state)
{
    (void)state;
    struct at_world_options o = small(6);
    struct at_world *w = NULL;
    o.nodes = 4;
    o.rounds = 6;
    o.step_ms = 500;
    o.state_bytes = 900000;
    assert_int_equal(at_world_init(&o, &w), AT_OK);
    for (int i = 0; i < 3; i++) at_world_start_node(w, i, 0);
    at_world_start_node(w, 3, 2000); /* in the second round: it takes part in the third */
    must_finish(w, 60000);
    assert_int_equal(at_world_included(w, 1), 3);
    assert_int_equal(at_world_included(w, 2), 4);
    at_world_release(w);
}

static void straggler(void **state)
{
    (void)state;
    struct at_world_options o = small(7);
    o.rounds = 2;
    o.step_ms = 100;
    o.round_ms_max = 3000;
    struct at_world *w = make(&o);
    at_world_speed(w, 2, 0.05); /* 6 s for what takes the others 0.3 */
    assert_false(at_world_run(w, 2900));
    assert_int_equal(at_world_included(w, 0), UINT32_MAX);
    must_finish(w, 60000);
    assert_int_equal(at_world_included(w, 0), 2);
    assert_int_equal(at_world_included(w, 1), 2);
    at_world_release(w);
}

static void partition(void **state)
{
    (void)state;
    struct at_world_options o = small(8);
    o.rounds = 12;
    o.step_ms = 1000;
    struct at_world *w = make(&o);
    at_world_partition(w, 1, 4000, 16000); /* it misses rounds, more than are kept */
    must_finish(w, 90000);
    assert_true(at_world_included(w, 1) < 3);
    assert_int_equal(at_world_included(w, 11), 3);
    at_world_release(w);
}

static void partition_of_all(void **state)
{
    (void)state;
    struct at_world_options o = small(9);
    o.trace = getenv("ATOLL_SIM_TRACE") != NULL;
    o.rounds = 5;
    o.step_ms = 1000;
    struct at_world *w = make(&o);
    at_world_partition(w, 0, 4000, 16000); /* the steward trains on alone */
    must_finish(w, 90000);
    at_world_release(w);
}

/* A wrong outer step at one member is said loudly and mended by fetching the state whole. */
static void desync(void **state)
{
    (void)state;
    struct at_world_options o = small(10);
    o.trace = getenv("ATOLL_SIM_TRACE") != NULL;
    o.rounds = 5;
    o.step_ms = 200;
    struct at_world *w = make(&o);
    at_world_corrupt_state(w, 1);
    must_finish(w, 90000);
    assert_int_equal(at_world_desyncs(w, 1), 1);
    assert_int_equal(at_world_desyncs(w, 2), 0);
    assert_int_equal(at_world_included(w, 4), 3);
    at_world_release(w);
}

static void finish_on_member_and_steward(void **state)
{
    (void)state;
    struct at_world_options o = small(11);
    at_err_t err;
    o.rounds = 100;
    o.step_ms = 200;
    struct at_world *w = make(&o);
    at_world_finish(w, 2, 1000);
    assert_false(at_world_run(w, 2600));
    assert_true(at_world_ended(w, 2, &err));
    assert_int_equal(err, AT_OK);
    assert_int_equal(at_world_log_count(w, AT_RECORD_LEAVE), 1);
    at_world_finish(w, 0, 3000);
    must_finish(w, 10000);
    assert_int_equal(at_world_log_count(w, AT_RECORD_END), 1);
    assert_true(at_world_log_count(w, AT_RECORD_EPOCH) < 10);
    at_world_release(w);
}

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
    for (uint64_t k = 0; k < events; k++, runs += 2) {
        run_with_steward_crash(k, AT_WORLD_CRASH_BEFORE_OPS, 50);
        run_with_steward_crash(k, AT_WORLD_CRASH_AFTER_OPS, k % 3 == 0 ? 3000 : 50);
    }
    print_message("%llu crash points of the steward\n", (unsigned long long)runs);
}

static void member_killed_at_every_event(void **state)
{
    (void)state;
    uint64_t events = 1;
    for (uint64_t k = 0; k < events; k++) {
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
static uint64_t lcg(uint64_t *x)
{
    *x = *x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *x >> 33;
}

static struct at_world *random_world(uint64_t seed, uint32_t canary)
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
    o.canary = canary;
    o.trace = getenv("ATOLL_SIM_TRACE") != NULL;
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
        case 4:
            at_world_crash_at_event(w, node, lcg(&x) % 150, 1 + (int)(lcg(&x) % 2), (uint32_t)(lcg(&x) % 2000));
            break;
        }
    }
    /* Every start is tried again once the faults are over: a crash may have hit after its own restart. */
    for (int i = 0; i < o.nodes; i++) at_world_start_node(w, i, 20000);
    at_world_speed(w, 1, lcg(&x) % 4 ? 1.0 : 0.1);
    return w;
}

static uint64_t from_env(const char *name, uint64_t fallback)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : fallback;
}

static void random_seeds(void **state)
{
    (void)state;
    uint64_t first = from_env("ATOLL_SIM_SEED", 1), count = from_env("ATOLL_SIM_SEEDS", 200);
    for (uint64_t seed = first; seed < first + count; seed++) {
        struct at_world *w = random_world(seed, 0);
        if (!at_world_run(w, 200000) || !at_world_check(w)) {
            fprintf(stderr, "%s\n", at_world_trace(w));
            fail_msg("ATOLL_SIM_SEED=%llu ATOLL_SIM_SEEDS=1: %s", (unsigned long long)seed,
                     at_world_violation(w) ? at_world_violation(w) : "not done after 200 s");
        }
        at_world_release(w);
    }
    print_message("seeds %llu to %llu\n", (unsigned long long)first, (unsigned long long)(first + count - 1));
}

/* A planted bug must be seen, or the checkers are worth nothing. */
static void canary(uint32_t bug, const char *expect)
{
    for (uint64_t seed = 1; seed < 400; seed++) {
        struct at_world *w = random_world(seed, bug);
        bool fine = at_world_run(w, 200000) && at_world_check(w);
        const char *found = at_world_violation(w);
        if (!fine && found) {
            if (!strstr(found, expect)) fail_msg("the canary was found, but as: %s", found);
            print_message("canary %u: %s\n", bug, found);
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(transcript_of_one_round),
                                       cmocka_unit_test(undisturbed),
                                       cmocka_unit_test(member_killed_mid_round),
                                       cmocka_unit_test(member_killed_silently),
                                       cmocka_unit_test(member_killed_after_commit),
                                       cmocka_unit_test(member_back_in_its_round),
                                       cmocka_unit_test(late_joiner),
                                       cmocka_unit_test(straggler),
                                       cmocka_unit_test(partition),
                                       cmocka_unit_test(partition_of_all),
                                       cmocka_unit_test(desync),
                                       cmocka_unit_test(finish_on_member_and_steward),
                                       cmocka_unit_test(steward_killed_at_every_event),
                                       cmocka_unit_test(member_killed_at_every_event),
                                       cmocka_unit_test(random_seeds),
                                       cmocka_unit_test(canary_acknowledges_before_durable),
                                       cmocka_unit_test(canary_counts_what_it_has_not)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
