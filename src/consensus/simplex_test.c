/* simplex_test.c: the machine's rules one by one (the test plays the other seats), and whole runs without faults:
 * latency, messages, laggards, old disks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "consensus/simplex_hostile_test_util.h"

static struct net_options calm(uint32_t n)
{
    return (struct net_options){.seed = 1,
                                .n = n,
                                .latency_min_ms = 100,
                                .latency_max_ms = 100,
                                .views_max = 16,
                                .delta_ms = 200,
                                .delta_max_ms = 3200};
}

static void finish(struct net *w)
{
    if (w->violated) fail_msg("%s", w->violation);
    net_free(w);
}

static void submit(struct net *w, uint32_t actor, uint32_t number)
{
    net_push(w, (struct net_event){.at_ms = w->now_ms, .what = NET_SUBMIT, .actor = actor, .arg = number});
}

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
        submit(w, actor, from + i);
        uint64_t end = w->now_ms + 600000;
        while (!final_everywhere(w, from + i) && !w->violated && w->now_ms < end) net_run_until(w, w->now_ms + 50);
        if (!final_everywhere(w, from + i)) fail_msg("record %u is not final", from + i);
    }
}

/* ---- one seat, and the test is the others ---- */
struct puppet {
    struct net *w;
    struct net_actor *a; /* seat 0 of 4 */
    struct at_simplex *x;
    struct at_beacon beacon; /* of the chain that `block` makes */
    uint8_t bytes[AT_BLOCK_BYTES_MAX];
};

static void settle(struct puppet *p)
{
    net_run_until(p->w, p->w->now_ms); /* what is to be persisted, is */
}

static void hear(struct puppet *p, uint32_t from, const struct at_agree *m)
{
    net_step(p->w, p->a, (struct at_simplex_event){.kind = AT_SIMPLEX_MESSAGE, .from = from, .message = m});
    settle(p);
}

static void hear_vote(struct puppet *p, uint32_t from, uint64_t view, enum at_vote_kind kind, struct at_hash hash)
{
    struct at_agree m = {.term = NET_TERM, .kind = AT_AGREE_VOTE};
    m.vote = (struct at_vote){.view = view, .kind = kind, .seat = from};
    if (kind != AT_VOTE_DUMMY) m.vote.hash = hash;
    net_sign_as(p->w, &m.vote);
    hear(p, from, &m);
}

static struct puppet *puppet_make(void)
{
    struct puppet *p = calloc(1, sizeof *p);
    assert_non_null(p);
    struct net_options o = calm(4);
    for (int i = 1; i < 4; i++) o.hostile[i] = HOSTILE_SILENT;
    p->w = net_make(&o);
    p->a = &p->w->actors[0];
    p->x = p->a->x;
    p->beacon = p->x->tip.state.beacon;
    for (uint32_t from = 1; from < 3; from++) {
        assert_false(at_simplex_status(p->x).voting);
        struct at_agree m = {.term = NET_TERM, .kind = AT_AGREE_NEWEST, .newest = {.nonce = p->x->options.nonce}};
        hear(p, from, &m);
    }
    assert_true(at_simplex_status(p->x).voting);
    return p;
}

static void puppet_free(struct puppet *p)
{
    finish(p->w);
    free(p);
}

static uint32_t has_sent(const struct puppet *p, uint64_t view)
{
    return p->w->cast[0][view].has;
}

