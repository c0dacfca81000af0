/* demo_job.h: the inside of `atoll demo` (cmd_demo.c, demo_ask.c, demo_chaos.c, demo_end.c). */
#ifndef ATOLL_CLI_DEMO_JOB_H
#define ATOLL_CLI_DEMO_JOB_H

#include "cli/cli_cmd.h"
#include "cli/demo.h"
#include "cli/demo_wires.h"
#include "node/node.h"

struct at_demo_args {
    const char *dir, *preset, *kernels;
    struct at_opt_list data;
    struct at_opt_int members, rounds, steps, seed, stages;
    bool chaos, groups_by_log;
};

struct at_demo_job {
    struct at_cli *cli;
    const struct at_demo_args *args;
    struct at_demo demo;
    struct at_wires *wires; /* with chaos; else NULL */
    char program[AT_PATH_BYTES], log[AT_PATH_BYTES];
    char invite[AT_INVITE_TEXT_MAX], seed[24];
};

/* ---- demo_ask.c: the other commands ---- */
#define AT_DEMO_WORDS_MAX 96
struct at_demo_command {
    const char *word[AT_DEMO_WORDS_MAX + 2];
    int count;
};
/* The program with this subcommand; then its words. */
struct at_demo_command at_demo_command(const struct at_demo_job *j, const char *name);
void at_demo_add(struct at_demo_command *c, const char *word);
void at_demo_option(struct at_demo_command *c, const char *option, const char *value);
/* Runs a command with --json and gives its one object, the caller's. */
at_err at_demo_ask(struct at_demo_job *j, struct at_demo_command *c, struct at_diag *diag, json_t **ret_object);
double at_demo_number(const json_t *object, const char *key, double otherwise);
void at_demo_text(const json_t *object, const char *key, char *ret, size_t bytes);
/* One of the objects of a status or of `points`. */
void at_demo_take_member(struct at_demo *d, const json_t *object);

/* ---- cmd_demo.c ---- */
void at_demo_show_round(struct at_demo_job *j); /* the newest, if it was not shown */

/* ---- demo_chaos.c: trouble on purpose ---- */
void at_demo_chaos_begin(struct at_demo_job *j);
/* Once per look at the members: begins what is due, and ends it. */
void at_demo_chaos_drive(struct at_demo_job *j);
void at_demo_chaos_calm(struct at_demo_job *j); /* whoever is paused goes on; nothing more is begun */

/* ---- demo_end.c: what came of it ---- */
at_err at_demo_finish(struct at_demo_job *j);

#endif
