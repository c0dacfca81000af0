/* world_mesh_test.c: members linked to members: the steward seen by some only, ways that break, addresses that change,
 * and how many messages a record costs.
 * ATOLL_SIM_SEED and ATOLL_SIM_SEEDS: the first seed of the random worlds and how many. */
#include "sim/world_rig.h"

static void all_ended(struct at_world *w, int nodes)
{
    for (int i = 0; i < nodes; i++) {
        at_err_t err;
        if (!at_world_ended(w, i, &err)) fail_msg("node %d has not ended", i);
        assert_int_equal(err, AT_OK);
    }
}

/* Nodes 2 and 3 were invited by node 1 and never reach the founder: their JOINs, receipts, updates and words of
 * presence go through node 1, and every round counts all four. */
static void steward_seen_by_one(void **state)
{
    (void)state;
    struct at_world_options o = small(21);
    o.nodes = 4;
    o.min_members = 4;
    o.rounds = 4;
    o.step_ms = 1000;
    o.update_bytes = 300000;
    struct at_world *w = make_down(&o);
    for (int i = 2; i < 4; i++) {
        at_world_contact(w, i, 1);
        at_world_wall(w, 0, i, 0, AT_EVER_MS);
    }
    start_all(w, 4);
    assert_false(at_world_run(w, 3000));
    assert_int_equal(at_world_status(w, 1)->hops, 1);
    assert_int_equal(at_world_status(w, 2)->hops, 2);
    assert_int_equal(at_world_status(w, 3)->hops, 2);
    must_finish(w, 60000);
    for (uint32_t r = 0; r < 4; r++) assert_int_equal(at_world_included(w, r), 4);
    all_ended(w, 4);
    at_world_release(w);
}

/* A chain: each sees only the one before and the one behind. */
static void a_chain(void **state)
{
    (void)state;
    struct at_world_options o = small(22);
    o.nodes = 5;
    o.min_members = 5;
    o.rounds = 3;
    o.step_ms = 1000;
    struct at_world *w = make_down(&o);
    for (int i = 1; i < 5; i++) {
        at_world_contact(w, i, i - 1);
        for (int k = 0; k + 1 < i; k++) at_world_wall(w, i, k, 0, AT_EVER_MS);
    }
    start_all(w, 5);
    assert_false(at_world_run(w, 5000));
    for (int i = 1; i < 5; i++) assert_int_equal(at_world_status(w, i)->hops, i);
    must_finish(w, 60000);
    for (uint32_t r = 0; r < 3; r++) assert_int_equal(at_world_included(w, r), 5);
    all_ended(w, 5);
    at_world_release(w);
}

/* The link between the steward and a member goes silent in the middle of a round; others lead there. */
static void steward_lost_by_one(void **state)
{
    (void)state;
    struct at_world_options o = small(23);
    o.rounds = 4;
    o.step_ms = 1000;
    struct at_world *w = make(&o);
    at_world_wall(w, 0, 2, 1500, AT_EVER_MS); /* found out at 6.5 s, in the second round or the third */
    must_finish(w, 90000);
    for (uint32_t r = 0; r < 4; r++) assert_int_equal(at_world_included(w, r), 3);
    all_ended(w, 3);
    at_world_release(w);
}

/* The one that node 3's words go through dies in a round; they go through the other, and the round has them. Then that
 * one dies too, and nobody leads there until the first is back. */
static void the_one_between_dies(void **state)
{
    (void)state;
    struct at_world_options o = small(24);
    o.nodes = 4;
    o.min_members = 4;
    o.rounds = 4;
    o.step_ms = 1000;
    struct at_world *w = make_down(&o);
    at_world_contact(w, 3, 1);
    at_world_wall(w, 0, 3, 0, AT_EVER_MS);
    start_all(w, 4);
    assert_false(at_world_run(w, 1500));
    at_world_crash(w, 1, 1500, false);
    assert_false(at_world_run(w, 4500));
    assert_int_equal(at_world_included(w, 0), 3);
    assert_int_equal(at_world_status(w, 3)->hops, 2);
    at_world_crash(w, 2, 5000, false);
    at_world_start_node(w, 1, 7000);
    must_finish(w, 90000);
    assert_int_equal(at_world_included(w, 3), 3);
    at_world_release(w);
}

