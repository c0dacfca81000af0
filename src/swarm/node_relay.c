/* node_relay.c: records on their way to the steward. A record is signed by its author, so anybody may carry it: a
 * member passes what it gets to its own feed (node_route.c), hop by hop, until it is with the steward.
 *
 *   a Submit of                        at a member                              at the steward
 *   its sender's own, beyond its       Bye, closes                              Bye, closes
 *   budget
 *   another's, sender no member        refused; but a JOIN: its own may be on   the same
 *                                      its way. It pays from its own budget,
 *                                      and a wrong signature is its fault: Bye
 *   a JOIN, beyond what all newcomers  dropped                                  dropped
 *   may have, or a carrier's budget
 *   another's, beyond its author's     dropped (whoever passes it on is         dropped
 *   budget                             not to blame)
 *   one that the fold would refuse     refused                                  refused
 *   a JOIN of one who is a member      ignored: it is in the log, which is on   ignored
 *                                      its way to the author
 *   a RECEIPT                          the update is fetched from the sender,   the same; then it is looked at, and
 *                                      then it is passed on: whoever hands in   the receipt ordered
 *                                      a receipt can serve its update
 *   anything else                      passed on; the same again only after     ordered
 *                                      two seconds; without a way: dropped
 *
 * A Refused goes back the way the record came. Nobody else answers: the author sees its record in the log, or sends it
 * again after five seconds (a receipt, which may wait for company (node_company.c), later), or when its way to the steward
 * is another. One whose records got lost twice on a way takes another one. At most one receipt per author waits at a node,
 * and so many in all as it has room for links. */
#include "swarm/node_internal.h"

#include <stdio.h>
#include <string.h>

void at_node_refused(struct at_node_machine *m, uint64_t link, struct at_hash record, const char *reason)
{
    if (!at_node_link_find(m, link)) return;
    struct at_message msg = {.kind = AT_MSG_REFUSED};
    msg.refused.record = record;
    at_reason_set(msg.refused.reason, reason);
    at_node_send(m, link, &msg);
}

bool at_node_author_spend(struct at_node_machine *m, const struct at_node_id *author)
{
    int r = at_ledger_find(&m->ledger, author);
    if (r < 0) return at_node_spend(&m->mesh.newcomers, m->now_ms, 1, AT_NODE_SUBMIT_BURST, AT_NODE_SUBMIT_MS);
    return at_node_spend(&m->mesh.peers[r].author, m->now_ms, 1, AT_NODE_AUTHOR_BURST, AT_NODE_AUTHOR_MS);
}

/* ---- passing on ---- */
static struct at_node_relayed *relayed_find(struct at_node_machine *m, struct at_hash leaf)
{
    for (size_t i = 0; i < AT_NODE_RELAYED_MAX; i++)
        if (m->mesh.relayed[i].from && at_hash_eq(m->mesh.relayed[i].leaf, leaf)) return &m->mesh.relayed[i];
    return NULL;
}

static void pass_on(struct at_node_machine *m, const struct at_signed_record *record, uint64_t from)
{
    struct at_hash leaf = at_signed_record_leaf(record);
    struct at_node_relayed *known = relayed_find(m, leaf);
    if (!m->mesh.path || m->mesh.feed == from) return;
    if (known && m->now_ms < known->ms + AT_NODE_RELAY_AGAIN_MS) return;
    if (!known) known = &m->mesh.relayed[m->mesh.relayed_next++ % AT_NODE_RELAYED_MAX];
    *known = (struct at_node_relayed){.leaf = leaf, .from = from, .ms = m->now_ms};
    struct at_message msg = {.kind = AT_MSG_SUBMIT};
    msg.submit.record = record;
    at_node_send(m, m->mesh.feed, &msg);
}

/* ---- receipts wait for their updates ---- */
static bool is_of_fewer(const struct at_receipt *r, const struct at_receipt *than)
{
    return r->group != 0 && r->group != than->group && (r->group & ~than->group) == 0;
}

/* It comes instead of that one, or beside it while that one's update is looked at; whose answer would be taken for its own if
 * the update were the same, though it may not fit its stage. */
static bool replaces(const struct at_receipt *r, const struct at_node_receipt *w)
{
    return is_of_fewer(r, &w->rec.receipt) && !(w->checks && at_hash_eq(r->update, w->rec.receipt.update));
}

static void receipt_drop(struct at_node_machine *m, struct at_node_receipt *w)
{
    struct at_node_fetch *f = at_node_fetch_find(m, AT_BLOB_UPDATE, w->rec.receipt.update);
    m->company -= w->waits;
    w->used = w->waits = false;
    if (f && f->only_link == w->link) at_node_fetch_cancel(m, f);
}

