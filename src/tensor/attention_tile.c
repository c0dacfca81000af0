/* attention_tile.c: causal attention over an instruction set's tile (gemm_tile.h), one head of one sequence.
 *
 * Queries are taken in tiles of 8*mr, keys in chunks whose packed form stays in the second-level cache. For a tile:
 *  - S(q, key) = Q K^T: A = Q packed, B = K packed transposed; whole rows of S are kept, for their true maximum;
 *  - O(q, d) = P V: A = P packed, B = V packed; chunk after chunk the chain goes on.
 *
 * Backward: dP = dO V^T as S; dQ = dS K as O; dV(key, d) += P^T dO and dK += dS^T Q, where P and dS are used as they
 * lie: a row of them is one step of k. Masked entries are +0, which no chain notices. A packed head is padded with zero
 * columns to whole vectors. */
#include "tensor/gemm_tile.h"

#ifndef AT_REAL64

#include <string.h>

#define Q_ROWS     (8 * AT_TILE_ROWS_MAX)
#define S_FLOATS   (256 * 1024L)
#define B_FLOATS   (64 * 1024L)
#define Q_FLOATS   (Q_ROWS * AT_HEAD_SIZE_MAX)
#define SLACK      64
#define DOTS_AHEAD 6

_Static_assert(S_FLOATS >= 2 * AT_ATTENTION_KEYS_MAX, "one row of scores fits");
_Static_assert(B_FLOATS >= AT_TILE_COLS_MAX * AT_HEAD_SIZE_MAX, "one panel of keys fits");

/* A chunk of keys or values packed as B panels; `chunk` says which one is there. */
struct packed {
    long chunk;
    float b[B_FLOATS + SLACK];
};

struct attention_scratch {
    float s[S_FLOATS + SLACK], ds[S_FLOATS + SLACK]; /* scores then P; dP then dS */
    struct packed kt, vt, k, v;
    float qt[Q_FLOATS + SLACK], dot[Q_FLOATS + SLACK]; /* Q and dO as A panels */
    float q[Q_FLOATS + SLACK], d_o[Q_FLOATS + SLACK];  /* Q and dO as B panels */
    float out[Q_FLOATS + SLACK];                       /* O before its rows are scaled */
    float edge[AT_TILE_ROWS_MAX * AT_TILE_COLS_MAX];
    float inv[Q_ROWS], big_d[Q_ROWS];
};

size_t at_attention_tiled_bytes(void)
{
    return sizeof(struct attention_scratch);
}

/* One head: where its rows are, and the sizes that the loops share. */
struct head {
    const struct at_tile_kern *kern;
    const struct at_attention *a;
    struct attention_scratch *w;
    const float *k, *v;  /* key 0 */
    long row;            /* stride of q, k, v */
    long keys, chunk;    /* all keys; keys in a chunk */
    long size, size_pad; /* head size; in whole vectors */
    long nr;
};

/* One tile of queries. */
struct queries {
    long t0, rows; /* first query, how many */
    long pos0;     /* position of the first */
    long lds;      /* row stride of S */
};

static long min_long(long a, long b)
{
    return a < b ? a : b;
}

static long round_up(long n, long step)
{
    return (n + step - 1) / step * step;
}

static long panel_width(const struct head *h, long cols)
{
    return cols > h->kern->lanes ? h->nr : h->kern->lanes;
}

static struct head head_of(const struct at_tile_kern *kern, const struct at_attention *a, long b, int kv_head,
                           struct attention_scratch *w)
{
    struct head h = {.kern = kern, .a = a, .w = w, .row = at_heads_row(&a->h), .keys = a->pos0 + a->T};
    h.k = a->kv + b * a->kv_seq_stride + at_heads_k(&a->h, kv_head);
    h.v = a->kv + b * a->kv_seq_stride + at_heads_v(&a->h, kv_head);
    h.nr = 2L * kern->lanes;
    h.size = a->h.head_size;
    h.size_pad = round_up(h.size, kern->lanes);
    h.chunk = B_FLOATS / h.size_pad / h.nr * h.nr;
    if (h.chunk > B_FLOATS / kern->mr / h.nr * h.nr) h.chunk = B_FLOATS / kern->mr / h.nr * h.nr;
    w->kt.chunk = w->vt.chunk = w->k.chunk = w->v.chunk = -1;
    return h;
}

