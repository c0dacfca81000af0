#include "wire/arrange.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Links and nodes have one number: link 7 leads to node 7. Tokens of meeting k: k and k + 100. */
struct fixture {
    struct at_arrange *a;
    struct at_arrange_update up;
    uint64_t now_ms;
};
static struct fixture f;

static struct at_node_id node(uint64_t n)
{
    struct at_node_id id;
    memset(&id, (int)n, sizeof id);
    return id;
}
static struct at_meet_token token(uint8_t n)
{
    struct at_meet_token t;
    memset(&t, n, sizeof t);
    return t;
}

static int setup(void **state)
{
    struct at_arrange_options opt = {
        .meets_max = 4, .relays_max = 4, .per_node = 2, .wait_ms = 1000, .relay_ms = 60000};
    memset(&f, 0, sizeof f);
    assert_int_equal(at_arrange_init(&opt, &f.a), AT_OK);
    f.now_ms = 5000;
    return 0;
}
static int teardown(void **state)
{
    at_arrange_free(f.a);
    return 0;
}

static void step(struct at_arrange_event ev)
{
    ev.now_ms = f.now_ms;
    at_arrange_step(f.a, &ev, &f.up);
}

static void ask_for(uint64_t asker, uint64_t target, uint8_t k, enum at_meet_how how, uint64_t target_link)
{
    struct at_meet m = {.kind = AT_MEET_ASK, .number = k, .how = how, .node = node(target)};
    step((struct at_arrange_event){.kind = AT_ARRANGE_ASK,
                                   .link = asker,
                                   .node = node(asker),
                                   .message = &m,
                                   .target_link = target_link,
                                   .token = {token(k), token((uint8_t)(k + 100))},
                                   .rtt_ms = {10, 50}});
}

static void answer(enum at_arrange_event_kind kind, uint64_t link, uint64_t number, bool yours)
{
    struct at_meet m = {.kind = AT_MEET_REFUSE, .number = number, .yours = yours, .reason = "no thanks"};
    step((struct at_arrange_event){.kind = kind, .link = link, .message = &m});
}

static void show_from(uint64_t connection, uint8_t k, struct at_endpoint seen)
{
    step((struct at_arrange_event){
        .kind = AT_ARRANGE_TOKEN, .connection = connection, .token = {token(k)}, .seen = seen});
}
static void show(uint64_t connection, uint8_t k)
{
    show_from(connection, k, (struct at_endpoint){.ip = {10, 0, 0, (uint8_t)k}, .ip_bytes = 4, .port = k});
}

static const struct at_meet *sent(uint32_t i, uint64_t link, enum at_meet_kind kind)
{
    assert_true(i < f.up.op_count);
    assert_int_equal(f.up.ops[i].kind, AT_ARRANGE_SEND);
    assert_int_equal(f.up.ops[i].link, link);
    assert_int_equal(f.up.ops[i].message.kind, kind);
    return &f.up.ops[i].message;
}
static void dropped(uint32_t i, uint64_t connection)
{
    assert_true(i < f.up.op_count);
    assert_int_equal(f.up.ops[i].kind, AT_ARRANGE_DROP);
    assert_int_equal(f.up.ops[i].connection, connection);
    assert_non_null(f.up.ops[i].reason);
}
static void refused(uint64_t link, const char *reason)
{
    const struct at_meet *m = sent(0, link, AT_MEET_REFUSE);
    if (!strstr(m->reason, reason)) fail_msg("'%s' is not in '%s'", reason, m->reason);
}

/* Asker 1 (number k), target 2; ends with both tokens out. Our own number. */
static uint64_t open_meeting(uint8_t k, enum at_meet_how how)
{
    ask_for(1, 2, k, how, 2);
    assert_int_equal(f.up.op_count, 1);
    const struct at_meet *invite = sent(0, 2, AT_MEET_INVITE);
    uint64_t number = invite->number;
    struct at_meet_token t = token((uint8_t)(k + 100));
    struct at_node_id one = node(1);
    assert_true(at_node_id_eq(&invite->node, &one) && at_meet_token_eq(&invite->token, &t));
    assert_true(number & AT_MEET_ARRANGED);
    assert_true(invite->how == how);
    answer(AT_ARRANGE_AGREE, 2, number, false);
    assert_int_equal(f.up.op_count, 1);
    const struct at_meet *go = sent(0, 1, AT_MEET_GO);
    t = token(k);
    assert_true(go->number == k && at_meet_token_eq(&go->token, &t));
    return number;
}

