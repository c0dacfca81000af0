/* plan_search.h: which nodes form which replica: a search over compositions of chains (plan_chain.h). Pure and
 * repeatable: its random choices come from a counter, and it counts evaluations instead of seconds.
 *
 * It maximises the run's tokens a second under the rule of rounds. With T_r the step time of replica r, a round lasts
 *   W = max(steps_max * min T, steps_min * max T)
 * in which replica r does min(steps_max, W / T_r) steps; then everybody waits until the slowest has exchanged updates
 * with the R - 1 others, E seconds, of which tau steps of the next round hide a part:
 *   tokens/s = batch * seq_len * sum_r min(steps_max, W / T_r) / (W + max(0, E - tau * min T))
 * With steps_min = steps_max (every replica does the same number of steps) the most tokens a second from R replicas are
 * had by making the slowest one as fast as can be, which is the rule of the design; with rounds bounded by time a slow
 * replica only counts for less.
 *
 * Method. Nodes are put in one row in which neighbours are near: sites (groups within reach of tensor parallelism) one
 * after the other, the fastest nodes of each first. Starts: the row, and what is left of it without its slowest nodes,
 * cut into 1, 2, 3 .. replicas of like strength; with many nodes, chains gathered along the row whose stages all keep
 * a time bound, for several bounds. From the best (with few nodes: from each for a while), threshold accepting (Dueck
 * & Scheuer 1990) moves nodes and stages between replicas, joins stages to tensor ranks and parts them, merges, splits,
 * regroups, mends the slowest. Then leftover nodes are offered to the replicas, and single layers are moved between
 * stages as long as it helps. */
#ifndef ATOLL_PARALLEL_PLAN_SEARCH_H
#define ATOLL_PARALLEL_PLAN_SEARCH_H

#include "parallel/plan_chain.h"

struct at_search_result {
    int replicas;
    struct at_chain *chain;       /* [replicas] */
    struct at_chain_stage *stage; /* all chains' */
    double tokens_per_s;
    int shortage; /* layers without room in all; 0 when the plan is possible */
    uint64_t evaluations;
};
struct at_search_value {
    double tokens_per_s, round_s, exchange_s; /* exchange_s: what is not hidden */
};
/* The objective for R chains. */
struct at_search_value at_search_value_of(const struct at_cost *cost, const struct at_chain *chain, int replicas);

/* replicas: exactly so many, or 0: as many as are best, up to `most`. Memory is counted for w->cost.replicas. effort: 1 for the usual number of proposals. AT_E_NOMEM.
 * The result is owned by the caller: at_search_release. */
at_err at_search_run(const struct at_chain_world *w, int replicas, int most, double effort, struct at_diag *diag,
                     struct at_search_result *ret_result);
void at_search_release(struct at_search_result *r);

#endif
