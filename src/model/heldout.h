/* heldout.h: the held-out loss of a state, shared among those who train from it: each computes the mean loss of some
 * of the windows and tells it as a whole number, so that any order of adding gives the same. Pure. Exact: yes. */
#ifndef ATOLL_MODEL_HELDOUT_H
#define ATOLL_MODEL_HELDOUT_H

#include <stdint.h>

#define AT_HELDOUT_ONE ((uint32_t)1 << 24) /* one nat per token */

/* Of `step` units the first-th (from 0), each of which computes at most `most` windows: the units take turns along every
 * stride-th window, with the smallest stride that is enough. step or most 0: none. */
struct at_heldout_share {
    uint32_t first, step, most;
};

/* Of `windows` that there are. */
static inline uint64_t at_heldout_stride(struct at_heldout_share s, uint64_t windows)
{
    uint64_t all = (uint64_t)s.step * s.most;
    return all > 0 ? (windows + all - 1) / all : 0;
}

/* How many are the share's: first * stride, then each step * stride further. */
static inline uint64_t at_heldout_count(struct at_heldout_share s, uint64_t windows)
{
    uint64_t stride = at_heldout_stride(s, windows), from = s.first * stride, gap = s.step * stride;
    return gap > 0 && from < windows ? (windows - from + gap - 1) / gap : 0;
}

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
