/* follower.h: the log as everybody but its stewards sees it: parts that a peer sends are taken only under checkpoints
 * signed by the stewards, in order, without a gap, and never against what was seen before. Pure; no allocation.
 *
 * What it proves to its owner: (1) every record is signed by its author, but for those that begin a block (record.h);
 * (2) the log after each part is exactly one that a quorum of the term's seats signed (size, RFC 6962 root), and has this
 * node's own log as its prefix; (3) the past named by the invite is in it. With one steward the quorum is its own
 * signature; one that shows another past at any size this node has seen is found out here, once, loudly.
 *
 * A cosigned checkpoint is several at_log_checkpoint of one size and root, each by another seat's key. Whose seats count
 * is the owner's to say (at_follower_seats): those of the term in which the log is before the part. What comes after the
 * block that begins the next term needs a quorum of that term, so a server ends its part there. */
#ifndef ATOLL_CONSENSUS_FOLLOWER_H
#define ATOLL_CONSENSUS_FOLLOWER_H

#include "consensus/consensus.h" /* at_consensus_take_fn */
#include "wire/vote.h"

#define AT_FOLLOWER_PART_MAX 256 /* records of a part */

struct at_follower {
    struct at_hash run;
    uint64_t invite_size; /* 0: no demand */
    struct at_hash invite_root;
    struct at_merkle log;
    const struct at_verifier *verifier; /* NULL: at_verify */
    at_consensus_take_fn *take;         /* the ledger's fold; may call at_follower_seats */
    void *user;
    bool broken; /* the fold refused what the stewards signed: nothing more can be taken */
    uint32_t term, seat_count;
    struct at_node_id seats[AT_SEATS_MAX]; /* keys */
};

/* From now on these seats order the log. 1 <= seat_count <= AT_SEATS_MAX; the keys differ. */
void at_follower_seats(struct at_follower *f, uint32_t term, const struct at_node_id *keys, uint32_t seat_count);

/* Takes records [from, from + count), at most AT_FOLLOWER_PART_MAX, under checkpoints of sizes in (from, from + count],
 * ascending by (size, key); those of the last size must be of exactly from + count, and each size needs a quorum. Nothing is taken on failure but for the
 * fold's refusal (AT_E_VERIFY), after which the follower must not be used: a quorum signed what may not stand. AT_E_DATA:
 * does not continue this log (a gap, or known already). AT_E_SIGNATURE: a record's or a checkpoint's signature is wrong,
 * or too few seats signed. AT_E_VERIFY: the stewards' past is not ours, or not the invite's. */
at_err at_follower_part(struct at_follower *f, uint64_t from, const struct at_signed_record *records, size_t count,
                        const struct at_log_checkpoint *checkpoints, size_t checkpoint_count, struct at_diag *diag);

/* The checkpoint (count >= 1 cosignatures, ascending by key) of this log's present size alone. */
at_err at_follower_head(const struct at_follower *f, const struct at_log_checkpoint *checkpoints, size_t count,
                        struct at_diag *diag);

#endif
