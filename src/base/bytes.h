/* bytes.h: spans, growable buffers with a maximum, little-endian access, hex, checked sizes.
 * Pure. A zeroed struct is a valid empty object for every function here. */
#ifndef ATOLL_BASE_BYTES_H
#define ATOLL_BASE_BYTES_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Borrowed bytes. */
struct at_span {
    const uint8_t *p;
    size_t n;
};

static inline struct at_span at_span(const void *p, size_t n)
{
    return (struct at_span){(const uint8_t *)p, n};
}
bool at_span_eq(struct at_span a, struct at_span b);

/* Owned bytes, growing up to bytes_max (0 means AT_BUF_MAX_DEFAULT). */
#define AT_BUF_MAX_DEFAULT ((size_t)1 << 30)
struct at_buf {
    uint8_t *p;
    size_t n, cap, bytes_max;
};
at_err at_buf_append(struct at_buf *buf, const void *p, size_t n); /* AT_E_TOO_BIG past the maximum, AT_E_NOMEM */
at_err at_buf_reserve(struct at_buf *buf, size_t extra,
                      uint8_t **ret_p);            /* room for `extra` more at *ret_p; n unchanged */
void at_buf_consume(struct at_buf *buf, size_t n); /* drops n bytes at the front */
void at_buf_clear(struct at_buf *buf);             /* n = 0, memory kept */
void at_buf_release(struct at_buf *buf);           /* frees; safe to repeat */
static inline struct at_span at_buf_span(const struct at_buf *buf)
{
    return at_span(buf->p, buf->n);
}

static inline void at_store_le32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (8 * i));
}
static inline void at_store_le64(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++) p[i] = (uint8_t)(v >> (8 * i));
}
__extension__ typedef unsigned __int128 at_u128; /* for products of two 64-bit numbers */

static inline uint32_t at_load_le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static inline uint64_t at_load_le64(const uint8_t *p)
{
    return (uint64_t)at_load_le32(p) | (uint64_t)at_load_le32(p + 4) << 32;
}

/* Lower-case hex. at_hex_encode writes 2n characters and a NUL. at_hex_decode takes exactly 2n lower- or upper-case
 * digits. */
void at_hex_encode(const uint8_t *p, size_t n, char *ret_text);
at_err at_hex_decode(const char *text, size_t text_n, uint8_t *ret_p, size_t n);

/* Checked size arithmetic: true on success. */
static inline bool at_mul_size(size_t a, size_t b, size_t *ret)
{
    return !__builtin_mul_overflow(a, b, ret);
}
static inline bool at_add_size(size_t a, size_t b, size_t *ret)
{
    return !__builtin_add_overflow(a, b, ret);
}

#endif