static void a_relay(void **state)
{
    open_meeting(5, AT_MEET_HOW_RELAY);
    show(71, 105);
    assert_int_equal(f.up.op_count, 0);
    show(70, 5);
    assert_int_equal(f.up.op_count, 1);
    assert_int_equal(f.up.ops[0].kind, AT_ARRANGE_JOIN);
    assert_true(f.up.ops[0].connection == 70 && f.up.ops[0].other == 71);
    struct at_node_id one = node(1), two = node(2);
    assert_true(at_node_id_eq(&f.up.ops[0].node[0], &one) && at_node_id_eq(&f.up.ops[0].node[1], &two));
    assert_true(at_arrange_deadline(f.a) == f.now_ms + 60000);
    f.now_ms += 59999; /* runs for as long as its ends like, even without their links; but not for ever */
    step((struct at_arrange_event){.kind = AT_ARRANGE_TICK});
    step((struct at_arrange_event){.kind = AT_ARRANGE_DOWN, .link = 1});
    assert_true(f.up.op_count == 0 && at_arrange_count(f.a) == 1);
    step((struct at_arrange_event){.kind = AT_ARRANGE_LOST, .connection = 71});
    assert_int_equal(f.up.op_count, 1);
    dropped(0, 70);
    assert_int_equal(at_arrange_count(f.a), 0);
    open_meeting(6, AT_MEET_HOW_RELAY);
    show(72, 6);
    show(73, 106);
    f.now_ms += 60000;
    step((struct at_arrange_event){.kind = AT_ARRANGE_TICK});
    assert_true(f.up.op_count == 2 && at_arrange_count(f.a) == 0);
    dropped(0, 72);
    dropped(1, 73);
    assert_non_null(strstr(f.up.ops[0].reason, "time is over"));
}

static void a_punch(void **state)
{
    uint64_t number = open_meeting(5, AT_MEET_HOW_PUNCH);
    show(70, 5);
    assert_true(f.up.op_count == 1 && f.up.ops[0].kind == AT_ARRANGE_HOLD && f.up.ops[0].connection == 70);
    show(71, 105);
    assert_int_equal(f.up.op_count, 3);
    assert_true(f.up.ops[0].kind == AT_ARRANGE_HOLD && f.up.ops[0].connection == 71);
    const struct at_meet *m = sent(1, 1, AT_MEET_PUNCH);
    assert_true(m->number == 5 && m->yours && m->endpoint.port == 105 && m->endpoint.ip[3] == 105);
    assert_int_equal(m->wait_ms, 20); /* round trips of 10 and 50 ms: the nearer one waits for half the difference */
    m = sent(2, 2, AT_MEET_PUNCH);
    assert_true(m->number == number && !m->yours && m->endpoint.port == 5 && m->wait_ms == 0);
    step((struct at_arrange_event){.kind = AT_ARRANGE_LOST, .connection = 70}); /* one is through: the other goes on */
    assert_int_equal(f.up.op_count, 0);
    step((struct at_arrange_event){.kind = AT_ARRANGE_LOST, .connection = 71});
    assert_true(f.up.op_count == 0 && at_arrange_count(f.a) == 0);
    open_meeting(6, AT_MEET_HOW_PUNCH); /* and if they stay, they are ended in time */
    show(72, 6);
    show(73, 106);
    f.now_ms = at_arrange_deadline(f.a);
    step((struct at_arrange_event){.kind = AT_ARRANGE_TICK});
    assert_int_equal(f.up.op_count, 2);
    dropped(0, 72);
    dropped(1, 73);
}

