/* node_links.c: links and what a peer may do on them.
 *
 *   state of a link     event              does                                                      next
 *   (none)              LINK_UP            says Hello                                                greeting
 *   greeting            Hello, our run     takes part (newcomer: genesis, log; steward: presence)    open
 *   greeting            Hello, other run   Bye "another run", closes                                 closing
 *   greeting            anything else      Bye "no hello", closes                                    closing
 *   open                Hello again        Bye, closes                                               closing
 *   open                any message        to its file; a breach of the protocol: Bye, closes        open / closing
 *   closing             any message        ignored                                                   closing
 *   any                 LINK_DOWN          forgets it; the contact's link is dialled again           (none) */
#include "swarm/node_internal.h"

#include <stdio.h>
#include <string.h>

struct at_node_link *at_node_link_find(struct at_node_machine *m, uint64_t id)
{
    for (size_t i = 0; i < AT_NODE_LINKS_MAX; i++)
        if (m->links[i].used && m->links[i].id == id) return &m->links[i];
    return NULL;
}

static bool is_link_of(const struct at_node_link *l, const struct at_node_id *node)
{
    return l->used && l->hello && !l->closing && at_node_id_eq(&l->node, node);
}

/* A steward asks this for every member in every step: at a hundred members it was a quarter of all its time. A node has
 * one link that said hello (hello()), so whichever is found is the one. */
