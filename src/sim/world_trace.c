/* world_trace.c: a line for each message, record and deed. All lines go into a hash; how many are kept is an option. */
#include "sim/world_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The older half goes, at the end of a line. */
static void forget_old(struct at_world *w)
{
    size_t max = w->options.trace_bytes_max;
    if (max == 0 || w->trace.n < 2 * max) return;
    const uint8_t *from = w->trace.p + w->trace.n - max, *end = memchr(from, '\n', max);
    if (end) at_buf_consume(&w->trace, (size_t)(end + 1 - w->trace.p));
}

void at_world_tracef(struct at_world *w, const char *fmt, ...)
{
    char line[256];
    va_list args;
    if (!w->options.trace) return;
    va_start(args, fmt);
    vsnprintf(line, sizeof line - 1, fmt, args);
    va_end(args);
    size_t n = strlen(line);
    line[n++] = '\n';
    line[n] = '\0';
    if (!w->trace_sha.impl) at_sha256_init(&w->trace_sha);
    at_sha256_update(&w->trace_sha, line, n);
    forget_old(w);
    if (at_buf_append(&w->trace, line, n + 1))
        at_world_violate(w, "the trace is too long");
    else
        w->trace.n--; /* the NUL stays behind the end */
}

const char *at_world_trace(const struct at_world *w)
{
    return w->trace.n ? (const char *)w->trace.p : "";
}

struct at_hash at_world_trace_hash(struct at_world *w)
{
    struct at_sha256_ctx ctx = w->trace_sha;
    if (!ctx.impl) at_sha256_init(&ctx);
    w->trace_sha = (struct at_sha256_ctx){0};
    return at_sha256_final(&ctx);
}

void at_world_trace_op(struct at_world *w, int node, const struct at_node_op *op)
{
    struct at_message msg;
    struct at_record rec;
    unsigned long long now = w->now_ms;
    if (!w->options.trace) return;
    if (op->kind == AT_NODE_OP_SEND) {
        const struct at_world_link *l = &w->links[(op->link - 1) / 2];
        int to = l->end[(op->link - 1) % 2 ? 0 : 1];
        if (at_message_decode(op->bytes, &w->mem, NULL, &msg) == AT_OK)
            at_world_tracef(w, "%llu %d>%d %s", now, node, to, at_message_kind_name(msg.kind));
    } else if (op->kind == AT_NODE_OP_PERSIST) {
        for (size_t i = 0; i < op->persist.count; i++)
            if (at_record_decode(at_signed_record_body(&op->persist.records[i]), NULL, &rec) == AT_OK)
                at_world_tracef(w, "%llu %d stores %llu %s", now, node, (unsigned long long)(op->persist.from + i),
                                at_record_kind_name(rec.kind));
    } else {
        static const char *const deed[AT_NODE_OP_ENDED + 1] = {[AT_NODE_OP_STATE_INIT] = "makes the initial state",
                                                               [AT_NODE_OP_UNIT_START] = "trains",
                                                               [AT_NODE_OP_UNIT_STOP] = "stops training",
                                                               [AT_NODE_OP_UNIT_ENOUGH] = "cuts its unit",
                                                               [AT_NODE_OP_APPLY] = "applies",
                                                               [AT_NODE_OP_SAVE] = "saves",
                                                               [AT_NODE_OP_ENDED] = "ends"};
        if (deed[op->kind]) at_world_tracef(w, "%llu %d %s", now, node, deed[op->kind]);
    }
}
