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
    size_t *leaf_bytes;          /* [members] */
    struct at_shard *shard;      /* [members] */
    struct at_samples samples;   /* who trains on what, where the caller does not say */
    uint64_t *start;             /* [replicas] first samples of the units that are under way, or come next */
    uint64_t *due;               /* [replicas] those of `round`: what its updates must begin with */
    struct at_transfer *stop_to; /* [replicas] rank 0: to the leaders */
    struct at_transfer stop_from;
    uint8_t stop_said, stop_heard;
    bool starts_set;          /* by the caller, for the next round */
    bool allotting, allotted; /* the starts of this round, and of `round`, are from `samples` */
    bool stop_wish, stop_sent;
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

static inline double at_rank_seconds(const struct at_rank *r)
{
    return r->o.seconds != NULL ? r->o.seconds(r->o.clock) : 0;
}

#endif
