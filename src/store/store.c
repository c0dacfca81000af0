#include "store/store.h"
#include "store/store_internal.h"

#include <string.h>

/* ---- reading ----------------------------------------------------------------------------------------------------- */
struct at_span at_store_column(sqlite3_stmt *st, int i)
{
    const void *p = sqlite3_column_blob(st, i); /* before the size: it may convert */
    int n = sqlite3_column_bytes(st, i);
    return at_span(p, p != NULL && n > 0 ? (size_t)n : 0);
}

/* Ends a use of a statement: SQLITE_DONE and SQLITE_ROW are fine, anything else is told. */
at_err_t at_store_finish(const struct at_store *s, sqlite3_stmt *st, int rc, struct at_diag *diag)
{
    at_err_t err = rc == SQLITE_DONE || rc == SQLITE_ROW || rc == SQLITE_OK ? AT_OK : at_store_fail(s, rc, diag);
    (void)sqlite3_reset(st);
    (void)sqlite3_clear_bindings(st);
    return err;
}

at_err at_store_genesis(struct at_store *s, struct at_diag *diag, struct at_buf *out)
{
    sqlite3_stmt *st = s->statement[READ_GENESIS];
    int rc = sqlite3_step(st);
    at_err_t err = AT_OK;
    if (rc == SQLITE_ROW) {
        struct at_span value = at_store_column(st, 0);
        err = at_buf_append(out, value.p, value.n);
    } else if (rc == SQLITE_DONE) {
        err = at_fail(diag, AT_E_DATA, s->path, "not an Atoll ledger: it holds no genesis");
    }
    at_err_t end = at_store_finish(s, st, rc, diag);
    return err ? err : end;
}

at_err at_store_size(struct at_store *s, struct at_diag *diag, uint64_t *ret_size)
{
    sqlite3_stmt *st = s->statement[COUNT];
    int rc = sqlite3_step(st);
    bool some = rc == SQLITE_ROW && sqlite3_column_type(st, 0) != SQLITE_NULL;
    sqlite3_int64 last = some ? sqlite3_column_int64(st, 0) : -1;
    at_err_t err = at_store_finish(s, st, rc, diag);
    if (err) return err;
    if (last < -1 || last == INT64_MAX || (some && last < 0))
        return at_fail(diag, AT_E_DATA, s->path, "the ledger file is damaged: a record has a negative place");
    *ret_size = (uint64_t)(last + 1);
    return AT_OK;
}

at_err at_store_read(struct at_store *s, uint64_t from, uint32_t count, struct at_diag *diag,
                     struct at_signed_record *ret_records, uint32_t *ret_count)
{
    if (from > INT64_MAX) return at_fail(diag, AT_E_DATA, s->path, "no such record");
    sqlite3_stmt *st = s->statement[READ_RECORDS];
    uint32_t n = 0;
    at_err_t err = AT_OK;
    (void)sqlite3_bind_int64(st, 1, (sqlite3_int64)from);
    (void)sqlite3_bind_int64(st, 2, count);
    int rc;
    while ((rc = sqlite3_step(st)) == SQLITE_ROW && !err && n < count) {
        if ((uint64_t)sqlite3_column_int64(st, 0) != from + n)
            err = at_fail(diag, AT_E_DATA, s->path, "the ledger is damaged: record %llu is missing",
                          (unsigned long long)(from + n));
        struct at_diag detail = {.err = AT_OK};
        if (!err)
            err = at_signed_record_from(at_store_column(st, 1), at_store_column(st, 2), at_store_column(st, 3), &detail,
                                        &ret_records[n]);
        if (err)
            (void)at_fail(diag, err, s->path, "the ledger is damaged at record %llu: %.200s",
                          (unsigned long long)(from + n), detail.text);
        else
            n++;
    }
    at_err_t end = at_store_finish(s, st, rc, diag);
    if (err || end) return err ? err : end;
    *ret_count = n;
    return AT_OK;
}

static bool take_bytes(struct at_span from, uint8_t *to, size_t n)
{
    if (from.n != n) return false;
    memcpy(to, from.p, n);
    return true;
}

