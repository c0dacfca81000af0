/* ranks_mpi.c: ranks that mpirun started. MPI moves the bytes; a thread beside the rank's own keeps transfers going while
 * the rank computes. Every MPI call is made under one mutex (MPI_THREAD_SERIALIZED) and none blocks. Who is dead or hung,
 * and what everybody then says, is found out over TLS links beside MPI (the watch, ranks_mpi_watch.c). */
#include "net/ranks.h"

#include <stdlib.h>

int at_ranks_mpi_launched_rank(void)
{
    static const char *const name[] = {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"};
    for (size_t i = 0; i < sizeof name / sizeof name[0]; i++) {
        const char *text = getenv(name[i]);
        if (text != NULL && text[0] >= '0' && text[0] <= '9') return atoi(text);
    }
    return -1;
}

bool at_ranks_mpi_launched(void)
{
    return at_ranks_mpi_launched_rank() >= 0;
}

#ifdef ATOLL_MPI

#include "base/slots.h"
#include "net/ranks_mpi_inner.h"
#include "os/file_temp.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PIECE_BYTES  ((size_t)1 << 30) /* MPI counts in int */
#define PROGRESS_US  1000
#define POLLS_BUSY   200  /* before a wait gives way to others on this processor */
#define POLLS_AWAKE  5000 /* before it sleeps between polls */
#define EXIT_TURNS   60 /* of EXIT_TURN_MS, for the watch to end this process: 4 s of silence of rank 0, and some more */
#define EXIT_TURN_MS 100
#define PIECES_FIXED 4

struct slot {
    MPI_Request fixed[PIECES_FIXED], *request;
    int pieces, peer;
    uint32_t tag;
    size_t n;
    bool is_send, done;
};

struct at_ranks_mpi {
    struct at_ranks_run run;
    struct at_mpi_watch *watch;
    MPI_Comm comm;
    pthread_mutex_t mutex;
    pthread_t helper;
    bool has_helper, stop;
    struct at_slots transfers; /* of struct slot */
    uint64_t bytes_sent;
};

static bool initialized; /* MPI allows it once per process, so this is the process's */

bool at_ranks_mpi_built(void)
{
    return true;
}

at_err_t at_ranks_mpi_start(struct at_diag *diag, int *ret_rank, int *ret_ranks)
{
    int level = 0;
    if (!initialized && MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level) != MPI_SUCCESS)
        return at_fail(diag, AT_E_ENV, "MPI", "MPI does not start");
    if (!initialized && level < MPI_THREAD_SERIALIZED)
        return at_fail(diag, AT_E_ENV, "MPI", "this MPI has no thread support (MPI_THREAD_SERIALIZED)");
    initialized = true;
    MPI_Comm_rank(MPI_COMM_WORLD, ret_rank);
    MPI_Comm_size(MPI_COMM_WORLD, ret_ranks);
    return AT_OK;
}

void at_ranks_mpi_abort(int exit_code)
{
    at_file_temp_remove_all();
    if (initialized) MPI_Abort(MPI_COMM_WORLD, exit_code);
    _exit(exit_code);
}

/* The watch tells everybody, in the same words, and ends this process as well. It counts its own waking time, so that many
 * short sleeps, each of which may last longer, fit it better than a long one; no signal cuts them short. */
_Noreturn static void die(struct at_ranks_mpi *w, const struct at_diag *verdict)
{
    at_mpi_watch_fail(w->watch, verdict);
    for (int i = 0; i < EXIT_TURNS; i++) {
        struct timespec left = {0, EXIT_TURN_MS * 1000000L};
        while (nanosleep(&left, &left) != 0 && errno == EINTR) {
        }
    }
    at_mpi_watch_last_words(w->watch, verdict);
    at_ranks_mpi_abort(at_err_exit_code(verdict->err));
}

_Noreturn static void die_of_peer(struct at_ranks_mpi *w, int peer, const char *does)
{
    struct at_diag what = {0};
    char where[24];
    snprintf(where, sizeof where, "rank %d", peer);
    at_fail(&what, AT_E_PEER, where, "%s %s", w->run.name[peer], does);
    die(w, &what);
}

/* ---- transfers ---------------------------------------------------------------------------------------------------- */

