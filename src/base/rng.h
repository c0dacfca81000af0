/* rng.h: counter-based randomness, Philox4x32-10 (Salmon et al., SC'11). Pure; Exact: yes.
 *
 * key = the genesis seed; counter = (purpose, sub-id, 64-bit index). The same triple gives the same numbers on every
 * node, thread and split: never a run id or a node's key. */
#ifndef ATOLL_BASE_RNG_H
#define ATOLL_BASE_RNG_H

#include <stdint.h>

/* Purposes are part of the numeric contract: never renumber. */
enum at_rng_purpose {
    AT_RNG_INIT = 1,     /* sub = canonical tensor id, index = element / 4 in the unsharded row-major tensor */
    AT_RNG_SAMPLE_ORDER, /* sub = pass over the data, index = Feistel round and half */
    AT_RNG_ASK,          /* sub = 0, index = position of the token */
    AT_RNG_TEST,
};

struct at_philox {
    uint32_t v[4];
};
struct at_philox at_philox(uint64_t key, uint32_t purpose, uint32_t sub, uint64_t index);

/* A binary64 in [0,1) from 53 bits of (hi,lo). */
double at_rng_unit(uint32_t hi, uint32_t lo);

#endif
