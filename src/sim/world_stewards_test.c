/* Runs with several stewards, who become them while the run goes on. Each failure prints its seed; the test of many seeds
 * runs one alone with ATOLL_SIM_SEED=n, and n of them with ATOLL_SIM_SEEDS=n. ATOLL_SIM_LONG=1: all that there is. */
#include "sim/world_rig.h"

/* ATOLL_SIM_LONG=1: more of everything. */
static bool is_long(void)
{
    return getenv("ATOLL_SIM_LONG") != NULL;
}

static struct at_world_options options(uint64_t seed, int nodes, int stewards, uint32_t rounds)
{
    struct at_world_options o = small(seed);
    o.nodes = nodes;
    o.stewards = stewards;
    o.rounds = rounds;
    o.min_members = 4;
    o.latency_ms_max = 10;
    return o;
}

/* Until everybody who is up has seen this term, or the time is over. */
static void until_term(struct at_world *w, uint32_t term, int nodes)
{
    bool there = false;
    for (uint64_t ms = 0; ms < 600000 && !there; ms += 50) {
        if (at_world_run(w, at_world_now_ms(w) + 50)) break;
        there = true;
        for (int i = 0; i < nodes; i++) {
            const struct at_node_status *s = at_world_status(w, i);
            there = there && (!s || s->term >= term);
        }
    }
    if (at_world_violation(w)) fail_msg("%s", at_world_violation(w));
    if (!there) fprintf(stderr, "%s\n", at_world_trace(w));
    if (!there) fail_msg("term %u has not begun by %llu ms", term, (unsigned long long)at_world_now_ms(w));
}

static void one_becomes_four(void **state)
{
    (void)state;
    struct at_world_options o = options(1, 5, 4, 6);
    o.min_members = 5;
    struct at_world *w = make(&o);
    until_term(w, 2, 5);
    for (int i = 0; i < 4; i++) assert_true(at_world_status(w, i)->steward);
    assert_false(at_world_status(w, 4)->steward);
    must_finish(w, AT_EVER_MS);
    assert_int_equal(at_world_log_count(w, AT_RECORD_READY), 4);
    for (uint32_t r = 0; r < 6; r++) assert_true(at_world_included(w, r) == 5);
    at_world_release(w);
}

/* Runs on until round `round` is done at this node. */
static void until_round(struct at_world *w, int node, uint32_t round)
{
    for (uint64_t ms = 0; ms < 600000; ms += 20) {
        const struct at_node_status *s = at_world_status(w, node);
        if (s && s->round >= round) return;
        if (at_world_run(w, at_world_now_ms(w) + 20)) break;
    }
    if (at_world_violation(w)) fail_msg("%s", at_world_violation(w));
    fail_msg("round %u is not over at node %d by %llu ms", round, node, (unsigned long long)at_world_now_ms(w));
}

/* Five of which four have seats; the fifth is linked to seat 0 alone. In the middle of a round. */
static struct at_world *linked_to_one_seat(void)
{
    struct at_world_options o = options(1, 5, 4, 6);
    o.min_members = 5;
    o.step_ms = 10000;
    o.round_ms_max = 200000;
    struct at_world *w = make_down(&o);
    for (int i = 1; i < 4; i++) at_world_wall(w, i, 4, 0, AT_EVER_MS);
    start_all(w, 5);
    until_term(w, 2, 5);
    until_round(w, 0, at_world_status(w, 0)->round + 1);
    assert_false(at_world_run(w, at_world_now_ms(w) + 5000));
    return w;
}

static bool is_here(struct at_world *w, int node, int of)
{
    struct at_keypair key = at_world_node_key(w, of);
    const struct at_node_status *s = at_world_status(w, node);
    for (uint32_t r = 0; s && r < s->member_count; r++)
        if (at_node_id_eq(&s->members[r].id, &key.id)) return s->members[r].online;
    return false;
}

/* A seat whose link to another is new tells it who is linked here alone: it was down, */
static void a_seat_hears_again_who_is_here(void **state)
{
    (void)state;
    struct at_world *w = linked_to_one_seat();
    uint64_t now = at_world_now_ms(w);
    assert_true(is_here(w, 1, 4));
    at_world_crash(w, 1, now + 10, false);
    at_world_start_node(w, 1, now + 300);
    assert_false(at_world_run(w, now + 4000));
    assert_true(is_here(w, 1, 4));
    at_world_release(w);
}

