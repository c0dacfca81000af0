/* The settings of a run's outer steps, and the rounds that fixed settings make. */
#include "model/rounds.h"

#include <math.h>
#include <string.h>

static const char *const names[] = {
    [AT_OUTER_MEAN] = "mean", [AT_OUTER_DILOCO] = "diloco", [AT_OUTER_SPARSE] = "sparse", [AT_OUTER_AUTO] = "auto"};

at_err at_outer_kind_find(const char *name, struct at_diag *diag, enum at_outer_kind *ret_kind)
{
    for (int i = AT_OUTER_MEAN; i <= AT_OUTER_AUTO; i++)
        if (strcmp(name, names[i]) == 0) {
            *ret_kind = (enum at_outer_kind)i;
            return AT_OK;
        }
    return at_fail(diag, AT_E_USAGE, name, "unknown outer step; there are mean, diloco, sparse and auto");
}

const char *at_outer_kind_name(enum at_outer_kind kind)
{
    AT_ASSERT(kind >= AT_OUTER_MEAN && kind <= AT_OUTER_AUTO);
    return names[kind];
}

void at_outer_config_default(struct at_outer_config *c, enum at_outer_kind kind)
{
    *c = (struct at_outer_config){.kind = kind, .alpha_first = 1, .alpha_last = 1, .decay_share = 1};
    if (kind == AT_OUTER_MEAN) return; /* docs/adr/0007 has the figures for all of these */
    c->carry = 0.9;
    c->decay_share = 0.3;
    if (kind == AT_OUTER_DILOCO) return;
    c->k = 60; /* a round of 10m, every header included, in a quarter of a MB */
    c->momentum = 0.4;
    c->dense_fraction = kind == AT_OUTER_AUTO ? 0.3 : 0.1;
    if (kind == AT_OUTER_AUTO) {
        c->dense_steps = 2000;
        c->steps_young = 2;
    }
}

void at_outer_config_young(struct at_outer_config *c, double fraction)
{
    c->dense_fraction = fraction;
    c->dense_steps = 0;
    c->steps_young = 2;
}

void at_outer_adapt(const struct at_outer_config *c, struct at_train_config *io_train)
{
    io_train->weight_decay *= c->decay_share;
}

bool at_outer_config_momentum(const struct at_outer_config *c)
{
    return c->momentum != 0 || c->carry != 0;
}

static bool within(double x, double low, double high)
{
    return x >= low && x <= high; /* false for NaN */
}

at_err at_outer_config_check(const struct at_outer_config *c, const struct at_train_config *train, struct at_diag *diag)
{
    uint32_t most = c->steps_max != 0 ? c->steps_max : train->steps;
    uint32_t least = c->steps_min != 0 ? c->steps_min : most;
    if (c->kind < AT_OUTER_MEAN || c->kind > AT_OUTER_AUTO)
        return at_fail(diag, AT_E_USAGE, "outer", "unknown kind %d", (int)c->kind);
    bool sparse = c->kind == AT_OUTER_SPARSE || c->kind == AT_OUTER_AUTO;
    if (sparse ? c->k < 1 || c->k > AT_SPARSE_K_MAX : c->k != 0)
        return at_fail(diag, AT_E_USAGE, "k", "%u of 4096 are kept; possible are 1 to %d, and only for sparse and auto",
                       c->k, AT_SPARSE_K_MAX);
    if (least > most || (uint64_t)most * train->batch > UINT32_MAX)
        return at_fail(diag, AT_E_USAGE, "steps", "%u to %u inner steps a round", least, most);
    if (c->tau > AT_OUTER_TAU_MAX || c->tau >= least)
        return at_fail(diag, AT_E_USAGE, "tau", "%u; it is at most %d and less than the %u inner steps of a round",
                       c->tau, AT_OUTER_TAU_MAX, least);
    if (!within(c->alpha_first, 0, 2) || !within(c->alpha_last, 0, 2))
        return at_fail(diag, AT_E_USAGE, "alpha", "%g to %g; it lies within 0 to 2", c->alpha_first, c->alpha_last);
    if (!within(c->momentum, 0, 0.999))
        return at_fail(diag, AT_E_USAGE, "momentum", "%g; it lies within 0 to 0.999", c->momentum);
    if (!within(c->carry, 0, 0.999))
        return at_fail(diag, AT_E_USAGE, "carry", "%g; it lies within 0 to 0.999", c->carry);
    if (!within(c->decay_share, 0, 1))
        return at_fail(diag, AT_E_USAGE, "decay", "%g; it lies within 0 to 1", c->decay_share);
    if (!within(c->dense_fraction, 0, 1))
        return at_fail(diag, AT_E_USAGE, "dense", "%g; it lies within 0 to 1", c->dense_fraction);
    if (!within(c->round_seconds, 0, 1e6))
        return at_fail(diag, AT_E_USAGE, "round-seconds", "%g; it lies within 0 to 1000000", c->round_seconds);
    return AT_OK;
}

