/* The same exchanges over every kind of link; then what goes wrong: each rank a process of its own that is killed,
 * stopped or different, and all others end in time with the same words. */
#include "net/ranks.h"

#include "base/sanitized.h"
#include "os/sys.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include <cmocka.h>

#define RANKS 4
static const char *const name[RANKS] = {
    "rank 0 (replica 0, stage 0, tensor rank 0)", "rank 1 (replica 0, stage 0, tensor rank 1)",
    "rank 2 (replica 0, stage 1, tensor rank 0)", "rank 3 (replica 0, stage 1, tensor rank 1)"};
static const struct at_ranks_fact fact[] = {{"kernel profile", "F32-1"}, {"model", "aaaa"}};
static const struct at_ranks_fact other_fact[] = {{"kernel profile", "F32-2"}, {"model", "aaaa"}};

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

/* ---- the exchanges -------------------------------------------------------------------------------------------------
 * Everything below returns false instead of asserting: it runs in threads and processes. */

enum { LIMIT_MS = 6000 }; /* within which everybody ends, on a busy machine, too */
enum { STRIDE = 61 };     /* so many bytes are looked at that no record can be missing, and the sanitizers keep pace */

static uint8_t byte_of(int from, int to, uint32_t tag, int nth, size_t i)
{
    return (uint8_t)(i * 31 + (i >> 8) * 7 + (size_t)(from * 5 + to * 11 + nth * 3) + tag);
}

static void fill(uint8_t *p, size_t n, int from, int to, uint32_t tag, int nth)
{
    for (size_t i = 0; i < n; i += STRIDE) p[i] = byte_of(from, to, tag, nth, i);
    p[n - 1] = byte_of(from, to, tag, nth, n - 1);
}

static bool is_filled(const uint8_t *p, size_t n, int from, int to, uint32_t tag, int nth)
{
    for (size_t i = 0; i < n; i += STRIDE)
        if (p[i] != byte_of(from, to, tag, nth, i)) return false;
    return p[n - 1] == byte_of(from, to, tag, nth, n - 1);
}

enum { MESSAGES = 8 };
static const size_t size_of[MESSAGES] = {(AT_SANITIZED ? 1u : 8u) << 20, 1, 65537, 262147, 3, 65536, 1000, 4096};

struct lane { /* all messages of one tag between two ranks, one way */
    uint8_t *p[MESSAGES];
    struct at_transfer t[MESSAGES];
};

static bool post_lane(const struct at_comm *c, struct lane *l, bool send, int other, uint32_t tag)
{
    for (int k = 0; k < MESSAGES; k++) {
        if ((l->p[k] = malloc(size_of[k])) == NULL) return false;
        if (send) {
            fill(l->p[k], size_of[k], c->rank, other, tag, k);
            l->t[k] = at_comm_send(c, other, tag, l->p[k], size_of[k]);
        } else {
            l->t[k] = at_comm_recv(c, other, tag, l->p[k], size_of[k]);
        }
    }
    return true;
}

static bool finish_lane(const struct at_comm *c, struct lane *l, bool send, int other, uint32_t tag)
{
    bool ok = true;
    struct at_diag diag = {0};
    for (int i = 0; i < MESSAGES; i++) {
        int k = send ? i : (i * 3 + 1) % MESSAGES; /* waiting in another order than posting */
        ok &= at_comm_wait(c, l->t[k], &diag) == AT_OK;
        ok &= send || is_filled(l->p[k], size_of[k], other, c->rank, tag, k);
        free(l->p[k]);
    }
    if (diag.err != AT_OK) fprintf(stderr, "rank %d: %s\n", c->rank, diag.text);
    return ok;
}

/* Every pair, both ways at once, three tags; one tag is received late, another waits in the opposite order of posting. */
static bool exchange_all(const struct at_comm *c)
{
    enum { TAGS = 3 };
    static const uint32_t tag[TAGS] = {0, 7, AT_RANKS_TAG_MAX};
    struct lane(*lane)[TAGS][2] = calloc((size_t)c->ranks, sizeof *lane);
    bool ok = lane != NULL;
    for (int pass = 0; ok && pass < 3; pass++) /* receives of tag[0]; sends; the other receives */
        for (int r = 0; r < c->ranks; r++)
            for (int k = 0; k < TAGS && r != c->rank; k++)
                if (pass == 1 || (pass == 0) == (k == 0))
                    ok &= post_lane(c, &lane[r][k][pass == 1], pass == 1, r, tag[k]);
    for (int k = TAGS - 1; ok && k >= 0; k--)
        for (int r = c->ranks - 1; r >= 0; r--)
            for (int send = 0; send < 2 && r != c->rank; send++)
                ok &= finish_lane(c, &lane[r][k][send], send == 1, r, tag[k]);
    free(lane);
    return ok;
}

