/* node_presence.c: who is here. The steward counts a member as here while it has a link of its own to it, or while the
 * link is up over which the member's newest word of presence came through others (wire/presence.h).
 *
 *   event                                 at a member that passes on                     at the steward
 *   Ready of a link's own node            kept, passed to the feed                       kept
 *   Ready of another member, newer, or    the same, with the link that it came over      the same
 *   as new while the link of the last
 *   is down
 *   Ready, older, or of no member, or     ignored                                        ignored
 *   beyond its author's budget
 *   Ready, signature wrong                Bye, closes                                    Bye, closes
 *   Gone of members whose word came       forgotten, passed to the feed                  not here any more
 *   over that link
 *   a link goes down                      Gone of all whose word came over it            not here any more
 *   the way to the steward is another     every word kept is told there, less those      -
 *                                         that went over the same link before, as while
 *                                         the way was lost further on
 *
 * Among several stewards each is told by those whose feed it is, and tells the others, directly; what one of them has told
 * goes no further. Each says to all others when it is ready itself.
 *
 * A member whose feed is the steward says Ready once per round; one that is further away also says "I am here" on every
 * new way. Words that go on in one step go in one message: on a new way near the steward they are those of hundreds.
 * Whoever passes on may be silent about a dead member, and so hold up a round for at most its time: it is not ready for
 * the next one. It cannot make a word, nor turn an old one into a newer. */
#include "swarm/node_internal.h"

#include <string.h>

struct words { /* that go on together */
    struct at_presence list[AT_PRESENCES_MAX];
    uint32_t count;
};

const struct at_presence *at_node_present(struct at_node_machine *m, uint32_t replica)
{
    bool here = m->mesh.words[replica].via || at_node_link_of(m, &m->ledger.members[replica].id);
    return here ? &m->mesh.peers[replica].said : NULL;
}

static void say(struct at_node_machine *m, uint32_t round, struct at_hash root)
{
    struct at_message msg = {.kind = AT_MSG_READY};
    msg.ready = at_presence_sign(&m->options.key, m->options.run, at_node_counter(m), round, root);
    if (m->is_steward)
        at_node_to_seats(m, &m->ledger.seats, UINT32_MAX, &msg);
    else
        at_node_send(m, m->mesh.feed, &msg);
    m->mesh.here_path = m->mesh.path;
    at_node_look(m, AT_NODE_WAYS); /* the link to the steward may be let go after it */
}

void at_node_say_ready(struct at_node_machine *m)
{
    if (!m->mesh.path || (m->ready_path == m->mesh.path && m->ready_round == m->state.round)) return;
    m->ready_path = m->mesh.path;
    m->ready_round = m->state.round;
    say(m, m->state.round, m->state.root);
}

void at_node_say_here(struct at_node_machine *m)
{
    const struct at_node_link *feed = at_node_feed(m);
    if (!m->mesh.path || m->mesh.here_path == m->mesh.path) return;
    if (feed && (m->ledger.seats.count > 1 || !at_node_link_seat(feed))) say(m, 0, (struct at_hash){{0}});
}

/* A member to its feed; a steward to the others what none of them has told it. */
static bool goes_on(struct at_node_machine *m, uint64_t from)
{
    const struct at_node_link *link = at_node_link_find(m, from);
    if (at_node_among_several(m)) return !link || !at_node_link_seat(link);
    return !m->is_steward && m->mesh.path && m->mesh.feed != from;
}

static void to_stewards(struct at_node_machine *m, const struct at_message *msg)
{
    if (at_node_among_several(m))
        at_node_to_seats(m, &m->ledger.seats, UINT32_MAX, msg);
    else
        at_node_send(m, m->mesh.feed, msg);
}

/* With what else goes on in this step; room: fewer than AT_PRESENCES_MAX are in it. */
static void pass_on(struct at_node_machine *m, uint32_t replica, struct words *words)
{
    struct at_node_word *word = &m->mesh.words[replica];
    if (goes_on(m, word->via)) words->list[words->count++] = m->mesh.peers[replica].said;
    word->told = m->mesh.path ? m->mesh.feed : 0;
}

static void send_words(struct at_node_machine *m, const struct words *words)
{
    struct at_message msg = {.kind = AT_MSG_PRESENCES, .presences = {words->list, words->count}};
    if (words->count == 1) msg = (struct at_message){.kind = AT_MSG_READY, .ready = words->list[0]};
    if (words->count > 0) to_stewards(m, &msg);
}

