#include "wire/arrange.h"

#include <stdlib.h>
#include <string.h>

enum meet_state { MEET_FREE, MEET_ASKED, MEET_OPEN, MEET_JOINED };
enum { ASKER, TARGET, SIDES };

struct meeting {
    enum meet_state state;
    enum at_meet_how how;
    uint64_t number;     /* ours: what the target knows it by */
    uint64_t ask_number; /* the asker's */
    uint64_t link[SIDES], connection[SIDES];
    struct at_node_id node[SIDES];
    struct at_meet_token token[SIDES];
    struct at_endpoint seen[SIDES];
    uint32_t rtt_ms[SIDES];
    uint64_t deadline_ms;
};

struct at_arrange {
    struct at_arrange_options opt;
    uint64_t next_number;
    struct meeting *meeting; /* [meets_max] */
    struct at_arrange_op *op;
    uint32_t op_count, op_max;
};

at_err at_arrange_init(const struct at_arrange_options *options, struct at_arrange **ret_arrange)
{
    struct at_arrange *a = calloc(1, sizeof *a);
    if (!a) return AT_E_NOMEM;
    a->opt = *options;
    a->op_max = 4 * options->meets_max + 5; /* at most two messages and two connections for each, and one HOLD */
    a->meeting = calloc(options->meets_max + 1, sizeof *a->meeting);
    a->op = calloc(a->op_max, sizeof *a->op);
    if (!a->meeting || !a->op) {
        at_arrange_free(a);
        return AT_E_NOMEM;
    }
    *ret_arrange = a;
    return AT_OK;
}

void at_arrange_free(struct at_arrange *a)
{
    if (!a) return;
    free(a->meeting);
    free(a->op);
    free(a);
}

/* ---- what a step asks for ---- */
static struct at_arrange_op *ask_for(struct at_arrange *a, enum at_arrange_op_kind kind)
{
    AT_ASSERT(a->op_count < a->op_max);
    struct at_arrange_op *op = &a->op[a->op_count++];
    memset(op, 0, sizeof *op);
    op->kind = kind;
    return op;
}

static struct at_meet *ask_send(struct at_arrange *a, uint64_t link, enum at_meet_kind kind, uint64_t number)
{
    struct at_arrange_op *op = ask_for(a, AT_ARRANGE_SEND);
    op->link = link;
    op->message.kind = kind;
    op->message.number = number;
    return &op->message;
}

static void ask_refuse(struct at_arrange *a, uint64_t link, uint64_t number, bool yours, const char *reason)
{
    struct at_meet *m = ask_send(a, link, AT_MEET_REFUSE, number);
    m->yours = yours;
    at_reason_set(m->reason, reason);
}

static void ask_drop(struct at_arrange *a, uint64_t connection, const char *reason)
{
    struct at_arrange_op *op = ask_for(a, AT_ARRANGE_DROP);
    op->connection = connection;
    op->reason = reason;
}

/* Ends a meeting and tells whoever still waits: links that are gone have been set to 0 before. */
static void end(struct at_arrange *a, struct meeting *m, const char *reason)
{
    if (m->state != MEET_JOINED) {
        if (m->link[ASKER]) ask_refuse(a, m->link[ASKER], m->ask_number, true, reason);
        if (m->link[TARGET]) ask_refuse(a, m->link[TARGET], m->number, false, reason);
    }
    for (int s = 0; s < SIDES; s++)
        if (m->connection[s]) ask_drop(a, m->connection[s], reason);
    memset(m, 0, sizeof *m);
}

/* ---- asking and agreeing ---- */
static const char *why_not(const struct at_arrange *a, const struct at_arrange_event *ev, struct meeting **ret_free)
{
    uint32_t of_asker = 0, of_target = 0, relays = 0;
    *ret_free = NULL;
    if (ev->veto) return ev->veto; /* whoever may not ask learns nothing else */
    for (uint32_t i = 0; i < a->opt.meets_max; i++) {
        struct meeting *m = &a->meeting[i];
        if (m->state == MEET_FREE) {
            if (!*ret_free) *ret_free = m;
            continue;
        }
        if (m->link[ASKER] == ev->link && m->ask_number == ev->message->number) return "this number is in use";
        relays += m->how == AT_MEET_HOW_RELAY;
        for (int s = 0; s < SIDES; s++) {
            of_asker += at_node_id_eq(&m->node[s], &ev->node);
            of_target += at_node_id_eq(&m->node[s], &ev->message->node);
        }
    }
    if (a->opt.meets_max == 0) return "this node arranges no meetings";
    if (at_node_id_eq(&ev->node, &ev->message->node)) return "a node cannot meet itself";
    if (ev->target_link == 0) return "the node asked for has no link here";
    if (of_asker >= a->opt.per_node) return "too many meetings of the node that asks";
    if (of_target >= a->opt.per_node) return "too many meetings of the node asked for";
    if (!*ret_free) return "all meetings are taken";
    if (ev->message->how != AT_MEET_HOW_RELAY || relays < a->opt.relays_max) return NULL;
    return a->opt.relays_max ? "all relays are taken" : "this node relays for nobody";
}

