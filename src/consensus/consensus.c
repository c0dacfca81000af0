/* consensus.c: see the table in consensus.h. */
#include "consensus/consensus.h"

#include <string.h>

void at_consensus_init(struct at_consensus *c, const struct at_consensus_options *options)
{
    memset(c, 0, sizeof *c);
    c->options = *options;
    c->log = options->log;
}

static at_err submit(struct at_consensus *c, const struct at_signed_record *record, uint64_t tag)
{
    if (c->queue_count == AT_CONSENSUS_QUEUE_MAX) return AT_E_TOO_BIG;
    uint32_t at = (c->queue_first + c->queue_count++) % AT_CONSENSUS_QUEUE_MAX;
    c->queue[at] = *record;
    c->tag[at] = tag;
    return AT_OK;
}

/* Appends a record that the application took to the block, with the checkpoint after it. */
static void block_append(struct at_consensus *c, const struct at_signed_record *record, struct at_hash leaf)
{
    at_merkle_append(&c->log, leaf);
    c->block[c->block_count] = *record;
    c->checkpoint[c->block_count++] =
        at_log_checkpoint_sign(&c->options.key, c->options.run, c->log.size, at_merkle_root(&c->log));
}

/* Moves as many records from the queue into the block as it holds; the application has the last word on each. */
static size_t take_block(struct at_consensus *c)
{
    size_t refused = 0;
    c->block_count = 0;
    while (c->queue_count > 0 && c->block_count < AT_CONSENSUS_BLOCK_MAX) {
        const struct at_signed_record *record = &c->queue[c->queue_first];
        struct at_consensus_refusal *no = &c->refused[refused];
        struct at_hash leaf = at_signed_record_leaf(record);
        memset(&no->diag, 0, sizeof no->diag);
        if (c->options.take(c->options.user, record, leaf, &no->diag) == AT_OK) {
            block_append(c, record, leaf);
        } else {
            no->record = leaf;
            no->what = record;
            no->tag = c->tag[c->queue_first];
            refused++;
        }
        c->queue_first = (c->queue_first + 1) % AT_CONSENSUS_QUEUE_MAX;
        c->queue_count--;
    }
    return refused;
}

static void describe_block(const struct at_consensus *c, struct at_consensus_update *update)
{
    update->from = c->log.size - c->block_count;
    update->records = c->block;
    update->checkpoints = c->checkpoint;
    update->count = c->block_count;
}

void at_consensus_step(struct at_consensus *c, const struct at_consensus_event *event,
                       struct at_consensus_update *ret_update)
{
    memset(ret_update, 0, sizeof *ret_update);
    switch (event->kind) {
    case AT_CONSENSUS_SUBMIT:
        ret_update->err = submit(c, event->record, event->tag);
        break;
    case AT_CONSENSUS_TICK:
        if (c->in_flight) break;
        ret_update->refused_count = take_block(c);
        ret_update->refused = c->refused;
        if (c->block_count == 0) break;
        c->in_flight = true;
        ret_update->persist = true;
        describe_block(c, ret_update);
        break;
    case AT_CONSENSUS_PERSISTED:
        if (!c->in_flight) break;
        c->in_flight = false;
        ret_update->final = true;
        describe_block(c, ret_update);
        break;
    }
}
