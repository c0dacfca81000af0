/* Properties: what is accepted encodes to exactly the bytes that came in; every limit of the header holds; the quick way
 * takes the kinds that are its own, and none but what the way over the generated structs packs to the same. */
#include "wire/message_pb.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool has_quick_way(enum at_message_kind kind)
{
    switch (kind) {
    case AT_MSG_WANT:
    case AT_MSG_PIECE:
    case AT_MSG_LOG_PART:
    case AT_MSG_PEERS:
    case AT_MSG_READY:
    case AT_MSG_PRESENCES:
    case AT_MSG_BUNDLE_WANT:
    case AT_MSG_BUNDLE:
    case AT_MSG_GONE:
    case AT_MSG_HELD:
    case AT_MSG_SAVED:
    case AT_MSG_HEAD:
        return true;
    default:
        return false;
    }
}

/* With its limits or without. */
static void quick_way(struct at_span bytes, const struct at_message *taken)
{
    static _Alignas(max_align_t) uint8_t block[1 << 20];
    static struct message_pb pb;
    struct at_pb_arena arena = {.block = block, .cap = sizeof block};
    struct at_message m;
    memset(&m, 0, sizeof m);
    bool quick = at_message_quick_read(bytes, &arena, &m);
    if (taken) AT_ASSERT(quick == has_quick_way(taken->kind));
    if (!quick) return;
    at_message_build(&m, &pb);
    AT_ASSERT(at_pb_packs_to(&pb.message.base, bytes));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct at_message_mem mem; /* reused, as a node does; the memory of the process's one target */
    struct at_message m;
    struct at_diag diag = {.err = AT_OK};
    if (at_message_decode(at_span(data, size), &mem, &diag, &m) != AT_OK) {
        AT_ASSERT(diag.text[0] != '\0');
        quick_way(at_span(data, size), NULL);
        return 0;
    }
    quick_way(at_span(data, size), &m);
    if (m.kind == AT_MSG_PIECE) AT_ASSERT(m.piece.data.n <= AT_PIECE_BYTES_MAX);
    if (m.kind == AT_MSG_PIECE && m.piece.kind == AT_BLOB_TILE)
        AT_ASSERT(m.piece.offset < m.piece.total && m.piece.total <= AT_TILES_MAX &&
                  m.piece.data.n <= AT_TILE_DATA_MAX);
    if (m.kind == AT_MSG_TILES_HAVE) AT_ASSERT(m.tiles_have.bits.n <= AT_TILES_MAX / 8);
    if (m.kind == AT_MSG_LOG_PART) AT_ASSERT(m.log_part.record_count <= AT_LOG_PART_MAX);
    if (m.kind == AT_MSG_HELD) AT_ASSERT(m.held.bits.n <= AT_MEMBERS_MAX / 8);
    if (m.kind == AT_MSG_PRESENCES) AT_ASSERT(m.presences.count >= 2 && m.presences.count <= AT_PRESENCES_MAX);
    if (m.kind == AT_MSG_BUNDLE_WANT) AT_ASSERT(m.bundle_want.count >= 1 && m.bundle_want.count <= AT_BUNDLE_MAX);
    size_t bundle = 0;
    for (uint32_t i = 0; m.kind == AT_MSG_BUNDLE && i < m.bundle.count; i++) bundle += m.bundle.data[i].n;
    AT_ASSERT(bundle <= AT_BUNDLE_BYTES_MAX);
    if (m.kind == AT_MSG_BYE) AT_ASSERT(strlen(m.bye.reason) <= AT_REASON_BYTES_MAX);
    struct at_buf again = {0};
    AT_ASSERT(at_message_encode(&m, &again) == AT_OK);
    AT_ASSERT(at_span_eq(at_buf_span(&again), at_span(data, size)));
    at_buf_release(&again);
    return 0;
}
