#define _DEFAULT_SOURCE /* alarm's and fork's company: setsid, RLIMIT_DATA, RLIMIT_NPROC */
#include "net/portmap.h"

#include "net/address.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

struct at_portmap {
    uv_pipe_t pipe;
    at_portmap_fn *on_note;
    void *user;
    bool stopping, asked;
    int fd; /* the pipe's */
    uint8_t in[AT_PORTMAP_NOTE_BYTES];
    size_t in_n;
    struct at_portmap_note last;
    bool told;
};

/* ---- the keeper: no byte of a gateway's but a note comes here ---- */
struct keeper {
    int fd; /* to the node */
    uint16_t port;
    const struct at_portmap_options *opt;
    const struct at_portmap_protocol *held_by; /* NULL: no mapping that we know of */
    struct at_portmap_note held;
};

struct answer { /* of a question, through its pipe */
    uint32_t by;
    uint8_t note[AT_PORTMAP_NOTE_BYTES];
};

/* The listening socket above all: the port must be free when the node is gone. Each becomes /dev/null, and is not closed: a
 * library may hold its number and close that at the next fork (libuv does), when it could be a pipe of ours. */
static void close_all_but(int keep)
{
    struct rlimit files;
    long max = getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < 65536 ? (long)files.rlim_cur : 65536;
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < max; fd++)
        if (fd != keep && fd != null && (fd < 3 || fcntl(fd, F_GETFD) >= 0) && (null < 0 || dup2(null, fd) < 0))
            close(fd);
}

static void limit(int what, rlim_t to)
{
    struct rlimit r = {.rlim_cur = to, .rlim_max = to};
    (void)setrlimit(what, &r);
}

/* What this process has now, and a little more. False: that is not known here. */
static bool limit_memory(void)
{
    unsigned long long size, resident, shared, text, lib, data = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    int n = f ? fscanf(f, "%llu %llu %llu %llu %llu %llu", &size, &resident, &shared, &text, &lib, &data) : 0;
    if (f) fclose(f);
    if (n == 6) limit(RLIMIT_DATA, (rlim_t)data * (rlim_t)sysconf(_SC_PAGESIZE) + AT_PORTMAP_CHILD_BYTES);
    return n == 6;
}

/* Waits so long; true when the parent is gone. */
static bool parent_gone(int fd, uint64_t seconds)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char c;
    if (poll(&p, 1, (int)(seconds * 1000)) <= 0) return false;
    ssize_t n = read(fd, &c, 1);
    return n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN);
}

/* Index of the protocol that made a mapping; protocol_count: none did. */
static uint32_t ask_all(uint16_t port, const struct at_portmap_options *o, struct at_portmap_note *note)
{
    char reasons[4 * AT_PORTMAP_TEXT_BYTES] = "";
    for (uint32_t i = 0; i < o->protocol_count; i++) {
        memset(note, 0, sizeof *note);
        bool mapped = o->protocols[i].map(port, o->lease_s, note);
        if (mapped && note->lease_s > o->lease_s) note->lease_s = o->lease_s;
        if (mapped && at_portmap_note_ok(note)) {
            note->mapped = true;
            snprintf(note->text, sizeof note->text, "%s", o->protocols[i].name);
            return i;
        }
        if (mapped) { /* of no use to anybody */
            o->protocols[i].unmap(port, note);
            snprintf(note->text, sizeof note->text, "%s: the gateway names no address that could be used",
                     o->protocols[i].name);
        }
        size_t n = strlen(reasons);
        snprintf(reasons + n, sizeof reasons - n, "%s%.60s", n ? "; " : "", note->text);
    }
    memset(note, 0, sizeof *note);
    snprintf(note->text, sizeof note->text, "%.96s", reasons[0] ? reasons : "this build has no protocol for it");
    return (uint32_t)o->protocol_count;
}

/* One question, or the removal of what is held, in a process of its own. */
_Noreturn static void question(const struct keeper *k, int out, bool removal)
{
    struct at_portmap_note note = {.text = "this system does not tell how much memory a process has"};
    struct answer a = {.by = (uint32_t)k->opt->protocol_count};
    signal(SIGALRM, SIG_DFL);
    alarm(k->opt->question_s); /* its default action ends this process */
    close(k->fd);
    bool bounded = limit_memory();
    limit(RLIMIT_NPROC, 0);
    if (removal) {
        if (bounded) k->held_by->unmap(k->port, &k->held);
        _exit(0);
    }
    if (bounded) a.by = ask_all(k->port, k->opt, &note);
    at_portmap_note_encode(&note, a.note);
    _exit(write(out, &a, sizeof a) != (ssize_t)sizeof a);
}

