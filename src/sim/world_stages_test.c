/* world_stages_test.c: units computed by groups of members: all of them, some that die or cannot reach each other, one that
 * comes back; and random worlds with faults.
 * ATOLL_SIM_SEED and ATOLL_SIM_SEEDS: the first seed of the random worlds and how many. */
#include "sim/world_rig.h"

static struct at_world_options groups(uint64_t seed, int nodes, uint32_t stages)
{
    struct at_world_options o = small(seed);
    o.nodes = nodes;
    o.min_members = (uint32_t)nodes;
    o.stages = stages;
    o.rounds = 3;
    o.step_ms = 300;
    return o;
}

static void everybody_counts(void **state)
{
    (void)state;
    struct at_world_options o = groups(31, 5, 2);
    struct at_world *w = make(&o);
    must_finish(w, 60000);
    for (uint32_t r = 0; r < 3; r++) assert_int_equal(at_world_included(w, r), 5);
    assert_int_equal(at_world_log_count(w, AT_RECORD_RECEIPT), 15); /* nobody had to work twice */
    at_world_release(w);
}

/* Replica 1 of (0 1) and 3 of (2 3) die in the middle of the first unit, for good: 0 and 2 do those units, and from then
 * on they are a group. */
static void whoever_is_left_does_the_unit(void **state)
{
    (void)state;
    struct at_world_options o = groups(32, 4, 2);
    struct at_world *w = make(&o);
    assert_false(at_world_run(w, 600));
    assert_int_equal(at_world_status(w, 0)->phase, AT_NODE_PHASE_TRAINING);
    at_world_kill(w, 1, 601);
    at_world_kill(w, 3, 602);
    must_finish(w, 120000);
    for (uint32_t r = 0; r < 3; r++) assert_int_equal(at_world_included(w, r), 2);
    at_world_release(w);
}

/* A member of three hangs: its links are silent for five seconds. The other two do the unit together. */
static void a_member_that_hangs_is_done_without(void **state)
{
    (void)state;
    struct at_world_options o = groups(33, 3, 3);
    o.rounds = 2;
    o.step_ms = 3000;
    struct at_world *w = make(&o);
    at_world_crash(w, 2, 1000, true);
    at_world_start_node(w, 2, 12000);
    must_finish(w, 120000);
    assert_int_equal(at_world_included(w, 0), 2);
    assert_int_equal(at_world_included(w, 1), 3);
    at_world_release(w);
}

/* It is back while the other already works alone: it stands by, and is of the next round. */
static void whoever_comes_back_stands_by(void **state)
{
    (void)state;
    struct at_world_options o = groups(34, 2, 2);
    o.rounds = 2;
    o.step_ms = 2000;
    struct at_world *w = make(&o);
    at_world_crash(w, 1, 1500, false);
    at_world_start_node(w, 1, 1600);
    must_finish(w, 120000);
    assert_int_equal(at_world_included(w, 0), 1);
    assert_int_equal(at_world_included(w, 1), 2);
    assert_int_equal(at_world_log_count(w, AT_RECORD_RECEIPT), 3); /* it did not do the unit once more */
    at_world_release(w);
}

/* Two of a group that cannot be linked both do the unit; it counts once. */
static void members_that_cannot_be_linked_work_alone(void **state)
{
    (void)state;
    struct at_world_options o = groups(35, 3, 3);
    struct at_world *w = make_down(&o);
    at_world_wall(w, 1, 2, 0, AT_EVER_MS);
    start_all(w, 3);
    must_finish(w, 120000);
    for (uint32_t r = 0; r < 3; r++) assert_true(at_world_included(w, r) >= 1);
    at_world_release(w);
}

/* A member that agrees and then does nothing: the others of its group do not wait for it until the round is over. */
static void a_member_that_stalls_is_done_without(void **state)
{
    (void)state;
    struct at_world_options o = groups(37, 4, 2);
    o.rounds = 1;
    o.round_ms_max = 60000;
    struct at_world *w = make(&o);
    at_world_speed(w, 1, 1e-4);
    must_finish(w, 120000);
    assert_int_equal(at_world_included(w, 0), 3);
    assert_true(at_world_now_ms(w) < 40000); /* of virtual time: it began to stall after a second */
    at_world_release(w);
}

static uint64_t time_of(struct at_world *w, bool (*true_now)(struct at_world *w))
{
    while (!true_now(w)) {
        assert_true(at_world_now_ms(w) < 600000);
        assert_false(at_world_run(w, at_world_now_ms(w) + 10));
    }
    return at_world_now_ms(w);
}

static bool second_round_opens(struct at_world *w)
{
    const struct at_node_status *s = at_world_status(w, 0);
    return s && s->round == 1 && s->phase == AT_NODE_PHASE_TRAINING;
}

static bool second_round_closes(struct at_world *w)
{
    return at_world_included(w, 1) != UINT32_MAX;
}

/* Replicas 2 and 3 cannot be linked, and do their unit alone, 3 slowly. When 2 has done it nobody else is awaited, 3 neither:
 * its receipt does not wait for company, which in a round of 44 s would be 690 ms. */
static void a_receipt_waits_for_nobody_who_is_not_needed(void **state)
{
    (void)state;
    struct at_world_options o = groups(40, 4, 2);
    o.steps = 20;
    o.step_ms = 2000;
    o.round_ms_max = 150000;
    struct at_world *w = make_down(&o);
    at_world_wall(w, 2, 3, 0, AT_EVER_MS);
    at_world_speed(w, 3, 0.5);
    for (int i = 0; i < 4; i++) at_world_start_node(w, i, 1000 * (uint64_t)i); /* replicas in this order */
    uint64_t opens = time_of(w, second_round_opens), closes = time_of(w, second_round_closes);
    assert_int_equal(at_world_included(w, 1), 3);
    assert_in_range(closes - opens, 44000, 44400); /* 4 s until 2 does without 3, and 20 steps */
    at_world_release(w);
}

