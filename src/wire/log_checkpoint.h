/* log_checkpoint.h: a steward's signature over (run, size, root) of the log. Pure; Exact: yes.
 *
 * Signed bytes: "atoll checkpoint 1\0" ‖ run ‖ size (le64) ‖ root. A single steward signs one after every record it
 * appends, so that a log with a record dropped, swapped or repeated can be told at exactly that record. Of several, each
 * signs one after every final block, with its seat's key of the term in which the block was ordered; 2f+1 of these, of one
 * size and root, make the checkpoint (consensus/cosign.h). On the wire and on disk it is just these. */
#ifndef ATOLL_WIRE_LOG_CHECKPOINT_H
#define ATOLL_WIRE_LOG_CHECKPOINT_H

#include "base/sign.h"

struct at_log_checkpoint {
    uint64_t size; /* records */
    struct at_hash root;
    struct at_node_id steward; /* of several: its seat's key */
    struct at_sig sig;
};
/* The order of cosigned checkpoints, by (size, key): < 0, 0, > 0. */
int at_log_checkpoint_cmp(const struct at_log_checkpoint *a, const struct at_log_checkpoint *b);

struct at_log_checkpoint at_log_checkpoint_sign(const struct at_keypair *steward, struct at_hash run, uint64_t size,
                                                struct at_hash root);
/* AT_E_SIGNATURE. Whether `steward` is the run's steward is the caller's to compare. */
at_err at_log_checkpoint_verify(const struct at_log_checkpoint *c, struct at_hash run);
at_err at_log_checkpoint_verify_by(const struct at_log_checkpoint *c, struct at_hash run,
                                   const struct at_verifier *verifier);

#endif
