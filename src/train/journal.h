/* journal.h: the diary of a run outside a swarm: what every round was (struct at_round), which samples each replica got and
 * consumed, and the root that came out; as JSON, one line a round. Pure. From it a run goes on after a crash with exactly
 * the samples that are still to be used, and anyone can check that every sample of an epoch is used once.
 *
 *   {"atoll_journal":2,"replicas":2,"batch":4,"seq_len":128,"epoch_samples":8943,"seed":11,"text":"<64 hex digits>"}
 *   {"round":0,"steps":20,"step_first":0,"codec":1,"k":0,"tau":0,"clip":0,"alpha":1,"momentum":0,"seconds":0,
 *    "units":[[0,80,80],[80,80,48]],"tokens":16384,"root":"<64 hex digits>"}            (one line)
 *
 * Exactly these keys in this order, without spaces. "text" is the SHA-256 of all that is learnt and held out; version 1 is
 * without it. A unit: first sample, samples allotted, samples consumed from the
 * front. "root" is null where it was not computed. Reals are the shortest %.9g (alpha, momentum: binary32) or %.17g.
 *
 * Reading is strict, for a journal is foreign bytes: rounds follow each other from 0, step_first counts the steps done,
 * units are those that base/samples.h allots, consumed prefixes are whole batches, at least one, and tokens are theirs. Then the fold: no
 * sample twice, and the epochs that are whole. A last line without its newline is what a crash leaves: it does not
 * count, and the writer goes on at its beginning (ret_tail.bytes). */
#ifndef ATOLL_TRAIN_JOURNAL_H
#define ATOLL_TRAIN_JOURNAL_H

#include "base/hash.h"
#include "base/samples.h"
#include "train/outer.h"

struct at_journal_head {
    uint32_t replicas, batch, seq_len;
    uint64_t epoch_samples; /* at_data.samples */
    uint64_t seed;
    bool has_text; /* version 2 */
    struct at_hash text;
};
struct at_journal_unit {
    uint64_t start;
    uint32_t samples, consumed;
};
struct at_journal_entry {
    struct at_round round;
    uint64_t tokens; /* of this round */
    bool has_root;
    struct at_hash root;
    struct at_journal_unit *unit; /* [replicas] */
};

/* Append a line. AT_E_NOMEM, AT_E_TOO_BIG. */
at_err at_journal_put_head(const struct at_journal_head *head, struct at_buf *out);
at_err at_journal_put(const struct at_journal_head *head, const struct at_journal_entry *entry, struct at_buf *out);

/* Where a journal stands after some of its rounds. */
struct at_journal_tail {
    struct at_journal_head head;
    uint32_t rounds;      /* read */
    size_t bytes;         /* up to here the text was used */
    struct at_round last; /* the last of them; steps as planned */
    uint32_t steps_done;  /* in it */
    bool has_root;
    struct at_hash root;       /* of the last of them */
    uint64_t tokens;           /* of all of them */
    struct at_samples samples; /* as after the last of them: owned, at_samples_release */
    uint64_t epochs_whole;     /* of which every sample has been used exactly once */
    uint64_t epoch_used;       /* samples of the first epoch that is not whole */
    uint64_t later_used;       /* samples of epochs after that */
};
/* Reads at most `rounds_max` rounds (those of which a checkpoint is at hand; UINT32_MAX: all). name: in diag->where, with
 * the line, as in "run/journal.jsonl:17". AT_E_DATA, AT_E_VERIFY (a sample used twice, or not as allotted), AT_E_NOMEM. */
at_err at_journal_read(struct at_span text, const char *name, uint32_t rounds_max, struct at_diag *diag,
                       struct at_journal_tail *ret_tail);

/* Steps for the next round: `steps`, unless units that ended early have left pieces shorter than a unit and fresh samples
 * would begin a new epoch: then as many as the longest piece has, so that the epoch becomes whole. */
uint32_t at_journal_steps(const struct at_samples *samples, const struct at_journal_head *head, uint32_t steps);

#endif
