/* The store of a steward among several: cosigned checkpoints, and what it must not forget. */
#include "ledger/log_fixture.h"
#include "os/sys.h"
#include "store/store.h"

#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { KEPT_MAX = 64 };

static struct log_fixture fixture;
static struct at_buf genesis;
static char dir[64], path[96];

static struct { /* what the store gave */
    struct at_store_kept k[KEPT_MAX];
    uint8_t bytes[KEPT_MAX][16];
    size_t n;
} got;

static int setup_all(void **state)
{
    (void)state;
    at_sys_process_init();
    fixture_init(&fixture);
    fixture_story(&fixture);
    return at_genesis_encode(&fixture.genesis, NULL, &genesis);
}

static int teardown_all(void **state)
{
    (void)state;
    fixture_release(&fixture);
    at_buf_release(&genesis);
    return 0;
}

static int setup(void **state)
{
    strcpy(dir, "/tmp/atoll-agree-XXXXXX");
    if (mkdtemp(dir) == NULL) return -1;
    snprintf(path, sizeof path, "%s/ledger.sqlite", dir);
    struct at_store *s = NULL;
    if (at_store_create(path, at_buf_span(&genesis), NULL, &s) != AT_OK) return -1;
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    static const char *const suffix[] = {"", "-wal", "-shm", "-journal"};
    at_store_close(*state);
    for (size_t i = 0; i < 4; i++) {
        char full[128];
        snprintf(full, sizeof full, "%s%s", path, suffix[i]);
        (void)unlink(full);
    }
    return rmdir(dir);
}

static void reopen(void **state)
{
    struct at_store *s = NULL;
    struct at_diag diag = {0};
    at_store_close(*state);
    *state = NULL;
    if (at_store_open(path, &diag, &s) != AT_OK) fail_msg("%s", diag.text);
    *state = s;
}

static void sql(void **state, const char *text)
{
    sqlite3 *db;
    char *message = NULL;
    at_store_close(*state);
    *state = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, text, NULL, NULL, &message) != SQLITE_OK) fail_msg("%s", message);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    reopen(state);
}

/* A cosignature of the first `size` records with the fixture's key `k`. */
static struct at_log_checkpoint cosigned(uint64_t size, int k)
{
    return at_log_checkpoint_sign(&fixture.key[k], fixture.ledger.run, size, fixture.checkpoint[size - 1].root);
}

static int by_key(const void *a, const void *b)
{
    return at_log_checkpoint_cmp(a, b);
}

static void write_log(struct at_store *s, uint64_t first, uint32_t count, const struct at_log_checkpoint *c, uint32_t n)
{
    struct at_diag diag = {0};
    if (at_store_append(s, first, fixture.record + first, count, c, n, &diag) != AT_OK) fail_msg("%s", diag.text);
}

static void a_size_has_several_cosignatures(void **state)
{
    struct at_log_checkpoint three[3], newest[AT_SEATS_MAX], beyond = cosigned(12, 0);
    uint32_t n;
    for (int k = 0; k < 3; k++) three[k] = cosigned(9, k + 1);
    qsort(three, 3, sizeof *three, by_key);
    write_log(*state, 0, 6, fixture.checkpoint, 6); /* a single steward's */
    write_log(*state, 6, 5, NULL, 0);               /* final, and not cosigned yet */
    assert_int_equal(at_store_newest_checkpoint(*state, NULL, newest, &n), AT_OK);
    assert_int_equal(n, 1);
    write_log(*state, 11, 0, three, 3); /* later, and not of the newest size */
    write_log(*state, 11, 0, three, 3); /* again: nothing changes */
    assert_int_equal(at_store_append(*state, 11, NULL, 0, &beyond, 1, NULL), AT_E_VERIFY);
    for (int again = 0; again < 2; again++) {
        assert_int_equal(at_store_newest_checkpoint(*state, NULL, newest, &n), AT_OK);
        assert_int_equal(n, 3);
        assert_memory_equal(newest, three, sizeof three);
        reopen(state);
    }
}

