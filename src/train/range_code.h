/* range_code.h: inner header of the train layer: a range coder over exact integers. Pure. Exact: yes, no floats.
 *
 * G. N. N. Martin, "Range encoding" (1979), carries resolved in the bytes already written (as in a long addition).
 * State of both sides: 0 <= low, a range of 2^24 .. 2^32 - 1. A symbol that has `size` of `total` (total <= 2^16) from
 * `start`:  r = range / total; low += r * start; range = r * size, or all that is left for the last symbol; then bytes
 * leave at the top while range < 2^24. Lost against the entropy: less than total * 2^-24 a symbol.
 *
 * The end takes the fewest bytes that still name a number within the range; the reader takes bytes beyond the end as
 * zero, so any bytes decode to some symbols: hostile ones do no harm beyond being wrong. */
#ifndef ATOLL_TRAIN_RANGE_CODE_H
#define ATOLL_TRAIN_RANGE_CODE_H

#include "base/bytes.h"

struct at_range_writer {
    struct at_buf *out;
    size_t begin; /* of this stream in `out` */
    uint32_t low, range;
    at_err_t err; /* sticky: AT_E_NOMEM, AT_E_TOO_BIG */
};
void at_range_begin(struct at_range_writer *w, struct at_buf *out);
at_err at_range_end(struct at_range_writer *w);
void at_range_put_byte(struct at_range_writer *w, uint8_t byte);
void at_range_carry(struct at_range_writer *w);

/* Inline, so that a constant total costs no division. */
static inline void at_range_put(struct at_range_writer *w, uint32_t start, uint32_t size, uint32_t total)
{
    AT_ASSERT(size != 0 && total <= 1u << 16 && start <= total - size);
    uint32_t each = w->range / total, low = w->low + each * start;
    if (low < w->low) at_range_carry(w);
    w->low = low;
    w->range = start + size == total ? w->range - each * start : each * size;
    while (w->range < 1u << 24) {
        at_range_put_byte(w, (uint8_t)(w->low >> 24));
        w->low <<= 8;
        w->range <<= 8;
    }
}

struct at_range_reader {
    const uint8_t *at, *end;
    uint32_t code, range; /* code: the stream's number less low */
};

static inline uint32_t at_range_byte(struct at_range_reader *r)
{
    return r->at < r->end ? *r->at++ : 0;
}

static inline void at_range_open(struct at_range_reader *r, struct at_span bytes)
{
    *r = (struct at_range_reader){.at = bytes.p, .end = bytes.n > 0 ? bytes.p + bytes.n : bytes.p, .range = UINT32_MAX};
    for (int i = 0; i < 4; i++) r->code = r->code << 8 | at_range_byte(r);
}

/* The position within `total` where the stream stands: the symbol with start <= position < start + size is next. */
static inline uint32_t at_range_peek(const struct at_range_reader *r, uint32_t total)
{
    uint32_t at = r->code / (r->range / total);
    return at < total ? at : total - 1;
}

static inline void at_range_skip(struct at_range_reader *r, uint32_t start, uint32_t size, uint32_t total)
{
    uint32_t each = r->range / total;
    r->code -= each * start;
    r->range = start + size == total ? r->range - each * start : each * size;
    while (r->range < 1u << 24) {
        r->code = r->code << 8 | at_range_byte(r);
        r->range <<= 8;
    }
}

/* A bit that is 1 with ones / total, 0 < ones < total. 0 lies first. */
static inline bool at_range_bit(struct at_range_reader *r, uint32_t ones, uint32_t total)
{
    bool one = r->code >= r->range / total * (total - ones); /* at_range_peek(r, total) >= total - ones */
    at_range_skip(r, one ? total - ones : 0, one ? ones : total - ones, total);
    return one;
}

static inline void at_range_put_bit(struct at_range_writer *w, bool one, uint32_t ones, uint32_t total)
{
    at_range_put(w, one ? total - ones : 0, one ? ones : total - ones, total);
}

/* `bits` <= 16 of a number, each as likely. */
static inline uint32_t at_range_bits(struct at_range_reader *r, int bits)
{
    uint32_t x = at_range_peek(r, 1u << bits);
    at_range_skip(r, x, 1, 1u << bits);
    return x;
}

static inline void at_range_put_bits(struct at_range_writer *w, uint32_t x, int bits)
{
    at_range_put(w, x, 1, 1u << bits);
}

/* ---- bits whose likelihood is learned ---- */

/* Zeros and ones seen, both >= 1; halved when they reach 255. */
struct at_range_model {
    uint8_t n[2];
};

static inline void at_range_learn(struct at_range_model *m, bool one)
{
    if (++m->n[one] == 255) {
        m->n[0] = (uint8_t)((m->n[0] + 1) / 2);
        m->n[1] = (uint8_t)((m->n[1] + 1) / 2);
    }
}

static inline bool at_range_learned_bit(struct at_range_reader *r, struct at_range_model *m)
{
    bool one = at_range_bit(r, m->n[1], (uint32_t)m->n[0] + m->n[1]);
    at_range_learn(m, one);
    return one;
}

static inline void at_range_put_learned_bit(struct at_range_writer *w, struct at_range_model *m, bool one)
{
    at_range_put_bit(w, one, m->n[1], (uint32_t)m->n[0] + m->n[1]);
    at_range_learn(m, one);
}

/* Small whole numbers, learned: zero or not (by how large the one before was), sign (by the sign before), size in unary;
 * from AT_RANGE_UNARY on an Elias gamma code. |x| <= 4095. */
#define AT_RANGE_UNARY 12
struct at_range_int {
    struct at_range_model zero[3], sign[3], more[AT_RANGE_UNARY];
    int16_t before;
};
void at_range_int_init(struct at_range_int *m);
void at_range_put_int(struct at_range_writer *w, struct at_range_int *m, int x);
int at_range_get_int(struct at_range_reader *r, struct at_range_int *m);

#endif
