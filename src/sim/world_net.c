/* world_net.c: links that keep order, take their time, and break. */
#include "sim/world_internal.h"

#include <stdio.h>
#include <string.h>

static uint64_t latency(struct at_world *w)
{
    uint32_t span = w->options.latency_ms_max - w->options.latency_ms_min;
    return w->options.latency_ms_min + at_world_draw(w, (uint64_t)span + 1);
}

static bool cut_off(const struct at_world *w, int node)
{
    return node >= 0 && w->nodes[node].partition_from <= w->now_ms && w->now_ms < w->nodes[node].partition_until;
}

static bool end_is_up(const struct at_world *w, const struct at_world_link *l, int i)
{
    return l->end[i] < 0 || (w->nodes[l->end[i]].machine && w->nodes[l->end[i]].life == l->life[i]);
}

static struct at_world_link *link_of(struct at_world *w, uint64_t id, int *ret_end)
{
    if (id == 0 || (id - 1) / 2 >= w->link_count) return NULL;
    *ret_end = (int)((id - 1) % 2);
    return &w->links[(id - 1) / 2];
}

static struct at_world_link *link_make(struct at_world *w, int from, int to)
{
    if (w->link_count == AT_WORLD_LINKS_MAX) {
        at_world_violate(w, "more links than a world should need");
        return NULL;
    }
    struct at_world_link *l = &w->links[w->link_count++];
    *l = (struct at_world_link){.up = true, .end = {from, to}};
    for (int i = 0; i < 2; i++) l->life[i] = l->end[i] >= 0 ? w->nodes[l->end[i]].life : 0;
    return l;
}

void at_world_dial(struct at_world *w, int node)
{
    w->nodes[node].dials++;
    at_world_push(w, AT_WORLD_LINK_UP, node, latency(w));
}

static void tell_down(struct at_world *w, int node, uint64_t link, const struct at_node_id *peer, const char *reason)
{
    struct at_world_event *ev = at_world_push(w, AT_WORLD_DELIVER, node, 0);
    ev->e.kind = AT_NODE_EV_LINK_DOWN;
    ev->e.link = link;
    ev->e.node = *peer;
    ev->e.reason = reason;
}

void at_world_link_up(struct at_world *w, const struct at_world_event *ev)
{
    struct at_world_node *steward = &w->nodes[0];
    if (!steward->machine || cut_off(w, 0) || cut_off(w, ev->node)) {
        tell_down(w, ev->node, 0, &steward->key.id, "connection refused");
        return;
    }
    struct at_world_link *l = link_make(w, ev->node, 0);
    if (!l) return;
    uint64_t id = 2 * (uint64_t)(l - w->links) + 1;
    for (int i = 0; i < 2; i++) {
        struct at_world_event *up = at_world_push(w, AT_WORLD_DELIVER, l->end[i], 0);
        up->e.kind = AT_NODE_EV_LINK_UP;
        up->e.link = id + (uint64_t)i;
        up->e.node = w->nodes[l->end[1 - i]].key.id;
        up->e.dialed = i == 0;
    }
}

static void deliver(struct at_world *w, struct at_world_link *l, int to, struct at_span bytes)
{
    uint64_t at = w->now_ms + latency(w);
    if (at < l->last_ms[to]) at = l->last_ms[to];
    l->last_ms[to] = at;
    struct at_world_event *ev = at_world_push(w, AT_WORLD_DELIVER, l->end[to], at - w->now_ms);
    ev->e.kind = AT_NODE_EV_MESSAGE;
    ev->e.link = 2 * (uint64_t)(l - w->links) + 1 + (uint64_t)to;
    at_world_payload(ev, bytes);
}

static void stranger_hears(struct at_world *w, struct at_world_link *l, struct at_span bytes)
{
    struct at_message msg;
    if (at_message_decode(bytes, &w->mem, NULL, &msg)) {
        at_world_violate(w, "a node sent what is no message");
        return;
    }
    l->heard = msg.kind;
    l->reason[0] = 0;
    if (msg.kind == AT_MSG_BYE) snprintf(l->reason, sizeof l->reason, "%s", msg.bye.reason);
    if (msg.kind == AT_MSG_REFUSED) snprintf(l->reason, sizeof l->reason, "%s", msg.refused.reason);
}

