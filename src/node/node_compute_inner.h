/* node_compute_inner.h: what the files of the node's arithmetic share. */
#ifndef ATOLL_NODE_NODE_COMPUTE_INNER_H
#define ATOLL_NODE_NODE_COMPUTE_INNER_H

#include "node/node_compute.h"
#include "node/node_held.h"
#include "os/file.h"
#include "store/blobs.h"
#include "train/error_feedback.h"
#include "train/outer.h"
#include "train/unit.h"
#include "wire/message.h"

#define MODEL_BYTES_MAX ((size_t)64 << 30)

struct at_compute {
    char dir[AT_PATH_BYTES];
    struct at_pool pool;
    struct at_exec ex;
    atomic_uint cancelled; /* units up to this serial are not wanted */
    atomic_uint enough;    /* units up to this serial end with the step they are in */
    bool configured;
    struct at_genesis genesis;
    struct at_train_config train; /* as the run's outer step wants it */
    struct at_model model;
    /* Where members share units: the folder whose files are the memory of all that is as large as the model, so that a
     * member needs memory for its stage alone; NULL: the process' own memory. */
    const char *scratch;
    struct at_memory paged;    /* the same, handed down; unused without */
    struct at_trainer trainer; /* of the whole model; where members share units only while it is needed */
    struct at_held *held;      /* the state; NULL: none yet */
    struct at_held *before[2]; /* the ones before it, newest first; for their memory */
    struct at_tile *tile;
    uint32_t tiles;
    struct at_blobs updates;
    struct at_file_map text; /* all shards */
    struct at_data data;
    bool has_data;
    bool momentum;                     /* states of this run have an outer momentum */
    struct at_error_feedback feedback; /* this member's; unused where the run's updates leave nothing over */
    struct at_hash feedback_kept;      /* the file's: after which update */
    bool feedback_lost;                /* not told yet */
};

/* A state of this run to be filled, then held: its root, its leaves, the held-out loss where wanted. at_compute_hold takes
 * the reference over; `want` NULL: whatever its root is, else AT_E_VERIFY for another one. After an error the state held
 * before is there as it was. */
at_err at_compute_fresh(const struct at_compute *c, struct at_diag *diag, struct at_held **ret_held);
at_err at_compute_hold(struct at_compute *c, struct at_held *h, const struct at_hash *want, bool evaluate,
                       struct at_diag *diag, struct at_compute_state *ret_state);

/* node_compute_needs.c: what a run needs of a machine: AT_E_NOMEM, AT_E_DISK. */
at_err at_compute_check_memory(const struct at_genesis *g, struct at_diag *diag);
at_err at_compute_check_disk(const struct at_compute *c, const struct at_genesis *g, struct at_diag *diag);
/* The trainer of the whole model, or at least what held-out loss needs of it; end: where members share units its memory is
 * given back. */
at_err at_compute_whole_begin(struct at_compute *c, bool forward_only, struct at_diag *diag);
void at_compute_whole_end(struct at_compute *c);

#endif
