/* cmd_control.c: talking to a running node through its folder's control socket: `status`, `invite` and `finish`. */
#include "cli/cli_cmd.h"
#include "cli/cli_ledger.h"
#include "cli/cli_wrap.h"
#include "cli/progress.h"
#include "node/node.h"
#include "os/file.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

struct args {
    const char *dir;
    bool steward, anyway, now;
};

static const struct at_opt rows[] = {
    AT_ROW_TEXT(struct args, dir, "dir", "D", ".", "the node's folder"),
};

static const struct at_opt invite_rows[] = {
    AT_ROW_TEXT(struct args, dir, "dir", "D", ".", "the node's folder"),
    AT_ROW_FLAG(struct args, steward, "steward", "the founder's: whoever joins with the line may be a steward"),
};

static const struct at_opt finish_rows[] = {
    AT_ROW_TEXT(struct args, dir, "dir", "D", ".", "the node's folder"),
    AT_ROW_FLAG(struct args, now, "now", "do not wait for the round: hand in the steps that are done, then end"),
    AT_ROW_FLAG(struct args, anyway, "anyway", "also where too few stewards would stay for the run to go on"),
};

#define CONTROL_MS  5000
#define INVITES_MAX 100

/* One line of JSON each way; {"ok":false,"error":...} becomes an error here. */
static at_err call(struct at_cli *cli, const char *dir, const char *verb, struct at_diag *diag, json_t **ret_object)
{
    struct at_buf text = {.bytes_max = (size_t)16 << 20};
    at_err_t err = at_control_call(dir, verb, CONTROL_MS, diag, &text);
    if (err != AT_OK) return err;
    json_t *object = json_loadb((const char *)text.p, text.n, JSON_REJECT_DUPLICATES, NULL);
    at_buf_release(&text);
    if (!json_is_object(object)) {
        json_decref(object);
        return at_fail(diag, AT_E_ENV, dir, "what runs there does not answer as a node");
    }
    if (!json_is_true(json_object_get(object, "ok"))) {
        const char *why = json_string_value(json_object_get(object, "error"));
        err = at_fail(diag, AT_E_ENV, dir, "the node refused: %s", why != NULL ? why : "no reason given");
        json_decref(object);
        return err;
    }
    json_object_del(object, "ok");
    *ret_object = object;
    return AT_OK;
}

static double number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static const char *text(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));
    return s != NULL ? s : "";
}

/* A line of the answer under its own word; long ones go on below, in the same column. */
static void __attribute__((format(printf, 2, 3))) print_prose(const char *word, const char *fmt, ...)
{
    char prose[800];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(prose, sizeof prose, fmt, ap);
    va_end(ap);
    printf("%-6s ", word);
    at_wrap(stdout, 7, 7, prose);
}

static void print_members(const json_t *members)
{
    size_t i;
    json_t *m;
    printf("%-12s %-8s %-9s %7s %7s %10s %12s %7s\n", "member", "id", "phase", "tokens", "tok/s", "pending",
           "confirmed", "share");
    json_array_foreach((json_t *)(uintptr_t)members, i, m)
    {
        bool online = !json_is_false(json_object_get(m, "online"));
        char phase[40];
        if (online && number(m, "step") > 0)
            snprintf(phase, sizeof phase, "%s %.0f", text(m, "phase"), number(m, "step"));
        else
            snprintf(phase, sizeof phase, "%s", online ? text(m, "phase") : "gone");
        printf("%-12s %.8s %-9s %7s %7s %10s %12s %6.2f%%\n", text(m, "name"), text(m, "id"), phase,
               at_count(number(m, "tokens")).s, at_count(number(m, "tokens_per_s")).s,
               at_points((uint64_t)number(m, "points_pending")).s, at_points((uint64_t)number(m, "points_confirmed")).s,
               100 * number(m, "share"));
    }
}

/* In runs whose units groups compute: who does what, and why. */
static void print_parts(const json_t *members)
{
    size_t i;
    json_t *m;
    json_array_foreach((json_t *)(uintptr_t)members, i, m)
    {
        if (text(m, "part")[0]) printf("%-12s %-8s %s\n", text(m, "name"), text(m, "part"), text(m, "part_why"));
    }
}

