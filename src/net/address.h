/* address.h: addresses between text, sockets and messages (wire/endpoint.h). IPv4 and IPv6; an IPv4 address that a
 * dual-stack socket shows as ::ffff:a.b.c.d is IPv4 here. No look-ups: names are net/dial.c's. Any thread. */
#ifndef ATOLL_NET_ADDRESS_H
#define ATOLL_NET_ADDRESS_H

#include "wire/endpoint.h"

#include <sys/socket.h>

struct at_address_text {
    char s[64]; /* "1.2.3.4:5" or "[::1]:5" */
};
struct at_address_text at_address_text(const struct at_endpoint *e);
void at_address_host(const struct at_endpoint *e, char ret_host[48]); /* without the port */

/* Numeric IPv4 or IPv6 (with a scope, "fe80::1%eth0"); "localhost" is the one name that needs no look-up. */
bool at_address_numeric(const char *host, uint16_t port, struct sockaddr_storage *ret_sa);
/* ip_bytes 0 when it is of another family. */
struct at_endpoint at_address_of(const struct sockaddr *sa);
void at_address_to(const struct at_endpoint *e, struct sockaddr_storage *ret_sa);
void at_address_set_port(struct sockaddr_storage *sa, uint16_t port);

#endif
