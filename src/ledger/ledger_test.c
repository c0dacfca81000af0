#include "ledger/log_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct log_fixture fixture;

static int setup(void **state)
{
    fixture_init(&fixture);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    fixture_release(*state);
    return 0;
}

static void joins_give_replica_indices(void **state)
{
    struct log_fixture *f = *state;
    static const int order[] = {3, 0, 5};
    for (int i = 0; i < 3; i++) assert_int_equal(fixture_join(f, order[i]), AT_OK);
    for (int i = 0; i < 3; i++) assert_int_equal(at_ledger_find(&f->ledger, &f->key[order[i]].id), i);
    assert_int_equal(at_ledger_find(&f->ledger, &f->key[1].id), -1);
    assert_int_equal(fixture_join(f, 3), AT_E_VERIFY);
    assert_int_equal(f->ledger.active_count, 3);
}

/* Who left keeps index and points and may come back; yesterday's JOIN or LEAVE cannot be played again. */
static void leave_and_return(void **state)
{
    struct log_fixture *f = *state;
    for (int k = 0; k < 4; k++) assert_int_equal(fixture_join(f, k), AT_OK);
    struct at_signed_record old_join = f->record[2];
    assert_int_equal(fixture_leave(f, 2), AT_OK);
    struct at_signed_record old_leave = f->record[4];
    assert_false(f->ledger.members[2].active);
    assert_int_equal(fixture_leave(f, 2), AT_E_VERIFY);
    assert_int_equal(at_ledger_check(&f->ledger, &old_join, NULL), AT_E_VERIFY);
    assert_int_equal(fixture_join(f, 2), AT_OK);
    assert_int_equal(at_ledger_find(&f->ledger, &f->key[2].id), 2);
    assert_int_equal(f->ledger.member_count, 4);
    assert_int_equal(at_ledger_check(&f->ledger, &old_leave, NULL), AT_E_VERIFY);
}

/* Without deaths participant i of R in round t gets (t*R + i)*H*B: what a single process computes too. */
static void ranges_without_deaths(void **state)
{
    struct log_fixture *f = *state;
    uint64_t unit = at_genesis_unit_samples(&f->genesis);
    for (int k = 0; k < 4; k++) assert_int_equal(fixture_join(f, k), AT_OK);
    for (uint64_t t = 0; t < 5; t++) {
        struct at_record open = fixture_open_record(f, 0xf);
        assert_int_equal(fixture_write(f, 0, &open, NULL), AT_OK);
        for (uint32_t i = 0; i < 4; i++) {
            const struct at_allotment *u = at_ledger_allotment(&f->ledger, i);
            assert_true(u->range.start == (t * 4 + i) * unit && u->range.samples == unit);
            struct at_record r = fixture_receipt_record(f, (int)i, f->genesis.train.steps);
            assert_int_equal(fixture_write(f, (int)i, &r, NULL), AT_OK);
        }
        assert_null(at_ledger_allotment(&f->ledger, 4));
        struct at_record close = fixture_close_record(f, 0xf);
        assert_int_equal(fixture_write(f, 0, &close, NULL), AT_OK);
        struct at_record epoch = fixture_epoch_record(f);
        assert_int_equal(fixture_write(f, 0, &epoch, NULL), AT_OK);
    }
}

static void points_are_pending_then_confirmed(void **state)
{
    struct log_fixture *f = *state;
    uint64_t pending[4];
    for (int k = 0; k < 4; k++) assert_int_equal(fixture_join(f, k), AT_OK);
    struct at_record rec = fixture_open_record(f, 0xf);
    assert_int_equal(fixture_write(f, 0, &rec, NULL), AT_OK);
    for (int k = 0; k < 2; k++) { /* 4 steps and 2: two thirds and one third */
        rec = fixture_receipt_record(f, k, k == 0 ? 4 : 2);
        assert_int_equal(fixture_write(f, k, &rec, NULL), AT_OK);
    }
    at_ledger_pending(&f->ledger, pending);
    assert_int_equal(pending[0], 666666667);
    assert_int_equal(pending[1], 333333333);
    assert_int_equal(pending[2] + pending[3], 0);
    assert_int_equal(f->ledger.confirmed, 0);
    rec = fixture_close_record(f, 0x2); /* only the second one's blob was there */
    assert_int_equal(fixture_write(f, 0, &rec, NULL), AT_OK);
    at_ledger_pending(&f->ledger, pending);
    assert_int_equal(pending[0] + pending[1], 0);
    assert_int_equal(f->ledger.members[0].confirmed, 0);
    assert_int_equal(f->ledger.members[1].confirmed, 1000000000);
    assert_true(at_ledger_share(&f->ledger, 1) == 1.0);
    assert_true(f->ledger.members[1].tokens == 2u * f->genesis.train.batch * f->genesis.model.seq_len);
}

