#include "parallel/schedule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { STAGES_MAX = 9, MICROBATCHES_MAX = 13 };

/* Each microbatch once forward and then once backward, both ascending, never more in flight than the bound. */
static void order_of_one(int stage, int stages, int M)
{
    int forward = 0, backward = 0, most = 0;
    for (int i = 0; i < 2 * M; i++) {
        struct at_turn t = at_schedule_turn(stage, stages, M, i);
        assert_int_equal(t.microbatch, t.forward ? forward : backward);
        if (t.forward)
            forward++;
        else
            backward++;
        assert_true(backward <= forward);
        if (forward - backward > most) most = forward - backward;
    }
    assert_int_equal(forward, M);
    assert_int_equal(backward, M);
    assert_int_equal(most, at_schedule_in_flight(stage, stages, M));
    assert_int_equal(most, stages - stage < M ? stages - stage : M);
}

static void order_holds(void **state)
{
    for (int P = 1; P <= STAGES_MAX; P++)
        for (int p = 0; p < P; p++)
            for (int M = 1; M <= MICROBATCHES_MAX; M++) order_of_one(p, P, M);
}

static void drawing_holds(void **state)
{
    static const char *const drawn[3] = {"F0F1F2B0F3B1F4B2B3B4", "F0F1B0F2B1F3B2F4B3B4", "F0B0F1B1F2B2F3B3F4B4"};
    for (int p = 0; p < 3; p++)
        for (int i = 0; i < 10; i++) {
            struct at_turn t = at_schedule_turn(p, 3, 5, i);
            assert_int_equal(drawn[p][2 * i], t.forward ? 'F' : 'B');
            assert_int_equal(drawn[p][2 * i + 1], '0' + t.microbatch);
        }
}

/* All stages at once, one turn per tick where what it needs is there. Sends are rendezvous: that of forward i ends when
 * the next stage has begun forward i-1 (then it posts the receive for i), and memory is taken anew only after that: an
 * activation by forward i + in flight, a gradient by backward i + 2. Ends, in the fewest ticks that a pipeline can have:
 * M of each kind in the last stage and the way there and back. */
static bool can_go(const int *forward, const int *backward, int p, int P, int M, struct at_turn t)
{
    int i = t.microbatch, held = at_schedule_in_flight(p, P, M);
    if (t.forward) return (p == 0 || forward[p - 1] > i) && (p == P - 1 || i < held || forward[p + 1] >= i - held);
    return forward[p] > i && (p == P - 1 || backward[p + 1] > i) && (p == 0 || i < 2 || backward[p - 1] >= i - 2);
}

static void no_deadlock(int P, int M)
{
    int turn[STAGES_MAX] = {0}, forward[STAGES_MAX] = {0}, backward[STAGES_MAX] = {0}, ticks = 0, left = 2 * P * M;
    for (; left > 0; ticks++) {
        bool go[STAGES_MAX] = {false};
        for (int p = 0; p < P; p++)
            go[p] = turn[p] < 2 * M && can_go(forward, backward, p, P, M, at_schedule_turn(p, P, M, turn[p]));
        int before = left;
        for (int p = 0; p < P; p++)
            if (go[p]) {
                struct at_turn t = at_schedule_turn(p, P, M, turn[p]++);
                if (t.forward)
                    forward[p]++;
                else
                    backward[p]++;
                left--;
            }
        assert_true(left < before);
    }
    assert_int_equal(ticks, 2 * M + 2 * (P - 1));
}

static void always_ends(void **state)
{
    for (int P = 1; P <= STAGES_MAX; P++)
        for (int M = 1; M <= MICROBATCHES_MAX; M++) no_deadlock(P, M);
}

static void cuts_cover(void **state)
{
    for (long batch = 1; batch <= 20; batch++)
        for (int M = 1; M <= batch; M++) {
            long at = 0;
            for (int i = 0; i < M; i++) {
                struct at_cut c = at_schedule_cut(batch, M, i);
                assert_int_equal(c.first, at);
                assert_in_range(c.count, batch / M, (batch + M - 1) / M);
                assert_true(c.count <= at_schedule_cut_max(batch, M));
                at += c.count;
            }
            assert_int_equal(at, batch);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_holds),
        cmocka_unit_test(drawing_holds),
        cmocka_unit_test(always_ends),
        cmocka_unit_test(cuts_cover),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
