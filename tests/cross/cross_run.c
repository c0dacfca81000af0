/* cross_run EMULATOR PROGRAM [ARG...]: runs a test program of another architecture and computes the SHA-256 digests that
 * it asks for (target/served.c), with OpenSSL. Exits as the program does; a signal is exit code 128 + its number. */
#include "cross_run.h"
#include "base/hash.h"

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>

/* Until the program closes its end. */
static void serve(int fd)
{
    static uint8_t piece[1 << 16];
    uint64_t n;
    while (at_cross_read(fd, &n, sizeof n)) {
        struct at_sha256_ctx sha;
        at_sha256_init(&sha);
        for (uint64_t left = n; left > 0;) {
            size_t k = left < sizeof piece ? (size_t)left : sizeof piece;
            if (!at_cross_read(fd, piece, k)) break; /* the answer below fails, too */
            at_sha256_update(&sha, piece, k);
            left -= k;
        }
        struct at_hash h = at_sha256_final(&sha);
        if (!at_cross_write(fd, h.b, sizeof h.b)) return;
    }
}

static void become(int fd, char **argv)
{
    if (fd == AT_CROSS_FD || dup2(fd, AT_CROSS_FD) == AT_CROSS_FD) execvp(argv[0], argv);
    perror(argv[0]);
    _exit(127);
}

int main(int argc, char **argv)
{
    int fd[2], status;
    if (argc < 3) {
        fprintf(stderr, "usage: cross_run EMULATOR PROGRAM [ARG...]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN); /* a program that ends early is seen by its exit code */
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fd) != 0) {
        perror("socketpair");
        return 5;
    }
    pid_t child = fork();
    if (child < 0) {
        perror("fork");
        return 5;
    }
    if (child == 0) {
        /* The program's end must be the only one that stays open, or the server would wait for itself. */
        if (fd[0] != AT_CROSS_FD) close(fd[0]);
        become(fd[1], argv + 1);
    }
    close(fd[1]);
    serve(fd[0]);
    if (waitpid(child, &status, 0) != child) return 5;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