static void nobody_finished(void **state)
{
    struct log_fixture *f = *state;
    for (int k = 0; k < 3; k++) assert_int_equal(fixture_join(f, k), AT_OK);
    struct at_record rec = fixture_open_record(f, 0x7);
    assert_int_equal(fixture_write(f, 0, &rec, NULL), AT_OK);
    rec = fixture_close_record(f, 0);
    assert_int_equal(fixture_write(f, 0, &rec, NULL), AT_OK);
    rec = fixture_epoch_record(f);
    assert_false(at_hash_eq(rec.epoch.state_root, f->ledger.state_root)); /* the root has the round (state.h) */
    assert_int_equal(fixture_write(f, 0, &rec, NULL), AT_OK);
    assert_true(at_hash_eq(rec.epoch.state_root, f->ledger.state_root));
    assert_int_equal(f->ledger.confirmed, 0);
    rec = fixture_open_record(f, 0x1);
    assert_int_equal(fixture_write(f, 0, &rec, NULL), AT_OK);
    assert_true(at_ledger_allotment(&f->ledger, 0)->range.start == 0); /* the same samples again */
}

/* Who takes part shares the held-out windows; the loss is that of the receipts that count, in whatever order they came. */
static void losses_of_shares(void **state)
{
    struct log_fixture *f = *state;
    const uint32_t code[] = {3 * AT_HELDOUT_ONE, 0, 2 * AT_HELDOUT_ONE, 7 * AT_HELDOUT_ONE};
    for (int k = 0; k < 5; k++) assert_int_equal(fixture_join(f, k), AT_OK);
    struct at_record rec = fixture_open_record(f, 0x1b);
    assert_int_equal(fixture_write(f, 0, &rec, NULL), AT_OK);
    for (uint32_t r = 0, u = 0; r < 6; r++) {
        struct at_heldout_share share = at_ledger_heldout_share(&f->ledger, r);
        bool in = r < 5 && r != 2;
        assert_true(share.step == (in ? 4 : 0) && share.first == (in ? u : 0));
        if (in) assert_int_equal(share.most, f->genesis.train.steps * f->genesis.train.batch * 3 / 8);
        u += in;
    }
    for (int i = 3; i >= 0; i--) {
        int r = i + (i > 1);
        rec = fixture_receipt_record(f, r, 4);
        rec.receipt.heldout = code[i];
        assert_int_equal(fixture_write(f, r, &rec, NULL), AT_OK);
    }
    rec = fixture_close_record(f, 0xb); /* the last one does not count, and the second says nothing */
    assert_int_equal(fixture_write(f, 0, &rec, NULL), AT_OK);
    assert_true(at_ledger_heldout(&f->ledger) == 2.5);
    rec = fixture_epoch_record(f);
    assert_int_equal(fixture_write(f, 0, &rec, NULL), AT_OK);
    assert_true(f->ledger.heldout_loss == 2.5);
    struct at_heldout_share after = at_ledger_heldout_share(&f->ledger, 0); /* as replay asks, when the round is over */
    assert_true(after.step == 4 && after.most == f->genesis.train.steps * f->genesis.train.batch * 3 / 8);
    rec = fixture_open_record(f, 0x1);
    assert_int_equal(fixture_write(f, 0, &rec, NULL), AT_OK);
    rec = fixture_close_record(f, 0);
    assert_int_equal(fixture_write(f, 0, &rec, NULL), AT_OK);
    assert_true(at_ledger_heldout(&f->ledger) == 0); /* nobody tells of this one: */
    rec = fixture_epoch_record(f);
    rec.epoch.heldout_loss = 2.5;
    assert_int_equal(fixture_write(f, 0, &rec, NULL), AT_E_VERIFY); /* the one before it is no measurement of it */
    rec = fixture_epoch_record(f);
    assert_int_equal(fixture_write(f, 0, &rec, NULL), AT_OK);
    assert_true(f->ledger.heldout_loss == 2.5 && f->ledger.heldout_rounds == 0 && f->ledger.round == 2);
}

