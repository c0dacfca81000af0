#include "model/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define SHAPE(L, D, H, KV, F, T, V, TIED)                                                                              \
    {                                                                                                                  \
        .layers = L, .d_model = D, .heads = H, .kv_heads = KV, .head_size = (D) / (H), .d_ff = F, .seq_len = T,        \
        .vocab = V, .tied = TIED, .rope_theta = 10000.0, .norm_eps = 1e-5                                              \
    }
#define TRAIN(ROUNDS, STEPS, BATCH, WARMUP, LR)                                                                        \
    {                                                                                                                  \
        .rounds = ROUNDS, .steps = STEPS, .batch = BATCH, .warmup_steps = WARMUP, .lr_peak = LR,                       \
        .lr_final_fraction = 0.1, .beta1 = 0.9, .beta2 = 0.95, .adam_eps = 1e-8, .weight_decay = 0.1,                  \
        .clip_norm = 1.0, .seed = 1                                                                                    \
    }

static const struct at_preset presets[] = {
    {"nano", "0.92 M parameters, bytes; learns a book in two minutes on a laptop",
     SHAPE(4, 128, 4, 4, 384, 128, 256, false), TRAIN(24, 20, 4, 48, 6e-3)},
    {"10m", "10.8 M parameters, bytes", SHAPE(6, 384, 8, 8, 1024, 256, 256, false), TRAIN(24, 30, 8, 60, 1e-3)},
    {"124m", "124 M parameters, 50,304 tokens, tied head", SHAPE(12, 768, 12, 12, 2048, 256, 50304, true),
     TRAIN(24, 30, 4, 60, 6e-4)},
    {"1b", "1.1 G parameters, 32,000 tokens; for several machines: ask `atoll plan`",
     SHAPE(22, 2048, 32, 8, 5632, 2048, 32000, false), TRAIN(1000, 100, 16, 2000, 4e-4)},
    {"7b", "6.7 G parameters, 32,000 tokens; for many machines: ask `atoll plan`",
     SHAPE(32, 4096, 32, 32, 11008, 2048, 32000, false), TRAIN(2000, 100, 32, 2000, 3e-4)},
    {"tiny", "for tests: 2 layers of 32, bytes", SHAPE(2, 32, 4, 2, 64, 32, 256, false), TRAIN(4, 4, 2, 4, 1e-2)},
};
enum { PRESET_COUNT = sizeof presets / sizeof presets[0] };

const struct at_preset *at_preset_list(int *ret_count)
{
    *ret_count = PRESET_COUNT;
    return presets;
}

at_err at_preset_find(const char *name, struct at_diag *diag, const struct at_preset **ret_preset)
{
    char known[128] = "";
    for (int i = 0; i < PRESET_COUNT; i++) {
        if (strcmp(presets[i].name, name) == 0) {
            *ret_preset = &presets[i];
            return AT_OK;
        }
        size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, "%s%s", i != 0 ? ", " : "", presets[i].name);
    }
    return at_fail(diag, AT_E_USAGE, "preset", "unknown preset '%.40s'; known: %s", name, known);
}

static at_err bad(struct at_diag *diag, const char *field, const char *want)
{
    return at_fail(diag, AT_E_DATA, field, "must be %s", want);
}

static bool within(double x, double lo, double hi)
{
    return isfinite(x) && x >= lo && x <= hi;
}

at_err at_model_config_check(const struct at_model_config *c, struct at_diag *diag)
{
    if (c->layers < 1 || c->layers > 256) return bad(diag, "layers", "1 to 256");
    if (c->d_model < 8 || c->d_model > 16384) return bad(diag, "d_model", "8 to 16384");
    if (c->heads < 1 || c->heads > 1024 || c->d_model % c->heads != 0)
        return bad(diag, "heads", "1 to 1024 and divide d_model");
    if (c->head_size != c->d_model / c->heads || c->head_size % 2 != 0)
        return bad(diag, "head_size", "d_model / heads, and even");
    if (c->kv_heads < 1 || c->heads % c->kv_heads != 0) return bad(diag, "kv_heads", "at least 1 and divide heads");
    if (c->d_ff < 8 || c->d_ff > 65536) return bad(diag, "d_ff", "8 to 65536");
    if (c->seq_len < 2 || c->seq_len > 65536) return bad(diag, "seq_len", "2 to 65536");
    if (c->vocab < 2 || c->vocab > 1u << 20) return bad(diag, "vocab", "2 to 1048576");
    if (!within(c->rope_theta, 1.0, 1e9)) return bad(diag, "rope_theta", "1 to 1e9");
    if (!within(c->norm_eps, 1e-12, 1e-1)) return bad(diag, "norm_eps", "1e-12 to 0.1");
    return AT_OK;
}

at_err at_train_config_check(const struct at_train_config *c, struct at_diag *diag)
{
    if (c->rounds < 1 || c->rounds > 1000000) return bad(diag, "rounds", "1 to 1000000");
    if (c->steps < 1 || c->steps > 100000) return bad(diag, "steps", "1 to 100000");
    if (c->batch < 1 || c->batch > 65536) return bad(diag, "batch", "1 to 65536");
    if (c->warmup_steps > 1000000000) return bad(diag, "warmup_steps", "at most 1000000000");
    if (!within(c->lr_peak, 0.0, 10.0)) return bad(diag, "lr_peak", "0 to 10");
    if (!within(c->lr_final_fraction, 0.0, 1.0)) return bad(diag, "lr_final_fraction", "0 to 1");
    if (!within(c->beta1, 0.0, 0.9999999)) return bad(diag, "beta1", "0 to 0.9999999");
    if (!within(c->beta2, 0.0, 0.9999999)) return bad(diag, "beta2", "0 to 0.9999999");
    if (!within(c->adam_eps, 1e-16, 1.0)) return bad(diag, "adam_eps", "1e-16 to 1");
    if (!within(c->weight_decay, 0.0, 10.0)) return bad(diag, "weight_decay", "0 to 10");
    if (!within(c->clip_norm, 1e-9, 1e9)) return bad(diag, "clip_norm", "1e-9 to 1e9");
    return AT_OK;
}

uint32_t at_model_vocab_padded(const struct at_model_config *c)
{
    return (c->vocab + 7) / 8 * 8;
}

int at_model_slots(const struct at_model_config *c)
{
    int s = 8;
    while (c->kv_heads % (uint32_t)s != 0 || c->d_ff % (uint32_t)s != 0 || at_model_vocab_padded(c) % (uint32_t)s != 0)
        s /= 2;
    return s;
}

uint64_t at_model_matmul_params(const struct at_model_config *c)
{
    uint64_t d = c->d_model, kv = (uint64_t)c->kv_heads * c->head_size;
    uint64_t layer = d * d + 2 * kv * d + d * d + 3 * d * c->d_ff;
    return c->layers * layer + c->vocab * d;
}

uint64_t at_model_params(const struct at_model_config *c)
{
    uint64_t d = c->d_model;
    return at_model_matmul_params(c) + (c->tied ? 0 : c->vocab * d) + (2 * (uint64_t)c->layers + 1) * d;
}

uint64_t at_model_flops_per_token(const struct at_model_config *c)
{
    return 6 * at_model_matmul_params(c) + 6 * (uint64_t)c->layers * c->seq_len * c->heads * c->head_size;
}
