/* Meetings that this node asks for, or is asked to; and where each message about meetings goes. */
#include "net/address.h"
#include "net/link.h"

#include <stdio.h>
#include <string.h>

/* A peer may ask (ASK, INVITE) in bursts of ASKS_MAX, and once in ASK_MS in the long run. */
#define ASKS_MAX 32
#define ASK_MS   250
/* Asked to at once, until they are up or over: in all, and by arrangers of one origin. */
#define INVITED_MAX        8
#define INVITED_ORIGIN_MAX 4

void at_link_send_meet(struct link *via, const struct at_meet *m)
{
    struct at_message message = {.kind = AT_MSG_MEET, .meet = *m};
    at_link_send(via, &message);
}

static bool may_ask(struct link *l)
{
    uint64_t now = uv_now(l->net->loop);
    uint64_t back = (now - l->asked_ms) / ASK_MS;
    l->asked = back >= l->asked ? 0 : l->asked - (uint32_t)back;
    l->asked_ms += back * ASK_MS;
    if (l->asked >= ASKS_MAX) return false;
    l->asked++;
    return true;
}

static bool bad_loopback(const struct at_net *net, const struct at_endpoint *e)
{
    return at_endpoint_loopback(e) && !net->opt.meet_loopback;
}

/* A meeting's connection goes to the arranger's address again, so that address must be one that we chose ourselves: an
 * arranger that dialed us could come through a proxy on this machine or its net, and have us connect to that. */
static const char *no_arranger(const struct link *via)
{
    if (via->way != AT_NET_DIRECT) return "meetings are arranged over a direct link";
    if (!via->dialed) return "meetings are arranged over a link that the node dialed itself";
    return bad_loopback(via->net, &via->remote) ? "no meeting is arranged by this machine" : NULL;
}

/* ---- how a dialer is seen ---- */
static void on_look(struct link *l)
{
    struct at_meet m = {.kind = AT_MEET_SEEN, .endpoint = l->remote};
    if (!l->dialed && l->way == AT_NET_DIRECT && at_endpoint_ok(&l->remote) && may_ask(l)) at_link_send_meet(l, &m);
}

static void on_seen(struct link *l, const struct at_meet *m)
{
    if (l->looked && !bad_loopback(l->net, &m->endpoint)) l->seen = m->endpoint;
}

/* ---- this node arranges ---- */
/* The link on which a node is asked to meet: one that it dialed, for then it knows an address of ours that works; the
 * newest of them. */
static struct link *link_to(const struct at_net *net, const struct at_node_id *node)
{
    struct link *best = NULL;
    for (uint32_t i = 0; i < net->opt.links_max; i++) {
        struct link *l = net->link[i];
        if (!l || l->dialed || l->state != LINK_UP || l->way != AT_NET_DIRECT) continue;
        if (at_node_id_eq(&l->tls.peer, node) && (!best || l->id.v > best->id.v)) best = l;
    }
    return best;
}

static void on_ask(struct link *l, const struct at_meet *m)
{
    struct at_net *net = l->net;
    struct link *target = link_to(net, &m->node);
    struct at_arrange_event ev = {.kind = AT_ARRANGE_ASK, .link = l->id.v, .node = l->tls.peer, .message = m};
    if (!may_ask(l))
        ev.veto = "asked too often";
    else if (l->way != AT_NET_DIRECT || l->dialed)
        ev.veto = "ask over a direct link that you dialed";
    else
        ev.veto = net->opt.allow(net->user, &l->tls.peer, &m->node, &net->self);
    if (target) {
        ev.target_link = target->id.v;
        ev.rtt_ms[1] = (uint32_t)(target->rtt_us / 1000);
    }
    ev.rtt_ms[0] = (uint32_t)(l->rtt_us / 1000);
    if (uv_random(NULL, NULL, ev.token, sizeof ev.token, 0, NULL) != 0) ev.veto = "no random numbers here";
    at_arranger_step(net, &ev);
}