/* False: the link is refused. */
static bool take(struct at_node_machine *m, struct at_node_link *link, const struct at_presence *p, struct words *words)
{
    int r = m->has_genesis ? at_ledger_find(&m->ledger, &p->member) : -1;
    bool own = at_node_id_eq(&p->member, &link->node);
    if (r < 0 || r == at_node_self(m)) return true;
    if (!own && !at_node_link_member(m, link)) return true;
    struct at_node_peer *peer = &m->mesh.peers[r];
    if (!own && p->counter < peer->said.counter) return true;
    if (!own && p->counter == peer->said.counter && m->mesh.words[r].via) return true;
    if (!m->ledger.members[r].active) return true; /* last: mostly the word is known, and this is not in the caches */
    if (!own && !at_node_author_spend(m, &p->member)) return true;
    if (at_presence_verify(p, m->options.run, m->options.verifier)) {
        at_node_link_refuse(m, link, "a word of presence that its member has not signed");
        return false;
    }
    peer->said = *p;
    peer->far = !own;
    m->mesh.words[r].via = link->id;
    pass_on(m, (uint32_t)r, words);
    if (m->is_steward && at_node_state_confirmed(m) && p->round == m->state.round && !at_hash_is_zero(p->state_root) &&
        !at_hash_eq(p->state_root, m->state.root))
        at_node_note(m, "a member computes other bits: root %.16s of round %u at %.16s, %.16s here",
                     at_hash_hex(p->state_root).s, p->round, at_node_id_hex(&p->member).s,
                     at_hash_hex(m->state.root).s);
    return true;
}

void at_node_presences(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_presences *msg)
{
    struct words words = {.count = 0};
    for (uint32_t i = 0; i < msg->count && i < AT_PRESENCES_MAX; i++)
        if (!take(m, link, &msg->list[i], &words)) break;
    send_words(m, &words);
}

void at_node_ready(struct at_node_machine *m, struct at_node_link *link, const struct at_presence *p)
{
    at_node_presences(m, link, &(struct at_msg_presences){p, 1});
}

/* ---- going ---- */
static void tell_gone(struct at_node_machine *m, struct at_msg_gone *gone, uint64_t from)
{
    struct at_message msg = {.kind = AT_MSG_GONE, .gone = *gone};
    if (gone->count && goes_on(m, from)) to_stewards(m, &msg);
    gone->count = 0;
}

void at_node_gone(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_gone *msg)
{
    struct at_node_id ids[AT_PEERS_MAX];
    struct at_msg_gone gone = {ids, 0};
    for (uint32_t i = 0; i < msg->count; i++) {
        int r = m->has_genesis ? at_ledger_find(&m->ledger, &msg->members[i]) : -1;
        if (r < 0 || m->mesh.words[r].via != link->id || at_node_id_eq(&msg->members[i], &link->node)) continue;
        m->mesh.words[r] = (struct at_node_word){0};
        ids[gone.count++] = msg->members[i];
    }
    tell_gone(m, &gone, link->id);
}

void at_node_presence_lost(struct at_node_machine *m, const struct at_node_link *link)
{
    struct at_node_id ids[AT_PEERS_MAX];
    struct at_msg_gone gone = {ids, 0};
    for (uint32_t r = 0; m->has_genesis && r < m->ledger.member_count; r++) {
        if (m->mesh.words[r].via != link->id) continue;
        m->mesh.words[r] = (struct at_node_word){0};
        ids[gone.count++] = m->ledger.members[r].id;
        if (gone.count == AT_PEERS_MAX) tell_gone(m, &gone, link->id);
    }
    tell_gone(m, &gone, link->id);
}

/* ---- another way ---- */
void at_node_presence_again(struct at_node_machine *m)
{
    m->mesh.again_next = 0;
}

void at_node_presence_drive(struct at_node_machine *m)
{
    if (m->consensus || !m->mesh.path || m->mesh.again_ms == m->now_ms + 1) return;
    struct words words = {.count = 0};
    for (; m->mesh.again_next < m->ledger.member_count && words.count < AT_PRESENCES_MAX; m->mesh.again_next++) {
        const struct at_node_word *word = &m->mesh.words[m->mesh.again_next];
        bool told = m->mesh.feed && (word->via == m->mesh.feed || word->told == m->mesh.feed);
        if (word->via && !told) pass_on(m, m->mesh.again_next, &words);
    }
    if (words.count > 0) m->mesh.again_ms = m->now_ms + 1;
    send_words(m, &words);
}

bool at_node_presence_due(const struct at_node_machine *m)
{
    return !m->consensus && m->mesh.path && m->mesh.again_next < m->ledger.member_count;
}
