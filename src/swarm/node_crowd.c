/* node_crowd.c: more members than a steward has links. The 48 members that are nearest to it keep theirs; the others
 * reach it through members.
 *
 *   who                          event                                          does
 *   a member that is not near    another member's word leads to the steward,    takes that for its way there; when that has
 *                                for so long as its id says                     held for two seconds closes its link to the
 *                                                                               steward
 *                                that way is lost before                        stays, and tries again twice as late
 *   a steward without room       a near member comes                            the member that is not near, of those linked
 *                                                                               the longest, gives way
 *   a node without room          one that is no member comes                    tells it where eight members are that are
 *                                                                               here, others each time; Bye
 *   one that is no member        is told so by a node that it dialled           dials them while nobody is linked
 *
 * Each waits another time: of two that take each other for their way, one is told in time that it is none (node_route.c).
 * A link that the steward dialled itself stays: it has too few.
 * Whom a newcomer is told of need not be a member for all it can know. It trusts them with no more than whoever its
 * invite names: the genesis has the run's id for its hash, the log its steward's signatures. */
#include "swarm/node_internal.h"

#include <string.h>

/* How near two ids are: the bytes of a XOR b, as a number, big end first. */
bool at_node_nearer(const struct at_node_id *a, const struct at_node_id *b, const struct at_node_id *to)
{
    for (size_t i = 0; i < AT_KEY_BYTES; i++)
        if (a->b[i] != b->b[i]) return (a->b[i] ^ to->b[i]) < (b->b[i] ^ to->b[i]);
    return false;
}

/* Of as many links as nodes have by default 48. */
static uint32_t near_max(const struct at_node_machine *m)
{
    uint32_t links = m->options.links_max ? m->options.links_max : AT_NODE_LINKS_MAX;
    return (links * AT_NODE_NEAR_MAX / AT_NODE_LINKS_MAX + 1) * m->ledger.seats.count;
}

/* The steward itself is before all. Among several each member chooses one: so their links are bounded, too. */
bool at_node_near_by(const struct at_node_machine *m, uint32_t before)
{
    return before < near_max(m);
}

/* ---- a member that lets go ---- */
static struct at_node_link *steward_link(struct at_node_machine *m)
{
    for (size_t i = 0; i < m->link_top; i++) {
        struct at_node_link *l = &m->links[i];
        if (at_node_link_open(l) && l->dialed && at_node_link_seat(l)) return l;
    }
    return NULL;
}

static bool another_way(const struct at_node_machine *m)
{
    for (size_t i = 0; i < m->link_top; i++) {
        const struct at_node_link *l = &m->links[i];
        bool leads = l->hops > 0 && l->hops < AT_NODE_HOPS_MAX && m->now_ms >= l->distrust_ms;
        if (at_node_link_open(l) && leads && !at_node_link_seat(l) && at_node_link_member(m, l)) return true;
    }
    return false;
}

static uint64_t patience_ms(const struct at_node_machine *m)
{
    uint64_t own = AT_NODE_LET_GO_MS + at_load_le32(m->options.key.id.b) % (4 * AT_NODE_LET_GO_MS);
    return own << m->mesh.let_go_tries;
}

void at_node_crowd_drive(struct at_node_machine *m)
{
    struct at_node_mesh *mesh = &m->mesh;
    if (!m->has_genesis || !mesh->ring_valid) return;
    struct at_node_link *link = m->is_steward || mesh->near || !at_node_joined(m) ? NULL : steward_link(m);
    if (!link || !another_way(m)) {
        if (mesh->let_go && link && mesh->let_go_tries < AT_NODE_LET_GO_TRIES) mesh->let_go_tries++;
        mesh->let_go = false;
        mesh->let_go_ms = 0;
        return;
    }
    if (!mesh->let_go_ms) mesh->let_go_ms = m->now_ms + patience_ms(m);
    mesh->let_go = m->now_ms >= mesh->let_go_ms;
    bool told = mesh->path && mesh->feed != link->id && m->log_synced && mesh->here_path == mesh->path;
    if (!mesh->let_go || !told || m->now_ms < mesh->path_ms + AT_NODE_LET_GO_MS) return;
    at_node_link_refuse(m, link, "another way leads to the steward");
    mesh->let_go = false;
    mesh->let_go_ms = mesh->let_go_tries = 0;
}

