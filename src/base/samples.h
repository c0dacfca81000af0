/* samples.h: exactly-once data: who trains on which part of the run's endless sample sequence. Pure; Exact: yes.
 *
 * A unit is `unit` consecutive samples. Free ranges (allotted once, not consumed) of at least a unit are given out
 * first, the lowest first; else fresh samples from the end of what was ever allotted. So without deaths participant i
 * of R in round t gets [(t*R + i) * unit, + unit). Remainders shorter than a unit wait until a neighbour makes them
 * long enough. Invariant: free ranges are disjoint, none touches another, all lie below `next`. */
#ifndef ATOLL_BASE_SAMPLES_H
#define ATOLL_BASE_SAMPLES_H

#include "base/bytes.h"

struct at_range {
    uint64_t start, samples;
};
struct at_range_list { /* ascending */
    struct at_range *r;
    size_t count, cap;
};
/* Room for `extra` more. AT_E_NOMEM. */
at_err at_range_reserve(struct at_range_list *list, size_t extra);
struct at_samples {
    uint64_t next;                    /* everything from here on is fresh */
    struct at_range_list whole, part; /* free ranges of at least, and of less than, a unit */
    uint64_t unit;
};
#define AT_SAMPLES_NEXT_MAX ((uint64_t)1 << 62)

void at_samples_init(struct at_samples *s, uint64_t unit);
void at_samples_release(struct at_samples *s);
/* Room for `count` more frees, so that at_samples_free cannot fail. AT_E_NOMEM. */
at_err at_samples_reserve(struct at_samples *s, size_t count);
at_err at_samples_copy(struct at_samples *to, const struct at_samples *from); /* AT_E_NOMEM, and then nothing changed */
/* Another size of unit from now on. AT_E_NOMEM, and then nothing has changed. */
at_err at_samples_resize(struct at_samples *s, uint64_t unit);
/* Whether `units` more can be given out. */
bool at_samples_can_take(const struct at_samples *s, uint64_t units);
/* The next unit's first sample. */
uint64_t at_samples_take(struct at_samples *s);
void at_samples_free(struct at_samples *s, struct at_range range);

#endif
