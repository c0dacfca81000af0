/* tile_body.h: the tile of gemm_tile.h, written over one register type; included by gemm_avx2.c, gemm_avx512.c and
 * gemm_neon.c, which define before it
 *   MR, LANES            rows of a full tile, floats in a register; ROWS(X): X(1) ... X(MR)
 *   tv                   the register type, and tv_zero() tv_load(p) tv_store(p, x) tv_every(p) tv_fma(x, y, z)
 *                        tv_add(x, y) tv_mul(x, y), every(p): *p in all lanes
 *   UNROLL_ROWS          the pragma that unrolls a loop over rows whole
 *   TILE_ROW, TILE_STEP  only where the file has a tile_row() or a tile_step() of its own
 * and the functions that tile_kern lists, called isa_*. All accumulators stay in registers: one function for each
 * number of rows and registers; what *t says is read once, for all a compiler knows a store to C might change it. */

#ifdef __clang__ /* told a number instead of "full", clang keeps the accumulators in memory */
#define UNROLL_FULL _Pragma("clang loop unroll(full)")
#define UNROLL_ROWS UNROLL_FULL
#else
#define UNROLL_FULL _Pragma("GCC unroll 32")
#define UNROLL_ROWS UNROLL_FULL
#endif
#define EACH_ROW    UNROLL_ROWS for (int i = 0; i < rows; i++)
#define EACH_VEC    UNROLL_FULL for (int v = 0; v < vecs; v++)
#define TILE_INLINE static inline __attribute__((always_inline))
#define FETCH_STEPS 8 /* so many steps ahead operands are fetched from the second-level cache */

TILE_INLINE void tile_zero(const int rows, const int vecs, tv acc[MR][2])
{
    EACH_ROW EACH_VEC acc[i][v] = tv_zero();
}

/* acc = acc + rows of c, or the other way round: the same bits. */
TILE_INLINE void tile_plus(const int rows, const int vecs, tv acc[MR][2], const float *c, const long ldc)
{
    EACH_ROW EACH_VEC acc[i][v] = tv_add(tv_load(c + i * ldc + v * LANES), acc[i][v]);
}

TILE_INLINE void tile_put(const int rows, const int vecs, tv acc[MR][2], float *c, const long ldc)
{
    EACH_ROW EACH_VEC tv_store(c + i * ldc + v * LANES, acc[i][v]);
}

#ifndef TILE_ROW
TILE_INLINE void tile_row(const int vecs, tv *acc, const float *a, const tv *b)
{
    const tv x = tv_every(a);
    EACH_VEC acc[v] = tv_fma(x, b[v], acc[v]);
}
#endif

#ifndef TILE_STEP
TILE_INLINE void tile_step(const int rows, const int vecs, tv acc[MR][2], const float *a, const float *b)
{
    tv bv[2];
    EACH_VEC bv[v] = tv_load(b + v * LANES);
    EACH_ROW tile_row(vecs, acc[i], a + i, bv);
}
#endif

/* The operands of a chain: from step to step A moves on by lda, or by 1 if it lies by rows, and B by ldb. keeps: what is
 * read of A goes to `keep`, as a packed panel. Strides, rows and flags are mostly constants that the compiler knows. */
struct tile_walk {
    const float *a, *b;
    const float *row[5]; /* by rows: 0, 3, 6, 9, 12; their addresses reach fourteen rows */
    float *keep;
    /* C is not needed before the chain ends: its rows are fetched while it runs, one with every fourth step, for a burst
     * of misses would hold up the chain. After them, in the same way, what the driver will want soon. */
    const float *c;
    int c_rows;
    struct at_ahead ahead, after;
};

TILE_INLINE void walk_step(const int rows, const int vecs, tv acc[MR][2], struct tile_walk *w, const bool by_rows,
                           const long lda, const long ldb, const bool keeps)
{
    EACH_VEC __builtin_prefetch(w->b + FETCH_STEPS * ldb + v * LANES);
    if (by_rows) {
        tv bv[2];
        EACH_VEC bv[v] = tv_load(w->b + v * LANES);
        EACH_ROW
        {
            tile_row(vecs, acc[i], w->row[i / 3] + i % 3 * lda, bv);
            if (keeps) w->keep[i] = w->row[i / 3][i % 3 * lda];
        }
        UNROLL_FULL for (int i = 0; i < 5; i++) w->row[i]++;
    } else {
        __builtin_prefetch(w->a + FETCH_STEPS * lda);
        tile_step(rows, vecs, acc, w->a, w->b);
        if (keeps) memcpy(w->keep, w->a, sizeof(float) * (size_t)rows);
        w->a += lda;
    }
    w->b += ldb;
    if (keeps) w->keep += MR;
}

