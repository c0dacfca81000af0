/* node_round.c: what a node does as a member: joins, trains its unit, hands in its receipt, leaves, ends.
 *
 *   phase        until                                             by
 *   linking      somebody's Hello                                  node_mesh.c
 *   genesis      the genesis is here                               node_blob.c
 *   log          an empty LogPart: at the head                     node_log.c
 *   data         every shard of the genesis is here                data_drive
 *   joining      own JOIN is in the log                            member_drive
 *   state        the state at the start of the ledger's round      node_state.c
 *   waiting      OPEN with an allotment of one's own               (Ready said once per way and round)
 *   training     UNIT_DONE                                         unit_drive
 *   committing   CLOSE (the receipt is handed in, node_relay.c)    unit_drive
 *   applying     EPOCH with the same root                          node_state.c
 *   ending       END, final state confirmed and saved; those who   member_drive
 *                follow this node have said goodbye, all linked
 *                have the final state; or 10 s
 * A unit that was under way when the process died is simply started again: the same (state, range) give the same
 * update.
 *
 * A unit may end early, with credit for the steps that are done: when its round is about to close (the driver has a budget
 * of time), or when this member, or another that shares the unit, wants to leave. */
#include "swarm/node_internal.h"

#include <stdio.h>
#include <string.h>

struct at_hash at_node_machine_counted(const struct at_node_machine *m)
{
    int self = at_node_self(m);
    return self >= 0 ? m->ledger.members[self].last : (struct at_hash){{0}};
}

static const struct at_allotment *own_unit(const struct at_node_machine *m)
{
    int self = at_node_self(m);
    if (self < 0 || m->ledger.phase != AT_LEDGER_TRAINING) return NULL;
    const struct at_allotment *u = at_ledger_allotment(&m->ledger, (uint32_t)self);
    return u && u->allotted ? u : NULL;
}

/* Shards one after the other: each is one fetch with many pieces under way. */
void at_node_data_drive(struct at_node_machine *m)
{
    if (!m->has_genesis || m->shards_here || (!m->consensus && !m->log_synced && !at_node_joined(m))) return;
    while (m->shard_next < m->genesis.shard_count) {
        const struct at_text_shard *s = &m->genesis.shards[m->shard_next];
        const struct at_node_fetch *f = at_node_fetch(m, AT_BLOB_SHARD, s->hash, s->bytes, s->bytes, 0);
        if (f && m->consensus && f->state == AT_FETCH_WAIT)
            at_node_end(m, AT_E_DATA, "the founder's folder lacks the data shard %s", s->name);
        return;
    }
    m->shards_here = m->again = true;
}

static void send_progress(struct at_node_machine *m, bool force)
{
    if (!force && m->now_ms < m->unit.progress_ms + AT_NODE_PROGRESS_MS) return;
    m->unit.progress_ms = m->now_ms;
    struct at_message msg = {.kind = AT_MSG_PROGRESS};
    msg.progress = (struct at_msg_progress){
        .round = m->unit.round, .step = m->unit.step, .tokens = m->unit.tokens, .tokens_per_s = m->unit.tokens_per_s};
    bool encoded = false;
    for (size_t i = 0; i < m->link_top; i++) {
        const struct at_node_link *l = &m->links[i];
        bool listens = (m->is_steward && l->log_live) || (!m->consensus && at_node_link_seat(l));
        if (!at_node_link_open(l) || !listens) continue;
        if (encoded)
            at_node_send_again(m, l->id);
        else
            at_node_send(m, l->id, &msg);
        encoded = true;
    }
}

