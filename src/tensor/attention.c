/* attention.c: causal attention (ops.h): spreads heads over the threads; each head is one kernel call. */
#include "tensor/gemm_kern.h"
#include "tensor/gemm_tile.h"

static size_t scratch_one(void)
{
    size_t n = at_attention_ref_bytes();
#ifndef AT_REAL64
    if (at_attention_tiled_bytes() > n) n = at_attention_tiled_bytes();
#endif
    return (n + 63) / 64 * 64;
}

size_t at_attention_scratch_bytes(int threads)
{
    return scratch_one() * (size_t)threads;
}

/* `items` = B * heads (or key/value heads) calls, shared by `jobs` jobs in contiguous runs. */
struct spread {
    const struct at_exec *ex;
    struct at_attention a;
    int per_seq, jobs;
    long items;
    bool backward;
};

static void run_job(void *arg, int job)
{
    const struct spread *s = arg;
    const struct at_gemm_kern *kern = s->ex->kern->gemm;
    void *scratch = (char *)s->ex->scratch + scratch_one() * (size_t)job;
    for (long i = s->items * job / s->jobs; i < s->items * (job + 1) / s->jobs; i++)
        (s->backward ? kern->attention_backward : kern->attention_forward)(&s->a, i / s->per_seq, (int)(i % s->per_seq),
                                                                           scratch);
}

static void run(struct spread *s)
{
    const struct at_heads *h = &s->a.h;
    AT_ASSERT(s->a.B >= 1 && s->a.T >= 1 && s->a.pos0 >= 0 && s->a.pos0 + s->a.T <= AT_ATTENTION_KEYS_MAX);
    AT_ASSERT(h->head_size >= 1 && h->head_size <= AT_HEAD_SIZE_MAX && h->kv_heads >= 1 && h->slots >= 1);
    AT_ASSERT(h->heads % h->kv_heads == 0 && h->kv_heads % h->slots == 0);
    AT_ASSERT(s->ex->scratch_bytes >= at_attention_scratch_bytes(s->ex->par->threads));
    s->per_seq = s->backward ? h->kv_heads : h->heads;
    s->items = s->a.B * s->per_seq;
    s->jobs = s->items < s->ex->par->threads ? (int)s->items : s->ex->par->threads;
    if (s->jobs == 1) {
        run_job(s, 0);
    } else {
        at_par_run(s->ex->par, s->jobs, run_job, s);
    }
}

void at_attention_forward(const struct at_exec *ex, real *o, real *row_max, real *row_sum, const real *qkv,
                          const real *kv, long kv_seq_stride, const struct at_heads *h, long B, long T, long pos0,
                          real scale)
{
    struct spread s = {.ex = ex,
                       .a = {.o = o,
                             .row_max = row_max,
                             .row_sum = row_sum,
                             .qkv = qkv,
                             .kv = kv,
                             .kv_seq_stride = kv_seq_stride,
                             .h = *h,
                             .B = B,
                             .T = T,
                             .pos0 = pos0,
                             .scale = scale,
                             .rows = ex->kern->rows}};
    run(&s);
}

void at_attention_backward(const struct at_exec *ex, real *d_qkv, const real *d_o, const real *o, const real *qkv,
                           const real *row_max, const real *row_sum, const struct at_heads *h, long B, long T,
                           real scale)
{
    struct spread s = {.ex = ex,
                       .backward = true,
                       .a = {.d_qkv = d_qkv,
                             .d_o = d_o,
                             .o_kept = o,
                             .qkv = qkv,
                             .max_kept = row_max,
                             .sum_kept = row_sum,
                             .kv = qkv,
                             .kv_seq_stride = T * at_heads_row(h),
                             .h = *h,
                             .B = B,
                             .T = T,
                             .scale = scale,
                             .rows = ex->kern->rows}};
    run(&s);
}