/* More bytes than may wait unreceived, then small ones on another tag, which must not be stuck behind them. */
static bool exchange_unposted(const struct at_comm *c)
{
    enum { LARGE = 6 };
    const size_t n = (size_t)8 << 20;
    int other = c->rank ^ 1;
    uint8_t *out = malloc(n), *in = malloc(LARGE * n), small_in = 0, small_out = (uint8_t)(40 + c->rank);
    struct at_transfer send[LARGE], recv[LARGE], late;
    bool ok = out != NULL && in != NULL;
    if (other >= c->ranks || !ok) {
        free(out);
        free(in);
        return ok;
    }
    fill(out, n, c->rank, other, 1, 0);
    for (int k = 0; k < LARGE; k++) send[k] = at_comm_send(c, other, 1, out, n);
    late = at_comm_send(c, other, 2, &small_out, 1);
    ok &= at_comm_wait(c, at_comm_recv(c, other, 2, &small_in, 1), NULL) == AT_OK && small_in == 40 + other;
    for (int k = 0; k < LARGE; k++) recv[k] = at_comm_recv(c, other, 1, in + (size_t)k * n, n);
    for (int k = 0; k < LARGE; k++) {
        ok &= at_comm_wait(c, recv[k], NULL) == AT_OK && is_filled(in + (size_t)k * n, n, other, c->rank, 1, 0);
        ok &= at_comm_wait(c, send[k], NULL) == AT_OK;
    }
    ok &= at_comm_wait(c, late, NULL) == AT_OK;
    free(out);
    free(in);
    return ok;
}

/* Many small ones in flight; `done` tells the truth; a ring of single bytes. */
static bool exchange_small(const struct at_comm *c)
{
    enum { MANY = 500 };
    int next = (c->rank + 1) % c->ranks, before = (c->rank + c->ranks - 1) % c->ranks;
    uint32_t out[MANY], in[MANY] = {0};
    struct at_transfer s[MANY], r[MANY];
    bool ok = at_comm_wait(c, (struct at_transfer){0}, NULL) == AT_OK && c->ops->done(c->link, (struct at_transfer){0});
    uint64_t sent = c->ops->bytes_sent(c->link);
    for (uint32_t k = 0; k < MANY; k++) {
        out[k] = (uint32_t)c->rank << 16 | k;
        s[k] = at_comm_send(c, next, k % 5, &out[k], 4);
    }
    for (uint32_t k = 0; k < MANY; k++) r[k] = at_comm_recv(c, before, k % 5, &in[k], 4);
    while (!c->ops->done(c->link, r[MANY - 1])) sleep_ms(1);
    for (uint32_t k = 0; k < MANY; k++) {
        ok &= at_comm_wait(c, r[k], NULL) == AT_OK && in[k] == ((uint32_t)before << 16 | k);
        ok &= at_comm_wait(c, s[k], NULL) == AT_OK;
    }
    return ok && c->ops->bytes_sent(c->link) - sent == MANY * 4;
}

static bool exchange(const struct at_comm *c)
{
    return exchange_small(c) && exchange_all(c) && exchange_unposted(c) && exchange_small(c);
}

/* ---- ranks as threads ---------------------------------------------------------------------------------------------- */

struct outcome {
    bool ok;
    at_err_t init_err;
    struct at_diag diag;
    uint64_t ms;
    bool rank_0_gone;
};
typedef bool play_fn(const struct at_comm *c, struct at_diag *diag);
struct actor {
    struct at_comm comm;
    struct at_ranks_tls_options options;
    struct at_ranks_inproc *inproc;
    play_fn *play;
    struct outcome out;
};

static void *act(void *arg)
{
    struct actor *a = arg;
    if (a->inproc != NULL) {
        a->comm = at_ranks_inproc_comm(a->inproc, a->options.run.rank);
        a->out.ok = a->play(&a->comm, &a->out.diag);
        return NULL;
    }
    struct at_ranks_tls *w = NULL;
    a->options.rank_0_gone = &a->out.rank_0_gone;
    a->out.init_err = at_ranks_tls_init(&a->options, &a->out.diag, &w);
    if (a->out.init_err != AT_OK) return NULL;
    a->comm = at_ranks_tls_comm(w);
    a->out.ok = a->play(&a->comm, &a->out.diag);
    at_ranks_tls_release(w);
    return NULL;
}

