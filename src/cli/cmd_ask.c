/* cmd_ask.c: the button: text from a run's current model, streamed byte by byte. Same seed, same text, everywhere. */
#include "cli/cli_cmd.h"
#include "cli/cli_exec.h"
#include "cli/cli_model.h"
#include "os/sys.h"
#include "train/sample.h"

#include <stdlib.h>
#include <string.h>

struct args {
    const char *dir, *kernels;
    struct at_opt_int max_tokens, top_k, seed, threads;
    struct at_opt_real temperature, top_p;
};

static const struct at_opt rows[] = {
    AT_ROW_TEXT(struct args, dir, "dir", "D", NULL, "a run's folder, or what `atoll train --out` wrote"),
    AT_ROW_INT(struct args, max_tokens, "max-tokens", "N", 1, 1000000, "400", "tokens (bytes) to write"),
    AT_ROW_REAL(struct args, temperature, "temperature", "X", 0, 100, "0.8", "0: always the likeliest token"),
    AT_ROW_INT(struct args, top_k, "top-k", "K", 0, 1000000, "0", "choose among the K likeliest only; 0: all"),
    AT_ROW_REAL(struct args, top_p, "top-p", "P", 0, 1, "1", "choose among the likeliest with this probability"),
    AT_ROW_INT(struct args, seed, "seed", "S", 0, UINT64_MAX, "1", "same seed, same text"),
    AT_ROW_INT(struct args, threads, "threads", "N", 1, 64, "1", "threads"),
    AT_ROW_TEXT(struct args, kernels, "kernels", "K", "auto", "ref, avx2, avx512 or auto; all give the same bits"),
};

/* Gives stdout whole UTF-8 sequences only; returns how much of `text` is out. */
static size_t stream(const struct at_buf *text, size_t from, bool last, struct at_buf *scratch)
{
    at_buf_clear(scratch);
    size_t used = at_utf8_clean(at_span(text->p + from, text->n - from), last, scratch);
    fwrite(scratch->p, 1, scratch->n, stdout);
    fflush(stdout);
    return from + used;
}

static at_err generate(struct at_cli *cli, const struct args *a, struct at_generator *g, const struct at_exec *ex,
                       struct at_buf *text)
{
    struct at_buf scratch = {0};
    size_t out = 0;
    at_err_t err = AT_OK;
    for (uint64_t i = 0; i < a->max_tokens.v && err == AT_OK; i++) {
        int32_t token;
        if (at_interrupted()) err = at_fail(&cli->diag, AT_E_INTERRUPTED, "ask", "interrupted");
        if (err == AT_OK && (err = at_generator_next(g, ex, &token)) != AT_OK)
            at_fail(&cli->diag, err, a->dir, "the model's output is not finite: it is broken");
        if (err != AT_OK) break;
        /* A vocabulary larger than bytes has tokens that are no text: shown as one bad byte. */
        uint8_t byte = token < 256 ? (uint8_t)token : 0xff;
        if ((err = at_buf_append(text, &byte, 1)) != AT_OK) at_fail(&cli->diag, err, "ask", "no memory for the text");
        if (err == AT_OK && !cli->json) out = stream(text, out, false, &scratch);
        if (ferror(stdout)) break; /* the reader is gone; at_cli_main says so */
    }
    if (!cli->json) {
        stream(text, out, true, &scratch);
        putchar('\n');
    }
    at_buf_release(&scratch);
    return err;
}

static at_err answer_prompt(struct at_cli *cli, const struct args *a, const struct at_cli_model *m,
                            const struct at_exec *ex)
{
    const char *prompt = cli->words.v[0];
    size_t n = strlen(prompt);
    struct at_sample_options options = {a->temperature.v, (int)a->top_k.v, a->top_p.v, a->seed.v};
    struct at_generator g = {0};
    struct at_buf text = {0};
    int32_t *token = malloc((n + 1) * sizeof *token);
    if (token == NULL) return at_fail(&cli->diag, AT_E_NOMEM, "ask", "no memory for the prompt");
    for (size_t i = 0; i < n; i++) token[i] = (uint8_t)prompt[i];
    at_err_t err = at_sample_options_check(&options, &cli->diag);
    if (err == AT_OK) err = at_generator_init(&g, &m->model, m->state.theta, &options, &cli->diag);
    if (err == AT_OK) {
        uint64_t start_ns = at_clock_mono_ns();
        at_generator_prompt(&g, token, n);
        err = generate(cli, a, &g, ex, &text);
        double spent_s = (double)(at_clock_mono_ns() - start_ns) * 1e-9;
        if (cli->json && err == AT_OK) {
            json_t *answer = at_cli_answer(cli);
            at_json_set_bytes(answer, "text", at_buf_span(&text));
            at_json_set_int(answer, "tokens", text.n);
            at_json_set_int(answer, "prompt_tokens", n);
            at_json_set_text(answer, "state_root", at_hash_hex(m->root).s);
            at_json_set_int(answer, "round", m->state.round);
            at_json_set_9(answer, "tokens_per_s", spent_s > 0 ? (double)text.n / spent_s : 0);
            at_json_set_9(answer, "seconds", at_cli_seconds());
        }
    }
    at_generator_release(&g);
    at_buf_release(&text);
    free(token);
    return err;
}

static at_err_t run(struct at_cli *cli, void *args)
{
    const struct args *a = args;
    struct at_cli_model m = {0};
    struct at_cli_exec e = {0};
    if (a->dir == NULL)
        return at_fail(&cli->diag, AT_E_USAGE, "--dir", "name the folder of a run or of a trained model");
    at_interrupt_catch();
    at_err_t err = at_cli_exec_init(&e, a->kernels, a->threads.v, &cli->diag);
    if (err != AT_OK) return err;
    err = at_cli_model_read(a->dir, &cli->diag, &m);
    if (err == AT_OK) err = answer_prompt(cli, a, &m, &e.ex);
    at_cli_model_release(&m);
    at_cli_exec_release(&e);
    return err;
}

const struct at_command at_cmd_ask = {
    .name = "ask",
    .summary = "let a run's model go on with a text",
    .usage = "--dir D \"prompt\" [--max-tokens N] [--temperature X] [--top-k K] [--top-p P] [--seed S]",
    .about =
        "Works while the run goes on: it reads the model of the last finished round. The text goes to stdout as it\n"
        "comes; bytes that are no UTF-8 are shown as U+FFFD.",
    .examples = "  atoll ask --dir run \"Call me \"\n"
                "  atoll ask --dir my-model \"The whale\" --max-tokens 200 --temperature 0.5\n",
    AT_ROWS(rows),
    .args_bytes = sizeof(struct args),
    .words_min = 1,
    .words_what = "the text to go on from",
    .words_max = 1,
    .run = run,
};
