/* node_climb.c: every way to one node, on the ladder of wire/reach.h; node_mesh.c says to whom and when.
 *
 *   rung        what is tried                                                    when
 *   addresses   all that are known, a quarter of a second apart                  at once
 *   punch       a meeting of the two that a third node arranges (wire/meet.h)    after 1.5 s, or when all addresses have
 *                                                                                failed; both are members
 *   relay       the same, and the third node passes their bytes on               when the punches have failed, while fewer
 *                                                                                than two members are linked here
 *
 *   event                                  does
 *   a link to the node comes up            the other attempts are called off
 *   it has linked here by itself           all are called off
 *   an attempt fails                       the ladder goes on
 *   the last one fails                     node_mesh.c hears why
 *
 * Who arranges: members to which this node has dialled a link over the net alone (for then it knows an address of theirs
 * that works, and they know the one that its packets come from): the steward first, for it is linked to most; the others
 * in turns. Whether they have a link to the node asked for is theirs to say, in one round trip. A relay takes the line of
 * a third node, and what members tell each other comes through others as well: so it is for those alone who would hang on
 * a single link. */
#include "swarm/node_internal.h"

#define NUMBERS 32 /* of attempts, for each climb: an attempt's number names its climb, too */

static struct at_node_climb *climb_to(struct at_node_machine *m, const struct at_node_id *node)
{
    for (size_t i = 0; i < AT_NODE_CLIMBS_MAX && m->mesh.climbing; i++)
        if (m->mesh.climb[i].used && at_node_id_eq(&m->mesh.climb[i].node, node)) return &m->mesh.climb[i];
    return NULL;
}

static void end(struct at_node_machine *m, struct at_node_climb *c)
{
    c->used = false;
    m->mesh.climbing--;
}

static uint64_t number_of(const struct at_node_climb *c, uint32_t attempt)
{
    return c->serial * NUMBERS + attempt;
}

static void call_off(struct at_node_machine *m, uint64_t dial)
{
    at_node_op_add(m, AT_NODE_OP_DIAL_OFF)->dial = dial;
}

static bool well_linked(const struct at_node_machine *m)
{
    uint32_t members = 0;
    for (size_t i = 0; i < m->link_top; i++)
        members += at_node_link_open(&m->links[i]) && at_node_link_member(m, &m->links[i]);
    return members >= AT_NODE_RELAY_BELOW;
}

static void begin_attempt(struct at_node_machine *m, struct at_node_climb *c, const struct at_reach_op *try)
{
    bool meet = try->rung >= AT_REACH_PUNCH;
    struct at_node_op *op = at_node_op_add(m, meet ? AT_NODE_OP_MEET : AT_NODE_OP_DIAL);
    op->node = c->node;
    op->dial = number_of(c, try->attempt);
    if (meet) {
        op->link = c->via[try->index];
        op->how = try->rung == AT_REACH_PUNCH ? AT_MEET_HOW_PUNCH : AT_MEET_HOW_RELAY;
    } else {
        op->endpoint = c->list[try->index];
    }
}

/* Most have one way only, and its failure says it all. */
static const char *why_failed(const struct at_reach *r)
{
    const char *only = NULL;
    for (int rung = 0; rung < AT_REACH_RUNG_COUNT; rung++) {
        if (!r->failure[rung][0]) continue;
        if (only) return r->reason;
        only = r->failure[rung];
    }
    return only ? only : r->reason;
}

/* One step. True: it has come to a relay that is not wanted, and *ev says so to the ladder. */
static bool climb_once(struct at_node_machine *m, struct at_node_climb *c, struct at_reach_event *ev)
{
    struct at_reach_update up;
    bool unwanted = false;
    ev->now_ms = m->now_ms;
    at_reach_step(&c->reach, ev, &up);
    for (uint32_t i = 0; i < up.op_count; i++) {
        const struct at_reach_op *op = &up.ops[i];
        if (op->kind == AT_REACH_TRY && op->rung == AT_REACH_RELAY && well_linked(m)) {
            *ev = (struct at_reach_event){.kind = AT_REACH_FAILED, .attempt = op->attempt, .reason = "not needed"};
            unwanted = true;
        } else if (op->kind == AT_REACH_TRY) {
            begin_attempt(m, c, op);
        } else if (op->kind == AT_REACH_CANCEL) {
            call_off(m, number_of(c, op->attempt));
        } else if (op->kind == AT_REACH_GIVE_UP) {
            end(m, c);
            at_node_mesh_down(m, &c->node, 0, false, 0, why_failed(&c->reach));
        }
    }
    return unwanted;
}

