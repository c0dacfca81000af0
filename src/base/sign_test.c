#include "base/sign.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* RFC 8032 section 7.1, tests 1 to 3. */
static const struct {
    const char *seed, *id, *message, *sig;
} rfc8032[] = {
    {"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
     "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
     "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
     "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"},
    {"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
     "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
     "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
     "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"},
    {"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
     "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
     "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
     "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"},
};

static void known_answers(void **state)
{
    for (size_t i = 0; i < sizeof rfc8032 / sizeof *rfc8032; i++) {
        uint8_t seed[32], message[2];
        char text[129];
        size_t n = strlen(rfc8032[i].message) / 2;
        struct at_keypair key;
        assert_int_equal(at_hex_decode(rfc8032[i].seed, 64, seed, 32), AT_OK);
        assert_int_equal(at_hex_decode(rfc8032[i].message, 2 * n, message, n), AT_OK);
        assert_int_equal(at_keypair_from_seed(seed, &key), AT_OK);
        assert_string_equal(at_node_id_hex(&key.id).s, rfc8032[i].id);
        struct at_sig sig = at_sign(&key, at_span(message, n));
        at_hex_encode(sig.b, sizeof sig.b, text);
        assert_string_equal(text, rfc8032[i].sig);
        assert_int_equal(at_verify(&key.id, at_span(message, n), &sig), AT_OK);
    }
}

/* Any changed bit of the message, the signature or the key is noticed. */
static void changes_are_noticed(void **state)
{
    struct at_keypair key;
    assert_int_equal(at_keypair_generate(&key), AT_OK);
    uint8_t message[5] = "atoll";
    struct at_sig sig = at_sign(&key, at_span(message, 5));
    for (size_t bit = 0; bit < 8 * sizeof sig.b; bit++) {
        struct at_sig bad = sig;
        bad.b[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(at_verify(&key.id, at_span(message, 5), &bad), AT_E_SIGNATURE);
    }
    for (size_t bit = 0; bit < 8 * sizeof key.id.b; bit++) {
        struct at_node_id bad = key.id;
        bad.b[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(at_verify(&bad, at_span(message, 5), &sig), AT_E_SIGNATURE);
    }
    assert_int_equal(at_verify(&key.id, at_span(message, 4), &sig), AT_E_SIGNATURE);
    message[0] ^= 1;
    assert_int_equal(at_verify(&key.id, at_span(message, 5), &sig), AT_E_SIGNATURE);
}

static void ids_are_ordered_bytewise(void **state)
{
    struct at_node_id a = {{1, 2}}, b = {{1, 3}};
    assert_true(at_node_id_cmp(&a, &b) < 0 && at_node_id_cmp(&b, &a) > 0 && at_node_id_cmp(&a, &a) == 0);
    b.b[1] = 2;
    b.b[31] = 0xff;
    assert_true(at_node_id_cmp(&a, &b) < 0);
    assert_false(at_node_id_eq(&a, &b));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(known_answers), cmocka_unit_test(changes_are_noticed),
                                       cmocka_unit_test(ids_are_ordered_bytewise)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
