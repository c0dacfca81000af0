/* points.h: splitting an epoch's issuance by work, and the hash of all balances. Pure; integers only; Exact: yes. */
#ifndef ATOLL_LEDGER_POINTS_H
#define ATOLL_LEDGER_POINTS_H

#include "base/sign.h"

struct at_points_claim {
    uint64_t flops;              /* counted by the program from the shapes */
    const struct at_node_id *id; /* breaks ties */
    uint32_t tag;                /* the caller's, kept with the claim (claims are reordered) */
    uint64_t ret_points;         /* micro-points */
    at_u128 remainder;           /* scratch */
};

/* Gives each claim floor(issuance * flops / total), and the micro-points left over one each to the largest remainders,
 * ties by node id ascending. Their sum is `issuance`, or 0 when there is no work. Reorders `claims`. No allocation. */
void at_points_split(uint64_t issuance, struct at_points_claim *claims, size_t count);

#endif
