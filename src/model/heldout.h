/* heldout.h: the held-out loss of a state, shared among those who train from it: each computes the mean loss of every n-th
 * window and tells it as a whole number, so that any order of adding gives the same. Pure. Exact: yes. */
#ifndef ATOLL_MODEL_HELDOUT_H
#define ATOLL_MODEL_HELDOUT_H

#include <stdint.h>

#define AT_HELDOUT_ONE ((uint32_t)1 << 24) /* one nat per token */

/* Windows first, first + step, first + 2 step, ... of those that there are. step 0: none. */
struct at_heldout_share {
    uint32_t first, step;
};

/* The mean of the losses whose sum is `sum`, cut to 2^-24 nat; at most 256 nats, which is also what no number is taken for.
 * 0: of no tokens. */
static inline uint32_t at_heldout_code(double sum, uint64_t tokens)
{
    if (tokens == 0) return 0;
    double mean = sum / (double)tokens * AT_HELDOUT_ONE;
    if (!(mean < UINT32_MAX)) return UINT32_MAX;
    return mean < 1 ? 1 : (uint32_t)mean;
}

/* The loss of the state, from the codes of `shares` shares of it, their sum: they are of about the same number of windows. */
static inline double at_heldout_join(uint64_t sum, uint32_t shares)
{
    return (double)sum / ((double)shares * AT_HELDOUT_ONE);
}

#endif
