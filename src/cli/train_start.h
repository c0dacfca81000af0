/* train_start.h: the ranks of a split run started and linked: threads of this process, children of it (TLS), or the ranks
 * that mpirun started. */
#ifndef ATOLL_CLI_TRAIN_START_H
#define ATOLL_CLI_TRAIN_START_H

#include "cli/train_split.h"

/* What a child is told, over the pipe that is its standard input: never in its arguments, its environment or a log. */
struct at_rank_brief {
    uint8_t secret[32];
    int rank;
    char host[64];
    uint16_t port;
    int argc; /* the parent's command line from the word "train" on */
    char **argv;
};
at_err at_rank_brief_write(const struct at_rank_brief *b, struct at_buf *out);
at_err at_rank_brief_read(struct at_span text, struct at_diag *diag, struct at_rank_brief *ret_brief); /* owned argv */
void at_rank_brief_release(struct at_rank_brief *b);

/* Runs this process's part and returns when every rank that it started has ended. argc, argv: of the command, for the
 * children. ret_rank: which rank this process is; its result is rank 0's only. */
at_err at_train_start(struct at_cli *cli, const struct at_train_setup *setup, int argc, char **argv,
                      struct at_screen *screen, int *ret_rank, struct at_split_result *ret_result);

/* The processes that at_train_start has started; safe in a signal handler. */
void at_train_kill_children(void);

/* A started child's whole life: `atoll rank`. */
at_err at_train_be_rank(struct at_cli *cli, const struct at_rank_brief *brief);

#endif