static void on_ask(struct at_arrange *a, const struct at_arrange_event *ev)
{
    struct meeting *m;
    const char *reason = why_not(a, ev, &m);
    if (reason) {
        ask_refuse(a, ev->link, ev->message->number, true, reason);
        return;
    }
    *m = (struct meeting){.state = MEET_ASKED,
                          .how = ev->message->how,
                          .number = AT_MEET_ARRANGED | ++a->next_number,
                          .ask_number = ev->message->number,
                          .link = {ev->link, ev->target_link},
                          .node = {ev->node, ev->message->node},
                          .token = {ev->token[0], ev->token[1]},
                          .rtt_ms = {ev->rtt_ms[0], ev->rtt_ms[1]},
                          .deadline_ms = ev->now_ms + a->opt.wait_ms};
    struct at_meet *invite = ask_send(a, m->link[TARGET], AT_MEET_INVITE, m->number);
    invite->how = m->how;
    invite->node = m->node[ASKER];
    invite->token = m->token[TARGET];
}

/* The meeting of this link's message, if the link takes part on that side. */
static struct meeting *find(struct at_arrange *a, uint64_t link, uint64_t number, int side)
{
    for (uint32_t i = 0; i < a->opt.meets_max; i++) {
        struct meeting *m = &a->meeting[i];
        uint64_t known_by = side == ASKER ? m->ask_number : m->number;
        if (m->state != MEET_FREE && m->link[side] == link && known_by == number) return m;
    }
    return NULL;
}

static void on_agree(struct at_arrange *a, const struct at_arrange_event *ev)
{
    struct meeting *m = find(a, ev->link, ev->message->number, TARGET);
    if (!m || m->state != MEET_ASKED) return; /* it is over already, or was agreed to before */
    m->state = MEET_OPEN;
    m->deadline_ms = ev->now_ms + a->opt.wait_ms;
    struct at_meet *go = ask_send(a, m->link[ASKER], AT_MEET_GO, m->ask_number);
    go->token = m->token[ASKER];
}

static void on_refuse(struct at_arrange *a, const struct at_arrange_event *ev)
{
    int side = ev->message->yours ? TARGET : ASKER; /* "yours": our own number, the one the target knows */
    struct meeting *m = find(a, ev->link, ev->message->number, side);
    if (!m || m->state == MEET_JOINED) return;
    m->link[side] = 0; /* knows it */
    end(a, m, ev->message->reason);
}

/* ---- the connections ---- */
static void join(struct at_arrange *a, struct meeting *m, uint64_t now_ms)
{
    if (m->how == AT_MEET_HOW_RELAY) {
        m->state = MEET_JOINED;
        m->deadline_ms = now_ms + a->opt.relay_ms;
        struct at_arrange_op *op = ask_for(a, AT_ARRANGE_JOIN);
        op->connection = m->connection[ASKER];
        op->other = m->connection[TARGET];
        op->node[0] = m->node[ASKER];
        op->node[1] = m->node[TARGET];
        return;
    }
    if (m->seen[ASKER].ip_bytes != m->seen[TARGET].ip_bytes) {
        end(a, m, "one came over IPv4, the other over IPv6");
        return;
    }
    if (!at_endpoint_ok(&m->seen[ASKER]) || !at_endpoint_ok(&m->seen[TARGET])) {
        end(a, m, "one came from an address that the other cannot dial");
        return;
    }
    m->state = MEET_JOINED;
    m->deadline_ms = now_ms + a->opt.wait_ms;
    uint32_t far = m->rtt_ms[ASKER] > m->rtt_ms[TARGET] ? m->rtt_ms[ASKER] : m->rtt_ms[TARGET];
    for (int s = 0; s < SIDES; s++) { /* the nearer one hears it earlier and waits for the other */
        uint32_t wait = (far - m->rtt_ms[s]) / 2;
        struct at_meet *punch = ask_send(a, m->link[s], AT_MEET_PUNCH, s == ASKER ? m->ask_number : m->number);
        punch->yours = s == ASKER;
        punch->endpoint = m->seen[!s];
        punch->wait_ms = wait < AT_MEET_WAIT_MS_MAX ? wait : AT_MEET_WAIT_MS_MAX;
    }
}

