/* The contract for whole runs: ten inner steps of small models of every kind have one state root, for every kernel
 * table, number of threads and microbatch, whatever compiler built this: the roots are written down here. And the bits
 * are the right ones: an independent plain trainer (plain_train.h) makes the same.
 *
 * After a change of the contract (and only then): training_test --print, and put the roots below. */
#include "base/rng.h"
#include "base/sanitized.h"
#include "model/hf.h"
#include "os/pool.h"
#ifndef ATOLL_CROSS
#include "plain_train.h"
#endif
#include "tensor/gemm_kern.h"
#include "train/local.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define SHAPE(L, D, H, KV, F, T, V, TIED)                                                                              \
    {                                                                                                                  \
        .layers = L, .d_model = D, .heads = H, .kv_heads = KV, .head_size = (D) / (H), .d_ff = F, .seq_len = T,        \
        .vocab = V, .tied = TIED, .rope_theta = 10000.0, .norm_eps = 1e-5                                              \
    }

struct kind {
    const char *name, *root;
    struct at_model_config model;
    uint32_t rounds, steps, batch;
    int replicas;
};

/* Rounds x steps = 10 but for the wide and the long ones. */
static const struct kind kinds[] = {
    {"eight heads, S = 8", "1f890c2f6b602a65fca884a3099eb1fe5ba9982df02a37ea3b77555b905ad18e",
     SHAPE(2, 48, 8, 8, 40, 12, 128, false), 5, 2, 4, 2},
    {"grouped, S = 4, 12 heads of 6", "2c3cab4edae0cccbe90a9cadcab3a8a2d73c56e2bc1213ba757e2d2fc5b4d5b1",
     SHAPE(1, 72, 12, 4, 28, 18, 123, false), 2, 5, 3, 2},
    {"one key head, S = 1, tied, odd widths", "b1988462f17a236071ed5f9ac9946ce92fede7954a7f0cc9e521122589dab233",
     SHAPE(2, 40, 4, 1, 23, 11, 101, true), 5, 2, 4, 2},
    {"heads of 128, S = 2, tied", "8a27a854dd8c6e96c92b37ff1633e7f61c67d424095e3d06992847eb40105040",
     SHAPE(1, 256, 2, 2, 18, 7, 97, true), 2, 1, 2, 1},
    {"part of a slot is padding, heads of 64", "47d1f39c48f7945085be8649b9c80677c5e62a592af3ede0a8a491e6150d26b7",
     SHAPE(1, 512, 8, 8, 8, 5, 83, false), 1, 1, 1, 2},
    {"300 positions: two grains", "c8b80d0d52d788cc8b07b85958fc6c2b54c3b8a9a33dffed85f788308835a4c1",
     SHAPE(1, 20, 2, 2, 12, 300, 99, false), 2, 1, 2, 1},
    {"600 positions: three grains", "4b91e8b282517fc716c071996c643838fe94856bf68ae7dedc8081c193e4a33e",
     SHAPE(1, 12, 2, 1, 10, 600, 99, true), 1, 1, 2, 1},
};
enum { KINDS = sizeof kinds / sizeof kinds[0], TEXT_BYTES = 16000 };

struct rig {
    const struct kind *kind;
    struct at_model model;
    struct at_data data;
    struct at_train_config config;
    uint8_t text[TEXT_BYTES];
};

static void rig_init(struct rig *r, const struct kind *k)
{
    r->kind = k;
    r->config = (struct at_train_config){k->rounds, k->steps, k->batch, 3, 2e-2, 0.1, 0.9, 0.95, 1e-8, 0.1, 0.7, 77};
    for (uint64_t i = 0; i < TEXT_BYTES; i++) /* bytes that every vocabulary here has; some order to learn */
        r->text[i] = (uint8_t)(32 + (i % 3 == 0 ? at_philox(3, AT_RNG_TEST, 0, i).v[0] % 60 : (i * i) % 50));
    AT_ASSERT(at_model_init(&r->model, &k->model, NULL) == AT_OK);
    AT_ASSERT(at_data_init(&r->data, at_span(r->text, TEXT_BYTES), (long)k->model.seq_len, 77, 0.05, 32768, NULL) ==
              AT_OK);
}

