/* comm_test_util.h: at_comm between threads, as strict as its contract allows, for *_test.c of this layer only.
 *
 * A send ends only when its receive is posted (rendezvous), so a program that counts on buffering hangs and is told so;
 * what arrives is seen only after wait (the memory is poisoned from posting on); bytes that change between posting and
 * the end of a send, sizes that differ, and transfers that nobody waited for fail the run. */
#ifndef ATOLL_PARALLEL_COMM_TEST_UTIL_H
#define ATOLL_PARALLEL_COMM_TEST_UTIL_H

#include "base/comm.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TEST_RANKS_MAX = 24, TEST_OPS_MAX = 4096, TEST_HANG_SECONDS = 60 };

struct test_op {
    bool used, is_send, matched;
    int from, to;
    uint32_t tag;
    uint64_t order;
    size_t n;
    const void *out; /* of a send */
    void *in;        /* of a receive */
    void *copy;      /* of a matched receive: what arrived; of a send: what it was when posted */
};

struct test_net;
struct test_link {
    struct test_net *net;
    int rank;
    uint64_t bytes_sent;
};

struct test_net {
    pthread_mutex_t lock;
    pthread_cond_t changed[TEST_RANKS_MAX]; /* one a rank */
    int ranks;
    uint64_t orders;
    struct test_op op[TEST_OPS_MAX];
    struct at_diag failure;
    char misuse[128]; /* the contract was broken: the test fails */
    struct test_link link[TEST_RANKS_MAX];
    struct at_comm comm[TEST_RANKS_MAX];
};

static inline void test_net_fail(struct test_net *net, at_err_t err, const char *where, const char *text)
{
    if (net->failure.err == AT_OK) (void)at_fail(&net->failure, err, where, "%s", text);
    for (int r = 0; r < net->ranks; r++) pthread_cond_signal(&net->changed[r]);
}

static inline void test_net_misuse(struct test_net *net, const struct test_op *op, const char *what)
{
    if (net->misuse[0] == '\0')
        snprintf(net->misuse, sizeof net->misuse, "%s: %s from %d to %d, tag %u, %zu bytes", what,
                 op->is_send ? "send" : "receive", op->from, op->to, op->tag, op->n);
    test_net_fail(net, AT_E_INTERNAL, "test", net->misuse);
}

static inline struct test_op *test_net_partner(struct test_net *net, const struct test_op *op)
{
    struct test_op *best = NULL;
    for (int i = 0; i < TEST_OPS_MAX; i++) {
        struct test_op *o = &net->op[i];
        if (o->used && !o->matched && o->is_send != op->is_send && o->from == op->from && o->to == op->to &&
            o->tag == op->tag && (best == NULL || o->order < best->order))
            best = o;
    }
    return best;
}

static inline struct at_transfer test_net_post(struct test_net *net, struct test_op op)
{
    pthread_mutex_lock(&net->lock);
    int i = 0;
    while (i < TEST_OPS_MAX && net->op[i].used) i++;
    if (i == TEST_OPS_MAX) abort();
    op.used = true;
    op.order = net->orders++;
    if (op.n == 0 || op.from == op.to) test_net_misuse(net, &op, "impossible transfer");
    op.copy = malloc(op.n);
    if (op.copy == NULL) abort();
    if (op.is_send)
        memcpy(op.copy, op.out, op.n);
    else
        memset(op.in, 0xFF, op.n);
    net->op[i] = op;
    struct test_op *mine = &net->op[i], *other = test_net_partner(net, mine);
    if (other != NULL) {
        struct test_op *send = mine->is_send ? mine : other, *recv = mine->is_send ? other : mine;
        if (send->n != recv->n)
            test_net_misuse(net, recv, "sizes differ");
        else
            memcpy(recv->copy, send->out, send->n);
        mine->matched = other->matched = true;
    }
    if (other != NULL) pthread_cond_signal(&net->changed[other->is_send ? other->from : other->to]);
    pthread_mutex_unlock(&net->lock);
    return (struct at_transfer){(uint64_t)i + 1};
}

static inline struct at_transfer test_net_send(void *link, int to, uint32_t tag, const void *bytes, size_t n)
{
    struct test_link *l = link;
    l->bytes_sent += n;
    return test_net_post(
        l->net, (struct test_op){.is_send = true, .from = l->rank, .to = to, .tag = tag, .out = bytes, .n = n});
}

