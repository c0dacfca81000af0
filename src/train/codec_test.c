/* The range coder against the entropy, the lossy codecs against their pages written out slowly, and hostile bytes. */
#include "tensor/emath.h"
#include "train/codec_lossy.h"
#include "train/range_code.h"
#include "train/stats_code.h"
#include "train/train_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static double unit(uint32_t sub, uint64_t i)
{
    struct at_philox x = at_philox(77, AT_RNG_TEST, sub, i);
    return at_rng_unit(x.v[0], x.v[1]);
}

/* About normal, now and then zero or large. */
static float value(uint32_t sub, uint64_t i)
{
    double sum = -6;
    for (uint64_t k = 0; k < 12; k++) sum += unit(sub, 16 * i + k);
    if (unit(sub, 16 * i + 13) < 0.01) sum *= 20;
    return unit(sub, 16 * i + 14) < 0.05 ? 0 : (float)(1e-3 * sum);
}

/* ---- the range coder ---- */

static void test_range_coder_is_tight(void **state)
{
    enum { N = 30000 };
    struct at_buf out = {0};
    struct at_range_writer w;
    struct at_range_reader r = {0};
    for (uint32_t total = 2; total <= 1u << 16; total *= 8) {
        double bits = 0;
        at_buf_clear(&out);
        at_range_begin(&w, &out);
        for (int pass = 0; pass < 2; pass++) {
            if (pass == 1) assert_int_equal(at_range_end(&w), AT_OK);
            if (pass == 1) at_range_open(&r, at_buf_span(&out));
            for (uint64_t i = 0; i < N; i++) { /* symbols of changing likelihood: [0,a) [a,b) [b,total) */
                uint32_t a = (uint32_t)(unit(1, 2 * i) * total), b = a + (uint32_t)(unit(1, 2 * i + 1) * (total - a));
                uint32_t at = (uint32_t)(unit(2, i) * total);
                uint32_t start = at < a ? 0 : at < b ? a : b, end = at < a ? a : at < b ? b : total;
                if (pass == 0) {
                    at_range_put(&w, start, end - start, total);
                    bits -= log2((double)(end - start) / total);
                } else {
                    uint32_t got = at_range_peek(&r, total);
                    assert_true(got >= start && got < end);
                    at_range_skip(&r, start, end - start, total);
                }
            }
        }
        assert_true(r.at == r.end);
        assert_true(8.0 * (double)out.n <= bits * 1.003 + 16);
    }
    /* Runs of the likeliest symbol make carries of many bytes; a run of zeros ends in no bytes at all. */
    for (int one = 0; one < 2; one++) {
        at_buf_clear(&out);
        at_range_begin(&w, &out);
        for (int i = 0; i < 5000; i++) at_range_put_bit(&w, one, one ? 65535 : 1, 65536);
        assert_int_equal(at_range_end(&w), AT_OK);
        assert_true(out.n <= 1);
        at_range_open(&r, at_buf_span(&out));
        for (int i = 0; i < 5000; i++) assert_int_equal(at_range_bit(&r, one ? 65535 : 1, 65536), one);
    }
    at_buf_release(&out);
}

static void test_learned_numbers(void **state)
{
    enum { N = 4000 };
    struct at_buf out = {0};
    struct at_range_writer w;
    struct at_range_reader r = {0};
    struct at_range_int m;
    at_range_begin(&w, &out);
    at_range_int_init(&m);
    int x[N];
    double count[64] = {0}, bits = 0;
    for (uint64_t i = 0; i < N; i++) {
        double u = unit(3, 2 * i);
        x[i] = (int)(floor(log(u + 1e-12) / log(0.5)) * (unit(3, 2 * i + 1) < 0.7 ? 1 : -1));
        if (i % 500 == 7) x[i] = (int)(unit(4, i) * 8191) - 4095;
        if (i < 6) x[i] = (int[]){4095, -4095, 12, 13, -13, 0}[i];
        if (abs(x[i]) < 30) count[x[i] + 30]++;
        at_range_put_int(&w, &m, x[i]);
    }
    assert_int_equal(at_range_end(&w), AT_OK);
    for (int i = 0; i < 64; i++)
        if (count[i] > 0) bits -= count[i] * log2(count[i] / N);
    assert_true(8.0 * (double)out.n < bits * 1.1 + 8 * 40); /* eight large ones are at most 40 bits each */
    at_range_open(&r, at_buf_span(&out));
    at_range_int_init(&m);
    for (int i = 0; i < N; i++) assert_int_equal(at_range_get_int(&r, &m), x[i]);
    at_buf_release(&out);
}

