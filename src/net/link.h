/* link.h: one link's inside (net.c and link.c only): socket, TLS session, three queues, and the state below.
 *
 *   LOOKUP -> CONNECT -> HANDSHAKE -> UP -> CLOSING -> DEAD     (accepted links begin at HANDSHAKE)
 *   MEET   -> CONNECT                                           (dialed by a meeting, or asked to one)
 *             HANDSHAKE -> LEG -> DEAD                          (accepted; began with a meeting's prelude: splice.c)
 *
 * MEET waits for the arranger's word, and in a punch for the moment to connect. A LEG has no TLS and is told to nobody.
 * UP begins with the first whole frame of the peer, a Ping: only then has the other side accepted our key too.
 * CLOSING sends what is queued, shuts the sending side and waits for the peer's end of file, for at most half a second.
 * DEAD: the socket is being closed; DOWN is told at the next turn. Any state may go to DEAD, never back.
 * Events about a link (FRAME, UP) come from reading; DRAIN and DOWN from the turn, never from a call of the user's. */
#ifndef ATOLL_NET_LINK_H
#define ATOLL_NET_LINK_H

#include "base/line_rate.h"
#include "net/net.h"
#include "net/tls.h"
#include "wire/arrange.h"
#include "wire/message.h"

#include <sys/socket.h>

#define LINK_WRITE_BYTES ((size_t)256 << 10) /* handed to the kernel at a time */
#define LINK_CLOSE_MS    500
#define LINK_REASON_MAX  256
#define LINK_READ_BYTES  ((size_t)64 << 10) /* of the shared read buffer */
#define LINK_SLOTS_BITS  16                 /* id = number << LINK_SLOTS_BITS | slot */

enum link_state {
    LINK_LOOKUP = 1,
    LINK_MEET,
    LINK_CONNECT,
    LINK_HANDSHAKE,
    LINK_UP,
    LINK_CLOSING,
    LINK_LEG,
    LINK_DEAD
};

struct punch; /* punch.c */

/* How a link came about by a meeting; zero on others. */
struct link_meet {
    enum at_meet_how how;
    struct at_link_id via;
    uint64_t number; /* ours when we asked, else the arranger's */
    struct at_meet_token token;
    struct at_endpoint arranger;
    bool began; /* the token is here and in use */
    bool told;  /* the arranger knows that it is over */
};

/* Of a LEG. */
struct link_leg {
    struct link *other; /* spliced with; NULL: not yet, or not any more */
    bool began;
    bool held;              /* a punch's: it only shows where it comes from */
    bool asks;              /* the asker's */
    struct at_node_id node; /* whose, by the token */
    uint64_t moved;         /* bytes that it said */
    bool eof, shut;         /* nothing more comes; what was to go to it went, and its end too */
    int64_t credit;         /* bytes that the two may still say in this slice of time; the older leg's counts */
};

struct link_frame { /* head and payload in one block, so that they are encrypted in one go */
    struct link_frame *next;
    size_t bytes, payload_bytes;
    uint8_t data[];
};
struct link_queue {
    struct link_frame *first, *last;
    size_t bytes;
};

struct link {
    struct at_net *net;
    struct at_link_id id;
    enum link_state state;
    bool dialed, tls_done, told_up, told_down, reading, write_busy, handle_open, lookup_busy, shut_sent;
    bool refused[AT_FRAME_CLASS_COUNT]; /* a frame was, and DRAIN has not been told */
    bool pinned;                        /* only `expected` is taken: dialed, or asked to a meeting */
    bool sniffed;                       /* accepted: it is TLS, no prelude */
    bool looked;                        /* dialed: we have asked how we are seen */
    enum at_net_way way;
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_getaddrinfo_t lookup;
    uv_write_t write;
    uv_shutdown_t shutdown;
    struct at_tls tls;
    struct at_node_id expected;
    struct sockaddr_storage remote_sa;
    struct at_endpoint remote; /* of the other side; of the relay */
    struct at_endpoint seen;   /* as whom the other side sees us; ip_bytes 0: not said */
    char address[64];
    struct link_meet meet;
    struct link_leg leg;
    struct punch *punch; /* owned; NULL: none */
    uint64_t asked_ms;   /* bucket of questions about meetings: see introduce.c */
    uint32_t asked;
    uint32_t patience_ms; /* what deadline_ms was set with */
    struct at_buf in;  /* decrypted, not yet a whole frame; before that: a prelude's beginning; LEG: said too early */
    struct at_buf out; /* encrypted, on its way to the kernel; LEG: on its way from the other leg */
    struct link_queue queue[AT_FRAME_CLASS_COUNT];
    uint64_t born_ms, deadline_ms, heard_ms, pinged_ms;
    uint64_t rtt_us, rtt_least_us; /* of the last ping; the least of all, 0: none came back yet */
    struct at_line_rate rate;
    uint64_t part_us;  /* `in` begins with a part of a frame, which was here then, or had not come before; 0: no */
    size_t part_bytes; /* of it were here */
    uint64_t turn;     /* in which turn_bytes were read */
    bool was_cut; /* the turn before it read as much as it may: what is read in this one may have been here for long */
    size_t turn_bytes, handshake_bytes;
    at_err_t down_err;
    char down_reason[LINK_REASON_MAX];
};

