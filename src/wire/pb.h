/* pb.h: the few helpers between generated protobuf-c structs and ours; private to wire/. Pure.
 *
 * protobuf-c allocates while it unpacks. Here it is handed a bump arena of a fixed size, so that foreign bytes cannot
 * ask for more memory than their kind of message is allowed, nothing has to be freed, and small decoders need
 * no heap. */
#ifndef ATOLL_WIRE_PB_H
#define ATOLL_WIRE_PB_H

#include "base/sign.h"

#include "atoll.pb-c.h"

struct at_pb_arena {
    uint8_t *block; /* borrowed, aligned to max_align_t */
    size_t cap, used;
};
void *at_pb_take(struct at_pb_arena *arena, size_t n); /* NULL when full */
ProtobufCAllocator at_pb_allocator(struct at_pb_arena *arena);

static inline ProtobufCBinaryData at_pb_bytes(const void *p, size_t n)
{
    return (ProtobufCBinaryData){.len = n, .data = (uint8_t *)(uintptr_t)p};
}
/* True and *ret_p filled when the field holds exactly n bytes. */
bool at_pb_fixed(const ProtobufCBinaryData *field, uint8_t *ret_p, size_t n);
/* True when `from` is at most max bytes of printable text; then copied to `ret` (max + 1 bytes) with its NUL. */
bool at_pb_text(const char *from, char *ret, size_t max);
/* Does the message pack to exactly `bytes`? Compares while it packs. Hand it a message built from our plain structs,
 * not the unpacked one: protobuf-c keeps unknown fields and would pack them again. */
bool at_pb_packs_to(const ProtobufCMessage *msg, struct at_span bytes);
/* Appends the packed message to `out`. */
at_err at_pb_pack(const ProtobufCMessage *msg, struct at_buf *out);
/* Appends a message whose only field is this one: as at_pb_pack would, but without a look, twice, at each other member of
 * its oneof. */
at_err at_pb_pack_field(uint32_t field, const ProtobufCMessage *value, struct at_buf *out);

#endif
