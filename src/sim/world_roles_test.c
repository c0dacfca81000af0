/* world_roles_test.c: members measure themselves, and groups follow from it: two sites far apart, unlike speeds, a spare, a
 * member without memory, one that lies. */
#include "sim/world_rig.h"

static struct at_world_options roles(uint64_t seed, int nodes, bool measure)
{
    struct at_world_options o = small(seed);
    o.nodes = nodes;
    o.min_members = (uint32_t)nodes;
    o.stages = 2;
    o.rounds = 12;
    o.steps = 10;
    o.step_ms = 300;
    o.round_ms_max = 60000;
    o.stage_costs = true;
    o.roles = measure;
    return o;
}

static int node_of(struct at_world *w, int nodes, const struct at_node_id *id)
{
    for (int i = 0; i < nodes; i++) {
        struct at_keypair key = at_world_node_key(w, i);
        if (at_node_id_eq(&key.id, id)) return i;
    }
    return -1;
}

static const struct at_node_member_status *member(struct at_world *w, int node)
{
    struct at_keypair key = at_world_node_key(w, node);
    const struct at_node_status *s = at_world_status(w, 0);
    for (uint32_t r = 0; r < s->member_count; r++)
        if (at_node_id_eq(&s->members[r].id, &key.id)) return &s->members[r];
    fail_msg("node %d is no member", node);
    return NULL;
}

static void run_to_round(struct at_world *w, uint32_t round)
{
    for (const struct at_node_status *s;;) {
        if ((s = at_world_status(w, 0)) && s->round >= round && s->phase == AT_NODE_PHASE_TRAINING) return;
        if (at_world_now_ms(w) > 600000) fail_msg("round %u was not reached", round);
        assert_false(at_world_run(w, at_world_now_ms(w) + 50));
        if (at_world_violation(w)) fail_msg("%s", at_world_violation(w));
    }
}

/* Nodes of even numbers here, those of odd numbers 100 ms away. In the order of the log every group has one of both. */
static struct at_world *two_sites(uint64_t seed, bool measure)
{
    struct at_world_options o = roles(seed, 8, measure);
    o.site_ms = 100;
    struct at_world *w = make_down(&o);
    for (int i = 0; i < o.nodes; i++) {
        at_world_set(w, i, AT_WORLD_SITE, (uint64_t)(i % 2), 0);
        at_world_speed(w, i, i % 4 < 2 ? 2 : 1);
        at_world_start_node(w, i, 2000 * (uint64_t)i); /* they join one after the other */
    }
    return w;
}

static void groups_do_not_straddle_sites(void **state)
{
    (void)state;
    uint64_t took_ms[2];
    for (int measure = 0; measure < 2; measure++) {
        struct at_world *w = two_sites(51, measure);
        run_to_round(w, 6);
        const struct at_node_status *s = at_world_status(w, 0);
        int straddle = 0, train = 0;
        for (uint32_t r = 0; r < s->member_count; r++) {
            const struct at_part *part = &s->members[r].part;
            if (part->role != AT_GROUP_ROLE_TRAINS) continue;
            train++;
            straddle += node_of(w, 8, &s->members[r].id) % 2 != node_of(w, 8, &s->members[part->lead].id) % 2;
        }
        assert_int_equal(train, 8);
        if (measure)
            assert_int_equal(straddle, 0);
        else
            assert_true(straddle > 0); /* else this world proves nothing */
        must_finish(w, 1200000);
        took_ms[measure] = at_world_now_ms(w);
        assert_int_equal(at_world_log_count(w, AT_RECORD_MEASURE) > 0, measure);
        at_world_release(w);
    }
    print_message("12 rounds: %llu ms in the order of the log, %llu ms by plan\n", (unsigned long long)took_ms[0],
                  (unsigned long long)took_ms[1]);
    assert_true(took_ms[1] * 10 < took_ms[0] * 9); /* virtual time: the same on every machine */
}

static void a_spare_takes_over_in_the_next_round(void **state)
{
    (void)state;
    struct at_world_options o = roles(52, 5, true);
    struct at_world *w = make_down(&o);
    at_world_speed(w, 4, 0.8);
    start_all(w, o.nodes);
    run_to_round(w, 4);
    int spare = -1, dead = -1;
    for (int i = 0; i < 5; i++)
        if (member(w, i)->part.role == AT_GROUP_ROLE_SPARE) spare = i;
    assert_true(spare >= 0);
    for (int i = 1; i < 5; i++)
        if (i != spare && dead < 0) dead = i;
    uint32_t round = at_world_status(w, 0)->round;
    at_world_kill(w, dead, at_world_now_ms(w) + 1);
    run_to_round(w, round + 2);
    assert_int_equal(member(w, spare)->part.role, AT_GROUP_ROLE_TRAINS);
    assert_int_equal(member(w, spare)->part.stages, 2);
    must_finish(w, 1200000);
    at_world_release(w);
}

