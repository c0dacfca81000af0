/* node_test.c: whole nodes, each a process of its own, on loopback: rounds to the end, deaths and returns. The oracle
 * of the state root is the in-process run (train/local.h); the oracle of the ledger is its verifier. */
#include "node/node.h"

#include "ledger/verify.h"
#include "os/file.h"
#include "os/sys.h"
#include "store/store.h"
#include "train/local.h"

#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char base[64];
static char text_path[AT_PATH_BYTES];

struct member {
    char dir[AT_PATH_BYTES];
    pid_t pid;
};

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static int make_base(void **state)
{
    char text[40000];
    strcpy(base, "/tmp/at_node_test.XXXXXX");
    if (!mkdtemp(base)) return -1;
    snprintf(text_path, sizeof text_path, "%s/text.txt", base);
    for (size_t i = 0; i < sizeof text; i++) text[i] = "the whale and the sea, "[(i * i / 7 + i) % 23];
    struct at_span part = at_span(text, sizeof text);
    return at_file_write_atomic(text_path, &part, 1, 0644, NULL);
}

static int remove_base(void **state)
{
    char command[128];
    if (getenv("ATOLL_TEST_KEEP")) {
        print_message("kept: %s\n", base);
        return 0;
    }
    snprintf(command, sizeof command, "rm -rf '%s'", base);
    return system(command);
}

/* ---- nodes ---- */
static void log_line(void *user, enum at_node_log_kind kind, const char *line)
{
    fprintf(user, "%llu %s%s\n", (unsigned long long)at_clock_mono_ms() % 1000000,
            kind == AT_NODE_LOG_WARNING ? "! " : "", line);
    fflush(user);
}

static struct { /* what the next child is born with */
    rlim_t file_bytes_max;
    uint16_t unreachable; /* a port that it cannot dial; 0: none */
    const char *listen;
} birth = {RLIM_INFINITY, 0, NULL};

long syscall(long number, ...); /* not POSIX: <unistd.h> hides it */

/* Stands before the C library's for everything in this process: a firewall of one rule. */
int connect(int fd, const struct sockaddr *sa, socklen_t bytes)
{
    const struct sockaddr_in *in = (const struct sockaddr_in *)sa;
    if (sa->sa_family == AF_INET && birth.unreachable && ntohs(in->sin_port) == birth.unreachable) {
        errno = ECONNREFUSED;
        return -1;
    }
    return (int)syscall(SYS_connect, fd, sa, bytes);
}

/* The child's whole life. What the node returned goes to D.result, its log to D.log. */
static void run_child(const char *dir)
{
    char path[AT_PATH_BYTES + 16];
    struct at_diag diag = {0};
    struct at_node_result result = {0};
    at_sys_process_init();
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){birth.file_bytes_max, RLIM_INFINITY});
    snprintf(path, sizeof path, "%s.log", dir);
    FILE *log = fopen(path, "a");
    struct at_node_run_options o = {
        .dir = dir, .threads = 1, .listen = birth.listen, .log = log ? log_line : NULL, .log_user = log};
    at_err_t err = at_node_run(&o, &diag, &result);
    if (log && err) log_line(log, AT_NODE_LOG_WARNING, diag.text);
    snprintf(path, sizeof path, "%s.result", dir);
    FILE *f = fopen(path, "w");
    if (f) fprintf(f, "%s %u %d %d\n", at_hash_hex(result.state_root).s, result.rounds, result.ended, result.finished);
    if (f) fclose(f);
    if (log) fclose(log);
    _exit(at_err_exit_code(err));
}

static void start_node(struct member *m)
{
    fflush(NULL);
    m->pid = fork();
    assert_true(m->pid >= 0);
    if (m->pid == 0) run_child(m->dir);
}

