#include "os/file.h"

#include "os/file_fail.h"
#include "os/file_temp.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static at_err_t open_for_read(const char *path, struct at_diag *diag, int *ret_fd, uint64_t *ret_bytes)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not hold us up before it is refused */
    if (fd < 0) return at_file_fail(diag, errno, path, "read");
    if (fstat(fd, &st) != 0) {
        at_err_t err = at_file_fail(diag, errno, path, "read");
        close(fd);
        return err;
    }
    if (S_ISREG(st.st_mode)) {
        *ret_fd = fd;
        *ret_bytes = (uint64_t)st.st_size;
        return AT_OK;
    }
    close(fd);
    return at_fail(diag, AT_E_DATA, path, "cannot read %s: it is %s", path,
                   S_ISDIR(st.st_mode) ? "a folder, not a file" : "no regular file");
}

at_err_t at_file_read_any(const char *path, size_t bytes_max, struct at_diag *diag, struct at_buf *buf)
{
    int fd = -1;
    uint64_t bytes = 0;
    size_t n = 0;
    uint8_t *p = NULL;
    at_err_t err = open_for_read(path, diag, &fd, &bytes);
    if (err) return err;
    if (bytes > bytes_max) {
        err = at_fail(diag, AT_E_TOO_BIG, path, "%s has %llu bytes, more than the limit of %zu", path,
                      (unsigned long long)bytes, bytes_max);
        goto out;
    }
    if (bytes && (err = at_buf_reserve(buf, (size_t)bytes, &p)) != AT_OK) {
        err = at_fail(diag, err, path, "no memory for the %llu bytes of %s", (unsigned long long)bytes, path);
        goto out;
    }
    while (n < bytes) {
        ssize_t got = read(fd, p + n, (size_t)bytes - n);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            err = at_file_fail(diag, errno, path, "read");
            goto out;
        }
        if (got == 0) { /* somebody cut it while we read */
            err = at_fail(diag, AT_E_TRUNCATED, path, "%s became shorter while it was read", path);
            goto out;
        }
        n += (size_t)got;
    }
    buf->n += n;
out:
    close(fd);
    return err;
}

at_err_t at_file_read(const char *path, size_t bytes_max, struct at_diag *diag, struct at_buf *buf)
{
    size_t before = buf->n;
    at_err_t err = at_file_read_any(path, bytes_max, diag, buf);
    if (!err && buf->n == before) err = at_fail(diag, AT_E_DATA, path, "%s is empty", path);
    return err;
}

static at_err_t write_all(int fd, struct at_span s, const char *path, struct at_diag *diag)
{
    while (s.n > 0) {
        size_t piece = s.n < ((size_t)64 << 20) ? s.n : (size_t)64 << 20;
        ssize_t put = write(fd, s.p, piece);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return at_file_fail(diag, errno, path, "write");
        s.p += put;
        s.n -= (size_t)put;
    }
    return AT_OK;
}

/* Makes a rename in `path`'s folder durable. */
static at_err_t sync_folder_of(const char *path, struct at_diag *diag)
{
    char dir[AT_PATH_BYTES];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (n >= sizeof dir) return at_fail(diag, AT_E_TOO_BIG, path, "the path is too long");
    memcpy(dir, path, n);
    dir[n] = 0;
    int fd = open(slash ? (n ? dir : "/") : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return at_file_fail(diag, errno, path, "reach the folder of");
    int rc = fsync(fd);
    at_err_t err = rc != 0 && errno != EINVAL ? at_file_fail(diag, errno, path, "make durable")
                                              : AT_OK; /* EINVAL: a file system without it */
    close(fd);
    return err;
}

at_err_t at_file_write_atomic(const char *path, const struct at_span *parts, int part_count, unsigned mode,
                              struct at_diag *diag)
{
    char temp[AT_PATH_BYTES];
    int len = snprintf(temp, sizeof temp, "%s.%ld.tmp", path, (long)getpid());
    if (len < 0 || (size_t)len >= sizeof temp) return at_fail(diag, AT_E_TOO_BIG, path, "the path is too long");
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        errno = EISDIR;
        return at_file_fail(diag, errno, path, "write");
    }
    at_err_t err = AT_OK;
    int note = at_file_temp_note(temp);
    int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, (mode_t)mode);
    if (fd < 0) {
        at_file_temp_forget(note);
        return at_file_fail(diag, errno, path, "write");
    }
    for (int i = 0; i < part_count && !err; i++) err = write_all(fd, parts[i], path, diag);
    if (!err && fchmod(fd, (mode_t)mode) != 0) err = at_file_fail(diag, errno, path, "set the mode of");
    if (!err && fsync(fd) != 0) err = at_file_fail(diag, errno, path, "write");
    if (close(fd) != 0 && !err) err = at_file_fail(diag, errno, path, "write");
    if (!err && rename(temp, path) != 0) err = at_file_fail(diag, errno, path, "replace");
    if (err) unlink(temp);
    at_file_temp_forget(note);
    return err ? err : sync_folder_of(path, diag);
}

bool at_file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

at_err_t at_file_size(const char *path, struct at_diag *diag, uint64_t *ret_bytes)
{
    struct stat st;
    if (stat(path, &st) != 0) return at_file_fail(diag, errno, path, "look at");
    *ret_bytes = (uint64_t)st.st_size;
    return AT_OK;
}

