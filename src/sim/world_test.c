/* world_test.c: scripted stories: one round line by line, deaths, returns, stragglers, partitions. */
#include "sim/world_rig.h"

/* ---- one round, line by line: two nodes, a millisecond of latency, writes that take one ---- */
/* clang-format off */
static const char expected_round[] =
    "0 0 stores 0 JOIN\n"
    "1 0 makes the initial state\n"
    "2 1>0 hello\n"
    "2 0>1 hello\n"
    "3 1>0 want\n"
    "4 0>1 piece\n"
    "5 1>0 log_get\n"
    "6 0 saves\n"
    "7 0>1 log_part\n"
    "8 1 stores 0 JOIN\n"
    "8 1>0 peers_get\n"
    "8 1>0 want\n"
    "9 0>1 peers\n"
    "9 0>1 piece\n"
    "11 1>0 submit\n"
    "12 0 stores 1 JOIN\n"
    "13 0>1 log_part\n"
    "13 0>1 peers_get\n"
    "13 0>1 saved\n"
    "14 1 stores 1 JOIN\n"
    "14 1>0 peers\n"
    "14 1 makes the initial state\n"
    "14 1>0 peers\n"
    "19 1>0 ready\n"
    "19 1 saves\n"
    "20 0 stores 2 OPEN\n"
    "20 1>0 saved\n"
    "21 0>1 log_part\n"
    "21 0 trains\n"
    "22 1 stores 2 OPEN\n"
    "22 1 trains\n"
    "81 0 stores 3 RECEIPT\n"
    "81 0>1 progress\n"
    "82 1>0 progress\n"
    "82 1>0 submit\n"
    "82 0>1 log_part\n"
    "83 1 stores 3 RECEIPT\n"
    "83 0>1 want\n"
    "83 1>0 want\n"
    "84 1>0 piece\n"
    "84 0>1 piece\n"
    "86 0 stores 4 RECEIPT\n"
    "87 0 stores 5 CLOSE\n"
    "87 0>1 log_part\n"
    "88 0>1 log_part\n"
    "88 1 stores 4 RECEIPT\n"
    "88 0 applies\n"
    "89 1 stores 5 CLOSE\n"
    "89 1 applies\n"
    "92 0 stores 6 EPOCH\n"
    "93 0 stores 7 END\n"
    "93 0>1 log_part\n"
    "93 0 saves\n"
    "94 0>1 log_part\n"
    "94 1 stores 6 EPOCH\n"
    "94 1>0 ready\n"
    "94 1 saves\n"
    "95 0>1 saved\n"
    "95 1 stores 7 END\n"
    "98 1>0 saved\n"
    "98 1>0 bye\n"
    "98 1 ends\n"
    "99 0 ends\n";
/* clang-format on */

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
    uint32_t dials = 0;
    for (int i = 0; i < 5; i++) dials += at_world_dials(w, i);
    assert_in_range(dials, 10, 15); /* of ten pairs; two may dial each other at once while they learn of each other */
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

/* One that is too slow for a unit in a round hands in what it has in time, and that counts. */
static void slow_member(void **state)
{
    (void)state;
    struct at_world_options o = small(7);
    o.rounds = 3;
    o.steps = 6;
    o.step_ms = 100;
    o.round_ms_max = 3000;
    struct at_world *w = make(&o);
    at_world_speed(w, 2, 0.1); /* a second for each step, so two of six */
    must_finish(w, 60000);
    for (uint32_t r = 0; r < 3; r++) assert_int_equal(at_world_included(w, r), 3);
    assert_int_equal(at_world_tokens(w, 0), 3 * at_world_tokens(w, 2));
    assert_true(at_world_tokens(w, 2) > 0);
    at_world_release(w);
}

/* One that leaves now has the steps that are done counted, and need not wait for the round. */
static void leaves_at_once(void **state)
{
    (void)state;
    struct at_world_options o = small(12);
    at_err_t err;
    o.rounds = 3;
    o.steps = 10;
    o.step_ms = 400;
    struct at_world *w = make(&o);
    at_world_leave(w, 2, 1500);
    assert_false(at_world_run(w, 3500)); /* a unit takes 4 s */
    assert_true(at_world_ended(w, 2, &err));
    assert_int_equal(err, AT_OK);
    assert_int_equal(at_world_log_count(w, AT_RECORD_LEAVE), 1);
    assert_int_equal(at_world_log_count(w, AT_RECORD_CLOSE), 0);
    must_finish(w, 60000);
    assert_int_equal(at_world_included(w, 0), 3);
    assert_int_equal(at_world_included(w, 1), 2);
    uint64_t part = at_world_tokens(w, 2), whole = at_world_tokens(w, 1);
    assert_true(part > 0 && part < whole / 3);
    at_world_release(w);
}

