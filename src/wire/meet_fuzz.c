/* Two targets in one, by the first byte. Even: a prelude; properties: the same answer for the whole and for every longer
 * input, and what is taken writes back to the same bytes. Odd: the arranger's machine under any events; properties: its
 * bounds hold, it names only links and connections that it was given, and time alone empties it. */
#include "wire/arrange.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void prelude(struct at_span in)
{
    struct at_meet_token token;
    size_t used = 0;
    uint8_t back[AT_MEET_PRELUDE_BYTES];
    if (at_meet_prelude_parse(in, &token, &used) != AT_OK) {
        AT_ASSERT(in.n > 0);
        return;
    }
    AT_ASSERT(used == 0 ? in.n < sizeof back : used == sizeof back);
    if (!used) return;
    at_meet_prelude(&token, back);
    AT_ASSERT(memcmp(back, in.p, sizeof back) == 0);
}

/* Small numbers, so that events meet each other: 8 links, 4 nodes, 8 tokens, 16 connections. */
static void event(struct at_arrange *a, const uint8_t e[4], uint64_t now_ms)
{
    struct at_meet m = {
        .number = e[1] % 8, .yours = e[1] & 8, .how = e[1] & 16 ? AT_MEET_HOW_PUNCH : AT_MEET_HOW_RELAY};
    struct at_arrange_event ev = {
        .kind = (enum at_arrange_event_kind)(AT_ARRANGE_ASK + e[0] % AT_ARRANGE_TICK), .now_ms = now_ms, .message = &m};
    struct at_arrange_update up;
    if (ev.kind == AT_ARRANGE_AGREE || (ev.kind == AT_ARRANGE_REFUSE && m.yours)) m.number |= AT_MEET_ARRANGED;
    ev.link = 1 + e[2] % 8;
    ev.target_link = e[3] % 9;
    memset(&ev.node, e[2] % 4, sizeof ev.node);
    memset(&m.node, e[3] % 4, sizeof m.node);
    memset(&ev.token[0], e[1] % 8, sizeof ev.token[0]);
    memset(&ev.token[1], e[3] % 8, sizeof ev.token[1]);
    ev.connection = 1 + e[2] % 16;
    ev.seen = (struct at_endpoint){.ip = {e[1], 1, 1, 1}, .ip_bytes = e[3] & 64 ? 16 : 4, .port = e[2]};
    at_arrange_step(a, &ev, &up);
    for (uint32_t i = 0; i < up.op_count; i++) {
        if (up.ops[i].kind == AT_ARRANGE_SEND)
            AT_ASSERT(up.ops[i].link >= 1 && up.ops[i].link <= 8);
        else
            AT_ASSERT(up.ops[i].connection >= 1 && up.ops[i].connection <= 16);
        if (up.ops[i].kind == AT_ARRANGE_JOIN) AT_ASSERT(up.ops[i].other >= 1 && up.ops[i].other <= 16);
        if (up.ops[i].message.kind == AT_MEET_PUNCH) AT_ASSERT(at_endpoint_ok(&up.ops[i].message.endpoint));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    if (data[0] % 2 == 0) {
        prelude(at_span(data + 1, size - 1));
        return 0;
    }
    struct at_arrange *a = NULL;
    struct at_arrange_options opt = {.meets_max = 4, .relays_max = 2, .per_node = 3, .wait_ms = 100, .relay_ms = 200};
    uint64_t now_ms = 0;
    AT_ASSERT(at_arrange_init(&opt, &a) == AT_OK);
    for (size_t i = 1; i + 4 <= size; i += 4) {
        now_ms += data[i] >> 4;
        event(a, data + i, now_ms);
        AT_ASSERT(at_arrange_count(a) <= 4);
    }
    struct at_arrange_update up;
    struct at_arrange_event tick = {.kind = AT_ARRANGE_TICK, .now_ms = now_ms + 201};
    at_arrange_step(a, &tick, &up);
    AT_ASSERT(at_arrange_count(a) == 0 && at_arrange_deadline(a) == UINT64_MAX);
    at_arrange_free(a);
    return 0;
}
