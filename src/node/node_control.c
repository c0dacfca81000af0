#include "node/node_control.h"

#include "node/node.h"
#include "os/file.h"
#include "os/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CLIENTS_MAX       16
#define REQUEST_BYTES_MAX 4096
#define CLIENT_MS         5000
#define ANSWER_BYTES_MAX  ((size_t)16 << 20)
#define NAME              "control.sock"

/* A socket's path has room for about 100 bytes. Where the folder's is longer, the same file is reached through an open
 * descriptor of the folder (Linux); *ret_dir_fd is that descriptor, or -1. */
static at_err socket_path(const char *dir, struct at_diag *diag, int *ret_dir_fd, char ret_path[AT_PATH_BYTES])
{
    struct sockaddr_un sa;
    at_err_t err = at_path_join(dir, NAME, diag, ret_path);
    *ret_dir_fd = -1;
    if (err || strlen(ret_path) < sizeof sa.sun_path) return err;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return at_fail(diag, AT_E_NOT_FOUND, dir, "cannot open the folder %s: %s", dir, strerror(errno));
    snprintf(ret_path, AT_PATH_BYTES, "/proc/self/fd/%d", fd);
    if (access(ret_path, F_OK) != 0) {
        close(fd);
        return at_fail(diag, AT_E_ENV, dir, "the folder's path is too long for a socket: %zu bytes, of at most %zu",
                       strlen(dir), sizeof sa.sun_path - sizeof NAME - 1);
    }
    snprintf(ret_path, AT_PATH_BYTES, "/proc/self/fd/%d/" NAME, fd);
    *ret_dir_fd = fd;
    return AT_OK;
}

/* ---- server ---- */
struct client {
    struct at_control *control;
    uv_pipe_t pipe;
    uv_timer_t timer;
    uv_write_t write;
    int open_handles;
    bool answered;
    size_t n;
    char request[REQUEST_BYTES_MAX];
    struct at_buf answer;
};

struct at_control {
    uv_loop_t *loop;
    uv_pipe_t listener;
    bool listener_open, releasing;
    int dir_fd;
    at_control_fn *answer;
    void *user;
    struct client *client[CLIENTS_MAX];
};

static void free_when_empty(struct at_control *control)
{
    bool busy = control->listener_open;
    for (int i = 0; i < CLIENTS_MAX; i++) busy |= control->client[i] != NULL;
    if (busy || !control->releasing) return;
    if (control->dir_fd >= 0) close(control->dir_fd);
    free(control);
}

static void on_client_closed(uv_handle_t *handle)
{
    struct client *c = handle->data;
    struct at_control *control = c->control;
    if (--c->open_handles > 0) return;
    for (int i = 0; i < CLIENTS_MAX; i++)
        if (control->client[i] == c) control->client[i] = NULL;
    at_buf_release(&c->answer);
    free(c);
    free_when_empty(control);
}

static void close_client(struct client *c)
{
    if (uv_is_closing((uv_handle_t *)&c->pipe)) return;
    uv_close((uv_handle_t *)&c->pipe, on_client_closed);
    uv_close((uv_handle_t *)&c->timer, on_client_closed);
}

static void on_timeout(uv_timer_t *timer)
{
    close_client(timer->data);
}

static void on_written(uv_write_t *req, int status)
{
    close_client(req->data);
}

static void answer_client(struct client *c)
{
    json_t *request = json_loadb(c->request, c->n, JSON_REJECT_DUPLICATES, NULL);
    const char *verb = json_string_value(json_object_get(request, "do"));
    at_err_t err = AT_OK;
    c->answered = true;
    c->answer.bytes_max = ANSWER_BYTES_MAX;
    if (verb) {
        c->control->answer(c->control->user, verb, &c->answer);
    } else {
        static const char bad[] = "{\"ok\":false,\"error\":\"a request is one line: {\\\"do\\\":\\\"status\\\"}\"}";
        err = at_buf_append(&c->answer, bad, sizeof bad - 1);
    }
    json_decref(request);
    if (!err) err = at_buf_append(&c->answer, "\n", 1);
    uv_buf_t buf = uv_buf_init((char *)c->answer.p, (unsigned)c->answer.n);
    c->write.data = c;
    if (err || uv_write(&c->write, (uv_stream_t *)&c->pipe, &buf, 1, on_written)) close_client(c);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct client *c = handle->data;
    *buf = uv_buf_init(c->request + c->n, (unsigned)(sizeof c->request - c->n)); /* none left: read reports ENOBUFS */
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct client *c = stream->data;
    if (n < 0) {
        if (!c->answered) close_client(c);
        return;
    }
    c->n += (size_t)n;
    if (!c->answered && memchr(c->request, '\n', c->n)) {
        uv_read_stop(stream);
        answer_client(c);
    }
}

static void free_handle(uv_handle_t *handle)
{
    free(handle);
}

/* Taken only to be closed: a connection that is not taken would stop the listener. */
static void turn_away(uv_stream_t *listener)
{
    uv_pipe_t *pipe = malloc(sizeof *pipe);
    if (!pipe) return;
    AT_ASSERT(uv_pipe_init(listener->loop, pipe, 0) == 0);
    (void)uv_accept(listener, (uv_stream_t *)pipe);
    uv_close((uv_handle_t *)pipe, free_handle);
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct at_control *control = listener->data;
    int slot = 0;
    if (status < 0) return;
    while (slot < CLIENTS_MAX && control->client[slot]) slot++;
    if (slot == CLIENTS_MAX) {
        turn_away(listener);
        return;
    }
    struct client *c = calloc(1, sizeof *c);
    if (!c) {
        turn_away(listener);
        return;
    }
    c->control = control;
    AT_ASSERT(uv_pipe_init(control->loop, &c->pipe, 0) == 0 && uv_timer_init(control->loop, &c->timer) == 0);
    c->pipe.data = c->timer.data = c;
    c->open_handles = 2;
    control->client[slot] = c;
    uv_timer_start(&c->timer, on_timeout, CLIENT_MS, 0);
    if (uv_accept(listener, (uv_stream_t *)&c->pipe) || uv_read_start((uv_stream_t *)&c->pipe, on_alloc, on_read))
        close_client(c);
}

