/* auto.h: `--outer auto`: what the next round is, from what one rank measured. A pure function: the rank calls it and
 * broadcasts the answer (struct at_round), which is also logged, so that timing never decides anything on its own. Exact:
 * yes, given the numbers.
 *
 * An exchange of a round takes, on the slowest link,   x = 2 RTT + (replicas - 1) * bytes(codec, k) / (bytes a second)
 * and is to take at most AT_AUTO_SHARE of the H inner steps that it ends; with overlap tau steps hide as much of it. So
 * each codec needs some H. Why these are the choices was measured (docs/adr/0007):
 *
 * Young (at_auto_young_steps): replicas drift apart fast, and only short dense rounds keep them together. Plain, if it
 * bears the shortest H (config.steps_young, 2); else int4, with the H that it needs, up to AT_AUTO_YOUNG_STEPS_MAX.
 * Later, or where int4 needs more than that: the usual H (the train config's steps), which then is better than a shorter
 * one, by the first codec that needs no more: plain, int4, sparse with k = 1024, 512 ... config.k. If none does, sparse
 * with config.k and the H that it needs, at most config.steps_max: only beyond that an exchange takes more than its share.
 *
 * Momentum: dense rounds config.carry^H, sparse ones config.momentum. One replica exchanges nothing: plain, the usual H. */
#ifndef ATOLL_TRAIN_AUTO_H
#define ATOLL_TRAIN_AUTO_H

#include "train/outer.h"

#define AT_AUTO_SHARE           0.05
#define AT_AUTO_YOUNG_STEPS_MAX 120 /* H of int4 in a young run */
#define AT_AUTO_STEPS_MAX       240 /* H where config.steps_max is 0 */

/* What is known before a run. */
struct at_auto_run {
    int replicas;
    uint64_t weights, stats; /* of the whole model: params.count, at_stats_count */
};
/* What was measured. 0: not known yet. */
struct at_auto_measured {
    double step_seconds;     /* an inner step of the replica that measures, without waiting */
    double bytes_per_second; /* that its link takes */
    double rtt_seconds;
};
/* `steps` inner steps took so many seconds: the mean of about the last eight. */
void at_auto_note_steps(struct at_auto_measured *m, uint32_t steps, double seconds);

/* Bytes of one replica's update, about (within a few per cent). */
double at_auto_update_bytes(uint32_t codec, uint32_t k, const struct at_auto_run *run);
/* Seconds that a round's exchange takes by these measurements. */
double at_auto_exchange_seconds(uint32_t codec, uint32_t k, const struct at_auto_run *run,
                                const struct at_auto_measured *m);
/* Inner steps for which a run is young: config.dense_fraction of them and at least config.dense_steps, at most all. */
uint64_t at_auto_young_steps(const struct at_outer_config *c, const struct at_train_config *train);

/* The round after `previous` (NULL: the first; previous->steps: what was done). kind auto. steps 0: the run is over. */
struct at_round at_auto_round(const struct at_outer_config *c, const struct at_train_config *train,
                              const struct at_auto_run *run, const struct at_round *previous,
                              const struct at_auto_measured *m);

#endif
