/* child.h: other processes of this program: started, listened to, ended. They never outlive their parent: the demo's
 * death (kill -9 included, on Linux) is theirs, and Ctrl-C and Ctrl-Z on the terminal reach the parent alone: the demo
 * then ends them in order, train stops them with itself. Thread rule: one thread. */
#ifndef ATOLL_CLI_CHILD_H
#define ATOLL_CLI_CHILD_H

#include "base/bytes.h"

#include <signal.h>
#include <sys/types.h>

struct at_child {
    pid_t pid; /* 0: none */
    bool running;
    int exit_code;   /* when it ended by itself */
    int exit_signal; /* when a signal ended it */
};

/* Starts argv (NULL-terminated; argv[0] is a path). stdout and stderr are appended to log_path; stdin is empty. */
at_err at_child_start(struct at_child *child, const char *const *argv, const char *log_path, struct at_diag *diag);

/* The same with `input` (small: it fits a pipe) as its standard input; stdout and stderr are our stderr. On Linux our
 * death sends it AT_CHILD_ORPHANED, which ends it unless it wants a moment for a last word. */
#define AT_CHILD_ORPHANED SIGUSR1
at_err at_child_start_fed(struct at_child *child, const char *const *argv, struct at_span input, struct at_diag *diag);

/* Looks whether it still runs. */
void at_child_poll(struct at_child *child);

/* Asks it to end (SIGTERM), and after grace_ms makes it. Safe on a child that is gone or never was. */
void at_child_end(struct at_child *child, unsigned grace_ms);

/* Runs argv to its end; what it printed on stdout is appended to ret_stdout, stderr goes to log_path. An exit code
 * other than 0 becomes the error of that exit code, with the last line of its stderr as the text. AT_E_INTERRUPTED when
 * this process is interrupted meanwhile. */
at_err at_child_run(const char *const *argv, const char *log_path, struct at_diag *diag, struct at_buf *ret_stdout);

/* The last `lines` lines of a file, without control characters, at most `bytes` - 1 of them; "" when there are none. */
void at_file_tail(const char *path, int lines, char *ret_text, size_t bytes);

/* An error code whose exit code is `exit_code`. */
at_err_t at_err_of_exit_code(int exit_code);

#endif