static void a_punch_over_two_families(void **state)
{
    open_meeting(5, AT_MEET_HOW_PUNCH);
    show(70, 5);
    show_from(71, 105, (struct at_endpoint){.ip = {0x20, 1}, .ip_bytes = 16, .port = 9});
    assert_int_equal(f.up.op_count, 5);
    assert_non_null(strstr(sent(1, 1, AT_MEET_REFUSE)->reason, "IPv6"));
    sent(2, 2, AT_MEET_REFUSE);
    dropped(3, 70);
    dropped(4, 71);
}

static void tokens_open_one_connection_once(void **state)
{
    ask_for(1, 2, 5, AT_MEET_HOW_RELAY, 2);
    uint64_t number = f.up.ops[0].message.number;
    show(60, 5); /* the asker's, guessed before it was given out */
    dropped(0, 60);
    answer(AT_ARRANGE_AGREE, 2, number, false);
    show(61, 77); /* never given out */
    dropped(0, 61);
    show(71, 105);
    show(62, 105); /* stolen, and shown again */
    assert_int_equal(f.up.op_count, 1);
    dropped(0, 62);
    show(70, 5);
    assert_int_equal(f.up.ops[0].kind, AT_ARRANGE_JOIN);
    for (uint8_t k = 5; k <= 105; k += 100) { /* spliced: neither works any more */
        show(63, k);
        dropped(0, 63);
    }
}

static void tokens_expire(void **state)
{
    uint64_t number = open_meeting(5, AT_MEET_HOW_RELAY);
    show(71, 105);
    f.now_ms = at_arrange_deadline(f.a) - 1;
    step((struct at_arrange_event){.kind = AT_ARRANGE_TICK});
    assert_int_equal(f.up.op_count, 0);
    f.now_ms++;
    step((struct at_arrange_event){.kind = AT_ARRANGE_TICK});
    assert_int_equal(f.up.op_count, 3);
    refused(1, "in time");
    assert_int_equal(sent(1, 2, AT_MEET_REFUSE)->number, number);
    dropped(2, 71);
    show(70, 5);
    dropped(0, 70);
    assert_true(at_arrange_count(f.a) == 0 && at_arrange_deadline(f.a) == UINT64_MAX);
}

static void nobody_answers(void **state)
{
    ask_for(1, 2, 5, AT_MEET_HOW_PUNCH, 2);
    f.now_ms += 1000;
    step((struct at_arrange_event){.kind = AT_ARRANGE_TICK});
    refused(1, "did not answer");
    answer(AT_ARRANGE_AGREE, 2, f.up.ops[1].message.number, false); /* too late */
    assert_int_equal(f.up.op_count, 0);
}

static void either_side_may_refuse(void **state)
{
    ask_for(1, 2, 5, AT_MEET_HOW_RELAY, 2);
    uint64_t number = f.up.ops[0].message.number;
    answer(AT_ARRANGE_REFUSE, 3, number, true); /* a stranger's word about it is nothing */
    answer(AT_ARRANGE_REFUSE, 2, number, false);
    assert_true(f.up.op_count == 0 && at_arrange_count(f.a) == 1);
    answer(AT_ARRANGE_REFUSE, 2, number, true);
    assert_int_equal(f.up.op_count, 1);
    refused(1, "no thanks");
    number = open_meeting(6, AT_MEET_HOW_RELAY);
    show(70, 106);
    answer(AT_ARRANGE_REFUSE, 1, 6, false); /* the asker gives up */
    assert_int_equal(f.up.op_count, 2);
    assert_int_equal(sent(0, 2, AT_MEET_REFUSE)->number, number);
    dropped(1, 70);
    assert_int_equal(at_arrange_count(f.a), 0);
}

static void a_lost_link_ends_what_waits(void **state)
{
    for (uint64_t gone = 1; gone <= 2; gone++) {
        open_meeting((uint8_t)(5 + gone), AT_MEET_HOW_RELAY);
        show(70, (uint8_t)(105 + gone));
        step((struct at_arrange_event){.kind = AT_ARRANGE_DOWN, .link = gone});
        assert_int_equal(f.up.op_count, 2);
        sent(0, 3 - gone, AT_MEET_REFUSE);
        dropped(1, 70);
    }
}

