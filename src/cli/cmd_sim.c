/* cmd_sim.c: a whole swarm in one process, with faults, from a seed (sim/sim.h; docs/sim.md). */
#include "cli/cli_cmd.h"
#include "cli/progress.h"
#include "os/file.h"
#include "os/sys.h"
#include "sim/sim.h"

#include <stdlib.h>
#include <string.h>

struct args {
    struct at_opt_int seed, nodes, stewards, byzantine, nats, update_kb, lines;
    struct at_opt_real hours, round_s, fault_rate;
    const char *faults, *canary;
    bool replay;
};

static const struct at_opt rows[] = {
    AT_ROW_INT(struct args, seed, "seed", "N", 0, UINT64_MAX, "1", "everything is drawn from it"),
    AT_ROW_INT(struct args, nodes, "nodes", "K", 1, 1000000, "32", "the steward and its members"),
    AT_ROW_INT(struct args, stewards, "stewards", "S", 1, 31, "1",
               "so many may hold seats: 1, 4, 7 .. 31. Four sit as soon"
               "\n                         as four stand, three more every 32 rounds"),
    AT_ROW_REAL(struct args, hours, "hours", "H", 0.001, 100000, "4", "of virtual time; the last fifth without faults"),
    AT_ROW_TEXT(struct args, faults, "faults", "LIST", "all", "all, none, or some of the list below, with commas"),
    AT_ROW_REAL(struct args, fault_rate, "fault-rate", "R", 0, 10, "0.1", "faults of a node in a round, on average"),
    AT_ROW_INT(struct args, byzantine, "byzantine", "F", 0, 1000000, "0",
               "so many of the nodes lie; of the stewards where those are"
               "\n                         more than three times as many"),
    AT_ROW_INT(struct args, nats, "nats", "PERCENT", 0, 100, "0", "so many of the members sit behind NATs"),
    AT_ROW_REAL(struct args, round_s, "round-s", "S", 0.1, 86400, NULL,
                "a unit's seconds at speed 1 (default: a 48th of the"
                "\n                         hours, 10 to 600; from 167 nodes on a 24th, up to"
                "\n                         3.6 for each node)"),
    AT_ROW_INT(struct args, update_kb, "update-kb", "KB", 1, 1000000, "128", "what an update weighs on the links"),
    AT_ROW_TEXT(struct args, canary, "canary", "NAME", NULL,
                "plants a protocol bug that must be found: ack-early,"
                "\n                         count-unfetched, or of several stewards no-dummies"),
    AT_ROW_FLAG(struct args, replay, "replay",
                "prints the newest lines of the trace: those before a"
                "\n                         violation. With a FILE: of the run that its last"
                "\n                         \"atoll sim\" line names"),
    AT_ROW_INT(struct args, lines, "lines", "N", 1, 10000000, "200", "so many lines of trace"),
};
enum { ROWS = sizeof rows / sizeof rows[0], TRACE_LINE_BYTES = 100, SLICE_MS = 1000, FILE_BYTES_MAX = 16 << 20 };

/* ---- the line that reproduces a run ---- */

/* The fewest digits that read back as the same number. */
static struct at_text number(double v)
{
    struct at_text t;
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(t.s, sizeof t.s, "%.*g", digits, v);
        if (strtod(t.s, NULL) == v) break;
    }
    return t;
}

static void command_line(const struct args *a, uint32_t faults, char *ret_text, size_t room)
{
    char list[160];
    at_sim_faults_text(faults, list, sizeof list);
    int n = snprintf(ret_text, room,
                     "atoll sim --seed %llu --nodes %llu --hours %s --faults %s --fault-rate %s --byzantine %llu "
                     "--update-kb %llu",
                     (unsigned long long)a->seed.v, (unsigned long long)a->nodes.v, number(a->hours.v).s, list,
                     number(a->fault_rate.v).s, (unsigned long long)a->byzantine.v, (unsigned long long)a->update_kb.v);
    if (a->stewards.v > 1)
        n += snprintf(ret_text + n, room - (size_t)n, " --stewards %llu", (unsigned long long)a->stewards.v);
    if (a->round_s.given) n += snprintf(ret_text + n, room - (size_t)n, " --round-s %s", number(a->round_s.v).s);
    if (a->nats.v > 0) n += snprintf(ret_text + n, room - (size_t)n, " --nats %llu", (unsigned long long)a->nats.v);
    if (a->canary != NULL) snprintf(ret_text + n, room - (size_t)n, " --canary %s", a->canary);
}

