/* node_state.c: which state this node holds, and how it comes to the one it needs.
 *
 * `need` is the round whose start the ledger stands at: its `round`, or one more once that round is closed.
 *
 *   state held        ledger                          does
 *   none              no round done                   computes the initial state (STATE_INIT)
 *   none              rounds done, or after a desync  fetches the state that the last EPOCH or OPEN names by tiles
 *                                                     (node_tiles.c), installs it; the steward, with rounds done: ends
 *   of any round      names another root for it       desync, loudly: forgets it, fetches the tiles that differ; the
 *                                                     steward: ends
 *   round < need      updates of `round` are kept     fetches the included updates, APPLY
 *   round < need      it was away, and the updates    forgets it: fetches the tiles of the newest state instead
 *                     are more bytes than the state,
 *                     or not kept any more
 *   round = need      root as the log says            confirmed: SAVE, Ready; then Saved
 *   round = need      CLOSED (no EPOCH yet)           waits for the EPOCH (the steward writes it)
 *   round > need      (shorter than the folder)       waits for the log; the steward: ends
 *
 * "The steward" is a single one: own data that is wrong stops it (it has nobody to ask), and is fetched anew by others. */
#include "swarm/node_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint32_t round_needed(const struct at_node_machine *m)
{
    return m->ledger.round + (m->ledger.phase == AT_LEDGER_CLOSED ? 1 : 0);
}

bool at_node_state_confirmed(const struct at_node_machine *m)
{
    const struct at_ledger *l = &m->ledger;
    if (!m->has_genesis || !m->state.has || m->state.busy || m->state.round != l->round) return false;
    /* Before the first OPEN nothing in the log names the initial state: everybody computes it. */
    return at_hash_is_zero(l->state_root) || at_hash_eq(m->state.root, l->state_root);
}

static void forget(struct at_node_machine *m)
{
    m->state.has = m->state.have_valid = false;
    m->again = true;
}

void at_node_state_start(struct at_node_machine *m, const struct at_node_event *e)
{
    m->state.loss = m->state.loss_first = NAN;
    if (!e->start.has_state) return;
    m->state.has = m->state.saved = true;
    at_node_tiles_hold(m, e->start.root);
    m->state.round = m->state.saved_round = m->state.save_round = e->start.round;
    m->state.root = e->start.root;
    m->state.loss = e->start.heldout_loss;
    if (e->start.round == 0) m->state.loss_first = e->start.heldout_loss;
}

static void init(struct at_node_machine *m)
{
    m->state.busy = AT_STATE_INIT;
    at_node_op_add(m, AT_NODE_OP_STATE_INIT)->evaluate = m->is_steward;
}

/* What it would cost to come from `round` to the start of the ledger's by updates; UINT64_MAX: cannot be done. */
static uint64_t replay_bytes(struct at_node_machine *m, uint32_t round)
{
    uint64_t bytes = 0;
    for (; round < m->ledger.round; round++) {
        const struct at_node_history *h = at_node_history(m, round);
        if (!h || !h->closed) return UINT64_MAX;
        for (size_t i = 0; i < h->count; i++) bytes += h->list[i].update_bytes;
    }
    return bytes;
}

/* The newest state; but one that is half here is finished when that costs less, or when it was left for a newer one
 * twice: rounds may be shorter than a fetch takes. */
static void fetch_whole(struct at_node_machine *m)
{
    struct at_node_tiles *t = &m->tiles;
    if (t->shape_tiles == 0 || t->step == AT_NODE_TILES_FINISH) return;
    if (t->step != AT_NODE_TILES_NONE && !at_hash_eq(t->root, m->ledger.state_root)) {
        uint64_t replay = replay_bytes(m, t->round);
        bool cheaper = replay < UINT64_MAX && at_node_tiles_bytes_left(m) + replay <= t->shape_bytes;
        bool stay = replay < UINT64_MAX && (cheaper || t->switches >= AT_NODE_TILE_SWITCHES);
        if (stay && !at_node_tiles_starved(m)) return;
        t->switches++;
    }
    at_node_tiles_fetch(m, m->ledger.state_root, m->ledger.round);
}

static void desync(struct at_node_machine *m)
{
    if (m->consensus) {
        at_node_end(m, AT_E_VERIFY, "the state of round %u is not the one in the log: this folder is damaged",
                    m->state.round);
        return;
    }
    m->state.desync = true;
    m->state.force_fetch = true;
    at_node_note(m, "DESYNC: own root %.16s… of round %u is not the log's %.16s…; fetching the tiles that differ",
                 at_hash_hex(m->state.root).s, m->state.round, at_hash_hex(m->ledger.state_root).s);
    forget(m);
}

/* Have all peers been asked for an update often enough to know that it is not to be had? Of a round that is just over
 * they have it, or are about to: it goes from peer to peer. Older ones may have been dropped. */