struct at_node_link *at_node_link_of(struct at_node_machine *m, const struct at_node_id *node)
{
    uint8_t *hint = &m->link_hint[at_load_le32(node->b) % 1024];
    if (is_link_of(&m->links[*hint], node)) return &m->links[*hint];
    for (size_t i = 0; i < AT_NODE_LINKS_MAX; i++) {
        if (!is_link_of(&m->links[i], node)) continue;
        *hint = (uint8_t)i;
        return &m->links[i];
    }
    return NULL;
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

void at_node_link_refuse(struct at_node_machine *m, struct at_node_link *link, const char *reason)
{
    if (link->closing) return;
    link_close(m, link->id, reason);
    link->closing = true;
    if (link->hello && m->is_steward) at_node_steward_link(m, link, false);
    if (m->contact_link == link->id) m->contact_link = 0;
    at_node_blob_link_down(m, link->id);
}

static void say_hello(struct at_node_machine *m, uint64_t link)
{
    struct at_message msg = {.kind = AT_MSG_HELLO};
    msg.hello.protocol = AT_PROTOCOL_VERSION;
    msg.hello.run = m->options.run;
    memcpy(msg.hello.program, m->program, sizeof m->program);
    msg.hello.log_size = at_node_log_size(m);
    at_node_send(m, link, &msg);
}

/* Strangers give way, the one linked longest first: they cannot keep members out. */
static struct at_node_link *make_room(struct at_node_machine *m)
{
    struct at_node_link *oldest = NULL;
    for (size_t i = 0; i < AT_NODE_LINKS_MAX; i++) {
        struct at_node_link *l = &m->links[i];
        int replica = m->has_genesis ? at_ledger_find(&m->ledger, &l->node) : -1;
        bool member =
            (replica >= 0 && m->ledger.members[replica].active) || at_node_id_eq(&l->node, &m->options.contact);
        if (l->used && !l->closing && !member && (!oldest || l->up_ms < oldest->up_ms)) oldest = l;
    }
    if (!oldest) return NULL;
    at_node_link_refuse(m, oldest, "the room is needed for another link");
    oldest->used = false;
    return oldest;
}

void at_node_link_up(struct at_node_machine *m, const struct at_node_event *e)
{
    struct at_node_link *free_link = NULL;
    uint32_t max = m->options.links_max ? m->options.links_max : AT_NODE_LINKS_MAX, used = 0;
    bool contact = e->dialed && !m->is_steward && at_node_id_eq(&e->node, &m->options.contact);
    if (contact) m->dialing = false;
    for (size_t i = 0; i < AT_NODE_LINKS_MAX; i++) {
        if (m->links[i].used)
            used++;
        else if (!free_link)
            free_link = &m->links[i];
    }
    bool myself = at_node_id_eq(&e->node, &m->options.key.id);
    if (!myself && (!free_link || used >= max)) free_link = make_room(m);
    if (!free_link || myself) {
        link_close(m, e->link, myself ? "this is myself" : "no room for another link");
        return;
    }
    memset(free_link, 0, sizeof *free_link);
    free_link->used = true;
    free_link->dialed = e->dialed;
    free_link->id = e->link;
    free_link->up_ms = m->now_ms;
    free_link->node = e->node;
    free_link->submits_ms = m->now_ms;
    say_hello(m, e->link);
}

void at_node_link_down(struct at_node_machine *m, const struct at_node_event *e)
{
    struct at_node_link *link = e->link ? at_node_link_find(m, e->link) : NULL;
    bool contact = !m->is_steward && at_node_id_eq(&e->node, &m->options.contact);
    if (link) {
        bool open = link->hello && !link->closing;
        contact = !m->is_steward && link->dialed && at_node_id_eq(&link->node, &m->options.contact);
        link->closing = true;
        if (open && m->is_steward) at_node_steward_link(m, link, false);
        at_node_blob_link_down(m, link->id);
        if (contact && open) at_node_note(m, "the link to the steward is down: %s", e->reason ? e->reason : "closed");
        link->used = false;
    }
    if (!contact || (m->contact_link && m->contact_link != e->link)) return;
    if (m->contact_link || m->contact_down_ms == 0) m->contact_down_ms = m->now_ms;
    m->contact_link = 0;
    m->dialing = false;
    m->log_asked = m->log_synced = false;
    if (++m->dial_failures >= AT_NODE_FIRST_DIALS_MAX && !at_node_joined(m) && !m->ended) {
        at_node_end(m, AT_E_PEER,
                    "nobody of the run can be reached (%s): is the founder's node running, or has the run ended?",
                    e->reason ? e->reason : "no answer");
        return;
    }
    m->dial_backoff_ms = m->dial_backoff_ms ? m->dial_backoff_ms * 2 : AT_NODE_DIAL_MIN_MS;
    if (m->dial_backoff_ms > AT_NODE_DIAL_MAX_MS) m->dial_backoff_ms = AT_NODE_DIAL_MAX_MS;
    m->dial_ms = m->now_ms + m->dial_backoff_ms;
}

/* Does the size a peer claims for its log fit what we know of the past? */
static bool past_is_plausible(struct at_node_machine *m, struct at_node_link *link, uint64_t log_size)
{
    if (m->is_steward && log_size > at_node_log_size(m)) {
        at_node_link_refuse(m, link, "your log is longer than the steward's");
        return false;
    }
    bool steward = m->has_genesis ? at_node_id_eq(&link->node, &m->genesis.steward)
                                  : at_node_id_eq(&link->node, &m->options.contact);
    uint64_t least = m->has_genesis && at_node_log_size(m) > m->options.invite_log_size ? at_node_log_size(m)
                                                                                        : m->options.invite_log_size;
    if (!steward || m->is_steward || log_size >= least) return true;
    at_node_link_refuse(m, link, "your log is shorter than what was seen of it");
    at_node_end(m, AT_E_VERIFY,
                "the steward shows a shorter past: %llu records, but %llu are known; its folder is old or it cheats",
                (unsigned long long)log_size, (unsigned long long)least);
    return false;
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
        at_node_link_refuse(m, link, "this node speaks protocol 1");
        return;
    }
    struct at_node_link *old = at_node_link_of(m, &link->node);
    if (old) at_node_link_refuse(m, old, "a newer link of the same node took its place");
    link->hello = true;
    if (!past_is_plausible(m, link, msg->log_size)) return;
    if (contact) {
        m->contact_link = link->id;
        m->ever_linked = true;
        m->dial_failures = 0;
        m->dial_backoff_ms = 0;
        m->contact_down_ms = 0;
        m->log_asked = m->log_synced = false;
    }
    if (m->is_steward) at_node_steward_link(m, link, true);
}

static void ready(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_ready *msg)
{
    link->ready = true;
    link->ready_for = *msg;
    if (m->is_steward && at_node_state_confirmed(m) && msg->round == m->state.round &&
        !at_hash_eq(msg->state_root, m->state.root))
        at_node_note(m, "a member computes other bits: root %.16s of round %u at %.16s, %.16s here",
                     at_hash_hex(msg->state_root).s, msg->round, at_node_id_hex(&link->node).s,
                     at_hash_hex(m->state.root).s);
}