/* Rows [0,n) of x as B panels of `size` columns each k-major over the rows: for products that sum over rows. */
static void pack_rows(const struct head *h, float *dst, const float *x, long ld, long n)
{
    for (long d = 0; d < h->size; d += h->nr) {
        const long cols = min_long(h->nr, h->size - d), width = panel_width(h, cols);
        if (cols < width) memset(dst + d * n, 0, sizeof(float) * (size_t)(n * width));
        h->kern->pack_copy(dst + d * n, width, x + d, ld, n, cols);
    }
}

/* Keys or values of a chunk as B panels whose columns are keys: for products that sum over the head. */
static const float *chunk_transposed(const struct head *h, struct packed *p, const float *x, long c0)
{
    if (p->chunk == c0) return p->b;
    p->chunk = c0;
    const long c1 = min_long(h->keys, c0 + h->chunk);
    for (long j = c0; j < c1; j += h->nr)
        h->kern->pack_transpose(p->b + (j - c0) * h->size, h->nr, x + j * h->row, h->row, h->size,
                                min_long(h->nr, c1 - j));
    return p->b;
}

static const float *chunk_rows(const struct head *h, struct packed *p, const float *x, long c0)
{
    if (p->chunk == c0) return p->b;
    p->chunk = c0;
    pack_rows(h, p->b, x + c0 * h->row, h->row, min_long(h->keys, c0 + h->chunk) - c0);
    return p->b;
}

/* A tile's query rows as the A of a product over the head. */
struct rows {
    const float *x;
    long ld, panel; /* from one row, and from one panel of mr rows, to the next */
    bool by_rows;
};

/* They serve as they lie, unless they would push each other out of the first-level cache. */
static struct rows query_rows(const struct head *h, float *packed, const float *x, long ld, long rows)
{
    const long mr = h->kern->mr;
    if (ld % 512 != 0) return (struct rows){x, ld, mr * ld, true};
    for (long i = 0; i < rows; i += mr)
        h->kern->pack_transpose(packed + i * h->size, mr, x + i * ld, ld, h->size, min_long(mr, rows - i));
    return (struct rows){packed, mr, mr * h->size, false};
}

/* S = (A . x^T) * alpha for the keys that each panel of queries may see (and up to a tile more). */
static void scores(const struct head *h, const struct queries *q, float *s, struct rows a, struct packed *p,
                   const float *x, enum at_tile_mode mode)
{
    const long mr = h->kern->mr;
    for (long c0 = 0; c0 < q->pos0 + q->rows; c0 += h->chunk) {
        const float *b = chunk_transposed(h, p, x, c0);
        for (long i = 0; i < q->rows; i += mr) {
            const long rows = min_long(mr, q->rows - i), end = min_long(c0 + h->chunk, q->pos0 + i + rows);
            for (long j = c0; j < end; j += h->nr) {
                const struct at_tile t = {.k = h->size,
                                          .a = a.x + i / mr * a.panel,
                                          .b = b + (j - c0) * h->size,
                                          .lda = a.ld,
                                          .a_rows = a.by_rows,
                                          .ldb = h->nr,
                                          .c = s + i * q->lds + j,
                                          .ldc = q->lds,
                                          .mode = mode,
                                          .alpha = h->a->scale};
                h->kern->tile((int)rows, end - j > h->kern->lanes ? 2 : 1, &t);
            }
        }
    }
}

/* A tile of C that may be narrower than the vectors. */
static void tile_narrow(const struct head *h, int rows, long cols, struct at_tile t)
{
    const int vecs = cols > h->kern->lanes ? 2 : 1;
    if (cols == (long)vecs * h->kern->lanes) {
        h->kern->tile(rows, vecs, &t);
        return;
    }
    float *c = t.c, *edge = h->w->edge;
    const long ldc = t.ldc;
    if (t.mode == AT_TILE_LOAD)
        for (int i = 0; i < rows; i++) memcpy(edge + i * AT_TILE_COLS_MAX, c + i * ldc, sizeof(float) * (size_t)cols);
    t.c = edge;
    t.ldc = AT_TILE_COLS_MAX;
    h->kern->tile(rows, vecs, &t);
    for (int i = 0; i < rows; i++) memcpy(c + i * ldc, edge + i * AT_TILE_COLS_MAX, sizeof(float) * (size_t)cols);
}

