/* train_show.h: what people see of `atoll train` while it runs, in one process and split (there rank 0 shows it): a live
 * line on a terminal, after every inner step; elsewhere a line for each round, and in a long one a line now and then.
 * And what an interrupt means. Thread rule: one thread; only at_train_last_words is for a signal handler. */
#ifndef ATOLL_CLI_TRAIN_SHOW_H
#define ATOLL_CLI_TRAIN_SHOW_H

#include "cli/progress.h"
#include "cli/train_setup.h"

struct at_train_show {
    const struct at_train_setup *setup;
    struct at_screen *screen; /* NULL: nothing is shown */
    uint64_t tokens_before;   /* of the rounds before this process */
    uint64_t tokens;          /* of those that it has done; kept by the caller, as are the two that follow */
    double train_seconds;     /* spent on them */
    double loss;              /* held-out, the last one known */
    bool saved;               /* the folder of --out holds a checkpoint of this run */
    struct at_round round;    /* under way, since start_s */
    double start_s, said_s;
    bool finishing; /* the first interrupt was answered */
};

double at_train_clock(void); /* seconds, never steps back */

void at_train_show_begin(struct at_train_show *s, const struct at_train_setup *setup, struct at_screen *screen);
/* A round begins; what is done until then is in s->tokens. */
void at_train_show_start(struct at_train_show *s, const struct at_round *round);
/* After an inner step. units: of the replicas, those done before this one: one process does them one after the other.
 * who: "replica 2/4", "8 ranks". */
void at_train_show_step(struct at_train_show *s, const char *who, int units, const struct at_unit_progress *p,
                        bool side_by_side);
/* Once a round is in the state and in s->tokens: a line that stays. */
void at_train_show_round(struct at_train_show *s, const struct at_round *round, double loss_mean);

/* The whole run: what an interrupted one leaves, and how to go on. rounds: in the state. */
at_err at_train_tell_interrupted(const struct at_train_args *args, uint32_t rounds, struct at_diag *diag);
/* After a rank was lost (AT_E_PEER): the same, where --out has a whole checkpoint. Other errors stay as they are. */
void at_train_tell_going_on(const struct at_train_args *args, struct at_diag *diag);
/* To be said in a signal handler by the second interrupt. json: the object on stdout, too. */
void at_train_last_words(bool json);

#endif
