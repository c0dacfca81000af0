/* node_steward.c: the steward's part. A single steward decides nothing that the log does not show, and everything in this order:
 *
 *   ledger     condition                                                                  record
 *   READY      own state confirmed, rounds are left, nobody asked to finish; and          OPEN, of those who are ready
 *              in round 0 min_members are ready; later every member that is here
 *              and took part in the last round, or was ready for it, is; or its grace is over;
 *              and no pause for members left out is on
 *   READY      no rounds are left, or FINISH                                              END
 *   TRAINING   a receipt's update has been fetched, stored and found fit to apply;        (the member's) RECEIPT
 *              and it has waited for company (node_company.c)
 *   TRAINING   every participant is in or gone; or round_ms_max after OPEN                CLOSE, of all receipts
 *   CLOSED     own outer step is done                                                     EPOCH
 *   ENDED      every linked member has said goodbye, and six seconds have passed for      (none: this node ends)
 *              those whose link was lost lately; or ten seconds have
 *
 * Left out: here at four OPENs in a row and ready for none. Rounds that are shorter than it takes to fetch a state go on
 * without a newcomer for ever: what it fetches is old, and dropped, before it has it. So then OPEN waits for it, once, for
 * an eighth of the time that it has been left out (2 to 30 s), and again when it has been left out twice as long. No pause
 * is longer than a quarter of the time since the one before: all together cost a fifth of the time at most, whoever they
 * are for, and each is twice as long as the last until it is long enough.
 *
 * Gone: it has left, or handed in an update that cannot be applied, or has not been here (node_presence.c) for a second
 * (three, when its words came through others; eight after the steward itself came back). */
#include "swarm/node_internal.h"

#include <math.h>
#include <string.h>

static void begin(struct at_node_machine *m)
{
    m->start_ms = m->open_ms = m->now_ms;
    for (size_t r = 0; r < AT_MEMBERS_MAX; r++) m->absent_ms[r] = m->now_ms + 1; /* never 0 */
}

/* The others may have heard of members that this one has yet to hear of; but in a term that goes on it was here. */
void at_node_steward_begin(struct at_node_machine *m)
{
    begin(m);
    m->is_ready = false;
    at_node_hold_clear(m);
}

void at_node_steward_start(struct at_node_machine *m)
{
    begin(m);
    if (at_node_joined(m) || m->ledger.phase == AT_LEDGER_ENDED) return;
    struct at_record rec = {.kind = AT_RECORD_JOIN};
    struct at_signed_record signed_rec;
    memcpy(rec.join.name, m->name, sizeof rec.join.name);
    if (at_node_sign_own(m, &rec, &signed_rec)) at_node_submit_own(m, &signed_rec, 0);
}

/* Once a round, when it has opened. */
static void count_left_out(struct at_node_machine *m)
{
    uint64_t paused_ms = m->pause_ms ? m->now_ms - m->ready_ms : 0;
    if (paused_ms) m->pause_end_ms = m->now_ms;
    for (uint32_t r = 0; r < m->ledger.member_count; r++) {
        struct at_node_peer *peer = &m->mesh.peers[r];
        if (!m->ledger.members[r].active || at_ledger_in_round(&m->ledger, r) || !at_node_present(m, r)) {
            peer->left_out = 0;
            continue;
        }
        if (peer->left_out++ == 0) peer->left_out_ms = peer->pause_ms = m->now_ms;
        if (paused_ms && peer->pause_ms <= m->ready_ms) peer->pause_ms = 2 * m->now_ms - peer->left_out_ms;
    }
    m->pause_ms = 0;
}

void at_node_steward_opened(struct at_node_machine *m)
{
    m->open_ms = m->now_ms;
    memset(m->unfit, 0, sizeof m->unfit);
    if (m->is_steward) count_left_out(m);
    if (!at_node_among_several(m)) return;
    m->is_ready = false;
    at_node_hold_clear(m);
}

/* ---- the rounds ---- */
/* True: it was said now. */
static bool submit(struct at_node_machine *m, struct at_record *rec)
{
    struct at_signed_record signed_rec;
    if (at_node_among_several(m)) return at_node_word(m, rec);
    if (at_node_sign_own(m, rec, &signed_rec)) at_node_submit_own(m, &signed_rec, 0);
    return true;
}

static bool is_ready_for(const struct at_node_machine *m, const struct at_presence *said)
{
    return said->round == m->state.round && at_hash_eq(said->state_root, m->state.root);
}

