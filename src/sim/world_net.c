/* world_net.c: links that keep order, take their time, and break. */
#include "sim/world_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SILENCE_MS = 5000 };                 /* a link on which nothing comes is dead after this */
enum { QUEUE_BYTES_MAX = 4 * 1024 * 1024 }; /* of bulk, per link; net/'s limit */

static bool cut_off(const struct at_world *w, int node)
{
    return node >= 0 && w->nodes[node].partition_from <= w->now_ms && w->now_ms < w->nodes[node].partition_until;
}

/* A wall between the two; b -1: a firewall before a, through which nobody dials. */
static bool walled(const struct at_world *w, int a, int b)
{
    for (size_t i = 0; i < w->wall_count; i++) {
        const struct at_world_wall *x = &w->walls[i];
        bool between = (x->a == a && x->b == b) || (x->a == b && x->b == a);
        if (between && x->from_ms <= w->now_ms && w->now_ms < x->until_ms) return true;
    }
    return false;
}

bool at_world_hears(const struct at_world *w, int from, int to)
{
    if (cut_off(w, from) || cut_off(w, to)) return false;
    if (from >= 0 && w->nodes[from].knob[AT_WORLD_MUTE]) return false;
    if (to >= 0 && w->nodes[to].knob[AT_WORLD_DEAF]) return false;
    if (from < 0 || to < 0) return true;
    return w->nodes[from].knob[AT_WORLD_SIDE] == w->nodes[to].knob[AT_WORLD_SIDE] && !walled(w, from, to);
}

