/* Strangers at the doors of ranks that are being linked. Rank 1's way to rank 0 and rank 2's to rank 1 go through relays
 * that stop at the moment when TLS is done for who dialled and not yet for who accepted: there they cut the link, as a
 * rank does that has to make room, or bring a crowd before they go on. And ranks that may open too few files. */
#include "net/ranks.h"
#include "os/sys.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    RANKS = 3,
    CUTS = 2,           /* links that are cut before one is let through */
    SILENT = 70,        /* strangers that say nothing: more than a door holds */
    CROWD = 90,         /* with those that send what is no TLS */
    UNPROVEN = 64,      /* that a door holds */
    UNPROVEN_MS = 5000, /* for so long, or longer when the rank is kept from running */
    LIMIT_MS = 60000,   /* for what takes milliseconds */
};

static const char *const name[RANKS] = {"rank 0 (zero)", "rank 1 (one)", "rank 2 (two)"};

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static struct sockaddr_in loopback(const char *host, uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, host, &a.sin_addr);
    return a;
}

/* ---- the crowd ------------------------------------------------------------------------------------------------------ */

struct crowd {
    int fd[CROWD];
};

/* They come, and all but those that the door holds are turned away; whether that happened. */
static bool crowd_comes(struct crowd *c, uint16_t port)
{
    static const char junk[] = "GET / HTTP/1.1\r\n\r\n";
    struct sockaddr_in to = loopback("127.0.0.1", port);
    struct pollfd p[CROWD];
    int left = 0;
    for (int i = 0; i < CROWD; i++) {
        c->fd[i] = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(c->fd[i], (struct sockaddr *)&to, sizeof to) != 0) return false;
        if (i >= SILENT && send(c->fd[i], junk, sizeof junk, MSG_NOSIGNAL) < 0 && errno != ECONNRESET && errno != EPIPE)
            return false;
    }
    for (uint64_t start_ms = at_clock_mono_ms(); at_clock_mono_ms() - start_ms < LIMIT_MS; sleep_ms(1)) {
        for (int i = 0; i < CROWD; i++) p[i] = (struct pollfd){.fd = c->fd[i], .events = POLLIN};
        poll(p, CROWD, 0);
        left = 0;
        for (int i = 0; i < CROWD; i++) left += p[i].revents == 0;
        if (left < UNPROVEN) return true;
    }
    return false;
}

static void crowd_goes(struct crowd *c)
{
    for (int i = 0; i < CROWD; i++)
        if (c->fd[i] >= 0) close(c->fd[i]);
}

/* ---- the relay ------------------------------------------------------------------------------------------------------ */

struct relay {
    int listen_fd;
    const char *from; /* the address it dials from */
    uint16_t port, to_port;
    atomic_int links, dialled; /* that came; that have said something */
    atomic_bool stop, crowded;
    atomic_bool pushed_out; /* by the crowd, the one that was there first */
    pthread_t thread;
};

static bool move(int from, int to)
{
    char b[65536];
    ssize_t n = recv(from, b, sizeof b, 0);
    for (ssize_t sent = 0, put; sent < n; sent += put)
        if ((put = send(to, b + sent, (size_t)(n - sent), MSG_NOSIGNAL)) <= 0) return false;
    return n > 0;
}

/* What comes, both ways, until one side ends, or, with `pausing`, until the dialler answers the other side's answer. */
static bool carry(struct relay *r, int high, int low, bool pausing)
{
    bool answered = false;
    while (!atomic_load(&r->stop)) {
        struct pollfd p[2] = {{.fd = low, .events = POLLIN}, {.fd = high, .events = POLLIN}};
        if (poll(p, 2, 20) <= 0) continue;
        if (p[0].revents != 0) {
            if (!move(low, high)) return false;
            answered = true;
        } else if (pausing && answered) {
            return true;
        } else {
            if (!move(high, low)) return false;
            atomic_fetch_add(&r->dialled, 1);
        }
    }
    return false;
}

