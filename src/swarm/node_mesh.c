/* node_mesh.c: whom this node dials, and when again.
 *
 * The active members without the steward stand on a ring in the order of their ids, the same for everybody who knows
 * the log. A member dials those at the distances 1, h^(1/3), h^(2/3) and h behind it, h = half the ring: its own
 * part of a graph that is connected (distance 1 alone is the ring), in which nobody has more than eight links by right,
 * and in which the way between any two is short (each distance is a digit). Up to nine members that is everybody.
 *
 *   who                          dials                                         when
 *   a newcomer                   the invite's node, and whom that has named    at once, and again while nobody is linked;
 *                                                                              six times in vain without any member: ends
 *   a member near the steward    the steward                                   always; "near": among the 48 whose ids
 *                                                                              are nearest (XOR), so that its links are
 *                                                                              bounded
 *   any member                   the steward                                   while no member leads there; one that is
 *                                                                              not near after a second of that
 *   any member                   its four on the ring; for one that cannot     always
 *                                be reached the next one behind it          but of those with eight links only the next
 *                                                                              on the ring while others join
 *   the steward                  its four on the ring                          when fewer are linked for three seconds:
 *                                                                              it may have come back at another address
 *
 *   a steward among several      the others, and who is lonely as above         always
 * Among several stewards the ring is of members that hold no seat, and "the steward" is, for each member, one of them by
 * its id, or the next one when that cannot be reached.
 *
 *   "dials"                      next
 *   comes up, says Hello         none of its failures counts any more
 *   fails, or no Hello           again after 400 ms (a member, while some way leads to the steward: 1 s), doubling: up to
 *                                5 s (the steward; 60 s one that is not near and has links) or 60 s; while nobody is
 *                                linked up to 5 s for each eight members that there are
 *   the same, on the ring, of    after two seconds, four times as long each time: up to ten minutes; while no way leads to
 *   one that has four links, or  the steward, at most a minute later than above for each one before it in the walk
 *   of those further on
 *   a link goes down             again after 200 ms; when that happens again within ten seconds, as after a failure:
 *                                whoever is shown the door, or shows it to the other, does not come back at once for ever
 * To dial is to try every way there is: node_climb.c. Of two members half a ring apart the smaller id dials. */
#include "swarm/node_internal.h"

#include <string.h>

static int replica_of(const struct at_node_machine *m, const struct at_node_id *node)
{
    return m->has_genesis ? at_ledger_find(&m->ledger, node) : -1;
}

/* r: its replica, or -1. */
static struct at_node_dial *dial_of(struct at_node_machine *m, const struct at_node_id *node, int r)
{
    if (!m->consensus && at_node_id_eq(node, &m->options.contact)) return &m->mesh.contact;
    struct at_node_hint *hint = at_node_hint_of(m, node);
    if (hint && hint->dial.under_way) return &hint->dial; /* it may be a member since */
    return r >= 0 ? &m->mesh.peers[r].dial : hint ? &hint->dial : NULL;
}

static bool is_steward(const struct at_node_machine *m, const struct at_node_id *node)
{
    return at_node_is_seat(m, node);
}

static void dial_over(struct at_node_machine *m, struct at_node_dial *d)
{
    at_node_look(m, AT_NODE_WAYS);
    if (d && d->under_way) m->mesh.dials--;
    if (d) d->under_way = false;
}

uint64_t at_node_mesh_up(struct at_node_machine *m, const struct at_node_id *node, uint64_t dial)
{
    struct at_node_dial *d = dial_of(m, node, replica_of(m, node));
    dial_over(m, d);
    at_node_climb_over(m, node, dial);
    return d ? d->log_size : 0;
}

void at_node_mesh_hello(struct at_node_machine *m, const struct at_node_id *node)
{
    struct at_node_dial *d = dial_of(m, node, replica_of(m, node));
    if (d) d->failures = 0;
    dial_over(m, d);
    at_node_climb_over(m, node, 0);                               /* it was the one that dialled */
    if (m->linkless_ms) m->mesh.ask_ms = m->mesh.ask_wait_ms = 0; /* much may have been told meanwhile */
    m->linkless_ms = 0;
}

static bool some_member(const struct at_node_machine *m)
{
    for (size_t i = 0; i < m->link_top; i++)
        if (at_node_link_open(&m->links[i]) && at_node_link_member(m, &m->links[i])) return true;
    return false;
}

/* The founder's invite names itself, or nobody. */
static bool has_contact(const struct at_node_machine *m)
{
    static const struct at_node_id nobody;
    return !m->consensus && !at_node_id_eq(&m->options.contact, &m->options.key.id) &&
           !at_node_id_eq(&m->options.contact, &nobody);
}