static bool asked_in_vain(const struct at_node_machine *m, const struct at_node_history *h,
                          const struct at_node_fetch *f)
{
    if (m->consensus) return f->turns >= 2;
    if (m->ledger.round <= h->round) return false;
    return f->turns >= (h->round + AT_NODE_KEEP_LEAST >= m->ledger.round ? AT_NODE_FETCH_TURNS : 1);
}

/* The first update of the list from `i` on that is not here; `count`: none. */
static size_t next_missing(const struct at_node_machine *m, size_t i, size_t count)
{
    const bool *at = i < count ? memchr(m->state.have + i, false, (count - i) * sizeof *at) : NULL;
    return at ? (size_t)(at - m->state.have) : count;
}

/* Every included update of the round is here; those that are not are being fetched. All before `have_first` are here. */
static bool updates_here(struct at_node_machine *m, const struct at_node_history *h)
{
    uint32_t cost = 0;
    bool missing = false, fill = at_node_bundle_fills(m);
    if (!m->state.have_valid || m->state.have_round != h->round) {
        for (size_t i = 0; i < h->count; i++) m->state.have[i] = at_node_held_here(m, h->round, h->list[i].replica);
        m->state.have_round = h->round;
        m->state.have_first = 0;
        m->state.have_valid = true;
    }
    m->state.have_first = (uint32_t)next_missing(m, m->state.have_first, h->count);
    for (size_t i = m->state.have_first; i < h->count; i = next_missing(m, i + 1, h->count)) {
        const struct at_node_contribution *c = &h->list[i];
        missing = true;
        cost += at_node_update_cost(m, c->update_bytes);
        if (cost > AT_NODE_UPDATES_COST) break;
        bool waits = !fill && at_node_small_update(m, c->update_bytes);
        if (waits && !at_node_fetch_find(m, AT_BLOB_UPDATE, c->update)) continue;
        struct at_node_fetch *f = at_node_fetch_update(m, h->round, c->replica, c->update, c->update_bytes);
        if (!f || !asked_in_vain(m, h, f)) continue;
        if (m->consensus) {
            at_node_end(m, AT_E_DISK, "an update that was counted is gone from this folder: %.16s…",
                        at_hash_hex(c->update).s);
        } else { /* they are not kept for ever: take the result instead */
            for (size_t k = 0; k < h->count; k++)
                at_node_fetch_cancel(m, at_node_fetch_find(m, AT_BLOB_UPDATE, h->list[k].update));
            forget(m);
        }
        return false;
    }
    return !missing;
}

static void apply(struct at_node_machine *m, const struct at_node_history *h)
{
    m->state.busy = AT_STATE_APPLY;
    struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_APPLY);
    op->round = h->round;
    op->evaluate = m->is_steward && h->round + 1 >= at_genesis_rounds(&m->genesis); /* else the receipts say it */
    op->apply.list = h->list;
    op->apply.count = h->count;
}

/* Is a round's list of updates kept? Newest rounds first: `bytes` are those of the rounds after it. */
static bool is_kept(const struct at_node_machine *m, const struct at_node_history *h, uint64_t *bytes)
{
    for (size_t k = 0; k < h->count; k++) *bytes += h->list[k].update_bytes;
    if (h->round + AT_NODE_KEEP_LEAST >= m->ledger.round || h->round >= m->state.saved_round) return true;
    return h->round + AT_NODE_KEEP_ROUNDS >= m->ledger.round && *bytes <= m->tiles.shape_bytes;
}

static void prune(struct at_node_machine *m)
{
    size_t n = 0, max = AT_NODE_FETCHES_MAX;
    uint64_t bytes = 0;
    for (size_t i = 0; i < AT_NODE_HISTORY; i++) max += m->history[i].count;
    free(m->keep);
    if (!(m->keep = malloc(max * sizeof *m->keep))) return; /* the next save tries again */
    for (size_t i = 0; i < m->fetch_top; i++)               /* half of it may be there */
        if (m->fetches[i].state != AT_FETCH_NONE && m->fetches[i].kind == AT_BLOB_UPDATE)
            m->keep[n++] = m->fetches[i].key;
    for (uint32_t back = 0; back < AT_NODE_HISTORY && back <= m->ledger.round; back++) {
        const struct at_node_history *h = at_node_history(m, m->ledger.round - back);
        if (!h || !h->closed || !is_kept(m, h, &bytes)) continue;
        for (size_t k = 0; k < h->count; k++) m->keep[n++] = h->list[k].update;
    }
    m->state.prune_due = false;
    m->state.pruned_round = m->state.round;
    struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_BLOB_PRUNE);
    op->prune.keep = m->keep;
    op->prune.count = n;
}