/* People count rounds from 1, the records' index from 0. */
static void print_phase(const json_t *s)
{
    double round = number(s, "round"), rounds = number(s, "rounds"), peers = number(s, "peers");
    if (json_is_true(json_object_get(s, "running")))
        print_prose("phase", "%s, round %.0f of %.0f, step %.0f of %.0f, linked to %.0f", text(s, "phase"),
                    round < rounds ? round + 1 : rounds, rounds, number(s, "step"), number(s, "steps"), peers);
    else if (rounds > 0)
        printf("phase  %s after %.0f of %.0f rounds\n", text(s, "phase"), round, rounds);
    else
        print_prose("phase", "%s: it has not reached the run yet; start it while another member's node runs",
                    text(s, "phase"));
}

/* Stewards without whom a ledger that `seats` keep together stands still: 2f+1. */
static double stewards_needed(double seats)
{
    return 2 * floor((seats - 1) / 3) + 1;
}

/* The stewards that a node is not linked to, by name: "b, c". */
static void absent_stewards(const json_t *s, char *ret, size_t bytes)
{
    size_t i, n = 0;
    json_t *m;
    ret[0] = '\0';
    json_array_foreach(json_object_get(s, "members"), i, m)
    {
        if (strcmp(text(m, "role"), "steward") != 0 || !json_is_false(json_object_get(m, "online"))) continue;
        if (n < bytes) n += (size_t)snprintf(ret + n, bytes - n, "%s%s", n > 0 ? ", " : "", text(m, "name"));
    }
}

/* Who orders the ledger, and whether enough of them are there. */
static void print_stewards(const json_t *s)
{
    double seats = number(s, "stewards"), here = number(s, "stewards_here"), need = stewards_needed(seats);
    char absent[400];
    if (seats <= 1) return;
    if (!json_is_number(json_object_get(s, "stewards_here")))
        printf("order  kept by %.0f stewards, term %.0f\n", seats, number(s, "term"));
    else if (here < need) {
        absent_stewards(s, absent, sizeof absent);
        print_prose("order",
                    "waiting for %.0f of %.0f stewards: %.0f %s here, term %.0f; missing: %s (atoll start --dir D "
                    "brings one back)",
                    need, seats, here, here == 1 ? "is" : "are", number(s, "term"), absent);
    } else
        print_prose("order", "kept by %.0f stewards, term %.0f: %.0f are here%s", seats, number(s, "term"), here,
                    json_is_true(json_object_get(s, "abstains")) ? "; this one does not vote until the next term" : "");
}

/* How this node is linked, and what it does for others. */
static void print_links(const json_t *s)
{
    double punched = number(s, "peers_punched"), relayed = number(s, "peers_relayed");
    if (!json_is_true(json_object_get(s, "running"))) return;
    printf("links  %.0f direct, %.0f punched through NATs, %.0f relayed by a member\n",
           number(s, "peers") - punched - relayed, punched, relayed);
    if (text(s, "outside")[0]) printf("router forwards %s to this node\n", text(s, "outside"));
    if (number(s, "relays_max") > 0)
        print_prose("relays", "%.0f of at most %.0f for other members, at most %s bytes/s; %s bytes so far",
                    number(s, "relays"), number(s, "relays_max"), at_count(number(s, "relay_bytes_per_s")).s,
                    at_count(number(s, "relayed_bytes")).s);
    else
        printf("relays none for other members (--relay-kb 0)\n");
}

static void print_status(const json_t *s)
{
    printf("run    %s\nnode   %s (%s)\n", text(s, "run_id"), text(s, "node_id"), text(s, "role"));
    print_phase(s);
    print_links(s);
    if (json_is_number(json_object_get(s, "heldout_loss_last")))
        printf("loss   %.4f nats/byte held out, after %.0f rounds\n", number(s, "heldout_loss_last"),
               number(s, "heldout_rounds"));
    printf("work   %s tokens, %s tok/s\n", at_count(number(s, "tokens")).s, at_count(number(s, "tokens_per_s")).s);
    print_prose("ledger", "%.0f records, head %s", number(s, "records"), text(s, "head"));
    print_stewards(s);
    if (json_is_number(json_object_get(s, "checkpoint_holders")))
        print_prose("saved", "the newest model is on disk with %.0f of the members that this node hears",
                    number(s, "checkpoint_holders"));
    if (text(s, "invite")[0]) printf("invite %s\n", text(s, "invite"));
    if (text(s, "last_event")[0]) print_prose("last", "%s", text(s, "last_event"));
    print_members(json_object_get(s, "members"));
    print_parts(json_object_get(s, "members"));
}

