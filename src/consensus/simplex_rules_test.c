/* simplex_rules_test.c: the rows of the table in simplex.h, one by one: one seat, and the test plays the others. */
#include "consensus/simplex_puppet_test_util.h"

static void one_block_vote_in_a_view(void **state)
{
    (void)state;
    struct puppet *p = puppet_make(0);
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
    struct puppet *p = puppet_make(0);
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
    struct puppet *p = puppet_make(0);
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
    struct puppet *p = puppet_make(0);
    struct at_hash a = block(p, 1, 0, tip(p), NULL);
    tick_to(p, 600);
    hear_vote(p, 2, 1, AT_VOTE_BLOCK, a); /* with the leader's and the own vote: notarised */
    assert_int_equal(at_simplex_status(p->x).view, 2);
    assert_int_equal(has_sent(p, 1), AT_BIT(AT_VOTE_BLOCK) | AT_BIT(AT_VOTE_DUMMY)); /* and no finalise */
    puppet_free(p);

    p = puppet_make(0);
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
    struct puppet *p = puppet_make(0);
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
    struct puppet *p = puppet_make(0);
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
    struct puppet *p = puppet_make(0);
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
        struct puppet *p = puppet_make(0);
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
    struct puppet *p = puppet_make(0);
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
    struct puppet *p = puppet_make(0);
    assert_true(at_simplex_deadline(p->x) == AT_SIMPLEX_NO_DEADLINE);
    hear_vote(p, 1, 1, AT_VOTE_DUMMY, tip(p)); /* one seat alone wakes nobody: f of them may be hostile */
    assert_true(at_simplex_deadline(p->x) == AT_SIMPLEX_NO_DEADLINE);
    hear_vote(p, 2, 1, AT_VOTE_DUMMY, tip(p));
    assert_true(at_simplex_deadline(p->x) != AT_SIMPLEX_NO_DEADLINE);
    tick_to(p, 600);
    assert_int_equal(has_sent(p, 1), AT_BIT(AT_VOTE_DUMMY));
    puppet_free(p);

    p = puppet_make(0);
    struct at_signed_record r = net_record(1, 1);
    struct at_agree m = {.term = NET_TERM, .kind = AT_AGREE_PENDING, .pending = &r};
    hear(p, 3, &m);
    assert_true(at_simplex_deadline(p->x) != AT_SIMPLEX_NO_DEADLINE);
    puppet_free(p);
}

static void no_peer_fills_the_queue(void **state)
{
    (void)state;
    struct puppet *p = puppet_make(0);
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
    struct puppet *p = puppet_make(0);
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
