/* demo_chaos.c: `atoll demo --chaos`: members are killed (kill -9; they start again from their folders), paused and cut off
 * (some for longer than silence is borne, so that the others go on without them) on a schedule that the seed decides. The
 * founder is not spared. A round bears only so many events: on a machine so slow that members are killed faster than they
 * can train there would be no next one. Before the end it is calm, so that everybody is there for it. */
#include "base/rng.h"
#include "cli/cli_text.h"
#include "cli/demo_job.h"

#define CALM_ROUNDS   2  /* the last rounds of the run */
#define CALM_S        15 /* before a time limit */
#define GAP_S         1.0
#define SILENT_MAX_S  8.0 /* links bear 5 s of silence */
#define FOUNDER_MAX_S 3.0 /* without it nobody goes on */

enum trouble { KILL, PAUSE, CUT, KINDS };

void at_demo_chaos_begin(struct at_demo_job *j)
{
    struct at_demo *d = &j->demo;
    d->chaos.on = j->args->chaos;
    d->chaos.next_s = at_cli_seconds();
}

static void resume(struct at_demo_member *m)
{
    if (m->resume_s > 0 && m->child.running) kill(m->child.pid, SIGCONT);
    m->resume_s = 0;
}

/* ---- cuts ---- */

/* How many connections this stopped, or how many bytes had waited at them. */
static uint64_t change_cut(struct at_demo_job *j, int who, bool cut)
{
    const struct at_demo_member *m = &j->demo.member[who];
    uint64_t sum = 0;
    for (int k = 0; k < j->demo.member_count; k++) {
        if (k == who || (m->cut.other >= 0 && k != m->cut.other)) continue;
        if (m->cut.out) sum += cut ? at_wires_cut(j->wires, who, k) : at_wires_mend(j->wires, who, k);
        if (m->cut.in) sum += cut ? at_wires_cut(j->wires, k, who) : at_wires_mend(j->wires, k, who);
    }
    return sum;
}

static void mend(struct at_demo_job *j, int who)
{
    struct at_demo *d = &j->demo;
    if (d->member[who].mend_s == 0) return;
    d->member[who].mend_s = 0;
    uint64_t waited = change_cut(j, who, false);
    at_screen_say(&d->screen, "%s  member-%d is connected again; %s bytes had waited", at_duration(d->elapsed_s).s,
                  who + 1, at_count((double)waited).s);
}

/* From all others, or from the founder alone (the founder: from one member); or one way only. */
static void cut_off(struct at_demo_job *j, int who, uint32_t draw, double s)
{
    struct at_demo *d = &j->demo;
    struct at_demo_member *m = &d->member[who];
    struct at_text at = at_duration(d->elapsed_s);
    const char *when = at.s;
    bool pair = draw % 4 == 1;
    m->cut.other = !pair ? -1 : who > 0 ? 0 : 1 + (int)(draw / 4 % (uint32_t)(d->member_count - 1));
    m->cut.out = draw % 4 != 3;
    m->cut.in = draw % 4 != 2;
    m->mend_s = d->elapsed_s + s;
    if (change_cut(j, who, true) == 0) { /* it has no link just now: nothing was cut */
        m->mend_s = 0;
        change_cut(j, who, false);
        return;
    }
    d->chaos.partitions++;
    if (pair)
        at_screen_say(&d->screen, "%s  member-%d and member-%d are cut off from each other for %.1f s", when, who + 1,
                      m->cut.other + 1, s);
    else if (m->cut.out && m->cut.in)
        at_screen_say(&d->screen, "%s  member-%d is cut off from all others for %.1f s", when, who + 1, s);
    else if (m->cut.out)
        at_screen_say(&d->screen, "%s  member-%d is cut off one way: it hears, and nobody hears it, for %.1f s", when,
                      who + 1, s);
    else
        at_screen_say(&d->screen, "%s  member-%d is cut off one way: it is heard, and hears nobody, for %.1f s", when,
                      who + 1, s);
}

/* ---- the schedule ---- */

