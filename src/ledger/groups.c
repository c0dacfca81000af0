#include "ledger/groups.h"

#include <string.h>

bool at_group_all_in(const struct at_grouped *g, uint32_t lead, const struct at_replicas *in)
{
    for (uint32_t r = lead; r != AT_GROUP_END; r = g[r].next)
        if (!at_replicas_has(in, r)) return false;
    return true;
}

void at_group_dissolve(struct at_grouped *g, uint32_t lead)
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
    for (uint32_t r = 0; r < members; r++) {
        if (g[r].size == 0) memset(&g[r], 0, sizeof g[r]); /* a spare's role */
        if (g[r].size > 0 && g[r].place == 0 && (g[r].size != stages || !at_group_all_in(g, r, in)))
            at_group_dissolve(g, r);
    }
    for (uint32_t r = 0; r < members; r++) {
        if (!at_replicas_has(in, r) || g[r].size > 0) continue;
        at_group_one(g, r, 1);
        if (n == 0)
            lead = r;
        else
            g[last].next = r;
        g[r].lead = lead;
        g[r].place = n++;
        last = r;
        if (n < stages) continue;
        set_size(g, lead, n);
        n = 0;
    }
    if (n > 0) set_size(g, lead, n);
}

/* Layers that a stage has room for. */
static uint32_t layers_in(const struct at_model_config *c, uint32_t batch, int stages, int stage, uint32_t memory_mib)
{
    uint32_t most = c->layers;
    while (most > 0 && memory_mib != 0 &&
           at_stage_bytes(c, batch, stages, most, stage == 0, stage == stages - 1) > (uint64_t)memory_mib << 20)
        most--;
    return most;
}

bool at_group_cut(const struct at_grouped *g, uint32_t lead, uint32_t group, const struct at_model_config *c,
                  uint32_t batch, struct at_stage_cut *ret_cut)
{
    uint32_t speed[AT_STAGES_MAX], most[AT_STAGES_MAX];
    int stages = at_group_stages(group), n = 0;
    for (uint32_t r = lead; r != AT_GROUP_END; r = g[r].next) {
        if ((group >> g[r].place & 1) == 0) continue;
        speed[n] = g[r].speed;
        most[n] = layers_in(c, batch, stages, n, g[r].memory_mib);
        n++;
    }
    AT_ASSERT(n == stages && n > 0);
    if (at_stage_cut_by(c, stages, speed, most, ret_cut)) return true;
    AT_ASSERT(at_stage_cut_by(c, stages, speed, NULL, ret_cut));
    return false;
}
