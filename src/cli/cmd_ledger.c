/* cmd_ledger.c: `ledger verify` recomputes every balance from genesis; `ledger replay` the training, too; `ledger show`
 * prints the records; `ledger export` writes them to a file for others. */
#include "cli/cli_cmd.h"
#include "cli/cli_exec.h"
#include "cli/cli_ledger.h"
#include "cli/ledger_export.h"
#include "cli/ledger_replay.h"
#include "cli/progress.h"
#include "os/file.h"
#include "os/pool.h"
#include "os/sys.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

struct args {
    const char *dir, *kernels, *out;
    struct at_opt_int from, count, threads;
};

static const struct at_opt rows[] = {
    AT_ROW_TEXT(struct args, dir, "dir", "D", NULL, "the run's folder, or a ledger file (the same as the last word)"),
    AT_ROW_INT(struct args, from, "from", "I", 0, UINT64_MAX / 2, "0", "show: the first record"),
    AT_ROW_INT(struct args, count, "count", "N", 1, 1000000000, "1000", "show: how many"),
    AT_ROW_INT(struct args, threads, "threads", "N", 1, 64, NULL, "replay: threads (default: one per processor)"),
    AT_ROW_TEXT(struct args, kernels, "kernels", "K", "auto",
                "replay: ref, avx2, avx512 or auto; all give the same bits"),
    AT_ROW_TEXT(struct args, out, "out", "FILE", NULL, "export: the new file"),
};

/* The fold of all records, each checked. The verdict is in the report: AT_OK or AT_E_VERIFY. */
static at_err judge(struct at_cli *cli, struct at_cli_ledger *l, const struct at_par *par,
                    struct at_ledger_report *ret_report)
{
    struct at_log_source source;
    struct at_diag why = {0};
    at_err_t err = at_store_source(l->store, &cli->diag, &source);
    if (err != AT_OK) return err;
    err = at_ledger_verify(&l->ledger, &source, par, &why, ret_report);
    if (err == AT_E_VERIFY) {
        char where[64];
        snprintf(where, sizeof where, "record %" PRIu64, ret_report->record);
        return at_fail(&cli->diag, err, where, "%s", ret_report->reason);
    }
    if (err != AT_OK) cli->diag = why;
    return err;
}

static at_err verify(struct at_cli *cli, const char *place)
{
    struct at_cli_ledger l;
    struct at_pool pool = {0};
    struct at_ledger_report report = {0};
    at_err_t err = at_cli_ledger_open(place, &cli->diag, &l);
    if (err != AT_OK) return err;
    int threads = at_sys_cpu_count() < AT_POOL_THREADS_MAX ? at_sys_cpu_count() : AT_POOL_THREADS_MAX;
    err = at_pool_init(&pool, threads, &cli->diag);
    if (err == AT_OK) err = judge(cli, &l, &pool.par, &report);
    if (cli->json && (err == AT_OK || err == AT_E_VERIFY)) {
        json_t *answer = at_cli_answer(cli);
        at_json_set_text(answer, "ledger", report.ok ? "ok" : "bad");
        if (report.ok) {
            at_json_set_int(answer, "records", report.records);
            at_json_set_text(answer, "head", at_hash_hex(report.head).s);
            at_json_set_int(answer, "stewards", l.ledger.seats.count);
            at_json_set_int(answer, "term", l.ledger.seats.term);
            at_json_set_int(answer, "uncovered", report.uncovered);
        } else {
            at_json_set_int(answer, "record", report.record);
            at_json_set_text(answer, "reason", report.reason);
        }
    } else if (err == AT_OK) {
        printf("ok: every balance recomputed from %" PRIu64 " signed records\nrun  %s\nhead %s\n", report.records,
               at_hash_hex(l.ledger.run).s, at_hash_hex(report.head).s);
        if (report.uncovered > 0)
            printf("the last %" PRIu64 " records are newer than the stewards' last common signature\n",
                   report.uncovered);
    }
    at_pool_release(&pool);
    at_cli_ledger_release(&l);
    return err;
}

/* ---- replay ---- */
struct replay_view {
    struct at_screen screen;
    uint32_t rounds; /* of the log */
    uint64_t tokens;
    double start_s;
};