bool at_world_send(struct at_world *w, int node, const struct at_node_op *op)
{
    int from;
    struct at_world_link *l = link_of(w, op->link, &from);
    if (!l || l->end[from] != node) {
        at_world_violate(w, "node %d sends on a link that is not its own", node);
        return true;
    }
    if (!l->up) return true; /* its LINK_DOWN is on the way */
    if (op->frame_class == AT_FRAME_BULK && at_world_draw(w, 100) < w->options.full_percent) {
        struct at_world_event *ev = at_world_push(w, AT_WORLD_DELIVER, node, 5);
        ev->e.kind = AT_NODE_EV_LINK_DRAIN;
        ev->e.link = op->link;
        return false;
    }
    if (cut_off(w, node) || cut_off(w, l->end[1 - from])) return true; /* swallowed: the link will be found dead */
    if (l->end[1 - from] < 0)
        stranger_hears(w, l, op->bytes);
    else
        deliver(w, l, 1 - from, op->bytes);
    return true;
}

/* What was sent before still arrives. */
void at_world_close(struct at_world *w, uint64_t link)
{
    int from;
    struct at_world_link *l = link_of(w, link, &from);
    if (!l || !l->up) return;
    uint64_t at = l->last_ms[1 - from] > w->now_ms ? l->last_ms[1 - from] : w->now_ms;
    at_world_push(w, AT_WORLD_LINK_BREAK, -1, at - w->now_ms + 1)->id = (uint64_t)(l - w->links);
}

void at_world_mark_left_behind(struct at_world *w)
{
    for (int i = 1; i < w->options.nodes; i++) w->nodes[i].left_behind = true;
    for (size_t i = 0; i < w->link_count; i++) {
        const struct at_world_link *l = &w->links[i];
        if (l->up && l->end[0] > 0 && end_is_up(w, l, 0) && !cut_off(w, 0) && !cut_off(w, l->end[0]))
            w->nodes[l->end[0]].left_behind = false;
    }
}

void at_world_hang_up(struct at_world *w, int node)
{
    for (size_t i = 0; i < w->link_count; i++)
        for (int end = 0; end < 2; end++)
            if (w->links[i].end[end] == node) at_world_close(w, 2 * (uint64_t)i + 1 + (uint64_t)end);
}

void at_world_link_break(struct at_world *w, size_t index, const char *reason)
{
    struct at_world_link *l = &w->links[index];
    if (!l->up) return;
    l->up = false;
    for (int i = 0; i < 2; i++) {
        if (l->end[i] < 0 || !end_is_up(w, l, i)) continue;
        const struct at_node_id *peer = l->end[1 - i] < 0 ? &l->stranger : &w->nodes[l->end[1 - i]].key.id;
        tell_down(w, l->end[i], 2 * (uint64_t)index + 1 + (uint64_t)i, peer, reason);
    }
}

/* All links of a node break: with end of file, or found dead after the silence. */
void at_world_links_of(struct at_world *w, int node, bool silent)
{
    for (size_t i = 0; i < w->link_count; i++) {
        const struct at_world_link *l = &w->links[i];
        if (!l->up || (l->end[0] != node && l->end[1] != node)) continue;
        at_world_push(w, AT_WORLD_LINK_BREAK, -1, silent ? 5000 : 1)->id = i;
    }
}

bool at_world_link_deliverable(const struct at_world *w, const struct at_world_event *ev)
{
    const struct at_world_link *l = &w->links[(ev->e.link - 1) / 2];
    return l->up && !cut_off(w, l->end[0]) && !cut_off(w, l->end[1]);
}

/* ---- strangers ---- */
uint64_t at_world_stranger_link(struct at_world *w, const struct at_keypair *key, int node)
{
    struct at_world_link *l = link_make(w, -1, node);
    if (!l) return 0;
    l->stranger = key->id;
    uint64_t id = 2 * (uint64_t)(l - w->links) + 1;
    struct at_world_event *up = at_world_push(w, AT_WORLD_DELIVER, node, 0);
    up->e.kind = AT_NODE_EV_LINK_UP;
    up->e.link = id + 1;
    up->e.node = key->id;
    return id;
}

void at_world_stranger_send(struct at_world *w, uint64_t link, struct at_span bytes)
{
    int from;
    struct at_world_link *l = link_of(w, link, &from);
    if (l && l->up) deliver(w, l, 1 - from, bytes);
}

enum at_message_kind at_world_stranger_heard(struct at_world *w, uint64_t link, const char **ret_reason)
{
    int end;
    struct at_world_link *l = link_of(w, link, &end);
    *ret_reason = l ? l->reason : "";
    return l ? l->heard : AT_MSG_NONE;
}

bool at_world_link_is_up(const struct at_world *w, uint64_t link)
{
    return (link - 1) / 2 < w->link_count && w->links[(link - 1) / 2].up;
}
