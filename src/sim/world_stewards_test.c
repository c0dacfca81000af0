/* Runs with several stewards, who become them while the run goes on. Each failure prints its seed; ATOLL_SIM_SEED=n runs
 * the test of many seeds with that one alone. */
#include "sim/world_rig.h"

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
    if (!there) fail_msg("term %u has not begun by %llu ms", term, (unsigned long long)at_world_now_ms(w));
}

static void one_becomes_four(void **state)
{
    (void)state;
    struct at_world_options o = options(1, 5, 4, 6);
    struct at_world *w = make(&o);
    until_term(w, 2, 5);
    for (int i = 0; i < 4; i++) assert_true(at_world_status(w, i)->steward);
    assert_false(at_world_status(w, 4)->steward);
    must_finish(w, AT_EVER_MS);
    assert_int_equal(at_world_log_count(w, AT_RECORD_READY), 4);
    for (uint32_t r = 0; r < 6; r++) assert_true(at_world_included(w, r) == 5);
    at_world_release(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_becomes_four),
    };
    const char *only = getenv("ATOLL_SIM_ONLY");
    if (only) cmocka_set_test_filter(only);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
