/* demo_chaos.c: `atoll demo --chaos`: members are killed (kill -9; they start again from their folders) and paused (some of
 * them for longer than silence is borne, so that the others go on without them) on a schedule that the seed decides. The
 * founder is not spared. A round bears only so many events: on a machine so slow that members are killed faster than they
 * can train there would be no next one. Before the end it is calm, so that everybody is there for it. */
#include "base/rng.h"
#include "cli/cli_text.h"
#include "cli/demo_job.h"

#define CALM_ROUNDS   2  /* the last rounds of the run */
#define CALM_S        15 /* before a time limit */
#define GAP_S         1.0
#define PAUSE_MAX_S   8.0 /* links bear 5 s of silence */
#define FOUNDER_MAX_S 3.0 /* without it nobody goes on */

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

void at_demo_chaos_calm(struct at_demo_job *j)
{
    struct at_demo *d = &j->demo;
    if (d->chaos.on) at_screen_say(&d->screen, "calm from here: everybody is to see the end");
    d->chaos.on = false;
    for (int i = 0; i < d->member_count; i++) {
        resume(&d->member[i]);
        if (d->member[i].restart_s > 0) d->member[i].restart_s = d->elapsed_s;
    }
}

/* One event: who, what and for how long come from the seed and the event's number. */
static void trouble(struct at_demo_job *j)
{
    struct at_demo *d = &j->demo;
    struct at_philox v = at_philox(j->args->seed.v, AT_RNG_TEST, 0, d->chaos.events++);
    int who = (int)(v.v[0] % (uint32_t)d->member_count);
    double length = at_rng_unit(v.v[1], v.v[2]), now = d->elapsed_s;
    struct at_demo_member *m = &d->member[who];
    d->chaos.next_s = now + GAP_S * (1 + 2 * length);
    d->chaos.round_events++;
    at_child_poll(&m->child);
    if (!m->child.running || m->resume_s > 0 || m->restart_s > 0) return; /* it has its trouble already */
    if (v.v[3] % 2 == 0) {
        double s = 0.3 + 2 * length;
        m->restart_s = now + s;
        kill(m->child.pid, SIGKILL);
        d->chaos.kills++;
        at_screen_say(&d->screen, "%s  kill -9 member-%d; it starts again in %.1f s", at_duration(now).s, who + 1, s);
    } else {
        double s = 1 + (who == 0 ? FOUNDER_MAX_S - 1 : PAUSE_MAX_S - 1) * length;
        m->resume_s = now + s;
        kill(m->child.pid, SIGSTOP);
        d->chaos.pauses++;
        at_screen_say(&d->screen, "%s  member-%d is paused for %.1f s", at_duration(now).s, who + 1, s);
    }
}

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
    for (int i = 0; i < d->member_count; i++)
        if (d->member[i].resume_s > 0 && d->elapsed_s >= d->member[i].resume_s) resume(&d->member[i]);
    if (d->chaos.round != d->round) d->chaos.round_events = 0;
    d->chaos.round = d->round;
    int bears = d->member_count / 3 > 1 ? d->member_count / 3 : 1;
    if (d->elapsed_s >= d->chaos.next_s && d->chaos.round_events < bears) trouble(j);
}
