/* message_bundle.c: BundleWant, Bundle and Held between bytes and structs. */
#include "wire/message_pb.h"

void at_message_bundle_build(const struct at_message *msg, struct message_pb *pb)
{
    if (msg->kind == AT_MSG_BUNDLE_WANT) {
        atoll__pb__bundle_want__init(&pb->bundle_want);
        pb->bundle_want.keys = at_pb_bytes(msg->bundle_want.keys, msg->bundle_want.count * sizeof(struct at_hash));
        return;
    }
    if (msg->kind == AT_MSG_HELD) {
        atoll__pb__held__init(&pb->held);
        pb->held.round = msg->held.round;
        pb->held.replicas = at_pb_bytes(msg->held.bits.p, msg->held.bits.n);
        return;
    }
    const struct at_msg_bundle *b = &msg->bundle;
    atoll__pb__bundle__init(&pb->bundle);
    pb->bundle.keys = at_pb_bytes(b->keys, b->count * sizeof(struct at_hash));
    for (uint32_t i = 0; i < b->count; i++) pb->data[i] = at_pb_bytes(b->data[i].p, b->data[i].n);
    pb->bundle.n_data = b->count;
    pb->bundle.data = pb->data;
}

const char *at_message_bundle_fault(const struct at_message *m)
{
    struct at_span bits = m->kind == AT_MSG_HELD ? m->held.bits : at_span(NULL, 0);
    if (m->kind == AT_MSG_HELD)
        return bits.n <= AT_MEMBERS_MAX / 8 && (bits.n == 0 || bits.p[bits.n - 1] != 0) ? NULL : "replicas";
    uint32_t count = m->kind == AT_MSG_BUNDLE ? m->bundle.count : m->bundle_want.count;
    size_t bytes = 0;
    if (count < 1 || count > AT_BUNDLE_MAX) return "keys";
    for (uint32_t i = 0; m->kind == AT_MSG_BUNDLE && i < count && bytes <= AT_BUNDLE_BYTES_MAX; i++)
        bytes += m->bundle.data[i].n;
    return bytes <= AT_BUNDLE_BYTES_MAX ? NULL : "data";
}

/* Hashes are bytes, so they may stay where they are. */
static bool read_keys(const ProtobufCBinaryData *from, const struct at_hash **ret_keys, uint32_t *ret_count)
{
    *ret_keys = (const struct at_hash *)from->data;
    *ret_count = (uint32_t)(from->len / sizeof(struct at_hash));
    return from->len % sizeof(struct at_hash) == 0 && from->len <= AT_BUNDLE_MAX * sizeof(struct at_hash);
}

bool at_message_bundle_read(const Atoll__Pb__Message *pb, struct at_pb_arena *arena, struct at_message *m)
{
    if (m->kind == AT_MSG_BUNDLE_WANT)
        return read_keys(&pb->bundle_want->keys, &m->bundle_want.keys, &m->bundle_want.count);
    if (m->kind == AT_MSG_HELD) {
        m->held.round = pb->held->round;
        m->held.bits = at_span(pb->held->replicas.data, pb->held->replicas.len);
        return true;
    }
    const Atoll__Pb__Bundle *from = pb->bundle;
    if (!read_keys(&from->keys, &m->bundle.keys, &m->bundle.count) || from->n_data != m->bundle.count) return false;
    struct at_span *data = at_pb_take(arena, from->n_data * sizeof *data);
    if (!data) return false;
    for (size_t i = 0; i < from->n_data; i++) data[i] = at_span(from->data[i].data, from->data[i].len);
    m->bundle.data = data;
    return true;
}
