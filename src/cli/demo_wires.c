#define _DEFAULT_SOURCE /* FIONREAD */
#include "cli/demo_wires.h"

#include "node/node_folder.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <uv.h>

#define WIRES_MAX  512 /* connections at once; one more is closed at once */
#define READ_BYTES ((size_t)32 << 10)

/* One connection: side 0 dialed, side 1 is where it was dialed to. Direction d goes from side d to side 1 - d. */
struct wire {
    struct at_wires *all;
    struct wire *next;
    int who[2];
    uv_tcp_t tcp[2];
    int open_handles;
    bool begun, up, closing; /* side 1 is dialed; connected */
    bool reading[2];
    bool busy[2];  /* per direction: what was read is being written */
    bool ended[2]; /* the sender has said its last */
    bool deaf[2];  /* the receiver takes nothing any more */
    uv_connect_t connect;
    uv_write_t write[2];
    uv_shutdown_t shutdown[2];
    char data[2][READ_BYTES];
};

struct door {
    struct at_wires *all;
    uv_tcp_t tcp;
    struct sockaddr_in inner; /* where the member listens */
    uint16_t port;
};

enum ask { ASK_NOTHING, ASK_CUT, ASK_MEND, ASK_STOP };

struct at_wires {
    int members;
    uv_loop_t loop;
    uv_async_t bell;
    uv_thread_t thread;
    struct door door[AT_WIRES_MEMBERS_MAX];
    /* the carrier's */
    struct wire *wires;
    int wire_count;
    uint16_t cuts[AT_WIRES_MEMBERS_MAX][AT_WIRES_MEMBERS_MAX]; /* [from][to] */
    /* what is asked, and the answer: under the mutex */
    pthread_mutex_t mutex;
    pthread_cond_t answered;
    enum ask ask;
    int from, to;
    uint64_t answer;
};

static struct sockaddr_in address_of(int member, uint16_t port)
{
    struct sockaddr_in sa;
    char host[AT_WIRES_TEXT];
    snprintf(host, sizeof host, "127.77.0.%d", member + 1);
    AT_ASSERT(uv_ip4_addr(host, port, &sa) == 0);
    return sa;
}

/* ---- carrying ---- */
static void pump(struct wire *wire);

static void on_closed(uv_handle_t *handle)
{
    struct wire *wire = handle->data;
    if (--wire->open_handles > 0) return;
    struct wire **at = &wire->all->wires;
    while (*at != wire) at = &(*at)->next;
    *at = wire->next;
    wire->all->wire_count--;
    free(wire);
}

static void close_wire(struct wire *wire)
{
    if (wire->closing) return;
    wire->closing = true;
    for (int side = 0; side < 2; side++) uv_close((uv_handle_t *)&wire->tcp[side], on_closed);
}

static bool carries(const struct wire *wire, int d)
{
    return wire->all->cuts[wire->who[d]][wire->who[1 - d]] == 0;
}

static int side_of(const struct wire *wire, const void *stream)
{
    return stream == (const void *)&wire->tcp[1];
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct wire *wire = handle->data;
    *buf = uv_buf_init(wire->data[side_of(wire, handle)], READ_BYTES);
}

static void on_shut(uv_shutdown_t *req, int status) {}

static void on_written(uv_write_t *req, int status)
{
    struct wire *wire = req->data;
    int d = req == &wire->write[1];
    wire->busy[d] = false;
    /* That the receiver is gone its sender learns from its end alone, which may be held up by a cut. */
    if (status < 0) wire->deaf[d] = true;
    pump(wire);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct wire *wire = stream->data;
    int d = side_of(wire, stream);
    if (n == 0 || wire->closing) return;
    if (n == UV_EOF) {
        wire->ended[d] = true;
        wire->shutdown[d].data = wire;
        (void)uv_shutdown(&wire->shutdown[d], (uv_stream_t *)&wire->tcp[1 - d], on_shut);
    } else if (n < 0) {
        close_wire(wire);
    } else if (!wire->deaf[d]) {
        uv_buf_t out = uv_buf_init(buf->base, (unsigned)n);
        wire->write[d].data = wire;
        wire->busy[d] = uv_write(&wire->write[d], (uv_stream_t *)&wire->tcp[1 - d], &out, 1, on_written) == 0;
        wire->deaf[d] = !wire->busy[d];
    }
    pump(wire);
}

static void on_connected(uv_connect_t *req, int status)
{
    struct wire *wire = req->data;
    wire->up = status >= 0;
    if (status < 0) close_wire(wire); /* nobody listens there */
    pump(wire);
}

