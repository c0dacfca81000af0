#include "train/outer.h"

#include "tensor/ops.h"
#include "train/gather.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static bool within(double x, double low, double high)
{
    return x >= low && x <= high; /* false for NaN */
}

at_err at_round_check(const struct at_round *r, struct at_diag *diag)
{
    const struct at_codec *codec = at_codec_find(r->codec);
    if (codec == NULL) return at_fail(diag, AT_E_DATA, "round", "unknown codec %u", r->codec);
    if ((codec->param_max == 0) != (r->k == 0) || r->k > codec->param_max)
        return at_fail(diag, AT_E_DATA, "round", "codec %s with parameter %u", codec->name, r->k);
    if (r->tau > AT_OUTER_TAU_MAX || (r->tau != 0 && r->tau >= r->steps) || r->clip > 1)
        return at_fail(diag, AT_E_DATA, "round", "%u steps with tau %u, clip %u", r->steps, r->tau, r->clip);
    if (!within((double)r->alpha, 0, 2) || !within((double)r->momentum, 0, 0.999) || !within(r->seconds, 0, 1e6))
        return at_fail(diag, AT_E_DATA, "round", "alpha %g, momentum %g, %g seconds", (double)r->alpha,
                       (double)r->momentum, r->seconds);
    return AT_OK;
}

struct outer {
    struct at_exec ex; /* one thread: a block is walked by one */
    const struct at_update *update;
    const real *w, *w_stats; /* [n] of the weights and of the statistics */
    int n, first, end;       /* updates; blocks [first, end) */
    const struct at_round *round;
    struct at_state *state;
    struct at_codec_reader *readers; /* [walkers][n]: a kilobyte each, too much for a thread's stack */
    int walkers;                     /* jobs, each of which takes block after block */
    double *squares;                 /* [n][numbers] sums of squares, or NULL */
    bool keep;                       /* false: the results are only looked at */
    atomic_int next;                 /* the block that is taken next */
    atomic_int bad;                  /* the lowest block number with a result that is not finite */
};

/* a = +0; for r ascending a = fma(w_r, x_r, a), over the next len elements of the n updates. */
static void combine(const struct outer *o, struct at_codec_reader *d, bool stats, size_t len, real *a)
{
    real x[AT_CODEC_CHUNK];
    memset(a, 0, len * sizeof *a);
    for (int r = 0; r < o->n; r++) {
        (stats ? d[r].codec->next_stats : d[r].codec->next)(&d[r], len, x);
        at_axpy(&o->ex, a, stats ? o->w_stats[r] : o->w[r], x, (long)len);
    }
}

static bool all_finite(const real *x, size_t n)
{
    bool finite = true;
    for (size_t i = 0; i < n; i++) finite &= isfinite(x[i]) != 0;
    return finite;
}

/* theta, and m where there is one, of elements [from, from + len), a being their mean update. */
static bool step(const struct outer *o, size_t from, size_t len, real *a)
{
    real m[AT_CODEC_CHUNK], y[AT_CODEC_CHUNK];
    real *theta = o->state->theta + from, *momentum = o->state->momentum;
    if (momentum != NULL) {
        memcpy(m, a, len * sizeof *m);
        at_axpy(&o->ex, m, o->round->momentum, momentum + from, (long)len);
        at_axpy(&o->ex, a, o->round->momentum, m, (long)len);
        if (o->keep) memcpy(momentum + from, m, len * sizeof *m);
    }
    memcpy(y, theta, len * sizeof *y);
    at_axpy(&o->ex, y, -o->round->alpha, a, (long)len);
    if (o->keep) memcpy(theta, y, len * sizeof *y);
    return o->keep || (all_finite(y, len) && (momentum == NULL || all_finite(m, len)));
}

/* One block, run by run, with readers d[n]. False if it only looks, and a value is not finite. */
static bool walk_block(const struct outer *o, int block, struct at_codec_reader *d)
{
    const struct at_params *p = o->state->params;
    const struct at_block *b = &p->block[block];
    real a[AT_CODEC_CHUNK], *stats = o->state->stats + at_block_stats_offset(p, block);
    size_t n = at_block_count(b), len;
    for (int r = 0; r < o->n; r++) at_update_open(&o->update[r], block, &d[r]);
    for (size_t i = 0; i < n; i += len) {
        len = n - i < AT_CODEC_CHUNK ? n - i : AT_CODEC_CHUNK;
        combine(o, d, false, len, a);
        if (!step(o, b->offset + i, len, a)) return false;
    }
    n = at_block_stats_count(p, b);
    for (int r = 0; r < o->n; r++) at_update_open_stats(&o->update[r], block, stats, &d[r]);
    for (size_t i = 0; i < n; i += len) { /* a run is read from all updates before it is overwritten */
        len = n - i < AT_CODEC_CHUNK ? n - i : AT_CODEC_CHUNK;
        combine(o, d, true, len, a);
        if (o->keep)
            memcpy(stats + i, a, len * sizeof *a);
        else if (!all_finite(a, len))
            return false;
    }
    return true;
}

