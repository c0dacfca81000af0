/* cmd_rank.c: one rank of a split `atoll train`, started by it (train_start.c). Everything it needs comes over its
 * standard input, so that the run's secret is in no process list. */
#include "cli/child.h"
#include "cli/cli_cmd.h"
#include "cli/train_start.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

static at_err read_all(int fd, struct at_diag *diag, struct at_buf *out)
{
    out->bytes_max = (size_t)16 << 20;
    for (;;) {
        uint8_t *room;
        at_err_t err = at_buf_reserve(out, 4096, &room);
        if (err != AT_OK) return at_fail(diag, err, "rank", "the brief is too long");
        ssize_t n = read(fd, room, 4096);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return AT_OK;
        out->n += (size_t)n;
    }
}

enum { LAST_WORD_S = 4 };

/* Rank 0, our parent, is dead: the links notice at once and this process says so; should it be deep in a computation,
 * it ends all the same. */
static void orphaned(int number)
{
    alarm(LAST_WORD_S);
}

static at_err_t run(struct at_cli *cli, void *args)
{
    struct sigaction act = {.sa_handler = orphaned}; /* it may come twice: once for each thread of the parent */
    sigaction(AT_CHILD_ORPHANED, &act, NULL);
    struct at_buf text = {0};
    struct at_rank_brief brief = {0};
    at_err_t err = read_all(STDIN_FILENO, &cli->diag, &text);
    if (err == AT_OK) err = at_rank_brief_read(at_buf_span(&text), &cli->diag, &brief);
    for (size_t i = 0; i < text.n; i++) text.p[i] = 0;
    at_buf_release(&text);
    if (err == AT_OK) err = at_train_be_rank(cli, &brief);
    at_rank_brief_release(&brief);
    return err;
}

const struct at_command at_cmd_rank = {
    .name = "rank",
    .usage = "",
    .examples = "",
    .args_bytes = 1,
    .run = run,
};
