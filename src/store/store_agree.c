/* What a steward of several must not forget (store.h): written in the transaction of its records, read at a start, and
 * served to seats that are behind. */
#include "store/store_internal.h"

#include <string.h>

/* ---- writing ---- */
static at_err_t run(struct at_store *s, enum statement which, const struct at_store_kept *k, struct at_diag *diag)
{
    sqlite3_stmt *st = s->statement[which];
    (void)sqlite3_bind_int64(st, 1, k->term);
    int rc = SQLITE_OK;
    if (sqlite3_bind_parameter_count(st) > 1) rc = sqlite3_bind_int64(st, 2, (sqlite3_int64)k->view);
    if (which == SET_FINAL && rc == SQLITE_OK) rc = sqlite3_bind_blob64(st, 3, k->hash.b, AT_HASH_BYTES, SQLITE_STATIC);
    if (rc == SQLITE_OK) rc = sqlite3_step(st);
    return at_store_finish(s, st, rc, diag);
}

static at_err_t prune(struct at_store *s, const struct at_store_kept *k, struct at_diag *diag)
{
    static const enum statement all[] = {DROP_TERMS, DROP_VOTES, DROP_CERTIFICATES, DROP_BLOCKS};
    at_err_t err = AT_OK;
    for (size_t i = 0; !err && i < sizeof all / sizeof *all; i++) err = run(s, all[i], k, diag);
    return err;
}

static at_err_t add(struct at_store *s, const struct at_store_kept *k, struct at_diag *diag)
{
    sqlite3_stmt *st = s->statement[ADD_KEPT];
    bool hashed = k->kind == AT_STORE_BLOCK || k->kind == AT_STORE_FINAL;
    (void)sqlite3_bind_int64(st, 1, k->term);
    (void)sqlite3_bind_int64(st, 2, (sqlite3_int64)k->view);
    (void)sqlite3_bind_int(st, 3, (int)k->kind);
    int rc = hashed ? sqlite3_bind_blob64(st, 4, k->hash.b, AT_HASH_BYTES, SQLITE_STATIC) : SQLITE_OK;
    if (rc == SQLITE_OK && k->bytes.n != 0) rc = sqlite3_bind_blob64(st, 5, k->bytes.p, k->bytes.n, SQLITE_STATIC);
    if (rc == SQLITE_OK) rc = sqlite3_step(st);
    return at_store_finish(s, st, rc, diag);
}

at_err_t at_store_keep(struct at_store *s, const struct at_store_kept *k, struct at_diag *diag)
{
    AT_ASSERT(k->kind >= AT_STORE_VOTE && k->kind <= AT_STORE_PRUNE && k->view <= AT_VIEW_MAX);
    if (k->kind == AT_STORE_PRUNE) return prune(s, k, diag);
    at_err_t err = k->kind == AT_STORE_TIP ? run(s, DROP_TIP, k, diag) : AT_OK;
    if (!err && k->kind == AT_STORE_FINAL) {
        err = run(s, SET_FINAL, k, diag);
        if (!err && sqlite3_changes(s->db) == 0)
            return at_fail(diag, AT_E_VERIFY, s->path, "the block of view %llu became final and is not stored",
                           (unsigned long long)k->view);
    }
    return err ? err : add(s, k, diag);
}

/* ---- reading ---- */
/* A row of (kind, view, hash, bytes). */
static at_err_t read_row(const struct at_store *s, sqlite3_stmt *st, uint32_t term, struct at_diag *diag,
                         struct at_store_kept *ret)
{
    static const char *const name[] = {"row", "vote", "certificate", "block", "final block", "tip", "abstention"};
    sqlite3_int64 kind = sqlite3_column_int64(st, 0), view = sqlite3_column_int64(st, 1);
    struct at_span hash = at_store_column(st, 2), bytes = at_store_column(st, 3);
    bool known = kind >= AT_STORE_VOTE && kind <= AT_STORE_ABSTAIN;
    bool hashed = kind == AT_STORE_BLOCK || kind == AT_STORE_FINAL;
    bool right = known && view >= 0 && (uint64_t)view <= AT_VIEW_MAX && hash.n == (hashed ? AT_HASH_BYTES : 0);
    right = right && (bytes.n != 0 || kind == AT_STORE_FINAL || kind == AT_STORE_ABSTAIN);
    struct at_store_kept k = {.term = term, .view = (uint64_t)view, .bytes = bytes};
    if (right) k.kind = (enum at_store_kept_kind)kind;
    if (right && hashed) memcpy(k.hash.b, hash.p, AT_HASH_BYTES);
    if (right && kind == AT_STORE_BLOCK) right = at_hash_eq(at_sha256(bytes.p, bytes.n), k.hash);
    if (!right)
        return at_fail(diag, AT_E_DATA, s->path,
                       "the ledger is damaged: the %s of view %lld in term %u is not what was written. A steward that "
                       "does not know its votes must not vote: take this folder away and join anew",
                       name[known ? kind : 0], (long long)view, term);
    *ret = k;
    return AT_OK;
}

