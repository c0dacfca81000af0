/* Everything that passes a host: an AF_PACKET reader that looks for the secret and the canary in each packet. */
#define _GNU_SOURCE /* memmem */
#include "nat_tool.h"

#include "net/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int nat_capture(void)
{
    static char packet[1 << 17];
    int fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL)), room = 64 << 20;
    uint64_t packets = 0, bytes = 0, secrets = 0, canaries = 0;
    if (fd < 0) {
        printf("cannot capture: %s\n", strerror(errno));
        return 1;
    }
    /* As much as may be had: nothing shall be lost when this process gets no turn for a while. */
    bool roomy = setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) == 0;
    printf("capturing\n");
    fflush(stdout);
    for (bool ending = false;;) {
        struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
        if (poll(p, ending ? 1 : 2, ending ? 0 : -1) < 0 && errno != EINTR) return 1;
        ssize_t n = p[0].revents ? recv(fd, packet, sizeof packet, MSG_DONTWAIT | MSG_TRUNC) : 0;
        if (ending && n <= 0) break;
        if (n > (ssize_t)sizeof packet) return 1;
        if (n > 0) {
            packets++;
            bytes += (uint64_t)n;
            secrets += memmem(packet, (size_t)n, NAT_SECRET, strlen(NAT_SECRET)) != NULL;
            canaries += memmem(packet, (size_t)n, NAT_CANARY, strlen(NAT_CANARY)) != NULL;
        }
        char c;
        if (p[1].revents && read(STDIN_FILENO, &c, 1) <= 0) ending = true;
    }
    struct tpacket_stats stats = {0};
    socklen_t size = sizeof stats;
    (void)getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &stats, &size);
    printf("packets=%llu bytes=%llu secrets=%llu canaries=%llu lost=%u%s\n", (unsigned long long)packets,
           (unsigned long long)bytes, (unsigned long long)secrets, (unsigned long long)canaries, stats.tp_drops,
           roomy ? "" : " (little room)");
    close(fd);
    return 0;
}

int nat_shout(const char *host)
{
    struct sockaddr_storage sa;
    if (!at_address_numeric(host, 9, &sa)) return 1;
    int fd = socket(sa.ss_family, SOCK_DGRAM, 0);
    ssize_t n = sendto(fd, NAT_CANARY, strlen(NAT_CANARY), 0, (struct sockaddr *)&sa,
                       sa.ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
    if (fd >= 0) close(fd);
    return n > 0 ? 0 : 1;
}
