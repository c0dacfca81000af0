/* node_links.c: links and what a peer may do on them.
 *
 *   state of a link     event              does                                                      next
 *   (none)              LINK_UP            says Hello                                                greeting
 *   greeting            Hello, our run     takes part                                                open
 *   greeting            Hello, other run   Bye "another run", closes                                 closing
 *   greeting            anything else      Bye "no hello", closes                                    closing
 *   open                Hello again        Bye, closes                                               closing
 *   open                any message        to its file; a breach of the protocol: Bye, closes        open / closing
 *   closing             any message        ignored                                                   closing
 *   any                 LINK_DOWN          forgets it; node_mesh.c may dial again                    (none)
 *
 * Two links to one node: when both were dialled by the same side, or one is old, the newer takes the other's place (its
 * dialler has lost the older). When each side has dialled one at about the same time they have crossed: the side with
 * the smaller id closes the one that it did not dial; the other side leaves both to it. So one of them stays, always.
 *
 * Room: members leave a few links to the steward and to newcomers; when all are taken, strangers give way to members,
 * the one linked longest first; node_crowd.c has the rest. */
#include "swarm/node_internal.h"

#include <stdio.h>
#include <string.h>

enum { WORDS_PER_FRAME = 8 }; /* so many count as one more frame */

struct at_node_link *at_node_link_find(struct at_node_machine *m, uint64_t id)
{
    uint8_t *hint = &m->link_hint_id[id % sizeof m->link_hint_id];
    if (m->links[*hint].used && m->links[*hint].id == id) return &m->links[*hint];
    for (size_t i = 0; i < m->link_top; i++) {
        if (!m->links[i].used || m->links[i].id != id) continue;
        *hint = (uint8_t)i;
        return &m->links[i];
    }
    return NULL;
}

static bool is_link_of(const struct at_node_link *l, const struct at_node_id *node)
{
    return at_node_link_open(l) && at_node_id_eq(&l->node, node);
}

/* A steward asks this for every member in every step: at a hundred members it was a quarter of all its time. A node has
 * one link that said hello (hello()), so whichever is found is the one. */
struct at_node_link *at_node_link_of(struct at_node_machine *m, const struct at_node_id *node)
{
    uint8_t *hint = &m->link_hint[at_load_le32(node->b) % 1024];
    if (is_link_of(&m->links[*hint], node)) return &m->links[*hint];
    for (size_t i = 0; i < m->link_top; i++) {
        if (!is_link_of(&m->links[i], node)) continue;
        *hint = (uint8_t)i;
        return &m->links[i];
    }
    return NULL;
}

bool at_node_linked(const struct at_node_machine *m)
{
    for (size_t i = 0; i < m->link_top; i++)
        if (at_node_link_open(&m->links[i])) return true;
    return false;
}

bool at_node_spend(struct at_node_bucket *b, uint64_t now_ms, uint32_t cost, uint32_t burst, uint32_t ms)
{
    uint64_t leaked = (now_ms - b->ms) / ms;
    b->ms += leaked * ms;
    b->spent = leaked > b->spent ? 0 : b->spent - (uint32_t)leaked;
    if (b->spent + cost > burst) return false;
    b->spent += cost;
    return true;
}

static void link_close(struct at_node_machine *m, uint64_t id, const char *reason)
{
    struct at_message bye = {.kind = AT_MSG_BYE};
    at_reason_set(bye.bye.reason, reason);
    at_node_send(m, id, &bye);
    struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_CLOSE);
    op->link = id;
    snprintf(op->reason, sizeof op->reason, "%s", reason);
}

/* Nothing comes over it any more. */
static void link_over(struct at_node_machine *m, struct at_node_link *link)
{
    bool open = at_node_link_open(link);
    link->closing = true;
    at_node_look(m, AT_NODE_WAYS | AT_NODE_WORK);
    if (open) at_node_route_lost(m, link);
    if (open) at_node_relay_lost(m, link);
    if (open) at_node_presence_lost(m, link);
    at_node_blob_link_down(m, link->id);
}