static void what_is_refused(void **state)
{
    ask_for(1, 1, 5, AT_MEET_HOW_RELAY, 1);
    refused(1, "itself");
    ask_for(1, 2, 5, AT_MEET_HOW_RELAY, 0);
    refused(1, "no link here");
    ask_for(1, 2, 5, AT_MEET_HOW_RELAY, 2);
    ask_for(1, 3, 5, AT_MEET_HOW_RELAY, 3);
    refused(1, "number");
    ask_for(1, 3, 6, AT_MEET_HOW_RELAY, 3);
    sent(0, 3, AT_MEET_INVITE);
    ask_for(1, 4, 7, AT_MEET_HOW_RELAY, 4);
    refused(1, "that asks");
    ask_for(4, 2, 8, AT_MEET_HOW_RELAY, 2);
    sent(0, 2, AT_MEET_INVITE);
    ask_for(5, 2, 9, AT_MEET_HOW_RELAY, 2);
    refused(5, "asked for");
    ask_for(5, 6, 9, AT_MEET_HOW_RELAY, 6);
    sent(0, 6, AT_MEET_INVITE);
    ask_for(7, 8, 9, AT_MEET_HOW_RELAY, 8);
    refused(7, "all meetings");
    assert_int_equal(at_arrange_count(f.a), 4);
    struct at_meet m = {.kind = AT_MEET_ASK, .number = 1, .how = AT_MEET_HOW_RELAY, .node = node(9)};
    struct at_arrange_event ev = {
        .kind = AT_ARRANGE_ASK, .link = 8, .node = node(8), .message = &m, .target_link = 0, .veto = "no"};
    step(ev);
    assert_string_equal(sent(0, 8, AT_MEET_REFUSE)->reason, "no"); /* and not that there is no link to the target */
    ev.veto = NULL;
    at_arrange_free(f.a);
    assert_int_equal(at_arrange_init(&(struct at_arrange_options){.wait_ms = 1}, &f.a), AT_OK);
    step(ev);
    refused(8, "arranges no meetings");
}

/* Punches cost their arranger nothing; relays do, and have a number of their own. */
static void relays_are_counted(void **state)
{
    struct at_arrange_options opt = {.meets_max = 4, .relays_max = 1, .per_node = 8, .wait_ms = 1000, .relay_ms = 9000};
    at_arrange_free(f.a);
    assert_int_equal(at_arrange_init(&opt, &f.a), AT_OK);
    open_meeting(5, AT_MEET_HOW_RELAY);
    ask_for(3, 4, 6, AT_MEET_HOW_RELAY, 4);
    refused(3, "all relays");
    ask_for(3, 4, 7, AT_MEET_HOW_PUNCH, 4);
    sent(0, 4, AT_MEET_INVITE);
    show(70, 5);
    show(71, 105);
    ask_for(3, 4, 8, AT_MEET_HOW_RELAY, 4);
    refused(3, "all relays"); /* it runs */
    step((struct at_arrange_event){.kind = AT_ARRANGE_LOST, .connection = 70});
    ask_for(3, 4, 9, AT_MEET_HOW_RELAY, 4);
    sent(0, 4, AT_MEET_INVITE);
    opt.relays_max = 0;
    at_arrange_free(f.a);
    assert_int_equal(at_arrange_init(&opt, &f.a), AT_OK);
    ask_for(3, 4, 9, AT_MEET_HOW_RELAY, 4);
    refused(3, "relays for nobody");
}

int main(void)
{
#define CASE(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(a_relay),
        CASE(a_punch),
        CASE(a_punch_over_two_families),
        CASE(tokens_open_one_connection_once),
        CASE(tokens_expire),
        CASE(nobody_answers),
        CASE(either_side_may_refuse),
        CASE(a_lost_link_ends_what_waits),
        CASE(what_is_refused),
        CASE(relays_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