/* Walks k steps. */
TILE_INLINE void tile_chain(const int rows, const int vecs, tv acc[MR][2], struct tile_walk *w, const bool by_rows,
                            const long lda, const long ldb, const bool keeps, const long ldc, long k)
{
    for (; k >= 4; k -= 4) {
        walk_step(rows, vecs, acc, w, by_rows, lda, ldb, keeps);
        if (w->c_rows > 0) {
            __builtin_prefetch(w->c, 1);
            if (vecs * LANES > 16) __builtin_prefetch(w->c + 16, 1);
            w->c += ldc;
            w->c_rows--;
        } else if (w->ahead.floats > 0) {
            __builtin_prefetch(w->ahead.p, 0, 2);
            w->ahead.p += 16;
            w->ahead.floats -= 16;
            if (w->ahead.floats <= 0) {
                w->ahead = w->after;
                w->after.floats = 0;
            }
        }
        walk_step(rows, vecs, acc, w, by_rows, lda, ldb, keeps);
        walk_step(rows, vecs, acc, w, by_rows, lda, ldb, keeps);
        walk_step(rows, vecs, acc, w, by_rows, lda, ldb, keeps);
    }
    for (; k > 0; k--) walk_step(rows, vecs, acc, w, by_rows, lda, ldb, keeps);
}

TILE_INLINE struct tile_walk walk_of(const struct at_tile *t, const int rows, const bool by_rows, const long lda)
{
    struct tile_walk w = {.a = t->a, .b = t->b, .keep = t->keep, .c = t->c, .c_rows = rows};
    w.ahead = t->ahead[t->ahead[0].floats > 0 ? 0 : 1];
    if (t->ahead[0].floats > 0) w.after = t->ahead[1];
    UNROLL_FULL for (int i = 0; i < 5; i++) w.row[i] = by_rows && 3 * i < rows ? t->a + 3 * i * lda : t->a;
    return w;
}

TILE_INLINE void tile(const int rows, const int vecs, const struct at_tile *t, const bool by_rows, const long lda,
                      const long ldb, const bool keeps)
{
    tv acc[MR][2];
    float *const c = t->c;
    const long ldc = t->ldc;
    const enum at_tile_mode mode = t->mode;
    const tv alpha = tv_every(&t->alpha);
    struct tile_walk w = walk_of(t, rows, by_rows, lda);
    tile_zero(rows, vecs, acc);
    if (mode == AT_TILE_LOAD) EACH_ROW EACH_VEC acc[i][v] = tv_load(c + i * ldc + v * LANES);
    tile_chain(rows, vecs, acc, &w, by_rows, lda, ldb, keeps, ldc, t->k);
    EACH_ROW EACH_VEC acc[i][v] = tv_add(acc[i][v], tv_zero());
    if (mode == AT_TILE_ADD) tile_plus(rows, vecs, acc, c, ldc);
    if (mode == AT_TILE_SCALE) EACH_ROW EACH_VEC acc[i][v] = tv_mul(acc[i][v], alpha);
    tile_put(rows, vecs, acc, c, ldc);
}

/* A slot's chain ends as acc; subtrees that are whole wait in part[level]. The + (+0) of rule 2 is done once, at the
 * end: on the way it could only change zeros' signs, and a sum is -0 only when both parts are. */
TILE_INLINE void slots(const int rows, const int vecs, const struct at_tile *t, const bool by_rows, const long lda,
                       const long ldb, const bool keeps, const int count,
                       float (*part)[AT_TILE_ROWS_MAX * AT_TILE_COLS_MAX])
{
    tv acc[MR][2];
    float *const c = t->c;
    const long ldc = t->ldc, k = t->k;
    struct tile_walk w = walk_of(t, rows, by_rows, lda);
    for (int s = 0;; s++) {
        int level = 0;
        tile_zero(rows, vecs, acc);
        tile_chain(rows, vecs, acc, &w, by_rows, lda, ldb, keeps, ldc, k);
        for (; s >> level & 1; level++) tile_plus(rows, vecs, acc, part[level], AT_TILE_COLS_MAX);
        if (s + 1 == count) break;
        tile_put(rows, vecs, acc, part[level], AT_TILE_COLS_MAX);
    }
    EACH_ROW EACH_VEC acc[i][v] = tv_add(acc[i][v], tv_zero());
    tile_put(rows, vecs, acc, c, ldc);
}

typedef void tile_fn(const struct at_tile *t);
typedef void slots_fn(const struct at_tile *t, int count, float (*part)[AT_TILE_ROWS_MAX * AT_TILE_COLS_MAX]);

#define X(n)                                                                                                           \
    static void tile_##n##_1(const struct at_tile *t)                                                                  \
    {                                                                                                                  \
        tile(n, 1, t, t->a_rows, t->lda, t->ldb, false);                                                               \
    }                                                                                                                  \
    static void tile_##n##_2(const struct at_tile *t)                                                                  \
    {                                                                                                                  \
        tile(n, 2, t, t->a_rows, t->lda, t->ldb, false);                                                               \
    }                                                                                                                  \
    static void slots_##n##_1(const struct at_tile *t, int count, float(*part)[AT_TILE_ROWS_MAX * AT_TILE_COLS_MAX])   \
    {                                                                                                                  \
        slots(n, 1, t, t->a_rows, t->lda, t->ldb, false, count, part);                                                 \
    }                                                                                                                  \
    static void slots_##n##_2(const struct at_tile *t, int count, float(*part)[AT_TILE_ROWS_MAX * AT_TILE_COLS_MAX])   \
    {                                                                                                                  \
        slots(n, 2, t, t->a_rows, t->lda, t->ldb, false, count, part);                                                 \
    }
