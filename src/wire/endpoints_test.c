/* endpoints_test.c: what members sign about themselves: where they are (endpoints) and that they are (presence). */
#include "wire/endpoints.h"
#include "wire/presence.h"
#include "wire/wire_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct at_keypair key_of(uint8_t x)
{
    struct at_keypair key;
    struct at_hash seed = fixture_hash(x);
    assert_int_equal(at_keypair_from_seed(seed.b, &key), AT_OK);
    return key;
}

static struct at_endpoint v4(uint8_t a, uint8_t b, uint8_t c, uint8_t d, uint16_t port)
{
    return (struct at_endpoint){.ip = {a, b, c, d}, .ip_bytes = 4, .port = port};
}

static struct at_endpoint v6(uint8_t first, uint8_t second, uint8_t last, uint16_t port)
{
    return (struct at_endpoint){.ip = {first, second, [15] = last}, .ip_bytes = 16, .port = port};
}

/* Every bit that is signed matters, and so does the run. */
static void a_signature_covers_all(void **state)
{
    struct at_keypair key = key_of(1);
    struct at_endpoint list[2] = {v4(192, 168, 1, 2, 7700),
                                  {.ip = {0x20, 1, 0xd, 0xb8, [15] = 1}, .ip_bytes = 16, .port = 80}};
    struct at_endpoints e = at_endpoints_sign(&key, fixture_hash(9), 5, list, 2), bad = e;
    assert_int_equal(at_endpoints_verify(&e, fixture_hash(9), NULL), AT_OK);
    assert_int_equal(at_endpoints_verify(&e, fixture_hash(8), NULL), AT_E_SIGNATURE);
#define CHANGED(what)                                                                                                  \
    bad = e;                                                                                                           \
    what;                                                                                                              \
    assert_int_equal(at_endpoints_verify(&bad, fixture_hash(9), NULL), AT_E_SIGNATURE)
    CHANGED(bad.counter++);
    CHANGED(bad.count--);
    CHANGED(bad.list[0].ip[3] ^= 1);
    CHANGED(bad.list[1].port ^= 0x100);
    CHANGED(bad.node = key_of(2).id);
    CHANGED(bad.sig.b[0] ^= 1);
#undef CHANGED
}

static void a_presence_is_signed_too(void **state)
{
    struct at_keypair key = key_of(1);
    struct at_presence p = at_presence_sign(&key, fixture_hash(9), 5, 3, fixture_hash(4)), bad = p;
    assert_int_equal(at_presence_verify(&p, fixture_hash(9), NULL), AT_OK);
    assert_int_equal(at_presence_verify(&p, fixture_hash(8), NULL), AT_E_SIGNATURE);
    bad.round++;
    assert_int_equal(at_presence_verify(&bad, fixture_hash(9), NULL), AT_E_SIGNATURE);
    bad = p;
    bad.counter++;
    assert_int_equal(at_presence_verify(&bad, fixture_hash(9), NULL), AT_E_SIGNATURE);
    bad = p;
    bad.state_root.b[31] ^= 1;
    assert_int_equal(at_presence_verify(&bad, fixture_hash(9), NULL), AT_E_SIGNATURE);
    bad = p;
    bad.member = key_of(2).id;
    assert_int_equal(at_presence_verify(&bad, fixture_hash(9), NULL), AT_E_SIGNATURE);
}

static void nobody_is_dialled_where_nobody_can_be(void **state)
{
    struct at_endpoint good[] = {v4(127, 0, 0, 1, 1), v4(10, 0, 0, 1, 65535), v6(0xfd, 0, 1, 7)};
    struct at_endpoint bad[] = {v4(10, 0, 0, 1, 0), v4(0, 0, 0, 0, 1), v4(224, 0, 0, 1, 1),  v4(255, 255, 255, 255, 1),
                                v6(0, 0, 0, 1),     v6(0xff, 2, 1, 1), v6(0xfe, 0x80, 1, 7), v4(169, 254, 1, 1, 7)};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) assert_true(at_endpoint_ok(&good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_false(at_endpoint_ok(&bad[i]));
    assert_true(at_endpoint_eq(&good[0], &good[0]));
    assert_false(at_endpoint_eq(&good[0], &good[1]));
}

/* One packed form for each, IPv4 and IPv6, and back. */
static void packed_forms_come_back(void **state)
{
    struct at_endpoint list[] = {v4(192, 168, 1, 2, 7700), v6(0x20, 1, 9, 0xfedc)};
    uint8_t bytes[AT_ENDPOINT_BYTES];
    for (size_t i = 0; i < 2; i++) {
        at_endpoint_pack(&list[i], bytes);
        struct at_endpoint back = at_endpoint_unpack(bytes);
        assert_true(at_endpoint_eq(&back, &list[i]));
    }
    at_endpoint_pack(&list[0], bytes);
    assert_memory_equal(bytes, "\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\xa8\x01\x02\x14\x1e", sizeof bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_signature_covers_all), cmocka_unit_test(a_presence_is_signed_too),
        cmocka_unit_test(nobody_is_dialled_where_nobody_can_be), cmocka_unit_test(packed_forms_come_back)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
