#include "cli/demo.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* Done, of 1: rounds finished, the steps of the running one, and the clock where there is a time limit. */
static double fraction_done(const struct at_demo *d)
{
    double steps = 0;
    for (int i = 0; i < d->member_count; i++) steps += d->member[i].step;
    double within = d->steps > 0 ? steps / d->member_count / d->steps : 0;
    double by_work = d->rounds > 0 ? (d->round + (within < 1 ? within : 1)) / d->rounds : 0;
    double by_time = d->limit_s > 0 ? d->elapsed_s / d->limit_s : 0;
    double done = by_work > by_time ? by_work : by_time;
    return d->ended ? 1 : done < 1 ? done : 1;
}

static double seconds_left(const struct at_demo *d)
{
    if (d->round >= d->rounds) return 0;
    double work = fraction_done(d), spent_s = d->elapsed_s - d->train_start_s;
    double by_work = work > 0.01 && d->train_start_s > 0 ? spent_s * (1 - work) / work : 0;
    double by_time = d->limit_s > 0 ? d->limit_s - d->elapsed_s : INFINITY;
    double left = by_work > 0 && by_work < by_time ? by_work : by_time;
    return isfinite(left) && left > 0 ? left : 0;
}

/* Over the whole run: the sum of what the members report sinks to nothing at every round edge. */
static double mean_tokens_per_s(const struct at_demo *d)
{
    double spent_s = d->elapsed_s - d->train_start_s;
    return d->train_start_s > 0 && spent_s > 0 ? (double)d->tokens / spent_s : 0;
}

static void loss_text(double loss, char *ret, size_t bytes)
{
    if (isnan(loss))
        snprintf(ret, bytes, "-");
    else
        snprintf(ret, bytes, "%.4f", loss);
}

/* With the round after which it is; that of the initial model, which stands for 0, before there is another. */
static void loss_after(double loss, unsigned rounds, const char *unit, char *ret, size_t bytes)
{
    if (isnan(loss))
        snprintf(ret, bytes, "-");
    else if (rounds == 0)
        snprintf(ret, bytes, "%.4f%s at the start", loss, unit);
    else
        snprintf(ret, bytes, "%.4f%s after round %u", loss, unit, rounds);
}

static void member_line(const struct at_demo *d, int i, char *line, size_t bytes)
{
    const struct at_demo_member *m = &d->member[i];
    const struct at_screen *s = &d->screen;
    const char *phase = m->restart_s > 0                 ? "killed"
                        : m->resume_s > 0                ? "paused"
                        : m->mend_s > 0                  ? "cut off"
                        : m->child.pid == 0              ? "not yet"
                        : !m->child.running && !d->ended ? "gone"
                        : m->phase[0]                    ? m->phase
                                                         : "starting";
    bool works = strcmp(phase, "training") == 0;
    if (s->columns < 100) { /* no bar, fewer words: all that ticks still fits 80 columns */
        snprintf(line, bytes, "  %smember-%-2d%s%-8s%s%-9s%s %3u/%u %6s tok/s  %s+%s%s -> %s%s points%s",
                 at_style(s, AT_STYLE_BOLD), i + 1, at_style(s, AT_STYLE_PLAIN), i == 0 ? "steward" : "member",
                 at_style(s, works ? AT_STYLE_GREEN : AT_STYLE_DIM), phase, at_style(s, AT_STYLE_PLAIN), m->step,
                 d->steps, at_count(m->tokens_per_s).s, at_style(s, AT_STYLE_YELLOW), at_points(m->points_pending).s,
                 at_style(s, AT_STYLE_PLAIN), at_style(s, AT_STYLE_GREEN), at_points(m->points_confirmed).s,
                 at_style(s, AT_STYLE_PLAIN));
        return;
    }
    snprintf(line, bytes, "  %smember-%-2d%s %-8s %s%-10s%s %s %3u/%u  %7s tok/s  %s+%s pending%s  %s%s confirmed%s",
             at_style(s, AT_STYLE_BOLD), i + 1, at_style(s, AT_STYLE_PLAIN), i == 0 ? "steward" : "member",
             at_style(s, works ? AT_STYLE_GREEN : AT_STYLE_DIM), phase, at_style(s, AT_STYLE_PLAIN),
             at_bar(s, d->steps ? (double)m->step / d->steps : 0, 10).s, m->step, d->steps, at_count(m->tokens_per_s).s,
             at_style(s, AT_STYLE_YELLOW), at_points(m->points_pending).s, at_style(s, AT_STYLE_PLAIN),
             at_style(s, AT_STYLE_GREEN), at_points(m->points_confirmed).s, at_style(s, AT_STYLE_PLAIN));
}

void at_demo_view_draw(struct at_demo *d)
{
    if (!d->screen.live) return;
    char line[AT_DEMO_MEMBERS_MAX + 2][640], loss[64];
    const char *lines[AT_DEMO_MEMBERS_MAX + 2];
    const struct at_screen *s = &d->screen;
    int n = 0;
    for (int i = 0; i < d->member_count; i++) {
        member_line(d, i, line[n], sizeof line[n]);
        lines[n] = line[n];
        n++;
    }
    bool narrow = s->columns < 100;
    if (isnan(d->loss_last))
        loss_after(d->loss_first, 0, narrow ? "" : " nats/byte", loss, sizeof loss);
    else
        loss_after(d->loss_last, d->loss_rounds, narrow ? "" : " nats/byte", loss, sizeof loss);
    snprintf(line[n], sizeof line[n], "  %sround %u/%u%s  held-out %s%s%s  |%s| %3.0f%%  %s tok/s  %s left%s",
             at_style(s, AT_STYLE_BOLD), d->round < d->rounds ? d->round + 1 : d->rounds, d->rounds,
             at_style(s, AT_STYLE_PLAIN), at_style(s, AT_STYLE_CYAN), loss, at_style(s, AT_STYLE_PLAIN),
             at_bar(s, fraction_done(d), narrow ? 10 : 24).s, 100 * fraction_done(d), at_count(mean_tokens_per_s(d)).s,
             at_duration(seconds_left(d)).s, d->finishing ? "  (last round)" : "");
    lines[n] = line[n];
    at_screen_draw(&d->screen, lines, n + 1);
}

