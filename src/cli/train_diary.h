/* train_diary.h: where a run of `atoll train` stands, round by round: which round comes next, who takes which samples,
 * and the journal of it all (train/journal.h), kept beside the checkpoint so that --resume goes on with exactly the
 * samples that are still to be used. Of rank 0, or of the one process. */
#ifndef ATOLL_CLI_TRAIN_DIARY_H
#define ATOLL_CLI_TRAIN_DIARY_H

#include "cli/train_setup.h"
#include "train/auto.h"
#include "train/journal.h"

#define AT_TRAIN_JOURNAL "journal.jsonl"

struct at_train_diary {
    const struct at_train_setup *setup;
    struct at_journal_head head;
    struct at_samples samples;
    struct at_round last;             /* the last one begun; steps: what was done, once that is known; 0: none */
    uint64_t tokens;                  /* of all rounds before this process */
    struct at_buf text;               /* the journal */
    bool incomplete;                  /* gone on from a folder without a journal: none is kept */
    struct at_journal_entry entry[2]; /* of the rounds under way, by round % 2; units owned */
    size_t last_line;                 /* where the journal's last line begins */
    struct at_journal_entry *last_entry;
    json_t *rounds; /* those of this process that are in the state, see at_train_rounds_note; owned */
    struct at_auto_run run;
    struct at_auto_measured measured; /* at first: no limit, as in one process; kept by the caller */
};

/* rounds, root: of the state that --resume gave; 0: none. AT_E_DATA when the journal there is another run's. */
at_err at_diary_begin(struct at_train_diary *d, const struct at_train_setup *setup, uint32_t rounds,
                      struct at_hash root, struct at_diag *diag);
void at_diary_release(struct at_train_diary *d);

struct at_round at_diary_next(const struct at_train_diary *d); /* steps 0: the run is over */
/* The round begins: each replica's first sample, ret_start[replicas]. */
at_err at_diary_take(struct at_train_diary *d, const struct at_round *round, struct at_diag *diag, uint64_t *ret_start);
/* The round (the last begun, or the one before) is in the state: what each replica consumed. */
at_err at_diary_done(struct at_train_diary *d, uint32_t round, const struct at_update_info *const *consumed,
                     uint64_t tokens, struct at_diag *diag);
/* The journal into `dir`, before the checkpoint whose root it names is put there. */
at_err at_diary_save(struct at_train_diary *d, const char *dir, struct at_hash root, struct at_diag *diag);

#endif
