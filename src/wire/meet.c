#include "wire/meet.h"
#include "wire/meet_pb.h"
#include "wire/printable.h"

#include <string.h>

static const uint8_t magic[AT_MEET_PRELUDE_BYTES - 2 * AT_MEET_TOKEN_BYTES] = {'A', 'T', 'O', 'L', 'L', 'v', 'i', 'a'};

void at_meet_prelude(const struct at_meet_token *token, uint8_t ret_prelude[AT_MEET_PRELUDE_BYTES])
{
    char hex[2 * AT_MEET_TOKEN_BYTES + 1];
    at_hex_encode(token->b, sizeof token->b, hex);
    memcpy(ret_prelude, magic, sizeof magic);
    memcpy(ret_prelude + sizeof magic, hex, 2 * sizeof token->b);
}

static bool lower_hex(uint8_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

at_err at_meet_prelude_parse(struct at_span in, struct at_meet_token *ret_token, size_t *ret_used)
{
    size_t n = in.n < sizeof magic ? in.n : sizeof magic;
    if (n != 0 && memcmp(in.p, magic, n) != 0) return AT_E_PEER;
    for (; n < in.n && n < AT_MEET_PRELUDE_BYTES; n++)
        if (!lower_hex(in.p[n])) return AT_E_PEER;
    if (in.n < AT_MEET_PRELUDE_BYTES) {
        *ret_used = 0;
        return AT_OK;
    }
    *ret_used = AT_MEET_PRELUDE_BYTES;
    return at_hex_decode((const char *)in.p + sizeof magic, 2 * AT_MEET_TOKEN_BYTES, ret_token->b, AT_MEET_TOKEN_BYTES);
}

bool at_meet_token_eq(const struct at_meet_token *a, const struct at_meet_token *b)
{
    uint8_t differs = 0;
    for (size_t i = 0; i < sizeof a->b; i++) differs |= a->b[i] ^ b->b[i];
    return differs == 0;
}

const char *at_meet_no_target(const struct at_endpoint *target, const struct at_endpoint *arranger,
                              const struct at_endpoint *own, const struct at_endpoint *seen, bool loopback)
{
    if (!at_endpoint_ok(target)) return "no address of a host";
    if (target->port < 1024) return "a port of the system's";
    if (at_endpoint_loopback(target)) {
        if (!loopback) return "an address of this machine";
        return at_endpoint_eq(target, own) ? "this node's own address" : NULL;
    }
    if (at_endpoint_same_host(target, own) || at_endpoint_same_host(target, seen)) return "this node's own address";
    return at_endpoint_private(target) && !at_endpoint_private(arranger) ? "an address of a private net" : NULL;
}

/* ---- to and from the generated structs ---- */
static ProtobufCBinaryData pb_id(const struct at_node_id *id)
{
    return at_pb_bytes(id->b, sizeof id->b);
}
static ProtobufCBinaryData pb_token(const struct at_meet_token *token)
{
    return at_pb_bytes(token->b, sizeof token->b);
}

static void build_introduction(const struct at_meet *from, struct at_meet_pb *to)
{
    switch (from->kind) {
    case AT_MEET_ASK:
        atoll__pb__meet_ask__init(&to->ask);
        to->ask.number = from->number;
        to->ask.how = (Atoll__Pb__MeetHow)from->how;
        to->ask.target = pb_id(&from->node);
        break;
    case AT_MEET_INVITE:
        atoll__pb__meet_invite__init(&to->invite);
        to->invite.number = from->number;
        to->invite.how = (Atoll__Pb__MeetHow)from->how;
        to->invite.asker = pb_id(&from->node);
        to->invite.token = pb_token(&from->token);
        break;
    case AT_MEET_AGREE:
        atoll__pb__meet_agree__init(&to->agree);
        to->agree.number = from->number;
        break;
    default:
        atoll__pb__meet_go__init(&to->go);
        to->go.number = from->number;
        to->go.token = pb_token(&from->token);
        break;
    }
}

void at_meet_build(const struct at_meet *from, struct at_meet_pb *to)
{
    atoll__pb__meet__init(&to->meet);
    to->meet.body_case = (Atoll__Pb__Meet__BodyCase)from->kind; /* our numbers are the schema's */
    to->meet.ask = &to->ask; /* one pointer for all: the members of the body share their address */
    switch (from->kind) {
    case AT_MEET_PUNCH:
        atoll__pb__meet_punch__init(&to->punch);
        to->punch.number = from->number;
        to->punch.yours = from->yours;
        to->punch.ip = at_pb_bytes(from->endpoint.ip, from->endpoint.ip_bytes);
        to->punch.port = from->endpoint.port;
        to->punch.wait_ms = from->wait_ms;
        break;
    case AT_MEET_REFUSE:
        atoll__pb__meet_refuse__init(&to->refuse);
        to->refuse.number = from->number;
        to->refuse.yours = from->yours;
        to->refuse.reason = (char *)(uintptr_t)from->reason;
        break;
    case AT_MEET_SEEN:
        atoll__pb__meet_seen__init(&to->seen);
        to->seen.ip = at_pb_bytes(from->endpoint.ip, from->endpoint.ip_bytes);
        to->seen.port = from->endpoint.port;
        break;
    case AT_MEET_LOOK:
        atoll__pb__meet_look__init(&to->look);
        break;
    default:
        build_introduction(from, to);
        break;
    }
}

static bool read_port(uint32_t from, uint16_t *ret_port)
{
    *ret_port = (uint16_t)from;
    return from <= UINT16_MAX;
}

static bool read_endpoint(const ProtobufCBinaryData *ip, uint32_t port, struct at_endpoint *ret)
{
    if (ip->len != 4 && ip->len != 16) return false;
    memcpy(ret->ip, ip->data, ip->len);
    ret->ip_bytes = (uint8_t)ip->len;
    return read_port(port, &ret->port);
}

static bool read_introduction(const Atoll__Pb__Meet *from, struct at_meet *m)
{
    switch (m->kind) {
    case AT_MEET_ASK:
        m->number = from->ask->number;
        m->how = (enum at_meet_how)from->ask->how;
        return at_pb_fixed(&from->ask->target, m->node.b, sizeof m->node.b);
    case AT_MEET_INVITE:
        m->number = from->invite->number;
        m->how = (enum at_meet_how)from->invite->how;
        return at_pb_fixed(&from->invite->asker, m->node.b, sizeof m->node.b) &&
               at_pb_fixed(&from->invite->token, m->token.b, sizeof m->token.b);
    case AT_MEET_AGREE:
        m->number = from->agree->number;
        return true;
    default:
        m->number = from->go->number;
        return at_pb_fixed(&from->go->token, m->token.b, sizeof m->token.b);
    }
}

bool at_meet_read(const Atoll__Pb__Meet *from, struct at_meet *ret_meet)
{
    struct at_meet m;
    memset(&m, 0, sizeof m);
    m.kind = (enum at_meet_kind)from->body_case;
    bool ok = false;
    switch (m.kind) {
    case AT_MEET_NONE:
    case AT_MEET_KIND_COUNT:
        break;
    case AT_MEET_PUNCH:
        m.number = from->punch->number;
        m.yours = from->punch->yours != 0;
        m.wait_ms = from->punch->wait_ms;
        ok = read_endpoint(&from->punch->ip, from->punch->port, &m.endpoint);
        break;
    case AT_MEET_REFUSE:
        m.number = from->refuse->number;
        m.yours = from->refuse->yours != 0;
        ok = at_pb_text(from->refuse->reason, m.reason, AT_REASON_BYTES_MAX);
        break;
    case AT_MEET_SEEN:
        ok = read_endpoint(&from->seen->ip, from->seen->port, &m.endpoint);
        break;
    case AT_MEET_LOOK:
        ok = true;
        break;
    default:
        ok = read_introduction(from, &m);
        break;
    }
    if (ok) *ret_meet = m;
    return ok;
}

const char *at_meet_fault(const struct at_meet *m)
{
    size_t n;
    switch (m->kind) {
    case AT_MEET_ASK:
    case AT_MEET_INVITE:
        return m->how <= AT_MEET_HOW_NONE || m->how >= AT_MEET_HOW_COUNT ? "how" : NULL;
    case AT_MEET_PUNCH:
        if (m->wait_ms > AT_MEET_WAIT_MS_MAX) return "wait_ms";
        return at_endpoint_ok(&m->endpoint) ? NULL : "address";
    case AT_MEET_REFUSE:
        n = strnlen(m->reason, sizeof m->reason);
        return n <= AT_REASON_BYTES_MAX && at_printable(at_span(m->reason, n)) ? NULL : "reason";
    case AT_MEET_SEEN:
        return at_endpoint_ok(&m->endpoint) ? NULL : "address";
    case AT_MEET_GO:
    case AT_MEET_AGREE:
    case AT_MEET_LOOK:
        return NULL;
    case AT_MEET_NONE:
    case AT_MEET_KIND_COUNT:
        break;
    }
    return "kind of meeting";
}
