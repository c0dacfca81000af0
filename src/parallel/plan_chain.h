/* plan_chain.h: one replica as the planner sees it: an ordered chain of stages, each with the nodes that are its tensor
 * ranks; what a step of it takes, and the best cut of the layers. Pure; memory is the caller's.
 *
 * A step is played through turn by turn in the order of parallel/schedule.h (1F1B): a forward waits for the
 * activations of the stage before, a backward for the gradient of the stage after; a transfer takes RTT/2 + bytes /
 * bandwidth. At the end all ranks agree on the gradient's norm (one RTT of the slowest link) and do the optimizer. */
#ifndef ATOLL_PARALLEL_PLAN_CHAIN_H
#define ATOLL_PARALLEL_PLAN_CHAIN_H

#include "parallel/plan_cost.h"
#include "parallel/plan_nodes.h"

/* What the chains of one search share. */
struct at_chain_world {
    const struct at_plan_nodes *nodes;
    struct at_cost cost;
    double work_per_gflop;
    double *out_s_per_byte, *out_rtt_s; /* [nodes] mean over the links to all other nodes: the way of updates */
};
at_err at_chain_world_init(struct at_chain_world *w, const struct at_plan_nodes *nodes, struct at_diag *diag);
void at_chain_world_release(struct at_chain_world *w);

struct at_chain_stage {
    int tp, node[8]; /* slots ascending */
    int layers;
    /* Derived by at_chain_step: seconds of one microbatch, forward and backward; the transfer to the next stage and
     * that of the gradient back; bytes of each rank. */
    double forward_s, backward_s, next_s, back_s, tensor_s, bytes;
};
struct at_chain {
    int stages, stages_max;
    struct at_chain_stage *stage; /* [stages_max], borrowed */
    double step_s;                /* one inner step; infinite when it does not fit */
    double optimizer_s, sync_s;   /* of that, after the last backward */
    double exchange_s;            /* of one other replica's update, on the rank with the slowest way to the others */
    double exchange_rtt_s;
    int shortage; /* layers for which there is no memory */
};
void at_chain_copy(struct at_chain *to, const struct at_chain *from); /* to: room for from's stages */

/* Step time of the chain with its layers as they are; sets the derived fields and step_s (infinite, with shortage,
 * when a rank's memory is too small). */
void at_chain_step(const struct at_chain_world *w, struct at_chain *c);
/* Chooses the layers of the stages (each at least one) so that the step is short, then as above. Any chain with 1 to
 * `layers` stages. */
void at_chain_cut(const struct at_chain_world *w, struct at_chain *c);
/* Moves single layers between stages (of long chains: away from the slowest stage) as long as that helps. */
void at_chain_polish(const struct at_chain_world *w, struct at_chain *c);

/* Seconds from the first forward to the last backward, from the derived fields. */
double at_chain_play(const struct at_cost *cost, const struct at_chain *c);
/* Layers that stage s can hold, at most all. */
int at_chain_room(const struct at_chain_world *w, const struct at_chain *c, int s);
/* Whether tensor ranks may lie on these two nodes: RTT <= 1 ms both ways. */
bool at_chain_near(const struct at_plan_nodes *n, int a, int b);

#endif