static void found(struct member *m, uint32_t rounds, uint32_t min_members, struct at_node_place *place)
{
    uint64_t seed = 7;
    struct at_diag diag = {0};
    const char *data = text_path;
    snprintf(m->dir, sizeof m->dir, "%s/founder", base);
    struct at_node_init_options o = {.dir = m->dir,
                                     .preset = "tiny",
                                     .data_path = &data,
                                     .data_count = 1,
                                     .rounds = rounds,
                                     .seed = &seed,
                                     .min_members = min_members,
                                     .round_ms_max = 10000};
    if (at_node_init(&o, &diag, place)) fail_msg("init: %s: %s", diag.where, diag.text);
}

static void join(struct member *m, int i, const char *invite)
{
    struct at_diag diag = {0};
    struct at_node_place place;
    snprintf(m->dir, sizeof m->dir, "%s/m%d", base, i);
    if (at_node_join(&(struct at_node_join_options){.dir = m->dir, .invite = invite}, &diag, &place))
        fail_msg("join: %s: %s", diag.where, diag.text);
}

static void kill_node(struct member *m)
{
    int status = 0;
    kill(m->pid, SIGKILL);
    assert_int_equal(waitpid(m->pid, &status, 0), m->pid);
    m->pid = 0;
}

/* Exit code, or -1 after the time is over. */
static int wait_exit(struct member *m, int ms)
{
    int status = 0;
    for (uint64_t end = at_clock_mono_ms() + (uint64_t)ms; at_clock_mono_ms() < end; sleep_ms(5)) {
        pid_t got = waitpid(m->pid, &status, WNOHANG);
        if (got == m->pid) return WIFEXITED(status) ? WEXITSTATUS(status) : -2;
    }
    return -1;
}

/* One number (or truth value) of the node's status; -1 when it does not answer. */
static double ask(const struct member *m, const char *field)
{
    struct at_buf text = {0};
    double v = -1;
    if (at_control_call(m->dir, "status", 3000, NULL, &text) == AT_OK) {
        json_t *o = json_loadb((const char *)text.p, text.n, 0, NULL), *f = json_object_get(o, field);
        assert_non_null(o);
        assert_true(json_is_true(json_object_get(o, "ok")));
        v = json_is_boolean(f) ? json_is_true(f) : json_is_array(f) ? (double)json_array_size(f) : json_number_value(f);
        json_decref(o);
    }
    at_buf_release(&text);
    return v;
}

static void show_log(const struct member *m)
{
    char path[AT_PATH_BYTES + 16], line[400];
    snprintf(path, sizeof path, "%s.log", m->dir);
    FILE *f = fopen(path, "r");
    print_message("---- %s\n", path);
    while (f && fgets(line, sizeof line, f)) print_message("%s", line);
    if (f) fclose(f);
}

