/* node_log.c: the log between nodes.
 *
 * Following: LogGet(own size) to the feed (node_route.c); each part is answered by the next LogGet, until one says that
 * it reaches the head ("live", it may be empty). From then on the peer pushes every new block by itself. That the part
 * itself says so matters: a log that grows faster than a question takes would never be found to be at its head.
 * Serving is the mirror image: a link becomes live when a LogGet has been answered up to the head, and a LogGet "once"
 * ends that. Everybody serves what it has a checkpoint for, and takes parts from any peer that it has asked: they are
 * proven by the stewards' checkpoints. A part ends where a term ends: who is to have signed the next one follows from it.
 * A part that proves nothing is its sender's fault; only over a single steward's own link, or when the fold refuses what
 * the stewards have signed, is it theirs, and then this node ends. */
#include "swarm/node_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct at_node_history *at_node_history(struct at_node_machine *m, uint32_t round)
{
    struct at_node_history *h = &m->history[round % AT_NODE_HISTORY];
    return h->opened && h->round == round ? h : NULL;
}

static at_err_t remember_close(struct at_node_machine *m, uint32_t round)
{
    struct at_node_history *h = at_node_history(m, round);
    size_t included = 0;
    AT_ASSERT(h);
    for (uint32_t r = 0; r < m->ledger.member_count; r++) {
        const struct at_allotment *u = at_ledger_allotment(&m->ledger, r);
        included += u && u->included;
    }
    free(h->list);
    h->count = 0;
    h->list = calloc(included ? included : 1, sizeof *h->list);
    if (!h->list) return AT_E_NOMEM;
    h->closed = true;
    for (uint32_t lead = 0; lead < m->ledger.member_count; lead++) { /* a unit's parts one after the other */
        if (!at_ledger_allotment(&m->ledger, lead) || m->ledger.groups[lead].place != 0) continue;
        for (uint32_t r = lead; r != AT_GROUP_END; r = m->ledger.groups[r].next) {
            const struct at_allotment *u = at_ledger_allotment(&m->ledger, r);
            if (u && u->included)
                h->list[h->count++] = (struct at_node_contribution){.replica = r,
                                                                    .unit = lead,
                                                                    .tokens = u->receipt.tokens,
                                                                    .update_bytes = u->receipt.update_bytes,
                                                                    .update = u->receipt.update};
        }
    }
    return AT_OK;
}

static void remember_open(struct at_node_machine *m)
{
    struct at_node_history *h = &m->history[m->ledger.round % AT_NODE_HISTORY];
    h->opened = true;
    h->closed = h->epoch = false;
    h->round = m->ledger.round;
    h->state_in = m->ledger.state_root;
    h->count = 0;
    at_node_state_opened(m);
    at_node_steward_opened(m);
}

_Static_assert(AT_LOG_PART_MAX <= AT_FOLLOWER_PART_MAX, "the follower takes whole parts");

/* The fold, and beside it what later outer steps need and the fold forgets. Among several stewards it is the last word
 * that a step needs which takes it: so the ledger is looked at, and not the record. */
at_err_t at_node_take(void *user, const struct at_signed_record *record, struct at_hash leaf, struct at_diag *diag)
{
    struct at_node_machine *m = user;
    struct at_record rec;
    enum at_ledger_phase before = m->ledger.phase;
    at_node_fold_before(m, record);
    at_err_t err = at_node_peers_room(m);
    if (!err) err = at_ledger_apply_leaf(&m->ledger, record, leaf, diag, &rec);
    if (err) return err;
    at_node_fold_after(m, record);
    if (rec.kind == AT_RECORD_JOIN || rec.kind == AT_RECORD_LEAVE) at_node_member_changed(m, &record->author);
    if (rec.kind == AT_RECORD_JOIN) at_node_ring_add(m, (uint32_t)at_ledger_find(&m->ledger, &record->author));
    if (rec.kind == AT_RECORD_RECEIPT) at_node_held_receipt(m, rec.receipt.replica);
    if (rec.kind == AT_RECORD_LEAVE) at_node_ring_drop(m, (uint32_t)at_ledger_find(&m->ledger, &record->author));
    if (rec.kind == AT_RECORD_JOIN || rec.kind == AT_RECORD_LEAVE) m->mesh.ask_wanted = true;
    if (m->ledger.phase == before) return AT_OK;
    if (m->ledger.phase == AT_LEDGER_TRAINING) {
        remember_open(m);
    } else if (m->ledger.phase == AT_LEDGER_CLOSED) {
        return remember_close(m, m->ledger.round);
    } else if (m->ledger.phase == AT_LEDGER_READY) {
        struct at_node_history *h = at_node_history(m, m->ledger.round - 1);
        h->epoch = true;
        h->state_out = m->ledger.state_root;
        m->tiles.newest_ms = m->now_ms;
    }
    return AT_OK;
}