static struct at_ranks_tls_options options_for(int rank, int ranks, int fd, uint16_t port)
{
    struct at_ranks_tls_options o = {.run = {rank, ranks, name, fact, 2}, .host = "127.0.0.1", .port = port};
    o.listen_fd = fd;
    memset(o.secret, 7, sizeof o.secret);
    return o;
}

static void play_threads(bool tls, int ranks, play_fn *play, struct actor *actor)
{
    pthread_t thread[RANKS];
    struct at_ranks_inproc *world = NULL;
    int fd = -1;
    uint16_t port = 0;
    if (tls)
        assert_int_equal(at_ranks_listen("127.0.0.1", 0, NULL, &fd, &port), AT_OK);
    else
        assert_int_equal(at_ranks_inproc_init(ranks, name, NULL, &world), AT_OK);
    for (int i = 0; i < ranks; i++) {
        actor[i] = (struct actor){.inproc = world, .play = play, .options = options_for(i, ranks, fd, port)};
        assert_int_equal(pthread_create(&thread[i], NULL, act, &actor[i]), 0);
    }
    for (int i = 0; i < ranks; i++) pthread_join(thread[i], NULL);
    at_ranks_inproc_release(world);
}

static bool play_exchange(const struct at_comm *c, struct at_diag *diag)
{
    return exchange(c);
}

static void exchanges_in_one_process(void **state)
{
    struct actor actor[RANKS];
    for (int ranks = 2; ranks <= RANKS; ranks += 2) {
        play_threads(false, ranks, play_exchange, actor);
        for (int i = 0; i < ranks; i++) assert_true(actor[i].out.ok);
    }
}

static void exchanges_over_tls(void **state)
{
    struct actor actor[RANKS];
    for (int ranks = 2; ranks <= RANKS; ranks++) {
        play_threads(true, ranks, play_exchange, actor);
        for (int i = 0; i < ranks; i++) {
            assert_string_equal(actor[i].out.diag.text, "");
            assert_true(actor[i].out.ok);
        }
    }
}

static bool play_alone(const struct at_comm *c, struct at_diag *diag)
{
    return c->ranks == 1;
}

static void one_rank_needs_nobody(void **state)
{
    struct actor actor[1];
    play_threads(true, 1, play_alone, actor);
    assert_true(actor[0].out.ok);
}

/* Rank 2 calls fail while the others wait for something that never comes. */
static bool play_fail(const struct at_comm *c, struct at_diag *diag)
{
    uint8_t b[64], mine[64] = {0};
    struct at_transfer lost = at_comm_send(c, (c->rank + 1) % c->ranks, 9, mine, sizeof mine);
    struct at_transfer t = at_comm_recv(c, c->rank == 0 ? 1 : 0, 5, b, sizeof b);
    if (c->rank == 2) (c->ops->fail)(c->link, AT_E_NONFINITE, "rank 0", "the gradient is not finite");
    at_err_t err = at_comm_wait(c, t, diag), then = at_comm_wait(c, lost, NULL);
    at_err_t again = at_comm_wait(c, at_comm_send(c, (c->rank + 1) % c->ranks, 9, mine, 1), NULL);
    return err == AT_E_NONFINITE && (then == AT_OK || then == AT_E_NONFINITE) && again == AT_E_NONFINITE;
}

static void one_failure_ends_all(void **state)
{
    struct actor actor[RANKS];
    for (int tls = 0; tls < 2; tls++) {
        play_threads(tls == 1, 4, play_fail, actor);
        for (int i = 0; i < 4; i++) { /* the verdict may reach a rank before its last link is made */
            assert_true(actor[i].out.ok || actor[i].out.init_err == AT_E_NONFINITE);
            assert_string_equal(actor[i].out.diag.where, "rank 0");
            assert_false(actor[i].out.rank_0_gone); /* blamed, and still the one that tells */
            assert_non_null(strstr(actor[i].out.diag.text, "the gradient is not finite"));
            assert_non_null(strstr(actor[i].out.diag.text, "rank 2 (replica 0, stage 1, tensor rank 0"));
            assert_string_equal(actor[i].out.diag.text, actor[0].out.diag.text);
        }
    }
}