void at_node_link_refuse(struct at_node_machine *m, struct at_node_link *link, const char *reason)
{
    if (link->closing) return;
    link_close(m, link->id, reason);
    link_over(m, link);
}

void at_node_say_hello(struct at_node_machine *m, uint64_t link)
{
    struct at_message msg = {.kind = AT_MSG_HELLO};
    msg.hello.protocol = AT_PROTOCOL_VERSION;
    msg.hello.run = m->options.run;
    memcpy(msg.hello.program, m->program, sizeof m->program);
    msg.hello.log_size = at_node_log_size(m);
    at_node_send(m, link, &msg);
}

/* Strangers give way, the one linked longest first: they cannot keep members out. */
static struct at_node_link *give_way(struct at_node_machine *m, struct at_node_link *link)
{
    if (!link) return NULL;
    at_node_link_refuse(m, link, "the room is needed for another link");
    link->used = false;
    return link;
}

static struct at_node_link *make_room(struct at_node_machine *m)
{
    struct at_node_link *oldest = NULL;
    for (size_t i = 0; i < m->link_top; i++) {
        struct at_node_link *l = &m->links[i];
        bool keep = at_node_link_member(m, l) || at_node_link_seat(l) || l->contact;
        if (l->used && !l->closing && !keep && (!oldest || l->up_ms < oldest->up_ms)) oldest = l;
    }
    return give_way(m, oldest);
}

static void know(const struct at_node_machine *m, struct at_node_link *l)
{
    l->replica1 = m->has_genesis ? (uint32_t)(at_ledger_find(&m->ledger, &l->node) + 1) : 0;
    l->member = l->replica1 > 0 && m->ledger.members[l->replica1 - 1].active;
    l->seat = at_node_is_seat(m, &l->node);
    l->contact = at_node_id_eq(&l->node, &m->options.contact);
}

void at_node_seats_changed(struct at_node_machine *m)
{
    at_node_look(m, AT_NODE_WAYS | AT_NODE_WORK);
    for (size_t i = 0; i < m->link_top; i++)
        if (m->links[i].used) know(m, &m->links[i]);
}

void at_node_member_changed(struct at_node_machine *m, const struct at_node_id *id)
{
    at_node_look(m, AT_NODE_WAYS | AT_NODE_WORK);
    if (at_node_id_eq(id, &m->options.key.id)) {
        m->self1 = (uint32_t)(at_ledger_find(&m->ledger, id) + 1);
        m->joined = m->ledger.members[m->self1 - 1].active;
    }
    for (size_t i = 0; i < m->link_top; i++)
        if (m->links[i].used && at_node_id_eq(&m->links[i].node, id)) know(m, &m->links[i]);
}

static struct at_node_link *room_for(struct at_node_machine *m, const struct at_node_event *e)
{
    struct at_node_link fresh = {.node = e->node}, *free_link = NULL;
    know(m, &fresh);
    uint32_t max = m->options.links_max ? m->options.links_max : AT_NODE_LINKS_MAX, used = 0, members = 0;
    for (size_t i = 0; i < m->link_top; i++) {
        const struct at_node_link *l = &m->links[i];
        used += l->used;
        members += l->used && at_node_link_member(m, l);
        if (!l->used && !free_link) free_link = &m->links[i];
    }
    if (!free_link && m->link_top < AT_NODE_LINKS_MAX) free_link = &m->links[m->link_top];
    bool steward = at_node_link_seat(&fresh);
    uint32_t kept = max > 2 * AT_NODE_ROOM_KEPT ? AT_NODE_ROOM_KEPT : 0;
    if (!steward && members + kept >= max && at_node_link_member(m, &fresh))
        return give_way(m, at_node_crowd_give_way(m, &e->node));
    return free_link && used < max ? free_link : make_room(m);
}

