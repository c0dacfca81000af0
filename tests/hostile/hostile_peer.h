/* hostile_peer.h: a stranger's side of a link, for tests that break its rules: TCP, TLS with a key of its own, frames as
 * raw bytes. It blocks, at most for a second at a time; whatever the other side does is an answer, never an error here. */
#ifndef ATOLL_HOSTILE_PEER_H
#define ATOLL_HOSTILE_PEER_H

#include "net/tls.h"
#include "wire/message.h"

struct target {
    const char *host; /* IPv4 */
    uint16_t port;
    struct at_node_id node;
    struct at_hash run;
};

struct peer {
    int fd; /* -1: none */
    struct at_keypair key;
    struct at_tls_ctx *ctx;
    struct at_tls tls;
    struct at_buf out, in; /* ciphertext to be sent; frames that came, not cut yet */
    struct at_buf sent;    /* all ciphertext sent so far, when `record` */
    bool record;
};

/* A connected socket from 127.0.0.`from` (each an address of its own, as strangers have), or -1. */
int hostile_connect(const struct target *t, unsigned from);

/* TLS done; false: the other side would not. `key` NULL: a new one. */
bool peer_open(struct peer *p, const struct target *t, unsigned from, const struct at_keypair *key);
void peer_close(struct peer *p);
/* Plain bytes into the session. False: the link is over. */
bool peer_send_bytes(struct peer *p, struct at_span bytes);
bool peer_send(struct peer *p, const struct at_message *msg);
/* A Ping (nothing else may come first) and a Hello of the run. */
bool peer_greet(struct peer *p, const struct target *t);
/* Waits at most timeout_ms for a message: 1 it came (borrowed from mem), 0 none, -1 the link is over. Pings are answered
 * and not told. */
int peer_read(struct peer *p, int timeout_ms, struct at_message_mem *mem, struct at_message *ret_msg);

#endif
