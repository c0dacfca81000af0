/* ranks_tls.c: what the rank's own thread does: opens and closes the links, posts, waits. */
#include "net/ranks_inner.h"
#include "os/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

at_err_t at_ranks_key(const uint8_t secret[32], int rank, struct at_keypair *ret_key)
{
    static const char domain[] = "atoll: key of a rank, version 1";
    uint8_t message[sizeof domain + 32 + 4];
    memcpy(message, domain, sizeof domain);
    memcpy(message + sizeof domain, secret, 32);
    at_store_le32(message + sizeof domain + 32, (uint32_t)rank);
    struct at_hash seed = at_sha256(message, sizeof message);
    return at_keypair_from_seed(seed.b, ret_key);
}

/* ---- transfers ---------------------------------------------------------------------------------------------------- */

/* Under the mutex. */
static void rouse(struct at_ranks_tls *w)
{
    if (!w->asleep) return;
    w->asleep = false;
    ssize_t n;
    do n = write(w->wake_fd[1], "", 1);
    while (n < 0 && errno == EINTR);
}

/* Under the mutex. Rank 0's I/O thread makes it the verdict, the others' report it. */
static void say_failure(struct at_ranks_tls *w, const struct at_diag *what)
{
    if (w->own.err == AT_OK) w->own = *what;
    w->asleep = true; /* wake it in any case */
    rouse(w);
}

static struct at_transfer post(struct at_ranks_tls *w, bool is_send, int peer, uint32_t tag, void *bytes, size_t n)
{
    AT_ASSERT(peer >= 0 && peer < w->ranks && peer != w->rank && n >= 1 && tag <= AT_RANKS_TAG_MAX);
    struct at_diag diag = {0}, what = {0};
    char where[24];
    pthread_mutex_lock(&w->mutex);
    struct at_transfer t = {UINT64_MAX};
    struct post_slot *s = at_slots_take(&w->posts, &t.v);
    at_err_t err = s != NULL ? AT_OK : AT_E_NOMEM;
    struct conn *c = w->peer[peer];
    if (s != NULL) {
        s->peer = peer;
        s->post = (struct at_post){.tag = tag, .bytes = bytes, .n = n};
        if (is_send) w->bytes_sent += n;
        if (c == NULL || w->failed)
            ; /* never done: its wait ends with the verdict */
        else if (is_send)
            at_box_send(&c->box, &s->post);
        else
            err = at_box_recv(&c->box, &s->post, &diag);
        rouse(w);
    }
    if (err != AT_OK) {
        snprintf(where, sizeof where, "rank %d", peer);
        if (diag.err != AT_OK)
            at_fail(&what, err, where, "%s %s", at_ranks_text(w, peer).s, diag.text);
        else
            at_fail(&what, err, w->opt.run.name[w->rank], "no memory for one more transfer");
        say_failure(w, &what);
    }
    pthread_mutex_unlock(&w->mutex);
    return t;
}

static struct at_transfer send_op(void *link, int to, uint32_t tag, const void *bytes, size_t n)
{
    return post(link, true, to, tag, (void *)(uintptr_t)bytes, n);
}

static struct at_transfer recv_op(void *link, int from, uint32_t tag, void *bytes, size_t n)
{
    return post(link, false, from, tag, bytes, n);
}

static at_err_t wait_op(void *link, struct at_transfer t, struct at_diag *diag)
{
    struct at_ranks_tls *w = link;
    at_err_t err = AT_OK;
    if (t.v == 0) return AT_OK;
    pthread_mutex_lock(&w->mutex);
    struct post_slot *s = t.v != UINT64_MAX ? at_slots_at(&w->posts, t.v) : NULL;
    while (!(s != NULL && s->post.done) && !w->failed) pthread_cond_wait(&w->wake, &w->mutex);
    if (w->failed) err = at_fail(diag, w->verdict.err, w->verdict.where, "%s", w->verdict.text);
    if (s != NULL) at_slots_give(&w->posts, t.v);
    pthread_mutex_unlock(&w->mutex);
    return err;
}

static bool done_op(void *link, struct at_transfer t)
{
    struct at_ranks_tls *w = link;
    if (t.v == 0) return true;
    pthread_mutex_lock(&w->mutex);
    bool done = w->failed || (t.v != UINT64_MAX && ((struct post_slot *)at_slots_at(&w->posts, t.v))->post.done);
    pthread_mutex_unlock(&w->mutex);
    return done;
}

