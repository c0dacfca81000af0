/* presence.h: a member's word that it is here, and which state it holds. Pure; Exact: yes.
 *
 * Signed bytes: "atoll presence 1\0" ‖ run ‖ member ‖ counter (le64) ‖ round (le32) ‖ state root.
 * Signed, because it reaches the steward through other members. Of one member's words the one with the greatest counter
 * counts. A root of zeros says no more than "I am here". Whether the state is durable is not said here: who
 * takes part does not depend on it, and a second word per round and member, passed on hop by hop, would be too dear. */
#ifndef ATOLL_WIRE_PRESENCE_H
#define ATOLL_WIRE_PRESENCE_H

#include "base/hash.h"
#include "base/sign.h"

struct at_presence {
    struct at_node_id member;
    uint64_t counter;
    uint32_t round; /* "I hold the state at the start of this round" */
    struct at_hash state_root;
    struct at_sig sig;
};

struct at_presence at_presence_sign(const struct at_keypair *key, struct at_hash run, uint64_t counter, uint32_t round,
                                    struct at_hash state_root);
/* AT_E_SIGNATURE. verifier NULL: at_verify. */
at_err at_presence_verify(const struct at_presence *p, struct at_hash run, const struct at_verifier *verifier);

#endif
