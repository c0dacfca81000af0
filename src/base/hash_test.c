#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* FIPS 180-4 examples. */
static void known_answers(void **state)
{
    assert_string_equal(at_hash_hex(at_sha256("", 0)).s,
                        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_string_equal(at_hash_hex(at_sha256(NULL, 0)).s,
                        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_string_equal(at_hash_hex(at_sha256("abc", 3)).s,
                        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    const char two_blocks[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    assert_string_equal(at_hash_hex(at_sha256(two_blocks, 56)).s,
                        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

static void pieces_are_the_whole(void **state)
{
    uint8_t thousand[1000];
    memset(thousand, 'a', sizeof thousand);
    struct at_sha256_ctx ctx;
    at_sha256_init(&ctx);
    for (int i = 0; i < 1000; i++) at_sha256_update(&ctx, thousand, sizeof thousand);
    assert_string_equal(at_hash_hex(at_sha256_final(&ctx)).s,
                        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    at_sha256_release(&ctx); /* safe on a finished object */
    struct at_hash whole = at_sha256(thousand, 1000);
    for (size_t cut = 0; cut <= 1000; cut += 37)
        assert_true(at_hash_eq(whole, at_sha256_2(at_span(thousand, cut), at_span(thousand + cut, 1000 - cut))));
}

static void text_form(void **state)
{
    struct at_hash h = at_sha256("abc", 3), again = {{0}};
    assert_int_equal(at_hash_parse(at_hash_hex(h).s, &again), AT_OK);
    assert_true(at_hash_eq(h, again));
    assert_int_equal(at_hash_parse("ba78", &again), AT_E_DATA);
    assert_true(at_hash_is_zero((struct at_hash){{0}}));
    assert_false(at_hash_is_zero(h));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(known_answers), cmocka_unit_test(pieces_are_the_whole),
                                       cmocka_unit_test(text_form)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
