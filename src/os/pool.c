/* pool.c: one generation counter starts work, one countdown ends it.
 *
 * Start: the caller writes the job, then raises `generation` (release); a waiting thread that sees it raised (acquire)
 * owns its part. End: each thread lowers `working` when its part is done. Both sides spin first and sleep second. No
 * wake-up is lost: a sleeper announces itself, then looks again; a waker changes the value, then looks for sleepers;
 * all four are seq_cst, and the signal is sent under the mutex that the sleeper holds while it looks. What announces
 * and what changes is a read-modify-write, never a plain store: QEMU's user mode on x86 (7.2 at least) lets a load pass
 * an earlier seq_cst store of AArch64, one time in 40,000. */
#include "os/pool.h"

#include "os/sys.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Around 20 us on a current machine: longer than the gap between two operations of a step, shorter than a sleep and
 * wake. */
#define SPINS 1000

struct worker {
    pthread_t thread;
    struct at_pool_impl *impl;
    int index; /* which part: 1 .. threads-1 */
};

struct at_pool_impl {
    int threads, started, spins;
    int jobs;
    at_job_fn *job;
    void *arg;
    atomic_bool busy, quit;
    atomic_uint generation;
    atomic_int working;  /* threads whose part is not done */
    atomic_int sleepers; /* threads that sleep for the next generation */
    atomic_bool awaited; /* the caller sleeps until working is 0 */
    pthread_mutex_t mutex;
    pthread_cond_t start, done;
    struct worker worker[AT_POOL_THREADS_MAX];
};

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* Part `index` of `threads`: sizes differ by at most one. */
static void run_part(const struct at_pool_impl *impl, int index)
{
    long long jobs = impl->jobs;
    int first = (int)(jobs * index / impl->threads), end = (int)(jobs * (index + 1) / impl->threads);
    for (int i = first; i < end; i++) impl->job(impl->arg, i);
}

static bool await_generation(struct at_pool_impl *impl, unsigned seen)
{
    for (int i = 0; i < impl->spins; i++) {
        if (atomic_load(&impl->generation) != seen) return !atomic_load(&impl->quit);
        relax();
    }
    pthread_mutex_lock(&impl->mutex);
    atomic_fetch_add(&impl->sleepers, 1);
    while (atomic_load(&impl->generation) == seen) pthread_cond_wait(&impl->start, &impl->mutex);
    atomic_fetch_sub(&impl->sleepers, 1);
    pthread_mutex_unlock(&impl->mutex);
    return !atomic_load(&impl->quit);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct at_pool_impl *impl = w->impl;
    for (unsigned seen = 0; await_generation(impl, seen); seen++) {
        run_part(impl, w->index);
        if (atomic_fetch_sub(&impl->working, 1) == 1 && atomic_load(&impl->awaited)) {
            pthread_mutex_lock(&impl->mutex);
            pthread_cond_signal(&impl->done);
            pthread_mutex_unlock(&impl->mutex);
        }
    }
    return NULL;
}

static void next_generation(struct at_pool_impl *impl)
{
    atomic_fetch_add(&impl->generation, 1);
    if (atomic_load(&impl->sleepers) > 0) {
        pthread_mutex_lock(&impl->mutex);
        pthread_cond_broadcast(&impl->start);
        pthread_mutex_unlock(&impl->mutex);
    }
}

static void await_workers(struct at_pool_impl *impl)
{
    for (int i = 0; i < impl->spins; i++) {
        if (atomic_load(&impl->working) == 0) return;
        relax();
    }
    pthread_mutex_lock(&impl->mutex);
    atomic_exchange(&impl->awaited, true);
    while (atomic_load(&impl->working) > 0) pthread_cond_wait(&impl->done, &impl->mutex);
    atomic_store(&impl->awaited, false);
    pthread_mutex_unlock(&impl->mutex);
}

static void pool_run(void *pool, int jobs, at_job_fn *job, void *arg)
{
    struct at_pool_impl *impl = pool;
    AT_ASSERT(jobs >= 0 && job);
    bool was_busy = atomic_exchange(&impl->busy, true);
    AT_ASSERT(!was_busy); /* a job that runs its own pool, or two users of one pool */
    if (jobs <= 1 || impl->threads == 1) {
        for (int i = 0; i < jobs; i++) job(arg, i);
    } else {
        impl->jobs = jobs;
        impl->job = job;
        impl->arg = arg;
        atomic_store(&impl->working, impl->threads - 1);
        next_generation(impl);
        run_part(impl, 0);
        await_workers(impl);
    }
    atomic_store(&impl->busy, false);
}

/* Signals belong to the thread that runs the loop. */
static int start_worker(struct worker *w)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&w->thread, NULL, worker_main, w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

at_err at_pool_init(struct at_pool *pool, int threads, struct at_diag *diag)
{
    memset(pool, 0, sizeof *pool);
    if (threads < 1 || threads > AT_POOL_THREADS_MAX)
        return at_fail(diag, AT_E_USAGE, "threads", "%d threads: it must be 1 to %d", threads, AT_POOL_THREADS_MAX);
    struct at_pool_impl *impl = calloc(1, sizeof *impl);
    if (!impl) return at_fail(diag, AT_E_NOMEM, "threads", "no memory for a thread pool");
    impl->threads = threads;
    impl->spins = threads <= at_sys_cpu_count() ? SPINS : 0; /* spinning would hold up the very thread it waits for */
    pthread_mutex_init(&impl->mutex, NULL);
    pthread_cond_init(&impl->start, NULL);
    pthread_cond_init(&impl->done, NULL);
    pool->impl = impl;
    pool->par = (struct at_par){threads, pool_run, impl};
    for (int i = 1; i < threads; i++) {
        impl->worker[i] = (struct worker){.impl = impl, .index = i};
        int rc = start_worker(&impl->worker[i]);
        if (rc) {
            at_pool_release(pool);
            return at_fail(diag, AT_E_ENV, "threads", "the system gave %d of %d threads: %s", i, threads, strerror(rc));
        }
        impl->started++;
    }
    return AT_OK;
}

void at_pool_release(struct at_pool *pool)
{
    struct at_pool_impl *impl = pool->impl;
    if (impl) {
        AT_ASSERT(!atomic_load(&impl->busy));
        atomic_store(&impl->quit, true);
        next_generation(impl);
        for (int i = 1; i <= impl->started; i++) pthread_join(impl->worker[i].thread, NULL);
        pthread_cond_destroy(&impl->done);
        pthread_cond_destroy(&impl->start);
        pthread_mutex_destroy(&impl->mutex);
        free(impl);
    }
    memset(pool, 0, sizeof *pool);
}