static void a_part_ends_with_a_checkpoint(void **state)
{
    struct at_signed_record rec[AT_SEATS_MAX];
    struct at_log_checkpoint c[AT_SEATS_MAX], cosign[6];
    uint32_t n, cn;
    for (int k = 0; k < 6; k++) cosign[k] = cosigned(k < 3 ? 9 : 12, k % 3);
    qsort(cosign, 6, sizeof *cosign, by_key);
    write_log(*state, 0, 6, fixture.checkpoint, 6);
    write_log(*state, 6, 8, cosign, 6);
    static const struct {
        uint64_t from, last;
        uint32_t count, checkpoints;
    } part[] = {{0, 6, 6, 6}, /* of one steward: one after each record */
                {2, 6, 4, 4},  {0, 9, 9, 3},           {6, UINT64_MAX, 6, 3}, /* two are not cosigned yet */
                {9, 11, 0, 0}, {12, UINT64_MAX, 0, 0}, {14, UINT64_MAX, 0, 0}, {0, UINT64_MAX, 12, 3}};
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        assert_int_equal(at_store_read_part(*state, part[i].from, part[i].last, AT_SEATS_MAX, NULL, rec, &n, c, &cn),
                         AT_OK);
        assert_int_equal(n, part[i].count);
        assert_int_equal(cn, part[i].checkpoints);
        if (n == 0) continue;
        assert_int_equal(c[cn - 1].size, part[i].from + n);
        assert_memory_equal(&rec[n - 1].sig, &fixture.record[part[i].from + n - 1].sig, sizeof rec->sig);
    }
}

/* ---- what is kept ---- */
static at_err_t take(void *user, const struct at_store_kept *k, struct at_diag *diag)
{
    (void)user;
    (void)diag;
    assert_true(got.n < KEPT_MAX && k->bytes.n <= sizeof got.bytes[0]);
    got.k[got.n] = *k;
    if (k->bytes.n != 0) memcpy(got.bytes[got.n], k->bytes.p, k->bytes.n);
    got.k[got.n].bytes.p = got.bytes[got.n];
    got.n++;
    return AT_OK;
}

static struct at_store_kept row(enum at_store_kept_kind kind, uint32_t term, uint64_t view, const char *text)
{
    struct at_store_kept k = {.kind = kind, .term = term, .view = view, .bytes = at_span(text, strlen(text))};
    if (kind == AT_STORE_BLOCK || kind == AT_STORE_FINAL) k.hash = at_sha256(text, strlen(text));
    return k;
}

/* A FINAL of the block `text`. */
static struct at_store_kept final(uint32_t term, uint64_t view, const char *text, const char *certificate)
{
    struct at_store_kept k = row(AT_STORE_FINAL, term, view, text);
    k.bytes = at_span(certificate, strlen(certificate));
    return k;
}

static void keep(struct at_store *s, const struct at_store_kept *kept, size_t n)
{
    struct at_diag diag = {0};
    struct at_store_batch batch = {.kept = kept, .kept_count = n};
    if (at_store_write(s, &batch, &diag) != AT_OK) fail_msg("%s", diag.text);
}

/* "kind view text" of each row, apart by ", ". */
static const char *restored(struct at_store *s, uint32_t finals_max)
{
    static char text[800];
    struct at_diag diag = {0};
    got.n = 0;
    text[0] = '\0';
    if (at_store_restore(s, finals_max, take, NULL, &diag) != AT_OK) fail_msg("%s", diag.text);
    for (size_t i = 0; i < got.n; i++) {
        size_t at = strlen(text);
        snprintf(text + at, sizeof text - at, "%s%c%d%.*s", i ? " " : "", "?vcbfta"[got.k[i].kind], (int)got.k[i].view,
                 (int)got.k[i].bytes.n, (const char *)got.k[i].bytes.p);
    }
    return text;
}

static void rows_come_back_in_order(void **state)
{
    assert_string_equal(restored(*state, 9), "");
    struct at_store_kept first[] = {row(AT_STORE_BLOCK, 2, 1, "A"), row(AT_STORE_VOTE, 2, 1, "x"),
                                    row(AT_STORE_TIP, 2, 0, "t0")};
    struct at_store_kept second[] = {row(AT_STORE_CERTIFICATE, 2, 1, "y"), final(2, 1, "A", "c"),
                                     row(AT_STORE_TIP, 2, 0, "t1"), row(AT_STORE_ABSTAIN, 2, 0, "")};
    keep(*state, first, 3);
    keep(*state, second, 4);
    reopen(state);
    assert_string_equal(restored(*state, 9), "b1A v1x c1y f1c t0t1 a0");
    struct at_store_kept later = row(AT_STORE_VOTE, 3, 7, "z"); /* of the newest term only */
    keep(*state, &later, 1);
    assert_string_equal(restored(*state, 9), "v7z");
    later = final(3, 8, "nobody has it", "c");
    struct at_store_batch batch = {.kept = &later, .kept_count = 1};
    struct at_diag diag = {0};
    assert_int_equal(at_store_write(*state, &batch, &diag), AT_E_VERIFY);
    assert_non_null(strstr(diag.text, "view 8"));
    assert_string_equal(restored(*state, 9), "v7z");
}

