#include "cli/ledger_replay.h"

#include "cli/ledger_samples.h"
#include "node/node_compute.h"
#include "os/file.h"
#include "os/sys.h"
#include "train/error_feedback.h"
#include "train/outer.h"
#include "train/unit.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_BYTES_MAX ((size_t)64 << 30)

struct job {
    struct at_cli_ledger *l;
    const char *data_dir;
    const struct at_exec *ex;
    at_replay_progress_fn *progress;
    void *user;
    struct at_diag *diag;
    struct at_replay_report report;
    struct at_sample_check samples;
    enum at_ledger_phase phase; /* before the record that comes next */
    struct at_model model;
    struct at_trainer trainer;
    struct at_state state;
    struct at_hash root;                /* of it */
    struct at_error_feedback *feedback; /* [feedback_count] of members, as far as their updates leave anything over */
    uint32_t feedback_count;
    struct at_buf text;
    struct at_data data;
    bool stopped;
};

/* The verdict: this round is the first that differs. */
__attribute__((format(printf, 3, 4))) static at_err_t differs(struct job *j, uint32_t round, const char *fmt, ...)
{
    char where[32];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(j->report.reason, sizeof j->report.reason, fmt, ap);
    va_end(ap);
    j->report.round = round;
    snprintf(where, sizeof where, "round %u", round + 1);
    return at_fail(j->diag, AT_E_VERIFY, where, "%s", j->report.reason);
}

/* ---- the text and the first state ---- */
static at_err_t read_shard(struct job *j, const struct at_text_shard *shard)
{
    char path[AT_PATH_BYTES];
    size_t from = j->text.n;
    at_err_t err = at_path_join(j->data_dir, at_hash_hex(shard->hash).s, j->diag, path);
    if (!err && !at_file_exists(path))
        return at_fail(j->diag, AT_E_NOT_FOUND, path, "the run's text is not here: %s is missing; put it there",
                       shard->name);
    if (!err) err = at_file_read(path, (size_t)shard->bytes, j->diag, &j->text);
    if (!err && !at_hash_eq(at_sha256(j->text.p + from, j->text.n - from), shard->hash))
        err = at_fail(j->diag, AT_E_DATA, path, "damaged: its bytes are not those of the run's %s", shard->name);
    return err;
}

static at_err_t prepare(struct job *j)
{
    const struct at_genesis *g = &j->l->ledger.genesis;
    at_err_t err = at_compute_knows(g, j->diag);
    j->text.bytes_max = TEXT_BYTES_MAX;
    for (uint32_t i = 0; i < g->shard_count && !err; i++) err = read_shard(j, &g->shards[i]);
    if (!err)
        err = at_data_init(&j->data, at_buf_span(&j->text), (long)g->model.seq_len, g->train.seed, g->heldout_fraction,
                           g->heldout_bytes, j->diag);
    if (!err) err = at_model_init(&j->model, &g->model, j->diag);
    struct at_train_config train = g->train;
    at_outer_adapt(&g->outer, &train);
    if (!err) err = at_trainer_init(&j->trainer, &j->model, &train, 0, j->diag);
    if (!err) err = at_state_init(&j->state, &j->model.params);
    if (!err && at_outer_config_momentum(&g->outer)) err = at_state_add_momentum(&j->state);
    if (err == AT_E_NOMEM && !j->diag->err) err = at_fail(j->diag, err, g->preset, "no memory for the state");
    if (err) return err;
    at_sys_memory_huge();
    at_state_genesis(&j->state, g->train.seed);
    return at_state_root(&j->state, j->diag, &j->root);
}

/* ---- a round ---- */
static bool on_step(void *arg, const struct at_unit_progress *p)
{
    struct job *j = arg;
    if (j->progress && !j->progress(j->user, &j->report, j->report.tokens + p->tokens, false)) j->stopped = true;
    return !j->stopped;
}

/* The blocks of a stage, in the update of the whole model. */
struct stage {
    const struct at_params *params;
    struct at_shard shard;
};
static bool is_of_stage(void *arg, int block)
{
    const struct stage *s = arg;
    const struct at_block *b = &s->params->block[block];
    return at_shard_holds(s->params, &s->shard, b->tensor, b->slot);
}