/* Each member's link, or NULL. Keys that joined and never come are many when somebody makes them up: nothing here may
 * look through all links for each. */
static void links_by_replica(struct at_node_machine *m, const struct at_node_link **ret_links)
{
    memset(ret_links, 0, m->ledger.member_count * sizeof *ret_links);
    for (size_t i = 0; i < m->link_top; i++) {
        const struct at_node_link *l = &m->links[i];
        if (at_node_link_open(l) && l->replica1) ret_links[l->replica1 - 1] = l;
    }
}

/* Who is here, for the next OPEN. */
struct muster {
    struct at_replicas ready;
    uint32_t ready_count;
    uint32_t late;   /* worth to wait for: they have kept up so far */
    uint32_t unseen; /* not heard of since this steward came back */
    uint32_t left_out;
};

static void muster(struct at_node_machine *m, struct muster *ret)
{
    const struct at_node_link *links[AT_MEMBERS_MAX];
    links_by_replica(m, links);
    memset(ret, 0, sizeof *ret);
    for (uint32_t r = 0; r < m->ledger.member_count; r++) {
        const struct at_member *member = &m->ledger.members[r];
        if (!member->active) continue;
        bool self = at_node_id_eq(&member->id, &m->options.key.id);
        bool linked = m->mesh.words[r].via || links[r];
        const struct at_presence *said = !self && linked ? &m->mesh.peers[r].said : NULL;
        bool took_part = m->ledger.round > 0 && at_ledger_in_round(&m->ledger, r);
        bool keeps_up = took_part || (said && !at_hash_is_zero(said->state_root) && said->round + 1 >= m->ledger.round);
        if (said) m->absent_ms[r] = 0;
        if (self || (said && is_ready_for(m, said))) {
            at_replicas_add(&ret->ready, r);
            ret->ready_count++;
            continue;
        }
        if (said && keeps_up && m->ledger.round > 0)
            ret->late++;
        else if (took_part && m->absent_ms[r] == m->start_ms + 1)
            ret->unseen++;
        ret->left_out += said && m->mesh.peers[r].left_out >= AT_NODE_LEFT_OUT;
    }
}

/* ---- members left out ---- */
static uint64_t pause_for(struct at_node_machine *m)
{
    uint64_t longest = 0, most = AT_NODE_PAUSE_MAX_MS;
    if (m->pause_end_ms && (m->now_ms - m->pause_end_ms) / AT_NODE_PAUSE_GAP < most)
        most = (m->now_ms - m->pause_end_ms) / AT_NODE_PAUSE_GAP;
    if (most < AT_NODE_PAUSE_MIN_MS) return 0;
    for (uint32_t r = 0; r < m->ledger.member_count; r++) {
        const struct at_node_peer *peer = &m->mesh.peers[r];
        if (peer->left_out < AT_NODE_LEFT_OUT || m->now_ms < peer->pause_ms) continue;
        uint64_t pause = (m->now_ms - peer->left_out_ms) / AT_NODE_PAUSE_SHARE;
        if (pause < AT_NODE_PAUSE_MIN_MS) pause = AT_NODE_PAUSE_MIN_MS;
        if (pause > longest) longest = pause;
    }
    return longest < most ? longest : most;
}

static uint64_t open_grace_ms(const struct at_node_machine *m)
{
    uint64_t quarter = m->round_took_ms / 4;
    return m->ready_ms + (quarter > AT_NODE_OPEN_GRACE_MS ? quarter : AT_NODE_OPEN_GRACE_MS);
}

static void maybe_open(struct at_node_machine *m)
{
    bool over = m->ledger.round >= at_genesis_rounds(&m->genesis); /* one of several may leave, not end the run */
    if (over || (m->finishing && m->consensus)) {
        struct at_record rec = {.kind = AT_RECORD_END};
        rec.end.rounds = m->ledger.round;
        submit(m, &rec);
        return;
    }
    if (!at_node_state_confirmed(m) || !at_node_joined(m)) return;
    bool first_look = !m->is_ready;
    if (first_look) m->ready_ms = m->now_ms;
    if (first_look) m->pause_ms = pause_for(m);
    m->is_ready = true;
    struct muster here;
    muster(m, &here);
    if (m->ledger.round == 0 && here.ready_count < m->genesis.min_members) {
        if (first_look) at_node_note(m, "round 1 begins when %u members are here", m->genesis.min_members);
        return;
    }
    if (here.unseen > 0 && m->now_ms < m->start_ms + AT_NODE_ABSENT_START_MS) return;
    if (here.late > 0 && m->now_ms < open_grace_ms(m)) return;
    if (here.left_out > 0 && m->now_ms < m->ready_ms + m->pause_ms) return;
    struct at_record rec = {.kind = AT_RECORD_OPEN};
    rec.open.replicas = here.ready;
    rec.open.round = m->ledger.round;
    rec.open.state_root = m->state.root;
    if (m->consensus) m->is_ready = false; /* among several it may be said again, of others */
    submit(m, &rec);
}