/* Of two members one says after its first step that it has done all of them. The round is too short for that: the other ends
 * earlier, as it must, and its part goes with no receipt of the liar's. So it does what it can alone, in the same round. */
static void a_false_number_of_steps_costs_time_only(void **state)
{
    (void)state;
    struct at_world_options o = groups(39, 3, 2);
    o.rounds = 2;
    o.steps = 20;
    o.step_ms = 4000; /* 20 of them take longer than the round may */
    o.round_ms_max = 60000;
    struct at_world *w = make(&o);
    at_world_set(w, 1, AT_WORLD_HOSTILE, AT_WORLD_HOSTILE_STEPS, 0);
    must_finish(w, 200000);
    for (uint32_t r = 0; r < 2; r++) assert_int_equal(at_world_included(w, r), 2); /* of replicas 0 and 2 */
    at_world_release(w);
}

static void stewards_of_a_run_of_stages(void **state)
{
    (void)state;
    struct at_world_options o = groups(36, 5, 2);
    o.stewards = 4;
    o.rounds = 4;
    struct at_world *w = make(&o);
    at_world_crash(w, 2, 3000, false);
    at_world_start_node(w, 2, 5000);
    must_finish(w, 200000);
    at_world_release(w);
}

static void random_world(uint64_t seed, bool roles)
{
    uint64_t x = seed * 6151 + 5;
    struct at_world_options o = groups(seed, 2 + (int)(lcg(&x) % 6), 2 + (uint32_t)(lcg(&x) % 3));
    struct at_world *w = NULL;
    o.min_members = 1 + (uint32_t)(lcg(&x) % (uint64_t)o.nodes);
    o.rounds = 1 + (uint32_t)(lcg(&x) % 4);
    o.latency_ms_max = 1 + (uint32_t)(lcg(&x) % 60);
    o.step_ms = 5 + (uint32_t)(lcg(&x) % 600);
    o.round_ms_max = 8000 + (uint32_t)(lcg(&x) % 12000);
    o.full_percent = (uint32_t)(lcg(&x) % 40);
    o.roles = o.stage_costs = roles;
    if (roles) o.rounds += 4;
    assert_int_equal(at_world_init(&o, &w), AT_OK);
    for (int i = 0; i < o.nodes; i++) at_world_start_node(w, i, lcg(&x) % 3000);
    for (int i = 0; i < o.nodes && roles; i++) {
        at_world_speed(w, i, 0.1 + (double)(lcg(&x) % 30) / 10);
        if (lcg(&x) % 6 == 0) at_world_set(w, i, AT_WORLD_MEMORY_MIB, 4 + lcg(&x) % 40, 0);
    }
    for (uint64_t faults = lcg(&x) % 7; faults > 0; faults--) {
        int node = (int)(lcg(&x) % (uint64_t)o.nodes), other = (int)(lcg(&x) % (uint64_t)o.nodes);
        uint64_t at = 1 + lcg(&x) % 8000, length = lcg(&x) % 9000, kind = lcg(&x) % 5;
        if (kind < 2) {
            at_world_crash(w, node, at, kind == 0 && lcg(&x) % 2 == 0);
            at_world_start_node(w, node, at + 1 + length);
        } else if (kind == 2) {
            at_world_break_links(w, node, at);
        } else if (kind == 3) {
            at_world_partition(w, node, at, at + length);
        } else if (other != node) {
            at_world_wall(w, node, other, at, at + length);
        }
    }
    /* Who reached nobody when it came gives up, and its user tries again. */
    at_world_run(w, 60000);
    for (int i = 1; i < o.nodes; i++) {
        at_err_t err;
        if (at_world_ended(w, i, &err) && err == AT_E_PEER) at_world_return_node(w, i, at_world_now_ms(w) + 1);
    }
    must_finish(w, 400000);
    at_world_release(w);
}

static void random_worlds_of(bool roles)
{
    uint64_t first = from_env("ATOLL_SIM_SEED", 1), count = from_env("ATOLL_SIM_SEEDS", roles ? 20 : 60);
    print_message("seeds from %llu on, %llu of them: ATOLL_SIM_SEED=N ATOLL_SIM_SEEDS=1 ATOLL_SIM_ONLY=random_worlds%s "
                  "runs one\n",
                  (unsigned long long)first, (unsigned long long)count, roles ? "_with_roles" : "");
    for (uint64_t seed = first; seed < first + count; seed++) random_world(seed, roles);
}

static void random_worlds(void **state)
{
    (void)state;
    random_worlds_of(false);
}

static void random_worlds_with_roles(void **state)
{
    (void)state;
    random_worlds_of(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everybody_counts),
        cmocka_unit_test(whoever_is_left_does_the_unit),
        cmocka_unit_test(a_member_that_hangs_is_done_without),
        cmocka_unit_test(whoever_comes_back_stands_by),
        cmocka_unit_test(members_that_cannot_be_linked_work_alone),
        cmocka_unit_test(a_member_that_stalls_is_done_without),
        cmocka_unit_test(a_receipt_waits_for_nobody_who_is_not_needed),
        cmocka_unit_test(a_false_number_of_steps_costs_time_only),
        cmocka_unit_test(stewards_of_a_run_of_stages),
        cmocka_unit_test(random_worlds),
        cmocka_unit_test(random_worlds_with_roles),
    };
    const char *only = getenv("ATOLL_SIM_ONLY");
    if (only) cmocka_set_test_filter(only);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
