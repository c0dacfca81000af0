#include "train/outer.h"

#include "tensor/ops.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum { STACK_REALS = 4096 }; /* one run of elements, on the stack */

struct outer {
    struct at_exec ex; /* one thread: a block is one job */
    const struct at_update *update;
    const real *w;
    int n;
    struct at_state *state;
    bool keep;      /* false: the results are only looked at */
    atomic_int bad; /* the first block with a result that is not finite */
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

static bool all_finite(const real *x, size_t n)
{
    bool finite = true;
    for (size_t i = 0; i < n; i++) finite &= isfinite(x[i]) != 0;
    return finite;
}

/* One block's elements, run by run. False if it only looks, and one is not finite. */
static bool walk(const struct outer *o, bool stats, size_t from, size_t n, real *values)
{
    real y[STACK_REALS];
    size_t run = STACK_REALS;
    for (size_t i = 0; i < n; i += run) {
        size_t len = n - i < run ? n - i : run;
        memcpy(y, values + i, len * sizeof *y);
        combine(o, stats, from + i, len, y);
        if (o->keep)
            memcpy(values + i, y, len * sizeof *y);
        else if (!all_finite(y, len))
            return false;
    }
    return true;
}

static void block_job(void *arg, int block)
{
    struct outer *o = arg;
    const struct at_params *p = o->state->params;
    const struct at_block *b = &p->block[block];
    size_t stats_at = at_block_stats_offset(p, block);
    if (walk(o, false, b->offset, at_block_count(b), o->state->theta + b->offset) &&
        walk(o, true, stats_at, at_block_stats_count(p, b), o->state->stats + stats_at))
        return;
    int seen = atomic_load(&o->bad); /* threads may finish in any order: the lowest block is named */
    while (block < seen && !atomic_compare_exchange_weak(&o->bad, &seen, block)) continue;
}

static at_err pass(struct outer *o, const struct at_par *par, bool keep, struct at_diag *diag)
{
    const struct at_params *p = o->state->params;
    o->keep = keep;
    atomic_init(&o->bad, p->blocks);
    at_par_run(par, p->blocks, block_job, o);
    int bad = atomic_load(&o->bad);
    if (bad == p->blocks) return AT_OK;
    return at_fail(diag, AT_E_NONFINITE, at_tensor_name(p, p->block[bad].tensor).s,
                   "%s: the outer step makes a value that is not finite", at_tensor_place(p, p->block[bad].tensor).s);
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
    struct outer o = {.ex = *ex, .update = updates, .w = w, .n = n, .state = state};
    o.ex.par = &at_par_serial;
    int err = pass(&o, ex->par, false, diag);
    if (err == AT_OK) err = pass(&o, ex->par, true, diag);
    if (err == AT_OK) state->round++;
    return err;
}

void at_outer_skip(struct at_state *state)
{
    state->round++;
}
