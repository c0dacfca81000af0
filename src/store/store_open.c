/* store_open.c: the ledger's file made, opened and closed, with its statements; what SQLite says, told to people. */
#include "os/file.h"
#include "store/store.h"
#include "store/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const sql[STATEMENTS] = {
    [COUNT] = "SELECT max(idx) FROM record",
    [ADD_RECORD] = "INSERT INTO record(idx, body, author, sig) VALUES(?1, ?2, ?3, ?4)",
    [ADD_CHECKPOINT] = "INSERT OR IGNORE INTO checkpoint(size, root, steward, sig) VALUES(?1, ?2, ?3, ?4)",
    [READ_RECORDS] = "SELECT idx, body, author, sig FROM record WHERE idx >= ?1 ORDER BY idx LIMIT ?2",
    [READ_CHECKPOINTS] =
        "SELECT size, root, steward, sig FROM checkpoint WHERE size >= ?1 ORDER BY size, steward LIMIT ?2",
    [NEWEST_SIZE] = "SELECT max(size) FROM checkpoint WHERE size <= ?1",
    [READ_GENESIS] = "SELECT value FROM meta WHERE key = 'genesis'",
    [ADD_KEPT] = "INSERT INTO kept(term, view, kind, hash, bytes, final) VALUES(?1, ?2, ?3, ?4, ?5, 0)",
    [SET_FINAL] = "UPDATE kept SET final = 1 WHERE term = ?1 AND kind = 3 AND final IN (0, 1) "
                  "AND view = ?2 AND hash = ?3",
    [DROP_TIP] = "DELETE FROM kept WHERE term = ?1 AND kind = 5 AND final = 0",
    [DROP_TERMS] = "DELETE FROM kept WHERE term < ?1",
    [DROP_VOTES] = "DELETE FROM kept WHERE term = ?1 AND kind = 1 AND final = 0 AND view < ?2 "
                   "AND view < (SELECT max(view) FROM kept WHERE term = ?1 AND kind = 1 AND final = 0)",
    [DROP_CERTIFICATES] = "DELETE FROM kept WHERE term = ?1 AND kind = 2 AND final = 0 AND view < ?2",
    [DROP_BLOCKS] = "DELETE FROM kept WHERE term = ?1 AND kind = 3 AND final = 0 AND view < ?2",
    [NEWEST_TERM] = "SELECT max(term) FROM kept",
    [OLDEST_FINAL] =
        "SELECT view FROM kept WHERE term = ?1 AND kind = 4 AND final = 0 ORDER BY view DESC LIMIT 1 OFFSET ?2",
    [READ_KEPT] = "SELECT kind, view, hash, bytes FROM kept WHERE term = ?1 AND "
                  "(kind NOT IN (3, 4) OR view >= ?2) ORDER BY seq",
    [READ_BLOCK] = "SELECT kind, view, hash, bytes FROM kept WHERE term = ?1 AND kind = 3 AND final IN (0, 1) "
                   "AND view = ?2 AND hash = ?3",
    [READ_FINALS] = "SELECT kind, view, hash, bytes FROM kept WHERE term = ?1 AND kind = 4 AND final = 0 "
                    "AND view > ?2 ORDER BY view",
};

/* ---- errors ------------------------------------------------------------------------------------------------------ */
static at_err_t fail(const char *path, sqlite3 *db, int rc, struct at_diag *diag)
{
    const char *detail = db != NULL ? sqlite3_errmsg(db) : sqlite3_errstr(rc);
    switch (rc & 0xff) {
    case SQLITE_FULL:
        return at_fail(diag, AT_E_DISK, path,
                       "the disk is full; nothing that was acknowledged is lost. Free some space and start again");
    case SQLITE_IOERR:
        return at_fail(diag, AT_E_DISK, path,
                       "reading or writing failed (%s). Is the disk full, or failing? Free some space "
                       "or check it, then start again",
                       detail);
    case SQLITE_NOTADB:
        return at_fail(diag, AT_E_DATA, path, "not an Atoll ledger");
    case SQLITE_CORRUPT:
        return at_fail(diag, AT_E_DATA, path, "the ledger file is damaged (%s)", detail);
    case SQLITE_NOMEM:
        return at_fail(diag, AT_E_NOMEM, path, "out of memory");
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL: /* others opened or closed it for seconds on end */
        return at_fail(diag, AT_E_ENV, path, "the ledger is in use by another process");
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_AUTH:
        return at_fail(diag, AT_E_ENV, path, "the system does not let us use the file (%s)", detail);
    default:
        return at_fail(diag, AT_E_DATA, path, "not an Atoll ledger, or damaged (%s)", detail);
    }
}

at_err_t at_store_fail(const struct at_store *s, int rc, struct at_diag *diag)
{
    return fail(s->path, s->db, rc, diag);
}

