/* node_group.c: a unit computed by several members, a pipeline stage each (ledger/groups.h): who of the group does it
 * together, and when they begin.
 *
 * Nobody decides for the others. Each member has a set `with` of those it means to compute the unit with, at first the
 * whole group, which only ever loses members, and a number for each attempt of its own. It tells both to the others of
 * the set (Stage). An attempt begins when all of the set have said that they mean the same set and know this one's number.
 * Any set that computes the unit gives the same bits, so members that disagree cost time and nothing else: the first set
 * whose receipts are complete counts. Where a unit ended early, another attempt of the same set might end with another
 * step; so once a receipt of the set is in the log, its steps are those of every further attempt. Unless they are more than
 * can have been done: each step needs all of the set, so who was there knows how far they came.
 *
 *   what happens                                              then
 *   the round opens, this member is of a group of several     an attempt with all of them
 *   one of the set is not linked any more, or not within       an attempt without it
 *   four seconds; or linked and says nothing for fifteen
 *   another means a smaller set that this one is in           an attempt with those in both
 *   ... that this one is not in, and it does not train yet    stands by: begins, alone, when none of these is linked, or
 *                                                             after twenty seconds or a quarter of the round's time
 *   another of the set has begun anew; or the unit was lost   a new attempt with the same set; after three, alone
 *   all are linked, and no step ends: nothing for twenty        an attempt alone
 *   seconds, a quarter of the round's time, and four times
 *   the slowest step so far
 *   one of the set has a receipt of more steps than all        an attempt without it
 *   have done, for two seconds
 *   a set of one                                              trains at once
 *   all have agreed                                           trains with them
 *   the unit's parts are all in the log, or CLOSE             stops
 *
 * The bytes between stages are the driver's: GROUP says that those for this attempt may come, before the others know its
 * number; UNIT_START names their numbers and the links to send on. */
#include "swarm/node_internal.h"

#include <string.h>

static uint32_t bit(uint32_t place)
{
    return UINT32_C(1) << place;
}

static const struct at_node_id *member_at(const struct at_node_machine *m, uint32_t place)
{
    return &m->ledger.members[m->group.replica[place]].id;
}

static bool of_several(const struct at_node_group *g)
{
    return g->on && at_group_stages(g->with) > 1;
}

static void stop_unit(struct at_node_machine *m)
{
    if (m->unit.running || of_several(&m->group)) at_node_op_add(m, AT_NODE_OP_UNIT_STOP);
    m->unit.running = m->unit.done = false;
}

static void attempt(struct at_node_machine *m, uint32_t with)
{
    struct at_node_group *g = &m->group;
    stop_unit(m);
    if (with != g->with) {
        g->most = 0;
        g->claim_ms = 0;
    }
    g->with = with;
    g->agreed = 0;
    g->begun_ms = m->now_ms;
    memset(g->peer, 0, sizeof g->peer);
    memset(g->told, 0, sizeof g->told);
    if (++g->session == 0) g->session = 1;
    if (!of_several(g)) return;
    uint32_t self = g->replica[g->place];
    struct at_node_team *t = &g->team;
    *t = (struct at_node_team){.session = g->session,
                               .rank = (uint32_t)at_group_stage(with, g->place),
                               .ranks = (uint32_t)at_group_stages(with),
                               .cut = at_ledger_cut(&m->ledger, self, with)};
    for (uint32_t p = 0; p < g->size; p++)
        if (with & bit(p)) t->peer[at_group_stage(with, p)].id = *member_at(m, p);
    at_node_op_add(m, AT_NODE_OP_GROUP)->team = t;
}

static void begin(struct at_node_machine *m, uint32_t self)
{
    struct at_node_group *g = &m->group;
    uint32_t session = g->session ? g->session : (uint32_t)m->options.nonce; /* not one of an earlier process's */
    const struct at_grouped *own = &m->ledger.groups[self];
    *g = (struct at_node_group){.on = true,
                                .round = m->ledger.round,
                                .size = own->size,
                                .place = own->place,
                                .session = session,
                                .rejoined = m->began_in == m->ledger.round,
                                .since_ms = m->now_ms};
    for (uint32_t k = own->lead; k != AT_GROUP_END; k = m->ledger.groups[k].next)
        g->replica[m->ledger.groups[k].place] = k;
    attempt(m, bit(g->size) - 1);
}