/* The receipts that have come, counted or not: each began with what its member's counted updates had left over, or with
 * nothing because that was lost. */
static at_err_t check_feedback(struct job *j, uint32_t round)
{
    const struct at_ledger *l = &j->l->ledger;
    while (j->feedback_count < l->member_count) {
        struct at_error_feedback *more = realloc(j->feedback, (j->feedback_count + 1) * sizeof *more);
        if (!more) return at_fail(j->diag, AT_E_NOMEM, "replay", "out of memory");
        j->feedback = more;
        j->feedback[j->feedback_count++] = (struct at_error_feedback){.params = &j->model.params};
    }
    for (uint32_t r = 0; r < l->member_count; r++) {
        const struct at_allotment *u = &l->allotments[r];
        if (!u->allotted || !u->received || at_hash_is_zero(u->receipt.feedback)) continue;
        struct at_hash own = at_error_feedback_hash(&j->feedback[r]);
        if (!at_hash_eq(u->receipt.feedback, own))
            return differs(j, round, "replica %u says it began with error feedback %.16s; its updates left %.16s over",
                           r, at_hash_hex(u->receipt.feedback).s, at_hash_hex(own).s);
    }
    return AT_OK;
}

static struct at_update_source source_of(const struct job *j)
{
    return (struct at_update_source){.params = &j->model.params,
                                     .theta_start = j->state.theta,
                                     .theta = j->trainer.theta,
                                     .stats = j->trainer.stats,
                                     .stats_public = j->state.stats};
}

/* The blob of what the trainer holds; the member's error feedback is what this update, which counts, leaves over. */
static at_err_t encode(struct job *j, const struct at_round *rule, uint32_t replica,
                       const struct at_unit_report *report, struct at_buf *blob)
{
    struct at_error_feedback *f = &j->feedback[replica];
    const struct at_codec *codec = at_codec_find(rule->codec);
    struct at_update_source source = source_of(j);
    at_err_t err;
    if (codec->beta == 0) {
        err = at_update_encode(codec, rule->k, &report->info, &source, NULL, NULL, blob);
    } else {
        if (at_hash_is_zero(j->l->ledger.allotments[replica].receipt.feedback)) at_error_feedback_release(f);
        err = at_error_feedback_encode(f, j->ex, codec, rule->k, &report->info, &source, blob);
        if (!err) (void)at_error_feedback_settle(f, f->update);
    }
    return err ? at_fail(j->diag, err, "replay", "no memory for an update") : AT_OK;
}

/* The blob's part that is a stage's. Runs of stages have the mean, which leaves nothing over. */
static at_err_t hash_stage(struct job *j, const struct at_round *rule, const struct at_stage_cut *cut, int number,
                           const struct at_unit_report *report, struct at_hash *ret_hash)
{
    struct stage stage = {&j->model.params, at_stage_cut_shard(&j->model.params.config, cut, number)};
    struct at_update_source source = source_of(j);
    struct at_buf blob = {.bytes_max = at_update_bytes_max(&j->model.params)};
    at_err_t err =
        at_update_encode(at_codec_find(rule->codec), rule->k, &report->info, &source, is_of_stage, &stage, &blob);
    *ret_hash = at_sha256(blob.p, blob.n);
    at_buf_release(&blob);
    return err ? at_fail(j->diag, err, "replay", "no memory for an update") : AT_OK;
}

/* What the replica's receipt names as its update, from the unit that has just been trained; `whole` is its blob. */
static at_err_t check_part(struct job *j, const struct at_round *rule, uint32_t replica,
                           const struct at_unit_report *report, struct at_hash whole)
{
    const struct at_ledger *l = &j->l->ledger;
    const struct at_receipt *receipt = &l->allotments[replica].receipt;
    struct at_stage_cut cut = at_ledger_cut(l, replica, receipt->group);
    struct at_hash hash = whole;
    at_err_t err = AT_OK;
    if (cut.stages > 1)
        err = hash_stage(j, rule, &cut, at_group_stage(receipt->group, l->groups[replica].place), report, &hash);
    if (err || at_hash_eq(hash, receipt->update)) return err;
    return differs(j, rule->round, "replica %u says its update is %.16s; its samples give %.16s", replica,
                   at_hash_hex(receipt->update).s, at_hash_hex(hash).s);
}

