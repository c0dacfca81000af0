/* node_status.c: the snapshot for people: the log's facts, and what members say about their running units. */
#include "swarm/node_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *at_node_phase_text(enum at_node_phase phase)
{
    static const char *const text[] = {"starting", "linking",  "genesis",    "log",      "data",   "joining", "state",
                                       "waiting",  "training", "committing", "applying", "ending", "ended"};
    return phase >= AT_NODE_PHASE_LINKING && phase <= AT_NODE_PHASE_ENDED ? text[phase] : text[0];
}

static enum at_node_phase phase_of(const struct at_node_machine *m)
{
    int self = at_node_self(m);
    if (m->ended) return AT_NODE_PHASE_ENDED;
    bool linked = at_node_linked(m);
    if (!m->has_genesis) return linked ? AT_NODE_PHASE_GENESIS : AT_NODE_PHASE_LINKING;
    if (m->ledger.phase == AT_LEDGER_ENDED) return AT_NODE_PHASE_ENDING;
    if (m->unit.running) return AT_NODE_PHASE_TRAINING;
    if (m->state.busy == AT_STATE_APPLY) return AT_NODE_PHASE_APPLYING;
    if (!m->consensus && !linked) return AT_NODE_PHASE_LINKING;
    if (!m->consensus && !m->log_synced && self < 0) return AT_NODE_PHASE_LOG;
    if (!m->shards_here) return AT_NODE_PHASE_DATA;
    if (!at_node_joined(m)) return AT_NODE_PHASE_JOINING;
    if (!m->state.has || m->state.busy) return AT_NODE_PHASE_STATE;
    if (m->ledger.phase == AT_LEDGER_TRAINING && m->ledger.allotments[self].allotted && m->unit.done)
        return AT_NODE_PHASE_COMMITTING;
    if (m->ledger.phase == AT_LEDGER_CLOSED) return AT_NODE_PHASE_APPLYING;
    return at_node_state_confirmed(m) ? AT_NODE_PHASE_WAITING : AT_NODE_PHASE_STATE;
}

/* Of a whole unit of the running round. */
static uint64_t round_tokens(const struct at_node_machine *m)
{
    return (uint64_t)at_ledger_round(&m->ledger).steps * m->genesis.train.batch * m->genesis.model.seq_len;
}

/* The part of the round's issuance that goes with `tokens`, were every participant to finish. */
static uint64_t pending_points(const struct at_node_machine *m, uint64_t tokens, uint32_t participants)
{
    uint64_t unit_tokens = round_tokens(m);
    if (participants == 0 || unit_tokens == 0) return 0;
    return (uint64_t)((at_u128)m->genesis.issuance * (tokens < unit_tokens ? tokens : unit_tokens) / unit_tokens /
                      participants);
}

static void live(struct at_node_machine *m, uint32_t r, const struct at_node_link *link,
                 struct at_node_member_status *s, uint32_t participants)
{
    const struct at_allotment *u = m->ledger.phase == AT_LEDGER_TRAINING ? at_ledger_allotment(&m->ledger, r) : NULL;
    uint64_t tokens = 0;
    if (!u) return;
    s->in_round = true;
    s->committed = u->received;
    if (u->received) {
        s->step = u->receipt.steps;
        tokens = u->receipt.tokens;
    } else if (s->self && (m->unit.running || m->unit.done) && m->unit.round == m->ledger.round) {
        s->step = m->unit.step;
        tokens = m->unit.tokens;
        s->tokens_per_s = m->unit.running ? m->unit.tokens_per_s : 0;
    } else if (link && link->cold->progress.round == m->ledger.round) {
        uint32_t steps = at_ledger_round(&m->ledger).steps;
        s->step = link->cold->progress.step < steps ? link->cold->progress.step : steps;
        tokens = link->cold->progress.tokens;
        s->tokens_per_s = link->cold->progress.tokens_per_s;
    }
    uint64_t unit_tokens = round_tokens(m);
    s->tokens += tokens < unit_tokens ? tokens : unit_tokens;
    s->points_pending = pending_points(m, tokens, participants);
}

/* Of the run: members of a group work on the same tokens. */
static void totals(const struct at_node_machine *m, struct at_node_status *status)
{
    const struct at_ledger *l = &m->ledger;
    status->tokens = l->tokens;
    for (uint32_t lead = 0; lead < l->member_count; lead++) {
        uint64_t most = 0;
        double fastest = 0;
        if (!at_ledger_allotment(l, lead) || l->groups[lead].place != 0) continue;
        for (uint32_t r = lead; r != AT_GROUP_END; r = l->groups[r].next) {
            const struct at_node_member_status *s = &m->shown[r];
            if (s->tokens - l->members[r].tokens > most) most = s->tokens - l->members[r].tokens;
            if (s->tokens_per_s > fastest) fastest = s->tokens_per_s;
        }
        status->tokens += most;
        status->tokens_per_s += fastest;
    }
}

static bool room_for_members(struct at_node_machine *m)
{
    uint32_t cap = m->ledger.member_cap;
    if (m->ledger.member_count <= m->shown_cap) return true;
    struct at_node_member_status *shown = realloc(m->shown, cap * sizeof *shown);
    if (!shown) return false;
    m->shown = shown;
    m->shown_cap = cap;
    return true;
}