/* Who is linked to nobody dials as many in a second, however many there are to be dialled. */
static uint64_t lonely_ms(const struct at_node_machine *m)
{
    uint64_t ms = (uint64_t)AT_NODE_DIAL_MAX_MS * m->mesh.ring_count / AT_NODE_DIALS_MAX;
    return ms < AT_NODE_DIAL_MAX_MS ? AT_NODE_DIAL_MAX_MS : ms > AT_NODE_DIAL_FAR_MS ? AT_NODE_DIAL_FAR_MS : ms;
}

/* Of those that are linked to each other the near ones are enough: whoever finds it leads all of them there. */
static uint64_t steward_ms(const struct at_node_machine *m)
{
    bool lone = m->mesh.near || m->is_steward || m->linkless_ms || !at_node_joined(m);
    return lone ? AT_NODE_DIAL_MAX_MS : AT_NODE_DIAL_FAR_MS;
}

/* Of one that does not answer, where others do as well. */
static uint64_t away_ms(uint32_t vain)
{
    uint64_t ms = vain < 8 ? (uint64_t)AT_NODE_DIAL_CALM_MS << 2 * vain : AT_NODE_DIAL_AWAY_MS;
    return ms < AT_NODE_DIAL_AWAY_MS ? ms : AT_NODE_DIAL_AWAY_MS;
}

void at_node_mesh_down(struct at_node_machine *m, const struct at_node_id *node, uint64_t link, bool was_open,
                       uint64_t up_ms, const char *reason)
{
    struct at_node_dial *d = dial_of(m, node, replica_of(m, node));
    at_node_look(m, AT_NODE_WAYS);
    if (!m->linkless_ms && !at_node_linked(m)) m->linkless_ms = m->now_ms;
    if (!d) return;
    if (link == 0) dial_over(m, d);
    if (!was_open)
        d->failures++;
    else if (up_ms >= AT_NODE_STEADY_MS)
        d->shorts = 0;
    else if (!at_node_link_of(m, node)) /* of two that have crossed one goes at once */
        d->shorts++;
    if (d->failures == 2) m->mesh.ask_wanted = true;
    if (d->failures >= AT_NODE_FIRST_DIALS_MAX && d == &m->mesh.contact && !at_node_joined(m) && !some_member(m)) {
        at_node_end(m, AT_E_PEER,
                    "nobody of the run can be reached (%s): is the node that gave the invite running, or has the run "
                    "ended?",
                    reason);
        return;
    }
    uint64_t most = is_steward(m, node) ? steward_ms(m) : m->linkless_ms ? lonely_ms(m) : AT_NODE_DIAL_FAR_MS;
    uint32_t vain = d->failures + (d->shorts > 1 ? d->shorts - 1 : 0); /* once is bad luck */
    bool calm = m->mesh.path && !is_steward(m, node) && vain > 0;
    uint64_t least = calm ? AT_NODE_DIAL_CALM_MS : AT_NODE_DIAL_MIN_MS;
    uint64_t wait = vain < 16 ? least << vain : most;
    d->due_ms = m->now_ms + (wait < most ? wait : most);
    d->away_ms = vain ? m->now_ms + away_ms(vain) : d->due_ms;
}

/* ---- the drive ---- */
/* Also one that may yet say hello, or that has yet to go down. r: its replica, or -1. */
static bool has_link(const struct at_node_machine *m, const struct at_node_id *node, int r)
{
    for (size_t i = 0; i < m->link_top; i++) {
        const struct at_node_link *l = &m->links[i];
        if (l->used && (r >= 0 ? l->replica1 == (uint32_t)r + 1 : at_node_id_eq(&l->node, node))) return true;
    }
    return false;
}

/* It has said hello. */
static bool is_linked(const struct at_node_machine *m, uint32_t replica)
{
    for (size_t i = 0; i < m->link_top; i++)
        if (m->links[i].replica1 == replica + 1 && at_node_link_open(&m->links[i])) return true;
    return false;
}

/* Who does not answer is dialled again, for it may have come back; others need not be asked as often to arrange what has
 * failed before; but whoever has waited long for a dial asks at each, for of two behind NATs nothing else helps. */
static bool worth_meeting(const struct at_node_machine *m, const struct at_node_dial *d, bool patient)
{
    uint32_t few = m->mesh.path || patient ? 3 : 8; /* more, while no way leads to the steward */
    bool late = m->now_ms >= d->away_ms && away_ms(d->failures) == AT_NODE_DIAL_AWAY_MS;
    return d->failures < few || d->failures % 8 == 0 || late;
}

