/* net.h: links between nodes: TCP + TLS 1.3, both keys pinned, framed, three priorities, everything bounded.
 *
 * What it is: a set of links on one libuv loop. Each side shows a self-signed Ed25519 certificate made from its node
 * key; the certificate's public key IS the node id and nothing else in it is believed. A dialer says whom it expects; a
 * listener takes anybody with an Ed25519 key and leaves judging the id to its caller. What it is not: it knows no run
 * and no member, and of the messages only Ping and Pong, which it sends, answers and keeps to itself.
 *
 * Ways to a node: dial its address; or, over a link to a third node that both have one to (the arranger, wire/meet.h),
 * punch or relay. In every case the two ends do the same TLS handshake, each pins the other's key, and the arranger of a
 * relay moves ciphertext that it can neither read nor forge. at_net_meet begins it; the asked side gets an UP by itself.
 * Without `allow` a node has no part in this: messages about meetings are its caller's like any others, and no answer is
 * sent. With it, it may ask; it is asked only with may_be_invited, arranges only with meets_max, and takes all of it only
 * from an arranger that it dialed itself (so that nobody can make it connect to an address that it did not choose), punches
 * to no private address unless the arranger's is private too, to no port below 1024 and not to itself. Invitations hold at
 * most 8 links, 4 for arrangers of one origin, and never the last quarter of links_max.
 *
 * Frames (wire/frame.h) have at most AT_NET_FRAME_BYTES_MAX of payload. Waiting ones leave in the order control,
 * activation, bulk; within a class in the order given. A frame of the other classes than control has at most
 * AT_NET_BULK_BYTES_MAX, so a control frame never waits for more than one of them, besides the 256 KiB that are already
 * on their way to the kernel.
 *
 * Bounds (struct at_net_options): links in all and per address; half-open links in all and per address (the oldest
 * gives way); queued bytes per link and class; bytes read per link and turn of the loop. Overflow of control closes the
 * link ("peer does not read"); overflow of activation or bulk refuses the frame, and DRAIN of its class says when to try
 * again.
 * Meetings: how many this node arranges at once, in all, per node, and of them relays (0 unless asked for); how fast one
 * peer may ask; bytes a second of all relays; silence on a relay, its bytes and its life. A relay takes two of the links in
 * all, and reads from one side only what the other side has taken.
 * Liveness: a ping per second and link; end of file at once, silence for silence_ms and 23 round trips (7 s of them at most):
 * DOWN. A handshake has handshake_ms, and its first frame must be a Ping.
 *
 * Events come one by one through the caller's function, from inside the loop; their pointers are borrowed until it
 * returns. From it at_net_send, at_net_close, at_net_dial and the queries may be called (they only queue), but not
 * at_net_release. A link's events are: UP once, then FRAME and DRAIN, then DOWN once; or only DOWN, when it never came
 * up. A link that somebody else opened and that failed before UP makes no event but is counted (at_net_stats).
 * Thread rule: the loop's thread only. Source: RFC 8446 (TLS 1.3), RFC 8410 (Ed25519 certificates),
 * RFC 5382 (what a NAT does to TCP). */
#ifndef ATOLL_NET_NET_H
#define ATOLL_NET_NET_H

#include "base/bytes.h"
#include "base/sign.h"
#include "wire/frame.h"
#include "wire/meet.h"

#include <uv.h>

#define AT_NET_FRAME_BYTES_MAX ((size_t)AT_FRAME_PAYLOAD_BYTES_MAX)
#define AT_NET_BULK_BYTES_MAX  (((size_t)256 << 10) + 4096) /* a quarter MiB of data and the message around it */

/* Names a link for ever: never reused within a process. 0 is no link. */
struct at_link_id {
    uint64_t v;
};

/* May these two meet, arranged by `arranger`: by us (then it is this node), or with us (then target is)? NULL: yes; else why
 * not. Asked again at each tick of a relay that runs here: a no ends it. */
typedef const char *at_net_allow_fn(void *user, const struct at_node_id *asker, const struct at_node_id *target,
                                    const struct at_node_id *arranger);

struct at_net_options {                         /* zero means the default in brackets */
    uint32_t links_max;                         /* [256] */
    uint32_t half_open_max;                     /* [64] accepted links whose peer is not proven yet */
    uint32_t half_open_per_address;             /* [16] */
    uint32_t links_per_address;                 /* [64] accepted, whether proven or not: one stranger cannot take all */
    size_t control_bytes_max;                   /* [16 MiB] queued per link */
    size_t bulk_bytes_max;                      /* [4 MiB] queued per link, activation and bulk each */
    size_t read_bytes_per_turn;                 /* [1 MiB] */
    uint32_t handshake_ms, ping_ms, silence_ms; /* [5000, 1000, 5000] */
    uint32_t meets_max;                         /* [0] arranged at once, relays that run included; 0: none */
    uint32_t relays_max;                        /* [0] of them; 0: none */
    uint32_t meets_per_node;                    /* [8] of them, as asker or target */
    uint32_t meet_ms, punch_ms; /* [5000, 2500] for each answer of a meeting; for connecting in a punch */
    uint64_t relay_bytes_per_s; /* [64 MiB] of all relays together, shared evenly */
    uint32_t relay_idle_ms;     /* [30000] */
    uint32_t relay_life_ms;     /* [3600000] */
    uint64_t relay_bytes_max;   /* [8 GiB] of one relay, both ways */
    at_net_allow_fn *allow;     /* [NULL: no part in meetings] */
    bool may_be_invited;        /* [false] others may ask for a meeting with us */
    bool meet_loopback;         /* [false] meetings over this machine's own addresses: for tests */
};

