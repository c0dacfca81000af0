/* Shapes: the presets count what the design says, slots divide everything, foreign shapes are refused by field. */
#include "model/config.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void test_presets(void **state)
{
    int n;
    const struct at_preset *list = at_preset_list(&n), *p;
    for (int i = 0; i < n; i++) {
        assert_int_equal(at_model_config_check(&list[i].model, NULL), AT_OK);
        assert_int_equal(at_train_config_check(&list[i].train, NULL), AT_OK);
        assert_int_equal(at_preset_find(list[i].name, NULL, &p), AT_OK);
        assert_ptr_equal(p, &list[i]);
    }
    assert_int_equal(at_preset_find("nano", NULL, &p), AT_OK);
    assert_int_equal(at_model_params(&p->model), 918656);
    assert_int_equal(at_model_matmul_params(&p->model), 4 * (4 * 128 * 128 + 3 * 128 * 384) + 256 * 128);
    assert_int_equal(at_model_flops_per_token(&p->model), 6 * at_model_matmul_params(&p->model) + 6 * 4 * 128 * 128);
    assert_int_equal(at_model_slots(&p->model), 4);
    assert_int_equal(at_preset_find("124m", NULL, &p), AT_OK);
    assert_in_range(at_model_params(&p->model), 123000000, 125000000);
    assert_int_equal(at_preset_find("10m", NULL, &p), AT_OK);
    assert_in_range(at_model_params(&p->model), 10700000, 10900000);
    assert_int_equal(at_model_slots(&p->model), 8);
    assert_int_equal(at_preset_find("1b", NULL, &p), AT_OK);
    assert_in_range(at_model_params(&p->model) / 1000000, 1100, 1150);
    assert_int_equal(at_preset_find("7b", NULL, &p), AT_OK);
    assert_int_equal(at_model_params(&p->model), 6738415616); /* Llama's 7B has the same shape and the same count */
    assert_int_equal(at_model_slots(&p->model), 8);
    struct at_diag diag = {0};
    assert_int_equal(at_preset_find("nanno", &diag, &p), AT_E_USAGE);
    assert_non_null(strstr(diag.text, "nano, 10m"));
}

/* The definition, by trying every power of two. */
static void test_slots(void **state)
{
    struct at_model_config c = {.layers = 1, .d_model = 64, .heads = 8, .head_size = 8, .seq_len = 8};
    for (c.kv_heads = 1; c.kv_heads <= 8; c.kv_heads++)
        for (c.d_ff = 8; c.d_ff <= 24; c.d_ff++)
            for (c.vocab = 2; c.vocab <= 40; c.vocab += 7) {
                int want = 0;
                for (int s = 1; s <= 8; s *= 2)
                    if (c.kv_heads % (unsigned)s == 0 && c.d_ff % (unsigned)s == 0) want = s;
                assert_int_equal(at_model_slots(&c), want); /* the padded vocabulary is a multiple of 8 */
                assert_true(at_model_vocab_padded(&c) % 8 == 0 && at_model_vocab_padded(&c) - c.vocab < 8);
            }
}

static void test_refusals(void **state)
{
    const struct at_preset *p;
    assert_int_equal(at_preset_find("tiny", NULL, &p), AT_OK);
    static const struct {
        const char *field;
        size_t at;
        uint32_t bad;
    } whole[] = {
        {"layers", offsetof(struct at_model_config, layers), 0},
        {"layers", offsetof(struct at_model_config, layers), 257},
        {"d_model", offsetof(struct at_model_config, d_model), 0},
        {"d_model", offsetof(struct at_model_config, d_model), UINT32_MAX},
        {"heads", offsetof(struct at_model_config, heads), 0},
        {"heads", offsetof(struct at_model_config, heads), 5},
        {"head_size", offsetof(struct at_model_config, head_size), 16},
        {"kv_heads", offsetof(struct at_model_config, kv_heads), 0},
        {"kv_heads", offsetof(struct at_model_config, kv_heads), 3},
        {"d_ff", offsetof(struct at_model_config, d_ff), 0},
        {"seq_len", offsetof(struct at_model_config, seq_len), 1},
        {"vocab", offsetof(struct at_model_config, vocab), 1},
        {"vocab", offsetof(struct at_model_config, vocab), UINT32_MAX},
    };
    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++) {
        struct at_model_config c = p->model;
        struct at_diag diag = {0};
        memcpy((char *)&c + whole[i].at, &whole[i].bad, sizeof whole[i].bad);
        assert_int_equal(at_model_config_check(&c, &diag), AT_E_DATA);
        assert_string_equal(diag.where, whole[i].field);
    }
    static const double bad_lr[] = {NAN, INFINITY, -1, 11};
    for (int i = 0; i < 4; i++) {
        struct at_train_config c = p->train;
        struct at_model_config m = p->model;
        c.lr_peak = bad_lr[i];
        assert_int_equal(at_train_config_check(&c, NULL), AT_E_DATA);
        m.rope_theta = i == 3 ? 0.5 : bad_lr[i];
        assert_int_equal(at_model_config_check(&m, NULL), AT_E_DATA);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_presets),
        cmocka_unit_test(test_slots),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
