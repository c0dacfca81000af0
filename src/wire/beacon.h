/* beacon.h: public randomness that no steward chooses alone: a hash chain of each, revealed link by link in the blocks
 * it leads. Pure; no allocation; Exact: yes.
 *
 * A seat's secret s gives the chain x_0 = s, x_{i+1} = H(x_i), H(x) = SHA-256("atoll beacon 1\0" ‖ x). It commits to
 * x_L; its k-th block in a chain of blocks must reveal x_{L-k}, the preimage of what stood there. seed' = SHA-256(seed ‖
 * reveal). A leader can only withhold its whole block, so a draw counts once f+1 different leaders have revealed after
 * its cut. The bytes of a certificate are never a seed: they are not unique. A chain that is used up ends the seat's
 * right to lead, so a term is shorter than its chains. */
#ifndef ATOLL_CONSENSUS_BEACON_H
#define ATOLL_CONSENSUS_BEACON_H

#include "wire/vote.h"

/* A seat's own side: every STRIDE-th link is kept, so that a reveal costs at most STRIDE hashes. */
#define AT_BEACON_LENGTH_MAX 65536u
#define AT_BEACON_STRIDE     256u
struct at_beacon_chain {
    uint32_t length;
    struct at_hash kept[AT_BEACON_LENGTH_MAX / AT_BEACON_STRIDE + 1]; /* x_0, x_STRIDE, ... */
    struct at_hash commitment;                                        /* x_length */
};
void at_beacon_chain_init(struct at_beacon_chain *chain, struct at_hash secret, uint32_t length);
/* What the (used + 1)-th block reveals. False: the chain is used up. */
bool at_beacon_chain_next(const struct at_beacon_chain *chain, uint32_t used, struct at_hash *ret_reveal);

/* Everybody's side, after some block. */
struct at_beacon {
    struct at_hash seed;
    struct at_hash head[AT_SEATS_MAX]; /* whose preimage each seat owes next */
    uint32_t used[AT_SEATS_MAX];
};
bool at_beacon_fits(const struct at_beacon *b, uint32_t seat, struct at_hash reveal);
void at_beacon_take(struct at_beacon *b, uint32_t seat, struct at_hash reveal);
/* How many different seats have revealed since `cut`. */
uint32_t at_beacon_leaders_since(const struct at_beacon *b, const struct at_beacon *cut);

#endif
