/* A round: the unit, the updates' exchange, the outer step; with overlap the last two happen inside the next unit. */
#include "parallel/rank.h"

#include "parallel/rank_inner.h"

#include <string.h>

void at_rank_settle(struct at_rank *r)
{
    if (r->outstanding && r->failure.err == AT_OK) { /* released without at_rank_join: the others count on our part */
        int first, blocks;
        at_err_t err = at_exchange_take(&r->exchange, NULL, &first, &blocks); /* all: with overlap it goes whole */
        (void)err;
    }
    at_exchange_settle(&r->exchange);
    at_err_t known = at_rank_settle_stop(r, NULL);
    (void)known;
    at_rank_settle_found(r);
}

/* ---- the end of a round ---- */

/* From here on messages of the next round, by this codec, may come. */
static void expect(struct at_rank *r, uint32_t codec)
{
    at_exchange_expect(&r->exchange, codec);
    at_rank_expect_stop(r);
}

/* What the units left over is free again. */
static void free_samples(struct at_rank *r)
{
    uint64_t each = (uint64_t)r->round.steps * r->o.train->batch;
    for (int i = 0; r->allotted && i < r->exchange.replicas; i++) {
        const struct at_update_info *info = &r->exchange.update[i].info;
        at_samples_free(&r->samples, (struct at_range){info->start + info->samples, each - info->samples});
    }
    r->allotted = false;
}

/* Every replica trained on samples that it was given, from the first of them on. */
static at_err check_units(const struct at_rank *r, struct at_diag *diag)
{
    for (int i = 0; i < r->exchange.replicas; i++) {
        const struct at_update_info *info = &r->exchange.update[i].info;
        if (info->start != r->due[i] || info->steps > r->round.steps ||
            info->samples != (uint64_t)info->steps * r->o.train->batch)
            return at_fail(diag, AT_E_PEER, "update", "replica %d trained on other samples than it was given", i);
    }
    return AT_OK;
}

/* The next fragment of everybody's updates; the first one's come with who trained on what. */
static at_err take(struct at_rank *r, struct at_diag *diag, int *ret_first, int *ret_blocks)
{
    double since = at_rank_seconds(r);
    at_err_t err = at_exchange_take(&r->exchange, diag, ret_first, ret_blocks);
    bool begins = err == AT_OK && *ret_first == 0;
    if (begins) err = at_rank_settle_stop(r, diag);
    r->wait_seconds += at_rank_seconds(r) - since;
    return err == AT_OK && begins ? check_units(r, diag) : err;
}

static at_err apply(struct at_rank *r, int first, int blocks, struct at_diag *diag)
{
    struct at_exchange *x = &r->exchange;
    at_err_t err = x->whole ? at_outer_step(r->ex, &r->state, x->update, x->replicas, &r->round,
                                            r->n.members > 1 ? &r->others.gather : NULL, diag)
                            : at_outer_blocks(r->ex, &r->state, x->update, x->replicas, &r->round, first, blocks, diag);
    if (err == AT_OK && r->feedback != NULL) at_update_confirm(&x->update[x->replica], r->ex->par, r->feedback);
    for (int i = 0; i < x->replicas; i++)
        at_kept_release(&x->update[i].kept); /* no memory for it during the next unit */
    return err;
}

static at_err conclude(struct at_rank *r, struct at_diag *diag)
{
    int first = 0, blocks = 0;
    at_err_t err = take(r, diag, &first, &blocks);
    if (err == AT_OK && r->stats_before != NULL)
        memcpy(r->stats_before, r->state.stats, at_stats_count(r->state.params) * sizeof *r->stats_before);
    while (err == AT_OK && blocks > 0) {
        err = apply(r, first, blocks, diag);
        if (err == AT_OK) err = at_exchange_drop(&r->exchange, diag);
        if (err == AT_OK) err = take(r, diag, &first, &blocks);
    }
    if (err != AT_OK) return err;
    if (!r->exchange.whole) at_outer_skip(&r->state);
    free_samples(r);
    r->outstanding = false;
    r->applied = true;
    return AT_OK;
}

static at_err join(void *arg, struct at_diag *diag)
{
    struct at_rank *r = arg;
    if (r->outstanding) { /* otherwise at_rank_join was faster, and messages of this round are expected already */
        at_err_t err = conclude(r, diag);
        if (err != AT_OK) return err;
        expect(r, r->round.codec); /* with overlap every codec of the run goes whole */
    }
    r->seen = r->state;
    return AT_OK;
}

