#include "wire/genesis.h"
#include "wire/pb.h"
#include "wire/printable.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Of the format and of what a log means under it: 2, since EPOCH's held-out loss follows from receipts. */
#define GENESIS_VERSION 2u
#define MIB             ((uint64_t)1 << 20)

static at_err_t bad(struct at_diag *diag, const char *field, const char *want)
{
    return at_fail(diag, AT_E_DATA, field, "genesis: %s must be %s", field, want);
}

static bool text_ok(const char *s, bool may_be_empty)
{
    size_t n = strnlen(s, AT_GENESIS_TEXT_MAX + 1);
    return n <= AT_GENESIS_TEXT_MAX && (n != 0 || may_be_empty) && at_printable(at_span(s, n));
}

static at_err_t check_texts(const struct at_genesis *g, struct at_diag *diag)
{
    static const char want[] = "1 to 64 bytes of printable text";
    if (!text_ok(g->profile, false)) return bad(diag, "profile", want);
    if (!text_ok(g->tokenizer, false)) return bad(diag, "tokenizer", want);
    if (!text_ok(g->preset, true)) return bad(diag, "preset", "at most 64 bytes of printable text");
    return AT_OK;
}

static at_err_t check_shards(const struct at_genesis *g, struct at_diag *diag)
{
    uint64_t total = 0;
    if (g->shard_count < 1 || g->shard_count > AT_GENESIS_SHARDS_MAX) return bad(diag, "shards", "1 to 64");
    for (uint32_t i = 0; i < g->shard_count; i++) {
        const struct at_text_shard *s = &g->shards[i];
        if (at_hash_is_zero(s->hash)) return bad(diag, "shards.hash", "a SHA-256");
        if (s->bytes < 1 || s->bytes > (uint64_t)1 << 50) return bad(diag, "shards.bytes", "1 to 2^50");
        if (!text_ok(s->name, true)) return bad(diag, "shards.name", "at most 64 bytes of printable text");
        if (!text_ok(s->licence, true)) return bad(diag, "shards.licence", "at most 64 bytes of printable text");
        total += s->bytes;
    }
    return total <= (uint64_t)1 << 50 ? AT_OK : bad(diag, "shards.bytes", "at most 2^50 together");
}

/* What a message Outer does not say is as always; a mean says nothing. */
static bool outer_is_sayable(const struct at_outer_config *c)
{
    struct at_outer_config usual;
    at_outer_config_default(&usual, AT_OUTER_MEAN);
    bool default_mean = c->k == usual.k && c->steps_young == usual.steps_young && c->momentum == usual.momentum &&
                        c->carry == usual.carry && c->dense_fraction == usual.dense_fraction &&
                        c->decay_share == usual.decay_share && c->alpha_first == usual.alpha_first &&
                        c->alpha_last == usual.alpha_last;
    return c->tau == 0 && c->steps_min == 0 && c->steps_max == 0 && c->dense_steps == 0 && c->round_seconds == 0 &&
           (c->kind != AT_OUTER_MEAN || default_mean);
}

static at_err_t check_outer(const struct at_genesis *g, struct at_diag *diag)
{
    const struct at_outer_config *c = &g->outer;
    const double value[] = {c->momentum, c->carry, c->dense_fraction, c->decay_share, c->alpha_first, c->alpha_last};
    struct at_diag own = {0};
    if (c->kind < AT_OUTER_MEAN || c->kind > AT_OUTER_SPARSE) return bad(diag, "outer.kind", "mean, diloco or sparse");
    if (at_outer_config_check(c, &g->train, &own)) {
        char where[sizeof own.where + 8];
        snprintf(where, sizeof where, "outer.%s", own.where);
        return at_fail(diag, AT_E_DATA, where, "genesis: outer step, %s: %s", own.where, own.text);
    }
    for (size_t i = 0; i < sizeof value / sizeof *value; i++)
        if (signbit(value[i])) return bad(diag, "outer", "such that no number of it is -0"); /* has two encodings */
    if (!outer_is_sayable(c)) return bad(diag, "outer", "without what a genesis cannot say of its kind");
    if (at_outer_rounds(c, &g->train) > AT_GENESIS_ROUNDS_MAX)
        return bad(diag, "outer.steps_young", "such that the run has at most 10^6 rounds");
    return AT_OK;
}