/* ---- refusals: one honest record, one thing changed at a time ---------------------------------------------------- */
static void expect_refused(struct log_fixture *f, int key, const struct at_record *rec, const char *why)
{
    struct at_diag diag = {.err = AT_OK};
    struct at_hash before = at_ledger_root(&f->ledger);
    assert_int_equal(fixture_write(f, key, rec, &diag), AT_E_VERIFY);
    if (strstr(diag.text, why) == NULL) fail_msg("'%s' does not say '%s'", diag.text, why);
    assert_true(at_hash_eq(before, at_ledger_root(&f->ledger)));
}

static void receipts_are_checked_field_by_field(void **state)
{
    struct log_fixture *f = *state;
    for (int k = 0; k < 4; k++) assert_int_equal(fixture_join(f, k), AT_OK);
    struct at_record good = fixture_receipt_record(f, 1, 4), bad;
    expect_refused(f, 1, &good, "no round is open");
    struct at_record open = fixture_open_record(f, 0x7);
    assert_int_equal(fixture_write(f, 0, &open, NULL), AT_OK);
    good = fixture_receipt_record(f, 1, 4);
    expect_refused(f, 7, &good, "stranger");
    expect_refused(f, 2, &good, "not the author's");
    bad = fixture_receipt_record(f, 3, 4);
    expect_refused(f, 3, &bad, "no part");
#define WITH(change, why)                                                                                              \
    bad = good;                                                                                                        \
    bad.receipt.change;                                                                                                \
    expect_refused(f, 1, &bad, why)
    WITH(round = 1, "round 1, but the run is at round 0");
    WITH(state_in.b[0] ^= 1, "another state");
    WITH(start++, "start where they were allotted");
    WITH(start--, "start where they were allotted");
    WITH(steps = 0, "or none");
    WITH(steps = 3, "steps x batch");
    WITH(samples++, "more samples");
    WITH(samples--, "steps x batch");
    WITH(steps = UINT32_MAX, "steps x batch");
    WITH(tokens++, "samples x seq_len");
    WITH(flops++, "FLOPs");
    WITH(flops *= 2, "FLOPs");
    WITH(feedback.b[0] = 1, "leave nothing over");
    WITH(update_bytes = 0, "plausible");
    WITH(update_bytes = at_ledger_update_bytes_max(&f->ledger) + 1, "plausible");
#undef WITH
    bad = good;
    bad.run.b[5] ^= 1;
    expect_refused(f, 1, &bad, "another run");
    assert_int_equal(fixture_write(f, 1, &good, NULL), AT_OK);
    good.time_ms++;
    expect_refused(f, 1, &good, "already in the log");
    bad = fixture_receipt_record(f, 0, 4);
    bad.receipt.update = good.receipt.update;
    bad.receipt.update_bytes = good.receipt.update_bytes + 1;
    expect_refused(f, 0, &bad, "with another size");
    assert_int_equal(fixture_leave(f, 2), AT_OK);
    bad = fixture_receipt_record(f, 2, 4);
    expect_refused(f, 2, &bad, "has left");
}