static void said_bye(struct at_node_machine *m, struct at_node_link *link, const char *reason)
{
    if (link->id == m->contact_link) at_node_note(m, "the steward closed the link: %s", reason);
    struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_CLOSE);
    op->link = link->id;
    snprintf(op->reason, sizeof op->reason, "the peer said bye");
    int replica = m->is_steward && link->hello ? at_ledger_find(&m->ledger, &link->node) : -1;
    if (replica >= 0 && m->ledger.phase == AT_LEDGER_ENDED && at_node_settled(m)) m->done[replica] = true;
    if (link->hello && m->is_steward) at_node_steward_link(m, link, false);
    if (m->contact_link == link->id) m->contact_link = 0;
    link->closing = true;
    at_node_blob_link_down(m, link->id);
}

static void refused(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_refused *msg)
{
    if (link->id != m->contact_link) return;
    at_node_note(m, "the steward refused a record: %s", msg->reason);
    /* An earlier JOIN of ours may be on its way into the log, and this one have been refused for that. */
    if (!at_node_joined(m) && m->join_link == link->id && m->join_refused_ms == 0) {
        m->join_refused_ms = m->now_ms + 1;
        memcpy(m->join_reason, msg->reason, sizeof m->join_reason);
    }
}

static void pong(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_ping *ping)
{
    struct at_message msg = {.kind = AT_MSG_PONG};
    msg.pong = *ping;
    at_node_send(m, link->id, &msg);
}

void at_node_message(struct at_node_machine *m, const struct at_node_event *e)
{
    struct at_node_link *link = at_node_link_find(m, e->link);
    struct at_message msg;
    struct at_diag diag = {0};
    if (!link || link->closing) return;
    if (at_message_decode(e->bytes, &m->mem, &diag, &msg)) {
        at_node_link_refuse(m, link, diag.text[0] ? diag.text : "this is no message");
        return;
    }
    if (!link->hello && msg.kind != AT_MSG_HELLO && msg.kind != AT_MSG_BYE) {
        at_node_link_refuse(m, link, "the first message must be a hello");
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
        at_node_log_get(m, link, msg.log_get.from);
        break;
    case AT_MSG_LOG_PART:
        at_node_log_part(m, link, &msg.log_part);
        break;
    case AT_MSG_SUBMIT:
        at_node_submit(m, link, msg.submit.record);
        break;
    case AT_MSG_REFUSED:
        refused(m, link, &msg.refused);
        break;
    case AT_MSG_READY:
        ready(m, link, &msg.ready);
        break;
    case AT_MSG_PROGRESS:
        link->progress = msg.progress;
        break;
    case AT_MSG_PING:
        pong(m, link, &msg.ping);
        break;
    case AT_MSG_PONG:
        break;
    case AT_MSG_BYE:
        said_bye(m, link, msg.bye.reason);
        break;
    case AT_MSG_NONE:
    case AT_MSG_KIND_COUNT:
        break;
    }
}

void at_node_dial_drive(struct at_node_machine *m)
{
    if (m->is_steward || m->ended || m->contact_link || m->dialing || m->now_ms < m->dial_ms) return;
    for (size_t i = 0; i < AT_NODE_LINKS_MAX; i++) /* one that says hello, or goes down, soon */
        if (m->links[i].used && at_node_id_eq(&m->links[i].node, &m->options.contact)) return;
    m->dialing = true;
    at_node_op_add(m, AT_NODE_OP_DIAL)->node = m->options.contact;
}

void at_node_links_drive(struct at_node_machine *m)
{
    for (size_t i = 0; i < AT_NODE_LINKS_MAX; i++) {
        struct at_node_link *l = &m->links[i];
        if (l->used && !l->hello && !l->closing && m->now_ms >= l->up_ms + AT_NODE_HELLO_MS)
            at_node_link_refuse(m, l, "no hello");
    }
}

uint64_t at_node_links_deadline_ms(const struct at_node_machine *m)
{
    uint64_t deadline = UINT64_MAX;
    for (size_t i = 0; i < AT_NODE_LINKS_MAX; i++) {
        const struct at_node_link *l = &m->links[i];
        if (l->used && !l->hello && !l->closing && l->up_ms + AT_NODE_HELLO_MS < deadline)
            deadline = l->up_ms + AT_NODE_HELLO_MS;
    }
    return deadline;
}