/* The options of the last line that begins, somewhere in it, with "atoll sim": of this program's own output, as text or
 * JSON, or of a list of seeds that somebody keeps. `text` is cut into words and must outlive the options. */
static at_err parse_line(char *text, const char *where, struct at_diag *diag, struct args *ret_args)
{
    static const char mark[] = "atoll sim ";
    char *argv[64], *line = NULL, *rest = NULL;
    int argc = 0;
    bool help, json;
    struct at_words words;
    struct args a = {0};
    for (char *at = strstr(text, mark); at != NULL; at = strstr(at + 1, mark)) line = at;
    if (line == NULL) return at_fail(diag, AT_E_DATA, where, "%s: no line with \"atoll sim\" and its options", where);
    line[strcspn(line, "\"\r\n")] = '\0';
    line += strlen("atoll ");
    for (char *word = strtok_r(line, " \t", &rest); word != NULL && argc < 63; word = strtok_r(NULL, " \t", &rest))
        argv[argc++] = word;
    argv[argc] = NULL;
    at_err_t err = at_opts_parse(rows, ROWS, argc, argv, &a, diag, &help, &json, &words);
    if (err == AT_OK && words.count > 0) err = at_fail(diag, AT_E_DATA, where, "unexpected: %s", words.v[0]);
    if (err == AT_OK) *ret_args = a;
    return err;
}

static at_err read_line(const char *path, struct at_diag *diag, struct at_buf *text, struct args *ret_args)
{
    at_err_t err = at_file_read(path, FILE_BYTES_MAX, diag, text);
    if (err == AT_OK) err = at_buf_append(text, "", 1);
    return err == AT_OK ? parse_line((char *)text->p, path, diag, ret_args) : err;
}

static at_err set_options(const struct args *a, struct at_diag *diag, struct at_sim_options *o)
{
    at_err_t err = at_sim_faults_parse(a->faults, diag, &o->faults);
    if (err == AT_OK && a->canary != NULL) err = at_sim_canary_parse(a->canary, diag, &o->canary);
    o->seed = a->seed.v;
    o->nodes = (int)a->nodes.v;
    o->stewards = (int)a->stewards.v;
    o->byzantine = (int)a->byzantine.v;
    o->nats = (int)a->nats.v;
    o->duration_ms = (uint64_t)(a->hours.v * 3600e3 + 0.5);
    o->round_ms = a->round_s.given ? (uint64_t)(a->round_s.v * 1e3 + 0.5) : 0;
    o->update_bytes = a->update_kb.v * 1000;
    o->faults_per_round = a->fault_rate.v;
    o->trace_bytes = a->replay ? (size_t)a->lines.v * TRACE_LINE_BYTES : 0;
    return err;
}

/* ---- while it runs ---- */
static void draw(struct at_screen *screen, const struct at_sim_report *r, double seconds)
{
    char line[2][256];
    const char *const lines[] = {line[0], line[1]};
    double share = (double)r->now_ms / (double)r->duration_ms;
    snprintf(line[0], sizeof line[0], "%s  %s of %s of virtual time, %s", at_bar(screen, share < 1 ? share : 1, 30).s,
             at_duration((double)r->now_ms / 1e3).s, at_duration((double)r->duration_ms / 1e3).s,
             r->healing ? "without faults" : "with faults");
    snprintf(line[1], sizeof line[1], "round %u, %u nodes up, %u of them members, %s events, %s/s", r->counts.rounds,
             r->counts.nodes_up, r->counts.nodes_joined, at_count((double)r->counts.events).s,
             at_count(seconds > 0 ? (double)r->counts.events / seconds : 0).s);
    at_screen_draw(screen, lines, 2);
}

