/* ranks.h: the links between the ranks of one run (struct at_comm, base/comm.h), made three ways: threads of one
 * process, TLS 1.3 between processes, MPI. What it is not: it knows nothing of models, plans or rounds; the caller says
 * in words what each rank is called and which facts must be equal everywhere.
 *
 * Failure, the same for all three: one verdict per run, the first one. A dead rank (end of file, reset), a hung one (no
 * byte for silence_ms), one whose facts differ, one that breaks the protocol, or one that calls fail(): whoever notices
 * tells rank 0, rank 0 composes the text once and tells everybody; if rank 0 itself is gone, each rank says so in the
 * same words. After the verdict every wait ends with it. A transfer's buffer is let go of before its wait returns.
 *
 * Who is hung: a sign of life is any byte that arrives, also of something unfinished and of what the other side's system
 * had taken before; and a heartbeat goes when nothing else was sent. Silence is counted in the judge's
 * own waking time: each turn of its loop counts for a quarter of a second at most, so a judge that was starved, stopped or
 * asleep gives the others that much longer, and a pause of all blames nobody. Rank 0 judges everybody and is judged by
 * everybody; two other ranks give each other three times as long, for rank 0 comes first.
 *
 * Thread rule: post and wait from one thread per rank. */
#ifndef ATOLL_NET_RANKS_H
#define ATOLL_NET_RANKS_H

#include "base/bytes.h"
#include "base/comm.h"
#include "base/sign.h"

#define AT_RANKS_MAX       4096
#define AT_RANKS_FACTS_MAX 16
#define AT_RANKS_TAG_MAX   (((uint32_t)1 << 30) - 1) /* MPI has no more; larger tags are our own mistake */

/* Something that must be equal on all ranks, such as {"kernel profile", "F32-1"}. A difference is told in these words,
 * those of the first fact that differs: put the most telling first. */
struct at_ranks_fact {
    char name[32], value[72];
};

/* What every rank is given alike, but for `rank`. All borrowed for the life of the links. */
struct at_ranks_run {
    int rank, ranks;         /* 1 <= ranks <= AT_RANKS_MAX */
    const char *const *name; /* [ranks] "rank 3 (replica 0, stage 1, tensor rank 1)" */
    const struct at_ranks_fact *fact;
    int facts;
};

/* ---- threads of one process -----------------------------------------------------------------------------------------
 * A message is copied once, from the sender's memory to the receiver's, by whoever posts later. */
struct at_ranks_inproc;
at_err at_ranks_inproc_init(int ranks, const char *const *name, struct at_diag *diag, struct at_ranks_inproc **ret);
void at_ranks_inproc_release(struct at_ranks_inproc *w); /* after all its threads have ended */
struct at_comm at_ranks_inproc_comm(struct at_ranks_inproc *w, int rank);

/* ---- processes, TLS 1.3 ---------------------------------------------------------------------------------------------
 * A full mesh. Rank i's Ed25519 key is made from the run's secret and i, so whoever holds the secret knows every rank's
 * key and nobody else can be one (both sides of every link are pinned). Rank 0's address is known; the others dial it,
 * say where they listen, are handed the table, and dial those below them. One I/O thread per process drives everything:
 * heartbeats go on while the rank computes.
 *
 * Messages go in pieces of at most 256 KiB; small ones overtake large ones of other tags. A piece is encrypted from, and
 * decrypted into, the posted buffers. What arrives before it is posted waits in memory, at most AT_RANKS_EAGER_BYTES per
 * link: a sender that would exceed it asks first and sends when the receive is posted, so a link never stands still. */
#define AT_RANKS_EAGER_BYTES ((size_t)32 << 20)

