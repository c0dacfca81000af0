#include "cli/train_setup.h"

#include "cli/cli_model.h"
#include "cli/cli_text.h"
#include "model/hf.h"
#include "os/file.h"
#include "os/sys.h"
#include "tensor/exec.h"
#include "train/checkpoint.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define KERNEL_PROFILE "F32-1" /* the arithmetic contract: another one has other bits */

const struct at_opt at_train_rows[AT_TRAIN_ROWS] = {
    AT_ROW_TEXT(struct at_train_args, preset, "preset", "P", NULL,
                "the model's shape: nano (the default), 10m, 124m ..."),
    AT_ROW_LIST(struct at_train_args, data, "data", "FILE",
                "text to learn; several times, or further files as plain words"),
    AT_ROW_INT(struct at_train_args, replicas, "replicas", "R", 1, 1024, "1",
               "replicas whose updates are joined each round"),
    AT_ROW_INT(struct at_train_args, rounds, "rounds", "N", 1, 1000000, NULL, "rounds (default: the preset's)"),
    AT_ROW_INT(struct at_train_args, steps, "steps", "H", 1, 100000, NULL,
               "inner steps of a round (default: the preset's)"),
    AT_ROW_INT(struct at_train_args, batch, "batch", "B", 1, 65536, NULL,
               "sequences of an inner step of one replica (default: the preset's)"),
    AT_ROW_REAL(struct at_train_args, round_seconds, "round-seconds", "S", 0.001, 1e6, NULL,
                "a round ends after so many seconds, if its steps are not done before"),
    AT_ROW_INT(struct at_train_args, seed, "seed", "S", 0, UINT64_MAX, NULL,
               "seed of weights and data order (default: the preset's)"),
    AT_ROW_TEXT(struct at_train_args, outer, "outer", "KIND", "mean",
                "how updates are joined: mean, diloco, sparse or auto"),
    AT_ROW_INT(struct at_train_args, keep, "keep", "K", 1, AT_SPARSE_K_MAX, NULL,
               "sparse: values kept of every 4096 (default: the kind's)"),
    AT_ROW_REAL(
        struct at_train_args, young, "young", "F", 0, 1, NULL,
        "so much of the run, its start, in dense rounds of 2 steps (auto: as short as links bear), which learn more"),
    AT_ROW_INT(struct at_train_args, tau, "tau", "T", 0, AT_OUTER_TAU_MAX, NULL,
               "steps that go on while updates travel (default: the kind's)"),
    AT_ROW_INT(struct at_train_args, threads, "threads", "N", 1, 64, NULL,
               "threads, of each rank where split (default: one per processor)"),
    AT_ROW_TEXT(struct at_train_args, kernels, "kernels", "K", "auto",
                "ref, avx2, avx512 or auto, or a list of them for the ranks in turn; all give the same bits"),
    AT_ROW_TEXT(struct at_train_args, out, "out", "D", NULL, "folder for model.safetensors and config.json"),
    AT_ROW_TEXT(struct at_train_args, resume, "resume", "D", NULL,
                "goes on from a folder that --out wrote, whatever the split was"),
    AT_ROW_FLAG(struct at_train_args, model_only, "model-only",
                "with --resume: without what each replica kept for itself, which ends in another model"),
    AT_ROW_REAL(struct at_train_args, save_seconds, "save-seconds", "S", 0, 1e6, NULL,
                "writes --out during the run, after a round, so often (default: 30, or more for large models)"),
    AT_ROW_FLAG(struct at_train_args, recompute, "recompute",
                "keeps less of the forward pass in memory and computes it again"),
    AT_ROW_INT(struct at_train_args, tp, "tp", "T", 1, 8, "1", "ranks that split every layer: 1, 2, 4 or 8"),
    AT_ROW_INT(struct at_train_args, pp, "pp", "P", 1, 256, "1", "stages: runs of layers, one after the other"),
    AT_ROW_INT(struct at_train_args, microbatches, "microbatches", "M", 1, 65536, NULL,
               "parts of a step's batch that go through the stages (default: chosen)"),
    AT_ROW_TEXT(struct at_train_args, link, "link", "L", NULL,
                "between ranks: tls (processes, the default), inproc (threads), mpi (under mpirun)"),
    AT_ROW_TEXT(struct at_train_args, plan, "plan", "FILE", NULL, "who computes what, as `atoll plan --json` wrote it"),
    AT_ROW_TEXT(struct at_train_args, node, "node", "NAME", NULL,
                "several machines: which of the plan's nodes this is"),
    AT_ROW_TEXT(struct at_train_args, listen, "listen", "HOST:PORT", NULL,
                "several machines, on that of rank 0: where the others find it"),
    AT_ROW_TEXT(struct at_train_args, join, "join", "HOST:PORT", NULL,
                "several machines, on the others: where rank 0 listens"),
    AT_ROW_TEXT(struct at_train_args, secret, "secret", "FILE", NULL,
                "several machines: a file of 32 random bytes, the same on all, mode 0600"),
};

