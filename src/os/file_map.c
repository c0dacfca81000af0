#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "os/file_map.h"

#include "os/file.h"
#include "os/file_fail.h"
#include "os/file_temp.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- what a page that fails is told as: a signal handler has globals only ---- */
enum { GUARDS_MAX = 256 }; /* further maps end a process without a word about them */
static struct {
    atomic_uintptr_t begin; /* 0: free; 1: somebody is changing it */
    atomic_size_t bytes;
    char path[AT_PATH_BYTES];
} guard[GUARDS_MAX];
static pthread_once_t guarded = PTHREAD_ONCE_INIT;

static void say(const char *text)
{
    ssize_t n = write(2, text, strlen(text));
    (void)n;
}

static void on_bus(int sig, siginfo_t *info, void *context)
{
    uintptr_t at = (uintptr_t)info->si_addr;
    for (int i = 0; i < GUARDS_MAX; i++) {
        uintptr_t begin = atomic_load(&guard[i].begin);
        if (begin <= 1 || at < begin || at - begin >= atomic_load(&guard[i].bytes)) continue;
        say("atoll: a page in ");
        say(guard[i].path);
        say(" cannot be read or written: the disk fails or is full, or somebody made the file shorter\n");
        at_file_temp_remove_all();
        _exit(at_err_exit_code(AT_E_DISK));
    }
    (void)signal(sig, SIG_DFL); /* nobody's we know: it happens again, and ends the process as ever */
}

static void guard_begin(void)
{
    struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    (void)sigaction(SIGBUS, &action, NULL);
}

static void guard_add(const struct at_file_map *m, const char *path)
{
    size_t n = strlen(path);
    (void)pthread_once(&guarded, guard_begin);
    for (int i = 0; i < GUARDS_MAX && n < sizeof guard[i].path; i++) {
        uintptr_t was = 0;
        if (!atomic_compare_exchange_strong(&guard[i].begin, &was, 1)) continue;
        memcpy(guard[i].path, path, n + 1);
        atomic_store(&guard[i].bytes, m->n);
        atomic_store(&guard[i].begin, (uintptr_t)m->p);
        return;
    }
}

static void guard_remove(const struct at_file_map *m)
{
    uintptr_t begin = (uintptr_t)m->p;
    for (int i = 0; i < GUARDS_MAX; i++)
        if (atomic_load(&guard[i].begin) == begin) atomic_store(&guard[i].begin, 0);
}

/* ---- maps ---- */
static at_err own_memory(struct at_file_map *m, size_t bytes, struct at_diag *diag)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return at_fail(diag, AT_E_NOMEM, "memory", "no memory for %zu MB", bytes >> 20);
    *m = (struct at_file_map){p, bytes};
    return AT_OK;
}

/* Its name is taken away before it has a byte. */
static at_err make_nameless(const char *dir, struct at_diag *diag, int *ret_fd)
{
    char path[AT_PATH_BYTES];
    at_err_t err = at_path_join(dir, ".scratch.XXXXXX", diag, path);
    if (err) return err;
    int fd = mkstemp(path);
    if (fd < 0) return at_file_fail(diag, errno, dir, "write to");
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    (void)unlink(path);
    *ret_fd = fd;
    return AT_OK;
}

/* fd is closed in any case: the map keeps the file. */
static at_err map_it(struct at_file_map *m, int fd, size_t bytes, int rights, const char *path, struct at_diag *diag)
{
    void *p = mmap(NULL, bytes, rights, MAP_SHARED, fd, 0);
    int e = errno;
    (void)close(fd);
    if (p == MAP_FAILED) return at_file_fail(diag, e, path, "map");
    *m = (struct at_file_map){p, bytes};
    guard_add(m, path);
    return AT_OK;
}

at_err_t at_file_map_scratch(struct at_file_map *m, const char *dir, size_t bytes, struct at_diag *diag)
{
    int fd = -1, e;
    *m = (struct at_file_map){0};
    if (!dir) return own_memory(m, bytes, diag);
    if (bytes > INT64_MAX) return at_fail(diag, AT_E_TOO_BIG, dir, "%zu bytes are too many for a file", bytes);
    at_err_t err = make_nameless(dir, diag, &fd);
    if (err) return err;
    do e = posix_fallocate(fd, 0, (off_t)bytes);
    while (e == EINTR);
    if (!e) return map_it(m, fd, bytes, PROT_READ | PROT_WRITE, dir, diag);
    (void)close(fd);
    if (e == ENOSPC || e == EDQUOT || e == EFBIG)
        return at_fail(diag, AT_E_DISK, dir, "%zu MB of disk are needed in %s, and %s", (bytes >> 20) + 1, dir,
                       e == EFBIG ? "that passes the size limit of this process' files" : "the disk is full");
    return at_file_fail(diag, e, dir, "write to");
}

at_err_t at_file_map_open(struct at_file_map *m, const char *path, size_t bytes_max, struct at_diag *diag)
{
    struct stat st;
    *m = (struct at_file_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return at_file_fail(diag, errno, path, "read");
    at_err_t err = AT_OK;
    if (fstat(fd, &st) != 0)
        err = at_file_fail(diag, errno, path, "read");
    else if (!S_ISREG(st.st_mode))
        err = at_fail(diag, AT_E_DATA, path, "cannot read %s: it is no regular file", path);
    else if (st.st_size == 0)
        err = at_fail(diag, AT_E_DATA, path, "%s is empty", path);
    else if ((uint64_t)st.st_size > bytes_max)
        err = at_fail(diag, AT_E_TOO_BIG, path, "%s has %lld bytes; at most %zu are possible", path,
                      (long long)st.st_size, bytes_max);
    if (!err) return map_it(m, fd, (size_t)st.st_size, PROT_READ, path, diag);
    (void)close(fd);
    return err;
}

void at_file_map_release(struct at_file_map *m)
{
    if (m->p) {
        guard_remove(m);
        (void)munmap(m->p, m->n);
    }
    *m = (struct at_file_map){0};
}

/* ---- handed down ---- */
static void *take(void *arg, size_t bytes)
{
    struct at_file_map m;
    return at_file_map_scratch(&m, arg, bytes, NULL) == AT_OK ? m.p : NULL;
}

static void give(void *arg, void *block, size_t bytes)
{
    at_file_map_release(&(struct at_file_map){block, bytes});
}

struct at_memory at_file_map_memory(const char *dir)
{
    return (struct at_memory){take, give, (void *)(uintptr_t)dir};
}