/* ---- statistics ---- */

static void test_stats(void **state)
{
    enum { N = 600 };
    real public[N], x[N], y[N];
    for (int steps = 1; steps <= 8; steps *= 2) {
        struct at_buf out = {0};
        struct at_stats_reader r;
        for (uint64_t i = 0; i < N; i++) {
            public[i] = i % 7 == 0 ? 0 : (real)(1e-6 * exp(6 * unit(5, i)));
            x[i] = i % 31 == 0 ? 0 : (real)(1e-6 * exp(6 * unit(5, i) + (unit(6, i) - 0.5)));
        }
        public[1] = 1e-40f; /* beyond what 1023 steps reach, and beyond 1e30 */
        x[1] = 1e38f;
        x[7] = 3e38f;
        public[2] = 1e-30f;
        x[2] = 1e-45f;
        assert_int_equal(at_stats_code_put(steps, x, public, N, &out), AT_OK);
        assert_true(out.n <= at_stats_code_bytes_max(N));
        at_stats_code_open(&r, steps, at_buf_span(&out));
        at_stats_code_next(&r, public, 100, y);
        at_stats_code_next(&r, public + 100, N - 100, y + 100);
        assert_true(isfinite(y[1]) && y[1] <= 1e30f && y[1] > 1e-4f && y[7] <= 1e30f && y[7] > 5e29f);
        for (int i = 0; i < N; i++) {
            assert_int_equal(x[i] == 0, y[i] == 0);
            if (x[i] > 0 && i != 1 && i != 2 && i != 7)
                assert_true(fabs(log2((double)(y[i] / x[i]))) <= 0.5001 / steps);
        }
        /* The same statistics again: next to nothing. */
        at_buf_clear(&out);
        for (int i = 0; i < N; i++) public[i] = 1e-5f;
        assert_int_equal(at_stats_code_put(steps, public, public, N, &out), AT_OK);
        assert_true(out.n < 12);
        at_stats_code_open(&r, steps, at_buf_span(&out));
        at_stats_code_next(&r, public, N, y);
        assert_memory_equal(y, public, sizeof y);
        at_buf_release(&out);
    }
}

/* ---- blocks ---- */

/* 3 blocks of different kinds: one chunk and a half; a gain; padded rows within. */
static const struct at_model_config shape = TEST_SHAPE(1, 96, 2, 1, 64, 8, 129, false);

struct rig {
    struct at_params p;
    const struct at_block *block[3];
    struct at_codec_block b;
    real *e, *stats, *public, *got;
    size_t n, stats_n;
    struct at_buf out;
};

static void rig_init(struct rig *r)
{
    *r = (struct rig){0};
    assert_int_equal(at_params_init(&r->p, &shape), AT_OK);
    r->block[0] = at_params_block(&r->p, at_params_find(&r->p, AT_ROLE_GATE, 0), 0);
    r->block[1] = at_params_block(&r->p, at_params_find(&r->p, AT_ROLE_NORM1, 0), 0);
    r->block[2] = at_params_block(&r->p, 0, 0);
    assert_true(at_block_rows_used(&r->p, r->block[2]) < r->block[2]->rows);
    r->e = calloc(r->p.count, sizeof *r->e);
    r->got = calloc(r->p.count, sizeof *r->got);
    r->stats = calloc(at_stats_count(&r->p), sizeof *r->stats);
    r->public = calloc(at_stats_count(&r->p), sizeof *r->public);
}

static void rig_block(struct rig *r, int i, uint32_t k, uint32_t sub)
{
    r->b = (struct at_codec_block){.params = &r->p, .block = r->block[i], .k = k, .stats_public = r->public};
    r->n = at_block_count(r->block[i]);
    r->stats_n = at_block_stats_count(&r->p, r->block[i]);
    for (size_t j = 0; j < r->n; j++) r->e[j] = j < at_codec_used(&r->p, r->block[i]) ? value(sub, j) : 0;
    for (size_t j = 0; j < r->stats_n; j++) {
        r->public[j] = (real)(1e-5 * (0.1 + unit(8, j)));
        r->stats[j] = (real)(1e-5 * (0.1 + unit(9, j)));
    }
}

