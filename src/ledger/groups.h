/* groups.h: which members compute a unit together, a pipeline stage each. Pure; Exact: yes: everybody who knows the log
 * knows the groups, so OPEN need not name them. Who is put with whom: here in the order of replicas, where nothing is
 * known of the members; roles.h by what they have measured.
 *
 * At each OPEN: a group of full size whose members all take part again stays as it is; whoever else takes part is put into
 * new groups in the order of replicas, the last of which may be smaller. So only members of broken and of small groups
 * move. A member's place is the order in which its group was formed; in what is written of a group (RECEIPT) bit i is
 * place i.
 *
 * Whoever of a group is left computes the whole unit: any cut of a model gives the same bits. A receipt names by `group`
 * who has computed it together, and is for the author's stage among so many. The parts of a unit are complete when each
 * of those whom a receipt names has written one that names the same; the first time counts.
 *
 * Layers of a stage follow from the speeds and the memory that the members of the set had when their group was formed. */
#ifndef ATOLL_LEDGER_GROUPS_H
#define ATOLL_LEDGER_GROUPS_H

#include "model/stages.h"
#include "wire/record.h"

#define AT_GROUP_END UINT32_MAX

enum at_group_role {                       /* of a member in a round */
                     AT_GROUP_ROLE_NONE,   /* OPEN does not name it */
                     AT_GROUP_ROLE_TRAINS, /* it has a stage */
                     /* It has not, in this round. It keeps the state, and serves and passes on what others ask for: */
                     AT_GROUP_ROLE_SPARE,     /* left over; takes the place of one that is gone */
                     AT_GROUP_ROLE_NO_MEMORY, /* has not room for the smallest stage */
                     AT_GROUP_ROLE_TOO_SLOW,  /* the round would wait for it */
};

struct at_grouped {       /* a replica's; all zero: it takes no part */
    uint32_t lead;        /* the group's first member, which names the unit */
    uint32_t next;        /* the one in the next place; AT_GROUP_END */
    uint32_t place, size; /* size 0: it is in no group */
    uint32_t speed;       /* where it is in one: not 0; only speeds of one group compare */
    uint32_t memory_mib;  /* 0: not known, so it has room for anything */
    uint8_t role;         /* enum at_group_role */
    bool planned;         /* it was formed by roles.h */
};

static inline void at_group_one(struct at_grouped *g, uint32_t r, uint32_t speed)
{
    g[r] =
        (struct at_grouped){.lead = r, .next = AT_GROUP_END, .size = 1, .speed = speed, .role = AT_GROUP_ROLE_TRAINS};
}

/* The groups of a round from those before. g: [members]; in: who takes part, all below `members`. */
void at_groups_form(struct at_grouped *g, uint32_t members, const struct at_replicas *in, uint32_t stages);
/* Nobody of it is in a group, or takes part, any more. */
void at_group_dissolve(struct at_grouped *g, uint32_t lead);
/* All its members take part. */
bool at_group_all_in(const struct at_grouped *g, uint32_t lead, const struct at_replicas *in);

/* The stage of the member in `place` of those in `group`, which it is one of; how many stages there are. */
static inline int at_group_stages(uint32_t group)
{
    return __builtin_popcount(group);
}
static inline int at_group_stage(uint32_t group, uint32_t place)
{
    return __builtin_popcount(group & ((UINT32_C(1) << place) - 1));
}

/* How the model is cut for those in `group`, not 0, of the group that `lead` leads: by their speeds, within their memory.
 * Where that is too little all the same, as may be once others are gone, by their speeds. False then. */
bool at_group_cut(const struct at_grouped *g, uint32_t lead, uint32_t group, const struct at_model_config *c,
                  uint32_t batch, struct at_stage_cut *ret_cut);

#endif