static at_err watch(struct at_sim *sim, struct at_diag *diag)
{
    struct at_screen screen;
    double start = at_cli_seconds(), drawn = start;
    bool goes_on = true;
    at_screen_init(&screen, stderr);
    while (goes_on && !at_interrupted()) {
        goes_on = at_sim_advance(sim, SLICE_MS);
        double now = at_cli_seconds();
        if (!screen.live || now < drawn + 0.2) continue;
        struct at_sim_report report;
        at_sim_report(sim, &report);
        draw(&screen, &report, now - start);
        drawn = now;
    }
    at_screen_clear(&screen);
    return goes_on ? at_fail(diag, AT_E_INTERRUPTED, "sim", "stopped; what is told is of the time until then") : AT_OK;
}

/* ---- what is told ---- */
static void print_trace(const char *trace, uint64_t lines, FILE *out)
{
    const char *from = trace + strlen(trace);
    for (uint64_t n = 0; from > trace; from--)
        if (from[-1] == '\n' && n++ == lines) break;
    fputs(from, out);
}

static struct at_text fingerprint(const struct at_world_counts *c)
{
    struct at_text t;
    snprintf(t.s, sizeof t.s, "%016llx", (unsigned long long)c->fingerprint);
    return t;
}

static json_t *by_kind(const struct at_sim_report *r)
{
    json_t *all = json_object();
    for (int k = 1; all && k < AT_MSG_KIND_COUNT; k++)
        if (r->messages_of[k] > 0)
            at_json_set_real(all, at_message_kind_name((enum at_message_kind)k), r->messages_of[k]);
    return all;
}

/* Why there was no liveness; also of a run that was interrupted, whose end nobody can judge. */
static const char *unfinished(const struct at_sim_report *r)
{
    return r->over ? r->unfinished : "not judged: stopped by you";
}

static void answer(json_t *to, const struct at_sim_options *o, const struct at_sim_report *r, double seconds)
{
    const struct at_world_counts *c = &r->counts;
    char list[160];
    at_sim_faults_text(o->faults, list, sizeof list);
    at_json_set_int(to, "seed", o->seed);
    at_json_set_int(to, "nodes", (uint64_t)o->nodes);
    at_json_set_int(to, "stewards", (uint64_t)o->stewards);
    at_json_set_int(to, "seats", c->seats);
    at_json_set_int(to, "terms", c->term);
    at_json_set_int(to, "byzantine", (uint64_t)o->byzantine);
    at_json_set_int(to, "nats", (uint64_t)o->nats);
    at_json_set_text(to, "faults", list);
    at_json_set_real(to, "hours", (double)r->now_ms / 3600e3);
    at_json_set_real(to, "round_s", (double)r->round_ms / 1e3);
    at_json_set_int(to, "safety_violations", r->safety_violations);
    at_json_set(to, "violation", r->violation ? json_string(r->violation) : json_null());
    at_json_set_bool(to, "interrupted", !r->over);
    at_json_set_bool(to, "liveness", r->liveness);
    at_json_set(to, "unfinished", r->liveness ? json_null() : json_string(unfinished(r)));
    at_json_set_int(to, "rounds", c->rounds);
    at_json_set_int(to, "rounds_after_faults", r->rounds_after_faults);
    at_json_set_int(to, "contributions", c->contributions);
    at_json_set(to, "finality_ms_p50", r->over ? json_integer(r->finality_ms_p50) : json_null());
    at_json_set(to, "finality_ms_p99", r->over ? json_integer(r->finality_ms_p99) : json_null());
    at_json_set(to, "record_finality_ms_p50", r->over ? json_integer(r->record_finality_ms_p50) : json_null());
    at_json_set(to, "record_finality_ms_p99", r->over ? json_integer(r->record_finality_ms_p99) : json_null());
    at_json_set_real(to, "bytes_per_node_round", r->bytes_per_node_round);
    at_json_set_real(to, "control_bytes_per_node_round", r->control_bytes_per_node_round);
    at_json_set_real(to, "messages_per_node_round", r->messages_per_node_round);
    at_json_set(to, "messages_by_kind", by_kind(r));
    at_json_set_real(to, "utilisation", r->utilisation);
    at_json_set_real(to, "nodes_mean", r->nodes_mean);
    at_json_set_int(to, "kept_out", r->kept_out);
    at_json_set_int(to, "records", c->records);
    at_json_set_int(to, "joins", c->joins);
    at_json_set_int(to, "leaves", c->leaves);
    at_json_set_int(to, "kills", c->crashes);
    at_json_set_int(to, "silent_deaths", c->silent_deaths);
    at_json_set_int(to, "disk_deaths", c->disk_deaths);
    at_json_set_int(to, "damaged_folders", c->wiped);
    at_json_set_int(to, "restarts", c->restarts);
    at_json_set_int(to, "dials", c->dials);
    at_json_set_int(to, "punched", c->punches);
    at_json_set_int(to, "relayed", c->relays);
    at_json_set_int(to, "broken_links", c->link_breaks);
    at_json_set_int(to, "floods", c->floods);
    at_json_set_int(to, "desyncs", c->desyncs);
    at_json_set_int(to, "gave_up", c->refused_ends);
    at_json_set(to, "state_root", r->over ? json_string(at_hash_hex(r->state_root).s) : json_null());
    at_json_set_int(to, "events", c->events);
    at_json_set_text(to, "fingerprint", fingerprint(c).s);
    if (o->trace_bytes > 0) at_json_set_text(to, "trace_hash", at_hash_hex(r->trace_hash).s);
    at_json_set_real(to, "wall_s", seconds);
    at_json_set_real(to, "events_per_s", seconds > 0 ? (double)c->events / seconds : 0);
    at_json_set_int(to, "memory_bytes", at_sys_memory_peak());
    at_json_set_int(to, "shared_bytes", c->shared_bytes);
}

