/* node_compute_check.c: a steward's look at a member's update, before its receipt is taken into the log. */
#include "node/node_compute_inner.h"

/* Values so far beyond any training that sums over all rounds of a run could leave binary32. */
#define UPDATE_ABS_MAX 1e6f
#define STATS_ABS_MAX  1e30f

static bool reals_within(struct at_codec_reader *d, bool stats, real low, real high)
{
    real x[AT_CODEC_CHUNK];
    bool good = true;
    while (d->done < d->count && good) {
        size_t left = d->count - d->done, n = left < AT_CODEC_CHUNK ? left : AT_CODEC_CHUNK;
        (stats ? d->codec->next_stats : d->codec->next)(d, n, x);
        for (size_t k = 0; k < n; k++) good &= x[k] >= low && x[k] <= high;
    }
    return good;
}

static bool values_within(const struct at_update *u)
{
    bool good = true;
    for (int i = 0; i < u->params->blocks && good; i++) {
        struct at_codec_reader d;
        if (u->payload[i].p == NULL) continue; /* of another stage */
        at_update_open(u, i, &d);
        good = reals_within(&d, false, -UPDATE_ABS_MAX, UPDATE_ABS_MAX);
        if (u->codec != &at_codec_plain) continue; /* the others' statistics are cut there as they are read */
        at_update_open_stats(u, i, NULL, &d);
        good &= reals_within(&d, true, 0, STATS_ABS_MAX);
    }
    return good;
}

/* The blob has the blocks of its stage, and no others. */
static bool is_stage(const struct at_update *u, const struct at_compute_claim *claim)
{
    const struct at_params *p = u->params;
    struct at_shard shard = at_stage_cut_shard(&p->config, &claim->cut, (int)claim->stage);
    bool right = true;
    for (int i = 0; i < p->blocks && right; i++)
        right = (u->payload[i].p != NULL) == at_shard_holds(p, &shard, p->block[i].tensor, p->block[i].slot);
    return right;
}

at_err_t at_compute_check_update(const struct at_compute *c, struct at_blobs *updates, struct at_hash update,
                                 const struct at_compute_claim *claim, struct at_diag *diag)
{
    struct at_file_map blob = {0};
    struct at_update u = {0};
    at_err_t err = at_blobs_map(updates, update, at_update_bytes_max(&c->model.params), diag, &blob);
    if (!err && (err = at_update_begin(&u, &c->model.params)) != AT_OK)
        err = at_fail(diag, err, "update", "out of memory");
    if (!err) err = at_update_add(&u, at_span(blob.p, blob.n), diag);
    if (!err && !is_stage(&u, claim))
        err = at_fail(diag, AT_E_DATA, "update", "the update has other blocks than those of stage %u of %u",
                      claim->stage + 1, claim->cut.stages);
    if (!err && (u.info.round != claim->round || u.info.start != claim->start || u.info.samples != claim->samples ||
                 u.info.steps != claim->steps))
        err = at_fail(diag, AT_E_DATA, "update", "the update is of another unit than its receipt says");
    struct at_round rule = at_genesis_round(&c->genesis, claim->round);
    if (!err && (u.codec->id != rule.codec || u.k != rule.k))
        err = at_fail(diag, AT_E_DATA, "update", "the update came by codec %s %u; this round's is %s %u", u.codec->name,
                      u.k, at_codec_find(rule.codec)->name, rule.k);
    if (!err && !values_within(&u)) err = at_fail(diag, AT_E_DATA, "update", "the update holds absurdly large values");
    at_update_release(&u);
    at_file_map_release(&blob);
    return err;
}