static struct at_transfer post(struct at_ranks_mpi *w, bool is_send, int peer, uint32_t tag, uint8_t *bytes, size_t n)
{
    AT_ASSERT(peer >= 0 && peer < w->run.ranks && peer != w->run.rank && n >= 1 && tag <= AT_RANKS_TAG_MAX);
    struct at_transfer t;
    struct slot *s = at_slots_take(&w->transfers, &t.v);
    size_t pieces = (n - 1) / PIECE_BYTES + 1;
    MPI_Request *request = s == NULL ? NULL : pieces <= PIECES_FIXED ? s->fixed : calloc(pieces, sizeof *request);
    if (request == NULL || pieces > INT32_MAX) {
        struct at_diag what = {0};
        at_fail(&what, AT_E_NOMEM, w->run.name[w->run.rank], "no memory for one more transfer");
        die(w, &what);
    }
    *s = (struct slot){.request = request, .pieces = (int)pieces, .peer = peer, .tag = tag, .n = n};
    s->is_send = is_send;
    if (pieces <= PIECES_FIXED) s->request = s->fixed;
    int rc = MPI_SUCCESS;
    pthread_mutex_lock(&w->mutex);
    for (size_t i = 0; i < pieces && rc == MPI_SUCCESS; i++) {
        uint8_t *p = bytes + i * PIECE_BYTES;
        int count = (int)(i + 1 < pieces ? PIECE_BYTES : n - i * PIECE_BYTES);
        rc = is_send ? MPI_Isend(p, count, MPI_BYTE, peer, (int)tag, w->comm, &s->request[i])
                     : MPI_Irecv(p, count, MPI_BYTE, peer, (int)tag, w->comm, &s->request[i]);
    }
    pthread_mutex_unlock(&w->mutex);
    if (rc != MPI_SUCCESS) die_of_peer(w, peer, "cannot be reached by MPI");
    return t;
}

static struct at_transfer send_op(void *link, int to, uint32_t tag, const void *bytes, size_t n)
{
    struct at_ranks_mpi *w = link;
    w->bytes_sent += n;
    return post(w, true, to, tag, (uint8_t *)(uintptr_t)bytes, n);
}

static struct at_transfer recv_op(void *link, int from, uint32_t tag, void *bytes, size_t n)
{
    return post(link, false, from, tag, bytes, n);
}

/* Under the mutex. A received piece of another length ends everything. */
static bool test(struct at_ranks_mpi *w, struct slot *s)
{
    for (int i = 0; i < s->pieces; i++) {
        MPI_Status status;
        int done = 0, count = 0;
        if (s->request[i] == MPI_REQUEST_NULL) continue;
        int rc = MPI_Test(&s->request[i], &done, &status);
        if (rc == MPI_SUCCESS && !done) return false;
        if (rc == MPI_SUCCESS && !s->is_send) MPI_Get_count(&status, MPI_BYTE, &count);
        size_t want = i + 1 < s->pieces ? PIECE_BYTES : s->n - (size_t)i * PIECE_BYTES;
        if (rc == MPI_SUCCESS && (s->is_send || (size_t)count == want)) continue;
        char does[120];
        snprintf(does, sizeof does, "sends another number of bytes with tag %u than the %zu expected", (unsigned)s->tag,
                 s->n);
        die_of_peer(w, s->peer, does);
    }
    return true;
}

static bool done_op(void *link, struct at_transfer t)
{
    struct at_ranks_mpi *w = link;
    if (t.v == 0) return true;
    struct slot *s = at_slots_at(&w->transfers, t.v);
    if (s->done) return true;
    pthread_mutex_lock(&w->mutex);
    s->done = test(w, s);
    pthread_mutex_unlock(&w->mutex);
    return s->done;
}

static void give_way(int polls)
{
    if (polls > POLLS_AWAKE)
        nanosleep(&(struct timespec){0, 50000}, NULL);
    else if (polls > POLLS_BUSY)
        sched_yield();
}

static at_err_t wait_op(void *link, struct at_transfer t, struct at_diag *diag)
{
    struct at_ranks_mpi *w = link;
    if (t.v == 0) return AT_OK;
    struct slot *s = at_slots_at(&w->transfers, t.v);
    for (int polls = 0; !done_op(w, t);) give_way(polls < POLLS_AWAKE + 1 ? polls++ : polls);
    if (s->request != s->fixed) free(s->request);
    at_slots_give(&w->transfers, t.v);
    return AT_OK;
}

static void fail_op(void *link, at_err_t err, const char *where, const char *text)
{
    struct at_ranks_mpi *w = link;
    struct at_diag what = {0};
    at_fail(&what, err, where, "%s", text);
    die(w, &what);
}

static uint64_t bytes_sent_op(void *link)
{
    return ((struct at_ranks_mpi *)link)->bytes_sent;
}

static const struct at_comm_ops ops = {send_op, recv_op, wait_op, done_op, fail_op, bytes_sent_op};

