/* The model as a whole: against a plain transformer in binary64 read from the Hugging Face file, and against itself
 * with other kernels, threads, microbatches and ways of decoding. */
#include "model/hf.h"
#include "model/model_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { SEQUENCES = 4 };

struct rig {
    struct at_model m;
    struct at_passing pass;
    struct at_activations act;
    real *theta, *grad;
    int32_t *token, *target;
    long N;
};

static void rig_init(struct rig *r, const struct at_model_config *c)
{
    assert_int_equal(at_model_init(&r->m, c, NULL), AT_OK);
    assert_int_equal(at_passing_init(&r->pass, &r->m, SEQUENCES, false), AT_OK);
    assert_int_equal(at_activations_init(&r->act, &r->m, &r->pass), AT_OK);
    r->N = SEQUENCES * (long)c->seq_len;
    r->theta = malloc(r->m.params.count * sizeof(real));
    r->grad = malloc(at_model_grad_count(&r->m) * sizeof(real));
    r->token = malloc((size_t)r->N * sizeof(int32_t));
    r->target = malloc((size_t)r->N * sizeof(int32_t));
    test_weights(&r->m.params, 11, r->theta);
    test_tokens(r->token, r->N, c->vocab, 1);
    test_tokens(r->target, r->N, c->vocab, 2);
}

static void rig_release(struct rig *r)
{
    free(r->theta);
    free(r->grad);
    free(r->token);
    free(r->target);
    at_activations_release(&r->act);
    at_passing_release(&r->pass);
    at_model_release(&r->m);
}

/* Gradient of all SEQUENCES, `micro` of them at a time. */
static double gradient(struct rig *r, const struct at_exec *ex, long micro)
{
    double sum = 0;
    long T = r->m.params.config.seq_len;
    memset(r->grad, 0, at_model_grad_count(&r->m) * sizeof(real));
    for (long b = 0; b < SEQUENCES; b += micro) {
        at_model_forward(ex, &r->m, &r->act, r->theta, r->token + b * T, micro);
        at_model_backward(ex, &r->m, &r->act, r->theta, r->token + b * T, r->target + b * T, micro,
                          (real)(1.0 / (double)r->N), r->grad, &sum);
    }
    at_model_grad_finish(ex, &r->m, r->grad);
    return sum;
}

/* ---- a plain transformer in binary64 ---- */

struct plain {
    const struct at_model_config *c;
    struct at_st_file file;
};

static double weight(const struct plain *p, const char *name, int layer, long i)
{
    char full[128];
    if (layer >= 0)
        snprintf(full, sizeof full, "model.layers.%d.%s.weight", layer, name);
    else
        snprintf(full, sizeof full, "%s.weight", name);
    const struct at_st_tensor *t = at_st_find(&p->file, full);
    assert_non_null(t);
    float x;
    at_f32_read(p->file.data.p + t->begin + 4 * (size_t)i, &x, 1);
    return x;
}

/* y(T,n) = x(T,k) . W(n,k)^T */
static void plain_linear(const struct plain *p, double *y, const double *x, const char *name, int layer, long T, long n,
                         long k)
{
    for (long o = 0; o < n; o++)
        for (long j = 0; j < k; j++) {
            double w = weight(p, name, layer, o * k + j);
            for (long t = 0; t < T; t++) y[t * n + o] = (j != 0 ? y[t * n + o] : 0) + w * x[t * k + j];
        }
}

static void plain_norm(const struct plain *p, double *y, const double *x, const char *name, int layer, long T)
{
    long d = p->c->d_model;
    for (long t = 0; t < T; t++) {
        double ss = 0;
        for (long j = 0; j < d; j++) ss += x[t * d + j] * x[t * d + j];
        for (long j = 0; j < d; j++)
            y[t * d + j] = x[t * d + j] / sqrt(ss / (double)d + p->c->norm_eps) * weight(p, name, layer, j);
    }
}

static void plain_rotary(const struct plain *p, double *x, long T, long heads)
{
    long hd = p->c->head_size, half = hd / 2;
    for (long t = 0; t < T; t++)
        for (long h = 0; h < heads; h++)
            for (long i = 0; i < half; i++) {
                double angle = (double)t * pow(p->c->rope_theta, -2.0 * (double)i / (double)hd);
                double *a = &x[(t * heads + h) * hd + i], *b = a + half, u = *a, v = *b;
                *a = u * cos(angle) - v * sin(angle);
                *b = v * cos(angle) + u * sin(angle);
            }
}

