/* data.h: the text of a run: its check, the split into training and held-out part, and the order of the samples.
 * Pure; text is borrowed; nothing allocates. Exact: yes.
 *
 * Tokens are bytes (vocabulary 256). The text of a run is all shards' bytes, concatenated in order (n bytes).
 *   held-out: the last floor(n * fraction) bytes; training: the rest.
 *   sample i: inputs are training bytes [i*T, i*T+T), targets [i*T+1, i*T+T+1); there are (n_train - 1) / T of them.
 *   endless sequence: index j is sample perm_pass(j % samples), pass = j / samples: a new permutation each pass.
 *   perm: a Feistel network of 6 rounds over the smallest even number of bits that holds `samples`;
 *     F(round, half) = word 0 of Philox(seed, AT_RNG_SAMPLE_ORDER, pass, round << 32 | half), cut to half the bits;
 *     values >= samples walk the cycle. */
#ifndef ATOLL_TRAIN_DATA_H
#define ATOLL_TRAIN_DATA_H

#include "base/bytes.h"

#define AT_BYTE_VOCAB            256
#define AT_HELDOUT_FRACTION      0.05
#define AT_HELDOUT_BYTES_DEFAULT 32768

/* A file as text: AT_E_DATA with the byte offset when it is empty, holds a NUL or is not UTF-8. `name` goes to
 * diag->where. */
at_err at_text_check(struct at_span text, const char *name, struct at_diag *diag);

struct at_data {
    struct at_span train, heldout; /* borrowed */
    uint64_t samples;              /* of one pass */
    uint64_t seed;
    long seq_len;
    long windows; /* held-out windows that are evaluated */
};

/* heldout_bytes_max: so many held-out bytes are evaluated at most. AT_E_DATA when the text is too small for one sample
 * and one window: the message says how many bytes are needed. 0 < heldout_fraction < 1. */
at_err at_data_init(struct at_data *data, struct at_span text, long seq_len, uint64_t seed, double heldout_fraction,
                    size_t heldout_bytes_max, struct at_diag *diag);
/* Bytes that a text must have. */
size_t at_data_bytes_min(long seq_len, double heldout_fraction);

/* Position of index j of pass `pass`, a bijection on [0, samples). */
uint64_t at_data_permute(uint64_t seed, uint32_t pass, uint64_t samples, uint64_t index);
/* Sample number j of the endless sequence: input(T), target(T). */
void at_data_sample(const struct at_data *data, uint64_t j, int32_t *ret_input, int32_t *ret_target);
/* Held-out window w < windows: bytes [w*T, w*T+T] of the held-out part. */
void at_data_window(const struct at_data *data, long w, int32_t *ret_input, int32_t *ret_target);

#endif
