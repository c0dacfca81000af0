/* plan_row.h: where the planner's search begins: nodes in a row in which neighbours are near, and chains made of runs of
 * that row. Pure. */
#ifndef ATOLL_PARALLEL_PLAN_ROW_H
#define ATOLL_PARALLEL_PLAN_ROW_H

#include "parallel/plan_chain.h"

/* Groups of nodes that lie pairwise within reach of tensor parallelism; group[i] is node i's. Returns how many. */
int at_row_sites(const struct at_plan_nodes *nodes, int *ret_group);

/* All nodes: groups one after the other, each followed by the nearest one that is left; within a group the fastest
 * first. */
at_err at_row_order(const struct at_chain_world *w, const int *group, int groups, struct at_diag *diag, int *ret_row);

/* All nodes, the fastest first, those of like speed as they are numbered. */
void at_row_by_speed(const struct at_plan_nodes *nodes, int *ret_row);

/* The best of a few chains of these nodes: for tp up to 1, 2, 4, 8, within each group runs of like speed become
 * stages. Those that have no room for a layer, and those after as many stages as layers, are left out. c: room for min(n, layers) stages. Counts the chains tried. Returns whether one
 * fits; otherwise c is the one with the least shortage. spare: room for a second chain. */
bool at_row_chain(const struct at_chain_world *w, const int *group, const int *node, int n, struct at_chain *c,
                  struct at_chain *spare, uint64_t *io_tried);

#endif