void at_demo_chaos_calm(struct at_demo_job *j)
{
    struct at_demo *d = &j->demo;
    if (d->chaos.on) at_screen_say(&d->screen, "calm from here: everybody is to see the end");
    d->chaos.on = false;
    for (int i = 0; i < d->member_count; i++) {
        resume(&d->member[i]);
        mend(j, i);
        if (d->member[i].restart_s > 0) d->member[i].restart_s = d->elapsed_s;
    }
}

/* Each kind once in every KINDS events, in an order of the seed's. */
static enum trouble kind_of(uint64_t seed, uint64_t event)
{
    enum trouble order[KINDS] = {KILL, PAUSE, CUT};
    struct at_philox v = at_philox(seed, AT_RNG_TEST, 1, event / KINDS);
    for (uint32_t n = KINDS; n > 1; n--) {
        uint32_t at = v.v[n - 2] % n;
        enum trouble last = order[n - 1];
        order[n - 1] = order[at];
        order[at] = last;
    }
    return order[event % KINDS];
}

/* The first from `from` on who is in no trouble yet; -1: nobody. */
static int free_member(struct at_demo *d, int from)
{
    for (int i = 0; i < d->member_count; i++) {
        int who = (from + i) % d->member_count;
        struct at_demo_member *m = &d->member[who];
        at_child_poll(&m->child);
        if (m->child.running && m->resume_s == 0 && m->restart_s == 0 && m->mend_s == 0) return who;
    }
    return -1;
}

/* One event: what, to whom and for how long come from the seed and the event's number. */
static void trouble(struct at_demo_job *j)
{
    struct at_demo *d = &j->demo;
    enum trouble kind = kind_of(j->args->seed.v, d->chaos.events);
    struct at_philox v = at_philox(j->args->seed.v, AT_RNG_TEST, 0, d->chaos.events++);
    int who = free_member(d, (int)(v.v[0] % (uint32_t)d->member_count));
    double length = at_rng_unit(v.v[1], v.v[2]), now = d->elapsed_s;
    double silent_max = who == 0 ? FOUNDER_MAX_S : SILENT_MAX_S;
    d->chaos.next_s = now + GAP_S * (1 + 2 * length);
    d->chaos.round_events++;
    if (who < 0) return;
    struct at_demo_member *m = &d->member[who];
    if (kind == KILL) {
        double s = 0.3 + 2 * length;
        m->restart_s = now + s;
        kill(m->child.pid, SIGKILL);
        d->chaos.kills++;
        at_screen_say(&d->screen, "%s  kill -9 member-%d; it starts again in %.1f s", at_duration(now).s, who + 1, s);
    } else if (kind == PAUSE) {
        double s = 1 + (silent_max - 1) * length;
        m->resume_s = now + s;
        kill(m->child.pid, SIGSTOP);
        d->chaos.pauses++;
        at_screen_say(&d->screen, "%s  member-%d is paused for %.1f s", at_duration(now).s, who + 1, s);
    } else if (d->member_count > 1) {
        cut_off(j, who, v.v[3], 1 + (silent_max - 1) * length);
    }
}

/* The first of each kind come together, so that the shortest run has had them all. */
void at_demo_chaos_drive(struct at_demo_job *j)
{
    struct at_demo *d = &j->demo;
    bool near_end = d->ended || d->finishing || d->round + CALM_ROUNDS >= d->rounds ||
                    (d->limit_s > 0 && d->elapsed_s > d->limit_s - CALM_S);
    if (!d->chaos.on) return;
    if (near_end) {
        at_demo_chaos_calm(j);
        return;
    }
    for (int i = 0; i < d->member_count; i++) {
        if (d->member[i].resume_s > 0 && d->elapsed_s >= d->member[i].resume_s) resume(&d->member[i]);
        if (d->member[i].mend_s > 0 && d->elapsed_s >= d->member[i].mend_s) mend(j, i);
    }
    if (d->chaos.round != d->round) d->chaos.round_events = 0;
    d->chaos.round = d->round;
    int bears = d->member_count / 3 > 1 ? d->member_count / 3 : 1;
    while (d->chaos.events < KINDS) trouble(j);
    if (d->elapsed_s >= d->chaos.next_s && d->chaos.round_events < bears) trouble(j);
}
