#include "os/file_fail.h"

#include <errno.h>
#include <string.h>

at_err_t at_file_fail(struct at_diag *diag, int e, const char *path, const char *doing)
{
    switch (e) {
    case ENOENT:
        return at_fail(diag, AT_E_NOT_FOUND, path, "cannot %s %s: there is no such file or folder", doing, path);
    case EISDIR:
        return at_fail(diag, AT_E_DATA, path, "cannot %s %s: it is a folder, not a file", doing, path);
    case ENOTDIR:
        return at_fail(diag, AT_E_DATA, path, "cannot %s %s: a part of the path is no folder", doing, path);
    case EACCES:
    case EPERM:
        return at_fail(diag, AT_E_ENV, path, "cannot %s %s: no permission", doing, path);
    case EROFS:
        return at_fail(diag, AT_E_DISK, path, "cannot %s %s: the file system is read-only", doing, path);
    case ENOSPC:
    case EDQUOT:
        return at_fail(diag, AT_E_DISK, path, "cannot %s %s: the disk is full", doing, path);
    case EFBIG:
        return at_fail(diag, AT_E_DISK, path, "cannot %s %s: the file would pass the size limit of this process", doing,
                       path);
    case EIO:
        return at_fail(diag, AT_E_DISK, path, "cannot %s %s: the disk reports an I/O error", doing, path);
    case ENOMEM:
        return at_fail(diag, AT_E_NOMEM, path, "cannot %s %s: out of memory", doing, path);
    case ENODEV:
        return at_fail(diag, AT_E_ENV, path, "cannot %s %s: its file system cannot do that; use another", doing, path);
    default:
        return at_fail(diag, AT_E_ENV, path, "cannot %s %s: %s", doing, path, strerror(e));
    }
}
