#include "node/node_compute_inner.h"

#include "node/node_speed.h"
#include "node/node_stage_unit.h"
#include "os/sys.h"
#include "tensor/float_mode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

at_err_t at_compute_init(const char *dir, int threads, const char *kernels, struct at_diag *diag,
                         struct at_compute **ret_c)
{
    const struct at_kern *kern = NULL;
    struct at_compute *c = calloc(1, sizeof *c);
    if (!c) return at_fail(diag, AT_E_NOMEM, dir, "out of memory");
    snprintf(c->dir, sizeof c->dir, "%s", dir);
    if (threads == 0) {
        threads = at_sys_cpu_count();
        if (threads > AT_POOL_THREADS_MAX) threads = AT_POOL_THREADS_MAX;
    }
    at_err_t err = at_kern_select(kernels ? kernels : "auto", diag, &kern);
    if (!err) err = at_float_mode_check(diag); /* before the pool's threads take it over */
    if (!err) err = at_pool_init(&c->pool, threads, diag);
    if (!err && (err = at_exec_init(&c->ex, kern, &c->pool.par)) != AT_OK)
        err = at_fail(diag, err, "threads", "no memory for the scratch space of %d threads", threads);
    if (err) {
        at_compute_release(c);
        return err;
    }
    *ret_c = c;
    return AT_OK;
}

void at_compute_release(struct at_compute *c)
{
    if (!c) return;
    at_blobs_release(&c->updates);
    at_file_map_release(&c->text);
    at_held_put(c->held);
    for (int i = 0; i < 2; i++) at_held_put(c->before[i]);
    at_error_feedback_release(&c->feedback);
    free(c->tile);
    at_trainer_release(&c->trainer);
    at_model_release(&c->model);
    at_exec_release(&c->ex);
    at_pool_release(&c->pool);
    free(c);
}

int at_compute_threads(const struct at_compute *c)
{
    return c->pool.par.threads;
}

const char *at_compute_kernels(const struct at_compute *c)
{
    return c->ex.kern->name;
}

/* A genesis may be well-formed and still not be for this program: another arithmetic, or bytes that have no token. */
at_err_t at_compute_knows(const struct at_genesis *g, struct at_diag *diag)
{
    if (strcmp(g->profile, "F32-1") != 0)
        return at_fail(diag, AT_E_DATA, "profile", "this run computes in profile '%s'; this program knows F32-1 only",
                       g->profile);
    if (strcmp(g->tokenizer, "bytes") != 0 || g->model.vocab != AT_BYTE_VOCAB)
        return at_fail(diag, AT_E_DATA, "tokenizer",
                       "this run reads its text by '%s' with %u tokens; this program knows bytes, %d of them",
                       g->tokenizer, g->model.vocab, AT_BYTE_VOCAB);
    return AT_OK;
}

static at_err cut_tiles(struct at_compute *c, struct at_diag *diag)
{
    size_t tiles = at_state_leaves(&c->model.params, c->momentum);
    if (tiles > AT_TILES_MAX)
        return at_fail(diag, AT_E_TOO_BIG, c->genesis.preset, "a state of %zu tiles; %u are possible", tiles,
                       AT_TILES_MAX);
    c->tile = calloc(tiles, sizeof *c->tile);
    if (!c->tile) return at_fail(diag, AT_E_NOMEM, c->dir, "no memory for the state's tiles");
    at_state_tiles(&c->model.params, c->momentum, c->tile);
    c->tiles = (uint32_t)tiles;
    return AT_OK;
}

uint32_t at_compute_tiles(const struct at_compute *c, const struct at_tile **ret_tiles, uint64_t *ret_blob_bytes)
{
    *ret_tiles = c->tile;
    *ret_blob_bytes = at_state_blob_bytes_of(&c->model.params, c->momentum);
    return c->tiles;
}

void at_compute_state_header(const struct at_compute *c, uint32_t round, uint8_t *ret_header)
{
    at_state_header(&c->model.params, c->momentum, round, ret_header);
}