static bool apart(const struct at_world *w, int a, int b)
{
    return !at_world_hears(w, a, b) || !at_world_hears(w, b, a);
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

static bool links_reserve(struct at_world *w)
{
    if (w->link_count < w->link_cap) return true;
    size_t cap = w->link_cap ? 2 * w->link_cap : 64;
    struct at_world_link *links = realloc(w->links, cap * sizeof *links);
    if (links) w->links = links;
    size_t *live = realloc(w->live, cap * sizeof *live);
    if (live) w->live = live;
    if (links && live) w->link_cap = cap;
    return links && live;
}

/* The pointer is good until the next link is made. */
static struct at_world_link *link_make(struct at_world *w, int from, int to)
{
    if (!links_reserve(w)) {
        at_world_violate(w, "out of memory");
        return NULL;
    }
    struct at_world_link *l = &w->links[w->link_count];
    *l = (struct at_world_link){.up = true, .end = {from, to}, .live = w->live_count};
    w->live[w->live_count++] = w->link_count++;
    for (int i = 0; i < 2; i++) l->life[i] = l->end[i] >= 0 ? w->nodes[l->end[i]].life : 0;
    return l;
}

struct at_endpoint at_world_endpoint(const struct at_world *w, int node)
{
    struct at_endpoint e = {.ip = {0xfd}, .ip_bytes = 16, .port = (uint16_t)(1000 + w->nodes[node].moves)};
    at_store_le32(e.ip + 12, (uint32_t)node + 1);
    return e;
}

/* Whom the endpoint belongs to now; without a port it is what the invite said of the contact. */
static int owner(const struct at_world *w, int node, const struct at_node_op *op)
{
    int to = op->endpoint.port ? (int)at_load_le32(op->endpoint.ip + 12) - 1 : w->nodes[node].contact;
    if (to < 0 || to >= w->options.nodes || !at_node_id_eq(&w->nodes[to].key.id, &op->node)) return -1;
    struct at_endpoint e = at_world_endpoint(w, to);
    bool here = op->endpoint.port ? at_endpoint_eq(&e, &op->endpoint) : w->nodes[to].moves == 0;
    return here ? to : -1;
}

void at_world_dial(struct at_world *w, int node, const struct at_node_op *op)
{
    int to = owner(w, node, op);
    w->nodes[node].dials++;
    w->counts.dials++;
    uint64_t ms = at_world_latency_ms(w, node, to) + at_world_nat_ms(w, to);
    struct at_world_event *ev = at_world_push(w, AT_WORLD_LINK_UP, node, ms);
    ev->id = (uint64_t)(to + 1);
    ev->e.node = op->node;
    ev->e.dial = op->dial;
}

void at_world_tell_down(struct at_world *w, int node, uint64_t link, const struct at_node_id *peer, const char *reason,
                        uint64_t dial)
{
    struct at_world_event *ev = at_world_push(w, AT_WORLD_DELIVER, node, 0);
    ev->e.kind = AT_NODE_EV_LINK_DOWN;
    ev->e.link = link;
    ev->e.node = *peer;
    ev->e.reason = reason;
    ev->e.dial = dial;
}

void at_world_link_up(struct at_world *w, const struct at_world_event *ev)
{
    int to = (int)ev->id - 1;
    if (at_world_dial_is_off(w, ev->node, ev->e.dial)) return;
    bool shut = to < 0 || !w->nodes[to].machine || walled(w, to, -1) || w->nodes[to].knob[AT_WORLD_NAT];
    if (shut || apart(w, to, ev->node)) {
        at_world_tell_down(w, ev->node, 0, &ev->e.node, "connection refused", ev->e.dial);
        return;
    }
    at_world_link(w, ev->node, to, -1, AT_NODE_DIRECT, ev->e.dial);
}

void at_world_link(struct at_world *w, int from, int to, int via, enum at_node_way way, uint64_t dial)
{
    if (!w->nodes[from].machine || !w->nodes[to].machine) return;
    struct at_world_link *l = link_make(w, from, to);
    if (!l) return;
    l->via = via + 1;
    uint64_t id = 2 * (uint64_t)(l - w->links) + 1;
    for (int i = 0; i < 2; i++) {
        struct at_world_event *up = at_world_push(w, AT_WORLD_DELIVER, l->end[i], 0);
        up->e.kind = AT_NODE_EV_LINK_UP;
        up->e.link = id + (uint64_t)i;
        up->e.node = w->nodes[l->end[1 - i]].key.id;
        up->e.dialed = i == 0;
        up->e.way = way;
        up->e.dial = i == 0 ? dial : 0;
    }
}

static void deliver(struct at_world *w, struct at_world_link *l, int to, struct at_span bytes, uint64_t wire, bool bulk,
                    bool once)
{
    uint64_t at = at_world_arrival_ms(w, l, to, wire, bulk);
    if (at < l->last_ms[to][bulk]) at = l->last_ms[to][bulk];
    l->last_ms[to][bulk] = at;
    struct at_world_event *ev = at_world_push(w, AT_WORLD_DELIVER, l->end[to], at - w->now_ms);
    ev->e.kind = AT_NODE_EV_MESSAGE;
    ev->e.link = 2 * (uint64_t)(l - w->links) + 1 + (uint64_t)to;
    ev->flag = bulk;
    ev->arg = wire;
    if (bulk) l->queued[to] += wire;
    if (once)
        at_world_payload(ev, bytes);
    else
        at_world_payload_share(w, ev, bytes);
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
    int end = l->end[0] < 0 ? 0 : 1;
    if (w->hear) w->hear(w->hear_context, 2 * (uint64_t)(l - w->links) + 1 + (uint64_t)end, &msg);
}

bool at_world_send(struct at_world *w, int node, const struct at_node_op *op)
{
    int from;
    struct at_world_link *l = link_of(w, op->link, &from);
    if (!l || l->end[from] != node) {
        at_world_violate(w, "node %d sends on a link that is not its own", node);
        return true;
    }
    bool bulk = op->frame_class == AT_FRAME_BULK, honest = at_world_is_honest(w, node);
    struct at_span bytes = op->bytes;
    if (!l->up) return true; /* its LINK_DOWN is on the way */
    w->sent_of[at_world_kind_of(bytes)]++;
    if (bulk && w->options.lines && l->queued[1 - from] >= QUEUE_BYTES_MAX) {
        l->full[1 - from] = true; /* LINK_DRAIN when half of it has arrived */
        return false;
    }
    if (bulk && !w->options.lines && at_world_draw(w, 100) < w->options.full_percent) {
        struct at_world_event *ev = at_world_push(w, AT_WORLD_DELIVER, node, 5);
        ev->e.kind = AT_NODE_EV_LINK_DRAIN;
        ev->e.link = op->link;
        return false;
    }
    if (!honest && !at_world_tamper(w, node, op->link, op->bytes, &bytes)) return true;
    uint64_t wire = at_world_wire_bytes(w, bytes);
    at_world_count_send(w, node, bytes, wire, bulk);
    if (!at_world_link_hears(w, l, node, l->end[1 - from])) return true; /* swallowed: the link will be found dead */
    if (l->end[1 - from] < 0)
        stranger_hears(w, l, bytes);
    else
        deliver(w, l, 1 - from, bytes, wire, bulk, !honest);
    return true;
}

/* When everything that was sent towards an end has come there. */
static uint64_t arrived_ms(const struct at_world *w, const struct at_world_link *l, int to)
{
    uint64_t at = l->last_ms[to][0] > l->last_ms[to][1] ? l->last_ms[to][0] : l->last_ms[to][1];
    return at > w->now_ms ? at : w->now_ms;
}

/* What was sent before still arrives. */
void at_world_close(struct at_world *w, uint64_t link)
{
    int from;
    struct at_world_link *l = link_of(w, link, &from);
    if (!l || !l->up) return;
    at_world_push(w, AT_WORLD_LINK_BREAK, -1, arrived_ms(w, l, 1 - from) - w->now_ms + 1)->id =
        (uint64_t)(l - w->links);
}

/* Those who hang together with the steward when it ends have what they need, or get it from each other. */
void at_world_mark_left_behind(struct at_world *w)
{
    for (int i = 1; i < w->options.nodes; i++) w->nodes[i].left_behind = true;
    for (bool more = true; more;) {
        more = false;
        for (size_t i = 0; i < w->live_count; i++) {
            const struct at_world_link *l = &w->links[w->live[i]];
            if (l->end[0] < 0 || l->end[1] < 0 || !end_is_up(w, l, 0) || !end_is_up(w, l, 1)) continue;
            bool *a = &w->nodes[l->end[0]].left_behind, *b = &w->nodes[l->end[1]].left_behind;
            if (*a == *b || apart(w, l->end[0], l->end[1])) continue;
            *a = *b = false;
            more = true;
        }
    }
    w->ends_changed = true;
}

void at_world_hang_up(struct at_world *w, int node)
{
    for (size_t i = 0; i < w->live_count; i++)
        for (int end = 0; end < 2; end++)
            if (w->links[w->live[i]].end[end] == node || w->links[w->live[i]].via == node + 1)
                at_world_close(w, 2 * (uint64_t)w->live[i] + 1 + (uint64_t)end);
}

void at_world_link_break(struct at_world *w, size_t index, const char *reason)
{
    struct at_world_link *l = &w->links[index];
    if (!l->up) return;
    l->up = false;
    w->counts.link_breaks++;
    w->live[l->live] = w->live[--w->live_count];
    w->links[w->live[l->live]].live = l->live;
    for (int i = 0; i < 2; i++) {
        if (l->end[i] < 0 || !end_is_up(w, l, i)) continue;
        const struct at_node_id *peer = l->end[1 - i] < 0 ? &l->stranger : &w->nodes[l->end[1 - i]].key.id;
        at_world_tell_down(w, l->end[i], 2 * (uint64_t)index + 1 + (uint64_t)i, peer, reason, 0);
    }
}

/* All links of a node break: with end of file behind what it sent, or found dead after the silence. */
void at_world_links_of(struct at_world *w, int node, bool silent)
{
    for (size_t i = 0; i < w->live_count; i++) {
        const struct at_world_link *l = &w->links[w->live[i]];
        if (l->end[0] != node && l->end[1] != node && l->via != node + 1) continue;
        uint64_t after = silent ? SILENCE_MS : arrived_ms(w, l, l->end[0] == node) - w->now_ms + 1;
        at_world_push(w, AT_WORLD_LINK_BREAK, -1, after)->id = w->live[i];
    }
}

void at_world_wall_up(struct at_world *w, size_t wall)
{
    const struct at_world_wall *x = &w->walls[wall];
    for (size_t i = 0; i < w->live_count; i++) {
        const struct at_world_link *l = &w->links[w->live[i]];
        bool between = (l->end[0] == x->a && l->end[1] == x->b) || (l->end[0] == x->b && l->end[1] == x->a);
        if (x->b >= 0 && between) at_world_push(w, AT_WORLD_LINK_BREAK, -1, SILENCE_MS)->id = w->live[i];
    }
}

uint32_t at_world_links(const struct at_world *w, int node)
{
    uint32_t count = 0;
    for (size_t i = 0; i < w->live_count; i++) {
        const struct at_world_link *l = &w->links[w->live[i]];
        count += (l->end[0] == node || l->end[1] == node) && end_is_up(w, l, 0) && end_is_up(w, l, 1);
    }
    return count;
}

/* A message has come to its end of the link: does the node there get it? */
bool at_world_link_deliverable(struct at_world *w, const struct at_world_event *ev)
{
    struct at_world_link *l = &w->links[(ev->e.link - 1) / 2];
    int to = (int)((ev->e.link - 1) % 2);
    if (!l->up || !at_world_link_hears(w, l, l->end[1 - to], l->end[to])) return false;
    if (!ev->flag) return true;
    l->queued[to] -= ev->arg;
    if (l->full[to] && l->queued[to] <= QUEUE_BYTES_MAX / 2) {
        l->full[to] = false;
        struct at_world_event *room = at_world_push(w, AT_WORLD_DELIVER, l->end[1 - to], 0);
        room->e.kind = AT_NODE_EV_LINK_DRAIN;
        room->e.link = 2 * (uint64_t)(l - w->links) + 1 + (uint64_t)(1 - to);
    }
    return true;
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
    bool heard = l && l->up && l->end[1 - from] >= 0; /* Byzantine nodes say more to strangers, too */
    if (heard) deliver(w, l, 1 - from, bytes, at_world_wire_bytes(w, bytes), false, true);
}

void at_world_strangers_hear(struct at_world *w, at_world_hear *hear, void *context)
{
    w->hear = hear;
    w->hear_context = context;
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
