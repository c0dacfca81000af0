#include "cli/train_show.h"

#include "cli/cli_model.h"
#include "cli/train_rounds.h"
#include "os/sys.h"

#include <string.h>
#include <unistd.h>

#define LINE_S 30 /* without a terminal: in a long round, a line so often */

double at_train_clock(void)
{
    return (double)at_clock_mono_ns() * 1e-9;
}

void at_train_show_begin(struct at_train_show *s, const struct at_train_setup *setup, struct at_screen *screen)
{
    const struct at_train_args *a = setup->args;
    *s = (struct at_train_show){.setup = setup, .screen = screen, .said_s = at_train_clock()};
    s->saved = a->out != NULL && a->resume != NULL && strcmp(a->out, a->resume) == 0;
}

void at_train_show_start(struct at_train_show *s, const struct at_round *round)
{
    s->round = *round;
    s->start_s = at_train_clock();
    s->finishing = false;
}

static double tokens_of_steps(const struct at_train_show *s, double steps)
{
    return steps * s->setup->config.batch * (double)s->setup->preset->model.seq_len * s->setup->replicas;
}

/* Where the run stands, at some point of a round. */
struct standing {
    double in_round, here, done, all; /* tokens: of this round, this process, the run; of the whole run */
    double rate;                      /* tokens a second, of this process */
};

static struct standing stand(const struct at_train_show *s, double in_round, double seconds)
{
    struct standing x = {.in_round = in_round, .here = (double)s->tokens + in_round};
    x.done = (double)s->tokens_before + x.here;
    x.all = tokens_of_steps(s, (double)s->setup->config.rounds * s->setup->config.steps);
    x.rate = seconds > 0 ? x.here / seconds : 0;
    return x;
}

static struct at_text time_left(const struct standing *x)
{
    return at_duration(x->rate > 0 && x->all > x->done ? (x->all - x->done) / x->rate : 0);
}

/* The first interrupt, once a round. The rest of the round at the round's own speed. */
static void tell_finishing(struct at_train_show *s, double in_round)
{
    double spent_s = at_train_clock() - s->start_s, all = tokens_of_steps(s, s->round.steps);
    double left_s = in_round > 0 && all > in_round ? spent_s / in_round * (all - in_round) : 0;
    if (s->round.seconds > 0 && left_s > s->round.seconds) left_s = s->round.seconds;
    at_screen_say(s->screen, "Finishing round %u (about %.0f s); press Ctrl-C again to stop at once, %s.",
                  s->round.round + 1, left_s, s->saved ? "the last checkpoint is whole" : "there is no checkpoint yet");
    s->finishing = true;
}

static void draw(struct at_train_show *s, const char *who, const struct at_unit_progress *p, const struct standing *x)
{
    char line[512];
    struct at_screen *screen = s->screen;
    snprintf(line, sizeof line, "round %s%s%s  %s  %s step %2u/%u  loss %.3f  held-out %s%.3f%s  %s tok/s  %s left",
             at_style(screen, AT_STYLE_BOLD), at_train_round_place(s->setup, &s->round).s,
             at_style(screen, AT_STYLE_PLAIN), at_bar(screen, x->done / x->all, 20).s, who, p->step, s->round.steps,
             p->loss, at_style(screen, AT_STYLE_CYAN), s->loss, at_style(screen, AT_STYLE_PLAIN), at_count(x->rate).s,
             time_left(x).s);
    at_screen_draw(screen, (const char *const[]){line}, 1);
}

void at_train_show_step(struct at_train_show *s, const char *who, int units, const struct at_unit_progress *p,
                        bool side_by_side)
{
    if (s->screen == NULL) return;
    double unit = tokens_of_steps(s, s->round.steps) / s->setup->replicas, now_s = at_train_clock();
    double in_round = side_by_side ? (double)p->tokens * s->setup->replicas : units * unit + (double)p->tokens;
    struct standing x = stand(s, in_round, s->train_seconds + now_s - s->start_s);
    if (at_interrupted() && !s->finishing && s->setup->args->out != NULL) tell_finishing(s, in_round);
    if (s->screen->live) {
        draw(s, who, p, &x);
    } else if (now_s - s->said_s >= LINE_S) {
        at_screen_say(s->screen, "  step %u/%u of round %u, %s: loss %.3f  %s tok/s  %s left", p->step, s->round.steps,
                      s->round.round + 1, who, p->loss, at_count(x.rate).s, time_left(&x).s);
        s->said_s = now_s;
    }
}

void at_train_show_round(struct at_train_show *s, const struct at_round *round, double loss_mean)
{
    if (s->screen == NULL) return;
    struct standing x = stand(s, 0, s->train_seconds);
    at_screen_say(s->screen, "round %s  held-out %.4f  training %.4f  %s tok/s  %s left%s",
                  at_train_round_place(s->setup, round).s, s->loss, loss_mean, at_count(x.rate).s, time_left(&x).s,
                  at_train_round_choice(s->setup, round).s);
    s->said_s = at_train_clock();
}

at_err_t at_train_tell_interrupted(const struct at_train_args *args, uint32_t rounds, struct at_diag *diag)
{
    if (args->out == NULL)
        return at_fail(diag, AT_E_INTERRUPTED, "train", "interrupted; nothing was written (--out D keeps the model)");
    if (rounds == 0) return at_fail(diag, AT_E_INTERRUPTED, "train", "interrupted; nothing was written");
    return at_fail(diag, AT_E_INTERRUPTED, args->out,
                   "interrupted; %s holds the model after %u round%s: the same command with --resume %s goes on",
                   args->out, rounds, rounds == 1 ? "" : "s", args->out);
}

void at_train_tell_going_on(const struct at_train_args *args, struct at_diag *diag)
{
    uint32_t rounds = 0;
    size_t n = strlen(diag->text);
    if (diag->err != AT_E_PEER || args->out == NULL || at_cli_model_rounds(args->out, NULL, &rounds) != AT_OK) return;
    snprintf(diag->text + n, sizeof diag->text - n,
             "; %s holds the model after %u round%s: the same command with --resume %s goes on", args->out, rounds,
             rounds == 1 ? "" : "s", args->out);
}

static void put(int fd, const char *text)
{
    ssize_t written = write(fd, text, strlen(text));
    (void)written;
}

#define AT_ONCE "stopped at once; the last checkpoint, if there is one, is whole"

void at_train_last_words(bool json)
{
    put(STDERR_FILENO, "\natoll: train: " AT_ONCE "\n");
    if (json) put(STDOUT_FILENO, "{\"error\":{\"code\":130,\"message\":\"" AT_ONCE "\",\"where\":\"train\"}}\n");
}
