/* cross_run.h: both ends of the socket between cross_run and the emulated program. Whole reads and writes, or false. */
#ifndef ATOLL_CROSS_RUN_H
#define ATOLL_CROSS_RUN_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <unistd.h>

#define AT_CROSS_FD 3 /* in the emulated program */

static inline bool at_cross_write(int fd, const void *from, size_t n)
{
    const char *p = from;
    while (n > 0) {
        ssize_t k = write(fd, p, n);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return false;
        p += k;
        n -= (size_t)k;
    }
    return true;
}

static inline bool at_cross_read(int fd, void *to, size_t n)
{
    char *p = to;
    while (n > 0) {
        ssize_t k = read(fd, p, n);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return false;
        p += k;
        n -= (size_t)k;
    }
    return true;
}

#endif
