#include "train/outer.h"

#include "tensor/ops.h"

#include <string.h>

enum { STACK_REALS = 4096 }; /* one run of elements, on the stack */

struct outer {
    struct at_exec ex; /* one thread: runs are short */
    const struct at_update *update;
    const real *w;
    int n;
};

/* Elements [from, from + len) of one block: a = +0, for r ascending a = fma(w_r, x_r, a); then y = fma(-1, a, y) for
 * weights, y = a for statistics. len <= STACK_REALS. */
static void combine(const struct outer *o, bool stats, size_t from, size_t len, real *y)
{
    real x[STACK_REALS], a[STACK_REALS];
    memset(a, 0, len * sizeof *a);
    for (int r = 0; r < o->n; r++) {
        const struct at_update *u = &o->update[r];
        if (stats)
            u->codec->decode_stats(u->params, u->payload, from, len, x);
        else
            u->codec->decode(u->params, u->payload, from, len, x);
        at_axpy(&o->ex, a, o->w[r], x, (long)len);
    }
    if (stats)
        memcpy(y, a, len * sizeof *y);
    else
        at_axpy(&o->ex, y, -1, a, (long)len); /* alpha = 1 */
}

/* One block's elements, run by run. When `keep` is false the results are only looked at: false if one is not finite. */
static bool walk(const struct outer *o, bool stats, size_t from, size_t n, real *values, bool keep)
{
    real y[STACK_REALS];
    size_t run = STACK_REALS;
    for (size_t i = 0; i < n; i += run) {
        size_t len = n - i < run ? n - i : run;
        memcpy(y, values + i, len * sizeof *y);
        combine(o, stats, from + i, len, y);
        if (keep)
            memcpy(values + i, y, len * sizeof *y);
        else if (!at_all_finite(&o->ex, y, (long)len))
            return false;
    }
    return true;
}

static at_err pass(const struct outer *o, struct at_state *state, bool keep, struct at_diag *diag)
{
    const struct at_params *p = state->params;
    size_t stats_at = 0;
    for (int i = 0; i < p->blocks; i++) {
        const struct at_block *b = &p->block[i];
        size_t k = at_block_stats_count(p, b);
        if (!walk(o, false, b->offset, at_block_count(b), state->theta + b->offset, keep) ||
            !walk(o, true, stats_at, k, state->stats + stats_at, keep))
            return at_fail(diag, AT_E_NONFINITE, at_tensor_name(p, b->tensor).s,
                           "layer %d: the outer step makes a value that is not finite", p->tensor[b->tensor].layer);
        stats_at += k;
    }
    return AT_OK;
}

at_err at_outer_step(const struct at_exec *ex, struct at_state *state, const struct at_update *updates, int n,
                     struct at_diag *diag)
{
    AT_ASSERT(n >= 1 && n <= AT_OUTER_REPLICAS_MAX);
    real w[AT_OUTER_REPLICAS_MAX];
    uint64_t tokens = 0;
    for (int r = 0; r < n; r++) {
        AT_ASSERT(updates[r].params == state->params);
        if (updates[r].info.round != state->round)
            return at_fail(diag, AT_E_DATA, "update", "update %d is of round %u, not %u", r, updates[r].info.round,
                           state->round);
        tokens += updates[r].info.tokens;
    }
    for (int r = 0; r < n; r++) w[r] = (real)((double)updates[r].info.tokens / (double)tokens);
    struct outer o = {.ex = *ex, .update = updates, .w = w, .n = n};
    o.ex.par = &at_par_serial;
    int err = pass(&o, state, false, diag);
    if (err == AT_OK) err = pass(&o, state, true, diag);
    if (err == AT_OK) state->round++;
    return err;
}

void at_outer_skip(struct at_state *state)
{
    state->round++;
}