static void rig_encode(struct rig *r, const struct at_codec *codec)
{
    struct at_codec_values x = {.e = r->e};
    at_buf_clear(&r->out);
    assert_int_equal(codec->encode(&r->b, &x, &r->out), AT_OK);
    assert_int_equal(codec->encode_stats(&r->b, r->stats, &r->out), AT_OK);
    assert_true(r->out.n <= codec->bytes_max(&r->p, r->b.block, r->b.k));
    assert_int_equal(codec->check(&r->b, at_buf_span(&r->out), NULL), AT_OK);
}

static void read_all(const struct at_codec *codec, const struct at_codec_block *b, struct at_span payload, real *ret_d,
                     real *ret_stats)
{
    struct at_codec_reader d;
    codec->open(b, payload, &d);
    assert_int_equal(d.count, at_block_count(b->block));
    while (d.done < d.count) {
        size_t n = d.count - d.done < AT_CODEC_CHUNK ? d.count - d.done : AT_CODEC_CHUNK;
        codec->next(&d, n, ret_d + d.done);
    }
    codec->open_stats(b, payload, &d);
    assert_int_equal(d.count, at_block_stats_count(b->params, b->block));
    codec->next_stats(&d, d.count, ret_stats);
}

static void rig_release(struct rig *r)
{
    free(r->e);
    free(r->got);
    free(r->stats);
    free(r->public);
    at_buf_release(&r->out);
    at_params_release(&r->p);
}

/* The page of codec_int4.c, read slowly. */
static void test_int4(void **state)
{
    struct rig r;
    rig_init(&r);
    for (int i = 0; i < 3; i++) {
        rig_block(&r, i, 0, 20 + (uint32_t)i);
        rig_encode(&r, &at_codec_int4);
        real stats[1000];
        read_all(&at_codec_int4, &r.b, at_buf_span(&r.out), r.got, stats);
        size_t used = at_codec_used(&r.p, r.block[i]), at = 0;
        for (size_t g = 0; g < used; g += 128) {
            size_t len = used - g < 128 ? used - g : 128;
            uint32_t bits = (uint32_t)(r.out.p[at] | r.out.p[at + 1] << 8) << 16;
            float scale, most = 0;
            memcpy(&scale, &bits, sizeof scale);
            for (size_t j = g; j < g + len; j++) most = fmaxf(most, fabsf(r.e[j]));
            assert_true(7 * (double)scale >= (double)most && 7 * (double)scale <= (double)most * 1.008);
            for (size_t j = 0; j < len; j++) {
                int q = (r.out.p[at + 2 + j / 2] >> (j % 2 ? 4 : 0) & 15) - 8;
                assert_true(r.got[g + j] == (float)q * scale);
                assert_true(fabs((double)r.e[g + j] - (double)r.got[g + j]) <= 0.5000001 * (double)scale);
            }
            at += 2 + (len + 1) / 2;
        }
        for (size_t j = used; j < r.n; j++) assert_true(r.got[j] == 0 && !signbit(r.got[j]));
        for (size_t j = 0; j < r.stats_n; j++) assert_true(fabs(log2((double)(stats[j] / r.stats[j]))) <= 0.5001 / 8);
        uint8_t was = r.out.p[1];
        r.out.p[1] = 0x7F;
        assert_int_equal(at_codec_int4.check(&r.b, at_buf_span(&r.out), NULL), AT_E_NONFINITE);
        r.out.p[1] = 0x80;
        assert_int_equal(at_codec_int4.check(&r.b, at_buf_span(&r.out), NULL), AT_E_NONFINITE);
        r.out.p[1] = was;
        assert_int_equal(at_codec_int4.check(&r.b, at_span(r.out.p, at - 1), NULL), AT_E_TRUNCATED);
    }
    rig_release(&r);
}

struct ranked {
    float e;
    size_t index;
};