/* Runs it to its end, or for question_s. True: *ret_answer is here. */
static bool run_question(const struct keeper *k, bool removal, struct answer *ret_answer)
{
    int pipe_fd[2];
    if (pipe(pipe_fd) != 0) return false;
    pid_t pid = fork();
    if (pid == 0) {
        close(pipe_fd[0]);
        question(k, pipe_fd[1], removal);
    }
    close(pipe_fd[1]);
    struct pollfd p = {.fd = pipe_fd[0], .events = POLLIN};
    bool ok = false;
    if (pid > 0) {
        int n;
        do n = poll(&p, 1, (int)(k->opt->question_s * 1000)); /* an answer, or its end */
        while (n < 0 && errno == EINTR);
        ok = n > 0 && read(pipe_fd[0], ret_answer, sizeof *ret_answer) == (ssize_t)sizeof *ret_answer;
        (void)kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    close(pipe_fd[0]);
    return ok;
}

static void let_go(struct keeper *k)
{
    struct answer none;
    if (k->held_by) (void)run_question(k, true, &none);
    k->held_by = NULL;
}

/* Asks, remembers what is held now, and says what there is to say. */
static void ask(struct keeper *k, struct at_portmap_note *ret_note)
{
    struct answer a;
    memset(ret_note, 0, sizeof *ret_note);
    if (!run_question(k, false, &a)) {
        snprintf(ret_note->text, sizeof ret_note->text, "the gateway did not answer in time, or answered too much");
        return;
    }
    if (at_portmap_note_decode(a.note, ret_note) != AT_OK || ret_note->mapped != (a.by < k->opt->protocol_count)) {
        memset(ret_note, 0, sizeof *ret_note);
        snprintf(ret_note->text, sizeof ret_note->text, "the gateway's answer makes no sense");
        return;
    }
    if (!ret_note->mapped) return; /* what is held stays held: its lease may run on */
    const struct at_portmap_protocol *by = &k->opt->protocols[a.by];
    if (k->held_by &&
        (by != k->held_by || (!by->one_per_port && !at_endpoint_eq(&k->held.outside, &ret_note->outside))))
        let_go(k);
    k->held_by = by;
    k->held = *ret_note;
}

static bool read_port(int fd, uint16_t *ret_port)
{
    uint8_t b[2];
    for (size_t got = 0; got < sizeof b;) {
        ssize_t n = read(fd, b + got, sizeof b - got);
        if (n == 0 || (n < 0 && errno != EINTR)) return false;
        if (n > 0) got += (size_t)n;
    }
    *ret_port = (uint16_t)(b[0] | b[1] << 8);
    return true;
}

_Noreturn static void keep(int fd, const struct at_portmap_options *o)
{
    static const int quiet[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE}; /* meant for the parent */
    struct keeper k = {.fd = fd, .opt = o};
    struct at_portmap_note note;
    uint8_t bytes[AT_PORTMAP_NOTE_BYTES];
    sigset_t none;
    close_all_but(fd);
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_FSIZE, 0);
#ifdef __linux__
    (void)prctl(PR_SET_DUMPABLE, 0);
#endif
    for (size_t i = 0; i < sizeof quiet / sizeof quiet[0]; i++) signal(quiet[i], SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    if (!read_port(fd, &k.port)) _exit(0);
    for (uint64_t wait_s = 0, first = o->renew_s_first; !parent_gone(fd, wait_s);) {
        ask(&k, &note);
        at_portmap_note_encode(&note, bytes);
        if (write(fd, bytes, sizeof bytes) != (ssize_t)sizeof bytes) break;
        wait_s = note.mapped && note.lease_s / 2 < o->retry_s ? note.lease_s / 2 : o->retry_s;
        if (note.mapped && wait_s < o->renew_s_min) wait_s = o->renew_s_min;
        if (note.mapped && wait_s > first) wait_s = first;
        if (note.mapped) first = 100000; /* a day */
    }
    let_go(&k);
    _exit(0);
}

/* Forked twice: nobody has to wait for the one that works, and it may outlive us for its last request. */
static at_err_t start_child(int fd[2], const struct at_portmap_options *o)
{
    int status = 0;
    pid_t pid = fork();
    if (pid < 0) return AT_E_ENV;
    if (pid == 0) {
        (void)setsid();
        pid_t grandchild = fork();
        if (grandchild == 0) keep(fd[1], o);
        _exit(grandchild < 0);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? AT_OK : AT_E_ENV;
}

/* ---- the parent ---- */
static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void tell(struct at_portmap *p, const struct at_portmap_note *note)
{
    bool same = p->told && p->last.mapped == note->mapped && at_endpoint_eq(&p->last.outside, &note->outside) &&
                strcmp(p->last.text, note->text) == 0;
    p->last = *note;
    p->told = true;
    if (!same && !p->stopping) p->on_note(p->user, note);
}

static void end(struct at_portmap *p, const char *why)
{
    struct at_portmap_note note = {.mapped = false};
    snprintf(note.text, sizeof note.text, "%s", why);
    uv_read_stop((uv_stream_t *)&p->pipe);
    tell(p, &note);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct at_portmap *p = handle->data;
    *buf = uv_buf_init((char *)p->in + p->in_n, (unsigned)(sizeof p->in - p->in_n));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct at_portmap *p = stream->data;
    struct at_portmap_note note;
    if (n < 0) {
        end(p, "the process that asks the gateway is gone");
        return;
    }
    p->in_n += (size_t)n;
    if (p->in_n < sizeof p->in) return;
    p->in_n = 0;
    if (at_portmap_note_decode(p->in, &note) != AT_OK)
        note = (struct at_portmap_note){.text = "an answer without sense"};
    tell(p, &note);
}

at_err_t at_portmap_start(uv_loop_t *loop, const struct at_portmap_options *options, at_portmap_fn *on_note, void *user,
                          struct at_diag *diag, struct at_portmap **ret_portmap)
{
    struct at_portmap_options o = options ? *options : (struct at_portmap_options){0};
    int fd[2];
    if (!o.lease_s) o.lease_s = 3600;
    if (!o.renew_s_first) o.renew_s_first = 60;
    if (!o.renew_s_min) o.renew_s_min = 30;
    if (!o.retry_s) o.retry_s = 600;
    if (!o.question_s) o.question_s = 20;
    if (!o.protocols) o.protocols = at_portmap_protocols(&o.protocol_count);
    struct at_portmap *p = calloc(1, sizeof *p);
    if (!p) return at_fail(diag, AT_E_NOMEM, "portmap", "out of memory");
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) != 0) {
        free(p);
        return at_fail(diag, AT_E_ENV, "portmap", "no socket pair: %s", strerror(errno));
    }
    at_err_t err = start_child(fd, &o);
    close(fd[1]);
    if (err) {
        close(fd[0]);
        free(p);
        return at_fail(diag, err, "portmap", "no process to ask the gateway: %s", strerror(errno));
    }
    p->on_note = on_note;
    p->user = user;
    p->fd = fd[0];
    AT_ASSERT(uv_pipe_init(loop, &p->pipe, 0) == 0 && uv_pipe_open(&p->pipe, fd[0]) == 0);
    p->pipe.data = p;
    AT_ASSERT(uv_read_start((uv_stream_t *)&p->pipe, on_alloc, on_read) == 0);
    *ret_portmap = p;
    return AT_OK;
}

