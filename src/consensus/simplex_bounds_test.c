/* simplex_bounds_test.c: where the machine's limits are: the end of its window of views, and what one peer may cost. */
#include "consensus/simplex_puppet_test_util.h"

#define WINDOW AT_SIMPLEX_VIEWS_MIN

static void hear_dummies(struct puppet *p, uint64_t first, uint64_t last)
{
    for (uint64_t view = first; view <= last; view++)
        for (uint32_t from = 1; from < 4; from++) hear_vote(p, from, view, AT_VOTE_DUMMY, tip(p));
}

/* The tip moves and the view with it, far enough that the ring's next view stands where the final one stood. */
static void a_final_certificate_outlives_its_place_in_the_ring(void **state)
{
    (void)state;
    struct puppet *p = puppet_make(WINDOW);
    struct at_hash a = block(p, 1, 0, tip(p), NULL);
    hear_vote(p, 2, 1, AT_VOTE_BLOCK, a);
    hear_dummies(p, 2, WINDOW);
    hear_vote(p, 2, 1, AT_VOTE_FINAL, a);
    hear_vote(p, 1, 1, AT_VOTE_FINAL, a);
    assert_int_equal(at_simplex_status(p->x).tip_view, 1);
    assert_int_equal(at_simplex_status(p->x).view, WINDOW + 1);
    assert_false(p->w->violated);
    const struct disk *d = &p->a->disk;
    uint32_t found = 0;
    for (size_t i = 0; i < d->count; i++) {
        const struct at_certificate *c = d->items[i].certificate;
        if (c == NULL) continue;
        found += d->items[i].kind == AT_SIMPLEX_FINAL;
        assert_int_equal(__builtin_popcount(c->seats), 3);
        assert_true(c->view >= 1 && c->view <= WINDOW);
    }
    assert_int_equal(found, 1);
    puppet_free(p);
}

/* Far behind, it is shown the end of the last view that it can keep: it goes there, and finalises what it may. */
static void a_certificate_of_the_last_view_moves(void **state)
{
    (void)state;
    struct puppet *p = puppet_make(WINDOW);
    struct at_hash a = at_sha256("b", 1);
    for (uint32_t from = 1; from < 4; from++) hear_vote(p, from, WINDOW, AT_VOTE_BLOCK, a);
    assert_int_equal(at_simplex_status(p->x).view, WINDOW);
    assert_int_equal(has_sent(p, WINDOW), AT_BIT(AT_VOTE_FINAL));
    puppet_free(p);
}

/* A message of seat `from`; NULL: its new link. */
static struct at_simplex_event event_of(const struct puppet *p, uint32_t from, const struct at_agree *m)
{
    return (struct at_simplex_event){.kind = m == NULL ? AT_SIMPLEX_LINK : AT_SIMPLEX_MESSAGE,
                                     .now_ms = p->w->now_ms,
                                     .clock_ms = NET_EPOCH_MS + p->w->now_ms,
                                     .from = from,
                                     .message = m};
}

/* Counts what the step of one message sends, of a kind. */
static uint32_t sends(struct puppet *p, uint32_t from, const struct at_agree *m, enum at_agree_kind kind)
{
    struct at_simplex_event e = event_of(p, from, m);
    struct at_simplex_update u;
    at_simplex_step(p->x, &e, &u);
    uint32_t n = 0;
    for (size_t i = 0; i < u.op_count; i++)
        n += u.ops[i].kind == AT_SIMPLEX_SEND && u.ops[i].message.kind == kind &&
             (kind != AT_AGREE_CERTIFICATE || u.ops[i].message.certificate->view == WINDOW);
    return n;
}

