#include "wire/block.h"
#include "wire/vote_pb.h"

#include <string.h>

#define BLOCK_VERSION 1u

struct block_pb {
    Atoll__Pb__Block block;
    Atoll__Pb__Signed record[AT_BLOCK_RECORDS_MAX], *record_at[AT_BLOCK_RECORDS_MAX];
};

static void build(const struct at_block *b, struct block_pb *pb)
{
    atoll__pb__block__init(&pb->block);
    pb->block.version = BLOCK_VERSION;
    pb->block.run = at_pb_bytes(b->run.b, sizeof b->run.b);
    pb->block.term = b->term;
    pb->block.view = b->view;
    pb->block.parent_view = b->parent_view;
    pb->block.parent = at_pb_bytes(b->parent.b, sizeof b->parent.b);
    pb->block.time_ms = b->time_ms;
    pb->block.reveal = at_pb_bytes(b->reveal.b, sizeof b->reveal.b);
    for (uint32_t i = 0; i < b->record_count; i++) {
        at_pb_signed_build(&b->records[i], &pb->record[i]);
        pb->record_at[i] = &pb->record[i];
    }
    pb->block.n_records = b->record_count;
    pb->block.records = pb->record_at;
}

static bool views_ok(const struct at_block *b)
{
    return b->view <= AT_VIEW_MAX && b->parent_view < b->view;
}

size_t at_block_encode(const struct at_block *block, uint8_t *ret_bytes)
{
    AT_ASSERT(views_ok(block) && block->record_count <= AT_BLOCK_RECORDS_MAX);
    struct block_pb pb;
    build(block, &pb);
    size_t n = protobuf_c_message_get_packed_size(&pb.block.base);
    AT_ASSERT(n <= AT_BLOCK_BYTES_MAX);
    return protobuf_c_message_pack(&pb.block.base, ret_bytes);
}

at_err at_block_decode(struct at_span bytes, struct at_diag *diag, struct at_block_room *room)
{
    if (bytes.n > AT_BLOCK_BYTES_MAX)
        return at_fail(diag, AT_E_DATA, "block", "block: larger than %zu bytes", AT_BLOCK_BYTES_MAX);
    struct at_pb_arena arena = {.block = room->arena, .cap = sizeof room->arena};
    ProtobufCAllocator allocator = at_pb_allocator(&arena);
    const Atoll__Pb__Block *pb = atoll__pb__block__unpack(&allocator, bytes.n, bytes.p);
    if (pb == NULL) return at_fail(diag, AT_E_DATA, "block", "block: malformed, or more in it than a block holds");
    struct at_block *b = &room->block;
    b->term = pb->term;
    b->view = pb->view;
    b->parent_view = pb->parent_view;
    b->time_ms = pb->time_ms;
    b->record_count = 0;
    if (pb->version != BLOCK_VERSION)
        return at_fail(diag, AT_E_DATA, "block", "block: version %u is not known here", pb->version);
    if (!at_pb_fixed(&pb->run, b->run.b, sizeof b->run.b) ||
        !at_pb_fixed(&pb->parent, b->parent.b, sizeof b->parent.b) ||
        !at_pb_fixed(&pb->reveal, b->reveal.b, sizeof b->reveal.b))
        return at_fail(diag, AT_E_DATA, "block", "block: run, parent or reveal is not a hash");
    if (!views_ok(b)) return at_fail(diag, AT_E_DATA, "block.view", "block: view and parent's view are out of range");
    if (pb->n_records > AT_BLOCK_RECORDS_MAX)
        return at_fail(diag, AT_E_DATA, "block.records", "block: more than %d records", AT_BLOCK_RECORDS_MAX);
    for (size_t i = 0; i < pb->n_records; i++)
        if (!at_pb_signed_read(pb->records[i], &b->records[i]))
            return at_fail(diag, AT_E_DATA, "block.records", "block: record %zu is out of shape", i);
    b->record_count = (uint32_t)pb->n_records;
    struct block_pb again;
    build(b, &again);
    if (!at_pb_packs_to(&again.block.base, bytes))
        return at_fail(diag, AT_E_DATA, "block", "block: not in canonical form");
    return AT_OK;
}
