/* ranks_inproc.c: ranks as threads of one process.
 *
 * A send and a receive meet in the receiver's list, under its mutex. Whoever comes second copies, outside the mutex, and
 * then marks both done; a pair between "matched" and "done" is COPYING, and a wait that ends with the verdict stays
 * until that is over, because the buffers are the waiter's. */
#include "base/slots.h"
#include "net/ranks.h"
#include "os/sys.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPINS 300 /* a few microseconds, and only where each rank can have a processor */

enum { POSTED = 1, COPYING, DONE };

struct slot {
    atomic_int state;
    bool is_send;
    int owner, from, to;
    uint32_t tag;
    void *bytes;
    size_t n;
    struct slot *next; /* in the list of what has not met yet */
};

struct member {
    struct at_ranks_inproc *world;
    int rank;
    pthread_mutex_t mutex; /* guards `waiting` */
    pthread_cond_t wake;   /* one of this rank's transfers is done, or there is a verdict; under `sleep` */
    pthread_mutex_t sleep;
    struct slot *first, *last; /* posted sends to this rank and receives of it that have not met */
    struct at_slots slots;     /* of struct slot; of the owning thread alone, as is bytes_sent */
    uint64_t bytes_sent;
};

struct at_ranks_inproc {
    int ranks;
    const char *const *name;
    bool spin;
    atomic_bool failed;
    pthread_mutex_t verdict_mutex;
    struct at_diag verdict;
    struct member member[];
};

static void fail_all(struct at_ranks_inproc *w, at_err_t err, const char *where, const char *text)
{
    pthread_mutex_lock(&w->verdict_mutex);
    if (!atomic_load(&w->failed)) {
        w->verdict = (struct at_diag){0};
        at_fail(&w->verdict, err, where, "%s", text);
        atomic_store(&w->failed, true);
    }
    pthread_mutex_unlock(&w->verdict_mutex);
    for (int i = 0; i < w->ranks; i++) {
        pthread_mutex_lock(&w->member[i].sleep);
        pthread_cond_broadcast(&w->member[i].wake);
        pthread_mutex_unlock(&w->member[i].sleep);
    }
}

static void finish(struct at_ranks_inproc *w, struct slot *s)
{
    struct member *m = &w->member[s->owner];
    atomic_store(&s->state, DONE);
    pthread_mutex_lock(&m->sleep); /* the sleeper looks at `state` under it: no wake-up is lost */
    pthread_cond_signal(&m->wake);
    pthread_mutex_unlock(&m->sleep);
}

/* The earliest of the other kind with the same sender and tag, taken out of the list; else NULL and `s` is in it. */
static struct slot *meet(struct member *at, struct slot *s)
{
    struct slot *before = NULL, *o = at->first;
    while (o != NULL && (o->is_send == s->is_send || o->from != s->from || o->tag != s->tag)) {
        before = o;
        o = o->next;
    }
    if (o != NULL) {
        *(before ? &before->next : &at->first) = o->next;
        if (at->last == o) at->last = before;
        atomic_store(&o->state, COPYING);
        atomic_store(&s->state, COPYING);
    } else {
        s->next = NULL;
        *(at->last ? &at->last->next : &at->first) = s;
        at->last = s;
        atomic_store(&s->state, POSTED);
    }
    return o;
}

static void copy(struct at_ranks_inproc *w, struct slot *a, struct slot *b)
{
    struct slot *send = a->is_send ? a : b, *recv = a->is_send ? b : a;
    if (send->n == recv->n) {
        memcpy(recv->bytes, send->bytes, send->n);
    } else {
        char text[300];
        snprintf(text, sizeof text, "%s sent %zu bytes with tag %u where %s expects %zu", w->name[send->from], send->n,
                 (unsigned)send->tag, w->name[recv->to], recv->n);
        fail_all(w, AT_E_PEER, "links", text);
    }
    finish(w, a);
    finish(w, b);
}

static struct at_transfer post(struct member *m, bool is_send, int other, uint32_t tag, void *bytes, size_t n)
{
    struct at_ranks_inproc *w = m->world;
    AT_ASSERT(other >= 0 && other < w->ranks && other != m->rank && n >= 1 && tag <= AT_RANKS_TAG_MAX);
    struct at_transfer t;
    struct slot *s = at_slots_take(&m->slots, &t.v);
    if (s == NULL) {
        fail_all(w, AT_E_NOMEM, w->name[m->rank], "no memory for one more transfer");
        return (struct at_transfer){UINT64_MAX};
    }
    s->is_send = is_send;
    s->owner = m->rank;
    s->from = is_send ? m->rank : other;
    s->to = is_send ? other : m->rank;
    s->tag = tag;
    s->bytes = bytes;
    s->n = n;
    struct member *at = &w->member[s->to];
    pthread_mutex_lock(&at->mutex);
    struct slot *o = meet(at, s);
    pthread_mutex_unlock(&at->mutex);
    if (o != NULL) copy(w, s, o);
    return t;
}