static void plain_attention(const struct plain *p, double *o, const double *q, const double *k, const double *v, long T)
{
    long hd = p->c->head_size, H = p->c->heads, KV = p->c->kv_heads;
    for (long t = 0; t < T; t++)
        for (long h = 0; h < H; h++) {
            double w[64], sum = 0;
            const double *qt = &q[(t * H + h) * hd];
            for (long s = 0; s <= t; s++) {
                double dot = 0;
                for (long i = 0; i < hd; i++) dot += qt[i] * k[(s * KV + h / (H / KV)) * hd + i];
                sum += w[s] = exp(dot / sqrt((double)hd));
            }
            for (long i = 0; i < hd; i++) {
                double x = 0;
                for (long s = 0; s <= t; s++) x += w[s] / sum * v[(s * KV + h / (H / KV)) * hd + i];
                o[(t * H + h) * hd + i] = x;
            }
        }
}

static void plain_layer(const struct plain *p, double *x, int l, long T)
{
    long d = p->c->d_model, kv = (long)p->c->kv_heads * p->c->head_size, F = p->c->d_ff;
    double n[64 * 32], q[64 * 32], k[64 * 32], v[64 * 32], a[64 * 32], g[64 * 64], u[64 * 64];
    plain_norm(p, n, x, "input_layernorm", l, T);
    plain_linear(p, q, n, "self_attn.q_proj", l, T, d, d);
    plain_linear(p, k, n, "self_attn.k_proj", l, T, kv, d);
    plain_linear(p, v, n, "self_attn.v_proj", l, T, kv, d);
    plain_rotary(p, q, T, p->c->heads);
    plain_rotary(p, k, T, p->c->kv_heads);
    plain_attention(p, a, q, k, v, T);
    plain_linear(p, n, a, "self_attn.o_proj", l, T, d, d);
    for (long i = 0; i < T * d; i++) x[i] += n[i];
    plain_norm(p, n, x, "post_attention_layernorm", l, T);
    plain_linear(p, g, n, "mlp.gate_proj", l, T, F, d);
    plain_linear(p, u, n, "mlp.up_proj", l, T, F, d);
    for (long i = 0; i < T * F; i++) g[i] = g[i] / (1 + exp(-g[i])) * u[i];
    plain_linear(p, n, g, "mlp.down_proj", l, T, d, F);
    for (long i = 0; i < T * d; i++) x[i] += n[i];
}

static void plain_forward(const struct plain *p, const int32_t *token, double *ret_logits)
{
    long T = p->c->seq_len, d = p->c->d_model;
    double x[64 * 32], n[64 * 32];
    for (long t = 0; t < T; t++)
        for (long j = 0; j < d; j++) x[t * d + j] = weight(p, "model.embed_tokens", -1, token[t] * d + j);
    for (int l = 0; l < (int)p->c->layers; l++) plain_layer(p, x, l, T);
    plain_norm(p, n, x, "model.norm", -1, T);
    plain_linear(p, ret_logits, n, p->c->tied ? "model.embed_tokens" : "lm_head", -1, T, p->c->vocab, d);
}

static void test_logits_and_loss_of_a_plain_transformer(void **state)
{
    struct at_exec ex;
    assert_int_equal(at_exec_init(&ex, at_kern_available()[0], &at_par_serial), AT_OK);
    for (int c = 0; c < TEST_CONFIGS; c++) {
        struct rig r;
        rig_init(&r, &test_configs[c]);
        struct plain p = {.c = &test_configs[c]};
        struct at_buf file = {0};
        assert_int_equal(at_hf_write(&r.m.params, r.theta, NULL, 0, &file), AT_OK);
        assert_int_equal(at_st_parse(at_buf_span(&file), "m", NULL, &p.file), AT_OK);
        long T = p.c->seq_len, V = p.c->vocab, VP = r.m.params.vocab_padded;
        double want[64 * 64], sum = 0, plain_sum = 0;
        at_model_forward(&ex, &r.m, &r.act, r.theta, r.token, 1);
        plain_forward(&p, r.token, want);
        for (long t = 0; t < T; t++) {
            double l = 0;
            for (long j = 0; j < V; j++) {
                assert_true(fabs((double)r.pass.logits[t * VP + j] - want[t * V + j]) <
                            2e-5 * (1 + fabs(want[t * V + j])));
                l += exp(want[t * V + j]);
            }
            plain_sum += log(l) - want[t * V + r.target[t]];
        }
        at_model_loss(&ex, &r.m, &r.act, r.target, 1, &sum);
        assert_true(fabs(sum - plain_sum) < 2e-5 * (double)T);
        at_st_release(&p.file);
        at_buf_release(&file);
        rig_release(&r);
    }
    at_exec_release(&ex);
}