/* As in local.h: replicas ascending. */
static void report(const struct at_rank *r, uint64_t sent_before, uint64_t updates_before,
                   struct at_rank_report *ret_report)
{
    struct at_rank_report n = {.applied = r->applied,
                               .exchange_seconds = r->wait_seconds,
                               .bytes_sent = r->comm.ops->bytes_sent(r->comm.link) - sent_before,
                               .update_bytes = r->exchange.bytes_sent - updates_before};
    double sum = 0;
    for (int i = 0; r->applied && i < r->exchange.replicas; i++) {
        const struct at_update_info *info = &r->exchange.update[i].info;
        sum += r->exchange.loss[i] * (double)info->tokens;
        n.tokens += info->tokens;
        n.round = info->round;
        if (info->steps > n.steps) n.steps = info->steps;
    }
    if (r->applied) n.loss_mean = sum / (double)n.tokens;
    *ret_report = n;
}

/* ---- a round ---- */

struct watcher {
    struct at_rank *r;
    at_unit_progress_fn *progress;
    void *arg;
    at_err_t err; /* of what arrived meanwhile: ends the unit */
    struct at_diag *diag;
};

static bool watch(void *arg, const struct at_unit_progress *p)
{
    struct watcher *w = arg;
    struct at_rank *r = w->r;
    if (w->err == AT_OK) w->err = at_exchange_poll(&r->exchange, w->diag);
    bool go_on = (w->progress == NULL || w->progress(w->arg, p)) && w->err == AT_OK;
    if (!r->leader) return go_on;
    if (!go_on) {
        r->stop_wish = 1; /* now; with overlap the others may not listen for this round's word yet */
        at_rank_say_stop(r, r->stop_wish);
    }
    return at_rank_goes_on(r, p->step, &w->err, w->diag) && go_on;
}

static at_err check_round(const struct at_rank *r, const struct at_round *round, struct at_diag *diag)
{
    at_err_t err = at_round_check(round, diag);
    if (err != AT_OK) return err;
    uint32_t next = r->state.round + (r->outstanding ? 1 : 0);
    if (round->round != next)
        return at_fail(diag, AT_E_DATA, "round", "round %u comes after %u rounds", round->round, next);
    const struct at_exchange_needs *needs = &r->exchange.needs;
    if (((needs->whole | needs->parts) >> round->codec & 1) == 0)
        return at_fail(diag, AT_E_DATA, "round", "codec %u is not one of this run's outer step", round->codec);
    if (round->k > needs->k)
        return at_fail(diag, AT_E_DATA, "round", "%u of 4096 are kept; in this run at most %u", round->k, needs->k);
    if (round->clip != 0 && (needs->parts >> round->codec & 1) != 0)
        return at_fail(diag, AT_E_DATA, "round", "clipping needs whole updates; those of codec %u go in fragments",
                       round->codec);
    if (round->tau > 0 && r->stats_before == NULL)
        return at_fail(diag, AT_E_DATA, "round", "tau %u in a run without overlap", round->tau);
    if (round->steps == 0 || (uint64_t)round->steps * r->o.train->batch > UINT32_MAX)
        return at_fail(diag, AT_E_DATA, "round", "%u steps", round->steps);
    return AT_OK;
}

/* The own update; what there is room for leaves while this rank goes on. */
static at_err hand_over(struct at_rank *r, const struct at_round *round, const struct at_unit_report *unit,
                        struct at_diag *diag)
{
    const struct at_codec *codec = at_codec_find(round->codec);
    struct at_update_source source = {.params = &r->model.params,
                                      .theta_start = r->state.theta,
                                      .theta = r->trainer.theta,
                                      .feedback = codec->beta != 0 ? r->feedback : NULL,
                                      .stats = r->trainer.stats,
                                      .stats_public = r->state.stats};
    if (codec->beta != 0) at_feedback_add(r->ex, codec, source.params, source.theta_start, source.theta, r->feedback);
    return at_exchange_send(&r->exchange, codec, round->k, &unit->info, &source, unit->loss_mean, diag);
}

/* First samples of all replicas' units: as the caller says, or as local.h allots them. */
static at_err allot(struct at_rank *r, const struct at_round *round, struct at_diag *diag)
{
    int replicas = r->exchange.replicas;
    r->allotting = !r->starts_set;
    r->starts_set = false;
    if (!r->allotting) return AT_OK;
    if (!r->trained) /* a run that goes on: as if no unit before had ended early */
        r->samples.next = round->step_first * (uint64_t)replicas * r->o.train->batch;
    at_err_t err = at_samples_resize(&r->samples, (uint64_t)round->steps * r->o.train->batch);
    /* With overlap a round takes before the one before it gives back: two ranges a replica. */
    if (err == AT_OK) err = at_samples_reserve(&r->samples, 2 * (size_t)replicas);
    if (err != AT_OK) return at_fail(diag, err, "run", "no memory for the samples' ranges");
    if (!at_samples_can_take(&r->samples, (uint64_t)replicas))
        return at_fail(diag, AT_E_DATA, "run", "the endless sequence of samples is at its end");
    for (int i = 0; i < replicas; i++) r->start[i] = at_samples_take(&r->samples);
    return AT_OK;
}

