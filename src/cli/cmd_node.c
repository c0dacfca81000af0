/* cmd_node.c: a node of a run, in the foreground: `init` founds a run, `start` runs a folder's node, `join` makes a new
 * member and runs it. */
#include "cli/cli_cmd.h"
#include "cli/cli_text.h"
#include "cli/node_view.h"
#include "model/rounds.h"
#include "model/stages.h"
#include "node/node.h"

#include <string.h>

struct args {
    const char *dir, *preset, *listen, *announce, *name, *kernels, *outer;
    struct at_opt_list data;
    struct at_opt_int rounds, steps, seed, min_members, stages, round_ms, threads, serve_kb, fetch_kb, relay_kb, keep;
    struct at_opt_real young;
    bool map_port, groups_by_log;
};

#define ROW_DIR AT_ROW_TEXT(struct args, dir, "dir", "D", NULL, "this node's folder (its key, data, ledger, model)")
#define ROW_LISTEN                                                                                                     \
    AT_ROW_TEXT(struct args, listen, "listen", "HOST:PORT", NULL,                                                      \
                "where peers reach it (default 127.0.0.1 and a free port, kept)")
#define ROW_ANNOUNCE                                                                                                   \
    AT_ROW_TEXT(struct args, announce, "announce", "HOST:PORT", NULL,                                                  \
                "what peers are told instead: an address and port that something forwards to it (kept)")
#define ROW_NAME AT_ROW_TEXT(struct args, name, "name", "TEXT", NULL, "its name for people, at most 32 bytes")
#define ROW_THREADS                                                                                                    \
    AT_ROW_INT(struct args, threads, "threads", "N", 1, 64, NULL, "threads (default: one per processor)")
#define ROW_KERNELS                                                                                                    \
    AT_ROW_TEXT(struct args, kernels, "kernels", "K", "auto", "ref, avx2, avx512 or auto; all give the same bits")
#define ROW_SERVE                                                                                                      \
    AT_ROW_INT(struct args, serve_kb, "serve-kb", "N", 1, 1000000000, NULL,                                            \
               "send newcomers at most so many kB of the model a second (default: 67109)")
#define ROW_FETCH                                                                                                      \
    AT_ROW_INT(struct args, fetch_kb, "fetch-kb", "N", 1, 1000000000, NULL,                                            \
               "fetch at most so many kB of the model a second (default: no limit)")

#define ROW_RELAY                                                                                                      \
    AT_ROW_INT(struct args, relay_kb, "relay-kb", "N", 0, 1000000000, NULL,                                            \
               "pass on at most so many kB a second between members behind NATs; 0: none (default: 1000)")
#define ROW_MAP                                                                                                        \
    AT_ROW_FLAG(struct args, map_port, "map-port",                                                                     \
                "ask the router (NAT-PMP, UPnP) to forward this node's port while it runs")

static const struct at_opt init_rows[] = {
    ROW_DIR,
    AT_ROW_TEXT(struct args, preset, "preset", "P", "nano", "the model's shape: nano, 10m, 124m"),
    AT_ROW_LIST(struct args, data, "data", "FILE", "text to learn, or several files (default: Moby-Dick)"),
    AT_ROW_INT(struct args, rounds, "rounds", "R", 1, 1000000, NULL, "rounds (default: the preset's)"),
    AT_ROW_INT(struct args, steps, "steps", "H", 1, 100000, NULL, "inner steps of a round (default: the preset's)"),
    AT_ROW_TEXT(struct args, outer, "outer", "KIND", "mean",
                "how updates are joined: mean (all of them), diloco (4 bits) or sparse (for slow links)"),
    AT_ROW_INT(struct args, keep, "keep", "K", 1, AT_SPARSE_K_MAX, NULL,
               "sparse: values kept of every 4096 (default: the kind's)"),
    AT_ROW_REAL(struct args, young, "young", "F", 0, 1, NULL,
                "diloco, sparse: so much of the run, its start, in dense rounds of 2 steps, which learn more"),
    AT_ROW_INT(struct args, seed, "seed", "S", 0, UINT64_MAX, NULL,
               "seed of weights and data order (default: the preset's)"),
    AT_ROW_INT(struct args, min_members, "min-members", "N", 1, 4096, "1", "the first round opens with so many"),
    AT_ROW_INT(struct args, stages, "stages", "P", 1, AT_STAGES_MAX, "1",
               "members that share a unit: each computes a run of layers"),
    AT_ROW_FLAG(struct args, groups_by_log, "groups-by-log",
                "with --stages: members share units in the order of joining"
                "\n(default: by measured speed, memory and distance)"),
    AT_ROW_INT(struct args, round_ms, "round-ms", "MS", 100, 86400000, NULL,
               "a round closes after this, whoever is missing (default: a minute more than a unit takes at 2 GFLOP/s)"),
    ROW_LISTEN,
    ROW_ANNOUNCE,
    ROW_NAME,
};
static const struct at_opt start_rows[] = {ROW_DIR,   ROW_THREADS, ROW_KERNELS, ROW_LISTEN, ROW_ANNOUNCE,
                                           ROW_SERVE, ROW_FETCH,   ROW_RELAY,   ROW_MAP};