/* ---- one gradient, however it is computed ---- */

static void test_bits_do_not_depend_on_kernels_threads_microbatches(void **state)
{
    for (int c = 0; c < TEST_CONFIGS; c++) {
        struct rig r;
        rig_init(&r, &test_configs[c]);
        size_t n = at_model_grad_count(&r.m);
        real *want = NULL;
        double want_sum = 0;
        for (const struct at_kern *const *k = at_kern_available(); *k != NULL; k++)
            for (int threads = 1; threads <= 3; threads++) {
                uint64_t count = 0;
                struct at_par par = {.threads = threads, .run = test_run_shuffled, .pool = &count};
                struct at_exec ex;
                assert_int_equal(at_exec_init(&ex, *k, &par), AT_OK);
                for (long micro = 1; micro <= SEQUENCES; micro *= 2) {
                    double sum = gradient(&r, &ex, micro);
                    if (want == NULL) {
                        want = malloc(n * sizeof(real));
                        memcpy(want, r.grad, n * sizeof(real));
                        want_sum = sum;
                        assert_true(isfinite(sum) && sum > 0);
                    }
                    assert_true(sum == want_sum);
                    assert_memory_equal(want, r.grad, n * sizeof(real));
                }
                at_exec_release(&ex);
            }
        assert_true(at_params_padding_is_zero(&r.m.params, r.grad));
        free(want);
        rig_release(&r);
    }
}

static void test_decoding_gives_the_bits_of_a_full_pass(void **state)
{
    static const long chunks[] = {1, 2, 3, 5, 64};
    struct at_exec ex;
    assert_int_equal(at_exec_init(&ex, at_kern_available()[0], &at_par_serial), AT_OK);
    for (int c = 0; c < TEST_CONFIGS; c++) {
        struct rig r;
        rig_init(&r, &test_configs[c]);
        long T = test_configs[c].seq_len, VP = r.m.params.vocab_padded;
        at_model_forward(&ex, &r.m, &r.act, r.theta, r.token, 1);
        for (int k = 0; k < 5; k++) {
            struct at_decoder d;
            assert_int_equal(at_decoder_init(&d, &r.m, chunks[k] < T ? chunks[k] : T), AT_OK);
            for (int again = 0; again < 2; again++) {
                at_decoder_clear(&d);
                for (long t = 0; t < T;) {
                    long n = T - t < d.chunk_max ? T - t : d.chunk_max;
                    const real *logits = at_decoder_append(&ex, &d, r.theta, r.token + t, n);
                    assert_memory_equal(logits, r.pass.logits + t * VP, (size_t)(n * VP) * sizeof(real));
                    t += n;
                }
            }
            at_decoder_release(&d);
        }
        rig_release(&r);
    }
    at_exec_release(&ex);
}

static void test_sizes_that_overflow_are_refused(void **state)
{
    struct at_model_config c = TEST_SHAPE(256, 16384, 8, 8, 65536, 65536, 1 << 20, false);
    assert_int_equal(at_model_config_check(&c, NULL), AT_OK);
    struct at_shard whole = at_shard_whole(&c);
    for (int recompute = 0; recompute < 2; recompute++) {
        assert_int_equal(at_activations_bytes(&c, &whole, 1L << 40, recompute), 0);
        assert_int_equal(at_activations_bytes(&c, &whole, 0, recompute), 0);
        assert_int_equal(at_passing_bytes(&c, &whole, 1L << 40, recompute), 0);
    }
    c.heads = 7;
    struct at_model m;
    struct at_diag diag = {0};
    assert_int_equal(at_model_init(&m, &c, &diag), AT_E_DATA);
    assert_string_equal(diag.where, "heads");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_and_loss_of_a_plain_transformer),
        cmocka_unit_test(test_bits_do_not_depend_on_kernels_threads_microbatches),
        cmocka_unit_test(test_decoding_gives_the_bits_of_a_full_pass),
        cmocka_unit_test(test_sizes_that_overflow_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