static void steward_records_are_checked(void **state)
{
    struct log_fixture *f = *state;
    struct at_record rec = fixture_open_record(f, 0x3);
    for (int k = 0; k < 2; k++) assert_int_equal(fixture_join(f, k), AT_OK);
    expect_refused(f, 0, &rec, "too few members");
    assert_int_equal(fixture_join(f, 2), AT_OK);
    expect_refused(f, 1, &rec, "only a steward");
    expect_refused(f, 7, &rec, "stranger");
    rec = fixture_open_record(f, 0xf);
    expect_refused(f, 0, &rec, "not an active member");
    rec = fixture_open_record(f, 0);
    expect_refused(f, 0, &rec, "nobody takes part");
    rec = fixture_open_record(f, 0x7);
    rec.open.round = 1;
    expect_refused(f, 0, &rec, "round 1, but the run is at round 0");
    rec = fixture_close_record(f, 0);
    expect_refused(f, 0, &rec, "no round is open");
    rec = fixture_end_record(f);
    rec.end.rounds = 1;
    expect_refused(f, 0, &rec, "count the rounds");
    fixture_round(f, 0x7, 0x7, 4);
    rec = fixture_open_record(f, 0x7);
    rec.open.state_root.b[0] ^= 1;
    expect_refused(f, 0, &rec, "state root");
    rec = fixture_open_record(f, 0x7);
    assert_int_equal(fixture_write(f, 0, &rec, NULL), AT_OK);
    expect_refused(f, 0, &rec, "a round is open");
    rec = fixture_end_record(f);
    expect_refused(f, 0, &rec, "a round is open");
    rec = fixture_close_record(f, 0x1);
    expect_refused(f, 0, &rec, "without a receipt");
    rec = fixture_close_record(f, 0x80);
    expect_refused(f, 0, &rec, "without a receipt");
    rec = fixture_close_record(f, 0);
    assert_int_equal(fixture_write(f, 0, &rec, NULL), AT_OK);
    rec = fixture_end_record(f);
    expect_refused(f, 0, &rec, "EPOCH is due");
    rec = fixture_epoch_record(f);
    rec.epoch.balances.b[31] ^= 1;
    expect_refused(f, 0, &rec, "balances");
    rec = fixture_epoch_record(f);
    rec.epoch.heldout_loss += 1e-9;
    expect_refused(f, 0, &rec, "held-out loss");
    rec = fixture_epoch_record(f);
    assert_int_equal(fixture_write(f, 0, &rec, NULL), AT_OK);
    rec = fixture_end_record(f);
    assert_int_equal(fixture_write(f, 0, &rec, NULL), AT_OK);
    rec = fixture_record(f, AT_RECORD_JOIN);
    expect_refused(f, 6, &rec, "has ended");
}

static void genesis_bounds_the_rounds(void **state)
{
    struct log_fixture *f = *state;
    at_ledger_release(&f->ledger);
    f->genesis.train.rounds = 2;
    assert_int_equal(at_ledger_init(&f->ledger, &f->genesis, NULL), AT_OK);
    for (int k = 0; k < 3; k++) assert_int_equal(fixture_join(f, k), AT_OK);
    fixture_round(f, 0x7, 0x7, 4);
    fixture_round(f, 0x7, 0x7, 4);
    struct at_record rec = fixture_open_record(f, 0x7);
    expect_refused(f, 0, &rec, "all rounds");
}

/* A run of shorter rounds first: 5 of 2 steps, then of 4. */
static void rounds_are_those_of_the_outer_step(void **state)
{
    struct log_fixture *f = *state;
    at_ledger_release(&f->ledger);
    f->genesis.train.rounds = 10;
    f->genesis.train.steps = 4;
    at_outer_config_default(&f->genesis.outer, AT_OUTER_SPARSE);
    at_outer_config_young(&f->genesis.outer, 0.25);
    assert_int_equal(at_ledger_init(&f->ledger, &f->genesis, NULL), AT_OK);
    for (int k = 0; k < 3; k++) assert_int_equal(fixture_join(f, k), AT_OK);
    uint64_t next = 0, batch = f->genesis.train.batch;
    uint32_t rounds = at_genesis_rounds(&f->genesis);
    assert_int_equal(rounds, 13);
    for (uint32_t t = 0; t < rounds; t++) {
        uint32_t steps = t < 5 ? 2 : t < 12 ? 4 : 2; /* 40 in all */
        struct at_record rec = fixture_open_record(f, 0x3);
        assert_int_equal(fixture_write(f, 0, &rec, NULL), AT_OK);
        for (int r = 0; r < 2; r++) {
            const struct at_allotment *u = at_ledger_allotment(&f->ledger, (uint32_t)r);
            assert_true(u->range.start == next && u->range.samples == steps * batch);
            next += u->range.samples;
            rec = fixture_receipt_record(f, r, steps);
            rec.receipt.feedback = at_sha256(&t, sizeof t);
            assert_int_equal(fixture_write(f, r, &rec, NULL), AT_OK);
            if (r == 0) continue;
            assert_true(at_hash_eq(f->ledger.allotments[r].receipt.feedback, rec.receipt.feedback));
        }
        rec = fixture_close_record(f, 0x3);
        assert_int_equal(fixture_write(f, 0, &rec, NULL), AT_OK);
        assert_true(at_hash_eq(f->ledger.members[1].last, f->ledger.allotments[1].receipt.update));
        rec = fixture_epoch_record(f);
        assert_int_equal(fixture_write(f, 0, &rec, NULL), AT_OK);
    }
    assert_true(at_hash_is_zero(f->ledger.members[2].last));
    struct at_record rec = fixture_open_record(f, 0x3);
    expect_refused(f, 0, &rec, "all rounds");
    rec = fixture_end_record(f);
    assert_int_equal(fixture_write(f, 0, &rec, NULL), AT_OK);
}

