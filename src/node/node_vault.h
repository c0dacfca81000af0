/* node_vault.h: where a node's blobs live, by (kind, key), for its machine. Effects: files of the run folder.
 *
 *   SHARD, UPDATE       whole: D/data, D/updates (store/blobs.h)
 *   STATE               the last two states held: in memory, for peers
 *   STATE               fetched whole, not installed yet: D/fetch/state-<hex>.whole
 *   any, being fetched  D/fetch/<kind>-<hex>; goes on after a crash
 *
 * Thread rule: the loop's thread, but for at_vault_finish: the disk worker's. */
#ifndef ATOLL_NODE_NODE_VAULT_H
#define ATOLL_NODE_NODE_VAULT_H

#include "os/file.h"
#include "store/blobs.h"
#include "wire/message.h"

#define AT_VAULT_STATES 2

struct at_vault {
    char dir[AT_PATH_BYTES];
    struct at_blobs data, updates;               /* the loop's view */
    struct at_blobs data_writer, updates_writer; /* the disk worker's */
    struct {
        struct at_hash root;
        struct at_buf blob;
    } state[AT_VAULT_STATES]; /* newest first */
    struct at_buf piece;
};

at_err at_vault_open(struct at_vault *v, const char *dir, struct at_diag *diag);
void at_vault_release(struct at_vault *v);

/* What is there of it: `have` bytes of a fetch, or all. */
void at_vault_stat(struct at_vault *v, enum at_blob_kind kind, struct at_hash key, uint64_t *ret_have,
                   bool *ret_complete);
/* Offset 0 begins anew. AT_E_DISK. */
at_err at_vault_write(struct at_vault *v, enum at_blob_kind kind, struct at_hash key, uint64_t offset,
                      struct at_span bytes, struct at_diag *diag);
/* All bytes are written: checks them against the key (a state is checked when it is installed) and makes them durable.
 * AT_E_VERIFY: not what the key says. */
at_err at_vault_finish(struct at_vault *v, enum at_blob_kind kind, struct at_hash key, struct at_diag *diag);
void at_vault_drop(struct at_vault *v, enum at_blob_kind kind, struct at_hash key);
/* At most `n` bytes from `offset`, borrowed until the next call. AT_E_NOT_FOUND. */
at_err at_vault_read(struct at_vault *v, enum at_blob_kind kind, struct at_hash key, uint64_t offset, uint32_t n,
                     uint64_t *ret_total, struct at_span *ret_bytes);
/* Drops updates that are not in keep[], whole or being fetched. */
at_err at_vault_prune(struct at_vault *v, const struct at_hash *keep, size_t count, struct at_diag *diag);

/* Takes the bytes over (the caller's buffer is empty afterwards). */
void at_vault_hold_state(struct at_vault *v, struct at_hash root, struct at_buf *blob);
at_err at_vault_state_path(const struct at_vault *v, struct at_hash root, struct at_diag *diag,
                           char ret_path[AT_PATH_BYTES]);
void at_vault_drop_states(struct at_vault *v); /* fetched ones: the folder's own files are newer */

#endif
