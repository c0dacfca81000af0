/* world_sign_test.c: the world's signatures are as good as real ones: nobody signs for another, the judges see a forged
 * record, and the same happens as with Ed25519. */
#include "sim/world_rig.h"

#include "sim/world_internal.h"

/* Another's id over one's own secret: what a liar can put together. */
static struct at_keypair impostor(const struct at_keypair *liar, const struct at_node_id *id)
{
    struct at_keypair key = *liar;
    key.id = *id;
    return key;
}

static void only_its_owner_signs(void **state)
{
    (void)state;
    struct at_world_options o = small(1);
    struct at_world *w = make_down(&o);
    struct at_keypair other = at_world_node_key(w, 1);
    for (uint32_t i = 0; i < 600; i++) { /* the table grows on the way */
        uint8_t text[4];
        at_store_le32(text, i);
        struct at_span message = at_span(text, sizeof text);
        struct at_keypair key = at_world_stranger_key(w, i), liar = impostor(&other, &key.id), genuine = key;
        struct at_sig sig = at_sign(&key, message), wrong = sig, forged = at_sign(&liar, message);
        genuine.stand_in = NULL;
        struct at_sig ed25519 = at_sign(&genuine, message);
        wrong.b[i % sizeof wrong.b] ^= 1;
        assert_int_equal(at_verify_by(w->verifier, &key.id, message, &sig), AT_OK);
        assert_int_equal(at_verify_by(w->verifier, &key.id, message, &wrong), AT_E_SIGNATURE);
        assert_int_equal(at_verify_by(w->verifier, &key.id, message, &forged), AT_E_SIGNATURE);
        assert_int_equal(at_verify_by(w->verifier, &key.id, message, &ed25519), AT_E_SIGNATURE);
        assert_int_equal(at_verify_by(w->verifier, &other.id, message, &sig), AT_E_SIGNATURE);
        assert_int_equal(at_verify_by(w->verifier, &key.id, at_span(text, 3), &sig), AT_E_SIGNATURE);
        genuine.id.b[i % sizeof genuine.id.b] ^= 1; /* a key that nobody has */
        assert_int_equal(at_verify_by(w->verifier, &genuine.id, message, &sig), AT_E_SIGNATURE);
    }
    at_world_release(w);
}

/* Each record of a finished run in turn as somebody else would have signed it. */
static void judges_see_forged_records(void **state)
{
    (void)state;
    struct at_world_options o = small(2);
    for (int ed25519 = 0; ed25519 < 2; ed25519++) {
        o.real_signatures = ed25519;
        struct at_world *w = make(&o);
        must_finish(w, 120000);
        struct at_keypair stranger = at_world_stranger_key(w, 1);
        for (size_t i = 0; i < w->log.count; i++) {
            struct at_signed_record *rec = &w->log.records[i], kept = *rec;
            struct at_keypair liar = impostor(&stranger, &rec->author);
            struct at_record said;
            assert_int_equal(at_record_decode(at_signed_record_body(rec), NULL, &said), AT_OK);
            assert_int_equal(at_record_sign(&said, &liar, NULL, rec), AT_OK);
            assert_true(at_node_id_eq(&rec->author, &kept.author) && rec->body_bytes == kept.body_bytes);
            assert_false(at_world_check(w));
            assert_non_null(strstr(at_world_violation(w), "the signature does not verify"));
            *rec = kept;
            w->violated = false;
        }
        assert_true(at_world_check(w));
        at_world_release(w);
    }
}

static uint64_t fingerprint(const struct at_world_options *o)
{
    struct at_world_counts counts;
    struct at_world *w = make(o);
    must_finish(w, 400000);
    at_world_counts(w, &counts);
    at_world_release(w);
    return counts.fingerprint;
}

static void as_with_real_ones(void **state)
{
    (void)state;
    struct at_world_options one = small(3), several = small(4);
    several.nodes = (int)(several.min_members = 5);
    several.stewards = 4;
    several.rounds = 4;
    const struct at_world_options all[] = {one, several};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct at_world_options genuine = all[i];
        genuine.real_signatures = true;
        assert_true(fingerprint(&all[i]) == fingerprint(&genuine));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(only_its_owner_signs),
                                       cmocka_unit_test(judges_see_forged_records),
                                       cmocka_unit_test(as_with_real_ones)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
