/* node_spare.c: links that nobody calls for. While members come the ring of node_mesh.c grows, and each of them dials others
 * again and again as its places on it move: of 300 members each had some 30 links at last, where the ring calls for eight,
 * and what is told to all peers was told 30 times.
 *
 *   who                                  event                                     does
 *   a member with more than twelve       one that it dialled itself has lasted      Bye, closes; looks again a second later
 *   members linked                       ten seconds, is none that the ring calls
 *                                        for on either side, and nothing goes on
 *                                        over it
 *
 * "Goes on": it is the way to the steward, or this node is the other's; either has asked for something; both share a unit.
 * The other side loses nothing that it would dial for. Links to stewards are node_crowd.c's. */
#include "swarm/node_internal.h"

static bool shares_unit(const struct at_node_machine *m, const struct at_node_link *l)
{
    for (uint32_t p = 0; m->group.on && p < m->group.size; p++)
        if (m->group.replica[p] + 1 == l->replica1) return true;
    return false;
}

static bool in_use(const struct at_node_machine *m, const struct at_node_link *l)
{
    bool follows = l->log_live || l->log_reading || l->id == m->mesh.feed || l->catch_asked;
    bool asks = l->wants_out > 0 || l->cold->want_count > 0 || l->cold->want_reading || l->peers_asking;
    return follows || asks || m->mesh.words[l->replica1 - 1].via == l->id || shares_unit(m, l);
}

static bool is_spare(struct at_node_machine *m, const struct at_node_link *l)
{
    bool own = at_node_link_open(l) && l->dialed && at_node_link_member(m, l) && !at_node_link_seat(l);
    if (!own || m->now_ms < l->up_ms + AT_NODE_STEADY_MS || in_use(m, l)) return false;
    return !at_node_ring_calls(m, l->replica1 - 1);
}

static bool has_many(const struct at_node_machine *m)
{
    return at_node_members_linked(m) > AT_NODE_SPARE_LINKS;
}

static bool may_look(const struct at_node_machine *m)
{
    return m->has_genesis && !m->is_steward && m->link_top > AT_NODE_SPARE_LINKS && m->log_synced && m->mesh.path &&
           m->ledger.phase != AT_LEDGER_ENDED && !m->ended && !m->finishing;
}

/* The next look: later and later, unless a link comes. */
static void wait(struct at_node_machine *m)
{
    uint64_t again = 2 * m->mesh.spare_wait_ms;
    if (again < AT_NODE_STEADY_MS) again = AT_NODE_STEADY_MS;
    if (again > AT_NODE_SPARE_MAX_MS) again = AT_NODE_SPARE_MAX_MS;
    m->mesh.spare_wait_ms = again;
    m->mesh.spare_ms = m->now_ms + m->mesh.spare_wait_ms;
}

void at_node_spare_link(struct at_node_machine *m)
{
    m->mesh.spare_wait_ms = 0;
    m->mesh.spare_ms = m->now_ms + AT_NODE_STEADY_MS;
}

void at_node_spare_drive(struct at_node_machine *m)
{
    struct at_node_link *spare = NULL;
    if (m->now_ms < m->mesh.spare_ms || !may_look(m)) return;
    wait(m);
    if (!at_node_joined(m) || !has_many(m)) return;
    at_node_ring_make(m);
    for (size_t i = 0; i < m->link_top; i++)
        if (is_spare(m, &m->links[i]) && (!spare || m->links[i].up_ms < spare->up_ms)) spare = &m->links[i];
    if (!spare) return;
    at_node_link_refuse(m, spare, "a link that nobody needs any more");
    m->mesh.spare_wait_ms = 0;
    m->mesh.spare_ms = m->now_ms + AT_NODE_SPARE_MS;
}

uint64_t at_node_spare_deadline_ms(const struct at_node_machine *m)
{
    return may_look(m) && m->mesh.spare_ms > m->now_ms && has_many(m) ? m->mesh.spare_ms : UINT64_MAX;
}