static void climb(struct at_node_machine *m, struct at_node_climb *c, struct at_reach_event *ev)
{
    while (climb_once(m, c, ev)) {
    }
}

/* ---- who could arrange a meeting ---- */
static bool may_arrange(const struct at_node_machine *m, const struct at_node_link *l, const struct at_node_id *target)
{
    return at_node_link_open(l) && l->dialed && l->way == AT_NODE_DIRECT && at_node_link_member(m, l) &&
           !at_node_id_eq(&l->node, target);
}

static uint32_t arrangers(const struct at_node_machine *m, const struct at_node_id *target, uint32_t turn,
                          uint64_t ret_via[AT_REACH_ARRANGERS_MAX])
{
    uint64_t all[AT_NODE_LINKS_MAX];
    uint32_t n = 0, count = 0;
    int r = m->has_genesis && (m->is_steward || at_node_joined(m)) ? at_ledger_find(&m->ledger, target) : -1;
    if (r < 0 || !m->ledger.members[r].active) return 0;
    for (size_t i = 0; i < m->link_top; i++) {
        const struct at_node_link *l = &m->links[i];
        if (!may_arrange(m, l, target)) continue;
        if (at_node_id_eq(&l->node, &m->genesis.steward))
            ret_via[count++] = l->id;
        else
            all[n++] = l->id;
    }
    for (uint32_t i = 0; i < n && count < AT_REACH_ARRANGERS_MAX; i++) ret_via[count++] = all[(turn + i) % n];
    return count;
}

/* ---- what node_mesh.c and node_links.c call ---- */
bool at_node_climb_begin(struct at_node_machine *m, const struct at_node_id *node, bool invited,
                         const struct at_endpoints *where, bool meet, uint32_t turn)
{
    struct at_node_climb *c = NULL;
    for (size_t i = 0; i < AT_NODE_CLIMBS_MAX && !c; i++)
        if (!m->mesh.climb[i].used) c = &m->mesh.climb[i];
    if (!c) return false;
    struct at_reach_event start = {.kind = AT_REACH_START};
    uint32_t count = 0, via = meet ? arrangers(m, node, turn, c->via) : 0;
    if (invited) c->list[count++] = (struct at_endpoint){.port = 0};
    for (uint32_t i = 0; where && where->counter && i < where->count; i++) c->list[count++] = where->list[i];
    if (count == 0) return false; /* it has not said yet where it is, and may be at an address that can be dialled */
    start.count[AT_REACH_DIRECT] = count;
    start.count[AT_REACH_PUNCH] = start.count[AT_REACH_RELAY] = via;
    c->used = true;
    m->mesh.climbing++;
    c->serial = ++m->mesh.climbs;
    c->node = *node;
    at_reach_init(&c->reach, NULL);
    climb(m, c, &start);
    return true;
}

void at_node_climb_over(struct at_node_machine *m, const struct at_node_id *node, uint64_t dial)
{
    struct at_node_climb *c = climb_to(m, node);
    if (!c) return;
    end(m, c);
    for (uint32_t i = 0; i < c->reach.attempt_count; i++)
        if (c->reach.attempt[i].running && number_of(c, i) != dial) call_off(m, number_of(c, i));
}

void at_node_climb_failed(struct at_node_machine *m, const struct at_node_event *e)
{
    for (size_t i = 0; i < AT_NODE_CLIMBS_MAX; i++) {
        struct at_node_climb *c = &m->mesh.climb[i];
        if (!c->used || c->serial != e->dial / NUMBERS) continue;
        struct at_reach_event ev = {.kind = AT_REACH_FAILED, .attempt = (uint32_t)(e->dial % NUMBERS)};
        ev.reason = e->reason ? e->reason : "no answer";
        climb(m, c, &ev);
        return;
    }
}

void at_node_climb_drive(struct at_node_machine *m)
{
    struct at_reach_event tick = {.kind = AT_REACH_TICK};
    for (size_t i = 0; i < AT_NODE_CLIMBS_MAX && m->mesh.climbing; i++)
        if (m->mesh.climb[i].used && m->now_ms >= at_reach_deadline(&m->mesh.climb[i].reach))
            climb(m, &m->mesh.climb[i], &tick);
}

uint64_t at_node_climb_deadline_ms(const struct at_node_machine *m)
{
    uint64_t first = UINT64_MAX;
    for (size_t i = 0; i < AT_NODE_CLIMBS_MAX && m->mesh.climbing; i++) {
        uint64_t due = m->mesh.climb[i].used ? at_reach_deadline(&m->mesh.climb[i].reach) : UINT64_MAX;
        if (due < first) first = due;
    }
    return first;
}