static bool show_replay(void *user, const struct at_replay_report *report, uint64_t tokens, bool round_done)
{
    struct replay_view *v = user;
    double done = v->tokens > 0 ? (double)tokens / (double)v->tokens : 1, spent_s = at_cli_seconds() - v->start_s;
    double left_s = done > 0 ? spent_s * (1 - done) / done : 0;
    if (v->screen.live) {
        char line[300];
        const char *lines[] = {line};
        snprintf(line, sizeof line, "  round %u/%u  |%s| %3.0f%%  %s tok/s  %s left", report->rounds, v->rounds,
                 at_bar(&v->screen, done, 24).s, 100 * done, at_count(spent_s > 0 ? (double)tokens / spent_s : 0).s,
                 at_duration(left_s).s);
        at_screen_draw(&v->screen, lines, 1);
    } else if (round_done) {
        at_screen_say(&v->screen, "round %u/%u computed again: state %.16s, as in the log; %s left", report->rounds,
                      v->rounds, at_hash_hex(report->state_root).s, at_duration(left_s).s);
    }
    return !at_interrupted();
}

/* Where the text of a ledger lies: in the folder `data` beside it. */
static at_err data_beside(const char *place, struct at_diag *diag, char ret_path[AT_PATH_BYTES])
{
    char folder[AT_PATH_BYTES];
    bool is_folder;
    if (at_dir_is_empty(place, NULL, &is_folder) == AT_OK) return at_path_join(place, "data", diag, ret_path);
    snprintf(folder, sizeof folder, "%s", place);
    char *slash = strrchr(folder, '/');
    if (slash != NULL) *slash = '\0';
    return at_path_join(slash == NULL ? "." : slash == folder ? "/" : folder, "data", diag, ret_path);
}

static at_err tell_replay(struct at_cli *cli, const struct at_ledger_report *log, const struct at_replay_report *r,
                          at_err_t err)
{
    if (cli->json && (err == AT_OK || (err == AT_E_VERIFY && r->reason[0] != '\0'))) {
        json_t *answer = at_cli_answer(cli);
        at_json_set_text(answer, "replay", r->ok ? "ok" : "bad");
        at_json_set_int(answer, "rounds", r->rounds);
        at_json_set_int(answer, "units", r->units);
        at_json_set_int(answer, "tokens", r->tokens);
        at_json_set_text(answer, "state_root", at_hash_hex(r->state_root).s);
        at_json_set_int(answer, "records", log->records);
        at_json_set_text(answer, "head", at_hash_hex(log->head).s);
        if (r->ok) {
            at_json_set_bool(answer, "data_exactly_once", true); /* else it is no OK */
            at_json_set_int(answer, "samples_counted", r->counted);
            at_json_set_int(answer, "samples_waiting", r->waiting);
            at_json_set_int(answer, "units_without_loss", r->untold);
        } else {
            at_json_set_int(answer, "round", r->round);
            at_json_set_text(answer, "reason", r->reason);
        }
        at_json_set_9(answer, "seconds", at_cli_seconds());
    } else if (err == AT_OK) {
        printf("ok: %u rounds computed again from genesis, text and log: %" PRIu64 " units, %" PRIu64
               " tokens\n    every update, state root and held-out loss is the log's; every sample counted once\n",
               r->rounds, r->units, r->tokens);
        if (r->untold > 0)
            printf("    %" PRIu64 " units tell no held-out loss of their windows, as is allowed\n", r->untold);
        printf("state %s\nhead  %s\n", at_hash_hex(r->state_root).s, at_hash_hex(log->head).s);
    }
    return err;
}

static at_err replay(struct at_cli *cli, const struct args *a, const char *place)
{
    struct at_cli_ledger l;
    struct at_cli_exec exec = {0};
    struct at_ledger_report log = {0};
    struct at_replay_report report = {0};
    struct replay_view view = {.start_s = 0};
    char data[AT_PATH_BYTES];
    at_interrupt_catch();
    at_err_t err = at_cli_exec_init(&exec, a->kernels, a->threads.v, &cli->diag);
    if (err != AT_OK) return err;
    err = at_cli_ledger_open(place, &cli->diag, &l);
    if (err == AT_OK) {
        err = judge(cli, &l, &exec.pool.par, &log);
        view.rounds = l.ledger.round;
        view.tokens = l.ledger.tokens;
        at_cli_ledger_release(&l);
    }
    if (err == AT_OK) err = data_beside(place, &cli->diag, data);
    if (err == AT_OK) err = at_cli_ledger_open(place, &cli->diag, &l);
    if (err == AT_OK) {
        at_screen_init(&view.screen, stderr);
        view.start_s = at_cli_seconds();
        err = at_ledger_replay(&l, data, &exec.ex, show_replay, &view, &cli->diag, &report);
        at_screen_clear(&view.screen);
        at_cli_ledger_release(&l);
        err = tell_replay(cli, &log, &report, err);
    }
    at_cli_exec_release(&exec);
    return err;
}

