/* Options: every kind, every way to be wrong, and the texts that people then read. */
#include "cli/cli_opts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

struct args {
    bool fast;
    struct at_opt_int threads, seed;
    struct at_opt_real heat;
    const char *dir;
    struct at_opt_list data;
};
static const struct at_opt rows[] = {
    AT_ROW_FLAG(struct args, fast, "fast", "go fast"),
    AT_ROW_INT(struct args, threads, "threads", "N", 1, 64, "3", "threads"),
    AT_ROW_INT(struct args, seed, "seed", "S", 0, UINT64_MAX, NULL, "seed"),
    AT_ROW_REAL(struct args, heat, "heat", "X", 0, 5, "0.8", "heat"),
    AT_ROW_TEXT(struct args, dir, "dir", "D", "here", "folder"),
    AT_ROW_LIST(struct args, data, "data", "FILE", "a file, again and again"),
};
enum { ROWS = sizeof rows / sizeof rows[0] };

static struct at_diag diag;
static struct at_words words;
static bool help, json;

/* Parses a line cut at blanks. */
static at_err_t parse(const char *line, struct args *args)
{
    static char text[256];
    static char *argv[32];
    int argc = 0;
    snprintf(text, sizeof text, "cmd %s", line);
    for (char *p = strtok(text, " "); p != NULL; p = strtok(NULL, " ")) argv[argc++] = p;
    argv[argc] = NULL;
    memset(args, 0, sizeof *args);
    memset(&diag, 0, sizeof diag);
    help = json = false;
    return at_opts_parse(rows, ROWS, argc, argv, args, &diag, &help, &json, &words);
}

static void test_every_kind(void **state)
{
    struct args args;
    assert_int_equal(
        parse("one --fast --threads 64 --seed=18446744073709551615 two --heat 1.5e0 --data a --data b --json", &args),
        AT_OK);
    assert_true(args.fast && json && !help);
    assert_true(args.threads.given && args.threads.v == 64 && args.seed.v == UINT64_MAX);
    assert_true(args.heat.given && args.heat.v == 1.5);
    assert_string_equal(args.dir, "here");
    assert_int_equal(args.data.count, 2);
    assert_string_equal(args.data.v[1], "b");
    assert_int_equal(words.count, 2);
    assert_string_equal(words.v[1], "two");
    at_opts_release(rows, ROWS, &args);
}

static void test_defaults(void **state)
{
    struct args args;
    assert_int_equal(parse("-- --fast", &args), AT_OK);
    assert_true(!args.fast && !args.threads.given && args.threads.v == 3 && args.heat.v == 0.8 && !args.seed.given);
    assert_int_equal(words.count, 1);
    assert_string_equal(words.v[0], "--fast");
    at_opts_release(rows, ROWS, &args);
}

static void test_wrong_ones_say_why(void **state)
{
    static const struct {
        const char *line, *where, *text;
    } cases[] = {
        {"--threads 0", "--threads", "0: must be 1 to 64"},
        {"--threads 65", "--threads", "65: must be 1 to 64"},
        {"--threads -1", "--threads", "-1 is not a whole number (1 to 64)"},
        {"--threads 2x", "--threads", "2x is not a whole number (1 to 64)"},
        {"--threads=", "--threads", "'' is not a whole number (1 to 64)"},
        {"--seed 18446744073709551616", "--seed", "18446744073709551616: must be 0 or more"},
        {"--heat 5.1", "--heat", "5.1: must be 0 to 5"},
        {"--heat nan", "--heat", "nan is not a number (0 to 5)"},
        {"--heat 1e", "--heat", "1e is not a number (0 to 5)"},
        {"--threads", "--threads", "needs a value: --threads N"},
        {"--fast=yes", "--fast=yes", "takes no value"},
        {"--treads 2", "--treads", "unknown option; did you mean --threads?"},
        {"--thread 2", "--thread", "unknown option; did you mean --threads?"},
        {"--thread=2", "--thread=2", "unknown option; did you mean --threads?"},
        {"--js", "--js", "unknown option; see --help"},
        {"--quux", "--quux", "unknown option; see --help"},
        {"-x", "-x", "unknown option; see --help"},
    };
    struct args args;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(parse(cases[i].line, &args), AT_E_USAGE);
        assert_string_equal(diag.where, cases[i].where);
        assert_string_equal(diag.text, cases[i].text);
        at_opts_release(rows, ROWS, &args);
    }
}

static void test_nearest(void **state)
{
    static const char *const known[] = {"demo", "train", "ledger", "status", "start"};
    assert_string_equal(at_nearest_word("tarin", known, 5), "train");
    assert_string_equal(at_nearest_word("leger", known, 5), "ledger");
    assert_string_equal(at_nearest_word("stat", known, 5), "status");
    assert_null(at_nearest_word("xyzzy", known, 5));
    assert_null(at_nearest_word("a-word-that-is-much-longer-than-any-command-of-ours-is", known, 5));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_wrong_ones_say_why),
        cmocka_unit_test(test_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