/* A block of `view` by its leader, on the given parent, with one record. `bend` may spoil it. Returns its hash. */
static struct at_hash block(struct puppet *p, uint64_t view, uint64_t parent_view, struct at_hash parent,
                            void (*bend)(struct puppet *p, struct at_block *b))
{
    struct at_block *b = &p->w->room.block;
    uint32_t leader = at_simplex_leader(view, 4);
    memset(b, 0, sizeof *b);
    b->run = p->w->run;
    b->term = NET_TERM;
    b->view = view;
    b->parent_view = parent_view;
    b->parent = parent;
    b->time_ms = NET_EPOCH_MS + p->w->now_ms + view;
    assert_true(at_beacon_chain_next(&p->w->chains[leader], p->beacon.used[leader], &b->reveal));
    b->record_count = 1;
    b->records[0] = net_record(0, view);
    if (bend != NULL) bend(p, b);
    struct at_agree m = {.term = NET_TERM, .kind = AT_AGREE_PROPOSAL};
    m.proposal.block = at_span(p->bytes, at_block_encode(b, p->bytes));
    m.proposal.is_signed = true;
    struct at_vote vote = {
        .view = view, .kind = AT_VOTE_BLOCK, .hash = at_sha256(p->bytes, m.proposal.block.n), .seat = leader};
    net_sign_as(p->w, &vote);
    m.proposal.sig = vote.sig;
    hear(p, leader, &m);
    return vote.hash;
}

static struct at_hash tip(const struct puppet *p)
{
    return p->x->tip.hash;
}

static void tick_to(struct puppet *p, uint64_t ms)
{
    net_run_until(p->w, p->w->now_ms + ms);
}

static void one_block_vote_in_a_view(void **state)
{
    (void)state;
    struct puppet *p = puppet_make();
    struct at_hash first = block(p, 1, 0, tip(p), NULL);
    assert_int_equal(has_sent(p, 1), AT_BIT(AT_VOTE_BLOCK));
    assert_true(at_hash_eq(p->w->cast[0][1].hash[AT_VOTE_BLOCK], first));
    tick_to(p, 1);
    struct at_hash second = block(p, 1, 0, tip(p), NULL); /* another time: another block */
    assert_false(at_hash_eq(first, second));
    assert_true(at_hash_eq(p->w->cast[0][1].hash[AT_VOTE_BLOCK], first));
    assert_int_equal(p->w->evidence, 1); /* the leader's two */
    puppet_free(p);
}

static void the_timer_ends_a_view_even_after_a_block_vote(void **state)
{
    (void)state;
    struct puppet *p = puppet_make();
    (void)block(p, 1, 0, tip(p), NULL);
    tick_to(p, 599);
    assert_int_equal(has_sent(p, 1), AT_BIT(AT_VOTE_BLOCK));
    tick_to(p, 1); /* 3 * 200 ms */
    assert_int_equal(has_sent(p, 1), AT_BIT(AT_VOTE_BLOCK) | AT_BIT(AT_VOTE_DUMMY));
    puppet_free(p);
}

static void no_block_vote_after_the_timer(void **state)
{
    (void)state;
    struct puppet *p = puppet_make();
    submit(p->w, 0, 1);
    tick_to(p, 600);
    assert_int_equal(has_sent(p, 1), AT_BIT(AT_VOTE_DUMMY));
    (void)block(p, 1, 0, tip(p), NULL);
    assert_int_equal(has_sent(p, 1), AT_BIT(AT_VOTE_DUMMY));
    puppet_free(p);
}

static void finalise_only_without_a_dummy_vote(void **state)
{
    (void)state;
    struct puppet *p = puppet_make();
    struct at_hash a = block(p, 1, 0, tip(p), NULL);
    tick_to(p, 600);
    hear_vote(p, 2, 1, AT_VOTE_BLOCK, a); /* with the leader's and the own vote: notarised */
    assert_int_equal(at_simplex_status(p->x).view, 2);
    assert_int_equal(has_sent(p, 1), AT_BIT(AT_VOTE_BLOCK) | AT_BIT(AT_VOTE_DUMMY)); /* and no finalise */
    puppet_free(p);

    p = puppet_make();
    a = block(p, 1, 0, tip(p), NULL);
    hear_vote(p, 2, 1, AT_VOTE_BLOCK, a);
    assert_int_equal(has_sent(p, 1), AT_BIT(AT_VOTE_BLOCK) | AT_BIT(AT_VOTE_FINAL));
    assert_int_equal(at_simplex_status(p->x).tip_view, 0);
    hear_vote(p, 2, 1, AT_VOTE_FINAL, a);
    hear_vote(p, 1, 1, AT_VOTE_FINAL, a);
    assert_int_equal(at_simplex_status(p->x).tip_view, 1);
    puppet_free(p);
}