void at_node_log_start(struct at_node_machine *m)
{
    m->follower = (struct at_follower){.run = m->options.run,
                                       .invite_size = m->options.invite_log_size,
                                       .invite_root = m->options.invite_log_root,
                                       .log = m->ledger.tree,
                                       .verifier = m->options.verifier,
                                       .take = at_node_take,
                                       .user = m};
    at_node_seats_changed(m);
    at_node_follow_seats(m, &m->ledger.seats);
    m->final_root = at_merkle_root(&m->ledger.tree);
    if (!m->consensus) return;
    struct at_consensus_options options = {
        .key = m->options.key, .run = m->options.run, .take = at_node_take, .user = m, .log = m->ledger.tree};
    at_consensus_init(m->consensus, &options);
}

/* ---- serving ---- */
static void log_read(struct at_node_machine *m, struct at_node_link *link)
{
    link->log_reading = true;
    struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_LOG_READ);
    op->link = link->id;
    op->read.offset = link->log_from;
    op->read.total = at_ledger_term_end(&m->ledger, link->log_from); /* a part ends where a term ends */
    if (op->read.total > at_node_log_size(m)) op->read.total = at_node_log_size(m);
}

static void send_part(struct at_node_machine *m, uint64_t link, uint64_t from, const struct at_signed_record *records,
                      size_t count, const struct at_log_checkpoint *checkpoints, size_t checkpoint_count, bool live)
{
    struct at_message msg = {.kind = AT_MSG_LOG_PART};
    msg.log_part = (struct at_msg_log_part){.from = from,
                                            .records = records,
                                            .record_count = (uint32_t)count,
                                            .checkpoints = checkpoints,
                                            .checkpoint_count = (uint32_t)checkpoint_count,
                                            .live = live};
    at_node_send(m, link, &msg);
}

void at_node_log_get(struct at_node_machine *m, struct at_node_link *link, uint64_t from, bool once)
{
    if (m->consensus && from > at_node_log_size(m)) {
        at_node_link_refuse(m, link, "your log is longer than mine");
        return;
    }
    link->log_live = link->log_pushing = false;
    link->log_once = once;
    link->log_from = from;
    if (from > link->head) link->head = from;
    if (link->log_reading) return; /* its answer is dropped and read again from here */
    if (from >= at_node_log_size(m)) {
        send_part(m, link->id, from, NULL, 0, NULL, 0, !once);
        link->log_live = !once;
    } else {
        log_read(m, link);
    }
}

