/* simplex_seeds_test.c: stewards under every fault of simplex_net_test_util.h, from many seeds; then the same with a
 * planted bug, which must be found. One seed again: ATOLL_SEED=<seed> ATOLL_N=<1|4|7>, as a failure prints; more of them:
 * ATOLL_SEEDS=<times as many>. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/sanitized.h"
#include "consensus/simplex_hostile_test_util.h"

/* What happens in a scenario follows from its seed alone. */
static struct net_options scenario(uint64_t seed, uint32_t n)
{
    struct at_philox p = at_philox(seed, AT_RNG_TEST, 5, n), q = at_philox(seed, AT_RNG_TEST, 6, n);
    struct net_options o = {.seed = seed,
                            .n = n,
                            .latency_min_ms = 5,
                            .latency_max_ms = 10 + p.v[0] % 60,
                            .fsync_max_ms = p.v[1] % 15,
                            .skew_ms = p.v[2] % 2 ? 2000 : 0,
                            .loss_permille = p.v[3] % 3 ? p.v[3] % 150 : 0,
                            .duplicate_permille = 50,
                            .spike_permille = q.v[0] % 2 ? 100 : 0,
                            .crashes = q.v[1] % 3 != 0,
                            .partitions = q.v[2] % 2,
                            .faults_ms = 8000,
                            .views_max = q.v[3] % 2 ? 24 : AT_SIMPLEX_VIEWS_MIN,
                            .delta_ms = 100,
                            .delta_max_ms = 3200};
    for (uint32_t k = 0; k < (n - 1) / 3; k++) { /* up to f hostile seats */
        struct at_philox h = at_philox(seed, AT_RNG_TEST, 7, k);
        o.hostile[h.v[0] % n] = (enum hostile)(h.v[1] % HOSTILE_COUNT);
    }
    return o;
}

static bool nobody_hostile(const struct net_options *o)
{
    for (uint32_t i = 0; i < o->n; i++)
        if (o->hostile[i] != HONEST) return false;
    return true;
}

struct sums {
    uint64_t scenarios, blocks, views, crashes, evidence, messages;
};

/* Runs one; true when a judge objected. */
static bool run(const struct net_options *o, struct sums *sums, char ret_violation[256])
{
    struct net *w = net_make(o);
    net_scenario(w);
    if (!w->violated && nobody_hostile(o)) net_judge_idle(w);
    bool violated = w->violated;
    memcpy(ret_violation, w->violation, sizeof w->violation);
    sums->scenarios++;
    sums->blocks += w->chain_count;
    sums->views += w->views;
    sums->crashes += w->crashes;
    sums->evidence += w->evidence;
    sums->messages += w->messages;
    net_free(w);
    return violated;
}

static void seeds(uint32_t n, uint64_t count)
{
    const char *only = getenv("ATOLL_SEED"), *only_n = getenv("ATOLL_N");
    if (only_n != NULL && strtoul(only_n, NULL, 10) != n) return;
    struct sums sums = {0};
    const char *times = getenv("ATOLL_SEEDS");
    if (AT_SANITIZED) count /= 4;
    if (times != NULL) count *= strtoull(times, NULL, 10);
    uint64_t first = only != NULL ? strtoull(only, NULL, 10) : 1;
    for (uint64_t seed = first; seed < first + (only != NULL ? 1 : count); seed++) {
        struct net_options o = scenario(seed, n);
        char violation[256];
        if (run(&o, &sums, violation))
            fail_msg("%s\n  again: ATOLL_SEED=%llu ATOLL_N=%u simplex_seeds_test", violation, (unsigned long long)seed,
                     n);
    }
    print_message(
        "n = %u: %llu scenarios, %llu final blocks in %llu views, %llu crashes, %llu pieces of evidence, %llu "
        "messages\n",
        n, (unsigned long long)sums.scenarios, (unsigned long long)sums.blocks, (unsigned long long)sums.views,
        (unsigned long long)sums.crashes, (unsigned long long)sums.evidence, (unsigned long long)sums.messages);
    if (only != NULL) return;
    assert_true(sums.blocks > 5 * count && sums.crashes > count); /* the scenarios did happen */
    if (n > 1) assert_true(sums.evidence > 0);
}

static void one_steward(void **state)
{
    (void)state;
    seeds(1, 80);
}
static void four_stewards(void **state)
{
    (void)state;
    seeds(4, 160);
}
static void seven_stewards(void **state)
{
    (void)state;
    seeds(7, 50);
}

/* The judge that is meant to find it must be among those that do. */
static void canary(unsigned which, uint32_t n, uint64_t at_most, const char *what, const char *judge)
{
    struct sums sums = {0};
    for (uint64_t seed = 1; seed <= at_most; seed++) {
        struct net_options o = scenario(seed, n);
        o.canary = which;
        if (which == AT_SIMPLEX_CANARY_EARLY_SEND) { /* many crashes of slow disks */
            o.crashes = true;
            o.fsync_max_ms = 200;
            memset(o.hostile, 0, sizeof o.hostile);
        }
        char violation[256];
        if (!run(&o, &sums, violation) || strstr(violation, judge) == NULL) continue;
        print_message("%s, seed %llu: %s\n", what, (unsigned long long)seed, violation);
        return;
    }
    fail_msg("planted and not found: %s", what);
}

static void planted_bugs_are_found(void **state)
{
    (void)state;
    if (getenv("ATOLL_SEED") != NULL) return;
    canary(AT_SIMPLEX_CANARY_NO_DUMMIES, 4, 200, "a parent without the dummies between", "two final blocks at height");
    canary(AT_SIMPLEX_CANARY_TIMER_FORBIDS, 4, 200, "no dummy vote after a block vote", "no progress");
    canary(AT_SIMPLEX_CANARY_EARLY_SEND, 4, 600, "sent before it is durable", "exclude each other");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_steward), cmocka_unit_test(four_stewards),
                                       cmocka_unit_test(seven_stewards), cmocka_unit_test(planted_bugs_are_found)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
