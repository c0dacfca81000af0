/* groups.h: which members compute a unit together, a pipeline stage each. Pure; Exact: yes: everybody who knows the log
 * knows the groups, so OPEN need not name them.
 *
 * At each OPEN: a group of full size whose members all take part again stays as it is; whoever else takes part is put into
 * new groups in the order of replicas, the last of which may be smaller. So only members of broken and of small groups
 * move. A member's place is the order in which its group was formed; in what is written of a group (RECEIPT) bit i is
 * place i.
 *
 * Whoever of a group is left computes the whole unit: any cut of a model gives the same bits. A receipt names by `group`
 * who has computed it together, and is for the author's stage among so many. The parts of a unit are complete when each
 * of those whom a receipt names has written one that names the same; the first time counts. */
#ifndef ATOLL_LEDGER_GROUPS_H
#define ATOLL_LEDGER_GROUPS_H

#include "model/stages.h"
#include "wire/record.h"

#define AT_GROUP_END UINT32_MAX

struct at_grouped { /* a replica's; all zero: it is in no group */
    uint32_t lead;  /* the group's first member, which names the unit */
    uint32_t next;  /* the one in the next place; AT_GROUP_END */
    uint32_t place, size;
};

/* The groups of a round from those before. g: [members]; in: who takes part, all below `members`. */
void at_groups_form(struct at_grouped *g, uint32_t members, const struct at_replicas *in, uint32_t stages);

/* The stage of the member in `place` of those in `group`, which it is one of; how many stages there are. */
static inline int at_group_stages(uint32_t group)
{
    return __builtin_popcount(group);
}
static inline int at_group_stage(uint32_t group, uint32_t place)
{
    return __builtin_popcount(group & ((UINT32_C(1) << place) - 1));
}

#endif
