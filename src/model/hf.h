/* hf.h: our flat weights <-> the Hugging Face Llama layout (model.safetensors + config.json), lossless both ways.
 * Pure buffer codecs. Names and shapes are those of LlamaForCausalLM; F32; rows of padding are dropped and come back as
 * +0; q and k rows need no permutation, since rotary positions are half-split here as there. Tied:
 * no lm_head.weight. */
#ifndef ATOLL_MODEL_HF_H
#define ATOLL_MODEL_HF_H

#include "model/params.h"
#include "model/safetensors.h"

/* The whole model.safetensors, tensors in canonical order. meta: written as __metadata__ after {"format":"pt"}. */
at_err at_hf_write(const struct at_params *p, const float *theta, const struct at_st_meta *meta, int metas,
                   struct at_buf *out);
/* Only its first bytes, up to the data (to compare a file's header with what we would write). */
at_err at_hf_write_header(const struct at_params *p, const struct at_st_meta *meta, int metas, struct at_buf *out);
/* Reads any file of this layout, tensors in any order; unknown tensors are ignored (rotary tables of old files).
 * AT_E_DATA naming the tensor that is missing or has another shape or type. theta is written whole on success. */
at_err at_hf_read(const struct at_params *p, const struct at_st_file *file, const char *name, struct at_diag *diag,
                  float *ret_theta);

/* config.json, with every field that tools ask for. Deterministic. */
at_err at_hf_write_config(const struct at_model_config *c, struct at_buf *out);
/* AT_E_DATA naming the field; passes at_model_config_check. */
at_err at_hf_read_config(struct at_span json, const char *name, struct at_diag *diag,
                         struct at_model_config *ret_config);

#endif
