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
    NEWEST_SIZE,
    READ_GENESIS,
    ADD_KEPT, /* from here on: agreement's (store_agree.c), not when opened to read only */
    SET_FINAL,
    DROP_TIP,
    DROP_TERMS,
    DROP_VOTES,
    DROP_CERTIFICATES,
    DROP_BLOCKS,
    NEWEST_TERM,
    OLDEST_FINAL,
    READ_KEPT,
    READ_BLOCK,
    READ_FINALS,
    STATEMENTS
};

struct at_store {
    char *path;
    sqlite3 *db;
    sqlite3_stmt *statement[STATEMENTS];
    sqlite3_stmt *scan_records, *scan_checkpoints; /* of at_store_source */
};

at_err_t at_store_sql(struct at_store *s, const char *text, struct at_diag *diag);
/* store_schema.c: makes the tables; refuses those of a newer program; brings older ones up to date. */
at_err_t at_store_schema(struct at_store *s, struct at_diag *diag);
at_err_t at_store_check_version(struct at_store *s, struct at_diag *diag);
at_err_t at_store_upgrade(struct at_store *s, struct at_diag *diag);
/* store_agree.c */
at_err_t at_store_keep(struct at_store *s, const struct at_store_kept *kept, struct at_diag *diag);

/* An SQLite code as ours, with a text for people. */
at_err_t at_store_fail(const struct at_store *s, int rc, struct at_diag *diag);
/* Ends a use of a statement: done and a row are fine, anything else is told. */
at_err_t at_store_finish(const struct at_store *s, sqlite3_stmt *st, int rc, struct at_diag *diag);
/* A column's bytes, whatever its type; borrowed until the statement moves on. */
struct at_span at_store_column(sqlite3_stmt *st, int i);

#endif
