/* config.h: the shape of a model and the hyper-parameters of a run, as plain values, and the presets.
 * Pure. These values are part of a run's genesis: every node derives everything else from them. */
#ifndef ATOLL_MODEL_CONFIG_H
#define ATOLL_MODEL_CONFIG_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* A Llama-family decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU. */
struct at_model_config {
    uint32_t layers, d_model, heads, kv_heads, head_size, d_ff, seq_len; /* head_size = d_model / heads */
    uint32_t vocab;                                                      /* classes that exist */
    bool tied;                                                           /* head = embedding */
    double rope_theta, norm_eps;
};

/* Inner-loop hyper-parameters. One replica's unit of a round is steps x batch sequences of seq_len tokens. */
struct at_train_config {
    uint32_t rounds, steps, batch, warmup_steps;
    double lr_peak, lr_final_fraction; /* cosine from lr_peak to lr_peak * lr_final_fraction over rounds * steps */
    double beta1, beta2, adam_eps, weight_decay, clip_norm;
    uint64_t seed;
};

struct at_preset {
    const char *name, *summary;
    struct at_model_config model;
    struct at_train_config train;
};

/* AT_E_USAGE for an unknown name; `diag` then lists the known ones. */
at_err at_preset_find(const char *name, struct at_diag *diag, const struct at_preset **ret_preset);
const struct at_preset *at_preset_list(int *ret_count);

/* AT_E_DATA with the offending field when a shape is impossible or beyond the limits (a genesis is foreign input):
 * layers <= 256, d_model <= 16384, heads divide d_model, kv_heads divide heads, head_size even, seq_len <= 65536,
 * vocab <= 1 << 20, every product checked, all doubles finite and in range. */
at_err at_model_config_check(const struct at_model_config *c, struct at_diag *diag);
at_err at_train_config_check(const struct at_train_config *c, struct at_diag *diag);

/* S: the largest power of two <= 8 that divides kv_heads, d_ff and the padded vocabulary (contract rule 3). */
int at_model_slots(const struct at_model_config *c);
/* vocab rounded up to a multiple of 8. */
uint32_t at_model_vocab_padded(const struct at_model_config *c);

/* Parameters in all (tied counted once), and those that are matrix products (head included, embedding look-up not). */
uint64_t at_model_params(const struct at_model_config *c);
uint64_t at_model_matmul_params(const struct at_model_config *c);

/* FLOPs of forward + backward for one token, as points are counted: 6 * matmul parameters +
 * 6 * layers * seq_len * heads * head_size (the causal half), no recomputation. */
uint64_t at_model_flops_per_token(const struct at_model_config *c);

#endif
