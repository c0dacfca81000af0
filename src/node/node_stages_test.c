/* node_stages_test.c: nodes that compute a unit together, a stage each, while one of them dies and comes back, or hangs.
 * Whoever computes it, a group's unit is the same: so the root is that of one process with as many replicas as there are
 * groups. */
#include "node/node_test_util.h"

enum { ROUNDS = 3, STEPS = 60 };

static void begin(struct member *m, int count, uint32_t steps)
{
    struct at_node_place place;
    found_as(&m[0], ROUNDS, (uint32_t)count, steps, 2, &place);
    start_node(&m[0]);
    for (int i = 1; i < count; i++) {
        join(&m[i], i, place.invite);
        start_node(&m[i]);
        WAIT_FOR(ask(&m[0], "members") == i + 1, 30000, m, i + 1); /* replica order = order of joining */
    }
}

static void end(struct member *m, int count, int groups, uint32_t steps)
{
    char root[65];
    for (int i = 0; i < count; i++) expect_exit(m, count, i, 0, 120000);
    expect_agreement(m, count, ROUNDS);
    local_root_as(groups, ROUNDS, steps, root);
    assert_string_equal(read_result(&m[0]).root, root);
}

static void test_two_groups_of_two(void **state)
{
    struct member m[4] = {{{0}, 0}};
    begin(m, 4, 0);
    end(m, 4, 2, 0);
}

static void test_a_stage_dies_in_the_middle_of_a_unit(void **state)
{
    struct member m[2] = {{{0}, 0}};
    begin(m, 2, STEPS);
    WAIT_FOR(ask(&m[0], "step") > 0, 60000, m, 2);
    kill_node(&m[1]);
    WAIT_FOR(ask(&m[0], "rounds_done") > 0, 60000, m, 2); /* the founder did the unit alone */
    start_node(&m[1]);
    end(m, 2, 1, STEPS);
}

static void test_a_stage_hangs(void **state)
{
    struct member m[2] = {{{0}, 0}};
    begin(m, 2, STEPS);
    WAIT_FOR(ask(&m[0], "step") > 0, 60000, m, 2);
    kill(m[1].pid, SIGSTOP);
    WAIT_FOR(ask(&m[0], "rounds_done") > 0, 60000, m, 2);
    kill(m[1].pid, SIGCONT);
    end(m, 2, 1, STEPS);
}

int main(int argc, char **argv)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, make_base, remove_base)
    const struct CMUnitTest tests[] = {CASE(test_two_groups_of_two), CASE(test_a_stage_dies_in_the_middle_of_a_unit)};
    const struct CMUnitTest slow[] = {CASE(test_a_stage_hangs)}; /* five seconds of silence */
    at_sys_process_init();
    if (argc > 1 && strcmp(argv[1], "--long") == 0) return cmocka_run_group_tests(slow, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