static void *relay_main(void *arg)
{
    struct relay *r = arg;
    struct crowd crowd;
    memset(&crowd, -1, sizeof crowd);
    while (!atomic_load(&r->stop)) {
        struct pollfd wait = {.fd = r->listen_fd, .events = POLLIN};
        if (poll(&wait, 1, 20) != 1) continue;
        int high = accept(r->listen_fd, NULL, NULL), low = socket(AF_INET, SOCK_STREAM, 0);
        uint64_t start_ms = at_clock_mono_ms();
        struct sockaddr_in from = loopback(r->from, 0), to = loopback("127.0.0.1", r->to_port);
        bool up = bind(low, (struct sockaddr *)&from, sizeof from) == 0 &&
                  connect(low, (struct sockaddr *)&to, sizeof to) == 0 && carry(r, high, low, true);
        if (up && atomic_fetch_add(&r->links, 1) >= CUTS) {
            if (!atomic_load(&r->crowded)) {
                atomic_store(&r->crowded, crowd_comes(&crowd, r->to_port));
                struct pollfd ended = {.fd = low, .events = POLLIN};
                if (poll(&ended, 1, 0) != 0 && at_clock_mono_ms() - start_ms < UNPROVEN_MS)
                    atomic_store(&r->pushed_out, true);
            }
            carry(r, high, low, false);
        }
        close(high);
        close(low);
    }
    crowd_goes(&crowd);
    close(r->listen_fd);
    return NULL;
}

static void relay_starts(struct relay *r, const char *at, uint16_t port, const char *from, uint16_t to_port)
{
    assert_int_equal(at_ranks_listen(at, port, NULL, &r->listen_fd, &r->port), AT_OK);
    r->from = from;
    r->to_port = to_port;
    assert_int_equal(pthread_create(&r->thread, NULL, relay_main, r), 0);
}

/* ---- the ranks ------------------------------------------------------------------------------------------------------ */

struct rank {
    struct at_ranks_tls_options options;
    struct at_diag diag;
    at_err_t err;
    pthread_t thread;
};

static struct at_ranks_tls_options options_for(int rank, int ranks, int fd, uint16_t port)
{
    struct at_ranks_tls_options o = {.run = {rank, ranks, name, NULL, 0}, .host = "127.0.0.1", .port = port};
    o.listen_fd = fd;
    o.wait_ms = LIMIT_MS;
    memset(o.secret, 7, sizeof o.secret);
    return o;
}

/* Links, then a byte to and from everybody. */
static void *rank_main(void *arg)
{
    struct rank *r = arg;
    struct at_ranks_tls *w = NULL;
    struct at_transfer out[RANKS] = {0}, in[RANKS] = {0};
    uint8_t mine = (uint8_t)(40 + r->options.run.rank), b[RANKS] = {0};
    if ((r->err = at_ranks_tls_init(&r->options, &r->diag, &w)) != AT_OK) return NULL;
    struct at_comm c = at_ranks_tls_comm(w);
    for (int i = 0; i < c.ranks; i++) {
        if (i == c.rank) continue;
        out[i] = at_comm_send(&c, i, 1, &mine, 1);
        in[i] = at_comm_recv(&c, i, 1, &b[i], 1);
    }
    for (int i = 0; i < c.ranks; i++) {
        at_err_t err = at_comm_wait(&c, out[i], &r->diag), then = at_comm_wait(&c, in[i], &r->diag);
        if (r->err == AT_OK) r->err = err != AT_OK ? err : then;
        if (r->err == AT_OK && i != c.rank && b[i] != 40 + i) r->err = AT_E_INTERNAL;
    }
    at_ranks_tls_release(w);
    return NULL;
}

static void rank_starts(struct rank *r, int rank, int fd, uint16_t port)
{
    *r = (struct rank){.options = options_for(rank, RANKS, fd, port)};
    assert_int_equal(pthread_create(&r->thread, NULL, rank_main, r), 0);
}

/* The port of this process that is listened at and is none of these two. */
static uint16_t other_door(uint16_t a, uint16_t b)
{
    for (int fd = 0; fd < 256; fd++) {
        int listens = 0;
        struct sockaddr_in at;
        socklen_t n = sizeof listens, bytes = sizeof at;
        if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &n) != 0 || !listens) continue;
        if (getsockname(fd, (struct sockaddr *)&at, &bytes) != 0) continue;
        uint16_t port = ntohs(at.sin_port);
        if (port != a && port != b) return port;
    }
    return 0;
}