static void what_is_behind_the_tip_goes(void **state)
{
    struct at_store_kept rows[] = {row(AT_STORE_VOTE, 1, 9, "old"), row(AT_STORE_VOTE, 2, 1, "1"),
                                   row(AT_STORE_BLOCK, 2, 1, "A"),  row(AT_STORE_BLOCK, 2, 2, "lost"),
                                   row(AT_STORE_VOTE, 2, 2, "2"),   row(AT_STORE_CERTIFICATE, 2, 2, "c"),
                                   row(AT_STORE_BLOCK, 2, 3, "B"),  final(2, 1, "A", ""),
                                   final(2, 3, "B", "cB"),          row(AT_STORE_PRUNE, 2, 4, "")};
    keep(*state, rows, 10); /* the newest own vote stays, behind the tip or not */
    assert_string_equal(restored(*state, 9), "b1A v22 b3B f1 f3cB");
    assert_string_equal(restored(*state, 1), "v22 b3B f3cB");
    struct at_store_kept more[] = {row(AT_STORE_VOTE, 2, 5, "5"), row(AT_STORE_PRUNE, 2, 4, "")};
    keep(*state, more, 2);
    assert_string_equal(restored(*state, 1), "b3B f3cB v55");
}

static void seats_that_are_behind_are_served(void **state)
{
    struct at_store_kept rows[] = {row(AT_STORE_BLOCK, 2, 1, "A"), row(AT_STORE_BLOCK, 2, 3, "B"),
                                   row(AT_STORE_BLOCK, 2, 4, "C"), row(AT_STORE_BLOCK, 2, 5, "D"),
                                   final(2, 1, "A", ""),           final(2, 3, "B", "cB"),
                                   final(2, 4, "C", "cC"),         final(2, 5, "D", "cD")};
    keep(*state, rows, 8);
    static const struct {
        uint64_t view, last;
        uint32_t most;
        const char *views;
    } ask[] = {{0, 2, 9, "13"}, {0, 4, 9, "134"}, {1, 99, 9, "345"}, {3, 5, 1, "4"}, {5, 9, 9, ""}, {0, 0, 9, "13"}};
    for (size_t i = 0; i < sizeof ask / sizeof *ask; i++) {
        char views[10] = "";
        got.n = 0;
        assert_int_equal(at_store_finals(*state, 2, ask[i].view, ask[i].last, ask[i].most, take, NULL, NULL), AT_OK);
        for (size_t k = 0; k < got.n; k++) views[k] = (char)('0' + got.k[k].view);
        assert_string_equal(views, ask[i].views);
    }
    got.n = 0;
    assert_int_equal(at_store_block(*state, 2, 4, rows[2].hash, take, NULL, NULL), AT_OK);
    assert_memory_equal(got.bytes[0], "C", 1);
    assert_int_equal(at_store_block(*state, 2, 4, rows[1].hash, take, NULL, NULL), AT_E_NOT_FOUND);
    assert_int_equal(at_store_block(*state, 3, 4, rows[2].hash, take, NULL, NULL), AT_E_NOT_FOUND);
    assert_int_equal(got.n, 1);
}

static void damaged_rows_are_named(void **state)
{
    static const struct {
        const char *damage, *name;
    } all[] = {{"UPDATE kept SET bytes = x'41' WHERE kind = 3", "block of view 3"},
               {"UPDATE kept SET hash = x'00' WHERE kind = 4", "final block of view 3"},
               {"UPDATE kept SET hash = zeroblob(32) WHERE kind = 1", "vote of view 2"},
               {"UPDATE kept SET view = -5 WHERE kind = 1", "vote of view -5"},
               {"UPDATE kept SET bytes = NULL WHERE kind = 2", "certificate of view 2"},
               {"UPDATE kept SET bytes = '' WHERE kind = 5", "tip of view 0"},
               {"UPDATE kept SET kind = 77 WHERE kind = 5", "row of view 0"},
               {"UPDATE kept SET term = -1", "term -1"}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct at_store_kept rows[] = {row(AT_STORE_VOTE, 2, 2, "2"), row(AT_STORE_CERTIFICATE, 2, 2, "c"),
                                       row(AT_STORE_BLOCK, 2, 3, "B"), final(2, 3, "B", "cB"),
                                       row(AT_STORE_TIP, 2, 0, "t")};
        struct at_diag diag = {0};
        keep(*state, rows, 5);
        sql(state, all[i].damage);
        got.n = 0;
        if (at_store_restore(*state, 9, take, NULL, &diag) != AT_E_DATA) fail_msg("not noticed: %s", all[i].damage);
        if (strstr(diag.text, all[i].name) == NULL) fail_msg("'%s' does not name the %s", diag.text, all[i].name);
        sql(state, "DELETE FROM kept");
    }
}

