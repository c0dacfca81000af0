#include "cli/child.h"

#include "cli/cli.h"
#include "os/file.h"
#include "os/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

at_err_t at_err_of_exit_code(int exit_code)
{
    switch (exit_code) {
    case 0:
        return AT_OK;
    case 2:
        return AT_E_USAGE;
    case 3:
        return AT_E_DATA;
    case 4:
        return AT_E_VERIFY;
    case 5:
        return AT_E_ENV;
    case 6:
        return AT_E_PEER;
    case 130:
        return AT_E_INTERRUPTED;
    default:
        return AT_E_INTERNAL;
    }
}

/* Between fork and exec: only calls that are safe there. */
_Noreturn static void become(const char *const *argv, int in_fd, int out_fd, int err_fd, pid_t parent)
{
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, in_fd >= 0 ? AT_CHILD_ORPHANED : SIGKILL);
#endif
    setpgid(0, 0);
    if (in_fd < 0) in_fd = open("/dev/null", O_RDONLY);
    if (getppid() != parent || in_fd < 0 || dup2(in_fd, 0) < 0 || dup2(out_fd, 1) < 0 || dup2(err_fd, 2) < 0)
        _exit(127);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGTSTP, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL); /* what the parent puts off is its own affair */
    execv(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

static at_err start(struct at_child *child, const char *const *argv, int in_fd, int out_fd, int err_fd,
                    struct at_diag *diag)
{
    pid_t parent = getpid();
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) return at_fail(diag, AT_E_ENV, argv[0], "the system gives no further process: %s", strerror(errno));
    if (pid == 0) become(argv, in_fd, out_fd >= 0 ? out_fd : err_fd, err_fd, parent);
    setpgid(pid, pid); /* on both sides, so that neither has to wait for the other */
    *child = (struct at_child){.pid = pid, .running = true};
    return AT_OK;
}

static at_err open_log(const char *path, struct at_diag *diag, int *ret_fd)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) return at_fail(diag, AT_E_DISK, path, "the log cannot be written: %s", strerror(errno));
    *ret_fd = fd;
    return AT_OK;
}

at_err at_child_start(struct at_child *child, const char *const *argv, const char *log_path, struct at_diag *diag)
{
    int fd = -1;
    at_err_t err = open_log(log_path, diag, &fd);
    if (err != AT_OK) return err;
    err = start(child, argv, -1, -1, fd, diag);
    close(fd);
    return err;
}

at_err_t at_child_start_fed(struct at_child *child, const char *const *argv, struct at_span input, struct at_diag *diag)
{
    int fd[2];
    if (pipe(fd) != 0) return at_fail(diag, AT_E_ENV, argv[0], "no pipe: %s", strerror(errno));
    fcntl(fd[0], F_SETFD, FD_CLOEXEC);
    fcntl(fd[1], F_SETFD, FD_CLOEXEC);
    at_err_t err = start(child, argv, fd[0], -1, STDERR_FILENO, diag);
    close(fd[0]);
    while (err == AT_OK && input.n > 0) { /* it reads at once; if it is gone, that is noticed elsewhere */
        ssize_t n = write(fd[1], input.p, input.n);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) break;
        input = at_span(input.p + n, input.n - (size_t)n);
    }
    close(fd[1]);
    return err;
}

static void note_end(struct at_child *child, int status)
{
    child->running = false;
    child->exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    child->exit_signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

void at_child_poll(struct at_child *child)
{
    int status;
    if (child->running && waitpid(child->pid, &status, WNOHANG) == child->pid) note_end(child, status);
}

void at_child_end(struct at_child *child, unsigned grace_ms)
{
    if (!child->running) return;
    kill(child->pid, SIGTERM);
    for (uint64_t until_ms = at_clock_mono_ms() + grace_ms; at_clock_mono_ms() < until_ms;) {
        at_child_poll(child);
        if (!child->running) return;
        nanosleep(&(struct timespec){0, 10000000}, NULL);
    }
    kill(child->pid, SIGKILL);
    int status;
    while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR) {
    }
    note_end(child, status);
}

/* Reads until end of file, or until this process is interrupted. */
static at_err read_all(int fd, struct at_diag *diag, struct at_buf *out)
{
    for (;;) {
        uint8_t *room;
        at_err_t err = at_buf_reserve(out, 65536, &room);
        if (err != AT_OK) return at_fail(diag, err, "child", "its answer is too long");
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int ready = poll(&p, 1, 100);
        if (at_interrupted()) return at_fail(diag, AT_E_INTERRUPTED, "", "interrupted");
        if (ready <= 0) continue;
        ssize_t n = read(fd, room, 65536);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return at_fail(diag, AT_E_ENV, "child", "its answer cannot be read: %s", strerror(errno));
        if (n == 0) return AT_OK;
        out->n += (size_t)n;
    }
}

at_err at_child_run(const char *const *argv, const char *log_path, struct at_diag *diag, struct at_buf *ret_stdout)
{
    int log_fd = -1, fd[2], status;
    struct at_child child = {0};
    at_err_t err = open_log(log_path, diag, &log_fd);
    if (err != AT_OK) return err;
    if (pipe(fd) != 0) {
        close(log_fd);
        return at_fail(diag, AT_E_ENV, argv[0], "no pipe: %s", strerror(errno));
    }
    fcntl(fd[0], F_SETFD, FD_CLOEXEC);
    fcntl(fd[1], F_SETFD, FD_CLOEXEC);
    err = start(&child, argv, -1, fd[1], log_fd, diag);
    close(fd[1]);
    close(log_fd);
    if (err == AT_OK) err = read_all(fd[0], diag, ret_stdout);
    close(fd[0]);
    if (err != AT_OK) {
        at_child_end(&child, 3000);
        return err;
    }
    while (waitpid(child.pid, &status, 0) < 0 && errno == EINTR) {
    }
    note_end(&child, status);
    if (child.exit_code == 0 && child.exit_signal == 0) return AT_OK;
    char line[300];
    at_file_tail(log_path, 1, line, sizeof line);
    const char *text = strncmp(line, "atoll: ", 7) == 0 ? line + 7 : line;
    return at_fail(diag, at_err_of_exit_code(child.exit_signal ? 1 : child.exit_code), argv[1], "%s",
                   text[0] ? text : "ended without a word");
}

void at_file_tail(const char *path, int lines, char *ret_text, size_t bytes)
{
    struct at_buf buf = {0};
    ret_text[0] = '\0';
    if (at_file_read_any(path, (size_t)64 << 20, NULL, &buf) != AT_OK) return;
    size_t end = buf.n;
    while (end > 0 && buf.p[end - 1] == '\n') end--;
    size_t from = end;
    for (int seen = 0; from > 0; from--)
        if (buf.p[from - 1] == '\n' && ++seen == lines) break;
    if (end - from > bytes - 1) from = end - (bytes - 1);
    size_t n = 0;
    for (size_t i = from; i < end; i++)
        if (buf.p[i] == '\n' || buf.p[i] >= ' ') ret_text[n++] = (char)buf.p[i];
    ret_text[n] = '\0';
    at_buf_release(&buf);
}
