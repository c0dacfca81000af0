/* A rank's parts and their memory; how a failure of one becomes everybody's. */
#include "parallel/rank.h"

#include "base/bytes.h"
#include "parallel/rank_inner.h"

#include <stdlib.h>
#include <string.h>

enum { GATHER_BYTES_MAX = 65536 };

/* ---- memory ---- */

static struct at_trainer_options trainer_options(const struct at_rank_options *o, const struct at_place *place)
{
    int M = o->plan->microbatches;
    return (struct at_trainer_options){
        .microbatch = at_schedule_cut_max(o->train->batch, M),
        .in_flight = at_schedule_in_flight(place->stage, o->plan->replica[place->replica].stages, M),
        .recompute = o->recompute,
        .overlap = o->outer->tau > 0,
        .memory = o->memory};
}

static bool is_lossy(const struct at_outer_config *c)
{
    return c->kind != AT_OUTER_MEAN;
}

/* Ranks of a replica are numbered in a row. */
static int first_member(const struct at_plan *plan, int replica)
{
    return plan->stage[plan->replica[replica].stage_first].rank_first;
}

static int member_count(const struct at_plan *plan, int replica)
{
    const struct at_plan_replica *r = &plan->replica[replica];
    const struct at_plan_stage *last = &plan->stage[r->stage_first + r->stages - 1];
    return last->rank_first + last->tp - first_member(plan, replica);
}

/* What one rank's shard comes to. */
struct shard_counts {
    size_t leaves, weights, stats;
};

static bool count_shard(const struct at_rank_options *o, int rank, struct shard_counts *ret)
{
    struct at_params p;
    struct at_shard shard = at_plan_shard(o->plan, o->model, rank);
    if (at_params_init_shard(&p, o->model, &shard) != AT_OK) return false;
    *ret = (struct shard_counts){at_state_leaves(&p, at_outer_config_momentum(o->outer)), p.count, at_stats_count(&p)};
    at_params_release(&p);
    return true;
}