void at_node_log_data(struct at_node_machine *m, const struct at_node_event *e)
{
    struct at_node_link *link = at_node_link_find(m, e->link);
    if (!link || link->closing || !link->log_reading) return;
    link->log_reading = false;
    bool pushing = link->log_pushing;
    if (e->log.from != link->log_from) {
        at_node_log_get(m, link, link->log_from, link->log_once);
        link->log_pushing = pushing;
        return;
    }
    /* What is stored may be further than what is final: the store answered before PERSISTED did. */
    uint64_t final_size = at_node_log_size(m), end = at_ledger_term_end(&m->ledger, e->log.from);
    size_t count = e->log.count, checkpoints = e->log.checkpoint_count;
    if (end > final_size) end = final_size;
    if (count > AT_LOG_PART_MAX) count = AT_LOG_PART_MAX;
    if (e->log.from + count > end) count = (size_t)(end - e->log.from);
    while (checkpoints > 0 && e->log.checkpoints[checkpoints - 1].size > e->log.from + count) checkpoints--;
    if (count > 0 && checkpoints == 0) {
        at_node_link_refuse(m, link, "the log cannot be read here");
        return;
    }
    if (count > 0) count = (size_t)(e->log.checkpoints[checkpoints - 1].size - e->log.from);
    size_t skip = checkpoints; /* those of the last size do: they vouch for all before it */
    while (skip > 0 && e->log.checkpoints[skip - 1].size == e->log.checkpoints[checkpoints - 1].size) skip--;
    link->log_live = !link->log_once && e->log.from + count == final_size;
    send_part(m, link->id, e->log.from, e->log.records, count, e->log.checkpoints + skip, checkpoints - skip,
              link->log_live);
    if (e->log.from + count > link->head) link->head = e->log.from + count;
    if (!pushing || link->log_live || count == 0) return;
    at_node_log_get(m, link, e->log.from + count, false);
    link->log_pushing = true;
}

void at_node_log_push_read(struct at_node_machine *m)
{
    for (size_t i = 0; i < m->link_top; i++) {
        struct at_node_link *l = &m->links[i];
        if (!l->used || l->closing || !l->log_live || l->head >= at_node_log_size(m)) continue;
        at_node_log_get(m, l, l->head, false);
        l->log_pushing = true;
    }
}

void at_node_log_push(struct at_node_machine *m, uint64_t from, const struct at_signed_record *records, size_t count,
                      const struct at_log_checkpoint *checkpoints, size_t checkpoint_count)
{
    bool encoded = false;
    for (size_t i = 0; i < m->link_top; i++) {
        struct at_node_link *l = &m->links[i];
        if (!l->used || l->closing || !l->log_live || l->head >= from + count) continue;
        l->head = from + count;
        if (encoded)
            at_node_send_again(m, l->id);
        else
            send_part(m, l->id, from, records, count, checkpoints, checkpoint_count, false);
        encoded = true;
    }
}

/* ---- following ---- */
void at_node_log_ask(struct at_node_machine *m, struct at_node_link *link, bool once)
{
    struct at_message msg = {.kind = AT_MSG_LOG_GET};
    msg.log_get.from = m->follower.log.size;
    msg.log_get.once = once;
    at_node_send(m, link->id, &msg);
    link->followed = true;
}

static void part_refused(struct at_node_machine *m, struct at_node_link *link, at_err_t err, const struct at_diag *diag)
{
    bool steward = m->ledger.seats.count == 1 && at_node_id_eq(&link->node, &m->genesis.steward);
    at_node_link_refuse(m, link, diag->text);
    if (m->follower.broken || (steward && err == AT_E_VERIFY)) at_node_end(m, AT_E_VERIFY, "%s", diag->text);
}

/* "You are at the head", of an answer that ends at `end`. When more has come from others meanwhile, the feed is asked
 * again from there. */
static void at_head(struct at_node_machine *m, const struct at_node_link *link, uint64_t end)
{
    uint64_t size = m->follower.log.size;
    if (link->id != m->mesh.feed || end != size) return;
    m->mesh.feed_live = true;
    if (size < m->options.invite_log_size) /* it lacks what the invite's node has seen */
        at_node_route_distrust(m);
    else
        m->log_synced = true;
}