static void unit_done(struct at_node_machine *m, const struct at_node_event *e)
{
    const struct at_allotment *u = own_unit(m);
    m->unit.running = false;
    if (!u || m->ledger.round != e->unit.round) return; /* the round closed without it */
    struct at_record rec = {.kind = AT_RECORD_RECEIPT};
    rec.receipt = (struct at_receipt){.round = e->unit.round,
                                      .replica = (uint32_t)at_node_self(m),
                                      .state_in = m->state.root,
                                      .start = u->range.start,
                                      .samples = e->unit.samples,
                                      .steps = e->unit.steps,
                                      .tokens = e->unit.tokens,
                                      .flops = e->unit.tokens * at_model_flops_per_token(&m->genesis.model),
                                      .update = e->unit.update,
                                      .update_bytes = e->unit.update_bytes,
                                      .feedback = e->unit.feedback,
                                      .heldout = e->unit.heldout,
                                      .group = at_node_group_with(m)};
    struct at_stage_cut cut = at_ledger_cut(&m->ledger, rec.receipt.replica, rec.receipt.group);
    if (rec.receipt.group) rec.receipt.took_ms = at_node_group_took_ms(m, e->unit.share_ms, e->unit.steps);
    if (rec.receipt.group)
        rec.receipt.flops = e->unit.tokens * at_stage_cut_flops(&m->genesis.model, &cut,
                                                                at_group_stage(rec.receipt.group, m->group.place));
    if (!at_node_own_sign(m, AT_NODE_OWN_RECEIPT, &rec, m->wall_ms)) return;
    bool early = e->unit.steps < at_ledger_round(&m->ledger).steps && !m->unit.enough;
    if (rec.receipt.group && early && at_node_group_steps(m) == 0 &&
        m->now_ms < m->unit.began_ms + m->unit.budget_ms / 2)
        at_node_note(m, "the unit of round %u ends after %u steps: another member of the group asked for that",
                     e->unit.round + 1, e->unit.steps);
    m->unit.done = true;
    m->unit.submitted = false;
    m->unit.step = e->unit.steps;
    m->unit.tokens = e->unit.tokens;
    send_progress(m, true);
}

void at_node_unit_event(struct at_node_machine *m, const struct at_node_event *e)
{
    if (!m->unit.running || m->unit.round != e->unit.round) return; /* of a unit that was stopped */
    if (e->kind == AT_NODE_EV_UNIT_PROGRESS) {
        at_node_group_moved(m, e->unit.step);
        if (e->unit.step == 0) return;
        m->unit.step = e->unit.step;
        m->unit.tokens = e->unit.tokens;
        m->unit.tokens_per_s = e->unit.tokens_per_s >= 0 && e->unit.tokens_per_s < 1e15 ? e->unit.tokens_per_s : 0;
        send_progress(m, false);
        if (!m->group.on) at_node_quiet(m);
    } else if (e->kind == AT_NODE_EV_UNIT_DONE) {
        unit_done(m, e);
    } else if (e->kind == AT_NODE_EV_UNIT_LOST || (m->group.on && at_group_stages(m->group.with) > 1)) {
        /* Also one that failed: the others' bytes may be to blame. Alone it is known. */
        if (e->unit.session == m->group.session) at_node_group_lost(m, e->reason);
    } else {
        m->unit.running = false;
        at_node_end(m, AT_E_NONFINITE, "the unit of round %u failed: %s", e->unit.round + 1,
                    e->reason ? e->reason : "");
    }
}

/* An eighth of the round is kept for the update and its receipt. */
static uint64_t budget_ms(const struct at_node_machine *m)
{
    uint64_t until = m->unit.open_ms + m->genesis.round_ms_max - m->genesis.round_ms_max / 8;
    return until > m->now_ms ? until - m->now_ms : 0;
}

void at_node_unit_start(struct at_node_machine *m, const struct at_allotment *u, const struct at_node_team *team)
{
    m->unit.running = true;
    m->unit.done = m->unit.submitted = m->unit.enough = false;
    m->unit.round = m->ledger.round;
    m->unit.step = 0;
    m->unit.tokens = 0;
    m->unit.tokens_per_s = 0;
    struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_UNIT_START);
    op->round = m->ledger.round;
    op->root = m->state.root;
    op->unit.round = m->ledger.round;
    op->unit.replica = (uint32_t)at_node_self(m);
    op->unit.steps = at_ledger_round(&m->ledger).steps;
    op->unit.samples = (uint32_t)u->range.samples;
    op->unit.start = u->range.start;
    /* Not again in the same round, when time is short; nor by who is left of a group, with memory for a part of the model. */
    bool again = m->unit.begun == m->ledger.round + 1, left = !team && m->group.on && m->group.size > 1;
    if (!again && !left) op->unit.heldout = at_ledger_heldout_share(&m->ledger, op->unit.replica);
    m->unit.begun = m->ledger.round + 1;
    op->unit.stop_at = at_node_group_steps(m);
    op->unit.budget_ms = op->unit.stop_at > 0 ? AT_NODE_UNIT_FOREVER_MS : budget_ms(m);
    m->unit.began_ms = m->now_ms;
    m->unit.budget_ms = op->unit.budget_ms;
    op->team = team;
    op->counted = at_node_machine_counted(m);
}

