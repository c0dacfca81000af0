/* cmd_points.c: who did what and owns how much, from the ledger in the folder (a running node's too). */
#include "cli/cli_cmd.h"
#include "cli/cli_ledger.h"
#include "cli/progress.h"

#include <inttypes.h>
#include <stdlib.h>

struct args {
    const char *dir;
};

static const struct at_opt rows[] = {
    AT_ROW_TEXT(struct args, dir, "dir", "D", ".", "the run's folder"),
};

static json_t *member_object(const struct at_ledger *ledger, uint32_t i, uint64_t pending)
{
    const struct at_member *m = &ledger->members[i];
    json_t *object = json_object();
    AT_ASSERT(object != NULL);
    at_json_set_text(object, "id", at_node_id_hex(&m->id).s);
    at_json_set_text(object, "name", m->name);
    at_json_set_int(object, "replica", i);
    at_json_set_int(object, "rounds", m->rounds);
    at_json_set_int(object, "tokens", m->tokens);
    at_json_set_int(object, "points_pending", pending);
    at_json_set_int(object, "points_confirmed", m->confirmed);
    at_json_set_real(object, "share", at_ledger_share(ledger, i));
    return object;
}

static void print_table(const struct at_ledger *ledger, const uint64_t *pending)
{
    printf("%-12s %-8s %6s %11s %13s %13s %7s\n", "member", "id", "rounds", "tokens", "pending", "confirmed", "share");
    for (uint32_t i = 0; i < ledger->member_count; i++) {
        const struct at_member *m = &ledger->members[i];
        printf("%-12s %.8s %6u %11" PRIu64 " %13s %13s %6.2f%%\n", m->name, at_node_id_hex(&m->id).s, m->rounds,
               m->tokens, at_points(pending[i]).s, at_points(m->confirmed).s, 100 * at_ledger_share(ledger, i));
    }
    printf("%u rounds, %s points confirmed in all\n", ledger->round, at_points(ledger->confirmed).s);
}

static at_err_t run(struct at_cli *cli, void *args)
{
    const struct args *a = args;
    struct at_cli_ledger l;
    at_err_t err = at_cli_ledger_open(a->dir, &cli->diag, &l);
    if (err != AT_OK) return err;
    err = at_cli_ledger_fold(&l, &cli->diag);
    uint64_t *pending = calloc((size_t)l.ledger.member_count + 1, sizeof *pending);
    if (err == AT_OK && pending == NULL) err = at_fail(&cli->diag, AT_E_NOMEM, a->dir, "out of memory");
    if (err == AT_OK) {
        at_ledger_pending(&l.ledger, pending);
        if (cli->json) {
            json_t *answer = at_cli_answer(cli), *members = json_array();
            at_json_set_text(answer, "run_id", at_hash_hex(l.ledger.run).s);
            at_json_set_int(answer, "rounds", l.ledger.round);
            at_json_set_int(answer, "tokens", l.ledger.tokens);
            at_json_set_int(answer, "points_confirmed", l.ledger.confirmed);
            for (uint32_t i = 0; i < l.ledger.member_count; i++)
                AT_ASSERT(json_array_append_new(members, member_object(&l.ledger, i, pending[i])) == 0);
            at_json_set(answer, "members", members);
        } else {
            print_table(&l.ledger, pending);
        }
    }
    free(pending);
    at_cli_ledger_release(&l);
    return err;
}

const struct at_command at_cmd_points = {
    .name = "points",
    .summary = "each member's work, points and share",
    .usage = "--dir D",
    .about =
        "Everything is recomputed from the ledger's records. Points are pending from the receipt of a unit of work\n"
        "until its round ends, then confirmed; a share is confirmed points over all confirmed points. `atoll status`\n"
        "also counts, as pending, the steps of units that are not delivered yet.",
    .examples = "  atoll points --dir run\n  atoll points --dir run --json\n",
    AT_ROWS(rows),
    .args_bytes = sizeof(struct args),
    .run = run,
};
