/* The Hugging Face layout: names and shapes as LlamaForCausalLM has them, every element where it belongs,
 * nothing lost. */
#include "model/hf.h"
#include "model/model_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_names_and_shapes(void **state)
{
    static const struct {
        const char *name;
        uint64_t shape[2];
    } want[] = {
        {"model.embed_tokens.weight", {29, 24}},
        {"model.layers.0.input_layernorm.weight", {24}},
        {"model.layers.0.self_attn.q_proj.weight", {24, 24}},
        {"model.layers.0.self_attn.k_proj.weight", {8, 24}},
        {"model.layers.0.self_attn.v_proj.weight", {8, 24}},
        {"model.layers.0.self_attn.o_proj.weight", {24, 24}},
        {"model.layers.0.post_attention_layernorm.weight", {24}},
        {"model.layers.0.mlp.gate_proj.weight", {20, 24}},
        {"model.layers.0.mlp.up_proj.weight", {20, 24}},
        {"model.layers.0.mlp.down_proj.weight", {24, 20}},
        {"model.layers.1.mlp.down_proj.weight", {24, 20}},
        {"model.norm.weight", {24}},
        {"lm_head.weight", {29, 24}},
    };
    struct at_params p;
    struct at_buf out = {0};
    struct at_st_file f;
    assert_int_equal(at_params_init(&p, &test_configs[1]), AT_OK);
    float *theta = malloc(p.count * sizeof *theta);
    test_weights(&p, 1, theta);
    assert_int_equal(at_hf_write(&p, theta, NULL, 0, &out), AT_OK);
    assert_int_equal(at_st_parse(at_buf_span(&out), "m", NULL, &f), AT_OK);
    assert_int_equal(f.tensors, 1 + 2 * 9 + 2);
    assert_string_equal(at_st_meta(&f, "format"), "pt");
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        const struct at_st_tensor *t = at_st_find(&f, want[i].name);
        assert_non_null(t);
        assert_int_equal(t->dims, want[i].shape[1] != 0 ? 2 : 1);
        for (int k = 0; k < t->dims; k++) assert_int_equal(t->shape[k], want[i].shape[k]);
    }
    /* Element (i, j) of o: its slot is a run of columns. */
    const struct at_st_tensor *o = at_st_find(&f, "model.layers.1.self_attn.o_proj.weight");
    for (long i = 0; i < 24; i++)
        for (long j = 0; j < 24; j++) {
            float x;
            at_f32_read(f.data.p + o->begin + 4 * (size_t)(i * 24 + j), &x, 1);
            const struct at_block *b = at_params_block(&p, at_params_find(&p, AT_ROLE_O, 1), (int)(j / 12));
            assert_true(x == theta[b->offset + (size_t)(i * 12 + j % 12)]);
        }
    at_st_release(&f);
    at_buf_release(&out);
    free(theta);
    at_params_release(&p);
}

static void test_lossless(void **state)
{
    for (int c = 0; c < TEST_CONFIGS; c++) {
        struct at_params p;
        struct at_buf out = {0}, head = {0}, config = {0};
        struct at_st_file f;
        struct at_model_config back;
        assert_int_equal(at_params_init(&p, &test_configs[c]), AT_OK);
        float *a = malloc(p.count * sizeof *a), *b = malloc(p.count * sizeof *b);
        test_weights(&p, 1, a);
        memset(b, 0xFF, p.count * sizeof *b);
        const struct at_st_meta meta = {"round", "3"};
        assert_int_equal(at_hf_write(&p, a, &meta, 1, &out), AT_OK);
        assert_int_equal(at_hf_write_header(&p, &meta, 1, &head), AT_OK);
        assert_memory_equal(out.p, head.p, head.n);
        assert_int_equal(out.n, head.n + 4 * at_model_params(&test_configs[c]));
        assert_int_equal(at_st_parse(at_buf_span(&out), "m", NULL, &f), AT_OK);
        assert_true((at_st_find(&f, "lm_head.weight") == NULL) == test_configs[c].tied);
        assert_int_equal(at_hf_read(&p, &f, "m", NULL, b), AT_OK);
        assert_memory_equal(a, b, p.count * sizeof *a);
        assert_int_equal(at_hf_write_config(&test_configs[c], &config), AT_OK);
        assert_int_equal(at_hf_read_config(at_buf_span(&config), "config.json", NULL, &back), AT_OK);
        assert_true(back.layers == p.config.layers && back.d_model == p.config.d_model &&
                    back.heads == p.config.heads && back.kv_heads == p.config.kv_heads &&
                    back.head_size == p.config.head_size && back.d_ff == p.config.d_ff &&
                    back.seq_len == p.config.seq_len && back.vocab == p.config.vocab && back.tied == p.config.tied &&
                    back.rope_theta == p.config.rope_theta && back.norm_eps == p.config.norm_eps);
        at_st_release(&f);
        at_buf_release(&out);
        at_buf_release(&head);
        at_buf_release(&config);
        free(a);
        free(b);
        at_params_release(&p);
    }
}

