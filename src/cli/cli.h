/* cli.h: the command. A table of subcommands (commands.c); this module finds the row, parses its options, runs it, and
 * keeps the contract for scripts:
 *
 *   --json     exactly one JSON object on stdout; everything for people on stderr
 *   errors     {"error":{"code":int,"message":str,"where":str}} on stdout with --json, one line on stderr always
 *   exit code  0 ok, 1 internal, 2 usage, 3 bad file or data, 4 verification failed, 5 environment, 6 peer or invite,
 *              130 interrupted (base/err.h holds which error is which)
 *
 * Without --json an answer that was asked for (a root, an invite, a table) goes to stdout; progress goes to stderr. */
#ifndef ATOLL_CLI_CLI_H
#define ATOLL_CLI_CLI_H

#include "cli/cli_json.h"
#include "cli/cli_opts.h"

struct at_cli {
    const struct at_command *command;
    const char *program; /* argv[0], for the lines that say what to do next */
    bool json;
    bool
        second; /* one of several processes with the same trouble, and not the one that tells it: it waits a moment, and
                    speaks only if it still lives */
    int argc;   /* the command line from the command's name on, as getopt_long left it */
    char **argv;
    struct at_words words; /* what follows the options */
    struct at_diag diag;   /* a command's error is told here */
    json_t *answer;        /* what --json prints; a failing command may have filled it (ledger verify does) */
};

struct at_command {
    const char *name, *summary; /* summary NULL: not for people, in no list */
    const char *usage;          /* what follows the name: "INVITE --dir D [--threads N]" */
    const char *about;          /* a paragraph or two; may be NULL */
    const char *examples;       /* whole lines */
    const struct at_opt *rows;
    int row_count;
    size_t args_bytes; /* the size of the command's arguments, zeroed before parsing */
    int words_min, words_max;
    const char *words_what; /* where words_min is not 0: what they are, for who leaves them out */
    at_err_t (*run)(struct at_cli *cli, void *args);
};
#define AT_ROWS(table) .rows = (table), .row_count = (int)(sizeof(table) / sizeof((table)[0]))

/* The table, in the order of the help page. */
const struct at_command *const *at_command_list(int *ret_count);

int at_cli_main(int argc, char **argv);

/* The commit that this program was built from, with "-dirty" behind it when files were changed; "unknown" outside a
 * repository. */
const char *at_cli_commit(void);

/* Seconds since this process started. */
double at_cli_seconds(void);

/* The answer, made on first use: an empty object for --json. */
json_t *at_cli_answer(struct at_cli *cli);

/* cli->diag as the line on stderr, and as the object with --json: for ends that do not return to at_cli_main. */
void at_cli_tell_error(const struct at_cli *cli, at_err_t err);

/* A line for people on stderr. */
void at_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Interrupts: from the first call on, SIGINT, SIGTERM and SIGHUP only set a flag that at_interrupted() reads; a second
 * one ends the process at once, with exit code 130, and leaves no unfinished file behind. */
void at_interrupt_catch(void);
bool at_interrupted(void);
/* Called by the second one, before the end: only what is safe in a signal handler. NULL: nothing. */
void at_interrupt_last(void (*last)(void));

#endif