/* ---- who is there ---- */
/* So long nothing need happen that should. */
static uint64_t patience_ms(const struct at_node_machine *m)
{
    uint64_t quarter = m->genesis.round_ms_max / 4;
    return quarter > AT_NODE_GROUP_STALL_MS ? quarter : AT_NODE_GROUP_STALL_MS;
}

static uint64_t stalled_at(const struct at_node_machine *m)
{
    const struct at_node_group *g = &m->group;
    uint64_t steps = 4 * g->slowest_ms;
    return g->moved_ms + (steps > patience_ms(m) ? steps : patience_ms(m));
}

void at_node_group_moved(struct at_node_machine *m, uint32_t step)
{
    struct at_node_group *g = &m->group;
    uint64_t took = m->now_ms - g->moved_ms;
    if (step > 0 && took > g->slowest_ms) g->slowest_ms = took;
    g->moved_ms = m->now_ms;
}

static void watch(struct at_node_machine *m)
{
    struct at_node_group *g = &m->group;
    uint32_t gone = 0;
    for (uint32_t p = 0; p < g->size; p++) {
        if (p == g->place) continue;
        if (at_node_link_of(m, member_at(m, p))) {
            bool silent = !(g->agreed & bit(p)) && m->now_ms >= g->begun_ms + AT_NODE_GROUP_ANSWER_MS;
            g->linked |= bit(p);
            if ((g->with & bit(p)) && silent) gone |= bit(p);
            continue;
        }
        g->standby &= ~bit(p);
        if (!(g->with & bit(p))) continue;
        if ((g->linked & bit(p)) || m->now_ms >= g->since_ms + AT_NODE_GROUP_LINK_MS)
            gone |= bit(p);
        else if (p > g->place || m->now_ms >= g->since_ms + AT_NODE_GROUP_DIAL_MS)
            (void)at_node_mesh_reach(m, member_at(m, p));
    }
    if (gone)
        attempt(m, g->with & ~gone);
    else if (of_several(g) && m->unit.running && m->now_ms >= stalled_at(m))
        attempt(m, bit(g->place));
}

/* ---- what they say ---- */
/* False: the attempt is another one now. */
static bool hear(struct at_node_machine *m, uint32_t p, const struct at_msg_stage *s)
{
    struct at_node_group *g = &m->group;
    if (s->from == 0 || s->round != g->round || !(g->with & bit(p))) return true;
    if (!(s->group & bit(g->place))) {
        if (m->unit.running || m->unit.done) return true; /* whoever is first */
        g->standby |= s->group & (bit(g->size) - 1);
        attempt(m, bit(g->place));
        return false;
    }
    if (g->with & ~s->group) {
        attempt(m, g->with & s->group);
        return false;
    }
    if (s->group != g->with) return true; /* a larger one: it will hear of ours */
    if ((g->agreed & bit(p)) && s->from != g->peer[p]) {
        attempt(m, g->with);
        return false;
    }
    g->peer[p] = s->from;
    if (s->to == g->session) g->agreed |= bit(p);
    return true;
}

static void hear_all(struct at_node_machine *m)
{
    struct at_node_group *g = &m->group;
    for (uint32_t p = 0; p < g->size; p++) {
        const struct at_node_link *l = p != g->place ? at_node_link_of(m, member_at(m, p)) : NULL;
        if (l && !hear(m, p, &l->cold->stage))
            p = UINT32_MAX; /* once more, from the first: each time the set is smaller, or
                                                           * nobody has agreed any more */
    }
}