static void receipt_take(struct at_node_machine *m, struct at_node_link *link, const struct at_signed_record *record,
                         const struct at_record *rec)
{
    struct at_node_receipt *slot = NULL;
    struct at_hash leaf = at_signed_record_leaf(record);
    for (size_t i = 0; i < m->receipt_top; i++) {
        struct at_node_receipt *w = &m->cold->receipts[i];
        if (!w->used && !slot) slot = w;
        if (!w->used || !at_node_id_eq(&w->record.author, &record->author)) continue;
        if (replaces(&rec->receipt, w)) { /* it computes without somebody now */
            if (w->waits)
                at_node_company_leave(m, w);
            else if (!w->checks)
                receipt_drop(m, w);
            if (!w->used && !slot) slot = w;
            continue;
        }
        if (!at_hash_eq(leaf, at_signed_record_leaf(&w->record)))
            at_node_refused(m, link->id, leaf, "another receipt of yours waits for its update");
        return;
    }
    if (!slot && m->receipt_top < AT_NODE_RECEIPTS_MAX) slot = &m->cold->receipts[m->receipt_top];
    const struct at_receipt *r = &rec->receipt;
    const struct at_node_fetch *known = at_node_fetch_find(m, AT_BLOB_UPDATE, r->update);
    if (known && known->bytes_exact != r->update_bytes) {
        at_node_refused(m, link->id, leaf, "its update is known with another size");
        return;
    }
    if (!slot || !at_node_fetch(m, AT_BLOB_UPDATE, r->update, r->update_bytes, r->update_bytes, link->id)) {
        at_node_refused(m, link->id, leaf, "the steward fetches too many updates");
        return;
    }
    if (m->receipt_top <= (size_t)(slot - m->cold->receipts)) m->receipt_top = (size_t)(slot - m->cold->receipts) + 1;
    *slot = (struct at_node_receipt){.used = true, .link = link->id, .record = *record, .rec = *rec};
}

void at_node_update_check(struct at_node_machine *m, uint64_t link, const struct at_receipt *r)
{
    struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_UPDATE_CHECK);
    op->link = link;
    op->read.kind = AT_BLOB_UPDATE;
    op->read.key = r->update;
    op->unit.round = r->round;
    op->unit.replica = r->replica;
    op->unit.start = r->start;
    op->unit.samples = r->samples;
    op->unit.steps = r->steps;
    op->unit.cut = at_ledger_cut(&m->ledger, r->replica, r->group);
    if (op->unit.cut.stages > 1) /* else it is alone; or the round is over, and nobody takes it any more */
        op->unit.stage = (uint32_t)at_group_stage(r->group, m->ledger.groups[r->replica].place);
}

/* That the bytes have their hash says nothing about them: an update that nobody can apply, once counted, would stop
 * every member at this round for ever. So the steward looks at them before it orders the receipt. */
void at_node_relay_fetched(struct at_node_machine *m, struct at_hash key)
{
    for (size_t i = 0; i < m->receipt_top; i++) {
        struct at_node_receipt *w = &m->cold->receipts[i];
        const struct at_receipt *r = &w->rec.receipt;
        if (!w->used || w->checks || w->waits || !at_hash_eq(r->update, key)) continue;
        bool late = at_node_among_several(m) && !at_node_state_confirmed(m); /* cannot judge; each steward does */
        if (!m->is_steward || late) {
            w->used = false;
            if (late)
                at_node_submit_own(m, &w->record, w->link);
            else
                pass_on(m, &w->record, w->link);
            continue;
        }
        w->checks = true;
        at_node_update_check(m, w->link, r);
    }
}

void at_node_relay_checked(struct at_node_machine *m, const struct at_node_event *e)
{
    at_node_hold_checked(m, e);
    for (size_t i = 0; i < m->receipt_top; i++) {
        struct at_node_receipt *w = &m->cold->receipts[i];
        if (!w->used || !w->checks || w->link != e->link || !at_hash_eq(w->rec.receipt.update, e->blob.key)) continue;
        w->used = w->checks = false;
        m->unfit[w->rec.receipt.replica] = !e->blob.ok;
        at_node_hold_set(m, w->rec.receipt.replica, e->blob.key, e->blob.ok);
        if (e->blob.ok)
            at_node_company_join(m, w);
        else
            at_node_refused(m, w->link, at_signed_record_leaf(&w->record),
                            e->reason && e->reason[0] ? e->reason : "its update cannot be applied");
        return;
    }
}

