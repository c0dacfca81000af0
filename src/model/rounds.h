/* rounds.h: what kinds of outer step there are, and which rounds a run's settings make: lengths, codecs, momentum. Pure.
 * Plain values, part of a run's genesis; the steps themselves are train/outer.h. Exact: yes. Figures: docs/adr/0007. */
#ifndef ATOLL_MODEL_ROUNDS_H
#define ATOLL_MODEL_ROUNDS_H

#include "model/config.h"
#include "tensor/real.h"

enum at_codec_id { AT_CODEC_PLAIN = 1, AT_CODEC_INT4, AT_CODEC_SPARSE, AT_CODEC_SPARSE6S }; /* train/codec.h */
enum at_outer_kind { AT_OUTER_MEAN = 1, AT_OUTER_DILOCO, AT_OUTER_SPARSE, AT_OUTER_AUTO };

/* What OPEN says of a round: plain values, so that one node's bytes can be broadcast to the others of the same build. */
struct at_round {
    uint32_t round, steps; /* inner steps of every replica, at most */
    uint64_t step_first;   /* inner steps of the run before this round: the learning rate's clock */
    uint32_t codec, k;     /* enum at_codec_id and its parameter (0: none) */
    uint32_t tau;          /* inner steps before the last round's result is joined */
    uint32_t clip;         /* 1: contributions are clipped to the lower median of their norms */
    real alpha, momentum;  /* outer learning rate; mu */
    double seconds;        /* a unit ends after the step that reaches this time; 0: never */
};

/* The settings of a run. */
struct at_outer_config {
    enum at_outer_kind kind;
    uint32_t k;                     /* sparse: kept of 4096, 1 to AT_SPARSE_K_MAX */
    uint32_t tau;                   /* <= 2, and less than steps_min */
    uint32_t steps_min, steps_max;  /* H; 0: the train config's steps. Fixed kinds take steps_max */
    double alpha_first, alpha_last; /* outer learning rate, straight from the one to the other over the run's steps */
    double momentum;                /* mu of the kinds with momentum, else 0 */
    double carry; /* dense rounds but the mean's: mu is at least carry^steps: what beta1 would have kept of m */
    double dense_fraction; /* of the run's steps: its start. sparse: dense there, by int4; auto: auto.h */
    uint32_t dense_steps;  /* auto: the start is at least so many steps */
    uint32_t steps_young;  /* diloco, sparse: H at most this in the start; 0: as later. auto: the shortest H there */
    double decay_share;    /* of the weight decay, see at_outer_adapt; 1: all */
    double round_seconds;  /* at_round.seconds */
};
#define AT_SPARSE_K_MAX  1024 /* 4096 are a chunk of train/codec_sparse.c */
#define AT_OUTER_TAU_MAX 2

/* mean | diloco | sparse | auto. AT_E_USAGE lists them. */
at_err at_outer_kind_find(const char *name, struct at_diag *diag, enum at_outer_kind *ret_kind);
const char *at_outer_kind_name(enum at_outer_kind kind);
void at_outer_config_default(struct at_outer_config *c, enum at_outer_kind kind);
/* The start, so much of the run, in dense rounds of two steps (of a kind that has such a start; auto: as short as links
 * bear): they learn more. */
void at_outer_config_young(struct at_outer_config *c, double fraction);
/* AT_E_USAGE naming the field. */
at_err at_outer_config_check(const struct at_outer_config *c, const struct at_train_config *train,
                             struct at_diag *diag);
/* The training settings for such rounds. With m = 0 at a round's start the gradient's part of H inner steps is only
 * sum over k of (1 - beta1^k), of H; outer momentum makes good for it, but multiplies the weight decay as well. */
void at_outer_adapt(const struct at_outer_config *c, struct at_train_config *io_train);
/* Whether states of such a run have an outer momentum. */
bool at_outer_config_momentum(const struct at_outer_config *c);

/* A round of the plain mean: codec plain, alpha 1. */
struct at_round at_round_mean(uint32_t round, uint32_t steps, uint64_t step_first);
/* mu of a dense round of so many steps, of a run that has outer momentum. */
real at_outer_dense_momentum(const struct at_outer_config *c, uint64_t steps);
/* The round that a run with fixed settings does after `previous` (NULL: the first); auto: plain and of the usual length,
 * auto.h is asked where there are links. previous->steps: what was done (the most of any replica), if rounds are bounded
 * by time. steps are cut where the run's rounds x steps end; 0: they have ended. */
struct at_round at_outer_round(const struct at_outer_config *c, const struct at_train_config *train,
                               const struct at_round *previous);
/* The round number `n` of a run with fixed settings whose rounds all had the steps that they were given: what
 * at_outer_round comes to after n calls, without them. */
struct at_round at_outer_round_number(const struct at_outer_config *c, const struct at_train_config *train, uint32_t n);
/* How many such rounds the run has. */
uint64_t at_outer_rounds(const struct at_outer_config *c, const struct at_train_config *train);
/* Its updates do not say all of the difference: replicas keep error feedback. */
bool at_round_is_lossy(const struct at_round *r);

#endif