at_err_t at_file_remove(const char *path, struct at_diag *diag)
{
    return unlink(path) != 0 && errno != ENOENT ? at_file_fail(diag, errno, path, "remove") : AT_OK;
}

at_err_t at_file_erase(const char *path, struct at_diag *diag)
{
    static const uint8_t zero[4096];
    struct stat st;
    int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return errno == ENOENT ? AT_OK : at_file_fail(diag, errno, path, "erase");
    at_err_t err = fstat(fd, &st) != 0 ? at_file_fail(diag, errno, path, "erase") : AT_OK;
    for (off_t at = 0; !err && at < st.st_size; at += (off_t)sizeof zero) {
        size_t left = (size_t)(st.st_size - at);
        err = write_all(fd, at_span(zero, left < sizeof zero ? left : sizeof zero), path, diag);
    }
    if (!err && fsync(fd) != 0) err = at_file_fail(diag, errno, path, "erase");
    close(fd);
    if (!err) err = at_file_remove(path, diag);
    return err ? err : sync_folder_of(path, diag);
}

at_err_t at_file_rename(const char *from, const char *to, struct at_diag *diag)
{
    return rename(from, to) != 0 ? at_file_fail(diag, errno, from, "rename") : sync_folder_of(to, diag);
}

at_err_t at_dir_make(const char *path, unsigned mode, struct at_diag *diag)
{
    char part[AT_PATH_BYTES];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof part) return at_fail(diag, AT_E_USAGE, path, "the folder's name is empty or too long");
    struct stat st;
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != 0) continue;
        memcpy(part, path, i);
        part[i] = 0;
        if (mkdir(part, (mode_t)mode) == 0) {
            at_err_t err = sync_folder_of(part, diag);
            if (err) return err;
            continue;
        }
        if (errno != EEXIST && !(stat(part, &st) == 0 && S_ISDIR(st.st_mode)))
            return at_file_fail(diag, errno, part, "make the folder");
        if (stat(part, &st) == 0 && !S_ISDIR(st.st_mode))
            return at_fail(diag, AT_E_DATA, part, "cannot make the folder %s: a file has that name", part);
    }
    return AT_OK;
}

at_err_t at_dir_list(const char *path, struct at_diag *diag, at_dir_visit_fn *visit, void *user)
{
    DIR *dir = opendir(path);
    if (!dir) return at_file_fail(diag, errno, path, "open the folder");
    at_err_t err = AT_OK;
    for (struct dirent *e; !err && (e = readdir(dir)) != NULL;)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) err = visit(user, e->d_name);
    closedir(dir);
    return err;
}

static at_err_t count_entry(void *user, const char *name)
{
    ++*(int *)user;
    return AT_OK;
}

at_err_t at_dir_is_empty(const char *path, struct at_diag *diag, bool *ret_empty)
{
    int entries = 0;
    at_err_t err = at_file_exists(path) ? at_dir_list(path, diag, count_entry, &entries) : AT_OK;
    if (!err) *ret_empty = entries == 0;
    return err;
}

at_err_t at_dir_remove_empty(const char *path)
{
    return rmdir(path) == 0 || errno == ENOENT ? AT_OK : AT_E_ENV;
}

at_err_t at_disk_free(const char *path, struct at_diag *diag, uint64_t *ret_bytes)
{
    struct statvfs v;
    if (statvfs(path, &v) != 0) return at_file_fail(diag, errno, path, "look at the disk of");
    *ret_bytes = (uint64_t)v.f_bavail * (uint64_t)v.f_frsize;
    return AT_OK;
}

at_err_t at_path_join(const char *dir, const char *name, struct at_diag *diag, char ret_path[AT_PATH_BYTES])
{
    size_t d = strlen(dir), n = strlen(name);
    bool slash = d > 0 && dir[d - 1] != '/';
    if (d + slash + n >= AT_PATH_BYTES) return at_fail(diag, AT_E_TOO_BIG, name, "the path of %s is too long", name);
    memcpy(ret_path, dir, d);
    if (slash) ret_path[d] = '/';
    memcpy(ret_path + d + slash, name, n + 1);
    return AT_OK;
}

at_err_t at_lock_take(struct at_lock *lock, const char *dir, struct at_diag *diag)
{
    char path[AT_PATH_BYTES], pid[32] = "";
    at_err_t err = at_path_join(dir, "lock", diag, path);
    if (err) return err;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return at_file_fail(diag, errno, path, "open");
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK) {
            ssize_t n = pread(fd, pid, sizeof pid - 1, 0);
            long holder = n > 0 ? atol(pid) : 0;
            err = at_fail(diag, AT_E_ENV, dir, "another atoll runs in %s, pid %ld", dir, holder);
        } else {
            err = at_file_fail(diag, errno, path, "lock");
        }
        close(fd);
        return err;
    }
    int len = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, pid, (size_t)len, 0) != len) {
        err = at_file_fail(diag, errno, path, "write");
        close(fd);
        return err;
    }
    lock->fd_plus_1 = fd + 1;
    return AT_OK;
}

void at_lock_release(struct at_lock *lock)
{
    if (lock->fd_plus_1) close(lock->fd_plus_1 - 1); /* the file stays: removing it would race with the next holder */
    lock->fd_plus_1 = 0;
}