static void whoever_has_no_memory_helps(void **state)
{
    (void)state;
    struct at_world_options o = roles(53, 5, true);
    struct at_world *w = make_down(&o);
    at_world_set(w, 3, AT_WORLD_MEMORY_MIB, 4, 0);
    start_all(w, o.nodes);
    run_to_round(w, 4);
    char why[AT_PART_TEXT];
    assert_int_equal(member(w, 3)->part.role, AT_GROUP_ROLE_NO_MEMORY);
    at_part_text(&member(w, 3)->part, why);
    assert_non_null(strstr(why, "no memory for a stage"));
    must_finish(w, 1200000);
    at_world_release(w);
}

/* Node 1 is eight times slower than it says: units show it, and it is not believed any more. */
static void who_is_slower_than_it_says_is_found_out(void **state)
{
    (void)state;
    struct at_world_options o = roles(54, 4, true);
    struct at_world *w = make_down(&o);
    start_all(w, o.nodes);
    run_to_round(w, 2);
    at_world_set(w, 1, AT_WORLD_SPEED_PERMILLE, 100, at_world_now_ms(w) + 1);
    run_to_round(w, 8);
    assert_true(member(w, 1)->part.doubt > 0);
    must_finish(w, 1200000);
    at_world_release(w);
}

/* Groups of several in this round that node `with` is in; of all nodes: -1. */
static int groups(struct at_world *w, int with)
{
    int n = 0;
    const struct at_node_status *s = at_world_status(w, 0);
    for (uint32_t r = 0; r < s->member_count; r++) {
        const struct at_part *part = &s->members[r].part;
        n += part->stages > 1 && (with < 0 ? part->stage == 0 : node_of(w, 8, &s->members[r].id) == with);
    }
    return n;
}

static double tokens_per_ms(struct at_world *w, uint32_t until_round)
{
    uint64_t tokens = 0, since_ms = at_world_now_ms(w);
    for (int i = 0; i < 8; i++) tokens -= at_world_tokens(w, i);
    run_to_round(w, until_round);
    for (int i = 0; i < 8; i++) tokens += at_world_tokens(w, i);
    return (double)tokens / (double)(at_world_now_ms(w) - since_ms);
}

/* Eight alike, 100 Mbit/s, but node 3, whose line carries 1: a step's activations take two seconds over it, and a step
 * of the whole model a third of one. While nothing is known it is put into a group; what goes over its line there shows
 * what that carries, and it computes alone, or not at all. */
static void a_narrow_line_is_found_out(void **state)
{
    enum { SLOW = 3, KNOWN = 6 };
    const struct at_world_line fast = {.latency_ms = 2, .up_kbit = 100000, .down_kbit = 100000};
    const struct at_world_line slow = {.latency_ms = 2, .up_kbit = 1000, .down_kbit = 1000};
    struct at_world_options o = roles(55, 8, true);
    (void)state;
    o.lines = true;
    struct at_world *w = make_down(&o);
    for (int i = 0; i < 8; i++) at_world_line_set(w, i, i == SLOW ? &slow : &fast);
    start_all(w, o.nodes);
    run_to_round(w, 1);
    assert_int_equal(groups(w, SLOW), 1);
    assert_int_equal(member(w, SLOW)->part.line_kbit, 0);
    double before = tokens_per_ms(w, 2);
    for (uint32_t round = KNOWN; round < o.rounds - 1; round++) {
        run_to_round(w, round);
        assert_int_equal(groups(w, SLOW), 0);
        assert_int_equal(groups(w, -1), 3);
        assert_in_range(member(w, SLOW)->part.line_kbit, 900, 1000); /* a code, rounded down */
    }
    double after = tokens_per_ms(w, o.rounds - 1);
    print_message("tokens a second: %.0f with the narrow line in a group, %.0f without\n", 1000 * before, 1000 * after);
    assert_true(after > 3 * before); /* virtual time: the same on every machine */
    char why[AT_PART_TEXT];
    at_part_text(&member(w, SLOW)->part, why);
    if (!strstr(why, "line") || !strstr(why, "too slow to share")) fail_msg("%s", why);
    must_finish(w, 1200000);
    at_world_release(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(groups_do_not_straddle_sites), cmocka_unit_test(a_spare_takes_over_in_the_next_round),
        cmocka_unit_test(whoever_has_no_memory_helps),  cmocka_unit_test(who_is_slower_than_it_says_is_found_out),
        cmocka_unit_test(a_narrow_line_is_found_out),
    };
    const char *only = getenv("ATOLL_SIM_ONLY");
    if (only) cmocka_set_test_filter(only);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