/* The founder comes back at another address, and so does a member: their folders know the others. */
static void founder_moves(void **state)
{
    (void)state;
    struct at_world_options o = small(25);
    o.nodes = 4;
    o.min_members = 4;
    o.rounds = 8;
    o.step_ms = 1000;
    struct at_world *w = make(&o);
    assert_false(at_world_run(w, 1500));
    for (int i = 0; i < 4; i++) assert_int_equal(at_world_status(w, i)->peers_known, 4);
    at_world_crash(w, 0, 1500, false);
    assert_false(at_world_run(w, 1600));
    at_world_move(w, 0);
    at_world_start_node(w, 0, 2000);
    at_world_crash(w, 3, 9000, false);
    assert_false(at_world_run(w, 9500));
    at_world_move(w, 3);
    at_world_start_node(w, 3, 10000);
    must_finish(w, 120000);
    if (at_world_included(w, 7) != 4) fprintf(stderr, "%s\n", at_world_trace(w));
    assert_int_equal(at_world_included(w, 7), 4);
    all_ended(w, 4);
    at_world_release(w);
}

/* A member behind a firewall dials out; nobody dials it; everybody is linked to it all the same. */
static void behind_a_firewall(void **state)
{
    (void)state;
    struct at_world_options o = small(26);
    o.nodes = 5;
    o.min_members = 5;
    o.rounds = 3;
    struct at_world *w = make_down(&o);
    at_world_wall(w, 2, -1, 0, AT_EVER_MS);
    start_all(w, 5);
    must_finish(w, 60000);
    for (uint32_t r = 0; r < 3; r++) assert_int_equal(at_world_included(w, r), 5);
    at_world_release(w);
}

/* ---- two halves ---- */
enum { HALVES = 32 };

static int with_a_way(struct at_world *w, int first)
{
    int count = 0;
    for (int i = first; i < HALVES; i++) count += at_world_status(w, i)->hops != AT_HOPS_NONE;
    return count;
}

/* Half of the nodes are apart from the others and from the steward for that long, with more than four links each among themselves;
 * how long after that until all have a way. */
static uint64_t heals_in_ms(bool firewall, uint64_t minutes)
{
    const uint64_t apart_ms = 120000, again_ms = apart_ms + minutes * 60000;
    struct at_world_options o = small(1);
    o.nodes = HALVES;
    o.rounds = 3;
    o.min_members = 2;
    o.step_ms = 3000000; /* the story is over before the first round */
    o.round_ms_max = 100000000;
    struct at_world *w = make_down(&o);
    start_all(w, HALVES);
    if (firewall) at_world_wall(w, 0, -1, apart_ms, AT_EVER_MS);
    for (int i = HALVES / 2; i < HALVES; i++) {
        at_world_set(w, i, AT_WORLD_SIDE, 1, apart_ms);
        at_world_set(w, i, AT_WORLD_SIDE, 0, again_ms);
    }
    assert_false(at_world_run(w, again_ms - 1));
    assert_int_equal(with_a_way(w, HALVES / 2), 0);
    for (int i = HALVES / 2; i < HALVES; i++) assert_true(at_world_links(w, i) >= 4);
    uint64_t ms = 0;
    while (ms < 3600000 && with_a_way(w, 0) < HALVES) assert_false(at_world_run(w, again_ms + (ms += 1000)));
    if (at_world_violation(w)) fail_msg("%s", at_world_violation(w));
    at_world_release(w);
    return ms;
}

/* The half without the steward finds it, or, where nobody can dial that, some member that has a way to it; although everybody there
 * has links enough. */