/* A folder whose node is not running still knows what its ledger says. */
static at_err folder_status(struct at_cli *cli, const char *dir, json_t **ret_object)
{
    struct at_node_place place;
    struct at_cli_ledger l = {0};
    at_err_t err = at_node_folder(dir, &cli->diag, &place);
    if (err != AT_OK) return err;
    json_t *object = json_object(), *members = json_array();
    AT_ASSERT(object != NULL && members != NULL);
    at_json_set_text(object, "run_id", at_hash_hex(place.run).s);
    at_json_set_text(object, "node_id", at_node_id_hex(&place.node).s);
    at_json_set_text(object, "role", "member"); /* all that is known before the genesis has come */
    at_json_set_text(object, "phase", "stopped");
    bool ledger = at_cli_ledger_exists(dir);
    struct at_diag why = {0};
    if (ledger) err = at_cli_ledger_open(dir, &why, &l);
    if (err == AT_E_DATA) { /* damaged, or another version's: whoever asks has to know */
        cli->diag = why;
    } else if (err != AT_OK) { /* not to be read just now */
        ledger = false;
        err = AT_OK;
    }
    if (ledger && err == AT_OK && (err = at_cli_ledger_fold(&l, &cli->diag)) == AT_OK) {
        const struct at_ledger *g = &l.ledger;
        at_json_set_text(object, "role", at_ledger_seat(g, &place.node) >= 0 ? "steward" : "member");
        at_json_set_int(object, "term", g->seats.term);
        at_json_set_int(object, "stewards", g->seats.count);
        at_json_set_text(object, "phase", g->phase == AT_LEDGER_ENDED ? "ended" : "stopped");
        at_json_set_int(object, "round", g->round);
        at_json_set_int(object, "rounds", at_genesis_rounds(&g->genesis));
        at_json_set_int(object, "tokens", g->tokens);
        at_json_set(object, "heldout_loss_first", json_null());
        if (g->heldout_loss >= 0)
            at_json_set_9(object, "heldout_loss_last", g->heldout_loss);
        else
            at_json_set(object, "heldout_loss_last", json_null());
        at_json_set_int(object, "heldout_rounds", g->heldout_rounds);
        for (uint32_t i = 0; i < g->member_count; i++) {
            json_t *m = json_object();
            AT_ASSERT(m != NULL && json_array_append_new(members, m) == 0);
            at_json_set_text(m, "id", at_node_id_hex(&g->members[i].id).s);
            at_json_set_int(m, "replica", i);
            at_json_set_text(m, "name", g->members[i].name);
            at_json_set_text(m, "role", at_ledger_seat(g, &g->members[i].id) >= 0 ? "steward" : "member");
            at_json_set_bool(m, "online", false);
            at_json_set_int(m, "tokens", g->members[i].tokens);
            at_json_set_int(m, "points_pending", 0);
            at_json_set_int(m, "points_confirmed", g->members[i].confirmed);
            at_json_set_real(m, "share", at_ledger_share(g, i));
        }
        at_json_set_text(object, "state_root", at_hash_hex(g->state_root).s);
        at_json_set_int(object, "records", g->tree.size);
        at_json_set_text(object, "head", at_hash_hex(at_ledger_root(g)).s);
        at_json_set_bool(object, "ended", g->phase == AT_LEDGER_ENDED);
    }
    at_cli_ledger_release(&l);
    at_json_set(object, "members", members);
    at_json_set_text(object, "invite", place.invite);
    if (err != AT_OK) {
        json_decref(object);
        return err;
    }
    *ret_object = object;
    return AT_OK;
}

