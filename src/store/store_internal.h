/* store_internal.h: what the files of the store share; for store/ only. */
#ifndef ATOLL_STORE_STORE_INTERNAL_H
#define ATOLL_STORE_STORE_INTERNAL_H

#include "store/store.h"

#include <sqlite3.h>

enum statement {
    COUNT,
    ADD_RECORD,
    ADD_CHECKPOINT,
    READ_RECORDS,
    READ_CHECKPOINTS,
    NEWEST_CHECKPOINT,
    READ_GENESIS,
    STATEMENTS
};

struct at_store {
    char *path;
    sqlite3 *db;
    sqlite3_stmt *statement[STATEMENTS];
    sqlite3_stmt *scan_records, *scan_checkpoints; /* of at_store_source */
};

/* An SQLite code as ours, with a text for people. */
at_err_t at_store_fail(const struct at_store *s, int rc, struct at_diag *diag);
/* Ends a use of a statement: done and a row are fine, anything else is told. */
at_err_t at_store_finish(const struct at_store *s, sqlite3_stmt *st, int rc, struct at_diag *diag);
/* A column's bytes, whatever its type; borrowed until the statement moves on. */
struct at_span at_store_column(sqlite3_stmt *st, int i);

#endif
