/* sim_internal.h: what sim.c, sim_faults.c and sim_liars.c share. */
#ifndef ATOLL_SIM_SIM_INTERNAL_H
#define ATOLL_SIM_SIM_INTERNAL_H

#include "sim/sim.h"

enum at_sim_phase { AT_SIM_FAULTS, AT_SIM_HEALED, AT_SIM_ENDING, AT_SIM_OVER };

struct at_sim {
    struct at_sim_options options;
    struct at_world *world;
    uint64_t draws, heal_ms, limit_ms;
    enum at_sim_phase phase;
    bool healed;
    uint32_t rounds_at_heal;
    uint64_t contributions_at_heal;
    int lying; /* stewards that do by now */
    /* of several stewards: what the run had at the hours' end */
    size_t records_at_end;
    uint32_t rounds_at_end;
    struct at_hash trace_hash; /* once over */
    char unfinished[256];
};

uint64_t at_sim_draw(struct at_sim *s, uint64_t below); /* seeded; 0 .. below - 1 */
uint64_t at_sim_between(struct at_sim *s, uint64_t from, uint64_t to);
double at_sim_unit(struct at_sim *s); /* [0, 1) */

/* sim_liars.c */
void at_sim_liars_start(struct at_sim *s);
void at_sim_liars_turn(struct at_sim *s); /* stewards begin to lie as the seats bear it */
/* May what happens to this node make it useless for good? */
bool at_sim_may_fail(const struct at_sim *s, int node);

/* sim_faults.c */
void at_sim_plan_faults(struct at_sim *s); /* all of them, from the seed, until heal_ms */
void at_sim_heal(struct at_sim *s);        /* ends them all and starts everybody again */

#endif