struct at_ranks_tls;
struct at_ranks_tls_options {
    struct at_ranks_run run;
    uint8_t secret[32];
    const char *host; /* where rank 0 listens, numeric; others may be given several, "a,b", tried in turn */
    uint16_t port;
    int listen_fd;                     /* rank 0: from at_ranks_listen; taken over. Others: ignored */
    uint32_t wait_ms;                  /* for the others to come; 0: 30 s */
    uint32_t silence_ms, heartbeat_ms; /* 0: 4000, 1500 */
    /* Links with rank 0 only: they watch over ranks whose data goes another way (MPI). */
    bool star;
    /* Asked about ten times a second while the links are made; an error ends that, for all. NULL: never. */
    at_err_t (*go_on)(void *arg, struct at_diag *diag);
    /* Told once, from the I/O thread, when release has not been called overdue_ms (0: 1000) after a verdict, and the
     * others have been told: the rank is busy with something long. NULL: nothing. */
    void (*overdue)(void *arg, const struct at_diag *verdict);
    uint32_t overdue_ms;
    /* Set before overdue, init or a wait tells of a verdict: rank 0 has not told it, for it is gone, hung or was never
     * reached, so this rank found it alone and is the one to tell people. Whom a verdict blames says nothing about that: a
     * living rank 0 can be blamed, too. False on rank 0. NULL: not asked for. */
    bool *rank_0_gone;
    void *arg;
};
/* A listening socket, close-on-exec. port 0: the system picks. AT_E_PORT naming host and port. */
at_err at_ranks_listen(const char *host, uint16_t port, struct at_diag *diag, int *ret_fd, uint16_t *ret_port);
/* "host:port", "[v6]:port" or "port" (host: 127.0.0.1). AT_E_USAGE. */
at_err at_ranks_address(const char *text, struct at_diag *diag, char ret_host[64], uint16_t *ret_port);

/* Raises this process' limit of open files to what a rank's links may take, strangers at its door included, so that those
 * cannot use up what the ranks need. at_ranks_tls_init does it, too; called before, it saves starting other ranks in vain.
 * AT_E_ENV when the system does not allow so many. */
at_err at_ranks_tls_files(int ranks, struct at_diag *diag);
/* Returns when all ranks are linked to all. AT_E_PEER with the verdict; AT_E_NOMEM, AT_E_ENV. */
at_err at_ranks_tls_init(const struct at_ranks_tls_options *options, struct at_diag *diag, struct at_ranks_tls **ret);
struct at_comm at_ranks_tls_comm(struct at_ranks_tls *w);
/* The run is over for this rank: what was sent still leaves (for at most 2 s). The others may go on without it only as
 * far as they need nothing from it. NULL is fine. */
void at_ranks_tls_release(struct at_ranks_tls *w);
struct at_keypair; /* the key of a rank */
at_err at_ranks_key(const uint8_t secret[32], int rank, struct at_keypair *ret_key);

/* ---- MPI (optional part of the build) -------------------------------------------------------------------------------
 * MPI moves the data. It notices the dead in its own words and the hung never, so rank 0 is linked to each other rank by
 * TLS besides (a star, over loopback where all ranks are on one machine): heartbeats and the verdict go there. MPI cannot
 * take a posted buffer back, so after a verdict nothing returns: it is printed by `last_words`, on rank 0 and, when that
 * is gone, on the others, and the process ends with its exit code. */
struct at_ranks_mpi;
bool at_ranks_mpi_built(void);
bool at_ranks_mpi_launched(void);     /* whether mpirun started this process */
int at_ranks_mpi_launched_rank(void); /* as which rank; -1: it did not */
/* MPI_Init. AT_E_ENV in a build without MPI: says what to install. */
at_err at_ranks_mpi_start(struct at_diag *diag, int *ret_rank, int *ret_ranks);
at_err at_ranks_mpi_init(const struct at_ranks_run *run, void (*last_words)(void *arg, const struct at_diag *verdict),
                         void *arg, struct at_diag *diag, struct at_ranks_mpi **ret);
struct at_comm at_ranks_mpi_comm(struct at_ranks_mpi *w);
void at_ranks_mpi_release(
    struct at_ranks_mpi *w); /* collective unless failed: heartbeats end, MPI_Finalize; NULL is fine */
/* After at_ranks_mpi_start without a later init: a failure (ends all) or nothing to do. */
_Noreturn void at_ranks_mpi_abort(int exit_code);

#endif
