#include "wire/reach.h"

#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct at_reach r;
static struct at_reach_update up;
static uint64_t now_ms;

static void step(enum at_reach_event_kind kind, uint32_t attempt, const char *reason)
{
    struct at_reach_event ev = {.kind = kind, .now_ms = now_ms, .attempt = attempt, .reason = reason};
    at_reach_step(&r, &ev, &up);
}

static void start(uint32_t direct, uint32_t mapped, uint32_t punch, uint32_t relay)
{
    struct at_reach_event ev = {
        .kind = AT_REACH_START, .now_ms = now_ms = 77000, .count = {direct, mapped, punch, relay}};
    at_reach_init(&r, NULL);
    at_reach_step(&r, &ev, &up);
}

/* Lets time pass to the deadline, no further than `until`, and says so. */
static void wait_until(uint64_t until)
{
    uint64_t next = at_reach_deadline(&r);
    now_ms = next < until ? next : until;
    step(AT_REACH_TICK, 0, NULL);
}

static uint32_t tries(uint32_t i, enum at_reach_rung rung, uint32_t index)
{
    assert_true(i < up.op_count);
    assert_int_equal(up.ops[i].kind, AT_REACH_TRY);
    assert_int_equal(up.ops[i].rung, rung);
    assert_int_equal(up.ops[i].index, index);
    return up.ops[i].attempt;
}

static void the_first_address_answers(void **state)
{
    start(2, 1, 1, 1);
    assert_int_equal(up.op_count, 1);
    uint32_t a = tries(0, AT_REACH_DIRECT, 0);
    step(AT_REACH_UP, a, NULL);
    assert_int_equal(up.op_count, 1);
    assert_true(up.ops[0].kind == AT_REACH_REACHED && up.ops[0].attempt == a);
    assert_true(r.state == AT_REACH_DONE && at_reach_deadline(&r) == UINT64_MAX);
    step(AT_REACH_FAILED, a, "later"); /* a link's later end is no business of the ladder's */
    assert_int_equal(up.op_count, 0);
}

static void a_second_address_overtakes_a_silent_one(void **state)
{
    start(2, 0, 1, 1);
    uint32_t a = tries(0, AT_REACH_DIRECT, 0);
    wait_until(UINT64_MAX);
    assert_int_equal(now_ms, 77250);
    uint32_t b = tries(0, AT_REACH_DIRECT, 1);
    step(AT_REACH_UP, b, NULL);
    assert_int_equal(up.op_count, 2);
    assert_true(up.ops[0].kind == AT_REACH_REACHED && up.ops[0].attempt == b);
    assert_true(up.ops[1].kind == AT_REACH_CANCEL && up.ops[1].attempt == a);
    step(AT_REACH_UP, a, NULL); /* it came up before its cancel: not wanted */
    assert_int_equal(up.op_count, 0);
}

static void a_refused_address_makes_way_at_once(void **state)
{
    start(2, 1, 1, 0);
    step(AT_REACH_FAILED, 0, "refused");
    tries(0, AT_REACH_DIRECT, 1);
    step(AT_REACH_FAILED, 1, "refused");
    tries(0, AT_REACH_MAPPED, 0);
    step(AT_REACH_FAILED, 2, "refused");
    tries(0, AT_REACH_PUNCH, 0);
    assert_int_equal(now_ms, 77000);
}

static void silence_makes_way_after_a_head_start(void **state)
{
    start(1, 0, 1, 1);
    wait_until(UINT64_MAX);
    assert_int_equal(now_ms, 78500);
    uint32_t punch = tries(0, AT_REACH_PUNCH, 0);
    /* The direct one may still win during the punch. */
    step(AT_REACH_UP, 0, NULL);
    assert_true(up.ops[0].kind == AT_REACH_REACHED && up.ops[0].attempt == 0);
    assert_true(up.ops[1].kind == AT_REACH_CANCEL && up.ops[1].attempt == punch);
}

