/* cmd_root.c: the state root of a model on disk, recomputed from its bytes. */
#include "cli/cli_cmd.h"
#include "cli/cli_model.h"

struct args {
    const char *dir;
};

static const struct at_opt rows[] = {
    AT_ROW_TEXT(struct args, dir, "dir", "D", NULL, "the folder (the same as the last word)"),
};

static at_err_t run(struct at_cli *cli, void *args)
{
    const struct args *a = args;
    const char *dir = cli->words.count > 0 ? cli->words.v[0] : a->dir;
    struct at_cli_model m;
    if (dir == NULL) return at_fail(&cli->diag, AT_E_USAGE, "root", "name a folder: atoll root DIR");
    at_err_t err = at_cli_model_read(dir, &cli->diag, &m);
    if (err != AT_OK) return err;
    if (cli->json) {
        at_json_set_text(at_cli_answer(cli), "state_root", at_hash_hex(m.root).s);
        at_json_set_int(at_cli_answer(cli), "round", m.state.round);
    } else {
        printf("%s\n", at_hash_hex(m.root).s);
    }
    at_cli_model_release(&m);
    return AT_OK;
}

const struct at_command at_cmd_root = {
    .name = "root",
    .summary = "the state root of a model, recomputed from its bytes",
    .usage = "DIR",
    .about =
        "DIR is a run's folder or what `atoll train --out` wrote. Two folders with one root hold the same model to\n"
        "the bit. A file that was cut or changed is refused with exit code 3.",
    .examples = "  atoll root run\n  test \"$(atoll root a)\" = \"$(atoll root b)\" && echo the same model\n",
    AT_ROWS(rows),
    .args_bytes = sizeof(struct args),
    .words_max = 1,
    .run = run,
};
