#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Names and words may come from a foreign file or a peer: they must not move a terminal's cursor or start a line. */
static void tame(char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7F) *text = '?';
}

at_err_t at_fail(struct at_diag *diag, at_err_t err, const char *where, const char *fmt, ...)
{
    if (diag == NULL || diag->err != AT_OK) return err;
    diag->err = err;
    snprintf(diag->where, sizeof diag->where, "%s", where != NULL ? where : "");
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(diag->text, sizeof diag->text, fmt, ap);
    va_end(ap);
    tame(diag->where);
    tame(diag->text);
    return err;
}

int at_err_exit_code(at_err_t err)
{
    switch (-err) {
    case AT_ERR_INDEX_OK:
        return 0;
#define X(name, exit, text)                                                                                            \
    case AT_ERR_INDEX_##name:                                                                                          \
        return exit;
        AT_ERR_LIST(X)
#undef X
    default:
        return 1;
    }
}

const char *at_err_text(at_err_t err)
{
    switch (-err) {
    case AT_ERR_INDEX_OK:
        return "ok";
#define X(name, exit, text)                                                                                            \
    case AT_ERR_INDEX_##name:                                                                                          \
        return text;
        AT_ERR_LIST(X)
#undef X
    default:
        return "unknown error";
    }
}

void at_assert_failed(const char *expr, const char *file, int line)
{
    fprintf(stderr, "atoll: bug: %s:%d: assertion failed: %s\n", file, line, expr);
    abort();
}