/* r: its replica, or -1. patience_ms: how much later it may be, since others do as well and enough are linked. */
static bool reach(struct at_node_machine *m, const struct at_node_id *node, int r, uint64_t patience_ms)
{
    struct at_node_dial *d = dial_of(m, node, r);
    if (!d) return false;
    if (d->under_way || has_link(m, node, r)) return true;
    uint64_t due = d->due_ms + patience_ms, away = d->away_ms > d->due_ms ? d->away_ms : d->due_ms;
    if (away < due) due = away;
    if (m->now_ms < due) {
        if (due < m->mesh.dial_due_ms) m->mesh.dial_due_ms = due;
        return false;
    }
    const struct at_node_hint *hint = r < 0 ? at_node_hint_of(m, node) : NULL;
    const struct at_endpoints *where = r >= 0 ? &m->mesh.peers[r].where : hint ? &hint->where : NULL;
    bool meet = worth_meeting(m, d, patience_ms > 0);
    if (!at_node_climb_begin(m, node, d == &m->mesh.contact, where, meet, d->turn++)) return false;
    at_node_look(m, AT_NODE_WAYS);
    m->mesh.dials++;
    d->log_size = at_node_log_size(m);
    d->under_way = true;
    return true;
}

bool at_node_mesh_reach(struct at_node_machine *m, const struct at_node_id *node)
{
    if (at_node_link_of(m, node)) return true; /* mostly */
    return reach(m, node, replica_of(m, node), 0);
}

uint32_t at_node_members_linked(const struct at_node_machine *m)
{
    uint32_t linked = 0;
    for (size_t i = 0; i < m->link_top; i++)
        linked += at_node_link_open(&m->links[i]) && at_node_link_member(m, &m->links[i]);
    return linked;
}

/* While members join one after the other, the places on the ring move all the time: one that has links enough dials only the
 * next on the ring until that is over. */
static bool ring_moves(struct at_node_machine *m)
{
    uint64_t due = m->mesh.ring_ms + AT_NODE_RING_CALM_MS, most = m->mesh.ring_since_ms + AT_NODE_RING_MOVES_MS;
    if (most < due) due = most;
    if (m->now_ms >= due || at_node_members_linked(m) < 2 * AT_NODE_MESH_DIALS) return false;
    if (due < m->mesh.dial_due_ms) m->mesh.dial_due_ms = due;
    return true;
}

/* Whoever does not answer is looked for less and less: it dials itself when it is back. With few links that is so from the second
 * of a walk on. Without a way to the steward the wait stays bounded: when the steward cannot be dialled, only a link to one that
 * has a way helps, and the others do not miss those that are apart from them. The first of a walk is dialled most often, so
 * that many without a way do not dial each other all the time. */
static uint64_t patience_ms(const struct at_node_machine *m, uint32_t linked, uint32_t step)
{
    if (linked == 0 || (linked < AT_NODE_MESH_DIALS && step == 0)) return 0;
    return m->mesh.path ? AT_NODE_DIAL_AWAY_MS : (uint64_t)AT_NODE_DIAL_FAR_MS * step;
}

static void reach_ring(struct at_node_machine *m)
{
    bool moves = ring_moves(m);
    const struct at_node_ring *ring = m->mesh.ring;
    uint32_t n = m->mesh.ring_count, at = m->mesh.ring_at, others = n, linked = at_node_members_linked(m);
    bool on_ring = at < n && at_node_id_eq(&ring[at].id, &m->options.key.id);
    others -= on_ring;
    for (uint32_t k = 0, before = 0; k < AT_NODE_MESH_DIALS && others > 0; k++) {
        uint32_t d = m->mesh.ring_step[k];
        if (d == before) continue;
        before = d;
        for (uint32_t step = 0; step < AT_NODE_MESH_WALK && d + step < n + !on_ring; step++) {
            const struct at_node_ring *next = &ring[(at + d + step - !on_ring) % n];
            const struct at_node_id *node = &next->id;
            bool opposite = on_ring && 2 * (d + step) == n && at_node_id_cmp(&m->options.key.id, node) > 0;
            if (is_steward(m, node) || at_node_id_eq(node, &m->options.key.id)) continue;
            if (opposite || (moves && k > 0) || is_linked(m, next->replica)) break;
            if (reach(m, node, (int)next->replica, patience_ms(m, linked, step))) break;
        }
    }
}

/* Of a node's walk, in reach_ring(), the first that is linked: while one before it is dialled once more, for it may be there
 * again, this one is needed still. */
static bool walk_ends_at(struct at_node_machine *m, uint32_t d, uint32_t place)
{
    const struct at_node_ring *ring = m->mesh.ring;
    uint32_t n = m->mesh.ring_count, here = m->mesh.ring_at;
    for (uint32_t step = 0; step < AT_NODE_MESH_WALK && d + step < n; step++) {
        uint32_t at = (here + d + step) % n;
        if (at == place) return true;
        if (!is_steward(m, &ring[at].id) && is_linked(m, ring[at].replica)) return false;
    }
    return false;
}

