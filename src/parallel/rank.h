/* rank.h: one rank of a run: its shard of the state, its part of every step, round and outer step, in step with the
 * others over at_comm. Pure: links, threads and time are handed down. Exact: yes: the state root is that of
 * train/local.h (one process) for every plan, microbatch count and link.
 *
 * All functions marked "collective" are called by all ranks in the same order with the same arguments, and fail on all
 * with the same code and text. One thread per rank; ex may have a pool of its own. */
#ifndef ATOLL_PARALLEL_RANK_H
#define ATOLL_PARALLEL_RANK_H

#include "base/comm.h"
#include "base/hash.h"
#include "parallel/plan.h"
#include "train/outer.h"
#include "train/unit.h"

struct at_rank_options { /* borrowed for the life of the rank */
    const struct at_plan *plan;
    const struct at_model_config *model;
    const struct at_train_config *train;
    const struct at_outer_config *outer;
    const struct at_data *data;
    bool recompute;                 /* keep only the layers' inputs, compute the rest again in backward */
    size_t fragment_bytes;          /* of updates between replicas, the same on all ranks; 0: as exchange.h has it */
    const struct at_memory *memory; /* of what the trainer needs; NULL: the process' own */
    double (*seconds)(void *clock); /* a clock that never steps back; NULL: there is none */
    void *clock;
};

struct at_rank; /* opaque */

/* Bytes that at_rank_init will allocate for this rank, to be shown before; 0: beyond size_t. */
size_t at_rank_bytes(const struct at_rank_options *options, int rank);
/* State at genesis. comm, ex: borrowed. AT_E_NOMEM. Not collective. */
at_err at_rank_init(struct at_rank **ret_rank, const struct at_comm *comm, const struct at_exec *ex,
                    const struct at_rank_options *options, struct at_diag *diag);
/* With overlap and without at_rank_join it waits for the exchange that is under way. */
void at_rank_release(struct at_rank *r);

const struct at_state *at_rank_state(const struct at_rank *r); /* this rank's shard */

struct at_rank_report { /* applied, round, loss_mean, tokens: the same on all ranks */
    bool applied;       /* in this call a round's result came into the state; false: those four are 0 */
    uint32_t round;     /* that round: with overlap, the one before, unless at_rank_join was faster */
    uint32_t steps;     /* the most inner steps of any replica in that round */
    double loss_mean;
    uint64_t tokens;         /* of all replicas in that round */
    double exchange_seconds; /* of this rank in this call: waiting for other replicas; 0 without a clock */
    uint64_t bytes_sent;     /* of this rank in this call, all purposes */
    uint64_t update_bytes;   /* of this rank in this call: updates sent to other replicas */
};
/* Collective. One round as `round` says (steps, codec: outer.h): the unit, the exchange of updates between replicas, the
 * outer step. progress: on every rank after every inner step; only the answer of the leader (stage 0, tensor rank 0) of
 * each replica counts: false ends that replica's unit there; rank 0's ends, a little later, everybody's.
 * Without overlap and clipping updates are applied in fragments, as they come. An error that is found in a later one ends
 * the run with those before it applied: the state of a rank that failed is of no round, nothing hands it out, and a run
 * goes on from its last checkpoint. */
at_err at_rank_round(struct at_rank *r, const struct at_round *round, at_unit_progress_fn *progress, void *arg,
                     struct at_diag *diag, struct at_rank_report *ret_report);

/* Collective, of a run of one replica by the plain mean: one unit from `whole`, a state of the whole model in its round, and
 * this rank's blocks of the update appended to out. Nothing is applied: who keeps states does that with all blobs. Any
 * rank's answer to progress counts: the unit then ends with the same step on all, whose prefix counts. After an
 * error, which the others are told, this rank is only good for release. */
at_err at_rank_unit(struct at_rank *r, const struct at_state *whole, const struct at_unit *unit,
                    at_unit_progress_fn *progress, void *arg, struct at_diag *diag, struct at_buf *out,
                    struct at_unit_report *ret_report);
/* Collective, before at_rank_unit, of such a run and state: its loss on this share of the held-out windows, on the last stage;
 * 0 on the others. go: asked on every rank before the first wave of at most a batch of windows, and after each: false on any
 * ends it for all, and the code is 0; so does a share of no windows, which some may have where others have one. After an
 * error as there. */
at_err at_rank_share(struct at_rank *r, const struct at_state *whole, struct at_heldout_share share,
                     at_heldout_go_fn *go, void *arg, struct at_diag *diag, uint32_t *ret_code);
/* Collective: with overlap (outer->tau > 0) the result of the last round is joined only within the next one, or here:
 * before roots, checkpoints and release. Nothing to do otherwise. It never changes the bits of what follows. */
at_err at_rank_join(struct at_rank *r, struct at_diag *diag, struct at_rank_report *ret_report);
/* The first samples of the next round's units, start[replicas], the same on all ranks. Without it they are allotted as
 * local.h says, from what this process has seen (a run that goes on: as if no unit had ended early before); with overlap
 * what was left over is free again one round later. */
void at_rank_set_starts(struct at_rank *r, const uint64_t *start);
/* What a replica did in the round that at_rank_report.round names (valid after the first applied one). */
const struct at_update_info *at_rank_consumed(const struct at_rank *r, int replica);

/* Collective: the held-out loss, windows shared among the replicas, added in the one order; the same on all ranks. */
at_err at_rank_heldout(struct at_rank *r, struct at_diag *diag, double *ret_loss);
/* Collective: the state root of the whole state. */
at_err at_rank_root(struct at_rank *r, struct at_diag *diag, struct at_hash *ret_root);
/* Collective: rank 0's bytes to all. */
at_err at_rank_broadcast(struct at_rank *r, void *bytes, size_t n, struct at_diag *diag);
/* Collective: one (tensor, slot) block of the whole model (weights; statistics; outer momentum when there is one) from
 * its owner in replica 0 to rank 0, or from rank 0 to all that hold it. `part`: 0 weights, 1 statistics, 2 momentum.
 * values: only rank 0's is used (others may pass NULL). For checkpoints: one block in memory at a time. */
at_err at_rank_fetch(struct at_rank *r, int part, int tensor, int slot, real *ret_values, struct at_diag *diag);
at_err at_rank_store(struct at_rank *r, int part, int tensor, int slot, const real *values, struct at_diag *diag);
void at_rank_set_round(struct at_rank *r, uint32_t round); /* after at_rank_store of everything */
/* Collective, after at_rank_join: the same for what replica `replica` keeps for itself, a block of a part (AT_OWN_...,
 * train/checkpoint_replica.h) that this run has; from its owner in that replica, or to all its ranks that hold it.
 * At a run's first round a replica's own weights are the state's. */
at_err at_rank_fetch_own(struct at_rank *r, int replica, int part, int tensor, int slot, real *ret_values,
                         struct at_diag *diag);
at_err at_rank_store_own(struct at_rank *r, int replica, int part, int tensor, int slot, const real *values,
                         struct at_diag *diag);
void at_rank_set_started(struct at_rank *r); /* after at_rank_store_own of own weights: the next round joins them */

#endif