/* What the ledger multiplies must fit, for the whole run. */
static at_err_t check_products(const struct at_genesis *g, struct at_diag *diag)
{
    uint64_t samples = at_genesis_unit_samples(g), tokens, flops;
    if (samples > UINT32_MAX || __builtin_mul_overflow(samples, (uint64_t)g->model.seq_len, &tokens) ||
        tokens > (uint64_t)1 << 40)
        return bad(diag, "steps", "such that steps * batch * seq_len is at most 2^40");
    if (__builtin_mul_overflow(tokens, at_model_flops_per_token(&g->model), &flops) || flops > INT64_MAX)
        return bad(diag, "steps", "such that one unit's FLOPs fit in 63 bits");
    return AT_OK;
}

at_err at_genesis_check(const struct at_genesis *g, struct at_diag *diag)
{
    at_err_t err = check_texts(g, diag);
    if (!err) err = at_model_config_check(&g->model, diag);
    if (!err) err = at_train_config_check(&g->train, diag);
    if (!err) err = check_shards(g, diag);
    if (!err) err = check_products(g, diag);
    if (!err) err = check_outer(g, diag);
    if (err) return err;
    if (!isfinite(g->heldout_fraction) || signbit(g->heldout_fraction) || g->heldout_fraction > 0.9)
        return bad(diag, "heldout_fraction", "0 to 0.9");
    if (g->heldout_bytes > 64 * MIB) return bad(diag, "heldout_bytes", "at most 64 MiB");
    if (g->min_members < 1 || g->min_members > AT_MEMBERS_MAX) return bad(diag, "min_members", "1 to 4096");
    if (g->issuance > AT_GENESIS_ISSUANCE_MAX) return bad(diag, "issuance", "at most 10^12 micro-points");
    if (g->round_ms_max < 1 || g->round_ms_max > 7u * 86400 * 1000) return bad(diag, "round_ms_max", "1 ms to 7 days");
    if (g->stages == 1 || g->stages > AT_STAGES_MAX || g->stages > g->model.layers)
        return bad(diag, "stages", "0, or 2 to 16 and at most the model's layers");
    if (g->groups_by_log && g->stages == 0)
        return bad(diag, "groups_by_log", "false without stages: there are no groups");
    if (g->stages != 0 && g->outer.kind != AT_OUTER_MEAN) /* error feedback would be of a stage, and stages change */
        return bad(diag, "stages", "0 unless outer.kind is the mean: members that share a unit send no lossy updates");
    return AT_OK;
}

struct at_round at_genesis_round(const struct at_genesis *g, uint32_t n)
{
    return at_outer_round_number(&g->outer, &g->train, n);
}

uint32_t at_genesis_rounds(const struct at_genesis *g)
{
    return (uint32_t)at_outer_rounds(&g->outer, &g->train);
}

uint64_t at_genesis_unit_samples(const struct at_genesis *g)
{
    return (uint64_t)g->train.steps * g->train.batch;
}

uint64_t at_genesis_unit_tokens(const struct at_genesis *g)
{
    return at_genesis_unit_samples(g) * g->model.seq_len;
}

struct at_hash at_genesis_run_id(struct at_span canonical)
{
    return at_sha256(canonical.p, canonical.n);
}

/* The generated structs that one genesis needs, in one place so that nothing is allocated. */
struct genesis_pb {
    Atoll__Pb__Genesis genesis;
    Atoll__Pb__Model model;
    Atoll__Pb__Train train;
    Atoll__Pb__Outer outer;
    Atoll__Pb__Shard shard[AT_GENESIS_SHARDS_MAX];
    Atoll__Pb__Shard *shard_at[AT_GENESIS_SHARDS_MAX];
};

static char *pb_string(const char *s)
{
    return (char *)(uintptr_t)s;
}

static void build_configs(const struct at_model_config *m, const struct at_train_config *t, struct genesis_pb *pb)
{
    atoll__pb__model__init(&pb->model);
    pb->model.layers = m->layers;
    pb->model.d_model = m->d_model;
    pb->model.heads = m->heads;
    pb->model.kv_heads = m->kv_heads;
    pb->model.d_ff = m->d_ff;
    pb->model.seq_len = m->seq_len;
    pb->model.vocab = m->vocab;
    pb->model.tied = m->tied;
    pb->model.rope_theta = m->rope_theta;
    pb->model.norm_eps = m->norm_eps;
    atoll__pb__train__init(&pb->train);
    pb->train.rounds = t->rounds;
    pb->train.steps = t->steps;
    pb->train.batch = t->batch;
    pb->train.warmup_steps = t->warmup_steps;
    pb->train.lr_peak = t->lr_peak;
    pb->train.lr_final_fraction = t->lr_final_fraction;
    pb->train.beta1 = t->beta1;
    pb->train.beta2 = t->beta2;
    pb->train.adam_eps = t->adam_eps;
    pb->train.weight_decay = t->weight_decay;
    pb->train.clip_norm = t->clip_norm;
    pb->train.seed = t->seed;
}

