/* world_held_test.c: members tell which updates they have, and only who has one is asked for it. */
#include "sim/world_rig.h"

enum { NODES = 24, ROUNDS = 3 };

/* Members of all speeds: the first receipts are in long before the last, and everybody fetches meanwhile. Each update
 * comes once to each, and nobody says that it has none yet. */
static void nobody_asks_in_vain(void **state)
{
    (void)state;
    struct at_world_options o = small(71);
    o.nodes = o.min_members = NODES;
    o.rounds = ROUNDS;
    o.step_ms = 5000;
    o.round_ms_max = 120000;
    struct at_world *w = make_down(&o);
    for (int i = 0; i < NODES; i++) at_world_speed(w, i, 0.6 + 0.1 * i);
    start_all(w, NODES);
    must_finish(w, 600000);
    uint64_t once = (uint64_t)ROUNDS * (NODES - 1) * o.update_bytes;
    for (uint32_t r = 0; r < ROUNDS; r++) assert_int_equal(at_world_included(w, r), NODES);
    for (int i = 0; i < NODES; i++)
        assert_in_range(at_world_traffic(w, i).update_bytes_in, once, once + (uint64_t)ROUNDS * o.update_bytes);
    assert_int_equal(at_world_sent(w, AT_MSG_MISSING), 0);
    print_message("held %llu, bundle_want %llu, want %llu\n", (unsigned long long)at_world_sent(w, AT_MSG_HELD),
                  (unsigned long long)at_world_sent(w, AT_MSG_BUNDLE_WANT),
                  (unsigned long long)at_world_sent(w, AT_MSG_WANT));
    at_world_release(w);
}

/* JOINs that come at once are not a block each. */
static void joins_go_together(void **state)
{
    (void)state;
    struct at_world_options o = small(72);
    o.nodes = o.min_members = NODES;
    o.rounds = 1;
    struct at_world *w = make(&o);
    must_finish(w, 60000);
    uint64_t each = at_world_sent(w, AT_MSG_LOG_PART) / NODES;
    assert_int_equal(at_world_log_count(w, AT_RECORD_JOIN), NODES);
    print_message("%llu log parts for each of %d members\n", (unsigned long long)each, NODES);
    assert_in_range(each, 1, NODES);
    at_world_release(w);
}

static void say(struct at_world *w, uint64_t link, const struct at_message *msg)
{
    struct at_buf bytes = {0};
    assert_int_equal(at_message_encode(msg, &bytes), AT_OK);
    at_world_stranger_send(w, link, at_buf_span(&bytes));
    at_buf_release(&bytes);
}

/* A member that tells all the time that it has everything, and answers nothing: it is asked, then others are. That
 * costs a member one round at most, once. */
static void one_that_has_nothing(void **state)
{
    (void)state;
    struct at_world_options o = small(73);
    o.rounds = 2 * ROUNDS; /* the run's end is not the time for it: who is left waits for ten seconds, and it for 13 */
    o.step_ms = 7000;
    o.round_ms_max = 60000;
    struct at_world *w = make(&o);
    struct at_keypair key = at_world_stranger_key(w, 1);
    struct at_record join = {
        .kind = AT_RECORD_JOIN, .run = at_world_run_id(w), .time_ms = 1, .join = {.name = "boast"}};
    struct at_signed_record record;
    struct at_message hello = {.kind = AT_MSG_HELLO}, submit = {.kind = AT_MSG_SUBMIT, .submit = {.record = &record}};
    uint8_t bits = 0x0f;
    bool asked = false, done = false;
    assert_false(at_world_run(w, 1000));
    uint64_t link = at_world_stranger_link(w, &key, 1), now = 1000;
    hello.hello.protocol = AT_PROTOCOL_VERSION;
    hello.hello.run = at_world_run_id(w);
    say(w, link, &hello);
    assert_int_equal(at_record_sign(&join, &key, NULL, &record), AT_OK);
    say(w, link, &submit);
    while (!done && now < 300000 && !at_world_violation(w)) {
        const char *reason;
        for (uint32_t r = 0; r < ROUNDS && at_world_link_is_up(w, link); r++) {
            struct at_message held = {.kind = AT_MSG_HELD, .held = {r, at_span(&bits, 1)}};
            if (now % 1000 == 0) say(w, link, &held);
        }
        done = at_world_run(w, now += 100);
        enum at_message_kind heard = at_world_stranger_heard(w, link, &reason);
        asked = asked || heard == AT_MSG_WANT || heard == AT_MSG_BUNDLE_WANT;
    }
    must_finish(w, now);
    assert_true(asked);
    uint32_t counted = 0;
    for (uint32_t r = 0; r < o.rounds; r++) counted += at_world_included(w, r);
    assert_in_range(counted, 3 * o.rounds - 1, 3 * o.rounds);
    at_world_release(w);
}

int main(void)
{
    if (getenv("ATOLL_SIM_ONLY")) cmocka_set_test_filter(getenv("ATOLL_SIM_ONLY"));
    const struct CMUnitTest tests[] = {cmocka_unit_test(nobody_asks_in_vain), cmocka_unit_test(joins_go_together),
                                       cmocka_unit_test(one_that_has_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