static at_err_t read_checkpoint(const struct at_store *s, sqlite3_stmt *st, struct at_diag *diag,
                                struct at_log_checkpoint *ret)
{
    struct at_log_checkpoint c = {.size = (uint64_t)sqlite3_column_int64(st, 0)};
    if (!take_bytes(at_store_column(st, 1), c.root.b, AT_HASH_BYTES) ||
        !take_bytes(at_store_column(st, 2), c.steward.b, AT_KEY_BYTES) ||
        !take_bytes(at_store_column(st, 3), c.sig.b, AT_SIG_BYTES))
        return at_fail(diag, AT_E_DATA, s->path, "the ledger is damaged: a checkpoint has the wrong size");
    *ret = c;
    return AT_OK;
}

at_err at_store_read_checkpoints(struct at_store *s, uint64_t from_size, uint32_t count, struct at_diag *diag,
                                 struct at_log_checkpoint *ret_checkpoints, uint32_t *ret_count)
{
    if (from_size > INT64_MAX) return at_fail(diag, AT_E_DATA, s->path, "no such checkpoint");
    sqlite3_stmt *st = s->statement[READ_CHECKPOINTS];
    uint32_t n = 0;
    at_err_t err = AT_OK;
    (void)sqlite3_bind_int64(st, 1, (sqlite3_int64)from_size);
    (void)sqlite3_bind_int64(st, 2, count);
    int rc;
    while ((rc = sqlite3_step(st)) == SQLITE_ROW && n < count) {
        err = read_checkpoint(s, st, diag, &ret_checkpoints[n]);
        if (err) break;
        n++;
    }
    at_err_t end = at_store_finish(s, st, rc, diag);
    if (err || end) return err ? err : end;
    *ret_count = n;
    return AT_OK;
}

/* The largest size with a checkpoint, up to `most`; 0: none. */
static at_err_t newest_size(struct at_store *s, uint64_t most, struct at_diag *diag, uint64_t *ret_size)
{
    sqlite3_stmt *st = s->statement[NEWEST_SIZE];
    (void)sqlite3_bind_int64(st, 1, (sqlite3_int64)(most < INT64_MAX ? most : INT64_MAX));
    int rc = sqlite3_step(st);
    sqlite3_int64 size = rc == SQLITE_ROW ? sqlite3_column_int64(st, 0) : 0;
    at_err_t err = at_store_finish(s, st, rc, diag);
    if (!err) *ret_size = size > 0 ? (uint64_t)size : 0;
    return err;
}

/* The cosignatures of one size. */
static at_err_t read_size(struct at_store *s, uint64_t size, struct at_diag *diag,
                          struct at_log_checkpoint ret_checkpoints[AT_SEATS_MAX], uint32_t *ret_count)
{
    uint32_t n = 0;
    at_err_t err = at_store_read_checkpoints(s, size, AT_SEATS_MAX, diag, ret_checkpoints, &n);
    if (err) return err;
    while (n > 0 && ret_checkpoints[n - 1].size != size) n--;
    *ret_count = n;
    return AT_OK;
}

at_err at_store_newest_checkpoint(struct at_store *s, struct at_diag *diag,
                                  struct at_log_checkpoint ret_checkpoints[AT_SEATS_MAX], uint32_t *ret_count)
{
    uint64_t size = 0;
    at_err_t err = newest_size(s, UINT64_MAX, diag, &size);
    if (err) return err;
    return size != 0 ? read_size(s, size, diag, ret_checkpoints, ret_count) : AT_E_NOT_FOUND;
}

at_err at_store_read_part(struct at_store *s, uint64_t from, uint64_t last, uint32_t most, struct at_diag *diag,
                          struct at_signed_record *ret_records, uint32_t *ret_count,
                          struct at_log_checkpoint *ret_checkpoints, uint32_t *ret_checkpoint_count)
{
    AT_ASSERT(most >= AT_SEATS_MAX);
    uint64_t end = from <= UINT64_MAX - most ? from + most : UINT64_MAX, size = 0;
    uint32_t count = 0, checkpoints = 0;
    at_err_t err = newest_size(s, end < last ? end : last, diag, &size);
    if (err) return err;
    if (size > from) {
        err = at_store_read(s, from, (uint32_t)(size - from), diag, ret_records, &count);
        if (!err && count != size - from)
            err = at_fail(diag, AT_E_DATA, s->path, "the ledger is damaged: record %llu is missing",
                          (unsigned long long)(from + count));
        if (!err) err = read_size(s, size, diag, ret_checkpoints, &checkpoints);
        if (!err && checkpoints == 1) { /* a single steward's: each size has one */
            err = at_store_read_checkpoints(s, from + 1, most, diag, ret_checkpoints, &checkpoints);
            while (checkpoints > 0 && ret_checkpoints[checkpoints - 1].size > size) checkpoints--;
        }
        if (err) return err;
    }
    *ret_count = count;
    *ret_checkpoint_count = checkpoints;
    return AT_OK;
}

