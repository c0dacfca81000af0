#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "consensus/cosign.h"

#include <string.h>

struct rig {
    struct at_keypair keys[8];
    struct at_node_id seats[7];
    struct at_hash run;
    struct at_cosign c;
};

static struct rig *rig_make(void)
{
    static struct rig r;
    memset(&r, 0, sizeof r);
    for (uint8_t i = 0; i < 8; i++) {
        uint8_t seed[AT_KEY_BYTES] = {(uint8_t)(i + 1)};
        assert_int_equal(at_keypair_from_seed(seed, &r.keys[i]), AT_OK);
        if (i < 7) r.seats[i] = r.keys[i].id;
    }
    r.run = at_sha256("run", 3);
    at_cosign_init(&r.c, r.run, r.seats, 7, 0, NULL);
    return &r;
}

static struct at_hash root(uint64_t size, uint8_t which)
{
    uint8_t text[9] = {which};
    at_store_le64(text + 1, size);
    return at_sha256(text, sizeof text);
}

static at_err_t take(struct rig *r, uint32_t seat, uint64_t size, uint8_t which, struct at_cosign_update *u)
{
    struct at_log_checkpoint c = at_log_checkpoint_sign(&r->keys[seat], r->run, size, root(size, which));
    memset(u, 0, sizeof *u);
    return at_cosign_take(&r->c, &c, u);
}

static void two_thirds_and_one_make_a_checkpoint(void **state)
{
    (void)state;
    struct rig *r = rig_make();
    struct at_cosign_update u;
    for (uint32_t seat = 0; seat < 4; seat++) {
        assert_int_equal(take(r, seat, 10, 0, &u), AT_OK);
        assert_true(u.fresh && u.signers == 0 && !u.has_evidence);
    }
    assert_int_equal(take(r, 3, 10, 0, &u), AT_OK); /* again */
    assert_true(!u.fresh && u.signers == 0);
    assert_int_equal(take(r, 6, 10, 1, &u), AT_OK); /* another root does not count */
    assert_int_equal(u.signers, 0);
    assert_int_equal(take(r, 5, 10, 0, &u), AT_OK);
    assert_int_equal(u.signers, 0x2f);
    for (uint32_t i = 0; i < 7; i++) {
        if ((u.signers >> i & 1) == 0) continue;
        assert_int_equal(at_log_checkpoint_verify(&u.by[i], r->run), AT_OK);
        assert_true(u.by[i].size == 10 && at_hash_eq(u.by[i].root, root(10, 0)));
    }
    assert_int_equal(take(r, 4, 10, 0, &u), AT_OK); /* once */
    assert_true(u.fresh && u.signers == 0);
}

static void two_roots_by_one_key_are_evidence_once(void **state)
{
    (void)state;
    struct rig *r = rig_make();
    struct at_cosign_update u;
    assert_int_equal(take(r, 2, 10, 0, &u), AT_OK);
    assert_int_equal(take(r, 2, 11, 1, &u), AT_OK);
    assert_false(u.has_evidence); /* another size */
    assert_int_equal(take(r, 2, 10, 1, &u), AT_OK);
    assert_true(u.has_evidence);
    assert_true(at_node_id_eq(&u.evidence.key, &r->seats[2]));
    assert_int_equal(at_evidence_verify(&u.evidence, NULL), AT_OK);
    uint8_t bytes[AT_EVIDENCE_BYTES_MAX];
    size_t n;
    assert_int_equal(at_evidence_encode(&u.evidence, bytes, &n), AT_OK);
    assert_int_equal(take(r, 2, 10, 2, &u), AT_OK);
    assert_false(u.has_evidence);
}

static void strangers_and_forgeries_are_refused(void **state)
{
    (void)state;
    struct rig *r = rig_make();
    struct at_cosign_update u;
    assert_int_equal(take(r, 7, 10, 0, &u), AT_E_PEER);
    assert_int_equal(take(r, 0, 0, 0, &u), AT_E_PEER);
    struct at_log_checkpoint c = at_log_checkpoint_sign(&r->keys[0], r->run, 10, root(10, 0));
    c.size = 11;
    assert_int_equal(at_cosign_take(&r->c, &c, &u), AT_E_SIGNATURE);
}

static void no_seat_pushes_out_what_others_signed(void **state)
{
    (void)state;
    struct rig *r = rig_make();
    struct at_cosign_update u;
    for (uint32_t seat = 0; seat < 4; seat++) assert_int_equal(take(r, seat, 10, 0, &u), AT_OK);
    for (uint64_t size = 11; size < 11 + 3 * AT_COSIGN_KEPT; size++) assert_int_equal(take(r, 6, size, 9, &u), AT_OK);
    assert_int_equal(take(r, 6, 10, 9, &u), AT_E_PEER); /* it has pushed out its own */
    assert_int_equal(take(r, 4, 10, 0, &u), AT_OK);
    assert_int_equal(u.signers, 0x1f);
}

/* A later checkpoint says all that an earlier one does. */
static void checkpoints_only_grow(void **state)
{
    (void)state;
    struct rig *r = rig_make();
    struct at_cosign_update u;
    for (uint32_t seat = 0; seat < 5; seat++) assert_int_equal(take(r, seat, 20, 0, &u), AT_OK);
    assert_int_equal(u.signers, 0x1f);
    for (uint32_t seat = 0; seat < 5; seat++) {
        assert_int_equal(take(r, seat, 10, 0, &u), AT_OK);
        assert_int_equal(u.signers, 0);
    }
}

static void a_checkpoint_is_not_made_again_after_a_restart(void **state)
{
    (void)state;
    struct rig *r = rig_make();
    struct at_cosign_update u;
    at_cosign_init(&r->c, r->run, r->seats, 7, 20, NULL);
    for (uint32_t seat = 0; seat < 5; seat++) {
        assert_int_equal(take(r, seat, 20, 0, &u), AT_OK);
        assert_int_equal(u.signers, 0);
    }
    for (uint32_t seat = 0; seat < 5; seat++) assert_int_equal(take(r, seat, 21, 0, &u), AT_OK);
    assert_int_equal(u.signers, 0x1f);
}

static void one_steward_is_its_own_quorum(void **state)
{
    (void)state;
    struct rig *r = rig_make();
    struct at_cosign_update u;
    at_cosign_init(&r->c, r->run, r->seats, 1, 0, NULL);
    assert_int_equal(take(r, 0, 5, 0, &u), AT_OK);
    assert_int_equal(u.signers, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(two_thirds_and_one_make_a_checkpoint),
                                       cmocka_unit_test(two_roots_by_one_key_are_evidence_once),
                                       cmocka_unit_test(strangers_and_forgeries_are_refused),
                                       cmocka_unit_test(no_seat_pushes_out_what_others_signed),
                                       cmocka_unit_test(checkpoints_only_grow),
                                       cmocka_unit_test(a_checkpoint_is_not_made_again_after_a_restart),
                                       cmocka_unit_test(one_steward_is_its_own_quorum)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
