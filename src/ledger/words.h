/* words.h: how 3f+1 stewards settle one step of a round in the log: each says what it sees, and the step is taken when
 * enough words agree. Pure; no allocation; Exact: yes.
 *
 * A word is a root, a number and a set of replicas. Words agree when root and number are equal, bit for bit; what they
 * settle has that root and number, and the replicas that at least f+1 of the agreeing words name: so each of them is
 * vouched for by an honest steward, and f liars can neither bring one in nor, where 2f+1 words are needed, keep one out
 * that f+1 honest stewards of these name. A later word of a steward takes the place of its earlier one.
 * With one steward a word is settled as soon as it is said.
 *
 * A seat has AT_WORDS_MAX words in a phase, so that nobody fills the log with changes of mind; that old ones cannot be
 * said again by somebody who has read them is the ledger's rule. */
#ifndef ATOLL_LEDGER_WORDS_H
#define ATOLL_LEDGER_WORDS_H

#include "wire/record.h"
#include "wire/vote.h"

#define AT_WORDS_MAX 8

struct at_word {
    struct at_hash root;
    double number; /* not NaN */
    struct at_replicas replicas;
};
struct at_steward_words {
    uint32_t said; /* bit i: seat i */
    uint8_t count[AT_SEATS_MAX];
    struct at_word word[AT_SEATS_MAX];
};

static inline uint32_t at_seats_faults(uint32_t seat_count) /* f of 3f+1 */
{
    return (seat_count - 1) / 3;
}

void at_words_clear(struct at_steward_words *w);
/* Has it words left? */
bool at_words_left(const struct at_steward_words *w, uint32_t seat);
/* Has this seat said just this already? */
bool at_words_has(const struct at_steward_words *w, uint32_t seat, const struct at_word *word);
/* Takes the word. True: `need` words agree with it, and *ret_settled is what they settle. */
bool at_words_say(struct at_steward_words *w, uint32_t seat, const struct at_word *word, uint32_t need,
                  uint32_t seat_count, struct at_word *ret_settled);

#endif