static void print(const struct at_sim_options *o, const struct at_sim_report *r, double seconds)
{
    const struct at_world_counts *c = &r->counts;
    double memory = (double)at_sys_memory_peak() - (double)c->shared_bytes;
    printf("safety      %s\n", r->violation ? r->violation : "no violation");
    printf("liveness    %s%s\n",
           r->liveness ? "yes: "
           : r->over   ? "NO: "
                       : "",
           r->liveness ? "rounds went on after the faults, and everybody ended with the run" : unfinished(r));
    printf("rounds      %u, %u of them after the faults; %llu contributions, %llu records\n", c->rounds,
           r->rounds_after_faults, (unsigned long long)c->contributions, (unsigned long long)c->records);
    printf("nodes       %.1f of %d up on average; %llu joins, %llu leaves, %u kept out at the end\n", r->nodes_mean,
           o->nodes, (unsigned long long)c->joins, (unsigned long long)c->leaves, r->kept_out);
    printf(
        "faults      %llu kills, %llu silent deaths, %llu deaths of a full disk, %llu damaged folders, %llu floods\n",
        (unsigned long long)c->crashes, (unsigned long long)c->silent_deaths, (unsigned long long)c->disk_deaths,
        (unsigned long long)c->wiped, (unsigned long long)c->floods);
    printf("links       %llu dials, %llu broken\n", (unsigned long long)c->dials, (unsigned long long)c->link_breaks);
    if (r->over && o->stewards > 1)
        printf("stewards    %u seats in term %u; a block is final after %u ms at the median, %u ms at 99 %%\n",
               c->seats, c->term, r->finality_ms_p50, r->finality_ms_p99);
    if (r->over)
        printf("finality    %u ms at the median, %u ms at 99 %%: from handing in a record until its author has it as "
               "final\n",
               r->record_finality_ms_p50, r->record_finality_ms_p99);
    printf("a round     %s for each node, %s of that without blobs, in %.0f messages\n",
           at_bytes((uint64_t)r->bytes_per_node_round).s, at_bytes((uint64_t)r->control_bytes_per_node_round).s,
           r->messages_per_node_round);
    printf("utilisation %.1f %% of the nodes' time was training that counted\n", 100 * r->utilisation);
    printf("simulated   %s in %.1f s; %s events, %s/s; %s for each node beside %s that all share\n",
           at_duration((double)r->now_ms / 1e3).s, seconds, at_count((double)c->events).s,
           at_count(seconds > 0 ? (double)c->events / seconds : 0).s,
           at_bytes((uint64_t)(memory > 0 ? memory / o->nodes : 0)).s, at_bytes(c->shared_bytes).s);
    if (r->over) printf("root        %s, fingerprint %s\n", at_hash_hex(r->state_root).s, fingerprint(c).s);
}

