/* node_out.c: collects what a step asks for and puts it in the driver's order: PERSIST, SEND, the rest. */
#include "swarm/node_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct at_node_op *at_node_op_add(struct at_node_machine *m, enum at_node_op_kind kind)
{
    AT_ASSERT(m->op_count < AT_NODE_OPS_MAX); /* a step makes a few operations per link and a few of its own */
    struct at_node_op *op = &m->scratch->ops[m->op_count++];
    memset(op, 0, sizeof *op);
    op->kind = kind;
    m->agree.begun += kind == AT_NODE_OP_PERSIST;
    return op;
}

void at_node_send(struct at_node_machine *m, uint64_t link, const struct at_message *msg)
{
    size_t at = m->scratch->out.n;
    at_err_t err = at_message_encode(msg, &m->scratch->out);
    AT_ASSERT(err != AT_E_DATA); /* what we say keeps the schema's limits */
    if (err) {                   /* no memory: the peer must not miss a message in the middle */
        struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_CLOSE);
        op->link = link;
        snprintf(op->reason, sizeof op->reason, "out of memory");
        return;
    }
    struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_SEND);
    op->link = link;
    op->frame_class = at_message_class(msg->kind);
    op->bytes.n = m->scratch->out.n - at;
    m->scratch->out_at[m->op_count - 1] = at;
}

void at_node_send_again(struct at_node_machine *m, uint64_t link)
{
    size_t from = m->op_count - 1;
    if (m->scratch->ops[from].kind != AT_NODE_OP_SEND) return;
    struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_SEND);
    *op = m->scratch->ops[from];
    op->link = link;
    m->scratch->out_at[m->op_count - 1] = m->scratch->out_at[from];
}

static int rank(enum at_node_op_kind kind)
{
    return kind == AT_NODE_OP_PERSIST ? 0 : kind == AT_NODE_OP_SEND ? 1 : kind == AT_NODE_OP_ENDED ? 3 : 2;
}

/* What a PERSIST of several stewards points to has stopped moving. */
static void finish_persist(struct at_node_machine *m, size_t i)
{
    struct at_node_agree *a = &m->agree;
    struct at_node_op *op = &m->scratch->ops[i];
    if (op->persist.count && !op->persist.records) op->persist.records = a->records + m->scratch->record_at[i];
    if (op->persist.checkpoint_count && !op->persist.checkpoints)
        op->persist.checkpoints = a->cosigned + m->scratch->cosigned_at[i];
    if (!op->persist.kept_count) return;
    for (size_t k = m->scratch->kept_at[i]; k < m->scratch->kept_at[i] + op->persist.kept_count; k++)
        a->kept[k].bytes.p = m->scratch->out.p + a->kept_at[k];
    op->persist.kept = a->kept + m->scratch->kept_at[i];
}

void at_node_out_finish(struct at_node_machine *m, struct at_node_update *ret_update)
{
    bool sorted = true;
    for (size_t i = 0; i < m->op_count; i++) {
        if (m->scratch->ops[i].kind == AT_NODE_OP_SEND || m->scratch->ops[i].kind == AT_NODE_OP_PEERS_KEEP)
            m->scratch->ops[i].bytes.p = m->scratch->out.p + m->scratch->out_at[i];
        if (m->scratch->ops[i].kind == AT_NODE_OP_PERSIST) finish_persist(m, i);
        if (i > 0 && rank(m->scratch->ops[i - 1].kind) > rank(m->scratch->ops[i].kind)) sorted = false;
    }
    if (!sorted) {
        size_t n = 0;
        for (int r = 0; r <= 3; r++)
            for (size_t i = 0; i < m->op_count; i++)
                if (rank(m->scratch->ops[i].kind) == r) m->scratch->ops_sorted[n++] = m->scratch->ops[i];
    }
    ret_update->ops = sorted ? m->scratch->ops : m->scratch->ops_sorted;
    ret_update->count = m->op_count;
}

void at_node_note(struct at_node_machine *m, const char *fmt, ...)
{
    va_list args;
    struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_STATUS);
    va_start(args, fmt);
    vsnprintf(op->reason, sizeof op->reason, fmt, args);
    va_end(args);
    memcpy(m->last_event, op->reason, sizeof m->last_event);
}

void at_node_end(struct at_node_machine *m, at_err_t err, const char *fmt, ...)
{
    if (m->ended) return;
    m->ended = true;
    struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_ENDED);
    va_list args;
    va_start(args, fmt);
    vsnprintf(op->reason, sizeof op->reason, fmt, args);
    va_end(args);
    memcpy(m->last_event, op->reason, sizeof m->last_event);
    op->end.err = err;
    op->end.run_ended = m->has_genesis && m->ledger.phase == AT_LEDGER_ENDED;
    op->end.finished = m->finishing;
}
