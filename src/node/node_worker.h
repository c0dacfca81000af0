/* node_worker.h: one thread that does one piece of work after the other, beside the loop. Effects: a thread.
 *
 * Work goes in from the loop's thread, in order; `run` is called on the worker's thread; then `done` is called on the
 * loop's thread, by at_worker_reap. What the two calls share is handed over whole: no lock is needed in either. */
#ifndef ATOLL_NODE_NODE_WORKER_H
#define ATOLL_NODE_NODE_WORKER_H

#include "base/err.h"

#include <pthread.h>
#include <stdbool.h>

struct at_work { /* the caller's struct begins with it; freed by `done` */
    struct at_work *next;
    void (*run)(struct at_work *work);
    void (*done)(struct at_work *work);
};
struct at_work_list {
    struct at_work *first, *last;
};

struct at_worker {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    struct at_work_list todo, ready;
    int open; /* pushed and not reaped */
    bool running, quit;
    void (*notify)(void *user); /* something is ready; called on the worker's thread */
    void *user;
};

at_err at_worker_start(struct at_worker *w, void (*notify)(void *user), void *user, struct at_diag *diag);
void at_worker_push(struct at_worker *w, struct at_work *work);
void at_worker_reap(struct at_worker *w);          /* calls done() of all that is ready */
bool at_worker_is_idle(const struct at_worker *w); /* nothing pushed that was not reaped */
void at_worker_stop(struct at_worker *w);          /* finishes what was pushed, joins, reaps; safe on a zeroed one */

#endif
