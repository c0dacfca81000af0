/* A gateway that speaks NAT-PMP (RFC 6886), as far as a node asks it: its address, and mappings of TCP ports, which it
 * only prints: nat.sh has forwarded the port beforehand. It says its address three times, as one that was asked again does. */
#include "nat_tool.h"

#include "net/address.h"

#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NATPMP_PORT 5351

static uint32_t be(const uint8_t *p, int n)
{
    uint32_t v = 0;
    for (int i = 0; i < n; i++) v = v << 8 | p[i];
    return v;
}

/* Bytes of the answer in `out`; 0: no question that is known. */
static size_t answer(const uint8_t *in, size_t n, const struct at_endpoint *outside, uint8_t out[16])
{
    memset(out, 0, 16);
    if (n < 2 || in[0] != 0) return 0;
    out[1] = (uint8_t)(128 + in[1]);
    out[7] = 1; /* seconds since it started */
    if (in[1] == 0) {
        memcpy(out + 8, outside->ip, 4);
        return 12;
    }
    if (in[1] != 2 || n < 12) return 0;
    memcpy(out + 8, in + 4, 8); /* both ports and the lifetime, as wished */
    printf("map inside=%u outside=%u lifetime=%u\n", be(in + 4, 2), be(in + 6, 2), be(in + 8, 4));
    fflush(stdout);
    return 16;
}

int nat_gateway(const char *inside, const char *outside)
{
    struct sockaddr_storage sa, out;
    uint8_t question[64], reply[16];
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (!at_address_numeric(inside, NATPMP_PORT, &sa) || !at_address_numeric(outside, 0, &out)) return 1;
    struct at_endpoint e = at_address_of((struct sockaddr *)&out);
    if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(struct sockaddr_in)) != 0) return 1;
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
        socklen_t size = sizeof sa;
        if (poll(p, 2, -1) <= 0) continue;
        if (p[1].revents) break;
        ssize_t n = recvfrom(fd, question, sizeof question, 0, (struct sockaddr *)&sa, &size);
        size_t bytes = n > 0 ? answer(question, (size_t)n, &e, reply) : 0;
        for (int i = bytes == 12 ? 3 : bytes ? 1 : 0; i > 0; i--)
            (void)sendto(fd, reply, bytes, 0, (struct sockaddr *)&sa, size);
    }
    close(fd);
    return 0;
}
