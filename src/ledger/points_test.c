#include "base/rng.h"
#include "ledger/points.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { MANY = 40 };

static struct at_node_id ids[MANY];

static uint64_t points_of(const struct at_points_claim *claims, size_t n, uint32_t tag)
{
    for (size_t i = 0; i < n; i++)
        if (claims[i].tag == tag) return claims[i].ret_points;
    fail();
    return 0;
}

/* The definition, slowly: hand out what is left one by one, each time to the best claim not served yet. */
static void naive_split(uint64_t issuance, const uint64_t *flops, size_t n, uint64_t *ret)
{
    at_u128 total = 0;
    bool served[MANY] = {false};
    uint64_t given = 0;
    for (size_t i = 0; i < n; i++) total += flops[i];
    for (size_t i = 0; i < n; i++) given += ret[i] = (uint64_t)((at_u128)issuance * flops[i] / total);
    for (; given < issuance; given++) {
        size_t best = n;
        for (size_t i = 0; i < n; i++) {
            if (served[i]) continue;
            if (best == n) {
                best = i;
                continue;
            }
            at_u128 ri = (at_u128)issuance * flops[i] % total, rb = (at_u128)issuance * flops[best] % total;
            if (ri > rb || (ri == rb && memcmp(ids[i].b, ids[best].b, 32) < 0)) best = i;
        }
        served[best] = true;
        ret[best]++;
    }
}

static void agrees_with_the_definition(void **state)
{
    for (uint32_t trial = 0; trial < 500; trial++) {
        struct at_philox r = at_philox(trial, AT_RNG_TEST, 0, 0);
        size_t n = 1 + r.v[0] % MANY;
        uint64_t issuance = r.v[1] % 4 == 0 ? r.v[2] % 100 : UINT64_C(1000000000) + r.v[2], flops[MANY], want[MANY],
                 sum = 0;
        struct at_points_claim claims[MANY];
        for (uint32_t i = 0; i < n; i++) {
            struct at_philox x = at_philox(trial, AT_RNG_TEST, 1, i);
            /* small numbers make ties, large ones need 128 bits */
            flops[i] = r.v[3] % 2 == 0 ? 1 + x.v[0] % 3 : ((uint64_t)x.v[0] << 31 | x.v[1]) + 1;
            memset(ids[i].b, 0, sizeof ids[i].b);
            at_store_le32(ids[i].b + 28, x.v[2]);
            claims[i] = (struct at_points_claim){.flops = flops[i], .id = &ids[i], .tag = i};
        }
        naive_split(issuance, flops, n, want);
        at_points_split(issuance, claims, n);
        for (uint32_t i = 0; i < n; i++) {
            assert_true(points_of(claims, n, i) == want[i]);
            sum += want[i];
        }
        assert_true(sum == issuance);
    }
}

/* Equal work, three members, 10^9: the odd micro-point goes to the smallest id, wherever it stands. */
static void ties_go_by_id(void **state)
{
    for (uint32_t smallest = 0; smallest < 3; smallest++) {
        struct at_points_claim claims[3];
        for (uint32_t i = 0; i < 3; i++) {
            ids[i] = (struct at_node_id){{(uint8_t)(i == smallest ? 1 : 2 + i)}};
            claims[i] = (struct at_points_claim){.flops = 7, .id = &ids[i], .tag = i};
        }
        at_points_split(1000000000, claims, 3);
        for (uint32_t i = 0; i < 3; i++)
            assert_int_equal(points_of(claims, 3, i), i == smallest ? 333333334 : 333333333);
    }
}

static void nothing_earned_nothing_issued(void **state)
{
    struct at_points_claim claim = {.flops = 0, .id = &ids[0], .ret_points = 5};
    at_points_split(1000, NULL, 0);
    at_points_split(1000, &claim, 1);
    assert_int_equal(claim.ret_points, 0);
    claim.flops = INT64_MAX;
    at_points_split(1000, &claim, 1);
    assert_int_equal(claim.ret_points, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(agrees_with_the_definition), cmocka_unit_test(ties_go_by_id),
                                       cmocka_unit_test(nothing_earned_nothing_issued)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
