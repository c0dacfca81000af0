/* sim_seeds_test.c: many seeds with all faults and some Byzantine nodes. ATOLL_SIM_SEED and ATOLL_SIM_SEEDS: the first
 * seed and how many; ATOLL_SIM_NODES: of each run. `make test` runs 500 of 32 nodes in the gcc build, and a few small ones
 * in every build; `make test-long` 500 others of 32. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "os/sys.h"
#include "sim/sim.h"

#include <stdio.h>
#include <stdlib.h>

static uint64_t from_env(const char *name, uint64_t fallback)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : fallback;
}

/* True: it went well. Else says how to see it again. */
static bool one_seed(uint64_t seed, int nodes, int nats)
{
    struct at_sim_options o = {.seed = seed,
                               .nodes = nodes,
                               .byzantine = nodes > 4 ? (int)(seed % (uint64_t)(nodes / 4 + 1)) : 0,
                               .nats = nats,
                               .duration_ms = 450000,
                               .round_ms = 30000,
                               .update_bytes = 100000,
                               .faults = (1u << AT_SIM_FAULT_COUNT) - 1,
                               .faults_per_round = 0.1 * (double)(1 + seed % 4)};
    struct at_diag diag = {0};
    struct at_sim *s = NULL;
    struct at_sim_report r;
    if (at_sim_init(&o, &diag, &s)) fail_msg("%s: %s", diag.where, diag.text);
    while (at_sim_advance(s, 10000)) continue;
    at_sim_report(s, &r);
    bool fine = !r.violation && r.liveness;
    if (!fine)
        print_error("ATOLL_SIM_SEED=%llu ATOLL_SIM_SEEDS=1 ATOLL_SIM_NODES=%d: %s; or: atoll sim --replay --seed %llu "
                    "--nodes %d --hours 0.125 --round-s 30 --faults all --fault-rate %.1f --byzantine %d --nats %d "
                    "--update-kb 100\n",
                    (unsigned long long)seed, nodes, r.violation ? r.violation : r.unfinished, (unsigned long long)seed,
                    nodes, o.faults_per_round, o.byzantine, nats);
    at_sim_release(s);
    return fine;
}

/* In every fifth seed half of the members cannot be dialled; from seed to seed another half. */
static void seeds(void **state)
{
    (void)state;
    uint64_t first = from_env("ATOLL_SIM_SEED", 1), count = from_env("ATOLL_SIM_SEEDS", 20), wrong = 0;
    int nodes = (int)from_env("ATOLL_SIM_NODES", 10);
    for (uint64_t seed = first; seed < first + count; seed++) wrong += !one_seed(seed, nodes, seed % 5 ? 0 : 50);
    if (wrong) fail_msg("%llu of %llu seeds; see above", (unsigned long long)wrong, (unsigned long long)count);
    print_message("seeds %llu to %llu of %d nodes\n", (unsigned long long)first,
                  (unsigned long long)(first + count - 1), nodes);
}

int main(void)
{
    at_sys_memory_kept();
    const struct CMUnitTest tests[] = {cmocka_unit_test(seeds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