static inline struct at_transfer test_net_recv(void *link, int from, uint32_t tag, void *bytes, size_t n)
{
    struct test_link *l = link;
    return test_net_post(l->net, (struct test_op){.from = from, .to = l->rank, .tag = tag, .in = bytes, .n = n});
}

static inline at_err test_net_wait(void *link, struct at_transfer t, struct at_diag *diag)
{
    struct test_link *l = link;
    struct test_net *net = l->net;
    if (t.v == 0) return AT_OK;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += TEST_HANG_SECONDS;
    pthread_mutex_lock(&net->lock);
    struct test_op *op = &net->op[t.v - 1];
    if (!op->used) test_net_misuse(net, op, "waited for twice");
    while (!op->matched && net->failure.err == AT_OK)
        if (pthread_cond_timedwait(&net->changed[l->rank], &net->lock, &until) != 0) test_net_misuse(net, op, "hangs");
    at_err_t err = net->failure.err;
    if (err != AT_OK)
        err = at_fail(diag, err, net->failure.where, "%s", net->failure.text);
    else if (op->is_send && memcmp(op->copy, op->out, op->n) != 0)
        test_net_misuse(net, op, "bytes changed while they were sent");
    else if (!op->is_send)
        memcpy(op->in, op->copy, op->n);
    free(op->copy);
    *op = (struct test_op){0};
    pthread_mutex_unlock(&net->lock);
    return err;
}

static inline bool test_net_done(void *link, struct at_transfer t)
{
    struct test_net *net = ((struct test_link *)link)->net;
    if (t.v == 0) return true;
    pthread_mutex_lock(&net->lock);
    bool done = net->op[t.v - 1].matched || net->failure.err != AT_OK;
    pthread_mutex_unlock(&net->lock);
    return done;
}

static inline void test_net_fail_link(void *link, at_err_t err, const char *where, const char *text)
{
    struct test_net *net = ((struct test_link *)link)->net;
    pthread_mutex_lock(&net->lock);
    test_net_fail(net, err, where, text);
    pthread_mutex_unlock(&net->lock);
}

static inline uint64_t test_net_bytes_sent(void *link)
{
    return ((struct test_link *)link)->bytes_sent;
}

static const struct at_comm_ops test_net_ops = {.send = test_net_send,
                                                .recv = test_net_recv,
                                                .wait = test_net_wait,
                                                .done = test_net_done,
                                                .fail = test_net_fail_link,
                                                .bytes_sent = test_net_bytes_sent};

struct test_seat {
    struct test_net *net;
    int rank;
    void (*body)(void *arg, int rank, const struct at_comm *comm);
    void *arg;
};

static inline void *test_seat_main(void *seat)
{
    struct test_seat *s = seat;
    s->body(s->arg, s->rank, &s->net->comm[s->rank]);
    return NULL;
}

/* Runs body on `ranks` threads that are linked to each other. NULL, or how at_comm's contract was broken. */
static inline const char *test_net_run(struct test_net *net, int ranks,
                                       void (*body)(void *arg, int rank, const struct at_comm *comm), void *arg)
{
    struct test_seat seat[TEST_RANKS_MAX];
    pthread_t thread[TEST_RANKS_MAX];
    memset(net, 0, sizeof *net);
    pthread_mutex_init(&net->lock, NULL);
    net->ranks = ranks;
    for (int r = 0; r < ranks; r++) {
        pthread_cond_init(&net->changed[r], NULL);
        net->link[r] = (struct test_link){.net = net, .rank = r};
        net->comm[r] = (struct at_comm){.rank = r, .ranks = ranks, .ops = &test_net_ops, .link = &net->link[r]};
        seat[r] = (struct test_seat){net, r, body, arg};
    }
    for (int r = 0; r < ranks; r++)
        if (pthread_create(&thread[r], NULL, test_seat_main, &seat[r]) != 0) abort();
    for (int r = 0; r < ranks; r++) pthread_join(thread[r], NULL);
    for (int i = 0; i < TEST_OPS_MAX; i++)
        if (net->op[i].used) test_net_misuse(net, &net->op[i], "nobody waited");
    for (int r = 0; r < ranks; r++) pthread_cond_destroy(&net->changed[r]);
    pthread_mutex_destroy(&net->lock);
    return net->misuse[0] != '\0' ? net->misuse : NULL;
}

#endif
