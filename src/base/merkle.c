#include "base/merkle.h"

#include <string.h>

struct at_hash at_merkle_leaf(struct at_span bytes)
{
    const uint8_t prefix = 0;
    return at_sha256_2(at_span(&prefix, 1), bytes);
}

struct at_hash at_merkle_node(struct at_hash left, struct at_hash right)
{
    uint8_t both[1 + 2 * AT_HASH_BYTES];
    both[0] = 1;
    memcpy(both + 1, left.b, AT_HASH_BYTES);
    memcpy(both + 1 + AT_HASH_BYTES, right.b, AT_HASH_BYTES);
    return at_sha256(both, sizeof both);
}

void at_merkle_append(struct at_merkle *tree, struct at_hash leaf)
{
    int level = 0;
    for (uint64_t s = tree->size; s & 1; s >>= 1) leaf = at_merkle_node(tree->peak[level++], leaf);
    tree->peak[level] = leaf;
    tree->size++;
}

struct at_hash at_merkle_root(const struct at_merkle *tree)
{
    if (tree->size == 0) return at_sha256(NULL, 0);
    struct at_hash root;
    bool have = false;
    for (int level = 0; level < 64; level++) {
        if (!(tree->size >> level & 1)) continue;
        root = have ? at_merkle_node(tree->peak[level], root) : tree->peak[level];
        have = true;
    }
    return root;
}
