/* world_nat_test.c: members that nobody can dial: a third one arranges that they meet, or passes on what they say. */
#include "sim/world_internal.h"
#include "sim/world_rig.h"

static struct at_world_options nats(uint64_t seed, int nodes)
{
    struct at_world_options o = small(seed);
    o.nodes = nodes;
    o.min_members = (uint32_t)nodes;
    o.rounds = 6;
    o.step_ms = 1000;
    o.meets = true;
    return o;
}

static struct at_world_counts counts(struct at_world *w)
{
    struct at_world_counts c;
    at_world_counts(w, &c);
    return c;
}

static void all_counted(struct at_world *w, uint32_t rounds, uint32_t members)
{
    for (uint32_t r = 0; r < rounds; r++) assert_int_equal(at_world_included(w, r), members);
}

/* Two that reach the steward alone are linked to each other, in no more time than an address takes that is silent. */
static void two_cones_punch(void **state)
{
    struct at_world_options o = nats(31, 3);
    struct at_world *w = make_down(&o);
    for (int i = 1; i < 3; i++) at_world_set(w, i, AT_WORLD_NAT, AT_WORLD_NAT_CONE, 0);
    start_all(w, 3);
    assert_false(at_world_run(w, 3500));
    for (int i = 1; i < 3; i++) {
        assert_int_equal(at_world_status(w, i)->peers, 2);
        assert_int_equal(at_world_status(w, i)->peers_punched, 1);
    }
    assert_int_equal(at_world_status(w, 0)->peers_punched, 0);
    must_finish(w, 90000);
    all_counted(w, 6, 3);
    assert_true(counts(w).punches >= 1 && counts(w).relays == 0);
    at_world_release(w);
}

static void two_symmetric_are_relayed(void **state)
{
    struct at_world_options o = nats(32, 3);
    struct at_world *w = make_down(&o);
    for (int i = 1; i < 3; i++) at_world_set(w, i, AT_WORLD_NAT, AT_WORLD_NAT_SYMMETRIC, 0);
    start_all(w, 3);
    assert_false(at_world_run(w, 3500));
    for (int i = 1; i < 3; i++) assert_int_equal(at_world_status(w, i)->peers_relayed, 1);
    must_finish(w, 90000);
    all_counted(w, 6, 3);
    assert_true(counts(w).punches == 0 && counts(w).relays >= 1);
    at_world_release(w);
}

/* Whoever has two links already asks nobody to carry its bytes: what it misses comes through others. */
static void no_relay_for_the_well_linked(void **state)
{
    struct at_world_options o = nats(33, 5);
    struct at_world *w = make_down(&o);
    for (int i = 3; i < 5; i++) at_world_set(w, i, AT_WORLD_NAT, AT_WORLD_NAT_SYMMETRIC, 0);
    start_all(w, 5);
    must_finish(w, 90000);
    all_counted(w, 6, 5);
    assert_int_equal(counts(w).relays, 0);
    at_world_release(w);
}

/* The one that they reach, and that carries their link, dies, and comes back; the run goes on with all. */
static void the_relay_dies(void **state)
{
    struct at_world_options o = nats(34, 4);
    struct at_world *w = make_down(&o);
    for (int i = 2; i < 4; i++) {
        at_world_set(w, i, AT_WORLD_NAT, AT_WORLD_NAT_SYMMETRIC, 0);
        at_world_contact(w, i, 1);
        at_world_wall(w, 0, i, 0, AT_EVER_MS);
    }
    start_all(w, 4);
    assert_false(at_world_run(w, 7000));
    for (int i = 2; i < 4; i++) assert_true(at_world_status(w, i)->peers_relayed >= 1);
    at_world_crash(w, 1, 7000, false);
    assert_false(at_world_run(w, 7100));
    for (int i = 2; i < 4; i++) assert_int_equal(at_world_status(w, i)->peers_relayed, 0);
    at_world_start_node(w, 1, 8000);
    must_finish(w, 120000);
    assert_int_equal(at_world_included(w, 5), 4);
    at_world_release(w);
}

/* The founder's and a member's homes get NATs. The third, which everybody can dial, brings them together. */
static void the_way_to_the_steward(void **state)
{
    struct at_world_options o = nats(35, 3);
    o.rounds = 12;
    struct at_world *w = make(&o);
    assert_false(at_world_run(w, 1500));
    for (int i = 0; i < 3; i += 2) {
        at_world_set(w, i, AT_WORLD_NAT, AT_WORLD_NAT_CONE, 1500);
        at_world_break_links(w, i, 1600);
    }
    assert_false(at_world_run(w, 20000));
    assert_int_equal(at_world_status(w, 2)->peers_punched, 1);
    assert_int_equal(at_world_status(w, 2)->hops, 1);
    must_finish(w, 120000);
    assert_int_equal(at_world_included(w, 11), 3);
    at_world_release(w);
}