bool at_node_ring_calls(struct at_node_machine *m, uint32_t replica)
{
    uint32_t n = m->mesh.ring_count, here = m->mesh.ring_at;
    uint32_t there = at_node_ring_find(m, &m->ledger.members[replica].id);
    for (uint32_t k = 0; k < AT_NODE_MESH_DIALS; k++) {
        uint32_t d = m->mesh.ring_step[k];
        if ((there + d) % n == here || walk_ends_at(m, d, there)) return true;
    }
    return false;
}

/* One steward, the same one as long as it can be reached; or the next. A steward: all others. */
static void reach_stewards(struct at_node_machine *m)
{
    const struct at_seats *seats = &m->ledger.seats;
    uint32_t first = m->options.key.id.b[0] % seats->count;
    for (uint32_t k = 0; k < seats->count; k++) {
        const struct at_node_id *node = &seats->seat[(first + k) % seats->count].member;
        if (at_node_id_eq(node, &m->options.key.id)) continue;
        if (at_node_mesh_reach(m, node) && !m->is_steward) return;
    }
}

static void reach_hints(struct at_node_machine *m)
{
    for (uint32_t i = 0; i < m->mesh.hint_count && m->mesh.dials < AT_NODE_DIALS_MAX; i++)
        if (m->mesh.hints[i].where.counter) (void)at_node_mesh_reach(m, &m->mesh.hints[i].where.node);
}

static bool needs_steward(struct at_node_machine *m)
{
    uint64_t due = m->pathless_ms + AT_NODE_PATHLESS_MS;
    if (m->is_steward || m->mesh.near) return true;
    if (!m->mesh.path && m->now_ms < due && due < m->mesh.dial_due_ms) m->mesh.dial_due_ms = due;
    return !m->mesh.path && m->now_ms >= due;
}

static bool steward_is_lonely(struct at_node_machine *m)
{
    uint32_t linked = at_node_members_linked(m), others = m->mesh.ring_count - at_node_joined(m);
    if (linked >= AT_NODE_MESH_DIALS || linked >= others || m->mesh.lonely_ms == 0) m->mesh.lonely_ms = m->now_ms + 1;
    if (linked >= AT_NODE_MESH_DIALS || linked >= others) return false;
    uint64_t due = m->mesh.lonely_ms + AT_NODE_LONELY_MS;
    if (m->now_ms < due && due < m->mesh.dial_due_ms) m->mesh.dial_due_ms = due;
    return m->now_ms >= due;
}

/* A founder's folder with another key: nobody has invited that, and nobody may be there to dial. */
static void give_up(struct at_node_machine *m)
{
    uint64_t due = m->linkless_ms + AT_NODE_UNINVITED_MS;
    if (m->consensus || !m->has_genesis || !m->linkless_ms || at_node_joined(m) || has_contact(m)) return;
    if (m->now_ms >= due)
        at_node_end(
            m, AT_E_PEER,
            "nobody of the run can be reached, and nobody has invited this node: is `key` the key of this folder?");
    else if (due < m->mesh.dial_due_ms)
        m->mesh.dial_due_ms = due;
}

/* Most steps of a member change nothing that the rest looks at: its links, the ring, the way to a single steward, where
 * members are, and dials; at_node_look() says that one of these has. */
static bool is_still(const struct at_node_machine *m)
{
    bool follows = m->has_genesis && !m->is_steward && m->ledger.seats.count == 1 && at_node_joined(m);
    return m->mesh.still && follows && m->mesh.ring_valid && m->ledger.phase != AT_LEDGER_ENDED && !m->ended &&
           m->now_ms < m->mesh.dial_due_ms;
}

void at_node_mesh_drive(struct at_node_machine *m)
{
    if (is_still(m)) return;
    m->mesh.still = true;
    m->mesh.dial_due_ms = UINT64_MAX;
    if (m->group.on) at_node_look(m, AT_NODE_WORK); /* its dials are to be looked at again, too */
    if (m->ended || !at_node_settled(m)) return;
    give_up(m);
    if (m->ended) return;
    if (m->has_genesis) at_node_ring_make(m);
    bool newcomer = !m->is_steward && !at_node_joined(m);
    if (has_contact(m) && (m->linkless_ms || (newcomer && !some_member(m))))
        (void)at_node_mesh_reach(m, &m->options.contact);
    if (newcomer && m->linkless_ms) reach_hints(m);
    if (!m->has_genesis || m->ledger.phase == AT_LEDGER_ENDED) return;
    if (!m->consensus && needs_steward(m)) reach_stewards(m);
    if (m->mesh.dials >= AT_NODE_DIALS_MAX) return;
    if (m->is_steward ? steward_is_lonely(m) : at_node_joined(m) || m->linkless_ms) reach_ring(m);
}

uint64_t at_node_mesh_deadline_ms(const struct at_node_machine *m)
{
    return m->mesh.dial_due_ms;
}