#define WAIT_FOR(cond, ms, list, count)                                                                                \
    do {                                                                                                               \
        uint64_t end_ = at_clock_mono_ms() + (ms);                                                                     \
        while (!(cond)) {                                                                                              \
            if (at_clock_mono_ms() > end_) {                                                                           \
                for (int k_ = 0; k_ < (count); k_++) show_log(&(list)[k_]);                                            \
                fail_msg("did not come true: %s", #cond);                                                              \
            }                                                                                                          \
            sleep_ms(5);                                                                                               \
        }                                                                                                              \
    } while (0)

static void expect_exit(struct member *all, int count, int i, int code, int ms)
{
    int got = wait_exit(&all[i], ms);
    if (got == code) return;
    for (int k = 0; k < count; k++) show_log(&all[k]);
    if (got == -1) kill_node(&all[i]);
    fail_msg("node %d: exit code %d instead of %d", i, got, code);
}

/* ---- oracles ---- */
struct outcome {
    char root[65];
    unsigned rounds;
    int ended, finished;
};

static struct outcome read_result(const struct member *m)
{
    char path[AT_PATH_BYTES + 16];
    struct outcome o = {0};
    snprintf(path, sizeof path, "%s.result", m->dir);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%64s %u %d %d", o.root, &o.rounds, &o.ended, &o.finished), 4);
    fclose(f);
    return o;
}

/* Root of the same run in one process. */
static void local_root(int replicas, uint32_t rounds, char ret_root[65])
{
    const struct at_preset *preset = NULL;
    struct at_buf text = {0};
    struct at_data data;
    struct at_model model;
    struct at_local local;
    struct at_exec ex;
    const struct at_kern *kern = NULL;
    struct at_hash root;
    double loss;
    assert_int_equal(at_preset_find("tiny", NULL, &preset), AT_OK);
    struct at_train_config config = preset->train;
    config.rounds = rounds;
    config.seed = 7;
    assert_int_equal(at_file_read(text_path, 1 << 20, NULL, &text), AT_OK);
    assert_int_equal(at_data_init(&data, at_buf_span(&text), preset->model.seq_len, 7, AT_HELDOUT_FRACTION,
                                  AT_HELDOUT_BYTES_DEFAULT, NULL),
                     AT_OK);
    assert_int_equal(at_kern_select("ref", NULL, &kern), AT_OK);
    assert_int_equal(at_exec_init(&ex, kern, &at_par_serial), AT_OK);
    assert_int_equal(at_model_init(&model, &preset->model, NULL), AT_OK);
    assert_int_equal(at_local_init(&local, &model, &data, &config, replicas, 0, NULL), AT_OK);
    for (uint32_t r = 0; r < rounds; r++) assert_int_equal(at_local_round(&local, &ex, NULL, NULL, NULL, &loss), AT_OK);
    assert_int_equal(at_state_root(&local.state, NULL, &root), AT_OK);
    snprintf(ret_root, 65, "%s", at_hash_hex(root).s);
    at_local_release(&local);
    at_model_release(&model);
    at_exec_release(&ex);
    at_buf_release(&text);
}

/* The stored ledger of a node, recomputed; returns its head. */
static struct at_hash verify_ledger(const struct member *m, uint64_t *ret_records)
{
    char path[AT_PATH_BYTES + 32];
    struct at_diag diag = {0};
    struct at_store *store = NULL;
    struct at_buf bytes = {0};
    struct at_genesis *g = malloc(sizeof *g);
    struct at_ledger ledger;
    struct at_ledger_report report = {0};
    snprintf(path, sizeof path, "%s/ledger.sqlite", m->dir);
    at_err_t err = at_store_open_readonly(path, &diag, &store);
    if (!err) err = at_store_genesis(store, &diag, &bytes);
    if (!err) err = at_genesis_decode(at_buf_span(&bytes), &diag, g);
    if (!err) err = at_ledger_init(&ledger, g, &diag);
    if (err) fail_msg("%s: %s", diag.where, diag.text);
    struct at_log_source source = {0};
    assert_int_equal(at_store_source(store, NULL, &source), AT_OK);
    err = at_ledger_verify(&ledger, &source, &at_par_serial, &diag, &report);
    if (err || !report.ok)
        fail_msg("%s: record %llu: %s %s", m->dir, (unsigned long long)report.record, report.reason, diag.text);
    at_ledger_release(&ledger);
    at_store_close(store);
    at_buf_release(&bytes);
    free(g);
    *ret_records = report.records;
    return report.head;
}

static void expect_agreement(struct member *m, int count, uint32_t rounds)
{
    uint64_t records = 0, first_records = 0;
    struct outcome first = read_result(&m[0]);
    struct at_hash head = verify_ledger(&m[0], &first_records);
    assert_int_equal(first.rounds, rounds);
    assert_int_equal(first.ended, 1);
    for (int i = 1; i < count; i++) {
        struct outcome o = read_result(&m[i]);
        if (strcmp(o.root, first.root) != 0 || o.rounds != rounds || !o.ended)
            for (int k = 0; k < count; k++) show_log(&m[k]);
        assert_string_equal(o.root, first.root);
        assert_int_equal(o.rounds, rounds);
        assert_true(o.ended);
        struct at_hash h = verify_ledger(&m[i], &records);
        assert_int_equal(records, first_records);
        assert_true(at_hash_eq(h, head));
    }
}

/* ---- tests ---- */
static void test_three_nodes_reach_the_root_of_one_process(void **state)
{
    struct member m[3] = {{{0}, 0}};
    struct at_node_place place;
    char root[65];
    found(&m[0], 3, 3, &place);
    start_node(&m[0]);
    for (int i = 1; i < 3; i++) {
        join(&m[i], i, place.invite);
        start_node(&m[i]);
        if (i == 1) WAIT_FOR(ask(&m[0], "members") == 2, 10000, m, 2); /* replica order = order of joining */
    }
    for (int i = 0; i < 3; i++) expect_exit(m, 3, i, 0, 30000);
    expect_agreement(m, 3, 3);
    local_root(3, 3, root);
    assert_string_equal(read_result(&m[0]).root, root);
}

static void test_member_dies_and_returns(void **state)
{
    enum { ROUNDS = 24 };
    struct member m[3] = {{{0}, 0}};
    struct at_node_place place;
    found(&m[0], ROUNDS, 3, &place);
    start_node(&m[0]);
    for (int i = 1; i < 3; i++) {
        join(&m[i], i, place.invite);
        start_node(&m[i]);
    }
    for (int k = 0; k < 3; k++) {
        double round = 0;
        WAIT_FOR((round = ask(&m[0], "rounds_done")) >= 2 + 5 * k, 20000, m, 3);
        kill_node(&m[1 + k % 2]);
        WAIT_FOR(ask(&m[0], "rounds_done") >= round + 2 || ask(&m[0], "rounds_done") < 0, 20000, m,
                 3); /* goes on without */
        start_node(&m[1 + k % 2]);
        WAIT_FOR(ask(&m[0], "peers") == 2 || ask(&m[0], "rounds_done") < 0, 20000, m, 3);
    }
    for (int i = 0; i < 3; i++) expect_exit(m, 3, i, 0, 60000);
    expect_agreement(m, 3, ROUNDS);
}

/* The steward is killed at many moments of its rounds; nothing that a member has seen is lost. */
static void test_steward_dies_and_returns(void **state)
{
    enum { ROUNDS = 14 };
    struct member m[3] = {{{0}, 0}};
    struct at_node_place place;
    uint32_t x = 1;
    found(&m[0], ROUNDS, 3, &place);
    start_node(&m[0]);
    for (int i = 1; i < 3; i++) {
        join(&m[i], i, place.invite);
        start_node(&m[i]);
    }
    for (int k = 0; k < 8; k++) {
        WAIT_FOR(ask(&m[0], "rounds_done") >= 1 + k * (k < 6), 20000, m, 3); /* the last two right after a return */
        sleep_ms((long)((x = x * 1103515245 + 12345) >> 16) % 160);
        double seen = ask(&m[1], "records");
        if (ask(&m[0], "ended") != 0) break;
        kill_node(&m[0]);
        uint64_t stored = 0;
        verify_ledger(&m[0], &stored);
        assert_true((double)stored >= seen);
        start_node(&m[0]);
        WAIT_FOR(ask(&m[0], "records") >= (double)stored, 10000, m, 3);
    }
    for (int i = 0; i < 3; i++) expect_exit(m, 3, i, 0, 60000);
    expect_agreement(m, 3, ROUNDS);
}

/* The text of a node's status field; empty when it does not answer. */
static void ask_text(const struct member *m, const char *field, char *ret, size_t n)
{
    struct at_buf text = {0};
    ret[0] = 0;
    if (at_control_call(m->dir, "status", 3000, NULL, &text) == AT_OK) {
        json_t *o = json_loadb((const char *)text.p, text.n, 0, NULL);
        const char *value = json_string_value(json_object_get(o, field));
        snprintf(ret, n, "%s", value ? value : "");
        json_decref(o);
    }
    at_buf_release(&text);
}

/* Bytes of the addresses that a node has written down. */
static uint64_t kept_bytes(const struct member *m)
{
    char path[AT_PATH_BYTES];
    struct at_buf bytes = {0};
    assert_int_equal(at_path_join(m->dir, "peers", NULL, path), AT_OK);
    at_err_t err = at_file_read(path, 1 << 20, NULL, &bytes);
    uint64_t n = err ? 0 : bytes.n;
    at_buf_release(&bytes);
    return n;
}

/* A newcomer and the founder cannot dial each other: it comes in through a member, whose invite it has, and takes part
 * in every round through it. Then the founder dies and comes back at another port; its folder knows where the others
 * are. */
static void test_in_through_a_member(void **state)
{
    struct member m[3] = {{{0}, 0}};
    struct at_node_place place, second;
    struct at_diag diag = {0};
    struct at_buf answer = {0};
    char invite[AT_INVITE_TEXT_MAX + 1];
    found(&m[0], 100000, 3, &place);
    join(&m[1], 1, place.invite);
    join(&m[2], 2, place.invite); /* only for its folder and port */
    assert_int_equal(at_node_folder(m[2].dir, NULL, &second), AT_OK);
    birth.unreachable = second.port;
    start_node(&m[0]);
    birth.unreachable = 0;
    start_node(&m[1]);
    WAIT_FOR(ask(&m[0], "members") == 2 && ask(&m[1], "joined") == 1, 20000, m, 2);
    ask_text(&m[1], "invite", invite, sizeof invite);
    assert_string_not_equal(invite, place.invite);
    if (at_node_join(&(struct at_node_join_options){.dir = m[2].dir, .invite = invite}, &diag, &second))
        fail_msg("join: %s: %s", diag.where, diag.text);
    birth.unreachable = place.port;
    start_node(&m[2]);
    WAIT_FOR(ask(&m[2], "rounds_done") >= 1, 30000, m, 3);
    assert_int_equal((int)ask(&m[2], "hops"), 2);
    WAIT_FOR(ask(&m[2], "peers_known") == 3, 20000, m, 3);
    WAIT_FOR(kept_bytes(&m[0]) >= (uint64_t)3 * (AT_KEY_BYTES + AT_SIG_BYTES + 18), 20000, m, 3); /* three statements */
    kill_node(&m[0]);
    birth.unreachable = second.port;
    birth.listen = "127.0.0.1:0";
    start_node(&m[0]);
    birth.unreachable = 0;
    birth.listen = NULL;
    WAIT_FOR(ask(&m[0], "peers") >= 1, 30000, m, 3);
    double round = ask(&m[0], "rounds_done");
    WAIT_FOR(ask(&m[2], "rounds_done") >= round + 2, 60000, m, 3);
    assert_int_equal(at_control_call(m[0].dir, "finish", 3000, NULL, &answer), AT_OK);
    at_buf_release(&answer);
    for (int i = 0; i < 3; i++) expect_exit(m, 3, i, 0, 60000);
    expect_agreement(m, 3, read_result(&m[0]).rounds);
    assert_int_equal(at_node_folder(m[0].dir, NULL, &second), AT_OK);
    assert_int_not_equal(second.port, place.port);
}

/* Minutes of deaths: any node, at any moment, sometimes two at once. No record that was stored is lost, and all end
 * alike. */
static void test_a_hundred_deaths(void **state)
{
    struct member m[3] = {{{0}, 0}};
    struct at_node_place place;
    struct at_buf answer = {0};
    uint32_t x = (uint32_t)at_clock_mono_ns();
    print_message("seed %u\n", x);
    found(&m[0], 100000, 2, &place);
    for (int i = 1; i < 3; i++) join(&m[i], i, place.invite);
    for (int i = 0; i < 3; i++) start_node(&m[i]);
    for (int k = 0; k < 100; k++) {
        uint64_t stored[3] = {0};
        double done = 0;
        sleep_ms((x = x * 1103515245 + 12345) >> 16 & 511);
        unsigned victims = (x = x * 1103515245 + 12345) >> 16 & 7;
        if (victims == 0)
            WAIT_FOR((done = ask(&m[0], "rounds_done")) >= 0 && ask(&m[0], "rounds_done") > done, 30000, m, 3);
        for (int i = 0; i < 3; i++)
            if (victims >> i & 1) kill_node(&m[i]);
        for (int i = 0; i < 3; i++) {
            char path[AT_PATH_BYTES];
            if (!(victims >> i & 1)) continue;
            assert_int_equal(at_path_join(m[i].dir, "ledger.sqlite", NULL, path), AT_OK);
            if (at_file_exists(path)) verify_ledger(&m[i], &stored[i]);
            start_node(&m[i]);
        }
        for (int i = 0; i < 3; i++) WAIT_FOR(ask(&m[i], "records") >= (double)stored[i], 10000, m, 3);
    }
    WAIT_FOR(ask(&m[0], "peers") == 2, 20000, m, 3);
    double round = ask(&m[0], "rounds_done");
    WAIT_FOR(ask(&m[0], "rounds_done") >= round + 3, 30000, m, 3);
    assert_int_equal(at_control_call(m[0].dir, "finish", 2000, NULL, &answer), AT_OK);
    for (int i = 0; i < 3; i++) expect_exit(m, 3, i, 0, 30000);
    expect_agreement(m, 3, read_result(&m[0]).rounds);
    print_message("%u rounds in spite of it\n", read_result(&m[0]).rounds);
    at_buf_release(&answer);
}

static void test_asked_to_end(void **state)
{
    struct member m[2] = {{{0}, 0}};
    struct at_node_place place, again;
    struct at_diag diag = {0};
    struct at_buf answer = {0};
    found(&m[0], 100000, 1, &place);
    start_node(&m[0]);
    WAIT_FOR(ask(&m[0], "rounds_done") >= 1, 10000, m, 1);
    /* one process per folder */
    assert_int_equal(at_node_run(&(struct at_node_run_options){.dir = m[0].dir}, &diag, &(struct at_node_result){0}),
                     AT_E_ENV);
    assert_non_null(strstr(diag.text, "another atoll"));
    /* unknown words get an answer */
    assert_int_equal(at_control_call(m[0].dir, "dance", 2000, NULL, &answer), AT_OK);
    assert_true(answer.n > 11 && memcmp(answer.p, "{\"ok\":false", 11) == 0);
    at_buf_release(&answer);
    /* Ctrl-C, then on from there, then finish */
    kill(m[0].pid, SIGINT);
    expect_exit(m, 1, 0, 130, 5000);
    unsigned rounds = read_result(&m[0]).rounds;
    memset(&diag, 0, sizeof diag);
    assert_int_equal(at_control_call(m[0].dir, "status", 1000, &diag, &answer), AT_E_NOT_FOUND);
    assert_int_equal(at_node_folder(m[0].dir, NULL, &again), AT_OK);
    assert_int_equal(again.port, place.port);
    start_node(&m[0]);
    WAIT_FOR(ask(&m[0], "rounds_done") > rounds, 10000, m, 1);
    assert_int_equal(at_control_call(m[0].dir, "finish", 2000, NULL, &answer), AT_OK);
    expect_exit(m, 1, 0, 0, 10000);
    assert_true(read_result(&m[0]).ended && read_result(&m[0]).rounds > rounds);
    uint64_t records;
    verify_ledger(&m[0], &records);
    at_buf_release(&answer);
}

static void flip_byte(const char *dir, const char *name, size_t at)
{
    char path[AT_PATH_BYTES];
    struct at_buf bytes = {0};
    assert_int_equal(at_path_join(dir, name, NULL, path), AT_OK);
    assert_int_equal(at_file_read(path, 1 << 24, NULL, &bytes), AT_OK);
    bytes.p[at < bytes.n ? at : bytes.n / 2] ^= 1;
    struct at_span part = at_buf_span(&bytes);
    assert_int_equal(at_file_write_atomic(path, &part, 1, 0644, NULL), AT_OK);
    at_buf_release(&bytes);
}

/* A file-size limit stands for a full disk. The node ends with code 5, keeps what it had, and goes on when there is
 * room. */
static void test_full_disk(void **state)
{
    struct member m[1] = {{{0}, 0}};
    struct at_node_place place;
    uint64_t records = 0;
    found(&m[0], 6, 1, &place);
    for (rlim_t kib = 40; kib <= 90; kib += 25) { /* the update, the model, the ledger's log */
        birth.file_bytes_max = kib << 10;
        start_node(&m[0]);
        birth.file_bytes_max = RLIM_INFINITY;
        expect_exit(m, 1, 0, 5, 20000);
        verify_ledger(&m[0], &records);
    }
    start_node(&m[0]);
    expect_exit(m, 1, 0, 0, 20000);
    expect_agreement(m, 1, 6);
    char root[65];
    local_root(1, 6, root);
    assert_string_equal(read_result(&m[0]).root, root);
}

/* The founder's model cannot be made again and is not passed over; a member fetches it. */
static void test_damaged_model(void **state)
{
    struct member m[2] = {{{0}, 0}};
    struct at_node_place place;
    uint64_t records = 0;
    found(&m[0], 100000, 2, &place);
    join(&m[1], 1, place.invite);
    for (int i = 0; i < 2; i++) start_node(&m[i]);
    WAIT_FOR(ask(&m[1], "state_round") >= 2, 20000, m, 2);
    kill(m[1].pid, SIGINT);
    expect_exit(m, 2, 1, 130, 5000);
    flip_byte(m[1].dir, "model.safetensors", SIZE_MAX);
    start_node(&m[1]);
    WAIT_FOR(ask(&m[0], "peers") == 1, 10000, m, 2);
    double round = ask(&m[0], "rounds_done");
    WAIT_FOR(ask(&m[1], "state_round") > round, 10000, m, 2);
    for (int i = 0; i < 2; i++) WAIT_FOR(ask(&m[i], "checkpoint_holders") == 2, 20000, m, 2);
    kill(m[0].pid, SIGINT);
    expect_exit(m, 2, 0, 130, 5000);
    flip_byte(m[0].dir, "model.safetensors", SIZE_MAX);
    start_node(&m[0]);
    expect_exit(m, 2, 0, 3, 5000);
    flip_byte(m[0].dir, "model.safetensors", SIZE_MAX); /* as it was */
    start_node(&m[0]);
    WAIT_FOR(ask(&m[0], "rounds_done") > round + 1, 20000, m, 2);
    struct at_buf answer = {0};
    assert_int_equal(at_control_call(m[0].dir, "finish", 2000, NULL, &answer), AT_OK);
    at_buf_release(&answer);
    for (int i = 0; i < 2; i++) expect_exit(m, 2, i, 0, 10000);
    expect_agreement(m, 2, read_result(&m[0]).rounds);
    verify_ledger(&m[0], &records);
}

static void expect_init(const char *dir, const char *preset, const char *data, const char *listen, at_err_t err,
                        const char *says)
{
    struct at_diag diag = {0};
    struct at_node_place place;
    struct at_node_init_options o = {
        .dir = dir, .preset = preset, .data_path = &data, .data_count = 1, .listen = listen};
    at_err_t got = at_node_init(&o, &diag, &place);
    if (got != err || !strstr(diag.text, says))
        fail_msg("%d instead of %d; '%s' is not in '%s'", got, err, says, diag.text);
}

static void test_bad_beginnings(void **state)
{
    struct member m[2] = {{{0}, 0}};
    struct at_node_place place, other;
    struct at_diag diag = {0};
    struct at_node_result result;
    char fresh[AT_PATH_BYTES], listen_at[64], bad[AT_PATH_BYTES];
    bool empty = false;
    found(&m[0], 3, 2, &place);
    snprintf(fresh, sizeof fresh, "%s/fresh", base);
    snprintf(bad, sizeof bad, "%s/binary", base);
    struct at_span binary = at_span("text\0with a hole in it, and more of it after that", 50);
    assert_int_equal(at_file_write_atomic(bad, &binary, 1, 0644, NULL), AT_OK);
    expect_init(fresh, "no-such", text_path, NULL, AT_E_USAGE, "nano");
    expect_init(fresh, "tiny", "/no/such/file", NULL, AT_E_NOT_FOUND, "/no/such/file");
    expect_init(fresh, "tiny", base, NULL, AT_E_DATA, "folder");
    expect_init(fresh, "tiny", bad, NULL, AT_E_DATA, "");
    expect_init(fresh, "tiny", text_path, "nonsense", AT_E_USAGE, "HOST:PORT");
    assert_int_equal(at_dir_is_empty(fresh, NULL, &empty), AT_OK);
    assert_true(empty);
    expect_init(m[0].dir, "tiny", text_path, NULL, AT_E_DATA, "already");
    expect_init(base, "tiny", text_path, NULL, AT_E_DATA, "not empty");
    start_node(&m[0]);
    WAIT_FOR(ask(&m[0], "members") == 1, 10000, m, 1);
    snprintf(listen_at, sizeof listen_at, "127.0.0.1:%u", place.port);
    expect_init(fresh, "tiny", text_path, listen_at, AT_E_PORT, "in use");
    /* an invite of another run, on the same key and address: the peer says so; and one with a wrong key */
    struct at_invite invite;
    char text[AT_INVITE_TEXT_MAX + 1];
    for (int k = 0; k < 2; k++) {
        assert_int_equal(at_invite_decode(place.invite, NULL, &invite), AT_OK);
        struct at_keypair stranger;
        assert_int_equal(at_keypair_generate(&stranger), AT_OK);
        if (k == 0)
            invite.run.b[0] ^= 1;
        else
            invite.node = stranger.id;
        assert_int_equal(at_invite_encode(&invite, NULL, text), AT_OK);
        snprintf(m[1].dir, sizeof m[1].dir, "%s/stranger%d", base, k);
        assert_int_equal(at_node_join(&(struct at_node_join_options){.dir = m[1].dir, .invite = text}, NULL, &other),
                         AT_OK);
        memset(&diag, 0, sizeof diag);
        at_err_t err = at_node_run(&(struct at_node_run_options){.dir = m[1].dir, .threads = 1}, &diag, &result);
        print_message("%s\n", diag.text);
        assert_int_equal(at_err_exit_code(err), 6);
    }
    assert_int_equal(
        at_node_join(&(struct at_node_join_options){.dir = fresh, .invite = "atoll1garbage"}, NULL, &other),
        AT_E_INVITE);
    assert_int_equal(
        at_node_join(&(struct at_node_join_options){.dir = m[1].dir, .invite = place.invite}, NULL, &other),
        at_hash_eq(invite.run, place.run) ? AT_OK : AT_E_DATA);
    memset(&diag, 0, sizeof diag);
    assert_int_equal(at_node_run(&(struct at_node_run_options){.dir = base}, &diag, &result), AT_E_DATA);
    assert_int_equal(at_node_run(&(struct at_node_run_options){.dir = fresh}, NULL, &result), AT_E_NOT_FOUND);
    kill(m[0].pid, SIGTERM);
    expect_exit(m, 1, 0, 130, 5000);
}

int main(int argc, char **argv)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, make_base, remove_base)
    const struct CMUnitTest tests[] = {
        CASE(test_three_nodes_reach_the_root_of_one_process),
        CASE(test_member_dies_and_returns),
        CASE(test_steward_dies_and_returns),
        CASE(test_in_through_a_member),
        CASE(test_asked_to_end),
        CASE(test_full_disk),
        CASE(test_damaged_model),
        CASE(test_bad_beginnings),
    };
    const struct CMUnitTest slow[] = {CASE(test_a_hundred_deaths)};
    at_sys_process_init();
    if (argc > 1 && strcmp(argv[1], "--long") == 0) return cmocka_run_group_tests(slow, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
