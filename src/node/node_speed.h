/* node_speed.h: how fast this machine trains, by training: whole steps of a model of the wanted width, cut down where one
 * would take long or much memory. Effects: the clock, memory.
 *
 * The figure is in the terms of parallel/plan_cost.h: FLOPs of the reference shape (10m, 8 sequences) in the time that
 * their work takes here, so that machines compare whatever they were measured with. */
#ifndef ATOLL_NODE_NODE_SPEED_H
#define ATOLL_NODE_NODE_SPEED_H

#include "model/config.h"
#include "tensor/exec.h"

struct at_speed_shape {
    struct at_model_config model;
    struct at_train_config train;
    double work; /* of a step, in the units of plan_cost.h */
};
/* Cut down until a step is at most `work_max` and fits half of the available memory, and `memory_max` bytes (0: any).
 * AT_E_NOMEM: one layer does not fit. */
at_err at_speed_shape(const char *name, const struct at_model_config *model, const struct at_train_config *train,
                      double work_max, size_t memory_max, struct at_diag *diag, struct at_speed_shape *ret_shape);
struct at_speed_options {
    int repeats;                          /* stretches; the median counts; 1 .. 9 */
    double stretch_s;                     /* each lasts so long at least */
    at_err_t (*check)(struct at_diag *);  /* before each step; what it fails with ends the measurement. NULL: none */
    void (*tell)(void *arg, int stretch); /* before each stretch, from 1. NULL: none */
    void *arg;
};
/* GFLOP/s, after a step that only touches the memory. AT_E_NOMEM; what `check` fails with. */
at_err at_speed_measure(const struct at_speed_shape *shape, const struct at_exec *ex,
                        const struct at_speed_options *options, struct at_diag *diag, double *ret_gflops);

#endif