static struct at_transfer send_op(void *link, int to, uint32_t tag, const void *bytes, size_t n)
{
    struct member *m = link;
    m->bytes_sent += n;
    return post(m, true, to, tag, (void *)(uintptr_t)bytes, n);
}

static struct at_transfer recv_op(void *link, int from, uint32_t tag, void *bytes, size_t n)
{
    return post(link, false, from, tag, bytes, n);
}

/* After a verdict: out of the list if it is still there. False: it has met, and will be done in a moment. */
static bool withdraw(struct at_ranks_inproc *w, struct slot *s)
{
    struct member *at = &w->member[s->to];
    struct slot *before = NULL;
    pthread_mutex_lock(&at->mutex);
    bool mine = atomic_load(&s->state) == POSTED;
    if (mine) {
        struct slot *o = at->first;
        for (; o != s; o = o->next) before = o;
        *(before ? &before->next : &at->first) = s->next;
        if (at->last == s) at->last = before;
    }
    pthread_mutex_unlock(&at->mutex);
    return mine;
}

static bool done_op(void *link, struct at_transfer t)
{
    struct member *m = link;
    return t.v == 0 || t.v == UINT64_MAX || atomic_load(&m->world->failed) ||
           atomic_load(&((struct slot *)at_slots_at(&m->slots, t.v))->state) == DONE;
}

static void sleep_until_done(struct member *m, struct slot *s, bool also_verdict)
{
    pthread_mutex_lock(&m->sleep);
    while (atomic_load(&s->state) != DONE && !(also_verdict && atomic_load(&m->world->failed)))
        pthread_cond_wait(&m->wake, &m->sleep);
    pthread_mutex_unlock(&m->sleep);
}

static at_err_t tell(struct at_ranks_inproc *w, struct at_diag *diag)
{
    pthread_mutex_lock(&w->verdict_mutex);
    at_err_t err = at_fail(diag, w->verdict.err, w->verdict.where, "%s", w->verdict.text);
    pthread_mutex_unlock(&w->verdict_mutex);
    return err;
}

static at_err_t wait_op(void *link, struct at_transfer t, struct at_diag *diag)
{
    struct member *m = link;
    struct at_ranks_inproc *w = m->world;
    if (t.v == 0) return AT_OK;
    if (t.v == UINT64_MAX) return tell(w, diag);
    struct slot *s = at_slots_at(&m->slots, t.v);
    for (int i = w->spin ? SPINS : 0; i > 0 && atomic_load(&s->state) != DONE; i--) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
    if (atomic_load(&s->state) != DONE) sleep_until_done(m, s, true);
    if (atomic_load(&s->state) != DONE && !withdraw(w, s)) sleep_until_done(m, s, false);
    at_slots_give(&m->slots, t.v);
    return atomic_load(&w->failed) ? tell(w, diag) : AT_OK;
}

static void fail_op(void *link, at_err_t err, const char *where, const char *text)
{
    struct member *m = link;
    char told[400];
    snprintf(told, sizeof told, "%.300s (said by %.80s)", text, m->world->name[m->rank]);
    fail_all(m->world, err, where, told);
}

static uint64_t bytes_sent_op(void *link)
{
    return ((struct member *)link)->bytes_sent;
}

static const struct at_comm_ops ops = {send_op, recv_op, wait_op, done_op, fail_op, bytes_sent_op};

at_err_t at_ranks_inproc_init(int ranks, const char *const *name, struct at_diag *diag, struct at_ranks_inproc **ret)
{
    AT_ASSERT(ranks >= 1 && ranks <= AT_RANKS_MAX);
    struct at_ranks_inproc *w = calloc(1, sizeof *w + (size_t)ranks * sizeof w->member[0]);
    if (w == NULL) return at_fail(diag, AT_E_NOMEM, "links", "no memory for %d ranks", ranks);
    w->ranks = ranks;
    w->name = name;
    w->spin = ranks <= at_sys_cpu_count();
    pthread_mutex_init(&w->verdict_mutex, NULL);
    for (int i = 0; i < ranks; i++) {
        w->member[i].world = w;
        w->member[i].rank = i;
        at_slots_init(&w->member[i].slots, sizeof(struct slot));
        pthread_mutex_init(&w->member[i].mutex, NULL);
        pthread_mutex_init(&w->member[i].sleep, NULL);
        pthread_cond_init(&w->member[i].wake, NULL);
    }
    *ret = w;
    return AT_OK;
}

void at_ranks_inproc_release(struct at_ranks_inproc *w)
{
    if (w == NULL) return;
    for (int i = 0; i < w->ranks; i++) {
        struct member *m = &w->member[i];
        at_slots_release(&m->slots);
        pthread_mutex_destroy(&m->mutex);
        pthread_mutex_destroy(&m->sleep);
        pthread_cond_destroy(&m->wake);
    }
    pthread_mutex_destroy(&w->verdict_mutex);
    free(w);
}

struct at_comm at_ranks_inproc_comm(struct at_ranks_inproc *w, int rank)
{
    AT_ASSERT(rank >= 0 && rank < w->ranks);
    return (struct at_comm){.rank = rank, .ranks = w->ranks, .ops = &ops, .link = &w->member[rank]};
}