void at_node_log_part(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_log_part *part)
{
    struct at_diag diag = {0};
    if (m->consensus || !m->has_genesis || !link->followed) {
        at_node_link_refuse(m, link, "nobody asked for this log");
        return;
    }
    uint64_t size = m->follower.log.size, end = part->from + part->record_count;
    bool caught = link->catch_asked, feed = link->id == m->mesh.feed;
    if (feed) m->log_asked = false;
    link->catch_asked = false;
    if (part->record_count == 0 && !feed && link->head > size) link->head = size; /* it promised more than it has */
    if (part->record_count > 0 && end > link->head) link->head = end;
    if (end <= size) { /* known: it may come over two links */
        if (part->live || part->record_count == 0) at_head(m, link, end);
        return;
    }
    uint32_t skip = part->from < size ? (uint32_t)(size - part->from) : 0, skip_checkpoints = 0;
    while (skip_checkpoints < part->checkpoint_count && part->checkpoints[skip_checkpoints].size <= size)
        skip_checkpoints++;
    const struct at_signed_record *records = part->records + skip;
    const struct at_log_checkpoint *checkpoints = part->checkpoints + skip_checkpoints;
    uint32_t count = part->record_count - skip, checkpoint_count = part->checkpoint_count - skip_checkpoints;
    if (part->from > size) { /* a push that overtook what it builds on: the gap is asked for */
        if (link->id == m->mesh.feed) m->mesh.feed_live = false;
        return;
    }
    at_err_t err =
        at_follower_part(&m->follower, part->from + skip, records, count, checkpoints, checkpoint_count, &diag);
    if (err) {
        part_refused(m, link, err, &diag);
        return;
    }
    m->mesh.behind_ms = 0;
    m->agree.told = m->agree.fresh_from = m->follower.log.size;
    m->agree.fresh_count = 0;
    struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_PERSIST);
    op->persist.from = size;
    op->persist.records = records;
    op->persist.count = count;
    op->persist.checkpoints = checkpoints;
    op->persist.checkpoint_count = checkpoint_count;
    at_node_log_push(m, size, records, count, checkpoints, checkpoint_count);
    if (part->live) at_head(m, link, end);
    if (!caught || link->head <= m->follower.log.size) return;
    at_node_log_ask(m, link, true);
    link->catch_asked = true;
}

/* ---- the steward's order ---- */
void at_node_persisted(struct at_node_machine *m)
{
    at_node_agree_persisted(m);
    if (!m->consensus && !m->agree.simplex) at_node_quiet(m); /* a follower waits for no write */
    if (!m->consensus) return;
    struct at_consensus_event event = {.kind = AT_CONSENSUS_PERSISTED};
    struct at_consensus_update update;
    at_consensus_step(m->consensus, &event, &update);
    if (update.final) m->final_root = update.checkpoints[update.count - 1].root;
    if (update.final && m->options.canary != AT_NODE_CANARY_ACK_EARLY)
        at_node_log_push(m, update.from, update.records, update.count, update.checkpoints, update.count);
}

void at_node_consensus_tick(struct at_node_machine *m)
{
    if (!m->consensus || (m->ledger.seats.count > 1 && !m->consensus->in_flight)) return;
    struct at_consensus_event event = {.kind = AT_CONSENSUS_TICK};
    struct at_consensus_update update;
    at_consensus_step(m->consensus, &event, &update);
    /* After the EPOCH that begins the term of several, this steward orders nothing: it comes to them another way. */
    for (size_t i = 0; i < update.refused_count && m->ledger.seats.count == 1; i++) {
        const struct at_consensus_refusal *no = &update.refused[i];
        if (at_node_joins_again(m, no->what)) continue; /* two JOINs of one author were queued */
        if (no->tag)
            at_node_refused(m, no->tag, no->record, no->diag.text);
        else
            at_node_end(m, AT_E_INTERNAL, "a record of our own was refused: %s", no->diag.text);
    }
    if (!update.persist) return;
    struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_PERSIST);
    op->persist.from = update.from;
    op->persist.records = update.records;
    op->persist.count = update.count;
    op->persist.checkpoints = update.checkpoints;
    op->persist.checkpoint_count = update.count;
    if (m->options.canary == AT_NODE_CANARY_ACK_EARLY)
        at_node_log_push(m, update.from, update.records, update.count, update.checkpoints, update.count);
}
