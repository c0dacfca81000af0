/* simplex_test.c: whole runs without faults: latency, messages, laggards, old disks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "consensus/simplex_hostile_test_util.h"

static bool final_everywhere(const struct net *w, uint32_t number)
{
    for (uint32_t i = 0; i < w->actor_count; i++)
        if (w->actors[i].honest && w->actors[i].x != NULL && w->final_of[w->actors[i].seat] < number) return false;
    return true;
}

/* Submits record after record, each when the one before is final; numbers go on from `from`. */
static void records(struct net *w, uint32_t actor, uint32_t from, uint32_t count)
{
    for (uint32_t i = 0; i < count && !w->violated; i++) {
        net_submit(w, actor, from + i);
        uint64_t end = w->now_ms + 600000;
        while (!final_everywhere(w, from + i) && !w->violated && w->now_ms < end) net_run_until(w, w->now_ms + 50);
        if (!final_everywhere(w, from + i)) fail_msg("record %u is not final", from + i);
    }
}

static void one_steward_needs_one_transaction_before_finality(void **state)
{
    (void)state;
    struct net_options o = net_calm(1);
    o.fsync_max_ms = 20;
    struct net *w = net_make(&o);
    struct at_simplex *x = w->actors[0].x;
    struct at_signed_record r = net_record(1, 1);
    struct at_simplex_update u;
    at_simplex_step(x, &(struct at_simplex_event){.kind = AT_SIMPLEX_SUBMIT, .clock_ms = NET_EPOCH_MS, .record = &r},
                    &u);
    assert_int_equal(u.persist, 1);
    for (size_t i = 0; i < u.op_count; i++) assert_true(u.ops[i].kind < AT_SIMPLEX_FINAL); /* nothing is told yet */
    at_simplex_step(x, &(struct at_simplex_event){.kind = AT_SIMPLEX_TICK, .now_ms = 100000}, &u);
    assert_int_equal(u.op_count, 0); /* a slow disk is no reason for a dummy vote */
    at_simplex_step(x, &(struct at_simplex_event){.kind = AT_SIMPLEX_PERSISTED, .now_ms = 100001, .persisted = 1}, &u);
    assert_int_equal(u.op_count, 1);
    assert_int_equal(u.ops[0].kind, AT_SIMPLEX_FINAL);
    assert_non_null(u.ops[0].tip);
    assert_int_equal(u.persist, 2); /* its own transaction, ... */
    assert_true(at_simplex_deadline(x) == AT_SIMPLEX_NO_DEADLINE);
    r = net_record(2, 2); /* ... which nothing waits for: the next block comes before it is durable */
    at_simplex_step(x, &(struct at_simplex_event){.kind = AT_SIMPLEX_SUBMIT, .clock_ms = NET_EPOCH_MS, .record = &r},
                    &u);
    assert_int_equal(u.persist, 3);
    at_simplex_step(x, &(struct at_simplex_event){.kind = AT_SIMPLEX_PERSISTED, .now_ms = 100002, .persisted = 3}, &u);
    assert_int_equal(u.ops[0].kind, AT_SIMPLEX_FINAL);
    assert_int_equal(at_simplex_status(x).tip_view, 2);
    net_free(w);
}

/* Proposal, vote, finalise: three delays of a link, and one more for a record that another steward submits. */
static void finality_in_three_delays(void **state)
{
    (void)state;
    const uint32_t sizes[] = {4, 7, 31};
    for (size_t i = 0; i < 3; i++) {
        struct net_options o = net_calm(sizes[i]);
        struct net *w = net_make(&o);
        net_run_until(w, 1000);
        uint64_t messages = w->messages, bytes = w->bytes;
        const uint32_t count = 10;
        for (uint32_t k = 1; k <= count; k++) {
            uint32_t leader = at_view_leader(w->actors[0].x->view, o.n);
            uint64_t from = w->now_ms;
            net_submit(w, k % 2 ? leader : (leader + 1) % o.n, k);
            net_run_until(w, w->now_ms + 1000);
            assert_int_equal(w->last_final_ms - from, k % 2 ? 300 : 400);
            assert_true(final_everywhere(w, k));
        }
        assert_int_equal(w->chain_count, count); /* no empty blocks */
        print_message("n = %2u: %llu messages, %llu bytes for each final block with one record of 300 bytes\n", o.n,
                      (unsigned long long)((w->messages - messages) / count),
                      (unsigned long long)((w->bytes - bytes) / count));
        net_finish(w);
    }
}

