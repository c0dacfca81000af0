/* schedule.h: in which order one stage of a pipeline works through the microbatches of a step: "one forward, one
 * backward" (1F1B: Narayanan et al., PipeDream-Flush / Megatron-LM, 2021, section 2.2). Pure; nothing is stored.
 *
 * Stage p of P holds at most min(P - p, M) microbatches whose backward is still to come:
 *
 *   stage 0 of 3   F0 F1 F2 B0 F3 B1 F4 B2 B3 B4
 *   stage 1        F0 F1 B0 F2 B1 F3 B2 F4 B3 B4
 *   stage 2        F0 B0 F1 B1 F2 B2 F3 B3 F4 B4
 *
 * Every stage does forwards and backwards in ascending order, so gradients are added by (sequence, position) whatever P
 * and M are (contract rule 8). Where forward i needs stage p-1's forward i, and backward i stage p+1's backward i, no
 * order of arrivals can block it, even when a send ends only once it is received. */
#ifndef ATOLL_PARALLEL_SCHEDULE_H
#define ATOLL_PARALLEL_SCHEDULE_H

#include <stdbool.h>

struct at_turn {
    bool forward; /* otherwise backward */
    int microbatch;
};

/* 0 <= stage < stages, microbatches >= 1. */
int at_schedule_in_flight(int stage, int stages, int microbatches);
/* Turn number i, 0 <= i < 2 * microbatches. */
struct at_turn at_schedule_turn(int stage, int stages, int microbatches, int i);

/* Sequences [first, first + count) of the step's `batch` form microbatch i of `microbatches` <= batch; count >= 1. */
struct at_cut {
    long first, count;
};
struct at_cut at_schedule_cut(long batch, int microbatches, int i);
/* The largest count. */
long at_schedule_cut_max(long batch, int microbatches);

#endif
