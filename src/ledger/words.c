#include "ledger/words.h"

#include <string.h>

void at_words_clear(struct at_steward_words *w)
{
    w->said = 0;
    memset(w->count, 0, sizeof w->count);
}

bool at_words_left(const struct at_steward_words *w, uint32_t seat)
{
    return w->count[seat] < AT_WORDS_MAX;
}

static bool agree(const struct at_word *a, const struct at_word *b)
{
    return at_hash_eq(a->root, b->root) && memcmp(&a->number, &b->number, sizeof a->number) == 0;
}

bool at_words_has(const struct at_steward_words *w, uint32_t seat, const struct at_word *word)
{
    const struct at_word *old = &w->word[seat];
    return (w->said >> seat & 1) != 0 && agree(old, word) &&
           memcmp(&old->replicas, &word->replicas, sizeof word->replicas) == 0;
}

/* The replicas in at least `need` of the words of `seats`. Eight at a time: most sets are empty but for their beginning. */
static void settle_replicas(const struct at_steward_words *w, uint32_t seats, uint32_t need, struct at_replicas *ret)
{
    memset(ret, 0, sizeof *ret);
    for (uint32_t i = 0; i < sizeof ret->b; i++) {
        uint32_t count[8] = {0}, said = 0;
        for (uint32_t s = 0; seats >> s != 0; s++) {
            uint32_t bits = seats >> s & 1 ? w->word[s].replicas.b[i] : 0;
            said |= bits;
            for (uint32_t k = 0; bits; k++, bits >>= 1) count[k] += bits & 1;
        }
        for (uint32_t k = 0; said && k < 8; k++)
            if (count[k] >= need) ret->b[i] |= (uint8_t)(1u << k);
    }
}

bool at_words_say(struct at_steward_words *w, uint32_t seat, const struct at_word *word, uint32_t need,
                  uint32_t seat_count, struct at_word *ret_settled)
{
    uint32_t agreeing = 0, count = 0;
    w->word[seat] = *word;
    w->said |= UINT32_C(1) << seat;
    w->count[seat]++;
    for (uint32_t s = 0; s < seat_count; s++) {
        if ((w->said >> s & 1) == 0 || !agree(&w->word[s], word)) continue;
        agreeing |= UINT32_C(1) << s;
        count++;
    }
    if (count < need) return false;
    *ret_settled = *word;
    settle_replicas(w, agreeing, at_seats_faults(seat_count) + 1, &ret_settled->replicas);
    return true;
}
