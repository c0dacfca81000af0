/* What is put together from all ranks: the root, the held-out loss, blocks for checkpoints. */
#include "parallel/rank.h"

#include "parallel/rank_inner.h"
#include "train/checkpoint_replica.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static at_err ended(struct at_rank *r, at_err_t err, const struct at_diag *own, struct at_diag *diag)
{
    return err == AT_OK ? AT_OK : at_rank_fail(r, err, own, diag);
}

at_err at_rank_broadcast(struct at_rank *r, void *bytes, size_t n, struct at_diag *diag)
{
    struct at_diag own = {0};
    at_err_t err = at_rank_begin(r, diag);
    if (err != AT_OK) return err;
    return ended(r, at_group_broadcast(&r->all, 0, bytes, n, &own), &own, diag);
}

/* ---- the root ---- */

/* The leader of a replica has the leaves of all its ranks, one after the other. */
static at_err collect_leaves(struct at_rank *r, struct at_diag *diag, struct at_hash *ret_root)
{
    struct at_hash *at[AT_PLAN_RANKS_MAX];
    void *place[AT_PLAN_RANKS_MAX];
    size_t used = 0;
    for (int i = 0; r->leader && i < r->n.members; i++) {
        place[i] = at[i] = r->leaf_all + used;
        used += r->leaf_bytes[i] / sizeof *r->leaf;
    }
    at_err_t err = at_group_collect(&r->replica, 0, r->leaf, r->leader ? place : NULL, r->leaf_bytes, diag);
    if (err != AT_OK || !r->leader) return err;
    return at_state_root_from(r->o.model, r->state.round, r->state.momentum != NULL, r->shard,
                              (const struct at_hash *const *)at, r->n.members, diag, ret_root);
}

static at_err root(struct at_rank *r, struct at_diag *diag, struct at_hash *ret_root)
{
    struct at_hash mine = {{0}};
    int replicas = r->o.plan->replicas;
    at_err_t err = at_state_hash_leaves(&r->state, diag, r->leaf);
    if (err == AT_OK) err = collect_leaves(r, diag, &mine);
    if (err != AT_OK) return err;
    /* All replicas' roots to all ranks: the bits travel as they are. */
    memset(r->wave, 0, 4 * (size_t)replicas * sizeof *r->wave);
    if (r->leader) memcpy(r->wave + 4 * r->place.replica, &mine, sizeof mine);
    struct at_gather all = at_group_gather(&r->all);
    err = at_gather_run(&all, r->wave, 4 * (size_t)replicas, diag);
    for (int i = 1; err == AT_OK && i < replicas; i++)
        if (memcmp(r->wave + 4 * i, r->wave, sizeof mine) != 0)
            err = at_fail(diag, AT_E_VERIFY, "state root", "replica %d has another state than replica 0", i);
    if (err == AT_OK) memcpy(ret_root, r->wave, sizeof *ret_root);
    return err;
}

at_err at_rank_root(struct at_rank *r, struct at_diag *diag, struct at_hash *ret_root)
{
    struct at_diag own = {0};
    at_err_t err = at_rank_begin(r, diag);
    if (err != AT_OK) return err;
    return ended(r, root(r, &own, ret_root), &own, diag);
}

/* ---- the held-out loss ---- */

at_err at_rank_losses(struct at_rank *r, long first, long step, long n, struct at_diag *diag)
{
    struct at_trainer *t = &r->trainer;
    int M = r->o.plan->microbatches;
    double unused = 0;
    at_heldout_load(t, r->o.data, first, step, n);
    struct at_pipeline_work work = {.theta = r->state.theta,
                                    .input = t->input,
                                    .target = t->target,
                                    .sequences = n,
                                    .microbatches = n < M ? (int)n : M,
                                    .ret_loss = r->loss};
    return at_pipeline_run(&r->pipeline, r->ex, &work, &unused, diag);
}

/* In waves of up to a batch of windows per replica: memory stays small, and the sum runs in token order. */
static at_err heldout(struct at_rank *r, struct at_diag *diag, double *ret_loss)
{
    long windows = r->o.data->windows, T = r->o.data->seq_len, batch = r->o.train->batch;
    long each = batch * r->o.plan->replicas;
    struct at_gather all = at_group_gather(&r->all);
    double sum = 0;
    for (long w = 0; w < windows; w += each) {
        long wave = windows - w < each ? windows - w : each, first = batch * r->place.replica;
        long n = wave - first < batch ? wave - first : batch;
        at_err_t err = n > 0 ? at_rank_losses(r, w + first, 1, n, diag) : AT_OK;
        if (err != AT_OK) return err;
        memset(r->wave, 0, (size_t)(wave * T) * sizeof *r->wave);
        for (long i = 0; r->place.last && r->place.tp_rank == 0 && i < n * T; i++)
            r->wave[first * T + i] = (double)r->loss[i];
        err = at_gather_run(&all, r->wave, (size_t)(wave * T), diag);
        if (err != AT_OK) return err;
        for (long i = 0; i < wave * T; i++) sum += r->wave[i];
    }
    *ret_loss = sum / (double)(windows * T);
    return AT_OK;
}