static const struct at_opt join_rows[] = {ROW_DIR,  ROW_THREADS, ROW_KERNELS, ROW_LISTEN, ROW_ANNOUNCE,
                                          ROW_NAME, ROW_SERVE,   ROW_FETCH,   ROW_RELAY,  ROW_MAP};

static at_err need_dir(struct at_cli *cli, const struct args *a)
{
    if (a->dir != NULL) return AT_OK;
    return at_fail(&cli->diag, AT_E_USAGE, "--dir", "name this node's folder");
}

static bool is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0 || strcmp(host, "localhost") == 0;
}

static at_err_t run_init(struct at_cli *cli, void *args)
{
    struct args *a = args;
    char corpus[AT_PATH_BYTES];
    const char *standard = corpus;
    struct at_node_place place;
    at_err_t err = need_dir(cli, a);
    if (err != AT_OK) return err;
    for (int i = 0; i < cli->words.count; i++) { /* --data A B C */
        if (a->data.count == 0)
            return at_fail(&cli->diag, AT_E_USAGE, cli->words.v[i], "unexpected; text files come with --data FILE");
        a->data.v[a->data.count++] = cli->words.v[i];
    }
    if (a->data.count == 0 && (err = at_cli_corpus_find(&cli->diag, corpus)) != AT_OK) return err;
    const struct at_node_init_options options = {
        .dir = a->dir,
        .preset = a->preset,
        .data_path = a->data.count > 0 ? a->data.v : &standard,
        .data_count = a->data.count > 0 ? a->data.count : 1,
        .rounds = (uint32_t)a->rounds.v,
        .steps = (uint32_t)a->steps.v,
        .outer = a->outer,
        .keep = (uint32_t)a->keep.v,
        .young = a->young.given ? &a->young.v : NULL,
        .seed = a->seed.given ? &a->seed.v : NULL,
        .min_members = (uint32_t)a->min_members.v,
        .stages = (uint32_t)a->stages.v,
        .groups_by_log = a->groups_by_log,
        .round_ms_max = (uint32_t)a->round_ms.v,
        .listen = a->listen,
        .announce = a->announce,
        .name = a->name,
    };
    if ((err = at_node_init(&options, &cli->diag, &place)) != AT_OK) return err;
    if (cli->json) {
        json_t *answer = at_cli_answer(cli);
        char listen[300];
        snprintf(listen, sizeof listen, strchr(place.host, ':') ? "[%s]:%u" : "%s:%u", place.host, place.port);
        at_json_set_text(answer, "run_id", at_hash_hex(place.run).s);
        at_json_set_text(answer, "node_id", at_node_id_hex(&place.node).s);
        at_json_set_text(answer, "dir", a->dir);
        at_json_set_text(answer, "listen", listen);
        at_json_set_text(answer, "invite", place.invite);
        return AT_OK;
    }
    at_say("run %s founded in %s, to learn %s%s", at_hash_hex(place.run).s, a->dir, options.data_path[0],
           options.data_count > 1 ? " and more" : "");
    if (is_loopback(place.host)) at_say("only this machine can join: --listen HOST:PORT opens the run to others");
    at_say("next: %s start --dir %s\nothers join with the line below, while it runs:", cli->program, a->dir);
    printf("%s\n", place.invite);
    return AT_OK;
}

