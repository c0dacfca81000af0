/* tensor_test_util.h: what the tensor layer's tests share: inputs by seed, a runner that shuffles its jobs, comparison
 * of bits. For *_test.c only. */
#ifndef ATOLL_TENSOR_TEST_UTIL_H
#define ATOLL_TENSOR_TEST_UTIL_H

#include "base/par.h"
#include "base/rng.h"
#include "tensor/real.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Element i of stream (seed, sub): uniform in [-scale, scale]. */
static inline void test_fill(real *x, long n, uint64_t seed, uint32_t sub, double scale)
{
    for (long i = 0; i < n; i++) {
        struct at_philox r = at_philox(seed, AT_RNG_TEST, sub, (uint64_t)i);
        x[i] = (real)((2.0 * at_rng_unit(r.v[0], r.v[1]) - 1.0) * scale);
    }
}

/* Puts awkward numbers over about one element in four: zeros of both signs, subnormals, the edges of exp's range, very
 * large and small ones; with `wild`, infinities and NaN too. */
static inline void test_fill_awkward(real *x, long n, uint64_t seed, uint32_t sub, bool wild)
{
    static const real awkward[] = {REAL(0.0),       -REAL(0.0),     REAL(1e-40),    REAL(-3e-42),    REAL(1e-30),
                                   REAL(-2e-25),    REAL(1e19),     REAL(-3e18),    REAL(87.25),     REAL(-87.25),
                                   REAL(-87.3125),  REAL(88.72283), REAL(88.75),    REAL(1.0),       REAL(-1.0),
                                   AT_REAL_MAX / 2, REAL(1e-38),    (real)INFINITY, -(real)INFINITY, (real)NAN};
    uint32_t choices = sizeof awkward / sizeof awkward[0] - (wild ? 0 : 3);
    for (long i = 0; i < n; i++) {
        struct at_philox r = at_philox(seed ^ 0x5eed, AT_RNG_TEST, sub, (uint64_t)i);
        if (r.v[0] % 4 == 0) x[i] = awkward[r.v[1] % choices];
    }
}

/* Equal bits, or NaN in both (whose payload no one promises). */
static inline bool test_same(real a, real b)
{
    return memcmp(&a, &b, sizeof a) == 0 || (a != a && b != b);
}
static inline bool test_all_same(const real *a, const real *b, long n)
{
    for (long i = 0; i < n; i++)
        if (!test_same(a[i], b[i])) return false;
    return true;
}

/* A runner for `threads` threads that does the jobs one after the other in a shuffled order: a driver whose jobs depend
 * on each other gives itself away. */
static inline void test_run_shuffled(void *pool, int jobs, at_job_fn *job, void *arg)
{
    uint64_t *count = pool;
    int order[512];
    if (jobs > 512) jobs = 0; /* then nothing is computed, and the comparison fails */
    for (int i = 0; i < jobs; i++) order[i] = i;
    for (int i = jobs - 1; i > 0; i--) {
        int j = (int)(at_philox(77, AT_RNG_TEST, 0, (*count)++).v[0] % (uint32_t)(i + 1)), t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
    for (int i = 0; i < jobs; i++) job(arg, order[i]);
}
static inline struct at_par test_par_shuffled(int threads, uint64_t *count)
{
    return (struct at_par){.threads = threads, .run = test_run_shuffled, .pool = count};
}

#endif
