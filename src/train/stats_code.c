#include "train/stats_code.h"

#include "tensor/emath.h"

#include <string.h>

#define LOG2E     0x1.71547652b82fep+0
#define STATS_MAX 1e30f
enum { Q_MAX = 1023, Q_ZERO = -1023, LEVEL_FIRST = -20, LEVEL_MIN = -149, LEVEL_MAX = 99 };

/* 2^(i / 8) */
static const double root[8] = {1.0,
                               0x1.172b83c7d517bp+0,
                               0x1.306fe0a31b715p+0,
                               0x1.4bfdad5362a27p+0,
                               0x1.6a09e667f3bcdp+0,
                               0x1.8ace5422aa0dbp+0,
                               0x1.ae89f995ad3adp+0,
                               0x1.d5818dcfba487p+0};

double at_stats_code_power(int q, int steps)
{
    int octave = q >= 0 ? q / steps : -((steps - 1 - q) / steps);
    int part = (q - octave * steps) * (8 / steps);
    if (octave < -1022) return 0;
    uint64_t bits = (uint64_t)(1023 + octave) << 52;
    double y;
    memcpy(&y, &bits, sizeof y);
    return y * root[part];
}

static int clamp(int x, int low, int high)
{
    return x < low ? low : x > high ? high : x;
}

/* round(steps * log2(x)), ties up; x > 0 finite. */
static int level_of(double x, int steps)
{
    double y = (double)steps * (at_log64(x) * LOG2E) + 0.5;
    int i = (int)y;
    return (double)i > y ? i - 1 : i;
}

static real cut(double x)
{
    return x > (double)STATS_MAX ? STATS_MAX : (real)x;
}

size_t at_stats_code_bytes_max(size_t n)
{
    return 20 * n + 16; /* a flag, 14 learned bits of at most 8 bits each, and 23 of the gamma code */
}

static void models_init(struct at_stats_reader *m, int steps)
{
    AT_ASSERT(steps == 1 || steps == 2 || steps == 4 || steps == 8);
    *m = (struct at_stats_reader){.zero = {{1, 1}}, .steps = (uint16_t)steps};
    m->level_before = (int16_t)(LEVEL_FIRST * steps);
    at_range_int_init(&m->ratio);
    at_range_int_init(&m->level);
}

static void put_one(struct at_range_writer *w, struct at_stats_reader *m, real x, real public)
{
    int steps = m->steps;
    if (public > 0) {
        int q = Q_ZERO;
        if (x > 0) q = clamp(level_of((double)x / (double)public, steps), Q_ZERO + 1, Q_MAX);
        at_range_put_int(w, &m->ratio, q);
        return;
    }
    at_range_put_learned_bit(w, &m->zero, x > 0);
    if (!(x > 0)) return;
    int q = clamp(level_of((double)x, steps), LEVEL_MIN * steps, LEVEL_MAX * steps);
    at_range_put_int(w, &m->level, q - m->level_before);
    m->level_before = (int16_t)q;
}

at_err at_stats_code_put(int steps, const real *stats, const real *stats_public, size_t n, struct at_buf *out)
{
    struct at_range_writer w;
    struct at_stats_reader m;
    models_init(&m, steps);
    at_range_begin(&w, out);
    for (size_t i = 0; i < n; i++) put_one(&w, &m, stats[i], stats_public[i]);
    return at_range_end(&w);
}

void at_stats_code_open(struct at_stats_reader *r, int steps, struct at_span bytes)
{
    models_init(r, steps);
    at_range_open(&r->range, bytes);
}

static real next_one(struct at_stats_reader *r, real public)
{
    int steps = r->steps;
    if (public > 0) {
        int q = at_range_get_int(&r->range, &r->ratio);
        return q <= Q_ZERO ? 0 : cut((double)public * at_stats_code_power(clamp(q, Q_ZERO + 1, Q_MAX), steps));
    }
    if (!at_range_learned_bit(&r->range, &r->zero)) return 0;
    int q = r->level_before + at_range_get_int(&r->range, &r->level);
    q = clamp(q, LEVEL_MIN * steps, LEVEL_MAX * steps);
    r->level_before = (int16_t)q;
    return cut(at_stats_code_power(q, steps));
}

void at_stats_code_next(struct at_stats_reader *r, const real *stats_public, size_t n, real *ret_stats)
{
    for (size_t i = 0; i < n; i++) ret_stats[i] = next_one(r, stats_public[i]);
}