enum at_net_way { AT_NET_DIRECT, AT_NET_RELAYED, AT_NET_PUNCHED };

enum at_net_event_kind {
    AT_NET_UP = 1, /* peer proven, both ways: id, address, dialed, way */
    AT_NET_FRAME,  /* frame_class, payload */
    AT_NET_DRAIN,  /* frame_class was refused before and has room again */
    AT_NET_DOWN,   /* err, reason; the link is gone */
};
struct at_net_event {
    enum at_net_event_kind kind;
    struct at_link_id link;
    struct at_node_id peer; /* DOWN before UP: the id that was dialed */
    const char *address;    /* "host:port" of the other side; of the relay, where way says so */
    bool dialed;            /* we opened it, or asked for it */
    enum at_net_way way;
    enum at_frame_class frame_class;
    struct at_span payload;
    at_err_t err;       /* DOWN: AT_OK closed by us, AT_E_PEER the peer's doing, AT_E_ENV ... */
    bool wrong_key;     /* DOWN: somebody answered, but not the one that was dialed */
    const char *reason; /* DOWN: for people */
};
typedef void at_net_event_fn(void *user, const struct at_net_event *event);

struct at_net;

/* `loop` and `key` are borrowed and outlive it (the key is copied into the certificate). */
at_err at_net_init(uv_loop_t *loop, const struct at_keypair *key, const struct at_net_options *options,
                   at_net_event_fn *on_event, void *user, struct at_diag *diag, struct at_net **ret_net);
/* Closes everything and frees after the loop has run the close callbacks: the caller runs the loop until it is empty.
 * No events. */
void at_net_release(struct at_net *net);

/* host: numeric IPv4 or IPv6; "::" takes both families. port 0: the system picks; *ret_port says which. AT_E_PORT naming host and port when it is
 * taken. */
at_err at_net_listen(struct at_net *net, const char *host, uint16_t port, struct at_diag *diag, uint16_t *ret_port);

/* Begins a link to `expected` at host:port (a name is looked up). UP or DOWN follows. AT_E_TOO_BIG past links_max. */
at_err at_net_dial(struct at_net *net, const char *host, uint16_t port, const struct at_node_id *expected,
                   struct at_link_id *ret_link);

/* Begins a link to `target` by a meeting that the node at the other end of `via` arranges. UP or DOWN follows; DOWN's
 * reason is the arranger's or the target's own, if one refuses before both have connected; afterwards nobody tells why the
 * other one failed. AT_E_NOT_FOUND: `via` is not up. AT_E_USAGE: it is no direct link that we dialed, or there is no `allow`.
 * AT_E_TOO_BIG past links_max. */
at_err at_net_meet(struct at_net *net, struct at_link_id via, enum at_meet_how how, const struct at_node_id *target,
                   struct at_link_id *ret_link);

/* Asks the other end of a direct link that we dialed how it sees us; every peer understands it.
 * AT_E_NOT_FOUND: the link is not up; AT_E_USAGE: no such link, or no `allow`. */
at_err at_net_look(struct at_net *net, struct at_link_id link);
/* The answer. AT_E_NOT_FOUND: it has not said so (yet). */
at_err at_net_seen(const struct at_net *net, struct at_link_id link, struct at_endpoint *ret_endpoint);

/* Queues a copy. AT_E_TOO_BIG: queue of activation or bulk full (wait for DRAIN) or the frame larger than its class allows;
 * AT_E_NOT_FOUND: no such link any more (its DOWN is on the way or has been told). */
at_err at_net_send(struct at_net *net, struct at_link_id link, enum at_frame_class frame_class, struct at_span payload);

/* Sends what is queued (for at most half a second), then closes; DOWN follows, with `reason`. */
void at_net_close(struct at_net *net, struct at_link_id link, const char *reason);

/* Last measured round trip in microseconds, 0 when unknown. */
uint64_t at_net_rtt_us(const struct at_net *net, struct at_link_id link);
/* The least of all so far: what the way takes where nothing waits on it. 0 when unknown. */
uint64_t at_net_rtt_least_us(const struct at_net *net, struct at_link_id link);
/* What has come over the link, in kbit/s, at least, as base/line_rate.h says: of frames of activation and bulk that came in
 * parts. 0: not known. */
uint32_t at_net_rate_kbit(const struct at_net *net, struct at_link_id link);

struct at_net_stats {
    uint64_t bytes_in, bytes_out, frames_in, frames_out; /* payload and TLS on the wire; frames of all classes */
    uint64_t class_out[AT_FRAME_CLASS_COUNT];            /* bytes of frames sent, before TLS */
    uint64_t refused;                                    /* inbound links that never came up */
    uint64_t relayed_bytes;                              /* moved between others */
    uint32_t links, half_open, meets, relays;            /* meets: arranged now; relays: that run now */
    char refused_reason[128];                            /* the latest of them */
};
struct at_net_stats at_net_stats(const struct at_net *net);

#endif