at_err_t at_compute_configure(struct at_compute *c, const struct at_genesis *g, struct at_diag *diag)
{
    char path[AT_PATH_BYTES];
    AT_ASSERT(!c->configured);
    at_err_t err = at_compute_knows(g, diag);
    if (!err) err = at_compute_check_memory(g, diag);
    if (!err) err = at_compute_check_disk(c, g, diag);
    c->genesis = *g;
    if (g->stages > 1) {
        c->scratch = c->dir;
        c->paged = at_file_map_memory(c->scratch);
    }
    c->momentum = at_outer_config_momentum(&g->outer);
    c->feedback.params = &c->model.params;
    c->feedback.reuse = true;
    if (!err) err = at_path_join(c->dir, "updates", diag, path);
    if (!err) err = at_blobs_open(&c->updates, path, 0, diag);
    if (!err) err = at_model_init(&c->model, &c->genesis.model, diag);
    c->train = g->train;
    at_outer_adapt(&g->outer, &c->train);
    if (!err && !c->scratch) err = at_trainer_init(&c->trainer, &c->model, &c->train, 0, diag);
    if (!err) err = cut_tiles(c, diag);
    at_sys_memory_huge();
    c->configured = err == AT_OK;
    return err;
}

/* All shards in order, checked by their hashes, as one text. They are complete before any work that needs them. */
static at_err read_text(struct at_compute *c, struct at_diag *diag)
{
    char path[AT_PATH_BYTES];
    struct at_blobs blobs = {0};
    struct at_file_map shard = {0};
    const struct at_genesis *g = &c->genesis;
    size_t bytes = 0, at = 0;
    for (uint32_t i = 0; i < g->shard_count; i++) bytes += (size_t)g->shards[i].bytes;
    at_err_t err = at_path_join(c->dir, "data", diag, path);
    if (!err) err = at_blobs_open(&blobs, path, 0, diag);
    if (!err) err = at_file_map_scratch(&c->text, c->scratch, bytes, diag);
    for (uint32_t i = 0; i < g->shard_count && !err; i++) {
        err = at_blobs_map(&blobs, g->shards[i].hash, bytes - at, diag, &shard);
        if (err) break;
        memcpy(c->text.p + at, shard.p, shard.n);
        at += shard.n;
        at_file_map_release(&shard);
    }
    at_blobs_release(&blobs);
    if (!err && at != bytes) err = at_fail(diag, AT_E_DATA, path, "the text is shorter than the genesis says");
    if (err) at_file_map_release(&c->text);
    return err;
}

static at_err need_data(struct at_compute *c, struct at_diag *diag)
{
    if (c->has_data) return AT_OK;
    at_err_t err = read_text(c, diag);
    if (!err)
        err = at_data_init(&c->data, at_span(c->text.p, c->text.n), (long)c->genesis.model.seq_len,
                           c->genesis.train.seed, c->genesis.heldout_fraction, c->genesis.heldout_bytes, diag);
    c->has_data = err == AT_OK;
    if (err) at_file_map_release(&c->text);
    return err;
}

void at_compute_state_release(struct at_compute_state *s)
{
    at_held_put(s->held);
    s->held = NULL;
}

at_err_t at_compute_fresh(const struct at_compute *c, struct at_diag *diag, struct at_held **ret_held)
{
    const struct at_params *p = &c->model.params;
    at_err_t err = at_held_new(c->scratch, at_state_blob_bytes_of(p, c->momentum), c->tiles, diag, ret_held);
    if (!err) at_state_over(&(*ret_held)->state, p, c->momentum, (*ret_held)->blob.p);
    return err;
}

static at_err heldout(struct at_compute *c, const struct at_state *state, struct at_diag *diag, double *ret_loss)
{
    at_err_t err = need_data(c, diag);
    if (!err) err = at_compute_whole_begin(c, true, diag);
    if (err) return err;
    *ret_loss = at_heldout_loss(&c->trainer, &c->ex, &c->data, state->theta);
    at_compute_whole_end(c);
    return AT_OK;
}

at_err_t at_compute_hold(struct at_compute *c, struct at_held *h, const struct at_hash *want, bool evaluate,
                         struct at_diag *diag, struct at_compute_state *ret_state)
{
    struct at_compute_state s = {.round = h->state.round, .heldout_loss = (double)NAN, .held = h};
    at_err_t err =
        at_state_tree(&h->state, at_span(h->blob.p, h->blob.n), c->tile, c->ex.par, diag, h->leaves, &h->root);
    if (!err && want && !at_hash_eq(h->root, *want))
        err = at_fail(diag, AT_E_VERIFY, c->dir, "the fetched state is not the one of round %u", s.round);
    if (!err && evaluate) err = heldout(c, &h->state, diag, &s.heldout_loss);
    if (err) {
        at_held_put(h);
        return err;
    }
    at_compute_state_header(c, s.round, h->blob.p);
    at_held_put(c->before[1]);
    c->before[1] = c->before[0];
    c->before[0] = c->held;
    c->held = at_held_keep(h);
    s.root = h->root;
    *ret_state = s;
    return AT_OK;
}