at_err_t at_train_take_words(struct at_train_args *a, const struct at_words *words, struct at_diag *diag)
{
    for (int i = 0; i < words->count; i++) { /* --data A B C */
        if (a->data.count == 0)
            return at_fail(diag, AT_E_USAGE, words->v[i], "unexpected; text files come with --data FILE");
        a->data.v[a->data.count++] = words->v[i];
    }
    return AT_OK;
}

struct at_kernels_name at_train_kernels(const struct at_train_args *args, int rank)
{
    struct at_kernels_name name = {""};
    const char *p = args->kernels;
    int count = 1;
    for (const char *c = p; *c != 0; c++) count += *c == ',';
    for (int skip = rank % count; skip > 0; skip--) p = strchr(p, ',') + 1;
    snprintf(name.s, sizeof name.s, "%.*s", (int)strcspn(p, ","), p);
    return name;
}

static at_err check_kernels(const struct at_train_setup *s, struct at_diag *diag)
{
    const struct at_train_args *args = s->args;
    const struct at_kern *kern;
    int count = 1;
    at_err_t err = AT_OK;
    for (const char *c = args->kernels; *c != 0; c++) count += *c == ',';
    for (int i = 0; i < count && err == AT_OK; i++) err = at_kern_select(at_train_kernels(args, i).s, diag, &kern);
    if (err == AT_OK && count > 1 && s->link == AT_LINK_NONE)
        err = at_fail(diag, AT_E_USAGE, "--kernels",
                      "--kernels %s: a list needs several ranks, and this run is one process: split it (--tp, --pp, "
                      "--plan, --link tls) or name one",
                      args->kernels);
    return err;
}

/* ---- settings ----------------------------------------------------------------------------------------------------- */

static at_err settings(struct at_train_setup *s, struct at_diag *diag)
{
    const struct at_train_args *a = s->args;
    enum at_outer_kind kind;
    const char *planned = s->file.model[0] != 0 ? s->file.model : "nano";
    at_err_t err = at_preset_find(a->preset != NULL ? a->preset : planned, diag, &s->preset);
    if (err == AT_OK && a->plan != NULL && strcmp(s->preset->name, planned) != 0)
        err = at_fail(diag, AT_E_DATA, a->plan, "is a plan for %s, not for %s", planned, s->preset->name);
    if (err != AT_OK) return err;
    s->config = s->preset->train;
    if (a->rounds.given) s->config.rounds = (uint32_t)a->rounds.v;
    if (a->steps.given) s->config.steps = (uint32_t)a->steps.v;
    if (a->batch.given) s->config.batch = (uint32_t)a->batch.v;
    if (a->seed.given) s->config.seed = a->seed.v;
    if ((err = at_train_config_check(&s->config, diag)) != AT_OK) return err;
    if ((err = at_outer_kind_find(a->outer, diag, &kind)) != AT_OK) return err;
    at_outer_config_default(&s->outer, kind);
    if (a->keep.given) s->outer.k = (uint32_t)a->keep.v;
    if (a->young.given) {
        if (s->outer.carry == 0)
            return at_fail(diag, AT_E_USAGE, "--young", "--young goes with --outer diloco, sparse and auto");
        at_outer_config_young(&s->outer, a->young.v);
    }
    if (a->tau.given) s->outer.tau = (uint32_t)a->tau.v;
    if (a->round_seconds.given) s->outer.round_seconds = a->round_seconds.v;
    err = at_outer_config_check(&s->outer, &s->config, diag);
    if (err == AT_OK) at_outer_adapt(&s->outer, &s->config);
    if (err == AT_OK && s->outer.tau > 0 && a->round_seconds.given)
        err = at_fail(diag, AT_E_USAGE, "--tau", "--tau goes with rounds of so many steps, not with --round-seconds");
    return err;
}

