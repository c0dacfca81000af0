/* tp_test_util.h: the tensor ranks of a stage as threads of one process: at_tp by barriers and shared pointers, summed by
 * the plain tree. For *_test.c only. */
#ifndef ATOLL_MODEL_TP_TEST_UTIL_H
#define ATOLL_MODEL_TP_TEST_UTIL_H

#include "model/model_test_util.h"

#include <pthread.h>
#include <stdlib.h>

enum { TEST_TP_MAX = 8, TEST_BEGUN_MAX = 64 };

struct test_group {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int ranks, here;
    uint64_t generation;
    real *x[TEST_TP_MAX]; /* what each rank puts in */
};
/* One rank's end. */
struct test_member {
    struct test_group *group;
    int rank, begun, begun_most; /* sums under way; the most there were */
    struct {
        real *x, *result;
        size_t n;
    } piece[TEST_BEGUN_MAX];
};

static inline void test_group_init(struct test_group *g, int ranks)
{
    *g = (struct test_group){.ranks = ranks};
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->changed, NULL);
}

static inline void test_group_release(struct test_group *g)
{
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->changed);
}

static inline void test_barrier(struct test_group *g)
{
    pthread_mutex_lock(&g->lock);
    uint64_t generation = g->generation;
    if (++g->here == g->ranks) {
        g->here = 0;
        g->generation++;
        pthread_cond_broadcast(&g->changed);
    }
    while (g->generation == generation) pthread_cond_wait(&g->changed, &g->lock);
    pthread_mutex_unlock(&g->lock);
}

static inline real test_tree(const struct test_group *g, size_t i, bool max)
{
    real v[TEST_TP_MAX] = {0};
    for (int r = 0; r < g->ranks; r++) v[r] = g->x[r][i];
    for (int w = 1; w < g->ranks; w *= 2)
        for (int r = 0; r < g->ranks; r += 2 * w) v[r] = !max ? v[r] + v[r + w] : v[r + w] > v[r] ? v[r + w] : v[r];
    return v[0];
}

static inline void test_all_reduce(struct test_member *me, real *x, size_t n, bool max)
{
    real *sum = malloc(n * sizeof *sum);
    me->group->x[me->rank] = x;
    test_barrier(me->group);
    for (size_t i = 0; i < n; i++) sum[i] = test_tree(me->group, i, max);
    test_barrier(me->group);
    memcpy(x, sum, n * sizeof *sum);
    free(sum);
}

/* The sum is handed over in finish; until then the piece is NaN, so that who reads it too early gives itself away. */
static inline at_err_t test_tp_begin(void *group, real *x, size_t n)
{
    struct test_member *me = group;
    if (me->begun == TEST_BEGUN_MAX) return AT_E_INTERNAL;
    real *sum = malloc(n * sizeof *sum);
    memcpy(sum, x, n * sizeof *sum);
    for (size_t i = 0; i < n; i++) x[i] = (real)NAN;
    test_all_reduce(me, sum, n, false);
    me->piece[me->begun].x = x;
    me->piece[me->begun].result = sum;
    me->piece[me->begun++].n = n;
    if (me->begun > me->begun_most) me->begun_most = me->begun;
    return AT_OK;
}

static inline at_err_t test_tp_finish(void *group)
{
    struct test_member *me = group;
    for (int i = 0; i < me->begun; i++) {
        memcpy(me->piece[i].x, me->piece[i].result, me->piece[i].n * sizeof(real));
        free(me->piece[i].result);
    }
    me->begun = 0;
    return AT_OK;
}

static inline at_err_t test_tp_max(void *group, real *x, size_t n)
{
    struct test_member *me = group;
    if (me->begun != 0) return AT_E_INTERNAL;
    test_all_reduce(me, x, n, true);
    return AT_OK;
}

static inline struct at_tp test_tp(struct test_group *group, struct test_member *me, int rank)
{
    *me = (struct test_member){.group = group, .rank = rank};
    return (struct at_tp){group->ranks, test_tp_begin, test_tp_finish, test_tp_max, me};
}

/* Layers in pp runs, as equal as can be. */
static inline struct at_shard test_shard(const struct at_model_config *c, int tp, int pp, int rank, int stage)
{
    int L = (int)c->layers, S = at_model_slots(c), first = stage * L / pp;
    return (struct at_shard){
        .slot_first = rank * (S / tp), .slots = S / tp, .layer_first = first, .layers = (stage + 1) * L / pp - first};
}

/* The shard's cut of an array laid out for the whole model. */
static inline void test_cut(const struct at_params *whole, const real *from, const struct at_params *p, real *to)
{
    for (int i = 0; i < p->blocks; i++) {
        const struct at_block *b = &p->block[i], *w = at_params_block(whole, b->tensor, b->slot);
        memcpy(to + b->offset, from + w->offset, at_block_count(b) * sizeof *to);
    }
}

#endif