ROWS(X)
#undef X

/* The tiles that do nearly all of the work, and those that pack A for them. */
#define X(name, by_rows, lda, keeps)                                                                                   \
    static void tile_##name(const struct at_tile *t)                                                                   \
    {                                                                                                                  \
        tile(MR, 2, t, by_rows, lda, 2L * LANES, keeps);                                                               \
    }                                                                                                                  \
    static void slots_##name(const struct at_tile *t, int count, float(*part)[AT_TILE_ROWS_MAX * AT_TILE_COLS_MAX])    \
    {                                                                                                                  \
        slots(MR, 2, t, by_rows, lda, 2L * LANES, keeps, count, part);                                                 \
    }
X(packed, false, MR, false)
X(by_rows, true, t->lda, false)
X(packs, false, t->lda, true)
X(packs_rows, true, t->lda, true)
#undef X

static bool tile_full(int rows, int vecs, const struct at_tile *t)
{
    return rows == MR && vecs == 2 && t->ldb == 2L * LANES;
}

static void isa_tile(int rows, int vecs, const struct at_tile *t)
{
    static tile_fn *const fn[MR + 1][2] = {{0},
#define X(n) {tile_##n##_1, tile_##n##_2},
                                           ROWS(X)
#undef X
    };
    if (!tile_full(rows, vecs, t)) {
        AT_ASSERT(t->keep == NULL);
        fn[rows][vecs - 1](t);
    } else if (t->keep != NULL) {
        (t->a_rows ? tile_packs_rows : tile_packs)(t);
    } else if (t->a_rows || t->lda == MR) {
        (t->a_rows ? tile_by_rows : tile_packed)(t);
    } else {
        fn[rows][vecs - 1](t);
    }
}

static void isa_tile_slots(int rows, int vecs, const struct at_tile *t, int count,
                           float (*part)[AT_TILE_ROWS_MAX * AT_TILE_COLS_MAX])
{
    static slots_fn *const fn[MR + 1][2] = {{0},
#define X(n) {slots_##n##_1, slots_##n##_2},
                                            ROWS(X)
#undef X
    };
    if (!tile_full(rows, vecs, t)) {
        AT_ASSERT(t->keep == NULL);
        fn[rows][vecs - 1](t, count, part);
    } else if (t->keep != NULL) {
        (t->a_rows ? slots_packs_rows : slots_packs)(t, count, part);
    } else if (t->a_rows || t->lda == MR) {
        (t->a_rows ? slots_by_rows : slots_packed)(t, count, part);
    } else {
        fn[rows][vecs - 1](t, count, part);
    }
}

static void isa_add(float *x, long ldx, const float *y, long ldy, int rows, int vecs)
{
    for (int i = 0; i < rows; i++, x += ldx, y += ldy)
        for (int v = 0; v < vecs; v++) tv_store(x + v * LANES, tv_add(tv_load(x + v * LANES), tv_load(y + v * LANES)));
}

static double isa_peak(long iterations)
{
    const float half = 0.5f, one = 1.0f;
    tv acc[12];
    const tv x = tv_every(&half), y = tv_every(&one);
    float start[12][LANES]; /* no two alike, so that none is computed for two */
    for (int i = 0; i < 12 * LANES; i++) start[i / LANES][i % LANES] = (float)i;
    UNROLL_FULL for (int i = 0; i < 12; i++) acc[i] = tv_load(start[i]);
    for (long it = 0; it < iterations; it++) {
        UNROLL_FULL for (int i = 0; i < 12; i++) acc[i] = tv_fma(acc[i], x, y);
    }
    tv sum = acc[0];
    for (int i = 1; i < 12; i++) sum = tv_add(sum, acc[i]);
    float out[LANES];
    tv_store(out, sum);
    volatile float sink = out[0] + out[LANES - 1]; /* the loop must not be optimised away, nor a half of it */
    (void)sink;
    return (double)iterations * 12 * LANES * 2;
}

static const struct at_tile_kern tile_kern = {
    .mr = MR,
    .lanes = LANES,
    .tile = isa_tile,
    .tile_slots = isa_tile_slots,
    .pack_copy = isa_pack_copy,
    .pack_transpose = isa_pack_transpose,
    .add = isa_add,
    .scale = isa_scale,
    .softmax_back = isa_softmax_back,
};

static void isa_gemm(const struct at_gemm *g, struct at_gemm_part part, void *scratch)
{
    at_gemm_tiled(&tile_kern, g, part, scratch);
}

static void isa_attention_forward(const struct at_attention *a, long b, int head, void *scratch)
{
    at_attention_tiled_forward(&tile_kern, a, b, head, scratch);
}

static void isa_attention_backward(const struct at_attention *a, long b, int kv_head, void *scratch)
{
    at_attention_tiled_backward(&tile_kern, a, b, kv_head, scratch);
}