/* Rank 0 knows rank 1 by the address that the first relay dials from, and there the second one listens. */
static void strangers_cost_nothing(void **state)
{
    static struct relay to_0, to_1;
    static struct rank rank[RANKS];
    int fd = -1;
    uint16_t port;
    if (at_ranks_listen("127.0.0.2", 0, NULL, &fd, &port) != AT_OK) skip(); /* some systems have 127.0.0.1 only */
    close(fd);
    assert_int_equal(at_ranks_listen("127.0.0.1", 0, NULL, &fd, &port), AT_OK);
    relay_starts(&to_0, "127.0.0.1", 0, "127.0.0.2", port);
    rank_starts(&rank[0], 0, fd, port);
    rank_starts(&rank[1], 1, -1, to_0.port);
    for (uint64_t start_ms = at_clock_mono_ms(); atomic_load(&to_0.dialled) == 0; sleep_ms(1))
        assert_true(at_clock_mono_ms() - start_ms < LIMIT_MS); /* it listens before it says a word */
    uint16_t door = other_door(port, to_0.port);
    assert_int_not_equal(door, 0);
    relay_starts(&to_1, "127.0.0.2", door, "127.0.0.1", door);
    rank_starts(&rank[2], 2, -1, port);
    for (int i = 0; i < RANKS; i++) pthread_join(rank[i].thread, NULL);
    atomic_store(&to_0.stop, true);
    atomic_store(&to_1.stop, true);
    pthread_join(to_0.thread, NULL);
    pthread_join(to_1.thread, NULL);
    for (int i = 0; i < RANKS; i++) {
        assert_string_equal(rank[i].diag.text, "");
        assert_int_equal(rank[i].err, AT_OK);
    }
    assert_true(atomic_load(&to_0.crowded) && atomic_load(&to_1.crowded));
    assert_false(atomic_load(&to_0.pushed_out) || atomic_load(&to_1.pushed_out));
    assert_true(atomic_load(&to_0.links) > CUTS && atomic_load(&to_1.links) > CUTS);
}

/* ---- no file is left ------------------------------------------------------------------------------------------------ */

struct shortage {
    struct rlimit before;
    uint16_t port;
    int fd[512], fds;
};

/* While rank 0 waits for the others all files are opened that it may open; then somebody comes. */
static at_err_t use_up(void *arg, struct at_diag *diag)
{
    struct shortage *s = arg;
    struct sockaddr_in to = loopback("127.0.0.1", s->port);
    struct rlimit few = {256, s->before.rlim_max};
    if (s->fds > 0) return AT_OK;
    s->fd[s->fds++] = socket(AF_INET, SOCK_STREAM, 0);
    if (setrlimit(RLIMIT_NOFILE, &few) != 0) return at_fail(diag, AT_E_INTERNAL, "test", "setrlimit");
    while (s->fds < 512 && (s->fd[s->fds] = dup(s->fd[0])) >= 0) s->fds++;
    if (s->fds == 512) return at_fail(diag, AT_E_INTERNAL, "test", "no shortage");
    if (connect(s->fd[0], (struct sockaddr *)&to, sizeof to) != 0)
        return at_fail(diag, AT_E_INTERNAL, "test", "connect");
    return AT_OK;
}

static void a_shortage_of_files_is_told(void **state)
{
    static struct shortage s;
    struct at_ranks_tls *w = NULL;
    struct at_diag diag = {0};
    int fd = -1;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &s.before), 0);
    assert_int_equal(at_ranks_listen("127.0.0.1", 0, NULL, &fd, &s.port), AT_OK);
    struct at_ranks_tls_options o = options_for(0, 2, fd, s.port);
    o.wait_ms = 5000;
    o.go_on = use_up;
    o.arg = &s;
    at_err_t err = at_ranks_tls_init(&o, &diag, &w);
    for (int i = 0; i < s.fds; i++) close(s.fd[i]);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &s.before), 0);
    assert_int_equal(err, AT_E_ENV);
    assert_non_null(strstr(diag.text, "rank 0 (zero"));
    assert_non_null(strstr(diag.text, "ulimit -n"));
}

/* In a process of its own: what the soft limit lacks is taken, beyond the hard one it is said. */
static void enough_files_are_asked_for(void **state)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit r = {50, 200};
        struct at_diag diag = {0};
        if (setrlimit(RLIMIT_NOFILE, &r) != 0) _exit(1);
        if (at_ranks_tls_files(16, NULL) != AT_OK || getrlimit(RLIMIT_NOFILE, &r) != 0) _exit(2);
        if (r.rlim_cur < 16 + UNPROVEN || r.rlim_cur > 200) _exit(3);
        if (at_ranks_tls_files(200, &diag) != AT_E_ENV || strstr(diag.text, "ulimit -n") == NULL) _exit(4);
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    at_sys_process_init();
    const struct CMUnitTest tests[] = {cmocka_unit_test(strangers_cost_nothing),
                                       cmocka_unit_test(a_shortage_of_files_is_told),
                                       cmocka_unit_test(enough_files_are_asked_for)};
    return cmocka_run_group_tests_name("ranks_door", tests, NULL, NULL);
}
