/* portmap.h: asks the gateway to forward a port to this node: NAT-PMP (RFC 6886), then UPnP IGD. Optional; IPv4 only, for
 * IPv6 has no translation, and holes in its firewalls are punched (punch.c).
 *
 * Nothing is asked unless somebody calls start, and for a loopback address it refuses: a node that listens to its own
 * machine needs no hole. The libraries block, and bound neither time nor memory of what a gateway answers. So a child
 * process, the keeper, is forked; it forks another one for each question, which has question_s seconds, on Linux
 * AT_PORTMAP_CHILD_BYTES more memory than at its start (without /proc to tell how much that is, nothing is asked), and may
 * only send back a note of a fixed size, checked like a stranger's. The keeper itself reads nothing else. It renews the
 * lease: first after a minute, for a keeper of this node's previous run may still have removed the mapping, then at half of
 * it, and every ten minutes, for a router that was started anew has forgotten it and may have another address. It remembers
 * the last mapping that was made, and removes that one when this process is gone, however that ended, and when it gets
 * another; a removal that fails or is not answered leaves a mapping until its lease is over. None is made
 * without a lease: a gateway that only knows permanent ones is not used.
 * Two calls, for a fork has a copy of this process's memory: start the keeper before the node's key is read, and tell it the
 * port when the node listens.
 * Thread rule: the loop's thread. */
#ifndef ATOLL_NET_PORTMAP_H
#define ATOLL_NET_PORTMAP_H

#include "wire/endpoint.h"

#include <uv.h>

#define AT_PORTMAP_CHILD_BYTES ((size_t)32 << 20)
#define AT_PORTMAP_TEXT_BYTES  96
#define AT_PORTMAP_NOTE_BYTES  128

/* What the child says. On the pipe: byte 0 mapped (0 or 1), 1 the length of text, 2-3 port and 4-7 lease_s
 * (little-endian), 8-11 the IPv4 address, 12-107 text and then zeros to its end. Not mapped: port, lease and address are
 * zero. */
struct at_portmap_note {
    bool mapped;
    struct at_endpoint outside; /* where the gateway forwards from; may be private: a second gateway behind it */
    uint32_t lease_s;           /* 1 .. a week; renewed at half of it */
    char text[AT_PORTMAP_TEXT_BYTES + 1]; /* by which protocol; or why not */
};
/* An address that others may dial and a lease within its limits. */
bool at_portmap_note_ok(const struct at_portmap_note *note);
void at_portmap_note_encode(const struct at_portmap_note *note, uint8_t ret_bytes[AT_PORTMAP_NOTE_BYTES]);
at_err at_portmap_note_decode(const uint8_t bytes[AT_PORTMAP_NOTE_BYTES],
                              struct at_portmap_note *ret_note); /* AT_E_PEER */

/* How a gateway is asked. Runs in the child, may block. */
struct at_portmap_protocol {
    const char *name;
    /* True: *note has outside and lease_s. False: note->text says why not. */
    bool (*map)(uint16_t port, uint32_t lease_s, struct at_portmap_note *note);
    void (*unmap)(uint16_t port, const struct at_portmap_note *note);
    bool one_per_port; /* a new mapping of the port takes the place of the old one, which unmap could not tell apart */
};
/* Of a UPnP device: plain HTTP at a numeric IPv4 address in a private net that is not this machine. */
bool at_portmap_url_ok(const char *url);
/* Those of this build, in the order in which they are tried; may be none. */
const struct at_portmap_protocol *at_portmap_protocols(size_t *ret_count);

struct at_portmap_options {                      /* zero means the default in brackets */
    uint32_t lease_s;                            /* [3600] asked for */
    uint32_t renew_s_first, renew_s_min;         /* [60, 30] */
    uint32_t retry_s;                            /* [600] nothing is mapped, or it was and may be no more */
    uint32_t question_s;                         /* [20] for all protocols together, and for a removal */
    const struct at_portmap_protocol *protocols; /* [at_portmap_protocols] */
    size_t protocol_count;
};

struct at_portmap;
typedef void at_portmap_fn(void *user,
                           const struct at_portmap_note *note); /* borrowed; not from within start or stop */
/* AT_E_ENV: no child. */
at_err at_portmap_start(uv_loop_t *loop, const struct at_portmap_options *options, at_portmap_fn *on_note, void *user,
                        struct at_diag *diag, struct at_portmap **ret_portmap);
/* Once. host, port: where this node listens. AT_E_USAGE: a loopback or IPv6-only address. News come each time that something
 * changed; after the keeper's end (said as a note that is not mapped) no more. */
at_err at_portmap_ask(struct at_portmap *p, const char *host, uint16_t port, struct at_diag *diag);
/* No news any more; the mapping goes away within seconds, by the keeper alone. Freed after the loop ran. NULL is fine. */
void at_portmap_stop(struct at_portmap *p);

#endif