static void two_halves(void **state)
{
    (void)state;
    assert_in_range(heals_in_ms(false, 13), 0, 10000);
    assert_in_range(heals_in_ms(true, 13), 0, 65000);
    assert_in_range(heals_in_ms(true, 32), 0, 65000);
}

/* ---- the graph, and what a record costs ---- */
enum { NODES = 16 };

struct degrees {
    uint32_t links, most, hops; /* all links; of one member; from the steward */
};
static struct degrees measure(struct at_world *w)
{
    struct degrees d = {0};
    for (int i = 0; i < NODES; i++) {
        uint32_t own = at_world_links(w, i);
        d.links += own;
        if (i && own > d.most) d.most = own;
        if (i && at_world_status(w, i)->hops > d.hops) d.hops = at_world_status(w, i)->hops;
    }
    d.links /= 2;
    return d;
}

static struct at_world *sixteen(struct at_world_options *o)
{
    o->nodes = NODES;
    o->min_members = NODES;
    o->rounds = 6;
    o->step_ms = 100;
    struct at_world *w = make_down(o);
    for (int i = 4; i < NODES; i++) { /* three lead to the steward */
        at_world_contact(w, i, 1 + i % 3);
        at_world_wall(w, 0, i, 0, AT_EVER_MS);
    }
    return w;
}

static void bounded_messages(void **state)
{
    (void)state;
    struct at_world_options o = small(27);
    struct at_world *w = sixteen(&o);
    start_all(w, NODES);
    assert_false(at_world_run(w, 400));
    struct degrees d = measure(w);
    uint32_t links = d.links, hops = d.hops;
    must_finish(w, 60000);
    for (uint32_t r = 0; r < 6; r++) assert_int_equal(at_world_included(w, r), NODES);
    uint64_t parts = at_world_sent(w, AT_MSG_LOG_PART), heads = at_world_sent(w, AT_MSG_HEAD);
    uint64_t submits = at_world_sent(w, AT_MSG_SUBMIT);
    uint64_t ready = at_world_sent(w, AT_MSG_READY) + at_world_sent(w, AT_MSG_PRESENCES);
    uint64_t peers = at_world_sent(w, AT_MSG_PEERS), records = 0;
    for (int k = AT_RECORD_JOIN; k <= AT_RECORD_END; k++) records += at_world_log_count(w, (enum at_record_kind)k);
    print_message("%u links, at most %u of a member, %u hops; %llu records: log_part %llu, head %llu, submit %llu, "
                  "ready %llu, peers %llu\n",
                  links, d.most, hops, (unsigned long long)records, (unsigned long long)parts,
                  (unsigned long long)heads, (unsigned long long)submits, (unsigned long long)ready,
                  (unsigned long long)peers);
    /* While they come, the ring is smaller and leads to others, and those links stay: so all together are bounded, those
     * of one member only by one for each pair: up to 14 were seen. */
    assert_true(d.most < NODES); /* however often they dialled each other */
    assert_true(links <= NODES * (4 + 2));
    /* Each block once to each member; and what each newcomer asked for: its log, the end of it, and of a new feed. */
    assert_true(parts <= records * (NODES - 1) + 8 * NODES);
    assert_true(heads <= 2 * records * links);
    assert_true(submits <= hops * (uint64_t)(NODES - 1) * (1 + 6 + 2)); /* JOIN, receipts, and a few again */
    assert_true(ready <= (hops + 1) * (uint64_t)(NODES - 1) * (6 + 4));
    assert_true(peers <= (uint64_t)NODES * (2 * links + NODES));
    at_world_release(w);
}

/* ---- many seeds ---- */
/* Everybody is invited by one who came before and can always be reached; any other two may never reach each other, or
 * not for a while. Nodes die and come back. When that is over, all must end well. */
