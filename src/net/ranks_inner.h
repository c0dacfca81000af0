/* ranks_inner.h: the TLS links' inside, for ranks_tls.c (the rank's thread: posts, waits) and for the I/O thread:
 * ranks_io.c (its loop: bytes, time), ranks_door.c (sockets) and ranks_meet.c (who is who, how the mesh is made, verdicts).
 *
 * Only the I/O thread touches sockets, TLS sessions and the list of connections. `mutex` guards the boxes and what both
 * threads look at; it is not held while bytes are encrypted, decrypted or moved by the kernel.
 *
 *   CONNECT -> HANDSHAKE -> UP -> CLOSED      UP begins when TLS has proven the key; a HELLO comes first on each side
 *
 * A link counts once it is greeted. Until then its end is no rank's: TLS is done for who dialled before it is for who
 * accepted, and that side may have had to make room. Who dialled dials again. */
#ifndef ATOLL_NET_RANKS_INNER_H
#define ATOLL_NET_RANKS_INNER_H

#include "base/slots.h"
#include "net/ranks_box.h"
#include "net/ranks_note.h"
#include "net/tls.h"

#include <pthread.h>

#define AT_RANKS_UNPROVEN_MAX 64    /* accepted connections whose key is not proven yet */
#define AT_RANKS_HANDSHAKE_MS 5000  /* awake; a stranger's, and one address of rank 0's */
#define AT_RANKS_GREETING_MS  15000 /* awake; of a rank that is known to be there, all attempts together */
#define AT_RANKS_REDIAL_MS    100
#define AT_RANKS_SHUT_MS      100

enum conn_state { CONN_CONNECT = 1, CONN_HANDSHAKE, CONN_UP, CONN_CLOSED };

struct conn {
    enum conn_state state;
    int fd, rank; /* rank -1: not known yet */
    bool dialed, greeted, wants_write, more, bye;
    bool deaf; /* the other side broke the protocol: what it says is dropped */
    struct at_tls tls;
    char host[AT_NOTE_HOST_BYTES];
    uint64_t born_awake_ms, heard_awake_ms, beat_ms; /* awake: see struct at_ranks_tls */
    struct at_box box;
};

struct post_slot {
    struct at_post post; /* first: a post is its slot */
    int peer;
};

struct at_ranks_tls {
    struct at_ranks_tls_options opt;
    int rank, ranks;
    struct at_node_id *id;       /* [ranks] from the secret */
    struct at_rank_entry *entry; /* [ranks] the table */
    struct conn **peer;          /* [ranks] proven and greeted; NULL otherwise. Written under mutex */
    struct at_tls_ctx *tls;
    pthread_t io;
    bool io_started;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    int wake_fd[2]; /* a pipe that ends the I/O thread's poll */
    /* under mutex */
    bool asleep;            /* the I/O thread is in poll, or on its way */
    bool go, releasing;     /* the mesh is whole; this rank is done */
    bool failed;            /* verdict is set and every buffer let go */
    struct at_diag verdict; /* err != AT_OK once there is one */
    struct at_diag own;     /* what fail() said, for the I/O thread to pass on */
    struct at_slots posts;  /* of struct post_slot */
    uint64_t bytes_sent;
    /* of the I/O thread alone */
    int listen_fd;
    uint64_t shut_ms;   /* until when nobody is accepted: see at_ranks_accept */
    struct conn **conn; /* [conns_max] */
    int conns, conns_max;
    void *poll_set;
    bool tabled, reported, said_ready, told_overdue, told_by_0;
    int told;    /* rank 0: how many know the verdict */
    bool *ready; /* rank 0: [ranks] whose links are whole */
    uint64_t verdict_ms, release_ms;
    uint64_t *dial_ms; /* [ranks] when that rank is to be dialled; UINT64_MAX: it is not */
    /* The judge's clock: how long this thread was awake and free to listen (ranks.h). */
    uint64_t awake_ms, turn_ms, tabled_awake_ms;
    uint64_t turns, verdict_turn;
    int host;     /* which of opt.host is dialed */
    uint64_t lot; /* who gives way at the door */
};

/* ranks_io.c */
void *at_ranks_io_main(void *world);
void at_ranks_note(struct at_ranks_tls *w, struct conn *c, enum at_box_kind kind, struct at_span payload);

/* ranks_door.c; all called by the I/O thread without the mutex */
void at_ranks_dial(struct at_ranks_tls *w, int rank, const char *host, uint16_t port);
/* Whoever is at the door. Where the system gives no further socket, the door is shut for a moment. */
void at_ranks_accept(struct at_ranks_tls *w);
void at_ranks_connected(struct at_ranks_tls *w, struct conn *c);
void at_ranks_close(struct at_ranks_tls *w, struct conn *c);
void at_ranks_sweep(struct at_ranks_tls *w); /* frees what is closed and never was a rank's */
void at_ranks_free(struct conn *c);

/* ranks_meet.c; all called by the I/O thread without the mutex */
void at_ranks_proven(struct at_ranks_tls *w, struct conn *c); /* TLS is done: who is it? */
void at_ranks_on_note(struct at_ranks_tls *w, struct conn *c, enum at_box_kind kind, struct at_span note);
void at_ranks_lost(struct at_ranks_tls *w, struct conn *c, const char *why); /* the connection is over */
void at_ranks_meet(struct at_ranks_tls *w, uint64_t now_ms);                 /* whatever is due in making the mesh */
/* This rank has noticed something: the verdict, or a report to rank 0 that will bring it. */
void at_ranks_notice(struct at_ranks_tls *w, const struct at_diag *what);
void at_ranks_notice_gone(struct at_ranks_tls *w, int rank, const char *why);

/* "rank 3 (replica 0, stage 1, tensor rank 1; pid 4711 at 127.0.0.1:4242)", as far as it is known. */
struct at_ranks_text {
    char s[240];
};
struct at_ranks_text at_ranks_text(const struct at_ranks_tls *w, int rank);

#endif
