/* store.h: the log on disk: one SQLite file (WAL, synchronous FULL, mode 0600). Effects: files. One thread per object.
 *
 *   record(idx INTEGER PRIMARY KEY, body BLOB, author BLOB, sig BLOB)       idx from 0 without gaps
 *   checkpoint(size INTEGER PRIMARY KEY, root BLOB, steward BLOB, sig BLOB)
 *   meta(key TEXT PRIMARY KEY, value BLOB)                                  "genesis": so that the file verifies alone
 *
 * What at_store_append has returned AT_OK for survives kill -9 and power loss. Its meaning is judged elsewhere
 * (ledger/). Codes: AT_E_DISK full or failing, with what to do; AT_E_DATA not an Atoll ledger, or damaged; AT_E_ENV
 * permissions, locked. */
#ifndef ATOLL_STORE_STORE_H
#define ATOLL_STORE_STORE_H

#include "wire/log_checkpoint.h"
#include "wire/log_source.h"
#include "wire/record.h"

struct at_store;

/* Makes a new file holding the genesis. AT_E_ENV when one exists already. */
at_err at_store_create(const char *path, struct at_span genesis, struct at_diag *diag, struct at_store **ret_store);
/* Opens an existing one to read and append. AT_E_NOT_FOUND. */
at_err at_store_open(const char *path, struct at_diag *diag, struct at_store **ret_store);
/* Opens to read only: never changes the file, works on a copy and on a write-protected medium. A WAL left beside the
 * file by a running or killed node is read too (for a WAL without its index, SQLite makes the index beside it). */
at_err at_store_open_readonly(const char *path, struct at_diag *diag, struct at_store **ret_store);
void at_store_close(struct at_store *store); /* NULL is fine */

/* Appends the genesis bytes to `out`. */
at_err at_store_genesis(struct at_store *store, struct at_diag *diag, struct at_buf *out);
at_err at_store_size(struct at_store *store, struct at_diag *diag, uint64_t *ret_size); /* records */

/* Records first, first + 1, ... and checkpoints (any number, sizes ascending, within first+1 .. first+count), in one
 * transaction, durable on return. AT_E_VERIFY when `first` is not the current size. All or nothing. */
at_err at_store_append(struct at_store *store, uint64_t first, const struct at_signed_record *records, uint32_t count,
                       const struct at_log_checkpoint *checkpoints, uint32_t checkpoint_count, struct at_diag *diag);

/* Up to `count` records from `from` on; fewer at the end of the log. AT_E_DATA: a row is damaged or missing. */
at_err at_store_read(struct at_store *store, uint64_t from, uint32_t count, struct at_diag *diag,
                     struct at_signed_record *ret_records, uint32_t *ret_count);
/* Up to `count` checkpoints with size >= from_size, ascending. */
at_err at_store_read_checkpoints(struct at_store *store, uint64_t from_size, uint32_t count, struct at_diag *diag,
                                 struct at_log_checkpoint *ret_checkpoints, uint32_t *ret_count);
/* The newest checkpoint. AT_E_NOT_FOUND when there is none. */
at_err at_store_newest_checkpoint(struct at_store *store, struct at_diag *diag,
                                  struct at_log_checkpoint *ret_checkpoint);

/* The whole log as a stream for at_ledger_verify, from its start; borrowed from the store, one at a time. */
at_err at_store_source(struct at_store *store, struct at_diag *diag, struct at_log_source *ret_source);

#endif
