/* auto.h: `--outer auto`: what the next round is, from what one rank measured. A pure function: the rank calls it and
 * broadcasts the answer (struct at_round), which is also logged, so that timing never decides anything on its own. Exact:
 * yes, given the numbers.
 *
 * An exchange of a round takes, on the slowest link,   x = 2 RTT + (replicas - 1) * bytes(codec, k) / (bytes a second)
 * and is to take at most AT_AUTO_SHARE of the H inner steps that it ends; with overlap tau steps hide as much of it.
 * So each codec needs some H. Of the codecs, best first (plain, int4, sparse with k = 1024, 512 ... config.k), the first is
 * taken whose H is at most that codec's longest worthwhile H; else the last one, with the H that it needs or, if that is
 * beyond steps_max, steps_max: then the exchange takes more than its share. H is never less than steps_min.
 *
 * How long an H is worth while was measured (docs/adr/0007): four bits cost nothing, so int4 comes before sparse up to
 * H = 60; beyond that sparse updates at the usual H lose less. In a young run (the first dense_fraction of its steps) they
 * lose most, so int4 is kept there up to H = 240. Momentum is for sparse rounds only. */
#ifndef ATOLL_TRAIN_AUTO_H
#define ATOLL_TRAIN_AUTO_H

#include "train/outer.h"

#define AT_AUTO_SHARE       0.05
#define AT_AUTO_DENSE_STEPS 60
#define AT_AUTO_STEPS_MAX   240 /* H where config.steps_max is 0 */

/* What is known before a run. */
struct at_auto_run {
    int replicas;
    uint64_t weights, stats; /* of the whole model: params.count, at_stats_count */
};
/* What was measured, smoothed by the caller over the last rounds. 0: not known yet. */
struct at_auto_measured {
    double step_seconds;     /* an inner step of the slowest replica */
    double bytes_per_second; /* that its link takes */
    double rtt_seconds;
};

/* Bytes of one replica's update, about (within a few per cent). */
double at_auto_update_bytes(uint32_t codec, uint32_t k, const struct at_auto_run *run);
/* Seconds that a round's exchange takes by these measurements. */
double at_auto_exchange_seconds(uint32_t codec, uint32_t k, const struct at_auto_run *run,
                                const struct at_auto_measured *m);

/* The round after `previous` (NULL: the first; previous->steps: what was done). kind auto. steps 0: the run is over. */
struct at_round at_auto_round(const struct at_outer_config *c, const struct at_train_config *train,
                              const struct at_auto_run *run, const struct at_round *previous,
                              const struct at_auto_measured *m);

#endif
