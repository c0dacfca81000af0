/* budget.h: a token bucket: so many bytes a second on average, and a burst of so many. Pure; time comes in.
 *
 * What is spent may be more than what is left (its size is known only afterwards): then nothing more may be spent until
 * the debt is paid. */
#ifndef ATOLL_SWARM_BUDGET_H
#define ATOLL_SWARM_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

struct at_budget {
    uint64_t bytes_per_s; /* 0: no limit */
    uint64_t burst_bytes;
    int64_t left;
    uint64_t at_ms; /* what was earned until here is in `left` */
};

static inline void at_budget_init(struct at_budget *b, uint64_t bytes_per_s, uint64_t burst_bytes, uint64_t now_ms)
{
    *b = (struct at_budget){bytes_per_s, burst_bytes, (int64_t)burst_bytes, now_ms};
}

/* Time that earns less than a byte is kept for later: a slow budget that is asked often still fills. */
static inline void at_budget_earn(struct at_budget *b, uint64_t now_ms)
{
    if (b->bytes_per_s == 0 || now_ms <= b->at_ms) return;
    uint64_t full_ms = (uint64_t)((int64_t)b->burst_bytes - b->left) * 1000 / b->bytes_per_s + 1;
    if (now_ms - b->at_ms >= full_ms) {
        b->left = (int64_t)b->burst_bytes;
        b->at_ms = now_ms;
        return;
    }
    uint64_t earned = (now_ms - b->at_ms) * b->bytes_per_s / 1000;
    if (earned == 0) return;
    b->left += (int64_t)earned;
    b->at_ms += earned * 1000 / b->bytes_per_s;
}

static inline bool at_budget_has(struct at_budget *b, uint64_t now_ms)
{
    at_budget_earn(b, now_ms);
    return b->bytes_per_s == 0 || b->left > 0;
}

static inline void at_budget_spend(struct at_budget *b, uint64_t bytes)
{
    if (b->bytes_per_s) b->left -= (int64_t)bytes;
}

/* The first time, not before now_ms, when it has something. Earns nothing, so that asking changes no answer. */
static inline uint64_t at_budget_ready_ms(const struct at_budget *b, uint64_t now_ms)
{
    if (b->bytes_per_s == 0 || b->left > 0) return now_ms;
    uint64_t ready = b->at_ms + ((uint64_t)(1 - b->left) * 1000 + b->bytes_per_s - 1) / b->bytes_per_s;
    return ready > now_ms ? ready : now_ms;
}

#endif
