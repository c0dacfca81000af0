/* progress.h: what people watch while they wait: a few live lines on a terminal, plain lines elsewhere.
 *
 * A terminal shows a block of lines that is redrawn in place; every line is cut to the terminal's width (escape
 * sequences take none, a code point takes one column). Anything that is no terminal gets no escape sequence at all.
 * Colour: only on a terminal, never with NO_COLOR (no-color.org) or TERM=dumb. Bars use UTF-8 blocks only where the
 * locale is UTF-8. Thread rule: one thread. */
#ifndef ATOLL_CLI_PROGRESS_H
#define ATOLL_CLI_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct at_screen {
    FILE *out;
    bool live, colour, utf8; /* live: a terminal that understands cursor movement */
    int columns, drawn;      /* drawn: lines of the block now on the screen */
};

void at_screen_init(struct at_screen *screen, FILE *out);

/* Replaces the block by these lines; nothing where the screen is not live. */
void at_screen_draw(struct at_screen *screen, const char *const *lines, int count);
/* Takes the block away, so that ordinary text can be printed. */
void at_screen_clear(struct at_screen *screen);

/* A line of text for people that stays: above the live block, or plainly where there is none. */
void at_screen_say(struct at_screen *screen, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Styles, "" where there is no colour. */
enum at_style { AT_STYLE_PLAIN, AT_STYLE_BOLD, AT_STYLE_DIM, AT_STYLE_GREEN, AT_STYLE_CYAN, AT_STYLE_YELLOW };
const char *at_style(const struct at_screen *screen, enum at_style style);

/* Small texts, returned in a value so that they can be used inside an expression. */
struct at_text {
    char s[32];
};
struct at_bar_text {
    char s[128];
};
struct at_bar_text at_bar(const struct at_screen *screen, double fraction, int cells); /* cells <= 40 */
struct at_text at_duration(double seconds);                                            /* 0:07, 12:40, 3:05:00 */
struct at_text at_count(double count);                                                 /* 512, 12.3 k, 983 k, 1.23 M */
struct at_text at_bytes(uint64_t bytes);                                               /* 12 MB; decimal */
struct at_text at_points(uint64_t micro_points);                                       /* 1,234.567 */

/* Bytes of `line` that fit in `columns`: whole code points, escape sequences counted as nothing. */
size_t at_line_fit(const char *line, int columns);

#endif
