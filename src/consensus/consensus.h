/* consensus.h: the order of records, as a pure machine, for one steward (n = 1).
 *
 * It has the shape that several stewards will need later (Simplex, Chan & Pass 2023): submitted records wait in a
 * queue, a block of them is proposed when nothing is in flight, and it is final when its certificate exists. With one
 * steward the certificate is the steward's own signature on a checkpoint after each record, and it counts from the
 * moment at which block and checkpoints are durable together.
 *
 *   state       event       does                                                                  next
 *   idle        SUBMIT      queues the record                                                     idle
 *   idle        TICK        queue empty: nothing                                                  idle
 *   idle        TICK        takes records in order, drops those the application refuses, signs    in flight
 *                           a checkpoint after each, asks to persist all in one transaction
 *   in flight   SUBMIT      queues                                                                in flight
 *   in flight   TICK        nothing                                                               in flight
 *   in flight   PERSISTED   the block is final: may be told to anybody                            idle
 *
 * Invariants: the application's state is always that of the log including the block in flight; nothing of a block is
 * handed out as final before PERSISTED; the indices have no gap; no allocation. The caller checks signatures (a record
 * in the queue is authentic); the application (the ledger's fold) decides whether a record may stand where it would. */
#ifndef ATOLL_CONSENSUS_CONSENSUS_H
#define ATOLL_CONSENSUS_CONSENSUS_H

#include "base/merkle.h"
#include "base/sign.h"
#include "wire/log_checkpoint.h"
#include "wire/record.h"

#define AT_CONSENSUS_QUEUE_MAX 256
#define AT_CONSENSUS_BLOCK_MAX 64 /* records of a block: with records <= 1 KiB a block fits one LogPart */

/* Takes a record as the next of the log, or refuses it (then the log goes on without it). `leaf` is the record's. */
typedef at_err_t at_consensus_take_fn(void *user, const struct at_signed_record *record, struct at_hash leaf,
                                      struct at_diag *diag);

struct at_consensus_options {
    struct at_keypair key; /* the steward's */
    struct at_hash run;
    at_consensus_take_fn *take;
    void *user;
    struct at_merkle log; /* of the log so far */
};

struct at_consensus {
    struct at_consensus_options options;
    struct at_merkle log; /* the block in flight included */
    bool in_flight;
    uint32_t queue_first, queue_count; /* ring */
    struct at_signed_record queue[AT_CONSENSUS_QUEUE_MAX];
    uint64_t tag[AT_CONSENSUS_QUEUE_MAX];
    uint32_t block_count;
    struct at_signed_record block[AT_CONSENSUS_BLOCK_MAX];
    struct at_log_checkpoint checkpoint[AT_CONSENSUS_BLOCK_MAX]; /* after each */
    struct at_consensus_refusal {
        struct at_hash record;               /* leaf hash */
        const struct at_signed_record *what; /* borrowed until the next SUBMIT */
        uint64_t tag;
        struct at_diag diag;
    } refused[AT_CONSENSUS_QUEUE_MAX];
};

enum at_consensus_event_kind { AT_CONSENSUS_SUBMIT = 1, AT_CONSENSUS_TICK, AT_CONSENSUS_PERSISTED };
struct at_consensus_event {
    enum at_consensus_event_kind kind;
    const struct at_signed_record *record; /* SUBMIT; copied */
    uint64_t tag;                          /* SUBMIT: the submitter's, for the answer */
};

/* Borrowed until the next step. */
struct at_consensus_update {
    at_err_t err;  /* SUBMIT: AT_E_TOO_BIG: the queue is full */
    bool persist;  /* store records and checkpoints in one transaction, then PERSISTED */
    bool final;    /* the same fields describe a block that has become final */
    uint64_t from; /* log index of the first record */
    const struct at_signed_record *records;
    const struct at_log_checkpoint *checkpoints; /* one after each record */
    size_t count;
    const struct at_consensus_refusal *refused; /* TICK: dropped, with the application's reason */
    size_t refused_count;
};

void at_consensus_init(struct at_consensus *c, const struct at_consensus_options *options);
void at_consensus_step(struct at_consensus *c, const struct at_consensus_event *event,
                       struct at_consensus_update *ret_update);

#endif
