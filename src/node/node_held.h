/* node_held.h: a public state that this node holds: its blob (train/state.h), which is also the memory of its arrays, and the
 * hashes of its leaves. Whoever computes, serves or saves it refers to the same one. Not changed once others refer to it.
 * References may be taken and given back on any thread. */
#ifndef ATOLL_NODE_NODE_HELD_H
#define ATOLL_NODE_NODE_HELD_H

#include "os/file_map.h"
#include "train/state.h"

#include <stdatomic.h>

struct at_held {
    atomic_int refs;
    struct at_hash root;
    struct at_hash *leaves; /* [tiles + 1], leaf 0 first */
    struct at_file_map blob;
    struct at_state state; /* over the blob; unset where nobody computes with it */
};

/* Zeros, with one reference, in a file of `dir` (file_map.h) or, NULL, in memory. AT_E_NOMEM, AT_E_DISK. */
at_err at_held_new(const char *dir, size_t blob_bytes, uint32_t tiles, struct at_diag *diag, struct at_held **ret_held);
struct at_held *at_held_keep(struct at_held *h); /* h */
void at_held_put(struct at_held *h);             /* NULL is fine */

#endif