static void run(struct rig *r, const struct at_kern *kern, const struct at_par *par, long microbatch,
                struct at_local *l)
{
    struct at_exec ex;
    double loss;
    AT_ASSERT(at_exec_init(&ex, kern, par) == AT_OK);
    AT_ASSERT(at_local_init(l, &r->model, &r->data, &r->config, r->kind->replicas, microbatch, NULL) == AT_OK);
    for (uint32_t t = 0; t < r->kind->rounds; t++) AT_ASSERT(at_local_round(l, &ex, NULL, NULL, NULL, &loss) == AT_OK);
    at_exec_release(&ex);
}

static struct at_hash root_of(struct rig *r, const struct at_kern *kern, const struct at_par *par, long microbatch)
{
    struct at_local l;
    struct at_hash root;
    run(r, kern, par, microbatch, &l);
    AT_ASSERT(at_state_root(&l.state, NULL, &root) == AT_OK);
    at_local_release(&l);
    return root;
}

static const struct at_kern ref_soft = {"ref (no fma)", &at_gemm_kern_ref, &at_rows_kern_ref};

/* --some: the fastest table with one thread and with three, the others with two. For emulated processors. */
static bool short_of_time;

static void test_one_root(void **state)
{
    int wrong = 0;
    for (int i = 0; i < KINDS; i++) {
        struct rig r;
        struct at_hash want;
        rig_init(&r, &kinds[i]);
        assert_int_equal(at_hash_parse(kinds[i].root, &want), AT_OK);
        if (!at_hash_eq(root_of(&r, &ref_soft, &at_par_serial, 0), want)) {
            print_error("%s: wrong root from %s\n", kinds[i].name, ref_soft.name);
            wrong++;
        }
        for (const struct at_kern *const *k = at_kern_available(); *k != NULL; k++)
            for (int threads = 1; threads <= 3; threads++) {
                if (AT_SANITIZED && threads != 1 + i % 3) continue;
                if (short_of_time && (threads == 2) != (k != at_kern_available())) continue;
                struct at_pool pool;
                long microbatch = threads == 3 ? 4 : threads;
                assert_int_equal(at_pool_init(&pool, threads, NULL), AT_OK);
                if (!at_hash_eq(root_of(&r, *k, &pool.par, microbatch), want)) {
                    print_error("%s: wrong root from %s, %d threads, microbatch %ld\n", kinds[i].name, (*k)->name,
                                threads, microbatch);
                    wrong++;
                }
                at_pool_release(&pool);
            }
        at_model_release(&r.model);
    }
    assert_int_equal(wrong, 0);
}

#ifndef ATOLL_CROSS /* an emulated processor has no JSON library to read the weights with; the roots are enough there */

/* ---- the plain trainer ---- */

