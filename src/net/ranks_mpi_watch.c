#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE /* IFF_UP */
#endif

#ifdef ATOLL_MPI

#include "net/ranks_mpi_inner.h"
#include "os/file_temp.h"
#include "os/sys.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define HOSTS_BYTES 256
#define MEET_MS     30000 /* for all ranks to take part in what comes before the links */
#define LINGER_MS   150   /* rank 0's: whoever is told reads it before this end closes */

struct at_mpi_watch {
    struct at_ranks_run run;
    void (*last_words)(void *arg, const struct at_diag *verdict);
    void *arg;
    struct at_ranks_tls *links;
    char hosts[HOSTS_BYTES];
    pthread_mutex_t mutex; /* of `said` */
    bool said;
    bool rank_0_gone; /* of the links' thread */
};

/* What rank 0 hands out. */
struct invitation {
    uint8_t secret[32];
    char hosts[HOSTS_BYTES]; /* "a,b" */
    uint8_t port[2];         /* 0: rank 0 could not listen */
};

void at_mpi_watch_last_words(struct at_mpi_watch *w, const struct at_diag *verdict)
{
    pthread_mutex_lock(&w->mutex);
    if (!w->said && w->last_words != NULL) w->last_words(w->arg, verdict);
    w->said = true;
    pthread_mutex_unlock(&w->mutex);
}

/* Told by the links' thread, after rank 0 has told the others. mpirun ends whatever is left once one rank has ended with
 * an error, so nobody waits for anything here. */
static void on_verdict(void *arg, const struct at_diag *verdict)
{
    struct at_mpi_watch *w = arg;
    if (w->run.rank == 0 || w->rank_0_gone) at_mpi_watch_last_words(w, verdict);
    if (w->run.rank == 0) nanosleep(&(struct timespec){0, LINGER_MS * 1000000L}, NULL);
    at_file_temp_remove_all();
    _exit(at_err_exit_code(verdict->err));
}