/* Connecting takes a word from both sides. */
static void begin(struct wire *wire)
{
    struct sockaddr_in from = address_of(wire->who[0], 0);
    const struct sockaddr_in *to = &wire->all->door[wire->who[1]].inner;
    wire->begun = true;
    wire->connect.data = wire;
    if (uv_tcp_bind(&wire->tcp[1], (const struct sockaddr *)&from, 0) != 0 ||
        uv_tcp_connect(&wire->connect, &wire->tcp[1], (const struct sockaddr *)to, on_connected) != 0)
        close_wire(wire);
}

static void pump(struct wire *wire)
{
    if (wire->closing) return;
    if (!wire->begun && carries(wire, 0) && carries(wire, 1)) begin(wire);
    if (!wire->up || wire->closing) return;
    for (int d = 0; d < 2; d++) {
        uv_stream_t *stream = (uv_stream_t *)&wire->tcp[d];
        bool reads = carries(wire, d) && !wire->busy[d] && !wire->ended[d];
        if (reads == wire->reading[d]) continue;
        wire->reading[d] = reads;
        if (!reads) {
            uv_read_stop(stream);
        } else if (uv_read_start(stream, on_alloc, on_read) != 0) {
            close_wire(wire);
            return;
        }
    }
    if (wire->ended[0] && wire->ended[1] && !wire->busy[0] && !wire->busy[1]) close_wire(wire);
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct door *door = listener->data;
    struct at_wires *w = door->all;
    struct sockaddr_in from = {0};
    int bytes = sizeof from;
    if (status < 0) return;
    struct wire *wire = calloc(1, sizeof *wire);
    AT_ASSERT(wire != NULL);
    wire->all = w;
    wire->next = w->wires;
    w->wires = wire;
    w->wire_count++;
    wire->open_handles = 2;
    for (int side = 0; side < 2; side++) {
        AT_ASSERT(uv_tcp_init(&w->loop, &wire->tcp[side]) == 0);
        wire->tcp[side].data = wire;
        uv_tcp_nodelay(&wire->tcp[side], 1);
    }
    int rc = uv_accept(listener, (uv_stream_t *)&wire->tcp[0]);
    if (!rc) rc = uv_tcp_getpeername(&wire->tcp[0], (struct sockaddr *)&from, &bytes);
    wire->who[1] = (int)(door - w->door);
    for (wire->who[0] = 0; wire->who[0] < w->members; wire->who[0]++)
        if (address_of(wire->who[0], 0).sin_addr.s_addr == from.sin_addr.s_addr) break;
    if (rc || wire->who[0] == w->members || wire->who[0] == wire->who[1] || w->wire_count > WIRES_MAX)
        close_wire(wire); /* no member's */
    else
        pump(wire);
}

/* ---- being told ---- */
static uint64_t waiting(const struct wire *wire, int d)
{
    uv_os_fd_t fd;
    int n = 0;
    if (wire->ended[d] || uv_fileno((const uv_handle_t *)&wire->tcp[d], &fd) != 0 || ioctl(fd, FIONREAD, &n) != 0)
        return 0;
    return n > 0 ? (uint64_t)n : 0;
}

static uint64_t change(struct at_wires *w, bool cut, int from, int to)
{
    uint64_t answer = 0;
    AT_ASSERT(cut || w->cuts[from][to] > 0);
    bool changes = w->cuts[from][to] == (cut ? 0 : 1);
    w->cuts[from][to] = (uint16_t)(w->cuts[from][to] + (cut ? 1 : -1));
    for (struct wire *wire = w->wires; wire && changes; wire = wire->next) {
        int d = wire->who[0] != from;
        if (wire->closing || wire->who[d] != from || wire->who[1 - d] != to) continue;
        answer += cut ? wire->up : waiting(wire, d);
        pump(wire);
    }
    return answer;
}

static void stop(struct at_wires *w)
{
    for (struct wire *wire = w->wires; wire; wire = wire->next) close_wire(wire);
    for (int i = 0; i < w->members; i++) uv_close((uv_handle_t *)&w->door[i].tcp, NULL);
    uv_close((uv_handle_t *)&w->bell, NULL);
}

static void on_bell(uv_async_t *bell)
{
    struct at_wires *w = bell->data;
    pthread_mutex_lock(&w->mutex);
    if (w->ask == ASK_CUT || w->ask == ASK_MEND) w->answer = change(w, w->ask == ASK_CUT, w->from, w->to);
    if (w->ask == ASK_STOP) stop(w);
    w->ask = ASK_NOTHING;
    pthread_cond_signal(&w->answered);
    pthread_mutex_unlock(&w->mutex);
}