static void cut_if_leaving(struct at_node_machine *m)
{
    if (!m->leaving || !m->unit.running || m->unit.enough || at_node_group_steps(m) > 0) return;
    m->unit.enough = true;
    at_node_op_add(m, AT_NODE_OP_UNIT_ENOUGH);
}

void at_node_unit_hand_in(struct at_node_machine *m)
{
    if (m->consensus) {
        if (!m->unit.submitted) at_node_own_submit(m, AT_NODE_OWN_RECEIPT);
        m->unit.submitted = true;
        return;
    }
    if (m->mesh.path && m->log_synced) at_node_own_send(m, AT_NODE_OWN_RECEIPT);
}

void at_node_unit_drive(struct at_node_machine *m)
{
    if (!m->has_genesis || !at_node_settled(m)) return;
    const struct at_allotment *u = own_unit(m);
    if (u && (m->unit.open_ms == 0 || m->unit.open_round != m->ledger.round)) {
        m->unit.open_round = m->ledger.round;
        m->unit.open_ms = m->now_ms;
    }
    cut_if_leaving(m);
    if (at_genesis_stages(&m->genesis) > 1) {
        at_node_group_drive(m, u);
        return;
    }
    bool open = u && !u->received;
    if (m->unit.running && (!open || m->unit.round != m->ledger.round || m->ended)) {
        m->unit.running = false;
        at_node_op_add(m, AT_NODE_OP_UNIT_STOP);
    }
    if (m->unit.done && m->unit.round != m->ledger.round) m->unit.done = false;
    if (!open || m->ended || !at_node_state_confirmed(m)) return;
    if (m->unit.done)
        at_node_unit_hand_in(m);
    else if (!m->unit.running && (m->consensus || m->log_synced))
        at_node_unit_start(m, u, NULL);
}

/* ---- joining, being ready, leaving, ending ---- */
static void submit(struct at_node_machine *m, enum at_record_kind kind, enum at_node_own_what what)
{
    if (!m->own[what].is_signed) {
        struct at_record rec = {.kind = kind};
        if (kind == AT_RECORD_JOIN) memcpy(rec.join.name, m->name, sizeof rec.join.name);
        if (!at_node_own_sign(m, what, &rec, m->wall_ms)) return;
    }
    at_node_own_send(m, what);
}

/* Is this node's part of the round over, so that it may leave? One that leaves now need not wait for the round, but for those
 * who share its unit, who would begin anew without it; and as one of several stewards, whose receipt is in the log
 * before anybody else has the update, until the round is closed. */
static bool part_is_over(const struct at_node_machine *m)
{
    int self = at_node_self(m);
    if (self < 0 || m->ledger.phase == AT_LEDGER_READY || m->ledger.phase == AT_LEDGER_ENDED) return true;
    const struct at_allotment *u = at_ledger_allotment(&m->ledger, (uint32_t)self);
    if (!u || !u->allotted) return true;
    return m->leaving && !m->is_steward && at_ledger_unit_complete(&m->ledger, (uint32_t)self);
}

static void leave(struct at_node_machine *m)
{
    bool alone = !m->mesh.path && m->now_ms >= m->pathless_ms + AT_NODE_LEAVE_ALONE_MS;
    if (!m->has_genesis || alone || (m->log_synced && !at_node_joined(m))) {
        at_node_end(m, AT_OK, alone ? "finished; the steward cannot be reached, so no LEAVE was written" : "finished");
        return;
    }
    bool settled_state = !m->state.has || at_node_state_confirmed(m);
    if (m->mesh.path && m->log_synced && part_is_over(m) && settled_state && !m->state.saving)
        submit(m, AT_RECORD_LEAVE, AT_NODE_OWN_LEAVE);
}

/* Those who follow this node have their END and the last updates from here. */
static bool has_followers(const struct at_node_machine *m)
{
    for (size_t i = 0; i < m->link_top; i++)
        if (at_node_link_open(&m->links[i]) && m->links[i].log_live && at_node_link_member(m, &m->links[i]))
            return true;
    return false;
}

/* The other stewards know of the END, and whoever follows can be shown that it stands there. */
static bool stewards_know(struct at_node_machine *m)
{
    if (!at_node_among_several(m)) return true;
    for (size_t i = 0; i < m->link_top; i++) {
        const struct at_node_link *l = &m->links[i];
        if (at_node_link_open(l) && at_node_link_seat(l) && l->head < m->ledger.tree.size) return false;
    }
    return m->agree.told == m->ledger.tree.size;
}