static int by_size(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    float p = fabsf(x->e), q = fabsf(y->e);
    if (p != q) return p > q ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

static int by_index(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* A level: the mean of n sizes to the nearest eighth of an octave. */
static float level(double sum, double n)
{
    return (float)exp2(floor(8 * log2(sum / n) + 0.5) / 8);
}

/* The page of codec_sparse.c, by sorting. */
static void expect_chunk(const float *e, size_t len, size_t count, bool sigma, float *ret)
{
    struct ranked v[AT_CODEC_CHUNK];
    size_t n = 0;
    memset(ret, 0, len * sizeof *ret);
    for (size_t i = 0; i < len; i++) v[i] = (struct ranked){e[i], i};
    qsort(v, len, sizeof *v, by_size);
    while (n < count && v[n].e != 0) n++;
    if (n == 0) return;
    qsort(v, n, sizeof *v, by_index);
    double sum = 0, signed_sum = 0, squares = 0, part[2] = {0, 0}, parts[2] = {0, 0};
    for (size_t i = 0; i < n; i++) {
        sum += fabs((double)v[i].e);
        signed_sum += (double)v[i].e;
        squares += (double)v[i].e * (double)v[i].e;
    }
    double mean = signed_sum / (double)n;
    double limit = sigma ? 3 * sqrt(squares / (double)n - mean * mean) : sum / (double)n;
    for (size_t i = 0; i < n; i++) {
        bool large = fabs((double)v[i].e) >= limit;
        part[large] += fabs((double)v[i].e);
        parts[large] += 1;
    }
    for (size_t i = 0; i < n; i++) {
        bool large = fabs((double)v[i].e) >= limit;
        ret[v[i].index] = copysignf(level(part[large], parts[large]), v[i].e);
    }
}

static double choose_bits(size_t n, size_t k)
{
    double bits = 0;
    for (size_t i = 0; i < k; i++) bits += log2((double)(n - i) / (double)(i + 1));
    return bits;
}

static void test_sparse(void **state)
{
    static const uint32_t ks[] = {1, 16, 64, 300, 1024};
    struct rig r;
    rig_init(&r);
    for (int i = 0; i < 15; i++) {
        bool sigma = i % 2 == 1;
        const struct at_codec *codec = sigma ? &at_codec_sparse6s : &at_codec_sparse;
        rig_block(&r, i % 3, ks[i / 3], 40 + (uint32_t)i);
        if (i == 6) memset(r.e, 0, r.n * sizeof *r.e); /* nothing to keep */
        if (i == 3)
            for (size_t j = 0; j < r.n; j++) r.e[j] = j % 3 ? -0.5f : 0.5f; /* all alike: the first ones */
        rig_encode(&r, codec);
        real stats[1000];
        read_all(codec, &r.b, at_buf_span(&r.out), r.got, stats);
        size_t used = at_codec_used(&r.p, r.block[i % 3]), len;
        double bits = 0;
        for (size_t c = 0; c < used; c += len) {
            len = used - c < AT_CODEC_CHUNK ? used - c : AT_CODEC_CHUNK;
            float want[AT_CODEC_CHUNK];
            size_t count = ks[i / 3] * len / AT_CODEC_CHUNK;
            if (count == 0) count = 1;
            expect_chunk(r.e + c, len, count, sigma, want);
            assert_memory_equal(r.got + c, want, len * sizeof *want);
            bits += choose_bits(len, count) + 2 * (double)count;
        }
        for (size_t j = used; j < r.n; j++) assert_true(r.got[j] == 0 && !signbit(r.got[j]));
        for (size_t j = 0; j < r.stats_n; j++) assert_true(fabs(log2((double)(stats[j] / r.stats[j]))) <= 1.0001 / 2);
        at_buf_clear(&r.out); /* the weights alone: index sets and two bits a value, and the levels */
        struct at_codec_values x = {.e = r.e};
        assert_int_equal(codec->encode(&r.b, &x, &r.out), AT_OK);
        double levels = 24 * (double)(used / AT_CODEC_CHUNK + 1) + 80; /* the first jump from 2^-10 */
        assert_true(8 * (double)r.out.n <= bits * 1.005 + levels);
    }
    rig_release(&r);
}

/* Whatever the bytes: an error, or finite weights, padding +0, statistics within bounds; nothing read outside. */
static void test_hostile_payloads(void **state)
{
    static const struct at_codec *const codecs[] = {&at_codec_int4, &at_codec_sparse, &at_codec_sparse6s};
    struct rig r;
    rig_init(&r);
    for (uint32_t i = 0; i < 240; i++) {
        const struct at_codec *codec = codecs[i % 3];
        rig_block(&r, (int)(i / 3 % 3), codec->param_max != 0 ? 1 + i * 4 : 0, 60);
        rig_encode(&r, codec);
        size_t n = i % 4 == 0 ? (size_t)(unit(61, i) * (double)r.out.n) : r.out.n;
        uint8_t *exact = malloc(n != 0 ? n : 1);
        memcpy(exact, r.out.p, n);
        for (uint64_t j = 0; i % 4 != 0 && j < 1 + i / 8 && n > 0; j++)
            exact[(size_t)(unit(62, 100 * i + j) * (double)n)] = (uint8_t)(unit(63, 100 * i + j) * 256);
        for (size_t j = 0; j < r.stats_n; j++) r.public[j] = j % 3 == 0 ? 0 : 3e29f;
        if (codec->check(&r.b, at_span(exact, n), NULL) == AT_OK) {
            real stats[1000];
            read_all(codec, &r.b, at_span(exact, n), r.got, stats);
            for (size_t j = 0; j < r.n; j++) assert_true(isfinite(r.got[j]));
            for (size_t j = at_codec_used(&r.p, r.b.block); j < r.n; j++) assert_true(r.got[j] == 0);
            for (size_t j = 0; j < r.stats_n; j++) assert_true(stats[j] >= 0 && stats[j] <= 1e30f);
        }
        free(exact);
    }
    rig_release(&r);
}

/* What was not sent is sent later: over many rounds of the same d the sum of what arrives nears rounds * d. */
static void test_error_feedback(void **state)
{
    struct at_params p;
    struct at_state s;
    struct at_exec ex;
    assert_int_equal(at_exec_init(&ex, at_kern_available()[0], &at_par_serial), AT_OK);
    assert_int_equal(at_params_init(&p, &shape), AT_OK);
    assert_int_equal(at_state_init(&s, &p), AT_OK);
    test_state(&s, 0);
    real *now = malloc(p.count * sizeof *now), *e = calloc(p.count, sizeof *e), *sum = calloc(p.count, sizeof *sum);
    for (size_t i = 0; i < p.count; i++) now[i] = s.theta[i] - value(70, i);
    for (int b = 0; b < p.blocks; b++)
        for (size_t j = at_codec_used(&p, &p.block[b]); j < at_block_count(&p.block[b]); j++)
            now[p.block[b].offset + j] = s.theta[p.block[b].offset + j];
    struct at_update_info info = {.samples = 1, .steps = 1, .tokens = 8};
    struct at_update_source source = {
        .params = &p, .theta_start = s.theta, .theta = now, .feedback = e, .stats = s.stats, .stats_public = s.stats};
    struct at_update u = {0};
    struct at_buf blob = {0};
    real x[AT_CODEC_CHUNK];
    enum { ROUNDS = 12 };
    for (int t = 0; t < ROUNDS; t++) {
        at_feedback_add(&ex, &at_codec_int4, &p, s.theta, now, e);
        at_buf_clear(&blob);
        assert_int_equal(at_update_encode(&at_codec_int4, 0, &info, &source, NULL, NULL, &blob), AT_OK);
        assert_int_equal(at_update_parse(&p, at_buf_span(&blob), NULL, &u), AT_OK);
        for (int b = 0; b < p.blocks; b++) {
            struct at_codec_reader d;
            size_t n = at_block_count(&p.block[b]);
            at_update_open(&u, b, &d);
            for (size_t at = 0; at < n; at += AT_CODEC_CHUNK) {
                size_t len = n - at < AT_CODEC_CHUNK ? n - at : AT_CODEC_CHUNK;
                u.codec->next(&d, len, x);
                for (size_t j = 0; j < len; j++) sum[p.block[b].offset + at + j] += x[j];
            }
        }
        at_update_confirm(&u, ex.par, e);
    }
    double far = 0, size = 0;
    for (size_t i = 0; i < p.count; i++) {
        double want = ROUNDS * (double)(s.theta[i] - now[i]);
        far += pow((double)sum[i] + (double)e[i] - want, 2); /* nothing is lost */
        size += want * want;
    }
    assert_true(far < 1e-10 * size);
    at_update_release(&u);
    at_buf_release(&blob);
    free(now);
    free(e);
    free(sum);
    at_state_release(&s);
    at_params_release(&p);
    at_exec_release(&ex);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_range_coder_is_tight),
        cmocka_unit_test(test_learned_numbers),
        cmocka_unit_test(test_stats),
        cmocka_unit_test(test_int4),
        cmocka_unit_test(test_sparse),
        cmocka_unit_test(test_hostile_payloads),
        cmocka_unit_test(test_error_feedback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
