/* The whole log as a stream of rows (wire/log_source.h), for whoever verifies it. */
#include "store/store_internal.h"

static at_err_t next_row(struct at_store *s, sqlite3_stmt *st, struct at_diag *diag)
{
    int rc = sqlite3_step(st);
    if (rc == SQLITE_ROW) return AT_OK;
    at_err_t err = at_store_finish(s, st, rc, diag);
    return err ? err : AT_E_NOT_FOUND;
}

static at_err_t next_record(void *ctx, struct at_diag *diag, struct at_log_row *ret_row)
{
    struct at_store *s = ctx;
    at_err_t err = next_row(s, s->scan_records, diag);
    if (err) return err;
    *ret_row = (struct at_log_row){.idx = (uint64_t)sqlite3_column_int64(s->scan_records, 0),
                                   .body = at_store_column(s->scan_records, 1),
                                   .author = at_store_column(s->scan_records, 2),
                                   .sig = at_store_column(s->scan_records, 3)};
    return AT_OK;
}

static at_err_t next_checkpoint(void *ctx, struct at_diag *diag, struct at_log_checkpoint_row *ret_row)
{
    struct at_store *s = ctx;
    at_err_t err = next_row(s, s->scan_checkpoints, diag);
    if (err) return err;
    *ret_row = (struct at_log_checkpoint_row){.size = (uint64_t)sqlite3_column_int64(s->scan_checkpoints, 0),
                                              .root = at_store_column(s->scan_checkpoints, 1),
                                              .steward = at_store_column(s->scan_checkpoints, 2),
                                              .sig = at_store_column(s->scan_checkpoints, 3)};
    return AT_OK;
}

at_err at_store_source(struct at_store *s, struct at_diag *diag, struct at_log_source *ret_source)
{
    (void)sqlite3_finalize(s->scan_records);
    (void)sqlite3_finalize(s->scan_checkpoints);
    s->scan_records = s->scan_checkpoints = NULL;
    int rc =
        sqlite3_prepare_v2(s->db, "SELECT idx, body, author, sig FROM record ORDER BY idx", -1, &s->scan_records, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_prepare_v2(s->db, "SELECT size, root, steward, sig FROM checkpoint ORDER BY size, steward", -1,
                                &s->scan_checkpoints, NULL);
    if (rc != SQLITE_OK) return at_store_fail(s, rc, diag);
    *ret_source = (struct at_log_source){.ctx = s, .next_record = next_record, .next_checkpoint = next_checkpoint};
    return AT_OK;
}
