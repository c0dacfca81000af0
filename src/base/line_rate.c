#include "base/line_rate.h"

void at_line_rate_take(struct at_line_rate *r, uint64_t bytes, uint64_t us)
{
    if (bytes < AT_LINE_BYTES) return;
    uint64_t kbit = bytes > UINT64_MAX / 8000 ? UINT64_MAX : bytes * 8000 / (us ? us : 1);
    if (r->samples == AT_LINE_SAMPLES) {
        r->before_kbit = r->best_kbit;
        r->best_kbit = r->samples = 0;
    }
    r->samples++;
    if (kbit < 1) kbit = 1; /* 0 would say that nothing is known */
    if (kbit > UINT32_MAX) kbit = UINT32_MAX;
    if (kbit > r->best_kbit) r->best_kbit = (uint32_t)kbit;
}

uint32_t at_line_rate_kbit(const struct at_line_rate *r)
{
    return r->best_kbit > r->before_kbit ? r->best_kbit : r->before_kbit;
}