void at_node_relay_lost(struct at_node_machine *m, const struct at_node_link *link)
{
    for (size_t i = 0; i < m->receipt_top; i++) {
        struct at_node_receipt *w = &m->cold->receipts[i];
        if (!w->used || w->link != link->id) continue;
        if (w->waits)
            w->link = UINT64_MAX; /* nothing more is needed of its author */
        else
            receipt_drop(m, w);
    }
    for (size_t i = 0; i < AT_NODE_RELAYED_MAX; i++)
        if (m->mesh.relayed[i].from == link->id) m->mesh.relayed[i].from = 0;
}

/* The round has closed: what has not come in by now cannot count, so its update is not fetched any further. */
void at_node_relay_drive(struct at_node_machine *m)
{
    while (m->receipt_top > 0 && !m->cold->receipts[m->receipt_top - 1].used) m->receipt_top--;
    if (!m->has_genesis || !at_node_settled(m) || m->ledger.phase == AT_LEDGER_TRAINING) return;
    for (size_t i = 0; i < m->receipt_top; i++) {
        struct at_node_receipt *w = &m->cold->receipts[i];
        if (!w->used) continue;
        receipt_drop(m, w);
        at_node_refused(m, w->link, at_signed_record_leaf(&w->record), "the round has closed meanwhile");
    }
}

/* ---- submitting ---- */
static bool is_join(const struct at_signed_record *record)
{
    struct at_record rec;
    at_err_t err = at_record_decode(at_span(record->body, record->body_bytes), NULL, &rec);
    return !err && rec.kind == AT_RECORD_JOIN;
}

bool at_node_joins_again(const struct at_node_machine *m, const struct at_signed_record *record)
{
    int r = at_ledger_find(&m->ledger, &record->author);
    return r >= 0 && m->ledger.members[r].active && is_join(record);
}

void at_node_submit(struct at_node_machine *m, struct at_node_link *link, const struct at_signed_record *record)
{
    struct at_diag diag = {0};
    struct at_record rec;
    struct at_hash leaf = at_signed_record_leaf(record);
    bool own = at_node_id_eq(&record->author, &link->node), member = at_node_link_member(m, link);
    bool newcomer = at_ledger_find(&m->ledger, &record->author) < 0;
    /* A carrier pays for newcomers, whose keys cost nothing; a member, who may pass on what it did not ask for, is not
     * shown the door for it. */
    struct at_node_bucket *pays = own ? &link->cold->submits : &link->cold->carries;
    if ((own || newcomer || !member) && !at_node_spend(pays, m->now_ms, 1, AT_NODE_SUBMIT_BURST, AT_NODE_SUBMIT_MS)) {
        if (own || !member) at_node_link_refuse(m, link, "too many records");
        return;
    }
    if (!m->has_genesis || (!m->is_steward && !m->mesh.path)) return; /* it will come again */
    if (!own && !member && !is_join(record)) {
        at_node_refused(m, link->id, leaf, "the record's author is not the one who sends it");
        return;
    }
    if (!own && !newcomer && !at_node_author_spend(m, &record->author)) return;
    if (at_signed_record_verify_by(record, m->options.verifier)) {
        if (member || own)
            at_node_refused(m, link->id, leaf, "wrong signature");
        else
            at_node_link_refuse(m, link, "a record with a wrong signature");
        return;
    }
    if (at_node_joins_again(m, record)) return;
    if (at_ledger_judge(&m->ledger, record, &diag, &rec)) {
        at_node_refused(m, link->id, leaf, diag.text);
        return;
    }
    if (!own && newcomer && !at_node_author_spend(m, &record->author)) return; /* all of them together */
    bool fetch = rec.kind == AT_RECORD_RECEIPT && m->options.canary != AT_NODE_CANARY_COUNT_UNFETCHED;
    if (fetch)
        receipt_take(m, link, record, &rec);
    else if (rec.kind == AT_RECORD_JOIN && m->joins && m->ledger.seats.count == 1)
        at_node_company_newcomer(m, record, link->id);
    else if (m->is_steward)
        at_node_submit_own(m, record, link->id);
    else
        pass_on(m, record, link->id);
}

static void submit_among_several(struct at_node_machine *m, const struct at_signed_record *record, uint64_t tag)
{
    struct at_hash leaf = at_signed_record_leaf(record);
    struct at_node_relayed *known = relayed_find(m, leaf);
    if (!known) known = &m->mesh.relayed[m->mesh.relayed_next++ % AT_NODE_RELAYED_MAX];
    *known = (struct at_node_relayed){.leaf = leaf, .from = tag, .ms = m->now_ms};
    at_err_t err = at_node_simplex(m, (struct at_simplex_event){.kind = AT_SIMPLEX_SUBMIT, .record = record});
    if (err == AT_E_TOO_BIG) at_node_refused(m, tag, leaf, "the stewards have too much to do");
}