static at_err_t run_status(struct at_cli *cli, void *args)
{
    const struct args *a = args;
    json_t *object = NULL;
    struct at_diag why = {0};
    at_err_t err = call(cli, a->dir, "status", &why, &object);
    bool running = err == AT_OK;
    if (err == AT_E_NOT_FOUND)
        err = folder_status(cli, a->dir, &object);
    else if (err != AT_OK)
        cli->diag = why;
    if (err != AT_OK) return err;
    at_json_set_bool(object, "running", running);
    static const char *const losses[] = {"heldout_loss_first", "heldout_loss_last"};
    for (int i = 0; i < 2; i++)
        if (json_is_real(json_object_get(object, losses[i])))
            at_json_set_9(object, losses[i], number(object, losses[i]));
    if (cli->json) {
        cli->answer = object;
        return AT_OK;
    }
    if (!running) at_say("no node is running in %s; this is what its folder says", a->dir);
    print_status(object);
    json_decref(object);
    return AT_OK;
}

/* So many lines, each with a ticket of its own. */
static at_err tell_steward_invites(struct at_cli *cli, const struct args *a, const char *line, uint64_t count)
{
    json_t *list = json_array();
    at_err_t err = AT_OK;
    AT_ASSERT(list != NULL);
    for (uint64_t i = 0; i < count && err == AT_OK; i++) {
        char secret[AT_INVITE_TEXT_MAX + 1];
        err = at_node_steward_invite(a->dir, line, &cli->diag, secret);
        if (err != AT_OK) break;
        if (cli->json)
            AT_ASSERT(json_array_append_new(list, json_string(secret)) == 0);
        else
            printf("%s\n", secret);
    }
    if (err == AT_OK && cli->json) at_json_set(at_cli_answer(cli), "invites", json_incref(list));
    json_decref(list);
    if (err == AT_OK && !cli->json)
        at_say("%s a secret, for one member: with it one may become a steward, and cannot be told apart from another "
               "who has it",
               count == 1 ? "this line is" : "each of these lines is");
    return err;
}

static at_err invite_count(struct at_cli *cli, const struct args *a, uint64_t *ret_count)
{
    *ret_count = 1;
    if (cli->words.count == 0) return AT_OK;
    if (!a->steward)
        return at_fail(&cli->diag, AT_E_USAGE, cli->words.v[0],
                       "unexpected; one line lets in as many members as want to join");
    return at_parse_int(cli->words.v[0], 1, INVITES_MAX, "--steward", &cli->diag, ret_count);
}

/* The running node knows the newest checkpoint; a folder alone, the one stored last. */
static at_err_t run_invite(struct at_cli *cli, void *args)
{
    const struct args *a = args;
    struct at_node_place place;
    json_t *object = NULL;
    struct at_diag why = {0};
    uint64_t count = 1;
    at_err_t err = invite_count(cli, a, &count);
    if (err != AT_OK) return err;
    err = call(cli, a->dir, "status", &why, &object);
    bool running = err == AT_OK;
    if (err != AT_OK && err != AT_E_NOT_FOUND) {
        cli->diag = why;
        return err;
    }
    if ((err = at_node_folder(a->dir, &cli->diag, &place)) != AT_OK) {
        json_decref(object);
        return err;
    }
    const char *line = running ? text(object, "invite") : place.invite;
    if (!line[0])
        err = at_fail(&cli->diag, AT_E_ENV, a->dir, "the node in %s gives no invite", a->dir);
    else if (a->steward)
        err = tell_steward_invites(cli, a, line, count);
    else if (cli->json)
        at_json_set_text(at_cli_answer(cli), "invite", line);
    else
        printf("%s\n", line);
    if (err == AT_OK && !cli->json && !running)
        at_say("no node is running in %s; start it, then others can join with this line", a->dir);
    json_decref(object);
    return err;
}