static at_err run_node(struct at_cli *cli, const struct args *a)
{
    struct at_node_view view;
    struct at_node_result result = {0};
    struct at_node_place place;
    const uint64_t relay_bytes_per_s = 1000 * a->relay_kb.v;
    at_node_view_start(&view, a->dir);
    const struct at_node_run_options options = {
        .dir = a->dir,
        .threads = (int)a->threads.v,
        .kernels = a->kernels,
        .listen = a->listen,
        .announce = a->announce,
        .serve_bytes_per_s = 1000 * a->serve_kb.v,
        .fetch_bytes_per_s = 1000 * a->fetch_kb.v,
        .relay_bytes_per_s = a->relay_kb.given ? &relay_bytes_per_s : NULL,
        .map_port = a->map_port,
        .log = at_node_view_log,
        .log_user = &view,
    };
    at_err_t err = at_node_run(&options, &cli->diag, &result);
    at_node_view_stop(&view);
    if (err != AT_OK) return err;
    const char *why = result.ended ? "the run has ended" : result.finished ? "finished" : "stopped";
    if (cli->json) {
        if ((err = at_node_folder(a->dir, &cli->diag, &place)) != AT_OK) return err;
        json_t *answer = at_cli_answer(cli);
        at_json_set_text(answer, "run_id", at_hash_hex(result.run).s);
        at_json_set_text(answer, "node_id", at_node_id_hex(&place.node).s);
        at_json_set_int(answer, "rounds", result.rounds);
        at_json_set_text(answer, "state_root", at_hash_hex(result.state_root).s);
        at_json_set_bool(answer, "ended", result.ended);
        at_json_set_bool(answer, "finished", result.finished);
        at_json_set_9(answer, "seconds", at_cli_seconds());
    } else {
        at_say("%s after %u rounds; state root %s", why, result.rounds, at_hash_hex(result.state_root).s);
        at_say("try: %s ask --dir %s \"The \"\n     %s points --dir %s\n     %s ledger verify %s", cli->program, a->dir,
               cli->program, a->dir, cli->program, a->dir);
    }
    return AT_OK;
}

static at_err_t run_start(struct at_cli *cli, void *args)
{
    const struct args *a = args;
    at_err_t err = need_dir(cli, a);
    return err != AT_OK ? err : run_node(cli, a);
}

static at_err_t run_join(struct at_cli *cli, void *args)
{
    const struct args *a = args;
    struct at_node_place place;
    at_err_t err = need_dir(cli, a);
    if (err != AT_OK) return err;
    const struct at_node_join_options options = {
        .dir = a->dir,
        .invite = cli->words.v[0],
        .listen = a->listen,
        .announce = a->announce,
        .name = a->name,
    };
    if ((err = at_node_join(&options, &cli->diag, &place)) != AT_OK) return err;
    at_say("joining run %.16s as %.16s", at_hash_hex(place.run).s, at_node_id_hex(&place.node).s);
    return run_node(cli, a);
}

const struct at_command at_cmd_init = {
    .name = "init",
    .summary = "found a new run and print its invite",
    .usage = "--dir D [--preset P] [--data FILE...] [--rounds R] [--steps H] [--outer KIND] [--keep K] [--seed S] "
             "[--min-members N] [--listen HOST:PORT]",
    .about = "Writes the founder's key and the run's genesis to D. The invite goes to stdout. The run begins with the\n"
             "founder alone as soon as `atoll start` runs; with --min-members N it waits until so many are there.",
    .examples = "  atoll init --dir run --preset nano --data data/moby-dick.txt\n"
                "  atoll init --dir run --data a.txt --min-members 3 --listen 192.168.1.10:7700\n",
    AT_ROWS(init_rows),
    .args_bytes = sizeof(struct args),
    .words_max = 10000,
    .run = run_init,
};
const struct at_command at_cmd_start = {
    .name = "start",
    .summary = "run a folder's node in the foreground",
    .usage = "--dir D [--threads N] [--listen HOST:PORT]",
    .about =
        "Goes on where the folder is, also after a crash. Ctrl-C stops it cleanly; `atoll finish` ends it after its\n"
        "round.",
    .examples = "  atoll start --dir run\n  atoll start --dir run --threads 2 2>run.log &\n",
    AT_ROWS(start_rows),
    .args_bytes = sizeof(struct args),
    .run = run_start,
};
const struct at_command at_cmd_join = {
    .name = "join",
    .summary = "join a run as a new member, and work",
    .usage = "INVITE --dir D [--threads N]",
    .about =
        "Makes a key in D, fetches genesis, log, data and state (each checked by its hash), takes part from the next\n"
        "round on. Later, `atoll start --dir D` goes on with the same member.",
    .examples = "  atoll join atoll1abc... --dir me\n  atoll join \"$(cat invite.txt)\" --dir me --threads 2\n",
    AT_ROWS(join_rows),
    .args_bytes = sizeof(struct args),
    .words_min = 1,
    .words_what = "the invite (a line from `atoll invite`)",
    .words_max = 1,
    .run = run_join,
};
