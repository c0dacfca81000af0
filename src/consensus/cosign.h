/* cosign.h: checkpoints of a log that n = 3f+1 stewards keep. Pure; no allocation; Exact: yes.
 *
 * After a block is final and folded, every steward signs (run, size, root) of its log as an at_log_checkpoint. 2f+1 of
 * different seats with one root make the checkpoint: f+1 of them are honest, so no other root of that size can ever
 * have as many. Two roots of one size signed by one key are EVIDENCE against it.
 *
 *   a seat's cosignature of ...              does
 *   a size it has not signed yet             is kept, in the place of its smallest size when AT_COSIGN_KEPT are kept
 *   a size smaller than all its kept ones    is refused: too old to be compared with anything
 *   a size it has signed, the same root      nothing
 *   a size it has signed, another root       EVIDENCE, once for each size
 *   2f+1 seats with one root, and the size
 *   is larger than the last checkpoint's     the checkpoint
 *
 * Each seat has places of its own, so nobody's cosignatures push out another's. */
#ifndef ATOLL_CONSENSUS_COSIGN_H
#define ATOLL_CONSENSUS_COSIGN_H

#include "wire/vote.h"

#define AT_COSIGN_KEPT 16

struct at_cosign_kept {
    struct at_log_checkpoint cosignature; /* size 0: free */
    bool told;                            /* evidence */
};
struct at_cosign {
    struct at_hash run;
    const struct at_verifier *verifier; /* borrowed */
    uint32_t seat_count;
    struct at_node_id seats[AT_SEATS_MAX];
    struct at_cosign_kept kept[AT_SEATS_MAX][AT_COSIGN_KEPT];
    uint64_t size; /* of the last checkpoint */
};
struct at_cosign_update {
    bool fresh;                                /* was not known: worth passing on */
    uint32_t signers;                          /* not 0: a checkpoint was made, of: */
    struct at_log_checkpoint by[AT_SEATS_MAX]; /* by[i] where bit i of `signers` is set */
    bool has_evidence;
    struct at_evidence evidence;
};

/* `size`: of the last checkpoint, as stored; 0: none. verifier NULL: at_verify. */
void at_cosign_init(struct at_cosign *c, struct at_hash run, const struct at_node_id *seats, uint32_t seat_count,
                    uint64_t size, const struct at_verifier *verifier);
/* AT_E_SIGNATURE; AT_E_PEER: not a seat's, or too old. */
at_err at_cosign_take(struct at_cosign *c, const struct at_log_checkpoint *cosignature,
                      struct at_cosign_update *ret_update);

#endif