/* Everybody is in the last view; one has its certificate: the others get it. */
static void the_last_views_certificate_is_passed_on(void **state)
{
    (void)state;
    struct puppet *p = puppet_make(WINDOW);
    hear_dummies(p, 1, WINDOW - 1);
    struct at_hash a = at_sha256("b", 1);
    for (uint32_t from = 1; from < 4; from++) hear_vote(p, from, WINDOW, AT_VOTE_BLOCK, a);
    assert_int_equal(at_simplex_status(p->x).view, WINDOW);
    struct at_agree status = {.term = NET_TERM, .kind = AT_AGREE_STATUS, .status = {.view = WINDOW}};
    assert_int_equal(sends(p, 1, &status, AT_AGREE_CERTIFICATE), 1);
    struct at_agree ask = {.term = NET_TERM, .kind = AT_AGREE_ASK, .ask = {.first = WINDOW - 1, .last = WINDOW}};
    assert_int_equal(sends(p, 2, &ask, AT_AGREE_CERTIFICATE), 1);
    assert_int_equal(sends(p, 3, NULL, AT_AGREE_CERTIFICATE), 1);
    puppet_free(p);
}

/* ---- what one peer may cost ---- */

/* Steps one message of seat `from`; counts the ops of a kind, and returns what the step said. */
static at_err_t step(struct puppet *p, uint32_t from, const struct at_agree *m, enum at_simplex_op_kind kind,
                     uint32_t *count)
{
    struct at_simplex_event e = event_of(p, from, m);
    struct at_simplex_update u;
    at_simplex_step(p->x, &e, &u);
    for (size_t i = 0; i < u.op_count; i++) *count += u.ops[i].kind == kind;
    return u.err;
}

/* `count` final blocks, each on the one before. */
static void hear_finals(struct puppet *p, uint64_t count)
{
    for (uint64_t view = 1, led = 0; led < count; view++) {
        if (at_view_leader(view, 4) == 0) { /* the own views: skipped */
            for (uint32_t from = 1; from < 4; from++) hear_vote(p, from, view, AT_VOTE_DUMMY, tip(p));
            continue;
        }
        struct at_hash a = block(p, view, p->x->tip.view, tip(p), NULL);
        at_beacon_take(&p->beacon, at_view_leader(view, 4), p->w->room.block.reveal);
        for (uint32_t from = 1; from < 4; from++) hear_vote(p, from, view, AT_VOTE_BLOCK, a);
        for (uint32_t from = 1; from < 4; from++) hear_vote(p, from, view, AT_VOTE_FINAL, a);
        assert_int_equal(at_simplex_status(p->x).tip_view, view);
        led++;
    }
}

static void a_peer_is_served_a_range_once(void **state)
{
    (void)state;
    struct puppet *p = puppet_make(0);
    hear_finals(p, 60);
    const uint64_t end = at_simplex_status(p->x).tip_view;
    uint32_t serves = 0;
    for (int again = 0; again < 3; again++)
        for (uint64_t t = 0; t < end; t++) { /* it claims to be one block further each time, within one moment */
            struct at_agree m = {
                .term = NET_TERM, .kind = AT_AGREE_STATUS, .status = {.view = t + 1, .tip_view = t, .asks = true}};
            assert_int_equal(step(p, 2, &m, AT_SIMPLEX_SERVE, &serves), AT_OK);
        }
    assert_in_range(serves, 1, 4); /* 64 views' worth */
    uint32_t more = 0;
    tick_to(p, 4000); /* a Δ later it is served again, and so is another peer at once */
    struct at_agree m = {.term = NET_TERM, .kind = AT_AGREE_STATUS, .status = {.view = 1, .tip_view = 0}};
    (void)step(p, 2, &m, AT_SIMPLEX_SERVE, &more);
    (void)step(p, 3, &m, AT_SIMPLEX_SERVE, &more);
    assert_int_equal(more, 2);
    puppet_free(p);
}