static void a_block_notarised_by_others_is_finalised_without_an_own_vote(void **state)
{
    (void)state;
    struct puppet *p = puppet_make();
    struct at_hash a = at_sha256("a block that never came", 23);
    for (uint32_t from = 1; from < 4; from++) hear_vote(p, from, 1, AT_VOTE_BLOCK, a);
    assert_int_equal(at_simplex_status(p->x).view, 2);
    assert_int_equal(has_sent(p, 1), AT_BIT(AT_VOTE_FINAL));
    for (uint32_t from = 1; from < 4; from++) hear_vote(p, from, 1, AT_VOTE_FINAL, a);
    assert_int_equal(at_simplex_status(p->x).tip_view, 0); /* final, but its bytes are missing: asked for */
    assert_true(p->x->want_block.set && at_hash_eq(p->x->want_block.ask.hash, a));
    puppet_free(p);
}

static void a_parent_needs_the_dummies_between(void **state)
{
    (void)state;
    struct puppet *p = puppet_make();
    /* View 2's block certificate moves us to view 3 without anything known of view 1. */
    for (uint32_t from = 1; from < 4; from++) hear_vote(p, from, 2, AT_VOTE_DUMMY, tip(p));
    assert_int_equal(at_simplex_status(p->x).view, 3);
    struct at_hash a = block(p, 3, 0, tip(p), NULL);
    assert_int_equal(has_sent(p, 3), 0); /* the dummy of view 1 is missing */
    assert_true(p->x->want_certificates.set);
    for (uint32_t from = 1; from < 4; from++) hear_vote(p, from, 1, AT_VOTE_DUMMY, tip(p));
    assert_int_equal(has_sent(p, 3), AT_BIT(AT_VOTE_BLOCK));
    assert_true(at_hash_eq(p->w->cast[0][3].hash[AT_VOTE_BLOCK], a));
    puppet_free(p);
}

static void a_parent_must_be_notarised(void **state)
{
    (void)state;
    struct puppet *p = puppet_make();
    struct at_hash a = block(p, 1, 0, tip(p), NULL);
    at_beacon_take(&p->beacon, 1, p->w->room.block.reveal);
    for (uint32_t from = 1; from < 4; from++) hear_vote(p, from, 1, AT_VOTE_DUMMY, tip(p));
    (void)block(p, 2, 1, a, NULL); /* on a block that only its leader and we voted for */
    assert_int_equal(has_sent(p, 2), 0);
    hear_vote(p, 3, 1, AT_VOTE_BLOCK, a);
    assert_int_equal(has_sent(p, 2), AT_BIT(AT_VOTE_BLOCK));
    puppet_free(p);
}

static void bend_time_back(struct puppet *p, struct at_block *b)
{
    b->time_ms = p->x->tip.state.time_ms;
}
static void bend_time_ahead(struct puppet *p, struct at_block *b)
{
    b->time_ms = NET_EPOCH_MS + p->w->now_ms + AT_SIMPLEX_FUTURE_MS + 1;
}
static void bend_reveal(struct puppet *p, struct at_block *b)
{
    (void)p;
    b->reveal.b[0] ^= 1;
}
static void bend_record(struct puppet *p, struct at_block *b)
{
    (void)p;
    b->records[0].sig.b[0] = 0;
}
static void bend_term(struct puppet *p, struct at_block *b)
{
    (void)p;
    b->term++;
}
static void bend_run(struct puppet *p, struct at_block *b)
{
    (void)p;
    b->run.b[0] ^= 1;
}
static void bend_parent(struct puppet *p, struct at_block *b)
{
    (void)p;
    b->parent.b[0] ^= 1;
}

