/* rank_test_util.h: whole split runs on threads, for *_test.c only. */
#ifndef ATOLL_PARALLEL_RANK_TEST_UTIL_H
#define ATOLL_PARALLEL_RANK_TEST_UTIL_H

#include "parallel/comm_test_util.h"
#include "parallel/rank.h"
#include "train/train_test_util.h"

/* What a test does on every rank; the run is at genesis. */
struct split_job {
    const struct test_run *run;
    struct at_plan plan;
    struct at_outer_config outer;
    bool recompute, mixed_kernels;
    bool join_between;     /* at_rank_join after every round: changes nothing */
    size_t fragment_bytes; /* of updates; 0: as usual, which is whole for models as small as these */
    int rounds;
    void (*body)(struct split_job *job, struct at_rank *r, int rank);
    void *arg;
    /* Results of split_rounds, by rank. */
    at_err_t err[TEST_RANKS_MAX];
    struct at_diag diag[TEST_RANKS_MAX];
    struct at_hash root[TEST_RANKS_MAX];
    double loss[TEST_RANKS_MAX], heldout[TEST_RANKS_MAX];
    struct at_rank_report report[TEST_RANKS_MAX];
};

static inline void split_seat(void *arg, int rank, const struct at_comm *comm)
{
    struct split_job *j = arg;
    struct at_exec ex;
    struct at_rank *r = NULL;
    const struct at_kern *const *kern = at_kern_available();
    int tables = 0;
    while (kern[tables] != NULL) tables++;
    struct at_rank_options o = {.plan = &j->plan,
                                .model = &j->run->m.params.config,
                                .train = &j->run->config,
                                .outer = &j->outer,
                                .data = &j->run->data,
                                .recompute = j->recompute,
                                .fragment_bytes = j->fragment_bytes};
    if (at_exec_init(&ex, kern[j->mixed_kernels ? rank % tables : 0], &at_par_serial) != AT_OK) abort();
    j->err[rank] = at_rank_init(&r, comm, &ex, &o, &j->diag[rank]);
    if (j->err[rank] == AT_OK)
        j->body(j, r, rank);
    else
        (comm->ops->fail)(comm->link, j->err[rank], "init", "no rank");
    at_rank_release(r);
    at_exec_release(&ex);
}

/* at_rank_join; the report stays that of the last round which came into the state. */
static inline at_err split_join(struct split_job *j, struct at_rank *r, int rank)
{
    struct at_rank_report late;
    at_err_t err = at_rank_join(r, &j->diag[rank], &late);
    if (err == AT_OK && late.applied) j->report[rank] = late;
    return err;
}

/* The end of a body: what is under way, the root and the held-out loss. */
static inline void split_end(struct split_job *j, struct at_rank *r, int rank, at_err_t err)
{
    if (err == AT_OK) err = split_join(j, r, rank);
    if (err == AT_OK) err = at_rank_root(r, &j->diag[rank], &j->root[rank]);
    if (err == AT_OK) err = at_rank_heldout(r, &j->diag[rank], &j->heldout[rank]);
    j->err[rank] = err;
}

/* job->rounds rounds as the settings say, then the root and the held-out loss. */
static inline void split_rounds(struct split_job *j, struct at_rank *r, int rank)
{
    struct at_round round;
    at_err_t err = AT_OK;
    for (int t = 0; err == AT_OK && t < j->rounds; t++) {
        round = at_outer_round(&j->outer, &j->run->config, t == 0 ? NULL : &round);
        err = at_rank_round(r, &round, NULL, NULL, &j->diag[rank], &j->report[rank]);
        if (err == AT_OK && j->join_between) err = split_join(j, r, rank);
    }
    split_end(j, r, rank, err);
}

/* Runs the job; NULL, or how the links' contract was broken. */
static inline const char *split_run(struct test_net *net, struct split_job *j)
{
    return test_net_run(net, j->plan.ranks, split_seat, j);
}

/* Replica r is cut into the stages cut[r]: "2x3 1x1" is two tensor ranks over three layers, then one over one. */
static inline bool split_plan(struct at_plan *plan, const char *const *cut, int replicas, int microbatches)
{
    struct at_plan_stage stage[64];
    struct at_plan n = {.replicas = replicas, .microbatches = microbatches};
    n.replica = calloc((size_t)replicas, sizeof *n.replica);
    if (n.replica == NULL) return false;
    for (int r = 0; r < replicas; r++) {
        n.replica[r].stage_first = n.stages;
        int layer = 0;
        for (const char *s = cut[r]; *s != '\0'; s += s[3] == ' ' ? 4 : 3) {
            stage[n.stages] = (struct at_plan_stage){
                .layer_first = layer, .layers = s[2] - '0', .tp = s[0] - '0', .rank_first = n.ranks};
            layer += s[2] - '0';
            n.ranks += s[0] - '0';
            n.stages++;
        }
        n.replica[r].stages = n.stages - n.replica[r].stage_first;
    }
    n.stage = malloc((size_t)n.stages * sizeof *n.stage);
    n.node = malloc((size_t)n.ranks * sizeof *n.node);
    if (n.stage == NULL || n.node == NULL) return false;
    memcpy(n.stage, stage, (size_t)n.stages * sizeof *n.stage);
    for (int i = 0; i < n.ranks; i++) n.node[i] = -1;
    *plan = n;
    return true;
}

#endif