static void say(struct at_node_machine *m)
{
    struct at_node_group *g = &m->group;
    for (uint32_t p = 0; p < g->size; p++) {
        struct at_node_link *l = p != g->place ? at_node_link_of(m, member_at(m, p)) : NULL;
        if (!l) continue;
        bool with = (g->with & bit(p)) != 0, heard = l->cold->stage_heard,
             late = m->now_ms >= g->told[p].ms + AT_NODE_GROUP_AGAIN_MS;
        bool news = with && (g->told[p].ms == 0 || g->told[p].to != g->peer[p]);
        l->cold->stage_heard = false;
        heard = heard && l->cold->stage.round == g->round && m->now_ms >= g->told[p].ms + AT_NODE_GROUP_ANSWERS_MS;
        if (!news && !heard && !(with && late && !(g->agreed & bit(p)))) continue;
        struct at_message msg = {.kind = AT_MSG_STAGE};
        msg.stage = (struct at_msg_stage){.round = g->round, .group = g->with, .from = g->session, .to = g->peer[p]};
        at_node_send(m, l->id, &msg);
        g->told[p].to = g->peer[p];
        g->told[p].ms = m->now_ms + 1; /* never 0 */
    }
}

void at_node_stage(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_stage *msg)
{
    link->cold->stage = *msg;
    link->cold->stage_heard = true;
    m->again = true;
}

/* ---- training ---- */
static bool may_train(const struct at_node_machine *m)
{
    const struct at_node_group *g = &m->group;
    if (!of_several(g)) return g->standby == 0 || m->now_ms >= g->begun_ms + patience_ms(m);
    return (g->agreed | bit(g->place)) == g->with;
}

static void train(struct at_node_machine *m, const struct at_allotment *u)
{
    struct at_node_group *g = &m->group;
    struct at_node_team *t = &g->team;
    for (uint32_t p = 0; p < g->size && of_several(g); p++) {
        const struct at_node_link *l = p != g->place && (g->with & bit(p)) ? at_node_link_of(m, member_at(m, p)) : NULL;
        if (!l) continue;
        t->peer[at_group_stage(g->with, p)].session = g->peer[p];
        t->peer[at_group_stage(g->with, p)].link = l->id;
    }
    g->train_ms = g->moved_ms = m->now_ms;
    g->slowest_ms = 0;
    at_node_unit_start(m, u, of_several(g) ? t : NULL);
}

/* The steps of the place's receipt with this set; 0: there is none. */
static uint32_t claimed(const struct at_node_machine *m, uint32_t place)
{
    const struct at_allotment *u = at_ledger_allotment(&m->ledger, m->group.replica[place]);
    return u && u->received && u->receipt.group == m->group.with ? u->receipt.steps : 0;
}

static bool is_possible(const struct at_node_group *g, uint32_t steps)
{
    return g->rejoined || steps <= g->most + 1;
}

uint32_t at_node_group_steps(const struct at_node_machine *m)
{
    const struct at_node_group *g = &m->group;
    for (uint32_t p = 0; p < g->size && of_several(g); p++) {
        uint32_t steps = claimed(m, p);
        if (steps > 0 && is_possible(g, steps)) return steps;
    }
    return 0;
}

/* Its parts can be of no unit with that receipt, for the steps of a unit's parts are the same. So what is left of the round is
 * for those without its author. News of our own steps may be behind the log's for a moment. */
static void leave_out_liars(struct at_node_machine *m)
{
    struct at_node_group *g = &m->group;
    uint32_t liars = 0;
    if ((m->unit.running || m->unit.done) && m->unit.step > g->most) g->most = m->unit.step;
    for (uint32_t p = 0; p < g->size && of_several(g); p++)
        if (p != g->place && claimed(m, p) > 0 && !is_possible(g, claimed(m, p))) liars |= bit(p);
    if (liars == 0) {
        g->claim_ms = 0;
    } else if (g->claim_ms == 0) {
        g->claim_ms = m->now_ms + 1; /* never 0 */
    } else if (m->now_ms > g->claim_ms + AT_NODE_GROUP_CLAIM_MS) {
        at_node_note(m, "another member of the group claims more steps of round %u than were done: it is left out",
                     g->round + 1);
        attempt(m, g->with & ~liars);
    }
}

