/* blobs.h: a folder of content-addressed files, <64 hex digits>, each named by the SHA-256 of its bytes. Effects:
 * files.
 *
 * A blob appears whole or not at all: written under a temporary name, synced, renamed, folder synced. What is read is
 * checked against its name. The folder keeps within bytes_max. One thread per object. Codes: AT_E_DISK full or failing,
 * AT_E_TOO_BIG past a cap, AT_E_NOT_FOUND, AT_E_VERIFY damaged on disk (the file is moved away, so that it can be
 * fetched again). */
#ifndef ATOLL_STORE_BLOBS_H
#define ATOLL_STORE_BLOBS_H

#include "base/hash.h"
#include "os/file_map.h"

struct at_blobs {
    char *dir;
    uint64_t bytes, bytes_max; /* of all blobs; 0 = no cap */
};

/* Creates the folder (0700) where missing, removes temporary files of a crash, counts what is there. */
at_err at_blobs_open(struct at_blobs *blobs, const char *dir, uint64_t bytes_max, struct at_diag *diag);
void at_blobs_release(struct at_blobs *blobs);

/* Writes unless it is there already. */
at_err at_blobs_put(struct at_blobs *blobs, struct at_span bytes, struct at_diag *diag, struct at_hash *ret_hash);
bool at_blobs_has(const struct at_blobs *blobs, struct at_hash hash);
at_err at_blobs_size(const struct at_blobs *blobs, struct at_hash hash, uint64_t *ret_bytes);
/* Appends the whole blob to `out` (whose bytes_max is the size check) after checking its hash. */
at_err at_blobs_get(struct at_blobs *blobs, struct at_hash hash, struct at_diag *diag, struct at_buf *out);
/* The same without the memory for it: a map of the file, at most bytes_max. AT_E_DATA: an empty one. */
at_err at_blobs_map(struct at_blobs *blobs, struct at_hash hash, size_t bytes_max, struct at_diag *diag,
                    struct at_file_map *ret_map);
/* Part of a blob for serving: `n` bytes at `offset` into ret_p; not hash-checked (the receiver checks the whole).
 * AT_E_DATA: beyond the end. */
at_err at_blobs_read(const struct at_blobs *blobs, struct at_hash hash, uint64_t offset, uint8_t *ret_p, size_t n,
                     struct at_diag *diag);
/* Deletes every blob that is not in keep[]. */
at_err at_blobs_prune(struct at_blobs *blobs, const struct at_hash *keep, size_t count, struct at_diag *diag);

#endif