/* A member linked here has not said that it has the final state on its disk: it may be about to ask for what it lacks. */
static bool somebody_lacks_it(const struct at_node_machine *m)
{
    for (size_t i = 0; i < m->link_top; i++) {
        const struct at_node_link *l = &m->links[i];
        if (!at_node_link_open(l) || !at_node_link_member(m, l)) continue;
        if (!l->has_saved || l->cold->saved.round < m->state.round) return true;
    }
    return false;
}

/* END is known, and the final state is with nobody: no link for a while, or only to those who lack it too. */
static bool final_state_is_gone(const struct at_node_machine *m)
{
    uint64_t since = m->linkless_ms ? m->linkless_ms : m->tiles.starved_ms;
    return since && m->now_ms >= since + AT_NODE_FINAL_STATE_MS;
}

/* Those with slow lines have all members' updates to fetch. */
uint64_t at_node_end_linger_ms(const struct at_node_machine *m)
{
    return AT_NODE_END_LINGER_MS + (uint64_t)AT_NODE_END_LINGER_EACH_MS * m->ledger.member_count;
}

static void end(struct at_node_machine *m)
{
    if (at_node_self(m) < 0) {
        at_node_end(m, AT_E_PEER, "the run has ended already, after %u rounds", m->ledger.round);
    } else if (!at_node_joined(m)) {
        at_node_end(m, AT_OK, "the run has ended after %u rounds", m->ledger.round);
    } else if (at_node_state_confirmed(m)) {
        at_node_say_ready(m);
        if (!m->state.saved || m->state.saved_round != m->state.round) return;
        if (!m->child_end_ms) m->child_end_ms = m->now_ms;
        bool needed = has_followers(m) || !stewards_know(m) || somebody_lacks_it(m);
        if (needed && m->now_ms < m->child_end_ms + at_node_end_linger_ms(m)) return;
        for (size_t i = 0; i < m->link_top; i++) /* so that nobody need wait for this node */
            if (at_node_link_open(&m->links[i])) at_node_link_refuse(m, &m->links[i], "the run has ended here");
        at_node_end(m, AT_OK, "the run has ended after %u rounds", m->ledger.round);
    } else if (final_state_is_gone(m)) {
        at_node_end(m, AT_E_PEER, "the run has ended, but nobody could be reached to fetch its final state");
    }
}

void at_node_member_drive(struct at_node_machine *m)
{
    if (m->consensus || m->ended) return;
    if (m->has_genesis && m->ledger.phase == AT_LEDGER_ENDED) {
        end(m);
        return;
    }
    if (m->finishing) {
        leave(m);
        return;
    }
    if (!m->mesh.path || !m->log_synced || !m->shards_here) return;
    if (!at_node_joined(m)) {
        submit(m, AT_RECORD_JOIN, AT_NODE_OWN_JOIN);
        if (m->join_refused_ms && m->now_ms >= m->join_refused_ms + AT_NODE_REFUSED_MS)
            at_node_end(m, AT_E_PEER, "the steward refused to let this node join: %s", m->join_reason);
        return;
    }
    m->join_refused_ms = 0;
    m->own[AT_NODE_OWN_JOIN].is_signed = false; /* one who has left and joins again says so anew */
    if (at_node_state_confirmed(m)) at_node_say_ready(m);
    at_node_say_here(m);
}

static void sooner(uint64_t *deadline, uint64_t at, uint64_t now)
{
    if (at > now && at < *deadline) *deadline = at;
}

uint64_t at_node_member_deadline_ms(const struct at_node_machine *m)
{
    uint64_t deadline = UINT64_MAX;
    if (m->consensus) return deadline;
    sooner(&deadline, at_node_own_deadline_ms(m), m->now_ms);
    if (m->join_refused_ms) sooner(&deadline, m->join_refused_ms + AT_NODE_REFUSED_MS, m->now_ms);
    if (m->finishing && !m->mesh.path) sooner(&deadline, m->pathless_ms + AT_NODE_LEAVE_ALONE_MS, m->now_ms);
    if (m->has_genesis && m->ledger.phase == AT_LEDGER_ENDED) {
        if (m->linkless_ms) sooner(&deadline, m->linkless_ms + AT_NODE_FINAL_STATE_MS, m->now_ms);
        if (m->tiles.starved_ms) sooner(&deadline, m->tiles.starved_ms + AT_NODE_FINAL_STATE_MS, m->now_ms);
        if (m->child_end_ms) sooner(&deadline, m->child_end_ms + at_node_end_linger_ms(m), m->now_ms);
    }
    return deadline;
}