void at_node_group_drive(struct at_node_machine *m, const struct at_allotment *u)
{
    struct at_node_group *g = &m->group;
    int self = at_node_self(m);
    bool open = u && !at_ledger_unit_complete(&m->ledger, (uint32_t)self) && !m->ended;
    if (g->on && (!open || g->round != m->ledger.round)) {
        stop_unit(m);
        g->on = false;
    }
    bool synced = m->consensus || m->log_synced;
    if (synced && !m->began) {
        m->began = true;
        m->began_in = m->ledger.phase == AT_LEDGER_TRAINING ? m->ledger.round : UINT32_MAX;
    }
    if (!open || !at_node_state_confirmed(m) || !synced) return;
    if (!g->on) begin(m, (uint32_t)self);
    leave_out_liars(m);
    uint32_t steps = at_node_group_steps(m);
    if (m->unit.done && steps > 0 && steps != m->unit.step)
        at_node_group_lost(m, "it ended with another step than that of a receipt in the log");
    watch(m);
    hear_all(m);
    say(m);
    if (m->unit.done && g->claim_ms == 0 && !(u->received && u->receipt.group == g->with))
        at_node_unit_hand_in(m);
    else if (!m->unit.done && !m->unit.running && may_train(m))
        train(m, u);
}

void at_node_group_lost(struct at_node_machine *m, const char *reason)
{
    struct at_node_group *g = &m->group;
    at_node_note(m, "the unit of round %u was lost with the others of the group: %s", g->round + 1,
                 reason ? reason : "");
    attempt(m, ++g->lost < AT_NODE_GROUP_TRIES ? g->with : bit(g->place));
}

uint32_t at_node_group_took_ms(const struct at_node_machine *m, uint32_t share_ms, uint32_t steps)
{
    if (m->ledger.measured[at_node_self(m)].count == 0) return 0; /* nothing would follow from it */
    uint64_t took = m->now_ms - m->group.train_ms;
    uint64_t whole = at_ledger_round(&m->ledger).steps, steps_ms = took > share_ms ? took - share_ms : 1;
    uint64_t due_ms = steps > 0 ? steps_ms * whole / steps / 8 : 0;
    took = share_ms > due_ms ? steps_ms + share_ms - due_ms
                             : steps_ms; /* more was waiting for somebody, also a step's time */
    return took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
}

uint32_t at_node_group_with(const struct at_node_machine *m)
{
    return m->group.on ? m->group.with : 0;
}

uint64_t at_node_group_deadline_ms(const struct at_node_machine *m)
{
    const struct at_node_group *g = &m->group;
    uint64_t deadline = g->on && g->claim_ms ? g->claim_ms + AT_NODE_GROUP_CLAIM_MS + 1 : UINT64_MAX;
    if (deadline <= m->now_ms) deadline = UINT64_MAX;
    if (!g->on || m->unit.done) return deadline;
    if (!of_several(g))
        return g->standby && g->begun_ms + patience_ms(m) > m->now_ms ? g->begun_ms + patience_ms(m) : deadline;
    if (m->unit.running) return stalled_at(m) > m->now_ms && stalled_at(m) < deadline ? stalled_at(m) : deadline;
    const uint64_t at[] = {g->since_ms + AT_NODE_GROUP_DIAL_MS, g->since_ms + AT_NODE_GROUP_LINK_MS,
                           g->begun_ms + AT_NODE_GROUP_ANSWER_MS};
    for (size_t i = 0; i < sizeof at / sizeof at[0]; i++)
        if (at[i] > m->now_ms && at[i] < deadline) deadline = at[i];
    for (uint32_t p = 0; p < g->size; p++) {
        uint64_t due = g->told[p].ms + AT_NODE_GROUP_AGAIN_MS;
        if ((g->with & ~g->agreed & bit(p)) && p != g->place && due > m->now_ms && due < deadline) deadline = due;
    }
    return deadline;
}
