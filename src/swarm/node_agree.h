/* node_agree.h: what the node's machine keeps as one steward among several. Part of node_internal.h, for the same files.
 *
 * Whoever holds a seat in the term of its own ledger, and has its key, is a steward: it folds final blocks, and tells a
 * log only as far as a checkpoint of 2f+1 cosignatures goes. Everybody's ledger is that of final records, so nothing waits
 * for the disk but votes. A block that came into the log by a part first is known by its view when it is final here, too. */
#ifndef ATOLL_SWARM_NODE_AGREE_H
#define ATOLL_SWARM_NODE_AGREE_H

#include "consensus/cosign.h"
#include "consensus/simplex.h"
#include "swarm/node_mesh.h"

#define AT_NODE_SIZES_KEPT  64  /* roots of the log's last sizes at ends of blocks */
#define AT_NODE_PERSISTS    256 /* transactions that wait for the disk and are told apart */
#define AT_NODE_FRESH_MAX   256 /* records kept for pushing once they have a checkpoint */
#define AT_NODE_HOLDS_MAX   16  /* updates of logged receipts that a steward fetches side by side */
#define AT_NODE_STAND_AFTER 16  /* rounds of a term, until its holders and others stand for the next one */

enum { /* milliseconds */
       AT_NODE_DELTA_MS = 300,
       AT_NODE_DELTA_MAX_MS = 30000,
       AT_NODE_WORD_AGAIN_MS = 2000, /* a changed mind is told after this, then twice that, ... */
       AT_NODE_ALONE_NOTE_MS = 5000, /* too few stewards are here for so long: people are told */
};

struct at_node_term {      /* of whose blocks this node signs the sizes */
    struct at_seats seats; /* count 0: none */
    int seat;              /* the own one; -1 */
    struct at_keypair key; /* of it */
    struct at_cosign cosign;
    struct at_log_checkpoint own;                 /* the last one signed; size 0: none */
    struct at_log_checkpoint ready[AT_SEATS_MAX]; /* a checkpoint that the own log has not reached, by key */
    uint32_t ready_count;
};

enum at_node_hold { AT_NODE_HOLD_NONE, AT_NODE_HOLD_CHECK, AT_NODE_HOLD_YES, AT_NODE_HOLD_NO };

struct at_node_agree {
    /* the term, as the fold saw it begin */
    uint32_t fold_term;
    uint64_t begin_ms;
    struct at_beacon begin_beacon;
    struct at_hash begin_leaf; /* of the record with which it began */
    struct {                   /* the log's size where a block has ended, ring */
        uint64_t size;
        struct at_hash root;
    } ends[AT_NODE_SIZES_KEPT];
    uint32_t end_next;
    uint64_t told; /* the log has a checkpoint of this size */
    /* seats */
    struct at_ticket ticket;
    struct at_node_secret secrets[AT_NODE_SECRETS];
    uint32_t secret_count, secret_asked; /* asked: for that term */
    struct at_node_chain {
        uint32_t term; /* the secret that it is of; 0: none */
        struct at_beacon_chain links;
    } * chains[2];                               /* owned; of the secrets used last: 20 ms of hashing each */
    const struct at_beacon_chain *chain_used;    /* by Simplex */
    uint32_t stand_term;                         /* of the READY that was signed last */
    struct at_node_id accused[AT_NODE_ACCUSALS]; /* whose holder the EVIDENCE on its way is against; free: not signed */
    /* the term in which this node is a steward */
    uint32_t term;              /* whose seats it looked at last */
    struct at_simplex *simplex; /* owned; NULL: not a steward among several */
    struct at_node_term *now, *before;
    struct at_node_blocks {
        struct at_node_cached *list; /* blocks that are not final yet; owned, so are their bytes */
        size_t count, cap;
    } blocks;
    struct at_block_room *room;
    struct at_agree_mem mem;
    struct at_buf out; /* one encoded Agree */
    bool synced;       /* it knows what its peers know */
    /* what a step asks to persist */
    struct at_signed_record *records;
    size_t record_count, record_cap;
    struct at_log_checkpoint *cosigned;
    size_t cosigned_count, cosigned_cap, cosigned_done; /* done: in an operation */
    struct at_node_kept *kept;
    size_t *kept_at; /* where their bytes begin in `out` of the machine */
    size_t kept_count, kept_cap;
    /* which transaction of Simplex is in which PERSIST */
    uint64_t begun, done; /* PERSISTs */
    struct {
        uint64_t persist, seq;
    } wait[AT_NODE_PERSISTS];
    size_t wait_count;
    /* told only with a checkpoint */
    struct at_signed_record *fresh; /* AT_NODE_FRESH_MAX: from `told` on */
    uint64_t fresh_from;
    size_t fresh_count;
    /* own words */
    bool word_pending;
    struct at_hash word_leaf;
    uint32_t word_round;
    int word_phase;
    uint64_t word_ms;
    /* updates of the round's logged receipts, by replica */
    struct {
        enum at_node_hold state;
        struct at_hash update;
    } * hold;        /* AT_MEMBERS_MAX */
    uint64_t few_ms; /* since when too few stewards are here; 0: enough */
    bool few_told;
};

struct at_node_cached {
    uint64_t view;
    struct at_hash hash;
    struct at_buf bytes;
};

#endif
