/* chaos_relay.c: a link with delay and loss, in user space: it carries Ethernet frames between two interfaces of this
 * network namespace, each way, late and not all of them (the kernel's netem is not everywhere). Below TCP, so that losses
 * hurt as they do on a real link. Linux; needs CAP_NET_RAW in the namespace.
 *
 *   chaos_relay A B DELAY_MS LOSS_PERMILLE SEED    carries until it is killed; DELAY_MS is one way
 *   chaos_relay plain IFACE                        segmentation and checksums of IFACE are done before it sends: what is
 *                                                  carried as frames must be whole frames */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { FRAME_MAX = 2048, QUEUE_MAX = 8192 }; /* a full queue drops: as a router's does */

struct frame {
    uint64_t due_ns;
    size_t n;
    unsigned char p[FRAME_MAX];
};
struct way {
    int in, out;
    struct frame *queue; /* a ring: [first, first + count) */
    size_t first, count;
};

static uint64_t state;

_Noreturn static void die(const char *what)
{
    fprintf(stderr, "chaos_relay: %s: %s\n", what, strerror(errno));
    exit(5);
}

static uint32_t random32(void) /* splitmix64 */
{
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ z >> 31) >> 32);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int open_interface(const char *name)
{
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
    struct packet_mreq all = {.mr_type = PACKET_MR_PROMISC};
    int big = 4 << 20, fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(ETH_P_ALL));
    address.sll_ifindex = all.mr_ifindex = (int)if_nametoindex(name);
    if (fd < 0 || address.sll_ifindex == 0) die(name);
    if (bind(fd, (const struct sockaddr *)&address, sizeof address) != 0) die(name);
    (void)setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &big, sizeof big);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &big, sizeof big);
    return fd;
}

static void take(struct way *w, uint64_t delay_ns, uint32_t loss_permille)
{
    for (;;) {
        struct frame spare, *f = w->count < QUEUE_MAX ? &w->queue[(w->first + w->count) % QUEUE_MAX] : &spare;
        struct sockaddr_ll from;
        socklen_t bytes = sizeof from;
        ssize_t n = recvfrom(w->in, f->p, FRAME_MAX, MSG_TRUNC, (struct sockaddr *)&from, &bytes);
        if (n < 0 && (errno == EAGAIN || errno == EINTR || errno == ENETDOWN)) return;
        if (n < 0) die("receiving");
        if (from.sll_pkttype == PACKET_OUTGOING || n > FRAME_MAX) continue; /* our own; no single frame */
        if (f == &spare || random32() % 1000 < loss_permille) continue;
        f->n = (size_t)n;
        f->due_ns = now_ns() + delay_ns;
        w->count++;
    }
}

static void give(struct way *w)
{
    uint64_t now = now_ns();
    while (w->count > 0 && w->queue[w->first].due_ns <= now) {
        const struct frame *f = &w->queue[w->first];
        if (send(w->out, f->p, f->n, 0) < 0 && errno == EAGAIN) return;
        w->first = (w->first + 1) % QUEUE_MAX;
        w->count--;
    }
}

static int plain(const char *name)
{
    static const uint32_t off[] = {ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO, ETHTOOL_STXCSUM};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    for (size_t i = 0; i < sizeof off / sizeof *off; i++) {
        struct ethtool_value value = {.cmd = off[i], .data = 0};
        struct ifreq request = {.ifr_data = (void *)&value};
        snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
        if (ioctl(fd, SIOCETHTOOL, &request) != 0) die(name);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "plain") == 0) return plain(argv[2]);
    if (argc != 6) {
        fprintf(stderr, "usage: chaos_relay A B DELAY_MS LOSS_PERMILLE SEED | chaos_relay plain IFACE\n");
        return 2;
    }
    int a = open_interface(argv[1]), b = open_interface(argv[2]);
    uint64_t delay_ns = strtoull(argv[3], NULL, 10) * 1000000u;
    uint32_t loss = (uint32_t)strtoul(argv[4], NULL, 10);
    state = strtoull(argv[5], NULL, 10);
    struct way way[2] = {{.in = a, .out = b}, {.in = b, .out = a}};
    for (int i = 0; i < 2; i++)
        if ((way[i].queue = calloc(QUEUE_MAX, sizeof *way[i].queue)) == NULL) die("memory");
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct pollfd p[2] = {{.fd = a, .events = POLLIN}, {.fd = b, .events = POLLIN}};
        uint64_t due = UINT64_MAX, now = now_ns();
        for (int i = 0; i < 2; i++)
            if (way[i].count > 0 && way[i].queue[way[i].first].due_ns < due) due = way[i].queue[way[i].first].due_ns;
        int wait_ms = due == UINT64_MAX ? -1 : due <= now ? 0 : (int)((due - now + 999999) / 1000000);
        if (poll(p, 2, wait_ms) < 0 && errno != EINTR) die("waiting");
        for (int i = 0; i < 2; i++) take(&way[i], delay_ns, loss);
        for (int i = 0; i < 2; i++) give(&way[i]);
    }
}
