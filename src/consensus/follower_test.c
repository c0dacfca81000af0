#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "consensus/follower.h"

#include <stdlib.h>
#include <string.h>

/* A log of several stewards as a server shows it: each block is one unsigned record and one of a member. */
enum { SEATS = 7, BLOCKS = 4, RECORDS = 2 * BLOCKS };

struct rig {
    struct at_keypair keys[SEATS + 1], member; /* ascending by id; the last holds no seat */
    struct at_node_id ids[SEATS + 1];
    struct at_hash run;
    struct at_signed_record records[RECORDS];
    struct at_hash root[RECORDS + 1]; /* [i]: of the first i records */
    struct at_follower f;
    size_t taken;
    size_t hand_over;           /* the fold begins the next term with this record; 0: never */
    struct at_node_id later[4]; /* whose seats these are */
};

static at_err_t take(void *user, const struct at_signed_record *record, struct at_hash leaf, struct at_diag *diag)
{
    struct rig *r = user;
    (void)diag;
    assert_true(at_hash_eq(leaf, at_signed_record_leaf(record)));
    assert_memory_equal(record, &r->records[r->taken], sizeof *record);
    if (r->hand_over != 0 && r->taken == r->hand_over) at_follower_seats(&r->f, 3, r->later, 4);
    r->taken++;
    return AT_OK;
}

static int by_id(const void *a, const void *b)
{
    return at_node_id_cmp(&((const struct at_keypair *)a)->id, &((const struct at_keypair *)b)->id);
}

static void follow(struct rig *r, uint32_t seats)
{
    r->f = (struct at_follower){.run = r->run, .take = take, .user = r};
    at_follower_seats(&r->f, 2, r->ids, seats);
    r->taken = 0;
}

static int setup(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    struct at_merkle log;
    assert_non_null(r);
    memset(&log, 0, sizeof log);
    for (int i = 0; i <= SEATS; i++) {
        uint8_t seed[AT_KEY_BYTES] = {(uint8_t)(i + 1)};
        assert_int_equal(at_keypair_from_seed(seed, &r->keys[i]), AT_OK);
    }
    qsort(r->keys, SEATS + 1, sizeof *r->keys, by_id);
    for (int i = 0; i <= SEATS; i++) r->ids[i] = r->keys[i].id;
    uint8_t seed[AT_KEY_BYTES] = {99};
    assert_int_equal(at_keypair_from_seed(seed, &r->member), AT_OK);
    r->run = at_sha256("run", 3);
    for (size_t i = 0; i < RECORDS; i++) {
        struct at_record rec;
        memset(&rec, 0, sizeof rec);
        rec.run = r->run;
        rec.time_ms = 1 + i;
        rec.kind = i % 2 == 0 ? AT_RECORD_BLOCK : AT_RECORD_LEAVE;
        if (i % 2 == 0) {
            rec.head = (struct at_head){.term = 2, .view = 1 + i};
            assert_int_equal(at_record_encode(&rec, NULL, r->records[i].body, &r->records[i].body_bytes), AT_OK);
        } else {
            assert_int_equal(at_record_sign(&rec, &r->member, NULL, &r->records[i]), AT_OK);
        }
        at_merkle_append(&log, at_signed_record_leaf(&r->records[i]));
        r->root[i + 1] = at_merkle_root(&log);
    }
    follow(r, 4);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    free(*state);
    return 0;
}

/* Cosignatures of the first `size` records by the keys in `who` (bit i: the i-th), ascending, after those in `ret`. */
static size_t cosign(const struct rig *r, size_t size, unsigned who, struct at_log_checkpoint *ret)
{
    size_t n = 0;
    for (unsigned i = 0; i <= SEATS; i++)
        if (who >> i & 1) ret[n++] = at_log_checkpoint_sign(&r->keys[i], r->run, size, r->root[size]);
    return n;
}

/* The records up to `size` under cosignatures of `who`. */
static at_err_t part(struct rig *r, size_t size, unsigned who)
{
    struct at_log_checkpoint c[SEATS + 1];
    size_t from = (size_t)r->f.log.size, n = cosign(r, size, who, c);
    return at_follower_part(&r->f, from, r->records + from, size - from, c, n, NULL);
}

static void a_quorum_of_the_seats_vouches(void **state)
{
    struct rig *r = *state;
    assert_int_equal(part(r, 4, 0x0), AT_E_DATA);
    assert_int_equal(part(r, 4, 0x5), AT_E_SIGNATURE);
    assert_int_equal(part(r, 4, 0x93), AT_E_SIGNATURE); /* a third, who holds no seat */
    assert_int_equal(r->taken, 0);
    assert_int_equal(part(r, 4, 0xd), AT_OK);
    assert_int_equal(part(r, RECORDS, 0xf), AT_OK);
    assert_int_equal(r->taken, RECORDS);
    follow(r, 7);
    assert_int_equal(part(r, 4, 0x0f), AT_E_SIGNATURE);
    assert_int_equal(part(r, 4, 0x4f), AT_OK);
    follow(r, 1); /* one alone: what no author has signed may not be there */
    assert_int_equal(part(r, 1, 0x1), AT_E_SIGNATURE);
}

