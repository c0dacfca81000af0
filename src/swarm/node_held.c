/* node_held.c: which updates of the round are here, and which peers have told that they have which. So nobody asks in
 * vain: at 300 members three of four messages were questions for updates that had not come to the one who was asked.
 *
 *   event                                  does
 *   an update whose receipt is in the log  it is told to every peer that has not told the same: many together, every 16th
 *   has come                               of the longest that a round may take, and soon once the round is closed
 *   a peer tells what it has               remembered until its link is down or the next round opens; of the next round
 *                                          likewise, beside it; of any other round, or the same again: ignored
 *   the round is open                      among more than 64 members what may be asked for waits for company: until it is
 *                                          16, or a 64th of the longest that the round may take has passed, a minute at
 *                                          most
 *                                          only who has told it, who wrote the receipt, or the steward, see below, is asked
 *   the round is closed                    these before all others; without any, everybody by turns (node_blob.c)
 *   it was not there                       that peer is not asked again before it tells it anew; the fourth time in a
 *                                          round, or after a blob that is not what its hash says, what it tells is
 *                                          ignored until the next round opens, over a new link as well
 *
 * Among more than 64 members nobody asks the author ahead of CLOSE: the steward, and those that take from it, have it as
 * soon, and more of them at once.
 * A single steward has what its log has receipts for, and tells nobody. Of the members linked to it, some eight take an
 * update from it, by replica number, and tell the others: else it would send every update to each of them.
 * What a peer tells is no more than a reason to ask it first: one that tells what it does not have is asked for four such
 * updates in a round, or for as many as one want takes, and for an update that was not there four times all peers are asked
 * by turns. */
#include "swarm/node_internal.h"

#include <string.h>

static struct at_node_link_held *of_link(struct at_node_machine *m, const struct at_node_link *l)
{
    return &m->held.link[l - m->links];
}

/* ---- sets of replicas by link ---- */
/* Room for sets of so many replicas. */
static void use_parts(struct at_node_machine *m, size_t replicas)
{
    struct at_node_held *h = &m->held;
    size_t parts = (replicas + AT_NODE_HELD_PART - 1) / AT_NODE_HELD_PART;
    if (parts <= h->parts) return;
    memset(h->part + h->parts, 0, (parts - h->parts) * sizeof *h->part);
    h->parts = parts;
}

static struct at_node_held_part *part_of(struct at_node_machine *m, uint32_t replica)
{
    use_parts(m, (size_t)replica + 1);
    return &m->held.part[replica / AT_NODE_HELD_PART];
}

static bool is_in(const struct at_node_held_bits *bits, uint32_t replica)
{
    return (bits->b[replica % AT_NODE_HELD_PART / 8] >> replica % 8 & 1) != 0;
}

static void take_out(struct at_node_held_bits *bits, uint32_t replica)
{
    bits->b[replica % AT_NODE_HELD_PART / 8] &= (uint8_t) ~(1u << replica % 8);
}

/* The part's bits of a whole set of so many bytes. */
static struct at_node_held_bits cut(const uint8_t *bytes, size_t n, size_t part)
{
    struct at_node_held_bits bits = {{0}};
    size_t from = part * sizeof bits.b;
    if (n > from) memcpy(bits.b, bytes + from, n - from < sizeof bits.b ? n - from : sizeof bits.b);
    return bits;
}

static bool is_of_round(const struct at_node_machine *m, uint32_t round)
{
    return m->held.known && m->held.round == round;
}

static void drop(struct at_replicas *set, uint32_t replica)
{
    set->b[replica / 8] &= (uint8_t) ~(1u << replica % 8);
}

static void fresh(struct at_node_machine *m)
{
    if (!m->consensus && !m->held.fresh_ms) m->held.fresh_ms = m->now_ms ? m->now_ms : 1;
}

/* ---- what is here ---- */
void at_node_held_opened(struct at_node_machine *m)
{
    struct at_node_held *h = &m->held;
    bool next = m->ledger.round == (h->known ? h->round + 1 : 0); /* what was told of the next round is of this one */
    h->known = true;
    h->round = m->ledger.round;
    h->opened_ms = m->now_ms;
    h->fresh_ms = h->offered_ms = 0;
    memset(&h->here, 0, sizeof h->here);
    memset(&h->asked, 0, sizeof h->asked);
    memset(&h->logged, 0, sizeof h->logged);
    memset(h->vain, 0, sizeof h->vain);
    for (size_t i = 0; i < m->link_top; i++) {
        struct at_node_link_held *lh = &h->link[i];
        lh->knows = lh->knows_next && next;
        lh->knows_next = false;
    }
    use_parts(m, m->ledger.member_count);
    for (size_t p = 0; p < h->parts; p++) {
        struct at_node_held_part *part = &h->part[p];
        memcpy(part->has, part->next, m->link_top * sizeof part->has[0]);
        memset(part->told, 0, m->link_top * sizeof part->told[0]);
        memset(part->lacks, 0, m->link_top * sizeof part->lacks[0]);
    }
}

