/* cmd_ledger.c: `ledger verify` recomputes every balance from genesis; `ledger show` prints the records. */
#include "cli/cli_cmd.h"
#include "cli/cli_ledger.h"
#include "cli/progress.h"
#include "os/pool.h"
#include "os/sys.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

struct args {
    const char *dir;
    struct at_opt_int from, count;
};

static const struct at_opt rows[] = {
    AT_ROW_TEXT(struct args, dir, "dir", "D", NULL, "the run's folder, or a ledger file (the same as the last word)"),
    AT_ROW_INT(struct args, from, "from", "I", 0, UINT64_MAX / 2, "0", "show: the first record"),
    AT_ROW_INT(struct args, count, "count", "N", 1, 1000000000, "1000", "show: how many"),
};

static at_err verify(struct at_cli *cli, const char *place)
{
    struct at_cli_ledger l;
    struct at_pool pool = {0};
    struct at_ledger_report report = {0};
    at_err_t err = at_cli_ledger_open(place, &cli->diag, &l);
    if (err != AT_OK) return err;
    int threads = at_sys_cpu_count() < AT_POOL_THREADS_MAX ? at_sys_cpu_count() : AT_POOL_THREADS_MAX;
    err = at_pool_init(&pool, threads, &cli->diag);
    struct at_log_source source;
    if (err == AT_OK) err = at_store_source(l.store, &cli->diag, &source);
    if (err == AT_OK) {
        struct at_diag why = {0};
        err = at_ledger_verify(&l.ledger, &source, &pool.par, &why, &report);
        if (err == AT_E_VERIFY) {
            char where[64];
            snprintf(where, sizeof where, "record %" PRIu64, report.record);
            at_fail(&cli->diag, err, where, "%s", report.reason);
        } else if (err != AT_OK) {
            cli->diag = why;
        }
    }
    if (cli->json && (err == AT_OK || err == AT_E_VERIFY)) {
        json_t *answer = at_cli_answer(cli);
        at_json_set_text(answer, "ledger", report.ok ? "ok" : "bad");
        if (report.ok) {
            at_json_set_int(answer, "records", report.records);
            at_json_set_text(answer, "head", at_hash_hex(report.head).s);
        } else {
            at_json_set_int(answer, "record", report.record);
            at_json_set_text(answer, "reason", report.reason);
        }
    } else if (err == AT_OK) {
        printf("ok: every balance recomputed from %" PRIu64 " signed records\nrun  %s\nhead %s\n", report.records,
               at_hash_hex(l.ledger.run).s, at_hash_hex(report.head).s);
    }
    at_pool_release(&pool);
    at_cli_ledger_release(&l);
    return err;
}

/* What a record says, in one line for people and as fields for scripts. */
static void describe(const struct at_ledger *ledger, const struct at_record *rec, char *line, size_t line_bytes,
                     json_t *object)
{
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
        break;
    case AT_RECORD_RECEIPT:
        snprintf(line, line_bytes, "round %u replica %u: %" PRIu64 " tokens, %" PRIu64 " FLOPs, update %.16s",
                 rec->receipt.round + 1, rec->receipt.replica, rec->receipt.tokens, rec->receipt.flops,
                 at_hash_hex(rec->receipt.update).s);
        at_json_set_int(object, "round", rec->receipt.round);
        at_json_set_int(object, "replica", rec->receipt.replica);
        at_json_set_int(object, "start", rec->receipt.start);
        at_json_set_int(object, "samples", rec->receipt.samples);
        at_json_set_int(object, "tokens", rec->receipt.tokens);
        at_json_set_int(object, "flops", rec->receipt.flops);
        at_json_set_text(object, "update", at_hash_hex(rec->receipt.update).s);
        break;
    case AT_RECORD_CLOSE:
        snprintf(line, line_bytes, "round %u closes with %u", rec->close.round + 1,
                 at_replicas_count(&rec->close.included));
        at_json_set_int(object, "round", rec->close.round);
        at_json_set_int(object, "included", at_replicas_count(&rec->close.included));
        break;
    case AT_RECORD_EPOCH:
        snprintf(line, line_bytes, "round %u ends on state %.16s, held-out %.4f", rec->epoch.round + 1,
                 at_hash_hex(rec->epoch.state_root).s, rec->epoch.heldout_loss);
        at_json_set_int(object, "round", rec->epoch.round);
        at_json_set_text(object, "state_root", at_hash_hex(rec->epoch.state_root).s);
        at_json_set_9(object, "heldout_loss", rec->epoch.heldout_loss);
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

static at_err_t run(struct at_cli *cli, void *args)
{
    struct args *a = args;
    const char *verb = cli->words.v[0];
    const char *place = cli->words.count > 1 ? cli->words.v[1] : a->dir != NULL ? a->dir : ".";
    if (cli->words.count > 1 && a->dir != NULL)
        return at_fail(&cli->diag, AT_E_USAGE, cli->words.v[1], "named beside --dir; give one of them");
    if (strcmp(verb, "verify") == 0) return verify(cli, place);
    if (strcmp(verb, "show") == 0) return show(cli, a, place);
    static const char *const known[] = {"verify", "show"};
    const char *near = at_nearest_word(verb, known, 2);
    if (near != NULL) return at_fail(&cli->diag, AT_E_USAGE, verb, "unknown; did you mean `atoll ledger %s`?", near);
    return at_fail(&cli->diag, AT_E_USAGE, verb, "unknown; it is `ledger verify` or `ledger show`");
}

const struct at_command at_cmd_ledger = {
    .name = "ledger",
    .summary = "check or show a run's signed records",
    .usage = "verify DIR|FILE | show [DIR|FILE] [--from I] [--count N]",
    .about =
        "verify recomputes everything from genesis: signatures, order, work, points, the signed heads. It ends with\n"
        "exit code 4 and names the first wrong record when anything was changed, dropped, swapped or repeated, with\n"
        "3 when the file cannot be read as a ledger. Bytes of the file that hold nothing are free to differ. A file\n"
        "is judged by itself: compare its run and head with what another member's `atoll status` says.\n"
        "Text counts rounds from 1; --json gives the records as they are, from 0.",
    .examples = "  atoll ledger verify run\n  atoll ledger verify copy-of-ledger.sqlite --json\n"
                "  atoll ledger show run --from 10 --count 5\n",
    AT_ROWS(rows),
    .args_bytes = sizeof(struct args),
    .words_min = 1,
    .words_max = 2,
    .run = run,
};