static at_err choose_link(struct at_train_setup *s, struct at_diag *diag)
{
    const struct at_train_args *a = s->args;
    if (a->link != NULL && strcmp(a->link, "tls") == 0)
        s->link = AT_LINK_TLS;
    else if (a->link != NULL && strcmp(a->link, "inproc") == 0)
        s->link = AT_LINK_INPROC;
    else if (a->link != NULL && strcmp(a->link, "mpi") == 0)
        s->link = AT_LINK_MPI;
    else if (a->link != NULL)
        return at_fail(diag, AT_E_USAGE, "--link", "--link %s: must be tls, inproc or mpi", a->link);
    else if (at_ranks_mpi_launched())
        s->link = AT_LINK_MPI;
    else if (a->tp.v > 1 || a->pp.v > 1 || a->plan != NULL || a->join != NULL || a->listen != NULL)
        s->link = AT_LINK_TLS;
    if (a->listen != NULL && a->join != NULL)
        return at_fail(diag, AT_E_USAGE, "--join", "either --listen (the machine of rank 0) or --join (the others)");
    if ((a->listen != NULL || a->join != NULL) && (a->plan == NULL || a->node == NULL))
        return at_fail(diag, AT_E_USAGE, "--node",
                       "several machines need --plan FILE and each its own --node NAME of it");
    if (a->node != NULL && a->plan == NULL)
        return at_fail(diag, AT_E_USAGE, "--node", "a node is one of a plan's: --plan FILE is missing");
    if (a->node != NULL && (s->link != AT_LINK_TLS || a->secret == NULL))
        return at_fail(diag, AT_E_USAGE, "--secret",
                       "several machines are linked by TLS and need the same --secret FILE each (32 random bytes)");
    return AT_OK;
}

/* Enough to keep the stages busy, and small enough that a stage's activations are. Where one rank is a replica, nothing
 * flows: as few as its activations allow. */
static int choose_microbatches(const struct at_train_setup *s)
{
    uint64_t want = s->args->pp.v > 1 ? 4 * s->args->pp.v : 4;
    if (s->args->pp.v == 1 && s->args->tp.v == 1) {
        struct at_trainer_options o = {.recompute = s->recompute};
        struct at_shard whole = at_shard_whole(&s->preset->model);
        uint64_t each = (uint64_t)at_trainer_microbatch(&s->preset->model, &whole, &s->config, &o);
        want = (s->config.batch + each - 1) / each;
    }
    return (int)(want < s->config.batch ? want : s->config.batch);
}

static at_err read_plan(struct at_train_setup *s, struct at_diag *diag)
{
    const struct at_train_args *a = s->args;
    struct at_buf text = {0};
    if (a->plan == NULL) return AT_OK;
    if (a->tp.given || a->pp.given)
        return at_fail(diag, AT_E_USAGE, "--plan", "the plan says how the model is cut: leave out --tp and --pp");
    at_err_t err = at_file_read(a->plan, AT_PLAN_FILE_BYTES_MAX, diag, &text);
    if (err == AT_OK) err = at_plan_file_parse(at_buf_span(&text), a->plan, diag, &s->file);
    if (err == AT_OK && a->node != NULL) err = at_plan_file_find(&s->file, a->node, diag, &s->node);
    at_buf_release(&text);
    return err;
}

