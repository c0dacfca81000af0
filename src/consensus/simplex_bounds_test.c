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

/* Counts what the step of one message sends, of a kind. */
static uint32_t sends(struct puppet *p, uint32_t from, const struct at_agree *m, enum at_agree_kind kind)
{
    struct at_simplex_event e = {.kind = m == NULL ? AT_SIMPLEX_LINK : AT_SIMPLEX_MESSAGE,
                                 .now_ms = p->w->now_ms,
                                 .clock_ms = NET_EPOCH_MS + p->w->now_ms,
                                 .from = from,
                                 .message = m};
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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_final_certificate_outlives_its_place_in_the_ring),
                                       cmocka_unit_test(a_certificate_of_the_last_view_moves),
                                       cmocka_unit_test(the_last_views_certificate_is_passed_on)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
