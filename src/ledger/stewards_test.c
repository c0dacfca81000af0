/* The ledger with several stewards: how a run gets them, what they settle together, how their terms end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ledger/stewards_fixture.h"

#include <stdlib.h>

static int setup(void **state)
{
    struct stewards_fixture *r = calloc(1, sizeof *r);
    assert_non_null(r);
    stewards_init(r);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct stewards_fixture *r = *state;
    fixture_release(&r->f);
    free(r);
    return 0;
}

static void refused(struct stewards_fixture *r, int key, const struct at_record *rec, const char *why)
{
    struct at_diag diag = {0};
    assert_int_equal(fixture_write(&r->f, key, rec, &diag), AT_E_VERIFY);
    if (strstr(diag.text, why) == NULL) fail_msg("'%s' does not say '%s'", diag.text, why);
}

/* Not kept in the fixture, which holds fewer records than a term has. */
static void taken(struct stewards_fixture *r, int key, const struct at_record *rec)
{
    struct at_diag diag = {0};
    struct at_signed_record s = fixture_sign(&r->f, key, rec);
    if (at_ledger_check(&r->f.ledger, &s, &diag) != AT_OK) fail_msg("%s", diag.text);
    assert_int_equal(at_ledger_apply(&r->f.ledger, &s, &diag, NULL), AT_OK);
}

static void stands(struct stewards_fixture *r, int k)
{
    struct at_record rec = stewards_stand_record(r, k);
    taken(r, k, &rec);
}

/* The members 0 to 3 hold the seats of term 2, in this order. */
static void four_stewards(struct stewards_fixture *r)
{
    for (int k = 0; k < 4; k++) stands(r, k);
    fixture_round(&r->f, 0xff, 0xff, 1);
    assert_int_equal(r->f.ledger.seats.term, 2);
    assert_int_equal(r->f.ledger.seats.count, 4);
    assert_int_equal(r->f.ledger.term_round, 1);
    for (int k = 0; k < 4; k++) assert_true(at_ledger_seat(&r->f.ledger, &r->f.key[k].id) >= 0);
}

static void one_steward_becomes_four_with_the_fourth_ready(void **state)
{
    struct stewards_fixture *r = *state;
    for (int k = 0; k < 3; k++) stands(r, k);
    fixture_round(&r->f, 0xff, 0xff, 1);
    assert_int_equal(r->f.ledger.seats.count, 1);
    stands(r, 3); /* the others still stand: the term is the same */
    assert_int_equal(r->f.ledger.seats.count, 1);
    fixture_round(&r->f, 0xff, 0x1, 1);
    assert_int_equal(r->f.ledger.seats.count, 4);
    assert_int_equal(r->f.ledger.seats.term, 2);
    int founder = at_ledger_seat(&r->f.ledger, &r->f.key[0].id);
    assert_int_equal(founder, 0);
    assert_true(at_node_id_eq(&r->f.ledger.seats.seat[0].key, &r->seat_key[0].id));
    assert_true(at_hash_eq(r->f.ledger.beacon.head[0], r->chain[0].commitment));
}

static void who_may_stand(void **state)
{
    struct stewards_fixture *r = *state;
    struct at_record rec = stewards_stand_record(r, 1);
    rec.stand.term = 3;
    refused(r, 1, &rec, "not for the next term");
    rec = stewards_stand_record(r, 1);
    rec.stand.has_ticket = false;
    memset(&rec.stand.ticket, 0, sizeof rec.stand.ticket);
    refused(r, 1, &rec, "needs the founder's ticket");
    rec = stewards_stand_record(r, 1);
    refused(r, 2, &rec, "does not show that it has the seat's key"); /* as another member */
    rec.stand.key = r->seat_key[2].id;
    refused(r, 1, &rec, "does not show that it has the seat's key"); /* with another's key */
    rec = stewards_stand_record(r, 1);
    rec.stand.ticket.bearer.b[5] ^= 1;
    refused(r, 1, &rec, "ticket is not the founder's");
    struct at_ticket own =
        at_ticket_make(&r->f.key[1], rec.run, &r->seat_key[7]); /* signed by itself, not the founder */
    rec = stewards_stand_record(r, 1);
    assert_int_equal(at_ticket_show(&own, rec.run, &r->f.key[1], &rec.stand.ticket), AT_OK);
    refused(r, 1, &rec, "ticket is not the founder's");
    stands(r, 1);
    rec = stewards_stand_record(r, 1);
    refused(r, 1, &rec, "stands already");
    rec = stewards_stand_record(r, 2); /* the ticket of somebody who has shown it, for another member */
    assert_int_equal(at_ticket_show(&r->ticket[1], rec.run, &r->f.key[2], &rec.stand.ticket), AT_OK);
    refused(r, 2, &rec, "another member has shown this ticket");
    rec = stewards_stand_record(r, 0); /* the founder needs none */
    rec.stand.has_ticket = false;
    memset(&rec.stand.ticket, 0, sizeof rec.stand.ticket);
    taken(r, 0, &rec);
}

