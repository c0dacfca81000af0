#include "os/folder_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* Its holder may have removed the folder between our open and our lock: then we hold what nobody finds any more. */
static bool is_there(int fd, const char *dir)
{
    struct stat held, found;
    return fstat(fd, &held) == 0 && stat(dir, &found) == 0 && held.st_dev == found.st_dev &&
           held.st_ino == found.st_ino;
}

at_err_t at_folder_lock_take(struct at_lock *lock, const char *dir, struct at_diag *diag)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return at_fail(diag, AT_E_ENV, dir, "cannot open the folder %s: %s", dir, strerror(errno));
    bool held = flock(fd, LOCK_EX | LOCK_NB) == 0;
    if (held ? !is_there(fd, dir) : errno == EWOULDBLOCK) {
        close(fd);
        return at_fail(diag, AT_E_ENV, dir,
                       "another process writes into the folder %s: wait until it has ended, or choose another folder",
                       dir);
    }
    if (held)
        lock->fd_plus_1 = fd + 1;
    else
        close(fd);
    return AT_OK;
}