static uint64_t tell(struct at_wires *w, enum ask what, int from, int to)
{
    AT_ASSERT(from >= 0 && from < w->members && to >= 0 && to < w->members);
    pthread_mutex_lock(&w->mutex);
    w->ask = what;
    w->from = from;
    w->to = to;
    uv_async_send(&w->bell);
    while (w->ask != ASK_NOTHING) pthread_cond_wait(&w->answered, &w->mutex);
    uint64_t answer = w->answer;
    pthread_mutex_unlock(&w->mutex);
    return answer;
}

uint32_t at_wires_cut(struct at_wires *w, int from, int to)
{
    return (uint32_t)tell(w, ASK_CUT, from, to);
}

uint64_t at_wires_mend(struct at_wires *w, int from, int to)
{
    return tell(w, ASK_MEND, from, to);
}

/* ---- life ---- */
static void carry(void *arg)
{
    struct at_wires *w = arg;
    uv_run(&w->loop, UV_RUN_DEFAULT);
}

static int open_door(struct at_wires *w, int i)
{
    struct door *door = &w->door[i];
    struct sockaddr_in sa = address_of(i, 0);
    int bytes = sizeof sa;
    door->all = w;
    door->tcp.data = door;
    int rc = uv_tcp_bind(&door->tcp, (const struct sockaddr *)&sa, 0);
    if (!rc) rc = uv_listen((uv_stream_t *)&door->tcp, 64, on_connection);
    if (!rc) rc = uv_tcp_getsockname(&door->tcp, (struct sockaddr *)&sa, &bytes);
    door->port = ntohs(sa.sin_port);
    return rc;
}

/* Where the members will listen is settled before anybody can dial: the thread reads it from its start on. */
static at_err settle_places(struct at_wires *w, struct at_diag *diag)
{
    for (int i = 0; i < w->members; i++) {
        char host[AT_HOST_BYTES_MAX + 1];
        uint16_t port;
        snprintf(host, sizeof host, "127.77.0.%d", i + 1);
        at_err_t err = at_address_probe(host, 0, diag, &port);
        if (err != AT_OK) return err;
        w->door[i].inner = address_of(i, port);
    }
    return AT_OK;
}

/* Signals are for the thread that waits for them. */
static int start_thread(struct at_wires *w)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = uv_thread_create(&w->thread, carry, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

static void release(struct at_wires *w)
{
    AT_ASSERT(uv_loop_close(&w->loop) == 0);
    pthread_cond_destroy(&w->answered);
    pthread_mutex_destroy(&w->mutex);
    free(w);
}

at_err_t at_wires_start(int members, struct at_diag *diag, struct at_wires **ret_wires)
{
    AT_ASSERT(members > 0 && members <= AT_WIRES_MEMBERS_MAX);
    struct at_wires *w = calloc(1, sizeof *w);
    if (!w) return at_fail(diag, AT_E_NOMEM, "demo", "out of memory");
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->answered, NULL);
    AT_ASSERT(uv_loop_init(&w->loop) == 0 && uv_async_init(&w->loop, &w->bell, on_bell) == 0);
    w->bell.data = w;
    w->members = members;
    for (int i = 0; i < members; i++) AT_ASSERT(uv_tcp_init(&w->loop, &w->door[i].tcp) == 0);
    int rc = 0;
    for (int i = 0; i < members && !rc; i++) rc = open_door(w, i);
    at_err_t err = AT_OK;
    if (rc)
        err =
            at_fail(diag, AT_E_ENV, "--chaos",
                    "members that can be cut off need a loopback address each, 127.77.0.1 and on: %s", uv_strerror(rc));
    if (err == AT_OK) err = settle_places(w, diag);
    if (err == AT_OK && start_thread(w) != 0)
        err = at_fail(diag, AT_E_ENV, "demo", "the system gives no further thread");
    if (err == AT_OK) {
        *ret_wires = w;
        return AT_OK;
    }
    stop(w);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    release(w);
    return err;
}

void at_wires_place(const struct at_wires *w, int i, char ret_listen[AT_WIRES_TEXT], char ret_announce[AT_WIRES_TEXT])
{
    snprintf(ret_listen, AT_WIRES_TEXT, "127.77.0.%d:%u", i + 1, ntohs(w->door[i].inner.sin_port));
    snprintf(ret_announce, AT_WIRES_TEXT, "127.77.0.%d:%u", i + 1, w->door[i].port);
}

void at_wires_stop(struct at_wires *w)
{
    if (!w) return;
    tell(w, ASK_STOP, 0, 0);
    uv_thread_join(&w->thread);
    release(w);
}
