/* world_crowd_test.c: more members than the steward has links, all invited by the steward itself and all at once. */
#include "sim/world_rig.h"

enum { NODES = 44, LINKS = 32, NEAR = 13 /* of so many links so many are the nearest members' (node_crowd.c) */ };
enum { APART_MS = 3000, ENDS_MOST = 13, SLOW_KBIT = 150 };

static struct at_world *crowd(uint64_t seed)
{
    struct at_world_options o = small(seed);
    o.nodes = NODES;
    o.min_members = NODES;
    o.links_max = LINKS;
    o.rounds = 3;
    o.step_ms = 20000;
    o.round_ms_max = 120000;
    return make(&o);
}

/* Nobody starves at the door: everybody has joined in a quarter of a minute, over members that the steward named. */
static void everybody_comes_in(void **state)
{
    (void)state;
    struct at_world *w = crowd(31);
    assert_false(at_world_run(w, 15000));
    if (at_world_violation(w)) fail_msg("%s", at_world_violation(w));
    struct at_world_counts counts;
    at_world_counts(w, &counts);
    assert_int_equal(counts.nodes_joined, NODES);
    at_world_release(w);
}

/* Those that are not near let go, and then nobody dials any more; all of them are counted in every round. */
static void the_far_let_go(void **state)
{
    (void)state;
    struct at_world *w = crowd(32);
    struct at_world_counts before, after;
    assert_false(at_world_run(w, 55000));
    if (at_world_violation(w)) fail_msg("%s", at_world_violation(w));
    assert_in_range(at_world_links(w, 0), NEAR / 2, NEAR + 2);
    at_world_counts(w, &before);
    assert_false(at_world_run(w, 85000));
    at_world_counts(w, &after);
    assert_in_range(after.dials - before.dials, 0, NODES / 2);
    must_finish(w, 600000);
    for (uint32_t r = 0; r < 3; r++) assert_int_equal(at_world_included(w, r), NODES);
    at_world_release(w);
}

/* Members that come one by one dial others each time that their places on the ring have moved; what they do not need any more
 * they close, and all are counted in every round. */
static void links_that_nobody_needs(void **state)
{
    (void)state;
    struct at_world_options o = small(33);
    o.nodes = NODES;
    o.min_members = NODES;
    o.rounds = 2;
    o.step_ms = 20000;
    o.round_ms_max = 120000;
    struct at_world *w = make_down(&o);
    for (int i = 0; i < NODES; i++) at_world_start_node(w, i, (uint64_t)APART_MS * (uint64_t)i);
    assert_false(at_world_run(w, APART_MS * NODES + 50000));
    uint32_t ends = 0;
    for (int i = 0; i < NODES; i++) ends += at_world_links(w, i);
    print_message("%u links among %d nodes\n", ends / 2, NODES);
    assert_in_range(ends, 0, ENDS_MOST * NODES);
    must_finish(w, 600000);
    for (uint32_t r = 0; r < 2; r++) assert_int_equal(at_world_included(w, r), NODES);
    at_world_release(w);
}

/* One has a slow line, and all the others' updates to fetch when the END is known: they stay until it has them. */
static void the_last_one_is_waited_for(void **state)
{
    (void)state;
    struct at_world_options o = small(34);
    o.nodes = NODES;
    o.min_members = NODES;
    o.rounds = 1;
    o.step_ms = 5000;
    o.round_ms_max = 120000;
    o.lines = true;
    struct at_world *w = make_down(&o);
    const struct at_world_line fast = {.latency_ms = 5, .up_kbit = 100000, .down_kbit = 100000};
    const struct at_world_line slow = {.latency_ms = 5, .up_kbit = 1000, .down_kbit = SLOW_KBIT};
    for (int i = 0; i < NODES; i++) at_world_line_set(w, i, i == NODES - 1 ? &slow : &fast);
    start_all(w, NODES);
    must_finish(w, 600000);
    struct at_world_counts counts;
    at_world_counts(w, &counts);
    assert_int_equal(counts.refused_ends, 0);
    print_message("done at %llu ms\n", (unsigned long long)at_world_now_ms(w));
    at_world_release(w);
}

/* Some can never be linked to each other, and try it again and again; meanwhile nobody closes the link that each has to the
 * next on the ring instead, only to dial that again. */
static void nobody_closes_what_it_dials_again(void **state)
{
    (void)state;
    struct at_world_options o = small(35);
    o.nodes = NODES;
    o.min_members = NODES;
    o.meets = true;
    o.step_ms = 400000;
    o.round_ms_max = 2400000;
    struct at_world *w = make_down(&o);
    for (int i = 1; i < NODES; i++)
        if (i % 3) at_world_set(w, i, AT_WORLD_NAT, AT_WORLD_NAT_SYMMETRIC, 0);
    for (int i = 0; i < NODES; i++) at_world_start_node(w, i, (uint64_t)APART_MS * (uint64_t)i);
    assert_false(at_world_run(w, APART_MS * NODES + 150000));
    uint64_t before = at_world_sent(w, AT_MSG_BYE);
    assert_false(at_world_run(w, APART_MS * NODES + 1050000));
    assert_int_equal(at_world_sent(w, AT_MSG_BYE), before);
    at_world_release(w);
}

int main(void)
{
    if (getenv("ATOLL_SIM_ONLY")) cmocka_set_test_filter(getenv("ATOLL_SIM_ONLY"));
    const struct CMUnitTest tests[] = {cmocka_unit_test(everybody_comes_in), cmocka_unit_test(the_far_let_go),
                                       cmocka_unit_test(the_last_one_is_waited_for),
                                       cmocka_unit_test(links_that_nobody_needs),
                                       cmocka_unit_test(nobody_closes_what_it_dials_again)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