/* or the links between them were. Else that one is left out of a round. */
static void seats_apart_for_a_while(void **state)
{
    (void)state;
    struct at_world *w = linked_to_one_seat();
    uint64_t now = at_world_now_ms(w);
    for (int i = 1; i < 4; i++) at_world_wall(w, 0, i, now + 10, now + 7000);
    must_finish(w, AT_EVER_MS);
    for (uint32_t r = 0; r < 6; r++) assert_int_equal(at_world_included(w, r), 5);
    at_world_release(w);
}

/* No block is new for so long; or one is. */
static bool goes_on_within(struct at_world *w, uint64_t ms)
{
    uint64_t before = at_world_block_ms(w), until = at_world_now_ms(w) + ms;
    while (at_world_now_ms(w) < until && at_world_block_ms(w) == before)
        if (at_world_run(w, at_world_now_ms(w) + 10)) break;
    if (at_world_violation(w)) fail_msg("%s", at_world_violation(w));
    return at_world_block_ms(w) != before;
}

static uint32_t online(struct at_world *w, int node)
{
    const struct at_node_status *s = at_world_status(w, node);
    return s ? s->seats_here : 0;
}

/* Right after the four hold their seats the founder is killed, for good. The run goes on, and somebody new comes in
 * through another member. */
static void founder_killed_for_good(void **state)
{
    (void)state;
    struct at_world_options o = options(2, 6, 5, 8);
    struct at_world *w = make_down(&o);
    start_all(w, 5);
    until_term(w, 2, 5);
    at_world_kill(w, 0, at_world_now_ms(w));
    at_world_contact(w, 5, 2);
    at_world_start_node(w, 5, at_world_now_ms(w) + 300);
    must_finish(w, AT_EVER_MS);
    assert_int_equal(at_world_included(w, 7), 5);
    at_err_t err;
    assert_true(at_world_ended(w, 5, &err) && err == AT_OK);
    at_world_release(w);
}

/* Whoever leads the next view dies. It takes a time-out to give up its view; the next block is there within two. */
static void leader_killed(void **state)
{
    (void)state;
    for (int victim = 0; victim < 4; victim += is_long() ? 1 : 3) {
        struct at_world_options o = options(10 + (uint64_t)victim, 5, 4, 8);
        struct at_world *w = make(&o);
        until_term(w, 2, 5);
        until_round(w, 4, 3);
        at_world_kill(w, victim, at_world_now_ms(w));
        for (int i = 0; i < 8; i++) assert_true(goes_on_within(w, 2 * 3 * 300 + 1000));
        must_finish(w, AT_EVER_MS);
        assert_int_equal(at_world_log_count(w, AT_RECORD_END), 3);
        at_world_release(w);
    }
}

/* A steward dies at any moment, with what it had not written through, and comes back. */
static void steward_comes_back(void **state)
{
    (void)state;
    for (uint64_t event = 0; event < (is_long() ? 12 : 2); event++) {
        struct at_world_options o = options(30 + event, 5, 4, 8);
        struct at_world *w = make(&o);
        until_term(w, 2, 5);
        at_world_crash_at_event(w, (int)(event % 4), 20 + 79 * event, AT_WORLD_CRASH_AFTER_OPS, 400);
        must_finish(w, AT_EVER_MS);
        for (int i = 0; i < 5; i++) {
            at_err_t err;
            assert_true(at_world_ended(w, i, &err) && err == AT_OK);
        }
        at_world_release(w);
    }
}

/* A steward among several that leaves now is the only one with its update at first: it stays until its work counts. */
static void steward_leaves_at_once(void **state)
{
    (void)state;
    const struct at_world_line line = {.latency_ms = 2, .up_kbit = 100000, .down_kbit = 100000};
    struct at_world_options o = options(90, 6, 5, 5);
    o.min_members = 6;
    o.lines = true;
    o.steps = 6;
    o.step_ms = 100;
    o.update_bytes = 1300000; /* more than is asked for at a time */
    struct at_world *w = make_down(&o);
    for (int i = 0; i < 6; i++) at_world_line_set(w, i, &line);
    start_all(w, 6);
    until_term(w, 2, 6);
    int who = 1;
    while (who < 4 && !at_world_status(w, who)->steward) who++;
    assert_true(at_world_status(w, who)->steward);
    uint32_t round = at_world_status(w, who)->round + 1;
    until_round(w, 0, round);
    for (int i = 0; i < 1000 && at_world_status(w, who)->phase != AT_NODE_PHASE_TRAINING; i++)
        assert_false(at_world_run(w, at_world_now_ms(w) + 10));
    uint64_t before = at_world_tokens(w, who), other = at_world_tokens(w, 5);
    at_world_leave(w, who, at_world_now_ms(w) + 150);
    must_finish(w, AT_EVER_MS);
    assert_int_equal(at_world_included(w, round), 6);
    assert_true(at_world_tokens(w, who) > before);
    assert_true(at_world_tokens(w, who) - before < (at_world_tokens(w, 5) - other) / 2);
    at_world_release(w);
}