static void a_block_against_a_rule_gets_no_vote(void **state)
{
    (void)state;
    void (*const bends[])(struct puppet *, struct at_block *) = {
        bend_time_back, bend_time_ahead, bend_reveal, bend_record, bend_term, bend_run, bend_parent};
    for (size_t i = 0; i < sizeof bends / sizeof bends[0]; i++) {
        struct puppet *p = puppet_make();
        (void)block(p, 1, 0, tip(p), bends[i]);
        assert_int_equal(has_sent(p, 1), 0);
        if (bends[i] == bend_time_ahead) { /* our clock may only be slow: it is looked at again */
            tick_to(p, 1);
            submit(p->w, 0, 1);
            settle(p);
            assert_int_equal(has_sent(p, 1), AT_BIT(AT_VOTE_BLOCK));
        }
        puppet_free(p);
    }
}

static void forged_votes_and_certificates_count_for_nothing(void **state)
{
    (void)state;
    struct puppet *p = puppet_make();
    struct at_certificate c = {.view = 1, .kind = AT_VOTE_DUMMY, .seats = 0xe};
    for (uint32_t i = 0; i < 3; i++) {
        struct at_vote vote = {.view = 1, .kind = AT_VOTE_DUMMY, .seat = i == 2 ? 1 : i + 1};
        net_sign_as(p->w, &vote); /* the third is seat 1's again, in seat 3's place */
        c.sig[i] = vote.sig;
    }
    struct at_agree m = {.term = NET_TERM, .kind = AT_AGREE_CERTIFICATE, .certificate = &c};
    hear(p, 1, &m);
    assert_int_equal(at_simplex_status(p->x).view, 1);
    c.seats = 0x6; /* true, but too few */
    hear(p, 1, &m);
    assert_int_equal(at_simplex_status(p->x).view, 1);
    hear_vote(p, 1, 1, AT_VOTE_DUMMY, tip(p));
    hear_vote(p, 1, 1, AT_VOTE_DUMMY, tip(p));
    hear_vote(p, 2, 1, AT_VOTE_DUMMY, tip(p));
    assert_int_equal(at_simplex_status(p->x).view, 1);
    m.term++;
    c.seats = 0xe;
    struct at_vote vote = {.view = 1, .kind = AT_VOTE_DUMMY, .seat = 3};
    net_sign_as(p->w, &vote);
    c.sig[2] = vote.sig;
    hear(p, 1, &m); /* of another term */
    assert_int_equal(at_simplex_status(p->x).view, 1);
    m.term--;
    hear(p, 1, &m);
    assert_int_equal(at_simplex_status(p->x).view, 2);
    puppet_free(p);
}

static void idle_until_something_waits(void **state)
{
    (void)state;
    struct puppet *p = puppet_make();
    assert_true(at_simplex_deadline(p->x) == AT_SIMPLEX_NO_DEADLINE);
    hear_vote(p, 1, 1, AT_VOTE_DUMMY, tip(p)); /* one seat alone wakes nobody: f of them may be hostile */
    assert_true(at_simplex_deadline(p->x) == AT_SIMPLEX_NO_DEADLINE);
    hear_vote(p, 2, 1, AT_VOTE_DUMMY, tip(p));
    assert_true(at_simplex_deadline(p->x) != AT_SIMPLEX_NO_DEADLINE);
    tick_to(p, 600);
    assert_int_equal(has_sent(p, 1), AT_BIT(AT_VOTE_DUMMY));
    puppet_free(p);

    p = puppet_make();
    struct at_signed_record r = net_record(1, 1);
    struct at_agree m = {.term = NET_TERM, .kind = AT_AGREE_PENDING, .pending = &r};
    hear(p, 3, &m);
    assert_true(at_simplex_deadline(p->x) != AT_SIMPLEX_NO_DEADLINE);
    puppet_free(p);
}