/* One of several stewards must not leave the others too few by mistake. */
static at_err check_stewards(const json_t *s, const struct args *a, struct at_diag *diag, bool *ret_few)
{
    double seats = number(s, "stewards"), stay = number(s, "stewards_here") - 1, need = stewards_needed(seats);
    bool holds_seat = strcmp(text(s, "role"), "steward") == 0;
    *ret_few = seats > 1 && holds_seat && stay < need && !json_is_true(json_object_get(s, "ended"));
    if (!*ret_few || a->anyway) return AT_OK;
    return at_fail(diag, AT_E_USAGE, a->dir,
                   "only %.0f of %.0f stewards would stay and %.0f are needed: the run would wait until one returns "
                   "(atoll start --dir D on its machine). Nothing was done; --anyway leaves all the same",
                   stay, seats, need);
}

static at_err_t run_finish(struct at_cli *cli, void *args)
{
    const struct args *a = args;
    json_t *status = NULL, *object = NULL;
    bool few = false;
    at_err_t err = call(cli, a->dir, "status", &cli->diag, &status);
    if (err == AT_OK) err = check_stewards(status, a, &cli->diag, &few);
    if (err == AT_OK) err = call(cli, a->dir, a->now ? "leave" : "finish", &cli->diag, &object);
    double seats = number(status, "stewards");
    bool ends_run = strcmp(text(status, "role"), "steward") == 0 && seats <= 1;
    json_decref(status);
    json_decref(object);
    if (err != AT_OK) return err;
    if (cli->json)
        at_json_set_bool(at_cli_answer(cli), "finishing", true);
    else if (ends_run)
        at_say("the run ends after this round, and then the node in %s", a->dir);
    else if (a->now)
        at_say("the node in %s hands in what it has and leaves; the run %s", a->dir,
               few ? "then waits for more stewards" : "goes on");
    else if (few)
        at_say("the node in %s leaves after its round; the run then waits for more stewards: atoll start --dir %s "
               "brings this one back",
               a->dir, a->dir);
    else
        at_say("the node in %s leaves after its round; the run goes on%s", a->dir,
               seats > 1 ? ": among several stewards nobody ends it alone" : "");
    return AT_OK;
}

const struct at_command at_cmd_status = {
    .name = "status",
    .summary = "what a node is doing: round, step, members, points",
    .usage = "--dir D",
    .about = "Asks the node that runs in D; when none does, tells what the folder's ledger says.",
    .examples = "  atoll status --dir run\n  atoll status --dir run --json\n",
    AT_ROWS(rows),
    .args_bytes = sizeof(struct args),
    .run = run_status,
};
const struct at_command at_cmd_invite = {
    .name = "invite",
    .summary = "print the line with which others join through this node",
    .usage = "--dir D [--steward [N]]",
    .about =
        "Any member's node lets others in; the line names this node's address and the newest checkpoint of the log.\n"
        "Whoever joins with it gets everything from this node and other members, though it may not reach the founder.\n"
        "\n"
        "With --steward the founder prints one line, or N, of another kind: A SECRET, each for one trusted member. "
        "Once\n"
        "the founder and three who joined with such lines are members, these four keep the ledger together from the\n"
        "next round on, and the run goes on without any one of them. Send it as you would send a password.",
    .examples = "  atoll invite --dir me\n  atoll join \"$(atoll invite --dir me)\" --dir other\n"
                "  atoll invite --dir run --steward 3\n",
    AT_ROWS(invite_rows),
    .args_bytes = sizeof(struct args),
    .words_max = 1,
    .run = run_invite,
};
const struct at_command at_cmd_finish = {
    .name = "finish",
    .summary = "end a node after its round; on a founder who is the only steward, the run",
    .usage = "--dir D [--now] [--anyway]",
    .about =
        "Nothing that was worked is lost: the round is finished, then the node ends. With --now its part of the round\n"
        "ends with the step it is in, which counts as work of the steps done; a unit that several members share ends\n"
        "so for all of them. One of several stewards still stays until the round closes. On the founder's machine the\n"
        "run ends with it, as long as the founder is the only steward. With several stewards each of them only\n"
        "leaves, the founder, too: the run goes on to its last round. Where too few would stay for that, finish\n"
        "refuses, unless --anyway is given: the run then waits until one of those who left starts again.",
    .examples = "  atoll finish --dir run\n  atoll finish --dir run --now\n  atoll finish --dir run --anyway\n",
    AT_ROWS(finish_rows),
    .args_bytes = sizeof(struct args),
    .run = run_finish,
};