void at_node_held_receipt(struct at_node_machine *m, uint32_t replica)
{
    struct at_node_held *h = &m->held;
    bool own = (int)replica == at_node_self(m) && m->unit.done && m->unit.round == m->ledger.round;
    drop(&h->here, replica); /* a group's receipt may take the place of an earlier one */
    drop(&h->asked, replica);
    for (size_t i = 0; i < m->link_top && at_replicas_has(&h->logged, replica); i++)
        take_out(&part_of(m, replica)->has[i], replica); /* that was the earlier one's */
    at_replicas_add(&h->logged, replica);
    if (own) at_replicas_add(&h->here, replica);
    h->look = true;
}

bool at_node_held_here(const struct at_node_machine *m, uint32_t round, uint32_t replica)
{
    return is_of_round(m, round) && at_replicas_has(&m->held.here, replica);
}

void at_node_held_asked(struct at_node_machine *m, const struct at_node_fetch *f, bool asked)
{
    m->held.look = true;
    if (!f->replica1 || !is_of_round(m, f->round)) return;
    drop(&m->held.asked, f->replica1 - 1);
    if (asked) at_replicas_add(&m->held.asked, f->replica1 - 1);
}

void at_node_held_fetched(struct at_node_machine *m, const struct at_node_fetch *f)
{
    const struct at_allotment *u = NULL;
    at_node_held_asked(m, f, false);
    if (f->replica1 && is_of_round(m, f->round) && m->ledger.round == f->round)
        u = at_ledger_allotment(&m->ledger, f->replica1 - 1);
    if (!u || !u->received || !at_hash_eq(u->receipt.update, f->key)) return;
    at_replicas_add(&m->held.here, f->replica1 - 1);
    fresh(m);
}

/* Those of the round that are not here, nor asked for. False: none. */
static bool wanted_of(const struct at_node_machine *m, struct at_replicas *ret_wanted)
{
    const struct at_node_held *h = &m->held;
    uint8_t any = 0;
    for (size_t b = 0; b < sizeof ret_wanted->b; b++)
        any |= ret_wanted->b[b] = (uint8_t)(h->logged.b[b] & ~(h->here.b[b] | h->asked.b[b]));
    return any != 0;
}

/* ---- what others have ---- */
void at_node_held_link(struct at_node_machine *m, const struct at_node_link *link)
{
    struct at_node_link_held *lh = of_link(m, link);
    size_t i = (size_t)(link - m->links);
    lh->knows = lh->knows_next = false;
    for (size_t p = 0; p < m->held.parts; p++)
        m->held.part[p].told[i] = m->held.part[p].lacks[i] = (struct at_node_held_bits){{0}};
}

void at_node_held_hello(struct at_node_machine *m)
{
    m->held.look = true;
    fresh(m);
}

void at_node_held(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_held *msg)
{
    struct at_node_link_held *lh = of_link(m, link);
    struct at_node_held_part *part = m->held.part;
    struct at_replicas wanted;
    uint64_t next = m->held.known ? (uint64_t)m->held.round + 1 : 0;
    bool same = lh->knows;
    size_t at = (size_t)(link - m->links);
    if (!at_node_link_member(m, link) || m->held.vain[link->replica1 - 1] >= AT_NODE_HELD_MISSES) return;
    use_parts(m, 8 * msg->bits.n);
    lh->knows_next = lh->knows_next || msg->round == next;
    for (size_t p = 0; p < m->held.parts; p++) {
        struct at_node_held_bits bits = cut(msg->bits.p, msg->bits.n, p);
        same = same && memcmp(&bits, &part[p].has[at], sizeof bits) == 0;
        if (msg->round == next) part[p].next[at] = bits;
    }
    if (!is_of_round(m, msg->round) || same) {
        at_node_quiet(m);
        return;
    }
    lh->knows = true;
    for (size_t p = 0; p < m->held.parts; p++) part[p].has[at] = cut(msg->bits.p, msg->bits.n, p);
    m->held.look = true;
    bool waits = false;
    for (size_t i = 0; i < m->fetch_top; i++) { /* who waited because nobody had it */
        struct at_node_fetch *f = &m->fetches[i];
        waits = waits || f->state == AT_FETCH_WAIT;
        if (f->state == AT_FETCH_WAIT && f->moved_ms > m->now_ms && at_node_held_by(m, link, f) == AT_NODE_HOLDS)
            f->moved_ms = m->now_ms;
    }
    if (!waits && (m->unit.running || !wanted_of(m, &wanted))) at_node_quiet(m); /* nothing is to be fetched */
}

