#include "cli/cli_wrap.h"

#include <string.h>

static void break_line(FILE *out, int indent)
{
    fprintf(out, "\n%*s", indent, "");
}

void at_wrap(FILE *out, int column, int indent, const char *text)
{
    char before = '\0'; /* the last character of the word before */
    const char *at = text;
    for (;;) {
        /* What lies between two words: at most one break is honoured as a break, two are an empty line. */
        int spaces = 0;
        while (*at == ' ' || *at == '\n') {
            int breaks = 0, in_front = 0;
            while (*at == '\n') breaks++, at++;
            while (*at == ' ') in_front++, at++;
            if (breaks == 0 || (breaks == 1 && in_front == 0 && before != '.' && before != ':' && before != '\0')) {
                spaces = breaks + in_front;
                continue;
            }
            for (; breaks > 1; breaks--) fputc('\n', out);
            break_line(out, indent + in_front);
            column = indent + in_front;
            spaces = 0;
        }
        if (*at == '\0') break;
        int n = (int)strcspn(at, " \n");
        if (before != '\0' && column > indent && column + spaces + n > AT_COLUMNS) {
            break_line(out, indent);
            column = indent;
        } else {
            fprintf(out, "%*s", spaces, "");
            column += spaces;
        }
        fwrite(at, 1, (size_t)n, out);
        column += n;
        at += n;
        before = at[-1];
    }
    fputc('\n', out);
}