/* out(q, d) = P . x: the chain over keys. P's rows are +0 past each query, up to the end of its panel. */
static void weighted(const struct head *h, const struct queries *q, const float *s, struct packed *p, const float *x,
                     float *out, long ld)
{
    const long mr = h->kern->mr;
    for (long c0 = 0; c0 < q->pos0 + q->rows; c0 += h->chunk) {
        const float *b = chunk_rows(h, p, x, c0);
        const long packed = min_long(h->keys, c0 + h->chunk) - c0;
        for (long i = 0; i < q->rows; i += mr) {
            const long rows = min_long(mr, q->rows - i), n = min_long(packed, q->pos0 + i + rows - c0);
            if (n <= 0) continue;
            for (long d = 0; d < h->size; d += h->nr) {
                const long cols = min_long(h->nr, h->size - d);
                const struct at_tile t = {.k = n,
                                          .a = s + i * q->lds + c0,
                                          .b = b + d * packed,
                                          .lda = q->lds,
                                          .a_rows = true,
                                          .ldb = panel_width(h, cols),
                                          .c = out + i * ld + d,
                                          .ldc = ld,
                                          .mode = c0 ? AT_TILE_LOAD : AT_TILE_STORE};
                tile_narrow(h, (int)rows, cols, t);
            }
        }
    }
}

/* The next tile of queries: as many as the score buffer holds rows for. */
static struct queries next_queries(const struct head *h, long t0)
{
    struct queries q = {.t0 = t0, .pos0 = h->a->pos0 + t0};
    q.rows = min_long(8L * h->kern->mr, h->a->T - t0);
    q.lds = round_up(q.pos0 + q.rows, h->nr) + h->kern->lanes; /* never so that rows push each other out of a cache */
    if (q.rows * q.lds > S_FLOATS) q.rows = S_FLOATS / q.lds;
    return q;
}

/* Row i of the next tile, a few lines at a time between other work. */
static void fetch_row(const struct head *h, const struct queries *q, const float *x, long ld, long i)
{
    if (q->t0 + q->rows + i >= h->a->T) return;
    for (long d = 0; d < h->size; d += 16) __builtin_prefetch(x + (q->rows + i) * ld + d);
}

/* S to P in place; the row's scale 1/l is kept for the output. */
static void softmax_tile(const struct head *h, const struct queries *q, long b, int head)
{
    const struct at_attention *a = h->a;
    const long mr = h->kern->mr;
    for (long i = 0; i < q->rows; i++) {
        float *s = h->w->s + i * q->lds;
        const long n = q->pos0 + i + 1, end = q->pos0 + min_long(q->rows, (i / mr + 1) * mr);
        const long r = (b * a->T + q->t0 + i) * a->h.heads + head;
        fetch_row(h, q, a->qkv + (b * a->T + q->t0) * h->row + at_heads_q(&a->h, head), h->row, i);
        const float max = a->rows->row_max(s, n), sum = a->rows->softmax_row(s, s, n, max);
        memset(s + n, 0, sizeof(float) * (size_t)(end - n));
        h->w->inv[i] = 1.0f / sum;
        if (a->row_max) a->row_max[r] = max;
        if (a->row_sum) a->row_sum[r] = sum;
    }
}

void at_attention_tiled_forward(const struct at_tile_kern *kern, const struct at_attention *a, long b, int head,
                                void *scratch)
{
    struct attention_scratch *w = scratch;
    const struct head h = head_of(kern, a, b, head / (a->h.heads / a->h.kv_heads), w);
    struct queries q;
    for (long t = 0; t < a->T; t += q.rows) {
        q = next_queries(&h, t);
        const long r = b * a->T + t;
        const float *x = a->qkv + r * h.row + at_heads_q(&a->h, head);
        scores(&h, &q, w->s, query_rows(&h, w->qt, x, h.row, q.rows), &w->kt, h.k, AT_TILE_SCALE);
        softmax_tile(&h, &q, b, head);
        weighted(&h, &q, w->s, &w->v, h.v, w->out, h.size_pad);
        for (long i = 0; i < q.rows; i++) {
            float *o = a->o + ((r + i) * a->h.heads + head) * h.size;
            kern->scale(o, w->out + i * h.size_pad, h.size, w->inv[i]);
        }
    }
}

/* big_d = dO . O of every query of the tile, which softmax_backward_tile needs. All at once: their rows lie far apart, and
 * so are fetched some ahead. */
static void output_dots(const struct head *h, const struct queries *q, long b, int head)
{
    const struct at_attention *a = h->a;
    const long ld = a->h.heads * h->size, at = (b * a->T + q->t0) * ld + head * h->size;
    for (long i = 0; i < q->rows; i++) {
        if (i + DOTS_AHEAD < q->rows)
            for (long d = 0; d < h->size; d += 16) __builtin_prefetch(a->o_kept + at + (i + DOTS_AHEAD) * ld + d);
        h->w->big_d[i] = a->rows->dot_row(a->d_o + at + i * ld, a->o_kept + at + i * ld, h->size);
    }
}

