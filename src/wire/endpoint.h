/* endpoint.h: an IP address and a port as nodes tell them to each other. Pure; text and sockets are above (net/address).
 * An IPv4 address has 4 bytes here, never its IPv6 disguise (::ffff:a.b.c.d, RFC 4291 2.5.5.2), which only the packed form
 * uses. */
#ifndef ATOLL_WIRE_ENDPOINT_H
#define ATOLL_WIRE_ENDPOINT_H

#include "base/bytes.h"

#define AT_ENDPOINT_BYTES 18 /* packed */

struct at_endpoint {
    uint8_t ip[16];   /* network order; the first ip_bytes of them */
    uint8_t ip_bytes; /* 4 or 16; 0: none */
    uint16_t port;
};

/* May somebody be told to connect there? A port, one host, an address of the net: not 0.0.0.0/8, multicast, broadcast,
 * link-local (its scope means nothing elsewhere) or a disguised IPv4 address. Loopback passes: see at_endpoint_loopback. */
bool at_endpoint_ok(const struct at_endpoint *e);
bool at_endpoint_loopback(const struct at_endpoint *e); /* 127/8 or ::1 */
/* Not routed on the Internet, or by way of a translator to who knows where: RFC 1918, shared space (RFC 6598), loopback,
 * link-local, unique and site local IPv6 (RFC 4193, RFC 3879), IPv4 inside IPv6 (RFC 6052, RFC 4291 2.5.5). */
bool at_endpoint_private(const struct at_endpoint *e);
bool at_endpoint_same_host(const struct at_endpoint *a, const struct at_endpoint *b); /* whatever the port */
bool at_endpoint_eq(const struct at_endpoint *a, const struct at_endpoint *b);
/* Does one host's owner hold both? IPv4: the same address; IPv6: the same /64, which is the least that anyone is given. */
bool at_endpoint_same_origin(const struct at_endpoint *a, const struct at_endpoint *b);

/* Packed: ip (16 bytes; IPv4 in its disguise) ‖ port (le16). An endpoint that is ok has one packed form, and unpack gives
 * it back. */
void at_endpoint_pack(const struct at_endpoint *e, uint8_t ret[AT_ENDPOINT_BYTES]);
struct at_endpoint at_endpoint_unpack(const uint8_t bytes[AT_ENDPOINT_BYTES]);

#endif
