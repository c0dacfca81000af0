/* world_meet.c: NATs, and meetings that a third node arranges. Of what net/ does for them only the outcome is here:
 *
 *   a node behind a NAT   is dialled by nobody (a dial ends in silence); dials out
 *   a meeting             is arranged for members alone, to a target that has dialled the arranger; takes six ways of a
 *                         message between them
 *   punched               unless one of the two has a symmetric NAT, or a wall stands between them
 *   relayed               always; ends with the relay */
#include "sim/world_internal.h"

enum { NO_ANSWER_MS = 5000 }; /* net's handshake_ms */

void at_world_dial_off(struct at_world *w, int node, uint64_t dial)
{
    struct at_world_node *n = &w->nodes[node];
    n->dials_off[n->dials_off_next++ % AT_WORLD_DIALS_OFF] = dial;
}

bool at_world_dial_is_off(const struct at_world *w, int node, uint64_t dial)
{
    for (uint32_t i = 0; i < AT_WORLD_DIALS_OFF; i++)
        if (dial && w->nodes[node].dials_off[i] == dial) return true;
    return false;
}

uint64_t at_world_nat_ms(const struct at_world *w, int node)
{
    return node >= 0 && w->nodes[node].knob[AT_WORLD_NAT] ? NO_ANSWER_MS : 0;
}

static int arranger_of(const struct at_world *w, int node, uint64_t link)
{
    size_t i = (size_t)((link - 1) / 2);
    if (link == 0 || i >= w->link_count || !w->links[i].up || w->links[i].via) return -1;
    return w->links[i].end[0] == node ? w->links[i].end[1] : -1; /* one that it dialled itself */
}

void at_world_meet(struct at_world *w, int node, const struct at_node_op *op)
{
    int arranger = arranger_of(w, node, op->link), to = at_world_node_of(w, &op->node);
    uint64_t ms = 2 * at_world_latency_ms(w, node, arranger) + 4 * at_world_latency_ms(w, arranger, to);
    struct at_world_event *ev = at_world_push(w, AT_WORLD_MET, node, ms);
    ev->id = (uint64_t)(to + 1);
    ev->arg = op->how;
    ev->e.node = op->node;
    ev->e.link = op->link;
    ev->e.dial = op->dial;
}

static bool has_dialled(const struct at_world *w, int node, int arranger)
{
    for (size_t i = 0; i < w->live_count; i++) {
        const struct at_world_link *l = &w->links[w->live[i]];
        if (!l->via && l->end[0] == node && l->end[1] == arranger) return true;
    }
    return false;
}

static const char *why_not(struct at_world *w, const struct at_world_event *ev, int arranger, int to)
{
    if (!w->options.meets) return "this node arranges no meetings";
    if (arranger < 0 || !w->nodes[arranger].machine) return "the link to the arranger is gone";
    const struct at_node_machine *m = w->nodes[arranger].machine;
    if (to < 0 || !w->nodes[to].machine || !has_dialled(w, to, arranger)) return "the node asked for has no link here";
    if (!at_node_machine_is_member(m, &ev->e.node) || !at_node_machine_is_member(m, &w->nodes[ev->node].key.id))
        return "only members meet";
    if (ev->arg == AT_MEET_HOW_RELAY) return NULL;
    bool symmetric = w->nodes[to].knob[AT_WORLD_NAT] == AT_WORLD_NAT_SYMMETRIC ||
                     w->nodes[ev->node].knob[AT_WORLD_NAT] == AT_WORLD_NAT_SYMMETRIC;
    bool apart = !at_world_hears(w, to, ev->node) || !at_world_hears(w, ev->node, to);
    return symmetric || apart ? "cannot punch through" : NULL;
}

void at_world_met(struct at_world *w, const struct at_world_event *ev)
{
    int arranger = arranger_of(w, ev->node, ev->e.link), to = (int)ev->id - 1;
    if (at_world_dial_is_off(w, ev->node, ev->e.dial)) return;
    const char *reason = why_not(w, ev, arranger, to);
    if (reason) {
        at_world_tell_down(w, ev->node, 0, &ev->e.node, reason, ev->e.dial);
        return;
    }
    bool relay = ev->arg == AT_MEET_HOW_RELAY;
    w->counts.punches += !relay;
    w->counts.relays += relay;
    at_world_link(w, ev->node, to, relay ? arranger : -1, relay ? AT_NODE_RELAYED : AT_NODE_PUNCHED, ev->e.dial);
}

bool at_world_link_hears(const struct at_world *w, const struct at_world_link *l, int from, int to)
{
    int via = l->via - 1;
    if (via < 0) return at_world_hears(w, from, to);
    return at_world_hears(w, from, via) && at_world_hears(w, via, to);
}
