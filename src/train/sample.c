#include "train/sample.h"

#include "base/rng.h"
#include "tensor/emath.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

at_err at_sample_options_check(const struct at_sample_options *o, struct at_diag *diag)
{
    if (!(o->temperature >= 0 && o->temperature <= 100))
        return at_fail(diag, AT_E_USAGE, "temperature", "must be 0 to 100");
    if (o->top_k < 0) return at_fail(diag, AT_E_USAGE, "top-k", "must be at least 0");
    if (!(o->top_p > 0 && o->top_p <= 1)) return at_fail(diag, AT_E_USAGE, "top-p", "must be above 0 and at most 1");
    return AT_OK;
}

static int by_logit(const void *a, const void *b)
{
    const struct at_sample_rank *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return x->token < y->token ? -1 : x->token > y->token;
}

/* How many of the ordered candidates top-k and top-p leave, at least one; *ret_sum: the sum of their weights. */
static long keep(const struct at_sample_rank *c, long n, const struct at_sample_options *o, double *ret_sum)
{
    if (o->top_k > 0 && o->top_k < n) n = o->top_k;
    double all = 0, sum = 0;
    for (long i = 0; i < n; i++) all += c[i].weight;
    long kept = 0;
    while (kept < n && (kept == 0 || o->top_p >= 1 || sum < o->top_p * all)) sum += c[kept++].weight;
    *ret_sum = sum;
    return kept;
}

at_err at_sample(const real *logits, long vocab, const struct at_sample_options *o, uint64_t position,
                 struct at_sample_rank *scratch, int32_t *ret_token)
{
    long best = 0;
    for (long i = 0; i < vocab; i++) {
        if (!(logits[i] < (real)INFINITY)) return AT_E_NONFINITE; /* NaN and +inf */
        if (logits[i] > logits[best]) best = i;
    }
    if (!isfinite(logits[best])) return AT_E_NONFINITE; /* all are -inf */
    if (o->temperature == 0) {
        *ret_token = (int32_t)best;
        return AT_OK;
    }
    for (long i = 0; i < vocab; i++)
        scratch[i] =
            (struct at_sample_rank){.weight = at_exp64(((double)logits[i] - (double)logits[best]) / o->temperature),
                                    .logit = (float)logits[i],
                                    .token = (int32_t)i};
    qsort(scratch, (size_t)vocab, sizeof *scratch, by_logit);
    double sum, seen = 0;
    long kept = keep(scratch, vocab, o, &sum), i = 0;
    struct at_philox r = at_philox(o->seed, AT_RNG_ASK, 0, position);
    double draw = at_rng_unit(r.v[0], r.v[1]) * sum;
    for (; i + 1 < kept; i++) {
        seen += scratch[i].weight;
        if (draw < seen) break;
    }
    *ret_token = scratch[i].token;
    return AT_OK;
}

/* ---- the generator ---- */

at_err at_generator_init(struct at_generator *g, const struct at_model *m, const real *theta,
                         const struct at_sample_options *o, struct at_diag *diag)
{
    int err = at_sample_options_check(o, diag);
    if (err != AT_OK) return err;
    long T = m->params.config.seq_len;
    struct at_generator n = {.theta = theta, .options = *o};
    err = at_decoder_init(&n.decoder, m, T);
    n.scratch = malloc(m->params.config.vocab * sizeof *n.scratch);
    n.context = malloc((size_t)T * sizeof *n.context);
    if (err != AT_OK || n.scratch == NULL || n.context == NULL) {
        at_generator_release(&n);
        return at_fail(diag, AT_E_NOMEM, "generator", "no memory for the model's context");
    }
    *g = n;
    return AT_OK;
}

void at_generator_release(struct at_generator *g)
{
    at_decoder_release(&g->decoder);
    free(g->scratch);
    free(g->context);
    *g = (struct at_generator){0};
}

static void push(struct at_generator *g, int32_t token)
{
    long T = g->decoder.positions, half = T / 2;
    if (g->context_n == T) {
        memmove(g->context, g->context + (T - half), (size_t)half * sizeof *g->context);
        g->context_n = half;
        at_decoder_clear(&g->decoder);
    }
    g->context[g->context_n++] = token;
    g->position++;
}

void at_generator_prompt(struct at_generator *g, const int32_t *token, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        AT_ASSERT(token[i] >= 0 && token[i] < (int32_t)g->decoder.model->params.config.vocab);
        push(g, token[i]);
    }
}

at_err at_generator_next(struct at_generator *g, const struct at_exec *ex, int32_t *ret_token)
{
    struct at_decoder *d = &g->decoder;
    if (g->context_n == 0) push(g, '\n' % (int32_t)d->model->params.config.vocab);
    long n = g->context_n - d->used;
    AT_ASSERT(n >= 1);
    const real *logits = at_decoder_append(ex, d, g->theta, g->context + d->used, n);
    int32_t token;
    int err = at_sample(logits + (n - 1) * d->model->params.vocab_padded, d->model->params.config.vocab, &g->options,
                        g->position, g->scratch, &token);
    if (err != AT_OK) return err;
    push(g, token);
    *ret_token = token;
    return AT_OK;
}
