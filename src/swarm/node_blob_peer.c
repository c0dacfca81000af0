/* node_blob_peer.c: whom a fetch asks next. Of the peers that are linked and not late with their answers, those that are known
 * to have the blob come before those that may (node_held.c), and among these they are asked in turn, by the ids of their
 * links. One that has as many wants as it takes is busy; after AT_NODE_HELD_PATIENCE_MS another one is asked in its place. */
#include "swarm/node_internal.h"

/* A peer that may be asked, now or when it has answered what it was asked before. */
static bool is_askable(const struct at_node_link *l, const struct at_node_fetch *f)
{
    return at_node_link_open(l) && !l->late && (!f->only_link || l->id == f->only_link);
}

static bool is_busy(const struct at_node_machine *m, const struct at_node_link *l, const struct at_node_fetch *f)
{
    if (l->bundle_out && at_node_is_small(m, f)) return true;
    return l->wants_out > AT_NODE_PIECES_MAX - AT_NODE_WINDOW_PIECES; /* as many as it takes at once */
}

/* It has waited long enough for those who have it, and are busy. */
static bool takes_any(const struct at_node_machine *m, const struct at_node_fetch *f)
{
    return f->ripe_ms && m->now_ms >= f->ripe_ms + AT_NODE_HELD_PATIENCE_MS;
}

enum at_node_holds at_node_fetch_holds(struct at_node_machine *m, const struct at_node_fetch *f)
{
    enum at_node_holds best = AT_NODE_HOLDS_NOT;
    bool any = takes_any(m, f);
    for (size_t i = 0; i < m->link_top && f->replica1 && best != AT_NODE_HOLDS; i++) {
        if (!is_askable(&m->links[i], f) || (any && is_busy(m, &m->links[i], f))) continue;
        enum at_node_holds holds = at_node_held_by(m, &m->links[i], f);
        if (holds > best) best = holds;
    }
    return best;
}

struct at_node_link *at_node_fetch_next(struct at_node_machine *m, const struct at_node_fetch *f, bool busy_too)
{
    struct at_node_link *best = NULL, *first = NULL;
    enum at_node_holds least = at_node_fetch_holds(m, f);
    for (size_t i = 0; i < m->link_top; i++) {
        struct at_node_link *l = &m->links[i];
        if (!is_askable(l, f) || (!busy_too && is_busy(m, l, f))) continue;
        if (least != AT_NODE_HOLDS_NOT && at_node_held_by(m, l, f) < least) continue;
        if (!first || l->id < first->id) first = l;
        if (l->id > f->last_link && (!best || l->id < best->id)) best = l;
    }
    return best ? best : first;
}

struct at_node_link *at_node_fetch_peer(struct at_node_machine *m, const struct at_node_fetch *f)
{
    return at_node_fetch_next(m, f, false);
}

bool at_node_fetch_suits(struct at_node_machine *m, const struct at_node_fetch *f, const struct at_node_link *link)
{
    enum at_node_holds least = at_node_fetch_holds(m, f);
    if (least == AT_NODE_HOLDS_NOT) return at_node_fetch_next(m, f, false) == link;
    return is_askable(link, f) && !is_busy(m, link, f) && at_node_held_by(m, link, f) >= least;
}