/* ---- this node takes part ---- */
static struct link *find_meeting(const struct at_net *net, const struct link *via, uint64_t number, bool asked_by_us)
{
    for (uint32_t i = 0; i < net->opt.links_max; i++) {
        struct link *l = net->link[i];
        if (l && l->meet.how && l->dialed == asked_by_us && l->meet.number == number && l->meet.via.v == via->id.v &&
            l->state < LINK_UP)
            return l;
    }
    return NULL;
}

static struct link *new_meeting(struct link *via, enum at_meet_how how, const struct at_node_id *peer, bool asking)
{
    struct link *l = at_link_new(via->net, asking);
    if (!l) return NULL;
    l->state = LINK_MEET;
    l->pinned = true;
    l->expected = *peer;
    l->meet.how = how;
    l->meet.via = via->id;
    l->meet.arranger = via->remote;
    l->meet.number = l->id.v;
    l->way = how == AT_MEET_HOW_RELAY ? AT_NET_RELAYED : AT_NET_PUNCHED;
    snprintf(l->address, sizeof l->address, "%s", via->address);
    at_link_wait(l, via->net->opt.meet_ms);
    return l;
}

/* The token is here: show it to the arranger, at the address and port that we dialed. As an IPv4 address where it is one,
 * or a punch's peer would be of another family than its socket. */
static void begin(struct link *l, const struct link *via, const struct at_meet *m)
{
    struct sockaddr_storage sa = via->remote_sa;
    if (via->remote.ip_bytes == 4) at_address_to(&via->remote, &sa);
    l->meet.token = m->token;
    l->meet.began = true;
    at_link_wait(l, l->net->opt.meet_ms);
    if (l->meet.how == AT_MEET_HOW_PUNCH)
        at_punch_begin(l, &sa);
    else
        at_link_connect(l, (struct sockaddr *)&sa);
}

/* Strangers' wishes take only so many links, whoever arranges them, and never the last quarter. A dead link counts while
 * its probe stays (punch.c). */
static const char *no_room(const struct link *via)
{
    const struct at_net *net = via->net;
    uint32_t invited = 0, by_origin = 0;
    for (uint32_t i = 0; i < net->opt.links_max; i++) {
        const struct link *l = net->link[i];
        if (!l || l->dialed || !l->meet.how || (l->state >= LINK_UP && l->state != LINK_DEAD)) continue;
        invited++;
        by_origin += at_endpoint_same_origin(&l->meet.arranger, &via->remote);
    }
    if (invited >= INVITED_MAX || by_origin >= INVITED_ORIGIN_MAX) return "too many meetings at once";
    return net->link_count >= net->opt.links_max - net->opt.links_max / 4 ? "no link is free" : NULL;
}

static const char *why_not(const struct link *via, const struct at_meet *m)
{
    const struct at_net *net = via->net;
    const char *reason = net->opt.may_be_invited ? no_arranger(via) : "this node may not be invited";
    if (!reason && find_meeting(net, via, m->number, false)) reason = "this number is in use";
    if (!reason && at_node_id_eq(&m->node, &net->self)) reason = "this is the node itself";
    if (!reason) reason = no_room(via);
    return reason ? reason : net->opt.allow(net->user, &m->node, &net->self, &via->tls.peer);
}

static void on_invite(struct link *via, const struct at_meet *m)
{
    struct at_meet answer = {.kind = AT_MEET_AGREE, .number = m->number};
    const char *reason = may_ask(via) ? why_not(via, m) : "invited too often";
    struct link *l = reason ? NULL : new_meeting(via, m->how, &m->node, false);
    if (!l) {
        answer.kind = AT_MEET_REFUSE;
        answer.yours = true;
        at_reason_set(answer.reason, reason ? reason : "no link is free");
        at_link_send_meet(via, &answer);
        return;
    }
    l->meet.number = m->number;
    at_link_send_meet(via, &answer);
    begin(l, via, m);
}

static void on_go(struct link *via, const struct at_meet *m)
{
    struct link *l = find_meeting(via->net, via, m->number, true);
    if (l && l->state == LINK_MEET && !l->meet.began) begin(l, via, m);
}