static void fail_op(void *link, at_err_t err, const char *where, const char *text)
{
    struct at_ranks_tls *w = link;
    struct at_diag what = {0};
    pthread_mutex_lock(&w->mutex);
    at_fail(&what, err, where, "%.260s (said by %.200s)", text, at_ranks_text(w, w->rank).s);
    say_failure(w, &what);
    pthread_mutex_unlock(&w->mutex);
}

static uint64_t bytes_sent_op(void *link)
{
    struct at_ranks_tls *w = link;
    pthread_mutex_lock(&w->mutex);
    uint64_t n = w->bytes_sent;
    pthread_mutex_unlock(&w->mutex);
    return n;
}

static const struct at_comm_ops ops = {send_op, recv_op, wait_op, done_op, fail_op, bytes_sent_op};

struct at_comm at_ranks_tls_comm(struct at_ranks_tls *w)
{
    return (struct at_comm){.rank = w->rank, .ranks = w->ranks, .ops = &ops, .link = w};
}

/* ---- opening and closing ------------------------------------------------------------------------------------------ */

#define OTHER_FILES 32 /* that a process has open besides its links: its own, the run's, a listener, a pipe */

static at_err allocate(struct at_ranks_tls *w)
{
    size_t n = (size_t)w->ranks;
    w->conns_max = w->ranks + AT_RANKS_UNPROVEN_MAX;
    w->id = calloc(n, sizeof w->id[0]);
    w->entry = calloc(n, sizeof w->entry[0]);
    w->peer = calloc(n, sizeof(struct conn *));
    w->ready = calloc(n, sizeof w->ready[0]);
    w->conn = calloc((size_t)w->conns_max, sizeof(struct conn *));
    w->poll_set = calloc((size_t)w->conns_max + 2, sizeof(struct pollfd));
    w->dial_ms = calloc(n, sizeof w->dial_ms[0]);
    for (size_t i = w->rank == 0 ? 0 : 1; w->dial_ms != NULL && i < n; i++) w->dial_ms[i] = UINT64_MAX;
    return w->id && w->entry && w->peer && w->ready && w->conn && w->poll_set && w->dial_ms ? AT_OK : AT_E_NOMEM;
}

static at_err make_keys(struct at_ranks_tls *w, struct at_diag *diag)
{
    struct at_keypair key;
    at_err_t err = AT_OK;
    for (int i = 0; err == AT_OK && i < w->ranks; i++) {
        if ((err = at_ranks_key(w->opt.secret, i, &key)) != AT_OK) return at_fail(diag, err, "links", "no Ed25519 key");
        w->id[i] = key.id;
        if (i == w->rank) err = at_tls_ctx_init(&key, diag, &w->tls);
    }
    memset(&key, 0, sizeof key);
    return err;
}

static at_err make_pipe(struct at_ranks_tls *w, struct at_diag *diag)
{
    if (pipe(w->wake_fd) != 0) {
        w->wake_fd[0] = w->wake_fd[1] = -1;
        return at_fail(diag, AT_E_ENV, "links", "no pipe: %s", strerror(errno));
    }
    for (int i = 0; i < 2; i++) {
        fcntl(w->wake_fd[i], F_SETFD, FD_CLOEXEC);
        fcntl(w->wake_fd[i], F_SETFL, O_NONBLOCK);
    }
    return AT_OK;
}

/* The I/O thread takes no signals: they are for the rank's own thread. */
static at_err start_io(struct at_ranks_tls *w, struct at_diag *diag)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&w->io, NULL, at_ranks_io_main, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) return at_fail(diag, AT_E_ENV, "links", "no thread: %s", strerror(rc));
    w->io_started = true;
    return AT_OK;
}