static void a_dead_leader_costs_less_than_two_timeouts(void **state)
{
    (void)state;
    for (uint32_t dead = 0; dead < 4; dead++) {
        struct net_options o = net_calm(4);
        o.hostile[dead] = HOSTILE_SILENT;
        struct net *w = net_make(&o);
        net_run_until(w, 1000);
        for (uint32_t k = 1; k <= 12; k++) {
            uint64_t from = w->now_ms;
            uint32_t delta = at_simplex_status(w->actors[0].x).delta_ms;
            net_submit(w, k % 3, k);
            net_run_until(w, w->now_ms + 10000);
            assert_true(final_everywhere(w, k));
            assert_true(w->last_final_ms - from <= 2 * 3 * (uint64_t)delta);
        }
        for (uint32_t i = 0; i < 3; i++) assert_true(at_simplex_status(w->actors[i].x).delta_ms <= 2 * o.delta_ms);
        net_finish(w);
    }
}

static void with_real_signatures(void **state)
{
    (void)state;
    struct net_options o = net_calm(4);
    o.real_signatures = true;
    o.hostile[2] = HOSTILE_DOUBLE;
    o.latency_min_ms = 10;
    struct net *w = net_make(&o);
    records(w, 0, 1, 20);
    assert_true(w->evidence > 0);
    net_finish(w);
}

static void a_laggard_far_behind_the_window_catches_up(void **state)
{
    (void)state;
    struct net_options o = net_calm(4);
    o.views_max = 8;
    struct net *w = net_make(&o);
    net_run_until(w, 1000);
    for (uint32_t i = 0; i < 4; i++) w->cut[3][i] = w->cut[i][3] = true;
    w->final_of[3] = UINT32_MAX; /* not waited for */
    records(w, 0, 1, 50);
    assert_int_equal(at_simplex_status(w->actors[3].x).tip_view, 0);
    memset(w->cut, 0, sizeof w->cut);
    w->final_of[3] = 0;
    net_step(w, &w->actors[0], (struct at_simplex_event){.kind = AT_SIMPLEX_LINK, .from = 3});
    net_step(w, &w->actors[3], (struct at_simplex_event){.kind = AT_SIMPLEX_LINK, .from = 0});
    net_run_until(w, w->now_ms + 30000);
    assert_int_equal(w->final_of[3], 50);
    assert_int_equal(at_simplex_status(w->actors[3].x).tip_view, at_simplex_status(w->actors[0].x).tip_view);
    records(w, 3, 51, 4); /* and is one of them again */
    net_finish(w);
}

/* Delays far longer than the longest time-out: every view ends in a dummy, until the window is full. */
static void the_window_ends_and_opens_again(void **state)
{
    (void)state;
    struct net_options o = net_calm(4);
    o.views_max = 8;
    o.delta_max_ms = 400;
    struct net *w = net_make(&o);
    net_run_until(w, 1000);
    w->o.latency_min_ms = w->o.latency_max_ms = 5000;
    net_submit(w, 0, 1);
    net_run_until(w, w->now_ms + 40000);
    assert_int_equal(w->chain_count, 0);
    net_run_until(w, w->now_ms + 400000);
    assert_true(w->chain_count != 0 && w->views >= 8); /* in its last view everybody waited for the leader */
    w->o.latency_min_ms = w->o.latency_max_ms = 100;
    net_run_until(w, w->now_ms + 20000);
    records(w, 1, 2, 4);
    net_finish(w);
}

/* A disk of the past: the seat would sign again what it has signed before. Its peers know better. */
static void an_old_disk_abstains(void **state)
{
    (void)state;
    struct net_options o = net_calm(4);
    struct net *w = net_make(&o);
    records(w, 0, 1, 5);
    net_run_until(w, w->now_ms + 1000);
    struct net_actor *a = &w->actors[0];
    size_t old = a->disk.count;
    records(w, 0, 6, 5);
    net_run_until(w, w->now_ms + 1000);
    net_stop(w, a);
    disk_cut(&a->disk, old);
    w->final_of[0] = 5;
    net_start(w, a);
    net_run_until(w, w->now_ms + 1000);
    assert_true(at_simplex_status(a->x).abstaining && !at_simplex_status(a->x).voting);
    uint64_t last = w->views;
    records(w, 1, 11, 8); /* it follows, and the others need no vote of its */
    for (uint64_t view = last + 1; view <= w->views; view++) assert_int_equal(w->cast[0][view].has, 0);
    net_stop(w, a); /* it remembers that */
    a->disk.items[a->disk.count - 1].seq = 0;
    net_start(w, a);
    assert_true(at_simplex_status(a->x).abstaining);
    records(w, 1, 19, 2);
    net_finish(w);
}