static void block(struct stewards_fixture *r, uint64_t view)
{
    int k = stewards_leader(r, view);
    struct at_block_head head = stewards_head(r, view, 0);
    struct at_diag diag = {0};
    struct at_signed_record rec;
    uint64_t size = r->f.ledger.tree.size;
    if (at_ledger_begin_block(&r->f.ledger, &head, &diag, &rec) != AT_OK) fail_msg("%s", diag.text);
    assert_int_equal(r->f.ledger.tree.size, size + 1);
    r->revealed[k]++;
}

/* Word by word: what three of four say happens, and what one says alone does not. */
static void a_round_of_four_stewards(void **state)
{
    struct stewards_fixture *r = *state;
    struct at_ledger *l = &r->f.ledger;
    four_stewards(r);
    block(r, 1);
    struct at_record rec = fixture_open_record(&r->f, 0x0f);
    refused(r, 5, &rec, "only a steward");
    taken(r, 0, &rec);
    struct at_record again = fixture_open_record(&r->f, 0x0f);
    refused(r, 0, &again, "said so already");
    rec = fixture_open_record(&r->f, 0x20); /* a liar's: only its friend takes part */
    taken(r, 1, &rec);
    rec = fixture_open_record(&r->f, 0x1f);
    assert_int_equal(l->phase, AT_LEDGER_READY);
    taken(r, 2, &rec);
    assert_int_equal(l->phase, AT_LEDGER_TRAINING);
    for (uint32_t k = 0; k < FIXTURE_KEYS; k++) assert_int_equal(at_ledger_allotment(l, k) != NULL, k < 4);
    rec = fixture_open_record(&r->f, 0x0f); /* the fourth steward is late */
    refused(r, 3, &rec, "a round is open");

    for (int k = 0; k < 4; k++) {
        rec = fixture_receipt_record(&r->f, k, 2);
        taken(r, k, &rec);
    }
    uint64_t confirmed = l->confirmed;
    rec = fixture_close_record(&r->f, 0x8); /* the liar's: only replica 3 */
    taken(r, 1, &rec);
    rec = fixture_close_record(&r->f, 0x7);
    taken(r, 3, &rec);
    assert_int_equal(l->phase, AT_LEDGER_TRAINING);
    rec = fixture_close_record(&r->f, 0x3);
    taken(r, 2, &rec);
    assert_int_equal(l->phase, AT_LEDGER_CLOSED);
    assert_int_equal(l->included_count, 2); /* 0 and 1: each is named by two of the three */
    assert_true(l->allotments[0].included && l->allotments[1].included);
    assert_int_equal(l->confirmed - confirmed, l->genesis.issuance);

    struct at_hash before = l->state_root;
    struct at_record lie = rec = fixture_epoch_record(&r->f);
    lie.epoch.state_root.b[0] ^= 1;
    taken(r, 1, &lie);
    taken(r, 0, &rec);
    assert_true(l->phase == AT_LEDGER_CLOSED && at_hash_eq(l->state_root, before));
    taken(r, 3, &rec); /* the second of f+1 */
    assert_int_equal(l->phase, AT_LEDGER_READY);
    assert_true(at_hash_eq(l->state_root, rec.epoch.state_root));

    rec = fixture_end_record(&r->f);
    taken(r, 1, &rec); /* alone it ends nothing, and the others go on */
    taken(r, 2, &rec);
    rec.time_ms = ++r->f.now_ms;
    refused(r, 2, &rec, "said so already");
    struct at_record open = fixture_open_record(&r->f, 0x0f);
    taken(r, 1, &open);
    assert_int_equal(l->phase, AT_LEDGER_READY);
    taken(r, 0, &rec);
    assert_int_equal(l->phase, AT_LEDGER_ENDED);
}