/* Two that have four others each look for one another every ten minutes only; then they ask for a meeting each time, for nothing
 * else can link them. */
static void apart_for_long(void **state)
{
    const uint64_t apart_ms = 1000, again_ms = apart_ms + 3000000;
    (void)state;
    struct at_world_options o = nats(37, 6);
    o.step_ms = 3000000; /* the story is over before the first round */
    o.round_ms_max = 100000000;
    struct at_world *w = make_down(&o);
    for (int i = 4; i < 6; i++) at_world_set(w, i, AT_WORLD_NAT, AT_WORLD_NAT_CONE, 0);
    at_world_wall(w, 4, 5, apart_ms, again_ms);
    start_all(w, 6);
    assert_false(at_world_run(w, again_ms));
    for (int i = 4; i < 6; i++) assert_int_equal(at_world_status(w, i)->peers, 4);
    assert_false(at_world_run(w, again_ms + 620000));
    if (at_world_violation(w)) fail_msg("%s", at_world_violation(w));
    for (int i = 4; i < 6; i++) assert_int_equal(at_world_status(w, i)->peers, 5);
    at_world_release(w);
}

/* Where nobody arranges anything, members behind NATs take part over the ones that they reach, as ever. */
static void without_meetings(void **state)
{
    struct at_world_options o = nats(36, 3);
    o.meets = false;
    struct at_world *w = make_down(&o);
    for (int i = 1; i < 3; i++) at_world_set(w, i, AT_WORLD_NAT, AT_WORLD_NAT_CONE, 0);
    start_all(w, 3);
    must_finish(w, 90000);
    all_counted(w, 6, 3);
    assert_true(counts(w).punches == 0 && counts(w).relays == 0);
    at_world_release(w);
}

/* Node `of`'s port, as `node` has written it down. */
static uint16_t written_port(const struct at_world *w, int node, int of)
{
    struct at_message_mem mem = {0};
    struct at_span rest = at_buf_span(&w->nodes[node].peers);
    uint16_t port = 0;
    while (rest.n >= 4) {
        struct at_message msg;
        uint32_t n = at_load_le32(rest.p);
        assert_int_equal(at_message_decode(at_span(rest.p + 4, n), &mem, NULL, &msg), AT_OK);
        for (uint32_t i = 0; i < msg.peers.count; i++)
            if (at_node_id_eq(&msg.peers.list[i].node, &w->nodes[of].key.id)) port = msg.peers.list[i].list[0].port;
        rest = at_span(rest.p + 4 + n, rest.n - 4 - n);
    }
    at_message_mem_release(&mem);
    return port;
}

static void now_at(struct at_world *w, int node, uint16_t port)
{
    struct at_endpoint e = at_world_endpoint(w, node);
    struct at_node_event ev = {.kind = AT_NODE_EV_REACHABLE, .reachable = {&e, 1}};
    e.port = port;
    at_world_step_node(w, node, &ev);
}

/* A router answers a node that has just started within half a second: everybody hears of the mapped address, although the
 * node has said a moment before where it was, and others take only one such statement a second. */
static void two_addresses_in_a_second(void **state)
{
    struct at_world_options o = nats(39, 3);
    struct at_world *w = make_down(&o);
    start_all(w, 3);
    assert_false(at_world_run(w, 5000));
    now_at(w, 1, 77);
    assert_false(at_world_run(w, 5400));
    now_at(w, 1, 78);
    assert_false(at_world_run(w, 10000));
    for (int i = 0; i < 3; i += 2) assert_int_equal(written_port(w, i, 1), 78);
    must_finish(w, 90000);
    at_world_release(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_cones_punch),
        cmocka_unit_test(two_symmetric_are_relayed),
        cmocka_unit_test(no_relay_for_the_well_linked),
        cmocka_unit_test(the_relay_dies),
        cmocka_unit_test(the_way_to_the_steward),
        cmocka_unit_test(apart_for_long),
        cmocka_unit_test(without_meetings),
        cmocka_unit_test(two_addresses_in_a_second),
    };
    cmocka_set_test_filter(getenv("ATOLL_SIM_ONLY"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