at_err_t at_store_sql(struct at_store *s, const char *text, struct at_diag *diag)
{
    int rc = sqlite3_exec(s->db, text, NULL, NULL, NULL);
    return rc == SQLITE_OK ? AT_OK : at_store_fail(s, rc, diag);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */
/* "file:" URI of a path, everything unusual escaped. Owned by the caller; NULL without memory. */
static char *make_uri(const char *path, const char *query)
{
    size_t n = strlen(path), at = 5;
    char *uri = malloc(5 + 3 * n + strlen(query) + 1);
    if (uri == NULL) return NULL;
    memcpy(uri, "file:", 5);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)path[i];
        bool plain =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("/._-", c) != NULL;
        if (plain)
            uri[at++] = (char)c;
        else
            at += (size_t)sprintf(uri + at, "%%%02x", c);
    }
    strcpy(uri + at, query);
    return uri;
}

static bool neighbour_exists(const char *path, const char *suffix, bool only_with_content)
{
    char name[AT_PATH_BYTES];
    struct stat st;
    int n = snprintf(name, sizeof name, "%s%s", path, suffix);
    return n > 0 && (size_t)n < sizeof name && stat(name, &st) == 0 && (!only_with_content || st.st_size > 0);
}

/* How to read without writing: a file that stands alone is read as a constant; beside a shared index (a node runs, or
 * was killed) the log is read through it without changing it. */
static const char *readonly_query(const char *path)
{
    if (neighbour_exists(path, "-shm", false)) return "?mode=ro&readonly_shm=1";
    if (neighbour_exists(path, "-wal", true)) return "?mode=ro";
    return "?immutable=1";
}

static at_err_t check_file(const char *path, struct at_diag *diag)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        bool missing = errno == ENOENT || errno == ENOTDIR;
        return at_fail(diag, missing ? AT_E_NOT_FOUND : AT_E_ENV, path, "%s",
                       missing ? "no such ledger" : strerror(errno));
    }
    if (!S_ISREG(st.st_mode)) return at_fail(diag, AT_E_DATA, path, "not a file");
    return st.st_size != 0 ? AT_OK : at_fail(diag, AT_E_DATA, path, "the file is empty: not an Atoll ledger");
}

/* A foreign file may hold anything under our names: only plain tables will do. */
static at_err_t check_tables(struct at_store *s, struct at_diag *diag)
{
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(s->db,
                                "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN "
                                "('record', 'checkpoint', 'meta')",
                                -1, &st, NULL);
    if (rc == SQLITE_OK) rc = sqlite3_step(st);
    int tables = rc == SQLITE_ROW ? sqlite3_column_int(st, 0) : 0;
    (void)sqlite3_finalize(st);
    if (rc != SQLITE_ROW) return at_store_fail(s, rc, diag);
    return tables == 3 ? AT_OK : at_fail(diag, AT_E_DATA, s->path, "not an Atoll ledger");
}

static at_err_t prepare(struct at_store *s, bool writable, struct at_diag *diag)
{
    at_err_t err = AT_OK;
    for (int i = 0; !err && i < STATEMENTS; i++) {
        if (!writable && (i == ADD_RECORD || i == ADD_CHECKPOINT || i >= ADD_KEPT)) continue;
        int rc = sqlite3_prepare_v3(s->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &s->statement[i], NULL);
        if (rc != SQLITE_OK) err = at_store_fail(s, rc, diag);
    }
    return err;
}

static void harden(sqlite3 *db)
{
    (void)sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    (void)sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    (void)sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    (void)sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL);
    (void)sqlite3_limit(db, SQLITE_LIMIT_LENGTH, 1 << 20);
    (void)sqlite3_extended_result_codes(db, 1);
    (void)sqlite3_busy_timeout(db, 5000);
}

static at_err_t open_db(const char *path, const char *query, int flags, struct at_diag *diag,
                        struct at_store **ret_store)
{
    struct at_store *s = calloc(1, sizeof *s);
    char *uri = make_uri(path, query);
    at_err_t err = AT_OK;
    if (s != NULL) s->path = strdup(path);
    if (s == NULL || uri == NULL || s->path == NULL) {
        err = at_fail(diag, AT_E_NOMEM, path, "out of memory");
        goto out;
    }
    int rc = sqlite3_open_v2(uri, &s->db, flags | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc != SQLITE_OK) {
        err = fail(path, s->db, rc, diag);
        goto out;
    }
    harden(s->db);
    err = at_store_sql(s, "PRAGMA cell_size_check = ON", diag);
    if (err) goto out;
    *ret_store = s;
    s = NULL;
out:
    free(uri);
    at_store_close(s);
    return err;
}

