/* node_peers.c: the directory: where members can be reached, in their own signed words (wire/endpoints.h).
 *
 *   event                                       does
 *   REACHABLE, and this node is a member        signs a statement, tells it to every linked member; unless the last one
 *                                               says the same: a node that starts again is where it was. Two seconds
 *                                               (and as much as passing on may differ) after it has last told anybody one:
 *                                               sooner it would be ignored there, as follows;
 *                                               among many it still is by some, who hear it when they ask
 *   a member's link says Hello                  tells it the own statement
 *   PeersGet                                    answers with up to 64 statements, ids ascending behind the one named, less
 *                                               those of ranges in which the peer knows the same (node_sums.c)
 *   Peers: not a member's, or not newer         ignored: the peer may know a longer log
 *   Peers: newer, too soon after the last       ignored: nobody can make others pass on more than one per second
 *   Peers: newer, signature wrong               Bye, closes
 *   Peers: newer                                kept; unless it was asked for, passed on within three quarters of a second
 *                                               among 64 members, 18 seconds among 300, three minutes among a thousand, together
 *                                               with what else comes until then, to those linked members from whom it has not
 *                                               come, too; among more than 64 to four of these by turns: others hear it from
 *                                               somebody else, or when they ask
 *   Peers: own, newer than the own counter      it is the own one again, if it is true; else the counter goes on from
 *                                               there, and a new statement is signed
 *   a member's address is unknown or fails      asks one linked peer after the other for its directory, page by page (no more than
 *                                               all members fill), half a second apart (among more than 64 members more); the next one later and later, up to a minute (among many 16 times as late as after news), while the
 *                                               answers say nothing new: some members can never be reached
 *   there are more than 64 members              it is asked for in any case, half an hour after the last answer
 *
 * One statement per member of the log, its newest, is all that is ever kept. Members that cannot be reached make none.
 * The directory is written down now and then (PEERS_KEEP): length (le32) ‖ one encoded Peers, repeated. */
#include "swarm/node_internal.h"

#include <stdlib.h>
#include <string.h>

at_err_t at_node_peers_room(struct at_node_machine *m)
{
    uint32_t need = m->ledger.member_count + 1;
    if (need <= m->mesh.peer_cap) return AT_OK;
    uint32_t cap = m->mesh.peer_cap ? 2 * m->mesh.peer_cap : 16;
    struct at_node_peer *peers = realloc(m->mesh.peers, cap * sizeof *peers);
    if (!peers) return AT_E_NOMEM;
    memset(peers + m->mesh.peer_cap, 0, (cap - m->mesh.peer_cap) * sizeof *peers);
    m->mesh.peers = peers;
    struct at_node_word *words = realloc(m->mesh.words, cap * sizeof *words);
    if (!words) return AT_E_NOMEM;
    memset(words + m->mesh.peer_cap, 0, (cap - m->mesh.peer_cap) * sizeof *words);
    m->mesh.words = words;
    struct at_node_ring *ring = realloc(m->mesh.ring, cap * sizeof *ring);
    if (!ring) return AT_E_NOMEM;
    m->mesh.ring = ring;
    m->mesh.peer_cap = cap;
    return AT_OK;
}

static int by_id(const void *a, const void *b)
{
    return at_node_id_cmp(&((const struct at_node_ring *)a)->id, &((const struct at_node_ring *)b)->id);
}

static bool is_before(const struct at_node_machine *m, const struct at_node_id *id)
{
    return at_node_nearer(id, &m->options.key.id, &m->ledger.seats.seat[0].member);
}

/* The whole part of h^(k/3), at least 1. */
static uint32_t distance(uint32_t h, uint32_t k)
{
    uint64_t power = k == 0 ? 1 : k == 1 ? h : k == 2 ? (uint64_t)h * h : (uint64_t)h * h * h;
    uint32_t root = 1;
    while ((uint64_t)(root + 1) * (root + 1) * (root + 1) <= power) root++;
    return root;
}

