/* node_test_util.h: whole nodes, each a process of its own, on loopback, for *_test.c only. The oracle of the state root is
 * the in-process run (train/local.h); the oracle of the ledger is its verifier. */
#ifndef ATOLL_NODE_NODE_TEST_UTIL_H
#define ATOLL_NODE_NODE_TEST_UTIL_H

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

static inline void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static inline int make_base(void **state)
{
    char text[40000];
    strcpy(base, "/tmp/at_node_test.XXXXXX");
    if (!mkdtemp(base)) return -1;
    snprintf(text_path, sizeof text_path, "%s/text.txt", base);
    for (size_t i = 0; i < sizeof text; i++) text[i] = "the whale and the sea, "[(i * i / 7 + i) % 23];
    struct at_span part = at_span(text, sizeof text);
    return at_file_write_atomic(text_path, &part, 1, 0644, NULL);
}

static inline int remove_base(void **state)
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
static inline void log_line(void *user, enum at_node_log_kind kind, const char *line)
{
    fprintf(user, "%llu %s%s\n", (unsigned long long)at_clock_mono_ms() % 1000000,
            kind == AT_NODE_LOG_WARNING ? "! " : "", line);
    fflush(user);
}

static struct { /* what the next child is born with */
    rlim_t file_bytes_max, data_bytes_max;
    uint16_t unreachable; /* a port that it cannot dial; 0: none */
    const char *listen;
} birth = {RLIM_INFINITY, RLIM_INFINITY, 0, NULL};
static const char *run_preset = "tiny"; /* of the runs that are founded */

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
static inline void run_child(const char *dir)
{
    char path[AT_PATH_BYTES + 16];
    struct at_diag diag = {0};
    struct at_node_result result = {0};
    at_sys_process_init();
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){birth.file_bytes_max, RLIM_INFINITY});
    setrlimit(RLIMIT_DATA, &(struct rlimit){birth.data_bytes_max, RLIM_INFINITY});
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

static inline void start_node(struct member *m)
{
    fflush(NULL);
    m->pid = fork();
    assert_true(m->pid >= 0);
    if (m->pid == 0) run_child(m->dir);
}

static uint32_t run_round_ms; /* 0: long enough for every unit */

/* steps 0: the preset's; stages 0: everybody works alone. */
static inline void found_as(struct member *m, uint32_t rounds, uint32_t min_members, uint32_t steps, uint32_t stages,
                            struct at_node_place *place)
{
    uint64_t seed = 7;
    struct at_diag diag = {0};
    const char *data = text_path;
    snprintf(m->dir, sizeof m->dir, "%s/founder", base);
    struct at_node_init_options o = {.dir = m->dir,
                                     .steps = steps,
                                     .stages = stages,
                                     .groups_by_log = true, /* the root tells how many units there were */
                                     .preset = run_preset,
                                     .data_path = &data,
                                     .data_count = 1,
                                     .rounds = rounds,
                                     .seed = &seed,
                                     .min_members = min_members,
                                     .round_ms_max = run_round_ms                      ? run_round_ms
                                                     : strcmp(run_preset, "tiny") == 0 ? 10000
                                                                                       : 200000};
    if (at_node_init(&o, &diag, place)) fail_msg("init: %s: %s", diag.where, diag.text);
}

static inline void found(struct member *m, uint32_t rounds, uint32_t min_members, struct at_node_place *place)
{
    found_as(m, rounds, min_members, 0, 0, place);
}

static inline void join(struct member *m, int i, const char *invite)
{
    struct at_diag diag = {0};
    struct at_node_place place;
    snprintf(m->dir, sizeof m->dir, "%s/m%d", base, i);
    if (at_node_join(&(struct at_node_join_options){.dir = m->dir, .invite = invite}, &diag, &place))
        fail_msg("join: %s: %s", diag.where, diag.text);
}

static inline void kill_node(struct member *m)
{
    int status = 0;
    kill(m->pid, SIGKILL);
    assert_int_equal(waitpid(m->pid, &status, 0), m->pid);
    m->pid = 0;
}