/* Between rounds no unit's update is under way, so every blob that no closed round needs may go. */
static void prune_between(struct at_node_machine *m)
{
    if (m->state.prune_due && m->tiles.shape_tiles) prune(m);
}

static void save(struct at_node_machine *m)
{
    if (m->state.saving || (m->state.saved && m->state.saved_round == m->state.round)) return;
    m->state.saving = true;
    m->state.save_round = m->state.round;
    struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_SAVE);
    op->round = m->state.round;
    op->root = m->state.root;
    op->counted = at_node_machine_counted(m);
}

void at_node_state_saved(struct at_node_machine *m, const struct at_node_event *e)
{
    m->state.saving = false;
    m->state.saved = true;
    m->state.saved_round = e->state.round;
    m->state.prune_due = true;
}

void at_node_state_ready(struct at_node_machine *m, const struct at_node_event *e)
{
    if (m->state.busy != AT_STATE_INIT && m->state.busy != AT_STATE_INSTALL) return;
    bool install = m->state.busy == AT_STATE_INSTALL;
    m->state.busy = AT_STATE_IDLE;
    if (!e->state.ok) {
        if (!install) at_node_end(m, AT_E_INTERNAL, "the initial state could not be made");
        at_node_note(m, "the state that was fetched does not have its root; it is fetched again");
        struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_BLOB_DROP);
        op->read.kind = AT_BLOB_STATE;
        op->read.key = m->state.fetch_root;
        return;
    }
    m->state.has = true;
    m->tiles.switches = 0;
    m->state.have_valid = false;
    m->state.round = install ? m->state.fetch_round : 0;
    m->state.root = install ? m->state.fetch_root : e->state.root;
    at_node_tiles_hold(m, m->state.root);
    m->state.loss = e->state.heldout_loss;
    if (!install) m->state.loss_first = e->state.heldout_loss;
    m->state.saved = m->state.saved && !install;
    m->state.prune_due = m->state.prune_due || install;
    at_node_note(m, install ? "holds the state after round %u" : "made the initial state (round %u)", m->state.round);
}

void at_node_state_applied(struct at_node_machine *m, const struct at_node_event *e)
{
    if (m->state.busy != AT_STATE_APPLY || e->state.round != m->state.round) return;
    m->state.busy = AT_STATE_IDLE;
    m->state.round++;
    m->state.root = e->state.root;
    at_node_tiles_hold(m, m->state.root);
    m->state.loss = e->state.heldout_loss;
    m->state.have_valid = false;
    /* Who is behind saves nothing until it is not, and throws away all the same. */
    if (m->state.round >= m->state.pruned_round + AT_NODE_KEEP_ROUNDS) m->state.prune_due = true;
}

void at_node_state_fetched(struct at_node_machine *m, enum at_blob_kind kind, struct at_hash key)
{
    if (kind == AT_BLOB_STATE && !m->state.busy && !m->state.has) {
        m->state.busy = AT_STATE_INSTALL;
        m->state.fetch_round = m->tiles.round;
        m->state.fetch_root = key;
        struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_STATE_INSTALL);
        op->round = m->tiles.round;
        op->root = key;
        op->read.kind = kind;
        op->read.key = key;
        return;
    }
    if (kind != AT_BLOB_UPDATE || !m->state.has || !m->state.have_valid) return;
    const struct at_node_history *h = at_node_history(m, m->state.have_round);
    uint32_t missing = 0; /* what is fetched is among the first; another one is found here when it is its turn */
    size_t count = h ? h->count : 0;
    for (size_t i = next_missing(m, m->state.have_first, count); i < count; i = next_missing(m, i + 1, count)) {
        if (at_hash_eq(h->list[i].update, key)) m->state.have[i] = true;
        if (++missing > AT_NODE_UPDATES_COST) break;
    }
}

/* What the log says the state at the start of this round is; false: it does not say, or not any more. */
static bool root_of_log(struct at_node_machine *m, uint32_t round, struct at_hash *ret_root)
{
    if (round == m->ledger.round && !at_hash_is_zero(m->ledger.state_root)) {
        *ret_root = m->ledger.state_root;
        return true;
    }
    const struct at_node_history *h = at_node_history(m, round);
    if (!h || round > m->ledger.round) return false;
    *ret_root = h->state_in;
    return true;
}

/* ---- ahead of CLOSE ---- */
static bool is_counted(const struct at_node_machine *m, struct at_hash update)
{
    for (int h = 0; h < AT_NODE_HISTORY; h++)
        for (size_t k = 0; k < m->history[h].count; k++)
            if (at_hash_eq(m->history[h].list[k].update, update)) return true;
    return false;
}