static void plain_init(struct plain *p, struct rig *r)
{
    const struct at_model_config *c = &r->kind->model;
    const struct at_params *params = &r->model.params;
    struct at_state genesis;
    struct at_buf file = {0};
    struct at_st_file st;
    *p = (struct plain){.c = c,
                        .tensors = params->tensors,
                        .S = at_model_slots(c),
                        .T = c->seq_len,
                        .d = c->d_model,
                        .H = c->heads,
                        .KV = c->kv_heads,
                        .hd = c->head_size,
                        .F = c->d_ff,
                        .V = at_model_vocab_padded(c),
                        .vocab = c->vocab};
    p->t = calloc((size_t)p->tensors, sizeof *p->t);
    p->head_g = floats(p->V * p->d);
    assert_int_equal(at_state_init(&genesis, params), AT_OK);
    at_state_genesis(&genesis, r->config.seed);
    assert_int_equal(at_hf_write(params, genesis.theta, NULL, 0, &file), AT_OK);
    assert_int_equal(at_st_parse(at_buf_span(&file), "genesis", NULL, &st), AT_OK);
    for (int i = 0; i < p->tensors; i++) {
        struct plain_tensor *t = &p->t[i];
        const struct at_st_tensor *s = at_st_find(&st, at_tensor_name(params, i).s);
        t->gain = s->dims == 1;
        t->rows = t->gain ? 1 : (long)s->shape[0];
        t->cols = (long)s->shape[s->dims - 1];
        if (strstr(s->name, "embed_tokens") != NULL || strstr(s->name, "lm_head") != NULL) t->rows = p->V;
        t->slots = t->gain ? 1 : p->S;
        t->by_cols = strstr(s->name, "o_proj") != NULL || strstr(s->name, "down_proj") != NULL;
        float **whole[] = {&t->theta, &t->w, &t->g, &t->m, &t->v, &t->sum_d};
        for (size_t k = 0; k < sizeof whole / sizeof whole[0]; k++) *whole[k] = floats(t->rows * t->cols);
        float **means[] = {&t->stats, &t->made, &t->sum_s};
        for (size_t k = 0; k < sizeof means / sizeof means[0]; k++) *means[k] = floats(stats_len(t));
        at_f32_read(st.data.p + s->begin, t->theta, (s->end - s->begin) / 4);
    }
    at_st_release(&st);
    at_buf_release(&file);
    at_state_release(&genesis);
}

static void plain_release(struct plain *p)
{
    for (int i = 0; i < p->tensors; i++) {
        struct plain_tensor *t = &p->t[i];
        float *all[] = {t->theta, t->w, t->g, t->m, t->v, t->sum_d, t->stats, t->made, t->sum_s};
        for (size_t k = 0; k < sizeof all / sizeof all[0]; k++) free(all[k]);
    }
    free(p->t);
    free(p->head_g);
}

/* Weights and statistics, (tensor, slot) by (tensor, slot), bit for bit. */
static void same_state(const struct plain *p, const struct at_state *s)
{
    const real *stats = s->stats;
    for (int i = 0; i < s->params->blocks; i++) {
        const struct at_block *b = &s->params->block[i];
        const struct plain_tensor *t = &p->t[b->tensor];
        struct slot_view view = slot_of(t, b->slot);
        long each = stats_len(t) / t->slots;
        assert_true(view.rows == b->rows && view.cols == b->cols);
        for (long y = 0; y < b->rows; y++)
            assert_memory_equal(s->theta + b->offset + (size_t)(y * b->cols), t->theta + view.first + y * t->cols,
                                (size_t)b->cols * sizeof(float));
        assert_memory_equal(stats, t->stats + b->slot * each, (size_t)each * sizeof(float));
        stats += each;
    }
}

static void test_the_bits_of_a_plain_trainer(void **state)
{
    for (int i = 0; i < KINDS; i++) {
        struct rig r;
        struct plain p;
        struct at_local l;
        rig_init(&r, &kinds[i]);
        plain_init(&p, &r);
        run(&r, at_kern_available()[0], &at_par_serial, 0, &l);
        for (uint32_t t = 0; t < kinds[i].rounds; t++) plain_round(&p, &r.config, &r.data, t, kinds[i].replicas);
        same_state(&p, &l.state);
        at_local_release(&l);
        plain_release(&p);
        at_model_release(&r.model);
    }
}

#endif

int main(int argc, char **argv)
{
    for (int i = 0; argc == 2 && strcmp(argv[1], "--print") == 0 && i < KINDS; i++) {
        struct rig r;
        rig_init(&r, &kinds[i]);
        printf("%s %s\n", at_hash_hex(root_of(&r, &ref_soft, &at_par_serial, 0)).s, kinds[i].name);
        at_model_release(&r.model);
    }
    short_of_time = argc == 2 && strcmp(argv[1], "--some") == 0;
    if (argc > 1 && !short_of_time) return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_root),
#ifndef ATOLL_CROSS
        cmocka_unit_test(test_the_bits_of_a_plain_trainer),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