/* ---- show ---- */
static void set_replicas(json_t *object, const char *key, const struct at_replicas *set)
{
    json_t *list = json_array();
    AT_ASSERT(list != NULL);
    for (uint32_t r = at_replicas_next(set, 0); r < AT_MEMBERS_MAX; r = at_replicas_next(set, r + 1))
        AT_ASSERT(json_array_append_new(list, json_integer(r)) == 0);
    at_json_set(object, key, list);
}

static uint32_t rates_known(const struct at_measure *m)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->link_count; i++) n += m->link[i].rate != 0;
    return n;
}

/* What a record says, in one line for people and as fields for scripts. */
static void describe(const struct at_ledger *ledger, const struct at_record *rec, char *line, size_t line_bytes,
                     json_t *object)
{
    bool was_last;
    switch (rec->kind) {
    case AT_RECORD_JOIN:
        snprintf(line, line_bytes, "\"%s\" becomes replica %u", rec->join.name, ledger->member_count - 1);
        at_json_set_text(object, "name", rec->join.name);
        break;
    case AT_RECORD_OPEN:
        snprintf(line, line_bytes, "round %u opens on state %.16s for %u", rec->open.round + 1,
                 at_hash_hex(rec->open.state_root).s, at_replicas_count(&rec->open.replicas));
        at_json_set_int(object, "round", rec->open.round);
        at_json_set_text(object, "state_root", at_hash_hex(rec->open.state_root).s);
        at_json_set_int(object, "replicas", at_replicas_count(&rec->open.replicas));
        set_replicas(object, "replica_list", &rec->open.replicas);
        break;
    case AT_RECORD_RECEIPT:
        snprintf(line, line_bytes, "round %u replica %u: %" PRIu64 " tokens, %" PRIu64 " FLOPs, update %.16s",
                 rec->receipt.round + 1, rec->receipt.replica, rec->receipt.tokens, rec->receipt.flops,
                 at_hash_hex(rec->receipt.update).s);
        if (rec->receipt.group != 0) {
            int stages = at_group_stages(rec->receipt.group);
            size_t n = strlen(line);
            if (stages > 1) snprintf(line + n, line_bytes - n, ", one of %d stages", stages);
            at_json_set_int(object, "stages", at_group_stages(rec->receipt.group));
        }
        at_json_set_int(object, "round", rec->receipt.round);
        at_json_set_int(object, "replica", rec->receipt.replica);
        at_json_set_int(object, "start", rec->receipt.start);
        at_json_set_int(object, "samples", rec->receipt.samples);
        at_json_set_int(object, "tokens", rec->receipt.tokens);
        at_json_set_int(object, "flops", rec->receipt.flops);
        at_json_set_text(object, "update", at_hash_hex(rec->receipt.update).s);
        at_json_set_int(object, "update_bytes", rec->receipt.update_bytes);
        if (rec->receipt.heldout != 0) at_json_set_9(object, "heldout_loss", at_heldout_join(rec->receipt.heldout, 1));
        if (!at_hash_is_zero(rec->receipt.feedback))
            at_json_set_text(object, "feedback", at_hash_hex(rec->receipt.feedback).s);
        break;
    case AT_RECORD_CLOSE:
        snprintf(line, line_bytes, "round %u closes with %u", rec->close.round + 1,
                 at_replicas_count(&rec->close.included));
        at_json_set_int(object, "round", rec->close.round);
        at_json_set_int(object, "included", at_replicas_count(&rec->close.included));
        set_replicas(object, "included_list", &rec->close.included);
        break;
    case AT_RECORD_EPOCH:
        was_last = rec->epoch.round + 1 >= at_genesis_rounds(&ledger->genesis);
        if (rec->epoch.heldout_loss > 0)
            snprintf(line, line_bytes, "round %u ends on state %.16s, held-out %.4f%s", rec->epoch.round + 1,
                     at_hash_hex(rec->epoch.state_root).s, rec->epoch.heldout_loss, was_last ? "" : " when it began");
        else
            snprintf(line, line_bytes, "round %u ends on state %.16s, nobody told a held-out loss",
                     rec->epoch.round + 1, at_hash_hex(rec->epoch.state_root).s);
        at_json_set_int(object, "round", rec->epoch.round);
        at_json_set_text(object, "state_root", at_hash_hex(rec->epoch.state_root).s);
        if (rec->epoch.heldout_loss > 0)
            at_json_set_9(object, "heldout_loss", rec->epoch.heldout_loss);
        else
            at_json_set(object, "heldout_loss", json_null());
        at_json_set_int(object, "heldout_rounds", rec->epoch.round + was_last); /* of the model after so many */
        break;
    case AT_RECORD_END:
        snprintf(line, line_bytes, "the run ends after %u rounds", rec->end.rounds);
        at_json_set_int(object, "rounds", rec->end.rounds);
        break;
    case AT_RECORD_READY:
        snprintf(line, line_bytes, "stands for a seat of term %u", rec->stand.term);
        at_json_set_int(object, "term", rec->stand.term);
        break;
    case AT_RECORD_BLOCK:
        snprintf(line, line_bytes, "block of view %" PRIu64 ", term %u", rec->head.view, rec->head.term);
        at_json_set_int(object, "term", rec->head.term);
        at_json_set_int(object, "view", rec->head.view);
        break;
    case AT_RECORD_MEASURE:
        snprintf(line, line_bytes, "measures itself: %.3g GFLOP/s, %.3g GiB, %u links, %u of known rate",
                 (double)at_measure_value(rec->measure.speed) / 1000,
                 (double)at_measure_value(rec->measure.memory) / 1024, rec->measure.link_count,
                 rates_known(&rec->measure));
        at_json_set_int(object, "mflops", at_measure_value(rec->measure.speed));
        at_json_set_int(object, "memory_mib", at_measure_value(rec->measure.memory));
        at_json_set_int(object, "links", rec->measure.link_count);
        at_json_set_int(object, "rates", rates_known(&rec->measure));
        break;
    case AT_RECORD_EVIDENCE: {
        int holder = at_ledger_key_holder(ledger, &rec->evidence.key);
        snprintf(line, line_bytes, "replica %d signed two %s that exclude each other: no seat any more", holder,
                 rec->evidence.of_votes ? "votes" : "roots of the log");
        at_json_set_int(object, "replica", holder < 0 ? 0 : (uint64_t)holder);
        break;
    }
    default:
        snprintf(line, line_bytes, "leaves");
        break;
    }
}

