/* cmd_bench.c: how fast this machine does the contract's arithmetic, as a fraction of what its FMA units could do. */
#include "cli/bench.h"
#include "cli/cli_cmd.h"
#include "cli/cli_exec.h"

#include <string.h>

static const struct at_opt rows[] = {
    AT_ROW_TEXT(struct at_bench_args, preset, "preset", "P", "10m", "the model's shape: nano, 10m, 124m"),
    AT_ROW_INT(struct at_bench_args, batch, "batch", "B", 1, 1024, NULL, "sequences of a step (default: the preset's)"),
    AT_ROW_INT(struct at_bench_args, threads, "threads", "N", 1, 64, "1", "threads"),
    AT_ROW_TEXT(struct at_bench_args, kernels, "kernels", "K", "auto", "ref, avx2, avx512 or auto"),
    AT_ROW_TEXT(struct at_bench_args, data, "data", "FILE", NULL, "sync: text to learn"),
    AT_ROW_INT(struct at_bench_args, steps, "steps", "N", 1, 100000, "100", "sync: optimizer steps"),
    AT_ROW_INT(struct at_bench_args, every, "every", "N", 1, 100000, "100", "sync: steps between held-out losses"),
    AT_ROW_INT(struct at_bench_args, seed, "seed", "S", 0, UINT64_MAX, NULL,
               "sync: seed of weights and data order (default: the preset's)"),
    AT_ROW_FLAG(struct at_bench_args, list, "list", "with --json: only tell what would be measured, measure nothing"),
    AT_ROW_FLAG(struct at_bench_args, lines, "lines",
                "measure once for every line on standard input (`peak` or a product's number): for scripts that let\n"
                "several programs take turns"),
};

struct kind {
    const char *name;
    at_err_t (*run)(struct at_cli *cli, const struct at_bench_args *args, const struct at_exec *ex);
};
static const struct kind kinds[] = {
    {"gemm", at_bench_gemm}, {"train", at_bench_train}, {"sync", at_bench_sync}, {"node", at_bench_node}};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static at_err_t run(struct at_cli *cli, void *args)
{
    const struct at_bench_args *a = args;
    const struct kind *kind = NULL;
    struct at_cli_exec e = {0};
    for (int i = 0; i < KINDS; i++)
        if (strcmp(kinds[i].name, cli->words.v[0]) == 0) kind = &kinds[i];
    if (kind == NULL)
        return at_fail(&cli->diag, AT_E_USAGE, cli->words.v[0],
                       "unknown; it is `bench gemm`, `bench train`, `bench sync` or `bench node`");
    if (a->list && !cli->json) return at_fail(&cli->diag, AT_E_USAGE, "--list", "goes together with --json");
    if (a->lines && cli->json) return at_fail(&cli->diag, AT_E_USAGE, "--lines", "does not go together with --json");
    at_interrupt_catch();
    at_err_t err = at_cli_exec_init(&e, a->kernels, a->threads.v, &cli->diag);
    if (err == AT_OK) err = kind->run(cli, a, &e.ex);
    at_cli_exec_release(&e);
    return err;
}

const struct at_command at_cmd_bench = {
    .name = "bench",
    .summary = "measure matrix products or training steps against this machine's peak",
    .usage = "gemm | train | sync | node [--preset P] [--batch B] [--threads N] [--kernels K]",
    .about =
        "gemm: all products of one training step: forward, gradient of the input, gradient of the weights. FLOPs of\n"
        "training are counted as tokens x (6 x matmul parameters + 6 x layers x T x heads x head size); the peak is a\n"
        "register-only FMA loop run between the measurements. Medians of five.\n"
        "sync: the held-out loss of plain synchronous training, the yardstick for rounds and replicas.\n"
        "node: this machine's entry for the nodes.json of `atoll plan` (all processors unless --threads says "
        "otherwise).",
    .examples = "  atoll bench gemm --preset 124m --json\n  atoll bench train --preset 10m --batch 8 --threads 1\n",
    AT_ROWS(rows),
    .args_bytes = sizeof(struct at_bench_args),
    .words_min = 1,
    .words_what = "what to measure (gemm, train, sync or node)",
    .words_max = 1,
    .run = run,
};