struct at_comm at_ranks_mpi_comm(struct at_ranks_mpi *w)
{
    return (struct at_comm){.rank = w->run.rank, .ranks = w->run.ranks, .ops = &ops, .link = w};
}

/* ---- the helper ---------------------------------------------------------------------------------------------------- */

/* A look at what has come: that alone moves posted transfers on. */
static void *help(void *arg)
{
    struct at_ranks_mpi *w = arg;
    for (bool stop = false; !stop;) {
        int there = 0;
        nanosleep(&(struct timespec){0, PROGRESS_US * 1000}, NULL);
        pthread_mutex_lock(&w->mutex);
        stop = w->stop;
        if (!stop) MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, w->comm, &there, MPI_STATUS_IGNORE);
        pthread_mutex_unlock(&w->mutex);
    }
    return NULL;
}

/* ---- opening and closing ------------------------------------------------------------------------------------------ */

static at_err start_helper(struct at_ranks_mpi *w, struct at_diag *diag)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    w->has_helper = pthread_create(&w->helper, NULL, help, w) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return w->has_helper ? AT_OK : at_fail(diag, AT_E_ENV, "MPI", "the system gives no thread");
}

at_err_t at_ranks_mpi_init(const struct at_ranks_run *run, void (*last_words)(void *arg, const struct at_diag *verdict),
                           void *arg, struct at_diag *diag, struct at_ranks_mpi **ret)
{
    int *tag_max = NULL, found = 0;
    struct at_ranks_mpi *w = calloc(1, sizeof *w);
    if (w == NULL) return at_fail(diag, AT_E_NOMEM, "MPI", "no memory for the links");
    AT_ASSERT(initialized && run->facts <= AT_RANKS_FACTS_MAX);
    w->run = *run;
    at_slots_init(&w->transfers, sizeof(struct slot));
    pthread_mutex_init(&w->mutex, NULL);
    MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, &tag_max, &found);
    at_err_t err = found && *tag_max >= (int)AT_RANKS_TAG_MAX
                       ? AT_OK
                       : at_fail(diag, AT_E_ENV, "MPI", "this MPI's tags are too small");
    if (err == AT_OK) err = at_mpi_watch_start(run, last_words, arg, diag, &w->comm, &w->watch);
    if (err == AT_OK && run->ranks > 1) err = start_helper(w, diag);
    if (err != AT_OK) { /* the caller ends all: nothing of MPI's is let go of */
        pthread_mutex_destroy(&w->mutex);
        free(w);
        return err;
    }
    *ret = w;
    return AT_OK;
}

void at_ranks_mpi_release(struct at_ranks_mpi *w)
{
    if (w == NULL) return;
    MPI_Request all_here;
    int done = 0;
    pthread_mutex_lock(&w->mutex);
    MPI_Ibarrier(w->comm, &all_here);
    pthread_mutex_unlock(&w->mutex);
    for (int polls = 0; !done; polls += polls <= POLLS_AWAKE) {
        pthread_mutex_lock(&w->mutex);
        MPI_Test(&all_here, &done, MPI_STATUS_IGNORE);
        w->stop = done != 0;
        pthread_mutex_unlock(&w->mutex);
        give_way(polls);
    }
    if (w->has_helper) pthread_join(w->helper, NULL);
    at_slots_release(&w->transfers);
    pthread_mutex_destroy(&w->mutex);
    MPI_Comm_free(&w->comm);
    MPI_Finalize(); /* waits for all: still watched over */
    initialized = false;
    at_mpi_watch_release(w->watch);
    free(w);
}

#else

#define MISSING "this build has no MPI: install libopenmpi-dev and build again"

bool at_ranks_mpi_built(void)
{
    return false;
}

at_err_t at_ranks_mpi_start(struct at_diag *diag, int *ret_rank, int *ret_ranks)
{
    return at_fail(diag, AT_E_ENV, "MPI", MISSING);
}

at_err_t at_ranks_mpi_init(const struct at_ranks_run *run, void (*last_words)(void *arg, const struct at_diag *verdict),
                           void *arg, struct at_diag *diag, struct at_ranks_mpi **ret)
{
    return at_fail(diag, AT_E_ENV, "MPI", MISSING);
}

struct at_comm at_ranks_mpi_comm(struct at_ranks_mpi *w)
{
    AT_ASSERT(at_ranks_mpi_built());
    return (struct at_comm){0};
}

void at_ranks_mpi_release(struct at_ranks_mpi *w) {}

void at_ranks_mpi_abort(int exit_code)
{
    exit(exit_code);
}

#endif
