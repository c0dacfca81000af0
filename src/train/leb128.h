/* leb128.h: inner header of the train layer: whole numbers in as few bytes as they need, seven bits a byte, low ones first
 * (LEB128, as in DWARF). Pure. Exact: yes. */
#ifndef ATOLL_TRAIN_LEB128_H
#define ATOLL_TRAIN_LEB128_H

#include "base/bytes.h"

#define AT_LEB128_BYTES_MAX 5

static inline size_t at_leb128_write(uint32_t x, uint8_t ret[AT_LEB128_BYTES_MAX])
{
    size_t n = 0;
    do ret[n++] = (uint8_t)((x & 127) | (x > 127 ? 128 : 0));
    while ((x >>= 7) != 0);
    return n;
}

/* Takes a number off the front of `bytes`. False: cut off, more than 32 bits, or in more bytes than it needs: a number has
 * one form, so that an update has one, too. */
static inline bool at_leb128_take(struct at_span *bytes, uint32_t *ret)
{
    uint64_t x = 0;
    for (size_t n = 0; n < AT_LEB128_BYTES_MAX && n < bytes->n; n++) {
        x |= (uint64_t)(bytes->p[n] & 127) << (7 * n);
        if (bytes->p[n] > 127) continue;
        if (x > UINT32_MAX || (n > 0 && bytes->p[n] == 0)) return false;
        *bytes = at_span(bytes->p + n + 1, bytes->n - n - 1);
        *ret = (uint32_t)x;
        return true;
    }
    return false;
}

#endif
