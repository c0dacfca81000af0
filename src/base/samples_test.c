#include "base/rng.h"
#include "base/samples.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { UNIT = 6, ALL = 60000, WORKERS = 12 };
enum { FRESH, FREED, OUT, USED };

static uint8_t map[ALL]; /* what each sample is; the oracle */

/* The rule, slowly: the lowest whole unit of freed samples, else the first fresh sample. */
static uint64_t naive_take(uint64_t next)
{
    uint64_t run = 0;
    for (uint64_t s = 0; s < next; s++) {
        run = map[s] == FREED ? run + 1 : 0;
        if (run == UNIT) return s + 1 - UNIT;
    }
    return next;
}

/* Random rounds with deaths and partial work: no sample is out twice or used twice, and every take follows the rule. */
static void every_sample_at_most_once(void **state)
{
    struct at_samples s;
    at_samples_init(&s, UNIT);
    memset(map, FRESH, sizeof map);
    uint64_t used = 0;
    for (uint32_t round = 0; round < 400; round++) {
        struct at_range range[WORKERS];
        struct at_philox r = at_philox(11, AT_RNG_TEST, round, 0);
        uint32_t workers = 1 + r.v[0] % WORKERS;
        assert_int_equal(at_samples_reserve(&s, 2 * workers), AT_OK);
        for (uint32_t w = 0; w < workers; w++) {
            uint64_t want = naive_take(s.next);
            range[w] = (struct at_range){at_samples_take(&s), UNIT};
            assert_true(range[w].start == want && want + UNIT <= ALL);
            for (uint64_t i = want; i < want + UNIT; i++) {
                assert_true(map[i] == FRESH || map[i] == FREED);
                map[i] = OUT;
            }
        }
        for (uint32_t w = 0; w < workers; w++) {
            uint32_t x = at_philox(11, AT_RNG_TEST, round, 1 + w).v[0] % 16;
            uint64_t done = x < 8 ? UNIT : x < 12 ? 0 : x % UNIT;
            memset(&map[range[w].start], USED, done);
            memset(&map[range[w].start + done], FREED, UNIT - done);
            used += done;
            at_samples_free(&s, (struct at_range){range[w].start + done, UNIT - done});
        }
    }
    uint64_t freed = 0, listed = 0, used_in_map = 0;
    for (size_t i = 0; i < s.next; i++) {
        freed += map[i] == FREED;
        used_in_map += map[i] == USED;
    }
    for (size_t i = 0; i < s.whole.count; i++) listed += s.whole.r[i].samples;
    for (size_t i = 0; i < s.part.count; i++) listed += s.part.r[i].samples;
    assert_true(freed == listed && used == used_in_map && used + freed == s.next);
    at_samples_release(&s);
}

/* Units of changing size: what was given back whole is given out again before anything fresh, by the new size. */
static void units_of_other_sizes(void **state)
{
    struct at_samples s;
    at_samples_init(&s, 6);
    assert_int_equal(at_samples_reserve(&s, 8), AT_OK);
    for (uint64_t i = 0; i < 4; i++) assert_int_equal(at_samples_take(&s), 6 * i);
    at_samples_free(&s, (struct at_range){2, 4});
    at_samples_free(&s, (struct at_range){9, 3});
    at_samples_free(&s, (struct at_range){18, 6});
    assert_int_equal(at_samples_resize(&s, 3), AT_OK);
    static const uint64_t want[] = {2, 9, 18, 21, 24, 27};
    for (int i = 0; i < 4; i++) assert_int_equal(at_samples_take(&s), want[i]); /* one sample is left over: 5 */
    assert_int_equal(at_samples_take(&s), 24);
    at_samples_free(&s, (struct at_range){3, 2});
    at_samples_free(&s, (struct at_range){9, 3});
    assert_int_equal(at_samples_resize(&s, 4), AT_OK); /* 3, 4, 5 and 9, 10, 11: too short now */
    assert_int_equal(at_samples_take(&s), 27);
    assert_int_equal(at_samples_resize(&s, 1), AT_OK);
    static const uint64_t ones[] = {3, 4, 5, 9, 10, 11, 31};
    for (int i = 0; i < 7; i++) assert_int_equal(at_samples_take(&s), ones[i]);
    at_samples_release(&s);
}

static void the_sequence_ends(void **state)
{
    struct at_samples s;
    at_samples_init(&s, (uint64_t)1 << 61);
    assert_true(at_samples_can_take(&s, 2));
    assert_false(at_samples_can_take(&s, 3));
    assert_true(at_samples_take(&s) == 0 && at_samples_take(&s) == (uint64_t)1 << 61);
    assert_false(at_samples_can_take(&s, 1));
    at_samples_release(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_sample_at_most_once),
                                       cmocka_unit_test(units_of_other_sizes), cmocka_unit_test(the_sequence_ends)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
