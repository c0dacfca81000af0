/* exchange.h: inner header of the parallel layer: the exchange of updates between the replicas of a run, rank to rank.
 * Exact: yes: every rank ends with the same updates of its own blocks that one process would have.
 *
 * A rank needs, of every other replica, the update of each block that it holds. Where that replica has a rank with the
 * same shard (its twin), everything comes from there, and is sent as it lies. Otherwise each block comes from the rank
 * that owns it (at_params_owns), in a blob made for the receiver. Both sides know this from the plan.
 *
 * Fragments: a rank need not have room for a whole update of every replica. The blocks of the model are cut, in memory
 * order, into runs of which no rank of the plan holds more than fragment_bytes of binary32 (or one block): everybody
 * computes the same cutting, and a rank's part of a fragment is a run of its own blocks. A way has room for two
 * fragments, so that one travels while the one before it is decoded and applied. What needs all blocks at once goes
 * whole: updates that are clipped by their norms, and those of runs with overlap.
 *
 * One round: expect() when the buffers are free: receives for what comes first are posted before this rank's own unit
 * begins; poll() now and then, so that bytes flow while this rank computes; send() when the own unit is done, which
 * encodes the first fragments; then take() and drop() in turn until all fragments were there.
 * A message is a head (bytes of the blob, mean loss of the sender's unit) and a blob (train/update.h).
 *
 * Nobody waits in a circle: all ranks go through the fragments in one order, and before a rank waits for fragment f it
 * has posted its receives and sends of f. */
#ifndef ATOLL_PARALLEL_EXCHANGE_H
#define ATOLL_PARALLEL_EXCHANGE_H

#include "base/comm.h"
#include "parallel/plan.h"
#include "train/outer.h"
#include "train/update.h"

enum { AT_EXCHANGE_HEAD_BYTES = 16, AT_EXCHANGE_ROOMS = 2 };
#define AT_EXCHANGE_FRAGMENT_BYTES ((size_t)2 << 20)

/* What a run's updates are, as sets of bits 1 << codec id: the largest blob that any of them makes has room. */
struct at_exchange_needs {
    uint32_t whole, parts; /* of those that travel whole; in fragments */
    uint32_t k;            /* sparse: the largest that a round of the run may have; else 0 */
    size_t fragment_bytes; /* the same on all ranks */
};
struct at_exchange_needs at_exchange_needs_of(const struct at_outer_config *outer);

/* Room of one way for blobs: for a whole one, or for fragments, every other one in the same place. Fixed size. */
struct at_exchange_memory {
    uint8_t *at;
    size_t whole, part[AT_EXCHANGE_ROOMS];
};

/* A blob on its way. */
struct at_exchange_blob {
    int part;           /* which fragment */
    struct at_buf blob; /* memory of fixed size; unused by a sender to its twin */
    uint8_t head[AT_EXCHANGE_HEAD_BYTES];
    struct at_transfer head_t, blob_t;
    bool head_here;
};

/* What goes between this rank and one of another replica. */
struct at_exchange_way {
    int rank, replica;
    bool in, twin;
    struct at_shard shard; /* the other's */
    struct at_exchange_memory memory;
    int next;                                        /* fragments from here on have not been looked at */
    uint32_t posted, done;                           /* fragments of this way in this round */
    struct at_exchange_blob room[AT_EXCHANGE_ROOMS]; /* fragment i of this way is in room i % rooms */
};

struct at_exchange {
    const struct at_comm *comm;
    const struct at_params *params;
    struct at_exchange_needs needs;
    int replica, replicas;
    uint32_t tag; /* and tag + 1 */
    struct at_exchange_way *in, *out;
    int ins, outs;
    struct at_exchange_memory own_memory;
    struct at_buf own[AT_EXCHANGE_ROOMS]; /* this rank's blobs: all blocks that it holds */
    struct at_update *update;             /* [replicas], complete for the blocks that take() said */
    double *loss;                         /* [replicas] that go with them */
    double *loss_new;                     /* [replicas] of the round under way */
    uint64_t bytes_sent;                  /* heads and blobs, ever */
    int *cut;                             /* [cuts + 1] first blocks of the fragments that this rank holds blocks of */
    int cuts;
    void *block;
    size_t block_bytes;
    /* The round under way. */
    bool whole;
    int all[2];                   /* the cutting of whole updates */
    const int *first;             /* [parts + 1] the cutting of this round */
    int parts, rooms;             /* rooms: blobs of a way at a time */
    int part, made;               /* taken next; own fragments encoded */
    const struct at_codec *codec; /* and what else the own fragments are made of */
    struct at_update_info info;
    struct at_update_source source; /* must stay until drop() of the last fragment */
    uint32_t k;
};

/* Bytes that init allocates; 0: beyond size_t, or no memory to count with. */
size_t at_exchange_bytes(const struct at_plan *plan, const struct at_model_config *config, int rank,
                         const struct at_exchange_needs *needs);
at_err at_exchange_init(struct at_exchange *x, const struct at_comm *comm, const struct at_plan *plan,
                        const struct at_params *params, const struct at_exchange_needs *needs, uint32_t tag,
                        struct at_diag *diag);
void at_exchange_release(struct at_exchange *x);

/* A round whose updates come by this codec (whole or not). Nothing of the round before is under way. */
void at_exchange_expect(struct at_exchange *x, uint32_t codec);
at_err at_exchange_poll(struct at_exchange *x, struct at_diag *diag);
/* The own update, of `source` by `codec`. source: borrowed until the last drop(), but blocks that were taken may change. */
at_err at_exchange_send(struct at_exchange *x, const struct at_codec *codec, uint32_t k,
                        const struct at_update_info *info, const struct at_update_source *source, double loss_mean,
                        struct at_diag *diag);
/* Waits until the next fragment is here from all, and has left to all: then x->update has, of every replica, exactly
 * params->block[*ret_first .. + *ret_blocks). All fragments ascending, without gaps, from block 0; 0 blocks: there are
 * no more. Foreign bytes: AT_E_PEER, AT_E_NONFINITE, naming the rank and its replica. */
at_err at_exchange_take(struct at_exchange *x, struct at_diag *diag, int *ret_first, int *ret_blocks);
/* Done with what was taken: its room goes to the next fragments. */
at_err at_exchange_drop(struct at_exchange *x, struct at_diag *diag);
/* After a failure: waits for everything that is under way. */
void at_exchange_settle(struct at_exchange *x);

/* Whether a way carries a block of p, this rank's params. */
bool at_exchange_carries(const struct at_params *p, const struct at_exchange_way *w, int block);

#endif
