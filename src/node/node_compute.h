/* node_compute.h: the arithmetic of a node: its state, units, outer steps, held-out loss, checkpoint files. Effects:
 * reads and writes blobs and files of the run folder; threads of its own pool.
 *
 * One call at a time, from one thread at a time (the node hands all of them to one worker); at_compute_cancel and
 * at_compute_enough are exceptions: they may be called from anywhere. A call that fails for another reason than memory leaves the state as
 * it was. */
#ifndef ATOLL_NODE_NODE_COMPUTE_H
#define ATOLL_NODE_NODE_COMPUTE_H

#include "base/comm.h"
#include "model/heldout.h"
#include "model/stages.h"
#include "os/pool.h"
#include "wire/genesis.h"

#include <stdatomic.h>

struct at_compute;

/* Threads and kernels, checked first of all: AT_E_USAGE, AT_E_KERNEL, AT_E_NOMEM. threads 0: one per processor. */
at_err at_compute_init(const char *dir, int threads, const char *kernels, struct at_diag *diag,
                       struct at_compute **ret_c);
void at_compute_release(struct at_compute *c); /* NULL is fine */
int at_compute_threads(const struct at_compute *c);
const char *at_compute_kernels(const struct at_compute *c);

/* Is it for this program (profile, tokenizer)? AT_E_DATA. */
at_err at_compute_knows(const struct at_genesis *g, struct at_diag *diag);

/* What a member needs memory for: a run in which every member computes whole units, the largest stage of one where they share
 * them. Of this genesis, text not counted; 0: beyond size_t. ret_model: the bytes of a state. */
size_t at_compute_needs(const struct at_genesis *g, size_t *ret_model);

/* Memory for this genesis. Judged before anything of its sizes is allocated or fetched: AT_E_DATA when it is not for
 * this program (profile, tokenizer), AT_E_NOMEM and AT_E_DISK with how much is needed. Once. */
at_err at_compute_configure(struct at_compute *c, const struct at_genesis *g, struct at_diag *diag);

struct at_held;
struct at_compute_state { /* what a state is for others; the caller releases it */
    uint32_t round;
    struct at_hash root;
    double heldout_loss;  /* NaN: not asked for */
    struct at_held *held; /* a reference (node_held.h) */
};
void at_compute_state_release(struct at_compute_state *s);

/* How a state of this run is cut; borrowed, the same for its whole life. After configure, from any thread. */
struct at_tile;
uint32_t at_compute_tiles(const struct at_compute *c, const struct at_tile **ret_tiles, uint64_t *ret_blob_bytes);
/* What stands before the tiles in the blob of the state at the start of `round`; ret_header(AT_STATE_HEADER_BYTES). */
void at_compute_state_header(const struct at_compute *c, uint32_t round, uint8_t *ret_header);

/* The state in the folder's model files. AT_E_NOT_FOUND when there is none; AT_E_DATA... when one is damaged. */
at_err at_compute_load(struct at_compute *c, struct at_diag *diag, struct at_compute_state *ret_state);
at_err at_compute_genesis(struct at_compute *c, bool evaluate, struct at_diag *diag,
                          struct at_compute_state *ret_state);
/* The fetched blob in the file at `path`. AT_E_VERIFY when its root is another. */
at_err at_compute_install(struct at_compute *c, const char *path, uint32_t round, struct at_hash root,
                          struct at_diag *diag, struct at_compute_state *ret_state);

struct at_compute_part { /* of a contribution to an outer step: an update, or the blocks of a stage of it */
    struct at_hash update;
    uint64_t tokens;
    uint32_t unit; /* those in a row with the same number are one contribution */
};
/* Contributions in order, from D/updates. */
at_err at_compute_apply(struct at_compute *c, uint32_t round, const struct at_compute_part *parts, int count,
                        bool evaluate, struct at_diag *diag, struct at_compute_state *ret_state);

struct at_blobs;
struct at_compute_claim { /* what a receipt says of its update */
    uint32_t round, samples, steps;
    uint64_t start;
    uint32_t stage; /* it has the blocks of this stage */
    struct at_stage_cut cut;
};
/* Is this stored update one that at_compute_apply can take, and of the unit claimed? AT_E_DATA, AT_E_NONFINITE... with
 * the reason when not. Reads `updates` only; after configure, on any one thread. */
at_err at_compute_check_update(const struct at_compute *c, struct at_blobs *updates, struct at_hash update,
                               const struct at_compute_claim *claim, struct at_diag *diag);

struct at_compute_unit {
    uint32_t round, replica, samples;
    uint64_t start;
    struct at_hash counted; /* this member's update that counted last; zero: none */
    uint32_t stop_at;       /* > 0: wants to end with this step, and not before */
    uint64_t budget_ms;     /* no step is begun that would end later, as far as the others tell; but the first */
    struct at_heldout_share heldout; /* whose loss under the state is computed first */
    unsigned serial;                 /* given to at_compute_cancel and _enough */
    /* The other members that compute it with this one; NULL: it works alone. This one is stage comm->rank of comm->ranks:
     * it computes that, and the update has its blocks. */
    const struct at_comm *comm;
    struct at_stage_cut cut; /* where there are others: the stages */
};
struct at_compute_done {
    uint32_t steps, samples;
    uint32_t heldout;  /* code of its share's loss; 0: not this member's, there is none, or there was no time for it */
    uint32_t share_ms; /* which took so long, before the first step */
    uint64_t tokens, update_bytes;
    double tokens_per_s;
    struct at_hash update;   /* stored in D/updates, durable */
    struct at_hash feedback; /* of the error feedback that it began with; zero: it was zero, */
    bool feedback_lost;      /* because what there was of it is not here; told once */
};
/* step 0: it is at its share of the held-out loss. */
typedef void at_compute_progress_fn(void *user, uint32_t step, uint64_t tokens,
                                    double tokens_per_s); /* on the calling thread */
/* AT_E_INTERRUPTED when it was cancelled. With others: AT_E_PEER when the links to them are over. */
at_err at_compute_unit(struct at_compute *c, const struct at_compute_unit *unit, at_compute_progress_fn *progress,
                       void *user, struct at_diag *diag, struct at_compute_done *ret_done);
/* Units up to `serial` end after their current step: without a result; with one of the steps that are done (with
 * others the next step is computed by all and thrown away). Any thread. */
void at_compute_cancel(struct at_compute *c, unsigned serial);
void at_compute_enough(struct at_compute *c, unsigned serial);

/* How fast steps of this run's width are here, in the terms of node_speed.h; steps of at most 20 GFLOP for a quarter of a second,
 * for a unit may be waiting. After configure. */
at_err at_compute_speed(const struct at_compute *c, struct at_diag *diag, double *ret_gflops);

/* Writes a state of this run as files of the folder, durably, block by block. Any thread, beside other work, but not after
 * at_compute_release. */
at_err at_compute_save(const char *dir, const struct at_held *held, struct at_diag *diag);

/* What this member keeps for itself: the error feedback after `counted`, and after a unit that is not decided yet, as
 * the bytes of its file. Empty: there is none,
 * or it was packed before. Read back by at_compute_load_own, once, after configure: what is missing, damaged, or older
 * than the log, begins at zero; `diag` then has the reason if a file is there. */
at_err at_compute_pack_own(struct at_compute *c, struct at_hash run, struct at_hash counted, struct at_diag *diag,
                           struct at_buf *out);
at_err at_compute_write_own(const char *dir, const struct at_buf *bytes, struct at_diag *diag);
at_err at_compute_load_own(struct at_compute *c, struct at_hash run, struct at_diag *diag);

#endif
