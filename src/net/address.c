#include "net/address.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

static const uint8_t disguise[12] = {[10] = 0xff, [11] = 0xff};

struct at_endpoint at_address_of(const struct sockaddr *sa)
{
    struct at_endpoint e = {.ip_bytes = 0};
    if (sa->sa_family == AF_INET) {
        const struct sockaddr_in *in4 = (const struct sockaddr_in *)(const void *)sa;
        memcpy(e.ip, &in4->sin_addr, 4);
        e.ip_bytes = 4;
        e.port = ntohs(in4->sin_port);
    } else if (sa->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)sa;
        const uint8_t *ip = in6->sin6_addr.s6_addr;
        bool is4 = memcmp(ip, disguise, sizeof disguise) == 0;
        e.ip_bytes = is4 ? 4 : 16;
        memcpy(e.ip, is4 ? ip + 12 : ip, e.ip_bytes);
        e.port = ntohs(in6->sin6_port);
    }
    return e;
}

void at_address_to(const struct at_endpoint *e, struct sockaddr_storage *ret_sa)
{
    memset(ret_sa, 0, sizeof *ret_sa);
    if (e->ip_bytes == 16) {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret_sa;
        in6->sin6_family = AF_INET6;
        memcpy(&in6->sin6_addr, e->ip, 16);
    } else {
        struct sockaddr_in *in4 = (struct sockaddr_in *)ret_sa;
        in4->sin_family = AF_INET;
        memcpy(&in4->sin_addr, e->ip, 4);
    }
    at_address_set_port(ret_sa, e->port);
}

void at_address_set_port(struct sockaddr_storage *sa, uint16_t port)
{
    if (sa->ss_family == AF_INET6)
        ((struct sockaddr_in6 *)sa)->sin6_port = htons(port);
    else
        ((struct sockaddr_in *)sa)->sin_port = htons(port);
}

void at_address_host(const struct at_endpoint *e, char ret_host[48])
{
    if (e->ip_bytes == 0 || uv_inet_ntop(e->ip_bytes == 16 ? AF_INET6 : AF_INET, e->ip, ret_host, 48) != 0)
        snprintf(ret_host, 48, "?");
}

struct at_address_text at_address_text(const struct at_endpoint *e)
{
    struct at_address_text text;
    char host[48];
    at_address_host(e, host);
    snprintf(text.s, sizeof text.s, e->ip_bytes == 16 ? "[%s]:%u" : "%s:%u", host, e->port);
    return text;
}

bool at_address_numeric(const char *host, uint16_t port, struct sockaddr_storage *ret_sa)
{
    memset(ret_sa, 0, sizeof *ret_sa);
    if (strcmp(host, "localhost") == 0) host = "127.0.0.1";
    return uv_ip4_addr(host, port, (struct sockaddr_in *)ret_sa) == 0 ||
           uv_ip6_addr(host, port, (struct sockaddr_in6 *)ret_sa) == 0;
}
