/* node_words.c: what one steward among several says of a round, and how it knows what it says: each OPEN, CLOSE, EPOCH
 * and END of it is a word (ledger/words.h), said on its own clock and of what it holds itself.
 *
 *   has            does
 *   nothing to     the word that node_steward.c has for it, once: signed, submitted, until it is final or its phase over
 *   wait for
 *   said another   the new one after two seconds, after four more, eight more, ...: a seat has eight words for a phase
 *   a receipt in   fetches the update, from anybody, looks whether it can be applied, and holds it: only then its CLOSE
 *   the log        names the replica
 */
#include "swarm/node_internal.h"

#include <string.h>

bool at_node_word(struct at_node_machine *m, struct at_record *rec)
{
    struct at_node_agree *a = &m->agree;
    const struct at_ledger *l = &m->ledger;
    const struct at_steward_words *words = rec->kind == AT_RECORD_END ? &l->end_words : &l->words;
    const struct at_word word = at_ledger_word(rec);
    int self = at_node_self(m), seat = at_ledger_seat(l, &m->options.key.id);
    struct at_signed_record record;
    if (self < 0 || seat < 0 || at_words_has(words, (uint32_t)seat, &word)) return false;
    if (!at_words_left(words, (uint32_t)seat)) return false;
    bool over = a->word_round != l->round || a->word_phase != (int)l->phase;
    if (a->word_pending && !over) return false;
    bool again = (words->said >> seat & 1) != 0;
    if (again && m->now_ms < a->word_ms) return false;
    uint64_t later = l->members[self].word_ms + 1;
    if (!at_node_sign_at(m, rec, m->wall_ms > later ? m->wall_ms : later, &record)) return false;
    a->word_pending = true;
    a->word_leaf = at_signed_record_leaf(&record);
    a->word_round = l->round;
    a->word_phase = (int)l->phase;
    a->word_ms = m->now_ms + ((uint64_t)AT_NODE_WORD_AGAIN_MS << words->count[seat]);
    at_node_submit_own(m, &record, 0);
    return true;
}

/* ---- the updates of logged receipts ---- */
static bool is_held(const struct at_node_machine *m, uint32_t r, const struct at_allotment *u, enum at_node_hold state)
{
    return m->agree.hold[r].state == state && at_hash_eq(m->agree.hold[r].update, u->receipt.update);
}

bool at_node_holds(const struct at_node_machine *m, uint32_t r)
{
    const struct at_allotment *u = at_ledger_allotment(&m->ledger, r);
    return u && u->received && is_held(m, r, u, AT_NODE_HOLD_YES);
}

/* It is on its way, so that a CLOSE should wait for it. */
bool at_node_hold_awaited(struct at_node_machine *m, uint32_t r)
{
    const struct at_allotment *u = at_ledger_allotment(&m->ledger, r);
    if (!u || !u->received || is_held(m, r, u, AT_NODE_HOLD_YES) || is_held(m, r, u, AT_NODE_HOLD_NO)) return false;
    const struct at_node_fetch *f = at_node_fetch_find(m, AT_BLOB_UPDATE, u->receipt.update);
    return !f || f->turns < AT_NODE_FETCH_TURNS;
}

void at_node_hold_set(struct at_node_machine *m, uint32_t replica, struct at_hash update, bool fit)
{
    if (!m->agree.hold || replica >= AT_MEMBERS_MAX) return;
    m->agree.hold[replica].state = fit ? AT_NODE_HOLD_YES : AT_NODE_HOLD_NO;
    m->agree.hold[replica].update = update;
}

void at_node_hold_clear(struct at_node_machine *m)
{
    if (m->agree.hold) memset(m->agree.hold, 0, AT_MEMBERS_MAX * sizeof *m->agree.hold);
}

static void look_at(struct at_node_machine *m, uint32_t r, const struct at_receipt *receipt)
{
    m->agree.hold[r].state = AT_NODE_HOLD_CHECK;
    m->agree.hold[r].update = receipt->update;
    at_node_update_check(m, 0, receipt);
}

/* An update is here. */
void at_node_hold_fetched(struct at_node_machine *m, struct at_hash key)
{
    if (!at_node_among_several(m) || m->ledger.phase != AT_LEDGER_TRAINING || !at_node_state_confirmed(m)) return;
    for (uint32_t r = 0; r < m->ledger.member_count; r++) {
        const struct at_allotment *u = at_ledger_allotment(&m->ledger, r);
        if (!u || !u->received || !at_hash_eq(u->receipt.update, key)) continue;
        if (m->agree.hold[r].state == AT_NODE_HOLD_NONE || !at_hash_eq(m->agree.hold[r].update, key))
            look_at(m, r, &u->receipt);
    }
}

void at_node_hold_checked(struct at_node_machine *m, const struct at_node_event *e)
{
    if (!m->agree.hold) return;
    for (uint32_t r = 0; r < m->ledger.member_count; r++)
        if (m->agree.hold[r].state == AT_NODE_HOLD_CHECK && at_hash_eq(m->agree.hold[r].update, e->blob.key))
            at_node_hold_set(m, r, e->blob.key, e->blob.ok);
}

void at_node_hold_drive(struct at_node_machine *m)
{
    uint32_t fetches = 0;
    if (!at_node_among_several(m) || m->ended || m->ledger.phase != AT_LEDGER_TRAINING || !at_node_state_confirmed(m))
        return;
    for (uint32_t r = 0; r < m->ledger.member_count && fetches < AT_NODE_HOLDS_MAX; r++) {
        const struct at_allotment *u = at_ledger_allotment(&m->ledger, r);
        if (!u || !u->received) continue;
        const struct at_receipt *receipt = &u->receipt;
        if (m->agree.hold[r].state != AT_NODE_HOLD_NONE && at_hash_eq(m->agree.hold[r].update, receipt->update))
            continue;
        m->agree.hold[r].state = AT_NODE_HOLD_NONE;
        fetches += at_node_fetch_update(m, m->ledger.round, r, receipt->update, receipt->update_bytes) != NULL;
    }
}
