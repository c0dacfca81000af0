/* sample.h: picking the next token from logits, and generating text with a bounded context. Exact: yes: same seed, same
 * text, on every machine. Pure. */
#ifndef ATOLL_TRAIN_SAMPLE_H
#define ATOLL_TRAIN_SAMPLE_H

#include "model/transformer.h"

struct at_sample_options {
    double temperature; /* 0: the largest logit, lowest index on ties; else logits / temperature */
    int top_k;          /* keep the k most likely; 0: all */
    double top_p;       /* then keep the smallest set with at least this probability; 1: all */
    uint64_t seed;
};
at_err at_sample_options_check(const struct at_sample_options *o, struct at_diag *diag); /* AT_E_USAGE */

/* scratch(vocab) is overwritten. position: of the token to be chosen, counts the prompt; the draw is word pair (0,1) of
 * Philox(seed, AT_RNG_ASK, 0, position). Candidates are ordered by (logit descending, index ascending); weights
 * at_exp64((z - max) / temperature) are summed in that order in binary64. AT_E_NONFINITE when a logit is NaN
 * or +inf. */
struct at_sample_rank {
    double weight;
    float logit;
    int32_t token;
};
at_err at_sample(const real *logits, long vocab, const struct at_sample_options *o, uint64_t position,
                 struct at_sample_rank *scratch, int32_t *ret_token);

/* A generator: prompt, then tokens one by one. When the context (seq_len) is full, the last seq_len/2 tokens are read
 * in again as a new context, so that text of any length comes out. */
struct at_generator {
    struct at_decoder decoder;
    const real *theta; /* borrowed */
    struct at_sample_options options;
    struct at_sample_rank *scratch;
    int32_t *context; /* (seq_len) tokens of the current context */
    long context_n;   /* of them, those in the decoder are decoder.used */
    uint64_t position;
};
at_err at_generator_init(struct at_generator *g, const struct at_model *m, const real *theta,
                         const struct at_sample_options *o, struct at_diag *diag);
void at_generator_release(struct at_generator *g);
/* Appends prompt tokens; n >= 0; may be called again between tokens. An empty prompt starts from a newline byte. */
void at_generator_prompt(struct at_generator *g, const int32_t *token, size_t n);
at_err at_generator_next(struct at_generator *g, const struct at_exec *ex, int32_t *ret_token);

#endif
