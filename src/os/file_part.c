#include "os/file_part.h"

#include "os/file_fail.h"
#include "os/file_temp.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static at_err keep_path(struct at_file_part *f, const char *path, struct at_diag *diag)
{
    *f = (struct at_file_part){0};
    int n = snprintf(f->path, sizeof f->path, "%s", path);
    int m = snprintf(f->temp, sizeof f->temp, "%s.%ld.tmp", path, (long)getpid());
    if (n < 0 || m < 0 || (size_t)m >= sizeof f->temp) return at_fail(diag, AT_E_TOO_BIG, path, "the path is too long");
    return AT_OK;
}

at_err_t at_file_part_create(struct at_file_part *f, const char *path, unsigned mode, struct at_diag *diag)
{
    at_err_t err = keep_path(f, path, diag);
    if (err != AT_OK) return err;
    f->note = at_file_temp_note(f->temp);
    int fd = open(f->temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, (mode_t)mode);
    if (fd < 0) {
        at_file_temp_forget(f->note);
        return at_file_fail(diag, errno, path, "write");
    }
    f->fd_plus_1 = fd + 1;
    f->writing = true;
    return AT_OK;
}

at_err_t at_file_part_put(struct at_file_part *f, uint64_t offset, struct at_span bytes, struct at_diag *diag)
{
    AT_ASSERT(f->fd_plus_1 > 0 && f->writing);
    while (bytes.n > 0) {
        size_t piece = bytes.n < ((size_t)64 << 20) ? bytes.n : (size_t)64 << 20;
        ssize_t put = pwrite(f->fd_plus_1 - 1, bytes.p, piece, (off_t)offset);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return at_file_fail(diag, errno, f->path, "write");
        bytes = at_span(bytes.p + put, bytes.n - (size_t)put);
        offset += (uint64_t)put;
    }
    return AT_OK;
}

at_err_t at_file_part_commit(struct at_file_part *f, struct at_diag *diag)
{
    AT_ASSERT(f->fd_plus_1 > 0 && f->writing);
    at_err_t err = AT_OK;
    if (fsync(f->fd_plus_1 - 1) != 0) err = at_file_fail(diag, errno, f->path, "write");
    if (close(f->fd_plus_1 - 1) != 0 && err == AT_OK) err = at_file_fail(diag, errno, f->path, "write");
    f->fd_plus_1 = 0;
    if (err == AT_OK) err = at_file_rename(f->temp, f->path, diag);
    if (err != AT_OK) unlink(f->temp);
    at_file_temp_forget(f->note);
    return err;
}

at_err_t at_file_part_open(struct at_file_part *f, const char *path, struct at_diag *diag)
{
    struct stat st;
    at_err_t err = keep_path(f, path, diag);
    if (err != AT_OK) return err;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return at_file_fail(diag, errno, path, "read");
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return at_fail(diag, AT_E_DATA, path, "cannot read %s: it is no regular file", path);
    }
    f->fd_plus_1 = fd + 1;
    f->bytes = (uint64_t)st.st_size;
    return AT_OK;
}

at_err_t at_file_part_get(struct at_file_part *f, uint64_t offset, uint8_t *ret_bytes, size_t n, struct at_diag *diag)
{
    AT_ASSERT(f->fd_plus_1 > 0 && !f->writing);
    while (n > 0) {
        ssize_t got = pread(f->fd_plus_1 - 1, ret_bytes, n, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return at_file_fail(diag, errno, f->path, "read");
        if (got == 0) return at_fail(diag, AT_E_TRUNCATED, f->path, "%s ends too early", f->path);
        ret_bytes += got;
        n -= (size_t)got;
        offset += (uint64_t)got;
    }
    return AT_OK;
}

void at_file_part_drop(struct at_file_part *f)
{
    if (f->fd_plus_1 > 0) {
        close(f->fd_plus_1 - 1);
        if (f->writing) {
            unlink(f->temp);
            at_file_temp_forget(f->note);
        }
    }
    *f = (struct at_file_part){0};
}
