#include "cli/cli_opts.h"

#include "cli/cli_wrap.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#define OPTS_MAX 32 /* rows of one command, --help and --json included */

at_err at_parse_int(const char *text, uint64_t min, uint64_t max, const char *where, struct at_diag *diag,
                    uint64_t *ret_value)
{
    char range[64];
    if (max == UINT64_MAX)
        snprintf(range, sizeof range, "%llu or more", (unsigned long long)min);
    else
        snprintf(range, sizeof range, "%llu to %llu", (unsigned long long)min, (unsigned long long)max);
    size_t n = strlen(text);
    if (n == 0 || n != strspn(text, "0123456789"))
        return at_fail(diag, AT_E_USAGE, where, "%s is not a whole number (%s)", n ? text : "''", range);
    errno = 0;
    unsigned long long v = strtoull(text, NULL, 10);
    if (errno != 0 || v < min || v > max) return at_fail(diag, AT_E_USAGE, where, "%s: must be %s", text, range);
    *ret_value = v;
    return AT_OK;
}

at_err at_parse_real(const char *text, double min, double max, const char *where, struct at_diag *diag,
                     double *ret_value)
{
    size_t n = strlen(text);
    char *end = NULL;
    double v = n > 0 && n == strspn(text, "0123456789.eE+-") ? strtod(text, &end) : 0;
    if (end == NULL || end == text || *end != '\0')
        return at_fail(diag, AT_E_USAGE, where, "%s is not a number (%g to %g)", n ? text : "''", min, max);
    if (!(v >= min && v <= max)) return at_fail(diag, AT_E_USAGE, where, "%s: must be %g to %g", text, min, max);
    *ret_value = v;
    return AT_OK;
}

/* Levenshtein's distance with one row of memory; words longer than the row are simply far. */
static unsigned edit_distance(const char *a, const char *b)
{
    enum { WIDTH = 40 };
    size_t an = strlen(a), bn = strlen(b);
    if (an >= WIDTH || bn >= WIDTH) return WIDTH;
    unsigned row[WIDTH];
    for (size_t j = 0; j <= bn; j++) row[j] = (unsigned)j;
    for (size_t i = 1; i <= an; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= bn; j++) {
            unsigned above = row[j], best = diagonal + (a[i - 1] != b[j - 1]);
            if (above + 1 < best) best = above + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = above;
            row[j] = best;
        }
    }
    return row[bn];
}

const char *at_nearest_word(const char *word, const char *const *known, int known_count)
{
    const char *best = NULL;
    size_t n = strlen(word);
    unsigned best_edits = n <= 3 ? 2 : 3; /* fewer edits than this are "near" */
    for (int i = 0; i < known_count; i++) {
        unsigned edits = edit_distance(word, known[i]);
        if (n >= 3 && strncmp(word, known[i], n) == 0) edits = 1; /* a beginning of the word */
        if (edits < best_edits) {
            best = known[i];
            best_edits = edits;
        }
    }
    return best;
}

static at_err set_value(const struct at_opt *row, const char *text, void *args, struct at_diag *diag)
{
    void *slot = (char *)args + row->offset;
    char where[64];
    snprintf(where, sizeof where, "--%s", row->name);
    at_err_t err = AT_OK;
    switch (row->kind) {
    case AT_OPT_FLAG:
        *(bool *)slot = true;
        break;
    case AT_OPT_INT:
        err = at_parse_int(text, row->int_min, row->int_max, where, diag, &((struct at_opt_int *)slot)->v);
        break;
    case AT_OPT_REAL:
        err = at_parse_real(text, row->real_min, row->real_max, where, diag, &((struct at_opt_real *)slot)->v);
        break;
    case AT_OPT_TEXT:
        *(const char **)slot = text;
        break;
    case AT_OPT_LIST: {
        struct at_opt_list *list = slot;
        list->v[list->count++] = text;
        break;
    }
    }
    return err;
}

static void mark_given(const struct at_opt *row, void *args)
{
    void *slot = (char *)args + row->offset;
    if (row->kind == AT_OPT_INT) ((struct at_opt_int *)slot)->given = true;
    if (row->kind == AT_OPT_REAL) ((struct at_opt_real *)slot)->given = true;
}

/* Whether the word of the command line is exactly --name or --name=... */
static bool is_option(const char *text, const char *name)
{
    size_t n = strlen(name);
    return strncmp(text, "--", 2) == 0 && strncmp(text + 2, name, n) == 0 &&
           (text[2 + n] == '\0' || text[2 + n] == '=');
}