struct listing {
    const struct args *args;
    const struct at_ledger *ledger;
    json_t *records;
    bool json;
};

static at_err_t show_one(void *user, uint64_t idx, const struct at_signed_record *rec, const struct at_record *body)
{
    struct listing *l = user;
    if (idx < l->args->from.v || idx - l->args->from.v >= l->args->count.v) return AT_OK;
    char line[200], when[32] = "";
    json_t *object = json_object();
    AT_ASSERT(object != NULL);
    at_json_set_int(object, "idx", idx);
    at_json_set_text(object, "kind", at_record_kind_name(body->kind));
    at_json_set_text(object, "author", at_node_id_hex(&rec->author).s);
    if (body->time_ms <= INT64_MAX) at_json_set_int(object, "time_ms", body->time_ms);
    describe(l->ledger, body, line, sizeof line, object);
    if (l->json) {
        AT_ASSERT(json_array_append_new(l->records, object) == 0);
        return AT_OK;
    }
    json_decref(object);
    struct tm tm;
    time_t seconds = (time_t)(body->time_ms / 1000);
    if (gmtime_r(&seconds, &tm) != NULL) strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm);
    printf("%6" PRIu64 "  %-20s  %-7s  %.8s  %s\n", idx, when, at_record_kind_name(body->kind),
           at_node_id_hex(&rec->author).s, line);
    return AT_OK;
}

static at_err show(struct at_cli *cli, const struct args *a, const char *place)
{
    struct at_cli_ledger l;
    at_err_t err = at_cli_ledger_open(place, &cli->diag, &l);
    if (err != AT_OK) return err;
    struct listing listing = {a, &l.ledger, json_array(), cli->json};
    if (!cli->json) printf("run %s, preset %s\n", at_hash_hex(l.ledger.run).s, l.ledger.genesis.preset);
    err = at_cli_ledger_each(&l, &cli->diag, show_one, &listing);
    struct at_hash_text head = at_hash_hex(at_ledger_root(&l.ledger));
    if (err == AT_OK && cli->json) {
        json_t *answer = at_cli_answer(cli);
        at_json_set_text(answer, "run_id", at_hash_hex(l.ledger.run).s);
        at_json_set_int(answer, "size", l.ledger.tree.size);
        at_json_set_text(answer, "head", head.s);
        at_json_set(answer, "records", json_incref(listing.records));
    } else if (err == AT_OK) {
        printf("%" PRIu64 " records, head %s\n", l.ledger.tree.size, head.s);
    }
    json_decref(listing.records);
    at_cli_ledger_release(&l);
    return err;
}