/* Which machine is which: that of rank 0 listens, the others come to it. */
static at_err find_machines(struct at_train_setup *s, struct at_diag *diag)
{
    const struct at_train_args *a = s->args;
    if (s->node < 0) return AT_OK;
    int first = s->plan.node[0];
    bool here = false;
    for (int i = 0; i < s->plan.ranks; i++) here |= s->plan.node[i] == s->node;
    if (!here) return at_fail(diag, AT_E_USAGE, a->node, "this node is a spare: the plan gives it nothing to do");
    if (first == s->node && a->join != NULL)
        return at_fail(diag, AT_E_USAGE, "--join", "node %s runs rank 0: the others join it, and it has --listen",
                       a->node);
    if (first != s->node && a->listen != NULL)
        return at_fail(diag, AT_E_USAGE, "--listen", "rank 0 is on node %s, which listens; this is %s and has --join",
                       s->file.host[first].name, a->node);
    s->meet = a->listen != NULL ? a->listen : a->join != NULL ? a->join : s->file.host[first].address;
    if (s->meet[0] == 0)
        return at_fail(diag, AT_E_USAGE, first == s->node ? "--listen" : "--join",
                       "the plan has no address for node %s, where rank 0 is: say HOST:PORT", s->file.host[first].name);
    return AT_OK;
}

static at_err cut(struct at_train_setup *s, struct at_diag *diag)
{
    const struct at_train_args *a = s->args;
    s->replicas = (int)a->replicas.v;
    if (a->plan == NULL) {
        int M = a->microbatches.given ? (int)a->microbatches.v : choose_microbatches(s);
        return at_plan_uniform(&s->plan, &s->preset->model, s->replicas, (int)a->pp.v, (int)a->tp.v, M, s->config.batch,
                               diag);
    }
    s->plan = s->file.plan;
    s->file.plan = (struct at_plan){0};
    if (a->replicas.given && s->replicas != s->plan.replicas)
        return at_fail(diag, AT_E_USAGE, "--replicas", "%s has %d replicas", a->plan, s->plan.replicas);
    s->replicas = s->plan.replicas;
    s->recompute = s->recompute || s->file.recompute;
    if (a->microbatches.given) s->plan.microbatches = (int)a->microbatches.v;
    at_err_t err = at_plan_check(&s->plan, &s->preset->model, s->config.batch, diag);
    return err == AT_OK ? find_machines(s, diag) : err;
}

static at_err make_plan(struct at_train_setup *s, struct at_diag *diag)
{
    s->replicas = (int)s->args->replicas.v;
    if (s->link == AT_LINK_NONE) return AT_OK;
    at_err_t err = cut(s, diag);
    if (err != AT_OK) return err;
    size_t n = (size_t)s->plan.ranks;
    s->name = calloc(n, sizeof *s->name);
    s->name_text = calloc(n, sizeof *s->name_text);
    if (s->name == NULL || s->name_text == NULL)
        return at_fail(diag, AT_E_NOMEM, "plan", "no memory for %d ranks", s->plan.ranks);
    for (int i = 0; i < s->plan.ranks; i++) {
        s->name_text[i] = at_plan_place_name(&s->plan, i);
        s->name[i] = s->name_text[i].s;
    }
    return AT_OK;
}

static at_err read_text(struct at_train_setup *s, struct at_diag *diag)
{
    const struct at_train_args *a = s->args;
    char corpus[AT_PATH_BYTES];
    const char *standard = corpus;
    at_err_t err = a->data.count == 0 ? at_cli_corpus_find(diag, corpus) : AT_OK;
    if (err == AT_OK)
        err =
            at_cli_text_read(a->data.count ? a->data.v : &standard, a->data.count ? a->data.count : 1, diag, &s->text);
    if (err != AT_OK) return err;
    return at_data_init(&s->data, at_buf_span(&s->text), s->preset->model.seq_len, s->config.seed, AT_HELDOUT_FRACTION,
                        AT_HELDOUT_BYTES_DEFAULT, diag);
}

