/* node_route.c: the way to the steward. One link of a member is its feed: over it come the new blocks, and its own
 * records go out over it, so that a block reaches each member once and a record takes one way, not all.
 *
 * Which one: a distance vector (as RIP has it, RFC 2453). Each node tells its peers how many links away from the
 * steward it is; the feed is the peer with the fewest; to the feed itself a node says "no way" (split horizon with
 * poisoned reverse), and what is beyond 15 is no way either, so that no circle lasts. And since whoever leads to the
 * steward through this node is further away than it, a node that loses its way takes at once only what is nearer than it
 * was itself, the rest after half a second, when all have heard that it has none. Only members' words count.
 *
 *   event                                    does
 *   a peer is nearer to the steward          it becomes the feed: LogGet to it; the old one is told to push no more
 *   the feed goes down, or is further away   the next nearest, see above; without one: any peer, for the log alone
 *   than it was
 *   a peer is nearer again within a second   it is not taken before: whoever says so in turn cannot make others look
 *                                            for ways all the time
 *   own distance changes                     Head to every peer
 *   own log has grown                        Head to one of the peers that may not know, later to one more, see tell();
 *                                            while a round is open after a quarter of the time that it has been;
 *                                            those that follow this node get the block itself (node_log.c)
 *   a peer's log is longer for half a second LogGet, once, to it: the feed is slow
 *   the feed does not answer a LogGet (5 s)  it is not taken for a minute
 *   own records get lost on it, twice        likewise: it may lie about its distance (node_relay.c)
 * Among several stewards each is distance 0, and all of them are the way; a steward has no feed: it makes the log's blocks
 * itself, and only asks, once, when another's log is longer for half a second.
 * Messages per block: each member gets it once. Heads, which only those need whose feed is slow or holds back, cost each
 * node one in half a second at most, however many links it has and however fast the log grows; and each of its peers
 * still tells it in turn. When all told all, a hundred members sent 2,500 of them each in a round of a hundred records, five
 * of six messages that there were. */
#include "swarm/node_internal.h"

static uint32_t hops_of(const struct at_node_machine *m, const struct at_node_link *l)
{
    bool several = m->ledger.seats.count > 1;
    if (at_node_lets_go(m, l)) return AT_HOPS_NONE;
    if (at_node_link_seat(l) && (!several || m->now_ms >= l->distrust_ms)) return 0;
    bool trusted = at_node_link_member(m, l) || l->contact;
    if (!trusted || l->hops >= AT_NODE_HOPS_MAX || m->now_ms < l->distrust_ms) return AT_HOPS_NONE;
    return m->now_ms < m->mesh.hold_ms && l->hops >= m->mesh.nearer_than ? AT_HOPS_NONE : l->hops;
}

struct at_node_link *at_node_feed(struct at_node_machine *m)
{
    struct at_node_link *l = m->mesh.feed ? at_node_link_find(m, m->mesh.feed) : NULL;
    return l && at_node_link_open(l) ? l : NULL;
}

uint32_t at_node_hops(const struct at_node_machine *m)
{
    return m->is_steward ? 0 : m->mesh.path ? m->mesh.hops : AT_HOPS_NONE;
}

/* The way there is none any more, or not for sure. */
static void hold(struct at_node_machine *m)
{
    m->mesh.hold_ms = m->now_ms + AT_NODE_HOLD_MS;
    m->mesh.nearer_than = m->mesh.hops;
}

void at_node_head(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_head *msg)
{
    /* The feed is the best way still, and whatever the peer has is here. */
    bool known = m->mesh.feed && !m->is_steward && msg->log_size <= m->follower.log.size;
    if (msg->hops == link->hops && (known || msg->log_size <= link->head)) {
        if (msg->log_size > link->head) link->head = msg->log_size;
        at_node_quiet(m);
        return;
    }
    if (msg->hops > link->hops) link->worse_ms = m->now_ms + 1;
    if (msg->hops < link->hops && link->worse_ms && m->now_ms < link->worse_ms + AT_NODE_FLAP_MS)
        link->distrust_ms = link->worse_ms + AT_NODE_FLAP_MS;
    link->hops = msg->hops;
    if (msg->log_size > link->head) link->head = msg->log_size;
}

static void path_changed(struct at_node_machine *m, bool there_is_one)
{
    m->mesh.path = there_is_one ? ++m->mesh.paths : 0;
    m->mesh.path_ms = m->now_ms;
    at_node_look(m, AT_NODE_WAYS | AT_NODE_WORK);
    if (there_is_one)
        m->pathless_ms = 0;
    else if (!m->pathless_ms)
        m->pathless_ms = m->now_ms ? m->now_ms : 1;
    if (there_is_one) at_node_presence_again(m);
}