static bool play_sizes(const struct at_comm *c, struct at_diag *diag)
{
    uint8_t b[64] = {0};
    if (c->rank == 0) return at_comm_wait(c, at_comm_recv(c, 1, 5, b, 8), diag) == AT_E_PEER;
    struct at_transfer t = {0};
    if (c->rank == 1) t = at_comm_send(c, 0, 5, b, 9);
    at_err_t err = at_comm_wait(c, t, NULL); /* it may have left before anybody noticed */
    if (err != AT_OK && err != AT_E_PEER) return false;
    return at_comm_wait(c, at_comm_recv(c, 0, 6, b, 8), diag) == AT_E_PEER;
}

static void sizes_must_agree(void **state)
{
    struct actor actor[RANKS];
    for (int tls = 0; tls < 2; tls++) {
        play_threads(tls == 1, 3, play_sizes, actor);
        for (int i = 0; i < 3; i++) {
            assert_true(actor[i].out.ok || actor[i].out.init_err == AT_E_PEER);
            assert_non_null(strstr(actor[i].out.diag.text, "9 bytes with tag 5 where"));
            assert_string_equal(actor[i].out.diag.text, actor[0].out.diag.text);
        }
    }
}

/* ---- ranks as processes, in trouble -------------------------------------------------------------------------------- */

struct trouble {
    int ranks;
    int odd;                                                  /* the rank in trouble */
    void (*before)(int rank, struct at_ranks_tls_options *o); /* changes what a rank is given */
    int signal;                                               /* sent to `odd` when all are linked; 0: none */
    uint32_t silence_ms;
};

struct process {
    pid_t pid;
    int up_fd, result_fd; /* a byte when linked; an outcome at the end */
};

_Noreturn static void be_rank(const struct trouble *t, struct at_ranks_tls_options *o, int up_fd, int result_fd)
{
    struct outcome out = {0};
    struct at_ranks_tls *w = NULL;
    uint8_t b[8], c8[8] = {0};
    o->rank_0_gone = &out.rank_0_gone;
    if (t->before != NULL) t->before(o->run.rank, o);
    at_err_t err = at_ranks_tls_init(o, &out.diag, &w);
    if (err == AT_OK) {
        struct at_comm c = at_ranks_tls_comm(w);
        bool ok = write(up_fd, "", 1) == 1;
        struct at_transfer s = at_comm_send(&c, (c.rank + 1) % c.ranks, 1, c8, 8);
        for (int i = 0; ok && i < 100; i++) /* the rank in trouble is not everybody's neighbour: most hear of it */
            ok = at_comm_wait(&c, at_comm_recv(&c, c.rank == 0 ? 1 : 0, 3, b, 8), &out.diag) == AT_OK;
        at_err_t ignored = at_comm_wait(&c, s, NULL);
        out.ok = ignored == AT_OK || ignored == AT_E_PEER;
    }
    out.ms = at_clock_mono_ms();
    at_ranks_tls_release(w);
    _exit(write(result_fd, &out, sizeof out) == (ssize_t)sizeof out ? 0 : 1);
}

static struct process start_rank(const struct trouble *t, int rank, int listen_fd, uint16_t port)
{
    int up[2], result[2];
    assert_int_equal(pipe(up), 0);
    assert_int_equal(pipe(result), 0);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        struct at_ranks_tls_options o = options_for(rank, t->ranks, listen_fd, port);
        o.silence_ms = t->silence_ms;
        o.heartbeat_ms = t->silence_ms / 4;
        o.wait_ms = 5000;
        alarm(60);
#ifdef __linux__
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a stopped one would outlive a test that fails */
#endif
        be_rank(t, &o, up[1], result[1]);
    }
    close(up[1]);
    close(result[1]);
    return (struct process){pid, up[0], result[0]};
}

/* Plays it and checks that everybody but `odd` ends within limit_ms of the trouble with the same text, which has
 * `words`. Returns that text. */