static size_t at_most(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* False: beyond size_t, or no memory to count with. */
static bool measure(const struct at_rank_options *o, int rank, struct at_rank_sizes *ret)
{
    struct at_place place = at_plan_place(o->plan, rank);
    const struct at_plan *plan = o->plan;
    struct at_rank_sizes n = {.members = member_count(plan, place.replica)};
    size_t T = o->model->seq_len, rows, tokens;
    struct shard_counts own, other;
    if (!at_mul_size((size_t)at_schedule_cut_max(o->train->batch, plan->microbatches), T, &rows) ||
        !at_mul_size(o->train->batch, T, &tokens) || !at_mul_size(tokens, (size_t)plan->replicas, &n.wave))
        return false;
    if (place.at->tp > 1) {
        size_t most = o->model->d_model > 2 ? o->model->d_model : 2; /* rows of x; maxima and scores */
        if (!at_mul_size(rows, most, &most) || most > SIZE_MAX / 16) return false;
        n.stage_room = at_group_room_bytes(most);
    }
    size_t blocks = 8 * (size_t)(9 * o->model->layers + 3) + 2;
    if (n.members > 1) n.replica_room = at_group_room_bytes(2 * at_most(blocks, GATHER_BYTES_MAX / 8));
    if (plan->ranks > 1) n.all_room = at_group_room_bytes(2 * at_most(n.wave, GATHER_BYTES_MAX / 8));
    if (n.wave < 4 * (size_t)plan->replicas) n.wave = 4 * (size_t)plan->replicas; /* roots are gathered there, too */
    n.loss = place.last ? tokens : 0;
    if (!count_shard(o, rank, &own)) return false;
    n.leaves = own.leaves;
    if (is_lossy(o->outer)) n.feedback = own.weights;
    if (o->outer->tau > 0) n.stats_before = own.stats;
    for (int i = 0, first = first_member(plan, place.replica); rank == first && i < n.members; i++) {
        if (!count_shard(o, first + i, &other)) return false;
        n.leaves_all += other.leaves;
    }
    *ret = n;
    return true;
}

/* Cuts 64-byte aligned runs off a block; with base NULL it only measures. */
struct cutter {
    char *base;
    size_t used;
    bool overflow;
};

static void *cut(struct cutter *c, size_t count, size_t each)
{
    size_t bytes;
    if (count == 0) return NULL;
    void *p = c->base != NULL ? c->base + c->used : NULL;
    if (!at_mul_size(count, each, &bytes) || !at_add_size(bytes, 63, &bytes) ||
        !at_add_size(c->used, bytes / 64 * 64, &c->used))
        c->overflow = true;
    return p;
}

struct rooms {
    void *stage, *replica, *all;
};

static struct rooms lay_out(struct at_rank *r, const struct at_rank_sizes *n, int replicas, struct cutter *c)
{
    struct rooms rooms = {cut(c, n->stage_room, 1), cut(c, n->replica_room, 1), cut(c, n->all_room, 1)};
    r->feedback = cut(c, n->feedback, sizeof *r->feedback);
    r->stats_before = cut(c, n->stats_before, sizeof *r->stats_before);
    r->loss = cut(c, n->loss, sizeof *r->loss);
    r->wave = cut(c, n->wave, sizeof *r->wave);
    r->leaf = cut(c, n->leaves, sizeof *r->leaf);
    r->leaf_all = cut(c, n->leaves_all, sizeof *r->leaf_all);
    r->leaf_bytes = cut(c, (size_t)n->members, sizeof *r->leaf_bytes);
    r->shard = cut(c, (size_t)n->members, sizeof *r->shard);
    r->start = cut(c, (size_t)replicas, sizeof *r->start);
    r->due = cut(c, (size_t)replicas, sizeof *r->due);
    r->stop_to = cut(c, (size_t)replicas, sizeof *r->stop_to);
    r->found_from = cut(c, (size_t)replicas, sizeof *r->found_from);
    r->found_in = cut(c, (size_t)replicas, sizeof *r->found_in);
    return rooms;
}

static bool add_to(size_t *io_sum, size_t bytes)
{
    return bytes != 0 && at_add_size(*io_sum, bytes, io_sum);
}

/* The model's tables and the state. */
static bool state_bytes(const struct at_rank_options *o, const struct at_shard *shard, size_t *ret_bytes)
{
    struct at_params p;
    if (at_params_init_shard(&p, o->model, shard) != AT_OK) return false;
    size_t flats = at_outer_config_momentum(o->outer) ? 2 : 1;
    *ret_bytes =
        (flats * p.count + at_stats_count(&p) + (size_t)o->model->seq_len * o->model->head_size) * sizeof(real) +
        (size_t)p.tensors * (sizeof *p.tensor + 8 * (sizeof *p.block + sizeof *p.block_of));
    at_params_release(&p);
    return true;
}

static struct at_exchange_needs exchange_needs(const struct at_rank_options *o)
{
    struct at_exchange_needs needs = at_exchange_needs_of(o->outer);
    if (o->fragment_bytes != 0) needs.fragment_bytes = o->fragment_bytes;
    return needs;
}

size_t at_rank_bytes(const struct at_rank_options *options, int rank)
{
    const struct at_rank_options *o = options;
    struct at_place place = at_plan_place(o->plan, rank);
    struct at_shard shard = at_plan_shard(o->plan, o->model, rank);
    struct at_trainer_options t = trainer_options(o, &place);
    struct at_rank measured = {0};
    struct at_rank_sizes n;
    struct at_exchange_needs needs = exchange_needs(o);
    struct cutter c = {0};
    size_t sum = sizeof(struct at_rank), state;
    if (!measure(o, rank, &n) || !state_bytes(o, &shard, &state)) return 0;
    (void)lay_out(&measured, &n, o->plan->replicas, &c);
    int stages = o->plan->replica[place.replica].stages;
    bool ok = !c.overflow && add_to(&sum, state) && add_to(&sum, c.used) &&
              add_to(&sum, at_trainer_bytes_options(o->model, &shard, o->train, &t)) &&
              add_to(&sum, at_exchange_bytes(o->plan, o->model, rank, &needs)) &&
              add_to(&sum, at_pipeline_bytes(o->model, place.stage, stages, o->plan->microbatches, o->train->batch));
    return ok ? sum : 0;
}

/* ---- the parts ---- */

static struct at_pipeline_peer stage_peer(const struct at_rank *r, int stage)
{
    const struct at_plan_replica *rep = &r->o.plan->replica[r->place.replica];
    if (stage < 0 || stage >= rep->stages) return (struct at_pipeline_peer){0};
    const struct at_plan_stage *s = &r->o.plan->stage[rep->stage_first + stage];
    return (struct at_pipeline_peer){s->rank_first, s->tp};
}

static at_err init_pipeline(struct at_rank *r, struct at_diag *diag)
{
    int stages = r->o.plan->replica[r->place.replica].stages, stage = r->place.stage;
    struct at_pipeline_options o = {.comm = &r->comm,
                                    .model = &r->model,
                                    .group = &r->stage,
                                    .stage = stage,
                                    .stages = stages,
                                    .before = stage_peer(r, stage - 1),
                                    .behind = stage_peer(r, stage + 1),
                                    .first = stage_peer(r, 0),
                                    .last = stage_peer(r, stages - 1),
                                    .microbatches = r->o.plan->microbatches,
                                    .batch = r->o.train->batch,
                                    .pass = r->trainer.pass,
                                    .act = r->trainer.act,
                                    .tag = AT_TAG_PIPELINE};
    return at_pipeline_init(&r->pipeline, &o, diag);
}

static at_err gradient(void *arg, struct at_trainer *t, const struct at_exec *ex, const real *theta, double *ret_sum,
                       struct at_diag *diag)
{
    struct at_rank *r = arg;
    long batch = t->config.batch, T = t->model->params.config.seq_len;
    double sum = 0;
    struct at_pipeline_work work = {.theta = theta,
                                    .input = t->input,
                                    .target = t->target,
                                    .sequences = batch,
                                    .microbatches = r->o.plan->microbatches,
                                    .grad = t->grad,
                                    .inv = (real)(1.0 / (double)(batch * T))};
    at_model_grad_begin(ex, t->model, t->pass, t->grad);
    at_err_t err = at_pipeline_run(&r->pipeline, ex, &work, &sum, diag);
    if (err != AT_OK) return err;
    at_model_grad_finish(ex, t->model, t->grad);
    *ret_sum = r->place.last && r->place.tp_rank == 0 ? sum : 0;
    return AT_OK;
}

static at_err forward(void *arg, struct at_trainer *t, const struct at_exec *ex, const real *theta,
                      void (*look)(void *look_arg, long sequence, struct at_activations *a), void *look_arg,
                      double *ret_sum, struct at_diag *diag)
{
    struct at_rank *r = arg;
    double sum = 0;
    struct at_pipeline_work work = {.theta = theta,
                                    .input = t->input,
                                    .target = t->target,
                                    .sequences = t->config.batch,
                                    .microbatches = (int)t->config.batch,
                                    .look = look,
                                    .look_arg = look_arg};
    at_err_t err = at_pipeline_run(&r->pipeline, ex, &work, &sum, diag);
    if (err == AT_OK) *ret_sum = r->place.last && r->place.tp_rank == 0 ? sum : 0;
    return err;
}

/* Groups, and what the trainer is told of its replica: nothing when this rank is the whole of it. */
static void join_groups(struct at_rank *r, const struct rooms *rooms)
{
    const struct at_plan *plan = r->o.plan;
    int first = first_member(plan, r->place.replica);
    at_group_init(&r->stage, &r->comm, r->ex, r->place.at->rank_first, r->place.at->tp, AT_TAG_STAGE, rooms->stage,
                  r->n.stage_room);
    at_group_init(&r->replica, &r->comm, r->ex, first, r->n.members, AT_TAG_REPLICA, rooms->replica, r->n.replica_room);
    at_group_init(&r->all, &r->comm, r->ex, 0, plan->ranks, AT_TAG_ALL, rooms->all, r->n.all_room);
    r->leader = r->comm.rank == first;
    r->others = (struct at_replica){.tp = at_group_tp(&r->stage),
                                    .arg = r,
                                    .gradient = gradient,
                                    .forward = forward,
                                    .gather = at_group_gather(&r->replica),
                                    .leader = r->leader};
    if (r->n.members > 1) r->trainer.replica = &r->others;
}

static void list_members(struct at_rank *r)
{
    bool momentum = r->state.momentum != NULL;
    int first = first_member(r->o.plan, r->place.replica);
    for (int i = 0; i < r->n.members; i++) {
        r->shard[i] = at_plan_shard(r->o.plan, r->o.model, first + i);
        r->leaf_bytes[i] =
            first + i == r->comm.rank ? at_state_leaves(&r->model.params, momentum) * sizeof *r->leaf : 0;
    }
}

/* The leader must know how many leaves each of its ranks will send. */
static at_err count_leaves(struct at_rank *r)
{
    for (int i = 0, first = first_member(r->o.plan, r->place.replica); r->leader && i < r->n.members; i++) {
        struct shard_counts n;
        if (!count_shard(&r->o, first + i, &n)) return AT_E_NOMEM;
        r->leaf_bytes[i] = n.leaves * sizeof *r->leaf;
    }
    return AT_OK;
}

static at_err init_parts(struct at_rank *r, struct at_diag *diag)
{
    struct at_shard shard = at_plan_shard(r->o.plan, r->o.model, r->comm.rank);
    struct at_trainer_options t = trainer_options(&r->o, &r->place);
    struct at_exchange_needs needs = exchange_needs(&r->o);
    struct cutter c = {0};
    if (!measure(&r->o, r->comm.rank, &r->n)) return AT_E_NOMEM;
    (void)lay_out(r, &r->n, r->o.plan->replicas, &c);
    r->block = c.overflow ? NULL : aligned_alloc(64, c.used);
    if (r->block == NULL) return AT_E_NOMEM;
    memset(r->block, 0, c.used);
    c = (struct cutter){.base = r->block};
    struct rooms rooms = lay_out(r, &r->n, r->o.plan->replicas, &c);
    at_err_t err = at_model_init_shard(&r->model, r->o.model, &shard, diag);
    if (err == AT_OK) err = at_state_init(&r->state, &r->model.params);
    if (err == AT_OK && at_outer_config_momentum(r->o.outer)) err = at_state_add_momentum(&r->state);
    if (err == AT_OK) err = at_trainer_init_options(&r->trainer, &r->model, r->o.train, &t, diag);
    if (err != AT_OK) return err;
    join_groups(r, &rooms);
    list_members(r);
    err = count_leaves(r);
    if (err == AT_OK) err = init_pipeline(r, diag);
    if (err == AT_OK)
        err = at_exchange_init(&r->exchange, &r->comm, r->o.plan, &r->model.params, &needs, AT_TAG_EXCHANGE, diag);
    return err;
}

at_err at_rank_init(struct at_rank **ret_rank, const struct at_comm *comm, const struct at_exec *ex,
                    const struct at_rank_options *options, struct at_diag *diag)
{
    AT_ASSERT(comm->ranks == options->plan->ranks && comm->rank >= 0 && comm->rank < comm->ranks);
    struct at_rank *r = calloc(1, sizeof *r);
    at_err_t err = r == NULL ? AT_E_NOMEM : AT_OK;
    if (err == AT_OK) {
        r->comm = *comm;
        r->o = *options;
        r->ex = ex;
        r->place = at_plan_place(options->plan, comm->rank);
        err = init_parts(r, diag);
    }
    if (err != AT_OK) {
        at_rank_release(r);
        return at_fail(diag, err, "rank", "this rank needs %zu MB of memory", at_rank_bytes(options, comm->rank) >> 20);
    }
    at_samples_init(&r->samples, (uint64_t)options->train->steps * options->train->batch);
    at_state_genesis(&r->state, options->train->seed);
    *ret_rank = r;
    return AT_OK;
}

void at_rank_release(struct at_rank *r)
{
    if (r == NULL) return;
    if (r->outstanding) at_rank_settle(r);
    at_exchange_release(&r->exchange);
    at_pipeline_release(&r->pipeline);
    at_trainer_release(&r->trainer);
    at_state_release(&r->state);
    at_samples_release(&r->samples);
    at_model_release(&r->model);
    free(r->block);
    free(r);
}

const struct at_state *at_rank_state(const struct at_rank *r)
{
    return &r->state;
}

/* ---- failure ---- */

at_err at_rank_begin(const struct at_rank *r, struct at_diag *diag)
{
    if (r->failure.err == AT_OK) return AT_OK;
    return at_fail(diag, r->failure.err, r->failure.where, "%s", r->failure.text);
}

/* The first failure of all ranks is the run's: this rank says its own, unless rank 0 will say it for all, and then asks
 * what the run ended with, by waiting for something that nobody sends. */
at_err_t at_rank_fail(struct at_rank *r, at_err_t err, const struct at_diag *own, struct at_diag *ret_diag)
{
    struct at_diag mine = *own, verdict = {0};
    if (mine.err == AT_OK) (void)at_fail(&mine, err, "run", "%s", at_err_text(err));
    if (r->comm.ranks > 1) {
        uint8_t byte;
        int other = r->comm.rank == 0 ? 1 : 0;
        if (!r->rank_0_tells) r->comm.ops->fail(r->comm.link, mine.err, mine.where, mine.text);
        at_err_t ended = at_comm_wait(&r->comm, at_comm_recv(&r->comm, other, AT_TAG_VERDICT, &byte, 1), &verdict);
        if (ended != AT_OK) verdict.err = ended;
    }
    r->failure = verdict.err != AT_OK ? verdict : mine;
    at_rank_settle(r);
    if (ret_diag != NULL) *ret_diag = r->failure;
    return r->failure.err;
}