static void no_peer_fills_the_queue(void **state)
{
    (void)state;
    struct puppet *p = puppet_make();
    struct at_agree m = {.term = NET_TERM, .kind = AT_AGREE_PENDING};
    for (uint32_t from = 1; from < 4; from++)
        for (uint32_t i = 0; i < AT_SIMPLEX_QUEUE_MAX; i++) {
            struct at_signed_record r = net_record(0, from * 1000 + i);
            m.pending = &r;
            net_step(p->w, p->a, (struct at_simplex_event){.kind = AT_SIMPLEX_MESSAGE, .from = from, .message = &m});
        }
    assert_int_equal(at_simplex_status(p->x).pending, 3 * (AT_SIMPLEX_QUEUE_MAX / 5));
    struct at_simplex_event e = {.kind = AT_SIMPLEX_SUBMIT};
    struct at_simplex_update u;
    uint32_t room = AT_SIMPLEX_QUEUE_MAX - at_simplex_status(p->x).pending;
    for (uint32_t i = 0; i <= room; i++) {
        struct at_signed_record r = net_record(0, 9000 + i);
        e.record = &r;
        at_simplex_step(p->x, &e, &u);
        assert_int_equal(u.err, i < room ? AT_OK : AT_E_TOO_BIG);
    }
    puppet_free(p);
}

/* ---- whole runs ---- */
static void one_steward_needs_one_transaction(void **state)
{
    (void)state;
    struct net_options o = calm(1);
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
    assert_true(at_simplex_deadline(x) == AT_SIMPLEX_NO_DEADLINE);
    net_free(w);
}

/* Proposal, vote, finalise: three delays of a link, and one more for a record that another steward submits. */
static void finality_in_three_delays(void **state)
{
    (void)state;
    const uint32_t sizes[] = {4, 7, 31};
    for (size_t i = 0; i < 3; i++) {
        struct net_options o = calm(sizes[i]);
        struct net *w = net_make(&o);
        net_run_until(w, 1000);
        uint64_t messages = w->messages, bytes = w->bytes;
        const uint32_t count = 10;
        for (uint32_t k = 1; k <= count; k++) {
            uint32_t leader = at_simplex_leader(w->actors[0].x->view, o.n);
            uint64_t from = w->now_ms;
            submit(w, k % 2 ? leader : (leader + 1) % o.n, k);
            net_run_until(w, w->now_ms + 1000);
            assert_int_equal(w->last_final_ms - from, k % 2 ? 300 : 400);
            assert_true(final_everywhere(w, k));
        }
        assert_int_equal(w->chain_count, count); /* no empty blocks */
        print_message("n = %2u: %llu messages, %llu bytes for each final block with one record of 300 bytes\n", o.n,
                      (unsigned long long)((w->messages - messages) / count),
                      (unsigned long long)((w->bytes - bytes) / count));
        finish(w);
    }
}

static void a_dead_leader_costs_less_than_two_timeouts(void **state)
{
    (void)state;
    for (uint32_t dead = 0; dead < 4; dead++) {
        struct net_options o = calm(4);
        o.hostile[dead] = HOSTILE_SILENT;
        struct net *w = net_make(&o);
        net_run_until(w, 1000);
        for (uint32_t k = 1; k <= 12; k++) {
            uint64_t from = w->now_ms;
            uint32_t delta = at_simplex_status(w->actors[0].x).delta_ms;
            submit(w, k % 3, k);
            net_run_until(w, w->now_ms + 10000);
            assert_true(final_everywhere(w, k));
            assert_true(w->last_final_ms - from <= 2 * 3 * (uint64_t)delta);
        }
        for (uint32_t i = 0; i < 3; i++) assert_true(at_simplex_status(w->actors[i].x).delta_ms <= 2 * o.delta_ms);
        finish(w);
    }
}

static void with_real_signatures(void **state)
{
    (void)state;
    struct net_options o = calm(4);
    o.real_signatures = true;
    o.hostile[2] = HOSTILE_DOUBLE;
    o.latency_min_ms = 10;
    struct net *w = net_make(&o);
    records(w, 0, 1, 20);
    assert_true(w->evidence > 0);
    finish(w);
}

static void a_laggard_far_behind_the_window_catches_up(void **state)
{
    (void)state;
    struct net_options o = calm(4);
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
    finish(w);
}

