/* cmd_doctor.c: what this machine offers, and whether a folder is healthy. Findings are facts with a verdict each; a
 * machine on which nothing can be trained makes the command fail. */
#include "cli/cli_cmd.h"
#include "cli/cli_ledger.h"
#include "cli/cli_model.h"
#include "cli/cli_text.h"
#include "node/node.h"
#include "os/file.h"
#include "os/sys.h"
#include "tensor/exec.h"

#include <netinet/in.h>
#include <openssl/crypto.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

struct args {
    const char *dir;
};

static const struct at_opt rows[] = {
    AT_ROW_TEXT(struct args, dir, "dir", "D", NULL, "also look whether this folder is healthy"),
};

struct visit {
    struct at_cli *cli;
    json_t *checks;
    at_err_t err; /* of the first bad finding; cli->diag says what to do */
};

/* One finding; err != AT_OK: bad, and `advice` says what to do. */
static void finding(struct visit *v, const char *name, at_err_t err, const char *value, const char *advice)
{
    json_t *object = json_object();
    AT_ASSERT(object != NULL);
    at_json_set_text(object, "check", name);
    at_json_set_bool(object, "ok", err == AT_OK);
    at_json_set_text(object, "value", value);
    if (err != AT_OK) at_json_set_text(object, "advice", advice);
    AT_ASSERT(json_array_append_new(v->checks, object) == 0);
    if (!v->cli->json) {
        printf("%-4s %-9s %s\n", err == AT_OK ? "ok" : "BAD", name, value);
        if (err != AT_OK) printf("     %-9s %s\n", "", advice);
    }
    if (err != AT_OK && v->err == AT_OK) v->err = at_fail(&v->cli->diag, err, name, "%s; %s", value, advice);
}

static void check_cpu(struct visit *v)
{
    char value[256], model[128] = "unknown";
    uv_cpu_info_t *info;
    int count;
    if (uv_cpu_info(&info, &count) == 0) {
        if (count > 0) snprintf(model, sizeof model, "%s", info[0].model);
        uv_free_cpu_info(info, count);
    }
    snprintf(value, sizeof value, "%s, %d usable", model, at_sys_cpu_count());
    finding(v, "cpu", AT_OK, value, "");
    size_t n = 0;
    value[0] = '\0';
    for (const struct at_kern *const *k = at_kern_available(); *k != NULL && n < sizeof value; k++)
        n += (size_t)snprintf(value + n, sizeof value - n, "%s%s", n ? ", " : "", (*k)->name);
    finding(v, "kernels", AT_OK, value, "");
}

static void check_memory(struct visit *v)
{
    char value[64];
    uint64_t bytes = at_sys_memory_available();
    snprintf(value, sizeof value, "%.1f MB available", (double)bytes * 1e-6);
    finding(v, "memory", bytes != 0 && bytes < 100000000 ? AT_E_NOMEM : AT_OK, bytes ? value : "unknown",
            "close other programs: the smallest model needs about 100 MB");
}

static void check_disk(struct visit *v, const char *dir)
{
    char value[64] = "unknown";
    uint64_t bytes = 0;
    at_err_t err = at_disk_free(dir, NULL, &bytes);
    if (err == AT_OK) snprintf(value, sizeof value, "%.1f MB free", (double)bytes * 1e-6);
    if (err == AT_OK && bytes < 50000000) err = AT_E_DISK;
    finding(v, "disk", err, value, "free some space: a small run needs about 50 MB");
}

static void check_port(struct visit *v)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof address;
    char value[64] = "cannot listen on 127.0.0.1";
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    bool ok = fd >= 0 && bind(fd, (const struct sockaddr *)&address, bytes) == 0 && listen(fd, 1) == 0 &&
              getsockname(fd, (struct sockaddr *)&address, &bytes) == 0;
    if (ok) snprintf(value, sizeof value, "can listen on 127.0.0.1 (tried port %u)", ntohs(address.sin_port));
    if (fd >= 0) close(fd);
    finding(v, "ports", ok ? AT_OK : AT_E_PORT, value, "a firewall or sandbox forbids it: allow loopback connections");
}