/* P and dS of a tile of queries, rows +0 past each query up to the end of its panel. */
static void softmax_backward_tile(const struct head *h, const struct queries *q, long b, int head)
{
    const struct at_attention *a = h->a;
    const long at = b * a->T + q->t0, mr = h->kern->mr;
    for (long i = 0; i < q->rows; i++) {
        float *p = h->w->s + i * q->lds, *ds = h->w->ds + i * q->lds;
        const long n = q->pos0 + i + 1, end = q->pos0 + min_long(q->rows, (i / mr + 1) * mr);
        const long r = (b * a->T + q->t0 + i) * a->h.heads + head;
        fetch_row(h, q, a->qkv + at * h->row + at_heads_q(&a->h, head), h->row, i);
        fetch_row(h, q, a->d_o + (at * a->h.heads + head) * h->size, a->h.heads * h->size, i);
        fetch_row(h, q, a->o_kept + (at * a->h.heads + head) * h->size, a->h.heads * h->size, i);
        a->rows->exp_scale_row(p, p, n, a->max_kept[r], 1.0f / a->sum_kept[r]);
        h->kern->softmax_back(ds, p, n, h->w->big_d[i], a->scale);
        for (long j = n; j < end; j++) p[j] = ds[j] = 0;
    }
}

/* d(key, :) goes on with the sum over this tile's queries of s(q, key) * x(q, :), for the keys they may see. The tile's
 * own keys come in panels like its queries: each starts with the first query that sees it, and, for the first head of a
 * group, its chain starts here. */
static void key_gradient(const struct head *h, const struct queries *q, float *d_key, const float *s, const float *x,
                         bool first_of_group)
{
    const long mr = h->kern->mr, keys = q->pos0 + q->rows;
    for (long j = 0, rows; j < keys; j += rows) {
        const bool own = j >= q->pos0;
        const long from = own ? j - q->pos0 : 0;
        rows = min_long(mr, (own ? keys : q->pos0) - j);
        for (long d = 0; d < h->size; d += h->nr) {
            const long cols = min_long(h->nr, h->size - d), width = panel_width(h, cols);
            const struct at_tile t = {.k = q->rows - from,
                                      .a = s + from * q->lds + j,
                                      .lda = q->lds,
                                      .b = x + d * q->rows + from * width,
                                      .ldb = width,
                                      .c = d_key + j * h->row + d,
                                      .ldc = h->row,
                                      .mode = own && first_of_group ? AT_TILE_STORE : AT_TILE_LOAD};
            tile_narrow(h, (int)rows, cols, t);
        }
    }
}

static void backward_queries(const struct head *h, const struct queries *q, long b, int head, float *dk, float *dv)
{
    const struct at_attention *a = h->a;
    const bool first_of_group = head % (a->h.heads / a->h.kv_heads) == 0;
    struct attention_scratch *w = h->w;
    const long r = b * a->T + q->t0, o_row = a->h.heads * h->size, q_at = r * h->row + at_heads_q(&a->h, head);
    const float *x = a->qkv + q_at, *d_o = a->d_o + r * o_row + head * h->size;
    pack_rows(h, w->q, x, h->row, q->rows);
    pack_rows(h, w->d_o, d_o, o_row, q->rows);
    output_dots(h, q, b, head);
    scores(h, q, w->s, query_rows(h, w->qt, x, h->row, q->rows), &w->kt, h->k, AT_TILE_SCALE);
    scores(h, q, w->ds, query_rows(h, w->dot, d_o, o_row, q->rows), &w->vt, h->v, AT_TILE_STORE);
    softmax_backward_tile(h, q, b, head);
    key_gradient(h, q, dv, w->s, w->d_o, first_of_group);
    key_gradient(h, q, dk, w->ds, w->q, first_of_group);
    weighted(h, q, w->ds, &w->k, h->k, a->d_qkv + q_at, h->row);
}

void at_attention_tiled_backward(const struct at_tile_kern *kern, const struct at_attention *a, long b, int kv_head,
                                 void *scratch)
{
    const struct head h = head_of(kern, a, b, kv_head, scratch);
    const int group = a->h.heads / a->h.kv_heads;
    float *dk = a->d_qkv + (h.k - a->qkv), *dv = a->d_qkv + (h.v - a->qkv);
    struct queries q;
    for (int g = 0; g < group; g++)
        for (long t = 0; t < a->T; t += q.rows) {
            q = next_queries(&h, t);
            backward_queries(&h, &q, b, kv_head * group + g, dk, dv);
        }
}

#endif
