#include "wire/reason.h"
#include "wire/printable.h"

#include <string.h>

void at_reason_set(char ret_reason[AT_REASON_BYTES_MAX + 1], const char *text)
{
    size_t n = strnlen(text, AT_REASON_BYTES_MAX);
    /* A cut through a multi-byte character leaves a malformed tail: step back over it. */
    while (n != 0 && text[n] != '\0' && ((unsigned char)text[n] & 0xc0) == 0x80) n--;
    bool fit = at_printable(at_span(text, n));
    for (size_t i = 0; i < n; i++) ret_reason[i] = fit || (text[i] >= ' ' && text[i] <= '~') ? text[i] : '?';
    ret_reason[n] = '\0';
}