void at_node_held_missed(struct at_node_machine *m, const struct at_node_fetch *f, const struct at_node_link *link)
{
    uint32_t replica = f->replica1 - 1;
    size_t at = (size_t)(link - m->links);
    if (!f->replica1 || !is_of_round(m, f->round)) return;
    struct at_node_held_part *part = part_of(m, replica);
    bool told = of_link(m, link)->knows && is_in(&part->has[at], replica);
    take_out(&part->has[at], replica);
    part->lacks[at].b[replica % AT_NODE_HELD_PART / 8] |= (uint8_t)(1u << replica % 8);
    if (told && link->replica1 && ++m->held.vain[link->replica1 - 1] >= AT_NODE_HELD_MISSES) at_node_held_lied(m, link);
}

/* By its replica: so a new link does not help it. */
void at_node_held_lied(struct at_node_machine *m, const struct at_node_link *link)
{
    if (link->replica1) m->held.vain[link->replica1 - 1] = AT_NODE_HELD_MISSES;
    of_link(m, link)->knows = of_link(m, link)->knows_next = false;
}

/* Does this member take the replica's update from the steward? */
static bool from_steward(const struct at_node_machine *m, uint32_t replica)
{
    uint32_t near = m->ledger.member_count < AT_NODE_NEAR_MAX ? m->ledger.member_count : AT_NODE_NEAR_MAX;
    uint32_t shares = near / AT_NODE_HELD_SOURCES;
    return shares <= 1 || replica % shares == m->self1 % shares;
}

/* Ahead of CLOSE it is asked of its author. Among many members a single steward has it as soon, in company. */
static bool asks_authors(const struct at_node_machine *m)
{
    return m->ledger.seats.count > 1 || m->ledger.member_count <= AT_NODE_LOOK_MEMBERS;
}

static enum at_node_holds holds(struct at_node_machine *m, const struct at_node_link *l, uint32_t replica)
{
    const struct at_node_held_part *part = part_of(m, replica);
    size_t at = (size_t)(l - m->links);
    bool tried = is_in(&part->lacks[at], replica);
    if (of_link(m, l)->knows && is_in(&part->has[at], replica)) return AT_NODE_HOLDS;
    bool author = l->replica1 == replica + 1 && (asks_authors(m) || m->ledger.phase != AT_LEDGER_TRAINING);
    bool steward = m->ledger.seats.count == 1 && at_node_link_seat(l);
    if (!tried && (author || (steward && from_steward(m, replica)))) return AT_NODE_HOLDS;
    return steward ? AT_NODE_HOLDS_TOO : AT_NODE_HOLDS_NOT;
}

enum at_node_holds at_node_held_by(struct at_node_machine *m, const struct at_node_link *l,
                                   const struct at_node_fetch *f)
{
    if (!f->replica1 || !is_of_round(m, f->round) || f->misses + f->wrong >= AT_NODE_HELD_MISSES)
        return AT_NODE_HOLDS_NOT;
    return holds(m, l, f->replica1 - 1);
}

_Static_assert(AT_NODE_LINKS_MAX <= UINT8_MAX + 1, "a link's place fits a byte");

/* What these links told of the round. Part by part: of each part they lie beside each other. */
static void add_told(const struct at_node_held *h, const uint8_t *links, size_t count, struct at_replicas *io_offered)
{
    for (size_t p = 0; p < h->parts; p++) {
        uint8_t *to = io_offered->b + p * (AT_NODE_HELD_PART / 8);
        for (size_t k = 0; k < count; k++)
            for (size_t b = 0; b < AT_NODE_HELD_PART / 8; b++) to[b] |= h->part[p].has[links[k]].b[b];
    }
}

/* Of these the ones that somebody who can be asked has; false: none. */
static bool find_offered(struct at_node_machine *m, struct at_replicas *ret_offered)
{
    const struct at_node_held *h = &m->held;
    uint8_t knows[AT_NODE_LINKS_MAX];
    size_t steward = SIZE_MAX, know = 0;
    struct at_replicas wanted, *offered = ret_offered;
    if (!wanted_of(m, &wanted)) return false;
    memset(offered, 0, sizeof *offered);
    for (size_t i = 0; i < m->link_top; i++) {
        const struct at_node_link *l = &m->links[i];
        if (!at_node_link_open(l) || l->late) continue;
        if (m->ledger.seats.count == 1 && at_node_link_seat(l)) steward = i;
        if (l->replica1 && asks_authors(m) && !is_in(&part_of(m, l->replica1 - 1)->lacks[i], l->replica1 - 1))
            at_replicas_add(offered, l->replica1 - 1);
        if (h->link[i].knows) knows[know++] = (uint8_t)i;
    }
    add_told(h, knows, know, offered);
    for (uint32_t r = at_replicas_next(&wanted, 0); steward != SIZE_MAX && r < AT_MEMBERS_MAX;
         r = at_replicas_next(&wanted, r + 1))
        if (from_steward(m, r) && !is_in(&part_of(m, r)->lacks[steward], r)) at_replicas_add(offered, r);
    uint8_t any = 0;
    for (size_t b = 0; b < sizeof offered->b; b++) any |= offered->b[b] &= wanted.b[b];
    return any != 0;
}