void at_node_link_up(struct at_node_machine *m, const struct at_node_event *e)
{
    bool myself = at_node_id_eq(&e->node, &m->options.key.id);
    uint64_t log_least = e->dialed ? at_node_mesh_up(m, &e->node, e->dial) : 0;
    struct at_node_link *link = myself ? NULL : room_for(m, e);
    if (!link) {
        if (!myself) at_node_crowd_answer(m, e->link, &e->node);
        link_close(m, e->link, myself ? "this is myself" : "no room for another link");
        if (e->dialed) at_node_mesh_down(m, &e->node, e->link, false, 0, "no room here");
        return;
    }
    size_t index = (size_t)(link - m->links);
    memset(&m->cold->links[index], 0, sizeof m->cold->links[index]);
    *link = (struct at_node_link){.used = true,
                                  .dialed = e->dialed,
                                  .way = e->way,
                                  .id = e->link,
                                  .up_ms = m->now_ms,
                                  .node = e->node,
                                  .hops = AT_HOPS_NONE,
                                  .told_hops = AT_HOPS_NONE,
                                  .cold = &m->cold->links[index]};
    link->cold->log_least = log_least;
    know(m, link);
    if (m->link_top <= index) m->link_top = index + 1;
    at_node_held_link(m, link);
    at_node_peers_link_new(m, link);
    at_node_look(m, AT_NODE_WAYS | AT_NODE_WORK);
    at_node_spare_link(m);
    link->cold->submits.ms = link->cold->carries.ms = link->cold->frames.ms = link->cold->kib.ms = m->now_ms;
    at_node_say_hello(m, e->link);
}

void at_node_link_down(struct at_node_machine *m, const struct at_node_event *e)
{
    struct at_node_link *link = at_node_link_find(m, e->link);
    if (e->link == 0) at_node_climb_failed(m, e);
    if (!link) return; /* there was no room for it */
    struct at_node_id node = link->node;
    bool was_open = link->hello, tell = link->id == m->mesh.feed;
    link_over(m, link);
    link->used = false;
    while (m->link_top > 0 && !m->links[m->link_top - 1].used) m->link_top--;
    if (tell) at_node_note(m, "the way to the steward is down: %s", e->reason ? e->reason : "closed");
    at_node_mesh_down(m, &node, e->link, was_open, m->now_ms - link->up_ms, e->reason ? e->reason : "no answer");
}

/* Does the size that the peer claims for its log fit what we know of the past? What has come from others since this
 * link was dialled may be newer than the Hello. */
static bool past_is_plausible(struct at_node_machine *m, struct at_node_link *link, uint64_t log_size)
{
    if (m->consensus && m->ledger.seats.count == 1 && log_size > at_node_log_size(m)) {
        at_node_link_refuse(m, link, "your log is longer than the steward's");
        return false;
    }
    bool steward = m->has_genesis && m->ledger.seats.count == 1 && !m->is_steward &&
                   at_node_id_eq(&link->node, &m->genesis.steward);
    uint64_t least =
        link->cold->log_least > m->options.invite_log_size ? link->cold->log_least : m->options.invite_log_size;
    if (!steward || log_size >= least) return true;
    at_node_link_refuse(m, link, "your log is shorter than what was seen of it");
    at_node_end(m, AT_E_VERIFY,
                "the steward shows a shorter past: %llu records, but %llu are known; its folder is old or it cheats",
                (unsigned long long)log_size, (unsigned long long)least);
    return false;
}

/* See above. False: `link` itself had to go. */
static bool settle_double(struct at_node_machine *m, struct at_node_link *link)
{
    struct at_node_link *old = at_node_link_of(m, &link->node);
    if (!old) return true;
    if (old->dialed == link->dialed || m->now_ms >= old->up_ms + AT_NODE_CROSSED_MS) {
        at_node_link_refuse(m, old, "a newer link of the same node took its place");
        return true;
    }
    if (at_node_id_cmp(&m->options.key.id, &link->node) > 0) return true;
    struct at_node_link *loser = link->dialed ? old : link;
    at_node_link_refuse(m, loser, "this link has crossed another one");
    return loser != link;
}

