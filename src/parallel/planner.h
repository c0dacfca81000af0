/* planner.h: from measured machines and links to a plan: who computes what, what that takes, and why. Pure: the same
 * answer on every machine. What things cost is in plan_cost.h and plan_chain.h, the objective and the method in
 * plan_search.h.
 *
 * Tensor ranks of a stage lie within 1 ms of each other (RTT, both ways). A node runs at most one rank. A node that no
 * replica gains from is a spare: it is named, with the reason. */
#ifndef ATOLL_PARALLEL_PLANNER_H
#define ATOLL_PARALLEL_PLANNER_H

#include "parallel/plan.h"
#include "parallel/plan_chain.h"

struct at_planner_options {
    const char *name;                    /* of the model, for texts */
    const struct at_model_config *model; /* borrowed, both have passed their checks */
    const struct at_train_config *train;
    int replicas;     /* 0: as many as are best */
    int microbatches; /* 0: as many as are best */
    struct at_cost_exchange exchange;
    int recompute; /* 0: keep activations, 1: recompute them in backward, -1: whichever is better */
    double effort; /* of the search; 1: usual */
};
/* No replica count, no microbatch count, plain mean, all replicas do train->steps steps, recompute -1, effort 1. */
void at_planner_options_default(struct at_planner_options *o, const char *name, const struct at_model_config *model,
                                const struct at_train_config *train);

/* The microbatch counts that are tried when none is asked for: ascending, 1 to the batch (at most 64), about `factor`
 * apart. */
#define AT_PLANNER_COUNTS 8
int at_planner_counts(uint32_t batch, int factor, int ret_count[AT_PLANNER_COUNTS]);

struct at_planner_rank {
    double bytes;        /* that the rank will take */
    double busy;         /* share of an inner step in which it computes */
    double link_s;       /* of one microbatch: all-reduces inside the stage, both directions */
    double microbatch_s; /* forward and backward of one microbatch, all-reduces included */
};
enum at_planner_limit { AT_LIMIT_COMPUTE, AT_LIMIT_TENSOR_LINK, AT_LIMIT_STAGE_LINK, AT_LIMIT_BUBBLE };
struct at_planner_replica {
    double step_s, tokens_per_s, steps; /* inner steps a round; tokens/s without the wait for others */
    enum at_planner_limit limit;        /* what a step mostly waits for */
    int limit_rank;                     /* the rank, or the first rank before the link, that is the bottleneck */
};
struct at_planner_text {
    char s[240];
};
struct at_planner_report {
    bool recompute;                /* what was chosen */
    double tokens_per_s;           /* of the run, the exchange's wait counted */
    double round_s, exchange_s;    /* computing, then waiting for updates */
    double update_bytes;           /* of a whole update, as one replica publishes it */
    double need_bytes, have_bytes; /* of all ranks; of all nodes */
    struct at_planner_rank *rank;  /* [plan.ranks] */
    struct at_planner_replica *replica;
    int *spare; /* node numbers */
    struct at_planner_text *spare_why;
    int spares;
    struct at_planner_text *why; /* sentences for people: the bottleneck first */
    int whys;
    uint64_t evaluations; /* chains of stages that were played through */
};

/* AT_E_USAGE where the model does not fit into these nodes (or `replicas` copies of it): the text says what it needs,
 * what they offer, how many more nodes would do, or which preset would fit. AT_E_NOMEM. The plan and the report are
 * owned by the caller: at_plan_release, at_planner_report_release. */
at_err at_planner_make(const struct at_planner_options *options, const struct at_plan_nodes *nodes,
                       struct at_diag *diag, struct at_plan *ret_plan, struct at_planner_report *ret_report);
/* The same report for a plan that somebody else made; recompute -1 counts as 0 (all its ranks on nodes). AT_E_DATA when a rank's node is not said
 * or a node has two ranks; AT_E_USAGE naming the node when a rank does not fit its memory. */
at_err at_planner_predict(const struct at_planner_options *options, const struct at_plan_nodes *nodes,
                          const struct at_plan *plan, struct at_diag *diag, struct at_planner_report *ret_report);
void at_planner_report_release(struct at_planner_report *r);

#endif