at_err_t at_compute_genesis(struct at_compute *c, bool evaluate, struct at_diag *diag,
                            struct at_compute_state *ret_state)
{
    struct at_held *h;
    at_err_t err = at_compute_fresh(c, diag, &h);
    if (err) return err;
    at_state_genesis(&h->state, c->genesis.train.seed);
    return at_compute_hold(c, h, NULL, evaluate, diag, ret_state);
}

at_err_t at_compute_install(struct at_compute *c, const char *path, uint32_t round, struct at_hash root,
                            struct at_diag *diag, struct at_compute_state *ret_state)
{
    struct at_file_map map = {0};
    struct at_held *h = NULL;
    uint32_t is_of = 0;
    at_err_t err = at_file_map_open(&map, path, MODEL_BYTES_MAX, diag);
    if (!err) err = at_state_check_blob(&c->model.params, c->momentum, at_span(map.p, map.n), diag, &is_of);
    if (!err && is_of != round)
        err = at_fail(diag, AT_E_VERIFY, path, "the fetched state is not the one of round %u", round);
    if (!err) err = at_compute_fresh(c, diag, &h);
    if (!err) {
        memcpy(h->blob.p, map.p, map.n);
        h->state.round = round;
        err = at_state_check_foreign(&h->state, diag);
    }
    at_file_map_release(&map);
    if (!err) return at_compute_hold(c, h, &root, false, diag, ret_state);
    at_held_put(h);
    return err;
}

at_err_t at_compute_speed(const struct at_compute *c, struct at_diag *diag, double *ret_gflops)
{
    const struct at_speed_options options = {.repeats = 1, .stretch_s = 0.25};
    struct at_speed_shape shape;
    at_err_t err = at_speed_shape(c->genesis.preset, &c->genesis.model, &c->genesis.train, 20e9,
                                  at_stage_unit_bytes_max(&c->genesis), diag, &shape);
    return err ? err : at_speed_measure(&shape, &c->ex, &options, diag, ret_gflops);
}

/* ---- rounds ---- */
struct unit_watch {
    struct at_compute *c;
    const struct at_compute_unit *unit;
    at_compute_progress_fn *progress;
    void *user;
    uint64_t start_ns, steps_ns; /* steps: when they began, after the share of the held-out loss */
    bool cancelled;
};

static double rate(uint64_t tokens, uint64_t start_ns)
{
    return (double)tokens * 1e9 / (double)(at_clock_mono_ns() - start_ns + 1);
}

static bool is_up_to(const atomic_uint *mark, unsigned serial)
{
    return (int)(atomic_load(mark) - serial) >= 0;
}

static bool is_cancelled(const struct at_compute *c, unsigned serial)
{
    return is_up_to(&c->cancelled, serial);
}

/* Would one more step end after the unit's time, at the pace of those before? Of a unit that is shared, one more is computed
 * by all before it ends. */
static bool is_late(const struct unit_watch *w, uint32_t steps)
{
    double spent_ms = (double)(at_clock_mono_ns() - w->steps_ns) * 1e-6, more = w->unit->comm ? 2 : 1;
    double before_ms = (double)(w->steps_ns - w->start_ns) * 1e-6;
    return before_ms + spent_ms * ((double)steps + more) / (double)steps > (double)w->unit->budget_ms;
}

/* Between the passes of the share: it ends, and is no news, when it takes more than an eighth of the unit's time, or the unit
 * is to end. */
static bool on_share(void *arg)
{
    struct unit_watch *w = arg;
    w->cancelled = is_cancelled(w->c, w->unit->serial);
    if (!w->cancelled) w->progress(w->user, 0, 0, 0);
    uint64_t spent_ms = (at_clock_mono_ns() - w->start_ns) / 1000000;
    return !w->cancelled && !is_up_to(&w->c->enough, w->unit->serial) && spent_ms <= w->unit->budget_ms / 8;
}

static void on_begin(void *arg)
{
    ((struct unit_watch *)arg)->steps_ns = at_clock_mono_ns();
}

static bool on_step(void *arg, const struct at_unit_progress *p)
{
    struct unit_watch *w = arg;
    w->cancelled = is_cancelled(w->c, w->unit->serial);
    if (!w->cancelled) w->progress(w->user, p->step, p->tokens, rate(p->tokens, w->steps_ns));
    if (w->cancelled || (w->unit->stop_at > 0 && p->step >= w->unit->stop_at)) return false;
    return w->unit->stop_at > 0 || (!is_up_to(&w->c->enough, w->unit->serial) && !is_late(w, p->step));
}

