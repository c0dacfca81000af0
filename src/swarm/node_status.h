/* node_status.h: what a node's machine knows, as plain values for people and scripts. Pure data; a snapshot. */
#ifndef ATOLL_SWARM_NODE_STATUS_H
#define ATOLL_SWARM_NODE_STATUS_H

#include "base/sign.h"
#include "ledger/part.h"

#define AT_NODE_NAME_BYTES 33

enum at_node_phase {
    AT_NODE_PHASE_LINKING = 1, /* no link to anybody of the run */
    AT_NODE_PHASE_GENESIS,     /* fetching the genesis */
    AT_NODE_PHASE_LOG,         /* fetching the log */
    AT_NODE_PHASE_DATA,        /* fetching data shards */
    AT_NODE_PHASE_JOINING,     /* its JOIN is not final yet */
    AT_NODE_PHASE_STATE,       /* fetching, computing or catching up to the state */
    AT_NODE_PHASE_WAITING,     /* ready; waits for members, or for the next round */
    AT_NODE_PHASE_TRAINING,    /* its unit runs */
    AT_NODE_PHASE_COMMITTING,  /* its unit is done; its receipt is not in the log yet, or others still train */
    AT_NODE_PHASE_APPLYING,    /* the round is closed; the next state is made */
    AT_NODE_PHASE_ENDING,      /* END is in the log */
    AT_NODE_PHASE_ENDED,
};
const char *at_node_phase_text(enum at_node_phase phase); /* one lower-case word */

struct at_node_member_status {
    struct at_node_id id;
    char name[AT_NODE_NAME_BYTES];
    uint32_t replica;
    bool self, steward, online, left; /* steward: it holds a seat */
    bool in_round;                    /* has an allotment in the open round */
    bool committed;                   /* its receipt for the open round is in the log */
    struct at_part part;              /* who is offline has none */
    uint32_t step;                    /* of `steps`, in the open round */
    uint64_t tokens; /* confirmed rounds + logged receipts of the open round + the running unit's so far */
    double tokens_per_s;
    uint64_t points_pending, points_confirmed; /* micro-points */
};

struct at_node_status {
    bool steward, joined; /* steward: orders the log, alone or with others; joined: this node's JOIN is final */
    bool abstains;        /* a steward with an old disk: it does not vote in this term */
    uint32_t term, seats; /* of the log; seats: 1, or 3f+1 stewards */
    uint32_t seats_here;  /* stewards that are linked here, and this node when it is one; so that 2f+1 can be counted */
    bool desync;          /* own root differed from the EPOCH's; the state is being fetched whole */
    enum at_node_phase phase;
    struct at_hash run;
    struct at_node_id id;
    uint32_t round, rounds, step, steps; /* round: open or next; rounds: of the genesis */
    uint32_t rounds_done;                /* EPOCH records in the log */
    uint64_t tokens;                     /* of all members, as in at_node_member_status */
    double tokens_per_s;                 /* of all members now */
    double heldout_loss_first;           /* of the initial state; NaN: not evaluated here */
    double heldout_loss_last;            /* the newest that the log tells; NaN: none yet */
    uint32_t heldout_rounds;             /* of the state after so many rounds: behind rounds_done, but at the end */
    struct at_hash state_root;           /* of the state this node holds; zero: none */
    uint32_t state_round;                /* it is the state at the start of this round */
    uint32_t checkpoint_holders; /* this node and members linked to it that have the newest agreed state on disk */
    uint64_t log_size;
    struct at_hash log_root;
    uint32_t peers;                              /* links that are up */
    uint32_t peers_punched, peers_relayed;       /* of them: arranged by others; through others */
    uint32_t hops;                               /* links between this node and the steward; 255: no way there */
    uint32_t peers_known;                        /* members whose addresses are known */
    uint64_t fetched_bytes, fetch_bytes;         /* of the blob being fetched: so many of so many; 0 of 0: none */
    bool ended;                                  /* END is in the log */
    const struct at_node_member_status *members; /* replicas ascending; borrowed until the next step */
    uint32_t member_count;
    char last_event[160]; /* a line for people */
};

#endif
