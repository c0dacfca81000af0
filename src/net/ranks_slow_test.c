/* A path that takes longer than the patience for one TLS record: whoever is behind it is alive as long as bytes come, and
 * hung when none do. The path is a relay between rank 1 and rank 0. */
#include "net/ranks.h"
#include "os/sys.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    SILENCE_MS = 2000,
    MESSAGE_BYTES = 16000, /* one record */
    STEP_BYTES = 60,
    STEP_MS = 20, /* 3 kB/s at most: the record takes 5 s */
    LIMIT_MS = 60000,
};

enum pace { FAST, SLOW, STANDS_STILL };

struct relay {
    int listen_fd;
    uint16_t port, port_0; /* its own and rank 0's */
    atomic_int pace;       /* of what rank 1 sends; the other way all is fast until nothing moves */
    atomic_bool stop;
    pthread_t thread;
};

/* What is there, at most `bytes`; false: one side has ended. */
static bool move(int from, int to, size_t bytes)
{
    char b[65536];
    ssize_t n = recv(from, b, bytes < sizeof b ? bytes : sizeof b, 0);
    for (ssize_t sent = 0, put; sent < n; sent += put)
        if ((put = send(to, b + sent, (size_t)(n - sent), MSG_NOSIGNAL)) <= 0) return false;
    return n > 0;
}

static void *relay_main(void *arg)
{
    struct relay *r = arg;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(r->port_0)};
    struct pollfd wait = {.fd = r->listen_fd, .events = POLLIN};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (poll(&wait, 1, LIMIT_MS) != 1) return NULL;
    int low = socket(AF_INET, SOCK_STREAM, 0), high = accept(r->listen_fd, NULL, NULL);
    bool up = high >= 0 && connect(low, (struct sockaddr *)&a, sizeof a) == 0;
    while (up && !atomic_load(&r->stop)) {
        struct pollfd p[2] = {{.fd = low, .events = POLLIN}, {.fd = high, .events = POLLIN}};
        bool any = poll(p, 2, STEP_MS) > 0;
        int pace = atomic_load(&r->pace); /* after the bytes: what was sent at this pace moves at it */
        if (pace != FAST) nanosleep(&(struct timespec){0, STEP_MS * 1000000L}, NULL);
        if (pace == STANDS_STILL || !any) continue;
        if (p[0].revents != 0) up = move(low, high, SIZE_MAX);
        if (p[1].revents != 0) up &= move(high, low, pace == SLOW ? STEP_BYTES : SIZE_MAX);
    }
    close(low);
    close(high);
    return NULL;
}

struct rank {
    struct at_ranks_tls_options options;
    struct relay *relay;
    at_err_t init, slow, still;
    uint64_t slow_ms;
    struct at_diag diag;
    uint8_t message[MESSAGE_BYTES];
};

static void *rank_main(void *arg)
{
    struct rank *r = arg;
    struct at_ranks_tls *w = NULL;
    uint8_t b = 0, last;
    if ((r->init = at_ranks_tls_init(&r->options, &r->diag, &w)) != AT_OK) return NULL;
    struct at_comm c = at_ranks_tls_comm(w);
    int other = 1 - c.rank;
    if (c.rank == 1) { /* rank 0 has begun to wait; from here on the path is slow */
        r->slow = at_comm_wait(&c, at_comm_recv(&c, 0, 1, &b, 1), &r->diag);
        atomic_store(&r->relay->pace, SLOW);
        struct at_transfer t = at_comm_send(&c, 0, 2, r->message, sizeof r->message);
        if (r->slow == AT_OK) r->slow = at_comm_wait(&c, t, &r->diag);
        if (r->slow == AT_OK) r->slow = at_comm_wait(&c, at_comm_recv(&c, 0, 3, &b, 1), &r->diag);
        atomic_store(&r->relay->pace, STANDS_STILL);
    } else {
        uint64_t start_ms = at_clock_mono_ms();
        struct at_transfer first = at_comm_send(&c, 1, 1, &b, 1), t = at_comm_recv(&c, 1, 2, r->message, MESSAGE_BYTES);
        at_err_t sent = at_comm_wait(&c, first, &r->diag);
        r->slow = at_comm_wait(&c, t, &r->diag);
        r->slow_ms = at_clock_mono_ms() - start_ms;
        if (r->slow == AT_OK) r->slow = sent;
        sent = at_comm_wait(&c, at_comm_send(&c, 1, 3, &b, 1), &r->diag);
        if (r->slow == AT_OK) r->slow = sent;
    }
    r->still = at_comm_wait(&c, at_comm_recv(&c, other, 4, &last, 1), &r->diag);
    at_ranks_tls_release(w);
    return NULL;
}

static void slow_is_not_hung(void **state)
{
    static const char *const name[] = {"rank 0 (near)", "rank 1 (far)"};
    static struct rank rank[2];
    static struct relay relay;
    pthread_t thread[2];
    int fd = -1;
    assert_int_equal(at_ranks_listen("127.0.0.1", 0, NULL, &fd, &relay.port_0), AT_OK);
    assert_int_equal(at_ranks_listen("127.0.0.1", 0, NULL, &relay.listen_fd, &relay.port), AT_OK);
    assert_int_equal(pthread_create(&relay.thread, NULL, relay_main, &relay), 0);
    memset(rank[1].message, 77, MESSAGE_BYTES);
    for (int i = 0; i < 2; i++) {
        rank[i].relay = &relay;
        rank[i].options = (struct at_ranks_tls_options){.run = {i, 2, name, NULL, 0},
                                                        .host = "127.0.0.1",
                                                        .port = i == 0 ? relay.port_0 : relay.port,
                                                        .listen_fd = i == 0 ? fd : -1,
                                                        .silence_ms = SILENCE_MS,
                                                        .heartbeat_ms = SILENCE_MS / 4};
        assert_int_equal(pthread_create(&thread[i], NULL, rank_main, &rank[i]), 0);
    }
    for (int i = 0; i < 2; i++) pthread_join(thread[i], NULL);
    atomic_store(&relay.stop, true);
    pthread_join(relay.thread, NULL);
    close(relay.listen_fd);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(rank[i].init, AT_OK);
        assert_int_equal(rank[i].slow, AT_OK);
        assert_int_equal(rank[i].still, AT_E_PEER); /* and when nothing comes any more, that is noticed */
        assert_non_null(strstr(rank[i].diag.text, "is gone: silent for 2 s"));
    }
    assert_memory_equal(rank[0].message, rank[1].message, MESSAGE_BYTES);
    assert_true(rank[0].slow_ms > SILENCE_MS * 2); /* no record came for longer than the patience */
}

int main(void)
{
    at_sys_process_init();
    const struct CMUnitTest tests[] = {cmocka_unit_test(slow_is_not_hung)};
    return cmocka_run_group_tests_name("ranks_slow", tests, NULL, NULL);
}
