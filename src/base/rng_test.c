#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* Known answers of Philox4x32-10 published with the paper (Random123, kat_vectors). */
static void known_answers(void **state)
{
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } kat[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof kat / sizeof *kat; i++) {
        const uint32_t *c = kat[i].counter, *k = kat[i].key;
        struct at_philox r = at_philox((uint64_t)k[1] << 32 | k[0], c[3], c[2], (uint64_t)c[1] << 32 | c[0]);
        assert_memory_equal(r.v, kat[i].want, sizeof r.v);
    }
}

static void unit_interval(void **state)
{
    assert_true(at_rng_unit(0, 0) == 0.0);
    assert_true(at_rng_unit(0, 2047) == 0.0); /* the lowest 11 bits do not count */
    assert_true(at_rng_unit(0, 2048) == 0x1p-53);
    assert_true(at_rng_unit(0x80000000u, 0) == 0.5);
    assert_true(at_rng_unit(0xffffffffu, 0xffffffffu) == 1.0 - 0x1p-53);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(known_answers), cmocka_unit_test(unit_interval)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