static at_err verdict(const struct at_sim_report *r, struct at_diag *diag)
{
    if (r->violation != NULL) return at_fail(diag, AT_E_VERIFY, "safety", "safety violation: %s", r->violation);
    if (!r->liveness) return at_fail(diag, AT_E_VERIFY, "liveness", "no liveness: %s", r->unfinished);
    return AT_OK;
}

static at_err simulate(struct at_cli *cli, const struct args *a)
{
    struct at_sim_options options = {0};
    struct at_sim_report report;
    struct at_sim *sim = NULL;
    char line[512];
    FILE *out = cli->json ? stderr : stdout;
    at_err_t err = set_options(a, &cli->diag, &options);
    at_sys_memory_kept();
    command_line(a, options.faults, line, sizeof line);
    if (err == AT_OK) err = at_sim_init(&options, &cli->diag, &sim);
    if (err != AT_OK) return err;
    at_interrupt_catch();
    fprintf(out, "seed %llu, commit %s: %s\n", (unsigned long long)options.seed, at_cli_commit(), line);
    fflush(out);
    double start = at_cli_seconds();
    err = watch(sim, &cli->diag);
    double seconds = at_cli_seconds() - start;
    at_sim_report(sim, &report);
    if (a->replay) print_trace(at_sim_trace(sim), a->lines.v, out);
    if (cli->json) {
        answer(at_cli_answer(cli), &options, &report, seconds);
        at_json_set_text(at_cli_answer(cli), "commit", at_cli_commit());
        at_json_set_text(at_cli_answer(cli), "command", line);
    } else {
        print(&options, &report, seconds);
    }
    fprintf(out, "seed %llu, commit %s: %s\n", (unsigned long long)options.seed, at_cli_commit(), line);
    if (err == AT_OK) err = verdict(&report, &cli->diag);
    at_sim_release(sim);
    return err;
}

static at_err run(struct at_cli *cli, void *args)
{
    struct args *a = args, of_file = {0};
    struct at_buf text = {0};
    const char *path = cli->words.count > 0 ? cli->words.v[0] : NULL;
    at_err_t err = AT_OK;
    if (path != NULL && !a->replay) return at_fail(&cli->diag, AT_E_USAGE, path, "unexpected: a FILE is for --replay");
    if (path != NULL && (err = read_line(path, &cli->diag, &text, &of_file)) == AT_OK) {
        of_file.replay = true;
        of_file.lines = a->lines;
        a = &of_file;
    }
    if (err == AT_OK) err = simulate(cli, a);
    at_buf_release(&text);
    return err;
}

const struct at_command at_cmd_sim = {
    .name = "sim",
    .summary = "a swarm with faults under virtual time, judged on every step",
    .usage =
        "[--seed N] [--nodes K] [--hours H] [--faults LIST] [--stewards S] [--byzantine F] [--replay [FILE]] [--json]",
    .about =
        "Runs the very machines of the nodes, many of them, in one process under virtual time, and lets things go "
        "wrong:\n"
        "latency, bandwidth, loss, partition, oneway, crash, death, slow, skew, disk-full, disk-slow, disk-corrupt,\n"
        "churn, flood; and Byzantine members. Judges outside the nodes look at every step: one record at each place "
        "of\n"
        "the log, one root of each round, data used once, points conserved. In the last fifth of the time nothing "
        "goes\n"
        "wrong any more, and rounds must go on. A violation, or a run that does not go on, ends with exit code 4.\n"
        "The same line gives the same run, event by event. docs/sim.md has the rest.",
    .examples = "  atoll sim --seed 7 --nodes 100 --hours 24\n"
                "  atoll sim --seed 7 --faults crash,churn --byzantine 3 --json > result.json\n"
                "  atoll sim --replay result.json --lines 500\n"
                "  atoll sim --stewards 4 --byzantine 1 --nodes 12\n"
                "  atoll sim --canary ack-early; test $? -eq 4 && echo the judges are awake\n",
    AT_ROWS(rows),
    .args_bytes = sizeof(struct args),
    .words_max = 1,
    .run = run,
};