static void a_peer_is_sent_so_many_blocks_and_no_more(void **state)
{
    (void)state;
    struct puppet *p = puppet_make(0);
    hear_finals(p, 1);
    uint32_t blocks = 0, others = 0;
    struct at_agree m = {.term = NET_TERM, .kind = AT_AGREE_ASK};
    m.ask = (struct at_agree_ask){.of_block = true, .first = 1, .last = 1, .hash = tip(p)};
    for (int i = 0; i < 1000; i++) assert_int_equal(step(p, 2, &m, AT_SIMPLEX_SEND_BLOCK, &blocks), AT_OK);
    assert_in_range(blocks, 1, 64);
    (void)step(p, 3, &m, AT_SIMPLEX_SEND_BLOCK, &others);
    assert_int_equal(others, 1);
    puppet_free(p);
}

static uint64_t verified_count;
static at_err_t verify_counted(void *user, const struct at_vote *vote)
{
    verified_count++;
    return net_verify(user, vote);
}

static void a_forgery_is_reported_at_its_first_signature(void **state)
{
    (void)state;
    struct puppet *p = puppet_make(0);
    p->x->options.verify = verify_counted;
    struct at_certificate c = {.view = 3, .kind = AT_VOTE_DUMMY, .seats = 0xe};
    for (uint32_t i = 0; i < 3; i++) {
        struct at_vote vote = {.view = 3, .kind = AT_VOTE_DUMMY, .seat = i + 1};
        net_sign_as(p->w, &vote);
        c.sig[i] = vote.sig;
    }
    c.sig[2].b[0] ^= 1;
    struct at_block *b = &p->w->room.block;
    memset(b, 0, sizeof *b);
    b->run = p->w->run;
    b->term = NET_TERM;
    b->view = 1;
    struct at_agree m = {.term = NET_TERM, .kind = AT_AGREE_PROPOSAL};
    m.proposal.block = at_span(p->bytes, at_block_encode(b, p->bytes));
    m.proposal.certificate_count = AT_PROPOSAL_CERTIFICATES_MAX;
    for (uint32_t i = 0; i < AT_PROPOSAL_CERTIFICATES_MAX; i++) m.proposal.certificates[i] = &c;
    uint32_t sent = 0;
    verified_count = 0;
    assert_int_equal(step(p, 1, &m, AT_SIMPLEX_SEND, &sent), AT_E_PEER);
    assert_int_equal(verified_count, 3);
    c.view = 1000; /* beyond the window: nothing of it is kept, so nothing is checked */
    verified_count = 0;
    assert_int_equal(step(p, 1, &m, AT_SIMPLEX_SEND, &sent), AT_OK);
    assert_int_equal(verified_count, 0);
    struct at_agree vote = {.term = NET_TERM, .kind = AT_AGREE_VOTE};
    vote.vote = (struct at_vote){.view = 1, .kind = AT_VOTE_DUMMY, .seat = 1};
    assert_int_equal(step(p, 1, &vote, AT_SIMPLEX_SEND, &sent), AT_E_PEER);
    struct at_signed_record r = net_record(1, 1);
    r.sig.b[0] = 0;
    struct at_agree pending = {.term = NET_TERM, .kind = AT_AGREE_PENDING, .pending = &r};
    assert_int_equal(step(p, 1, &pending, AT_SIMPLEX_SEND, &sent), AT_E_PEER);
    p->bytes[0] ^= 0xff;
    m.proposal.certificate_count = 0;
    assert_int_equal(step(p, 1, &m, AT_SIMPLEX_SEND, &sent), AT_E_PEER);
    puppet_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_final_certificate_outlives_its_place_in_the_ring),
                                       cmocka_unit_test(a_certificate_of_the_last_view_moves),
                                       cmocka_unit_test(the_last_views_certificate_is_passed_on),
                                       cmocka_unit_test(a_peer_is_served_a_range_once),
                                       cmocka_unit_test(a_peer_is_sent_so_many_blocks_and_no_more),
                                       cmocka_unit_test(a_forgery_is_reported_at_its_first_signature)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
