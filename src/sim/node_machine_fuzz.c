/* A peer says whatever the fuzzer makes up to a steward in the middle of a round, on one link after the other.
 * Properties: no assert, no crash, no unbounded growth; the run's honest part goes on and ends well.
 * Input: a sequence of (op, length le16, bytes): op % 4: 0 a Hello of the run, 1 bytes as they are, 2 a new link,
 * 3 time passes. */
#include "sim/world.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t new_link(struct at_world *w, uint32_t *links)
{
    struct at_keypair key = at_world_stranger_key(w, ++*links);
    return at_world_stranger_link(w, &key, 0);
}

static void say_hello(struct at_world *w, uint64_t link)
{
    struct at_buf bytes = {0};
    struct at_message msg = {.kind = AT_MSG_HELLO};
    msg.hello.protocol = AT_PROTOCOL_VERSION;
    msg.hello.run = at_world_run_id(w);
    if (at_message_encode(&msg, &bytes) == AT_OK) at_world_stranger_send(w, link, at_buf_span(&bytes));
    at_buf_release(&bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct at_world_options options = {.seed = 1,
                                       .nodes = 1,
                                       .rounds = 1,
                                       .steps = 2,
                                       .min_members = 1,
                                       .round_ms_max = 60000,
                                       .latency_ms_min = 1,
                                       .latency_ms_max = 1,
                                       .sync_ms_max = 1,
                                       .step_ms = 10000,
                                       .update_bytes = 100,
                                       .shard_bytes = 100,
                                       .state_bytes = 100};
    struct at_world *w = NULL;
    uint32_t links = 0;
    if (at_world_init(&options, &w)) abort();
    at_world_start_node(w, 0, 0);
    if (at_world_run(w, 100)) abort();
    uint64_t link = new_link(w, &links);
    for (size_t at = 0; at + 3 <= size && links < 64;) {
        size_t n = (size_t)data[at + 1] | (size_t)data[at + 2] << 8;
        uint8_t op = data[at] % 4;
        at += 3;
        if (n > size - at) n = size - at;
        if (op == 0) say_hello(w, link);
        if (op == 1) at_world_stranger_send(w, link, at_span(data + at, n));
        if (op == 2) link = new_link(w, &links);
        if (op == 3) (void)at_world_run(w, at_world_now_ms(w) + n % 64);
        if (op == 1) at += n;
    }
    if (!at_world_run(w, 200000) || !at_world_check(w)) abort();
    at_world_release(w);
    return 0;
}
