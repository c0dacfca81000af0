/* simplex_progress_test.c: what must not stop or slow the order for good: seats that keep finality to themselves, delays
 * beyond every time-out, finalise votes that are lost, reveals that are used up. */
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

/* Delays far beyond the longest Δ, for ten minutes, in a window of 64 views whose last leader is dead: the timers of its
 * second half outgrow the delays, so that it is never full. */
static void the_last_views_leader_is_not_needed(void **state)
{
    (void)state;
    struct net_options o = net_calm(4);
    o.views_max = 64;
    o.delta_max_ms = 400;
    o.hostile[0] = HOSTILE_SILENT;
    struct net *w = net_make(&o);
    net_run_until(w, 1000);
    w->o.latency_min_ms = w->o.latency_max_ms = 5000;
    net_submit(w, 0, 0);
    net_run_until(w, 600000);
    w->o.latency_min_ms = w->o.latency_max_ms = 10;
    const size_t before = w->chain_count;
    net_submit(w, 0, 0);
    uint64_t end = w->now_ms + 60000;
    while (w->chain_count == before && !w->violated && w->now_ms < end) net_run_until(w, w->now_ms + 50);
    assert_true(w->chain_count > before);
    net_finish(w);
}

/* Every finalise vote for the blocks of six views was lost, the seventh ended with its dummy, and the eighth is the last of
 * the window: its leader is dead. */
static void lost_finalise_votes_come_again(void **state)
{
    (void)state;
    struct net_options o = net_calm(4);
    o.views_max = 8;
    o.hostile[0] = HOSTILE_SILENT;
    struct net *w = net_make(&o);
    net_run_until(w, 1000);
    w->finals_lost = true;
    const struct at_simplex *x = w->actors[0].x;
    for (uint64_t last = 7; last <= 8; last++) {
        const uint64_t end = w->now_ms + 300000;
        while (x->view < last && w->now_ms < end) {
            net_submit(w, 1, 0);
            net_run_until(w, w->now_ms + 500);
        }
        assert_int_equal(x->view, last);
        w->o.latency_min_ms = w->o.latency_max_ms = last == 7 ? 20000 : 100;
    }
    assert_true(at_simplex_dummy(x, 7) != NULL && at_simplex_view(x, 7)->certificate[AT_VOTE_BLOCK].seats == 0);
    assert_int_equal(w->chain_count, 0);
    net_run_until(w, w->now_ms + 60000); /* what is still on its way arrives */
    w->finals_lost = false;
    assert_true(first_final(w, 60000) < 60000);
    net_finish(w);
}

/* More blocks than a chain of reveals has links: alone it has no use for one. */
static void one_steward_never_runs_out_of_reveals(void **state)
{
    (void)state;
    struct net_options o = net_calm(1);
    struct net *w = net_make(&o);
    for (uint32_t i = 1; i <= NET_CHAIN_LINK + 100; i++) {
        net_submit(w, 0, i);
        net_run_until(w, w->now_ms + 10);
        assert_int_equal(w->final_of[0], i);
    }
    net_stop(w, &w->actors[0]);
    net_start(w, &w->actors[0]);
    net_submit(w, 0, NET_CHAIN_LINK + 101);
    net_run_until(w, w->now_ms + 10);
    assert_int_equal(w->final_of[0], NET_CHAIN_LINK + 101);
    net_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(seats_that_do_not_finalise_cannot_keep_the_timers_short),
                                       cmocka_unit_test(the_last_views_leader_is_not_needed),
                                       cmocka_unit_test(lost_finalise_votes_come_again),
                                       cmocka_unit_test(one_steward_never_runs_out_of_reveals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