/* ---- facts: what every rank must have alike ----------------------------------------------------------------------- */

static void set_fact(struct at_train_setup *s, int i, const char *name, const char *value)
{
    snprintf(s->fact[i].name, sizeof s->fact[i].name, "%s", name);
    snprintf(s->fact[i].value, sizeof s->fact[i].value, "%.71s", value);
}

static void set_digest(struct at_train_setup *s, int i, const char *name, struct at_hash hash)
{
    char text[17];
    snprintf(text, sizeof text, "%.16s", at_hash_hex(hash).s);
    set_fact(s, i, name, text);
}

static struct at_hash hash_plan(const struct at_plan *p)
{
    struct at_sha256_ctx ctx;
    char text[96];
    at_sha256_init(&ctx);
    int n = snprintf(text, sizeof text, "%d %d %d %d\n", p->replicas, p->stages, p->ranks, p->microbatches);
    at_sha256_update(&ctx, text, (size_t)n);
    for (int i = 0; i < p->replicas; i++) {
        n = snprintf(text, sizeof text, "replica %d %d\n", p->replica[i].stage_first, p->replica[i].stages);
        at_sha256_update(&ctx, text, (size_t)n);
    }
    for (int i = 0; i < p->stages; i++) {
        const struct at_plan_stage *x = &p->stage[i];
        n = snprintf(text, sizeof text, "stage %d %d %d %d\n", x->layer_first, x->layers, x->tp, x->rank_first);
        at_sha256_update(&ctx, text, (size_t)n);
    }
    return at_sha256_final(&ctx);
}

static void make_facts(struct at_train_setup *s)
{
    const struct at_model_config *m = &s->preset->model;
    const struct at_train_config *t = &s->config;
    const struct at_outer_config *o = &s->outer;
    char text[600], version[72];
    snprintf(version, sizeof version, "atoll %s", ATOLL_VERSION);
    set_fact(s, 0, "program", version);
    set_fact(s, 1, "kernel profile", KERNEL_PROFILE);
    int n = snprintf(text, sizeof text, "%u %u %u %u %u %u %u %u %d %a %a", m->layers, m->d_model, m->heads,
                     m->kv_heads, m->head_size, m->d_ff, m->seq_len, m->vocab, m->tied, m->rope_theta, m->norm_eps);
    set_digest(s, 2, "model", at_sha256(text, (size_t)n));
    n = snprintf(text, sizeof text, "%u %u %u %u %a %a %a %a %a %a %a %" PRIu64, t->rounds, t->steps, t->batch,
                 t->warmup_steps, t->lr_peak, t->lr_final_fraction, t->beta1, t->beta2, t->adam_eps, t->weight_decay,
                 t->clip_norm, t->seed);
    set_digest(s, 3, "training settings", at_sha256(text, (size_t)n));
    n = snprintf(text, sizeof text, "%d %u %u %u %u %a %a %a %a %a %a %u %u", (int)o->kind, o->k, o->tau, o->steps_min,
                 o->steps_max, o->alpha_first, o->alpha_last, o->momentum, o->carry, o->dense_fraction,
                 o->round_seconds, o->steps_young, o->dense_steps);
    set_digest(s, 4, "outer settings", at_sha256(text, (size_t)n));
    set_digest(s, 5, "plan", hash_plan(&s->plan));
    s->text_hash = at_sha256(s->text.p, s->text.n);
    set_digest(s, 6, "text", s->text_hash);
    set_fact(s, 7, "recompute", s->recompute ? "yes" : "no");
}