static void a_cosignature_counts_once(void **state)
{
    struct rig *r = *state;
    struct at_log_checkpoint c[4];
    assert_int_equal(cosign(r, 2, 0x3, c), 2);
    c[2] = c[1];
    assert_int_equal(at_follower_part(&r->f, 0, r->records, 2, c, 3, NULL), AT_E_DATA);
    assert_int_equal(cosign(r, 2, 0x7, c), 3);
    c[3] = c[2];
    c[2] = c[1];
    c[1] = c[3]; /* not ascending */
    assert_int_equal(at_follower_part(&r->f, 0, r->records, 2, c, 3, NULL), AT_E_DATA);
    assert_int_equal(cosign(r, 2, 0xf, c), 4);
    c[3].sig.b[5] ^= 1; /* three would do, but whoever passes on a forgery lies */
    assert_int_equal(at_follower_part(&r->f, 0, r->records, 2, c, 4, NULL), AT_E_SIGNATURE);
    assert_int_equal(cosign(r, 2, 0x7, c), 3);
    c[2] = at_log_checkpoint_sign(&r->keys[2], r->run, 2, r->root[3]);
    assert_int_equal(at_follower_part(&r->f, 0, r->records, 2, c, 3, NULL), AT_E_VERIFY);
    assert_int_equal(r->taken, 0);
    assert_int_equal(part(r, 2, 0x7), AT_OK);
}

static void every_size_in_a_part_has_its_quorum(void **state)
{
    struct rig *r = *state;
    struct at_log_checkpoint c[8];
    size_t n = cosign(r, 2, 0x3, c);
    n += cosign(r, 4, 0x7, c + n);
    assert_int_equal(at_follower_part(&r->f, 0, r->records, 4, c, n, NULL), AT_E_SIGNATURE);
    n = cosign(r, 2, 0xe, c);
    n += cosign(r, 4, 0x7, c + n);
    assert_int_equal(at_follower_part(&r->f, 0, r->records, 4, c, n - 3, NULL), AT_E_DATA); /* none at the end */
    assert_int_equal(at_follower_part(&r->f, 0, r->records, 4, c, n, NULL), AT_OK);
    assert_int_equal(at_follower_head(&r->f, c + 3, 3, NULL), AT_OK);
    assert_int_equal(at_follower_head(&r->f, c + 3, 2, NULL), AT_E_SIGNATURE);
    assert_int_equal(at_follower_head(&r->f, c, 3, NULL), AT_E_DATA);
}

static void only_a_block_may_have_no_author(void **state)
{
    struct rig *r = *state;
    struct at_log_checkpoint c[4];
    struct at_signed_record kept = r->records[1];
    size_t n = cosign(r, 2, 0xf, c);
    memset(&r->records[1].sig, 0, sizeof r->records[1].sig);
    assert_int_equal(at_follower_part(&r->f, 0, r->records, 2, c, n, NULL), AT_E_SIGNATURE);
    r->records[1] = kept;
    r->records[0].sig.b[0] = 1;
    assert_int_equal(at_follower_part(&r->f, 0, r->records, 2, c, n, NULL), AT_E_SIGNATURE);
}

/* The seats' term ends with the block that record 2 begins. */
static void old_seats_order_nothing_after_the_hand_over(void **state)
{
    struct rig *r = *state;
    r->hand_over = 2;
    for (int i = 0; i < 4; i++) r->later[i] = r->ids[i + 3]; /* all but one are new */
    assert_int_equal(part(r, 4, 0x7), AT_OK);                /* the rest of that block is theirs */
    assert_int_equal(part(r, 6, 0x7), AT_E_SIGNATURE);
    assert_int_equal(part(r, 6, 0x38), AT_OK);
    follow(r, 4);
    assert_int_equal(part(r, 6, 0x7), AT_E_VERIFY); /* beyond it in one part */
    assert_true(r->f.broken);
    assert_int_equal(r->taken, 4);
    follow(r, 4);
    for (int i = 0; i < 4; i++) r->later[i] = r->ids[i]; /* nobody else stood: the same keys go on */
    assert_int_equal(part(r, 6, 0x7), AT_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_quorum_of_the_seats_vouches, setup, teardown),
        cmocka_unit_test_setup_teardown(a_cosignature_counts_once, setup, teardown),
        cmocka_unit_test_setup_teardown(every_size_in_a_part_has_its_quorum, setup, teardown),
        cmocka_unit_test_setup_teardown(only_a_block_may_have_no_author, setup, teardown),
        cmocka_unit_test_setup_teardown(old_seats_order_nothing_after_the_hand_over, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
