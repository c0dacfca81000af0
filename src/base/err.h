/* err.h: error codes and the text for people that goes with them.
 *
 * A function that can fail returns `at_err`: 0, or a negative code of the one list below. It must be used.
 * Outputs are named ret_*, come last, and are untouched on failure. What a person should read goes to a caller's
 * `struct at_diag`, never to a stream. Each code belongs to one exit code of the command (the contract for scripts).
 * Our own mistakes are AT_ASSERT, on in every build; a peer's bytes never reach an assert. */
#ifndef ATOLL_BASE_ERR_H
#define ATOLL_BASE_ERR_H

/*      name            exit  text */
#define AT_ERR_LIST(X)                                                                                                 \
    X(INTERNAL, 1, "internal error")                                                                                   \
    X(USAGE, 2, "wrong usage")                                                                                         \
    X(DATA, 3, "bad file or data")                                                                                     \
    X(TRUNCATED, 3, "data ends too early")                                                                             \
    X(TOO_BIG, 3, "larger than the limit")                                                                             \
    X(NOT_FOUND, 3, "not found")                                                                                       \
    X(NONFINITE, 3, "a value is not finite")                                                                           \
    X(VERIFY, 4, "verification failed")                                                                                \
    X(SIGNATURE, 4, "signature does not verify")                                                                       \
    X(ENV, 5, "the system refused")                                                                                    \
    X(NOMEM, 5, "out of memory")                                                                                       \
    X(DISK, 5, "disk error")                                                                                           \
    X(PORT, 5, "port not available")                                                                                   \
    X(KERNEL, 5, "kernels not available on this CPU")                                                                  \
    X(PEER, 6, "peer error")                                                                                           \
    X(INVITE, 6, "bad invite")                                                                                         \
    X(INTERRUPTED, 130, "interrupted")

enum at_err_index {
    AT_ERR_INDEX_OK = 0,
#define X(name, exit, text) AT_ERR_INDEX_##name,
    AT_ERR_LIST(X)
#undef X
};

enum {
    AT_OK = 0,
#define X(name, exit, text) AT_E_##name = -(int)AT_ERR_INDEX_##name,
    AT_ERR_LIST(X)
#undef X
};

typedef int at_err_t;
#define at_err __attribute__((warn_unused_result)) at_err_t

/* What a person reads when something fails. `where` names the file, line, field or peer. */
struct at_diag {
    at_err_t err;
    char where[256];
    char text[512];
};

/* Fills `diag` (may be NULL; an earlier message is kept: the first cause is the useful one) and returns `err`.
 * Control characters become '?': the words may be a stranger's. */
at_err_t at_fail(struct at_diag *diag, at_err_t err, const char *where, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Exit code of the command for an error (0 for AT_OK), and the code's own short text. Never NULL. */
int at_err_exit_code(at_err_t err);
const char *at_err_text(at_err_t err);

_Noreturn void at_assert_failed(const char *expr, const char *file, int line);
#define AT_ASSERT(expr) ((expr) ? (void)0 : at_assert_failed(#expr, __FILE__, __LINE__))

#endif