static struct at_diag play_trouble(const struct trouble *t, uint64_t limit_ms, const char *words)
{
    struct process p[RANKS];
    struct outcome out[RANKS] = {0};
    int fd;
    uint16_t port;
    char byte;
    assert_int_equal(at_ranks_listen("127.0.0.1", 0, NULL, &fd, &port), AT_OK);
    for (int i = 0; i < t->ranks; i++) p[i] = start_rank(t, i, fd, port);
    close(fd);
    for (int i = 0; i < t->ranks && t->signal != 0; i++) assert_int_equal(read(p[i].up_fd, &byte, 1), 1);
    uint64_t start_ms = at_clock_mono_ms();
    if (t->signal != 0) kill(p[t->odd].pid, t->signal);
    for (int i = 0; i < t->ranks; i++) {
        if (i == t->odd && t->signal != 0) continue;
        assert_int_equal(read(p[i].result_fd, &out[i], sizeof out[i]), sizeof out[i]);
        assert_non_null(strstr(out[i].diag.text, words));
        assert_int_equal(out[i].diag.err, AT_E_PEER);
        assert_true(out[i].ms - start_ms <= limit_ms);
        assert_int_equal(out[i].rank_0_gone, t->signal != 0 && t->odd == 0);
    }
    for (int i = 0; i < t->ranks; i++) {
        kill(p[i].pid, SIGKILL);
        waitpid(p[i].pid, NULL, 0);
        close(p[i].up_fd);
        close(p[i].result_fd);
    }
    int first = t->odd == 0 && t->signal != 0;
    for (int i = first; i < t->ranks; i++)
        if (i != t->odd || t->signal == 0) assert_string_equal(out[i].diag.text, out[first].diag.text);
    return out[first].diag;
}

static void a_killed_rank_ends_all(void **state)
{
    for (int odd = 0; odd < 4; odd += 3) {
        struct at_diag d =
            play_trouble(&(struct trouble){.ranks = 4, .odd = odd, .signal = SIGKILL, .silence_ms = 4000}, LIMIT_MS,
                         "is gone: connection closed");
        char begin[32];
        snprintf(begin, sizeof begin, "rank %d (replica 0, stage", odd);
        assert_ptr_equal(strstr(d.text, begin), d.text);
        assert_non_null(strstr(d.text, "; pid "));
        assert_non_null(strstr(d.text, " at 127.0.0.1:"));
    }
}

static void a_stopped_rank_ends_all(void **state)
{
    play_trouble(&(struct trouble){.ranks = 3, .odd = 1, .signal = SIGSTOP, .silence_ms = 1500}, LIMIT_MS,
                 "rank 1 (replica 0, stage 0, tensor rank 1; pid ");
    play_trouble(&(struct trouble){.ranks = 3, .odd = 0, .signal = SIGSTOP, .silence_ms = 1500}, LIMIT_MS,
                 "is gone: silent for 1.5 s");
}

/* As a laptop that sleeps, or a machine that is paused: afterwards all go on, and a death is still noticed. */
static void a_pause_of_all_blames_nobody(void **state)
{
    struct trouble t = {.ranks = 3, .silence_ms = 3000};
    struct process p[3];
    struct outcome out[3] = {0};
    struct pollfd nothing[3];
    int fd;
    uint16_t port;
    char byte;
    assert_int_equal(at_ranks_listen("127.0.0.1", 0, NULL, &fd, &port), AT_OK);
    for (int i = 0; i < 3; i++) p[i] = start_rank(&t, i, fd, port);
    close(fd);
    for (int i = 0; i < 3; i++) assert_int_equal(read(p[i].up_fd, &byte, 1), 1);
    for (int i = 0; i < 3; i++) kill(p[i].pid, SIGSTOP);
    sleep_ms(5000);
    for (int i = 0; i < 3; i++) kill(p[i].pid, SIGCONT);
    for (int i = 0; i < 3; i++) nothing[i] = (struct pollfd){.fd = p[i].result_fd, .events = POLLIN};
    assert_int_equal(poll(nothing, 3, 1500), 0);
    kill(p[2].pid, SIGKILL);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(read(p[i].result_fd, &out[i], sizeof out[i]), sizeof out[i]);
        assert_non_null(strstr(out[i].diag.text, "is gone: connection closed"));
    }
    for (int i = 0; i < 3; i++) {
        waitpid(p[i].pid, NULL, 0);
        close(p[i].up_fd);
        close(p[i].result_fd);
    }
}

/* Links with rank 0 only, which the others find at the second of the addresses they are given. */
static void make_star(int rank, struct at_ranks_tls_options *o)
{
    o->star = true;
    if (rank != 0) o->host = "127.0.0.9,127.0.0.1";
}