/* The unit: from the newest state, or with overlap from the one before it, as this unit will see it until it joins. */
static at_err train(struct at_rank *r, const struct at_round *round, struct watcher *w, struct at_diag *diag,
                    struct at_unit_report *ret_made)
{
    bool late = round->tau > 0 && r->started;
    struct at_unit unit = {.start = r->start[r->place.replica],
                           .samples = round->steps * r->o.train->batch,
                           .step_first = round->step_first,
                           .tau = round->tau,
                           .join = late ? join : NULL,
                           .join_arg = r};
    r->seen = r->state;
    if (late && !r->outstanding) {
        r->seen.round--;
        r->seen.stats = r->stats_before;
    }
    if (!r->outstanding) expect(r, round->codec);
    at_rank_expect_found(r);
    r->stop_wish = 0;
    at_err_t err = at_unit_train(&r->trainer, r->ex, r->o.data, &r->seen, &unit, watch, w, diag, ret_made);
    return err != AT_OK ? err : w->err;
}

static at_err do_round(struct at_rank *r, const struct at_round *round, struct watcher *w, struct at_diag *diag)
{
    at_err_t err = check_round(r, round, diag);
    if (err == AT_OK && r->outstanding && round->tau == 0) err = conclude(r, diag);
    if (err == AT_OK) err = allot(r, round, diag);
    struct at_unit_report made;
    struct at_diag refusal = {0};
    if (err != AT_OK) return err;
    err = train(r, round, w, &refusal, &made);
    if (err == AT_E_NONFINITE && r->trainer.culprit.step != 0) return at_rank_tell_unit(r, true, diag);
    if (refusal.err != AT_OK) (void)at_fail(diag, refusal.err, refusal.where, "%s", refusal.text);
    if (err != AT_OK) return err;
    at_rank_say_stop(r, r->stop_wish);
    if (r->comm.rank != 0 && (err = at_rank_tell_unit(r, false, diag)) != AT_OK) return err;
    err = hand_over(r, round, &made, diag);
    if (err == AT_OK && r->comm.rank == 0) err = at_rank_tell_unit(r, false, diag);
    if (err != AT_OK) return err;
    r->round = *round;
    memcpy(r->due, r->start, (size_t)r->exchange.replicas * sizeof *r->due);
    r->allotted = r->allotting;
    r->outstanding = true;
    r->started = r->trained = true;
    return r->o.outer->tau == 0 ? conclude(r, diag) : AT_OK;
}

at_err at_rank_round(struct at_rank *r, const struct at_round *round, at_unit_progress_fn *progress, void *arg,
                     struct at_diag *diag, struct at_rank_report *ret_report)
{
    at_err_t err = at_rank_begin(r, diag);
    if (err != AT_OK) return err;
    struct at_diag own = {0};
    struct watcher w = {.r = r, .progress = progress, .arg = arg, .diag = &own};
    uint64_t sent = r->comm.ops->bytes_sent(r->comm.link), updates = r->exchange.bytes_sent;
    r->wait_seconds = 0;
    r->applied = false;
    err = do_round(r, round, &w, &own);
    if (err != AT_OK) return at_rank_fail(r, err, &own, diag);
    report(r, sent, updates, ret_report);
    return AT_OK;
}

at_err at_rank_join(struct at_rank *r, struct at_diag *diag, struct at_rank_report *ret_report)
{
    at_err_t err = at_rank_begin(r, diag);
    if (err != AT_OK) return err;
    struct at_diag own = {0};
    uint64_t sent = r->comm.ops->bytes_sent(r->comm.link), updates = r->exchange.bytes_sent;
    r->wait_seconds = 0;
    r->applied = false;
    if (r->outstanding) err = conclude(r, &own);
    if (err != AT_OK) return at_rank_fail(r, err, &own, diag);
    report(r, sent, updates, ret_report);
    return AT_OK;
}

void at_rank_set_starts(struct at_rank *r, const uint64_t *start)
{
    memcpy(r->start, start, (size_t)r->o.plan->replicas * sizeof *start);
    r->starts_set = true;
}

const struct at_update_info *at_rank_consumed(const struct at_rank *r, int replica)
{
    AT_ASSERT(replica >= 0 && replica < r->exchange.replicas);
    return &r->exchange.update[replica].info;
}