static void ring_done(struct at_node_machine *m)
{
    uint32_t half = m->mesh.ring_count / 2;
    m->mesh.ring_at = at_node_ring_find(m, &m->options.key.id);
    for (uint32_t k = 0; k < AT_NODE_MESH_DIALS; k++) m->mesh.ring_step[k] = distance(half ? half : 1, k);
    m->mesh.near = at_node_near_by(m, m->mesh.ring_before);
    m->mesh.ring_valid = true;
    at_node_look(m, AT_NODE_WAYS);
}

static void ring_sort(struct at_node_machine *m)
{
    uint32_t n = 0;
    m->mesh.ring_before = 0;
    for (uint32_t r = 0; r < m->ledger.member_count; r++) {
        const struct at_member *member = &m->ledger.members[r];
        if (!member->active) continue;
        m->mesh.ring[n++] = (struct at_node_ring){member->id, r};
        m->mesh.ring_before += is_before(m, &member->id);
    }
    if (n) qsort(m->mesh.ring, n, sizeof *m->mesh.ring, by_id);
    m->mesh.ring_count = n;
    at_node_sums_make(m);
}

/* Most rings are not valid because one member has left: a thousand members would sort a thousand ids for it. */
static void ring_take_out(struct at_node_machine *m, uint32_t replica)
{
    const struct at_node_id *id = &m->ledger.members[replica].id;
    uint32_t at = at_node_ring_find(m, id);
    AT_ASSERT(at < m->mesh.ring_count && m->mesh.ring[at].replica == replica);
    memmove(m->mesh.ring + at, m->mesh.ring + at + 1, (--m->mesh.ring_count - at) * sizeof *m->mesh.ring);
    m->mesh.ring_before -= is_before(m, id);
    at_node_sums_toggle(m, replica);
}

void at_node_ring_make(struct at_node_machine *m)
{
    if (m->mesh.ring_valid) return;
    if (m->mesh.ring_left1)
        ring_take_out(m, m->mesh.ring_left1 - 1);
    else
        ring_sort(m);
    m->mesh.ring_left1 = 0;
    ring_done(m);
}

void at_node_ring_stale(struct at_node_machine *m)
{
    m->mesh.ring_valid = false;
    m->mesh.ring_left1 = 0;
}

void at_node_ring_drop(struct at_node_machine *m, uint32_t replica)
{
    bool alone = m->mesh.ring_valid;
    at_node_ring_stale(m);
    if (alone) m->mesh.ring_left1 = replica + 1;
}

/* A member more: with a thousand that come one after the other, sorting anew for each was most of what joining cost. */
void at_node_ring_add(struct at_node_machine *m, uint32_t replica)
{
    const struct at_node_id *id = &m->ledger.members[replica].id;
    if (!m->mesh.ring_valid) {
        at_node_ring_stale(m);
        return;
    }
    uint32_t at = at_node_ring_find(m, id);
    memmove(m->mesh.ring + at + 1, m->mesh.ring + at, (m->mesh.ring_count++ - at) * sizeof *m->mesh.ring);
    m->mesh.ring[at] = (struct at_node_ring){*id, replica};
    m->mesh.ring_before += is_before(m, id);
    at_node_sums_toggle(m, replica);
    if (m->now_ms >= m->mesh.ring_ms + AT_NODE_RING_CALM_MS) m->mesh.ring_since_ms = m->now_ms;
    m->mesh.ring_ms = m->now_ms;
    ring_done(m);
}