static void hello(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_hello *msg)
{
    bool contact = link->dialed && !m->is_steward && at_node_id_eq(&link->node, &m->options.contact);
    if (!at_hash_eq(msg->run, m->options.run)) {
        at_node_link_refuse(m, link, "this node is of another run");
        if (contact && !m->ever_linked) at_node_end(m, AT_E_INVITE, "the node that was dialled is of another run");
        return;
    }
    if (msg->protocol != AT_PROTOCOL_VERSION) {
        char reason[96];
        snprintf(reason, sizeof reason, "this node speaks protocol %d, and you %u: use the same version of the program",
                 AT_PROTOCOL_VERSION, msg->protocol);
        at_node_link_refuse(m, link, reason);
        return;
    }
    if (!settle_double(m, link)) return;
    link->hello = true;
    link->head = msg->log_size;
    if (!past_is_plausible(m, link, msg->log_size)) return;
    m->ever_linked = true;
    at_node_mesh_hello(m, &link->node);
    at_node_peers_link(m, link);
    at_node_agree_link(m, link);
    at_node_held_hello(m);
}

static void said_bye(struct at_node_machine *m, struct at_node_link *link, const char *reason)
{
    if (link->id == m->mesh.feed) at_node_note(m, "the peer that leads to the steward closed the link: %s", reason);
    struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_CLOSE);
    op->link = link->id;
    snprintf(op->reason, sizeof op->reason, "the peer said bye");
    int replica = m->is_steward && link->hello ? (int)link->replica1 - 1 : -1;
    if (replica >= 0 && m->ledger.phase == AT_LEDGER_ENDED && at_node_settled(m)) {
        m->done[replica] = true;
        for (uint32_t r = 0; r < m->ledger.member_count; r++) /* it has waited for those behind it */
            if (m->mesh.words[r].via == link->id) m->done[r] = true;
    }
    link_over(m, link);
}

static void pong(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_ping *ping)
{
    struct at_message msg = {.kind = AT_MSG_PONG};
    msg.pong = *ping;
    at_node_send(m, link->id, &msg);
    at_node_quiet(m);
}

/* Wants of pieces are bounded by what may wait, and what was asked for by the asking: pieces, parts of a log that is followed. */
static bool within_budget(struct at_node_machine *m, struct at_node_link *link, const struct at_message *msg, size_t n)
{
    uint32_t frames = msg->kind == AT_MSG_PEERS_GET ? AT_NODE_PAGE_FRAMES : 1, kib = (uint32_t)(n >> 10) + 1;
    if (msg->kind == AT_MSG_PRESENCES) frames += msg->presences.count / WORDS_PER_FRAME;
    if (msg->kind == AT_MSG_WANT || msg->kind == AT_MSG_PIECE || msg->kind == AT_MSG_MISSING) return true;
    if (msg->kind == AT_MSG_BUNDLE) return true;
    if (!at_node_spend(&link->cold->frames, m->now_ms, frames, AT_NODE_FRAME_BURST, AT_NODE_FRAME_MS)) return false;
    if (msg->kind == AT_MSG_LOG_PART || (msg->kind == AT_MSG_AGREE && at_node_link_seat(link))) return true;
    return at_node_spend(&link->cold->kib, m->now_ms, kib, AT_NODE_KIB_BURST, AT_NODE_KIB_MS);
}

