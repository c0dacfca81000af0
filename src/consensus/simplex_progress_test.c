/* simplex_progress_test.c: what must not stop or slow the order for good: seats that keep finality to themselves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "consensus/simplex_hostile_test_util.h"

/* Runs until the first block is final; returns how long that took, or `at_most_ms`. */
static uint64_t first_final(struct net *w, uint64_t at_most_ms)
{
    const uint64_t from = w->now_ms;
    while (w->chain_count == 0 && !w->violated && w->now_ms < from + at_most_ms) net_run_until(w, w->now_ms + 50);
    return w->now_ms - from;
}

/* A leader's own timer fires before a round trip is over, so it cannot finalise; with f seats that will not, no view has
 * enough. Each view ends with a notarised block nevertheless: the timers must grow all the same. */
static void seats_that_do_not_finalise_cannot_keep_the_timers_short(void **state)
{
    (void)state;
    for (uint32_t latency = 310; latency < 600; latency += 60) { /* longer than 3Δ/2, shorter than 3Δ */
        struct net_options o = net_calm(4);
        o.latency_min_ms = o.latency_max_ms = latency;
        o.delta_max_ms = 60000;
        o.views_max = 256;
        o.hostile[3] = HOSTILE_MEAN;
        struct net *w = net_make(&o);
        net_run_until(w, 5000);
        for (uint64_t at = w->now_ms; at < w->now_ms + 10000; at += latency / 2) /* something waits all the time */
            net_push(w, (struct net_event){.at_ms = at, .what = NET_SUBMIT, .actor = 3});
        for (uint32_t i = 0; i < 3; i++) net_submit(w, i, 0);
        assert_true(first_final(w, 10000) < 12 * (uint64_t)latency);
        net_finish(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(seats_that_do_not_finalise_cannot_keep_the_timers_short)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