/* The same where the unit is shared by all: it ends for all, and the next round begins. */
static void leaves_a_group_at_once(void **state)
{
    (void)state;
    struct at_world_options o = small(13);
    at_err_t err;
    o.rounds = 3;
    o.stages = 3;
    o.steps = 10;
    o.step_ms = 400;
    struct at_world *w = make(&o);
    at_world_leave(w, 2, 1500);
    assert_false(at_world_run(w, 6000));
    assert_true(at_world_ended(w, 2, &err));
    assert_int_equal(err, AT_OK);
    must_finish(w, 90000);
    assert_true(at_world_tokens(w, 2) > 0);
    assert_true(at_world_tokens(w, 2) < at_world_tokens(w, 1) / 2);
    at_world_release(w);
}

/* It leaves when all who share the unit have handed in, not when it has: behind a slow line a part takes its time. */
static void leaves_a_group_of_slow_lines(void **state)
{
    (void)state;
    const struct at_world_line fast = {.latency_ms = 2, .up_kbit = 100000, .down_kbit = 100000};
    const struct at_world_line slow = {.latency_ms = 2, .up_kbit = 400, .down_kbit = 100000};
    struct at_world_options o = small(14);
    o.lines = true;
    o.rounds = 2;
    o.stages = 3;
    o.steps = 10;
    o.step_ms = 400;
    o.update_bytes = 100000; /* 2 s on the slow line */
    o.trace = true;
    struct at_world *w = make_down(&o);
    for (int i = 0; i < 3; i++) at_world_line_set(w, i, i == 1 ? &slow : &fast);
    start_all(w, 3);
    at_world_leave(w, 2, 1500);
    must_finish(w, 90000);
    assert_int_equal(at_world_included(w, 0), 3);
    int began = 0;
    for (const char *at = at_world_trace(w); (at = strstr(at, " trains\n")) != NULL; at++) began++;
    assert_int_equal(began, 3 + 2); /* nobody had to work twice */
    assert_true(at_world_tokens(w, 2) > 0);
    at_world_release(w);
}

/* One leaves, which ends the unit for all, and another's links break while the receipts come in, at any moment of that: the
 * others begin anew, and what they then hand in must fit what is in the log already. */
static void leaves_a_group_in_trouble(void **state)
{
    (void)state;
    const struct at_world_line fast = {.latency_ms = 2, .up_kbit = 100000, .down_kbit = 100000};
    const struct at_world_line slow = {.latency_ms = 2, .up_kbit = 400, .down_kbit = 100000};
    for (uint64_t at_ms = 1500; at_ms < 5500; at_ms += 250) {
        struct at_world_options o = small(15);
        o.lines = true;
        o.rounds = 2;
        o.stages = 3;
        o.steps = 10;
        o.step_ms = 400;
        o.update_bytes = 100000;
        struct at_world *w = make_down(&o);
        for (int i = 0; i < 3; i++) at_world_line_set(w, i, i == 1 ? &slow : &fast);
        start_all(w, 3);
        at_world_leave(w, 2, 1500);
        at_world_break_links(w, 1, at_ms);
        must_finish(w, 120000);
        if (at_world_included(w, 0) == 0)
            fail_msg("links broken at %llu ms: nothing counts", (unsigned long long)at_ms);
        at_world_release(w);
    }
}

static void straggler(void **state)
{
    (void)state;
    struct at_world_options o = small(7);
    o.rounds = 2;
    o.step_ms = 100;
    o.round_ms_max = 3000;
    struct at_world *w = make(&o);
    at_world_speed(w, 2, 0.02); /* 5 s for a step, of which the others do three in 0.3 */
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
                                       cmocka_unit_test(slow_member),
                                       cmocka_unit_test(leaves_at_once),
                                       cmocka_unit_test(leaves_a_group_at_once),
                                       cmocka_unit_test(leaves_a_group_of_slow_lines),
                                       cmocka_unit_test(leaves_a_group_in_trouble),
                                       cmocka_unit_test(straggler),
                                       cmocka_unit_test(partition),
                                       cmocka_unit_test(partition_of_all),
                                       cmocka_unit_test(desync),
                                       cmocka_unit_test(finish_on_member_and_steward)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