static void build_outer(const struct at_outer_config *c, Atoll__Pb__Outer *pb)
{
    atoll__pb__outer__init(pb);
    pb->kind = (uint32_t)c->kind;
    pb->k = c->k;
    pb->steps_young = c->steps_young;
    pb->dense_fraction = c->dense_fraction;
    pb->momentum = c->momentum;
    pb->carry = c->carry;
    pb->decay_share = c->decay_share;
    pb->alpha_first = c->alpha_first;
    pb->alpha_last = c->alpha_last;
}

static void build(const struct at_genesis *g, struct genesis_pb *pb)
{
    build_configs(&g->model, &g->train, pb);
    build_outer(&g->outer, &pb->outer);
    for (uint32_t i = 0; i < g->shard_count; i++) {
        Atoll__Pb__Shard *s = pb->shard_at[i] = &pb->shard[i];
        atoll__pb__shard__init(s);
        s->hash = at_pb_bytes(g->shards[i].hash.b, AT_HASH_BYTES);
        s->bytes = g->shards[i].bytes;
        s->name = pb_string(g->shards[i].name);
        s->licence = pb_string(g->shards[i].licence);
    }
    atoll__pb__genesis__init(&pb->genesis);
    pb->genesis.version = GENESIS_VERSION;
    pb->genesis.profile = pb_string(g->profile);
    pb->genesis.tokenizer = pb_string(g->tokenizer);
    pb->genesis.preset = pb_string(g->preset);
    pb->genesis.model = &pb->model;
    pb->genesis.train = &pb->train;
    pb->genesis.n_shards = g->shard_count;
    pb->genesis.shards = pb->shard_at;
    pb->genesis.heldout_fraction = g->heldout_fraction;
    pb->genesis.heldout_bytes = g->heldout_bytes;
    pb->genesis.min_members = g->min_members;
    pb->genesis.issuance = g->issuance;
    pb->genesis.round_ms_max = g->round_ms_max;
    pb->genesis.steward = at_pb_bytes(g->steward.b, sizeof g->steward.b);
    pb->genesis.created_ms = g->created_ms;
    if (g->outer.kind != AT_OUTER_MEAN) pb->genesis.outer = &pb->outer;
    pb->genesis.stages = g->stages;
    pb->genesis.groups_by_log = g->groups_by_log;
}

at_err at_genesis_encode(const struct at_genesis *g, struct at_diag *diag, struct at_buf *out)
{
    at_err_t err = at_genesis_check(g, diag);
    if (err) return err;
    struct genesis_pb pb;
    build(g, &pb);
    if (protobuf_c_message_get_packed_size(&pb.genesis.base) > AT_GENESIS_BYTES_MAX)
        return at_fail(diag, AT_E_TOO_BIG, "genesis", "genesis: larger than %d bytes", AT_GENESIS_BYTES_MAX);
    return at_pb_pack(&pb.genesis.base, out);
}

static void read_configs(const Atoll__Pb__Model *m, const Atoll__Pb__Train *t, struct at_genesis *g)
{
    g->model = (struct at_model_config){.layers = m->layers,
                                        .d_model = m->d_model,
                                        .heads = m->heads,
                                        .kv_heads = m->kv_heads,
                                        .head_size = m->heads != 0 ? m->d_model / m->heads : 0,
                                        .d_ff = m->d_ff,
                                        .seq_len = m->seq_len,
                                        .vocab = m->vocab,
                                        .tied = m->tied != 0,
                                        .rope_theta = m->rope_theta,
                                        .norm_eps = m->norm_eps};
    g->train = (struct at_train_config){.rounds = t->rounds,
                                        .steps = t->steps,
                                        .batch = t->batch,
                                        .warmup_steps = t->warmup_steps,
                                        .lr_peak = t->lr_peak,
                                        .lr_final_fraction = t->lr_final_fraction,
                                        .beta1 = t->beta1,
                                        .beta2 = t->beta2,
                                        .adam_eps = t->adam_eps,
                                        .weight_decay = t->weight_decay,
                                        .clip_norm = t->clip_norm,
                                        .seed = t->seed};
}