/* What the unit's parts say of the state's held-out loss; 0, of a share that there was no time for, is no lie. */
static at_err_t check_heldout(struct job *j, uint32_t round, uint32_t lead)
{
    const struct at_ledger *l = &j->l->ledger;
    struct at_heldout_share share = at_ledger_heldout_share(l, lead);
    bool told = at_heldout_windows(&j->data, share) == 0;
    uint32_t code = at_heldout_of_share(&j->trainer, j->ex, &j->data, j->state.theta, share, NULL, NULL);
    for (uint32_t r = lead; r != AT_GROUP_END; r = l->groups[r].next) {
        const struct at_allotment *u = &l->allotments[r];
        told = told || (u->included && u->receipt.heldout != 0);
        if (!u->included || u->receipt.heldout == 0 || u->receipt.heldout == code) continue;
        return differs(j, round, "replica %u says held-out loss %.9g of its windows; computed again it is %.9g", r,
                       at_heldout_join(u->receipt.heldout, 1), at_heldout_join(code, 1));
    }
    j->report.untold += !told;
    return AT_OK;
}

/* The unit of a group, whose counted parts have one range. */
static at_err_t train_unit(struct job *j, uint32_t round, uint32_t lead, struct at_buf *blob, struct at_update *update)
{
    const struct at_ledger *l = &j->l->ledger;
    uint32_t first = lead;
    while (!l->allotments[first].included) first = l->groups[first].next;
    const struct at_receipt *receipt = &l->allotments[first].receipt;
    struct at_round rule = at_genesis_round(&l->genesis, round);
    struct at_unit unit = {.start = receipt->start, .samples = receipt->samples, .step_first = rule.step_first};
    struct at_unit_report report;
    blob->bytes_max = at_update_bytes_max(&j->model.params);
    at_err_t err = check_heldout(j, round, lead);
    if (err) return err;
    err = at_unit_train(&j->trainer, j->ex, &j->data, &j->state, &unit, on_step, j, j->diag, &report);
    if (!err && j->stopped) err = at_fail(j->diag, AT_E_INTERRUPTED, "replay", "interrupted");
    if (!err) err = encode(j, &rule, first, &report, blob);
    struct at_hash whole = at_sha256(blob->p, blob->n);
    for (uint32_t r = first; r != AT_GROUP_END && !err; r = l->groups[r].next)
        if (l->allotments[r].included) err = check_part(j, &rule, r, &report, whole);
    if (err) return err;
    j->report.tokens += report.info.tokens;
    j->report.units++;
    return at_update_parse(&j->model.params, at_buf_span(blob), j->diag, update);
}

static bool counts(const struct at_ledger *l, uint32_t lead)
{
    bool in = false;
    if (!l->allotments[lead].allotted || l->groups[lead].place != 0) return false;
    for (uint32_t r = lead; r != AT_GROUP_END; r = l->groups[r].next) in = in || l->allotments[r].included;
    return in;
}

static at_err_t check_room(struct job *j, uint32_t count)
{
    size_t need = 0;
    uint64_t have = at_sys_memory_available();
    if (count <= AT_OUTER_REPLICAS_MAX && at_mul_size(at_ledger_update_bytes_max(&j->l->ledger), count, &need) &&
        (have == 0 || need <= have))
        return AT_OK;
    return at_fail(j->diag, AT_E_NOMEM, "replay", "the updates of %u replicas need %zu MB of memory, %llu MB are free",
                   count, need >> 20, (unsigned long long)(have >> 20));
}