void at_demo_view_round(struct at_demo *d)
{
    if (d->screen.live) return;
    char loss[64];
    loss_after(d->loss_last, d->loss_rounds, "", loss, sizeof loss);
    at_screen_say(&d->screen, "round %2u/%u  held-out %s  %s tokens  %s tok/s  %s left", d->round, d->rounds, loss,
                  at_count((double)d->tokens).s, at_count(mean_tokens_per_s(d)).s, at_duration(seconds_left(d)).s);
}

void at_demo_view_missed(struct at_demo *d, unsigned round, double loss, unsigned loss_rounds)
{
    char text[64];
    loss_after(loss, loss_rounds, "", text, sizeof text);
    if (!d->screen.live) at_screen_say(&d->screen, "round %2u/%u  held-out %s", round, d->rounds, text);
}

#define WRITES_TEXT 3.5 /* nats/byte: with more than that left, what it writes is noise */

/* Text at most `columns` wide, indented, broken at blanks. */
static void print_wrapped(const char *text, int columns, FILE *out)
{
    while (*text != '\0') {
        const char *newline = strchr(text, '\n');
        size_t fit = at_line_fit(text, columns), n = newline != NULL ? (size_t)(newline - text) : strlen(text);
        if (n > fit) {
            n = fit;
            while (n > 0 && text[n] != ' ' && text[n - 1] != ' ') n--;
            if (n == 0) n = fit;
        }
        fputs("    ", out);
        for (size_t i = 0; i < n; i++) /* no byte that a terminal would obey */
            putc((unsigned char)text[i] < 0x20 || text[i] == 0x7f ? '.' : text[i], out);
        putc('\n', out);
        text += n;
        while (*text == ' ' || *text == '\n') text++;
    }
}

static void print_sample(const struct at_demo *d, FILE *out)
{
    const struct at_screen *s = &d->screen;
    const char *bold = at_style(s, AT_STYLE_BOLD), *plain = at_style(s, AT_STYLE_PLAIN);
    if (!(d->loss_last <= WRITES_TEXT)) {
        fprintf(out, "  No sample: it is too early for it to write text (below about %.1f nats/byte it does)\n",
                WRITES_TEXT);
        return;
    }
    fprintf(out, "  %sA sample of what it writes now:%s\n", bold, plain);
    print_wrapped(d->sample != NULL ? d->sample : "",
                  s->columns > 100      ? 92
                  : s->columns - 8 > 20 ? s->columns - 8
                                        : 72,
                  out);
}

void at_demo_view_end(const struct at_demo *d, const char *program, FILE *out)
{
    const struct at_screen *s = &d->screen;
    const char *bold = at_style(s, AT_STYLE_BOLD), *plain = at_style(s, AT_STYLE_PLAIN);
    const char *first = d->member[0].dir;
    char before[32], after[32];
    loss_text(d->loss_first, before, sizeof before);
    loss_text(d->loss_last, after, sizeof after);
    char rounds[48];
    if (!isnan(d->loss_last) && d->loss_rounds < d->round)
        snprintf(rounds, sizeof rounds, "%u of %u rounds", d->loss_rounds, d->round);
    else
        snprintf(rounds, sizeof rounds, "%u rounds", d->round);
    fprintf(out, "\n  %sheld-out loss %s -> %s nats/byte%s after %s, %" PRIu64 " tokens, %s\n\n", bold, before, after,
            plain, rounds, d->tokens, at_duration(d->elapsed_s).s);
    print_sample(d, out);
    fprintf(out, "\n  %s%-10s  %12s  %16s  %8s%s\n", bold, "member", "work", "points", "share", plain);
    for (int i = 0; i < d->member_count; i++)
        fprintf(out, "  member-%-3d  %5s tokens  %16s  %7.2f%%\n", i + 1, at_count((double)d->member[i].tokens).s,
                at_points(d->member[i].points_confirmed).s, 100 * d->member[i].share);
    fprintf(out, "\n  model   %s, %s\n", d->member[0].root,
            d->roots_agree ? "the same on all members" : "but NOT the same on all members");
    fprintf(out, "  ledger  head %s\n", d->head);
    if (d->ledger_ok)
        fprintf(out, "          %sverified: every balance recomputed from %" PRIu64 " signed records%s\n",
                at_style(s, AT_STYLE_GREEN), d->records, plain);
    else
        fprintf(out, "          NOT verified: see `%s ledger verify %s`\n", program, first);
    if (d->chaos.kills + d->chaos.pauses + d->chaos.partitions > 0)
        fprintf(out, "  chaos   %u killed with kill -9, %u paused, %u cut off; every sample %s\n", d->chaos.kills,
                d->chaos.pauses, d->chaos.partitions,
                d->data_once ? "counts exactly once" : "does NOT count exactly once");
    fprintf(out, "\n  %sTry next:%s\n    %s ask --dir %s \"Call me \"\n    %s ledger show %s\n    %s points --dir %s\n",
            bold, plain, program, first, program, first, program, first);
    fprintf(out, "\n  Everything is in %s: each member's key, ledger and model in its folder, its log beside it.\n",
            d->dir);
}