void at_node_refused_late(struct at_node_machine *m, struct at_hash leaf, const char *reason)
{
    struct at_node_relayed *way = relayed_find(m, leaf);
    if (!way) return;
    at_node_refused(m, way->from, leaf, reason);
    way->from = 0;
}

void at_node_submit_own(struct at_node_machine *m, const struct at_signed_record *record, uint64_t tag)
{
    if (at_node_among_several(m)) {
        submit_among_several(m, record, tag);
        return;
    }
    if (!m->consensus) return; /* no steward any more: its submitter sends it again */
    struct at_consensus_event event = {.kind = AT_CONSENSUS_SUBMIT, .record = record, .tag = tag};
    struct at_consensus_update update;
    at_consensus_step(m->consensus, &event, &update);
    if (update.err) at_node_refused(m, tag, at_signed_record_leaf(record), "the steward has too much to do");
}

bool at_node_sign_own(struct at_node_machine *m, struct at_record *record, struct at_signed_record *ret_signed)
{
    return at_node_sign_at(m, record, m->wall_ms, ret_signed);
}

bool at_node_sign_at(struct at_node_machine *m, struct at_record *record, uint64_t time_ms,
                     struct at_signed_record *ret_signed)
{
    struct at_diag diag = {0};
    record->run = m->options.run;
    record->time_ms = time_ms;
    if (at_record_sign(record, &m->options.key, &diag, ret_signed) == AT_OK) return true;
    at_node_end(m, AT_E_INTERNAL, "a record of our own is out of shape: %s", diag.text);
    return false;
}

/* ---- own records ---- */
bool at_node_own_sign(struct at_node_machine *m, enum at_node_own_what what, struct at_record *record, uint64_t time_ms)
{
    m->own[what] = (struct at_node_own){.is_signed = at_node_sign_at(m, record, time_ms, &m->cold->own[what])};
    return m->own[what].is_signed;
}

static uint64_t resubmit_ms(const struct at_node_machine *m, enum at_node_own_what what)
{
    uint64_t company_ms = what == AT_NODE_OWN_RECEIPT ? at_node_company_most_ms(m) : 0;
    return m->own[what].sent_ms + AT_NODE_RESUBMIT_MS + company_ms;
}

void at_node_own_send(struct at_node_machine *m, enum at_node_own_what what)
{
    struct at_node_own *own = &m->own[what];
    if (own->path == m->mesh.path && m->now_ms < resubmit_ms(m, what)) return;
    own->tries = own->path == m->mesh.path ? own->tries + 1 : 0;
    own->path = m->mesh.path;
    own->sent_ms = m->now_ms;
    if (m->is_steward) {
        at_node_own_submit(m, what);
        return;
    }
    struct at_message msg = {.kind = AT_MSG_SUBMIT};
    msg.submit.record = &m->cold->own[what];
    at_node_send(m, m->mesh.feed, &msg);
    if (own->tries == 2) at_node_route_distrust(m);
}

uint64_t at_node_own_deadline_ms(const struct at_node_machine *m)
{
    uint64_t deadline = UINT64_MAX;
    if (m->consensus || !m->mesh.path) return deadline;
    for (int what = 0; what < AT_NODE_OWN_COUNT; what++) {
        if (m->own[what].path != m->mesh.path) continue;
        uint64_t due = resubmit_ms(m, (enum at_node_own_what)what);
        if (due > m->now_ms && due < deadline) deadline = due;
    }
    return deadline;
}

/* An earlier JOIN of ours may be on its way into the log, and this one have been refused for that. */
static void own_refused(struct at_node_machine *m, struct at_hash leaf, const char *reason)
{
    at_node_note(m, "the steward refused a record: %s", reason);
    if (at_node_joined(m) || !m->own[AT_NODE_OWN_JOIN].is_signed || m->join_refused_ms) return;
    if (!at_hash_eq(leaf, at_signed_record_leaf(&m->cold->own[AT_NODE_OWN_JOIN]))) return;
    m->join_refused_ms = m->now_ms + 1;
    memcpy(m->join_reason, reason, sizeof m->join_reason);
}

void at_node_refusal(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_refused *msg)
{
    struct at_node_relayed *way = relayed_find(m, msg->record);
    if (link->id != m->mesh.feed) return;
    if (way)
        at_node_refused(m, way->from, msg->record, msg->reason);
    else
        own_refused(m, msg->record, msg->reason);
}