static struct at_world *random_world(uint64_t seed)
{
    uint64_t x = seed * 6007 + 5;
    struct at_world_options o = small(seed);
    struct at_world *w = NULL;
    o.nodes = 3 + (int)(lcg(&x) % 5);
    o.min_members = 1; /* a newcomer whose inviter is down gives up, and is not waited for */
    o.rounds = 1 + (uint32_t)(lcg(&x) % 4);
    o.latency_ms_max = 1 + (uint32_t)(lcg(&x) % 60);
    o.sync_ms_max = 1 + (uint32_t)(lcg(&x) % 40);
    o.step_ms = 5 + (uint32_t)(lcg(&x) % 400);
    o.round_ms_max = 6000 + (uint32_t)(lcg(&x) % 4000);
    o.full_percent = (uint32_t)(lcg(&x) % 40);
    o.update_bytes = lcg(&x) % 4 ? 2000 : 300000;
    assert_int_equal(at_world_init(&o, &w), AT_OK);
    for (int i = 0; i < o.nodes; i++) {
        int inviter = i ? (int)(lcg(&x) % (uint64_t)i) : 0;
        at_world_contact(w, i, inviter);
        for (int k = 0; k < i; k++) {
            uint64_t how = lcg(&x) % 4, from = lcg(&x) % 8000;
            if (k == inviter) continue;
            if (how == 0) at_world_wall(w, i, k, 0, AT_EVER_MS);
            if (how == 1) at_world_wall(w, i, k, from, from + lcg(&x) % 8000);
        }
        at_world_start_node(w, i, lcg(&x) % 3000);
    }
    for (uint64_t faults = lcg(&x) % 4; faults > 0; faults--) {
        int node = (int)(lcg(&x) % (uint64_t)o.nodes);
        uint64_t at = 1 + lcg(&x) % 8000;
        bool silent = lcg(&x) % 3 == 0;
        at_world_crash(w, node, at, silent);
        at_world_start_node(w, node, at + 1 + lcg(&x) % 6000);
    }
    for (int i = 0; i < o.nodes; i++) at_world_start_node(w, i, 20000);
    return w;
}

static void random_seeds(void **state)
{
    (void)state;
    uint64_t first = from_env("ATOLL_SIM_SEED", 1), count = from_env("ATOLL_SIM_SEEDS", 30);
    for (uint64_t seed = first; seed < first + count; seed++) {
        struct at_world *w = random_world(seed);
        if (!at_world_run(w, 300000) || !at_world_check(w)) {
            fprintf(stderr, "%s\n", at_world_trace(w));
            for (int i = 0; i < at_world_nodes(w); i++) {
                const struct at_node_status *n = at_world_status(w, i);
                if (n)
                    fprintf(stderr, "node %d: %s, %u peers, %u hops, %llu records; %s\n", i,
                            at_node_phase_text(n->phase), n->peers, n->hops, (unsigned long long)n->log_size,
                            n->last_event);
            }
            fail_msg("ATOLL_SIM_ONLY=random_seeds ATOLL_SIM_SEED=%llu ATOLL_SIM_SEEDS=1: %s", (unsigned long long)seed,
                     at_world_violation(w) ? at_world_violation(w) : "not done after 300 s");
        }
        at_world_release(w);
    }
    print_message("seeds %llu to %llu\n", (unsigned long long)first, (unsigned long long)(first + count - 1));
}

int main(void)
{
    if (getenv("ATOLL_SIM_ONLY")) cmocka_set_test_filter(getenv("ATOLL_SIM_ONLY"));
    const struct CMUnitTest tests[] = {cmocka_unit_test(steward_seen_by_one), cmocka_unit_test(a_chain),
                                       cmocka_unit_test(steward_lost_by_one), cmocka_unit_test(the_one_between_dies),
                                       cmocka_unit_test(founder_moves),       cmocka_unit_test(behind_a_firewall),
                                       cmocka_unit_test(two_halves),          cmocka_unit_test(bounded_messages),
                                       cmocka_unit_test(random_seeds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