/* Exit code, or -1 after the time is over. */
static inline int wait_exit(struct member *m, int ms)
{
    int status = 0;
    for (uint64_t end = at_clock_mono_ms() + (uint64_t)ms; at_clock_mono_ms() < end; sleep_ms(5)) {
        pid_t got = waitpid(m->pid, &status, WNOHANG);
        if (got == m->pid) return WIFEXITED(status) ? WEXITSTATUS(status) : -2;
    }
    return -1;
}

/* One number (or truth value) of the node's status; -1 when it does not answer. */
static inline double ask(const struct member *m, const char *field)
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

static inline void show_log(const struct member *m)
{
    char path[AT_PATH_BYTES + 16], line[400];
    snprintf(path, sizeof path, "%.1023s.log", m->dir);
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

static inline void expect_exit(struct member *all, int count, int i, int code, int ms)
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

static inline struct outcome read_result(const struct member *m)
{
    char path[AT_PATH_BYTES + 16];
    struct outcome o = {0};
    snprintf(path, sizeof path, "%.1023s.result", m->dir);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%64s %u %d %d", o.root, &o.rounds, &o.ended, &o.finished), 4);
    fclose(f);
    return o;
}

/* Root of the same run in one process. steps 0: the preset's. */
static inline void local_root_as(int replicas, uint32_t rounds, uint32_t steps, char ret_root[65])
{
    const struct at_preset *preset = NULL;
    struct at_buf text = {0};
    struct at_data data;
    struct at_model m;
    struct at_local local;
    struct at_exec ex;
    const struct at_kern *kern = NULL;
    struct at_hash root;
    double loss;
    assert_int_equal(at_preset_find(run_preset, NULL, &preset), AT_OK);
    struct at_train_config config = preset->train;
    config.rounds = rounds;
    if (steps) config.steps = steps;
    config.seed = 7;
    assert_int_equal(at_file_read(text_path, 1 << 20, NULL, &text), AT_OK);
    assert_int_equal(at_data_init(&data, at_buf_span(&text), preset->model.seq_len, 7, AT_HELDOUT_FRACTION,
                                  AT_HELDOUT_BYTES_DEFAULT, NULL),
                     AT_OK);
    assert_int_equal(at_kern_select(strcmp(run_preset, "tiny") == 0 ? "ref" : "auto", NULL, &kern), AT_OK);
    assert_int_equal(at_exec_init(&ex, kern, &at_par_serial), AT_OK);
    assert_int_equal(at_model_init(&m, &preset->model, NULL), AT_OK);
    assert_int_equal(at_local_init(&local, &m, &data, &config, replicas, 0, NULL), AT_OK);
    for (uint32_t r = 0; r < rounds; r++) assert_int_equal(at_local_round(&local, &ex, NULL, NULL, NULL, &loss), AT_OK);
    assert_int_equal(at_state_root(&local.state, NULL, &root), AT_OK);
    snprintf(ret_root, 65, "%s", at_hash_hex(root).s);
    at_local_release(&local);
    at_model_release(&m);
    at_exec_release(&ex);
    at_buf_release(&text);
}

static inline void local_root(int replicas, uint32_t rounds, char ret_root[65])
{
    local_root_as(replicas, rounds, 0, ret_root);
}

/* The stored ledger of a node, recomputed; returns its head. */
static inline struct at_hash verify_ledger(const struct member *m, uint64_t *ret_records)
{
    char path[AT_PATH_BYTES + 32];
    struct at_diag diag = {0};
    struct at_store *store = NULL;
    struct at_buf bytes = {0};
    struct at_genesis *g = malloc(sizeof *g);
    struct at_ledger ledger;
    struct at_ledger_report report = {0};
    snprintf(path, sizeof path, "%.1023s/ledger.sqlite", m->dir);
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

static inline void expect_agreement(struct member *m, int count, uint32_t rounds)
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

#endif