static void a_changed_record_is_not_checked_in(void **state)
{
    struct log_fixture *f = *state;
    struct at_record rec = fixture_record(f, AT_RECORD_JOIN);
    struct at_signed_record s = fixture_sign(f, 1, &rec);
    s.sig.b[0] ^= 1;
    assert_int_equal(at_ledger_check(&f->ledger, &s, NULL), AT_E_SIGNATURE);
    s = fixture_sign(f, 1, &rec);
    s.author = f->key[2].id;
    assert_int_equal(at_ledger_check(&f->ledger, &s, NULL), AT_E_SIGNATURE);
}

static void the_table_of_members_is_full_at_some_point(void **state)
{
    struct log_fixture *f = *state;
    struct at_record rec = fixture_record(f, AT_RECORD_JOIN);
    struct at_signed_record s = fixture_sign(f, 1, &rec);
    for (uint32_t i = 0; i < AT_MEMBERS_MAX; i++) {
        at_store_le32(s.author.b + 4, i); /* not real keys: signatures are not this function's business */
        s.author.b[0] = 1;                /* and all in one slot's neighbourhood at first */
        assert_int_equal(at_ledger_apply(&f->ledger, &s, NULL, NULL), AT_OK);
    }
    for (uint32_t i = 0; i < AT_MEMBERS_MAX; i += 97) {
        at_store_le32(s.author.b + 4, i);
        assert_int_equal(at_ledger_find(&f->ledger, &s.author), i);
    }
    at_store_le32(s.author.b + 4, AT_MEMBERS_MAX);
    assert_int_equal(at_ledger_apply(&f->ledger, &s, NULL, NULL), AT_E_VERIFY);
}

/* The same log gives the same fold; conservation holds after every record. */
static void the_fold_is_a_function_of_the_log(void **state)
{
    struct log_fixture *f = *state;
    fixture_story(f);
    struct at_ledger again;
    assert_int_equal(at_ledger_init(&again, &f->genesis, NULL), AT_OK);
    for (uint32_t i = 0; i < f->count; i++) {
        struct at_record rec;
        assert_int_equal(at_ledger_apply(&again, &f->record[i], NULL, &rec), AT_OK);
        uint64_t sum = 0, tokens = 0;
        for (uint32_t m = 0; m < again.member_count; m++) {
            sum += again.members[m].confirmed;
            tokens += again.members[m].tokens;
        }
        assert_true(sum == again.confirmed && tokens == again.tokens);
        assert_true(again.confirmed % f->genesis.issuance == 0);
        assert_true(at_hash_eq(at_ledger_root(&again), f->checkpoint[i].root));
    }
    assert_true(at_hash_eq(at_ledger_balances(&again), at_ledger_balances(&f->ledger)));
    assert_int_equal(again.phase, AT_LEDGER_ENDED);
    assert_int_equal(again.confirmed, 3 * f->genesis.issuance);
    at_ledger_release(&again);
    at_ledger_release(&again);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(joins_give_replica_indices),
        T(leave_and_return),
        T(ranges_without_deaths),
        T(points_are_pending_then_confirmed),
        T(nobody_finished),
        T(losses_of_shares),
        T(receipts_are_checked_field_by_field),
        T(steward_records_are_checked),
        T(genesis_bounds_the_rounds),
        T(rounds_are_those_of_the_outer_step),
        T(a_changed_record_is_not_checked_in),
        T(the_table_of_members_is_full_at_some_point),
        T(the_fold_is_a_function_of_the_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