/* Records and what is kept beside them are written together or not at all, whenever the process dies. */
static void records_and_rows_are_one_transaction(void **state)
{
    for (int round = 0; round < 3; round++) {
        int ends[2];
        char byte;
        at_store_close(*state);
        *state = NULL;
        assert_int_equal(pipe(ends), 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            struct at_store *s = NULL;
            uint64_t at;
            if (at_store_open(path, NULL, &s) != AT_OK || at_store_size(s, NULL, &at) != AT_OK) _exit(1);
            for (; at < fixture.count; at++) {
                struct at_store_kept tip = {
                    .kind = AT_STORE_TIP, .term = 2, .bytes = at_span((const uint8_t *)&at, sizeof at)};
                struct at_store_batch batch = {
                    .first = at, .records = &fixture.record[at], .count = 1, .kept = &tip, .kept_count = 1};
                if (at_store_write(s, &batch, NULL) != AT_OK || write(ends[1], "x", 1) != 1) _exit(1);
            }
            pause();
        }
        for (int i = 0; i < 4; i++) assert_int_equal(read(ends[0], &byte, 1), 1);
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        close(ends[0]);
        close(ends[1]);
        reopen(state);
        uint64_t size, tip;
        assert_int_equal(at_store_size(*state, NULL, &size), AT_OK);
        got.n = 0;
        assert_int_equal(at_store_restore(*state, 9, take, NULL, NULL), AT_OK);
        assert_int_equal(got.n, 1);
        memcpy(&tip, got.bytes[0], sizeof tip);
        assert_int_equal(tip + 1, size);
    }
}

/* ---- files of other programs ---- */
static void a_file_of_the_first_schema_is_brought_up_to_date(void **state)
{
    struct at_log_checkpoint newest[AT_SEATS_MAX], two[2] = {cosigned(8, 0), cosigned(8, 1)};
    struct at_store *s = NULL;
    uint32_t n;
    uint64_t size;
    write_log(*state, 0, 7, fixture.checkpoint, 7);
    at_store_close(*state);
    *state = NULL;
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    static const char old[] =
        "DROP TABLE kept; CREATE TABLE c(size INTEGER PRIMARY KEY, root BLOB, steward BLOB, sig BLOB);"
        "INSERT INTO c SELECT size, root, steward, sig FROM checkpoint; DROP TABLE checkpoint;"
        "ALTER TABLE c RENAME TO checkpoint; PRAGMA user_version = 0;";
    assert_int_equal(sqlite3_exec(db, old, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(at_store_open_readonly(path, NULL, &s), AT_OK); /* as it is */
    assert_int_equal(at_store_newest_checkpoint(s, NULL, newest, &n), AT_OK);
    assert_memory_equal(newest, &fixture.checkpoint[6], sizeof *newest);
    at_store_close(s);
    reopen(state);
    assert_int_equal(at_store_size(*state, NULL, &size), AT_OK);
    assert_int_equal(size, 7);
    qsort(two, 2, sizeof *two, by_key);
    write_log(*state, 7, 1, two, 2);
    struct at_store_kept vote = row(AT_STORE_VOTE, 2, 1, "v");
    keep(*state, &vote, 1);
    reopen(state);
    assert_int_equal(at_store_newest_checkpoint(*state, NULL, newest, &n), AT_OK);
    assert_int_equal(n, 2);
    assert_string_equal(restored(*state, 9), "v1v");
}

static void a_newer_programs_file_is_left_alone(void **state)
{
    struct at_store *s = NULL;
    struct at_diag diag = {0};
    at_store_close(*state);
    *state = NULL;
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA user_version = 9", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(at_store_open(path, &diag, &s), AT_E_DATA);
    assert_non_null(strstr(diag.text, "newer program"));
    assert_int_equal(at_store_open_readonly(path, NULL, &s), AT_E_DATA);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {T(a_size_has_several_cosignatures),
                                       T(a_part_ends_with_a_checkpoint),
                                       T(rows_come_back_in_order),
                                       T(what_is_behind_the_tip_goes),
                                       T(seats_that_are_behind_are_served),
                                       T(damaged_rows_are_named),
                                       T(records_and_rows_are_one_transaction),
                                       T(a_file_of_the_first_schema_is_brought_up_to_date),
                                       T(a_newer_programs_file_is_left_alone)};
    return cmocka_run_group_tests(tests, setup_all, teardown_all);
}
