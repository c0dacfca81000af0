/* sign.h: Ed25519 (RFC 8032) through OpenSSL. A node is such a key; its id is the public key. Exact: yes. */
#ifndef ATOLL_BASE_SIGN_H
#define ATOLL_BASE_SIGN_H

#include "base/hash.h"

#include <string.h>

#define AT_KEY_BYTES 32
#define AT_SIG_BYTES 64

struct at_node_id { /* the public key */
    uint8_t b[AT_KEY_BYTES];
};
struct at_sig {
    uint8_t b[AT_SIG_BYTES];
};
struct at_keypair;
/* How a key signs where signatures are only stood in for: the simulator's keys, of whole swarms (sim/world_sign.c). Its
 * verifier knows these, and nobody else does. */
typedef struct at_sig at_sign_fn(const struct at_keypair *key, struct at_span message);
struct at_keypair {
    uint8_t seed[AT_KEY_BYTES]; /* secret: file mode 0600, never logged */
    struct at_node_id id;
    at_sign_fn *stand_in; /* NULL, as every function here leaves it: Ed25519 */
};

at_err at_keypair_generate(struct at_keypair *ret_key); /* from the system's random source */
at_err at_keypair_from_seed(const uint8_t seed[AT_KEY_BYTES], struct at_keypair *ret_key);
struct at_sig at_sign(const struct at_keypair *key, struct at_span message);
at_err at_verify(const struct at_node_id *id, struct at_span message, const struct at_sig *sig); /* AT_E_SIGNATURE */

/* How signatures are checked, handed down like a thread pool. NULL: at_verify. Else it says what at_verify would, of keys
 * whose signatures are stood in for. Several threads may ask at a time. */
struct at_verifier {
    at_err_t (*fn)(void *ctx, const struct at_node_id *id, struct at_span message, const struct at_sig *sig);
    void *ctx;
};
at_err at_verify_by(const struct at_verifier *verifier, const struct at_node_id *id, struct at_span message,
                    const struct at_sig *sig);

/* In every step of a node's machine each link is compared with others: so it is inline, and mostly ends with eight bytes. */
static inline bool at_node_id_eq(const struct at_node_id *a, const struct at_node_id *b)
{
    return memcmp(a->b, b->b, 8) == 0 && memcmp(a->b, b->b, sizeof a->b) == 0;
}
int at_node_id_cmp(const struct at_node_id *a, const struct at_node_id *b); /* bytewise */
struct at_hash_text at_node_id_hex(const struct at_node_id *id);

#endif
