#include "node/node_worker.h"

#include <signal.h>
#include <string.h>

static void list_push(struct at_work_list *list, struct at_work *work)
{
    work->next = NULL;
    if (list->last)
        list->last->next = work;
    else
        list->first = work;
    list->last = work;
}

static struct at_work *list_pop(struct at_work_list *list)
{
    struct at_work *work = list->first;
    if (work) list->first = work->next;
    if (!list->first) list->last = NULL;
    return work;
}

static void *worker_main(void *arg)
{
    struct at_worker *w = arg;
    pthread_mutex_lock(&w->mutex);
    for (;;) {
        struct at_work *work = list_pop(&w->todo);
        if (work) {
            pthread_mutex_unlock(&w->mutex);
            work->run(work);
            pthread_mutex_lock(&w->mutex);
            list_push(&w->ready, work);
            w->notify(w->user);
        } else if (w->quit) {
            break;
        } else {
            pthread_cond_wait(&w->wake, &w->mutex);
        }
    }
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

at_err_t at_worker_start(struct at_worker *w, void (*notify)(void *user), void *user, struct at_diag *diag)
{
    sigset_t all, old;
    memset(w, 0, sizeof *w);
    w->notify = notify;
    w->user = user;
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->wake, NULL);
    sigfillset(&all); /* signals belong to the loop's thread */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&w->thread, NULL, worker_main, w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc) return at_fail(diag, AT_E_ENV, "threads", "the system gives no thread: %s", strerror(rc));
    w->running = true;
    return AT_OK;
}

void at_worker_push(struct at_worker *w, struct at_work *work)
{
    AT_ASSERT(w->running);
    w->open++;
    pthread_mutex_lock(&w->mutex);
    list_push(&w->todo, work);
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->mutex);
}

void at_worker_reap(struct at_worker *w)
{
    if (!w->running) return;
    pthread_mutex_lock(&w->mutex);
    struct at_work_list ready = w->ready;
    w->ready = (struct at_work_list){0};
    pthread_mutex_unlock(&w->mutex);
    for (struct at_work *work; (work = list_pop(&ready)) != NULL;) {
        w->open--;
        work->done(work);
    }
}

bool at_worker_is_idle(const struct at_worker *w)
{
    return w->open == 0;
}

void at_worker_stop(struct at_worker *w)
{
    if (!w->running) return;
    pthread_mutex_lock(&w->mutex);
    w->quit = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->mutex);
    pthread_join(w->thread, NULL);
    at_worker_reap(w);
    w->running = false;
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->mutex);
}
