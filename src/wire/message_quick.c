/* message_quick.c: the kinds that come most often, from canonical bytes straight into our structs.
 *
 * It only ever says yes to what the way over the generated structs (message.c) takes, and reads it to the same: the
 * fields of the schema in their order (wire/canon.h), in the sizes that our structs have. To everything else it says
 * no, and then message.c reads the bytes again, judges them, and says what is wrong. So it can cost time, but cannot
 * refuse a message; and what it takes packs to the bytes that came (message_fuzz.c, message_test.c). */
#include "wire/canon.h"
#include "wire/message_pb.h"

#include <string.h>

static bool keep(struct at_pb_arena *arena, struct at_span *bytes)
{
    if (bytes->n == 0) return true;
    uint8_t *p = at_pb_take(arena, bytes->n);
    if (p == NULL) return false;
    memcpy(p, bytes->p, bytes->n);
    bytes->p = p;
    return true;
}

/* Ids or hashes, one behind the other. */
static bool keep_all(struct at_pb_arena *arena, struct at_span bytes, size_t each, size_t max, const uint8_t **ret,
                     uint32_t *ret_count)
{
    if (bytes.n % each != 0 || bytes.n / each > max || !keep(arena, &bytes)) return false;
    *ret = bytes.p;
    *ret_count = (uint32_t)(bytes.n / each);
    return true;
}

static bool read_signed(struct at_span bytes, struct at_signed_record *to)
{
    struct at_canon c = at_canon(bytes);
    struct at_span body = at_canon_bytes(&c, 1), author = at_canon_bytes(&c, 2), sig = at_canon_bytes(&c, 3);
    return at_canon_end(&c) && at_signed_record_from(body, author, sig, NULL, to) == AT_OK;
}

static bool read_checkpoint(struct at_span bytes, struct at_log_checkpoint *to)
{
    struct at_canon c = at_canon(bytes);
    to->size = at_canon_u64(&c, 1);
    at_canon_fixed(&c, 2, to->root.b, sizeof to->root.b);
    at_canon_fixed(&c, 3, to->steward.b, sizeof to->steward.b);
    at_canon_fixed(&c, 4, to->sig.b, sizeof to->sig.b);
    return at_canon_end(&c);
}

static bool read_log_part(struct at_canon *c, struct at_pb_arena *arena, struct at_msg_log_part *to)
{
    struct at_span item;
    to->from = at_canon_u64(c, 1);
    size_t n = at_canon_count(*c, 2);
    struct at_signed_record *records = n <= AT_LOG_PART_MAX ? at_pb_take(arena, n * sizeof *records) : NULL;
    if (records == NULL) return false;
    to->records = records;
    for (; at_canon_next(c, 2, &item); to->record_count++)
        if (!read_signed(item, &records[to->record_count])) return false;
    n = at_canon_count(*c, 3);
    struct at_log_checkpoint *checkpoints = n <= AT_LOG_PART_MAX ? at_pb_take(arena, n * sizeof *checkpoints) : NULL;
    if (checkpoints == NULL) return false;
    to->checkpoints = checkpoints;
    for (; at_canon_next(c, 3, &item); to->checkpoint_count++)
        if (!read_checkpoint(item, &checkpoints[to->checkpoint_count])) return false;
    to->live = at_canon_up_to(c, 4, 1) != 0;
    return true;
}

static bool read_endpoints(struct at_span bytes, struct at_endpoints *to)
{
    struct at_canon c = at_canon(bytes);
    memset(to, 0, sizeof *to);
    at_canon_fixed(&c, 1, to->node.b, sizeof to->node.b);
    to->counter = at_canon_u64(&c, 2);
    struct at_span list = at_canon_bytes(&c, 3);
    at_canon_fixed(&c, 4, to->sig.b, sizeof to->sig.b);
    size_t count = list.n / AT_ENDPOINT_BYTES;
    if (!at_canon_end(&c) || count > AT_ENDPOINTS_MAX || list.n % AT_ENDPOINT_BYTES != 0) return false;
    to->count = (uint32_t)count;
    for (size_t i = 0; i < count; i++) to->list[i] = at_endpoint_unpack(list.p + i * AT_ENDPOINT_BYTES);
    return true;
}

static bool read_peers(struct at_canon *c, struct at_pb_arena *arena, struct at_msg_peers *to)
{
    struct at_span item;
    size_t n = at_canon_count(*c, 1);
    struct at_endpoints *list = n <= AT_PEERS_MAX ? at_pb_take(arena, n * sizeof *list) : NULL;
    if (list == NULL) return false;
    to->list = list;
    for (; at_canon_next(c, 1, &item); to->count++)
        if (!read_endpoints(item, &list[to->count])) return false;
    return true;
}