uint32_t at_node_ring_find(const struct at_node_machine *m, const struct at_node_id *id)
{
    uint32_t low = 0, high = m->mesh.ring_count;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (at_node_id_cmp(&m->mesh.ring[mid].id, id) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

uint64_t at_node_counter(struct at_node_machine *m)
{
    m->mesh.counter = m->wall_ms > m->mesh.counter ? m->wall_ms : m->mesh.counter + 1;
    return m->mesh.counter;
}

/* The own statement, to every linked member. */
static void tell(struct at_node_machine *m, const struct at_endpoints *own)
{
    struct at_message msg = {.kind = AT_MSG_PEERS, .peers = {own, 1}};
    bool encoded = false;
    for (size_t i = 0; i < m->link_top; i++) {
        const struct at_node_link *l = &m->links[i];
        if (!at_node_link_open(l) || !at_node_link_member(m, l)) continue;
        if (encoded)
            at_node_send_again(m, l->id);
        else
            at_node_send(m, l->id, &msg);
        encoded = true;
        m->mesh.own_told_ms = m->now_ms ? m->now_ms : 1;
    }
}

static void own_changed(struct at_node_machine *m)
{
    if (!m->mesh.own_stale) m->mesh.own_stale_ms = m->now_ms;
    m->mesh.own_stale = true;
}

/* Each waits another time, so that most have heard it before their own turn to tell it has come: the longer the more there
 * are, and not at all among a few, who all have links to each other. */
static uint64_t fresh_span_ms(const struct at_node_machine *m)
{
    uint64_t n = m->ledger.member_count < AT_NODE_FRESH_MOST ? m->ledger.member_count : AT_NODE_FRESH_MOST;
    return n > AT_NODE_FRESH_FEW ? AT_NODE_FRESH_MS * n / AT_NODE_FRESH_MANY : 0;
}

/* When a new statement of the own is made; UINT64_MAX: there is none to make. */
static uint64_t own_due_ms(const struct at_node_machine *m)
{
    if (!m->mesh.own_stale || !m->mesh.own_count || !at_node_joined(m)) return UINT64_MAX;
    uint64_t due = m->mesh.own_told_ms ? m->mesh.own_told_ms + AT_NODE_WHERE_AGAIN_MS + fresh_span_ms(m) : 0;
    uint64_t late = m->mesh.own_stale_ms + AT_NODE_WHERE_LATE_MS;
    return due < late ? due : late;
}

void at_node_reachable(struct at_node_machine *m, const struct at_node_event *e)
{
    m->mesh.own_count = 0;
    for (uint32_t i = 0; i < e->reachable.count && m->mesh.own_count < AT_ENDPOINTS_MAX; i++)
        if (at_endpoint_ok(&e->reachable.list[i])) m->mesh.own[m->mesh.own_count++] = e->reachable.list[i];
    own_changed(m);
}

static bool is_true(const struct at_node_machine *m, const struct at_endpoints *own)
{
    bool same = own->counter > 0 && own->count == m->mesh.own_count;
    for (uint32_t i = 0; i < own->count && same; i++) same = at_endpoint_eq(&own->list[i], &m->mesh.own[i]);
    return same;
}

static void tell_own(struct at_node_machine *m)
{
    struct at_endpoints *own = &m->mesh.peers[at_node_self(m)].where;
    m->mesh.own_stale = false;
    if (is_true(m, own)) return; /* who has missed it hears it when it links here */
    struct at_endpoints before = *own;
    *own = at_endpoints_sign(&m->options.key, m->options.run, at_node_counter(m), m->mesh.own, m->mesh.own_count);
    at_node_sums_change(m, &before, own);
    m->mesh.keep_wanted = true;
    m->mesh.keep_news = m->ledger.member_count; /* after a crash nobody else would say it again */
    tell(m, own);
}

void at_node_peers_link(struct at_node_machine *m, struct at_node_link *link)
{
    m->mesh.ask_wanted = true;
    if (!at_node_joined(m) || !at_node_link_member(m, link)) return;
    const struct at_endpoints *own = &m->mesh.peers[at_node_self(m)].where;
    struct at_message msg = {.kind = AT_MSG_PEERS, .peers = {own, 1}};
    if (!own->counter) return;
    at_node_send(m, link->id, &msg);
    m->mesh.own_told_ms = m->now_ms ? m->now_ms : 1;
}

/* ---- what others say ---- */
enum taken { IGNORED, TAKEN, FORGED };

static enum taken take(struct at_node_machine *m, const struct at_endpoints *e, bool from_disk)
{
    int r = at_ledger_find(&m->ledger, &e->node);
    if (r < 0) return IGNORED;
    struct at_node_peer *peer = &m->mesh.peers[r];
    bool own = r == at_node_self(m);
    if (e->counter <= (own ? m->mesh.counter : peer->where.counter)) return IGNORED; /* most, and at the least cost */
    if (!m->ledger.members[r].active) return IGNORED;
    if (!own && !from_disk && peer->where.counter && m->now_ms < peer->where_ms + AT_NODE_WHERE_MS) return IGNORED;
    if (at_endpoints_verify(e, m->options.run, m->options.verifier)) return FORGED;
    at_node_sums_change(m, &peer->where, e);
    if (own) {
        m->mesh.counter = e->counter;
        peer->where = *e;
        own_changed(m);
        return IGNORED;
    }
    peer->where = *e;
    peer->where_ms = m->now_ms;
    at_node_look(m, AT_NODE_WAYS);
    struct at_node_dial *d = &peer->dial;
    if (!d->under_way && !d->shorts)
        *d = (struct at_node_dial){0}; /* a new address is tried at once, unless links end early */
    m->mesh.keep_wanted = !from_disk;
    m->mesh.keep_news += !from_disk;
    return TAKEN;
}

static void ask_page(struct at_node_machine *m, struct at_node_link *link, const struct at_node_id *after)
{
    struct at_message msg = {.kind = AT_MSG_PEERS_GET};
    uint8_t sums[8 * AT_PEERS_SUMS_MAX];
    at_node_ring_make(m);
    msg.peers_get.after = *after;
    msg.peers_get.sums = at_node_sums_write(m, sums);
    at_node_send(m, link->id, &msg);
    link->peers_asking = true;
    link->peers_pages++;
    link->peers_asked_ms = m->now_ms ? m->now_ms : 1;
}

static void ask(struct at_node_machine *m, struct at_node_link *link)
{
    static const struct at_node_id lowest;
    link->peers_pages = 0;
    ask_page(m, link, &lowest);
}

/* As many pages as a directory of all members has. Who has more to say knows a longer log, or invents what it says; it has
 * answered, and others are asked. */
static bool may_go_on(const struct at_node_machine *m, const struct at_node_link *link)
{
    return link->peers_pages <= m->ledger.member_count / AT_PEERS_MAX;
}

/* ---- passing on ---- */
static uint64_t bit_of(const struct at_node_machine *m, const struct at_node_link *l, size_t *ret_word)
{
    size_t i = (size_t)(l - m->links);
    *ret_word = i / 64;
    return UINT64_C(1) << (i % 64);
}

/* What has come lately, to every linked member that has not said it itself meanwhile; among many to the next few of them: who is
 * left out hears it from others, or asks: at once for whom it has heard nothing of, which it knows by the log, else when it
 * has not asked for long. */
static void tell_fresh(struct at_node_machine *m)
{
    struct at_endpoints list[AT_PEERS_MAX];
    size_t n = m->link_top, first = n ? m->mesh.fresh_turn % n : 0;
    uint32_t left = m->ledger.member_count > AT_NODE_FRESH_MANY ? AT_NODE_FRESH_TELLS : UINT32_MAX;
    for (size_t k = 0; k < n && left > 0; k++) {
        size_t i = (first + k) % n;
        const struct at_node_link *l = &m->links[i];
        struct at_message msg = {.kind = AT_MSG_PEERS, .peers = {list, 0}};
        size_t word;
        uint64_t bit = bit_of(m, l, &word);
        if (!at_node_link_open(l) || !at_node_link_member(m, l)) continue;
        for (uint32_t f = 0; f < m->mesh.fresh_count; f++)
            if (!(m->mesh.fresh[f].known[word] & bit))
                list[msg.peers.count++] = m->mesh.peers[m->mesh.fresh[f].replica].where;
        if (!msg.peers.count) continue;
        at_node_send(m, l->id, &msg);
        m->mesh.fresh_turn = (uint32_t)i + 1;
        left--;
    }
    m->mesh.fresh_count = 0;
}

/* Its place among the fresh ones; none: their count. */
static uint32_t fresh_find(const struct at_node_machine *m, uint32_t replica)
{
    uint32_t k = 0;
    while (k < m->mesh.fresh_count && m->mesh.fresh[k].replica != replica) k++;
    return k;
}

/* Among many, news of one member's address is nothing that most need soon, for whoever has moved dials by itself; so it waits for
 * company: as the square of the members. */
static uint64_t patience_ms(const struct at_node_machine *m)
{
    uint64_t ms = fresh_span_ms(m), n = m->ledger.member_count;
    if (n > AT_NODE_FRESH_MANY) ms = AT_NODE_FRESH_MS * n * n / (AT_NODE_FRESH_MANY * AT_NODE_FRESH_MANY);
    if (ms > AT_NODE_FRESH_MAX_MS) ms = AT_NODE_FRESH_MAX_MS;
    return ms / 2 + (ms ? at_load_le32(m->options.key.id.b) % ms : 0);
}

static void pass_on(struct at_node_machine *m, uint32_t replica, const struct at_node_link *from)
{
    size_t word;
    uint64_t bit = bit_of(m, from, &word);
    uint32_t k = fresh_find(m, replica);
    if (k == AT_PEERS_MAX) {
        tell_fresh(m);
        k = 0;
    }
    if (m->mesh.fresh_count == 0) m->mesh.fresh_ms = m->now_ms + patience_ms(m);
    if (k == m->mesh.fresh_count) m->mesh.fresh_count++;
    memset(&m->mesh.fresh[k], 0, sizeof m->mesh.fresh[k]);
    m->mesh.fresh[k].replica = replica;
    m->mesh.fresh[k].known[word] = bit;
}

/* It has said what we have, too. */
static void knows(struct at_node_machine *m, const struct at_endpoints *e, const struct at_node_link *from)
{
    int r = m->mesh.fresh_count ? at_ledger_find(&m->ledger, &e->node) : -1;
    uint32_t k = r >= 0 ? fresh_find(m, (uint32_t)r) : m->mesh.fresh_count;
    size_t word;
    uint64_t bit = bit_of(m, from, &word);
    if (k < m->mesh.fresh_count && e->counter == m->mesh.peers[r].where.counter) m->mesh.fresh[k].known[word] |= bit;
}

void at_node_peers_link_new(struct at_node_machine *m, const struct at_node_link *link)
{
    size_t word;
    uint64_t bit = bit_of(m, link, &word);
    for (uint32_t k = 0; k < m->mesh.fresh_count; k++) m->mesh.fresh[k].known[word] &= ~bit;
}

/* Among many, who miss some whenever others join, the next whole directory is asked for later. */
static uint32_t soon_ms(const struct at_node_machine *m)
{
    bool many = m->ledger.member_count > AT_NODE_FRESH_MANY;
    return many ? 6 * (uint32_t)fresh_span_ms(m) : AT_NODE_PEERS_SOON_MS;
}

/* The whole directory of a peer has come in. */
static void answered(struct at_node_machine *m)
{
    struct at_node_mesh *mesh = &m->mesh;
    mesh->ask_wait_ms = mesh->ask_news || !mesh->ask_wait_ms ? soon_ms(m) : 2 * mesh->ask_wait_ms;
    uint32_t late = AT_NODE_ASK_LATE_TIMES * soon_ms(m);
    if (late < AT_NODE_PEERS_LATE_MS) late = AT_NODE_PEERS_LATE_MS;
    if (mesh->ask_wait_ms > late) mesh->ask_wait_ms = late;
    mesh->ask_ms = m->now_ms + mesh->ask_wait_ms;
    mesh->ask_news = false;
    mesh->answered_ms = m->now_ms;
}

/* Among many a newer statement may reach some by no link, and they know of no reason to ask: then they ask all the same, a
 * good while after the last answer. */
static uint64_t renew_ms(const struct at_node_machine *m)
{
    bool many = m->ledger.member_count > AT_NODE_FRESH_MANY && at_node_joined(m);
    return many ? m->mesh.answered_ms + AT_NODE_ASK_CALM_MS : UINT64_MAX;
}

void at_node_peers(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_peers *msg)
{
    uint32_t count = 0;
    bool asked = link->peers_asking;
    at_node_hints(m, link, msg);
    if (!m->has_genesis || link->closing) return;
    for (uint32_t i = 0; i < msg->count; i++) {
        const struct at_endpoints *e = &msg->list[i];
        enum taken taken = take(m, e, false);
        if (taken == FORGED) {
            at_node_link_refuse(m, link, "a statement of where a member is, not signed by it");
            return;
        }
        if (taken == IGNORED) knows(m, e, link);
        if (taken == IGNORED) continue;
        count++;
        if (!asked || msg->count == 1) pass_on(m, (uint32_t)at_ledger_find(&m->ledger, &e->node), link);
    }
    if (!count && !asked && at_node_joined(m) && !m->mesh.own_stale) at_node_quiet(m);
    if (!asked) return;
    link->peers_asking = false;
    m->mesh.ask_news = m->mesh.ask_news || count > 0;
    if (msg->count == AT_PEERS_MAX && may_go_on(m, link))
        ask_page(m, link, &msg->list[msg->count - 1].node);
    else
        answered(m);
}

void at_node_peers_get(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_peers_get *msg)
{
    struct at_endpoints list[AT_PEERS_MAX];
    struct at_message answer = {.kind = AT_MSG_PEERS, .peers = {list, 0}};
    bool differ[AT_PEERS_SUMS_MAX];
    if (m->has_genesis) at_node_ring_make(m);
    at_node_sums_differ(m, msg->sums, differ);
    for (uint32_t i = at_node_ring_find(m, &msg->after); i < m->mesh.ring_count; i++) {
        if (!at_node_sums_told(differ, &m->mesh.ring[i].id)) continue;
        const struct at_endpoints *e = &m->mesh.peers[m->mesh.ring[i].replica].where;
        if (!e->counter || at_node_id_eq(&e->node, &msg->after)) continue;
        list[answer.peers.count++] = *e;
        if (answer.peers.count == AT_PEERS_MAX) break;
    }
    at_node_send(m, link->id, &answer);
    at_node_quiet(m);
}

/* ---- on disk ---- */
/* All of it is written each time: among many it waits for more news. */
static uint64_t keep_due_ms(const struct at_node_machine *m)
{
    bool many = m->ledger.member_count > AT_NODE_LOOK_MEMBERS;
    bool few_news = m->mesh.keep_news * AT_NODE_KEEP_NEWS < m->ledger.member_count;
    return m->mesh.keep_ms + (many && few_news ? AT_NODE_KEEP_LATE_MS : 0);
}

static void keep(struct at_node_machine *m)
{
    struct at_endpoints list[AT_PEERS_MAX];
    struct at_message msg = {.kind = AT_MSG_PEERS, .peers = {list, 0}};
    size_t at = m->scratch->out.n;
    uint64_t n = m->ledger.member_count;
    m->mesh.keep_wanted = false;
    m->mesh.keep_news = 0;
    m->mesh.keep_ms = m->now_ms + AT_NODE_KEEP_MS + n * (AT_NODE_KEEP_EACH_MS + n / AT_NODE_KEEP_MANY);
    for (uint32_t r = 0; r < m->ledger.member_count; r++) {
        if (m->mesh.peers[r].where.counter) list[msg.peers.count++] = m->mesh.peers[r].where;
        if (msg.peers.count == 0 || (msg.peers.count < AT_PEERS_MAX && r + 1 < m->ledger.member_count)) continue;
        uint8_t bytes[4] = {0};
        size_t from = m->scratch->out.n;
        if (at_buf_append(&m->scratch->out, bytes, sizeof bytes) || at_message_encode(&msg, &m->scratch->out)) {
            m->scratch->out.n = at; /* no memory: another time */
            return;
        }
        at_store_le32(m->scratch->out.p + from, (uint32_t)(m->scratch->out.n - from - sizeof bytes));
        msg.peers.count = 0;
    }
    struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_PEERS_KEEP);
    op->bytes.n = m->scratch->out.n - at;
    m->scratch->out_at[m->op_count - 1] = at;
}

void at_node_peers_kept(struct at_node_machine *m, const struct at_node_event *e)
{
    struct at_message msg;
    struct at_span rest = e->bytes;
    while (m->has_genesis && rest.n >= 4) {
        uint32_t n = at_load_le32(rest.p);
        if (n > rest.n - 4 || at_message_decode(at_span(rest.p + 4, n), &m->scratch->mem, NULL, &msg)) return;
        for (uint32_t i = 0; msg.kind == AT_MSG_PEERS && i < msg.peers.count; i++)
            if (take(m, &msg.peers.list[i], true) == FORGED) return;
        rest = at_span(rest.p + 4 + n, rest.n - 4 - n);
    }
}

/* ---- the drive ---- */
static bool some_are_missing(const struct at_node_machine *m)
{
    for (uint32_t r = 0; r < m->ledger.member_count; r++) {
        const struct at_node_peer *peer = &m->mesh.peers[r];
        bool self = at_node_id_eq(&m->ledger.members[r].id, &m->options.key.id);
        if (m->ledger.members[r].active && !self && (!peer->where.counter || peer->dial.failures >= 2)) return true;
    }
    return false;
}

/* Asked longest ago, or never. */
static bool is_next(const struct at_node_link *l, const struct at_node_link *than)
{
    return l->peers_asked_ms < than->peers_asked_ms || (l->peers_asked_ms == than->peers_asked_ms && l->id < than->id);
}

static void maybe_ask(struct at_node_machine *m)
{
    struct at_node_link *pick = NULL;
    for (size_t i = 0; i < m->link_top; i++) {
        struct at_node_link *l = &m->links[i];
        if (at_node_link_open(l) && l->peers_asking && m->now_ms < l->peers_asked_ms + AT_NODE_PEERS_AGAIN_MS)
            return; /* one after the other */
        bool may = !l->peers_asked_ms || m->now_ms >= l->peers_asked_ms + AT_NODE_PEERS_AGAIN_MS;
        if (at_node_link_open(l) && may && at_node_link_member(m, l) && (!pick || is_next(l, pick))) pick = l;
    }
    bool renew = m->now_ms >= renew_ms(m);
    if (renew) m->mesh.answered_ms = m->now_ms; /* with nobody to ask, or without an answer: another time */
    if (pick && (renew || some_are_missing(m)))
        ask(m, pick);
    else
        m->mesh.ask_wanted = false;
}

static bool may_ask(const struct at_node_machine *m)
{
    return m->mesh.ask_wanted && (m->is_steward || m->log_synced);
}

void at_node_peers_drive(struct at_node_machine *m)
{
    if (!m->has_genesis || m->ended || !at_node_settled(m)) return;
    if (m->now_ms >= own_due_ms(m)) tell_own(m);
    if (m->now_ms >= renew_ms(m)) m->mesh.ask_wanted = true;
    if (may_ask(m) && m->now_ms >= m->mesh.ask_ms) maybe_ask(m);
    if (m->mesh.fresh_count && m->now_ms >= m->mesh.fresh_ms) tell_fresh(m);
    if (m->mesh.keep_wanted && m->now_ms >= keep_due_ms(m)) keep(m);
}

uint64_t at_node_peers_deadline_ms(const struct at_node_machine *m)
{
    uint64_t own = own_due_ms(m), keep = m->mesh.keep_wanted ? keep_due_ms(m) : UINT64_MAX;
    uint64_t deadline = keep > m->now_ms ? keep : UINT64_MAX;
    uint64_t renew = renew_ms(m);
    if (own > m->now_ms && own < deadline) deadline = own;
    if (renew > m->now_ms && renew < deadline) deadline = renew;
    if (may_ask(m) && m->mesh.ask_ms > m->now_ms && m->mesh.ask_ms < deadline) deadline = m->mesh.ask_ms;
    bool fresh = m->mesh.fresh_count && m->mesh.fresh_ms > m->now_ms && m->mesh.fresh_ms < deadline;
    return fresh ? m->mesh.fresh_ms : deadline;
}

uint32_t at_node_peers_known(const struct at_node_machine *m)
{
    uint32_t known = 0;
    for (uint32_t r = 0; m->has_genesis && r < m->ledger.member_count; r++)
        known += m->mesh.peers[r].where.counter != 0;
    return known;
}
