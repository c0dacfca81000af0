/* link.h: one link's inside (net.c and link.c only): socket, TLS session, three queues, and the state below.
 *
 *   LOOKUP -> CONNECT -> HANDSHAKE -> UP -> CLOSING -> DEAD     (accepted links begin at HANDSHAKE)
 *
 * UP begins with the first whole frame of the peer, a Ping: only then has the other side accepted our key too.
 * CLOSING sends what is queued, shuts the sending side and waits for the peer's end of file, for at most half a second.
 * DEAD: the socket is being closed; DOWN is told at the next turn. Any state may go to DEAD, never back.
 * Events about a link (FRAME, UP) come from reading; DRAIN and DOWN from the turn, never from a call of the user's. */
#ifndef ATOLL_NET_LINK_H
#define ATOLL_NET_LINK_H

#include "net/net.h"
#include "net/tls.h"
#include "wire/message.h"

#define LINK_WRITE_BYTES ((size_t)256 << 10) /* handed to the kernel at a time */
#define LINK_CLOSE_MS    500
#define LINK_REASON_MAX  192

enum link_state { LINK_LOOKUP = 1, LINK_CONNECT, LINK_HANDSHAKE, LINK_UP, LINK_CLOSING, LINK_DEAD };

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
    bool dialed, tls_done, told_up, told_down, reading, write_busy, handle_open, lookup_busy, shut_sent, bulk_refused;
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_getaddrinfo_t lookup;
    uv_write_t write;
    uv_shutdown_t shutdown;
    struct at_tls tls;
    struct at_node_id expected;
    char host[48]; /* of the other side, numeric */
    char address[64];
    struct at_buf in;  /* decrypted, not yet a whole frame */
    struct at_buf out; /* encrypted, on its way to the kernel */
    struct link_queue queue[AT_FRAME_CLASS_COUNT];
    uint64_t born_ms, deadline_ms, heard_ms, pinged_ms, rtt_us;
    uint64_t turn; /* in which turn_bytes were read */
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
    uv_timer_t tick;
    uint32_t open_handles; /* of listener, before_poll, after_poll, tick */
    bool listening, releasing;
    uint64_t turn, next_id, tick_ms;
    struct link **link; /* [links_max], NULL where free */
    uint32_t link_count;
    uint8_t *read_buf;
    struct at_message_mem ping_mem;
    struct at_net_stats stats;
};

/* The link is over: first reason wins. The socket closes; DOWN at the next turn. */
void at_link_fail(struct link *l, at_err_t err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
at_err at_link_start_tls(struct link *l); /* the socket is connected */
at_err at_link_queue(struct link *l, enum at_frame_class cls, struct at_span payload);
void at_link_pump(struct link *l); /* encrypts and writes what may go now */
void at_link_resume(struct link *l);
void at_link_ping(struct link *l);
void at_link_free(struct link *l); /* memory; the handle is closed */
bool at_link_half_open(const struct link *l);

#endif
