/* exchange.h: inner header of the parallel layer: the exchange of updates between the replicas of a run, rank to rank.
 * Exact: yes: every rank ends with the same updates of its own blocks that one process would have.
 *
 * A rank needs, of every other replica, the update of each block that it holds. Where that replica has a rank with the
 * same shard (its twin), everything comes from there, and is sent as it lies. Otherwise each block comes from the rank
 * that owns it (at_params_owns), in a blob made for the receiver. Both sides know this from the plan.
 *
 * One round: expect() when the buffers are free: receives for what is coming are posted before this rank's own unit
 * begins; poll() now and then, so that bytes flow while this rank computes; send() when the own unit is done;
 * finish() waits for all, and puts the updates together.
 * A message is a head (bytes of the blob, mean loss of the sender's unit) and a blob (train/update.h). */
#ifndef ATOLL_PARALLEL_EXCHANGE_H
#define ATOLL_PARALLEL_EXCHANGE_H

#include "base/comm.h"
#include "parallel/plan.h"
#include "train/outer.h"
#include "train/update.h"

enum { AT_EXCHANGE_HEAD_BYTES = 16 };

/* What goes between this rank and one of another replica. */
struct at_exchange_way {
    int rank, replica;
    bool twin;
    struct at_shard shard; /* the other's */
    struct at_buf blob;    /* memory of fixed size; unused by a sender to its twin */
    uint8_t head[AT_EXCHANGE_HEAD_BYTES];
    struct at_transfer head_t, blob_t;
    bool head_here;
};

struct at_exchange {
    const struct at_comm *comm;
    const struct at_params *params;
    int replica, replicas;
    uint32_t tag; /* and tag + 1 */
    struct at_exchange_way *in, *out;
    int ins, outs;
    struct at_buf own;        /* this rank's blob: all blocks that it holds; memory of fixed size */
    struct at_update *update; /* [replicas], complete after finish */
    double *loss;             /* [replicas] */
    uint64_t bytes_sent;      /* heads and blobs, ever */
    void *block;
    size_t block_bytes;
};

/* A run's codecs, as a set of bits 1 << codec id: the largest blob that any of them makes has room. */
uint32_t at_exchange_codecs(const struct at_outer_config *outer);
/* Bytes that init allocates; 0: beyond size_t, or no memory to count with. */
size_t at_exchange_bytes(const struct at_plan *plan, const struct at_model_config *config, int rank, uint32_t codecs);
at_err at_exchange_init(struct at_exchange *x, const struct at_comm *comm, const struct at_plan *plan,
                        const struct at_params *params, uint32_t codecs, uint32_t tag, struct at_diag *diag);
void at_exchange_release(struct at_exchange *x);

void at_exchange_expect(struct at_exchange *x);
at_err at_exchange_poll(struct at_exchange *x, struct at_diag *diag);
/* x->own holds the own blob, of `source` by `codec`; blobs for others than twins are made here. */
at_err at_exchange_send(struct at_exchange *x, const struct at_codec *codec, uint32_t k,
                        const struct at_update_info *info, const struct at_update_source *source, double loss_mean,
                        struct at_diag *diag);
at_err at_exchange_finish(struct at_exchange *x, struct at_diag *diag);
/* After a failure: waits for everything that is under way. */
void at_exchange_settle(struct at_exchange *x);

#endif