/* θ of the round's end from the units that count, replicas ascending. */
static at_err_t advance(struct job *j, uint32_t round)
{
    const struct at_ledger *l = &j->l->ledger;
    uint32_t count = l->included_count;
    int n = 0;
    at_err_t err = check_feedback(j, round);
    if (!err && count > 0) err = check_room(j, count);
    if (err) return err;
    if (count == 0) {
        at_outer_skip(&j->state);
        return AT_OK;
    }
    struct at_buf *blob = calloc(count, sizeof *blob);
    struct at_update *update = calloc(count, sizeof *update);
    if (!blob || !update) err = at_fail(j->diag, AT_E_NOMEM, "replay", "out of memory");
    for (uint32_t r = 0; r < l->member_count && !err; r++) {
        if (!counts(l, r)) continue;
        AT_ASSERT((uint32_t)n < count);
        err = train_unit(j, round, r, &blob[n], &update[n]);
        n++;
    }
    struct at_round rule = at_genesis_round(&l->genesis, round);
    if (!err) err = at_outer_step(j->ex, &j->state, update, n, &rule, NULL, j->diag);
    for (uint32_t i = 0; i < count; i++) {
        if (update) at_update_release(&update[i]);
        if (blob) at_buf_release(&blob[i]);
    }
    free(update);
    free(blob);
    return err;
}

static at_err_t replayed(struct job *j)
{
    j->report.rounds = j->l->ledger.round;
    j->report.state_root = j->root;
    if (j->progress && !j->progress(j->user, &j->report, j->report.tokens, true))
        return at_fail(j->diag, AT_E_INTERRUPTED, "replay", "interrupted");
    return AT_OK;
}

/* The log has just said what the round ended with. */
static at_err_t replay_round(struct job *j)
{
    const struct at_ledger *l = &j->l->ledger;
    uint32_t round = l->round - 1;
    at_err_t err = advance(j, round);
    if (!err) err = at_state_root(&j->state, j->diag, &j->root);
    if (err) return err;
    if (!at_hash_eq(j->root, l->state_root))
        return differs(j, round, "the log says that it ends on state %.16s; computed again it is %.16s",
                       at_hash_hex(l->state_root).s, at_hash_hex(j->root).s);
    if (l->round < at_genesis_rounds(&l->genesis)) return replayed(j); /* its loss is the receipts' (ledger.h) */
    double loss = at_heldout_loss(&j->trainer, j->ex, &j->data, j->state.theta);
    if (loss != l->heldout_loss)
        return differs(j, round, "the log says held-out loss %.9g; computed again it is %.9g", l->heldout_loss, loss);
    return replayed(j);
}

static at_err_t take(void *user, uint64_t idx, const struct at_signed_record *rec, const struct at_record *body)
{
    struct job *j = user;
    const struct at_ledger *l = &j->l->ledger;
    enum at_ledger_phase before = j->phase;
    j->phase = l->phase;
    at_err_t err = at_sample_check_take(&j->samples, l, before, j->diag);
    if (err == AT_E_VERIFY) {
        snprintf(j->report.reason, sizeof j->report.reason, "%s", j->diag->text);
        j->report.round = l->round;
    }
    if (err) return err;
    if (before == AT_LEDGER_READY && l->phase == AT_LEDGER_TRAINING && !at_hash_eq(l->state_root, j->root))
        return differs(j, l->round, "the log opens it on state %.16s; computed again it is %.16s",
                       at_hash_hex(l->state_root).s, at_hash_hex(j->root).s);
    return before == AT_LEDGER_CLOSED && l->phase == AT_LEDGER_READY ? replay_round(j) : AT_OK;
}

at_err at_ledger_replay(struct at_cli_ledger *l, const char *data_dir, const struct at_exec *ex,
                        at_replay_progress_fn *progress, void *user, struct at_diag *diag,
                        struct at_replay_report *ret_report)
{
    AT_ASSERT(l->ledger.tree.size == 0);
    struct job j = {.l = l, .data_dir = data_dir, .ex = ex, .progress = progress, .user = user, .diag = diag};
    at_err_t err = prepare(&j);
    j.report.state_root = j.root;
    if (!err) err = at_cli_ledger_each(l, diag, take, &j);
    j.report.ok = err == AT_OK;
    j.report.counted = j.samples.counted;
    j.report.waiting = j.samples.waiting;
    at_sample_check_release(&j.samples);
    for (uint32_t r = 0; r < j.feedback_count; r++) at_error_feedback_release(&j.feedback[r]);
    free(j.feedback);
    at_state_release(&j.state);
    at_trainer_release(&j.trainer);
    at_model_release(&j.model);
    at_buf_release(&j.text);
    *ret_report = j.report;
    return err;
}
