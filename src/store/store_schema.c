/* The tables of the file, and what has become of them since: PRAGMA user_version counts the schemas.
 *
 *   0   record, checkpoint (one of each size), meta
 *   1   checkpoint has one of each size and key; kept
 *
 * A file of an older schema is brought up to date in one transaction when it is opened to append; to read only, it is
 * read as it is. */
#include "store/store_internal.h"

enum { VERSION = 1 };

static const char log_tables[] = "CREATE TABLE record(idx INTEGER PRIMARY KEY, body BLOB, author BLOB, sig BLOB);"
                                 "CREATE TABLE meta(key TEXT PRIMARY KEY, value BLOB);";
static const char checkpoint_table[] =
    "CREATE TABLE checkpoint(size INTEGER, root BLOB, steward BLOB, sig BLOB, PRIMARY KEY(size, steward));";
static const char agree_tables[] =
    "CREATE TABLE kept(seq INTEGER PRIMARY KEY, term INTEGER, view INTEGER, kind INTEGER, hash BLOB, bytes BLOB,"
    " final INTEGER);"
    "CREATE INDEX kept_view ON kept(term, kind, final, view);"
    "PRAGMA user_version = 1;";

at_err_t at_store_schema(struct at_store *s, struct at_diag *diag)
{
    at_err_t err = at_store_sql(s, log_tables, diag);
    if (!err) err = at_store_sql(s, checkpoint_table, diag);
    if (!err) err = at_store_sql(s, agree_tables, diag);
    return err;
}

static at_err_t read_version(struct at_store *s, struct at_diag *diag, int *ret_version)
{
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(s->db, "PRAGMA user_version", -1, &st, NULL);
    if (rc == SQLITE_OK) rc = sqlite3_step(st);
    if (rc == SQLITE_ROW) *ret_version = sqlite3_column_int(st, 0);
    (void)sqlite3_finalize(st);
    return rc == SQLITE_ROW ? AT_OK : at_store_fail(s, rc, diag);
}

at_err_t at_store_check_version(struct at_store *s, struct at_diag *diag)
{
    int version = 0;
    at_err_t err = read_version(s, diag, &version);
    if (err) return err;
    if (version >= 0 && version <= VERSION) return AT_OK;
    return at_fail(diag, AT_E_DATA, s->path,
                   "the ledger is of a newer program (schema %d, this one knows %d): update atoll", version, VERSION);
}

at_err_t at_store_upgrade(struct at_store *s, struct at_diag *diag)
{
    int version = 0;
    at_err_t err = read_version(s, diag, &version);
    if (err || version == VERSION) return err;
    err = at_store_sql(s, "BEGIN IMMEDIATE; ALTER TABLE checkpoint RENAME TO checkpoint_0;", diag);
    if (!err) err = at_store_sql(s, checkpoint_table, diag);
    if (!err)
        err = at_store_sql(s,
                           "INSERT INTO checkpoint(size, root, steward, sig)"
                           " SELECT size, root, steward, sig FROM checkpoint_0; DROP TABLE checkpoint_0;",
                           diag);
    if (!err) err = at_store_sql(s, agree_tables, diag);
    if (!err) err = at_store_sql(s, "COMMIT", diag);
    if (err && sqlite3_get_autocommit(s->db) == 0) (void)sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return err;
}