/* One comes back with half of its log: what it has said since is not on its disk. It says nothing more in this term,
 * and follows; the other three go on. */
static void old_disk_abstains(void **state)
{
    (void)state;
    struct at_world_options o = options(50, 5, 4, 12);
    struct at_world *w = make(&o);
    until_term(w, 2, 5);
    until_round(w, 4, 5);
    at_world_crash(w, 3, at_world_now_ms(w), false);
    at_world_set(w, 3, AT_WORLD_DISK_ROT, AT_WORLD_ROT_BEHIND, at_world_now_ms(w) + 1);
    at_world_start_node(w, 3, at_world_now_ms(w) + 50);
    until_round(w, 4, 8);
    const struct at_node_status *s = at_world_status(w, 3);
    assert_true(s && s->steward && s->abstains);
    must_finish(w, AT_EVER_MS);
    at_world_release(w);
}

/* Two against two: nothing is final, and it is said; once they hear of each other again, the run goes on. */
static void two_against_two_wait(void **state)
{
    (void)state;
    struct at_world_options o = options(60, 5, 4, 8);
    struct at_world *w = make(&o);
    until_term(w, 2, 5);
    until_round(w, 4, 2);
    for (int i = 0; i < 2; i++) at_world_set(w, i, AT_WORLD_SIDE, 1, at_world_now_ms(w));
    goes_on_within(w, 8000); /* what was on its way */
    assert_false(goes_on_within(w, 30000));
    assert_int_equal(online(w, 0), 2);
    assert_int_equal(online(w, 2), 2);
    for (int i = 0; i < 2; i++) at_world_set(w, i, AT_WORLD_SIDE, 0, at_world_now_ms(w));
    assert_true(goes_on_within(w, 60000));
    must_finish(w, AT_EVER_MS);
    at_world_release(w);
}

/* Three against one: they go on; the one catches up. */
static void three_against_one_go_on(void **state)
{
    (void)state;
    struct at_world_options o = options(70, 5, 4, 12);
    struct at_world *w = make(&o);
    until_term(w, 2, 5);
    until_round(w, 4, 2);
    at_world_set(w, 1, AT_WORLD_SIDE, 1, at_world_now_ms(w));
    until_round(w, 4, 5);
    at_world_set(w, 1, AT_WORLD_SIDE, 0, at_world_now_ms(w));
    must_finish(w, AT_EVER_MS);
    at_err_t err;
    assert_true(at_world_ended(w, 1, &err) && err == AT_OK);
    at_world_release(w);
}

/* One of four says different things to different stewards, or to half of them nothing. */
static void one_of_four_lies(void **state)
{
    (void)state;
    static const uint64_t how[] = {AT_WORLD_HOSTILE_HOLD_VOTES, AT_WORLD_HOSTILE_EQUIVOCATE,
                                   AT_WORLD_HOSTILE_WITHHOLD | AT_WORLD_HOSTILE_READY};
    for (size_t i = 0; i < sizeof how / sizeof how[0]; i++) {
        struct at_world_options o = options(80 + i, 5, 4, 6);
        struct at_world *w = make(&o);
        until_term(w, 2, 5);
        at_world_set(w, 1, AT_WORLD_HOSTILE, how[i], at_world_now_ms(w));
        must_finish(w, AT_EVER_MS);
        assert_int_equal(at_world_log_count(w, AT_RECORD_END) >= 3, true);
        at_world_release(w);
    }
}

/* Who says two things in one view is found out by what the others hold, and whoever has a ticket and no seat gets its. */
static void liar_loses_its_seat(void **state)
{
    (void)state;
    struct at_world_options o = options(83, 5, 5, 16); /* of some seeds nobody holds both in time */
    o.min_members = 5;
    struct at_world *w = make(&o);
    until_term(w, 2, 5);
    int spare = 1, liar = 1;
    while (at_world_status(w, spare)->steward) spare++;
    while (liar == spare) liar++;
    at_world_set(w, liar, AT_WORLD_HOSTILE, AT_WORLD_HOSTILE_EQUIVOCATE, at_world_now_ms(w));
    until_term(w, 3, 5);
    assert_int_equal(at_world_log_count(w, AT_RECORD_EVIDENCE), 1);
    assert_true(at_world_status(w, 0)->round < 14); /* without EVIDENCE a term has 32 rounds */
    assert_true(at_world_status(w, spare)->steward);
    assert_false(at_world_status(w, liar)->steward);
    must_finish(w, AT_EVER_MS);
    at_world_release(w);
}