void at_node_state_opened(struct at_node_machine *m)
{
    for (size_t i = 0; i < m->fetch_top; i++) { /* what was asked for ahead and did not count: soon nobody has it */
        struct at_node_fetch *f = &m->fetches[i];
        bool ahead = f->state != AT_FETCH_NONE && f->kind == AT_BLOB_UPDATE && f->only_link == 0;
        if (ahead && !is_counted(m, f->key)) at_node_fetch_cancel(m, f);
    }
    at_node_held_opened(m);
    prune_between(m); /* the log may have come past the whole pause at once */
}

/* With its own unit done, a member fetches what the others have handed in so far, from those who are known to have it: the
 * outer step then waits less. Each begins somewhere else, so that soon somebody has any of them. */
static void prefetch(struct at_node_machine *m)
{
    uint32_t cost = m->updates_cost, count = m->ledger.member_count;
    struct at_replicas offered;
    if (m->is_steward || m->ledger.phase != AT_LEDGER_TRAINING || m->unit.running) return;
    if (!at_node_held_offered(m, &offered)) return;
    uint32_t first = (uint32_t)at_node_self(m) * 7 % count, r = at_replicas_next(&offered, first);
    for (uint32_t k = 0; k < count; k++, r = at_replicas_next(&offered, r + 1)) {
        if (r == AT_MEMBERS_MAX) r = at_replicas_next(&offered, 0);
        const struct at_allotment *u = r < count ? at_ledger_allotment(&m->ledger, r) : NULL;
        if (!u || !u->received || at_replicas_has(&m->held.asked, r)) return; /* that was all of them */
        cost += at_node_update_cost(m, u->receipt.update_bytes);
        if (cost > AT_NODE_UPDATES_COST) return;
        if (!at_node_fetch_update(m, m->ledger.round, r, u->receipt.update, u->receipt.update_bytes)) return;
    }
}

/* After an absence the newest state's tiles may be fewer bytes than the updates that lead to it. In the ordinary course
 * of a round there is no EPOCH yet when the updates are first looked for, so nobody leaves the updates for that. */
static bool tiles_are_cheaper(struct at_node_machine *m)
{
    bool looked = m->state.have_valid && m->state.have_round == m->state.round;
    if (m->consensus || looked || m->ledger.round <= m->state.round) return false;
    return replay_bytes(m, m->state.round) > m->tiles.shape_bytes;
}

bool at_node_state_is_saved(const struct at_node_machine *m)
{
    return at_node_state_confirmed(m) && m->state.saved && m->state.saved_round == m->state.round;
}

void at_node_say_saved(struct at_node_machine *m)
{
    struct at_message msg = {.kind = AT_MSG_SAVED};
    bool encoded = false;
    if (!at_node_state_is_saved(m)) return;
    msg.saved = (struct at_msg_saved){.round = m->state.round, .state_root = m->state.root};
    for (size_t i = 0; i < m->link_top; i++) {
        struct at_node_link *l = &m->links[i];
        if (!at_node_link_open(l) || !at_node_link_member(m, l)) continue;
        if (l->saved_told1 == m->state.round + 1) continue;
        l->saved_told1 = m->state.round + 1;
        if (encoded)
            at_node_send_again(m, l->id);
        else
            at_node_send(m, l->id, &msg);
        encoded = true;
    }
}

void at_node_state_drive(struct at_node_machine *m)
{
    struct at_hash root;
    if (m->ended || !at_node_settled(m)) return;
    if (m->ledger.phase == AT_LEDGER_READY) prune_between(m);
    if (m->state.busy || !m->shards_here || m->tiles.shape_tiles == 0) return;
    if (!m->consensus && (!at_node_joined(m) || !m->log_synced) && !m->state.has) return;
    if (!m->state.has) {
        if (m->ledger.round == 0 && !m->state.force_fetch)
            init(m);
        else if (m->consensus)
            at_node_end(m, AT_E_VERIFY, "the state of round %u is missing in this folder", m->ledger.round);
        else
            fetch_whole(m);
        return;
    }
    if (root_of_log(m, m->state.round, &root) && !at_hash_eq(root, m->state.root)) {
        desync(m);
        return;
    }
    if (m->consensus && m->state.round > round_needed(m)) {
        at_node_end(m, AT_E_VERIFY, "the state in this folder is of round %u, the log only knows %u", m->state.round,
                    m->ledger.round);
        return;
    }
    if (m->state.round < round_needed(m)) {
        const struct at_node_history *h = at_node_history(m, m->state.round);
        if (!h || !h->closed || tiles_are_cheaper(m))
            forget(m);
        else if (updates_here(m, h))
            apply(m, h);
        return;
    }
    if (!at_node_state_confirmed(m)) return;
    prefetch(m);
    if (m->state.round > m->state.fetch_round) m->state.desync = m->state.force_fetch = false;
    if (m->tiles.step != AT_NODE_TILES_NONE) at_node_tiles_cancel(m);
    save(m);
    at_node_say_saved(m);
}
