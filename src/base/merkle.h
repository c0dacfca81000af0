/* merkle.h: the Merkle tree hash of RFC 6962 section 2.1, grown leaf by leaf. Pure; Exact: yes.
 *
 * Leaf: SHA-256(0x00 ‖ bytes). Node: SHA-256(0x01 ‖ left ‖ right). The empty tree's root is SHA-256 of nothing.
 * The object keeps only the roots of the complete subtrees (at most 64 hashes): append and root are O(log n). */
#ifndef ATOLL_BASE_MERKLE_H
#define ATOLL_BASE_MERKLE_H

#include "base/hash.h"

struct at_merkle {
    uint64_t size;           /* leaves */
    struct at_hash peak[64]; /* peak[i]: root of the complete subtree of 2^i leaves, valid where bit i of size is set */
};

struct at_hash at_merkle_leaf(struct at_span bytes);
struct at_hash at_merkle_node(struct at_hash left, struct at_hash right);
void at_merkle_append(struct at_merkle *tree, struct at_hash leaf); /* leaf as at_merkle_leaf made it */
struct at_hash at_merkle_root(const struct at_merkle *tree);

#endif