/* Whose word the log's size is: the old seats' until the next term's first block. */
static void each_block_is_signed_by_who_ordered_it(void **state)
{
    struct stewards_fixture *r = *state;
    struct at_ledger *l = &r->f.ledger;
    assert_int_equal(at_ledger_term_end(l, 0), UINT64_MAX);
    four_stewards(r);
    uint64_t end = l->tree.size;
    assert_int_equal(l->signers.term, 1); /* the EPOCH that ended its term is the single steward's */
    assert_int_equal(l->signers.count, 1);
    struct at_record rec = fixture_open_record(&r->f, 0x0f);
    refused(r, 1, &rec, "in no block"); /* it orders nothing more */
    block(r, 1);
    assert_memory_equal(&l->signers, &l->seats, sizeof l->seats);
    rec = fixture_open_record(&r->f, 0x0f);
    taken(r, 1, &rec);
    assert_int_equal(at_ledger_term_end(l, 0), end);
    assert_int_equal(at_ledger_term_end(l, end - 1), end);
    assert_int_equal(at_ledger_term_end(l, end), UINT64_MAX);
}

static void who_leaves_between_the_words_takes_no_part(void **state)
{
    struct stewards_fixture *r = *state;
    four_stewards(r);
    block(r, 1);
    struct at_record rec = fixture_open_record(&r->f, 0xf0);
    taken(r, 0, &rec);
    taken(r, 1, &rec);
    assert_int_equal(fixture_leave(&r->f, 5), AT_OK);
    rec = fixture_open_record(&r->f, 0xd0);
    taken(r, 2, &rec);
    assert_int_equal(r->f.ledger.phase, AT_LEDGER_TRAINING);
    assert_null(at_ledger_allotment(&r->f.ledger, 5));
    assert_non_null(at_ledger_allotment(&r->f.ledger, 4));
}

static void no_block(struct stewards_fixture *r, const struct at_block_head *head, const char *why)
{
    struct at_diag diag = {0};
    struct at_signed_record rec;
    struct at_hash root = at_ledger_root(&r->f.ledger);
    assert_int_equal(at_ledger_begin_block(&r->f.ledger, head, &diag, &rec), AT_E_VERIFY);
    if (strstr(diag.text, why) == NULL) fail_msg("'%s' does not say '%s'", diag.text, why);
    assert_true(at_hash_eq(root, at_ledger_root(&r->f.ledger)));
}

static void blocks_are_judged(void **state)
{
    struct stewards_fixture *r = *state;
    struct at_block_head head = {.term = 1, .view = 1, .time_ms = 1};
    no_block(r, &head, "single steward");
    four_stewards(r);
    block(r, 1);
    block(r, 5); /* the views between ended with dummies */
    assert_int_equal(r->f.ledger.view, 5);
    head = stewards_head(r, 5, 0);
    no_block(r, &head, "view is not later");
    head = stewards_head(r, 6, 0);
    head.time_ms = r->f.ledger.block_ms;
    no_block(r, &head, "time is not later");
    head = stewards_head(r, 6, 1);
    no_block(r, &head, "next link"); /* the one after the next */
    head = stewards_head(r, 7, 0);
    head.view = 6; /* another leader's */
    no_block(r, &head, "next link");
    head = stewards_head(r, 6, 0);
    head.term = 1;
    no_block(r, &head, "another term");
    struct at_hash seed = r->f.ledger.beacon.seed;
    block(r, 6);
    assert_false(at_hash_eq(seed, r->f.ledger.beacon.seed));
}