/* Neither in nor gone. */
static bool is_awaited(struct at_node_machine *m, uint32_t r)
{
    const struct at_allotment *u = at_ledger_allotment(&m->ledger, r);
    const struct at_member *member = &m->ledger.members[r];
    if (at_node_among_several(m) && at_node_hold_awaited(m, r)) return true;
    if (!u || at_ledger_unit_complete(&m->ledger, r) || !member->active || m->unfit[r]) return false;
    if (at_node_in_company(m, r)) return true;
    if (at_node_id_eq(&member->id, &m->options.key.id)) return true;
    if (at_node_present(m, r)) {
        m->absent_ms[r] = 0;
        return true;
    }
    if (m->absent_ms[r] == 0) m->absent_ms[r] = m->now_ms;
    bool unseen = m->absent_ms[r] == m->start_ms + 1;
    uint32_t wait = m->mesh.peers[r].far ? AT_NODE_ABSENT_FAR_MS : AT_NODE_ABSENT_MS;
    return m->now_ms < m->absent_ms[r] + (unseen ? AT_NODE_ABSENT_START_MS : wait);
}

/* Of many members one that is awaited is known, and all were looked at a moment ago: at a thousand members to look at each
 * after every message was most of what a steward did. */
static bool goes_on(struct at_node_machine *m)
{
    bool many = m->ledger.member_count > AT_NODE_LOOK_MEMBERS, lately = m->now_ms < m->look_ms + AT_NODE_LOOK_MS;
    bool over = m->now_ms >= m->open_ms + m->genesis.round_ms_max;
    m->look_due = many && lately && !over && m->awaited < m->ledger.member_count && is_awaited(m, m->awaited);
    return m->look_due;
}

bool at_node_steward_awaits_more(struct at_node_machine *m)
{
    uint32_t n = m->ledger.member_count;
    for (uint32_t k = 0, r = m->awaited; k < n; k++, r++) { /* mostly it is the first */
        if (!is_awaited(m, r % n) || at_node_in_company(m, r % n)) continue;
        m->awaited = r % n;
        return true;
    }
    return false;
}

/* The replica's receipt may be counted: all parts of its unit are in the log, and of several stewards this one holds
 * their updates. */
static bool counts(const struct at_node_machine *m, uint32_t r)
{
    const struct at_ledger *l = &m->ledger;
    if (!at_ledger_part_counts(l, r)) return false;
    for (uint32_t k = l->groups[r].lead; k != AT_GROUP_END; k = l->groups[k].next)
        if (at_ledger_part_counts(l, k) && at_node_among_several(m) && !at_node_holds(m, k)) return false;
    return true;
}

static void maybe_close(struct at_node_machine *m)
{
    struct at_record rec = {.kind = AT_RECORD_CLOSE};
    uint32_t awaited = 0, count = 0;
    if (goes_on(m)) return;
    m->look_ms = m->now_ms;
    for (uint32_t r = 0; r < m->ledger.member_count; r++) {
        bool waits = is_awaited(m, r);
        awaited += waits;
        if (waits) m->awaited = r;
        if (!counts(m, r)) continue;
        at_replicas_add(&rec.close.included, r);
        count++;
    }
    if (awaited > 0 && m->now_ms < m->open_ms + m->genesis.round_ms_max) return;
    rec.close.round = m->ledger.round;
    m->round_took_ms = m->now_ms - m->open_ms;
    if (!submit(m, &rec)) return;
    at_node_note(m, "round %u closes with %u contribution%s%s", m->ledger.round + 1, count, count == 1 ? "" : "s",
                 awaited ? ", its time is over" : "");
}

