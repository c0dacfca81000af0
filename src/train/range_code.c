#include "train/range_code.h"

enum { GAMMA_BITS = 11 }; /* below the highest of 4095 - AT_RANGE_UNARY */

void at_range_begin(struct at_range_writer *w, struct at_buf *out)
{
    *w = (struct at_range_writer){.out = out, .begin = out->n, .range = UINT32_MAX};
}

void at_range_put_byte(struct at_range_writer *w, uint8_t byte)
{
    if (w->err == AT_OK) w->err = at_buf_append(w->out, &byte, 1);
}

/* One more at the last byte written; 255 carries on. low < 2^32 in all, so it never runs out of the stream. */
void at_range_carry(struct at_range_writer *w)
{
    if (w->err != AT_OK) return;
    size_t i = w->out->n;
    do AT_ASSERT(i > w->begin);
    while (++w->out->p[--i] == 0);
}

/* The number with the most zero bytes at its end within [low, low + range); they need not be written. */
at_err at_range_end(struct at_range_writer *w)
{
    for (int bytes = 0; bytes <= 4; bytes++) {
        uint64_t unit = (uint64_t)1 << (32 - 8 * bytes);
        uint64_t x = (w->low + unit - 1) / unit * unit;
        if (x >= (uint64_t)w->low + w->range) continue;
        if (x >> 32 != 0) at_range_carry(w);
        for (int i = 0; i < bytes; i++) at_range_put_byte(w, (uint8_t)(x >> (24 - 8 * i)));
        break;
    }
    while (w->err == AT_OK && w->out->n > w->begin && w->out->p[w->out->n - 1] == 0) w->out->n--;
    return w->err;
}

void at_range_int_init(struct at_range_int *m)
{
    *m = (struct at_range_int){.before = 0};
    struct at_range_model even = {{1, 1}};
    for (int i = 0; i < 3; i++) m->zero[i] = m->sign[i] = even;
    for (int i = 0; i < AT_RANGE_UNARY; i++) m->more[i] = even;
}

static struct at_range_model *zero_model(struct at_range_int *m)
{
    int size = m->before < 0 ? -m->before : m->before;
    return &m->zero[size < 2 ? size : 2];
}

static struct at_range_model *sign_model(struct at_range_int *m)
{
    return &m->sign[m->before == 0 ? 0 : m->before < 0 ? 1 : 2];
}

void at_range_put_int(struct at_range_writer *w, struct at_range_int *m, int x)
{
    AT_ASSERT(x >= -4095 && x <= 4095);
    int size = x < 0 ? -x : x, i = 1;
    at_range_put_learned_bit(w, zero_model(m), x != 0);
    if (x != 0) {
        at_range_put_learned_bit(w, sign_model(m), x < 0);
        for (; i <= AT_RANGE_UNARY && size > i; i++) at_range_put_learned_bit(w, &m->more[i - 1], true);
        if (i <= AT_RANGE_UNARY)
            at_range_put_learned_bit(w, &m->more[i - 1], false);
        else { /* gamma: as many zeros as the rest has bits below its highest, a one, those bits */
            int rest = size - AT_RANGE_UNARY, bits = 0;
            while (rest >> (bits + 1) != 0) bits++;
            for (int b = 0; b < bits; b++) at_range_put_bits(w, 0, 1);
            if (bits < GAMMA_BITS) at_range_put_bits(w, 1, 1);
            if (bits > 0) at_range_put_bits(w, (uint32_t)(rest - (1 << bits)), bits);
        }
    }
    m->before = (int16_t)x;
}

int at_range_get_int(struct at_range_reader *r, struct at_range_int *m)
{
    int x = 0;
    if (at_range_learned_bit(r, zero_model(m))) {
        bool negative = at_range_learned_bit(r, sign_model(m));
        x = 1;
        while (x <= AT_RANGE_UNARY && at_range_learned_bit(r, &m->more[x - 1])) x++;
        if (x > AT_RANGE_UNARY) {
            int bits = 0;
            while (bits < GAMMA_BITS && at_range_bits(r, 1) == 0) bits++;
            x = AT_RANGE_UNARY + (1 << bits) + (bits > 0 ? (int)at_range_bits(r, bits) : 0);
        }
        if (negative) x = -x;
    }
    m->before = (int16_t)x;
    return x;
}