/* The update of what the trainer holds, and what it leaves over. */
static at_err encode(struct at_compute *c, const struct at_round *rule, const struct at_unit_report *report,
                     struct at_diag *diag, struct at_buf *blob)
{
    const struct at_codec *codec = at_codec_find(rule->codec);
    struct at_update_source source = {.params = &c->model.params,
                                      .theta_start = c->held->state.theta,
                                      .theta = c->trainer.theta,
                                      .stats = c->trainer.stats,
                                      .stats_public = c->held->state.stats};
    at_err_t err = codec->beta != 0
                       ? at_error_feedback_encode(&c->feedback, &c->ex, codec, rule->k, &report->info, &source, blob)
                       : at_update_encode(codec, rule->k, &report->info, &source, NULL, NULL, blob);
    return err ? at_fail(diag, err, "update", "no memory for the update") : AT_OK;
}

/* This member alone, or its stage: its blocks of the update, into the blob. */
static at_err train(struct at_compute *c, const struct at_compute_unit *unit, struct unit_watch *w,
                    struct at_diag *diag, struct at_buf *blob, struct at_unit_report *ret_report, uint32_t *ret_heldout)
{
    const struct at_state *state = &c->held->state;
    struct at_round rule = at_genesis_round(&c->genesis, unit->round);
    struct at_unit work = {.start = unit->start, .samples = unit->samples, .step_first = rule.step_first};
    struct at_stage_watch watch = {
        .share = unit->heldout, .share_goes = on_share, .begins = on_begin, .progress = on_step, .arg = w};
    at_err_t err;
    if (unit->comm) {
        err = at_stage_unit_run(unit->comm, &unit->cut, &c->genesis, &c->ex, &c->data, &c->paged, state, &work, &watch,
                                diag, blob, ret_report);
        *ret_heldout = watch.ret_heldout;
        return err;
    }
    err = at_compute_whole_begin(c, false, diag);
    if (err) return err;
    *ret_heldout = at_heldout_of_share(&c->trainer, &c->ex, &c->data, state->theta, unit->heldout, on_share, w);
    on_begin(w);
    err = is_cancelled(c, unit->serial)
              ? AT_E_INTERRUPTED
              : at_unit_train(&c->trainer, &c->ex, &c->data, state, &work, on_step, w, diag, ret_report);
    if (!err && !w->cancelled && !is_cancelled(c, unit->serial)) err = encode(c, &rule, ret_report, diag, blob);
    at_compute_whole_end(c);
    return err;
}

at_err_t at_compute_unit(struct at_compute *c, const struct at_compute_unit *unit, at_compute_progress_fn *progress,
                         void *user, struct at_diag *diag, struct at_compute_done *ret_done)
{
    struct unit_watch w = {c, unit, progress, user, at_clock_mono_ns(), at_clock_mono_ns(), false};
    struct at_file_map room = {0}; /* of the update, which may be as large as the model */
    struct at_unit_report report;
    struct at_compute_done d = {0};
    if (is_cancelled(c, unit->serial)) return AT_E_INTERRUPTED;
    if (!c->held || c->held->state.round != unit->round)
        return at_fail(diag, AT_E_INTERNAL, "unit", "asked to train round %u on the state of round %u", unit->round,
                       c->held ? c->held->state.round : 0);
    struct at_round rule = at_genesis_round(&c->genesis, unit->round);
    at_err_t err = need_data(c, diag);
    if (!err) err = at_file_map_scratch(&room, c->scratch, at_update_bytes_max(&c->model.params), diag);
    if (at_round_is_lossy(&rule)) {
        AT_ASSERT(!unit->comm); /* at_genesis_check */
        c->feedback_lost |= !at_error_feedback_settle(&c->feedback, unit->counted);
        d.feedback = at_error_feedback_hash(&c->feedback);
    }
    struct at_buf blob = {.p = room.p, .cap = room.n, .bytes_max = room.n}; /* never grows, nor is released */
    if (!err) err = train(c, unit, &w, diag, &blob, &report, &d.heldout);
    if (!err && (w.cancelled || is_cancelled(c, unit->serial))) err = AT_E_INTERRUPTED;
    if (!err) err = at_blobs_put(&c->updates, at_buf_span(&blob), diag, &d.update);
    if (!err) {
        d.steps = report.info.steps;
        d.samples = report.info.samples;
        d.tokens = report.info.tokens;
        d.update_bytes = blob.n;
        d.tokens_per_s = rate(d.tokens, w.steps_ns);
        d.share_ms = (uint32_t)((w.steps_ns - w.start_ns) / 1000000);
        d.feedback_lost = c->feedback_lost;
        c->feedback_lost = false;
        *ret_done = d;
    }
    at_file_map_release(&room);
    return err;
}

