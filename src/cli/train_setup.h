/* train_setup.h: what `atoll train` was asked for, made ready: the same on every rank of a split run, because every rank
 * makes it from the same command line. cmd_train.c has the options; train_alone.c and train_split.c train. */
#ifndef ATOLL_CLI_TRAIN_SETUP_H
#define ATOLL_CLI_TRAIN_SETUP_H

#include "cli/cli.h"
#include "model/config.h"
#include "net/ranks.h"
#include "parallel/plan_file.h"
#include "parallel/rank.h"
#include "train/data.h"
#include "train/outer.h"

struct at_train_args {
    const char *preset, *kernels, *out, *resume, *outer;
    const char *link, *plan, *node, *listen, *join, *secret;
    struct at_opt_list data;
    struct at_opt_int replicas, rounds, steps, batch, seed, threads, tp, pp, microbatches, keep, tau;
    struct at_opt_real round_seconds, young, save_seconds;
    bool recompute, model_only;
};
enum { AT_TRAIN_ROWS = 28 };
extern const struct at_opt at_train_rows[AT_TRAIN_ROWS];
/* Words after the options are further text files. */
at_err at_train_take_words(struct at_train_args *a, const struct at_words *words, struct at_diag *diag);

enum at_train_link { AT_LINK_NONE, AT_LINK_INPROC, AT_LINK_TLS, AT_LINK_MPI };

enum { AT_TRAIN_FACTS = 8 };
struct at_train_setup {
    const struct at_train_args *args;
    const struct at_preset *preset;
    struct at_train_config config;
    struct at_outer_config outer;
    enum at_train_link link; /* NONE: one process */
    int replicas;
    struct at_plan plan; /* where split */
    const char **name;   /* [plan.ranks] what messages call a rank */
    struct at_place_name *name_text;
    bool recompute;
    struct at_plan_file file; /* --plan; its plan is moved to `plan` */
    int node;                 /* of the file's hosts: this machine; -1: all ranks run here */
    const char *meet;         /* several machines: where rank 0 listens */
    struct at_buf text;
    struct at_hash text_hash; /* SHA-256 of all of it */
    struct at_data data;
    struct at_ranks_fact fact[AT_TRAIN_FACTS];
};
/* AT_E_USAGE, AT_E_DATA ... with what to do. `setup` must not move afterwards. */
at_err at_train_setup_init(struct at_train_setup *s, const struct at_train_args *args, struct at_diag *diag);
void at_train_setup_release(struct at_train_setup *s); /* safe on a zeroed one */

/* --kernels is one name or a list: rank i takes entry i modulo their number. */
struct at_kernels_name {
    char s[24];
};
struct at_kernels_name at_train_kernels(const struct at_train_args *args, int rank);

/* Is --out new (or the folder that is resumed)? Nothing is changed otherwise. And do the options go together that are
 * about --out and --resume? */
at_err at_train_check_out(const struct at_train_args *args, struct at_diag *diag);
/* The model in --resume must be this run's. AT_E_DATA naming what differs. */
at_err at_train_check_resume(const struct at_train_setup *s, struct at_diag *diag);
/* Says that --resume names a checkpoint of another --outer: only some of these have a momentum beside it. */
at_err_t at_train_other_outer(const struct at_train_args *args, struct at_diag *diag);
/* Whether --out is due, so long after it was written, which took cost_s: writing takes a small part of the time, unless
 * --save-seconds says otherwise. */
bool at_train_save_due(const struct at_train_args *args, double since_s, double cost_s);
/* The rounds done so far with these settings; NULL-like (steps 0) before the first. Rounds of fixed length only. */
struct at_round at_train_round_before(const struct at_train_setup *s, uint32_t rounds);

#endif
