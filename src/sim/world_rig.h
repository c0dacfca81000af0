/* world_rig.h: what the tests of the virtual world have in common. ATOLL_SIM_TRACE=1 prints the trace of a failure,
 * ATOLL_SIM_ONLY=name runs one test. */
#ifndef ATOLL_SIM_WORLD_RIG_H
#define ATOLL_SIM_WORLD_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sim/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AT_EVER_MS (UINT64_C(1) << 40)

/* For the shape of a random world, from its seed. */
static inline uint64_t lcg(uint64_t *x)
{
    *x = *x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *x >> 33;
}

static inline uint64_t from_env(const char *name, uint64_t fallback)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : fallback;
}

static inline struct at_world_options small(uint64_t seed)
{
    return (struct at_world_options){.seed = seed,
                                     .nodes = 3,
                                     .rounds = 2,
                                     .steps = 3,
                                     .min_members = 3,
                                     .round_ms_max = 20000,
                                     .latency_ms_min = 1,
                                     .latency_ms_max = 3,
                                     .sync_ms_max = 3,
                                     .step_ms = 20,
                                     .update_bytes = 5000,
                                     .shard_bytes = 3000,
                                     .state_bytes = 4000,
                                     .trace = getenv("ATOLL_SIM_TRACE") != NULL};
}

static inline struct at_world *make(const struct at_world_options *options)
{
    struct at_world *w = NULL;
    assert_int_equal(at_world_init(options, &w), AT_OK);
    for (int i = 0; i < options->nodes; i++) at_world_start_node(w, i, (uint64_t)i);
    return w;
}

static inline struct at_world *make_down(const struct at_world_options *options)
{
    struct at_world *w = NULL;
    assert_int_equal(at_world_init(options, &w), AT_OK);
    return w;
}

static inline void start_all(struct at_world *w, int nodes)
{
    for (int i = 0; i < nodes; i++) at_world_start_node(w, i, at_world_now_ms(w) + (uint64_t)i);
}

static inline void must_finish(struct at_world *w, uint64_t until_ms)
{
    bool done = at_world_run(w, until_ms);
    if (at_world_violation(w)) {
        fprintf(stderr, "%s\n", at_world_trace(w));
        fail_msg("%s", at_world_violation(w));
    }
    if (!done) {
        fprintf(stderr, "%s\n", at_world_trace(w));
        fail_msg("not done by %llu ms", (unsigned long long)until_ms);
    }
    if (!at_world_check(w)) fail_msg("%s", at_world_violation(w));
}

#endif