/* Threads may finish in any order: the lowest number is named. */
static void name_bad(struct outer *o, int block)
{
    const struct at_params *p = o->state->params;
    int number = at_block_number(p, &p->block[block]), seen = atomic_load(&o->bad);
    while (number < seen && !atomic_compare_exchange_weak(&o->bad, &seen, number)) continue;
}

static void walk_job(void *arg, int job)
{
    struct outer *o = arg;
    struct at_codec_reader *d = o->readers + (size_t)job * (size_t)o->n;
    for (int block; (block = atomic_fetch_add(&o->next, 1)) < o->end;)
        if (!walk_block(o, block, d)) name_bad(o, block);
}

/* The lowest number that any rank of the replica names; numbers: none. A gain that this rank holds without answering for
 * it, it shares with the rank that does. */
static at_err agree(int *io_bad, const struct at_params *p, const struct at_gather *gather, struct at_diag *diag)
{
    size_t numbers = (size_t)p->numbers;
    double *named = calloc(numbers, sizeof *named);
    if (named == NULL) return at_fail(diag, AT_E_NOMEM, "update", "no memory for the outer step");
    for (int i = 0; i < p->blocks; i++)
        if (at_block_number(p, &p->block[i]) == *io_bad && at_params_owns(p, &p->block[i])) named[*io_bad] = 1;
    at_err_t err = gather->run(gather->arg, named, numbers, diag);
    for (int i = p->numbers; err == AT_OK && i-- > 0;)
        if (named[i] != 0) *io_bad = i;
    free(named);
    return err;
}

static void pass(struct outer *o, const struct at_par *par, bool keep)
{
    o->keep = keep;
    atomic_init(&o->next, o->first);
    atomic_init(&o->bad, o->state->params->numbers);
    at_par_run(par, o->walkers, walk_job, o);
}

/* After the first pass: is all of the step finite, on all ranks? */
static at_err judge(struct outer *o, const struct at_gather *gather, struct at_diag *diag)
{
    const struct at_params *p = o->state->params;
    int bad = atomic_load(&o->bad), tensor = p->tensors - 1;
    at_err_t err = gather != NULL && gather->run != NULL ? agree(&bad, p, gather, diag) : AT_OK;
    if (err != AT_OK || bad == p->numbers) return err;
    while (p->tensor[tensor].number > bad) tensor--;
    return at_fail(diag, AT_E_NONFINITE, at_tensor_name(p, tensor).s,
                   "%s: the outer step of round %u makes a value that is not finite", at_tensor_place(p, tensor).s,
                   o->round->round + 1);
}

static at_err check_updates(const struct at_state *state, const struct at_update *updates, int n,
                            const struct at_round *round, struct at_diag *diag)
{
    AT_ASSERT(n >= 1 && n <= AT_OUTER_REPLICAS_MAX && round->round == state->round);
    AT_ASSERT(state->momentum != NULL || round->momentum == 0);
    for (int r = 0; r < n; r++) {
        const struct at_update *u = &updates[r];
        AT_ASSERT(u->params == state->params && u->codec != NULL);
        if (u->info.round != state->round)
            return at_fail(diag, AT_E_DATA, "update", "update %d is of round %u, not %u", r, u->info.round,
                           state->round);
        if (u->codec->id != round->codec || u->k != round->k)
            return at_fail(diag, AT_E_DATA, "update", "update %d came by codec %s %u, not by the one of this round", r,
                           u->codec->name, u->k);
    }
    return AT_OK;
}

static void token_weights(const struct at_update *updates, int n, double *ret_w)
{
    uint64_t tokens = 0;
    for (int r = 0; r < n; r++) tokens += updates[r].info.tokens;
    for (int r = 0; r < n; r++) ret_w[r] = (double)updates[r].info.tokens / (double)tokens;
}

static void round_weights(const double *w, int n, real *ret_w)
{
    for (int r = 0; r < n; r++) ret_w[r] = (real)w[r];
}

static at_err apply(const struct at_exec *ex, struct at_state *state, const struct at_update *updates, int n,
                    const struct at_round *round, const double *w, int first, int blocks,
                    const struct at_gather *gather, struct at_diag *diag)
{
    double fair[AT_OUTER_REPLICAS_MAX];
    real wr[AT_OUTER_REPLICAS_MAX], ws[AT_OUTER_REPLICAS_MAX];
    token_weights(updates, n, fair);
    round_weights(fair, n, ws);
    round_weights(w, n, wr);
    struct outer o = {
        .ex = *ex, .update = updates, .w = wr, .w_stats = ws, .n = n, .first = first, .round = round, .state = state};
    o.ex.par = &at_par_serial;
    o.end = first + blocks;
    o.walkers = blocks < ex->par->threads ? blocks : ex->par->threads;
    o.readers = malloc(((size_t)o.walkers * (size_t)n + 1) * sizeof *o.readers);
    if (o.readers == NULL) return at_fail(diag, AT_E_NOMEM, "update", "no memory to read %d updates", n);
    pass(&o, ex->par, false);
    int err = judge(&o, gather, diag);
    if (err == AT_OK) pass(&o, ex->par, true);
    free(o.readers);
    return err;
}

