/* rank_inner.h: inner header of the parallel layer: what a rank is made of. */
#ifndef ATOLL_PARALLEL_RANK_INNER_H
#define ATOLL_PARALLEL_RANK_INNER_H

#include "base/samples.h"
#include "parallel/collective.h"
#include "parallel/exchange.h"
#include "parallel/pipeline.h"
#include "parallel/rank.h"

/* Tags of messages between two ranks, by purpose. */
enum {
    AT_TAG_STAGE = 1,
    AT_TAG_REPLICA,
    AT_TAG_ALL,
    AT_TAG_PIPELINE,                       /* and the next */
    AT_TAG_EXCHANGE = AT_TAG_PIPELINE + 2, /* and the next */
    AT_TAG_STOP = AT_TAG_EXCHANGE + 2,
    AT_TAG_FOUND,
    AT_TAG_BLOCK,
    AT_TAG_VERDICT,
};

/* Lengths of the arrays of a rank, besides those of its parts. */
struct at_rank_sizes {
    size_t stage_room, replica_room, all_room; /* bytes, of the groups */
    int members;                               /* ranks of the replica */
    size_t leaves, leaves_all;                 /* hashes: own; leader of a replica: of all its ranks */
    size_t feedback, stats_before;             /* reals */
    size_t loss, wave;                         /* held-out: reals of this replica's share; doubles of everybody's */
};

struct at_rank {
    struct at_comm comm;
    struct at_rank_options o;
    const struct at_exec *ex;
    struct at_place place;
    bool leader;
    struct at_model model;
    struct at_state state;
    struct at_trainer trainer;
    struct at_replica others; /* of this replica, for the trainer */
    struct at_group stage, replica, all;
    struct at_pipeline pipeline;
    struct at_exchange exchange;
    struct at_rank_sizes n;
    real *feedback; /* (params.count), NULL: no codec of this run is lossy */
    real *loss;
    double *wave;
    struct at_hash *leaf, *leaf_all;
    size_t *leaf_bytes;        /* [members] */
    struct at_shard *shard;    /* [members] */
    struct at_samples samples; /* who trains on what, where the caller does not say */
    uint64_t *start;           /* [replicas] first samples of the units that are under way, or come next */
    uint64_t *due;             /* [replicas] those of `round`: what its updates must begin with */
    /* rank_stop.c: when units end early, and whose was refused. */
    struct at_transfer *stop_to; /* [replicas] rank 0: to the leaders */
    struct at_transfer stop_from;
    uint32_t stop_said, stop_heard; /* 0: nothing; otherwise a unit ends after so many steps */
    struct at_transfer *found_from; /* [replicas] rank 0: from the leaders */
    struct at_culprit *found_in;    /* [replicas] */
    struct at_transfer found_to;
    struct at_culprit found_out;
    struct at_culprit worst; /* rank 0: the earliest of this round that it knows; step 0: none */
    int worst_replica;
    bool rank_0_tells;        /* a unit was refused, and rank 0 says which and why */
    bool starts_set;          /* by the caller, for the next round */
    bool allotting, allotted; /* the starts of this round, and of `round`, are from `samples` */
    uint32_t stop_wish;       /* rank 0: what is to be said, once the others listen */
    bool stop_sent;
    /* Overlap, as local.h has it: a unit starts before the result of the round before it is joined. */
    bool outstanding;       /* a round whose result is not yet in the state */
    struct at_round round;  /* that round, or the last one */
    bool started;           /* t->theta is what the last unit left: in this process, or before it was resumed */
    bool trained;           /* this process has done a round */
    bool applied;           /* in the present call: exchange.update are of a round that came into the state */
    struct at_state seen;   /* the state as the unit sees it that is under way */
    real *stats_before;     /* statistics of the state before; NULL without overlap */
    double wait_seconds;    /* for other replicas, in the present call */
    struct at_diag failure; /* what the run ended with */
    void *block;
};

/* For collective functions: `err` of this rank, told in `own`, becomes everybody's end, unless there was one before.
 * Returns the code that all return, and fills ret_diag (may be NULL). */
at_err_t at_rank_fail(struct at_rank *r, at_err_t err, const struct at_diag *own, struct at_diag *ret_diag);
/* After a failure, or before release: waits for all that is under way. */
void at_rank_settle(struct at_rank *r);
/* What a collective function starts with: AT_OK, or how the run has ended. */
at_err at_rank_begin(const struct at_rank *r, struct at_diag *diag);

/* rank_stop.c. Messages of this round may come (stop orders: once the round before is joined). */
void at_rank_expect_stop(struct at_rank *r);
void at_rank_expect_found(struct at_rank *r);
/* Rank 0: units end after `step` steps, or now if they are past it; 0: as planned. Once a round. */
void at_rank_say_stop(struct at_rank *r, uint32_t step);
/* A leader, after each step: what has come meanwhile. False: the unit is to end here. */
bool at_rank_goes_on(struct at_rank *r, uint32_t step, at_err_t *io_err, struct at_diag *diag);
/* At the end of every unit. refused: by at_unit_train, which filled trainer.culprit. Rank 0 waits for the ends of all
 * units; when any was refused, its answer is the run's end. AT_E_NONFINITE on all ranks of a refused replica. */
at_err at_rank_tell_unit(struct at_rank *r, bool refused, struct at_diag *diag);
/* Waits for this round's messages, but for those that tell_unit hears; after a failure for those, too. */
at_err at_rank_settle_stop(struct at_rank *r, struct at_diag *diag);
void at_rank_settle_found(struct at_rank *r);

/* rank_gather.c. All ranks of the replica: the losses of windows first, first + step, ... (n of them, at most a batch), a
 * value for each token in r->loss of the last stage. */
at_err at_rank_losses(struct at_rank *r, long first, long step, long n, struct at_diag *diag);

static inline double at_rank_seconds(const struct at_rank *r)
{
    return r->o.seconds != NULL ? r->o.seconds(r->o.clock) : 0;
}

#endif