/* Until the mesh is whole or there is a verdict; the caller's go_on is asked meanwhile. */
static at_err await_mesh(struct at_ranks_tls *w, struct at_diag *diag)
{
    at_err_t err = AT_OK;
    pthread_mutex_lock(&w->mutex);
    while (!w->go && !w->failed) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 100000000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_nsec -= 1000000000;
            until.tv_sec++;
        }
        pthread_cond_timedwait(&w->wake, &w->mutex, &until);
        if (w->opt.go_on == NULL || w->go || w->failed || w->own.err != AT_OK) continue;
        struct at_diag own = {0};
        pthread_mutex_unlock(&w->mutex);
        at_err_t stop = w->opt.go_on(w->opt.arg, &own);
        pthread_mutex_lock(&w->mutex);
        if (stop == AT_OK) continue;
        at_fail(&own, stop, "links", "%s", at_err_text(stop));
        say_failure(w, &own);
    }
    if (w->failed) err = at_fail(diag, w->verdict.err, w->verdict.where, "%s", w->verdict.text);
    pthread_mutex_unlock(&w->mutex);
    return err;
}

at_err_t at_ranks_tls_files(int ranks, struct at_diag *diag)
{
    uint64_t need = (uint64_t)ranks + AT_RANKS_UNPROVEN_MAX + OTHER_FILES, have = at_sys_files_allow(need);
    if (have >= need) return AT_OK;
    return at_fail(diag, AT_E_ENV, "links",
                   "a rank of %d may need %llu open files and this system allows %llu: raise the hard limit (ulimit -n "
                   "%llu)",
                   ranks, (unsigned long long)need, (unsigned long long)have, (unsigned long long)need);
}

at_err_t at_ranks_tls_init(const struct at_ranks_tls_options *options, struct at_diag *diag, struct at_ranks_tls **ret)
{
    const struct at_ranks_run *run = &options->run;
    AT_ASSERT(run->ranks >= 1 && run->ranks <= AT_RANKS_MAX && run->rank >= 0 && run->rank < run->ranks);
    AT_ASSERT(run->facts >= 0 && run->facts <= AT_RANKS_FACTS_MAX);
    struct at_ranks_tls *w = calloc(1, sizeof *w);
    if (w == NULL) return at_fail(diag, AT_E_NOMEM, "links", "no memory for the links");
    w->opt = *options;
    w->rank = run->rank;
    at_slots_init(&w->posts, sizeof(struct post_slot));
    w->ranks = run->ranks;
    w->wake_fd[0] = w->wake_fd[1] = -1;
    w->listen_fd = w->rank == 0 ? options->listen_fd : -1;
    if (w->opt.wait_ms == 0) w->opt.wait_ms = 30000;
    if (w->opt.silence_ms == 0) w->opt.silence_ms = 4000;
    if (w->opt.heartbeat_ms == 0) w->opt.heartbeat_ms = 1500;
    if (w->opt.overdue_ms == 0) w->opt.overdue_ms = 1000;
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->wake, NULL);
    at_err_t err = at_ranks_tls_files(w->opt.star && w->rank != 0 ? 2 : w->ranks, diag);
    if (err == AT_OK && (err = allocate(w)) != AT_OK)
        at_fail(diag, err, "links", "no memory for the links of %d ranks", w->ranks);
    if (err == AT_OK) err = make_keys(w, diag);
    if (err == AT_OK) err = make_pipe(w, diag);
    if (err == AT_OK) err = start_io(w, diag);
    if (err == AT_OK) err = await_mesh(w, diag);
    if (err == AT_OK)
        *ret = w;
    else
        at_ranks_tls_release(w);
    return err;
}

void at_ranks_tls_release(struct at_ranks_tls *w)
{
    if (w == NULL) return;
    if (w->io_started) {
        pthread_mutex_lock(&w->mutex);
        w->releasing = true;
        w->asleep = true;
        rouse(w);
        pthread_mutex_unlock(&w->mutex);
        pthread_join(w->io, NULL);
    } else if (w->listen_fd >= 0) {
        close(w->listen_fd);
    }
    for (int i = 0; i < 2; i++)
        if (w->wake_fd[i] >= 0) close(w->wake_fd[i]);
    at_slots_release(&w->posts);
    at_tls_ctx_release(w->tls);
    free(w->id);
    free(w->entry);
    free(w->peer);
    free(w->ready);
    free(w->conn);
    free(w->poll_set);
    free(w->dial_ms);
    pthread_mutex_destroy(&w->mutex);
    pthread_cond_destroy(&w->wake);
    memset(w, 0, sizeof *w);
    free(w);
}