static void maybe_epoch(struct at_node_machine *m)
{
    if (!m->state.has || m->state.busy || m->state.round != m->ledger.round + 1) return;
    struct at_record rec = {.kind = AT_RECORD_EPOCH};
    bool last = m->state.round >= at_genesis_rounds(&m->genesis);
    if (last && (!isfinite(m->state.loss) || m->state.loss < 0)) {
        if (!m->consensus) return; /* it became a steward with this state made: the others say it */
        at_node_end(m, AT_E_NONFINITE, "the held-out loss after round %u is not finite", m->ledger.round + 1);
        return;
    }
    rec.epoch = (struct at_epoch){.round = m->ledger.round,
                                  .state_root = m->state.root,
                                  .heldout_loss = last ? m->state.loss : at_ledger_heldout(&m->ledger),
                                  .balances = at_ledger_balances(&m->ledger)};
    submit(m, &rec);
}

/* Does a member still need this steward after END? Until it has said goodbye: that it is ready for the final state does
 * not tell that it knows of the END. One whose link was lost a moment ago may be dialling. */
static bool still_needs(struct at_node_machine *m, uint32_t r)
{
    const struct at_member *member = &m->ledger.members[r];
    if (!member->active || m->done[r] || at_node_id_eq(&member->id, &m->options.key.id)) return false;
    for (size_t i = 0; i < m->link_top; i++)
        if (m->links[i].used && !m->links[i].closing && at_node_id_eq(&m->links[i].node, &member->id)) return true;
    if (m->mesh.words[r].via) return false; /* whoever passes its words on waits for it */
    if (m->absent_ms[r] == 0) m->absent_ms[r] = m->now_ms;
    return m->end_ms < m->absent_ms[r] + AT_NODE_LOST_MS && m->now_ms < m->end_ms + AT_NODE_END_WAIT_MS;
}

static void linger(struct at_node_machine *m)
{
    bool done = at_node_state_confirmed(m) && m->state.saved && m->state.saved_round == m->state.round;
    if (!m->is_end) m->end_ms = m->now_ms;
    m->is_end = true;
    if (m->ledger.round == 0) done = true; /* nothing was trained: there may be no state */
    for (uint32_t r = 0; r < m->ledger.member_count && done; r++) done = !still_needs(m, r);
    if (done || m->now_ms >= m->end_ms + at_node_end_linger_ms(m))
        at_node_end(m, AT_OK, "the run has ended after %u rounds", m->ledger.round);
}

void at_node_steward_drive(struct at_node_machine *m)
{
    if (!m->is_steward || m->ended || !at_node_settled(m)) return;
    if (!m->consensus && (!m->log_synced || (m->finishing && !at_node_joined(m)))) return;
    switch (m->ledger.phase) {
    case AT_LEDGER_READY:
        maybe_open(m);
        break;
    case AT_LEDGER_TRAINING:
        maybe_close(m);
        break;
    case AT_LEDGER_CLOSED:
        maybe_epoch(m);
        break;
    case AT_LEDGER_ENDED:
        if (m->consensus) linger(m); /* else as a member: node_round.c */
        break;
    }
}

static void sooner(uint64_t *deadline, uint64_t at, uint64_t now)
{
    if (at > now && at < *deadline) *deadline = at;
}

uint64_t at_node_steward_deadline_ms(const struct at_node_machine *m)
{
    uint64_t deadline = UINT64_MAX;
    if (!m->is_steward) return deadline;
    sooner(&deadline, m->agree.word_ms, m->now_ms);
    if (m->ledger.phase == AT_LEDGER_READY && m->is_ready) {
        sooner(&deadline, open_grace_ms(m), m->now_ms);
        sooner(&deadline, m->ready_ms + m->pause_ms, m->now_ms);
        sooner(&deadline, m->start_ms + AT_NODE_ABSENT_START_MS, m->now_ms);
    } else if (m->ledger.phase == AT_LEDGER_TRAINING) {
        sooner(&deadline, m->open_ms + m->genesis.round_ms_max, m->now_ms);
        if (m->look_due) sooner(&deadline, m->look_ms + AT_NODE_LOOK_MS, m->now_ms);
        for (uint32_t r = 0; r < m->ledger.member_count; r++)
            if (m->absent_ms[r]) {
                sooner(&deadline, m->absent_ms[r] + AT_NODE_ABSENT_MS, m->now_ms);
                sooner(&deadline, m->absent_ms[r] + AT_NODE_ABSENT_FAR_MS, m->now_ms);
                sooner(&deadline, m->absent_ms[r] + AT_NODE_ABSENT_START_MS, m->now_ms);
            }
    } else if (m->ledger.phase == AT_LEDGER_ENDED) {
        sooner(&deadline, m->end_ms + AT_NODE_END_WAIT_MS, m->now_ms);
        sooner(&deadline, m->end_ms + at_node_end_linger_ms(m), m->now_ms);
    }
    return deadline;
}