/* A term of four ends after 32 rounds, and three more who have tickets come in. The old keys are gone from the disks. */
static void four_become_seven(void **state)
{
    (void)state;
    if (!is_long()) skip();
    struct at_world_options o = options(90, 8, 8, 38);
    o.steps = 1;
    struct at_world *w = make_down(&o);
    start_all(w, 4);
    until_term(w, 2, 4);
    for (int i = 4; i < 8; i++) at_world_start_node(w, i, at_world_now_ms(w) + 10 * (uint64_t)i);
    until_term(w, 3, 8);
    assert_int_equal(at_world_status(w, 7)->seats, 7);
    must_finish(w, AT_EVER_MS);
    for (int i = 0; i < 8; i++) assert_true(at_world_oldest_secret(w, i) == 0 || at_world_oldest_secret(w, i) >= 3);
    at_world_release(w);
}

/* Everything at once, by chance: latencies, losses of unsynced writes, restarts, one-way silence, partitions. */
static void seed_run(uint64_t seed)
{
    struct at_world_options o = options(seed, 6, 4, 6);
    o.sync_ms_max = 1 + (uint32_t)(seed % 40);
    o.latency_ms_max = 2 + (uint32_t)(seed % 7) * 20;
    o.round_ms_max = 8000;
    o.peers_give_up = true; /* whoever is cut off when the run ends may find nobody afterwards */
    struct at_world *w = make(&o);
    until_term(w, 2, 6);
    uint64_t x = seed * UINT64_C(0x9e3779b97f4a7c15) + 1, now = at_world_now_ms(w);
    for (int i = 0; i < 6; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        int node = (int)(x % 6);
        uint64_t at = now + x / 7 % 6000, until = at + 200 + x / 11 % 9000;
        switch (x / 13 % 4) {
        case 0:
            at_world_crash(w, node, at, x / 17 % 2 == 0);
            at_world_start_node(w, node, until);
            break;
        case 1:
            at_world_set(w, node, AT_WORLD_SIDE, 1, at);
            at_world_set(w, node, AT_WORLD_SIDE, 0, until);
            break;
        case 2:
            at_world_set(w, node, x / 17 % 2 ? AT_WORLD_DEAF : AT_WORLD_MUTE, 1, at);
            at_world_set(w, node, AT_WORLD_DEAF, 0, until);
            at_world_set(w, node, AT_WORLD_MUTE, 0, until);
            break;
        default:
            at_world_break_links(w, node, at);
            break;
        }
    }
    must_finish(w, at_world_now_ms(w) + 3600000);
    const char *missing = at_world_unfinished(w);
    if (missing) fail_msg("seed %llu: %s", (unsigned long long)seed, missing);
    at_world_release(w);
}

static void seeds(void **state)
{
    (void)state;
    const char *one = getenv("ATOLL_SIM_SEED"), *many = getenv("ATOLL_SIM_SEEDS");
    uint64_t count = many ? strtoull(many, NULL, 10) : is_long() ? 40 : 1;
    if (one) {
        seed_run(strtoull(one, NULL, 10));
        return;
    }
    for (uint64_t seed = 1000; seed < 1000 + count; seed++) {
        print_message("seed %llu; alone: ATOLL_SIM_ONLY=seeds ATOLL_SIM_SEED=%llu\n", (unsigned long long)seed,
                      (unsigned long long)seed);
        seed_run(seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_becomes_four),        cmocka_unit_test(founder_killed_for_good),
        cmocka_unit_test(leader_killed),           cmocka_unit_test(steward_comes_back),
        cmocka_unit_test(steward_leaves_at_once),  cmocka_unit_test(old_disk_abstains),
        cmocka_unit_test(two_against_two_wait),    cmocka_unit_test(three_against_one_go_on),
        cmocka_unit_test(one_of_four_lies),        cmocka_unit_test(liar_loses_its_seat),
        cmocka_unit_test(four_become_seven),       cmocka_unit_test(a_seat_hears_again_who_is_here),
        cmocka_unit_test(seats_apart_for_a_while), cmocka_unit_test(seeds),
    };
    const char *only = getenv("ATOLL_SIM_ONLY");
    if (only) cmocka_set_test_filter(only);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
