#include "ledger/part.h"

#include "ledger/ledger_inner.h"

#include <stdio.h>

struct at_part at_ledger_part(const struct at_ledger *l, uint32_t replica)
{
    const struct at_grouped *g = &l->groups[replica];
    const struct at_measured *m = &l->measured[replica];
    struct at_part p = {.role = AT_GROUP_ROLE_NONE};
    if (at_genesis_stages(&l->genesis) == 1) return p;
    p.role = (enum at_group_role)g->role;
    if (m->count) {
        p.mflops = at_measure_value(m->last.speed);
        p.mib = at_measure_value(m->last.memory);
        p.doubt = m->doubt;
        struct at_roles known = at_ledger_roles(l);
        p.line_kbit = at_roles_line_kbit(&known, replica);
        p.narrow = at_roles_is_narrow(&known, replica);
    }
    if (g->size == 0) return p;
    struct at_stage_cut cut = at_ledger_cut(l, replica, (UINT32_C(1) << g->size) - 1);
    p.lead = g->lead;
    p.stage = g->place;
    p.stages = g->size;
    for (uint32_t s = 0; s < g->place; s++) p.layer_first += cut.layers[s];
    p.layers = cut.layers[g->place];
    p.step_us = at_ledger_step_us(l, replica);
    return p;
}

const char *at_part_word(const struct at_part *p)
{
    switch (p->role) {
    case AT_GROUP_ROLE_TRAINS:
        return "trains";
    case AT_GROUP_ROLE_SPARE:
        return "spare";
    case AT_GROUP_ROLE_NO_MEMORY:
    case AT_GROUP_ROLE_TOO_SLOW:
        return "helps";
    case AT_GROUP_ROLE_NONE:
        break;
    }
    return "";
}

/* `words`, then "8 Mbit/s"; "" where that is not known. */
static void line(const struct at_part *p, const char *words, char *at, size_t room)
{
    double mbit = (double)p->line_kbit / 1000;
    at[0] = '\0';
    if (p->line_kbit == 0) return;
    if (mbit < 999.5)
        snprintf(at, room, "%s %.3g Mbit/s", words, mbit);
    else
        snprintf(at, room, "%s %.3g Gbit/s", words, mbit / 1000);
}

/* Its speed as it says; "claimed": its units take longer, and less is counted on. */
static void measured(const struct at_part *p, char *at, size_t room)
{
    char says[40];
    line(p, ", line", says, sizeof says);
    if (p->mflops == 0)
        snprintf(at, room, "not measured yet");
    else
        snprintf(at, room, "%.3g GFLOP/s%s, %.3g GiB%s", (double)p->mflops / 1000, p->doubt ? " claimed" : "",
                 (double)p->mib / 1024, says);
}

void at_part_text(const struct at_part *p, char ret_text[AT_PART_TEXT])
{
    char says[90], narrow[40];
    measured(p, says, sizeof says);
    line(p, "its line of", narrow, sizeof narrow);
    ret_text[0] = '\0';
    switch (p->role) {
    case AT_GROUP_ROLE_TRAINS:
        if (p->stages > 1)
            snprintf(ret_text, AT_PART_TEXT, "stage %u of %u, layers %u-%u: %s", p->stage + 1, p->stages,
                     p->layer_first + 1, p->layer_first + p->layers, says);
        else
            snprintf(ret_text, AT_PART_TEXT, "the whole model, alone%s: %s",
                     p->narrow ? " (its line is too slow to share)" : "", says);
        break;
    case AT_GROUP_ROLE_SPARE:
        if (p->narrow)
            snprintf(ret_text, AT_PART_TEXT, "%s is too slow to share a unit; passes on the model", narrow);
        else
            snprintf(ret_text, AT_PART_TEXT, "replaces a member that goes; passes on the model");
        break;
    case AT_GROUP_ROLE_NO_MEMORY:
        snprintf(ret_text, AT_PART_TEXT, "no memory for a stage (%.3g GiB); passes on the model",
                 (double)p->mib / 1024);
        break;
    case AT_GROUP_ROLE_TOO_SLOW:
        snprintf(ret_text, AT_PART_TEXT, "rounds would wait for %s; passes on the model", p->narrow ? narrow : "it");
        break;
    case AT_GROUP_ROLE_NONE:
        break;
    }
}