static void read_outer(const Atoll__Pb__Outer *pb, struct at_outer_config *c)
{
    at_outer_config_default(c, AT_OUTER_MEAN);
    if (pb == NULL) return;
    *c = (struct at_outer_config){.kind =
                                      pb->kind <= AT_OUTER_AUTO ? (enum at_outer_kind)pb->kind : (enum at_outer_kind)0,
                                  .k = pb->k,
                                  .steps_young = pb->steps_young,
                                  .dense_fraction = pb->dense_fraction,
                                  .momentum = pb->momentum,
                                  .carry = pb->carry,
                                  .decay_share = pb->decay_share,
                                  .alpha_first = pb->alpha_first,
                                  .alpha_last = pb->alpha_last};
}

/* Copies what fits our fixed arrays; ranges are judged by at_genesis_check afterwards. */
static at_err_t read_fields(const Atoll__Pb__Genesis *pb, struct at_diag *diag, struct at_genesis *g)
{
    if (pb->version != GENESIS_VERSION)
        return at_fail(
            diag, AT_E_DATA, "version",
            "this run was made by another version of the program (its genesis is of version %u, this program's "
            "of %u): go on with the program that made it, or begin a new run with this one",
            pb->version, GENESIS_VERSION);
    if (pb->model == NULL) return bad(diag, "model", "present");
    if (pb->train == NULL) return bad(diag, "train", "present");
    if (pb->n_shards > AT_GENESIS_SHARDS_MAX) return bad(diag, "shards", "1 to 64");
    if (!at_pb_text(pb->profile, g->profile, AT_GENESIS_TEXT_MAX)) return bad(diag, "profile", "printable text");
    if (!at_pb_text(pb->tokenizer, g->tokenizer, AT_GENESIS_TEXT_MAX)) return bad(diag, "tokenizer", "printable text");
    if (!at_pb_text(pb->preset, g->preset, AT_GENESIS_TEXT_MAX)) return bad(diag, "preset", "printable text");
    if (!at_pb_fixed(&pb->steward, g->steward.b, sizeof g->steward.b)) return bad(diag, "steward", "32 bytes");
    for (size_t i = 0; i < pb->n_shards; i++) {
        const Atoll__Pb__Shard *from = pb->shards[i];
        struct at_text_shard *to = &g->shards[i];
        if (!at_pb_fixed(&from->hash, to->hash.b, AT_HASH_BYTES)) return bad(diag, "shards.hash", "32 bytes");
        if (!at_pb_text(from->name, to->name, AT_GENESIS_TEXT_MAX) ||
            !at_pb_text(from->licence, to->licence, AT_GENESIS_TEXT_MAX))
            return bad(diag, "shards.name", "at most 64 bytes of printable text, and shards.licence too");
        to->bytes = from->bytes;
    }
    g->shard_count = (uint32_t)pb->n_shards;
    read_configs(pb->model, pb->train, g);
    read_outer(pb->outer, &g->outer);
    g->heldout_fraction = pb->heldout_fraction;
    g->heldout_bytes = pb->heldout_bytes;
    g->min_members = pb->min_members;
    g->issuance = pb->issuance;
    g->round_ms_max = pb->round_ms_max;
    g->created_ms = pb->created_ms;
    g->stages = pb->stages;
    g->groups_by_log = pb->groups_by_log;
    return AT_OK;
}

at_err at_genesis_decode(struct at_span bytes, struct at_diag *diag, struct at_genesis *ret_genesis)
{
    if (bytes.n > AT_GENESIS_BYTES_MAX)
        return at_fail(diag, AT_E_TOO_BIG, "genesis", "genesis: larger than %d bytes", AT_GENESIS_BYTES_MAX);
    _Alignas(max_align_t) uint8_t block[4 * AT_GENESIS_BYTES_MAX]; /* canonical genesis bytes unpack to less than 3x */
    struct at_pb_arena arena = {.block = block, .cap = sizeof block};
    ProtobufCAllocator allocator = at_pb_allocator(&arena);
    const Atoll__Pb__Genesis *pb = atoll__pb__genesis__unpack(&allocator, bytes.n, bytes.p);
    if (pb == NULL) return at_fail(diag, AT_E_DATA, "genesis", "genesis: not a genesis, or damaged");
    struct at_genesis g = {.shard_count = 0};
    at_err_t err = read_fields(pb, diag, &g);
    if (!err) err = at_genesis_check(&g, diag);
    if (err) return err;
    struct genesis_pb again;
    build(&g, &again);
    if (!at_pb_packs_to(&again.genesis.base, bytes))
        return at_fail(diag, AT_E_DATA, "genesis", "genesis: not in canonical form");
    *ret_genesis = g;
    return AT_OK;
}