/* ---- export ---- */
static at_err export(struct at_cli *cli, const struct args *a, const char *place)
{
    struct at_cli_ledger l;
    uint64_t records = 0;
    at_err_t err = at_cli_ledger_open(place, &cli->diag, &l);
    if (err != AT_OK) return err;
    err = at_ledger_export(&l, a->out, &cli->diag, &records);
    if (err == AT_OK && cli->json) {
        at_json_set_text(at_cli_answer(cli), "file", a->out);
        at_json_set_int(at_cli_answer(cli), "records", records);
    } else if (err == AT_OK) {
        printf("%" PRIu64 " records in %s; whoever has it can check it: atoll ledger verify %s\n", records, a->out,
               a->out);
    }
    at_cli_ledger_release(&l);
    return err;
}

static at_err_t run(struct at_cli *cli, void *args)
{
    struct args *a = args;
    const char *verb = cli->words.v[0];
    const char *place = cli->words.count > 1 ? cli->words.v[1] : a->dir != NULL ? a->dir : ".";
    if (cli->words.count > 1 && a->dir != NULL)
        return at_fail(&cli->diag, AT_E_USAGE, cli->words.v[1], "named beside --dir; give one of them");
    static const char *const known[] = {"verify", "replay", "show", "export"};
    enum { VERIFY, REPLAY, SHOW, EXPORT, VERBS };
    int at = 0;
    while (at < VERBS && strcmp(verb, known[at]) != 0) at++;
    const char *near = at_nearest_word(verb, known, VERBS);
    if (at == VERBS && near != NULL)
        return at_fail(&cli->diag, AT_E_USAGE, verb, "unknown; did you mean `atoll ledger %s`?", near);
    if (at == VERBS) return at_fail(&cli->diag, AT_E_USAGE, verb, "unknown; it is verify, replay, show or export");
    if ((at == EXPORT) != (a->out != NULL))
        return at_fail(&cli->diag, AT_E_USAGE, verb,
                       at == EXPORT ? "to which file? add --out FILE" : "takes no --out; that is of `ledger export`");
    if (cli->words.count < 2 && a->dir == NULL && !at_cli_ledger_exists(place))
        return at_fail(&cli->diag, AT_E_USAGE, verb,
                       "no folder was named and none is here: atoll ledger %s DIR (a node's folder, or a ledger file)",
                       verb);
    return at == VERIFY   ? verify(cli, place)
           : at == REPLAY ? replay(cli, a, place)
           : at == SHOW   ? show(cli, a, place)
                          : export(cli, a, place);
}

const struct at_command at_cmd_ledger = {
    .name = "ledger",
    .summary = "check, compute again, show or copy a run's signed records",
    .usage = "verify DIR|FILE | replay DIR|FILE [--threads N] | show [DIR|FILE] [--from I] [--count N] | export "
             "DIR|FILE --out FILE",
    .about =
        "verify recomputes everything from genesis: signatures, order, work, points, the signed heads. It ends with\n"
        "exit code 4 and names the first wrong record when anything was changed, dropped, swapped or repeated, with\n"
        "3 when the file cannot be read as a ledger. Bytes of the file that hold nothing are free to differ. Where\n"
        "several stewards keep the ledger, two thirds of them must have signed it; what they did not get to yet is\n"
        "said. A file is judged by itself: compare its run and head with what another member's `atoll status` says.\n"
        "replay does that first, then trains every counted unit again from genesis, log and text alone (the folder\n"
        "data beside the ledger) and compares every update, state root and loss with the log: exit code 4 names the\n"
        "first round that differs. It costs the arithmetic of the whole run and changes nothing in the folder.\n"
        "export writes the records and signatures to one file for somebody else, also while the node runs (a copy of\n"
        "ledger.sqlite may lack the newest records). No secret is in it.\n"
        "Text counts rounds from 1; --json gives the records as they are, from 0.",
    .examples = "  atoll ledger verify run\n  atoll ledger verify copy-of-ledger.sqlite --json\n"
                "  atoll ledger replay run --threads 4\n"
                "  atoll ledger show run --from 10 --count 5\n"
                "  atoll ledger export run --out for-the-auditor.sqlite\n",
    AT_ROWS(rows),
    .args_bytes = sizeof(struct args),
    .words_min = 1,
    .words_what = "verify, replay, show or export",
    .words_max = 2,
    .run = run,
};