void at_compute_cancel(struct at_compute *c, unsigned serial)
{
    atomic_store(&c->cancelled, serial);
}

void at_compute_enough(struct at_compute *c, unsigned serial)
{
    atomic_store(&c->enough, serial);
}

/* The updates of `units` contributions from their parts. */
static at_err read_updates(struct at_compute *c, const struct at_compute_part *parts, int count,
                           struct at_file_map *blobs, struct at_update *updates, int units, struct at_diag *diag)
{
    size_t bytes_max = at_update_bytes_max(&c->model.params);
    for (int i = 0, u = -1; i < count; i++) {
        bool first = i == 0 || parts[i].unit != parts[i - 1].unit,
             last = i + 1 == count || parts[i + 1].unit != parts[i].unit;
        u += first;
        AT_ASSERT(u < units);
        at_err_t err = at_blobs_map(&c->updates, parts[i].update, bytes_max, diag, &blobs[i]);
        if (!err && first && (err = at_update_begin(&updates[u], &c->model.params)) != AT_OK)
            err = at_fail(diag, err, "apply", "out of memory");
        if (!err) err = at_update_add(&updates[u], at_span(blobs[i].p, blobs[i].n), diag);
        if (!err && updates[u].info.tokens != parts[i].tokens)
            err = at_fail(diag, AT_E_DATA, "update", "an update holds other tokens than its receipt says");
        if (!err && last) err = at_update_complete(&updates[u], diag);
        if (err) return err;
    }
    return AT_OK;
}

static int count_units(const struct at_compute_part *parts, int count)
{
    int units = 0;
    for (int i = 0; i < count; i++) units += i == 0 || parts[i].unit != parts[i - 1].unit;
    return units;
}

/* In the new state, a copy of the old one. */
static at_err outer_step(struct at_compute *c, const struct at_compute_part *parts, int count, struct at_state *state,
                         struct at_diag *diag)
{
    int units = count_units(parts, count);
    if (units > AT_OUTER_REPLICAS_MAX)
        return at_fail(diag, AT_E_TOO_BIG, "apply", "a round with %d contributions; %d are possible", units,
                       AT_OUTER_REPLICAS_MAX);
    struct at_file_map *blobs = calloc((size_t)count, sizeof *blobs);
    struct at_update *updates = calloc((size_t)units, sizeof *updates);
    at_err_t err = blobs && updates ? read_updates(c, parts, count, blobs, updates, units, diag)
                                    : at_fail(diag, AT_E_NOMEM, "apply", "out of memory");
    struct at_round rule = at_genesis_round(&c->genesis, state->round);
    if (!err) err = at_outer_step(&c->ex, state, updates, units, &rule, NULL, diag);
    for (int i = 0; blobs && i < count; i++) at_file_map_release(&blobs[i]);
    for (int i = 0; updates && i < units; i++) at_update_release(&updates[i]);
    free(blobs);
    free(updates);
    return err;
}

/* Room for the state after the one that is held: that of one which nobody refers to any more, since fresh memory costs more
 * than what is written into it. */
static at_err next_state(struct at_compute *c, struct at_diag *diag, struct at_held **ret_held)
{
    if (!c->before[1] || atomic_load(&c->before[1]->refs) > 1) return at_compute_fresh(c, diag, ret_held);
    *ret_held = c->before[1];
    c->before[1] = NULL;
    return AT_OK;
}

at_err_t at_compute_apply(struct at_compute *c, uint32_t round, const struct at_compute_part *parts, int count,
                          bool evaluate, struct at_diag *diag, struct at_compute_state *ret_state)
{
    struct at_held *h;
    if (!c->held || c->held->state.round != round)
        return at_fail(diag, AT_E_INTERNAL, "apply", "asked to apply round %u to the state of round %u", round,
                       c->held ? c->held->state.round : 0);
    at_err_t err = next_state(c, diag, &h);
    if (err) return err;
    at_state_copy(&h->state, &c->held->state);
    if (count == 0)
        at_outer_skip(&h->state);
    else
        err = outer_step(c, parts, count, &h->state, diag);
    if (!err) return at_compute_hold(c, h, NULL, evaluate, diag, ret_state);
    at_held_put(h);
    return err;
}
