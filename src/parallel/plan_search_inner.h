/* plan_search_inner.h: the parts of plan_search: plan_state.c (states and their value), plan_moves.c (what a proposal
 * does to chains), plan_start.c (where to begin), plan_search.c (the search itself). Not for others. */
#ifndef ATOLL_PARALLEL_PLAN_SEARCH_INNER_H
#define ATOLL_PARALLEL_PLAN_SEARCH_INNER_H

#include "parallel/plan_row.h"
#include "parallel/plan_search.h"

enum {
    SEARCH_REPLICAS_MAX = 1024,
    SEARCH_FEW = 16,     /* up to so many nodes every start is followed a little way */
    SEARCH_FOLLOW = 600, /* so many proposals */
    SEARCH_REGROUP = 12, /* nodes that one proposal shuffles */
    SEARCH_FLIGHTS = 6,  /* in flight: 1, 2, 4, .. 32 */
};

/* Of a chain, what the objective needs; side by side, because every proposal reads those of all replicas. */
struct search_value {
    double step_s, per_s, exchange_s, rtt_s; /* per_s = 1 / step_s */
};

struct search_state {
    int replicas, shortage;
    struct at_chain *chain; /* [room] */
    struct at_chain_stage *stage;
    int *where;                 /* [nodes] replica or -1 */
    struct search_value *value; /* [room] of each chain */
    double tokens_per_s;
};

struct search {
    const struct at_chain_world *w;
    int nodes, wanted, room, stages_max;        /* room: replicas that a state can hold */
    int *group, *order, *member, *member_first; /* nodes by group: member[member_first[g]] .. */
    int *speed, *row;                           /* nodes, fastest first; those of `order` that a start uses */
    int row_count, groups, expect;              /* expect: stages that a chain will have */
    double *room_of; /* [nodes][SEARCH_FLIGHTS] layers that a node holds, or its share as a tensor rank */
    struct search_state now, best;
    struct at_chain a, b;                         /* what a proposal makes of replicas ia and ib */
    int ia, ib;                                   /* -1: none; now.replicas: new */
    uint64_t random, evaluations, work, work_end; /* work_end: of the starts */
};

/* plan_state.c */
uint32_t at_search_draw(struct search *s, int below);
struct search_value at_search_chain_value(const struct at_chain *c);
bool at_search_state_alloc(struct search_state *t, int nodes, int room, int stages_max);
void at_search_state_release(struct search_state *t);
void at_search_copy(const struct search *s, struct search_state *to, const struct search_state *from);
void at_search_mark(struct search_state *t, const struct at_chain *c, int replica);
/* Cuts the proposal's chains and values it; false: there may not be so many replicas. */
bool at_search_evaluate(struct search *s, double *ret_value, int *ret_shortage);
/* Makes the proposal the state, and the state the best one when it is. */
void at_search_accept(struct search *s, double value, int shortage);
/* Values the state as it is; keeps it when it is the best so far. */
void at_search_weigh(struct search *s);
void at_search_count(struct search *s, const struct at_chain *c);

/* plan_moves.c */
bool at_chain_insert(struct at_chain *c, int at, const struct at_chain_stage *t);
struct at_chain_stage at_chain_single(int node);
/* Stage q's ranks join those of stage p; false: too wide or too far. */
bool at_search_join(const struct search *s, struct at_chain *c, int p, int q);
void at_search_load(struct search *s, struct at_chain *c, int replica); /* empty when there is none */
int at_search_draw_node(struct search *s, int node);                    /* near `node` for half of the draws */
bool at_search_propose(struct search *s);

/* plan_start.c */
void at_search_start(struct search *s, double effort);

/* plan_search.c */
void at_search_anneal(struct search *s, long proposals, uint64_t work, double tolerance);

#endif
