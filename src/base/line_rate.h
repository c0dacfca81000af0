/* line_rate.h: how much a line carries at least, from what came over it. Pure; Exact: yes.
 *
 * A sample is a frame that came while nothing else could: once its first bytes are here, all the others are on their way,
 * for a frame is given to the link whole. So its rest never waits for a sender with nothing to say, and what came of it in
 * the time that it took is what the line carried then. It may carry more: the way may have been shared with other transfers,
 * at either end, or slowed down by a limit of a sender's own. So the figure is the best of the last samples, between
 * AT_LINE_SAMPLES and twice as many: it falls when a line has become slower, and not because nothing was sent. Frames below
 * AT_LINE_BYTES tell nothing: they fit in buffers on their way.
 *
 * In integers: kbit/s = 8 * bytes / ms. A time of 0 counts as a microsecond. */
#ifndef ATOLL_BASE_LINE_RATE_H
#define ATOLL_BASE_LINE_RATE_H

#include <stdint.h>

#define AT_LINE_BYTES   (UINT64_C(64) << 10)
#define AT_LINE_SAMPLES 64

struct at_line_rate {                /* all zero: nothing came yet */
    uint32_t best_kbit, before_kbit; /* of this stretch of samples, of the one before */
    uint32_t samples;                /* of this one */
};

/* So many bytes came in so long. */
void at_line_rate_take(struct at_line_rate *r, uint64_t bytes, uint64_t us);
/* At least. 0: not known. */
uint32_t at_line_rate_kbit(const struct at_line_rate *r);

#endif
