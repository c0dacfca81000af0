#include "ledger/groups.h"

#include <string.h>

static bool all_in(const struct at_grouped *g, uint32_t lead, const struct at_replicas *in)
{
    for (uint32_t r = lead; r != AT_GROUP_END; r = g[r].next)
        if (!at_replicas_has(in, r)) return false;
    return true;
}

static void dissolve(struct at_grouped *g, uint32_t lead)
{
    for (uint32_t r = lead, next; r != AT_GROUP_END; r = next) {
        next = g[r].next;
        memset(&g[r], 0, sizeof g[r]);
    }
}

static void set_size(struct at_grouped *g, uint32_t lead, uint32_t size)
{
    for (uint32_t r = lead; r != AT_GROUP_END; r = g[r].next) g[r].size = size;
}

void at_groups_form(struct at_grouped *g, uint32_t members, const struct at_replicas *in, uint32_t stages)
{
    uint32_t lead = 0, last = 0, n = 0;
    for (uint32_t r = 0; r < members; r++)
        if (g[r].size > 0 && g[r].place == 0 && (g[r].size != stages || !all_in(g, r, in))) dissolve(g, r);
    for (uint32_t r = 0; r < members; r++) {
        if (!at_replicas_has(in, r) || g[r].size > 0) continue;
        if (n == 0)
            lead = r;
        else
            g[last].next = r;
        g[r] = (struct at_grouped){.lead = lead, .next = AT_GROUP_END, .place = n++};
        last = r;
        if (n < stages) continue;
        set_size(g, lead, n);
        n = 0;
    }
    if (n > 0) set_size(g, lead, n);
}