at_err at_rank_heldout(struct at_rank *r, struct at_diag *diag, double *ret_loss)
{
    struct at_diag own = {0};
    at_err_t err = at_rank_begin(r, diag);
    if (err != AT_OK) return err;
    return ended(r, heldout(r, &own, ret_loss), &own, diag);
}

/* ---- blocks ---- */

static size_t stats_at(const struct at_params *p, const struct at_block *b)
{
    return at_block_stats_offset(p, (int)(b - p->block));
}

/* Where the values of a part of a block lie in this rank's state. */
static real *values_of(const struct at_rank *r, int part, int tensor, int slot)
{
    const struct at_block *b = at_params_block(&r->model.params, tensor, slot);
    if (part == AT_PART_WEIGHTS) return r->state.theta + b->offset;
    if (part == AT_PART_MOMENTUM) return r->state.momentum + b->offset;
    return r->state.stats + stats_at(&r->model.params, b);
}

/* The same of what its replica keeps for itself. */
static real *own_values_of(const struct at_rank *r, int part, int tensor, int slot, bool store)
{
    const struct at_block *b = at_params_block(&r->model.params, tensor, slot);
    bool there = r->started || store;
    if (part == AT_OWN_FEEDBACK) return r->feedback + b->offset;
    if (part == AT_OWN_WEIGHTS) return (there ? r->trainer.theta : r->state.theta) + b->offset;
    return (there ? r->stats_before : r->state.stats) + stats_at(&r->model.params, b);
}

static size_t values_count(const struct at_params *p, bool stats, int tensor)
{
    const struct at_tensor *t = &p->tensor[tensor];
    size_t rows = (size_t)(t->split_cols ? t->rows : t->rows / t->slots);
    size_t cols = (size_t)(t->split_cols ? t->cols / t->slots : t->cols);
    if (!stats) return rows * cols;
    return at_role_is_gain(t->role) ? cols : rows + cols;
}

static size_t values_bytes(const struct at_rank *r, bool stats, int tensor, int slot)
{
    const struct at_params *p = &r->model.params;
    AT_ASSERT(tensor >= 0 && tensor < p->tensors && slot >= 0 && slot < p->tensor[tensor].slots);
    return values_count(p, stats, tensor) * sizeof(real);
}

static int owner_in(const struct at_rank *r, int replica, int tensor, int slot)
{
    for (int i = 0; i < r->o.plan->ranks; i++) {
        struct at_shard s = at_plan_shard(r->o.plan, r->o.model, i);
        if (at_plan_place(r->o.plan, i).replica == replica && at_shard_owns(&r->model.params, &s, tensor, slot))
            return i;
    }
    AT_ASSERT(false); /* a plan covers the model */
    return 0;
}

/* From `owner`, where the values lie at `mine`, to rank 0. */
static at_err fetch(struct at_rank *r, int owner, const real *mine, size_t bytes, real *ret_values,
                    struct at_diag *diag)
{
    int me = r->comm.rank;
    if (me == 0 && owner == 0) {
        memcpy(ret_values, mine, bytes);
        return AT_OK;
    }
    if (me == 0) return at_comm_wait(&r->comm, at_comm_recv(&r->comm, owner, AT_TAG_BLOCK, ret_values, bytes), diag);
    if (me != owner) return AT_OK;
    return at_comm_wait(&r->comm, at_comm_send(&r->comm, 0, AT_TAG_BLOCK, mine, bytes), diag);
}

/* Rank 0 to all others of a replica (-1: of every one) that hold the block, several at a time. */
static at_err spread(struct at_rank *r, int replica, int tensor, int slot, const real *values, size_t bytes,
                     struct at_diag *diag)
{
    enum { AT_ONCE = 16 };
    struct at_transfer t[AT_ONCE] = {{0}};
    at_err_t first = AT_OK;
    for (int i = 1, n = 0; i < r->o.plan->ranks; i++) {
        struct at_shard s = at_plan_shard(r->o.plan, r->o.model, i);
        bool meant = replica < 0 || at_plan_place(r->o.plan, i).replica == replica;
        if (!meant || !at_shard_holds(&r->model.params, &s, tensor, slot)) continue;
        at_err_t err = at_comm_wait(&r->comm, t[n], diag);
        if (first == AT_OK) first = err;
        t[n] = at_comm_send(&r->comm, i, AT_TAG_BLOCK, values, bytes);
        n = (n + 1) % AT_ONCE;
    }
    for (int n = 0; n < AT_ONCE; n++) {
        at_err_t err = at_comm_wait(&r->comm, t[n], diag);
        if (first == AT_OK) first = err;
    }
    return first;
}

