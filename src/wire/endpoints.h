/* endpoints.h: a node's own word on where it can be reached. Pure; Exact: yes.
 *
 * Signed bytes: "atoll endpoints 1\0" ‖ run ‖ node ‖ counter (le64) ‖ count (1 byte) ‖ (ip (16) ‖ port (le16))...
 * An ip is IPv6, or IPv4 mapped into it (endpoint.h's packed form). Names are not allowed: a statement must not make
 * its readers ask a name server. Of one node's statements that with the greatest counter counts; the counter is the
 * node's Unix clock in milliseconds, and never less than one more than the last one it has seen of itself. */
#ifndef ATOLL_WIRE_ENDPOINTS_H
#define ATOLL_WIRE_ENDPOINTS_H

#include "base/sign.h"
#include "wire/endpoint.h"

#define AT_ENDPOINTS_MAX 4

struct at_endpoints {
    struct at_node_id node;
    uint64_t counter; /* 0: none (an empty object) */
    uint32_t count;   /* 1 .. AT_ENDPOINTS_MAX */
    struct at_endpoint list[AT_ENDPOINTS_MAX];
    struct at_sig sig;
};

struct at_endpoints at_endpoints_sign(const struct at_keypair *key, struct at_hash run, uint64_t counter,
                                      const struct at_endpoint *list, uint32_t count);
/* AT_E_SIGNATURE. verifier NULL: at_verify. Whether the node is a member of the run is the caller's to know. */
at_err at_endpoints_verify(const struct at_endpoints *e, struct at_hash run, const struct at_verifier *verifier);

/* Ids are cut into this many ranges of equal width, in their order. */
#define AT_PEERS_SUMS_MAX 64
static inline uint32_t at_endpoints_range(const struct at_node_id *node)
{
    return node->b[0] * AT_PEERS_SUMS_MAX / 256;
}
/* Stands for this statement in the sum (XOR) of a range; 0: counter 0. No hash: swarm/node_sums.c has what follows. */
uint64_t at_endpoints_number(const struct at_endpoints *e);

#endif
