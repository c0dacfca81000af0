/* message_mesh.c: Ready, Presences, PeersGet, Peers, Head and Gone between bytes and structs. */
#include "wire/message_pb.h"

#include <string.h>

static void build_peers(const struct at_msg_peers *from, struct message_pb *pb)
{
    atoll__pb__peers__init(&pb->peers);
    for (uint32_t i = 0; i < from->count; i++) {
        const struct at_endpoints *e = &from->list[i];
        Atoll__Pb__Endpoints *to = pb->endpoints_at[i] = &pb->endpoints[i];
        uint8_t *bytes = pb->endpoint_bytes[i];
        for (uint32_t k = 0; k < e->count; k++) at_endpoint_pack(&e->list[k], bytes + k * AT_ENDPOINT_BYTES);
        atoll__pb__endpoints__init(to);
        to->node = at_pb_bytes(e->node.b, AT_KEY_BYTES);
        to->counter = e->counter;
        to->list = at_pb_bytes(bytes, (size_t)e->count * AT_ENDPOINT_BYTES);
        to->sig = at_pb_bytes(e->sig.b, AT_SIG_BYTES);
    }
    pb->peers.n_list = from->count;
    pb->peers.list = pb->endpoints_at;
}

static void build_word(const struct at_presence *from, Atoll__Pb__Ready *to)
{
    atoll__pb__ready__init(to);
    to->round = from->round;
    to->state_root = at_pb_hash(&from->state_root);
    to->member = at_pb_bytes(from->member.b, AT_KEY_BYTES);
    to->counter = from->counter;
    to->sig = at_pb_bytes(from->sig.b, AT_SIG_BYTES);
}

static void build_words(const struct at_msg_presences *from, struct message_pb *pb)
{
    atoll__pb__presences__init(&pb->presences);
    for (uint32_t i = 0; i < from->count; i++) build_word(&from->list[i], pb->word_at[i] = &pb->word[i]);
    pb->presences.n_list = from->count;
    pb->presences.list = pb->word_at;
}

void at_message_mesh_build(const struct at_message *msg, struct message_pb *pb)
{
    switch (msg->kind) {
    case AT_MSG_READY:
        build_word(&msg->ready, &pb->ready);
        break;
    case AT_MSG_PRESENCES:
        build_words(&msg->presences, pb);
        break;
    case AT_MSG_PEERS_GET:
        atoll__pb__peers_get__init(&pb->peers_get);
        pb->peers_get.after = at_pb_bytes(msg->peers_get.after.b, AT_KEY_BYTES);
        pb->peers_get.sums = at_pb_bytes(msg->peers_get.sums.p, msg->peers_get.sums.n);
        break;
    case AT_MSG_PEERS:
        build_peers(&msg->peers, pb);
        break;
    case AT_MSG_HEAD:
        atoll__pb__log_head__init(&pb->head);
        pb->head.log_size = msg->head.log_size;
        pb->head.hops = msg->head.hops;
        break;
    default:
        atoll__pb__gone__init(&pb->gone);
        pb->gone.members = at_pb_bytes(msg->gone.members, (size_t)msg->gone.count * AT_KEY_BYTES);
        break;
    }
}

static bool endpoints_ok(const struct at_endpoints *e)
{
    bool ok = e->counter > 0 && e->count >= 1 && e->count <= AT_ENDPOINTS_MAX;
    for (uint32_t i = 0; ok && i < e->count; i++) ok = at_endpoint_ok(&e->list[i]);
    return ok;
}

static bool sums_ok(struct at_span sums)
{
    size_t count = sums.n / 8;
    return sums.n % 8 == 0 && count <= AT_PEERS_SUMS_MAX && (count & (count - 1)) == 0;
}

