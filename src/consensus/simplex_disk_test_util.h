/* simplex_disk_test_util.h: for tests: the disk of a virtual steward: an append-only list of what it persisted, in
 * transactions. A crash keeps what is durable and some of the transactions begun since; a restart reads it back. */
#ifndef ATOLL_CONSENSUS_SIMPLEX_DISK_TEST_UTIL_H
#define ATOLL_CONSENSUS_SIMPLEX_DISK_TEST_UTIL_H

#include "consensus/simplex.h"

#include <stdlib.h>
#include <string.h>

struct disk_item {
    enum at_simplex_op_kind kind;
    uint64_t seq; /* of its transaction; 0 after a restart */
    uint64_t view, time_ms;
    struct at_hash hash;
    struct at_vote vote;
    struct at_certificate *certificate; /* owned */
    struct at_simplex_tip *tip;         /* owned */
    uint8_t *bytes;                     /* owned */
    size_t n;
};
struct disk {
    struct disk_item *items;
    size_t count, cap;
    uint64_t durable; /* transactions */
};

static inline void *disk_copy(const void *p, size_t n)
{
    void *to = malloc(n);
    AT_ASSERT(to != NULL);
    memcpy(to, p, n);
    return to;
}

static inline void disk_write(struct disk *d, uint64_t seq, const struct at_simplex_op *op)
{
    if (d->count == d->cap) {
        d->cap = d->cap ? 2 * d->cap : 64;
        d->items = realloc(d->items, d->cap * sizeof *d->items);
        AT_ASSERT(d->items != NULL);
    }
    struct disk_item *it = &d->items[d->count++];
    memset(it, 0, sizeof *it);
    it->kind = op->kind;
    it->seq = seq;
    it->view = op->view;
    it->time_ms = op->time_ms;
    it->hash = op->hash;
    it->vote = op->votes[0];
    if (op->certificate != NULL) it->certificate = disk_copy(op->certificate, sizeof *op->certificate);
    if (op->tip != NULL) it->tip = disk_copy(op->tip, sizeof *op->tip);
    if (op->bytes.n != 0) it->bytes = disk_copy(op->bytes.p, op->bytes.n);
    it->n = op->bytes.n;
}

static inline void disk_cut(struct disk *d, size_t count)
{
    while (d->count > count) {
        struct disk_item *it = &d->items[--d->count];
        free(it->certificate);
        free(it->tip);
        free(it->bytes);
    }
}

/* Power off: of the transactions that are not durable the first `lucky` were written nevertheless. */
static inline void disk_crash(struct disk *d, uint64_t lucky)
{
    size_t keep = 0;
    while (keep < d->count && d->items[keep].seq <= d->durable + lucky) keep++;
    disk_cut(d, keep);
    for (size_t i = 0; i < d->count; i++) d->items[i].seq = 0;
    d->durable = 0;
}

static inline void disk_release(struct disk *d)
{
    disk_cut(d, 0);
    free(d->items);
}

static inline const struct disk_item *disk_block(const struct disk *d, const struct at_hash *hash)
{
    for (size_t i = d->count; i-- != 0;)
        if (d->items[i].kind == AT_SIMPLEX_PERSIST_BLOCK && at_hash_eq(d->items[i].hash, *hash)) return &d->items[i];
    return NULL;
}

static inline size_t disk_final_count(const struct disk *d)
{
    size_t n = 0;
    for (size_t i = 0; i < d->count; i++) n += d->items[i].kind == AT_SIMPLEX_FINAL;
    return n;
}

/* What a driver reads at a start: the tip and whether to abstain into the options ... */
static inline void disk_options(const struct disk *d, struct at_simplex_options *options)
{
    for (size_t i = 0; i < d->count; i++) {
        if (d->items[i].tip != NULL) options->tip = *d->items[i].tip;
        options->abstain |= d->items[i].kind == AT_SIMPLEX_PERSIST_ABSTAIN;
    }
}

/* ... and the rest into the machine: final blocks, then what is newer than the tip. */
static inline void disk_restore(const struct disk *d, struct at_simplex *x, uint32_t term, uint64_t tip_view)
{
    for (size_t i = 0; i < d->count; i++) {
        if (d->items[i].kind != AT_SIMPLEX_FINAL) continue;
        const struct disk_item *block = disk_block(d, &d->items[i].hash);
        AT_ASSERT(block != NULL);
        struct at_agree m = {.term = term, .kind = AT_AGREE_PROPOSAL};
        m.proposal.block = at_span(block->bytes, block->n);
        at_err_t err = at_simplex_restore(x, &m);
        AT_ASSERT(err == AT_OK);
    }
    for (size_t i = 0; i < d->count; i++) {
        const struct disk_item *it = &d->items[i];
        struct at_agree m = {.term = term};
        switch (it->kind) {
        case AT_SIMPLEX_PERSIST_VOTE:
            m.kind = AT_AGREE_VOTE;
            m.vote = it->vote;
            break;
        case AT_SIMPLEX_PERSIST_CERTIFICATE:
            m.kind = AT_AGREE_CERTIFICATE;
            m.certificate = it->certificate;
            break;
        case AT_SIMPLEX_PERSIST_BLOCK:
            if (it->view <= tip_view) continue;
            m.kind = AT_AGREE_PROPOSAL;
            m.proposal.block = at_span(it->bytes, it->n);
            break;
        default:
            continue;
        }
        at_err_t err = at_simplex_restore(x, &m);
        AT_ASSERT(err == AT_OK);
    }
}

#endif
