#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "wire/beacon.h"

#include <string.h>

static struct at_beacon_chain chain;

static void links_come_from_the_end_and_fit_in_order(void **state)
{
    (void)state;
    const uint32_t length = 3 * AT_BEACON_STRIDE + 7;
    struct at_hash secret = at_sha256("secret", 6), reveal, x;
    at_beacon_chain_init(&chain, secret, length);
    struct at_beacon b = {0};
    b.head[4] = chain.commitment;
    for (uint32_t used = 0; used < length; used++) {
        assert_int_equal(b.used[4], used);
        assert_true(at_beacon_chain_next(&chain, used, &reveal));
        if (used + 2 < length) { /* a link too far does not fit */
            assert_true(at_beacon_chain_next(&chain, used + 1, &x));
            assert_false(at_beacon_fits(&b, 4, x));
        }
        assert_true(at_beacon_fits(&b, 4, reveal));
        assert_false(at_beacon_fits(&b, 3, reveal));
        struct at_hash seed = b.seed;
        at_beacon_take(&b, 4, reveal);
        assert_false(at_hash_eq(seed, b.seed));
        assert_false(at_beacon_fits(&b, 4, reveal)); /* not twice */
    }
    assert_true(at_hash_eq(reveal, secret));
    assert_false(at_beacon_chain_next(&chain, length, &reveal)); /* used up */
}

static void the_seed_depends_on_every_reveal_and_leaders_are_counted(void **state)
{
    (void)state;
    struct at_beacon a = {0}, cut;
    for (uint32_t i = 0; i < 7; i++) a.head[i] = at_sha256(&i, sizeof i);
    cut = a;
    struct at_beacon b = a;
    at_beacon_take(&a, 1, at_sha256("x", 1));
    at_beacon_take(&a, 2, at_sha256("y", 1));
    at_beacon_take(&b, 2, at_sha256("y", 1));
    at_beacon_take(&b, 1, at_sha256("x", 1));
    assert_false(at_hash_eq(a.seed, b.seed));
    assert_int_equal(at_beacon_leaders_since(&a, &cut), 2);
    at_beacon_take(&a, 2, at_sha256("z", 1));
    assert_int_equal(at_beacon_leaders_since(&a, &cut), 2); /* the same leader twice is one */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(links_come_from_the_end_and_fit_in_order),
                                       cmocka_unit_test(the_seed_depends_on_every_reveal_and_leaders_are_counted)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
