/* node_company.c: receipts that the single steward orders together. Each block of the log costs every member a message, a
 * checkpoint and its signature; a receipt has until CLOSE, and most of a round lies between the first and the last.
 *
 *   a fit receipt waits until             why
 *   32 wait                               that is company enough
 *   another record is ordered             they go with it
 *   nobody else's is awaited              the round need not wait for them; nor for a member of a group whose unit the
 *                                         receipts that wait complete without it
 *   its author hands in another one       with fewer of its group: the one before is ordered at once, or dropped if its
 *                                         update is not here yet
 *   it has waited 1/64 of what the last   so members can fetch its update long before the last one is in; in the first round
 *   round took, a minute at most          after a start, 1/64 of the time that it has been open
 *   the round's time is over              it counts
 *
 * Who waits counts as here: its author need not be any more. Its author knows how long that may be and does not take its
 * receipt for lost before. A receipt that waits when the steward dies is lost, and sent again over the new link.
 *
 * JOINs that come fast go together, too: the first is ordered at once, those behind it after a while that grows as the
 * square of the members (a quarter of a second with 100, three seconds at most), when another record is ordered, or when they fill a
 * block. They do not wait in the consensus's queue, where the steward would do nothing else. */
#include "swarm/node_internal.h"

uint64_t at_node_company_most_ms(const struct at_node_machine *m)
{
    bool single = m->has_genesis && m->ledger.seats.count == 1;
    uint64_t ms = single ? m->genesis.round_ms_max / AT_NODE_COMPANY_SHARE : 0;
    return ms < AT_NODE_COMPANY_MS ? ms : AT_NODE_COMPANY_MS;
}

/* In the first round after a start it is not known how long a round takes: as long as this one has. */
static uint64_t patience_ms(const struct at_node_machine *m, const struct at_node_receipt *w)
{
    uint64_t took = m->round_took_ms ? m->round_took_ms : w->since_ms - m->open_ms;
    uint64_t ms = took / AT_NODE_COMPANY_SHARE, most = at_node_company_most_ms(m);
    return ms < most ? ms : most;
}

void at_node_company_join(struct at_node_machine *m, struct at_node_receipt *w)
{
    if (!m->consensus || m->ledger.seats.count > 1) {
        at_node_submit_own(m, &w->record, w->link);
        return;
    }
    w->used = w->waits = true;
    w->since_ms = m->now_ms;
    m->company++;
}

static uint32_t place_of(const struct at_node_machine *m, uint32_t replica, uint32_t lead)
{
    const struct at_grouped *g = &m->ledger.groups[replica];
    return g->size > 0 && g->lead == lead ? UINT32_C(1) << g->place : 0;
}

/* With those in the log, and the others that wait, this one's unit is complete. */
static bool completes(const struct at_node_machine *m, const struct at_receipt *r)
{
    uint32_t lead = m->ledger.groups[r->replica].lead, parts = 0;
    if (r->group == 0) return false; /* it is alone */
    for (uint32_t k = lead; k != AT_GROUP_END; k = m->ledger.groups[k].next) {
        const struct at_allotment *u = at_ledger_allotment(&m->ledger, k);
        if (u && u->received && u->receipt.group == r->group) parts |= place_of(m, k, lead);
    }
    for (size_t i = 0; i < m->receipt_top; i++)
        if (m->cold->receipts[i].waits && m->cold->receipts[i].rec.receipt.group == r->group)
            parts |= place_of(m, m->cold->receipts[i].rec.receipt.replica, lead);
    return (r->group & ~parts) == 0;
}

bool at_node_in_company(const struct at_node_machine *m, uint32_t replica)
{
    for (size_t i = 0; i < m->receipt_top && m->company; i++) {
        const struct at_receipt *r = &m->cold->receipts[i].rec.receipt;
        if (!m->cold->receipts[i].waits) continue;
        if (r->replica == replica || (place_of(m, replica, m->ledger.groups[r->replica].lead) && completes(m, r)))
            return true;
    }
    return false;
}

void at_node_company_leave(struct at_node_machine *m, struct at_node_receipt *w)
{
    w->used = w->waits = false;
    m->company--;
    at_node_submit_own(m, &w->record, w->link);
}

static uint64_t due_ms(const struct at_node_machine *m)
{
    uint64_t due = m->open_ms + m->genesis.round_ms_max;
    for (size_t i = 0; i < m->receipt_top; i++) {
        uint64_t own = m->cold->receipts[i].since_ms + patience_ms(m, &m->cold->receipts[i]);
        if (m->cold->receipts[i].waits && own < due) due = own;
    }
    return due;
}

/* ---- JOINs ---- */
static void joins_order(struct at_node_machine *m)
{
    struct at_node_joins *j = m->joins;
    j->ordered_ms = m->now_ms + 1;
    for (uint32_t i = 0; i < j->count; i++) at_node_submit_own(m, &j->list[i].record, j->list[i].link);
    j->count = 0;
}

void at_node_company_newcomer(struct at_node_machine *m, const struct at_signed_record *record, uint64_t link)
{
    struct at_node_joins *j = m->joins;
    for (uint32_t i = 0; i < j->count; i++) {
        if (!at_node_id_eq(&j->list[i].record.author, &record->author)) continue;
        j->list[i].link = link; /* it waits already */
        return;
    }
    j->list[j->count].record = *record;
    j->list[j->count++].link = link;
    if (j->count == AT_NODE_JOINS_MAX) joins_order(m);
}

static uint64_t joins_due_ms(const struct at_node_machine *m)
{
    uint64_t n = m->ledger.member_count, gap = n + n * n / AT_NODE_JOINS_SHARE;
    if (gap > AT_NODE_JOINS_MS) gap = AT_NODE_JOINS_MS;
    return m->joins->ordered_ms ? m->joins->ordered_ms + gap : 0;
}

static void joins_drive(struct at_node_machine *m)
{
    if (!m->joins || m->joins->count == 0) return;
    bool with_others = !m->consensus || m->consensus->queue_count > 0 || m->ledger.seats.count > 1;
    if (with_others || m->now_ms >= joins_due_ms(m)) joins_order(m);
}

void at_node_company_drive(struct at_node_machine *m)
{
    if (m->ended) return;
    joins_drive(m);
    if (!m->company) return;
    bool enough = m->company >= AT_NODE_COMPANY_MAX || m->now_ms >= due_ms(m);
    if (!enough && at_node_settled(m)) enough = !at_node_steward_awaits_more(m);
    if (!enough && m->consensus->queue_count == 0) return;
    for (size_t i = 0; i < m->receipt_top; i++) {
        struct at_node_receipt *w = &m->cold->receipts[i];
        if (w->waits) at_node_company_leave(m, w);
    }
}

uint64_t at_node_company_deadline_ms(const struct at_node_machine *m)
{
    uint64_t due = m->company ? due_ms(m) : UINT64_MAX;
    if (m->joins && m->joins->count > 0 && joins_due_ms(m) < due) due = joins_due_ms(m);
    return due > m->now_ms ? due : UINT64_MAX;
}
