/* node_vault.h: where a node's blobs live, by (kind, key), for its machine. Effects: files of the run folder.
 *
 *   SHARD, UPDATE       whole: D/data, D/updates (store/blobs.h)
 *   LEAVES, TILE        of the last two states held (node_held.h), for peers
 *   STATE               fetched whole, not installed yet: D/fetch/state-<hex>.whole
 *   any, being fetched  D/fetch/<kind>-<hex>; goes on after a crash. Of a state: as long as its blob, tiles at their
 *                       places, read by peers too
 *
 * States: node_vault_state.c. Thread rule: the loop's thread, but for at_vault_finish and at_vault_find: the disk
 * worker's. */
#ifndef ATOLL_NODE_NODE_VAULT_H
#define ATOLL_NODE_NODE_VAULT_H

#include "node/node_held.h"
#include "os/file.h"
#include "store/blobs.h"
#include "wire/message.h"

#define AT_VAULT_STATES 2

struct at_vault {
    char dir[AT_PATH_BYTES];
    struct at_blobs data, updates;               /* the loop's view */
    struct at_blobs data_writer, updates_writer; /* the disk worker's */
    struct at_held *state[AT_VAULT_STATES];      /* newest first */
    const struct at_tile *tile;                  /* how a state is cut; borrowed; NULL: not known yet */
    uint32_t tiles;
    uint64_t state_bytes; /* of its blob */
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

/* ---- states ---- */
void at_vault_set_shape(struct at_vault *v, const struct at_tile *tile, uint32_t tiles, uint64_t blob_bytes);
/* With a reference of its own. */
void at_vault_hold_state(struct at_vault *v, struct at_held *state);
struct at_held *at_vault_state(const struct at_vault *v, struct at_hash root); /* one that is held; NULL: it is not */
/* As at_vault_read, of LEAVES and TILE. */
at_err at_vault_read_state(struct at_vault *v, enum at_blob_kind kind, struct at_hash root, uint64_t offset, uint32_t n,
                           uint64_t *ret_total, struct at_span *ret_bytes);
at_err at_vault_write_tile(struct at_vault *v, struct at_hash root, uint64_t tile, struct at_span bytes,
                           struct at_diag *diag);

/* Which tiles of a state are here already? Prepared and released on the loop's thread, done on any. */
struct at_vault_search {
    char path[AT_PATH_BYTES]; /* of the unfinished state */
    const struct at_tile *tile;
    uint32_t tiles;
    uint64_t state_bytes;
    uint8_t header[AT_STATE_HEADER_BYTES]; /* the caller's: of the state that is looked for */
    struct at_buf leaves;                  /* 32 bytes each, leaf 0 first; owned */
    struct at_held *state[AT_VAULT_STATES];
    uint8_t *found; /* [(tiles + 7) / 8]; owned */
};
/* Unfinished states but this one are removed. AT_E_NOMEM, AT_E_DATA (a list of another length). */
at_err at_vault_search_init(struct at_vault *v, struct at_hash root, struct at_span leaves, struct at_diag *diag,
                            struct at_vault_search *ret_search);
void at_vault_search_release(struct at_vault_search *s);
/* Every tile in the file, if there is one, is checked; those that a state held has in common with it are copied. */
at_err at_vault_find(struct at_vault_search *s, struct at_diag *diag);

at_err at_vault_state_path(const struct at_vault *v, struct at_hash root, struct at_diag *diag,
                           char ret_path[AT_PATH_BYTES]);
void at_vault_drop_states(struct at_vault *v); /* fetched ones: the folder's own files are newer */

#endif
