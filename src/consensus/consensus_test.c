#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "consensus/consensus.h"
#include "consensus/follower.h"

#include <stdlib.h>
#include <string.h>

struct log { /* an application that refuses records of one author, and remembers the leaves */
    struct at_hash leaf[600];
    size_t count;
    struct at_node_id banned;
};

static at_err_t take(void *user, const struct at_signed_record *record, struct at_hash leaf, struct at_diag *diag)
{
    struct log *log = user;
    assert_true(at_hash_eq(leaf, at_signed_record_leaf(record)));
    if (at_node_id_eq(&record->author, &log->banned)) return at_fail(diag, AT_E_VERIFY, "test", "banned");
    log->leaf[log->count++] = leaf;
    return AT_OK;
}

struct rig {
    struct at_keypair steward, member, banned;
    struct at_hash run;
    struct log log;
    struct at_consensus *c;
};

static struct rig *rig_make(void)
{
    struct rig *r = calloc(1, sizeof *r);
    uint8_t seed[AT_KEY_BYTES] = {1};
    assert_non_null(r);
    assert_int_equal(at_keypair_from_seed(seed, &r->steward), AT_OK);
    seed[0] = 2;
    assert_int_equal(at_keypair_from_seed(seed, &r->member), AT_OK);
    seed[0] = 3;
    assert_int_equal(at_keypair_from_seed(seed, &r->banned), AT_OK);
    r->run = at_sha256("run", 3);
    r->log.banned = r->banned.id;
    r->c = malloc(sizeof *r->c);
    assert_non_null(r->c);
    struct at_consensus_options options = {.key = r->steward, .run = r->run, .take = take, .user = &r->log};
    at_consensus_init(r->c, &options);
    return r;
}

static void rig_release(struct rig *r)
{
    free(r->c);
    free(r);
}

static struct at_signed_record leave(const struct rig *r, const struct at_keypair *key, uint64_t time_ms)
{
    struct at_record rec = {.run = r->run, .time_ms = time_ms, .kind = AT_RECORD_LEAVE};
    struct at_signed_record signed_rec;
    assert_int_equal(at_record_sign(&rec, key, NULL, &signed_rec), AT_OK);
    return signed_rec;
}

static struct at_consensus_update step(struct rig *r, enum at_consensus_event_kind kind,
                                       const struct at_signed_record *record, uint64_t tag)
{
    struct at_consensus_event event = {.kind = kind, .record = record, .tag = tag};
    struct at_consensus_update update;
    at_consensus_step(r->c, &event, &update);
    return update;
}

static void nothing_is_final_before_it_is_durable(void **state)
{
    (void)state;
    struct rig *r = rig_make();
    struct at_signed_record a = leave(r, &r->member, 1), b = leave(r, &r->member, 2);
    assert_false(step(r, AT_CONSENSUS_TICK, NULL, 0).persist);
    assert_false(step(r, AT_CONSENSUS_PERSISTED, NULL, 0).final);
    assert_false(step(r, AT_CONSENSUS_SUBMIT, &a, 0).persist);
    struct at_consensus_update u = step(r, AT_CONSENSUS_TICK, NULL, 0);
    assert_true(u.persist && !u.final);
    assert_int_equal(u.count, 1);
    assert_int_equal(step(r, AT_CONSENSUS_SUBMIT, &b, 0).err, AT_OK);
    assert_false(step(r, AT_CONSENSUS_TICK, NULL, 0).persist); /* one block at a time */
    assert_int_equal(r->log.count, 1);
    u = step(r, AT_CONSENSUS_PERSISTED, NULL, 0);
    assert_true(u.final && !u.persist);
    assert_int_equal(u.from, 0);
    assert_true(at_hash_eq(at_signed_record_leaf(u.records), at_signed_record_leaf(&a)));
    u = step(r, AT_CONSENSUS_TICK, NULL, 0);
    assert_true(u.persist);
    assert_int_equal(u.from, 1);
    assert_true(at_hash_eq(at_signed_record_leaf(u.records), at_signed_record_leaf(&b)));
    rig_release(r);
}

static void the_queue_is_bounded_and_refusals_are_told(void **state)
{
    (void)state;
    struct rig *r = rig_make();
    for (uint64_t i = 0; i < AT_CONSENSUS_QUEUE_MAX; i++) {
        struct at_signed_record rec = leave(r, i % 2 ? &r->banned : &r->member, i);
        assert_int_equal(step(r, AT_CONSENSUS_SUBMIT, &rec, i).err, AT_OK);
    }
    struct at_signed_record more = leave(r, &r->member, 9999);
    assert_int_equal(step(r, AT_CONSENSUS_SUBMIT, &more, 0).err, AT_E_TOO_BIG);
    struct at_consensus_update u = step(r, AT_CONSENSUS_TICK, NULL, 0);
    assert_int_equal(u.count, AT_CONSENSUS_BLOCK_MAX);
    assert_int_equal(u.refused_count, AT_CONSENSUS_BLOCK_MAX - 1);
    for (size_t i = 0; i < u.refused_count; i++) assert_int_equal(u.refused[i].tag, 2 * i + 1);
    size_t final_count = 0;
    do {
        u = step(r, AT_CONSENSUS_PERSISTED, NULL, 0);
        assert_int_equal(u.from, final_count);
        final_count += u.count;
    } while (step(r, AT_CONSENSUS_TICK, NULL, 0).persist);
    assert_int_equal(final_count, AT_CONSENSUS_QUEUE_MAX / 2);
    rig_release(r);
}

