#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>

bool at_span_eq(struct at_span a, struct at_span b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

at_err at_buf_reserve(struct at_buf *buf, size_t extra, uint8_t **ret_p)
{
    size_t max = buf->bytes_max != 0 ? buf->bytes_max : AT_BUF_MAX_DEFAULT;
    size_t need;
    if (!at_add_size(buf->n, extra, &need) || need > max) return AT_E_TOO_BIG;
    if (need > buf->cap || buf->p == NULL) {
        size_t cap = buf->cap < 64 ? 64 : buf->cap;
        while (cap < need) cap = cap > max / 2 ? max : cap * 2;
        uint8_t *p = realloc(buf->p, cap);
        if (p == NULL) return AT_E_NOMEM;
        buf->p = p;
        buf->cap = cap;
    }
    *ret_p = buf->p + buf->n;
    return AT_OK;
}

at_err at_buf_append(struct at_buf *buf, const void *p, size_t n)
{
    uint8_t *to;
    at_err_t err = at_buf_reserve(buf, n, &to);
    if (err) return err;
    if (n != 0) memcpy(to, p, n);
    buf->n += n;
    return AT_OK;
}

void at_buf_consume(struct at_buf *buf, size_t n)
{
    AT_ASSERT(n <= buf->n);
    buf->n -= n;
    if (buf->n != 0 && n != 0) memmove(buf->p, buf->p + n, buf->n);
}

void at_buf_clear(struct at_buf *buf)
{
    buf->n = 0;
}

void at_buf_release(struct at_buf *buf)
{
    free(buf->p);
    buf->p = NULL;
    buf->n = buf->cap = 0;
}

void at_hex_encode(const uint8_t *p, size_t n, char *ret_text)
{
    static const char digit[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        ret_text[2 * i] = digit[p[i] >> 4];
        ret_text[2 * i + 1] = digit[p[i] & 15];
    }
    ret_text[2 * n] = '\0';
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

at_err at_hex_decode(const char *text, size_t text_n, uint8_t *ret_p, size_t n)
{
    if (text_n != 2 * n) return AT_E_DATA;
    for (size_t i = 0; i < 2 * n; i++)
        if (hex_digit(text[i]) < 0) return AT_E_DATA;
    for (size_t i = 0; i < n; i++) ret_p[i] = (uint8_t)(hex_digit(text[2 * i]) << 4 | hex_digit(text[2 * i + 1]));
    return AT_OK;
}
