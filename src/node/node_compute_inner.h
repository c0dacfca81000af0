/* node_compute_inner.h: what the two files of the node's arithmetic share. */
#ifndef ATOLL_NODE_NODE_COMPUTE_INNER_H
#define ATOLL_NODE_NODE_COMPUTE_INNER_H

#include "node/node_compute.h"
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
    bool configured, has_state;
    struct at_genesis genesis;
    struct at_model model;
    struct at_trainer trainer;
    struct at_state state;
    struct at_tile *tile;
    uint32_t tiles;
    struct at_blobs updates;
    struct at_buf text; /* all shards */
    struct at_data data;
    bool has_data;
    bool momentum;                     /* states of this run have an outer momentum */
    struct at_error_feedback feedback; /* this member's; unused where the run's updates leave nothing over */
    struct at_hash feedback_kept;      /* the file's: after which update */
    bool feedback_lost;                /* not told yet */
};

/* Root, leaves, bytes for peers of the state that is held, and the held-out loss where wanted. */
at_err at_compute_describe(struct at_compute *c, bool evaluate, struct at_diag *diag,
                           struct at_compute_state *ret_state);

#endif