void at_node_route_lost(struct at_node_machine *m, const struct at_node_link *link)
{
    if (m->mesh.feed != link->id) return;
    if (m->mesh.path) hold(m);
    m->mesh.feed = 0;
    m->mesh.feed_live = m->log_asked = m->log_synced = false;
    path_changed(m, false);
}

void at_node_route_distrust(struct at_node_machine *m)
{
    struct at_node_link *feed = at_node_feed(m);
    bool only = m->ledger.seats.count == 1;
    at_node_look(m, AT_NODE_WAYS);
    if (feed && !(only && at_node_link_seat(feed))) feed->distrust_ms = m->now_ms + AT_NODE_DISTRUST_MS;
}

/* Of two as far from the steward. */
static bool better(const struct at_node_machine *m, const struct at_node_link *a, const struct at_node_link *b)
{
    bool da = m->now_ms < a->distrust_ms, db = m->now_ms < b->distrust_ms;
    if (da != db) return db;
    if (a->id == m->mesh.feed || b->id == m->mesh.feed) return a->id == m->mesh.feed;
    return a->head != b->head ? a->head > b->head : a->id < b->id;
}

static void choose(struct at_node_machine *m)
{
    struct at_node_link *best = NULL, *old = at_node_feed(m);
    uint32_t least = AT_HOPS_NONE; /* of `best` */
    if (old && m->mesh.path && (hops_of(m, old) == AT_HOPS_NONE || hops_of(m, old) + 1 > m->mesh.hops)) hold(m);
    for (size_t i = 0; i < m->link_top; i++) {
        struct at_node_link *l = &m->links[i];
        if (!at_node_link_open(l)) continue;
        uint32_t hops = hops_of(m, l);
        if (hops == AT_HOPS_NONE && l->head == 0) continue; /* a newcomer */
        if (best && (hops > least || (hops == least && !better(m, l, best)))) continue;
        best = l;
        least = hops;
    }
    bool way = best && least != AT_HOPS_NONE;
    m->mesh.hops = way ? least + 1 : AT_HOPS_NONE;
    if (best == old) {
        if (best && way != (m->mesh.path != 0)) path_changed(m, way);
        return;
    }
    if (old && m->mesh.feed_live) at_node_log_ask(m, old, true); /* push no more */
    m->mesh.feed = best ? best->id : 0;
    m->mesh.feed_live = m->log_asked = false;
    path_changed(m, way);
}

static void follow(struct at_node_machine *m)
{
    struct at_node_link *feed = at_node_feed(m);
    if (!feed || m->mesh.feed_live) return;
    if (!m->log_asked) {
        at_node_log_ask(m, feed, false);
        m->log_asked = true;
        m->mesh.asked_ms = m->now_ms;
    } else if (m->now_ms >= m->mesh.asked_ms + AT_NODE_FEED_SILENT_MS) {
        m->mesh.asked_ms = m->now_ms;
        at_node_route_distrust(m);
    }
}

static bool is_only_steward(const struct at_node_machine *m, const struct at_node_link *l)
{
    return m->ledger.seats.count == 1 && at_node_link_seat(l);
}

static uint32_t hops_for(const struct at_node_machine *m, const struct at_node_link *l)
{
    return l->id == m->mesh.feed ? AT_HOPS_NONE : at_node_hops(m);
}

/* It may not know how long our log is. To a single steward nothing need be told. */
static bool may_lag(const struct at_node_machine *m, const struct at_node_link *l, uint64_t size)
{
    return at_node_link_open(l) && size > l->told_head && size > l->head && !l->log_live && !is_only_steward(m, l);
}

static void tell_one(struct at_node_machine *m, struct at_node_link *l, uint64_t size)
{
    struct at_message msg = {.kind = AT_MSG_HEAD, .head = {size, hops_for(m, l)}};
    at_node_send(m, l->id, &msg);
    l->told_hops = msg.head.hops;
    l->told_head = size;
    l->told_ms = m->now_ms;
}

/* Of those that may lag the one that was told longest ago; NULL: none. `ret_open`: peers to be told things. */
static struct at_node_link *next_told(struct at_node_machine *m, uint64_t size, uint32_t *ret_open)
{
    struct at_node_link *next = NULL;
    *ret_open = 0;
    for (size_t i = 0; i < m->link_top; i++) {
        struct at_node_link *l = &m->links[i];
        *ret_open += at_node_link_open(l);
        if (may_lag(m, l, size) && (!next || l->told_ms < next->told_ms)) next = l;
    }
    return next;
}

/* With few links all are told, each every half second at most. */
static void tell_few(struct at_node_machine *m, uint64_t size)
{
    for (size_t i = 0; i < m->link_top; i++) {
        struct at_node_link *l = &m->links[i];
        if (may_lag(m, l, size) && m->now_ms >= l->told_ms + AT_NODE_HEAD_MS) tell_one(m, l, size);
    }
    m->mesh.head_size = size;
    m->mesh.head_ms = m->now_ms;
}

