/* cli_opts.h: a command's options as a table, parsed with getopt_long into the command's own struct of arguments.
 *
 * Numbers are strict: the whole text must be a number inside the row's range, or the caller reads one line such as
 * "--threads 0: must be 1 to 64". Texts and lists borrow argv. Unknown options name the nearest known one. */
#ifndef ATOLL_CLI_OPTS_H
#define ATOLL_CLI_OPTS_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum at_opt_kind { AT_OPT_FLAG, AT_OPT_INT, AT_OPT_REAL, AT_OPT_TEXT, AT_OPT_LIST };

struct at_opt_int {
    bool given; /* on the command line; v is the default's value otherwise (0 where there is none) */
    uint64_t v;
};
struct at_opt_real {
    bool given;
    double v;
};
struct at_opt_list { /* one option given several times; v has room for argc texts */
    const char **v;
    int count;
};

/* One row. `offset` is where the value lies in the command's arguments: bool, at_opt_int, at_opt_real, const char * or
 * at_opt_list, by kind. `fallback` is parsed before the command line and shown in the help. */
struct at_opt {
    enum at_opt_kind kind;
    const char *name, *arg, *help, *fallback;
    size_t offset;
    uint64_t int_min, int_max;
    double real_min, real_max;
};

#define AT_ROW_FLAG(type, field, nm, text)                                                                             \
    {                                                                                                                  \
        .kind = AT_OPT_FLAG, .name = nm, .help = text, .offset = offsetof(type, field)                                 \
    }
#define AT_ROW_INT(type, field, nm, argument, min, max, def, text)                                                     \
    {                                                                                                                  \
        .kind = AT_OPT_INT, .name = nm, .arg = argument, .help = text, .fallback = def,                                \
        .offset = offsetof(type, field), .int_min = min, .int_max = max                                                \
    }
#define AT_ROW_REAL(type, field, nm, argument, min, max, def, text)                                                    \
    {                                                                                                                  \
        .kind = AT_OPT_REAL, .name = nm, .arg = argument, .help = text, .fallback = def,                               \
        .offset = offsetof(type, field), .real_min = min, .real_max = max                                              \
    }
#define AT_ROW_TEXT(type, field, nm, argument, def, text)                                                              \
    {                                                                                                                  \
        .kind = AT_OPT_TEXT, .name = nm, .arg = argument, .help = text, .fallback = def,                               \
        .offset = offsetof(type, field)                                                                                \
    }
#define AT_ROW_LIST(type, field, nm, argument, text)                                                                   \
    {                                                                                                                  \
        .kind = AT_OPT_LIST, .name = nm, .arg = argument, .help = text, .offset = offsetof(type, field)                \
    }

/* What is left when the options are taken away; borrowed from argv, which getopt_long permutes. */
struct at_words {
    char **v;
    int count;
};

/* argv[0] is the command's name. `args` is zeroed by the caller; lists in it are allocated here and freed by
 * at_opts_release. Every command knows --help and --json beside its own rows; they come back in ret_help and ret_json.
 * AT_E_USAGE with a message for people. Not thread-safe (getopt_long). */
at_err at_opts_parse(const struct at_opt *rows, int row_count, int argc, char **argv, void *args, struct at_diag *diag,
                     bool *ret_help, bool *ret_json, struct at_words *ret_words);
void at_opts_release(const struct at_opt *rows, int row_count, void *args);

/* The option part of a help page. */
void at_opts_print(const struct at_opt *rows, int row_count, FILE *out);

/* The texts of numbers: strict, whole, in range. */
at_err at_parse_int(const char *text, uint64_t min, uint64_t max, const char *where, struct at_diag *diag,
                    uint64_t *ret_value);
at_err at_parse_real(const char *text, double min, double max, const char *where, struct at_diag *diag,
                     double *ret_value);

/* The known word nearest to `word` by edits, or NULL when none is near. */
const char *at_nearest_word(const char *word, const char *const *known, int known_count);

#endif