/* How long what is offered waits for company: among few members not at all. */
static uint64_t patience_ms(const struct at_node_machine *m)
{
    uint64_t ms = m->genesis.round_ms_max / AT_NODE_COMPANY_SHARE;
    if (m->ledger.member_count <= AT_NODE_LOOK_MEMBERS) return 0;
    return ms < AT_NODE_COMPANY_MS ? ms : AT_NODE_COMPANY_MS;
}

bool at_node_held_offered(struct at_node_machine *m, struct at_replicas *ret_offered)
{
    struct at_node_held *h = &m->held;
    bool due = h->offered_ms && m->now_ms >= h->offered_ms + patience_ms(m);
    if (!h->look && !due) return false;
    if (!at_node_bundle_fills(m)) return false; /* looked at again when some have come */
    h->look = false;
    if (!find_offered(m, ret_offered)) {
        h->offered_ms = 0;
        return false;
    }
    if (!h->offered_ms) h->offered_ms = m->now_ms ? m->now_ms : 1;
    if (at_replicas_count(ret_offered) < AT_BUNDLE_MAX && !due && patience_ms(m) > 0) return false;
    h->offered_ms = 0;
    return true;
}

/* ---- telling ---- */
static uint64_t due_ms(const struct at_node_machine *m)
{
    const struct at_node_held *h = &m->held;
    bool open = m->ledger.phase == AT_LEDGER_TRAINING && !m->is_steward;
    uint64_t gap = open ? m->genesis.round_ms_max / AT_NODE_HELD_SHARE : AT_NODE_HELD_SOON_MS;
    if (gap > AT_NODE_HELD_MS) gap = AT_NODE_HELD_MS;
    uint64_t company = h->fresh_ms + gap / 8, next = h->told_ms + gap; /* it waits for others, a little */
    return company > next ? company : next;
}

static bool lacks(const struct at_node_held *h, size_t link)
{
    for (size_t p = 0; p < h->parts; p++) {
        struct at_node_held_bits here = cut(h->here.b, sizeof h->here.b, p);
        uint8_t known = h->link[link].knows ? UINT8_MAX : 0, more = 0;
        for (size_t b = 0; b < sizeof here.b; b++)
            more |= here.b[b] & (uint8_t) ~((h->part[p].has[link].b[b] & known) | h->part[p].told[link].b[b]);
        if (more) return true;
    }
    return false;
}

void at_node_held_drive(struct at_node_machine *m)
{
    struct at_node_held *h = &m->held;
    bool single = m->ledger.seats.count == 1; /* then this is not the steward */
    if (!h->fresh_ms || !h->known || m->ended || m->now_ms < due_ms(m)) return;
    size_t n = (m->ledger.member_count + 7) / 8;
    use_parts(m, m->ledger.member_count);
    h->fresh_ms = 0;
    h->told_ms = m->now_ms;
    while (n > 0 && h->here.b[n - 1] == 0) n--;
    if (n == 0) return;
    struct at_message msg = {.kind = AT_MSG_HELD, .held = {h->round, at_span(h->here.b, n)}};
    bool encoded = false;
    for (size_t i = 0; i < m->link_top; i++) {
        const struct at_node_link *l = &m->links[i];
        if (!at_node_link_open(l) || !at_node_link_member(m, l) || (single && at_node_link_seat(l))) continue;
        if (!lacks(h, i)) continue;
        for (size_t p = 0; p < h->parts; p++) h->part[p].told[i] = cut(h->here.b, sizeof h->here.b, p);
        if (encoded)
            at_node_send_again(m, l->id);
        else
            at_node_send(m, l->id, &msg);
        encoded = true;
    }
}

uint64_t at_node_held_deadline_ms(const struct at_node_machine *m)
{
    uint64_t due = UINT64_MAX, offered = m->held.offered_ms ? m->held.offered_ms + patience_ms(m) : UINT64_MAX;
    if (m->held.fresh_ms && m->held.known) due = due_ms(m);
    if (due <= m->now_ms) due = UINT64_MAX;
    return offered > m->now_ms && offered < due ? offered : due;
}