static void nobody_can_write_a_block(void **state)
{
    struct stewards_fixture *r = *state;
    four_stewards(r);
    struct at_block_head head = stewards_head(r, 1, 0);
    struct at_record rec = fixture_record(&r->f, AT_RECORD_BLOCK);
    rec.head = (struct at_head){.term = head.term, .view = UINT64_MAX, .reveal = head.reveal};
    refused(r, stewards_leader(r, 1), &rec, "nobody may write it"); /* the leader itself, for ever after */
    struct at_diag diag = {0};
    struct at_signed_record s = fixture_sign(&r->f, stewards_leader(r, 1), &rec);
    memset(&s.author, 0, sizeof s.author);
    assert_int_equal(at_ledger_check(&r->f.ledger, &s, &diag), AT_E_SIGNATURE);
    diag = (struct at_diag){0};
    assert_int_equal(at_ledger_apply(&r->f.ledger, &s, &diag, NULL), AT_E_VERIFY);
    if (strstr(diag.text, "carries a signature") == NULL) fail_msg("%s", diag.text);
    memset(&s.sig, 0, sizeof s.sig);
    assert_int_equal(at_ledger_check(&r->f.ledger, &s, &diag), AT_E_SIGNATURE);
}

/* What a steward has said once cannot be said again by somebody who has read it. */
static void old_words_are_not_said_again(void **state)
{
    struct stewards_fixture *r = *state;
    four_stewards(r);
    block(r, 1);
    struct at_record first = fixture_open_record(&r->f, 0x0f), second = fixture_open_record(&r->f, 0xff);
    taken(r, 1, &first);
    taken(r, 1, &second);
    refused(r, 1, &first, "older than the author's last word");
    refused(r, 1, &second, "older than the author's last word");
    for (unsigned i = 2; i < AT_WORDS_MAX; i++) {
        struct at_record rec = fixture_open_record(&r->f, 0x10 + i);
        taken(r, 1, &rec);
    }
    struct at_record rec = fixture_open_record(&r->f, 0x40);
    refused(r, 1, &rec, "changed its mind too often");
}

static void one_key_one_seat(void **state)
{
    struct stewards_fixture *r = *state;
    stands(r, 1);
    struct at_record rec =
        stewards_stand_record(r, 2); /* one owner of two members, who has the key and says so for both */
    rec.stand.key = r->seat_key[1].id;
    rec.stand.key_use = at_seat_key_show(&r->seat_key[1], rec.run, &r->f.key[2].id);
    refused(r, 2, &rec, "another member stands with this key");
    for (int k = 0; k < 4; k++)
        if (k != 1) stands(r, k);
    fixture_round(&r->f, 0xff, 0xff, 1);
    block(r, 1);
    rec = stewards_stand_record(r, 5);
    rec.stand.key = r->seat_key[1].id;
    rec.stand.key_use = at_seat_key_show(&r->seat_key[1], rec.run, &r->f.key[5].id);
    refused(r, 5, &rec, "another member's seat has this key");
}

static void without_its_holder_a_single_seat_stays_single(void **state)
{
    struct stewards_fixture *r = *state;
    for (int k = 1; k < 6; k++) stands(r, k);
    fixture_round(&r->f, 0xff, 0xff, 1);
    assert_int_equal(r->f.ledger.seats.count, 1);
    stands(r, 0);
    fixture_round(&r->f, 0xff, 0xff, 1);
    assert_int_equal(r->f.ledger.seats.count, 4);
}

/* A round that the stewards 0 to 2 settle; replica 4 works alone. */
static void round_of_four(struct stewards_fixture *r)
{
    struct at_record rec = fixture_open_record(&r->f, 0x10);
    for (int k = 0; k < 3; k++) taken(r, k, &rec);
    rec = fixture_receipt_record(&r->f, 4, 1);
    taken(r, 4, &rec);
    rec = fixture_close_record(&r->f, 0x10);
    for (int k = 0; k < 3; k++) taken(r, k, &rec);
    rec = fixture_epoch_record(&r->f);
    for (int k = 0; k < 2; k++) taken(r, k, &rec);
}