static void check_clock(struct visit *v)
{
    char value[64];
    time_t now = (time_t)(at_clock_unix_ms() / 1000);
    struct tm tm;
    bool ok = gmtime_r(&now, &tm) != NULL && strftime(value, sizeof value, "%Y-%m-%dT%H:%M:%SZ", &tm) > 0;
    if (!ok) snprintf(value, sizeof value, "unreadable");
    /* Records carry dates; a clock before this program was written is certainly wrong. */
    finding(v, "clock", ok && tm.tm_year >= 2024 - 1900 ? AT_OK : AT_E_ENV, value, "set the machine's clock");
}

static void check_libraries(struct visit *v)
{
    char value[128];
    snprintf(value, sizeof value, "OpenSSL %s, SQLite %s, libuv %s, jansson %s",
             OpenSSL_version(OPENSSL_VERSION_STRING), sqlite3_libversion(), uv_version_string(), JANSSON_VERSION);
    finding(v, "libraries", AT_OK, value, "");
    char path[AT_PATH_BYTES];
    struct at_diag why = {0};
    at_err_t err = at_cli_corpus_find(&why, path);
    finding(v, "corpus", err, err == AT_OK ? path : "not found", why.text);
}

static void check_folder(struct visit *v, const char *dir)
{
    struct at_node_place place;
    struct at_cli_ledger l;
    struct at_cli_model m;
    struct at_ledger_report report;
    struct at_diag why = {0};
    char value[400];
    uint32_t rounds = 0;
    at_err_t err = at_node_folder(dir, &why, &place);
    if (err == AT_OK) snprintf(value, sizeof value, "run %s", at_hash_hex(place.run).s);
    finding(v, "folder", err, err == AT_OK ? value : dir, why.text);
    if (err != AT_OK) return;
    memset(&why, 0, sizeof why);
    if ((err = at_cli_ledger_open(dir, &why, &l)) == AT_OK) {
        struct at_log_source source;
        err = at_store_source(l.store, &why, &source);
        if (err == AT_OK) err = at_ledger_verify(&l.ledger, &source, &at_par_serial, &why, &report);
        if (err == AT_OK) snprintf(value, sizeof value, "%llu records verified", (unsigned long long)report.records);
        if (err == AT_E_VERIFY)
            snprintf(why.text, sizeof why.text, "record %llu: %.300s", (unsigned long long)report.record,
                     report.reason);
        rounds = l.ledger.round;
        at_cli_ledger_release(&l);
    }
    finding(v, "ledger", err, err == AT_OK ? value : "bad", why.text);
    memset(&why, 0, sizeof why);
    if ((err = at_cli_model_read(dir, &why, &m)) == AT_OK) {
        snprintf(value, sizeof value, "round %u, root %s", m.state.round, at_hash_hex(m.root).s);
        at_cli_model_release(&m);
    } else if (err == AT_E_NOT_FOUND && rounds == 0) {
        snprintf(value, sizeof value, "none before the first round");
        err = AT_OK;
    }
    finding(v, "model", err, err == AT_OK ? value : why.where, why.text);
}

static at_err_t run(struct at_cli *cli, void *args)
{
    const struct args *a = args;
    struct visit v = {cli, json_array(), AT_OK};
    AT_ASSERT(v.checks != NULL);
    check_cpu(&v);
    check_memory(&v);
    check_disk(&v, a->dir != NULL && at_file_exists(a->dir) ? a->dir : ".");
    check_port(&v);
    check_clock(&v);
    check_libraries(&v);
    if (a->dir != NULL) check_folder(&v, a->dir);
    if (cli->json) {
        at_json_set_bool(at_cli_answer(cli), "ok", v.err == AT_OK);
        at_json_set(cli->answer, "checks", json_incref(v.checks));
    }
    json_decref(v.checks);
    return v.err;
}

const struct at_command at_cmd_doctor = {
    .name = "doctor",
    .summary = "what this machine offers, what is wrong, what to do",
    .usage = "[--dir D]",
    .about = "Looks at processor, kernels, memory, disk, ports, clock and libraries, and with --dir at a run's folder.",
    .examples = "  atoll doctor\n  atoll doctor --dir run --json\n",
    AT_ROWS(rows),
    .args_bytes = sizeof(struct args),
    .run = run,
};