/* Before the links are there a rank that does not take part can only be noticed, not named. */
static at_err finish(MPI_Request *request, uint64_t until_ms, struct at_diag *diag)
{
    for (int done = 0; !done;) {
        if (MPI_Test(request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS)
            return at_fail(diag, AT_E_ENV, "MPI", "MPI cannot reach all ranks");
        if (done) break;
        if (at_clock_mono_ms() > until_ms)
            return at_fail(diag, AT_E_PEER, "MPI", "not all ranks have come within %d s", MEET_MS / 1000);
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    return AT_OK;
}

/* This machine's IPv4 addresses that others may reach, in the system's order, as many as fit; "" when there are none. */
static void own_addresses(char ret_hosts[HOSTS_BYTES])
{
    struct ifaddrs *all = NULL;
    size_t n = 0;
    if (getifaddrs(&all) != 0) return;
    for (struct ifaddrs *i = all; i != NULL; i = i->ifa_next) {
        char text[INET_ADDRSTRLEN];
        const struct sockaddr_in *a = (const void *)i->ifa_addr;
        if ((i->ifa_flags & IFF_UP) == 0 || a == NULL || a->sin_family != AF_INET ||
            (ntohl(a->sin_addr.s_addr) >> 24) == 127)
            continue;
        if (inet_ntop(AF_INET, &a->sin_addr, text, sizeof text) == NULL || n + strlen(text) + 2 > HOSTS_BYTES) continue;
        n += (size_t)snprintf(ret_hosts + n, HOSTS_BYTES - n, "%s%s", n > 0 ? "," : "", text);
    }
    freeifaddrs(all);
}

/* Whether every rank runs on one machine: the processors' names, hashed, are all alike. */
static at_err look_around(const struct at_ranks_run *run, MPI_Comm comm, uint64_t until_ms, struct at_diag *diag,
                          bool *ret_one)
{
    char name[MPI_MAX_PROCESSOR_NAME] = {0};
    int bytes = 0;
    struct at_hash own, *all = calloc((size_t)run->ranks, sizeof *all);
    MPI_Request request;
    if (all == NULL) return at_fail(diag, AT_E_NOMEM, "MPI", "no memory for %d ranks", run->ranks);
    MPI_Get_processor_name(name, &bytes);
    own = at_sha256(name, (size_t)bytes);
    at_err_t err = AT_OK;
    if (MPI_Iallgather(&own, sizeof own, MPI_BYTE, all, sizeof own, MPI_BYTE, comm, &request) != MPI_SUCCESS)
        err = at_fail(diag, AT_E_ENV, "MPI", "MPI cannot reach all ranks");
    if (err == AT_OK) err = finish(&request, until_ms, diag);
    if (err != AT_OK) return err; /* MPI may still write to `all` */
    *ret_one = true;
    for (int i = 0; i < run->ranks; i++) *ret_one &= memcmp(&all[i], &own, sizeof own) == 0;
    free(all);
    return AT_OK;
}

/* Rank 0's part: a secret, and a socket where the others will find it. */
static at_err invite(bool one_machine, struct at_diag *diag, struct invitation *v, int *ret_fd)
{
    struct at_keypair random;
    uint16_t port = 0;
    at_err_t err = at_keypair_generate(&random);
    if (err != AT_OK) return at_fail(diag, err, "MPI", "the system gives no random bytes");
    memcpy(v->secret, random.seed, sizeof v->secret);
    memset(&random, 0, sizeof random);
    if (one_machine)
        snprintf(v->hosts, sizeof v->hosts, "127.0.0.1");
    else
        own_addresses(v->hosts);
    if (v->hosts[0] == 0)
        return at_fail(
            diag, AT_E_ENV, "rank 0",
            "this machine, rank 0's, has no IPv4 address for the others: give it one, or run all on one machine");
    err = at_ranks_listen(one_machine ? "127.0.0.1" : "0.0.0.0", 0, diag, ret_fd, &port);
    v->port[0] = (uint8_t)port;
    v->port[1] = (uint8_t)(port >> 8);
    return err;
}

/* All of it over `comm`, which is made here. */
static at_err hand_out(const struct at_ranks_run *run, struct at_diag *diag, MPI_Comm *ret_comm, struct invitation *v,
                       int *ret_fd)
{
    uint64_t until_ms = at_clock_mono_ms() + MEET_MS;
    MPI_Request request;
    bool one_machine = true;
    if (MPI_Comm_idup(MPI_COMM_WORLD, ret_comm, &request) != MPI_SUCCESS)
        return at_fail(diag, AT_E_ENV, "MPI", "MPI cannot reach all ranks");
    at_err_t err = finish(&request, until_ms, diag);
    if (err != AT_OK) return err;
    MPI_Comm_set_errhandler(*ret_comm, MPI_ERRORS_RETURN);
    err = look_around(run, *ret_comm, until_ms, diag, &one_machine);
    if (err != AT_OK) return err;
    at_err_t own = run->rank == 0 ? invite(one_machine, diag, v, ret_fd) : AT_OK;
    if (MPI_Ibcast(v, sizeof *v, MPI_BYTE, 0, *ret_comm, &request) != MPI_SUCCESS)
        return at_fail(diag, AT_E_ENV, "MPI", "MPI cannot reach all ranks");
    err = finish(&request, until_ms, diag);
    if (own != AT_OK || err != AT_OK) return own != AT_OK ? own : err;
    v->hosts[HOSTS_BYTES - 1] = 0;
    return v->port[0] != 0 || v->port[1] != 0
               ? AT_OK
               : at_fail(diag, AT_E_PEER, "rank 0", "%s has no address to listen at", run->name[0]);
}

at_err_t at_mpi_watch_start(const struct at_ranks_run *run,
                            void (*last_words)(void *arg, const struct at_diag *verdict), void *arg,
                            struct at_diag *diag, MPI_Comm *ret_comm, struct at_mpi_watch **ret_watch)
{
    static struct invitation v; /* MPI may write to it even after an error */
    struct at_mpi_watch *w = calloc(1, sizeof *w);
    int fd = -1;
    if (w == NULL) return at_fail(diag, AT_E_NOMEM, "MPI", "no memory for the links");
    *w = (struct at_mpi_watch){.run = *run, .last_words = last_words, .arg = arg};
    pthread_mutex_init(&w->mutex, NULL);
    at_err_t err = hand_out(run, diag, ret_comm, &v, &fd);
    memcpy(w->hosts, v.hosts, sizeof w->hosts);
    struct at_ranks_tls_options o = {
        .run = *run,
        .host = w->hosts,
        .port = (uint16_t)(v.port[0] | v.port[1] << 8),
        .listen_fd = fd,
        .wait_ms = MEET_MS,
        .star = true,
        .overdue = on_verdict,
        .overdue_ms = 1,
        .rank_0_gone = &w->rank_0_gone,
        .arg = w,
    };
    memcpy(o.secret, v.secret, sizeof o.secret);
    memset(v.secret, 0, sizeof v.secret);
    if (err == AT_OK)
        err = at_ranks_tls_init(&o, diag, &w->links);
    else if (fd >= 0)
        close(fd);
    memset(o.secret, 0, sizeof o.secret);
    if (err == AT_OK) {
        *ret_watch = w;
        return AT_OK;
    }
    pthread_mutex_destroy(&w->mutex);
    free(w);
    return err;
}

void at_mpi_watch_fail(struct at_mpi_watch *w, const struct at_diag *what)
{
    struct at_comm c = at_ranks_tls_comm(w->links);
    c.ops->fail(c.link, what->err, what->where, what->text);
}

void at_mpi_watch_release(struct at_mpi_watch *w)
{
    if (w == NULL) return;
    at_ranks_tls_release(w->links);
    pthread_mutex_destroy(&w->mutex);
    free(w);
}

#else

typedef int at_no_mpi_here; /* a translation unit declares something */

#endif
