#include "wire/printable.h"

/* One code point off the front; its length, or 0 when malformed (overlong, surrogate, too large, cut). */
static size_t utf8_next(struct at_span text, uint32_t *ret_code)
{
    uint8_t b = text.p[0];
    size_t n = b < 0x80 ? 1 : (b & 0xe0) == 0xc0 ? 2 : (b & 0xf0) == 0xe0 ? 3 : (b & 0xf8) == 0xf0 ? 4 : 0;
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (n == 0 || n > text.n) return 0;
    uint32_t code = n == 1 ? b : b & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((text.p[i] & 0xc0) != 0x80) return 0;
        code = code << 6 | (text.p[i] & 0x3f);
    }
    if (code < least[n] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) return 0;
    *ret_code = code;
    return n;
}

static bool fit_for_terminal(uint32_t code)
{
    if (code < 0x20 || (code >= 0x7f && code <= 0x9f)) return false;      /* C0, DEL, C1 */
    if (code == 0x200e || code == 0x200f || code == 0x061c) return false; /* direction marks */
    if (code >= 0x2028 && code <= 0x202e) return false;                   /* separators, overrides */
    if (code >= 0x2066 && code <= 0x2069) return false;                   /* isolates */
    return code != 0xfeff && code < 0xe0000;                              /* byte order mark; tags, private planes */
}

bool at_printable(struct at_span text)
{
    while (text.n != 0) {
        uint32_t code;
        size_t n = utf8_next(text, &code);
        if (n == 0 || !fit_for_terminal(code)) return false;
        text = at_span(text.p + n, text.n - n);
    }
    return true;
}
