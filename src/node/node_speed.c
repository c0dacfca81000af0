#include "node/node_speed.h"

#include "base/rng.h"
#include "os/sys.h"
#include "parallel/plan_cost.h"
#include "train/unit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { REPEATS_MAX = 9 };

static void weigh(struct at_speed_shape *s)
{
    struct at_cost cost;
    struct at_cost_exchange none = {0};
    at_cost_init(&cost, &s->model, s->train.batch, 1, &none, false);
    s->work = at_cost_step_work(&cost);
}

at_err_t at_speed_shape(const char *name, const struct at_model_config *model, const struct at_train_config *train,
                        double work_max, size_t memory_max, struct at_diag *diag, struct at_speed_shape *ret_shape)
{
    struct at_speed_shape s = {.model = *model, .train = *train};
    double memory = (double)at_sys_memory_available() / 2;
    if (memory_max > 0 && (memory <= 0 || (double)memory_max < memory)) memory = (double)memory_max;
    for (weigh(&s);; weigh(&s)) {
        double need = (double)at_trainer_bytes(&s.model, &s.train, 0);
        if (s.work <= work_max && need > 0 && (memory <= 0 || need <= memory)) break;
        if (s.model.layers > 2)
            s.model.layers = 2;
        else if (s.model.vocab > 4096)
            s.model.vocab = 4096;
        else if (s.train.batch > 1)
            s.train.batch = s.train.batch / 2;
        else if (s.model.seq_len > 256)
            s.model.seq_len /= 2;
        else if (s.model.layers > 1)
            s.model.layers = 1;
        else
            break;
    }
    if (memory > 0 && (double)at_trainer_bytes(&s.model, &s.train, 0) > 2 * memory)
        return at_fail(diag, AT_E_NOMEM, name, "even one layer of it does not fit this machine's memory");
    *ret_shape = s;
    return AT_OK;
}

static at_err run_step(struct at_trainer *t, const struct at_exec *ex, const struct at_speed_options *o, uint32_t *k,
                       struct at_diag *diag)
{
    at_err_t err = o->check ? o->check(diag) : AT_OK;
    if (err != AT_OK) return err;
    if (!isfinite(at_trainer_gradient(t, ex, t->theta)))
        return at_fail(diag, AT_E_NONFINITE, "speed", "the loss is not finite");
    return at_trainer_step(t, ex, 0, ++*k, diag);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static at_err run(struct at_trainer *t, const struct at_exec *ex, const struct at_speed_options *o, double work,
                  struct at_diag *diag, double *ret_gflops)
{
    double speed[REPEATS_MAX];
    uint32_t k = 0;
    AT_ASSERT(o->repeats >= 1 && o->repeats <= REPEATS_MAX);
    at_err_t err = run_step(t, ex, o, &k, diag);
    for (int i = 0; i < o->repeats && err == AT_OK; i++) {
        double start_s = (double)at_clock_mono_ns() / 1e9, spent_s = 0;
        int steps = 0;
        if (o->tell) o->tell(o->arg, i + 1);
        for (; spent_s < o->stretch_s && err == AT_OK; steps++) {
            err = run_step(t, ex, o, &k, diag);
            spent_s = (double)at_clock_mono_ns() / 1e9 - start_s;
        }
        speed[i] = work * steps / spent_s / at_cost_work_per_gflop();
    }
    if (err != AT_OK) return err;
    qsort(speed, (size_t)o->repeats, sizeof *speed, ascending);
    *ret_gflops = speed[o->repeats / 2];
    return AT_OK;
}

static void fill(struct at_trainer *t, const struct at_model *m, const struct at_speed_shape *s)
{
    at_params_fill(&m->params, 1, t->theta);
    memset(t->m, 0, m->params.count * sizeof *t->m);
    memset(t->v, 0, m->params.count * sizeof *t->v);
    for (size_t i = 0, n = (size_t)s->train.batch * s->model.seq_len; i < n; i++) {
        t->input[i] = (int32_t)(at_philox(1, AT_RNG_TEST, 0, i).v[0] % s->model.vocab);
        t->target[i] = (int32_t)(at_philox(1, AT_RNG_TEST, 1, i).v[0] % s->model.vocab);
    }
}

at_err_t at_speed_measure(const struct at_speed_shape *shape, const struct at_exec *ex,
                          const struct at_speed_options *options, struct at_diag *diag, double *ret_gflops)
{
    struct at_model model = {0};
    struct at_trainer t = {0};
    at_err_t err = at_model_init(&model, &shape->model, diag);
    if (err == AT_OK) err = at_trainer_init(&t, &model, &shape->train, 0, diag);
    at_sys_memory_huge();
    if (err == AT_OK) fill(&t, &model, shape);
    if (err == AT_OK) err = run(&t, ex, options, shape->work, diag, ret_gflops);
    at_trainer_release(&t);
    at_model_release(&model);
    return err;
}
