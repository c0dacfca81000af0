/* genesis.h: what founds a run: shape, hyper-parameters, data, rules. A run's id is SHA-256 of the canonical bytes.
 *
 * Plain values in fixed arrays, nothing owned. Foreign input: every field is checked and a refusal names the field.
 * Canonical: bytes that are not identical to their own re-encoding are refused. Exact: yes. */
#ifndef ATOLL_WIRE_GENESIS_H
#define ATOLL_WIRE_GENESIS_H

#include "base/sign.h"
#include "model/rounds.h"
#include "model/stages.h"

#define AT_GENESIS_BYTES_MAX    (16 * 1024)
#define AT_GENESIS_SHARDS_MAX   64
#define AT_GENESIS_TEXT_MAX     64 /* bytes of a name, licence, profile, tokenizer, preset; printable UTF-8 */
#define AT_GENESIS_ISSUANCE_MAX UINT64_C(1000000000000)
#define AT_GENESIS_ROUNDS_MAX   1000000
#define AT_MEMBERS_MAX          4096 /* keys that may ever join a run */

struct at_text_shard {
    struct at_hash hash; /* SHA-256 of the shard's bytes */
    uint64_t bytes;
    char name[AT_GENESIS_TEXT_MAX + 1], licence[AT_GENESIS_TEXT_MAX + 1];
};

struct at_genesis {
    char profile[AT_GENESIS_TEXT_MAX + 1];   /* "F32-1" */
    char tokenizer[AT_GENESIS_TEXT_MAX + 1]; /* "bytes" */
    char preset[AT_GENESIS_TEXT_MAX + 1];    /* for people */
    struct at_model_config model;
    struct at_train_config train; /* before at_outer_adapt */
    struct at_outer_config outer; /* mean, diloco or sparse; away from the default only in what message Outer has */
    struct at_text_shard shards[AT_GENESIS_SHARDS_MAX];
    uint32_t shard_count;
    double heldout_fraction; /* the last part of the bytes; 0 <= x < 1 */
    uint32_t heldout_bytes;  /* at most so many of them are evaluated */
    uint32_t min_members;    /* round 0 opens with so many */
    uint64_t issuance;       /* micro-points of one epoch (one round) */
    uint32_t round_ms_max;   /* a round closes after this, whoever is missing */
    struct at_node_id steward;
    uint64_t created_ms;
    uint32_t
        stages; /* members that share a unit (joined by the mean only); 0: a member computes a unit alone; else 2 .. AT_STAGES_MAX */
    bool groups_by_log; /* with stages: groups in the order of the log, not by what members measured (ledger/roles.h) */
};

/* AT_E_DATA naming the field. Includes the model's and the trainer's own checks and what the fold relies on: one unit's
 * tokens (steps * batch * seq_len) <= 2^40, its FLOPs < 2^63, rounds * issuance < 2^63. */
at_err at_genesis_check(const struct at_genesis *g, struct at_diag *diag);

/* Appends the canonical bytes; checks first. */
at_err at_genesis_encode(const struct at_genesis *g, struct at_diag *diag, struct at_buf *out);

/* AT_E_DATA: not canonical, or a field is out of range. AT_E_TOO_BIG past AT_GENESIS_BYTES_MAX. */
at_err at_genesis_decode(struct at_span bytes, struct at_diag *diag, struct at_genesis *ret_genesis);

/* The run's id, of canonical bytes. */
struct at_hash at_genesis_run_id(struct at_span canonical);

/* The settings of round `n`: they follow from the genesis alone, whoever took part in the rounds before. steps 0: the run
 * is over. How many rounds the run has. For a checked genesis. */
struct at_round at_genesis_round(const struct at_genesis *g, uint32_t n);
uint32_t at_genesis_rounds(const struct at_genesis *g);

/* Samples and tokens of the largest unit of a run: one replica's `steps` inner steps. Exact for a checked genesis. */
uint64_t at_genesis_unit_samples(const struct at_genesis *g);
uint64_t at_genesis_unit_tokens(const struct at_genesis *g);
/* Who trains with whom follows from what members have measured. */
static inline bool at_genesis_is_planned(const struct at_genesis *g)
{
    return g->stages != 0 && !g->groups_by_log;
}
/* At least 1. */
static inline uint32_t at_genesis_stages(const struct at_genesis *g)
{
    return g->stages ? g->stages : 1;
}

#endif
