/* arrange.h: the arranger of meetings (meet.h) as a pure machine: who asked for whom, which tokens are out, whose
 * connections belong together. Its driver (net/) owns sockets and clock and moves the bytes.
 *
 *   FREE -> ASKED -> OPEN -> JOINED -> FREE
 *     ASKED  the target was told; waits for AGREE         (the target's connection may come already)
 *     OPEN   the asker was told; waits for both connections
 *     JOINED both came: RELAY spliced, for relay_ms at most; PUNCH told where the other is
 *
 * Bounds: meetings at once in all, of them relays, and per node that takes part; each state ends by itself. A token
 * opens one connection, once, while its meeting waits for it. A link's end ends what still waits on it; what is spliced
 * goes on, for its bytes need no link, until its time is over. Nothing of a meeting outlives it.
 * Tokens come in with the event that asks: the machine has no randomness of its own. */
#ifndef ATOLL_WIRE_ARRANGE_H
#define ATOLL_WIRE_ARRANGE_H

#include "wire/meet.h"

struct at_arrange_options {
    uint32_t meets_max;  /* 0: this node arranges nothing */
    uint32_t relays_max; /* of them; 0: it relays for nobody */
    uint32_t per_node;   /* as asker or target */
    uint32_t wait_ms;    /* for an answer, then again for the connections; and how long a punch's own stay */
    uint64_t relay_ms;   /* a relay's life */
};

enum at_arrange_event_kind {
    AT_ARRANGE_ASK = 1, /* link, node, message (ASK), target_link, token, rtt_ms */
    AT_ARRANGE_AGREE,   /* link, message */
    AT_ARRANGE_REFUSE,  /* link, message: from the target, or the asker gave up */
    AT_ARRANGE_TOKEN,   /* connection, token[0], seen: a connection began with a prelude */
    AT_ARRANGE_LOST,    /* connection is closed */
    AT_ARRANGE_DOWN,    /* link is gone */
    AT_ARRANGE_TICK,
};
struct at_arrange_event {
    enum at_arrange_event_kind kind;
    uint64_t now_ms;
    uint64_t link;          /* where the message came from */
    struct at_node_id node; /* who is at its other end */
    const struct at_meet *message;
    uint64_t target_link;          /* ASK: the link to the target; 0: there is none */
    const char *veto;              /* ASK: the driver's reason not to, which comes before any of ours; NULL: none */
    struct at_meet_token token[2]; /* ASK: fresh ones; TOKEN: the one that came, in [0] */
    uint32_t rtt_ms[2];            /* ASK: to the asker, to the target */
    uint64_t connection;           /* TOKEN, LOST: the driver's name for it, not 0 */
    struct at_endpoint seen;       /* TOKEN: where it comes from */
};

enum at_arrange_op_kind {
    AT_ARRANGE_SEND = 1, /* message on link */
    AT_ARRANGE_HOLD, /* connection is a punch's: it only shows where it comes from; what it says or its end ends it */
    AT_ARRANGE_JOIN, /* splice connection (of node[0], the asker) with other (of node[1]) */
    AT_ARRANGE_DROP, /* close connection, reason */
};
struct at_arrange_op {
    enum at_arrange_op_kind kind;
    uint64_t link, connection, other;
    struct at_node_id node[2];
    struct at_meet message;
    const char *reason;
};
struct at_arrange_update {
    const struct at_arrange_op *ops; /* borrowed until the next step */
    uint32_t op_count;
};

struct at_arrange;
at_err at_arrange_init(const struct at_arrange_options *options, struct at_arrange **ret_arrange); /* AT_E_NOMEM */
void at_arrange_free(struct at_arrange *a);                                                        /* NULL is fine */
void at_arrange_step(struct at_arrange *a, const struct at_arrange_event *event, struct at_arrange_update *ret_update);
uint64_t at_arrange_deadline(const struct at_arrange *a); /* next TICK that matters; UINT64_MAX: none */
uint32_t at_arrange_count(const struct at_arrange *a);    /* meetings that are not over */

#endif
