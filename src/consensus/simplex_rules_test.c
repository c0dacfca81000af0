/* simplex_rules_test.c: the rows of the table in simplex.h, one by one: one seat, and the test plays the others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "consensus/simplex_hostile_test_util.h"

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
    struct net_options o = net_calm(4);
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
    net_finish(p->w);
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
    uint32_t leader = at_view_leader(view, 4);
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
    net_submit(p->w, 0, 1);
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
            net_submit(p->w, 0, 1);
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

/* A hostile peer tells one seat of a record and nobody else: it is not that seat's burden for ever. */
static void a_record_told_to_one_seat_only_is_forgotten(void **state)
{
    (void)state;
    struct puppet *p = puppet_make();
    struct at_signed_record r = net_record(1, 1);
    struct at_agree m = {.term = NET_TERM, .kind = AT_AGREE_PENDING, .pending = &r};
    hear(p, 3, &m);
    tick_to(p, 10 * 200);
    assert_int_equal(at_simplex_status(p->x).pending, 1);
    tick_to(p, 10 * 200);
    assert_int_equal(at_simplex_status(p->x).pending, 0);
    assert_true(at_simplex_deadline(p->x) == AT_SIMPLEX_NO_DEADLINE);
    net_submit(p->w, 0, 2); /* its own stay */
    tick_to(p, 100 * 200);
    assert_int_equal(at_simplex_status(p->x).pending, 1);
    puppet_free(p);
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
                                       cmocka_unit_test(a_record_told_to_one_seat_only_is_forgotten)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
