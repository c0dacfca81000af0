/* cmd_train.c: `atoll train`: in one process, or split over ranks. However it is split: same settings, same state root as
 * a swarm's run. */
#include "cli/cli_cmd.h"
#include "cli/train_alone.h"
#include "cli/train_out.h"
#include "cli/train_show.h"
#include "cli/train_start.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static json_t *rank_answer(const struct at_train_setup *s, const struct at_rank_figures *f, int rank)
{
    struct at_place place = at_plan_place(&s->plan, rank);
    json_t *object = json_object();
    AT_ASSERT(object != NULL);
    at_json_set_int(object, "rank", (uint64_t)rank);
    at_json_set_int(object, "replica", (uint64_t)place.replica);
    at_json_set_int(object, "stage", (uint64_t)place.stage);
    at_json_set_int(object, "tensor_rank", (uint64_t)place.tp_rank);
    at_json_set_int(object, "bytes_planned", f->bytes_planned);
    at_json_set_int(object, "bytes_peak", f->bytes_peak);
    at_json_set_int(object, "bytes_sent", f->bytes_sent);
    at_json_set_int(object, "update_bytes", f->update_bytes);
    at_json_set_9(object, "exchange_seconds", f->exchange_seconds);
    return object;
}

static void answer(struct at_cli *cli, const struct at_train_setup *s, const struct at_split_result *r)
{
    double tokens_per_s = r->train_seconds > 0 ? (double)r->tokens / r->train_seconds : 0;
    if (!cli->json) {
        for (int i = 0; i < s->plan.ranks && i < 16; i++)
            at_say("%s: needed %s, at most %s in its process; sent %s, of that %s updates", s->name[i],
                   at_bytes(r->figures[i].bytes_planned).s, at_bytes(r->figures[i].bytes_peak).s,
                   at_bytes(r->figures[i].bytes_sent).s, at_bytes(r->figures[i].update_bytes).s);
        printf("held-out loss %.4f -> %.4f nats/byte, %" PRIu64 " tokens at %s tok/s, %s\nstate root %s\n",
               r->loss_first, r->loss_last, r->tokens, at_count(tokens_per_s).s, at_duration(at_cli_seconds()).s,
               at_hash_hex(r->root).s);
        if (s->args->out != NULL)
            at_say("written to %s; try: %s ask --dir %s \"Call me \"", s->args->out, cli->program, s->args->out);
        return;
    }
    json_t *object = at_cli_answer(cli), *ranks = json_array();
    AT_ASSERT(ranks != NULL);
    at_json_set_text(object, "state_root", at_hash_hex(r->root).s);
    at_json_set_int(object, "tokens", r->tokens);
    at_json_set_9(object, "heldout_loss_first", r->loss_first);
    at_json_set_9(object, "heldout_loss_last", r->loss_last);
    at_json_set_9(object, "tokens_per_s", tokens_per_s);
    for (int i = 0; i < s->plan.ranks; i++)
        AT_ASSERT(json_array_append_new(ranks, rank_answer(s, &r->figures[i], i)) == 0);
    at_json_set(object, "rounds", json_incref(r->round_list));
    at_json_set(object, "ranks", ranks);
    at_json_set_9(object, "seconds", at_cli_seconds());
}

static at_err split(struct at_cli *cli, const struct at_train_setup *s)
{
    struct at_screen screen;
    struct at_split_result result = {0};
    int rank = 0;
    at_screen_init(&screen, stderr);
    at_err_t err = at_ranks_mpi_launched() && cli->second ? AT_OK : at_split_tell_memory(s, &cli->diag);
    if (err == AT_OK) err = at_train_start(cli, s, cli->argc, cli->argv, &screen, &rank, &result);
    at_screen_clear(&screen);
    if (err == AT_OK && rank == 0 && result.interrupted) {
        err = at_train_tell_interrupted(s->args, result.rounds, &cli->diag);
    } else if (err == AT_OK && rank == 0) {
        answer(cli, s, &result);
    } else if (err == AT_OK && s->node >= 0) { /* another machine: the result is rank 0's, the root is everybody's */
        if (cli->json)
            at_json_set_text(at_cli_answer(cli), "state_root", at_hash_hex(result.root).s);
        else
            printf("state root %s\n", at_hash_hex(result.root).s);
    }
    at_split_result_release(&result);
    if (err != AT_OK) at_train_tell_going_on(s->args, &cli->diag);
    return err;
}

static volatile sig_atomic_t wants_json; /* for the handler */

/* The second interrupt: children would only say that their parent is gone. */
static void stop_at_once(void)
{
    at_train_kill_children();
    at_train_last_words(wants_json != 0);
}

static at_err_t run(struct at_cli *cli, void *args)
{
    struct at_train_args *a = args;
    struct at_train_setup setup = {0};
    struct at_train_out out = {0};
    cli->second = at_ranks_mpi_launched_rank() > 0; /* all ranks of mpirun read the same command line */
    at_err_t err = at_train_take_words(a, &cli->words, &cli->diag);
    if (err == AT_OK) err = at_train_setup_init(&setup, a, &cli->diag);
    if (err == AT_OK) err = at_train_check_out(a, &cli->diag);
    if (err == AT_OK && a->resume != NULL) err = at_train_check_resume(&setup, &cli->diag);
    if (err == AT_OK && at_train_out_is_here(&setup)) err = at_train_out_open(&out, a, &cli->diag);
    wants_json = cli->json;
    if (!cli->second) at_interrupt_last(stop_at_once);
    at_interrupt_catch();
    if (err == AT_OK) err = setup.link == AT_LINK_NONE ? at_train_alone(cli, &setup) : split(cli, &setup);
    at_interrupt_last(NULL);
    at_train_out_close(&out);
    at_train_setup_release(&setup);
    return err;
}

const struct at_command at_cmd_train = {
    .name = "train",
    .summary = "train on this machine alone, or split over processes and machines",
    .usage = "--preset P --data FILE... [--replicas R] [--tp T] [--pp P] [--rounds N] [--steps H] [--out D]",
    .about =
        "The same algorithm as a swarm's: with equal settings it ends in the same state root, to the bit, whatever\n"
        "the kernels, the number of threads and the split: --tp ranks share every layer, --pp stages the layers,\n"
        "--replicas train side by side. Without these it is one process. Ctrl-C finishes the running round and keeps\n"
        "the model in --out (a second one stops at once; under mpirun the first does); --resume goes on from there, "
        "under\n"
        "any split.",
    .examples = "  atoll train --preset nano --data moby-dick.txt --replicas 4 --out my-model\n"
                "  atoll train --data a.txt b.txt --rounds 6 --steps 10 --threads 2 --json\n"
                "  atoll train --preset 10m --tp 2 --pp 2 --microbatches 4 --data a.txt\n"
                "  mpirun -n 4 atoll train --preset 10m --tp 2 --replicas 2 --data a.txt\n",
    .rows = at_train_rows,
    .row_count = AT_TRAIN_ROWS,
    .args_bytes = sizeof(struct at_train_args),
    .words_max = 10000,
    .run = run,
};