at_err_t at_train_setup_init(struct at_train_setup *s, const struct at_train_args *args, struct at_diag *diag)
{
    *s = (struct at_train_setup){.args = args, .node = -1, .recompute = args->recompute};
    at_err_t err = choose_link(s, diag);
    if (err == AT_OK) err = read_plan(s, diag);
    if (err == AT_OK) err = settings(s, diag);
    if (err == AT_OK) err = make_plan(s, diag);
    if (err == AT_OK) err = check_kernels(s, diag);
    if (err == AT_OK) err = read_text(s, diag);
    if (err == AT_OK) make_facts(s);
    return err;
}

void at_train_setup_release(struct at_train_setup *s)
{
    at_plan_release(&s->plan);
    at_plan_file_release(&s->file);
    free(s->name);
    free(s->name_text);
    at_buf_release(&s->text);
    *s = (struct at_train_setup){0};
}

/* ---- --out and --resume ------------------------------------------------------------------------------------------- */

at_err_t at_train_check_out(const struct at_train_args *args, struct at_diag *diag)
{
    bool empty = true;
    if (args->model_only && args->resume == NULL)
        return at_fail(diag, AT_E_USAGE, "--model-only", "--model-only goes with --resume D");
    if (args->save_seconds.given && args->out == NULL)
        return at_fail(diag, AT_E_USAGE, "--save-seconds", "--save-seconds goes with --out D");
    if (args->out == NULL || (args->resume != NULL && strcmp(args->out, args->resume) == 0)) return AT_OK;
    at_err_t err = at_cli_model_is_free(args->out, diag, &empty);
    if (err == AT_OK && !empty)
        err = at_fail(diag, AT_E_DATA, args->out,
                      "the folder is not empty; nothing was changed: choose another for --out");
    return err;
}

#define SAVE_S     30
#define SAVE_SHARE 20 /* writing takes one part in so many of the time */

bool at_train_save_due(const struct at_train_args *a, double since_s, double cost_s)
{
    if (a->save_seconds.given) return since_s >= a->save_seconds.v;
    return since_s > SAVE_S && since_s > SAVE_SHARE * cost_s;
}

static bool same_model(const struct at_model_config *a, const struct at_model_config *b)
{
    return a->layers == b->layers && a->d_model == b->d_model && a->heads == b->heads && a->kv_heads == b->kv_heads &&
           a->head_size == b->head_size && a->d_ff == b->d_ff && a->seq_len == b->seq_len && a->vocab == b->vocab &&
           a->tied == b->tied && a->rope_theta == b->rope_theta && a->norm_eps == b->norm_eps;
}

at_err_t at_train_check_resume(const struct at_train_setup *s, struct at_diag *diag)
{
    char path[AT_PATH_BYTES];
    struct at_buf text = {0};
    struct at_model_config there;
    const struct at_model_config *here = &s->preset->model;
    const char *dir = s->args->resume;
    if (!at_file_exists(dir)) return at_fail(diag, AT_E_NOT_FOUND, dir, "there is no such folder");
    at_err_t err = at_path_join(dir, AT_CHECKPOINT_CONFIG, diag, path);
    if (err == AT_OK) err = at_file_read(path, (size_t)1 << 20, diag, &text);
    if (err == AT_OK) err = at_hf_read_config(at_buf_span(&text), path, diag, &there);
    if (err == AT_OK && !same_model(here, &there))
        err = at_fail(
            diag, AT_E_DATA, dir,
            "holds another model: %u layers of %u with %u heads; --preset %s has %u of %u with %u. Name the preset "
            "that it was trained with",
            there.layers, there.d_model, there.heads, s->preset->name, here->layers, here->d_model, here->heads);
    at_buf_release(&text);
    return err;
}

at_err_t at_train_other_outer(const struct at_train_args *args, struct at_diag *diag)
{
    return at_fail(diag, AT_E_DATA, args->resume, "was trained with another --outer than %s", args->outer);
}

struct at_round at_train_round_before(const struct at_train_setup *s, uint32_t rounds)
{
    struct at_round round = {0};
    for (uint32_t i = 0; i < rounds; i++) {
        struct at_round next = at_outer_round(&s->outer, &s->config, i == 0 ? NULL : &round);
        if (next.steps == 0) break;
        round = next;
    }
    return round;
}
