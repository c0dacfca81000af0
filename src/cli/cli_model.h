/* cli_model.h: a model on disk: model.safetensors, config.json and the statistics, as a run folder and `train --out`
 * keep them (train/checkpoint.h says what is in them). */
#ifndef ATOLL_CLI_CLI_MODEL_H
#define ATOLL_CLI_CLI_MODEL_H

#include "model/transformer.h"
#include "train/state.h"

/* Owned; must not move: state and model point into it. */
struct at_cli_model {
    struct at_model model;
    struct at_state state;
    struct at_hash root; /* recomputed from the bytes, equal to what the file claims */
};
/* AT_E_NOT_FOUND when there is no model (yet); AT_E_DATA and the like naming the file when one of the three is
 * truncated, changed or of another model. Reading while a node replaces the files is fine. */
at_err at_cli_model_read(const char *dir, struct at_diag *diag, struct at_cli_model *ret_model);
void at_cli_model_release(struct at_cli_model *m);

/* Writes the three files so that a reader (and a crash at any moment) sees the old model or the new one, whole. */
at_err at_cli_model_write(const char *dir, const struct at_state *state, struct at_diag *diag);
/* Removes, once a model is in place, what belongs to others in `dir`: statistics, momenta and replicas' own files whose
 * names have another root, and what a crash left half-written. */
at_err at_cli_model_sweep(const char *dir, struct at_hash root, struct at_diag *diag);
/* The same after a failure, for the model that is still there. */
void at_cli_model_sweep_back(const char *dir);
/* The rounds in the model there, as its file's head says; no other byte is read. AT_E_NOT_FOUND: no model (yet). */
at_err at_cli_model_rounds(const char *dir, struct at_diag *diag, uint32_t *ret_rounds);
/* Whether a first model may be written there: the folder is missing, empty, or holds only what a first save left that
 * never came to its model. */
at_err at_cli_model_is_free(const char *dir, struct at_diag *diag, bool *ret_free);
/* `also` is called when everything but model.safetensors is in place. */
typedef at_err_t at_cli_model_also_fn(void *arg, const char *dir, struct at_hash root, struct at_diag *diag);
at_err at_cli_model_write_with(const char *dir, const struct at_state *state, at_cli_model_also_fn *also, void *arg,
                               struct at_diag *diag);

#endif