struct at_net {
    uv_loop_t *loop;
    struct at_node_id self;
    struct at_net_options opt;
    struct at_tls_ctx *tls;
    at_net_event_fn *on_event;
    void *user;
    uv_tcp_t listener;
    uv_prepare_t before_poll;
    uv_check_t after_poll;
    uv_timer_t tick, relay_tick;
    uint32_t open_handles; /* of listener, before_poll, after_poll, relay_tick, tick */
    bool listening, releasing;
    uint16_t port; /* where it listens */
    uint64_t turn, next_id, tick_ms, relay_tick_ms;
    uint64_t poll_us, earlier_us; /* when the last poll began, the one before */
    struct link **link;           /* [links_max], NULL where free */
    uint32_t link_count;
    uint8_t *read_buf;
    struct at_arrange *arrange;
    struct at_message_mem own_mem;
    struct at_net_stats stats;
};

/* The link is over: first reason wins. The socket closes; DOWN at the next turn. */
void at_link_fail(struct link *l, at_err_t err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
at_err at_link_start_tls(struct link *l); /* the socket is connected; `out` may hold what goes before TLS */
at_err at_link_queue(struct link *l, enum at_frame_class cls, struct at_span payload);
void at_link_pump(struct link *l); /* encrypts and writes what may go now */
void at_link_resume(struct link *l);
void at_link_ping(struct link *l);
void at_link_free(struct link *l); /* memory; the handle is closed */
bool at_link_half_open(const struct link *l);
bool at_link_busy(const struct link *l);                       /* libuv still holds a part of it */
void at_link_wait(struct link *l, uint32_t patience_ms);       /* the deadline of its state, from now */
void at_link_send(struct link *l, const struct at_message *m); /* must go: the link fails when it cannot */

/* net.c */
struct link *at_link_find(const struct at_net *net, struct at_link_id id); /* NULL: gone */
struct link *at_link_new(struct at_net *net, bool dialed);                 /* NULL: no room */

/* dial.c */
void at_link_set_address(struct link *l, const struct sockaddr *sa);
void at_link_connect(struct link *l,
                     const struct sockaddr *sa); /* then TLS, after the meeting's prelude if it has one */

/* introduce.c: meetings that this node asks for or is asked to, and the messages of all */
void at_link_take_meet(struct link *via, const struct at_meet *m);
void at_link_send_meet(struct link *via, const struct at_meet *m);
void at_introduce_over(struct link *l);                            /* it is failing: an arranger that waits hears why */
void at_introduce_down(struct at_net *net, struct at_link_id via); /* that link is gone */

/* punch.c */
void at_punch_begin(struct link *l, const struct sockaddr_storage *arranger);
void at_punch_go(struct link *l, const struct at_endpoint *peer, uint32_t wait_ms);
bool at_punch_going(const struct link *l);               /* the peer's address is known */
struct at_endpoint at_punch_local(const struct link *l); /* from where it connects; ip_bytes 0: not known yet */
void at_punch_close(struct link *l);      /* at once, or when its time is over; safe when there is none */
bool at_punch_open(const struct link *l); /* libuv still holds a part of it */

/* splice.c: meetings that this node arranges */
bool at_leg_sniff(struct link *l, struct at_span *bytes); /* true: taken; false: `bytes` is for TLS */
bool at_leg_may_read(const struct link *l);
void at_leg_take(struct link *l, struct at_span bytes);
void at_leg_end_of_file(struct link *l);
void at_leg_part(struct link *l); /* it is failing: the other one must not look for it */
void at_arranger_step(struct at_net *net, struct at_arrange_event *ev);
void at_arranger_tick(struct at_net *net);
/* The credit of one of `pairs` relays after past_ms more: its share, and never more than an eighth of a second's. */
int64_t at_relay_credit(int64_t credit, uint64_t bytes_per_s, uint64_t past_ms, uint32_t pairs);

#endif