static void a_term_ends_after_its_rounds_and_f_plus_one_reveals(void **state)
{
    struct stewards_fixture *r = *state;
    struct at_ledger *l = &r->f.ledger;
    four_stewards(r);
    block(r, 1);
    for (int k = 1; k < 6; k++) stands(r, k); /* not the founder, whose seat is deserted; 4 has nearly all the work */
    for (int i = 1; i < AT_TERM_ROUNDS; i++) round_of_four(r);
    block(r, 2);
    block(r, 3); /* reveals before the cut do not count */
    assert_int_equal(l->seats.term, 2);
    round_of_four(r);
    assert_int_equal(l->round, 1 + AT_TERM_ROUNDS);
    assert_int_equal(l->seats.term, 2);
    block(r, 5);
    block(r, 9); /* the same leader once more */
    assert_int_equal(l->seats.term, 2);
    struct at_record rec = fixture_open_record(&r->f, 0x10);
    taken(r, 1, &rec);
    stands(r, 6);                                     /* has seen a part of the seed */
    assert_int_equal(fixture_leave(&r->f, 5), AT_OK); /* and so has this one: it changes the draw no more */
    struct at_hash seed = l->beacon.seed;
    struct at_candidate drawn[FIXTURE_KEYS];
    size_t drawn_count = 0;
    for (uint32_t k = 1; k < 6; k++)
        drawn[drawn_count++] =
            (struct at_candidate){.seat = l->members[k].stand, .work = l->members[k].confirmed, .vouched = true};
    struct at_seats before = l->seats;
    block(r, 10);
    assert_memory_equal(&l->signers, &before, sizeof before); /* this block is still theirs */
    assert_false(at_hash_eq(seed, l->beacon.seed));
    struct at_seats expected = at_seats_draw(&before, drawn, drawn_count, 0, l->beacon.seed);
    assert_memory_equal(&l->seats, &expected, sizeof expected);
    assert_int_equal(l->seats.term, 3);
    assert_int_equal(l->seats.count, 4);
    assert_int_equal(at_ledger_seat(l, &r->f.key[0].id), -1);
    assert_int_equal(at_ledger_seat(l, &r->f.key[6].id), -1);
    for (int k = 1; k < 4; k++) assert_true(at_ledger_seat(l, &r->f.key[k].id) > 0);
    assert_int_equal(at_ledger_seat(l, &r->f.key[4].id) == 0 || at_ledger_seat(l, &r->f.key[5].id) == 0, 1);
    assert_int_equal(l->view, 0);
    refused(r, 0, &rec, "only a steward");
    rec = fixture_open_record(&r->f, 0x10);
    taken(r, 1, &rec); /* words said to the old term's count do not count any more */
    assert_int_equal(l->phase, AT_LEDGER_READY);
    rec = stewards_stand_record(r, 6);
    assert_int_equal(rec.stand.term, 4);
    taken(r, 6, &rec);
    uint64_t end = l->tree.size;
    block(r, 1);
    assert_memory_equal(&l->signers, &l->seats, sizeof l->seats);
    assert_int_equal(at_ledger_term_end(l, end - 1), end);
    assert_true(at_ledger_term_end(l, 0) < end);
}

static void later_confirmed_work_lets_stand(void **state)
{
    struct stewards_fixture *r = *state;
    r->f.ledger.round = AT_SEATS_YOUNG_ROUNDS; /* as after so many rounds */
    r->f.ledger.members[2].confirmed = 1;
    struct at_record rec = stewards_stand_record(r, 2);
    rec.stand.has_ticket = false;
    memset(&rec.stand.ticket, 0, sizeof rec.stand.ticket);
    taken(r, 2, &rec);
    rec = stewards_stand_record(r, 3);
    rec.stand.has_ticket = false;
    memset(&rec.stand.ticket, 0, sizeof rec.stand.ticket);
    refused(r, 3, &rec, "no confirmed work");
    stands(r, 3); /* a ticket still does */
}