static at_err_t read_number(struct at_store *s, enum statement which, int64_t a, int64_t b, struct at_diag *diag,
                            int64_t *ret)
{
    sqlite3_stmt *st = s->statement[which];
    if (sqlite3_bind_parameter_count(st) > 1) {
        (void)sqlite3_bind_int64(st, 1, a);
        (void)sqlite3_bind_int64(st, 2, b);
    }
    int rc = sqlite3_step(st);
    *ret = rc == SQLITE_ROW ? sqlite3_column_int64(st, 0) : 0; /* NULL reads as 0 */
    return at_store_finish(s, st, rc, diag);
}

at_err at_store_restore(struct at_store *s, uint32_t finals_max, at_store_take_fn *take, void *user,
                        struct at_diag *diag)
{
    int64_t term = 0, from = 0;
    AT_ASSERT(finals_max > 0);
    at_err_t err = read_number(s, NEWEST_TERM, 0, 0, diag, &term);
    if (err || term == 0) return err;
    if (term < 0 || term > UINT32_MAX)
        return at_fail(diag, AT_E_DATA, s->path, "the ledger is damaged: term %lld", (long long)term);
    err = read_number(s, OLDEST_FINAL, term, finals_max - 1, diag, &from);
    if (err) return err;
    sqlite3_stmt *st = s->statement[READ_KEPT];
    (void)sqlite3_bind_int64(st, 1, term);
    (void)sqlite3_bind_int64(st, 2, from);
    int rc;
    while ((rc = sqlite3_step(st)) == SQLITE_ROW && !err) {
        struct at_store_kept k;
        err = read_row(s, st, (uint32_t)term, diag, &k);
        if (!err) err = take(user, &k, diag);
    }
    at_err_t end = at_store_finish(s, st, rc, diag);
    return err ? err : end;
}

at_err at_store_block(struct at_store *s, uint32_t term, uint64_t view, struct at_hash hash, at_store_take_fn *take,
                      void *user, struct at_diag *diag)
{
    sqlite3_stmt *st = s->statement[READ_BLOCK];
    struct at_store_kept k;
    if (view > AT_VIEW_MAX) return AT_E_NOT_FOUND;
    (void)sqlite3_bind_int64(st, 1, term);
    (void)sqlite3_bind_int64(st, 2, (sqlite3_int64)view);
    (void)sqlite3_bind_blob64(st, 3, hash.b, AT_HASH_BYTES, SQLITE_STATIC);
    int rc = sqlite3_step(st);
    at_err_t err = rc == SQLITE_DONE ? AT_E_NOT_FOUND : AT_OK;
    if (rc == SQLITE_ROW) err = read_row(s, st, term, diag, &k);
    if (rc == SQLITE_ROW && !err) err = take(user, &k, diag);
    at_err_t end = at_store_finish(s, st, rc, diag);
    return err ? err : end;
}

at_err at_store_finals(struct at_store *s, uint32_t term, uint64_t view, uint64_t last, uint32_t most,
                       at_store_take_fn *take, void *user, struct at_diag *diag)
{
    sqlite3_stmt *st = s->statement[READ_FINALS];
    if (view > AT_VIEW_MAX) return AT_OK;
    (void)sqlite3_bind_int64(st, 1, term);
    (void)sqlite3_bind_int64(st, 2, (sqlite3_int64)view);
    at_err_t err = AT_OK;
    bool done = false;
    int rc = SQLITE_OK;
    for (uint32_t n = 0; n < most && !done && !err && (rc = sqlite3_step(st)) == SQLITE_ROW; n++) {
        struct at_store_kept k;
        err = read_row(s, st, term, diag, &k);
        done = !err && k.bytes.n != 0 && k.view >= last;
        if (!err) err = take(user, &k, diag);
    }
    at_err_t end = at_store_finish(s, st, rc, diag);
    return err ? err : end;
}