static bool read_word(struct at_canon *c, struct at_presence *to)
{
    to->round = at_canon_u32(c, 1);
    at_canon_fixed(c, 2, to->state_root.b, sizeof to->state_root.b);
    at_canon_fixed(c, 3, to->member.b, sizeof to->member.b);
    to->counter = at_canon_u64(c, 4);
    at_canon_fixed(c, 5, to->sig.b, sizeof to->sig.b);
    return at_canon_end(c);
}

static bool read_words(struct at_canon *c, struct at_pb_arena *arena, struct at_msg_presences *to)
{
    struct at_span item;
    size_t n = at_canon_count(*c, 1);
    struct at_presence *list = n <= AT_PRESENCES_MAX ? at_pb_take(arena, n * sizeof *list) : NULL;
    if (list == NULL) return false;
    to->list = list;
    for (; at_canon_next(c, 1, &item); to->count++) {
        struct at_canon word = at_canon(item);
        if (!read_word(&word, &list[to->count])) return false;
    }
    return true;
}

static bool read_keys(struct at_canon *c, struct at_pb_arena *arena, const struct at_hash **ret, uint32_t *ret_count)
{
    const uint8_t *keys;
    if (!keep_all(arena, at_canon_bytes(c, 1), sizeof **ret, AT_BUNDLE_MAX, &keys, ret_count)) return false;
    *ret = (const struct at_hash *)keys; /* hashes are bytes */
    return true;
}

static bool read_bundle(struct at_canon *c, struct at_pb_arena *arena, struct at_msg_bundle *to)
{
    if (!read_keys(c, arena, &to->keys, &to->count)) return false;
    struct at_span *data = at_pb_take(arena, to->count * sizeof *data);
    if (data == NULL) return false;
    to->data = data;
    for (uint32_t i = 0; i < to->count; i++)
        if (!at_canon_next(c, 2, &data[i]) || !keep(arena, &data[i])) return false;
    return true;
}

static bool read_gone(struct at_canon *c, struct at_pb_arena *arena, struct at_msg_gone *to)
{
    const uint8_t *members;
    if (!keep_all(arena, at_canon_bytes(c, 1), AT_KEY_BYTES, AT_PEERS_MAX, &members, &to->count)) return false;
    to->members = (const struct at_node_id *)members; /* ids are bytes */
    return true;
}

static bool read_piece(struct at_canon *c, struct at_pb_arena *arena, struct at_msg_piece *to)
{
    to->kind = (enum at_blob_kind)at_canon_up_to(c, 1, AT_BLOB_KIND_COUNT - 1);
    at_canon_fixed(c, 2, to->key.b, sizeof to->key.b);
    to->offset = at_canon_u64(c, 3);
    to->total = at_canon_u64(c, 4);
    to->data = at_canon_bytes(c, 5);
    return keep(arena, &to->data);
}

static bool read_body(struct at_canon *c, struct at_pb_arena *arena, struct at_message *m)
{
    switch (m->kind) {
    case AT_MSG_WANT:
        m->want.kind = (enum at_blob_kind)at_canon_up_to(c, 1, AT_BLOB_KIND_COUNT - 1);
        at_canon_fixed(c, 2, m->want.key.b, sizeof m->want.key.b);
        m->want.offset = at_canon_u64(c, 3);
        m->want.bytes = at_canon_u32(c, 4);
        return true;
    case AT_MSG_PIECE:
        return read_piece(c, arena, &m->piece);
    case AT_MSG_LOG_PART:
        return read_log_part(c, arena, &m->log_part);
    case AT_MSG_PEERS:
        return read_peers(c, arena, &m->peers);
    case AT_MSG_READY:
        return read_word(c, &m->ready);
    case AT_MSG_PRESENCES:
        return read_words(c, arena, &m->presences);
    case AT_MSG_BUNDLE_WANT:
        return read_keys(c, arena, &m->bundle_want.keys, &m->bundle_want.count);
    case AT_MSG_BUNDLE:
        return read_bundle(c, arena, &m->bundle);
    case AT_MSG_GONE:
        return read_gone(c, arena, &m->gone);
    case AT_MSG_HELD:
        m->held.round = at_canon_u32(c, 1);
        m->held.bits = at_canon_bytes(c, 2);
        return keep(arena, &m->held.bits);
    case AT_MSG_SAVED:
        m->saved.round = at_canon_u32(c, 1);
        at_canon_fixed(c, 2, m->saved.state_root.b, sizeof m->saved.state_root.b);
        return true;
    case AT_MSG_HEAD:
        m->head.log_size = at_canon_u64(c, 1);
        m->head.hops = at_canon_u32(c, 2);
        return true;
    default:
        return false;
    }
}

bool at_message_quick_read(struct at_span bytes, struct at_pb_arena *arena, struct at_message *m)
{
    struct at_canon c = at_canon(bytes);
    struct at_span body;
    m->kind = at_message_peek(bytes);
    if (!at_canon_next(&c, (uint32_t)m->kind, &body) || !at_canon_end(&c)) return false;
    struct at_canon fields = at_canon(body);
    return read_body(&fields, arena, m) && at_canon_end(&fields);
}