static at_err unknown_option(const struct at_opt *rows, int row_count, const char *text, struct at_diag *diag)
{
    const char *known[OPTS_MAX];
    int known_count = 0;
    char word[40];
    snprintf(word, sizeof word, "%.*s", (int)strcspn(text + strspn(text, "-"), "="), text + strspn(text, "-"));
    for (int i = 0; i < row_count; i++) known[known_count++] = rows[i].name;
    known[known_count++] = "help";
    known[known_count++] = "json";
    const char *near = at_nearest_word(word, known, known_count);
    if (near == NULL) return at_fail(diag, AT_E_USAGE, text, "unknown option; see --help");
    return at_fail(diag, AT_E_USAGE, text, "unknown option; did you mean --%s?", near);
}

static at_err prepare(const struct at_opt *rows, int row_count, int argc, void *args, struct option *table,
                      struct at_diag *diag)
{
    AT_ASSERT(row_count + 3 <= OPTS_MAX);
    for (int i = 0; i < row_count; i++) {
        bool has_arg = rows[i].kind != AT_OPT_FLAG;
        table[i] = (struct option){rows[i].name, has_arg ? required_argument : no_argument, NULL, 256 + i};
        if (rows[i].kind == AT_OPT_LIST) {
            struct at_opt_list *list = (struct at_opt_list *)(void *)((char *)args + rows[i].offset);
            list->v = calloc((size_t)argc + 1, sizeof *list->v);
            if (list->v == NULL) return at_fail(diag, AT_E_NOMEM, rows[i].name, "no memory for the command line");
        }
        if (rows[i].fallback != NULL && rows[i].kind != AT_OPT_FLAG) {
            at_err_t err = set_value(&rows[i], rows[i].fallback, args, diag);
            AT_ASSERT(err == AT_OK);
        }
    }
    table[row_count] = (struct option){"help", no_argument, NULL, 'h'};
    table[row_count + 1] = (struct option){"json", no_argument, NULL, 'j'};
    table[row_count + 2] = (struct option){0};
    return AT_OK;
}

at_err at_opts_parse(const struct at_opt *rows, int row_count, int argc, char **argv, void *args, struct at_diag *diag,
                     bool *ret_help, bool *ret_json, struct at_words *ret_words)
{
    struct option table[OPTS_MAX];
    at_err_t err = prepare(rows, row_count, argc, args, table, diag);
    bool help = false, json = false;
    opterr = 0;
    optind = 0; /* glibc: start afresh */
    while (err == AT_OK) {
        int c = getopt_long(argc, argv, ":h", table, NULL);
        if (c == -1) break;
        const char *text = argv[optind - (optarg != NULL && optarg == argv[optind - 1] ? 2 : 1)];
        int row = c >= 256 ? c - 256 : optopt - 256;
        if (c == 'h' || (c == 'j' && strcmp(text, "--json") == 0)) {
            help = help || c == 'h';
            json = json || c == 'j';
        } else if (row < 0 || !is_option(text, rows[row].name)) {
            err = unknown_option(rows, row_count, text, diag); /* abbreviations too: a script must not depend on them */
        } else if (c == ':') {
            err = at_fail(diag, AT_E_USAGE, text, "needs a value: --%s %s", rows[row].name, rows[row].arg);
        } else if (c == '?') {
            err = at_fail(diag, AT_E_USAGE, text, "takes no value");
        } else if ((err = set_value(&rows[row], optarg, args, diag)) == AT_OK) {
            mark_given(&rows[row], args);
        }
    }
    if (err != AT_OK) return err;
    *ret_help = help;
    *ret_json = json;
    *ret_words = (struct at_words){argv + optind, argc - optind};
    return AT_OK;
}

void at_opts_release(const struct at_opt *rows, int row_count, void *args)
{
    for (int i = 0; i < row_count; i++) {
        if (rows[i].kind != AT_OPT_LIST) continue;
        struct at_opt_list *list = (struct at_opt_list *)(void *)((char *)args + rows[i].offset);
        free(list->v);
        *list = (struct at_opt_list){0};
    }
}

static void print_row(const char *name, const char *arg, const char *help, const char *fallback, FILE *out)
{
    char left[64], right[400];
    int column = snprintf(left, sizeof left, "  --%s%s%s", name, arg ? " " : "", arg ? arg : "");
    snprintf(right, sizeof right, fallback != NULL ? "%s (default %s)" : "%s", help, fallback);
    fprintf(out, "%-24s ", left);
    at_wrap(out, column < 24 ? 25 : column + 1, 25, right);
}

void at_opts_print(const struct at_opt *rows, int row_count, FILE *out)
{
    for (int i = 0; i < row_count; i++) print_row(rows[i].name, rows[i].arg, rows[i].help, rows[i].fallback, out);
    print_row("json", NULL, "one JSON object on stdout, everything else on stderr", NULL, out);
    print_row("help", NULL, "this page", NULL, out);
}