/* Without memory for it the list is empty. */
static void members(struct at_node_machine *m, struct at_node_status *status)
{
    const struct at_ledger *l = &m->ledger;
    uint32_t participants = 0;
    if (!room_for_members(m)) return;
    for (uint32_t r = 0; r < l->member_count; r++) participants += at_ledger_allotment(l, r) != NULL;
    for (uint32_t r = 0; r < l->member_count; r++) {
        const struct at_member *member = &l->members[r];
        struct at_node_member_status *s = &m->shown[r];
        const struct at_node_link *link = at_node_link_of(m, &member->id);
        *s = (struct at_node_member_status){.id = member->id,
                                            .replica = r,
                                            .self = at_node_id_eq(&member->id, &m->options.key.id),
                                            .steward = at_node_is_seat(m, &member->id),
                                            .left = !member->active,
                                            .tokens = member->tokens,
                                            .points_confirmed = member->confirmed};
        s->online = s->self || at_node_present(m, r);
        memcpy(s->name, member->name, sizeof s->name);
        live(m, r, link, s, participants);
        if (s->online) s->part = at_ledger_part(l, r);
    }
    totals(m, status);
    status->members = m->shown;
    status->member_count = l->member_count;
}

static void fetch_progress(const struct at_node_machine *m, struct at_node_status *status)
{
    for (size_t i = 0; i < m->fetch_top; i++)
        if (m->fetches[i].state == AT_FETCH_RUN && m->fetches[i].total > status->fetch_bytes) {
            status->fetched_bytes = m->fetches[i].written;
            status->fetch_bytes = m->fetches[i].total;
        }
    if (m->tiles.step != AT_NODE_TILES_RUN) return;
    status->fetch_bytes = m->tiles.shape_bytes;
    status->fetched_bytes = m->tiles.shape_bytes - at_node_tiles_bytes_left(m);
}

/* Of the newest agreed state, and of those whose word we have: members that are not linked here may hold it too. */
static uint32_t checkpoint_holders(const struct at_node_machine *m)
{
    const struct at_ledger *l = &m->ledger;
    uint32_t count = 0;
    if (!m->has_genesis) return 0;
    count = m->is_steward || at_node_joined(m) ? at_node_state_is_saved(m) : 0;
    for (size_t i = 0; i < m->link_top; i++) {
        const struct at_node_link *link = &m->links[i];
        if (!at_node_link_open(link) || !at_node_link_member(m, link) || !link->has_saved) continue;
        const struct at_msg_saved *said = &link->cold->saved;
        if (said->round != l->round) continue;
        count += at_hash_is_zero(l->state_root) || at_hash_eq(said->state_root, l->state_root);
    }
    return count;
}

const struct at_node_status *at_node_machine_status(struct at_node_machine *m)
{
    struct at_node_status *s = &m->status;
    *s = (struct at_node_status){.steward = m->is_steward,
                                 .joined = at_node_joined(m),
                                 .desync = m->state.desync,
                                 .phase = phase_of(m),
                                 .run = m->options.run,
                                 .id = m->options.key.id,
                                 .heldout_loss_first = m->state.loss_first,
                                 .heldout_loss_last = NAN,
                                 .state_round = m->state.round,
                                 .hops = at_node_hops(m),
                                 .peers_known = at_node_peers_known(m),
                                 .log_size = at_node_log_size(m)};
    if (m->state.has) s->state_root = m->state.root;
    for (size_t i = 0; i < m->link_top; i++) {
        if (!at_node_link_open(&m->links[i])) continue;
        s->peers++;
        s->peers_punched += m->links[i].way == AT_NODE_PUNCHED;
        s->peers_relayed += m->links[i].way == AT_NODE_RELAYED;
    }
    fetch_progress(m, s);
    s->checkpoint_holders = checkpoint_holders(m);
    memcpy(s->last_event, m->last_event, sizeof s->last_event);
    if (!m->has_genesis) return s;
    s->round = m->ledger.round;
    s->rounds = at_genesis_rounds(&m->genesis);
    s->rounds_done = m->ledger.round;
    s->steps = at_ledger_round(&m->ledger).steps;
    if (s->steps == 0) s->steps = m->genesis.train.steps; /* the run is over */
    if ((m->unit.running || m->unit.done) && m->unit.round == m->ledger.round) s->step = m->unit.step;
    if (m->ledger.heldout_loss >= 0) s->heldout_loss_last = m->ledger.heldout_loss;
    s->heldout_rounds = m->ledger.heldout_rounds;
    s->log_root = m->consensus ? m->final_root : at_ledger_root(&m->ledger);
    s->ended = m->ledger.phase == AT_LEDGER_ENDED;
    s->term = m->ledger.seats.term;
    s->seats = m->ledger.seats.count;
    s->seats_here = at_node_seats_here(m);
    s->abstains = m->agree.simplex && at_simplex_status(m->agree.simplex).abstaining;
    members(m, s);
    return s;
}
