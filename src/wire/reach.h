/* reach.h: the ladder to one node: its own addresses, those its gateway maps, a punch, a relay. Pure machine.
 *
 * What it is: given what is known about a node (how many addresses of each kind, how many nodes could arrange a
 * meeting), it says what to try next, how long, and when to give up and why. What it is not: it knows no addresses and
 * no nodes, only their indices in its caller's lists; and it opens nothing.
 *
 *   DIRECT -> MAPPED -> PUNCH -> RELAY -> given up          any -> reached
 *
 * DIRECT and MAPPED: all addresses of the rung, `stagger_ms` apart (RFC 8305, "happy eyeballs"); after `head_start_ms`
 * the next rung begins although they still run, for a packet that is thrown away answers nothing. Whichever is first to
 * come up wins, the others are cancelled. PUNCH: one arranger after the other, at most `punches_max`; RELAY only when
 * these have failed, for it costs a third node's bytes; each arranger once. An empty rung is passed over.
 * Bounds: AT_REACH_ATTEMPTS_MAX attempts in all, total_ms. Source: RFC 5128 (hole punching), RFC 8445 (the idea of the
 * ladder). */
#ifndef ATOLL_WIRE_REACH_H
#define ATOLL_WIRE_REACH_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define AT_REACH_ADDRESSES_MAX 8 /* of each kind; more are left out */
#define AT_REACH_ARRANGERS_MAX 4
#define AT_REACH_ATTEMPTS_MAX  (2 * AT_REACH_ADDRESSES_MAX + 2 * AT_REACH_ARRANGERS_MAX)

enum at_reach_rung { AT_REACH_DIRECT, AT_REACH_MAPPED, AT_REACH_PUNCH, AT_REACH_RELAY, AT_REACH_RUNG_COUNT };
const char *at_reach_rung_name(enum at_reach_rung rung); /* "direct", ... */

struct at_reach_options {   /* zero means the default in brackets */
    uint32_t stagger_ms;    /* [250] */
    uint32_t head_start_ms; /* [1500] of an address rung */
    uint32_t attempt_ms;    /* [8000] each; a driver that knows better says FAILED earlier */
    uint32_t total_ms;      /* [40000] */
    uint32_t punches_max;   /* [2] */
};

enum at_reach_event_kind {
    AT_REACH_START = 1, /* counts */
    AT_REACH_UP,        /* attempt */
    AT_REACH_FAILED,    /* attempt, reason */
    AT_REACH_TICK,
};
struct at_reach_event {
    enum at_reach_event_kind kind;
    uint64_t now_ms;
    uint32_t count[AT_REACH_RUNG_COUNT]; /* START: addresses, mapped addresses, arrangers that punch, that relay */
    uint32_t attempt;                    /* as the op named it */
    const char *reason;                  /* for people */
};

enum at_reach_op_kind {
    AT_REACH_TRY = 1, /* attempt: rung, index */
    AT_REACH_CANCEL,  /* attempt */
    AT_REACH_REACHED, /* attempt: it is the link */
    AT_REACH_GIVE_UP, /* reason: the last failure of every rung */
};
struct at_reach_op {
    enum at_reach_op_kind kind;
    uint32_t attempt;
    enum at_reach_rung rung;
    uint32_t index; /* in the caller's list for that rung */
};
#define AT_REACH_OPS_MAX (AT_REACH_ATTEMPTS_MAX + 2)
struct at_reach_update {
    struct at_reach_op ops[AT_REACH_OPS_MAX];
    uint32_t op_count;
};

enum at_reach_state { AT_REACH_IDLE, AT_REACH_CLIMBING, AT_REACH_DONE, AT_REACH_GIVEN_UP };

/* Plain data, no ownership: a zeroed one is idle. A START begins anew from any state but CLIMBING. */
struct at_reach {
    struct at_reach_options opt;
    enum at_reach_state state;
    enum at_reach_rung rung; /* the lowest that has begun */
    uint32_t count[AT_REACH_RUNG_COUNT], begun[AT_REACH_RUNG_COUNT];
    uint64_t started_ms, next_ms, rung_ms;
    struct at_reach_attempt {
        bool running;
        enum at_reach_rung rung;
        uint32_t index;
        uint64_t deadline_ms;
    } attempt[AT_REACH_ATTEMPTS_MAX];
    uint32_t attempt_count;
    char failure[AT_REACH_RUNG_COUNT][96]; /* the last of each rung */
    char reason[512];                      /* GIVE_UP: for people */
};

void at_reach_init(struct at_reach *r, const struct at_reach_options *options); /* NULL: the defaults */
void at_reach_step(struct at_reach *r, const struct at_reach_event *event, struct at_reach_update *ret_update);
uint64_t at_reach_deadline(const struct at_reach *r); /* next TICK that matters; UINT64_MAX: none */

#endif