/* Delays far longer than the longest time-out: every view ends in a dummy, until the window is full. */
static void the_window_ends_and_opens_again(void **state)
{
    (void)state;
    struct net_options o = calm(4);
    o.views_max = 8;
    o.delta_max_ms = 400;
    struct net *w = net_make(&o);
    net_run_until(w, 1000);
    w->o.latency_min_ms = w->o.latency_max_ms = 5000;
    submit(w, 0, 1);
    net_run_until(w, w->now_ms + 40000);
    assert_int_equal(w->chain_count, 0);
    net_run_until(w, w->now_ms + 400000);
    assert_true(w->chain_count != 0 && w->views >= 8); /* in its last view everybody waited for the leader */
    w->o.latency_min_ms = w->o.latency_max_ms = 100;
    net_run_until(w, w->now_ms + 20000);
    records(w, 1, 2, 4);
    finish(w);
}

/* A disk of the past: the seat would sign again what it has signed before. Its peers know better. */
static void an_old_disk_abstains(void **state)
{
    (void)state;
    struct net_options o = calm(4);
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
    finish(w);
}

static void a_whole_disk_votes_on(void **state)
{
    (void)state;
    struct net_options o = calm(4);
    struct net *w = net_make(&o);
    records(w, 0, 1, 5);
    for (uint32_t i = 0; i < 4; i++) net_stop(w, &w->actors[i]); /* all at once */
    for (uint32_t i = 0; i < 4; i++) net_start(w, &w->actors[i]);
    records(w, 2, 6, 5);
    for (uint32_t i = 0; i < 4; i++) assert_true(at_simplex_status(w->actors[i].x).voting);
    finish(w);
}

static void options_out_of_range_are_refused(void **state)
{
    (void)state;
    struct net_options o = calm(4);
    struct net *w = net_make(&o);
    struct at_simplex_options good = w->actors[0].x->options, bad;
    struct at_simplex *x = NULL;
    for (int i = 0; i < 6; i++) {
        bad = good;
        if (i == 0) bad.seat_count = 5;
        if (i == 1) bad.seat = 4;
        if (i == 2) bad.views_max = AT_SIMPLEX_VIEWS_MIN - 1;
        if (i == 3) bad.delta_ms = 0;
        if (i == 4) bad.delta_max_ms = bad.delta_ms - 1;
        if (i == 5) bad.check = NULL;
        assert_int_equal(at_simplex_init(&bad, &x), AT_E_USAGE);
    }
    assert_null(x);
    finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_block_vote_in_a_view),
                                       cmocka_unit_test(the_timer_ends_a_view_even_after_a_block_vote),
                                       cmocka_unit_test(no_block_vote_after_the_timer),
                                       cmocka_unit_test(finalise_only_without_a_dummy_vote),
                                       cmocka_unit_test(a_block_notarised_by_others_is_finalised_without_an_own_vote),
                                       cmocka_unit_test(a_parent_needs_the_dummies_between),
                                       cmocka_unit_test(a_parent_must_be_notarised),
                                       cmocka_unit_test(a_block_against_a_rule_gets_no_vote),
                                       cmocka_unit_test(forged_votes_and_certificates_count_for_nothing),
                                       cmocka_unit_test(idle_until_something_waits),
                                       cmocka_unit_test(no_peer_fills_the_queue),
                                       cmocka_unit_test(one_steward_needs_one_transaction),
                                       cmocka_unit_test(finality_in_three_delays),
                                       cmocka_unit_test(a_dead_leader_costs_less_than_two_timeouts),
                                       cmocka_unit_test(with_real_signatures),
                                       cmocka_unit_test(a_laggard_far_behind_the_window_catches_up),
                                       cmocka_unit_test(the_window_ends_and_opens_again),
                                       cmocka_unit_test(an_old_disk_abstains),
                                       cmocka_unit_test(a_whole_disk_votes_on),
                                       cmocka_unit_test(options_out_of_range_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