/* ---- the follower: everything a steward could show it ---- */
struct shown {
    struct at_signed_record records[8];
    struct at_log_checkpoint checkpoints[8];
};

static void show(struct rig *r, struct shown *s, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct at_signed_record rec = leave(r, &r->member, i + 1);
        assert_int_equal(step(r, AT_CONSENSUS_SUBMIT, &rec, 0).err, AT_OK);
    }
    struct at_consensus_update u = step(r, AT_CONSENSUS_TICK, NULL, 0);
    memcpy(s->records, u.records, count * sizeof *u.records);
    memcpy(s->checkpoints, u.checkpoints, count * sizeof *u.checkpoints);
    assert_true(step(r, AT_CONSENSUS_PERSISTED, NULL, 0).final);
}

static struct at_follower follower(struct rig *r, struct log *log)
{
    memset(log, 0, sizeof *log);
    log->banned = r->banned.id;
    struct at_follower f = {.run = r->run, .take = take, .user = log};
    at_follower_seats(&f, 1, &r->steward.id, 1);
    return f;
}

static at_err_t part(struct at_follower *f, const struct shown *s, size_t from, size_t count, size_t checkpoint_from)
{
    return at_follower_part(f, from, s->records + from, count, s->checkpoints + checkpoint_from,
                            from + count - checkpoint_from, NULL);
}

static void a_follower_takes_parts_in_order(void **state)
{
    (void)state;
    struct rig *r = rig_make();
    struct log log;
    struct shown s;
    show(r, &s, 8);
    struct at_follower f = follower(r, &log);
    assert_int_equal(part(&f, &s, 1, 2, 1), AT_E_DATA); /* a gap */
    assert_int_equal(part(&f, &s, 0, 3, 0), AT_OK);
    assert_int_equal(part(&f, &s, 0, 3, 0), AT_E_DATA); /* again */
    assert_int_equal(part(&f, &s, 3, 5, 7), AT_OK);     /* one checkpoint, at the end */
    assert_int_equal(log.count, 8);
    for (size_t i = 0; i < 8; i++) assert_true(at_hash_eq(log.leaf[i], at_signed_record_leaf(&s.records[i])));
    assert_int_equal(at_follower_head(&f, &s.checkpoints[7], 1, NULL), AT_OK);
    assert_int_equal(at_follower_head(&f, &s.checkpoints[6], 1, NULL), AT_E_DATA);
    f = follower(r, &log);
    assert_int_equal(at_follower_part(&f, 0, s.records, 3, s.checkpoints, 2, NULL), AT_E_DATA); /* none at the end */
    assert_int_equal(at_follower_part(&f, 0, s.records, 3, s.checkpoints, 0, NULL), AT_E_DATA);
    rig_release(r);
}

static void a_follower_sees_every_other_past(void **state)
{
    (void)state;
    struct rig *r = rig_make();
    struct log log;
    struct shown s, t;
    show(r, &s, 4);
    for (int lie = 0; lie < 7; lie++) {
        struct at_follower f = follower(r, &log);
        at_err_t expect = AT_E_SIGNATURE;
        t = s;
        switch (lie) {
        case 0:
            t.records[1].body[3] ^= 1;
            break; /* a byte of a body */
        case 1:
            t.records[2].sig.b[0] ^= 1;
            break;
        case 2:
            t.checkpoints[3].sig.b[0] ^= 1;
            break;
        case 3:
            t.checkpoints[3].steward = r->member.id;
            break;
        case 4: /* two records swapped: each is authentic */
            t.records[0] = s.records[1];
            t.records[1] = s.records[0];
            expect = AT_E_VERIFY;
            break;
        case 5: /* the invite promised something else */
            f.invite_size = 2;
            f.invite_root = s.checkpoints[2].root;
            expect = AT_E_VERIFY;
            break;
        case 6: /* signed by the steward, but for another run */
            t.checkpoints[3] = at_log_checkpoint_sign(&r->steward, at_sha256("x", 1), 4, s.checkpoints[3].root);
            break;
        }
        assert_int_equal(at_follower_part(&f, 0, t.records, 4, t.checkpoints, 4, NULL), expect);
        assert_int_equal(log.count, 0); /* nothing was taken */
        assert_int_equal(f.log.size, 0);
        if (lie != 5) assert_int_equal(part(&f, &s, 0, 4, 0), AT_OK);
    }
    rig_release(r);
}

/* A steward that forgot a record and signed another in its place cannot go on with those who saw the first. */
static void a_follower_sees_a_rewritten_past(void **state)
{
    (void)state;
    struct rig *r = rig_make(), *liar = rig_make();
    struct log log;
    struct shown s, t;
    show(r, &s, 3);
    struct at_signed_record other = leave(liar, &liar->member, 77);
    assert_int_equal(step(liar, AT_CONSENSUS_SUBMIT, &other, 0).err, AT_OK);
    show(liar, &t, 5);
    struct at_follower f = follower(r, &log);
    assert_int_equal(part(&f, &s, 0, 3, 0), AT_OK);
    struct at_diag diag = {0};
    assert_int_equal(at_follower_part(&f, 3, t.records + 3, 2, t.checkpoints + 3, 2, &diag), AT_E_VERIFY);
    assert_non_null(strstr(diag.text, "another past"));
    rig_release(r);
    rig_release(liar);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_final_before_it_is_durable),
        cmocka_unit_test(the_queue_is_bounded_and_refusals_are_told), cmocka_unit_test(a_follower_takes_parts_in_order),
        cmocka_unit_test(a_follower_sees_every_other_past), cmocka_unit_test(a_follower_sees_a_rewritten_past)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