static void on_token(struct at_arrange *a, const struct at_arrange_event *ev)
{
    for (uint32_t i = 0; i < a->opt.meets_max; i++) {
        struct meeting *m = &a->meeting[i];
        if (m->state != MEET_ASKED && m->state != MEET_OPEN) continue;
        for (int s = 0; s < SIDES; s++) {
            if (m->connection[s] || !at_meet_token_eq(&m->token[s], &ev->token[0])) continue;
            if (s == ASKER && m->state == MEET_ASKED) continue; /* it was not given out yet */
            m->connection[s] = ev->connection;
            m->seen[s] = ev->seen;
            if (m->how == AT_MEET_HOW_PUNCH) ask_for(a, AT_ARRANGE_HOLD)->connection = ev->connection;
            if (m->state == MEET_OPEN && m->connection[!s]) join(a, m, ev->now_ms);
            return;
        }
    }
    ask_drop(a, ev->connection, "unknown, used or expired token");
}

static void on_lost(struct at_arrange *a, const struct at_arrange_event *ev)
{
    for (uint32_t i = 0; i < a->opt.meets_max; i++) {
        struct meeting *m = &a->meeting[i];
        if (m->state == MEET_FREE) continue;
        for (int s = 0; s < SIDES; s++) {
            if (m->connection[s] != ev->connection) continue;
            m->connection[s] = 0;
            /* A punch's connections only showed where from; one may end before the other is done. */
            if (m->state == MEET_JOINED && m->how == AT_MEET_HOW_PUNCH && m->connection[!s]) return;
            end(a, m, "the other side is gone");
            return;
        }
    }
}

static void on_down(struct at_arrange *a, const struct at_arrange_event *ev)
{
    for (uint32_t i = 0; i < a->opt.meets_max; i++) {
        struct meeting *m = &a->meeting[i];
        bool part = false;
        if (m->state == MEET_FREE) continue;
        for (int s = 0; s < SIDES; s++) {
            if (m->link[s] != ev->link) continue;
            m->link[s] = 0;
            part = true;
        }
        if (part && m->state != MEET_JOINED) end(a, m, "the other side lost its link to the arranger");
    }
}

static void on_tick(struct at_arrange *a, uint64_t now_ms)
{
    for (uint32_t i = 0; i < a->opt.meets_max; i++) {
        struct meeting *m = &a->meeting[i];
        if (m->state == MEET_FREE || now_ms < m->deadline_ms) continue;
        static const char *const why[] = {[MEET_ASKED] = "the node asked for did not answer in time",
                                          [MEET_OPEN] = "did not connect in time",
                                          [MEET_JOINED] = "the meeting's time is over"};
        end(a, m, why[m->state]);
    }
}

void at_arrange_step(struct at_arrange *a, const struct at_arrange_event *event, struct at_arrange_update *ret_update)
{
    a->op_count = 0;
    switch (event->kind) {
    case AT_ARRANGE_ASK:
        on_ask(a, event);
        break;
    case AT_ARRANGE_AGREE:
        on_agree(a, event);
        break;
    case AT_ARRANGE_REFUSE:
        on_refuse(a, event);
        break;
    case AT_ARRANGE_TOKEN:
        on_token(a, event);
        break;
    case AT_ARRANGE_LOST:
        on_lost(a, event);
        break;
    case AT_ARRANGE_DOWN:
        on_down(a, event);
        break;
    case AT_ARRANGE_TICK:
        on_tick(a, event->now_ms);
        break;
    }
    *ret_update = (struct at_arrange_update){.ops = a->op, .op_count = a->op_count};
}

uint64_t at_arrange_deadline(const struct at_arrange *a)
{
    uint64_t first = UINT64_MAX;
    for (uint32_t i = 0; i < a->opt.meets_max; i++)
        if (a->meeting[i].state != MEET_FREE && a->meeting[i].deadline_ms < first) first = a->meeting[i].deadline_ms;
    return first;
}

uint32_t at_arrange_count(const struct at_arrange *a)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < a->opt.meets_max; i++) n += a->meeting[i].state != MEET_FREE;
    return n;
}
