/* follower.h: the log as everybody but its steward sees it: parts that a peer sends are taken only under the steward's
 * signed checkpoint, in order, without a gap, and never against what was seen before. Pure; no allocation.
 *
 * What it proves to its owner: (1) every record is signed by its author; (2) the log after each part is exactly the one
 * the steward signed (size, RFC 6962 root), and has this node's own log as its prefix; (3) the past named by the invite
 * is in it. A steward that shows another past at any size this node has seen is found out here, once, loudly. */
#ifndef ATOLL_CONSENSUS_FOLLOWER_H
#define ATOLL_CONSENSUS_FOLLOWER_H

#include "consensus/consensus.h" /* at_consensus_take_fn */

struct at_follower {
    struct at_hash run;
    struct at_node_id steward;
    uint64_t invite_size; /* 0: no demand */
    struct at_hash invite_root;
    struct at_merkle log;
    const struct at_verifier *verifier; /* NULL: at_verify */
    at_consensus_take_fn *take;         /* the ledger's fold */
    void *user;
    bool broken; /* the fold refused what the steward signed: nothing more can be taken */
};

/* Takes records [from, from + count) under checkpoints of sizes in (from, from + count], ascending; the last one must
 * be of exactly from + count. Nothing is taken on failure but for the fold's refusal (AT_E_VERIFY), after which the
 * follower must not be used: the steward signed what may not stand. AT_E_DATA: does not continue this log (a gap, or
 * known already). AT_E_SIGNATURE: a record's or the checkpoint's signature is wrong. AT_E_VERIFY: the steward's past is
 * not ours, or not the invite's. */
at_err at_follower_part(struct at_follower *f, uint64_t from, const struct at_signed_record *records, size_t count,
                        const struct at_log_checkpoint *checkpoints, size_t checkpoint_count, struct at_diag *diag);

/* A checkpoint alone, of this log's present size. */
at_err at_follower_head(const struct at_follower *f, const struct at_log_checkpoint *checkpoint, struct at_diag *diag);

#endif
