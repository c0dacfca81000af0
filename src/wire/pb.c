#include "wire/pb.h"
#include "wire/printable.h"

#include <string.h>

void *at_pb_take(struct at_pb_arena *arena, size_t n)
{
    const size_t align = _Alignof(max_align_t);
    if (n > arena->cap) return NULL;
    size_t rounded = (n + align - 1) / align * align;
    if (rounded > arena->cap - arena->used) return NULL;
    void *p = arena->block + arena->used;
    arena->used += rounded;
    return p;
}

static void *arena_alloc(void *data, size_t n)
{
    return at_pb_take(data, n);
}

static void arena_free(void *data, void *p)
{
    (void)data;
    (void)p; /* everything goes at once, with the block */
}

ProtobufCAllocator at_pb_allocator(struct at_pb_arena *arena)
{
    return (ProtobufCAllocator){.alloc = arena_alloc, .free = arena_free, .allocator_data = arena};
}

bool at_pb_fixed(const ProtobufCBinaryData *field, uint8_t *ret_p, size_t n)
{
    if (field->len != n) return false;
    memcpy(ret_p, field->data, n);
    return true;
}

bool at_pb_text(const char *from, char *ret, size_t max)
{
    size_t n = strlen(from);
    if (n > max || !at_printable(at_span(from, n))) return false;
    memcpy(ret, from, n + 1);
    return true;
}

/* A protobuf-c sink that compares instead of storing. */
struct compare_sink {
    ProtobufCBuffer base;
    struct at_span rest;
    bool same;
};

static void compare_append(ProtobufCBuffer *base, size_t n, const uint8_t *p)
{
    struct compare_sink *sink = (struct compare_sink *)base;
    if (!sink->same || n > sink->rest.n || (n != 0 && memcmp(p, sink->rest.p, n) != 0)) {
        sink->same = false;
        return;
    }
    if (n != 0) sink->rest = at_span(sink->rest.p + n, sink->rest.n - n);
}

bool at_pb_packs_to(const ProtobufCMessage *msg, struct at_span bytes)
{
    struct compare_sink sink = {.base = {.append = compare_append}, .rest = bytes, .same = true};
    protobuf_c_message_pack_to_buffer(msg, &sink.base);
    return sink.same && sink.rest.n == 0;
}

static size_t put_number(uint64_t v, uint8_t *to)
{
    size_t n = 0;
    for (; v >= 0x80; v >>= 7) to[n++] = (uint8_t)(v | 0x80);
    to[n++] = (uint8_t)v;
    return n;
}

static at_err_t pack(struct at_span head, const ProtobufCMessage *msg, size_t n, struct at_buf *out)
{
    uint8_t *to;
    at_err_t err = at_buf_reserve(out, head.n + n, &to);
    if (err) return err;
    if (head.n != 0) memcpy(to, head.p, head.n);
    size_t wrote = protobuf_c_message_pack(msg, to + head.n);
    AT_ASSERT(wrote == n);
    out->n += head.n + n;
    return AT_OK;
}

at_err at_pb_pack(const ProtobufCMessage *msg, struct at_buf *out)
{
    return pack(at_span(NULL, 0), msg, protobuf_c_message_get_packed_size(msg), out);
}

at_err at_pb_pack_field(uint32_t field, const ProtobufCMessage *value, struct at_buf *out)
{
    uint8_t head[5 + 10];
    size_t bytes = protobuf_c_message_get_packed_size(value);
    size_t n = put_number((uint64_t)field << 3 | 2, head); /* 2: bytes, and how many */
    n += put_number(bytes, head + n);
    return pack(at_span(head, n), value, bytes, out);
}