/* mine: where this rank keeps it; NULL: it does not. */
static at_err store(struct at_rank *r, int replica, int tensor, int slot, real *mine, size_t bytes, const real *values,
                    struct at_diag *diag)
{
    if (r->comm.rank == 0) {
        if (mine != NULL) memcpy(mine, values, bytes);
        return spread(r, replica, tensor, slot, values, bytes, diag);
    }
    if (mine == NULL) return AT_OK;
    return at_comm_wait(&r->comm, at_comm_recv(&r->comm, 0, AT_TAG_BLOCK, mine, bytes), diag);
}

at_err at_rank_fetch(struct at_rank *r, int part, int tensor, int slot, real *ret_values, struct at_diag *diag)
{
    struct at_diag own = {0};
    at_err_t err = at_rank_begin(r, diag);
    if (err != AT_OK) return err;
    AT_ASSERT(part >= 0 && part < AT_PARTS && (part != AT_PART_MOMENTUM || r->state.momentum != NULL));
    size_t bytes = values_bytes(r, part == AT_PART_STATS, tensor, slot);
    int owner = owner_in(r, 0, tensor, slot);
    const real *mine = r->comm.rank == owner ? values_of(r, part, tensor, slot) : NULL;
    return ended(r, fetch(r, owner, mine, bytes, ret_values, &own), &own, diag);
}

at_err at_rank_store(struct at_rank *r, int part, int tensor, int slot, const real *values, struct at_diag *diag)
{
    struct at_diag own = {0};
    at_err_t err = at_rank_begin(r, diag);
    if (err != AT_OK) return err;
    AT_ASSERT(part >= 0 && part < AT_PARTS && (part != AT_PART_MOMENTUM || r->state.momentum != NULL));
    size_t bytes = values_bytes(r, part == AT_PART_STATS, tensor, slot);
    real *mine = at_params_holds(&r->model.params, tensor, slot) ? values_of(r, part, tensor, slot) : NULL;
    return ended(r, store(r, -1, tensor, slot, mine, bytes, values, &own), &own, diag);
}

void at_rank_set_round(struct at_rank *r, uint32_t round)
{
    AT_ASSERT(!r->outstanding);
    r->state.round = round;
}

static void check_own(const struct at_rank *r, int replica, int part)
{
    AT_ASSERT(!r->outstanding && replica >= 0 && replica < r->o.plan->replicas && part >= 0 && part < AT_OWN_PARTS);
    AT_ASSERT(part == AT_OWN_FEEDBACK ? r->feedback != NULL : r->stats_before != NULL);
}

at_err at_rank_fetch_own(struct at_rank *r, int replica, int part, int tensor, int slot, real *ret_values,
                         struct at_diag *diag)
{
    struct at_diag own = {0};
    at_err_t err = at_rank_begin(r, diag);
    if (err != AT_OK) return err;
    check_own(r, replica, part);
    size_t bytes = values_bytes(r, part == AT_OWN_STATS, tensor, slot);
    int owner = owner_in(r, replica, tensor, slot);
    const real *mine = r->comm.rank == owner ? own_values_of(r, part, tensor, slot, false) : NULL;
    return ended(r, fetch(r, owner, mine, bytes, ret_values, &own), &own, diag);
}

at_err at_rank_store_own(struct at_rank *r, int replica, int part, int tensor, int slot, const real *values,
                         struct at_diag *diag)
{
    struct at_diag own = {0};
    at_err_t err = at_rank_begin(r, diag);
    if (err != AT_OK) return err;
    check_own(r, replica, part);
    size_t bytes = values_bytes(r, part == AT_OWN_STATS, tensor, slot);
    bool held = r->place.replica == replica && at_params_holds(&r->model.params, tensor, slot);
    real *mine = held ? own_values_of(r, part, tensor, slot, true) : NULL;
    return ended(r, store(r, replica, tensor, slot, mine, bytes, values, &own), &own, diag);
}

void at_rank_set_started(struct at_rank *r)
{
    AT_ASSERT(!r->outstanding && r->stats_before != NULL);
    r->started = true;
}