uint64_t at_node_crowd_deadline_ms(const struct at_node_machine *m)
{
    const struct at_node_mesh *mesh = &m->mesh;
    uint64_t due = mesh->path_ms + AT_NODE_LET_GO_MS;
    if (!mesh->let_go_ms) return UINT64_MAX;
    if (mesh->let_go_ms > m->now_ms) return mesh->let_go_ms;
    return mesh->let_go && mesh->path && due > m->now_ms ? due : UINT64_MAX;
}

/* ---- a node without room ---- */
static bool is_near(struct at_node_machine *m, const struct at_node_id *id)
{
    uint32_t before = 0;
    at_node_ring_make(m);
    for (uint32_t i = 0; i < m->mesh.ring_count; i++)
        before += at_node_nearer(&m->mesh.ring[i].id, id, &m->options.key.id);
    return at_node_near_by(m, before);
}

struct at_node_link *at_node_crowd_give_way(struct at_node_machine *m, const struct at_node_id *coming)
{
    struct at_node_link *oldest = NULL;
    if (!m->is_steward || at_node_link_of(m, coming) || !is_near(m, coming)) return NULL;
    for (size_t i = 0; i < m->link_top; i++) {
        struct at_node_link *l = &m->links[i];
        bool keep = l->dialed || at_node_link_seat(l) || is_near(m, &l->node);
        if (l->used && !l->closing && !keep && (!oldest || l->up_ms < oldest->up_ms)) oldest = l;
    }
    return oldest;
}

void at_node_crowd_answer(struct at_node_machine *m, uint64_t link, const struct at_node_id *node)
{
    struct at_endpoints list[AT_NODE_HINTS_MAX];
    struct at_message msg = {.kind = AT_MSG_PEERS, .peers = {list, 0}};
    int r = m->has_genesis ? at_ledger_find(&m->ledger, node) : -1;
    uint32_t n = m->has_genesis ? m->ledger.member_count : 0;
    if (r >= 0 && m->ledger.members[r].active) return; /* it has the directory */
    for (uint32_t k = 0; k < n && msg.peers.count < AT_NODE_HINTS_MAX; k++) {
        uint32_t at = m->mesh.hint_next++ % n;
        const struct at_node_peer *peer = &m->mesh.peers[at];
        if (!m->ledger.members[at].active || !peer->where.counter || !at_node_present(m, at)) continue;
        if (!at_node_id_eq(&peer->where.node, &m->options.key.id)) list[msg.peers.count++] = peer->where;
    }
    if (msg.peers.count == 0) return;
    at_node_say_hello(m, link);
    at_node_send(m, link, &msg);
}

/* ---- one that is no member, and was told of others ---- */
struct at_node_hint *at_node_hint_of(struct at_node_machine *m, const struct at_node_id *node)
{
    for (uint32_t i = 0; i < m->mesh.hint_count; i++)
        if (m->mesh.hints[i].where.counter && at_node_id_eq(&m->mesh.hints[i].where.node, node))
            return &m->mesh.hints[i];
    return NULL;
}

void at_node_hints(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_peers *msg)
{
    struct at_node_mesh *mesh = &m->mesh;
    if (!link->dialed || link->peers_asking || at_node_joined(m)) return;
    if (at_node_id_eq(&link->node, &m->options.contact)) mesh->contact.failures = AT_NODE_CROWDED_FAILURES;
    for (uint32_t i = 0; i < msg->count && i < AT_NODE_HINTS_MAX; i++) {
        struct at_node_hint *h = &mesh->hints[i];
        const struct at_node_hint *same = at_node_hint_of(m, &msg->list[i].node);
        if (h->dial.under_way || at_node_id_eq(&msg->list[i].node, &m->options.key.id)) continue;
        if (same && same->dial.under_way) continue; /* a dial is found by its node */
        if (at_endpoints_verify(&msg->list[i], m->options.run, m->options.verifier)) {
            at_node_link_refuse(m, link, "a statement of where a member is, not signed by it");
            return;
        }
        *h = (struct at_node_hint){.where = msg->list[i]};
        if (mesh->hint_count <= i) mesh->hint_count = i + 1;
    }
}