struct at_round at_round_mean(uint32_t round, uint32_t steps, uint64_t step_first)
{
    return (struct at_round){
        .round = round, .steps = steps, .step_first = step_first, .codec = AT_CODEC_PLAIN, .alpha = 1};
}

/* The share of the run's steps that is over. */
static double progress(const struct at_train_config *train, uint64_t step)
{
    return (double)step / ((double)train->rounds * (double)train->steps);
}

/* What the run's settings say, or what the restart of m lost, whichever is more. sparse, auto: `momentum` is not for
 * dense rounds. */
real at_outer_dense_momentum(const struct at_outer_config *c, uint64_t steps)
{
    double kept = 1;
    for (uint64_t i = 0; i < steps && kept > 1e-9; i++) kept *= c->carry;
    return (real)(kept > c->momentum || c->kind != AT_OUTER_DILOCO ? kept : c->momentum);
}

/* H of the first rounds, if they are shorter than the later ones; else 0. */
static uint64_t young_steps(const struct at_outer_config *c, uint64_t steps)
{
    bool has = c->kind == AT_OUTER_SPARSE || c->kind == AT_OUTER_DILOCO;
    return has && c->dense_fraction > 0 && c->steps_young < steps ? c->steps_young : 0;
}

static uint64_t usual_steps(const struct at_outer_config *c, const struct at_train_config *train)
{
    return c->steps_max != 0 ? c->steps_max : train->steps;
}

static uint64_t all_steps(const struct at_train_config *train)
{
    return (uint64_t)train->rounds * train->steps;
}

static struct at_round round_from(const struct at_outer_config *c, const struct at_train_config *train, uint32_t number,
                                  uint64_t first)
{
    uint64_t total = all_steps(train), steps = usual_steps(c, train);
    double done = progress(train, first);
    bool sparse = c->kind == AT_OUTER_SPARSE, young = done < c->dense_fraction;
    if (young && young_steps(c, steps) != 0) steps = young_steps(c, steps);
    if (first > total) first = total;
    if (steps > total - first) steps = total - first;
    struct at_round r = at_round_mean(number, (uint32_t)steps, first);
    r.seconds = c->round_seconds;
    r.tau = steps > c->tau ? c->tau : 0;
    if (c->kind == AT_OUTER_DILOCO || (sparse && young)) {
        r.codec = AT_CODEC_INT4;
        r.momentum = at_outer_dense_momentum(c, steps);
    } else if (sparse) {
        r.codec = AT_CODEC_SPARSE;
        r.k = c->k;
        r.clip = 1;
        r.momentum = (real)c->momentum;
    } else if (c->kind == AT_OUTER_AUTO) {
        r.momentum = at_outer_dense_momentum(c, steps);
    }
    if (r.codec != AT_CODEC_PLAIN && !(sparse && young))
        r.alpha = (real)(c->alpha_first + (c->alpha_last - c->alpha_first) * done);
    return r;
}

struct at_round at_outer_round(const struct at_outer_config *c, const struct at_train_config *train,
                               const struct at_round *previous)
{
    if (previous == NULL) return round_from(c, train, 0, 0);
    return round_from(c, train, previous->round + 1, previous->step_first + previous->steps);
}

/* How many rounds are young: those that begin before dense_fraction of the run's steps. */
static uint64_t young_rounds(const struct at_outer_config *c, const struct at_train_config *train, uint64_t each)
{
    uint64_t total = all_steps(train), low = 0, high = (total + each - 1) / each;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (progress(train, middle * each) < c->dense_fraction)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct at_round at_outer_round_number(const struct at_outer_config *c, const struct at_train_config *train, uint32_t n)
{
    uint64_t steps = usual_steps(c, train), each = young_steps(c, steps);
    uint64_t young = each != 0 ? young_rounds(c, train, each) : 0;
    uint64_t first = n <= young ? n * each : young * each + (n - young) * steps;
    return round_from(c, train, n, first < all_steps(train) ? first : all_steps(train));
}

uint64_t at_outer_rounds(const struct at_outer_config *c, const struct at_train_config *train)
{
    uint64_t steps = usual_steps(c, train), each = young_steps(c, steps), total = all_steps(train);
    uint64_t young = each != 0 ? young_rounds(c, train, each) : 0;
    return young * each >= total ? young : young + (total - young * each + steps - 1) / steps;
}

bool at_round_is_lossy(const struct at_round *r)
{
    return r->codec != AT_CODEC_PLAIN;
}
