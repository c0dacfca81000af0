/* pipeline.h: one rank's part of a replica's forward and backward passes: the stages of a pipeline work through the
 * microbatches of a step in 1F1B order (schedule.h), each stage's tensor ranks joined by a group (collective.h).
 * Exact: yes: gradients and losses are those of one process for every number of stages, ranks and microbatches.
 *
 * What travels: the residual stream x(B*T,d) from stage to stage, and its gradient back. All tensor ranks of a stage
 * have the same x; rank t of a stage takes it from rank t mod tp of the stage before (or behind, for gradients), so
 * stages may have different tp. Values are sent from where they lie and arrive where they are used; each way there is
 * one spare buffer, so that the next microbatch arrives while the present one is computed.
 *
 * Tied weights: the last stage holds the one matrix. It looks up the rows of the first microbatches when a step starts,
 * and those of microbatch i + P before its own forward i, so the first stage never waits for it; the gradient of the
 * rows comes back over the same ring and is added microbatch by microbatch, ascending (contract rule 8).
 *
 * Nothing is allocated after init. After a failure every transfer has been waited for. */
#ifndef ATOLL_PARALLEL_PIPELINE_H
#define ATOLL_PARALLEL_PIPELINE_H

#include "parallel/collective.h"
#include "parallel/schedule.h"

enum { AT_PIPELINE_TP_MAX = 8 };

/* The ranks of a neighbouring stage. */
struct at_pipeline_peer {
    int rank_first, tp; /* tp 0: there is no such stage */
};

struct at_pipeline_options { /* copied; what it points to is borrowed */
    const struct at_comm *comm;
    const struct at_model *model; /* of this rank's shard */
    struct at_group *group;       /* of this stage */
    int stage, stages;
    struct at_pipeline_peer before, behind, first, last;
    int microbatches;           /* of a step */
    long batch;                 /* sequences of a step */
    struct at_passing *pass;    /* of at least at_schedule_cut_max(batch, microbatches) sequences */
    struct at_activations *act; /* [at_schedule_in_flight(stage, stages, microbatches)] */
    uint32_t tag;               /* and tag + 1: x and its gradient */
};

/* One buffer that is being sent from, or received into. */
struct at_pipeline_buffer {
    real *x;
    struct at_transfer recv, send[AT_PIPELINE_TP_MAX];
};

struct at_pipeline {
    struct at_pipeline_options o;
    struct at_tp tp;
    int held; /* microbatches in flight at most */
    bool first, last, ring;
    struct at_passing pass;
    struct at_activations *act;       /* [held] */
    struct at_pipeline_buffer arrive; /* the next input */
    struct at_pipeline_buffer *out;   /* [held] outputs, sent from act[].x_last */
    struct at_pipeline_buffer d_x[2]; /* gradients: one is used, the other arrives or leaves */
    struct at_pipeline_buffer *row,
        d_row; /* ring, last stage: [rows] embeddings that leave; the gradient that arrives */
    int rows;
    void *block;
};

/* Bytes that init allocates; 0: beyond size_t. */
size_t at_pipeline_bytes(const struct at_model_config *config, int stage, int stages, int microbatches, long batch);
at_err at_pipeline_init(struct at_pipeline *p, const struct at_pipeline_options *options, struct at_diag *diag);
void at_pipeline_release(struct at_pipeline *p);

/* What is to be computed. Tokens must be known on all ranks. */
struct at_pipeline_work {
    const real *theta;
    const int32_t *input, *target; /* (sequences, T) */
    long sequences;
    int microbatches; /* <= those of the options when `grad` is set; none larger than a step's */
    real *grad;       /* gradients are added here (zero it before); NULL: losses only */
    real inv;
    real *ret_loss; /* (sequences, T), last stage only, when grad is NULL */
    /* When grad is NULL; may be NULL: sees the activations of each microbatch after this stage's forward pass, ascending.
     * sequence: its first. */
    void (*look)(void *look_arg, long sequence, struct at_activations *a);
    void *look_arg;
};
/* Collective in the replica. io_sum: the losses are added on the last stage (all its tensor ranks), in token order. */
at_err at_pipeline_run(struct at_pipeline *p, const struct at_exec *ex, const struct at_pipeline_work *work,
                       double *io_sum, struct at_diag *diag);

#endif
