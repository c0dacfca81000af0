/* trainer_inner.h: inner header of the train layer: the pieces of an inner step, for unit.c.
 *
 * What the ranks of a replica gather in a step, t->step: the sum of squares of the gradient of every (tensor, slot) of
 * the whole model, by canonical number, from the rank that owns it; the sum of the losses; the leader's wish to stop. */
#ifndef ATOLL_TRAIN_TRAINER_INNER_H
#define ATOLL_TRAIN_TRAINER_INNER_H

#include "train/unit.h"

static inline size_t at_step_values(const struct at_params *p)
{
    return (size_t)p->numbers + 2;
}
static inline double *at_step_loss(const struct at_trainer *t)
{
    return t->step + t->model->params.numbers;
}
static inline double *at_step_stop(const struct at_trainer *t)
{
    return t->step + t->model->params.numbers + 1;
}

/* The squares of what this rank owns into t->step, +0 elsewhere. */
void at_step_squares(struct at_trainer *t, const struct at_exec *ex);
/* Clip and AdamW on t->theta, m, v; norm: at_params_norm of the gathered squares. bias_step: inner step from 1 when biases are corrected, else 0. */
void at_step_apply(struct at_trainer *t, const struct at_exec *ex, double norm, uint64_t g, uint32_t bias_step);

#endif