const char *at_message_mesh_fault(const struct at_message *m)
{
    switch (m->kind) {
    case AT_MSG_PRESENCES:
        return m->presences.count >= 2 && m->presences.count <= AT_PRESENCES_MAX ? NULL : "list";
    case AT_MSG_PEERS_GET:
        return sums_ok(m->peers_get.sums) ? NULL : "sums";
    case AT_MSG_PEERS:
        if (m->peers.count > AT_PEERS_MAX) return "list";
        for (uint32_t i = 0; i < m->peers.count; i++)
            if (!endpoints_ok(&m->peers.list[i])) return "list";
        return NULL;
    case AT_MSG_HEAD:
        return m->head.hops <= AT_HOPS_NONE ? NULL : "hops";
    case AT_MSG_GONE:
        return m->gone.count >= 1 && m->gone.count <= AT_PEERS_MAX ? NULL : "members";
    default:
        return NULL;
    }
}

static bool read_endpoints(const Atoll__Pb__Endpoints *from, struct at_endpoints *to)
{
    size_t count = from->list.len / AT_ENDPOINT_BYTES;
    if (count > AT_ENDPOINTS_MAX || count * AT_ENDPOINT_BYTES != from->list.len) return false;
    to->counter = from->counter;
    to->count = (uint32_t)count;
    for (size_t k = 0; k < count; k++) to->list[k] = at_endpoint_unpack(from->list.data + k * AT_ENDPOINT_BYTES);
    return at_pb_fixed(&from->node, to->node.b, AT_KEY_BYTES) && at_pb_fixed(&from->sig, to->sig.b, AT_SIG_BYTES);
}

static bool read_peers(const Atoll__Pb__Peers *from, struct at_pb_arena *arena, struct at_msg_peers *to)
{
    if (from->n_list > AT_PEERS_MAX) return false;
    struct at_endpoints *list = at_pb_take(arena, from->n_list * sizeof *list);
    if (!list) return false;
    memset(list, 0, from->n_list * sizeof *list);
    for (size_t i = 0; i < from->n_list; i++)
        if (!read_endpoints(from->list[i], &list[i])) return false;
    to->list = list;
    to->count = (uint32_t)from->n_list;
    return true;
}

static bool read_gone(const Atoll__Pb__Gone *from, struct at_pb_arena *arena, struct at_msg_gone *to)
{
    size_t count = from->members.len / AT_KEY_BYTES;
    if (count > AT_PEERS_MAX || count * AT_KEY_BYTES != from->members.len) return false;
    struct at_node_id *members = at_pb_take(arena, count * sizeof *members);
    if (!members) return false;
    if (count) memcpy(members, from->members.data, count * sizeof *members);
    to->members = members;
    to->count = (uint32_t)count;
    return true;
}

static bool read_word(const Atoll__Pb__Ready *from, struct at_presence *to)
{
    to->round = from->round;
    to->counter = from->counter;
    return at_pb_fixed(&from->state_root, to->state_root.b, AT_HASH_BYTES) &&
           at_pb_fixed(&from->member, to->member.b, AT_KEY_BYTES) && at_pb_fixed(&from->sig, to->sig.b, AT_SIG_BYTES);
}

static bool read_words(const Atoll__Pb__Presences *from, struct at_pb_arena *arena, struct at_msg_presences *to)
{
    if (from->n_list > AT_PRESENCES_MAX) return false;
    struct at_presence *list = at_pb_take(arena, from->n_list * sizeof *list);
    if (!list) return false;
    for (size_t i = 0; i < from->n_list; i++)
        if (!read_word(from->list[i], &list[i])) return false;
    to->list = list;
    to->count = (uint32_t)from->n_list;
    return true;
}

bool at_message_mesh_read(const Atoll__Pb__Message *pb, struct at_pb_arena *arena, struct at_message *m)
{
    switch (m->kind) {
    case AT_MSG_READY:
        return read_word(pb->ready, &m->ready);
    case AT_MSG_PRESENCES:
        return read_words(pb->presences, arena, &m->presences);
    case AT_MSG_PEERS_GET:
        m->peers_get.sums = at_span(pb->peers_get->sums.data, pb->peers_get->sums.len);
        return at_pb_fixed(&pb->peers_get->after, m->peers_get.after.b, AT_KEY_BYTES);
    case AT_MSG_PEERS:
        return read_peers(pb->peers, arena, &m->peers);
    case AT_MSG_HEAD:
        m->head.log_size = pb->head->log_size;
        m->head.hops = pb->head->hops;
        return true;
    default:
        return read_gone(pb->gone, arena, &m->gone);
    }
}