/* ---- clipping ---- */

/* Job i: sums of squares of replica i % n in block i / n. */
static void squares_job(void *arg, int job)
{
    struct outer *o = arg;
    const struct at_params *p = o->state->params;
    int r = job % o->n, block = job / o->n;
    const struct at_block *b = &p->block[block];
    if (!at_params_owns(p, b)) return;
    struct at_codec_reader d;
    real x[AT_CODEC_CHUNK];
    double sum = 0;
    size_t n = at_block_count(b), len;
    at_update_open(&o->update[r], block, &d);
    for (size_t i = 0; i < n; i += len) {
        len = n - i < AT_CODEC_CHUNK ? n - i : AT_CODEC_CHUNK;
        d.codec->next(&d, len, x);
        for (size_t j = 0; j < len; j++) sum += (double)x[j] * (double)x[j];
    }
    o->squares[(size_t)r * (size_t)p->numbers + (size_t)at_block_number(p, b)] = sum;
}

static double lower_median(const double *x, int n)
{
    double sorted[AT_OUTER_REPLICAS_MAX];
    for (int i = 0; i < n; i++) {
        int at = i;
        for (; at > 0 && sorted[at - 1] > x[i]; at--) sorted[at] = sorted[at - 1];
        sorted[at] = x[i];
    }
    return sorted[(n - 1) / 2];
}

static at_err clip_weights(const struct at_exec *ex, struct at_state *state, const struct at_update *updates, int n,
                           const struct at_gather *gather, struct at_diag *diag, double *io_w)
{
    const struct at_params *p = state->params;
    size_t numbers = (size_t)p->numbers, count = (size_t)n * numbers;
    struct outer o = {.update = updates, .n = n, .state = state};
    o.squares = calloc(count, sizeof *o.squares);
    if (o.squares == NULL) return at_fail(diag, AT_E_NOMEM, "update", "no memory for the norms of %d updates", n);
    at_par_run(ex->par, p->blocks * n, squares_job, &o);
    int err = AT_OK;
    if (gather != NULL && gather->run != NULL) err = gather->run(gather->arg, o.squares, count, diag);
    if (err == AT_OK) {
        double norm[AT_OUTER_REPLICAS_MAX];
        for (int r = 0; r < n; r++) norm[r] = at_params_norm(p, o.squares + (size_t)r * numbers);
        double limit = lower_median(norm, n);
        for (int r = 0; r < n; r++)
            if (norm[r] > limit) io_w[r] *= limit / norm[r];
    }
    free(o.squares);
    return err;
}

/* ---- the step ---- */

/* Each is read twice and more: what is slow to decode is decoded once, as far as a quarter of the weights' bytes go. */
static void unpack(const struct at_par *par, struct at_update *updates, int n)
{
    size_t bytes_left = updates[0].params->count * sizeof(real) / 4;
    for (int r = 0; r < n && updates[r].codec->unpack != NULL; r++) {
        size_t bytes = at_kept_bytes(updates[r].params, updates[r].codec, updates[r].k);
        if (bytes > bytes_left) return;
        bytes_left -= bytes;
        at_update_unpack(&updates[r], par);
    }
}

at_err at_outer_step(const struct at_exec *ex, struct at_state *state, struct at_update *updates, int n,
                     const struct at_round *round, const struct at_gather *gather, struct at_diag *diag)
{
    double w[AT_OUTER_REPLICAS_MAX];
    int err = check_updates(state, updates, n, round, diag);
    if (err != AT_OK) return err;
    unpack(ex->par, updates, n);
    token_weights(updates, n, w);
    if (round->clip != 0) err = clip_weights(ex, state, updates, n, gather, diag, w);
    if (err == AT_OK) err = apply(ex, state, updates, n, round, w, 0, state->params->blocks, gather, diag);
    if (err == AT_OK) state->round++;
    return err;
}

at_err at_outer_blocks(const struct at_exec *ex, struct at_state *state, const struct at_update *updates, int n,
                       const struct at_round *round, int first, int blocks, struct at_diag *diag)
{
    double w[AT_OUTER_REPLICAS_MAX];
    AT_ASSERT(round->clip == 0 && first >= 0 && blocks >= 0 && blocks <= state->params->blocks - first);
    int err = check_updates(state, updates, n, round, diag);
    if (err != AT_OK) return err;
    token_weights(updates, n, w);
    return apply(ex, state, updates, n, round, w, first, blocks, NULL, diag);
}

void at_outer_skip(struct at_state *state)
{
    state->round++;
}