/* A file of one model read as another: the tensor is named. */
static void test_another_model(void **state)
{
    struct at_params p, q;
    struct at_buf out = {0};
    struct at_st_file f;
    struct at_model_config other = test_configs[1];
    struct at_diag diag = {0};
    other.d_ff = 24;
    assert_int_equal(at_params_init(&p, &test_configs[1]), AT_OK);
    assert_int_equal(at_params_init(&q, &other), AT_OK);
    float *theta = calloc(q.count, sizeof *theta);
    assert_int_equal(at_hf_write(&p, theta, NULL, 0, &out), AT_OK);
    assert_int_equal(at_st_parse(at_buf_span(&out), "m", NULL, &f), AT_OK);
    assert_int_equal(at_hf_read(&q, &f, "m", &diag, theta), AT_E_DATA);
    assert_non_null(strstr(diag.text, "model.layers.0.mlp.gate_proj.weight"));
    strcpy(f.tensor[3].name, "renamed");
    diag = (struct at_diag){0};
    assert_int_equal(at_hf_read(&p, &f, "m", &diag, theta), AT_E_DATA);
    assert_non_null(strstr(diag.text, "missing"));
    at_st_release(&f);
    at_buf_release(&out);
    free(theta);
    at_params_release(&p);
    at_params_release(&q);
}

static void test_bad_configs(void **state)
{
    static const char *const bad[] = {
        "",
        "[]",
        "{}",
        "{\"model_type\":\"gpt2\"}",
        "{\"model_type\":\"llama\",\"num_hidden_layers\":-1}",
        "{\"model_type\":\"llama\",\"num_hidden_layers\":1e3}",
        "{\"model_type\":\"llama\",\"num_hidden_layers\":1,\"hidden_size\":8,\"num_attention_heads\":0,"
        "\"num_key_value_heads\":1,\"intermediate_size\":8,\"max_position_embeddings\":8,\"vocab_size\":8,"
        "\"rope_theta\":1e4,\"rms_norm_eps\":1e-5}",
        "{\"model_type\":\"llama\",\"num_hidden_layers\":1,\"hidden_size\":8,\"num_attention_heads\":1,"
        "\"num_key_value_heads\":1,\"intermediate_size\":8,\"max_position_embeddings\":8,\"vocab_size\":8,"
        "\"rope_theta\":\"x\",\"rms_norm_eps\":1e-5}",
    };
    struct at_model_config c;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct at_diag diag = {0};
        assert_int_equal(at_hf_read_config(at_span(bad[i], strlen(bad[i])), "config.json", &diag, &c), AT_E_DATA);
        assert_true(diag.text[0] != '\0');
    }
}

/* Other tools' configs of the family: what would change the arithmetic is refused, what would not is not looked at. */
static void test_features_of_other_configs(void **state)
{
    static const struct {
        const char *field;
        at_err_t want;
    } cases[] = {
        {"\"torch_dtype\":\"float32\"", AT_OK},
        {"\"rope_scaling\":null,\"head_dim\":null,\"attention_bias\":false", AT_OK},
        {"\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0}", AT_E_DATA},
        {"\"attention_bias\":true", AT_E_DATA},
        {"\"mlp_bias\":true", AT_E_DATA},
        {"\"hidden_act\":\"gelu\"", AT_E_DATA},
        {"\"head_dim\":6", AT_E_DATA},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[512];
        struct at_model_config c;
        snprintf(text, sizeof text,
                 "{\"model_type\":\"llama\",\"num_hidden_layers\":1,\"hidden_size\":16,\"num_attention_heads\":2,"
                 "\"num_key_value_heads\":1,\"intermediate_size\":8,\"max_position_embeddings\":8,\"vocab_size\":8,"
                 "\"rope_theta\":10000,\"rms_norm_eps\":1e-5,%s}",
                 cases[i].field);
        assert_int_equal(at_hf_read_config(at_span(text, strlen(text)), "config.json", NULL, &c), cases[i].want);
    }
}

/* A binary64 is never written as a whole number. */
static void test_reals_look_like_reals(void **state)
{
    struct at_buf out = {0};
    assert_int_equal(at_hf_write_config(&test_configs[0], &out), AT_OK);
    assert_int_equal(at_buf_append(&out, "", 1), AT_OK);
    assert_non_null(strstr((const char *)out.p, "\"rope_theta\": 10000.0,\n"));
    at_buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_and_shapes),
        cmocka_unit_test(test_lossless),
        cmocka_unit_test(test_another_model),
        cmocka_unit_test(test_bad_configs),
        cmocka_unit_test(test_features_of_other_configs),
        cmocka_unit_test(test_reals_look_like_reals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
