#include "wire/endpoint.h"

#include <string.h>

static bool all_zero(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i]) return false;
    return true;
}

static const uint8_t disguise[12] = {[10] = 0xff, [11] = 0xff};

static bool disguised(const struct at_endpoint *e)
{
    return memcmp(e->ip, disguise, sizeof disguise) == 0;
}

static const uint8_t translated[12] = {0x00, 0x64, 0xff, 0x9b}; /* 64:ff9b::/96 */

static bool link_local(const struct at_endpoint *e)
{
    if (e->ip_bytes == 4) return e->ip[0] == 169 && e->ip[1] == 254;
    return e->ip[0] == 0xfe && (e->ip[1] & 0xc0) == 0x80;
}

bool at_endpoint_ok(const struct at_endpoint *e)
{
    if (e->port == 0 || link_local(e)) return false;
    if (e->ip_bytes == 4) return e->ip[0] != 0 && e->ip[0] < 224;
    if (e->ip_bytes != 16) return false;
    return e->ip[0] != 0xff && !disguised(e) && !all_zero(e->ip, 16);
}

bool at_endpoint_loopback(const struct at_endpoint *e)
{
    if (e->ip_bytes == 4) return e->ip[0] == 127;
    return e->ip_bytes == 16 && all_zero(e->ip, 15) && e->ip[15] == 1;
}

bool at_endpoint_private(const struct at_endpoint *e)
{
    const uint8_t *ip = e->ip;
    if (at_endpoint_loopback(e) || link_local(e)) return true;
    if (e->ip_bytes == 16)
        return (ip[0] & 0xfe) == 0xfc || (ip[0] == 0xfe && (ip[1] & 0xc0) == 0xc0) || all_zero(ip, 12) ||
               disguised(e) || (memcmp(ip, translated, sizeof translated) == 0);
    return ip[0] == 10 || (ip[0] == 172 && (ip[1] & 0xf0) == 16) || (ip[0] == 192 && ip[1] == 168) ||
           (ip[0] == 100 && (ip[1] & 0xc0) == 64);
}

bool at_endpoint_same_host(const struct at_endpoint *a, const struct at_endpoint *b)
{
    return a->ip_bytes == b->ip_bytes && memcmp(a->ip, b->ip, a->ip_bytes) == 0;
}

bool at_endpoint_eq(const struct at_endpoint *a, const struct at_endpoint *b)
{
    return a->port == b->port && at_endpoint_same_host(a, b);
}

bool at_endpoint_same_origin(const struct at_endpoint *a, const struct at_endpoint *b)
{
    return a->ip_bytes == b->ip_bytes && memcmp(a->ip, b->ip, a->ip_bytes == 16 ? 8 : a->ip_bytes) == 0;
}

void at_endpoint_pack(const struct at_endpoint *e, uint8_t ret[AT_ENDPOINT_BYTES])
{
    bool v4 = e->ip_bytes == 4;
    if (v4) memcpy(ret, disguise, sizeof disguise);
    memcpy(ret + (v4 ? sizeof disguise : 0), e->ip, v4 ? 4 : 16);
    ret[16] = (uint8_t)e->port;
    ret[17] = (uint8_t)(e->port >> 8);
}

struct at_endpoint at_endpoint_unpack(const uint8_t bytes[AT_ENDPOINT_BYTES])
{
    struct at_endpoint e = {.port = (uint16_t)(bytes[16] | bytes[17] << 8)};
    e.ip_bytes = memcmp(bytes, disguise, sizeof disguise) == 0 ? 4 : 16;
    memcpy(e.ip, bytes + 16 - e.ip_bytes, e.ip_bytes);
    return e;
}
