/* roles_inner.h: what a step takes (roles_step.c), for who forms groups by it (roles.c). */
#ifndef ATOLL_LEDGER_ROLES_INNER_H
#define ATOLL_LEDGER_ROLES_INNER_H

#include "ledger/roles.h"

enum { AT_CHAIN_NEAR = 4 }; /* of a group that grows, so many last ones are looked at for ways to others */

struct at_chain { /* a group that is being formed */
    uint32_t r[AT_STAGES_MAX], line_kbit[AT_STAGES_MAX];
    int n;
};

struct at_way { /* between two neighbours of a chain */
    uint64_t us;
    uint32_t kbit; /* 0: not known */
};

/* Never 0. */
uint32_t at_roles_believed(const struct at_measured *m);
/* From place `last` of a chain to a member whose line is to_kbit. */
struct at_way at_chain_way(const struct at_roles *x, const struct at_chain *c, int last, uint32_t to, uint32_t to_kbit);
uint64_t at_chain_work_us(const struct at_roles *x, uint64_t flops_per_token, uint32_t speed);
/* Of one link between n stages with m microbatches. */
uint64_t at_chain_links_us(const struct at_roles *x, struct at_way way, uint64_t m, uint64_t n);
/* Of all of it; never 0. */
uint64_t at_chain_step_us(const struct at_roles *x, const struct at_chain *c, const uint32_t *speed,
                          const struct at_stage_cut *cut);

#endif
