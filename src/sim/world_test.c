#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sim/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct at_world_options small(uint64_t seed)
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
                                     .state_bytes = 4000};
}

static struct at_world *make(const struct at_world_options *options)
{
    struct at_world *w = NULL;
    assert_int_equal(at_world_init(options, &w), AT_OK);
    for (int i = 0; i < options->nodes; i++) at_world_start_node(w, i, (uint64_t)i);
    return w;
}

static void must_finish(struct at_world *w, uint64_t until_ms)
{
    bool done = at_world_run(w, until_ms);
    if (at_world_violation(w)) fail_msg("%s", at_world_violation(w));
    if (!done) fail_msg("not done by %llu ms\n%s", (unsigned long long)until_ms, at_world_trace(w));
    if (!at_world_check(w)) fail_msg("%s", at_world_violation(w));
}

static void undisturbed(void **state)
{
    (void)state;
    struct at_world_options o = small(1);
    o.trace = getenv("ATOLL_SIM_TRACE") != NULL;
    struct at_world *w = make(&o);
    bool done = at_world_run(w, 60000);
    if (o.trace) printf("%s\n", at_world_trace(w));
    (void)done;
    must_finish(w, 60000);
    assert_int_equal(at_world_log_count(w, AT_RECORD_EPOCH), 2);
    assert_int_equal(at_world_included(w, 0), 3);
    assert_int_equal(at_world_included(w, 1), 3);
    at_world_release(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(undisturbed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
