#include "train/auto.h"

#include "tensor/emath.h"

#include <math.h>

#define LOG2E 0x1.71547652b82fep+0

/* log2 C(4096, k), within a bit. */
static double set_bits(uint32_t k)
{
    double bits = 0;
    for (uint32_t i = 0; i < k; i++) bits += at_log64((double)(AT_CODEC_CHUNK - i) / (double)(i + 1)) * LOG2E;
    return bits;
}

void at_auto_note_steps(struct at_auto_measured *m, uint32_t steps, double seconds)
{
    if (!(seconds > 0)) return;
    double share = m->step_seconds > 0 && steps < 8 ? steps / 8.0 : 1; /* a short round says little */
    m->step_seconds += share * (seconds / steps - m->step_seconds);
}

double at_auto_update_bytes(uint32_t codec, uint32_t k, const struct at_auto_run *run)
{
    double w = (double)run->weights, s = (double)run->stats;
    switch (codec) {
    case AT_CODEC_PLAIN:
        return 4 * (w + s);
    case AT_CODEC_INT4:
        return w * 66 / 128 + s * 0.55;
    default: /* per chunk the set, two bits a value and two levels */
        return w / AT_CODEC_CHUNK * (set_bits(k) + 2 * k + 12) / 8 + s * 0.23;
    }
}

double at_auto_exchange_seconds(uint32_t codec, uint32_t k, const struct at_auto_run *run,
                                const struct at_auto_measured *m)
{
    if (run->replicas < 2) return 0;
    double bytes = (double)(run->replicas - 1) * at_auto_update_bytes(codec, k, run);
    return 2 * m->rtt_seconds + (m->bytes_per_second > 0 ? bytes / m->bytes_per_second : 0);
}

uint64_t at_auto_young_steps(const struct at_outer_config *c, const struct at_train_config *train)
{
    uint64_t total = (uint64_t)train->rounds * train->steps;
    uint64_t share = (uint64_t)ceil(c->dense_fraction * (double)total);
    uint64_t steps = share > c->dense_steps ? share : c->dense_steps;
    return steps < total ? steps : total;
}

static uint32_t most(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* H where nothing asks for another, the shortest of a young run, and the longest. */
static uint32_t usual_steps(const struct at_outer_config *c, const struct at_train_config *train)
{
    uint32_t steps = most(train->steps, c->steps_min);
    return c->steps_max != 0 ? least(steps, c->steps_max) : steps;
}

static uint32_t shortest_steps(const struct at_outer_config *c, const struct at_train_config *train)
{
    uint32_t steps = least(c->steps_young, usual_steps(c, train));
    return most(steps, most(c->steps_min, c->tau + 1)); /* overlap needs more steps than tau */
}

static uint32_t longest_steps(const struct at_outer_config *c, const struct at_train_config *train)
{
    return c->steps_max != 0 ? c->steps_max : most(usual_steps(c, train), AT_AUTO_STEPS_MAX);
}

/* What choices are made from. */
struct asked {
    const struct at_outer_config *c;
    const struct at_auto_run *run;
    const struct at_auto_measured *m;
    uint32_t shortest, usual, longest;
};

/* The H that keeps an exchange within its share; at most 2^31. */
static uint32_t steps_needed(const struct asked *a, uint32_t codec, uint32_t k)
{
    double step = a->m->step_seconds;
    double x = at_auto_exchange_seconds(codec, k, a->run, a->m) - (double)a->c->tau * step;
    double steps = x > 0 ? ceil(x / (AT_AUTO_SHARE * step)) : 1;
    return steps < 2147483648.0 ? (uint32_t)steps : 1u << 31;
}

static void set(struct at_round *r, uint32_t codec, uint32_t k, uint32_t steps)
{
    r->codec = codec;
    r->k = k;
    r->steps = steps;
}

/* False: dense rounds would have to be too long. */
static bool choose_young(const struct asked *a, struct at_round *r)
{
    bool plain = steps_needed(a, AT_CODEC_PLAIN, 0) <= a->shortest;
    uint32_t steps = plain ? a->shortest : most(a->shortest, steps_needed(a, AT_CODEC_INT4, 0));
    if (steps > least(AT_AUTO_YOUNG_STEPS_MAX, a->longest)) return false;
    set(r, plain ? AT_CODEC_PLAIN : AT_CODEC_INT4, 0, steps);
    return true;
}

static void choose_later(const struct asked *a, struct at_round *r)
{
    uint32_t k = most(1024, a->c->k);
    if (steps_needed(a, AT_CODEC_PLAIN, 0) <= a->usual) {
        set(r, AT_CODEC_PLAIN, 0, a->usual);
    } else if (steps_needed(a, AT_CODEC_INT4, 0) <= a->usual) {
        set(r, AT_CODEC_INT4, 0, a->usual);
    } else {
        while (k > a->c->k && steps_needed(a, AT_CODEC_SPARSE, k) > a->usual) k = most(k / 2, a->c->k);
        uint32_t steps = least(steps_needed(a, AT_CODEC_SPARSE, k), a->longest);
        set(r, AT_CODEC_SPARSE, k, most(a->usual, steps));
    }
}

static void choose(const struct asked *a, bool young, struct at_round *r)
{
    bool known = a->m->step_seconds > 0 && a->m->bytes_per_second > 0;
    if (a->run->replicas < 2)
        set(r, AT_CODEC_PLAIN, 0, a->usual);
    else if (!known) /* little is sent */
        set(r, AT_CODEC_SPARSE, a->c->k, a->usual);
    else if (!young || !choose_young(a, r))
        choose_later(a, r);
}

struct at_round at_auto_round(const struct at_outer_config *c, const struct at_train_config *train,
                              const struct at_auto_run *run, const struct at_round *previous,
                              const struct at_auto_measured *m)
{
    AT_ASSERT(c->kind == AT_OUTER_AUTO);
    struct asked a = {c, run, m, shortest_steps(c, train), usual_steps(c, train), longest_steps(c, train)};
    struct at_outer_config longest = *c;
    longest.steps_max = a.longest;
    struct at_round r = at_outer_round(&longest, train, previous);
    uint32_t left = r.steps; /* at most `longest`, and what is left of the run */
    if (left == 0) return r;
    choose(&a, r.step_first < at_auto_young_steps(c, train), &r);
    r.steps = least(r.steps, left);
    r.tau = r.steps > c->tau ? c->tau : 0;
    if (r.codec != AT_CODEC_SPARSE) {
        r.momentum = at_outer_dense_momentum(c, r.steps);
        return r;
    }
    double done = (double)r.step_first / ((double)train->rounds * (double)train->steps);
    r.clip = 1;
    r.alpha = (real)(c->alpha_first + (c->alpha_last - c->alpha_first) * done);
    r.momentum = (real)c->momentum;
    return r;
}