at_err_t at_portmap_ask(struct at_portmap *p, const char *host, uint16_t port, struct at_diag *diag)
{
    static const struct at_endpoint any6 = {.ip_bytes = 16};
    const uint8_t bytes[2] = {(uint8_t)port, (uint8_t)(port >> 8)};
    struct sockaddr_storage sa;
    AT_ASSERT(!p->asked);
    if (!at_address_numeric(host, port, &sa)) return at_fail(diag, AT_E_USAGE, host, "%s is no numeric address", host);
    struct at_endpoint e = at_address_of((struct sockaddr *)&sa);
    if (at_endpoint_loopback(&e) || (e.ip_bytes == 16 && memcmp(e.ip, any6.ip, 16) != 0))
        return at_fail(diag, AT_E_USAGE, host,
                       "no port is mapped to %s: a gateway reaches only this machine's IPv4 addresses", host);
    if (send(p->fd, bytes, sizeof bytes, MSG_NOSIGNAL) != (ssize_t)sizeof bytes)
        return at_fail(diag, AT_E_ENV, "portmap", "the process that asks the gateway is gone");
    p->asked = true;
    return AT_OK;
}

void at_portmap_stop(struct at_portmap *p)
{
    if (!p) return;
    p->stopping = true;
    uv_close((uv_handle_t *)&p->pipe, on_closed);
}