static void a_star_watches_over_all(void **state)
{
    struct at_diag d = play_trouble(
        &(struct trouble){.ranks = 4, .odd = 3, .before = make_star, .signal = SIGKILL, .silence_ms = 4000}, LIMIT_MS,
        "rank 3 (replica 0, stage 1, tensor rank 1; pid ");
    assert_non_null(strstr(d.text, " at 127.0.0.1) is gone: connection closed")); /* it listens nowhere */
    play_trouble(&(struct trouble){.ranks = 4, .odd = 2, .before = make_star, .signal = SIGSTOP, .silence_ms = 1500},
                 LIMIT_MS, "is gone: silent for 1.5 s");
    play_trouble(&(struct trouble){.ranks = 3, .odd = 0, .before = make_star, .signal = SIGSTOP, .silence_ms = 1500},
                 LIMIT_MS, "rank 0 (replica 0, stage 0, tensor rank 0; pid ");
}

static void give_other_profile(int rank, struct at_ranks_tls_options *o)
{
    if (rank == 2) o->run.fact = other_fact;
}

static void another_profile_is_named(void **state)
{
    struct at_diag d = play_trouble(&(struct trouble){.ranks = 4, .odd = 2, .before = give_other_profile}, LIMIT_MS,
                                    "has kernel profile F32-2 where rank 0 has F32-1");
    assert_ptr_equal(strstr(d.text, "rank 2 (replica 0, stage 1, tensor rank 0; pid "), d.text);
}

static void give_other_secret(int rank, struct at_ranks_tls_options *o)
{
    if (rank == 1) o->secret[31] ^= 1;
    o->wait_ms = 1000;
}

/* The one that knows another secret says so; for the others it never came. */
static void another_secret_is_refused(void **state)
{
    struct trouble t = {.ranks = 2, .odd = 1, .before = give_other_secret};
    struct outcome out[2];
    struct process p[2];
    int fd;
    uint16_t port;
    assert_int_equal(at_ranks_listen("127.0.0.1", 0, NULL, &fd, &port), AT_OK);
    for (int i = 0; i < 2; i++) p[i] = start_rank(&t, i, fd, port);
    close(fd);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(read(p[i].result_fd, &out[i], sizeof out[i]), sizeof out[i]);
        waitpid(p[i].pid, NULL, 0);
        close(p[i].up_fd);
        close(p[i].result_fd);
    }
    assert_non_null(strstr(out[1].diag.text, "has another secret"));
    assert_non_null(strstr(out[0].diag.text, "rank 1 (replica 0, stage 0, tensor rank 1) has not come within 1 s"));
}

static void addresses(void **state)
{
    char host[64];
    uint16_t port;
    assert_int_equal(at_ranks_address("192.168.1.5:4242", NULL, host, &port), AT_OK);
    assert_string_equal(host, "192.168.1.5");
    assert_int_equal(port, 4242);
    assert_int_equal(at_ranks_address("[::1]:1", NULL, host, &port), AT_OK);
    assert_string_equal(host, "::1");
    assert_int_equal(at_ranks_address("80", NULL, host, &port), AT_OK);
    assert_string_equal(host, "127.0.0.1");
    static const char *const bad[] = {"", ":", "a:1", "1.2.3.4:", "1.2.3.4:65536", ":5", "1.2.3.4:5x", "1.2.3.4:-1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(at_ranks_address(bad[i], NULL, host, &port), AT_E_USAGE);
}

static void keys_differ(void **state)
{
    struct at_keypair a, b, c;
    uint8_t secret[32] = {1}, other[32] = {2};
    assert_int_equal(at_ranks_key(secret, 0, &a), AT_OK);
    assert_int_equal(at_ranks_key(secret, 1, &b), AT_OK);
    assert_int_equal(at_ranks_key(other, 0, &c), AT_OK);
    assert_false(at_node_id_eq(&a.id, &b.id) || at_node_id_eq(&a.id, &c.id));
}

int main(void)
{
    at_sys_process_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_rank_ends_all),
        cmocka_unit_test(a_stopped_rank_ends_all),
        cmocka_unit_test(a_pause_of_all_blames_nobody),
        cmocka_unit_test(a_star_watches_over_all),
        cmocka_unit_test(another_profile_is_named),
        cmocka_unit_test(another_secret_is_refused),
        cmocka_unit_test(exchanges_in_one_process),
        cmocka_unit_test(exchanges_over_tls),
        cmocka_unit_test(one_rank_needs_nobody),
        cmocka_unit_test(one_failure_ends_all),
        cmocka_unit_test(sizes_must_agree),
        cmocka_unit_test(addresses),
        cmocka_unit_test(keys_differ),
    };
    return cmocka_run_group_tests_name("ranks", tests, NULL, NULL);
}
