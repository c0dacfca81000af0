/* comm.h: how the pure layers are handed links to the other ranks of a run, as par.h hands them threads. The links
 * themselves belong to net/: TLS between processes, shared memory between threads, MPI.
 *
 * Messages between two ranks with one tag arrive whole and in the order in which they were posted; tags are independent
 * of each other. Send and receive are matched by (from, to, tag) and name the same number of bytes (a mismatch is
 * AT_E_PEER). Posting never blocks; the bytes are borrowed until the transfer is waited for: they are sent from, and
 * received into, where they lie. Every transfer must be waited for, also after an error.
 *
 * Failure is for all: once a rank is dead, hung, of another program, or has called fail(), every wait of every rank ends
 * within 6 seconds with AT_E_PEER (or the code given to fail) and the same text, which names rank, replica, stage and
 * peer. They are seconds in which the ranks that judge are given a processor, and they begin when the last bytes of a hung
 * rank have arrived. Only a path that loses everything between two ranks which rank 0 still hears takes up to 14: neither
 * of them is dead or hung. One thread of a rank posts and waits. */
#ifndef ATOLL_BASE_COMM_H
#define ATOLL_BASE_COMM_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Names a posted transfer; 0 is none. */
struct at_transfer {
    uint64_t v;
};

struct at_comm_ops {
    struct at_transfer (*send)(void *link, int to, uint32_t tag, const void *bytes, size_t n); /* n >= 1 */
    struct at_transfer (*recv)(void *link, int from, uint32_t tag, void *bytes, size_t n);
    at_err_t (*wait)(void *link, struct at_transfer t, struct at_diag *diag); /* blocks; {0} is done at once */
    bool (*done)(void *link, struct at_transfer t); /* without blocking: whether wait would return at once */
    /* This rank cannot go on: everybody ends with this code and text (the first failure wins). */
    void (*fail)(void *link, at_err_t err, const char *where, const char *text);
    uint64_t (*bytes_sent)(void *link); /* payload given to send, to other ranks */
};

struct at_comm {
    int rank, ranks;
    const struct at_comm_ops *ops;
    void *link;
};

static inline struct at_transfer at_comm_send(const struct at_comm *c, int to, uint32_t tag, const void *bytes,
                                              size_t n)
{
    return c->ops->send(c->link, to, tag, bytes, n);
}
static inline struct at_transfer at_comm_recv(const struct at_comm *c, int from, uint32_t tag, void *bytes, size_t n)
{
    return c->ops->recv(c->link, from, tag, bytes, n);
}
static inline at_err at_comm_wait(const struct at_comm *c, struct at_transfer t, struct at_diag *diag)
{
    return c->ops->wait(c->link, t, diag);
}

#endif
