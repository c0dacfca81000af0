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

struct choice {
    uint32_t codec, k;
    uint32_t longest; /* H up to which it is preferred to the next one; 0: the usual H */
};
static const struct choice choices[] = {
    {AT_CODEC_PLAIN, 0, 0},     {AT_CODEC_INT4, 0, AT_AUTO_DENSE_STEPS},
    {AT_CODEC_SPARSE, 1024, 0}, {AT_CODEC_SPARSE, 512, 0},
    {AT_CODEC_SPARSE, 256, 0},  {AT_CODEC_SPARSE, 128, 0},
    {AT_CODEC_SPARSE, 64, 0},   {AT_CODEC_SPARSE, 32, 0},
    {AT_CODEC_SPARSE, 16, 0},
};
enum { CHOICES = sizeof choices / sizeof choices[0] };

static uint32_t most(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* H where nothing asks for another, and the longest. */
static uint32_t usual_steps(const struct at_outer_config *c, const struct at_train_config *train)
{
    uint32_t steps = most(train->steps, c->steps_min);
    return c->steps_max != 0 ? least(steps, c->steps_max) : steps;
}

static uint32_t longest_steps(const struct at_outer_config *c, const struct at_train_config *train)
{
    return c->steps_max != 0 ? c->steps_max : most(usual_steps(c, train), AT_AUTO_STEPS_MAX);
}

/* The H that keeps an exchange within its share; at most 2^31. */
static uint32_t steps_needed(uint32_t codec, uint32_t k, const struct at_outer_config *c, const struct at_auto_run *run,
                             const struct at_auto_measured *m)
{
    double x = at_auto_exchange_seconds(codec, k, run, m) - (double)c->tau * m->step_seconds;
    double steps = x > 0 ? ceil(x / (AT_AUTO_SHARE * m->step_seconds)) : 1;
    return steps < 2147483648.0 ? (uint32_t)steps : 1u << 31;
}

/* Codec, k and steps. */
static void choose(const struct at_outer_config *c, const struct at_train_config *train, const struct at_auto_run *run,
                   const struct at_auto_measured *m, bool young, struct at_round *r)
{
    uint32_t usual = usual_steps(c, train), end = longest_steps(c, train);
    r->steps = usual;
    if (run->replicas < 2) return;
    if (!(m->step_seconds > 0) || !(m->bytes_per_second > 0)) { /* nothing is known yet: little is sent */
        r->codec = AT_CODEC_SPARSE;
        r->k = c->k;
        return;
    }
    for (int i = 0; i < CHOICES; i++) {
        struct choice x = choices[i];
        r->codec = x.codec;
        r->k = x.codec == AT_CODEC_SPARSE ? most(x.k, c->k) : 0;
        uint32_t need = steps_needed(r->codec, r->k, c, run, m);
        r->steps = most(usual, least(need, end));
        uint32_t longest = most(young && x.codec == AT_CODEC_INT4 ? AT_AUTO_STEPS_MAX : x.longest, usual);
        bool last = x.codec == AT_CODEC_SPARSE && x.k <= c->k;
        if (last || need <= least(longest, end)) return;
    }
}

struct at_round at_auto_round(const struct at_outer_config *c, const struct at_train_config *train,
                              const struct at_auto_run *run, const struct at_round *previous,
                              const struct at_auto_measured *m)
{
    AT_ASSERT(c->kind == AT_OUTER_AUTO);
    uint64_t total = (uint64_t)train->rounds * train->steps;
    struct at_outer_config longest = *c;
    longest.steps_max = longest_steps(c, train);
    struct at_round r = at_outer_round(&longest, train, previous);
    uint32_t left = r.steps; /* at most `longest`, and what is left of the run */
    if (left == 0) return r;
    double done = (double)r.step_first / (double)total;
    choose(c, train, run, m, done < c->dense_fraction, &r);
    r.steps = least(r.steps, left);
    if (c->tau > 0) r.tau = r.steps > c->tau ? c->tau : 0;
    if (r.codec != AT_CODEC_SPARSE) return r;
    r.clip = 1;
    r.alpha = (real)(c->alpha_first + (c->alpha_last - c->alpha_first) * done);
    r.momentum = (real)c->momentum;
    return r;
}
