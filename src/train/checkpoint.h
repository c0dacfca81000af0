/* checkpoint.h: a run's public state as files that other tools open. Pure buffer codecs; writing them atomically is the
 * store's work.
 *
 *   model.safetensors   weights in the Hugging Face Llama layout;
 *                       __metadata__: format, profile, round, state_root, weights_root
 *   config.json         LlamaForCausalLM
 *   stats-<first 16 hex of root>.safetensors
 *                       one tensor "second_moments" (statistics as in state.h); the same __metadata__ less format
 *   momentum-<first 16 hex of root>.safetensors
 *                       only where the state has an outer momentum: one tensor "outer_momentum", every weight's in the
 *                       order of the flat array, padding included; the same __metadata__ less format
 *
 * Loading accepts exactly what writing makes: the headers and config.json are compared with what we would write, and
 * the root is recomputed, so that any changed byte is noticed. (To read weights of other origin: hf.h.) */
#ifndef ATOLL_TRAIN_CHECKPOINT_H
#define ATOLL_TRAIN_CHECKPOINT_H

#include "model/hf.h"
#include "train/state.h"

#define AT_CHECKPOINT_MODEL  "model.safetensors"
#define AT_CHECKPOINT_CONFIG "config.json"

struct at_checkpoint {
    struct at_buf model, config, stats, momentum; /* momentum: empty where the state has none */
    char stats_name[40];                          /* stats-0123456789abcdef.safetensors */
    char momentum_name[48];
    struct at_hash root;
};
/* AT_E_NONFINITE, AT_E_NOMEM. */
at_err at_checkpoint_write(const struct at_state *s, struct at_diag *diag, struct at_checkpoint *ret_checkpoint);
void at_checkpoint_release(struct at_checkpoint *c);

/* Reads the root and round that model.safetensors names, before the statistics' file name is known; and the name. */
at_err at_checkpoint_peek(struct at_span model, struct at_diag *diag, struct at_hash *ret_root, uint32_t *ret_round);
void at_checkpoint_stats_name(struct at_hash root, char ret_name[40]);
void at_checkpoint_momentum_name(struct at_hash root, char ret_name[48]);

/* AT_E_DATA (or another code of exit code 3) with the file's name in diag->where when one of them is truncated, changed
 * or of another model. `s` (initialised for the run's params) is untouched on failure. */
at_err at_checkpoint_read(struct at_state *s, struct at_span model, struct at_span config, struct at_span stats,
                          struct at_diag *diag, struct at_hash *ret_root);
/* The same for a state that may have momentum: `s` has it exactly where the file is given (n > 0). */
at_err at_checkpoint_read_all(struct at_state *s, struct at_span model, struct at_span config, struct at_span stats,
                              struct at_span momentum, struct at_diag *diag, struct at_hash *ret_root);

/* The same straight into `s`, which is of no round after a failure: without the memory of a second state. */
at_err at_checkpoint_read_over(struct at_state *s, struct at_span model, struct at_span config, struct at_span stats,
                               struct at_span momentum, struct at_diag *diag, struct at_hash *ret_root);

/* What the files say about the state that they hold, and their first bytes (for the other checkpoint_*.c). */
enum { AT_CHECKPOINT_METAS = 4 };
struct at_checkpoint_named {
    struct at_hash root, weights_root;
    uint32_t round;
};
void at_checkpoint_meta(const struct at_checkpoint_named *n, struct at_st_meta ret_meta[AT_CHECKPOINT_METAS]);
at_err at_checkpoint_stats_header(const struct at_params *p, const struct at_st_meta *meta, struct at_buf *out);
at_err at_checkpoint_momentum_header(const struct at_params *p, const struct at_st_meta *meta, struct at_buf *out);
at_err at_checkpoint_read_meta(const struct at_st_file *f, const char *name, struct at_diag *diag,
                               struct at_checkpoint_named *ret);
void at_checkpoint_set_meta(struct at_st_meta *m, const char *key, const char *value);
bool at_checkpoint_read_u32(const char *text, uint32_t *ret); /* decimal, without leading zeros */

#endif
