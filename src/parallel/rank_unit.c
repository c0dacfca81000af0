/* One unit of a replica that starts from a state somebody else keeps, and hands its update over instead of applying it. */
#include "parallel/rank_inner.h"

#include <string.h>

/* This rank's blocks of a whole state. */
static void take_shard(struct at_state *s, const struct at_state *whole)
{
    const struct at_params *p = s->params;
    real *stats = s->stats;
    s->round = whole->round;
    for (int i = 0; i < p->blocks; i++) {
        const struct at_block *to = &p->block[i];
        const struct at_block *from = at_params_block(whole->params, to->tensor, to->slot);
        size_t n = at_block_stats_count(p, to),
               offset = at_block_stats_offset(whole->params, (int)(from - whole->params->block));
        memcpy(s->theta + to->offset, whole->theta + from->offset, at_block_count(to) * sizeof(real));
        memcpy(stats, whole->stats + offset, n * sizeof(real));
        stats += n;
    }
}

static bool is_owned(void *arg, int block)
{
    const struct at_rank *r = arg;
    return at_params_owns(&r->model.params, &r->model.params.block[block]);
}

/* The others are told of what went wrong. */
static at_err_t ended(struct at_rank *r, at_err_t err, struct at_diag *own, struct at_diag *diag)
{
    if (err == AT_OK) return AT_OK;
    if (own->err == AT_OK) (void)at_fail(own, err, "unit", "%s", at_err_text(err));
    if (r->comm.ranks > 1) r->comm.ops->fail(r->comm.link, own->err, own->where, own->text);
    if (diag != NULL) *diag = *own;
    return err;
}

/* Whether any rank of the replica wishes to stop, the same on all: as units end early, but at once. */
static at_err any_stops(struct at_rank *r, bool wish, struct at_diag *diag, bool *ret_stop)
{
    double stop = wish ? 1 : 0;
    at_err_t err = at_gather_run(r->n.members > 1 ? &r->others.gather : NULL, &stop, 1, diag);
    *ret_stop = stop != 0;
    return err;
}

at_err at_rank_share(struct at_rank *r, const struct at_state *whole, struct at_heldout_share share,
                     at_heldout_go_fn *go, void *arg, struct at_diag *diag, uint32_t *ret_code)
{
    struct at_diag own = {0};
    const struct at_data *data = r->o.data;
    long windows = at_heldout_windows(data, share), stride = (long)at_heldout_stride(share, (uint64_t)data->windows);
    long first = (long)share.first * stride, gap = (long)share.step * stride, batch = (long)r->o.train->batch;
    double sum = 0;
    bool stop = false;
    AT_ASSERT(r->o.plan->replicas == 1);
    take_shard(&r->state, whole);
    at_err_t err = any_stops(r, windows == 0 || (go != NULL && !go(arg)), &own, &stop);
    for (long done = 0; err == AT_OK && !stop && done < windows;) {
        long n = windows - done < batch ? windows - done : batch;
        err = at_rank_losses(r, first + done * gap, gap, n, &own);
        for (long i = 0; err == AT_OK && r->place.last && i < n * data->seq_len; i++) sum += (double)r->loss[i];
        bool goes = err != AT_OK || go == NULL || go(arg);
        done += n;
        if (err == AT_OK && done < windows) err = any_stops(r, !goes, &own, &stop);
    }
    *ret_code = r->place.last && !stop ? at_heldout_code(sum, (uint64_t)(windows * data->seq_len)) : 0;
    return ended(r, err, &own, diag);
}

at_err at_rank_unit(struct at_rank *r, const struct at_state *whole, const struct at_unit *unit,
                    at_unit_progress_fn *progress, void *arg, struct at_diag *diag, struct at_buf *out,
                    struct at_unit_report *ret_report)
{
    struct at_diag own = {0};
    AT_ASSERT(r->o.plan->replicas == 1 && r->state.momentum == NULL && unit->join == NULL);
    take_shard(&r->state, whole);
    r->others.leader = true; /* each of them may have to leave */
    at_err_t err = at_unit_train(&r->trainer, r->ex, r->o.data, &r->state, unit, progress, arg, &own, ret_report);
    if (err == AT_OK) {
        struct at_update_source source = {.params = &r->model.params,
                                          .theta_start = r->state.theta,
                                          .theta = r->trainer.theta,
                                          .stats = r->trainer.stats,
                                          .stats_public = r->state.stats};
        err = at_update_encode(&at_codec_plain, 0, &ret_report->info, &source, is_owned, r, out);
    }
    return ended(r, err, &own, diag);
}