static void punch_then_relay(void **state)
{
    start(0, 0, 3, 3);
    uint32_t a = tries(0, AT_REACH_PUNCH, 0);
    step(AT_REACH_TICK, 0, NULL);
    assert_int_equal(up.op_count, 0); /* one at a time, and no relay before it is over */
    step(AT_REACH_FAILED, a, "symmetric");
    a = tries(0, AT_REACH_PUNCH, 1);
    now_ms += 8000;
    step(AT_REACH_TICK, 0, NULL); /* the driver said nothing: bounded here too; two punches are enough */
    assert_int_equal(up.op_count, 2);
    assert_true(up.ops[0].kind == AT_REACH_CANCEL && up.ops[0].attempt == a);
    a = tries(1, AT_REACH_RELAY, 0);
    step(AT_REACH_FAILED, a, "all meetings are taken");
    a = tries(0, AT_REACH_RELAY, 1);
    step(AT_REACH_UP, a, NULL);
    assert_int_equal(up.ops[0].kind, AT_REACH_REACHED);
}

static void gives_up_with_the_reasons(void **state)
{
    start(1, 0, 1, 1);
    step(AT_REACH_FAILED, 0, "connection refused");
    step(AT_REACH_FAILED, 1, "cannot punch");
    step(AT_REACH_FAILED, 2, "no link there");
    assert_int_equal(up.op_count, 1);
    assert_int_equal(up.ops[0].kind, AT_REACH_GIVE_UP);
    assert_string_equal(r.reason,
                        "every way failed; direct: connection refused; punch: cannot punch; relay: no link there");
    start(0, 0, 0, 0);
    assert_int_equal(up.ops[0].kind, AT_REACH_GIVE_UP);
    assert_non_null(strstr(r.reason, "no way is known"));
    at_reach_init(&r, &(struct at_reach_options){.total_ms = 100});
    struct at_reach_event ev = {.kind = AT_REACH_START, .now_ms = now_ms, .count = {1}};
    at_reach_step(&r, &ev, &up);
    wait_until(UINT64_MAX);
    assert_true(up.op_count == 2 && up.ops[0].kind == AT_REACH_CANCEL && up.ops[1].kind == AT_REACH_GIVE_UP);
    assert_non_null(strstr(r.reason, "not reached in time"));
}

static uint64_t seed, draw;
static uint32_t below(uint32_t n)
{
    return at_philox(seed, AT_RNG_TEST, 0, draw++).v[0] % n;
}

/* Whatever happens in whatever order: it ends in time, every attempt is told once and ends once, nothing runs after the
 * end, a relay is tried only when no punch runs. Seeds are the loop's number: break there to run one. */
static void any_order_of_events(void **state)
{
    for (seed = 0; seed < 3000; seed++) {
        draw = 0;
        bool running[AT_REACH_ATTEMPTS_MAX] = {false};
        enum at_reach_rung rung[AT_REACH_ATTEMPTS_MAX];
        uint32_t total = 0, ends = 0;
        uint32_t direct = below(12), mapped = below(12), punch = below(6), relay = below(6);
        start(direct, mapped, punch, relay);
        uint64_t began = now_ms;
        for (int i = 0; i < 400; i++) {
            for (uint32_t k = 0; k < up.op_count; k++) {
                const struct at_reach_op *op = &up.ops[k];
                if (op->kind == AT_REACH_TRY) {
                    assert_int_equal(op->attempt, total);
                    for (uint32_t j = 0; op->rung == AT_REACH_RELAY && j < total; j++)
                        assert_false(running[j] && rung[j] == AT_REACH_PUNCH);
                    rung[total] = op->rung;
                    running[total++] = true;
                } else if (op->kind == AT_REACH_CANCEL) {
                    assert_true(running[op->attempt]);
                    running[op->attempt] = false;
                } else {
                    ends++;
                }
            }
            if (r.state != AT_REACH_CLIMBING) break;
            uint32_t what = below(4), which = total ? below(total) : 0;
            if (what == 0 || total == 0 || !running[which]) {
                wait_until(now_ms + below(2000));
            } else {
                running[which] = false;
                now_ms += below(100);
                step(what == 3 && below(4) == 0 ? AT_REACH_UP : AT_REACH_FAILED, which, "so it was drawn");
            }
        }
        if (ends != 1 || r.state < AT_REACH_DONE || now_ms - began > 40100) fail_msg("seed %d", (int)seed);
        for (uint32_t j = 0; j < total; j++) assert_false(running[j]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_first_address_answers),
                                       cmocka_unit_test(a_second_address_overtakes_a_silent_one),
                                       cmocka_unit_test(a_refused_address_makes_way_at_once),
                                       cmocka_unit_test(silence_makes_way_after_a_head_start),
                                       cmocka_unit_test(punch_then_relay),
                                       cmocka_unit_test(gives_up_with_the_reasons),
                                       cmocka_unit_test(any_order_of_events)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
