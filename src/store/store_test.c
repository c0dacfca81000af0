#include "ledger/log_fixture.h"
#include "ledger/verify.h"
#include "os/sys.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static struct log_fixture fixture;
static char dir[64], path[96], other[96];
static struct at_buf genesis;

static int setup_all(void **state)
{
    at_sys_process_init();
    fixture_init(&fixture);
    fixture_story(&fixture);
    return at_genesis_encode(&fixture.genesis, NULL, &genesis);
}

static int teardown_all(void **state)
{
    fixture_release(&fixture);
    at_buf_release(&genesis);
    return 0;
}

static int setup(void **state)
{
    strcpy(dir, "/tmp/atoll-store-XXXXXX");
    if (mkdtemp(dir) == NULL) return -1;
    snprintf(path, sizeof path, "%s/ledger?%%#.sqlite", dir); /* characters that mean something in a URI */
    snprintf(other, sizeof other, "%s/copy.sqlite", dir);
    return 0;
}

static void remove_file(const char *name, const char *suffix)
{
    char full[128];
    snprintf(full, sizeof full, "%s%s", name, suffix);
    (void)unlink(full);
}

static int teardown(void **state)
{
    static const char *const suffix[] = {"", "-wal", "-shm", "-journal", ".new", ".new-journal"};
    for (size_t i = 0; i < 6; i++) {
        remove_file(path, suffix[i]);
        remove_file(other, suffix[i]);
    }
    return rmdir(dir);
}

static struct at_store *create(void)
{
    struct at_store *s = NULL;
    struct at_diag diag = {.err = AT_OK};
    if (at_store_create(path, at_buf_span(&genesis), &diag, &s) != AT_OK) fail_msg("%s", diag.text);
    return s;
}

/* Appends the fixture's log in batches; the whole of it or its first `count` records. */
static void append(struct at_store *s, uint32_t count, uint32_t batch)
{
    for (uint32_t i = 0; i < count; i += batch) {
        uint32_t n = count - i < batch ? count - i : batch;
        assert_int_equal(at_store_append(s, i, &fixture.record[i], n, &fixture.checkpoint[i], n, NULL), AT_OK);
    }
}

static at_err_t verify_file(const char *file, struct at_ledger_report *ret_report, struct at_diag *diag)
{
    struct at_store *s = NULL;
    struct at_ledger ledger = {.heldout_loss = -1.0};
    struct at_buf bytes = {.bytes_max = AT_GENESIS_BYTES_MAX};
    struct at_genesis g;
    struct at_log_source source;
    at_err_t err = at_store_open_readonly(file, diag, &s);
    if (!err) err = at_store_genesis(s, diag, &bytes);
    if (!err) err = at_genesis_decode(at_buf_span(&bytes), diag, &g);
    if (!err) err = at_ledger_init(&ledger, &g, diag);
    if (!err) err = at_store_source(s, diag, &source);
    if (!err) err = at_ledger_verify(&ledger, &source, &at_par_serial, diag, ret_report);
    at_buf_release(&bytes);
    at_ledger_release(&ledger);
    at_store_close(s);
    return err;
}

