/* roles_trust.c: what is known of members, from what they say (MEASURE) and what their units show: how far they are
 * believed, and who is suspected of stalling others. */
#include "ledger/roles.h"

void at_roles_take(struct at_measured *m, const struct at_measure *told, uint32_t round, uint64_t time_ms)
{
    if (m->count++ == 0) m->round = round;
    m->last = *told;
    m->time_ms = time_ms;
}

/* Its group's unit counts; it has a part in it, or was left behind. */
static void see_counted(struct at_measured *m, bool has_part)
{
    m->idle = 0;
    if (!has_part) return;
    m->apart = 0;
    m->stalled = 0;
    if (m->stalls > 0) m->stalls--;
}

void at_roles_seen(const struct at_roles *x, const struct at_grouped *g, uint32_t lead, uint32_t group, uint32_t steps,
                   uint64_t took_ms, struct at_measured *measured)
{
    uint64_t step_us = at_roles_step_us(x, g, lead, group), more = 0;
    at_u128 promised = (at_u128)step_us * steps, took = (at_u128)took_ms * 1000;
    for (uint32_t r = lead; r != AT_GROUP_END; r = g[r].next) see_counted(&measured[r], (group >> g[r].place & 1) != 0);
    if (step_us == 0 || took_ms == 0) return;
    bool wrong = took > promised * AT_ROLES_DOUBT;
    /* At once not more than three halvings: what a receipt says is one member's word, and a busy machine's time. */
    for (; wrong && took > promised * 2 && more < 3; more++) promised *= 2;
    for (uint32_t r = lead; r != AT_GROUP_END; r = g[r].next) {
        struct at_measured *m = &measured[r];
        if ((group >> g[r].place & 1) == 0) { /* left behind by the others */
            if (m->count > 0 && m->doubt < 40) m->doubt++;
            continue;
        }
        if (wrong)
            m->doubt = (uint8_t)(m->doubt + more > 40 ? 40 : m->doubt + more);
        else if (m->doubt > 0 && took <= promised * 2)
            m->doubt--;
    }
}

void at_roles_idle(const struct at_grouped *g, uint32_t lead, uint32_t round, struct at_measured *measured)
{
    bool stalled = g[lead].size > 1;
    for (uint32_t r = lead; r != AT_GROUP_END; r = g[r].next) {
        struct at_measured *m = &measured[r];
        m->idle = (uint8_t)(g[lead].size == 1 ? 0 : m->idle < AT_ROLES_IDLE ? m->idle + 1 : AT_ROLES_IDLE);
        stalled = stalled && m->idle >= AT_ROLES_IDLE;
    }
    for (uint32_t r = lead; r != AT_GROUP_END && stalled; r = g[r].next) {
        struct at_measured *m = &measured[r];
        m->idle = 0;
        if (m->stalls < AT_ROLES_STALLS) m->stalls++;
        m->apart = (uint16_t)(AT_ROLES_APART << (m->stalls - 1));
        m->stalled = round * AT_MEMBERS_MAX + lead + 1; /* no other group has this one, and fewer than 2^20 rounds */
        m->together = (uint8_t)g[lead].size;
    }
}

void at_roles_rest(const struct at_grouped *g, uint32_t members, struct at_measured *measured)
{
    for (uint32_t r = 0; r < members; r++) {
        struct at_measured *m = &measured[r];
        bool here = g[r].role != AT_GROUP_ROLE_NONE;
        if (here && m->apart > 0 && --m->apart == 0) m->stalled = 0;
        if (g[r].role == AT_GROUP_ROLE_TRAINS) continue;
        m->idle = 0;
        if (here && m->doubt > 0) m->doubt--;
    }
}
