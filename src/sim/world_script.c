/* world_script.c: what tests and sim.c order to happen, and what they may ask. */
#include "sim/world_internal.h"

#include <stdlib.h>

static struct at_world_event *script(struct at_world *w, enum at_world_what what, int node, uint64_t at_ms)
{
    return at_world_push(w, what, node, at_ms > w->now_ms ? at_ms - w->now_ms : 0);
}

void at_world_start_node(struct at_world *w, int node, uint64_t at_ms)
{
    script(w, AT_WORLD_START, node, at_ms);
}
void at_world_return_node(struct at_world *w, int node, uint64_t at_ms)
{
    script(w, AT_WORLD_START, node, at_ms)->flag = true;
}
void at_world_crash(struct at_world *w, int node, uint64_t at_ms, bool silent)
{
    script(w, AT_WORLD_CRASH, node, at_ms)->flag = silent;
}
void at_world_kill(struct at_world *w, int node, uint64_t at_ms)
{
    script(w, AT_WORLD_KILL, node, at_ms);
}
void at_world_break_links(struct at_world *w, int node, uint64_t at_ms)
{
    script(w, AT_WORLD_BREAK_ALL, node, at_ms);
}
void at_world_partition(struct at_world *w, int node, uint64_t at_ms, uint64_t until_ms)
{
    script(w, AT_WORLD_BREAK_ALL, node, at_ms)->flag = true;
    w->nodes[node].partition_from = at_ms;
    w->nodes[node].partition_until = until_ms;
}
void at_world_join_up(struct at_world *w, int from, int to, uint64_t at_ms)
{
    script(w, AT_WORLD_JOIN_UP, from, at_ms)->arg = (uint64_t)to;
}
void at_world_wall(struct at_world *w, int a, int b, uint64_t at_ms, uint64_t until_ms)
{
    if (w->wall_count == AT_WORLD_WALLS_MAX) {
        at_world_violate(w, "more walls than a world has room for");
        return;
    }
    w->walls[w->wall_count] = (struct at_world_wall){a, b, at_ms, until_ms};
    script(w, AT_WORLD_WALL, -1, at_ms)->id = w->wall_count++;
}
void at_world_contact(struct at_world *w, int node, int contact)
{
    w->nodes[node].contact = contact;
}
void at_world_move(struct at_world *w, int node)
{
    w->nodes[node].moves++;
}
void at_world_finish(struct at_world *w, int node, uint64_t at_ms)
{
    script(w, AT_WORLD_FINISH, node, at_ms)->e.kind = AT_NODE_EV_FINISH;
}
void at_world_leave(struct at_world *w, int node, uint64_t at_ms)
{
    script(w, AT_WORLD_FINISH, node, at_ms)->e.kind = AT_NODE_EV_LEAVE;
}
void at_world_flood(struct at_world *w, int node, uint64_t at_ms)
{
    script(w, AT_WORLD_FLOOD, node, at_ms);
}
void at_world_set(struct at_world *w, int node, enum at_world_knob knob, uint64_t value, uint64_t at_ms)
{
    struct at_world_event *ev = script(w, AT_WORLD_SET, node, at_ms);
    ev->id = knob;
    ev->arg = value;
}

/* Links across a new gap are found dead after the silence, as those of a partition. */
void at_world_happen_set(struct at_world *w, const struct at_world_event *ev)
{
    struct at_world_node *n = &w->nodes[ev->node];
    bool cuts = ev->id == AT_WORLD_SIDE || ev->id == AT_WORLD_DEAF || ev->id == AT_WORLD_MUTE;
    bool worse = ev->arg != 0 && n->knob[ev->id] != ev->arg;
    n->knob[ev->id] = ev->arg;
    if (cuts && worse) at_world_links_of(w, ev->node, true);
}

void at_world_speed(struct at_world *w, int node, double speed)
{
    w->nodes[node].speed = speed;
}
void at_world_line_set(struct at_world *w, int node, const struct at_world_line *line)
{
    w->nodes[node].line = *line;
}
void at_world_corrupt_state(struct at_world *w, int node)
{
    w->nodes[node].corrupt_next = true;
}
void at_world_crash_at_event(struct at_world *w, int node, uint64_t event, enum at_world_crash how, uint32_t restart_ms)
{
    struct at_world_node *n = &w->nodes[node];
    n->crash_event = n->events + event;
    n->crash_how = how;
    n->crash_restart_ms = restart_ms;
}

struct at_keypair at_world_key_of(struct at_world *w, uint32_t tag)
{
    uint8_t text[16] = "key";
    struct at_keypair key = {0};
    at_store_le64(text + 3, w->options.seed);
    at_store_le32(text + 11, tag);
    struct at_hash seed = at_sha256(text, sizeof text);
    if (at_keypair_from_seed(seed.b, &key)) at_world_violate(w, "a key cannot be made");
    at_world_key_made(w, &key);
    return key;
}

/* A node is large, so nobody should have to look at all of them for one with an id. */
at_err_t at_world_nodes_index(struct at_world *w)
{
    w->node_of_count = 2;
    while (w->node_of_count < 2 * (size_t)w->options.nodes) w->node_of_count *= 2;
    if (!(w->node_of = calloc(w->node_of_count, sizeof *w->node_of))) return AT_E_NOMEM;
    for (int i = 0; i < w->options.nodes; i++) {
        size_t at = at_load_le32(w->nodes[i].key.id.b) & (w->node_of_count - 1);
        while (w->node_of[at]) at = (at + 1) & (w->node_of_count - 1);
        w->node_of[at] = (uint32_t)i + 1;
    }
    return AT_OK;
}

int at_world_node_of(const struct at_world *w, const struct at_node_id *id)
{
    size_t at = at_load_le32(id->b) & (w->node_of_count - 1);
    while (w->node_of[at] && !at_node_id_eq(&w->nodes[w->node_of[at] - 1].key.id, id))
        at = (at + 1) & (w->node_of_count - 1);
    return (int)w->node_of[at] - 1;
}

struct at_keypair at_world_stranger_key(struct at_world *w, uint32_t tag)
{
    return at_world_key_of(w, 100000 + tag);
}
struct at_keypair at_world_node_key(struct at_world *w, int node)
{
    return w->nodes[node].key;
}
int at_world_nodes(const struct at_world *w)
{
    return w->options.nodes;
}
uint64_t at_world_now_ms(const struct at_world *w)
{
    return w->now_ms;
}
uint64_t at_world_events(const struct at_world *w, int node)
{
    return w->nodes[node].events;
}
const struct at_node_status *at_world_status(struct at_world *w, int node)
{
    return w->nodes[node].machine ? at_node_machine_status(w->nodes[node].machine) : NULL;
}
bool at_world_ended(const struct at_world *w, int node, at_err_t *ret_err)
{
    *ret_err = w->nodes[node].end_err;
    return w->nodes[node].ended;
}
uint64_t at_world_sent(const struct at_world *w, enum at_message_kind kind)
{
    return w->sent_of[kind];
}
uint32_t at_world_dials(const struct at_world *w, int node)
{
    return w->nodes[node].dials;
}
uint32_t at_world_desyncs(const struct at_world *w, int node)
{
    return w->nodes[node].desyncs;
}
struct at_hash at_world_run_id(const struct at_world *w)
{
    return w->run;
}
const struct at_model_config *at_world_model(const struct at_world *w)
{
    return &w->g.model;
}