void at_node_message(struct at_node_machine *m, const struct at_node_event *e)
{
    struct at_node_link *link = at_node_link_find(m, e->link);
    struct at_message msg;
    struct at_diag diag = {0};
    if (!link || link->closing) return;
    if (at_message_decode(e->bytes, &m->scratch->mem, &diag, &msg)) {
        at_node_link_refuse(m, link, diag.text[0] ? diag.text : "this is no message");
        return;
    }
    if (!link->hello && msg.kind != AT_MSG_HELLO && msg.kind != AT_MSG_BYE) {
        at_node_link_refuse(m, link, "the first message must be a hello");
        return;
    }
    if (!within_budget(m, link, &msg, e->bytes.n)) {
        at_node_link_refuse(m, link, "too many messages");
        return;
    }
    switch (msg.kind) {
    case AT_MSG_HELLO:
        if (link->hello)
            at_node_link_refuse(m, link, "a second hello");
        else
            hello(m, link, &msg.hello);
        break;
    case AT_MSG_WANT:
        at_node_want(m, link, &msg.want);
        break;
    case AT_MSG_PIECE:
        at_node_piece(m, link, &msg.piece);
        break;
    case AT_MSG_MISSING:
        at_node_missing(m, link, &msg.missing);
        break;
    case AT_MSG_LOG_GET:
        at_node_log_get(m, link, msg.log_get.from, msg.log_get.once);
        break;
    case AT_MSG_LOG_PART:
        at_node_log_part(m, link, &msg.log_part);
        break;
    case AT_MSG_SUBMIT:
        at_node_submit(m, link, msg.submit.record);
        break;
    case AT_MSG_REFUSED:
        at_node_refusal(m, link, &msg.refused);
        break;
    case AT_MSG_READY:
        at_node_ready(m, link, &msg.ready);
        break;
    case AT_MSG_PRESENCES:
        at_node_presences(m, link, &msg.presences);
        break;
    case AT_MSG_PROGRESS:
        link->cold->progress = msg.progress;
        at_node_quiet(m);
        break;
    case AT_MSG_PING:
        pong(m, link, &msg.ping);
        break;
    case AT_MSG_PONG:
    case AT_MSG_MEET: /* the link layer keeps these to itself where it takes part in meetings */
        at_node_quiet(m);
        break;
    case AT_MSG_BYE:
        said_bye(m, link, msg.bye.reason);
        break;
    case AT_MSG_PEERS_GET:
        at_node_peers_get(m, link, &msg.peers_get);
        break;
    case AT_MSG_PEERS:
        at_node_peers(m, link, &msg.peers);
        break;
    case AT_MSG_HEAD:
        at_node_head(m, link, &msg.head);
        break;
    case AT_MSG_GONE:
        at_node_gone(m, link, &msg.gone);
        break;
    case AT_MSG_TILES_ASK:
        at_node_tiles_ask(m, link, &msg.tiles_ask);
        break;
    case AT_MSG_TILES_HAVE:
        at_node_tiles_have(m, link, &msg.tiles_have);
        break;
    case AT_MSG_SAVED:
        link->has_saved = true;
        link->cold->saved = msg.saved;
        if (m->ledger.phase != AT_LEDGER_ENDED) at_node_quiet(m); /* there it is waited for */
        break;
    case AT_MSG_AGREE:
        at_node_agree_message(m, link, msg.agree.bytes);
        break;
    case AT_MSG_COSIGN:
        at_node_cosign(m, link, &msg.cosign.cosignature);
        break;
    case AT_MSG_BUNDLE_WANT:
        at_node_bundle_want(m, link, &msg.bundle_want);
        break;
    case AT_MSG_BUNDLE:
        at_node_bundle(m, link, &msg.bundle);
        break;
    case AT_MSG_HELD:
        at_node_held(m, link, &msg.held);
        break;
    case AT_MSG_STAGE:
        at_node_stage(m, link, &msg.stage);
        break;
    case AT_MSG_NONE:
    case AT_MSG_KIND_COUNT:
        break;
    }
}

void at_node_links_drive(struct at_node_machine *m)
{
    for (size_t i = 0; i < m->link_top; i++) {
        struct at_node_link *l = &m->links[i];
        if (l->used && !l->hello && !l->closing && m->now_ms >= l->up_ms + AT_NODE_HELLO_MS)
            at_node_link_refuse(m, l, "no hello");
    }
}

uint64_t at_node_links_deadline_ms(const struct at_node_machine *m)
{
    uint64_t deadline = UINT64_MAX;
    for (size_t i = 0; i < m->link_top; i++) {
        const struct at_node_link *l = &m->links[i];
        if (l->used && !l->hello && !l->closing && l->up_ms + AT_NODE_HELLO_MS < deadline)
            deadline = l->up_ms + AT_NODE_HELLO_MS;
    }
    return deadline;
}
