/* canon.h: reads the canonical bytes of a message, and only those: fields ascending, numbers as short as they are, no
 * default written out, nothing unknown. Private to wire/. Pure.
 *
 * For what comes often. Each field is asked for in the order of its number, so that what is read is what protobuf-c
 * would pack of it, byte for byte:
 *
 *     m.log_size = at_canon_u64(&c, 1);
 *     m.hops = at_canon_u32(&c, 2);
 *     return at_canon_end(&c);
 *
 * A field that is not there is zero or empty, as protobuf has it. Whatever is not canonical ends the reading: all that
 * is asked for from then on is zero or empty, and at_canon_end says false. */
#ifndef ATOLL_WIRE_CANON_H
#define ATOLL_WIRE_CANON_H

#include "base/bytes.h"

#include <string.h>

struct at_canon {
    const uint8_t *p, *end; /* what is left; borrowed */
    bool bad;
};

static inline struct at_canon at_canon(struct at_span bytes)
{
    return (struct at_canon){.p = bytes.p, .end = bytes.n ? bytes.p + bytes.n : bytes.p};
}

/* All of it was read, and was canonical. */
static inline bool at_canon_end(const struct at_canon *c)
{
    return !c->bad && c->p == c->end;
}

static inline void at_canon_fail(struct at_canon *c)
{
    c->bad = true;
    c->p = c->end;
}

/* Seven bits a byte, the lowest first; the last byte is not zero unless it is the only one. */
static inline uint64_t at_canon_number(struct at_canon *c)
{
    uint64_t v = 0;
    for (unsigned shift = 0; c->p < c->end && shift < 64; shift += 7) {
        uint8_t b = *c->p++;
        if (shift == 63 && b > 1) break; /* more than 64 bits */
        v |= (uint64_t)(b & 0x7f) << shift;
        if (b & 0x80) continue;
        if (b == 0 && shift > 0) break;
        return v;
    }
    at_canon_fail(c);
    return 0;
}

/* Takes the tag of this field, if it comes next. field: 1 to 2047; wire: 0 a number, 2 bytes. */
static inline bool at_canon_tag(struct at_canon *c, uint32_t field, uint32_t wire)
{
    uint32_t tag = field << 3 | wire;
    size_t n = tag < 0x80 ? 1 : 2;
    if ((size_t)(c->end - c->p) < n) return false;
    if (n == 1 ? c->p[0] != tag : c->p[0] != (0x80 | (tag & 0x7f)) || c->p[1] != tag >> 7) return false;
    c->p += n;
    return true;
}

static inline uint64_t at_canon_u64(struct at_canon *c, uint32_t field)
{
    if (!at_canon_tag(c, field, 0)) return 0;
    uint64_t v = at_canon_number(c);
    if (v == 0) at_canon_fail(c);
    return v;
}

/* Also for a bool, of which max is 1. */
static inline uint64_t at_canon_up_to(struct at_canon *c, uint32_t field, uint64_t max)
{
    uint64_t v = at_canon_u64(c, field);
    if (v <= max) return v;
    at_canon_fail(c);
    return 0;
}

static inline uint32_t at_canon_u32(struct at_canon *c, uint32_t field)
{
    return (uint32_t)at_canon_up_to(c, field, UINT32_MAX);
}

/* The next of a repeated field of bytes or messages, or a message of a oneof: these may be empty. False: no more. */
static inline bool at_canon_next(struct at_canon *c, uint32_t field, struct at_span *ret)
{
    if (!at_canon_tag(c, field, 2)) return false;
    uint64_t n = at_canon_number(c);
    if (n > (size_t)(c->end - c->p)) at_canon_fail(c);
    if (c->bad) return false;
    *ret = at_span(c->p, (size_t)n);
    c->p += n;
    return true;
}

/* How many of them come next. */
static inline size_t at_canon_count(struct at_canon c, uint32_t field)
{
    struct at_span item;
    size_t n = 0;
    while (at_canon_next(&c, field, &item)) n++;
    return n;
}

/* Borrowed from what is read. */
static inline struct at_span at_canon_bytes(struct at_canon *c, uint32_t field)
{
    struct at_span bytes;
    if (!at_canon_next(c, field, &bytes)) return at_span(NULL, 0);
    if (bytes.n == 0) at_canon_fail(c);
    return bytes;
}

/* Exactly n bytes, n > 0. */
static inline void at_canon_fixed(struct at_canon *c, uint32_t field, void *ret, size_t n)
{
    struct at_span bytes = at_canon_bytes(c, field);
    if (bytes.n == n)
        memcpy(ret, bytes.p, n);
    else
        at_canon_fail(c);
}

#endif