static void on_punch(struct link *via, const struct at_meet *m)
{
    struct link *l = find_meeting(via->net, via, m->number, m->yours);
    if (!l || l->meet.how != AT_MEET_HOW_PUNCH || l->state != LINK_MEET || !l->meet.began) return;
    struct at_endpoint own = at_punch_local(l);
    const char *reason = at_meet_no_target(&m->endpoint, &via->remote, &own, &via->seen, l->net->opt.meet_loopback);
    if (reason)
        at_link_fail(l, AT_E_PEER, "the arranger names %s", reason);
    else
        at_punch_go(l, &m->endpoint, m->wait_ms);
}

/* True: it was one of ours. */
static bool on_refuse(struct link *via, const struct at_meet *m)
{
    struct link *l = find_meeting(via->net, via, m->number, m->yours);
    if (!l) return false;
    l->meet.told = true;
    at_link_fail(l, AT_E_PEER, "no meeting at %s: %s", via->address, m->reason);
    return true;
}

void at_link_take_meet(struct link *via, const struct at_meet *m)
{
    struct at_arrange_event ev = {.link = via->id.v, .message = m};
    switch (m->kind) {
    case AT_MEET_SEEN:
        on_seen(via, m);
        break;
    case AT_MEET_LOOK:
        on_look(via);
        break;
    case AT_MEET_ASK:
        on_ask(via, m);
        break;
    case AT_MEET_INVITE:
        on_invite(via, m);
        break;
    case AT_MEET_GO:
        on_go(via, m);
        break;
    case AT_MEET_PUNCH:
        on_punch(via, m);
        break;
    case AT_MEET_AGREE:
        ev.kind = AT_ARRANGE_AGREE;
        at_arranger_step(via->net, &ev);
        break;
    case AT_MEET_REFUSE:
        ev.kind = AT_ARRANGE_REFUSE;
        if (!on_refuse(via, m)) at_arranger_step(via->net, &ev);
        break;
    case AT_MEET_NONE:
    case AT_MEET_KIND_COUNT:
        break;
    }
}

/* Not how a punch ended: that would tell an arranger which of the addresses that it named answer. */
void at_introduce_over(struct link *l)
{
    bool waits =
        l->state == LINK_MEET ? !at_punch_going(l) : l->state == LINK_CONNECT && l->meet.how == AT_MEET_HOW_RELAY;
    struct link *via = l->meet.how && waits && !l->meet.told ? at_link_find(l->net, l->meet.via) : NULL;
    struct at_meet m = {.kind = AT_MEET_REFUSE, .number = l->meet.number, .yours = !l->dialed};
    if (!via || via->state != LINK_UP || l->net->releasing) return;
    l->meet.told = true;
    at_reason_set(m.reason, l->down_reason);
    at_link_send_meet(via, &m);
}

void at_introduce_down(struct at_net *net, struct at_link_id via)
{
    for (uint32_t i = 0; i < net->opt.links_max; i++) {
        struct link *l = net->link[i];
        if (l && l->meet.how && l->meet.via.v == via.v && l->state == LINK_MEET)
            at_link_fail(l, AT_E_PEER, "the link to the arranger is gone");
    }
}

at_err_t at_net_meet(struct at_net *net, struct at_link_id via, enum at_meet_how how, const struct at_node_id *target,
                     struct at_link_id *ret_link)
{
    struct link *arranger = at_link_find(net, via);
    if (!arranger || arranger->state != LINK_UP) return AT_E_NOT_FOUND;
    if (!net->opt.allow || no_arranger(arranger)) return AT_E_USAGE;
    struct link *l = new_meeting(arranger, how, target, true);
    if (!l) return AT_E_TOO_BIG;
    struct at_meet ask = {.kind = AT_MEET_ASK, .number = l->meet.number, .how = how, .node = *target};
    at_link_send_meet(arranger, &ask);
    *ret_link = l->id;
    return AT_OK;
}

at_err_t at_net_look(struct at_net *net, struct at_link_id link)
{
    struct link *l = at_link_find(net, link);
    struct at_meet m = {.kind = AT_MEET_LOOK};
    if (!l || l->state != LINK_UP) return AT_E_NOT_FOUND;
    if (!net->opt.allow || !l->dialed || l->way != AT_NET_DIRECT) return AT_E_USAGE;
    l->looked = true;
    at_link_send_meet(l, &m);
    return AT_OK;
}
