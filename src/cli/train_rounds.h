/* train_rounds.h: how the rounds of a run are shown, to people and to scripts, where they are not all alike: short ones at
 * first, or what `--outer auto` chose. */
#ifndef ATOLL_CLI_TRAIN_ROUNDS_H
#define ATOLL_CLI_TRAIN_ROUNDS_H

#include "cli/train_setup.h"

/* Whether the held-out text is looked at after this round: once in config.steps inner steps, for a look costs as much as
 * several of them. The same on every rank. After a run's last round it is looked at anyway. */
bool at_train_looks(const struct at_train_setup *s, const struct at_round *round);

struct at_round_text {
    char s[96];
};
/* "3/50" where all rounds have config.steps, else "812, step 1624/9000" (which it ends with). */
struct at_round_text at_train_round_place(const struct at_train_setup *s, const struct at_round *round);
/* auto: ", int4, 2 steps" or ", sparse, k 64, 30 steps"; else nothing. */
struct at_round_text at_train_round_choice(const struct at_train_setup *s, const struct at_round *round);

/* For --json: [{"codec", "k", "steps", "rounds"}, ...], neighbours that are alike counted together. */
void at_train_rounds_note(json_t *io_rounds, const struct at_round *round);

#endif