/* Two roots of one size under a member's seat key. */
static struct at_record evidence_against(struct stewards_fixture *r, int k)
{
    struct at_record rec = fixture_record(&r->f, AT_RECORD_EVIDENCE);
    struct at_log_checkpoint root[2];
    for (uint8_t i = 0; i < 2; i++)
        root[i] = at_log_checkpoint_sign(&r->seat_key[k], rec.run, 5, (struct at_hash){{(uint8_t)(7 + i)}});
    rec.evidence = at_evidence_of_roots(rec.run, &root[0], &root[1]);
    return rec;
}

static void evidence_costs_the_seat(void **state)
{
    struct stewards_fixture *r = *state;
    struct at_ledger *l = &r->f.ledger;
    four_stewards(r);
    block(r, 1);
    struct at_record rec = evidence_against(r, 2);
    rec.evidence.roots[1].sig.b[9] ^= 1;
    refused(r, 4, &rec, "does not verify");
    rec = evidence_against(r, 2);
    rec.evidence.run.b[0] ^= 1;
    refused(r, 4, &rec, "another run");
    rec = evidence_against(r, 6); /* who never stood */
    refused(r, 4, &rec, "no seat that is known here");
    rec = evidence_against(r, 2);
    uint64_t points = l->confirmed;
    taken(r, 4, &rec);
    assert_true(l->members[2].barred);
    assert_int_equal(l->confirmed, points);
    refused(r, 5, &rec, "barred already");
    rec = stewards_stand_record(r, 2);
    refused(r, 2, &rec, "barred from seats");
    round_of_four(r); /* its words count for now; nobody could take its seat */
    block(r, 2);
    block(r, 3);
    assert_int_equal(l->seats.term, 2);
    stands(r, 5);
    round_of_four(r);
    block(r, 5);
    block(r, 6);
    assert_int_equal(l->seats.term, 3); /* long before its time */
    assert_int_equal(at_ledger_seat(l, &r->f.key[2].id), -1);
    assert_true(at_ledger_seat(l, &r->f.key[5].id) >= 0);
    for (int k = 0; k < 4; k++)
        assert_true(k == 2 || at_ledger_seat(l, &r->f.key[k].id) >= 0); /* though they do not stand */
    block(r, 1);
    assert_int_equal(at_ledger_key_holder(l, &r->seat_key[2].id), 2); /* the last term's keys are known */
}

static void evidence_while_a_draw_is_due(void **state)
{
    struct stewards_fixture *r = *state;
    struct at_ledger *l = &r->f.ledger;
    four_stewards(r);
    block(r, 1);
    for (int k = 0; k < 6; k++) stands(r, k);
    for (int i = 0; i < AT_TERM_ROUNDS; i++) round_of_four(r);
    assert_int_equal(l->candidate_count, 6);
    struct at_record rec = evidence_against(r, 5);
    taken(r, 4, &rec);
    rec = evidence_against(r, 2);
    taken(r, 4, &rec);
    assert_int_equal(l->candidate_count, 4);
    block(r, 2);
    block(r, 3);
    assert_int_equal(l->seats.term, 3);
    assert_int_equal(at_ledger_seat(l, &r->f.key[5].id), -1);
    assert_int_equal(at_ledger_seat(l, &r->f.key[2].id), -1);
    assert_true(at_ledger_seat(l, &r->f.key[4].id) >= 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {T(one_steward_becomes_four_with_the_fourth_ready),
                                       T(who_may_stand),
                                       T(a_round_of_four_stewards),
                                       T(each_block_is_signed_by_who_ordered_it),
                                       T(who_leaves_between_the_words_takes_no_part),
                                       T(blocks_are_judged),
                                       T(nobody_can_write_a_block),
                                       T(old_words_are_not_said_again),
                                       T(one_key_one_seat),
                                       T(without_its_holder_a_single_seat_stays_single),
                                       T(a_term_ends_after_its_rounds_and_f_plus_one_reveals),
                                       T(later_confirmed_work_lets_stand),
                                       T(evidence_costs_the_seat),
                                       T(evidence_while_a_draw_is_due)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