/* Half a second for each link. While a round is open nobody needs a receipt soon: a quarter of the time that it has been. */
static uint32_t least_ms(const struct at_node_machine *m, uint32_t turns)
{
    uint64_t most = m->genesis.round_ms_max / AT_NODE_HEAD_SHARE, open = (m->now_ms - m->held.opened_ms) / 4;
    uint32_t least = turns * AT_NODE_HEAD_MS, lazy = (uint32_t)(open < most ? open : most);
    return m->ledger.phase == AT_LEDGER_TRAINING && lazy > least ? lazy : least;
}

/* A distance to all at once. A longer log, with more than a few links, to one at a time, by turns: so long between, and while
 * it does not grow any further four times as long each time. */
static void tell(struct at_node_machine *m)
{
    uint64_t size = at_node_log_size(m);
    uint32_t open, turns;
    for (size_t i = 0; i < m->link_top; i++) {
        struct at_node_link *l = &m->links[i];
        if (at_node_link_open(l) && hops_for(m, l) != l->told_hops && !is_only_steward(m, l)) tell_one(m, l, size);
    }
    struct at_node_link *next = next_told(m, size, &open);
    if (!next) return;
    if (open <= AT_NODE_HEADS_ALL) {
        tell_few(m, size);
        return;
    }
    turns = open > AT_NODE_HEADS ? (open + AT_NODE_HEADS - 1) / AT_NODE_HEADS : 1;
    bool grown = size > m->mesh.head_size;
    uint32_t least = least_ms(m, turns);
    if (grown && m->mesh.head_wait_ms > least) m->mesh.head_wait_ms = least;
    if (m->now_ms < m->mesh.head_ms + m->mesh.head_wait_ms) return;
    for (uint32_t i = 0; next && i < AT_NODE_HEADS; i++) {
        tell_one(m, next, size);
        next = next_told(m, size, &open);
    }
    uint32_t again = 4 * m->mesh.head_wait_ms;
    uint32_t most = least > AT_NODE_HEAD_MAX_MS ? least : AT_NODE_HEAD_MAX_MS;
    m->mesh.head_wait_ms = grown || again == 0 ? least : again < most ? again : most;
    m->mesh.head_size = size;
    m->mesh.head_ms = m->now_ms;
}

static void catch_up(struct at_node_machine *m)
{
    struct at_node_link *longest = NULL;
    for (size_t i = 0; i < m->link_top; i++) {
        struct at_node_link *l = &m->links[i];
        if (!at_node_link_open(l) || l->id == m->mesh.feed || l->catch_asked) continue;
        if (l->head > m->follower.log.size && (!longest || l->head > longest->head)) longest = l;
    }
    if (!longest) {
        m->mesh.behind_ms = 0;
    } else if (!m->mesh.behind_ms) {
        m->mesh.behind_ms = m->now_ms + AT_NODE_BEHIND_MS;
    } else if (m->now_ms >= m->mesh.behind_ms) {
        at_node_log_ask(m, longest, true);
        longest->catch_asked = true;
        m->mesh.behind_ms = 0;
    }
}

void at_node_route_drive(struct at_node_machine *m)
{
    if (m->consensus || !m->has_genesis || m->ended) return;
    if (!m->is_steward) choose(m);
    if (!m->is_steward) follow(m);
    tell(m);
    catch_up(m);
}

static void sooner(uint64_t *deadline, uint64_t at, uint64_t now)
{
    if (at > now && at < *deadline) *deadline = at;
}

uint64_t at_node_route_deadline_ms(const struct at_node_machine *m)
{
    uint64_t deadline = UINT64_MAX, size = at_node_log_size(m);
    uint64_t longest = UINT64_MAX; /* ago one that may lag was told */
    uint32_t open = 0;
    if (m->consensus || !m->has_genesis) return deadline;
    sooner(&deadline, m->mesh.hold_ms, m->now_ms);
    if (m->mesh.behind_ms) sooner(&deadline, m->mesh.behind_ms, m->now_ms);
    if (m->mesh.feed && m->log_asked && !m->mesh.feed_live)
        sooner(&deadline, m->mesh.asked_ms + AT_NODE_FEED_SILENT_MS, m->now_ms);
    for (size_t i = 0; i < m->link_top; i++) {
        const struct at_node_link *l = &m->links[i];
        open += at_node_link_open(l);
        if (!at_node_link_open(l) || is_only_steward(m, l)) continue;
        if (may_lag(m, l, size) && l->told_ms < longest) longest = l->told_ms;
        sooner(&deadline, l->distrust_ms, m->now_ms);
    }
    if (longest == UINT64_MAX) return deadline;
    bool few = open <= AT_NODE_HEADS_ALL;
    sooner(&deadline, few ? longest + AT_NODE_HEAD_MS : m->mesh.head_ms + m->mesh.head_wait_ms, m->now_ms);
    return deadline;
}
