/* plan_explain.h: the planner's sentences for people. Pure. */
#ifndef ATOLL_PARALLEL_PLAN_EXPLAIN_H
#define ATOLL_PARALLEL_PLAN_EXPLAIN_H

#include "parallel/planner.h"

/* A number of bytes as people read it: "61 GB", "1.5 GB", "880 MB". */
struct at_plan_size {
    char s[24];
};
struct at_plan_size at_plan_size_of(double bytes);

/* What the explanations need to know. Borrowed. */
struct at_explain {
    const struct at_planner_options *options;
    const struct at_chain_world *world;
    struct at_chain *chain; /* [replicas] */
    int replicas;
    const struct at_plan *plan;
    struct at_planner_report *report; /* numbers are filled in */
};
/* Decides what each replica's step mostly waits for. AT_E_NOMEM. */
at_err at_explain_limits(struct at_explain *x, struct at_diag *diag);
/* Fills report->why (room for AT_EXPLAIN_LINES) and report->spare_why (room for report->spares). AT_E_NOMEM. */
#define AT_EXPLAIN_LINES 16
at_err at_explain_all(struct at_explain *x, struct at_diag *diag);

/* Why the model does not fit: AT_E_USAGE with the text in diag; shortage: layers without room in the best try. */
at_err_t at_explain_infeasible(const struct at_planner_options *options, const struct at_chain_world *world,
                               int shortage, struct at_diag *diag);

#endif