/* Whatever the age of the old disk: it abstains exactly when a vote that it sent is not on it. */
static void an_old_disk_of_any_age(void **state)
{
    (void)state;
    uint32_t abstained = 0, voted = 0;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct net_options o = net_calm(4);
        o.seed = seed;
        o.latency_min_ms = 5;
        o.latency_max_ms = 60;
        o.fsync_max_ms = 10;
        struct net *w = net_make(&o);
        records(w, 0, 1, 4);
        net_submit(w, 1, 5);
        net_run_until(w, w->now_ms + net_draw(w, 300)); /* in the midst of a view, too */
        struct net_actor *a = &w->actors[0];
        size_t cut = net_draw(w, 2) ? a->disk.count : net_draw(w, a->disk.count);
        while (cut != 0 && cut < a->disk.count && a->disk.items[cut].seq == a->disk.items[cut - 1].seq) cut--;
        net_stop(w, a);
        if (cut < a->disk.count) disk_cut(&a->disk, cut);
        uint64_t newest = 0;
        for (uint64_t view = 1; view < NET_VIEWS_MAX; view++)
            if (w->cast[0][view].has != 0) newest = view;
        uint32_t sent = w->cast[0][newest].has, kept = 0;
        for (size_t i = 0; i < a->disk.count; i++)
            if (a->disk.items[i].kind == AT_SIMPLEX_PERSIST_VOTE && a->disk.items[i].vote.view == newest)
                kept |= AT_BIT(a->disk.items[i].vote.kind);
        net_run_until(w, w->now_ms + 100); /* what it sent arrives */
        net_start(w, a);
        net_run_until(w, w->now_ms + 1000);
        assert_int_equal(at_simplex_status(a->x).abstaining, (sent & ~kept) != 0);
        abstained += at_simplex_status(a->x).abstaining;
        voted += at_simplex_status(a->x).voting;
        w->final_of[0] = UINT32_MAX; /* it was cut back: not judged by numbers */
        records(w, 1, 6, 4);
        net_finish(w);
    }
    assert_true(abstained >= 5 && voted >= 5);
}

static void a_whole_disk_votes_on(void **state)
{
    (void)state;
    struct net_options o = net_calm(4);
    struct net *w = net_make(&o);
    records(w, 0, 1, 5);
    for (uint32_t i = 0; i < 4; i++) net_stop(w, &w->actors[i]); /* all at once */
    for (uint32_t i = 0; i < 4; i++) net_start(w, &w->actors[i]);
    for (uint32_t i = 0; i < w->room.block.record_count; i++) { /* what the last final block has is not taken again */
        net_step(w, &w->actors[1],
                 (struct at_simplex_event){.kind = AT_SIMPLEX_SUBMIT, .record = &w->room.block.records[i]});
        assert_int_equal(at_simplex_status(w->actors[1].x).pending, 0);
    }
    records(w, 2, 6, 5);
    for (uint32_t i = 0; i < 4; i++) assert_true(at_simplex_status(w->actors[i].x).voting);
    net_finish(w);
}

static void options_out_of_range_are_refused(void **state)
{
    (void)state;
    struct net_options o = net_calm(4);
    struct net *w = net_make(&o);
    struct at_simplex_options good = w->actors[0].x->options, bad;
    struct at_simplex *x = NULL;
    for (int i = 0; i < 7; i++) {
        bad = good;
        if (i == 0) bad.seat_count = 5;
        if (i == 1) bad.seat = 4;
        if (i == 2) bad.views_max = AT_SIMPLEX_VIEWS_MIN - 1;
        if (i == 3) bad.delta_ms = 0;
        if (i == 4) bad.delta_max_ms = bad.delta_ms - 1;
        if (i == 5) bad.check = NULL;
        if (i == 6) bad.views_max = AT_SIMPLEX_WINDOW + 1;
        assert_int_equal(at_simplex_init(&bad, &x), AT_E_USAGE);
    }
    assert_null(x);
    good.views_max = 0;
    assert_int_equal(at_simplex_init(&good, &x), AT_OK);
    assert_int_equal(x->options.views_max, AT_SIMPLEX_WINDOW);
    at_simplex_release(x);
    net_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_steward_needs_one_transaction_before_finality),
                                       cmocka_unit_test(finality_in_three_delays),
                                       cmocka_unit_test(a_dead_leader_costs_less_than_two_timeouts),
                                       cmocka_unit_test(with_real_signatures),
                                       cmocka_unit_test(a_laggard_far_behind_the_window_catches_up),
                                       cmocka_unit_test(the_window_ends_and_opens_again),
                                       cmocka_unit_test(an_old_disk_abstains),
                                       cmocka_unit_test(an_old_disk_of_any_age),
                                       cmocka_unit_test(a_whole_disk_votes_on),
                                       cmocka_unit_test(options_out_of_range_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