static void on_listener_closed(uv_handle_t *handle)
{
    struct at_control *control = handle->data;
    control->listener_open = false;
    free_when_empty(control);
}

at_err_t at_control_listen(uv_loop_t *loop, const char *dir, at_control_fn *answer, void *user, struct at_diag *diag,
                           struct at_control **ret_control)
{
    char path[AT_PATH_BYTES];
    struct at_control *c = calloc(1, sizeof *c);
    if (!c) return at_fail(diag, AT_E_NOMEM, dir, "out of memory");
    c->loop = loop;
    c->answer = answer;
    c->user = user;
    at_err_t err = socket_path(dir, diag, &c->dir_fd, path);
    if (err) {
        free(c);
        return err;
    }
    (void)unlink(path); /* of a process that was killed: the folder's lock is ours */
    mode_t old = umask(0177);
    int rc = uv_pipe_init(loop, &c->listener, 0);
    c->listener.data = c;
    c->listener_open = true;
    if (!rc) rc = uv_pipe_bind(&c->listener, path);
    umask(old);
    if (!rc) rc = uv_listen((uv_stream_t *)&c->listener, 16, on_connection);
    if (rc) {
        at_control_release(c);
        return at_fail(diag, AT_E_ENV, path, "cannot make the control socket in %s: %s", dir, uv_strerror(rc));
    }
    *ret_control = c;
    return AT_OK;
}

void at_control_release(struct at_control *control)
{
    if (!control) return;
    control->releasing = true;
    for (int i = 0; i < CLIENTS_MAX; i++)
        if (control->client[i]) close_client(control->client[i]);
    uv_close((uv_handle_t *)&control->listener, on_listener_closed); /* removes the socket file */
}

/* ---- client ---- */
static at_err connect_to(const char *dir, struct at_diag *diag, int *ret_fd)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    char path[AT_PATH_BYTES];
    int dir_fd = -1;
    if (!at_file_exists(dir)) return at_fail(diag, AT_E_NOT_FOUND, dir, "there is no folder %s", dir);
    at_err_t err = socket_path(dir, diag, &dir_fd, path);
    if (err) return err;
    AT_ASSERT(strlen(path) < sizeof sa.sun_path);
    memcpy(sa.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        err = at_fail(diag, AT_E_ENV, dir, "no socket: %s", strerror(errno));
    } else if (connect(fd, (struct sockaddr *)&sa, sizeof sa) != 0) {
        bool nobody = errno == ENOENT || errno == ENOTDIR || errno == ECONNREFUSED;
        err = at_fail(diag, nobody ? AT_E_NOT_FOUND : AT_E_ENV, dir,
                      nobody ? "no node runs in %s; `atoll start` starts it, unless its run has ended"
                             : "cannot reach the node in %s",
                      dir);
        close(fd);
    } else {
        *ret_fd = fd;
    }
    if (dir_fd >= 0) close(dir_fd);
    return err;
}

static bool wait_for(int fd, short what, uint64_t end_ms)
{
    for (;;) {
        uint64_t now = at_clock_mono_ms();
        if (now >= end_ms) return false;
        struct pollfd p = {.fd = fd, .events = what};
        int rc = poll(&p, 1, (int)(end_ms - now));
        if (rc > 0) return true;
        if (rc == 0 || errno != EINTR) return false;
    }
}

/* Reads up to the newline, which is dropped. */
static at_err read_line(int fd, uint64_t end_ms, struct at_buf *line)
{
    for (;;) {
        uint8_t *p = NULL;
        if (!wait_for(fd, POLLIN, end_ms) || at_buf_reserve(line, 4096, &p) != AT_OK) return AT_E_ENV;
        ssize_t n = recv(fd, p, 4096, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return AT_E_ENV;
        line->n += (size_t)n;
        if (line->p[line->n - 1] == '\n') {
            line->n--;
            return AT_OK;
        }
    }
}

at_err_t at_control_call(const char *dir, const char *verb, uint32_t timeout_ms, struct at_diag *diag,
                         struct at_buf *ret_json)
{
    char request[128];
    int fd = -1;
    uint64_t end_ms = at_clock_mono_ms() + timeout_ms;
    struct at_buf line = {.bytes_max = ANSWER_BYTES_MAX};
    int n = snprintf(request, sizeof request, "{\"do\":\"%s\"}\n", verb);
    if (n < 0 || (size_t)n >= sizeof request) return at_fail(diag, AT_E_USAGE, verb, "no such request");
    at_err_t err = connect_to(dir, diag, &fd);
    if (err) return err;
    if (!wait_for(fd, POLLOUT, end_ms) || send(fd, request, (size_t)n, MSG_NOSIGNAL) != n)
        err = AT_E_ENV;
    else
        err = read_line(fd, end_ms, &line);
    close(fd);
    if (err)
        err = at_fail(diag, AT_E_ENV, dir, "the node in %s does not answer", dir);
    else
        err = at_buf_append(ret_json, line.p, line.n);
    at_buf_release(&line);
    return err;
}
