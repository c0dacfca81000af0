/* A checkpoint comes back whole, or not at all: every truncation, flipped bits all over, files of another model. */
#include "train/checkpoint.h"
#include "train/train_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

struct rig {
    struct at_params p;
    struct at_state s, t;
    struct at_checkpoint c;
};

static void rig_init(struct rig *r, const struct at_model_config *config, uint32_t round)
{
    assert_int_equal(at_params_init(&r->p, config), AT_OK);
    assert_int_equal(at_state_init(&r->s, &r->p), AT_OK);
    assert_int_equal(at_state_init(&r->t, &r->p), AT_OK);
    test_state(&r->s, round);
    assert_int_equal(at_checkpoint_write(&r->s, NULL, &r->c), AT_OK);
}

static void rig_release(struct rig *r)
{
    at_checkpoint_release(&r->c);
    at_state_release(&r->s);
    at_state_release(&r->t);
    at_params_release(&r->p);
}

static at_err_t read(struct rig *r, struct at_span m, struct at_span c, struct at_span s, struct at_diag *diag)
{
    struct at_hash root;
    *diag = (struct at_diag){0};
    return at_checkpoint_read(&r->t, m, c, s, diag, &root);
}

static void test_round_trip(void **state)
{
    for (int c = 0; c < RUN_CONFIGS; c++) {
        struct rig r;
        struct at_hash root, peeked;
        uint32_t round;
        char name[40];
        rig_init(&r, &run_configs[c], 1000003);
        assert_int_equal(at_checkpoint_read(&r.t, at_buf_span(&r.c.model), at_buf_span(&r.c.config),
                                            at_buf_span(&r.c.stats), NULL, &root),
                         AT_OK);
        assert_true(at_hash_eq(root, r.c.root));
        assert_int_equal(r.t.round, 1000003);
        assert_memory_equal(r.s.theta, r.t.theta, r.p.count * sizeof(real));
        assert_memory_equal(r.s.stats, r.t.stats, at_stats_count(&r.p) * sizeof(real));
        assert_int_equal(at_checkpoint_peek(at_buf_span(&r.c.model), NULL, &peeked, &round), AT_OK);
        assert_true(at_hash_eq(root, peeked) && round == 1000003);
        at_checkpoint_stats_name(root, name);
        assert_string_equal(name, r.c.stats_name);
        assert_int_equal(strlen(name), 34);
        rig_release(&r);
    }
}

/* Fails, names that file, exit code 3, and leaves the state alone. */
static void refused(struct rig *r, int which, struct at_span bytes)
{
    struct at_diag diag;
    const char *const names[3] = {AT_CHECKPOINT_MODEL, AT_CHECKPOINT_CONFIG, r->c.stats_name};
    struct at_span f[3] = {at_buf_span(&r->c.model), at_buf_span(&r->c.config), at_buf_span(&r->c.stats)};
    uint8_t *exact = malloc(bytes.n != 0 ? bytes.n : 1);
    memcpy(exact, bytes.p, bytes.n);
    f[which] = at_span(exact, bytes.n);
    at_err_t err = read(r, f[0], f[1], f[2], &diag);
    free(exact);
    assert_int_equal(at_err_exit_code(err), 3);
    /* A flip in the model's metadata can make the other file's name or header the one that differs. */
    if (which != 0)
        assert_string_equal(diag.where, names[which]);
    else
        assert_true(diag.where[0] != '\0');
    assert_int_equal(r->t.round, 0);
    assert_true(r->t.theta[0] == 0);
}

static void test_truncation_and_flips(void **state)
{
    static const struct at_model_config small = TEST_SHAPE(1, 8, 1, 1, 8, 4, 12, false);
    struct rig r;
    rig_init(&r, &small, 3);
    struct at_buf *const files[3] = {&r.c.model, &r.c.config, &r.c.stats};
    for (int k = 0; k < 3; k++) {
        struct at_buf *f = files[k];
        for (size_t n = 0; n < f->n; n++) refused(&r, k, at_span(f->p, n));
        size_t stride = k == 0 ? 29 : k == 1 ? 3 : 5;
        for (size_t bit = 0; bit < 8 * f->n; bit += stride) {
            f->p[bit / 8] ^= (uint8_t)(1 << bit % 8);
            refused(&r, k, at_buf_span(f));
            f->p[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        size_t n = f->n;
        assert_int_equal(at_buf_append(f, " ", 1), AT_OK);
        refused(&r, k, at_buf_span(f));
        f->n = n;
    }
    rig_release(&r);
}

static void test_damaged_weights_name_their_file(void **state)
{
    struct rig r;
    struct at_diag diag;
    rig_init(&r, &run_configs[0], 3);
    r.c.model.p[r.c.model.n - 1] ^= 1;
    assert_int_equal(read(&r, at_buf_span(&r.c.model), at_buf_span(&r.c.config), at_buf_span(&r.c.stats), &diag),
                     AT_E_DATA);
    assert_string_equal(diag.where, AT_CHECKPOINT_MODEL);
    rig_release(&r);
}

/* Another model's files, and another round's statistics beside this round's weights. */
static void test_files_of_another_model(void **state)
{
    struct rig a, b, later;
    struct at_diag diag;
    rig_init(&a, &run_configs[0], 3);
    rig_init(&b, &run_configs[1], 3);
    rig_init(&later, &run_configs[0], 4);
    struct at_span m = at_buf_span(&a.c.model), c = at_buf_span(&a.c.config), s = at_buf_span(&a.c.stats);
    assert_int_equal(at_err_exit_code(read(&b, m, c, s, &diag)), 3);
    assert_int_equal(at_err_exit_code(read(&a, at_buf_span(&b.c.model), c, s, &diag)), 3);
    assert_string_equal(diag.where, AT_CHECKPOINT_MODEL);
    assert_int_equal(at_err_exit_code(read(&a, m, at_buf_span(&b.c.config), s, &diag)), 3);
    assert_string_equal(diag.where, AT_CHECKPOINT_CONFIG);
    assert_int_equal(at_err_exit_code(read(&a, m, c, at_buf_span(&later.c.stats), &diag)), 3);
    assert_string_equal(diag.where, a.c.stats_name);
    assert_int_equal(read(&a, m, c, s, &diag), AT_OK);
    rig_release(&a);
    rig_release(&b);
    rig_release(&later);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_truncation_and_flips),
        cmocka_unit_test(test_damaged_weights_name_their_file),
        cmocka_unit_test(test_files_of_another_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
