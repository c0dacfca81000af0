/* stats_code.h: inner header of the train layer: a replica's second-moment statistics as ratios to the public ones, in
 * few bits: what lossy codecs use. Pure. Exact: yes, both ways.
 *
 * `steps` per octave. With a public value p > 0 a statistic x is the whole number q = round(steps * log2(x / p)) (log2
 * by at_log64, ties up), cut to -1022 .. 1023, and comes back as p * 2^(q / steps); -1023 stands for +0. Without (p = 0:
 * round 0, rows that no token has used yet) a bit says whether x is zero, and if not q = round(steps * log2(x)) is coded
 * as its difference from the last such q of the block (at first that of 2^-20). All q go through a range coder with
 * learned whole numbers (range_code.h). Products are binary64, rounded once, and cut to at most 1e30: whatever bytes
 * come in, statistics are finite and >= 0. */
#ifndef ATOLL_TRAIN_STATS_CODE_H
#define ATOLL_TRAIN_STATS_CODE_H

#include "tensor/real.h"
#include "train/range_code.h"

struct at_stats_reader {
    struct at_range_reader range;
    struct at_range_int ratio, level;
    struct at_range_model zero;
    int16_t level_before;
    uint16_t steps;
};

/* 2^(q / steps), from a table of 2^(i/8) in binary64 and the exponent; +0 below 2^-1022. |q / steps| <= 1023. */
double at_stats_code_power(int q, int steps);

/* Bytes at most, for n statistics. */
size_t at_stats_code_bytes_max(size_t n);
/* steps: 1, 2, 4 or 8. */
at_err at_stats_code_put(int steps, const real *stats, const real *stats_public, size_t n, struct at_buf *out);
void at_stats_code_open(struct at_stats_reader *r, int steps, struct at_span bytes);
void at_stats_code_next(struct at_stats_reader *r, const real *stats_public, size_t n, real *ret_stats);

#endif
