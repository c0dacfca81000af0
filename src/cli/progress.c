#include "cli/progress.h"

#include "os/sys.h"

#include <langinfo.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void at_screen_init(struct at_screen *screen, FILE *out)
{
    const char *term = getenv("TERM"), *no_colour = getenv("NO_COLOR");
    bool smart = term != NULL && term[0] != '\0' && strcmp(term, "dumb") != 0;
    bool terminal = at_sys_is_terminal(fileno(out));
    *screen = (struct at_screen){
        .out = out,
        .live = terminal && smart,
        .colour = terminal && smart && (no_colour == NULL || no_colour[0] == '\0'),
        .utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0,
        .columns = terminal ? at_sys_terminal_columns(fileno(out)) : 100,
    };
}

size_t at_line_fit(const char *line, int columns)
{
    size_t i = 0;
    int used = 0;
    while (line[i] != '\0') {
        if (line[i] == '\x1b') { /* CSI ... final letter */
            i += 1 + (line[i + 1] == '[');
            while (line[i] != '\0' && !((line[i] >= 'A' && line[i] <= 'Z') || (line[i] >= 'a' && line[i] <= 'z'))) i++;
            if (line[i] != '\0') i++;
            continue;
        }
        if (used == columns) break;
        used++;
        i++;
        while (((unsigned char)line[i] & 0xc0) == 0x80) i++;
    }
    return i;
}

void at_screen_clear(struct at_screen *screen)
{
    if (!screen->live || screen->drawn == 0) return;
    fprintf(screen->out, "\r\x1b[%dA\x1b[J", screen->drawn);
    screen->drawn = 0;
    fflush(screen->out);
}

void at_screen_draw(struct at_screen *screen, const char *const *lines, int count)
{
    if (!screen->live) return;
    screen->columns = at_sys_terminal_columns(fileno(screen->out)); /* windows are resized */
    if (screen->drawn > 0) fprintf(screen->out, "\r\x1b[%dA", screen->drawn);
    for (int i = 0; i < count; i++) {
        /* The last column stays free: some terminals wrap there at once. */
        fwrite(lines[i], 1, at_line_fit(lines[i], screen->columns - 1), screen->out);
        fprintf(screen->out, "%s\x1b[K\n", screen->colour ? "\x1b[0m" : "");
    }
    fputs("\x1b[J", screen->out);
    screen->drawn = count;
    fflush(screen->out);
}

void at_screen_say(struct at_screen *screen, const char *fmt, ...)
{
    at_screen_clear(screen);
    va_list ap;
    va_start(ap, fmt);
    vfprintf(screen->out, fmt, ap);
    va_end(ap);
    fputc('\n', screen->out);
    fflush(screen->out);
}

const char *at_style(const struct at_screen *screen, enum at_style style)
{
    static const char *const code[] = {"\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[36m", "\x1b[33m"};
    return screen->colour ? code[style] : "";
}

struct at_bar_text at_bar(const struct at_screen *screen, double fraction, int cells)
{
    static const char *const eighth[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    struct at_bar_text text = {""};
    if (!(fraction > 0)) fraction = 0;
    if (fraction > 1) fraction = 1;
    if (cells > 40) cells = 40;
    int parts = (int)(fraction * cells * 8 + 0.5), full = parts / 8, used = full;
    char *p = text.s;
    for (int i = 0; i < full; i++) p += sprintf(p, "%s", screen->utf8 ? "█" : "#");
    if (screen->utf8 && parts % 8 != 0) p += sprintf(p, "%s", eighth[parts % 8]), used++;
    for (; used < cells; used++) *p++ = screen->utf8 ? ' ' : '.';
    *p = '\0';
    return text;
}

struct at_text at_duration(double seconds)
{
    struct at_text text;
    long s = seconds > 0 && seconds < 1e9 ? (long)(seconds + 0.5) : 0;
    if (s >= 3600)
        snprintf(text.s, sizeof text.s, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(text.s, sizeof text.s, "%ld:%02ld", s / 60, s % 60);
    return text;
}

struct at_text at_count(double count)
{
    struct at_text text;
    if (count < 1000)
        snprintf(text.s, sizeof text.s, "%.0f", count);
    else if (count < 999500)
        snprintf(text.s, sizeof text.s, "%.3g k", count * 1e-3);
    else if (count < 999.5e6)
        snprintf(text.s, sizeof text.s, "%.3g M", count * 1e-6);
    else
        snprintf(text.s, sizeof text.s, "%.4g G", count * 1e-9);
    return text;
}

struct at_text at_bytes(uint64_t bytes)
{
    struct at_text text;
    double b = (double)bytes;
    if (b < 1e3)
        snprintf(text.s, sizeof text.s, "%.0f B", b);
    else if (b < 1e6)
        snprintf(text.s, sizeof text.s, "%.1f kB", b * 1e-3);
    else if (b < 1e9)
        snprintf(text.s, sizeof text.s, "%.1f MB", b * 1e-6);
    else
        snprintf(text.s, sizeof text.s, "%.2f GB", b * 1e-9);
    return text;
}

struct at_text at_points(uint64_t micro_points)
{
    struct at_text text;
    char digits[24];
    int n = snprintf(digits, sizeof digits, "%llu", (unsigned long long)(micro_points / 1000000));
    char *p = text.s;
    for (int i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0) *p++ = ',';
        *p++ = digits[i];
    }
    sprintf(p, ".%03u", (unsigned)(micro_points / 1000 % 1000));
    return text;
}