/* ---- appending --------------------------------------------------------------------------------------------------- */
static at_err_t insert(struct at_store *s, enum statement which, uint64_t key, struct at_span a, struct at_span b,
                       struct at_span c, struct at_diag *diag)
{
    sqlite3_stmt *st = s->statement[which];
    (void)sqlite3_bind_int64(st, 1, (sqlite3_int64)key);
    int rc = sqlite3_bind_blob64(st, 2, a.p, a.n, SQLITE_STATIC);
    if (rc == SQLITE_OK) rc = sqlite3_bind_blob64(st, 3, b.p, b.n, SQLITE_STATIC);
    if (rc == SQLITE_OK) rc = sqlite3_bind_blob64(st, 4, c.p, c.n, SQLITE_STATIC);
    if (rc == SQLITE_OK) rc = sqlite3_step(st);
    return at_store_finish(s, st, rc, diag);
}

static at_err_t insert_log(struct at_store *s, const struct at_store_batch *b, struct at_diag *diag)
{
    uint64_t size;
    at_err_t err = at_store_size(s, diag, &size);
    if (err) return err;
    if (b->count != 0 && size != b->first)
        return at_fail(diag, AT_E_VERIFY, s->path, "the ledger holds %llu records, so record %llu cannot be the next",
                       (unsigned long long)size, (unsigned long long)b->first);
    for (uint32_t i = 0; !err && i < b->count; i++)
        err = insert(s, ADD_RECORD, b->first + i, at_signed_record_body(&b->records[i]),
                     at_span(b->records[i].author.b, AT_KEY_BYTES), at_span(b->records[i].sig.b, AT_SIG_BYTES), diag);
    for (uint32_t i = 0; !err && i < b->checkpoint_count; i++) {
        const struct at_log_checkpoint *c = &b->checkpoints[i];
        if (c->size == 0 || c->size > size + b->count)
            return at_fail(diag, AT_E_VERIFY, s->path,
                           "the ledger holds %llu records, so there is no checkpoint of %llu",
                           (unsigned long long)(size + b->count), (unsigned long long)c->size);
        err = insert(s, ADD_CHECKPOINT, c->size, at_span(c->root.b, AT_HASH_BYTES), at_span(c->steward.b, AT_KEY_BYTES),
                     at_span(c->sig.b, AT_SIG_BYTES), diag);
    }
    return err;
}

at_err at_store_write(struct at_store *s, const struct at_store_batch *batch, struct at_diag *diag)
{
    AT_ASSERT(s->statement[ADD_RECORD] != NULL); /* not opened to read only */
    at_err_t err = at_store_sql(s, "BEGIN IMMEDIATE", diag);
    if (err) return err;
    if (batch->count != 0 || batch->checkpoint_count != 0) err = insert_log(s, batch, diag);
    for (size_t i = 0; !err && i < batch->kept_count; i++) err = at_store_keep(s, &batch->kept[i], diag);
    if (!err) err = at_store_sql(s, "COMMIT", diag);
    /* After some failures SQLite has rolled back by itself. */
    if (err && sqlite3_get_autocommit(s->db) == 0) (void)sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return err;
}

at_err at_store_append(struct at_store *s, uint64_t first, const struct at_signed_record *records, uint32_t count,
                       const struct at_log_checkpoint *checkpoints, uint32_t checkpoint_count, struct at_diag *diag)
{
    return at_store_write(s,
                          &(struct at_store_batch){.first = first,
                                                   .records = records,
                                                   .count = count,
                                                   .checkpoints = checkpoints,
                                                   .checkpoint_count = checkpoint_count},
                          diag);
}
