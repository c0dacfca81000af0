#include "hostile_peer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

int hostile_connect(const struct target *t, unsigned from)
{
    struct sockaddr_in own = {.sin_family = AF_INET}, other = {.sin_family = AF_INET, .sin_port = htons(t->port)};
    struct timeval second = {.tv_sec = 1};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    own.sin_addr.s_addr = htonl(0x7f000000u | (from & 0xff));
    inet_pton(AF_INET, t->host, &other.sin_addr);
    if (fd < 0) return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &second, sizeof second);
    if (bind(fd, (const struct sockaddr *)&own, sizeof own) != 0 ||
        connect(fd, (const struct sockaddr *)&other, sizeof other) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool flush(struct peer *p)
{
    if (at_tls_take(&p->tls, &p->out) != AT_OK) return false;
    if (p->record && at_buf_append(&p->sent, p->out.p, p->out.n) != AT_OK) return false;
    for (size_t at = 0; at < p->out.n;) {
        ssize_t n = send(p->fd, p->out.p + at, p->out.n - at, MSG_NOSIGNAL);
        if (n <= 0) return false;
        at += (size_t)n;
    }
    at_buf_clear(&p->out);
    return true;
}

/* 1: something came; 0: nothing within the time; -1: the end. */
static int feed(struct peer *p, int timeout_ms)
{
    uint8_t bytes[16384];
    struct pollfd wait = {.fd = p->fd, .events = POLLIN};
    if (poll(&wait, 1, timeout_ms) <= 0) return 0;
    ssize_t n = recv(p->fd, bytes, sizeof bytes, 0);
    if (n <= 0) return -1;
    return at_tls_feed(&p->tls, at_span(bytes, (size_t)n)) == AT_OK ? 1 : -1;
}

bool peer_open(struct peer *p, const struct target *t, unsigned from, const struct at_keypair *key)
{
    bool done = false, record = p->record;
    memset(p, 0, sizeof *p);
    p->record = record;
    p->fd = hostile_connect(t, from);
    if (key != NULL) p->key = *key;
    if (p->fd < 0 || (key == NULL && at_keypair_generate(&p->key) != AT_OK) ||
        at_tls_ctx_init(&p->key, NULL, &p->ctx) != AT_OK || at_tls_init(&p->tls, p->ctx, true, &t->node) != AT_OK)
        return false;
    for (int turns = 0; turns < 50; turns++) {
        if (at_tls_handshake(&p->tls, &done) != AT_OK || !flush(p)) return false;
        if (done) return true;
        if (feed(p, 2000) <= 0) return false;
    }
    return false;
}

void peer_close(struct peer *p)
{
    if (p->fd >= 0) close(p->fd);
    at_tls_release(&p->tls);
    at_tls_ctx_release(p->ctx);
    at_buf_release(&p->out);
    at_buf_release(&p->in);
    at_buf_release(&p->sent);
    memset(p, 0, sizeof *p);
    p->fd = -1;
}

bool peer_send_bytes(struct peer *p, struct at_span bytes)
{
    return at_tls_write(&p->tls, bytes) == AT_OK && flush(p);
}

bool peer_send(struct peer *p, const struct at_message *msg)
{
    struct at_buf payload = {0}, frame = {0};
    bool sent = at_message_encode(msg, &payload) == AT_OK &&
                at_frame_append(&frame, at_message_class(msg->kind), at_buf_span(&payload),
                                AT_FRAME_PAYLOAD_BYTES_MAX) == AT_OK &&
                peer_send_bytes(p, at_buf_span(&frame));
    at_buf_release(&payload);
    at_buf_release(&frame);
    return sent;
}

bool peer_greet(struct peer *p, const struct target *t)
{
    struct at_message ping = {.kind = AT_MSG_PING}, hello = {.kind = AT_MSG_HELLO};
    hello.hello.protocol = AT_PROTOCOL_VERSION;
    hello.hello.run = t->run;
    strcpy(hello.hello.program, "somebody else");
    return peer_send(p, &ping) && peer_send(p, &hello);
}

static int next_frame(struct peer *p, struct at_message_mem *mem, struct at_message *ret_msg)
{
    struct at_frame frame;
    size_t used;
    if (at_frame_parse(at_buf_span(&p->in), AT_FRAME_PAYLOAD_BYTES_MAX, &frame, &used) != AT_OK) return -1;
    if (used == 0) return 0;
    int rc = at_message_decode(frame.payload, mem, NULL, ret_msg) == AT_OK ? 1 : -1;
    at_buf_consume(&p->in, used);
    return rc;
}

int peer_read(struct peer *p, int timeout_ms, struct at_message_mem *mem, struct at_message *ret_msg)
{
    for (;;) {
        uint8_t *room;
        size_t n = 0;
        bool closed = false;
        int rc = next_frame(p, mem, ret_msg);
        if (rc == 1 && ret_msg->kind == AT_MSG_PING) {
            ret_msg->kind = AT_MSG_PONG;
            if (!peer_send(p, ret_msg)) return -1;
            continue;
        }
        if (rc != 0) return rc;
        if (at_buf_reserve(&p->in, 16384, &room) != AT_OK || at_tls_read(&p->tls, room, 16384, &n, &closed) != AT_OK)
            return -1;
        p->in.n += n;
        if (n > 0) continue;
        rc = feed(p, timeout_ms);
        if (rc <= 0) return rc;
    }
}