static size_t read_file(const char *name, uint8_t **ret)
{
    FILE *f = fopen(name, "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    size_t n = (size_t)ftell(f);
    rewind(f);
    *ret = malloc(n + 1);
    assert_non_null(*ret);
    assert_int_equal(fread(*ret, 1, n, f), n);
    fclose(f);
    return n;
}

static void write_file(const char *name, const void *p, size_t n)
{
    FILE *f = fopen(name, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void there_and_back(void **state)
{
    struct at_store *s = create();
    struct stat st;
    struct at_signed_record rec[FIXTURE_RECORDS_MAX];
    struct at_log_checkpoint c[FIXTURE_RECORDS_MAX];
    uint32_t n;
    uint64_t size;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(at_store_newest_checkpoint(s, NULL, c, &n), AT_E_NOT_FOUND);
    append(s, fixture.count, 4);
    for (int again = 0; again < 2; again++) {
        struct at_buf bytes = {0};
        assert_int_equal(at_store_size(s, NULL, &size), AT_OK);
        assert_int_equal(size, fixture.count);
        assert_int_equal(at_store_genesis(s, NULL, &bytes), AT_OK);
        assert_true(at_span_eq(at_buf_span(&bytes), at_buf_span(&genesis)));
        at_buf_release(&bytes);
        assert_int_equal(at_store_read(s, 3, FIXTURE_RECORDS_MAX, NULL, rec, &n), AT_OK);
        assert_int_equal(n, fixture.count - 3);
        for (uint32_t i = 0; i < n; i++) {
            assert_true(at_span_eq(at_signed_record_body(&rec[i]), at_signed_record_body(&fixture.record[3 + i])));
            assert_memory_equal(&rec[i].author, &fixture.record[3 + i].author, sizeof rec[i].author);
            assert_memory_equal(&rec[i].sig, &fixture.record[3 + i].sig, sizeof rec[i].sig);
        }
        assert_int_equal(at_store_read(s, fixture.count, 5, NULL, rec, &n), AT_OK);
        assert_int_equal(n, 0);
        assert_int_equal(at_store_read(s, 2, 2, NULL, rec, &n), AT_OK);
        assert_int_equal(n, 2);
        assert_int_equal(at_store_read_checkpoints(s, 5, 3, NULL, c, &n), AT_OK);
        assert_int_equal(n, 3);
        assert_memory_equal(c, &fixture.checkpoint[4], sizeof *c);
        assert_int_equal(at_store_newest_checkpoint(s, NULL, c, &n), AT_OK);
        assert_memory_equal(c, &fixture.checkpoint[fixture.count - 1], sizeof *c);
        at_store_close(s); /* and once more after opening it again */
        s = NULL;
        assert_int_equal(at_store_open(path, NULL, &s), AT_OK);
    }
    at_store_close(s);
}

static void only_the_next_record_is_taken(void **state)
{
    struct at_store *s = create(), *second = NULL;
    uint64_t size;
    append(s, 5, 5);
    assert_int_equal(at_store_append(s, 4, &fixture.record[4], 1, NULL, 0, NULL), AT_E_VERIFY);
    assert_int_equal(at_store_append(s, 6, &fixture.record[6], 1, NULL, 0, NULL), AT_E_VERIFY);
    assert_int_equal(at_store_size(s, NULL, &size), AT_OK);
    assert_int_equal(size, 5);
    assert_int_equal(at_store_create(path, at_buf_span(&genesis), NULL, &second), AT_E_ENV);
    assert_int_equal(at_store_append(s, 5, &fixture.record[5], 1, NULL, 0, NULL), AT_OK);
    at_store_close(s);
}

/* Verified while a node has it open, after it is gone, as a copy, without a right to write, and never changed by it. */
static void verified_from_a_file_alone(void **state)
{
    struct at_ledger_report report;
    struct at_store *s = create();
    append(s, fixture.count, 1);
    assert_int_equal(verify_file(path, &report, NULL), AT_OK);
    assert_int_equal(report.records, fixture.count);
    at_store_close(s);
    uint8_t *bytes, *after;
    size_t n = read_file(path, &bytes);
    write_file(other, bytes, n);
    assert_int_equal(chmod(other, 0400), 0);
    assert_int_equal(chmod(dir, 0500), 0);
    assert_int_equal(verify_file(other, &report, NULL), AT_OK);
    assert_int_equal(chmod(dir, 0700), 0);
    assert_true(at_hash_eq(report.head, fixture.checkpoint[fixture.count - 1].root));
    assert_int_equal(read_file(other, &after), n);
    assert_memory_equal(bytes, after, n);
    free(bytes);
    free(after);
}

static void run_sql(const char *text)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    char *message = NULL;
    if (sqlite3_exec(db, text, NULL, NULL, &message) != SQLITE_OK) fail_msg("%s", message);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* What somebody does with the sqlite3 program. */
static void tampering_is_named(void **state)
{
    static const struct {
        const char *sql;
        uint64_t record;
    } attack[] = {
        {"UPDATE record SET body = x'00' || substr(body, 2) WHERE idx = 7", 7},
        {"UPDATE record SET author = (SELECT author FROM record WHERE idx = 1) WHERE idx = 0", 0},
        {"UPDATE record SET sig = zeroblob(64) WHERE idx = 9", 9},
        {"UPDATE record SET sig = NULL WHERE idx = 9", 9},
        {"UPDATE record SET body = 'text' WHERE idx = 3", 3},
        {"UPDATE record SET body = 12 WHERE idx = 3", 3},
        {"DELETE FROM record WHERE idx = 5", 5},
        {"DELETE FROM record WHERE idx = 5; UPDATE record SET idx = idx - 1 WHERE idx > 5", 5},
        {"DELETE FROM record WHERE idx = (SELECT max(idx) FROM record)", UINT64_MAX},
        {"INSERT INTO record SELECT 1000, body, author, sig FROM record WHERE idx = 2", UINT64_MAX - 1},
        {"UPDATE record SET idx = -1 WHERE idx = 0", 0},
        {"UPDATE record SET idx = 5000 WHERE idx = 4; UPDATE record SET idx = 4 WHERE idx = 6;"
         "UPDATE record SET idx = 6 WHERE idx = 5000",
         4},
        {"UPDATE checkpoint SET root = zeroblob(32) WHERE size = 3", 2},
        {"UPDATE checkpoint SET sig = NULL WHERE size = 3", 2},
        {"DELETE FROM checkpoint", 0},
    };
    for (size_t i = 0; i < sizeof attack / sizeof *attack; i++) {
        struct at_ledger_report report;
        struct at_store *s = create();
        append(s, fixture.count, 8);
        at_store_close(s);
        run_sql(attack[i].sql);
        uint64_t want = attack[i].record == UINT64_MAX       ? fixture.count - 1
                        : attack[i].record == UINT64_MAX - 1 ? fixture.count
                                                             : attack[i].record;
        if (verify_file(path, &report, NULL) != AT_E_VERIFY) fail_msg("not noticed: %s", attack[i].sql);
        if (report.record != want) fail_msg("%s: named %d: %s", attack[i].sql, (int)report.record, report.reason);
        remove_file(path, "");
    }
}

/* A node does not start on a log with a hole or a damaged row. */
static void damaged_rows_are_not_read(void **state)
{
    struct at_signed_record rec[16];
    struct at_diag diag = {.err = AT_OK};
    uint32_t n;
    struct at_store *s = create();
    append(s, 10, 10);
    at_store_close(s);
    run_sql("DELETE FROM record WHERE idx = 4; UPDATE record SET sig = x'01' WHERE idx = 7");
    assert_int_equal(at_store_open(path, NULL, &s), AT_OK);
    assert_int_equal(at_store_read(s, 0, 16, &diag, rec, &n), AT_E_DATA);
    assert_non_null(strstr(diag.text, "record 4"));
    diag.err = AT_OK;
    assert_int_equal(at_store_read(s, 5, 16, &diag, rec, &n), AT_E_DATA);
    assert_non_null(strstr(diag.text, "record 7"));
    at_store_close(s);
}

static void expect_not_a_ledger(const char *file)
{
    struct at_store *s = NULL;
    struct at_diag diag = {.err = AT_OK};
    assert_int_equal(at_store_open_readonly(file, &diag, &s), AT_E_DATA);
    assert_non_null(strstr(diag.text, "not an Atoll ledger"));
    assert_int_equal(at_store_open(file, NULL, &s), AT_E_DATA);
    assert_null(s);
}

static void other_files_are_told_apart(void **state)
{
    struct at_store *s = NULL;
    assert_int_equal(at_store_open(path, NULL, &s), AT_E_NOT_FOUND);
    assert_int_equal(at_store_open_readonly(path, NULL, &s), AT_E_NOT_FOUND);
    assert_int_equal(at_store_open_readonly(dir, NULL, &s), AT_E_DATA);
    write_file(path, "", 0);
    expect_not_a_ledger(path);
    uint8_t text[5000];
    memset(text, 'x', sizeof text);
    write_file(path, text, sizeof text);
    expect_not_a_ledger(path);
    memcpy(text, "SQLite format 3", 16); /* the right first bytes, then nonsense */
    write_file(path, text, sizeof text);
    expect_not_a_ledger(path);
    remove_file(path, "");
    run_sql("CREATE TABLE cats(name)");
    expect_not_a_ledger(path);
    run_sql("CREATE TABLE meta(key, value); CREATE TABLE checkpoint(size);"
            "CREATE VIEW record AS SELECT 1 AS idx, 2 AS body, 3 AS author, 4 AS sig");
    expect_not_a_ledger(path);
}

/* Random bytes of the file overwritten: an error, or a verdict, or (where nothing in use was hit) OK. Never a crash. */
static void a_damaged_file_never_crashes(void **state)
{
    struct at_store *s = create();
    append(s, fixture.count, 8);
    at_store_close(s);
    uint8_t *bytes;
    size_t n = read_file(path, &bytes);
    int refused = 0;
    for (uint32_t trial = 0; trial < 60; trial++) {
        uint8_t *bad = malloc(n);
        assert_non_null(bad);
        memcpy(bad, bytes, n);
        uint64_t x = trial * UINT64_C(0x9e3779b97f4a7c15) + 12345;
        for (int k = 0; k < 1 + (int)(trial % 20); k++) {
            x = x * UINT64_C(6364136223846793005) + 1442695040888963407u;
            size_t at = (size_t)(x >> 20) % n;
            if (trial % 3 == 0) at %= 4096; /* the schema and the table of tables */
            bad[at] = (uint8_t)(x >> 56);
        }
        write_file(other, bad, trial % 7 == 6 ? n / 2 : n);
        struct at_ledger_report report;
        at_err_t err = verify_file(other, &report, NULL);
        assert_true(err == AT_OK || err == AT_E_DATA || err == AT_E_VERIFY || err == AT_E_DISK || err == AT_E_TOO_BIG ||
                    err == AT_E_ENV);
        refused += err != AT_OK;
        if (at_store_open(other, NULL, &s) == AT_OK) {
            struct at_signed_record rec[8];
            uint32_t got;
            if (at_store_read(s, 0, 8, NULL, rec, &got) != AT_OK) refused++;
            at_store_close(s);
        }
        free(bad);
        static const char *const suffix[] = {"", "-wal", "-shm", "-journal"};
        for (size_t i = 0; i < 4; i++) remove_file(other, suffix[i]);
    }
    assert_true(refused > 20);
    free(bytes);
}

/* A limit on the file's size stands in for a full disk: the error says what to do, what was there stays. */
static void a_full_disk(void **state)
{
    struct at_store *s = create();
    append(s, 4, 1);
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = (struct rlimit){.rlim_cur = 40000, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    struct at_diag diag = {.err = AT_OK};
    at_err_t err = AT_OK;
    uint32_t at = 4;
    for (; at < fixture.count && !err; at++)
        err = at_store_append(s, at, &fixture.record[at], 1, &fixture.checkpoint[at], 1, &diag);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(err, AT_E_DISK);
    assert_non_null(strstr(diag.text, "space"));
    uint64_t size;
    assert_int_equal(at_store_size(s, NULL, &size), AT_OK);
    assert_int_equal(size, at - 1);                     /* the refused one is not there, the others are */
    for (at = (uint32_t)size; at < fixture.count; at++) /* and with space again it goes on */
        assert_int_equal(at_store_append(s, at, &fixture.record[at], 1, &fixture.checkpoint[at], 1, NULL), AT_OK);
    at_store_close(s);
    struct at_ledger_report report;
    assert_int_equal(verify_file(path, &report, NULL), AT_OK);
    assert_int_equal(report.records, fixture.count);
}

/* A sealed ledger is one file; that its journal could not be folded in is told, and loses nothing. */
static void sealed(void **state)
{
    struct at_store *s = create();
    struct stat st;
    append(s, fixture.count, fixture.count);
    struct rlimit old, small;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = (struct rlimit){.rlim_cur = (rlim_t)st.st_size, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    at_err_t err = at_store_seal(s, NULL);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(err, AT_E_DISK);
    assert_int_equal(at_store_seal(s, NULL), AT_OK);
    assert_int_equal(rename(path, other), 0); /* alone */
    at_store_close(s);
    struct at_ledger_report report;
    assert_int_equal(verify_file(other, &report, NULL), AT_OK);
    assert_int_equal(report.records, fixture.count);
}

static void write_until_killed(int ack)
{
    struct at_store *s = NULL;
    if (at_store_open(path, NULL, &s) != AT_OK) _exit(1);
    uint64_t at;
    if (at_store_size(s, NULL, &at) != AT_OK) _exit(1);
    for (; at < fixture.count; at++) {
        if (at_store_append(s, at, &fixture.record[at], 1, &fixture.checkpoint[at], 1, NULL) != AT_OK) _exit(1);
        if (write(ack, &at, sizeof at) != sizeof at) _exit(1);
    }
    pause();
}

/* kill -9 while it writes: what was acknowledged is there, the file verifies before and after it is opened again. */
static void killed_at_any_moment(void **state)
{
    at_store_close(create());
    for (int round = 0; round < 4; round++) {
        int pipe_fd[2];
        uint64_t acked = 0;
        assert_int_equal(pipe(pipe_fd), 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            write_until_killed(pipe_fd[1]);
            _exit(0);
        }
        for (int i = 0; i < 5; i++) assert_int_equal(read(pipe_fd[0], &acked, sizeof acked), sizeof acked);
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        close(pipe_fd[1]);
        while (read(pipe_fd[0], &acked, sizeof acked) == (ssize_t)sizeof acked) {
        }
        close(pipe_fd[0]);
        struct at_ledger_report report;
        struct at_diag diag = {.err = AT_OK};
        if (verify_file(path, &report, &diag) != AT_OK) fail_msg("after kill: %s", diag.text);
        assert_true(report.records >= acked + 1);
    }
}

/* A log beside a file that is gone is not the new file's. */
static void an_orphaned_wal_is_not_believed(void **state)
{
    struct at_store *s = create();
    struct at_diag diag = {0};
    uint64_t size;
    append(s, fixture.count, 1);
    assert_int_equal(rename(path, other), 0); /* while it is open, its WAL is full */
    assert_int_equal(link(other, path), 0);
    char wal[128], kept[128];
    snprintf(wal, sizeof wal, "%s-wal", path);
    snprintf(kept, sizeof kept, "%s-wal", other);
    assert_int_equal(link(wal, kept), 0);
    at_store_close(s);
    (void)unlink(path);
    (void)unlink(wal);
    assert_int_equal(rename(kept, wal), 0);
    if (at_store_create(path, at_buf_span(&genesis), &diag, &s) != AT_OK) fail_msg("%s", diag.text);
    assert_int_equal(at_store_size(s, &diag, &size), AT_OK);
    assert_int_equal(size, 0);
    at_store_close(s);
}

/* kill -9 while it is made: there is a whole ledger or none, and what was left over is in nobody's way. */
static void killed_while_it_is_made(void **state)
{
    int made = 0;
    for (int i = 0; i < 60; i++) {
        struct at_store *s = NULL;
        struct at_buf got = {0};
        struct at_diag diag = {0};
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            at_err_t err = at_store_create(path, at_buf_span(&genesis), NULL, &s);
            _exit(err ? 1 : 0);
        }
        nanosleep(&(struct timespec){0, i * 250000L}, NULL);
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        at_err_t err = at_store_open(path, &diag, &s);
        if (err == AT_E_NOT_FOUND)
            err = at_store_create(path, at_buf_span(&genesis), &diag, &s);
        else
            made++;
        if (err != AT_OK) fail_msg("after kill %d: %s", i, diag.text);
        assert_int_equal(at_store_genesis(s, &diag, &got), AT_OK);
        assert_true(got.n == genesis.n && memcmp(got.p, genesis.p, got.n) == 0);
        at_buf_release(&got);
        at_store_close(s);
        assert_int_equal(access(path, F_OK), 0);
        remove_file(path, "");
        remove_file(path, "-wal");
        remove_file(path, "-shm");
    }
    print_message("%d of 60 were made before the kill\n", made);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(there_and_back),
        T(only_the_next_record_is_taken),
        T(verified_from_a_file_alone),
        T(tampering_is_named),
        T(damaged_rows_are_not_read),
        T(other_files_are_told_apart),
        T(a_damaged_file_never_crashes),
        T(a_full_disk),
        T(sealed),
        T(killed_at_any_moment),
        T(an_orphaned_wal_is_not_believed),
        T(killed_while_it_is_made),
    };
    return cmocka_run_group_tests(tests, setup_all, teardown_all);
}
