/* store.h: the log on disk: one SQLite file (WAL, synchronous FULL, mode 0600). Effects: files. One thread per object.
 *
 *   record(idx INTEGER PRIMARY KEY, body BLOB, author BLOB, sig BLOB)       idx from 0 without gaps
 *   checkpoint(size INTEGER, root BLOB, steward BLOB, sig BLOB)             one of each size and key
 *   meta(key TEXT PRIMARY KEY, value BLOB)                                  "genesis": so that the file verifies alone
 *   kept(seq INTEGER PRIMARY KEY, term, view, kind, hash BLOB, bytes BLOB, final)   of a steward of several: what it must
 *                                                                           not forget (consensus/simplex.h)
 *
 * No secret is in it: anybody may be given a copy of the file. What at_store_write has returned AT_OK for survives kill
 * -9 and power loss. Its meaning is judged elsewhere (ledger/, consensus/). Codes: AT_E_DISK full or failing, with what to
 * do; AT_E_DATA not an Atoll ledger, of a newer program, or damaged; AT_E_ENV permissions, locked. */
#ifndef ATOLL_STORE_STORE_H
#define ATOLL_STORE_STORE_H

#include "wire/log_checkpoint.h"
#include "wire/log_source.h"
#include "wire/record.h"
#include "wire/vote.h"

struct at_store;

/* Makes a new file holding the genesis. AT_E_ENV when one exists already. */
at_err at_store_create(const char *path, struct at_span genesis, struct at_diag *diag, struct at_store **ret_store);
/* Opens an existing one to read and append. AT_E_NOT_FOUND. */
at_err at_store_open(const char *path, struct at_diag *diag, struct at_store **ret_store);
/* Opens to read only: never changes the file, works on a copy and on a write-protected medium. A WAL left beside the
 * file by a running or killed node is read too (for a WAL without its index, SQLite makes the index beside it). */
at_err at_store_open_readonly(const char *path, struct at_diag *diag, struct at_store **ret_store);
/* The file then holds everything by itself, with nothing beside it, and may be moved once it is closed; closing alone does
 * not tell when that fails. AT_E_DISK. */
at_err at_store_seal(struct at_store *store, struct at_diag *diag);
void at_store_close(struct at_store *store); /* NULL is fine */

/* Appends the genesis bytes to `out`. */
at_err at_store_genesis(struct at_store *store, struct at_diag *diag, struct at_buf *out);
at_err at_store_size(struct at_store *store, struct at_diag *diag, uint64_t *ret_size); /* records */

enum at_store_kept_kind {                       /* numbers of the column */
                          AT_STORE_VOTE = 1,    /* view, bytes */
                          AT_STORE_CERTIFICATE, /* view, bytes */
                          AT_STORE_BLOCK,       /* view, hash = SHA-256 of bytes */
                          AT_STORE_FINAL, /* view, hash of a BLOCK that is stored, bytes: its certificate, or none */
                          AT_STORE_TIP,   /* bytes; takes the place of the term's TIP before */
                          AT_STORE_ABSTAIN,
                          AT_STORE_PRUNE, /* no row, but an order: what is of earlier terms goes; of this term VOTEs of views < view but those of
                     * the newest view that has any, CERTIFICATEs of views < view, BLOCKs of views < view that are not final */
};
struct at_store_kept {
    enum at_store_kept_kind kind;
    uint32_t term;
    uint64_t view; /* <= AT_VIEW_MAX */
    struct at_hash hash;
    struct at_span bytes;
};

/* Records first, first + 1, ...; checkpoints of sizes up to the log's with these records (one that is known already stays
 * as it is); what is kept, in order. */
struct at_store_batch {
    uint64_t first;
    const struct at_signed_record *records;
    uint32_t count;
    const struct at_log_checkpoint *checkpoints;
    uint32_t checkpoint_count;
    const struct at_store_kept *kept;
    size_t kept_count;
};
/* In one transaction, durable on return. AT_E_VERIFY when `first` is not the current size, a checkpoint is beyond it, or a
 * final block is not stored. All or nothing. */
at_err at_store_write(struct at_store *store, const struct at_store_batch *batch, struct at_diag *diag);
/* The same with nothing kept. */
at_err at_store_append(struct at_store *store, uint64_t first, const struct at_signed_record *records, uint32_t count,
                       const struct at_log_checkpoint *checkpoints, uint32_t checkpoint_count, struct at_diag *diag);

/* Up to `count` records from `from` on; fewer at the end of the log. AT_E_DATA: a row is damaged or missing. */
at_err at_store_read(struct at_store *store, uint64_t from, uint32_t count, struct at_diag *diag,
                     struct at_signed_record *ret_records, uint32_t *ret_count);
/* Up to `count` checkpoints with size >= from_size, ascending by (size, key). */
at_err at_store_read_checkpoints(struct at_store *store, uint64_t from_size, uint32_t count, struct at_diag *diag,
                                 struct at_log_checkpoint *ret_checkpoints, uint32_t *ret_count);
/* Those of the newest size, ascending by key. AT_E_NOT_FOUND when there are none. */
at_err at_store_newest_checkpoint(struct at_store *store, struct at_diag *diag,
                                  struct at_log_checkpoint ret_checkpoints[AT_SEATS_MAX], uint32_t *ret_count);
/* A part for somebody who has `from` records: up to `most` (>= AT_SEATS_MAX) of the next ones, ending with a checkpoint of
 * at most `last`, and the checkpoints that vouch for them: of a single steward all, else those of the last size. None when
 * there is no checkpoint in reach. */
at_err at_store_read_part(struct at_store *store, uint64_t from, uint64_t last, uint32_t most, struct at_diag *diag,
                          struct at_signed_record *ret_records, uint32_t *ret_count,
                          struct at_log_checkpoint *ret_checkpoints, uint32_t *ret_checkpoint_count);

/* ---- what is kept ----
 * AT_E_DATA: a row is damaged; it is named. What is given is borrowed for the call, which must leave the store alone. */
typedef at_err_t at_store_take_fn(void *user, const struct at_store_kept *kept, struct at_diag *diag);

/* All rows of the newest term, in the order of their writing; of its FINALs and their BLOCKs the newest `finals_max`. */
at_err at_store_restore(struct at_store *store, uint32_t finals_max, at_store_take_fn *take, void *user,
                        struct at_diag *diag);
/* A BLOCK. AT_E_NOT_FOUND. */
at_err at_store_block(struct at_store *store, uint32_t term, uint64_t view, struct at_hash hash, at_store_take_fn *take,
                      void *user, struct at_diag *diag);
/* FINALs of views > `view`, ascending, up to one with a certificate whose view is >= `last`, at most `most`. */
at_err at_store_finals(struct at_store *store, uint32_t term, uint64_t view, uint64_t last, uint32_t most,
                       at_store_take_fn *take, void *user, struct at_diag *diag);

/* The whole log as a stream for at_ledger_verify, from its start; borrowed from the store, one at a time. */
at_err at_store_source(struct at_store *store, struct at_diag *diag, struct at_log_source *ret_source);

#endif