/* WAL and FULL: a commit that returned is on the disk. */
static at_err_t set_durable(struct at_store *s, struct at_diag *diag)
{
    return at_store_sql(s, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL", diag);
}

static at_err_t write_genesis(struct at_store *s, struct at_span genesis, struct at_diag *diag)
{
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(s->db, "INSERT INTO meta(key, value) VALUES('genesis', ?1)", -1, &st, NULL);
    if (rc == SQLITE_OK) rc = sqlite3_bind_blob64(st, 1, genesis.p, genesis.n, SQLITE_STATIC);
    if (rc == SQLITE_OK) rc = sqlite3_step(st);
    (void)sqlite3_finalize(st);
    return rc == SQLITE_DONE ? AT_OK : at_store_fail(s, rc, diag);
}

static void remove_files(const char *path)
{
    static const char *const suffix[] = {"", "-wal", "-shm", "-journal"};
    char name[AT_PATH_BYTES];
    for (size_t i = 0; i < sizeof suffix / sizeof *suffix; i++)
        if ((size_t)snprintf(name, sizeof name, "%s%s", path, suffix[i]) < sizeof name) (void)unlink(name);
}

/* A whole ledger of no records at `fresh`, closed again, all of it on the disk. */
static at_err_t write_fresh(const char *fresh, struct at_span genesis, struct at_diag *diag)
{
    /* Made by us first, for its mode: SQLite gives the files beside it the same. */
    int fd = open(fresh, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        bool disk = errno == ENOSPC || errno == EDQUOT || errno == EIO;
        return at_fail(diag, disk ? AT_E_DISK : AT_E_ENV, fresh, "cannot create the ledger: %s", strerror(errno));
    }
    (void)close(fd);
    struct at_store *s = NULL;
    at_err_t err = open_db(fresh, "", SQLITE_OPEN_READWRITE, diag, &s);
    if (!err) err = at_store_sql(s, "PRAGMA synchronous = FULL; BEGIN IMMEDIATE", diag);
    if (!err) err = at_store_schema(s, diag);
    if (!err) err = write_genesis(s, genesis, diag);
    if (!err) err = at_store_sql(s, "COMMIT", diag);
    at_store_close(s);
    return err;
}

/* Under another name first: a process killed on the way leaves no file that is not a ledger yet. */
at_err at_store_create(const char *path, struct at_span genesis, struct at_diag *diag, struct at_store **ret_store)
{
    char fresh[AT_PATH_BYTES];
    if (neighbour_exists(path, "", false)) return at_fail(diag, AT_E_ENV, path, "a ledger exists here already");
    if ((size_t)snprintf(fresh, sizeof fresh, "%s.new", path) >= sizeof fresh)
        return at_fail(diag, AT_E_TOO_BIG, path, "the path is too long");
    remove_files(fresh); /* of a creation that was cut short */
    remove_files(path);  /* a WAL without its ledger would be taken for the new one's */
    at_err_t err = write_fresh(fresh, genesis, diag);
    if (!err) err = at_file_rename(fresh, path, diag);
    if (!err) err = at_store_open(path, diag, ret_store);
    if (!err) return AT_OK;
    remove_files(fresh);
    remove_files(path);
    return err;
}

at_err at_store_open(const char *path, struct at_diag *diag, struct at_store **ret_store)
{
    struct at_store *s = NULL;
    at_err_t err = check_file(path, diag);
    if (!err) err = open_db(path, "", SQLITE_OPEN_READWRITE, diag, &s);
    if (!err) err = check_tables(s, diag); /* before anything of a foreign file is changed */
    if (!err) err = at_store_check_version(s, diag);
    if (!err) err = set_durable(s, diag);
    if (!err) err = at_store_upgrade(s, diag);
    if (!err) err = prepare(s, true, diag);
    if (err) {
        at_store_close(s);
        return err;
    }
    *ret_store = s;
    return AT_OK;
}

at_err at_store_open_readonly(const char *path, struct at_diag *diag, struct at_store **ret_store)
{
    struct at_store *s = NULL;
    at_err_t err = check_file(path, diag);
    if (!err) err = open_db(path, readonly_query(path), SQLITE_OPEN_READONLY, diag, &s);
    if (!err) err = check_tables(s, diag);
    if (!err) err = at_store_check_version(s, diag);
    if (!err) err = prepare(s, false, diag);
    if (err) {
        at_store_close(s);
        return err;
    }
    *ret_store = s;
    return AT_OK;
}

at_err at_store_seal(struct at_store *s, struct at_diag *diag)
{
    return at_store_sql(s, "PRAGMA journal_mode = DELETE", diag); /* the WAL is folded in and goes */
}

void at_store_close(struct at_store *s)
{
    if (s == NULL) return;
    for (int i = 0; i < STATEMENTS; i++) (void)sqlite3_finalize(s->statement[i]);
    (void)sqlite3_finalize(s->scan_records);
    (void)sqlite3_finalize(s->scan_checkpoints);
    (void)sqlite3_close(s->db);
    free(s->path);
    free(s);
}
