/* plan_cost.h: what a piece of a model costs on a measured machine: operations, bytes, messages, seconds. Pure, and the
 * same everywhere: only + - * / and comparisons of binary64. Plans depend on it, bits never do.
 *
 * FLOPs are those of training one token, forward and backward, as at_model_flops_per_token counts them (they add up to
 * it), plus two additions per element for the embedding's look-up and gradient.
 *
 * Seconds come from *work*: FLOPs plus what else takes time, in FLOPs of equal duration (the AT_COST_ constants):
 *   rows       norms, residuals, rotary and the like: per token and layer in proportion to d; every tensor rank does them
 *   optimizer  per parameter and step: AdamW, the gradient's norm, clearing it
 *   packing    per parameter and microbatch: weights are brought into tiles, gradients into the accumulator
 * A node's measured figure is FLOPs of whole training steps of the reference shape (preset 10m, 8 sequences), whose
 * work is known, so it gives work per second.
 *
 * All-reduce of n bytes over tp ranks: log2(tp) levels of RTT/2 + n / bandwidth, of which the transfer hides behind the
 * product that makes the next piece, all but the last of AT_COST_PIECES pieces, as long as the product lasts.
 * A message costs its two ranks AT_COST_MESSAGE_S of their time, and each of its bytes AT_COST_BYTE_S: nothing hides that
 * where a rank has as many threads as processors. The constants were fitted to the CPU time of ranks on one machine
 * (docs/adr/0010), not to single cases. */
#ifndef ATOLL_PARALLEL_PLAN_COST_H
#define ATOLL_PARALLEL_PLAN_COST_H

#include "model/config.h"

#include <stdbool.h>
#include <stddef.h>

#define AT_COST_ROWS      100.0 /* work per token, layer and element of d, both directions */
#define AT_COST_OPTIMIZER 120.0 /* work per parameter and step */
#define AT_COST_PACKING   60.0  /* work per parameter and microbatch */
#define AT_COST_PIECES    4
#define AT_COST_MESSAGE_S 20e-6
#define AT_COST_BYTE_S    1.2e-9               /* of a rank's time per byte that it sends or receives: TLS and copies */
#define AT_COST_PROCESS   ((double)(24 << 20)) /* bytes: program, threads' scratch, data */

/* One layer; what the first stage (embedding of an untied model) and the last stage (head; a tied model's embedding)
 * have besides their layers. */
double at_cost_layer_flops(const struct at_model_config *c);
double at_cost_first_flops(const struct at_model_config *c);
double at_cost_last_flops(const struct at_model_config *c);

/* What the outer step asks of memory and links (train/outer.h, codecs). */
struct at_cost_exchange {
    double bytes_per_param; /* of an update */
    double
        memory_per_param;  /* bytes: weights, public weights, gradient, m, v: 20; error feedback and momentum 4 each */
    double blob_per_param; /* bytes of room for one replica's update; a rank keeps one for each replica */
    bool fragments;        /* updates come in fragments: there is room for two of them only (exchange.h) */
    uint32_t steps_max;    /* inner steps of a round, done by replicas that are fast enough */
    uint32_t steps_min;    /* done by every replica, however slow; = steps_max: all do the same number */
    uint32_t tau;          /* inner steps of the next round that hide the exchange */
};

/* A model, its step and its microbatches in numbers. */
struct at_cost {
    struct at_model_config model;
    struct at_cost_exchange exchange;
    bool recompute;
    int replicas; /* whose updates a rank has room for; at_cost_init sets 1 */
    int layers, slots, microbatches;
    double sequences, tokens; /* of the largest microbatch */
    double step_tokens;
    double layer_flops, first_flops, last_flops;
    double layer_params, layer_gains, first_params, last_params; /* elements; matrices without gains */
    double layer_kept, inputs_kept;                              /* elements a token: split by tp, and not */
};
void at_cost_init(struct at_cost *c, const struct at_model_config *model, uint32_t batch, int microbatches,
                  const struct at_cost_exchange *exchange, bool recompute);

/* Work per second of a node with one measured GFLOP/s: 1e9 * work / FLOPs of the reference step. */
double at_cost_work_per_gflop(void);

/* Elements that a tensor rank of a stage holds. */
double at_cost_params(const struct at_cost *c, int layers, int tp, bool first, bool last);
/* Bytes of a rank: weights and optimizer, activations of `in_flight` microbatches, buffers, the process. */
double at_cost_bytes(const struct at_cost *c, int layers, int tp, bool first, bool last, int in_flight);
/* How many layers such a rank has room for in `memory` bytes, as a fraction; 0: for none. */
double at_cost_layers_in(const struct at_cost *c, double memory, int tp, bool first, bool last, int in_flight);
/* Work of one microbatch on one tensor rank, forward and backward together. */
double at_cost_layer_work(const struct at_cost *c, int tp);
double at_cost_first_work(const struct at_cost *c, int tp);
double at_cost_last_work(const struct at_cost *c, int tp);
/* Work of a whole step in one rank. What a node's figure means: gflops = work / seconds / work_per_gflop. */
double at_cost_step_work(const struct at_cost *c);
/* Bytes between two stages, one direction, one microbatch; also of one all-reduce inside a layer. */
double at_cost_boundary_bytes(const struct at_cost *c);

#endif
